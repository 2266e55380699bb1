/* Lizard on heads; equations in lizard.c. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/mixers/lizard.h"

struct kept {
    float *ya, *num, *den; /* [rows,H,V], [rows,H,V], [rows,H] */
    float *window, *all;
};

static size_t kept_lay(const struct tg_lizard *l, const struct tg_batch *b, bool keep, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t n = tg_batch_rows(b) * l->all.H;
    k->ya = tg_carve(&c, n * l->all.V);
    k->num = tg_carve(&c, n * l->all.V);
    k->den = tg_carve(&c, n);
    k->window = keep ? tg_carve(&c, tg_joint_saved(&l->window, b)) : NULL;
    k->all = keep ? tg_carve(&c, tg_far_saved(&l->all, b)) : NULL;
    return c.used;
}

size_t tg_lizard_saved(const struct tg_lizard *l, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(l, b, true, NULL, &k);
}

struct scratch {
    float *kept, *dya, *dnum, *dden;
    double *parts; /* [blocks,H] */
    float *window, *all;
};

static size_t work_lay(const struct tg_lizard *l, const struct tg_batch *b, int threads,
                       bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    size_t rows = tg_batch_rows(b), H = l->all.H, V = l->all.V;
    memset(s, 0, sizeof *s);
    s->window = tg_carve(&c, tg_joint_work(&l->window, b, threads, backward));
    s->all = tg_carve(&c, tg_far_work(&l->all, b, threads, backward));
    if (!backward) {
        s->kept = tg_carve(&c, kept_lay(l, b, false, NULL, &k));
        return c.used;
    }
    s->dya = tg_carve(&c, rows * H * V);
    s->dnum = tg_carve(&c, rows * H * V);
    s->dden = tg_carve(&c, rows * H);
    s->parts = (double *)(void *)tg_carve(&c, 2 * tg_blocks_of_rows(rows) * H);
    return c.used;
}

size_t tg_lizard_work(const struct tg_lizard *l, const struct tg_batch *b, int threads,
                      bool backward)
{
    struct scratch s;
    return work_lay(l, b, threads, backward, NULL, &s);
}

struct job {
    const struct tg_ctx *ctx;
    const struct tg_lizard *l;
    size_t rows;
    const struct kept *kept;
    const struct scratch *s;
    float *y;
    const float *dy;
};

static void fwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct job *w = ud;
    const struct kept *k = w->kept;
    size_t H = w->l->all.H, V = w->l->all.V;
    (void)worker;
    for (size_t i = from * H; i < to * H; i++)
        tg_lizard_row(w->l, i % H, k->ya + i * V, k->num + i * V, k->den[i], w->y + i * V);
}

/* 0 leaves the branch out: there is nothing to divide by, or with the identity map a negative sum
 */
static float inverse(float den)
{
    return den > 1e-30F ? 1 / den : 0;
}

void tg_lizard_row(const struct tg_lizard *l, size_t h, const float *ya, const float *num,
                   float den, float *y)
{
    float r = inverse(den), alpha = l->alpha[h];
    for (size_t c = 0; c < l->all.V; c++)
        y[c] = r * num[c] + alpha * ya[c];
}

void tg_lizard_fwd(const struct tg_ctx *ctx, const struct tg_lizard *l, const struct tg_batch *b,
                   const struct tg_lizard_heads *x, float *y, float *const *states, float *saved,
                   float *work)
{
    struct scratch s;
    struct kept k;
    work_lay(l, b, ctx->threads, false, work, &s);
    kept_lay(l, b, saved != NULL, saved ? saved : s.kept, &k);
    tg_joint_fwd(ctx, &l->window, b, x->q, x->k, x->v, NULL, k.ya, NULL, k.window, s.window);
    tg_far_fwd(ctx, &l->all, b, x->q0, x->k0, x->v, x->g, k.num, k.den, states, k.all, s.all);
    struct job w = {ctx, l, tg_batch_rows(b), &k, &s, y, NULL};
    tg_parallel_rows(ctx->threads, w.rows, fwd_rows, &w);
}

static void bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct job *w = ud;
    const struct kept *k = w->kept;
    size_t H = w->l->all.H, V = w->l->all.V;
    double *parts = w->s->parts + from / TG_BLOCK_ROWS * H;
    (void)worker;
    memset(parts, 0, H * sizeof *parts);
    for (size_t i = from * H; i < to * H; i++) {
        const float *dy = w->dy + i * V;
        float r = inverse(k->den[i]), alpha = w->l->alpha[i % H];
        parts[i % H] += (double)w->ctx->k->dot(dy, k->ya + i * V, V);
        w->s->dden[i] = -r * r * w->ctx->k->dot(dy, k->num + i * V, V);
        for (size_t c = 0; c < V; c++) {
            w->s->dya[i * V + c] = alpha * dy[c];
            w->s->dnum[i * V + c] = r * dy[c];
        }
    }
}

void tg_lizard_bwd(const struct tg_ctx *ctx, const struct tg_lizard *l, const struct tg_batch *b,
                   const struct tg_lizard_heads *x, const float *saved, const float *dy,
                   const struct tg_lizard_grads *d, float *work)
{
    struct scratch s;
    struct kept k;
    work_lay(l, b, ctx->threads, true, work, &s);
    kept_lay(l, b, true, (float *)(uintptr_t)saved, &k);
    struct job w = {ctx, l, tg_batch_rows(b), &k, &s, NULL, dy};
    tg_parallel_rows(ctx->threads, w.rows, bwd_rows, &w);
    for (size_t h = 0; h < l->all.H && d->alpha; h++) {
        double sum = 0;
        for (size_t block = 0; block < tg_blocks_of_rows(w.rows); block++)
            sum += s.parts[block * l->all.H + h];
        d->alpha[h] += (float)sum;
    }
    struct tg_joint_grads window = {.sink = d->sink};
    tg_joint_bwd(ctx, &l->window, b, x->q, x->k, x->v, NULL, k.ya, k.window, s.dya, d->q, d->k,
                 d->v, NULL, &window, s.window);
    tg_far_bwd(ctx, &l->all, b, x->q0, x->k0, x->v, x->g, k.all, s.dnum, s.dden, d->q0, d->k0, d->v,
               d->g, d->wq, d->wk, s.all);
}
