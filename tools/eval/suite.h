/* Validation suites: rows of suites.def, one file each. A suite runs teacher and student side by
 * side and puts its numbers into the results under the paths that docs/cmd/validate.md names. */
#ifndef TG_TOOLS_SUITE_H
#define TG_TOOLS_SUITE_H

#include "base/progress.h"
#include "distill/eval.h"
#include "linearize/model/model.h"
#include "tools/eval/results.h"

struct tg_recall_size {
    enum tg_recall_task task;
    size_t size;
};

struct tg_suite_job {
    struct tg_model *teacher; /* NULL: the student alone, where a suite allows it */
    struct tg_model *student;
    const struct tg_recall_source *recall; /* NULL: no tokenizer at hand */
    const int32_t *ids;                    /* validation text */
    size_t count;
    size_t length, windows; /* of text; windows 0: all */
    const struct tg_recall_size *sizes;
    size_t size_count, items;
    size_t prompts, prompt_len, continuation; /* generation */
    uint64_t seed;
    bool teacher_known; /* the teacher's own numbers are wanted from somewhere else: skip what only
                           they need */
    const struct tg_progress *progress;
    /* ppl and kl come from one pass over the text: the first of them leaves it here for the other
     */
    struct tg_text_eval text;
    bool text_done;
};

struct tg_suite {
    const char *name, *summary;
    bool needs_teacher, needs_tokenizer;
    /* puts NaN under every path that run will fill, position buckets apart; uses job->sizes alone
     */
    int (*names)(const struct tg_suite_job *job, bool with_teacher, struct tg_results *r,
                 struct tg_err *err);
    int (*run)(struct tg_suite_job *job, struct tg_results *r, struct tg_err *err);
};
extern const struct tg_suite *const tg_suites[]; /* NULL-terminated, in the order of suites.def */
const struct tg_suite *tg_suite_find(const char *name);

/* Puts NaN under each of a NULL-terminated list of paths; those that begin with "teacher." only
 * with a teacher */
int tg_suite_names(const char *const *paths, bool with_teacher, struct tg_results *r,
                   struct tg_err *err);
/* job->text, computed once */
int tg_suite_text(struct tg_suite_job *job, struct tg_err *err);
/* Calls fn for each position bucket that holds anything, with its name "512-1023" */
int tg_suite_buckets(const struct tg_text_eval *e,
                     int (*fn)(void *ud, const char *name, size_t i, struct tg_err *err), void *ud,
                     struct tg_err *err);
/* "needle:1024,kv:32" items, each TASK:SIZE */
int tg_recall_size_parse(const char *text, struct tg_recall_size *out, struct tg_err *err);

#define TG_SUITE(id) extern const struct tg_suite tg_suite_##id;
#include "tools/eval/suites.def"
#undef TG_SUITE

#endif
