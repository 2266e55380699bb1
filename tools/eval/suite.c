#include "tools/eval/suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct tg_suite *const tg_suites[] = {
#define TG_SUITE(id) &tg_suite_##id,
#include "tools/eval/suites.def"
#undef TG_SUITE
    NULL,
};

const struct tg_suite *tg_suite_find(const char *name)
{
    for (size_t i = 0; tg_suites[i]; i++)
        if (strcmp(tg_suites[i]->name, name) == 0)
            return tg_suites[i];
    return NULL;
}

int tg_suite_names(const char *const *paths, bool with_teacher, struct tg_results *r,
                   struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; paths[i] && status == TG_OK; i++)
        if (with_teacher || strncmp(paths[i], "teacher.", 8) != 0)
            status = tg_results_put(r, NAN, err, "%s", paths[i]);
    return status;
}

int tg_suite_text(struct tg_suite_job *job, struct tg_err *err)
{
    if (job->text_done)
        return TG_OK;
    if (!job->ids || job->count < 2)
        return tg_fail(err, TG_ERR_VALUE, "validation text: %zu tokens; at least 2 are needed",
                       job->count);
    struct tg_model *first = job->teacher ? job->teacher : job->student;
    int status = tg_eval_text(first, job->teacher ? job->student : NULL, job->ids, job->count,
                              job->length, job->windows, &job->text, job->progress, err);
    job->text_done = status == TG_OK;
    return status;
}

int tg_suite_buckets(const struct tg_text_eval *e,
                     int (*fn)(void *ud, const char *name, size_t i, struct tg_err *err), void *ud,
                     struct tg_err *err)
{
    for (size_t i = 0; i < TG_EVAL_BUCKETS; i++) {
        char name[32];
        size_t lo = i ? (size_t)1 << (i - 1) : 0, hi = ((size_t)1 << i) - 1;
        if (!e->bucket[i].positions && !e->bucket[i].targets)
            continue;
        if (i + 1 == TG_EVAL_BUCKETS)
            snprintf(name, sizeof name, "%zu-", lo);
        else if (lo == hi)
            snprintf(name, sizeof name, "%zu", lo);
        else
            snprintf(name, sizeof name, "%zu-%zu", lo, hi);
        int status = fn(ud, name, i, err);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_recall_size_parse(const char *text, struct tg_recall_size *out, struct tg_err *err)
{
    char task[32];
    size_t n = strcspn(text, ":");
    char *end = NULL;
    long size = text[n] == ':' ? strtol(text + n + 1, &end, 10) : 0;
    if (n == 0 || n >= sizeof task || !end || *end || size < 1 || size > 1 << 20)
        return tg_fail(err, TG_ERR_VALUE, "recall: '%s' is not TASK:SIZE, such as needle:1024",
                       text);
    snprintf(task, sizeof task, "%.*s", (int)n, text);
    out->size = (size_t)size;
    return tg_recall_parse(task, &out->task, err);
}
