#include "linearize/mixers/mamba2_core.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/recur.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"

/* A layer's kernels and sizes; a row of `pre` is [z I | xBC | dt H] */
struct parts {
    size_t rows, inner, bc, xbc, wide; /* I, G N, channels of the convolution, a row of pre */
    bool normed, scaled;
    float in_scale, out_scale;
    struct tg_conv conv;
    struct tg_gnorm norm;
    struct tg_decay decay;
    struct tg_recur recur;
};

static struct parts parts_of(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_recurrent_spec *s = &m->spec->recurrent;
    struct parts p = {.rows = b ? tg_batch_rows(b) : 0,
                      .inner = s->inner,
                      .bc = s->groups * s->state,
                      .normed = s->norm,
                      .in_scale = (float)tg_factor(s->in_scale),
                      .out_scale = (float)tg_factor(s->out_scale)};
    p.xbc = p.inner + 2 * p.bc;
    p.wide = p.inner + p.xbc + s->v_heads;
    p.scaled = p.in_scale != 1;
    for (size_t i = 0; i < 5; i++)
        p.scaled |= tg_factor(s->scales[i]) != 1;
    p.conv = (struct tg_conv){.D = p.xbc, .taps = s->conv, .silu = true, .ld_x = p.wide};
    size_t groups = s->norm_groups ? s->norm_groups : 1;
    p.norm = (struct tg_gnorm){.groups = groups,
                               .n = p.inner / groups,
                               .gate = TG_GATE_FN_SILU,
                               .gate_first = !s->norm_before_gate,
                               .eps = s->norm_eps > 0 ? (float)s->norm_eps : m->norm_eps,
                               .ld_z = p.wide};
    p.decay = (struct tg_decay){.H = s->v_heads,
                                .n = 1,
                                .ld = p.wide,
                                .low = (float)s->dt_min,
                                .high = s->dt_max > 0 ? (float)s->dt_max : INFINITY};
    p.recur = (struct tg_recur){.H = s->v_heads,
                                .G = s->groups,
                                .K = s->state,
                                .V = s->v_dim,
                                .chunk = m->chunk,
                                .gate = TG_GATE_SCALAR,
                                .scale = 1,
                                .ld_q = p.xbc,
                                .ld_k = p.xbc};
    return p;
}

/* What forward makes; all of it is needed by backward. */
struct kept {
    float *pre, *mix; /* [rows,wide], [rows,xbc] after the convolution */
    float *dt, *g;    /* [rows,H] */
    float *v, *o, *y; /* [rows,I] */
    float *r;         /* [rows,norm groups] */
    float *states;    /* of the recurrence, for backward */
};

static size_t kept_lay(const struct parts *p, const struct tg_batch *b, bool backward, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    k->pre = tg_carve(&c, p->rows * p->wide);
    k->mix = tg_carve(&c, p->rows * p->xbc);
    k->dt = tg_carve(&c, p->rows * p->recur.H);
    k->g = tg_carve(&c, p->rows * p->recur.H);
    k->v = tg_carve(&c, p->rows * p->inner);
    k->o = tg_carve(&c, p->rows * p->inner);
    k->y = tg_carve(&c, p->rows * p->inner);
    k->r = tg_carve(&c, p->rows * p->norm.groups);
    k->states = backward ? tg_carve(&c, tg_recur_saved(&p->recur, b)) : NULL;
    return c.used;
}

size_t tg_mamba2_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    return kept_lay(&p, b, true, NULL, &k);
}

/* Gradients on their way down */
struct down {
    float *dpre, *dmix; /* [rows,wide], [rows,xbc] */
    float *dy, *dv;     /* [rows,I] */
    float *dg, *ddt;    /* [rows,H] */
    float *scale;       /* [wide] */
    float *norm, *work;
    float *dout; /* [rows,D] when the output is scaled */
};

static size_t down_lay(const struct parts *p, size_t width, int threads, float *base,
                       struct down *d)
{
    struct tg_carve c = {base, 0};
    d->dpre = tg_carve(&c, p->rows * p->wide);
    d->dmix = tg_carve(&c, p->rows * p->xbc);
    d->dy = tg_carve(&c, p->rows * p->inner);
    d->dv = tg_carve(&c, p->rows * p->inner);
    d->dg = tg_carve(&c, p->rows * p->recur.H);
    d->ddt = tg_carve(&c, p->rows * p->recur.H);
    d->scale = tg_carve(&c, p->wide);
    d->norm = tg_carve(&c, tg_gnorm_work(&p->norm, p->rows));
    d->work = tg_carve(&c, tg_recur_work(&p->recur, threads));
    d->dout = tg_carve(&c, p->out_scale != 1 ? p->rows * width : 0);
    return c.used;
}

