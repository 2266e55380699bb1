/* The recurrent block of Griffin (arXiv 2402.19427), as RecurrentGemma has it, I channels in G
 * blocks:
 *
 *   u = conv(x Wx^T + bx) + bconv,  r = sigmoid(u Wr + br),  i = sigmoid(u Wi + bi)   (block by
 * block) log a = -8 r softplus(decay),  h_t = a h_{t-1} + sqrt(1 - a^2) i u y = (h . gelu(x Wy^T +
 * by)) Wout^T + bout        (gelu by tanh)
 *
 * At a text's first token a = 0 and the root is 1. State of a sequence: the last inputs of the
 * convolution, then h [I]. Forward only. */
#include <math.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

struct scratch {
    float *x, *u, *a, *i, *y; /* [rows,I] */
};

static size_t scratch_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                          struct scratch *s)
{
    struct tg_carve c = {base, 0};
    size_t n = tg_batch_rows(b) * m->spec->recurrent.inner;
    s->x = tg_carve(&c, n);
    s->u = tg_carve(&c, n);
    s->a = tg_carve(&c, n);
    s->i = tg_carve(&c, n);
    s->y = tg_carve(&c, n);
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    (void)m;
    (void)b;
    return 0;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct scratch s;
    (void)threads;
    return backward ? 0 : scratch_lay(m, b, NULL, &s);
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

/* From the gates r (in a) and i: a and the gated input u of the recurrence */
static void recurrence_inputs(const struct tg_mixer *m, const struct tg_batch *b,
                              const struct scratch *s)
{
    size_t I = m->spec->recurrent.inner;
    const float *decay = tg_mixer_param(m, "decay");
    for (size_t q = 0; q < b->count; q++)
        for (size_t row = b->begin[q]; row < b->begin[q + 1]; row++) {
            bool first = tg_batch_past(b, q) + row - b->begin[q] == 0;
            for (size_t c = 0; c < I; c++) {
                size_t at = row * I + c;
                float rate = fmaxf(decay[c], 0) + log1pf(expf(-fabsf(decay[c])));
                float log_a = -8 * s->a[at] * rate;
                float root = first ? 1 : sqrtf(-expm1f(2 * log_a));
                s->a[at] = first ? 0 : expf(log_a);
                s->u[at] *= s->i[at] * root;
            }
        }
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, struct tg_states states, float *y, float *work)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    size_t rows = tg_batch_rows(b), I = r->inner;
    struct tg_conv conv = {.D = I, .taps = r->conv};
    struct scratch s;
    scratch_lay(m, b, work, &s);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "x.weight"), tg_mixer_param(m, "x.bias"), s.x, rows, I,
                  m->width);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "y.weight"), tg_mixer_param(m, "y.bias"), s.y, rows, I,
                  m->width);
    tg_conv_fwd(ctx, &conv, b, s.x, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), s.u, states);
    block_gate(ctx, r, rows, s.u, tg_mixer_param(m, "input_gate.weight"),
               tg_mixer_param(m, "input_gate.bias"), s.i);
    block_gate(ctx, r, rows, s.u, tg_mixer_param(m, "decay_gate.weight"),
               tg_mixer_param(m, "decay_gate.bias"), s.a);
    recurrence_inputs(m, b, &s);
    states.offset += tg_conv_state(&conv);
    tg_lru_fwd(ctx, I, b, s.a, s.u, s.x, states);
    for (size_t i = 0; i < rows * I; i++) {
        float v = s.y[i], t = tanhf(0.7978845608F * (v + 0.044715F * v * v * v));
        s.x[i] *= 0.5F * v * (1 + t);
    }
    tg_linear_fwd(ctx, s.x, tg_mixer_param(m, "out.weight"), tg_mixer_param(m, "out.bias"), y, rows,
                  m->width, I);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    (void)saved;
    run(ctx, m, b, x, (struct tg_states){0}, y, work);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    (void)capacity;
    return m->spec->recurrent.conv * m->spec->recurrent.inner;
}

static size_t step_work(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                        int threads)
{
    (void)capacity;
    return work_floats(m, b, threads, false);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    (void)capacity;
    run(ctx, m, b, x, (struct tg_states){states, 0}, y, work);
}

const struct tg_mixer_ops tg_mixer_rglru = {
    .name = "rglru",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = NULL,
    .state_floats = state_floats,
    .step_work_floats = step_work,
    .step = step,
    .inherit = NULL,
};
