/* Elementwise recurrences; equations in scan.h. Each channel has one writer. */
#include "linearize/kernels/scan.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

enum { BLOCK = 64 };

struct lru_job {
    size_t D;
    const struct tg_batch *batch;
    const float *a, *u, *kept;
    float *h, *dh, *da;
    struct tg_states states, starts;
};

static void lru_fwd_item(void *ud, size_t item, int worker)
{
    const struct lru_job *j = ud;
    size_t from = item * BLOCK, n = j->D - from < BLOCK ? j->D - from : BLOCK;
    (void)worker;
    for (size_t i = 0; i < j->batch->count; i++) {
        float *state = tg_state_at(j->states, i), last[BLOCK] = {0};
        if (state)
            memcpy(last, state + from, n * sizeof *last);
        for (size_t row = j->batch->begin[i]; row < j->batch->begin[i + 1]; row++) {
            size_t at = row * j->D + from;
            for (size_t c = 0; c < n; c++) {
                last[c] = j->a[at + c] * last[c] + j->u[at + c];
                j->h[at + c] = last[c];
            }
        }
        if (state)
            memcpy(state + from, last, n * sizeof *last);
    }
}

void tg_lru_fwd(const struct tg_ctx *ctx, size_t D, const struct tg_batch *batch, const float *a,
                const float *u, float *h, struct tg_states states)
{
    struct lru_job j = {.D = D, .batch = batch, .a = a, .u = u, .h = h, .states = states};
    tg_parallel(ctx->threads, (D + BLOCK - 1) / BLOCK, lru_fwd_item, &j);
}

static void lru_bwd_item(void *ud, size_t item, int worker)
{
    const struct lru_job *j = ud;
    size_t from = item * BLOCK, n = j->D - from < BLOCK ? j->D - from : BLOCK;
    (void)worker;
    for (size_t i = 0; i < j->batch->count; i++) {
        float *end = tg_state_at(j->states, i), d[BLOCK] = {0};
        const float *start = tg_state_at(j->starts, i);
        if (end)
            memcpy(d, end + from, n * sizeof *d);
        for (size_t row = j->batch->begin[i + 1]; row-- > j->batch->begin[i];) {
            size_t at = row * j->D + from;
            for (size_t c = 0; c < n; c++) {
                float before = start ? start[from + c] : 0;
                if (row > j->batch->begin[i])
                    before = j->kept[at - j->D + c];
                d[c] += j->dh[at + c];
                j->dh[at + c] = d[c];
                j->da[at + c] = d[c] * before;
                d[c] *= j->a[at + c];
            }
        }
        if (end)
            memcpy(end + from, d, n * sizeof *d);
    }
}

void tg_lru_bwd(const struct tg_ctx *ctx, size_t D, const struct tg_batch *batch, const float *a,
                const float *h, struct tg_states starts, float *dh, float *da,
                struct tg_states dstates)
{
    struct lru_job j = {.D = D,
                        .batch = batch,
                        .a = a,
                        .kept = h,
                        .dh = dh,
                        .da = da,
                        .states = dstates,
                        .starts = starts};
    tg_parallel(ctx->threads, (D + BLOCK - 1) / BLOCK, lru_bwd_item, &j);
}

struct decay_job {
    const struct tg_decay *d;
    size_t rows;
    const float *a, *bias, *A_log, *dg, *ddt;
    float *dt, *g, *da, *dbias, *dA_log;
};

static float softplus(float x)
{
    return x > 0 ? x + log1pf(expf(-x)) : log1pf(expf(x));
}

static float limited(const struct tg_decay *d, float dt)
{
    dt = dt < d->low ? d->low : dt;
    return dt > d->high ? d->high : dt;
}

static size_t ld_of(const struct tg_decay *d)
{
    return d->ld ? d->ld : d->H * d->n;
}

/* An item is a head. */
static void decay_fwd_item(void *ud, size_t h, int worker)
{
    const struct decay_job *j = ud;
    size_t n = j->d->n;
    float A = -expf(j->A_log[h]);
    (void)worker;
    for (size_t row = 0; row < j->rows; row++)
        for (size_t c = 0; c < n; c++) {
            float a = j->a[row * ld_of(j->d) + h * n + c] + j->bias[h * n + c];
            float dt = limited(j->d, softplus(a));
            size_t at = (row * j->d->H + h) * n + c;
            j->g[at] = A * dt;
            if (j->dt)
                j->dt[at] = dt;
        }
}

void tg_decay_fwd(const struct tg_ctx *ctx, const struct tg_decay *d, size_t rows, const float *a,
                  const float *bias, const float *A_log, float *dt, float *g)
{
    struct decay_job j = {
        .d = d, .rows = rows, .a = a, .bias = bias, .A_log = A_log, .dt = dt, .g = g};
    tg_parallel(ctx->threads, d->H, decay_fwd_item, &j);
}

static void decay_bwd_item(void *ud, size_t h, int worker)
{
    const struct decay_job *j = ud;
    size_t n = j->d->n;
    float A = -expf(j->A_log[h]);
    double dA = 0;
    (void)worker;
    for (size_t c = 0; c < n; c++) {
        double dbias = 0;
        for (size_t row = 0; row < j->rows; row++) {
            size_t at = (row * j->d->H + h) * n + c, from = row * ld_of(j->d) + h * n + c;
            float a = j->a[from] + j->bias[h * n + c], dt = softplus(a);
            float used = limited(j->d, dt), slope = 1 / (1 + expf(-a));
            float ddt = A * j->dg[at] + (j->ddt ? j->ddt[at] : 0);
            float da = dt == used ? ddt * slope : 0;
            dA += (double)(j->dg[at] * A * used);
            dbias += (double)da;
            j->da[from] = da;
        }
        if (j->dbias)
            j->dbias[h * n + c] += (float)dbias;
    }
    if (j->dA_log)
        j->dA_log[h] += (float)dA;
}

void tg_decay_bwd(const struct tg_ctx *ctx, const struct tg_decay *d, size_t rows, const float *a,
                  const float *bias, const float *A_log, const float *dg, const float *ddt,
                  float *da, float *dbias, float *dA_log)
{
    struct decay_job j = {.d = d,
                          .rows = rows,
                          .a = a,
                          .bias = bias,
                          .A_log = A_log,
                          .dg = dg,
                          .ddt = ddt,
                          .da = da,
                          .dbias = dbias,
                          .dA_log = dA_log};
    tg_parallel(ctx->threads, d->H, decay_bwd_item, &j);
}
