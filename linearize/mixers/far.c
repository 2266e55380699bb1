/* The far branch; equations in far.h.
 *
 * Gradient of the decay of a shifted key: with w_t = k'_t . dk'_t, every gate passed since the key
 * was seen gets it: dg_l += sum of w_t over l <= t < l + lag. The sums slide along the rows in
 * double. */
#include "linearize/mixers/far.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/outer.h"

float tg_log_sigmoid(float x)
{
    return x < 0 ? x - log1pf(expf(x)) : -log1pf(expf(-x));
}

struct kept {
    float *qf,
        *kf; /* [H][rows][features], kf before the decay; per sequence its last T - lag rows */
    float *states;
};

static size_t rows_of(const struct tg_far *f, const struct tg_batch *b, size_t i)
{
    size_t T = b->begin[i + 1] - b->begin[i];
    return T > f->lag ? T - f->lag : 0;
}

/* Far rows, and floats of chunk-boundary states, of the sequences before i */
static void before(const struct tg_far *f, const struct tg_batch *b, size_t i, size_t *rows,
                   size_t *states)
{
    *rows = *states = 0;
    for (size_t s = 0; s < i; s++) {
        size_t n = rows_of(f, b, s);
        *rows += n;
        *states += f->H * tg_outer_head_saved(n, tg_map_features(&f->map), f->V, f->chunk);
    }
}

static size_t kept_lay(const struct tg_far *f, const struct tg_batch *b, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t rows, states, features = tg_map_features(&f->map);
    before(f, b, b->count, &rows, &states);
    k->qf = tg_carve(&c, rows * f->H * features);
    k->kf = tg_carve(&c, rows * f->H * features);
    k->states = tg_carve(&c, states);
    return c.used;
}

size_t tg_far_saved(const struct tg_far *f, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(f, b, NULL, &k);
}

size_t tg_far_state(const struct tg_far *f)
{
    return f->H * tg_map_features(&f->map) * (f->V + 1);
}

/* Rows of a strip: whole chunks, few enough for the features of a head to stay in a cache */
static size_t strip_rows(const struct tg_far *f)
{
    enum { STRIP_FLOATS = 1 << 15 };
    const size_t C = tg_outer_chunk_rows(f->chunk), rows = STRIP_FLOATS / tg_map_features(&f->map);
    return C < rows ? rows / C * C : C;
}

/* Of the longest strip of a batch */
static size_t most_rows(const struct tg_far *f, const struct tg_batch *b)
{
    size_t most = 0;
    for (size_t i = 0; i < b->count; i++) {
        size_t n = rows_of(f, b, i);
        most = n > most ? n : most;
    }
    return most < strip_rows(f) ? most : strip_rows(f);
}

struct scratch {
    float *qf, *kf; /* forward without saved: features; backward: their gradients. [n, features] */
    float *kd;      /* [n, features] decayed keys */
    float *decay;   /* [n] */
    double *w;      /* [n] */
    float *outer;
    float *states; /* [H] of heads, when the caller keeps none: state or its gradient */
};

static size_t scratch_lay(const struct tg_far *f, size_t n, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    size_t features = tg_map_features(&f->map);
    s->qf = tg_carve(&c, n * features);
    s->kf = tg_carve(&c, n * features);
    s->kd = tg_carve(&c, n * features);
    s->decay = tg_carve(&c, n);
    s->w = (double *)(void *)tg_carve(&c, 2 * n);
    s->outer = tg_carve(&c, f->across ? tg_outer_across_work(n, features, f->V, f->chunk)
                                      : tg_outer_head_work(features, f->V, f->chunk));
    s->states = tg_carve(&c, tg_far_state(f));
    return c.used;
}

struct job {
    const struct tg_ctx *ctx;
    const struct tg_far *f;
    const struct tg_batch *b;
    const float *q, *k, *v, *g;
    float *num, *den;
    float *const *states;
    bool keep;
    struct kept kept;
    const float *dnum, *dden;
    float *dq, *dk, *dv, *dg;
    float *dwq, *dwk; /* [B][H,K,F] of each sequence */
    float *work;
    size_t per_worker, n_max;
    struct tg_shares shares; /* of query heads forward, of kv heads backward */
};

static size_t work_lay(const struct tg_far *f, const struct tg_batch *b, int threads, bool backward,
                       float *base, struct job *j)
{
    struct tg_carve c = {base, 0};
    struct scratch s;
    size_t weights = tg_feature_map_has_weights(f->map.kind) ? f->H * f->map.K * f->map.F : 0;
    j->shares = tg_batch_shares(b, backward ? f->G : f->H, threads);
    j->n_max = most_rows(f, b);
    j->per_worker = scratch_lay(f, j->n_max, NULL, &s);
    j->dwq = tg_carve(&c, backward ? b->count * weights : 0);
    j->dwk = tg_carve(&c, backward ? b->count * weights : 0);
    j->work = tg_carve(&c, j->per_worker * (size_t)threads);
    return c.used;
}