/* Scratch of forward behind what is kept: a factor for each channel of pre, then the kernels' */
static size_t scale_size(const struct parts *p)
{
    return (p->wide + 15) & ~(size_t)15;
}

size_t tg_mamba2_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                      bool backward)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down d;
    if (backward)
        return down_lay(&p, m->width, threads, NULL, &d);
    return kept_lay(&p, b, false, NULL, &k) + scale_size(&p) + tg_recur_work(&p.recur, threads);
}

size_t tg_mamba2_state(const struct tg_mixer *m)
{
    struct parts p = parts_of(m, NULL);
    return tg_conv_state(&p.conv) + tg_recur_state(&p.recur);
}

static void fill_scales(const struct tg_mixer *m, const struct parts *p, float *scale)
{
    const size_t sizes[] = {p->inner, p->inner, p->bc, p->bc, p->recur.H};
    size_t at = 0;
    for (size_t part = 0; part < 5; part++)
        for (size_t i = 0; i < sizes[part]; i++)
            scale[at++] = (float)tg_factor(m->spec->recurrent.scales[part]);
}

static void project_in(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                       const float *x, float *pre, float *scale)
{
    const float *bias = tg_mixer_param(m, "in.bias");
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "in.weight"), p->scaled ? NULL : bias, pre, p->rows,
                  p->wide, m->width);
    if (!p->scaled)
        return;
    fill_scales(m, p, scale);
    for (size_t row = 0; row < p->rows; row++)
        for (size_t i = 0; i < p->wide; i++) {
            float *to = pre + row * p->wide + i;
            *to = scale[i] * (p->in_scale * *to + (bias ? bias[i] : 0));
        }
}

/* o = o + skip x; y = the gated o */
static void gate_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                     const struct kept *k)
{
    const float *skip = tg_mixer_param(m, "skip");
    for (size_t row = 0; row < p->rows; row++)
        for (size_t h = 0; h < p->recur.H; h++)
            ctx->k->axpy(skip[h], k->mix + row * p->xbc + h * p->recur.V,
                         k->o + row * p->inner + h * p->recur.V, p->recur.V);
    if (p->normed)
        tg_gnorm_fwd(ctx, &p->norm, p->rows, k->o, k->pre, tg_mixer_param(m, "norm.weight"), k->y,
                     k->r);
    for (size_t row = 0; !p->normed && row < p->rows; row++)
        ctx->k->silu_mul_fwd(k->pre + row * p->wide, k->o + row * p->inner, k->y + row * p->inner,
                             p->inner);
}

static struct tg_recur_in inputs_of(const struct parts *p, const struct kept *k)
{
    return (struct tg_recur_in){
        .q = k->mix + p->inner + p->bc, .k = k->mix + p->inner, .v = k->v, .g = k->g};
}

void tg_mamba2_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   const float *x, struct tg_states states, float *y, float *saved, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    size_t used = kept_lay(&p, b, saved, saved ? saved : work, &k);
    float *scale = saved ? work : work + used, *rest = scale + scale_size(&p);
    project_in(ctx, m, &p, x, k.pre, scale);
    tg_conv_fwd(ctx, &p.conv, b, k.pre + p.inner, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), k.mix, states);
    tg_decay_fwd(ctx, &p.decay, p.rows, k.pre + p.inner + p.xbc, tg_mixer_param(m, "dt_bias"),
                 tg_mixer_param(m, "A_log"), k.dt, k.g);
    for (size_t i = 0; i < p.rows * p.inner; i++)
        k.v[i] = k.dt[i / p.recur.V] * k.mix[i / p.inner * p.xbc + i % p.inner];
    struct tg_recur_in in = inputs_of(&p, &k);
    states.offset += tg_conv_state(&p.conv);
    tg_recur_fwd(ctx, &p.recur, b, &in, k.o, states, k.states, rest);
    gate_fwd(ctx, m, &p, &k);
    tg_linear_fwd(ctx, k.y, tg_mixer_param(m, "out.weight"), tg_mixer_param(m, "out.bias"), y,
                  p.rows, m->width, p.inner);
    if (p.out_scale != 1)
        ctx->k->scale(p.out_scale, y, p.rows * m->width);
}

