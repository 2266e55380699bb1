/* A training stage: what one micro-batch contributes. Rows of stages.def; optimizer, schedule, data
 * and saving are the trainer's. */
#ifndef TG_DISTILL_STAGE_H
#define TG_DISTILL_STAGE_H

#include "distill/hidden.h"
#include "distill/train.h"

struct tg_stage_io {
    struct tg_model *teacher, *student;
    const struct tg_stage_settings *set;
    const bool *changed;            /* [layers] whose mixer is not the teacher's */
    const bool *wanted;             /* [params] which gradients are used */
    float *grads;                   /* params.floats, accumulated */
    const int32_t *labels;          /* [rows] targets, -1: none; NULL: the next tokens */
    const struct tg_hidden *hidden; /* the teacher's states that are known; NULL: none are kept */
    uint64_t first;                 /* the stage's number of the micro-batch's first sequence */
    float weight;       /* multiply the loss's gradient by this (1 / micro-batches of the step) */
    void *memory;       /* the stage's own, from begin */
    double *layer_loss; /* [layers] align: relative error per layer, accumulated; may be NULL */
};
struct tg_stage {
    const char *name, *summary;
    bool needs_teacher;
    bool keeps_hidden; /* of the teacher it uses nothing but its last hidden states */
    bool per_layer; /* layers are independent of each other: gradients are clipped layer by layer,
                       and only mixers of changed layers can train */
    /* Settings that nobody gave; zero: what all stages have in common (settings.c). Chosen on
     * teacher-8m by KL on text that no run trained on: alignment gains from small batches and large
     * steps of the new parameters, KL on all weights from small ones (docs/benchmarks.md). */
    struct tg_stage_settings defaults;
    /* memory for micro-batches as large as `largest` */
    int (*begin)(struct tg_stage_io *io, const struct tg_batch *largest, struct tg_err *err);
    /* adds gradients of one micro-batch; *loss: its mean loss */
    int (*batch)(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b, double *loss,
                 struct tg_err *err);
    void (*end)(struct tg_stage_io *io);
};
extern const struct tg_stage *const tg_stages[];        /* NULL-terminated, order of stages.def */
const struct tg_stage *tg_stage_find(const char *name); /* NULL if unknown */

#endif
