/* Elementwise recurrences; equations in scan.h. Each channel has one writer. */
#include "linearize/kernels/scan.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

enum { BLOCK = TG_MOST_CHANNELS };

struct lru_job {
    size_t D, block; /* block: channels of an item */
    const struct tg_batch *batch;
    const float *a, *u, *kept;
    float *h, *dh, *da;
    struct tg_states states, starts;
};

static void lru_fwd_item(void *ud, size_t item, int worker)
{
    const struct lru_job *j = ud;
    size_t from = item * j->block, n = j->D - from < j->block ? j->D - from : j->block;
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
    j.block = tg_channels_of_item(D, ctx->threads);
    tg_parallel(ctx->threads, (D + j.block - 1) / j.block, lru_fwd_item, &j);
}

static void lru_bwd_item(void *ud, size_t item, int worker)
{
    const struct lru_job *j = ud;
    size_t from = item * j->block, n = j->D - from < j->block ? j->D - from : j->block;
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
    j.block = tg_channels_of_item(D, ctx->threads);
    tg_parallel(ctx->threads, (D + j.block - 1) / j.block, lru_bwd_item, &j);
}

struct decay_job {
    const struct tg_kernels *kern;
    const struct tg_decay *d;
    size_t rows;
    const float *a, *bias, *A_log, *dg, *ddt;
    float *dt, *g, *da, *dbias, *dA_log;
};

static float limited(const struct tg_decay *d, float dt)
{
    dt = dt < d->low ? d->low : dt;
    return dt > d->high ? d->high : dt;
}

static size_t ld_of(const struct tg_decay *d)
{
    return d->ld ? d->ld : d->H * d->n;
}

enum { DECAY_CHANNELS = 64 };

/* Channels [from, from + n) of all heads', n <= BLOCK, of a block of rows */
static void decay_fwd_block(const struct decay_job *j, size_t from, size_t n, size_t row, size_t to)
{
    const size_t all = j->d->H * j->d->n;
    float A[BLOCK], dt[BLOCK];
    for (size_t c = 0; c < n; c++)
        A[c] = c && (from + c) % j->d->n ? A[c - 1] : -expf(j->A_log[(from + c) / j->d->n]);
    for (; row < to; row++) {
        const float *a = j->a + row * ld_of(j->d) + from, *bias = j->bias + from;
        float *g = j->g + row * all + from;
        for (size_t c = 0; c < n; c++)
            dt[c] = a[c] + bias[c];
        j->kern->softplus(dt, dt, n);
        for (size_t c = 0; c < n; c++) {
            dt[c] = limited(j->d, dt[c]);
            g[c] = A[c] * dt[c];
        }
        if (j->dt)
            memcpy(j->dt + row * all + from, dt, n * sizeof *dt);
    }
}

static void decay_fwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct decay_job *j = ud;
    const size_t all = j->d->H * j->d->n;
    (void)worker;
    for (size_t c = 0; c < all; c += BLOCK)
        decay_fwd_block(j, c, all - c < BLOCK ? all - c : BLOCK, from, to);
}

void tg_decay_fwd(const struct tg_ctx *ctx, const struct tg_decay *d, size_t rows, const float *a,
                  const float *bias, const float *A_log, float *dt, float *g)
{
    struct decay_job j = {.kern = ctx->k,
                          .d = d,
                          .rows = rows,
                          .a = a,
                          .bias = bias,
                          .A_log = A_log,
                          .dt = dt,
                          .g = g};
    tg_parallel_rows(ctx->threads, rows, decay_fwd_rows, &j);
}

/* Channels [first, first + n) of head h, n <= DECAY_CHANNELS, row after row; dA is added to. */
static void decay_bwd_block(const struct decay_job *j, size_t h, size_t first, size_t n, double *dA)
{
    const size_t H = j->d->H, all = j->d->n;
    const float A = -expf(j->A_log[h]), *bias = j->bias + h * all + first;
    double dbias[DECAY_CHANNELS] = {0};
    float dt[DECAY_CHANNELS], slope[DECAY_CHANNELS];
    for (size_t row = 0; row < j->rows; row++) {
        const size_t at = (row * H + h) * all + first, from = row * ld_of(j->d) + h * all + first;
        for (size_t c = 0; c < n; c++)
            slope[c] = j->a[from + c] + bias[c];
        j->kern->softplus(slope, dt, n);
        j->kern->sigmoid(slope, slope, n);
        for (size_t c = 0; c < n; c++) {
            float dg = j->dg[at + c], used = limited(j->d, dt[c]);
            float ddt = A * dg + (j->ddt ? j->ddt[at + c] : 0);
            float da = dt[c] == used ? ddt * slope[c] : 0;
            *dA += (double)(dg * A * used);
            dbias[c] += (double)da;
            j->da[from + c] = da;
        }
    }
    for (size_t c = 0; j->dbias && c < n; c++)
        j->dbias[h * all + first + c] += (float)dbias[c];
}

/* An item is a head. */
static void decay_bwd_item(void *ud, size_t h, int worker)
{
    const struct decay_job *j = ud;
    const size_t n = j->d->n;
    double dA = 0;
    (void)worker;
    for (size_t c = 0; c < n; c += DECAY_CHANNELS)
        decay_bwd_block(j, h, c, n - c < DECAY_CHANNELS ? n - c : DECAY_CHANNELS, &dA);
    if (j->dA_log)
        j->dA_log[h] += (float)dA;
}

void tg_decay_bwd(const struct tg_ctx *ctx, const struct tg_decay *d, size_t rows, const float *a,
                  const float *bias, const float *A_log, const float *dg, const float *ddt,
                  float *da, float *dbias, float *dA_log)
{
    struct decay_job j = {.kern = ctx->k,
                          .d = d,
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
