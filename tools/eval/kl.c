/* KL(teacher || student) per position, natural log, and the share of positions with the same most
 * likely token. */
#include "tools/eval/suite.h"

struct put {
    struct tg_suite_job *job;
    struct tg_results *r;
};

static int put_bucket(void *ud, const char *name, size_t i, struct tg_err *err)
{
    struct put *p = ud;
    const struct tg_text_eval *e = &p->job->text;
    double n = (double)e->bucket[i].positions;
    if (n == 0)
        return TG_OK;
    int status = tg_results_put(p->r, e->bucket[i].kl / n, err, "buckets.%s.kl", name);
    if (status == TG_OK)
        status = tg_results_put(p->r, (double)e->bucket[i].top1 / n, err, "buckets.%s.top1", name);
    return status ? status : tg_results_put(p->r, n, err, "buckets.%s.positions", name);
}

static int names(const struct tg_suite_job *job, bool with_teacher, struct tg_results *r,
                 struct tg_err *err)
{
    static const char *const paths[] = {"kl", "top1", "positions", NULL};
    (void)job;
    return tg_suite_names(paths, with_teacher, r, err);
}

static int run(struct tg_suite_job *job, struct tg_results *r, struct tg_err *err)
{
    int status = tg_suite_text(job, err);
    const struct tg_text_eval *e = &job->text;
    double n = (double)e->positions;
    if (status == TG_OK && e->positions == 0)
        return tg_fail(err, TG_ERR_VALUE, "validation text: no window of --length %zu",
                       job->length);
    if (status == TG_OK)
        status = tg_results_put(r, e->kl / n, err, "kl");
    if (status == TG_OK)
        status = tg_results_put(r, (double)e->top1 / n, err, "top1");
    if (status == TG_OK)
        status = tg_results_put(r, n, err, "positions");
    struct put p = {job, r};
    return status ? status : tg_suite_buckets(e, put_bucket, &p, err);
}

const struct tg_suite tg_suite_kl = {
    "kl", "distance of the student's distribution from the teacher's", true, false, names, run};
