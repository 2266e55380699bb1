#include "linearize/mixers/delta_mixer.h"

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

/* A layer's kernels and sizes */
struct parts {
    size_t rows, keys, values, channels; /* G K, S V, C */
    bool low_rank;                       /* kda: gates through a low rank, one per channel */
    size_t gates, rank;                  /* of a row; of the low rank */
    float most;                          /* beta's limit */
    struct tg_conv conv;
    struct tg_gnorm unit, norm; /* of q and k; of o */
    struct tg_decay decay;
    struct tg_recur recur;
};

static struct parts parts_of(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_layer_spec *l = m->spec;
    const struct tg_recurrent_spec *s = &l->recurrent;
    const size_t heads = tg_value_heads(l), V = tg_value_dim(l);
    struct parts p = {.rows = b ? tg_batch_rows(b) : 0,
                      .keys = l->kv_heads * l->head_dim,
                      .values = heads * V,
                      .channels = tg_joined_rows(l),
                      .low_rank = tg_mixer_has(m, "f_a.weight"),
                      .rank = s->rank,
                      .most = s->negative_eigenvalues ? 2 : 1};
    size_t each = p.low_rank ? l->head_dim : 1;
    p.gates = heads * each;
    p.conv = (struct tg_conv){.D = p.channels, .taps = s->conv, .silu = true};
    p.unit = (struct tg_gnorm){
        .groups = 2 * l->kv_heads, .n = l->head_dim, .l2 = true, .eps = 1e-6F, .ld_x = p.channels};
    p.norm = (struct tg_gnorm){.groups = heads,
                               .n = V,
                               .shared = true,
                               .gate = p.low_rank ? TG_GATE_FN_SIGMOID : TG_GATE_FN_SILU,
                               .eps = (float)s->norm_eps};
    p.decay = (struct tg_decay){.H = heads, .n = each, .high = INFINITY};
    p.recur = (struct tg_recur){.H = heads,
                                .G = l->kv_heads,
                                .K = l->head_dim,
                                .V = V,
                                .gate = p.low_rank ? TG_GATE_CHANNEL : TG_GATE_SCALAR,
                                .delta = true,
                                .scale = (float)l->attn_scale,
                                .ld_k = p.channels,
                                .ld_v = p.channels};
    return p;
}

/* What forward makes; all of it is needed by backward. */
struct kept {
    float *pre, *mix, *r;  /* [rows,C] before and after the convolution (q, k normalised);
                              [rows,2G] */
    float *low_f, *low_z;  /* [rows,rank] */
    float *a, *g, *beta;   /* [rows,gates] twice, [rows,H] */
    float *z, *o, *ro, *y; /* [rows,HV]; ro [rows,H] */
    float *out;            /* of the output's gate */
    float *states;         /* of the recurrence, for backward */
};

static size_t kept_lay(const struct tg_mixer *m, const struct parts *p, const struct tg_batch *b,
                       bool backward, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t low = p->low_rank ? p->rows * p->rank : 0;
    k->pre = tg_carve(&c, p->rows * p->channels);
    k->mix = tg_carve(&c, p->rows * p->channels);
    k->r = tg_carve(&c, p->rows * p->unit.groups);
    k->low_f = tg_carve(&c, low);
    k->low_z = tg_carve(&c, low);
    k->a = tg_carve(&c, p->rows * p->gates);
    k->g = tg_carve(&c, p->rows * p->gates);
    k->beta = tg_carve(&c, p->rows * p->recur.H);
    k->z = tg_carve(&c, p->rows * p->values);
    k->o = tg_carve(&c, p->rows * p->values);
    k->ro = tg_carve(&c, p->rows * p->recur.H);
    k->y = tg_carve(&c, p->rows * p->values);
    k->out = tg_carve(&c, tg_proj_out_floats(m, b));
    k->states = backward ? tg_carve(&c, tg_recur_saved(&p->recur, b)) : NULL;
    return c.used;
}

size_t tg_delta_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    return kept_lay(m, &p, b, true, NULL, &k);
}

/* Gradients on their way down */
struct down {
    float *mix, *dmix, *dpre; /* [rows,C] */
    float *dy, *dz;           /* [rows,HV] */
    float *dg, *da, *dbeta;   /* [rows,gates] twice, [rows,H] */
    float *low;               /* [rows,rank] */
    float *norm, *work;
};

