/* RWKV-7 on heads; see rwkv7_heads.h. An item is a head: it alone writes the head's parameters'
 * gradients, so sums do not depend on the number of threads. */
#include "linearize/mixers/rwkv7_heads.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

static const float DECAY = 0.60653066F; /* e^-1/2: no decay is below e^-DECAY */
static const double UNIT_EPS = 1e-24;   /* of a squared length */

struct job {
    const struct tg_ctx *ctx;
    const struct tg_rwkv_heads *h;
    const struct tg_rwkv_grads *d;
};

static void each_head(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h,
                      const struct tg_rwkv_grads *d, tg_item_fn item)
{
    struct job j = {ctx, h, d};
    tg_parallel(ctx->threads, h->H, item, &j);
}

/* x <- most / (1 + e^-x) */
static void sigmoids(const struct tg_kernels *k, float *x, float most, size_t n)
{
    for (size_t c = 0; c < n; c++)
        x[c] = -x[c];
    k->exp(x, x, n);
    for (size_t c = 0; c < n; c++)
        x[c] = most / (1 + x[c]);
}

static void enter_item(void *ud, size_t head, int worker)
{
    const struct job *j = ud;
    const struct tg_rwkv_heads *h = j->h;
    const float *k_k = h->w.k_k + head * h->K, *k_a = h->w.k_a + head * h->K;
    (void)worker;
    for (size_t row = 0; row < h->rows; row++) {
        const size_t i = row * h->H + head, at = i * h->K;
        const float *k0 = h->k0 + at;
        float *a = h->a + at, *read = h->read + at, *write = h->write + at, *k = h->k + at;
        sigmoids(j->ctx->k, h->g + at, -DECAY, h->K);
        sigmoids(j->ctx->k, a, 1, h->K);
        j->ctx->k->mul(k_k, k0, read, h->K);
        const float unit = (float)(1 / sqrt(j->ctx->k->sum_squares(read, h->K) + UNIT_EPS));
        h->unit[i] = unit;
        for (size_t c = 0; c < h->K; c++) {
            const float kk = unit * read[c];
            read[c] = -kk;
            write[c] = kk * a[c];
            k[c] = k0[c] * (1 + (a[c] - 1) * k_a[c]);
        }
    }
}

void tg_rwkv_enter(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h)
{
    each_head(ctx, h, NULL, enter_item);
}

static struct tg_norm norm_of(const struct tg_rwkv_heads *h, size_t head)
{
    return (struct tg_norm){.layer = true,
                            .eps = h->eps,
                            .w = h->w.norm_weight + head * h->V,
                            .b = h->w.norm_bias + head * h->V};
}

static void leave_item(void *ud, size_t head, int worker)
{
    const struct job *j = ud;
    const struct tg_rwkv_heads *h = j->h;
    const struct tg_norm norm = norm_of(h, head);
    const float *r_k = h->w.r_k + head * h->K;
    (void)worker;
    for (size_t row = 0; row < h->rows; row++) {
        const size_t i = row * h->H + head, at = i * h->V;
        const float *q = h->q + i * h->K, *k = h->k + i * h->K;
        double bonus = 0;
        for (size_t c = 0; c < h->K; c++)
            bonus += (double)(q[c] * k[c]) * (double)r_k[c];
        h->bonus[i] = (float)bonus;
        j->ctx->k->norm_fwd(&norm, h->o + at, h->sum + at, h->stats + 2 * i, h->V);
        j->ctx->k->axpy(h->bonus[i], h->v + at, h->sum + at, h->V);
        j->ctx->k->mul(h->gate + at, h->sum + at, h->y + at, h->V);
    }
}

void tg_rwkv_leave(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h)
{
    each_head(ctx, h, NULL, leave_item);
}

static void leave_bwd_item(void *ud, size_t head, int worker)
{
    const struct job *j = ud;
    const struct tg_rwkv_heads *h = j->h;
    const struct tg_rwkv_grads *d = j->d;
    const struct tg_kernels *kern = j->ctx->k;
    const struct tg_norm norm = norm_of(h, head);
    const float *r_k = h->w.r_k + head * h->K;
    (void)worker;
    for (size_t row = 0; row < h->rows; row++) {
        const size_t i = row * h->H + head, at = i * h->V, key = i * h->K;
        const float *q = h->q + key, *k = h->k + key;
        kern->mul(d->y + at, h->gate + at, d->sum + at, h->V);
        kern->mul(d->y + at, h->sum + at, d->gate + at, h->V);
        memset(d->o + at, 0, h->V * sizeof *d->o);
        kern->norm_bwd(&norm, h->stats + 2 * i, h->o + at, d->sum + at, d->o + at,
                       d->norm_weight + head * h->V, d->norm_bias + head * h->V, h->V);
        const float bonus = kern->dot(d->sum + at, h->v + at, h->V);
        for (size_t c = 0; c < h->V; c++)
            d->v[at + c] = h->bonus[i] * d->sum[at + c];
        for (size_t c = 0; c < h->K; c++) {
            d->q[key + c] = bonus * k[c] * r_k[c];
            d->k[key + c] = bonus * q[c] * r_k[c];
            d->r_k[head * h->K + c] += bonus * q[c] * k[c];
        }
    }
}

void tg_rwkv_leave_bwd(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h,
                       const struct tg_rwkv_grads *d)
{
    each_head(ctx, h, d, leave_bwd_item);
}

/* With u = k0 . k_k, kk = unit u: du = unit (dkk - kk (kk . dkk)) */
static void enter_bwd_item(void *ud, size_t head, int worker)
{
    const struct job *j = ud;
    const struct tg_rwkv_heads *h = j->h;
    const struct tg_rwkv_grads *d = j->d;
    const float *k_k = h->w.k_k + head * h->K, *k_a = h->w.k_a + head * h->K;
    float *dk_k = d->k_k + head * h->K, *dk_a = d->k_a + head * h->K;
    (void)worker;
    for (size_t row = 0; row < h->rows; row++) {
        const size_t i = row * h->H + head, at = i * h->K;
        const float *k0 = h->k0 + at, *a = h->a + at, *g = h->g + at, *read = h->read + at;
        const float *dk = d->k + at, *dread = d->read + at, *dwrite = d->write + at;
        float *dg = d->g + at, *da = d->a + at, *dk0 = d->k0 + at;
        double pull = 0;
        for (size_t c = 0; c < h->K; c++)
            pull += (double)read[c] * (double)(dread[c] - a[c] * dwrite[c]);
        for (size_t c = 0; c < h->K; c++) {
            const float kk = -read[c], to_kk = a[c] * dwrite[c] - dread[c];
            const float du = h->unit[i] * (to_kk - kk * (float)pull);
            const float rest = a[c] - 1;
            da[c] = (kk * dwrite[c] + dk[c] * k0[c] * k_a[c]) * a[c] * -rest;
            dk0[c] = du * k_k[c] + dk[c] * (1 + rest * k_a[c]);
            dg[c] *= g[c] * (1 + g[c] / DECAY);
            dk_k[c] += du * k0[c];
            dk_a[c] += dk[c] * k0[c] * rest;
        }
    }
}

void tg_rwkv_enter_bwd(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h,
                       const struct tg_rwkv_grads *d)
{
    each_head(ctx, h, d, enter_bwd_item);
}