/* dy of the gated o becomes do; dz is written into dpre */
static void gate_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                     const struct kept *k, const struct down *g, const struct tg_mixer_grads *d)
{
    if (p->normed)
        tg_gnorm_bwd(ctx, &p->norm, p->rows, k->o, k->pre, tg_mixer_param(m, "norm.weight"), k->r,
                     g->dy, g->dy, g->dpre, tg_mixer_grad(m, d, "norm.weight"), g->norm);
    for (size_t row = 0; !p->normed && row < p->rows; row++) {
        float *dy = g->dy + row * p->inner, *dz = g->dpre + row * p->wide;
        memcpy(g->dv, dy, p->inner * sizeof *dy); /* dv is not needed yet */
        ctx->k->silu_mul_bwd(k->pre + row * p->wide, k->o + row * p->inner, g->dv, dz, dy,
                             p->inner);
    }
}

/* Through v = dt x and o += skip x: ddt, x's part of dmix, dskip */
static void values_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                       const struct kept *k, const struct down *g, float *dskip)
{
    const float *skip = tg_mixer_param(m, "skip");
    size_t H = p->recur.H, V = p->recur.V;
    for (size_t i = 0; i < p->rows * H; i++) {
        size_t row = i / H, h = i % H;
        const float *x = k->mix + row * p->xbc + h * V, *dout = g->dy + i * V, *dv = g->dv + i * V;
        float *dx = g->dmix + row * p->xbc + h * V;
        g->ddt[i] = ctx->k->dot(dv, x, V);
        if (dskip)
            dskip[h] += ctx->k->dot(dout, x, V);
        ctx->k->axpy(k->dt[i], dv, dx, V);
        ctx->k->axpy(skip[h], dout, dx, V);
    }
}

static void project_in_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                           const struct parts *p, const float *x, const struct down *g, float *dx,
                           const struct tg_mixer_grads *d)
{
    float *dbias = tg_mixer_grad(m, d, "in.bias");
    if (p->scaled) {
        fill_scales(m, p, g->scale);
        for (size_t row = 0; row < p->rows; row++)
            for (size_t i = 0; i < p->wide; i++) {
                float *dp = g->dpre + row * p->wide + i;
                *dp *= g->scale[i];
                if (dbias)
                    dbias[i] += *dp;
                *dp *= p->in_scale;
            }
    }
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "in.weight"), g->dpre, dx, 0,
                  tg_mixer_grad(m, d, "in.weight"), p->scaled ? NULL : dbias, p->rows, p->wide,
                  m->width);
}

void tg_mamba2_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   const float *x, const float *dy, const float *saved, float *dx,
                   const struct tg_mixer_grads *d, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down g;
    kept_lay(&p, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(&p, m->width, ctx->threads, work, &g);
    if (p.out_scale != 1) {
        memcpy(g.dout, dy, p.rows * m->width * sizeof *dy);
        ctx->k->scale(p.out_scale, g.dout, p.rows * m->width);
        dy = g.dout;
    }
    tg_linear_bwd(ctx, k.y, tg_mixer_param(m, "out.weight"), dy, g.dy, 0,
                  tg_mixer_grad(m, d, "out.weight"), tg_mixer_grad(m, d, "out.bias"), p.rows,
                  m->width, p.inner);
    gate_bwd(ctx, m, &p, &k, &g, d);
    memset(g.dmix, 0, p.rows * p.xbc * sizeof *g.dmix);
    memset(g.dv, 0, p.rows * p.inner * sizeof *g.dv);
    memset(g.dg, 0, p.rows * p.recur.H * sizeof *g.dg);
    struct tg_recur_in in = inputs_of(&p, &k);
    struct tg_recur_grads to = {
        .q = g.dmix + p.inner + p.bc, .k = g.dmix + p.inner, .v = g.dv, .g = g.dg};
    tg_recur_bwd(ctx, &p.recur, b, &in, k.states, g.dy, &to, (struct tg_states){0}, g.work);
    values_bwd(ctx, m, &p, &k, &g, tg_mixer_grad(m, d, "skip"));
    tg_decay_bwd(ctx, &p.decay, p.rows, k.pre + p.inner + p.xbc, tg_mixer_param(m, "dt_bias"),
                 tg_mixer_param(m, "A_log"), g.dg, g.ddt, g.dpre + p.inner + p.xbc,
                 tg_mixer_grad(m, d, "dt_bias"), tg_mixer_grad(m, d, "A_log"));
    tg_conv_bwd(ctx, &p.conv, b, k.pre + p.inner, tg_mixer_param(m, "conv.weight"),
                tg_mixer_param(m, "conv.bias"), g.dmix, g.dpre + p.inner,
                tg_mixer_grad(m, d, "conv.weight"), tg_mixer_grad(m, d, "conv.bias"));
    project_in_bwd(ctx, m, &p, x, &g, dx, d);
}