size_t tg_far_work(const struct tg_far *f, const struct tg_batch *b, int threads, bool backward)
{
    struct job j;
    return work_lay(f, b, threads, backward, NULL, &j);
}

/* An item is a sequence and some of its groups, strip by strip: query heads [first, end). */
struct heads {
    size_t i, first, end, rows;
    size_t rows_before, states_before; /* of the sequences before it, in what is kept */
    struct scratch s;
};

/* Where a strip of a head lives */
struct place {
    size_t n;          /* far rows of the strip */
    size_t rq, rk, gk; /* row*H+h of the first query and key; row*G+group of the key */
    float *qf, *kf, *states;
    const float *wq, *wk;
};

static struct place place_of(const struct job *j, const struct heads *in, size_t h, size_t from)
{
    const struct tg_far *f = j->f;
    const size_t features = tg_map_features(&f->map), row = j->b->begin[in->i] + from;
    const size_t all = in->rows, strip = strip_rows(f);
    struct place p = {.n = all - from < strip ? all - from : strip};
    p.rq = (row + f->lag) * f->H + h;
    p.rk = row * f->H + h;
    p.gk = row * f->G + h / (f->H / f->G);
    if (j->keep) {
        p.qf = j->kept.qf + (in->rows_before * f->H + h * all + from) * features;
        p.kf = j->kept.kf + (in->rows_before * f->H + h * all + from) * features;
        p.states = j->kept.states + in->states_before +
                   h * tg_outer_head_saved(all, features, f->V, f->chunk) +
                   tg_outer_head_saved(from, features, f->V, f->chunk);
    }
    p.wq = f->wq ? f->wq + h * f->map.K * f->map.F : NULL;
    p.wk = f->wk ? f->wk + h * f->map.K * f->map.F : NULL;
    return p;
}

static struct tg_outer_head outer_of(const struct job *j, const struct place *p, const float *qf,
                                     const float *kd)
{
    const struct tg_far *f = j->f;
    size_t features = tg_map_features(&f->map);
    return (struct tg_outer_head){.n = p->n,
                                  .K = features,
                                  .V = f->V,
                                  .chunk = f->chunk,
                                  .across = f->across,
                                  .q = qf,
                                  .k = kd,
                                  .v = j->v + p->gk * f->V,
                                  .g = j->g ? j->g + p->rq : NULL,
                                  .ld_k = features,
                                  .ld_v = f->G * f->V,
                                  .ld_n = f->H * f->V,
                                  .ld_g = f->H};
}

/* kd = kf e^{gates passed}; without gates or lag the features themselves */
static const float *decay_keys(const struct job *j, const struct place *p, const float *kf,
                               struct scratch *s)
{
    const struct tg_far *f = j->f;
    size_t features = tg_map_features(&f->map);
    if (!j->g || !f->lag)
        return kf;
    const float *g = j->g + p->rk; /* gate of row l at g[l * H] */
    double sum = 0;
    for (size_t l = 1; l < f->lag; l++)
        sum += (double)g[l * f->H];
    for (size_t r = 0; r < p->n; r++) {
        sum += (double)g[(r + f->lag) * f->H];
        s->decay[r] = (float)sum;
        sum -= (double)g[(r + 1) * f->H];
    }
    j->ctx->k->exp(s->decay, s->decay, p->n);
    for (size_t r = 0; r < p->n; r++)
        for (size_t c = 0; c < features; c++)
            s->kd[r * features + c] = s->decay[r] * kf[r * features + c];
    return s->kd;
}

static void clear_near_rows(const struct job *j, size_t i, size_t h)
{
    const struct tg_far *f = j->f;
    size_t T = j->b->begin[i + 1] - j->b->begin[i], near = T < f->lag ? T : f->lag;
    for (size_t t = 0; t < near; t++) {
        size_t r = (j->b->begin[i] + t) * f->H + h;
        memset(j->num + r * f->V, 0, f->V * sizeof *j->num);
        j->den[r] = 0;
    }
}

static struct heads heads_of(const struct job *j, size_t item, int worker)
{
    const struct tg_far *f = j->f;
    const struct tg_share share = tg_share_of(&j->shares, item);
    const size_t per = f->H / j->shares.groups;
    struct heads a = {.i = share.sequence, .first = share.first * per, .end = share.end * per};
    a.rows = rows_of(f, j->b, a.i);
    before(f, j->b, a.i, &a.rows_before, &a.states_before);
    scratch_lay(f, j->n_max, j->work + (size_t)worker * j->per_worker, &a.s);
    if (!j->states) {
        const size_t size = tg_far_state(f) / f->H;
        memset(a.s.states + a.first * size, 0, (a.end - a.first) * size * sizeof *a.s.states);
    }
    return a;
}

