/* Mamba-1 (Gu and Dao 2023, arXiv 2312.00752) with the norms of Jamba (arXiv 2403.19887), I inner
 * channels with N states each, dt of rank R:
 *
 *   [u | z] = x Win^T + bin,  u = silu(conv(u)),  [dt | B | C] = u Wx^T, each RMS-normed if `norm`
 *   dt = softplus(dt Wdt^T + bdt),  h <- e^{-e^{A_log} dt} h + dt u B,  o = h . C + skip u
 *   y = (o silu(z)) Wout^T + bout
 *
 * State of a sequence: the last inputs of the convolution, then h [I,N]. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

/* A layer's kernels; `in` has R + 2N columns: dt, B, C */
struct parts {
    size_t rows, I, R, N, ld;
    bool normed;
    struct tg_conv conv;
    struct tg_gnorm norms[3];
    struct tg_ssm1 ssm;
};
static const char *const norm_names[3] = {"dt_norm.weight", "b_norm.weight", "c_norm.weight"};

static struct parts parts_of(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_recurrent_spec *s = &m->spec->recurrent;
    struct parts p = {.rows = b ? tg_batch_rows(b) : 0,
                      .I = s->inner,
                      .R = s->rank,
                      .N = s->state,
                      .ld = s->rank + 2 * s->state,
                      .normed = s->norm};
    const size_t sizes[3] = {p.R, p.N, p.N};
    p.conv = (struct tg_conv){.D = p.I, .taps = s->conv, .silu = true, .ld_x = 2 * p.I};
    for (size_t i = 0; i < 3; i++)
        p.norms[i] =
            (struct tg_gnorm){.groups = 1, .n = sizes[i], .eps = (float)s->norm_eps, .ld_x = p.ld};
    p.ssm = (struct tg_ssm1){.D = p.I, .N = p.N, .ld = p.ld};
    return p;
}

/* Where dt, B, C begin in a row of `in` */
static size_t column(const struct parts *p, size_t i)
{
    return i == 0 ? 0 : p->R + (i - 1) * p->N;
}

struct kept {
    float *pre;                /* [rows,2I] */
    float *u, *a, *dt, *o, *y; /* [rows,I]: convolved, dt before and after softplus, scan, gated */
    float *raw, *in, *r[3];    /* [rows,R + 2N] before and after the norms; their factors [rows] */
    float *low;                /* [rows,R] dt by itself */
    float *states;
};

static size_t kept_lay(const struct parts *p, const struct tg_batch *b, bool backward, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    float **inner[] = {&k->u, &k->a, &k->dt, &k->o, &k->y};
    k->pre = tg_carve(&c, p->rows * 2 * p->I);
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++)
        *inner[i] = tg_carve(&c, p->rows * p->I);
    k->raw = tg_carve(&c, p->rows * p->ld);
    k->in = tg_carve(&c, p->rows * p->ld);
    for (size_t i = 0; i < 3; i++)
        k->r[i] = tg_carve(&c, p->rows);
    k->low = tg_carve(&c, p->rows * p->R);
    k->states = backward ? tg_carve(&c, tg_ssm1_saved(&p->ssm, b)) : NULL;
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    return kept_lay(&p, b, true, NULL, &k);
}

struct down {
    float *dpre;              /* [rows,2I] */
    float *dy, *du, *da, *dx; /* [rows,I] */
    float *din, *low;         /* [rows,R + 2N], [rows,R] */
    float *norm, *work;
};

static size_t down_lay(const struct parts *p, const struct tg_batch *b, float *base, struct down *d)
{
    struct tg_carve c = {base, 0};
    d->dpre = tg_carve(&c, p->rows * 2 * p->I);
    d->dy = tg_carve(&c, p->rows * p->I);
    d->du = tg_carve(&c, p->rows * p->I);
    d->da = tg_carve(&c, p->rows * p->I);
    d->dx = tg_carve(&c, p->rows * p->I);
    d->din = tg_carve(&c, p->rows * p->ld);
    d->low = tg_carve(&c, p->rows * p->R);
    d->norm =
        tg_carve(&c, tg_gnorm_work(&p->norms[0], p->rows) + tg_gnorm_work(&p->norms[1], p->rows));
    d->work = tg_carve(&c, tg_ssm1_bwd_work(&p->ssm, b));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down d;
    (void)threads;
    return backward ? down_lay(&p, b, NULL, &d) : kept_lay(&p, b, false, NULL, &k);
}

/* From raw: in (normed), dt */
static void steps(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                  const struct kept *k)
{
    memcpy(k->in, k->raw, p->rows * p->ld * sizeof *k->in);
    for (size_t i = 0; p->normed && i < 3; i++)
        tg_gnorm_fwd(ctx, &p->norms[i], p->rows, k->raw + column(p, i), NULL,
                     tg_mixer_param(m, norm_names[i]), k->in + column(p, i), k->r[i]);
    for (size_t i = 0; i < p->rows * p->R; i++)
        k->low[i] = k->in[i / p->R * p->ld + i % p->R];
    tg_linear_fwd(ctx, k->low, tg_mixer_param(m, "dt.weight"), tg_mixer_param(m, "dt.bias"), k->a,
                  p->rows, p->I, p->R);
    ctx->k->softplus(k->a, k->dt, p->rows * p->I);
}

