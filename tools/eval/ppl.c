/* Perplexity: exp of the mean negative log-likelihood per token, over windows of the validation
 * text. */
#include <math.h>

#include "tools/eval/suite.h"

struct put {
    struct tg_suite_job *job;
    struct tg_results *r;
};

static int put_bucket(void *ud, const char *name, size_t i, struct tg_err *err)
{
    struct put *p = ud;
    const struct tg_text_eval *e = &p->job->text;
    double n = (double)e->bucket[i].targets;
    if (n == 0)
        return TG_OK;
    if (!p->job->teacher)
        return tg_results_put(p->r, exp(e->bucket[i].teacher_nll / n), err, "buckets.%s.ppl", name);
    int status = tg_results_put(p->r, exp(e->bucket[i].teacher_nll / n), err,
                                "buckets.%s.teacher.ppl", name);
    if (status)
        return status;
    return tg_results_put(p->r, exp(e->bucket[i].student_nll / n), err, "buckets.%s.student.ppl",
                          name);
}

static int names(const struct tg_suite_job *job, bool with_teacher, struct tg_results *r,
                 struct tg_err *err)
{
    static const char *const paths[] = {"teacher.ppl", "student.ppl", "teacher.nll",
                                        "student.nll", "targets",     NULL};
    (void)job;
    return tg_suite_names(paths, with_teacher, r, err);
}

static int run(struct tg_suite_job *job, struct tg_results *r, struct tg_err *err)
{
    int status = tg_suite_text(job, err);
    const struct tg_text_eval *e = &job->text;
    double n = (double)e->targets;
    if (status == TG_OK && e->targets == 0)
        return tg_fail(err, TG_ERR_VALUE,
                       "validation text: no window of --length %zu has two tokens", job->length);
    if (status == TG_OK && job->teacher)
        status = tg_results_put(r, exp(e->teacher_nll / n), err, "teacher.ppl");
    /* a single model's numbers stand where tg_eval_text puts its first model */
    if (status == TG_OK)
        status = tg_results_put(r, exp((job->teacher ? e->student_nll : e->teacher_nll) / n), err,
                                "student.ppl");
    if (status == TG_OK && job->teacher)
        status = tg_results_put(r, e->student_nll / n, err, "student.nll");
    else if (status == TG_OK)
        status = tg_results_put(r, e->teacher_nll / n, err, "student.nll");
    if (status == TG_OK && job->teacher)
        status = tg_results_put(r, e->teacher_nll / n, err, "teacher.nll");
    if (status == TG_OK)
        status = tg_results_put(r, n, err, "targets");
    struct put p = {job, r};
    return status ? status : tg_suite_buckets(e, put_bucket, &p, err);
}

const struct tg_suite tg_suite_ppl = {"ppl", "perplexity on text", false, false, names, run};
