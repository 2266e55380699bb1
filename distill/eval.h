/* Evaluation numbers: what `validate`, `rank` and the training log report. All deterministic for
 * any number of threads. */
#ifndef TG_DISTILL_EVAL_H
#define TG_DISTILL_EVAL_H

#include "base/progress.h"
#include "distill/recall.h"
#include "linearize/model/model.h"

enum { TG_EVAL_BUCKETS = 16 }; /* position buckets [0,1), [1,2), [2,4), ... [2^14, inf) */

/* One pass over text ids cut into windows of `length`, each from an empty state; the last ragged
 * window counts (if it has >= 2 tokens) unless windows > 0, which takes the first `windows` whole
 * ones. NLL over targets 1..T-1 of each window; KL and top-1 over all positions. student may be
 * NULL: teacher's numbers alone. */
struct tg_text_eval {
    double teacher_nll, student_nll; /* sums, natural log */
    uint64_t targets;
    double kl; /* sum of KL(teacher || student) */
    uint64_t top1, positions;
    struct {
        double teacher_nll, student_nll, kl;
        uint64_t targets, top1, positions;
    } bucket[TG_EVAL_BUCKETS];
    uint64_t windows;
};
int tg_eval_text(struct tg_model *teacher, struct tg_model *student, const int32_t *ids,
                 size_t count, size_t length, size_t windows, struct tg_text_eval *out,
                 const struct tg_progress *p, struct tg_err *err);

/* Share of items whose whole answer is the model's greedy choice given the true prefix. */
int tg_eval_recall(struct tg_model *m, const struct tg_recall_source *s, enum tg_recall_task task,
                   size_t size, size_t items, uint64_t seed, double *score,
                   const struct tg_progress *p, struct tg_err *err);

/* Agreement of greedy continuations of prompts of prompt_len ids, spread over the text: mean over
 * the prompts of (equal leading tokens / tokens). */
int tg_eval_generation(struct tg_model *teacher, struct tg_model *student, const int32_t *ids,
                       size_t count, size_t prompts, size_t prompt_len, size_t tokens,
                       double *agreement, const struct tg_progress *p, struct tg_err *err);

#endif