static struct tg_ssm1_in inputs_of(const struct tg_mixer *m, const struct parts *p,
                                   const struct kept *k)
{
    return (struct tg_ssm1_in){.x = k->u,
                               .dt = k->dt,
                               .A_log = tg_mixer_param(m, "A_log"),
                               .B = k->in + column(p, 1),
                               .C = k->in + column(p, 2),
                               .skip = tg_mixer_param(m, "skip")};
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const struct parts *p, const float *x, struct tg_states states, float *y,
                const struct kept *k)
{
    size_t rows = p->rows, I = p->I;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "in.weight"), tg_mixer_param(m, "in.bias"), k->pre,
                  rows, 2 * I, m->width);
    tg_conv_fwd(ctx, &p->conv, b, k->pre, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), k->u, states);
    tg_linear_fwd(ctx, k->u, tg_mixer_param(m, "x.weight"), NULL, k->raw, rows, p->ld, I);
    steps(ctx, m, p, k);
    struct tg_ssm1_in in = inputs_of(m, p, k);
    states.offset += tg_conv_state(&p->conv);
    tg_ssm1_fwd(ctx, &p->ssm, b, &in, k->o, states, k->states);
    for (size_t row = 0; row < rows; row++)
        ctx->k->silu_mul_fwd(k->pre + row * 2 * I + I, k->o + row * I, k->y + row * I, I);
    tg_linear_fwd(ctx, k->y, tg_mixer_param(m, "out.weight"), tg_mixer_param(m, "out.bias"), y,
                  rows, m->width, I);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    kept_lay(&p, b, saved, saved ? saved : work, &k);
    run(ctx, m, b, &p, x, (struct tg_states){0}, y, &k);
}

/* din holds the gradients of B and C; da that of dt: adds all of it to du */
static void steps_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                      const struct kept *k, const struct down *g, const struct tg_mixer_grads *d)
{
    for (size_t i = 0; i < p->rows * p->I; i++)
        g->da[i] /= 1 + expf(-k->a[i]);
    tg_linear_bwd(ctx, k->low, tg_mixer_param(m, "dt.weight"), g->da, g->low, 0,
                  tg_mixer_grad(m, d, "dt.weight"), tg_mixer_grad(m, d, "dt.bias"), p->rows, p->I,
                  p->R);
    for (size_t i = 0; i < p->rows * p->R; i++)
        g->din[i / p->R * p->ld + i % p->R] = g->low[i];
    for (size_t i = 0; p->normed && i < 3; i++)
        tg_gnorm_bwd(ctx, &p->norms[i], p->rows, k->raw + column(p, i), NULL,
                     tg_mixer_param(m, norm_names[i]), k->r[i], g->din + column(p, i),
                     g->din + column(p, i), NULL, tg_mixer_grad(m, d, norm_names[i]), g->norm);
    tg_linear_bwd(ctx, k->u, tg_mixer_param(m, "x.weight"), g->din, g->du, 1,
                  tg_mixer_grad(m, d, "x.weight"), NULL, p->rows, p->ld, p->I);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *d, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down g;
    size_t rows = p.rows, I = p.I;
    kept_lay(&p, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(&p, b, work, &g);
    tg_linear_bwd(ctx, k.y, tg_mixer_param(m, "out.weight"), dy, g.dy, 0,
                  tg_mixer_grad(m, d, "out.weight"), tg_mixer_grad(m, d, "out.bias"), rows,
                  m->width, I);
    for (size_t row = 0; row < rows; row++)
        ctx->k->silu_mul_bwd(k.pre + row * 2 * I + I, k.o + row * I, g.dy + row * I,
                             g.dpre + row * 2 * I + I, g.dx + row * I, I);
    struct tg_ssm1_in in = inputs_of(m, &p, &k);
    struct tg_ssm1_grads to = {.x = g.du,
                               .dt = g.da,
                               .A_log = tg_mixer_grad(m, d, "A_log"),
                               .B = g.din + column(&p, 1),
                               .C = g.din + column(&p, 2),
                               .skip = tg_mixer_grad(m, d, "skip")};
    tg_ssm1_bwd(ctx, &p.ssm, b, &in, k.states, g.dx, &to, g.work);
    steps_bwd(ctx, m, &p, &k, &g, d);
    tg_conv_bwd(ctx, &p.conv, b, k.pre, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), g.du, g.dpre, tg_mixer_grad(m, d, "conv.weight"),
                tg_mixer_grad(m, d, "conv.bias"));
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "in.weight"), g.dpre, dx, 0,
                  tg_mixer_grad(m, d, "in.weight"), tg_mixer_grad(m, d, "in.bias"), rows, 2 * I,
                  m->width);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct parts p = parts_of(m, NULL);
    (void)capacity;
    return tg_conv_state(&p.conv) + p.I * p.N;
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    (void)capacity;
    kept_lay(&p, b, false, work, &k);
    run(ctx, m, b, &p, x, (struct tg_states){states, 0}, y, &k);
}

const struct tg_mixer_ops tg_mixer_mamba1 = {
    .name = "mamba1",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = NULL,
};