static void fwd_strip(const struct job *j, struct heads *all, size_t h, size_t from)
{
    const struct tg_far *f = j->f;
    size_t features = tg_map_features(&f->map), K = f->map.K;
    struct scratch *s = &all->s;
    struct place p = place_of(j, all, h, from);
    float *states = j->states ? j->states[all->i] : s->states;
    float *qf = j->keep ? p.qf : s->qf, *kf = j->keep ? p.kf : s->kf;
    tg_map_fwd(j->ctx->k, &f->map, p.n, j->q + p.rq * K, f->H * K, p.wq, qf, features);
    tg_map_fwd(j->ctx->k, &f->map, p.n, j->k + p.gk * K, f->G * K, p.wk, kf, features);
    struct tg_outer_head a = outer_of(j, &p, qf, decay_keys(j, &p, kf, s));
    tg_outer_head_fwd(j->ctx->k, &a, j->num + p.rq * f->V, j->den + p.rq,
                      states + h * features * (f->V + 1), p.states, s->outer);
}

static void fwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    struct heads a = heads_of(j, item, worker);
    for (size_t h = a.first; h < a.end; h++)
        clear_near_rows(j, a.i, h);
    for (size_t from = 0; from < a.rows; from += strip_rows(j->f))
        for (size_t h = a.first; h < a.end; h++)
            fwd_strip(j, &a, h, from);
}

void tg_far_fwd(const struct tg_ctx *ctx, const struct tg_far *f, const struct tg_batch *b,
                const float *q, const float *k, const float *v, const float *g, float *num,
                float *den, float *const *states, float *saved, float *work)
{
    struct job j = {.ctx = ctx,
                    .f = f,
                    .b = b,
                    .q = q,
                    .k = k,
                    .v = v,
                    .g = g,
                    .num = num,
                    .den = den,
                    .states = states,
                    .keep = saved != NULL};
    work_lay(f, b, ctx->threads, false, work, &j);
    if (saved)
        kept_lay(f, b, saved, &j.kept);
    tg_parallel(ctx->threads, j.shares.items, fwd_item, &j);
}

/* s->kf holds the gradient of the decayed keys: becomes that of the features; dg of the gates
 * passed */
static void decay_bwd(const struct job *j, const struct place *p, const float *kd,
                      struct scratch *s)
{
    const struct tg_far *f = j->f;
    size_t features = tg_map_features(&f->map);
    if (!j->g || !f->lag)
        return;
    for (size_t r = 0; r < p->n; r++) {
        float *d = s->kf + r * features;
        s->w[r] = (double)j->ctx->k->dot(d, kd + r * features, features);
        j->ctx->k->scale(s->decay[r], d, features);
    }
    if (!j->dg)
        return;
    double sum = 0;
    for (size_t l = 1; l < p->n + f->lag; l++) {
        if (l - 1 < p->n)
            sum += s->w[l - 1];
        if (l > f->lag)
            sum -= s->w[l - 1 - f->lag];
        j->dg[p->rk + l * f->H] += (float)sum;
    }
}

/* The query heads of a kv head add to the same dk and dv, in order. */
static void bwd_strip(const struct job *j, struct heads *all, size_t h, size_t from)
{
    const struct tg_far *f = j->f;
    size_t features = tg_map_features(&f->map), K = f->map.K, weights = K * f->map.F;
    struct scratch *s = &all->s;
    struct place p = place_of(j, all, h, from);
    const size_t w = (all->i * f->H + h) * weights;
    memset(s->qf, 0, p.n * features * sizeof *s->qf);
    memset(s->kf, 0, p.n * features * sizeof *s->kf);
    const float *kd = decay_keys(j, &p, p.kf, s);
    struct tg_outer_head a = outer_of(j, &p, p.qf, kd);
    tg_outer_head_bwd(j->ctx->k, &a, p.states, j->dnum + p.rq * f->V, j->dden + p.rq, s->qf, s->kf,
                      j->dv + p.gk * f->V, j->dg ? j->dg + p.rq : NULL,
                      s->states + h * features * (f->V + 1), s->outer);
    decay_bwd(j, &p, kd, s);
    tg_map_bwd(j->ctx->k, &f->map, p.n, j->q + p.rq * K, f->H * K, p.wq, p.qf, s->qf, features,
               j->dq + p.rq * K, j->dwq + w);
    tg_map_bwd(j->ctx->k, &f->map, p.n, j->k + p.gk * K, f->G * K, p.wk, p.kf, s->kf, features,
               j->dk + p.gk * K, j->dwk + w);
}

