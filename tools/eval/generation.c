/* Agreement of greedy continuations: mean over prompts of (equal leading tokens / tokens). */
#include "tools/eval/suite.h"

static int names(const struct tg_suite_job *job, bool with_teacher, struct tg_results *r,
                 struct tg_err *err)
{
    static const char *const paths[] = {"generation_agreement", NULL};
    (void)job;
    return tg_suite_names(paths, with_teacher, r, err);
}

static int run(struct tg_suite_job *job, struct tg_results *r, struct tg_err *err)
{
    double agreement = 0;
    int status =
        tg_eval_generation(job->teacher, job->student, job->ids, job->count, job->prompts,
                           job->prompt_len, job->continuation, &agreement, job->progress, err);
    return status ? status : tg_results_put(r, agreement, err, "generation_agreement");
}

const struct tg_suite tg_suite_generation = {
    "generation", "agreement of greedy continuations", true, false, names, run};
