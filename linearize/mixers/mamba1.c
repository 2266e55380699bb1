/* Mamba-1 (Gu and Dao 2023, arXiv 2312.00752) with the norms of Jamba (arXiv 2403.19887), I inner
 * channels with N states each, dt of rank R:
 *
 *   [u | z] = x Win^T + bin,  u = silu(conv(u)),  [dt | B | C] = u Wx^T, each RMS-normed if `norm`
 *   dt = softplus(dt Wdt^T + bdt),  h <- e^{-e^{A_log} dt} h + dt u B,  o = h . C + skip u
 *   y = (o silu(z)) Wout^T + bout
 *
 * State of a sequence: the last inputs of the convolution, then h [I,N]. Forward only. */
#include <math.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

struct scratch {
    float *pre;        /* [rows,2I] */
    float *u, *dt, *o; /* [rows,I] */
    float *in;         /* [rows,R + 2N] */
    float *low;        /* [rows,R] dt by itself */
};

static size_t scratch_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                          struct scratch *s)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b);
    s->pre = tg_carve(&c, rows * 2 * r->inner);
    s->u = tg_carve(&c, rows * r->inner);
    s->dt = tg_carve(&c, rows * r->inner);
    s->o = tg_carve(&c, rows * r->inner);
    s->in = tg_carve(&c, rows * (r->rank + 2 * r->state));
    s->low = tg_carve(&c, rows * r->rank);
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

/* dt, B and C side by side in `in`: their norms, then dt through its projection and softplus */
static void steps(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows,
                  const struct scratch *s)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    size_t ld = r->rank + 2 * r->state, at = 0;
    const struct {
        const char *name;
        size_t n;
    } norms[] = {
        {"dt_norm.weight", r->rank}, {"b_norm.weight", r->state}, {"c_norm.weight", r->state}};
    for (size_t i = 0; i < 3; at += norms[i++].n) {
        struct tg_gnorm norm = {
            .groups = 1, .n = norms[i].n, .eps = (float)r->norm_eps, .ld_x = ld};
        if (r->norm)
            tg_gnorm_fwd(ctx, &norm, rows, s->in + at, NULL, tg_mixer_param(m, norms[i].name),
                         s->in + at, NULL);
    }
    for (size_t i = 0; i < rows * r->rank; i++)
        s->low[i] = s->in[i / r->rank * ld + i % r->rank];
    tg_linear_fwd(ctx, s->low, tg_mixer_param(m, "dt.weight"), tg_mixer_param(m, "dt.bias"), s->dt,
                  rows, r->inner, r->rank);
    for (size_t i = 0; i < rows * r->inner; i++)
        s->dt[i] = fmaxf(s->dt[i], 0) + log1pf(expf(-fabsf(s->dt[i])));
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, struct tg_states states, float *y, float *work)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    size_t rows = tg_batch_rows(b), I = r->inner;
    struct tg_conv conv = {.D = I, .taps = r->conv, .silu = true, .ld_x = 2 * I};
    struct tg_ssm1 ssm = {.D = I, .N = r->state, .ld = r->rank + 2 * r->state};
    struct scratch s;
    scratch_lay(m, b, work, &s);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "in.weight"), tg_mixer_param(m, "in.bias"), s.pre, rows,
                  2 * I, m->width);
    tg_conv_fwd(ctx, &conv, b, s.pre, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), s.u, states);
    tg_linear_fwd(ctx, s.u, tg_mixer_param(m, "x.weight"), NULL, s.in, rows, ssm.ld, I);
    steps(ctx, m, rows, &s);
    states.offset += tg_conv_state(&conv);
    tg_ssm1_fwd(ctx, &ssm, b, s.u, s.dt, tg_mixer_param(m, "A_log"), s.in + r->rank,
                s.in + r->rank + r->state, tg_mixer_param(m, "skip"), s.o, states);
    for (size_t row = 0; row < rows; row++)
        ctx->k->silu_mul_fwd(s.pre + row * 2 * I + I, s.o + row * I, s.u + row * I, I);
    tg_linear_fwd(ctx, s.u, tg_mixer_param(m, "out.weight"), tg_mixer_param(m, "out.bias"), y, rows,
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
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    (void)capacity;
    return (r->conv - 1 + r->state) * r->inner;
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

const struct tg_mixer_ops tg_mixer_mamba1 = {
    .name = "mamba1",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = NULL,
    .state_floats = state_floats,
    .step_work_floats = step_work,
    .step = step,
    .inherit = NULL,
};