static size_t down_lay(const struct parts *p, int threads, float *base, struct down *d)
{
    struct tg_carve c = {base, 0};
    d->mix = tg_carve(&c, p->rows * p->channels);
    d->dmix = tg_carve(&c, p->rows * p->channels);
    d->dpre = tg_carve(&c, p->rows * p->channels);
    d->dy = tg_carve(&c, p->rows * p->values);
    d->dz = tg_carve(&c, p->rows * p->values);
    d->dg = tg_carve(&c, p->rows * p->gates);
    d->da = tg_carve(&c, p->rows * p->gates);
    d->dbeta = tg_carve(&c, p->rows * p->recur.H);
    d->low = tg_carve(&c, p->low_rank ? p->rows * p->rank : 0);
    d->norm = tg_carve(&c, tg_gnorm_work(&p->norm, p->rows));
    d->work = tg_carve(&c, tg_recur_work(&p->recur, threads));
    return c.used;
}

size_t tg_delta_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                           bool backward)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down d;
    if (backward)
        return down_lay(&p, threads, NULL, &d);
    return kept_lay(m, &p, b, false, NULL, &k) + tg_recur_work(&p.recur, threads);
}

static void project(const struct tg_ctx *ctx, const struct tg_mixer *m, const char *weight,
                    const float *x, float *y, size_t rows, size_t n, size_t k)
{
    tg_linear_fwd(ctx, x, tg_mixer_param(m, weight), NULL, y, rows, n, k);
}

/* Gates: a, g, beta, z */
static void gates_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                      const float *x, const struct kept *k)
{
    size_t D = m->width, H = p->recur.H;
    if (p->low_rank) {
        project(ctx, m, "f_a.weight", x, k->low_f, p->rows, p->rank, D);
        project(ctx, m, "f_b.weight", k->low_f, k->a, p->rows, p->gates, p->rank);
        project(ctx, m, "g_a.weight", x, k->low_z, p->rows, p->rank, D);
        project(ctx, m, "g_b.weight", k->low_z, k->z, p->rows, p->values, p->rank);
    } else {
        project(ctx, m, "a.weight", x, k->a, p->rows, p->gates, D);
        project(ctx, m, "z.weight", x, k->z, p->rows, p->values, D);
    }
    tg_decay_fwd(ctx, &p->decay, p->rows, k->a, tg_mixer_param(m, "dt_bias"),
                 tg_mixer_param(m, "A_log"), NULL, k->g);
    project(ctx, m, "b.weight", x, k->beta, p->rows, H, D);
    for (size_t i = 0; i < p->rows * H; i++)
        k->beta[i] = p->most / (1 + expf(-k->beta[i]));
}

static struct tg_recur_in inputs_of(const struct parts *p, const struct kept *k)
{
    return (struct tg_recur_in){k->mix, k->mix + p->keys, k->mix + 2 * p->keys, k->g, k->beta};
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const struct parts *p, const float *x, float *const *states, float *y,
                const struct kept *k, float *work)
{
    struct tg_recur_in in = inputs_of(p, k);
    tg_proj_joined_fwd(ctx, m, p->rows, x, k->pre);
    tg_conv_fwd(ctx, &p->conv, b, k->pre, tg_mixer_param(m, "conv.weight"), NULL, k->mix,
                (struct tg_states){states, 0});
    tg_gnorm_fwd(ctx, &p->unit, p->rows, k->mix, NULL, NULL, k->mix, k->r);
    gates_fwd(ctx, m, p, x, k);
    tg_recur_fwd(ctx, &p->recur, b, &in, k->o, (struct tg_states){states, tg_conv_state(&p->conv)},
                 k->states, work);
    tg_gnorm_fwd(ctx, &p->norm, p->rows, k->o, k->z, tg_mixer_param(m, "norm.weight"), k->y, k->ro);
    tg_proj_out_fwd(ctx, m, b, x, k->y, y, k->out);
}

void tg_delta_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, float *y, float *saved,
                        float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    size_t used = kept_lay(m, &p, b, saved, saved ? saved : work, &k);
    run(ctx, m, b, &p, x, NULL, y, &k, saved ? work : work + used);
}

