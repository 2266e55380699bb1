/* The recurrent block of Griffin (arXiv 2402.19427), as RecurrentGemma has it, I channels in G
 * blocks:
 *
 *   u = conv(x Wx^T + bx) + bconv,  r = sigmoid(u Wr + br),  i = sigmoid(u Wi + bi)   (block by
 * block) log a = -8 r softplus(decay),  h_t = a h_{t-1} + sqrt(1 - a^2) i u y = (h . gelu(x Wy^T +
 * by)) Wout^T + bout        (gelu by tanh)
 *
 * At a text's first token a = 0 and the root is 1. State of a sequence: the last inputs of the
 * convolution, then h [I]. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

enum {
    BOUND = 1000
}; /* the slope of the root is limited to it, as where such layers are trained */

/* What forward makes, all [rows,I]: into and out of the convolution, both gates, a, the recurrence,
 * y's branch before gelu, the product */
struct kept {
    float *x, *u, *r, *i, *a, *v, *h, *g, *y;
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t n = tg_batch_rows(b) * m->spec->recurrent.inner;
    float **all[] = {&k->x, &k->u, &k->r, &k->i, &k->a, &k->v, &k->h, &k->g, &k->y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = tg_carve(&c, n);
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(m, b, NULL, &k);
}

struct down {
    float *dy, *dg, *da, *dr, *di, *du, *dx; /* [rows,I] */
};

static size_t down_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct down *d)
{
    struct tg_carve c = {base, 0};
    size_t n = tg_batch_rows(b) * m->spec->recurrent.inner;
    float **all[] = {&d->dy, &d->dg, &d->da, &d->dr, &d->di, &d->du, &d->dx};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = tg_carve(&c, n);
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct down d;
    (void)threads;
    return backward ? down_lay(m, b, NULL, &d) : saved_floats(m, b);
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* g = sigmoid(u W + bias), W [G, in, out] a matrix for each block of channels */
static void block_gate(const struct tg_ctx *ctx, const struct tg_recurrent_spec *r, size_t rows,
                       const float *u, const float *w, const float *bias, float *g)
{
    size_t n = r->inner / r->groups;
    for (size_t h = 0; h < r->groups; h++)
        tg_gemm(ctx, false, false, rows, n, n, 1, u + h * n, r->inner, w + h * n * n, n, 0,
                g + h * n, r->inner);
    for (size_t i = 0; i < rows * r->inner; i++)
        g[i] = sigmoid(g[i] + bias[i % r->inner]);
}

/* dg becomes the gradient before the sigmoid; adds to du; dw and dbias may be NULL */
static void block_gate_bwd(const struct tg_ctx *ctx, const struct tg_recurrent_spec *r, size_t rows,
                           const float *u, const float *w, const float *g, float *dg, float *du,
                           float *dw, float *dbias)
{
    size_t n = r->inner / r->groups;
    for (size_t i = 0; i < rows * r->inner; i++) {
        dg[i] *= g[i] * (1 - g[i]);
        if (dbias)
            dbias[i % r->inner] += dg[i];
    }
    for (size_t h = 0; h < r->groups; h++) {
        tg_gemm(ctx, false, true, rows, n, n, 1, dg + h * n, r->inner, w + h * n * n, n, 1,
                du + h * n, r->inner);
        if (dw)
            tg_gemm(ctx, true, false, n, n, rows, 1, u + h * n, r->inner, dg + h * n, r->inner, 1,
                    dw + h * n * n, n);
    }
}

/* Is row `at` its text's first token? */
static bool begins(const struct tg_batch *b, size_t sequence, size_t row)
{
    return tg_batch_past(b, sequence) + row - b->begin[sequence] == 0;
}

static float softplus(float x)
{
    return fmaxf(x, 0) + log1pf(expf(-fabsf(x)));
}

/* From the gates: a, and v = root i u, what enters the recurrence */
static void enter(const struct tg_mixer *m, const struct tg_batch *b, const struct kept *k)
{
    size_t I = m->spec->recurrent.inner;
    const float *decay = tg_mixer_param(m, "decay");
    for (size_t q = 0; q < b->count; q++)
        for (size_t row = b->begin[q]; row < b->begin[q + 1]; row++) {
            bool first = begins(b, q, row);
            for (size_t c = 0; c < I; c++) {
                size_t at = row * I + c;
                float log_a = -8 * k->r[at] * softplus(decay[c]);
                float root = first ? 1 : sqrtf(-expm1f(2 * log_a));
                k->a[at] = first ? 0 : expf(log_a);
                k->v[at] = k->u[at] * k->i[at] * root;
            }
        }
}

/* du holds the gradient of v, da that of a: dr, di, du of u; ddecay may be NULL */
static void enter_bwd(const struct tg_mixer *m, const struct tg_batch *b, const struct kept *k,
                      const struct down *g, float *ddecay)
{
    size_t I = m->spec->recurrent.inner;
    const float *decay = tg_mixer_param(m, "decay");
    for (size_t q = 0; q < b->count; q++)
        for (size_t row = b->begin[q]; row < b->begin[q + 1]; row++) {
            bool first = begins(b, q, row);
            for (size_t c = 0; c < I; c++) {
                size_t at = row * I + c;
                float rate = softplus(decay[c]), log_a = -8 * k->r[at] * rate;
                float under = first ? 1 : -expm1f(2 * log_a), root = sqrtf(under);
                float dv = g->du[at], a2 = 1 - under;
                float dunder = dv * k->u[at] * k->i[at] /
                               sqrtf(fmaxf(4 * under, 1.0F / ((float)BOUND * BOUND)));
                float dlog = first ? 0 : g->da[at] * k->a[at] - 2 * a2 * dunder;
                g->dr[at] = -8 * rate * dlog;
                g->di[at] = dv * k->u[at] * root;
                g->du[at] = dv * k->i[at] * root;
                if (ddecay)
                    ddecay[c] += -8 * k->r[at] * dlog * sigmoid(decay[c]);
            }
        }
}

/* gelu by tanh, and its slope */
static float gelu(float v, float *slope)
{
    const float c = 0.7978845608F; /* sqrt(2 / pi) */
    float t = tanhf(c * (v + 0.044715F * v * v * v));
    *slope = 0.5F * (1 + t) + 0.5F * v * (1 - t * t) * c * (1 + 3 * 0.044715F * v * v);
    return 0.5F * v * (1 + t);
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, struct tg_states states, float *y, const struct kept *k)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    size_t rows = tg_batch_rows(b), I = r->inner;
    struct tg_conv conv = {.D = I, .taps = r->conv};
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "x.weight"), tg_mixer_param(m, "x.bias"), k->x, rows, I,
                  m->width);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "y.weight"), tg_mixer_param(m, "y.bias"), k->g, rows, I,
                  m->width);
    tg_conv_fwd(ctx, &conv, b, k->x, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), k->u, states);
    block_gate(ctx, r, rows, k->u, tg_mixer_param(m, "input_gate.weight"),
               tg_mixer_param(m, "input_gate.bias"), k->i);
    block_gate(ctx, r, rows, k->u, tg_mixer_param(m, "decay_gate.weight"),
               tg_mixer_param(m, "decay_gate.bias"), k->r);
    enter(m, b, k);
    states.offset += tg_conv_state(&conv);
    tg_lru_fwd(ctx, I, b, k->a, k->v, k->h, states);
    for (size_t i = 0; i < rows * I; i++) {
        float slope;
        k->y[i] = k->h[i] * gelu(k->g[i], &slope);
    }
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
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    size_t rows = tg_batch_rows(b), I = r->inner;
    struct tg_conv conv = {.D = I, .taps = r->conv};
    struct kept k;
    struct down g;
    kept_lay(m, b, (float *)(uintptr_t)saved, &k);
    down_lay(m, b, work, &g);
    tg_linear_bwd(ctx, k.y, tg_mixer_param(m, "out.weight"), dy, g.dy, 0,
                  tg_mixer_grad(m, d, "out.weight"), tg_mixer_grad(m, d, "out.bias"), rows,
                  m->width, I);
    for (size_t i = 0; i < rows * I; i++) {
        float slope, value = gelu(k.g[i], &slope);
        g.dg[i] = g.dy[i] * k.h[i] * slope;
        g.du[i] = g.dy[i] * value;
    }
    tg_lru_bwd(ctx, I, b, k.a, k.h, (struct tg_states){0}, g.du, g.da, (struct tg_states){0});
    enter_bwd(m, b, &k, &g, tg_mixer_grad(m, d, "decay"));
    block_gate_bwd(ctx, r, rows, k.u, tg_mixer_param(m, "input_gate.weight"), k.i, g.di, g.du,
                   tg_mixer_grad(m, d, "input_gate.weight"),
                   tg_mixer_grad(m, d, "input_gate.bias"));
    block_gate_bwd(ctx, r, rows, k.u, tg_mixer_param(m, "decay_gate.weight"), k.r, g.dr, g.du,
                   tg_mixer_grad(m, d, "decay_gate.weight"),
                   tg_mixer_grad(m, d, "decay_gate.bias"));
    tg_conv_bwd(ctx, &conv, b, k.x, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), g.du, g.dx, tg_mixer_grad(m, d, "conv.weight"),
                tg_mixer_grad(m, d, "conv.bias"));
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "x.weight"), g.dx, dx, 0,
                  tg_mixer_grad(m, d, "x.weight"), tg_mixer_grad(m, d, "x.bias"), rows, I,
                  m->width);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "y.weight"), g.dg, dx, 1,
                  tg_mixer_grad(m, d, "y.weight"), tg_mixer_grad(m, d, "y.bias"), rows, I,
                  m->width);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    (void)capacity;
    return m->spec->recurrent.conv * m->spec->recurrent.inner;
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct kept k;
    (void)capacity;
    kept_lay(m, b, work, &k);
    run(ctx, m, b, x, (struct tg_states){states, 0}, y, &k);
}

const struct tg_mixer_ops tg_mixer_rglru = {
    .name = "rglru",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = NULL,
};
