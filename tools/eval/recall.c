/* Recall: generated items whose answer stands far back; the score is the share of items answered
 * without a wrong token. */
#include <math.h>

#include "tools/eval/suite.h"

static int names(const struct tg_suite_job *job, bool with_teacher, struct tg_results *r,
                 struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; i < job->size_count && status == TG_OK; i++) {
        const char *task = tg_recall_name(job->sizes[i].task);
        if (with_teacher)
            status = tg_results_put(r, NAN, err, "recall.%s.%zu.teacher", task, job->sizes[i].size);
        if (status == TG_OK)
            status = tg_results_put(r, NAN, err, "recall.%s.%zu.student", task, job->sizes[i].size);
    }
    return status;
}

static int run(struct tg_suite_job *job, struct tg_results *r, struct tg_err *err)
{
    for (size_t i = 0; i < job->size_count; i++) {
        const struct tg_recall_size *s = &job->sizes[i];
        double score = 0;
        int status = TG_OK;
        if (job->teacher && !job->teacher_known) {
            status = tg_eval_recall(job->teacher, job->recall, s->task, s->size, job->items,
                                    job->seed, &score, job->progress, err);
            if (status == TG_OK)
                status = tg_results_put(r, score, err, "recall.%s.%zu.teacher",
                                        tg_recall_name(s->task), s->size);
        }
        if (status == TG_OK)
            status = tg_eval_recall(job->student, job->recall, s->task, s->size, job->items,
                                    job->seed, &score, job->progress, err);
        if (status == TG_OK)
            status = tg_results_put(r, score, err, "recall.%s.%zu.student", tg_recall_name(s->task),
                                    s->size);
        if (status)
            return status;
    }
    return TG_OK;
}

const struct tg_suite tg_suite_recall = {
    "recall", "needles, registers and associations found again", false, true, names, run};