/* Through beta, g and z to x: adds to dx [rows,D] */
static void gates_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct parts *p,
                      const float *x, const struct kept *k, const struct down *down, float *dx,
                      const struct tg_mixer_grads *d)
{
    size_t D = m->width, H = p->recur.H;
    for (size_t i = 0; i < p->rows * H; i++)
        down->dbeta[i] *= k->beta[i] * (1 - k->beta[i] / p->most);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "b.weight"), down->dbeta, dx, 1,
                  tg_mixer_grad(m, d, "b.weight"), NULL, p->rows, H, D);
    tg_decay_bwd(ctx, &p->decay, p->rows, k->a, tg_mixer_param(m, "dt_bias"),
                 tg_mixer_param(m, "A_log"), down->dg, NULL, down->da,
                 tg_mixer_grad(m, d, "dt_bias"), tg_mixer_grad(m, d, "A_log"));
    const struct {
        const char *straight, *first, *second;
        const float *low, *dy;
        size_t n;
    } ways[] = {{"a.weight", "f_a.weight", "f_b.weight", k->low_f, down->da, p->gates},
                {"z.weight", "g_a.weight", "g_b.weight", k->low_z, down->dz, p->values}};
    for (size_t i = 0; i < 2; i++) {
        const char *first = p->low_rank ? ways[i].first : ways[i].straight;
        const float *dy = ways[i].dy;
        if (p->low_rank) {
            tg_linear_bwd(ctx, ways[i].low, tg_mixer_param(m, ways[i].second), dy, down->low, 0,
                          tg_mixer_grad(m, d, ways[i].second), NULL, p->rows, ways[i].n, p->rank);
            dy = down->low;
        }
        tg_linear_bwd(ctx, x, tg_mixer_param(m, first), dy, dx, 1, tg_mixer_grad(m, d, first), NULL,
                      p->rows, p->low_rank ? p->rank : ways[i].n, D);
    }
}

void tg_delta_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, const float *dy,
                        const float *saved, float *dx, const struct tg_mixer_grads *d, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    struct down g;
    kept_lay(m, &p, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(&p, ctx->threads, work, &g);
    const float *conv = tg_mixer_param(m, "conv.weight");
    struct tg_recur_in in = inputs_of(&p, &k);
    struct tg_recur_grads to = {g.dmix, g.dmix + p.keys, g.dmix + 2 * p.keys, g.dg, g.dbeta};
    memset(g.dmix, 0, p.rows * p.channels * sizeof *g.dmix);
    memset(g.dg, 0, p.rows * p.gates * sizeof *g.dg);
    memset(g.dbeta, 0, p.rows * p.recur.H * sizeof *g.dbeta);
    tg_proj_out_bwd(ctx, m, b, k.y, dy, g.dy, d, k.out);
    tg_gnorm_bwd(ctx, &p.norm, p.rows, k.o, k.z, tg_mixer_param(m, "norm.weight"), k.ro, g.dy, g.dy,
                 g.dz, tg_mixer_grad(m, d, "norm.weight"), g.norm);
    tg_recur_bwd(ctx, &p.recur, b, &in, k.states, g.dy, &to, (struct tg_states){0}, g.work);
    /* q and k before their norm are made again */
    tg_conv_fwd(ctx, &p.conv, b, k.pre, conv, NULL, g.mix, (struct tg_states){0});
    tg_gnorm_bwd(ctx, &p.unit, p.rows, g.mix, NULL, NULL, k.r, g.dmix, g.dmix, NULL, NULL, NULL);
    tg_conv_bwd(ctx, &p.conv, b, k.pre, conv, NULL, g.dmix, g.dpre,
                tg_mixer_grad(m, d, "conv.weight"), NULL);
    tg_proj_joined_bwd(ctx, m, p.rows, x, g.dpre, dx, d);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.out, dx, d);
    gates_bwd(ctx, m, &p, x, &k, &g, dx, d);
}

size_t tg_delta_mixer_state(const struct tg_mixer *m, size_t capacity)
{
    struct parts p = parts_of(m, NULL);
    (void)capacity;
    return tg_conv_state(&p.conv) + tg_recur_state(&p.recur);
}

void tg_delta_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, size_t capacity, const float *x,
                         float *const *states, float *y, float *work)
{
    struct parts p = parts_of(m, b);
    struct kept k;
    (void)capacity;
    size_t used = kept_lay(m, &p, b, false, work, &k);
    run(ctx, m, b, &p, x, states, y, &k, work + used);
}
