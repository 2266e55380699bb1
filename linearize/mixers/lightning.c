/* Lightning attention of MiniMax (arXiv 2501.08313), H heads of size K:
 *
 *   [q k v] = silu(x Wqkv^T),  S_t = e^{-s_h} S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t
 *   y = (w RMSnorm(o) sigmoid(x Wgate^T)) Wo^T
 *
 * q is multiplied by the layer's attn_scale. The norm goes over all heads. Slopes s_h = c 2^{-8 (h
 * + 1) / H}, h = 0.., with c of the layer in scales[0]. State of a sequence: S [H,K,K]. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/recur.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

struct parts {
    size_t rows, values, channels; /* S V, C */
    struct tg_gnorm norm;
    struct tg_recur recur;
};

static struct parts parts_of(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_layer_spec *l = m->spec;
    struct parts p = {.rows = b ? tg_batch_rows(b) : 0,
                      .values = tg_value_heads(l) * tg_value_dim(l),
                      .channels = tg_joined_rows(l)};
    p.norm = (struct tg_gnorm){.groups = 1,
                               .n = p.values,
                               .gate = TG_GATE_FN_SIGMOID,
                               .eps = (float)l->recurrent.norm_eps};
    p.recur = (struct tg_recur){.H = tg_value_heads(l),
                                .G = l->kv_heads,
                                .K = l->head_dim,
                                .V = tg_value_dim(l),
                                .gate = TG_GATE_CONSTANT,
                                .scale = (float)l->attn_scale,
                                .ld_k = p.channels,
                                .ld_v = p.channels};
    return p;
}

struct kept {
    float *pre, *mix;     /* [rows,C] before and after silu */
    float *z, *o, *y, *r; /* [rows,SV]; r [rows] */
    float *g;             /* [S] */
    float *out;           /* of the output's gate */
    float *states;
};

static size_t kept_lay(const struct tg_mixer *m, const struct parts *p, const struct tg_batch *b,
                       bool backward, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    k->pre = tg_carve(&c, p->rows * p->channels);
    k->mix = tg_carve(&c, p->rows * p->channels);
    k->z = tg_carve(&c, p->rows * p->values);
    k->o = tg_carve(&c, p->rows * p->values);
    k->y = tg_carve(&c, p->rows * p->values);
    k->r = tg_carve(&c, p->rows);
    k->g = tg_carve(&c, p->recur.H);
    k->out = tg_carve(&c, tg_proj_out_floats(m, b));
    k->states = backward ? tg_carve(&c, tg_recur_saved(&p->recur, b)) : NULL;
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    return kept_lay(m, &p, b, true, NULL, &k);
}

struct down {
    float *dmix, *dy, *dz; /* [rows,C], [rows,SV] twice */
    float *norm, *work;
};

static size_t down_lay(const struct parts *p, int threads, float *base, struct down *d)
{
    struct tg_carve c = {base, 0};
    d->dmix = tg_carve(&c, p->rows * p->channels);
    d->dy = tg_carve(&c, p->rows * p->values);
    d->dz = tg_carve(&c, p->rows * p->values);
    d->norm = tg_carve(&c, tg_gnorm_work(&p->norm, p->rows));
    d->work = tg_carve(&c, tg_recur_work(&p->recur, threads));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down d;
    if (backward)
        return down_lay(&p, threads, NULL, &d);
    return kept_lay(m, &p, b, false, NULL, &k) + tg_recur_work(&p.recur, threads);
}

static struct tg_recur_in inputs_of(const struct tg_mixer *m, const struct kept *k)
{
    size_t keys = m->spec->kv_heads * m->spec->head_dim;
    return (struct tg_recur_in){.q = k->mix, .k = k->mix + keys, .v = k->mix + 2 * keys, .g = k->g};
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const struct parts *p, const float *x, struct tg_states states, float *y,
                const struct kept *k, float *work)
{
    struct tg_recur_in in = inputs_of(m, k);
    size_t H = p->recur.H;
    tg_proj_joined_fwd(ctx, m, p->rows, x, k->pre);
    for (size_t i = 0; i < p->rows * p->channels; i++)
        k->mix[i] = k->pre[i] / (1 + expf(-k->pre[i]));
    for (size_t h = 0; h < H; h++)
        k->g[h] = (float)(-m->spec->recurrent.scales[0] * exp2(-8.0 * (double)(h + 1) / (double)H));
    tg_recur_fwd(ctx, &p->recur, b, &in, k->o, states, k->states, work);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "gate.weight"), NULL, k->z, p->rows, p->values,
                  m->width);
    tg_gnorm_fwd(ctx, &p->norm, p->rows, k->o, k->z, tg_mixer_param(m, "norm.weight"), k->y, k->r);
    tg_proj_out_fwd(ctx, m, b, x, k->y, y, k->out);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    size_t used = kept_lay(m, &p, b, saved, saved ? saved : work, &k);
    run(ctx, m, b, &p, x, (struct tg_states){0}, y, &k, saved ? work : work + used);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *d, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down g;
    kept_lay(m, &p, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(&p, ctx->threads, work, &g);
    struct tg_recur_in in = inputs_of(m, &k);
    struct tg_recur_grads to = {
        .q = g.dmix, .k = g.dmix + (in.k - in.q), .v = g.dmix + (in.v - in.q)};
    memset(g.dmix, 0, p.rows * p.channels * sizeof *g.dmix);
    tg_proj_out_bwd(ctx, m, b, k.y, dy, g.dy, d, k.out);
    tg_gnorm_bwd(ctx, &p.norm, p.rows, k.o, k.z, tg_mixer_param(m, "norm.weight"), k.r, g.dy, g.dy,
                 g.dz, tg_mixer_grad(m, d, "norm.weight"), g.norm);
    tg_recur_bwd(ctx, &p.recur, b, &in, k.states, g.dy, &to, (struct tg_states){0}, g.work);
    for (size_t i = 0; i < p.rows * p.channels; i++) {
        float s = 1 / (1 + expf(-k.pre[i]));
        g.dmix[i] *= s * (1 + k.pre[i] * (1 - s));
    }
    tg_proj_joined_bwd(ctx, m, p.rows, x, g.dmix, dx, d);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.out, dx, d);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "gate.weight"), g.dz, dx, 1,
                  tg_mixer_grad(m, d, "gate.weight"), NULL, p.rows, p.values, m->width);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct parts p = parts_of(m, NULL);
    (void)capacity;
    return tg_recur_state(&p.recur);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    (void)capacity;
    size_t used = kept_lay(m, &p, b, false, work, &k);
    run(ctx, m, b, &p, x, (struct tg_states){states, 0}, y, &k, work + used);
}

const struct tg_mixer_ops tg_mixer_lightning = {
    .name = "lightning",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = NULL,
};
