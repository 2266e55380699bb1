/* Softmax attention and Mamba-2 on the same input, added (Falcon-H1, arXiv 2507.22448):
 *
 *   y = a attention(x) + mamba2(x),  a = beside_scale
 *
 * Attention's parameters are the first of the row, in the order of the softmax mixer's own. State:
 * attention's cache, then Mamba-2's. */
#include <string.h>

#include "base/mem.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/mamba2_core.h"
#include "linearize/mixers/rows.h"

/* The same layer seen as a softmax layer */
struct attention {
    struct tg_layer_spec spec;
    struct tg_mixer m;
};

static void attention_of(const struct tg_mixer *m, struct attention *a)
{
    a->spec = *m->spec;
    a->spec.mixer = tg_mixer_schema_find(tg_mixer_softmax.name);
    a->m = *m;
    a->m.spec = &a->spec;
}

static float beside(const struct tg_mixer *m)
{
    return (float)tg_factor(m->spec->recurrent.beside_scale);
}

static size_t padded(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct attention a;
    attention_of(m, &a);
    return padded(tg_joint_mixer_saved(&a.m, b)) + tg_mamba2_saved(m, b);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* One output [rows,D], then the work of the one or the other */
static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct attention a;
    attention_of(m, &a);
    return padded(tg_batch_rows(b) * m->width) +
           larger(tg_joint_mixer_work(&a.m, b, threads, backward),
                  tg_mamba2_work(m, b, threads, backward));
}

/* y = beside other + y */
static void add(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *other, float *y)
{
    ctx->k->axpy(beside(m), other, y, tg_batch_rows(b) * m->width);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct attention a;
    attention_of(m, &a);
    float *rest = work + padded(tg_batch_rows(b) * m->width);
    tg_joint_mixer_fwd(ctx, &a.m, b, x, work, saved, rest);
    tg_mamba2_fwd(ctx, m, b, x, (struct tg_states){0}, y,
                  saved ? saved + padded(tg_joint_mixer_saved(&a.m, b)) : NULL, rest);
    add(ctx, m, b, work, y);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *d, float *work)
{
    struct attention a;
    size_t n = tg_batch_rows(b) * m->width;
    float *rest = work + padded(n);
    attention_of(m, &a);
    /* attention with a scaled gradient into dx, then Mamba-2 into work */
    memcpy(work, dy, n * sizeof *dy);
    ctx->k->scale(beside(m), work, n);
    tg_joint_mixer_bwd(ctx, &a.m, b, x, work, saved, dx, d, rest);
    tg_mamba2_bwd(ctx, m, b, x, dy, saved + padded(tg_joint_mixer_saved(&a.m, b)), work, d, rest);
    ctx->k->axpy(1, work, dx, n);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct attention a;
    attention_of(m, &a);
    return tg_joint_mixer_state(&a.m, capacity) + tg_mamba2_state(m);
}

static size_t step_work(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                        int threads)
{
    struct attention a;
    attention_of(m, &a);
    return padded(tg_batch_rows(b) * m->width) +
           larger(tg_joint_mixer_step_work(&a.m, b, capacity, threads),
                  tg_mamba2_work(m, b, threads, false));
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct attention a;
    float *rest = work + padded(tg_batch_rows(b) * m->width);
    attention_of(m, &a);
    tg_joint_mixer_step(ctx, &a.m, b, capacity, x, states, work, rest);
    tg_mamba2_fwd(ctx, m, b, x, (struct tg_states){states, tg_joint_mixer_state(&a.m, capacity)}, y,
                  NULL, rest);
    add(ctx, m, b, work, y);
}

const struct tg_mixer_ops tg_mixer_mamba2_attention = {
    .name = "mamba2_attention",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step_work_floats = step_work,
    .step = step,
    .inherit = NULL,
};