static void bwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_far *f = j->f;
    struct heads a = heads_of(j, item, worker);
    const size_t weights = f->map.K * f->map.F, strip = strip_rows(f);
    const size_t w = (a.i * f->H + a.first) * weights, count = (a.end - a.first) * weights;
    if (f->wq) {
        memset(j->dwq + w, 0, count * sizeof *j->dwq);
        memset(j->dwk + w, 0, count * sizeof *j->dwk);
    }
    for (size_t left = (a.rows + strip - 1) / strip; left-- > 0;)
        for (size_t h = a.first; h < a.end; h++)
            bwd_strip(j, &a, h, left * strip);
}

struct sum_job {
    const struct tg_ctx *ctx;
    size_t count, heads, weights;
    const float *parts;
    float *to;
};

static void sum_item(void *ud, size_t h, int worker)
{
    const struct sum_job *j = ud;
    (void)worker;
    for (size_t i = 0; i < j->count; i++)
        j->ctx->k->axpy(1, j->parts + (i * j->heads + h) * j->weights, j->to + h * j->weights,
                        j->weights);
}

void tg_far_bwd(const struct tg_ctx *ctx, const struct tg_far *f, const struct tg_batch *b,
                const float *q, const float *k, const float *v, const float *g, const float *saved,
                const float *dnum, const float *dden, float *dq, float *dk, float *dv, float *dg,
                float *dwq, float *dwk, float *work)
{
    /* kept is only read here; the layout function serves the forward too */
    struct job j = {.ctx = ctx,
                    .f = f,
                    .b = b,
                    .q = q,
                    .k = k,
                    .v = v,
                    .g = g,
                    .keep = true,
                    .dnum = dnum,
                    .dden = dden,
                    .dq = dq,
                    .dk = dk,
                    .dv = dv,
                    .dg = g ? dg : NULL};
    work_lay(f, b, ctx->threads, true, work, &j);
    kept_lay(f, b, (float *)(uintptr_t)saved, &j.kept);
    tg_parallel(ctx->threads, j.shares.items, bwd_item, &j);
    if (!f->wq)
        return;
    struct sum_job sum = {ctx, b->count, f->H, f->map.K * f->map.F, j.dwq, dwq};
    if (dwq)
        tg_parallel(ctx->threads, f->H, sum_item, &sum);
    sum.parts = j.dwk;
    sum.to = dwk;
    if (dwk)
        tg_parallel(ctx->threads, f->H, sum_item, &sum);
}

float tg_far_step(const struct tg_kernels *kern, const struct tg_far *f, size_t h, const float *q,
                  const float *k, const float *v, float passed, float g, float *state, float *num,
                  float *scratch)
{
    size_t features = tg_map_features(&f->map), K = f->map.K, weights = K * f->map.F;
    float *kf = scratch + features;
    tg_map_fwd(kern, &f->map, 1, q, K, f->wq ? f->wq + h * weights : NULL, scratch, features);
    tg_map_fwd(kern, &f->map, 1, k, K, f->wk ? f->wk + h * weights : NULL, kf, features);
    kern->scale(expf(passed), kf, features);
    return tg_outer_step(kern, features, f->V, scratch, kf, v, g, state + h * features * (f->V + 1),
                         num);
}

float tg_far_read(const struct tg_kernels *kern, const struct tg_far *f, size_t h, const float *q,
                  float passed, const float *state, float *num, float *scratch)
{
    size_t features = tg_map_features(&f->map), V = f->V;
    const float *S = state + h * features * (V + 1);
    tg_map_fwd(kern, &f->map, 1, q, f->map.K, f->wq ? f->wq + h * f->map.K * f->map.F : NULL,
               scratch, features);
    memset(num, 0, V * sizeof *num);
    kern->weighted_sum(scratch, S, V, features, V, num);
    kern->scale(expf(passed), num, V);
    return expf(passed) * kern->dot(scratch, S + features * V, features);
}

void tg_far_enter(const struct tg_kernels *kern, const struct tg_far *f, size_t h, const float *k,
                  const float *v, const float *g, float *state, float *scratch)
{
    size_t features = tg_map_features(&f->map), K = f->map.K, V = f->V;
    const float *wk = f->wk ? f->wk + h * K * f->map.F : NULL;
    float *S = state + h * features * (V + 1), *z = S + features * V;
    double left = 0;
    for (size_t i = 0; g && i < f->chunk; i++)
        left += (double)g[i];
    kern->scale(expf((float)left), S, features * (V + 1));
    for (size_t i = 0; i < f->chunk; i++) {
        tg_map_fwd(kern, &f->map, 1, k + i * K, K, wk, scratch, features);
        left -= g ? (double)g[i] : 0;
        float decay = g ? expf((float)left) : 1;
        kern->scale(decay, scratch, features);
        for (size_t c = 0; c < features; c++)
            kern->axpy(scratch[c], v + i * V, S + c * V, V);
        kern->axpy(1, scratch, z, features);
    }
}
