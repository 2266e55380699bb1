/* AdamW over segments of parameters, with clipping by the norm of groups of segments. Moments are
 * one block; every sum is over fixed blocks added in order. Internal to distill. */
#ifndef TG_DISTILL_OPTIM_H
#define TG_DISTILL_OPTIM_H

#include "distill/train.h"

struct tg_segment {
    char name[96];
    float *p; /* borrowed */
    float *g; /* borrowed */
    size_t count;
    size_t group;   /* gradients of a group are clipped together */
    bool is_new;    /* learns at lr_new */
    bool decays;    /* weight decay applies */
    bool factor;    /* of LoRA: not a parameter of the model */
    size_t moments; /* where its m and v begin in the blocks */
    float *m, *v;   /* set by tg_optim_init */
};
struct tg_optim {
    struct tg_segment *segments; /* owned */
    size_t count, cap, groups;
    float *m, *v; /* owned */
    size_t floats;
    double *sums, *norms; /* owned: [blocks], [groups] */
    struct tg_optim_block {
        size_t segment, from, count;
    } * blocks; /* owned */
    size_t block_count;
};
int tg_optim_add(struct tg_optim *o, const char *prefix, const char *name, float *p, float *g,
                 size_t count, struct tg_segment **out, struct tg_err *err);
/* After all segments are added: zero moments. */
int tg_optim_init(struct tg_optim *o, struct tg_err *err);
void tg_optim_release(struct tg_optim *o);
/* Norms of the groups' gradients; returns that of all together. */
double tg_optim_norm(struct tg_optim *o, const struct tg_ctx *ctx);
/* Update number `step` (from 1), after tg_optim_norm. */
void tg_optim_step(struct tg_optim *o, const struct tg_ctx *ctx, const struct tg_stage_settings *s,
                   uint64_t step, double lr, double lr_new);

/* Share of the learning rate at update `step` (from 0) of `steps`: linear warm-up, then a cosine
 * down to `end`. */
double tg_schedule(uint64_t step, uint64_t steps, double warmup, double end);

#endif
