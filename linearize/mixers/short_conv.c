/* Gated short convolution of LFM2, I inner channels:
 *
 *   [B C u] = x Win^T + bin,  y = (C . conv(B . u)) Wout^T + bout
 *
 * State of a sequence: the last inputs B . u of the convolution. */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

static struct tg_conv conv_of(const struct tg_mixer *m)
{
    return (struct tg_conv){.D = m->spec->recurrent.inner, .taps = m->spec->recurrent.conv};
}

struct kept {
    float *pre;       /* [rows,3I] */
    float *u, *c, *y; /* [rows,I]: into and out of the convolution, gated */
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t n = tg_batch_rows(b) * m->spec->recurrent.inner;
    k->pre = tg_carve(&c, 3 * n);
    k->u = tg_carve(&c, n);
    k->c = tg_carve(&c, n);
    k->y = tg_carve(&c, n);
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(m, b, NULL, &k);
}

struct down {
    float *dpre, *dy, *du; /* [rows,3I], [rows,I] twice */
};

static size_t down_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct down *d)
{
    struct tg_carve c = {base, 0};
    size_t n = tg_batch_rows(b) * m->spec->recurrent.inner;
    d->dpre = tg_carve(&c, 3 * n);
    d->dy = tg_carve(&c, n);
    d->du = tg_carve(&c, n);
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct down d;
    (void)threads;
    return backward ? down_lay(m, b, NULL, &d) : saved_floats(m, b);
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, struct tg_states states, float *y, const struct kept *k)
{
    struct tg_conv conv = conv_of(m);
    size_t rows = tg_batch_rows(b), I = conv.D;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "in.weight"), tg_mixer_param(m, "in.bias"), k->pre,
                  rows, 3 * I, m->width);
    for (size_t i = 0; i < rows * I; i++) {
        const float *pre = k->pre + i / I * 3 * I + i % I;
        k->u[i] = pre[0] * pre[2 * I];
    }
    tg_conv_fwd(ctx, &conv, b, k->u, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), k->c, states);
    for (size_t i = 0; i < rows * I; i++)
        k->y[i] = k->pre[i / I * 3 * I + I + i % I] * k->c[i];
    tg_linear_fwd(ctx, k->y, tg_mixer_param(m, "out.weight"), tg_mixer_param(m, "out.bias"), y,
                  rows, m->width, I);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct kept k;
    kept_lay(m, b, saved ? saved : work, &k);
    run(ctx, m, b, x, (struct tg_states){0}, y, &k);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *d, float *work)
{
    struct tg_conv conv = conv_of(m);
    struct kept k;
    struct down g;
    size_t rows = tg_batch_rows(b), I = conv.D;
    kept_lay(m, b, (float *)(uintptr_t)saved, &k);
    down_lay(m, b, work, &g);
    tg_linear_bwd(ctx, k.y, tg_mixer_param(m, "out.weight"), dy, g.dy, 0,
                  tg_mixer_grad(m, d, "out.weight"), tg_mixer_grad(m, d, "out.bias"), rows,
                  m->width, I);
    for (size_t i = 0; i < rows * I; i++) {
        size_t at = i / I * 3 * I + I + i % I;
        g.dpre[at] = g.dy[i] * k.c[i];
        g.dy[i] *= k.pre[at];
    }
    tg_conv_bwd(ctx, &conv, b, k.u, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), g.dy, g.du, tg_mixer_grad(m, d, "conv.weight"),
                tg_mixer_grad(m, d, "conv.bias"));
    for (size_t i = 0; i < rows * I; i++) {
        size_t at = i / I * 3 * I + i % I;
        g.dpre[at] = g.du[i] * k.pre[at + 2 * I];
        g.dpre[at + 2 * I] = g.du[i] * k.pre[at];
    }
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "in.weight"), g.dpre, dx, 0,
                  tg_mixer_grad(m, d, "in.weight"), tg_mixer_grad(m, d, "in.bias"), rows, 3 * I,
                  m->width);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct tg_conv conv = conv_of(m);
    (void)capacity;
    return tg_conv_state(&conv);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct kept k;
    (void)capacity;
    kept_lay(m, b, work, &k);
    run(ctx, m, b, x, (struct tg_states){states, 0}, y, &k);
}

const struct tg_mixer_ops tg_mixer_short_conv = {
    .name = "short_conv",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = NULL,
};
