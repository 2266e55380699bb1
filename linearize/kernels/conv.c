/* Short convolution; equations in conv.h. An item is a block of channels over all rows, so each
 * weight has one writer and sums run in the order of rows. */
#include "linearize/kernels/conv.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

enum { BLOCK = TG_MOST_CHANNELS };

struct job {
    const struct tg_ctx *ctx;
    const struct tg_conv *c;
    const struct tg_batch *batch;
    const float *x, *w, *bias;
    float *y;
    struct tg_states states;
    float *dy, *dx, *dw, *dbias;
    size_t block; /* channels of an item */
};

/* One item: channels from..from+n-1 with their weights by tap */
struct block {
    size_t from, n, ld;
    float w[TG_CONV_MAX_TAPS][BLOCK];
    float zero[BLOCK];
};

static void block_begin(const struct job *j, size_t item, struct block *b)
{
    size_t D = j->c->D, taps = j->c->taps;
    b->from = item * j->block;
    b->n = D - b->from < j->block ? D - b->from : j->block;
    b->ld = j->c->ld_x ? j->c->ld_x : D;
    memset(b->zero, 0, sizeof b->zero);
    for (size_t i = 0; i < b->n; i++)
        for (size_t tap = 0; tap < taps; tap++)
            b->w[tap][i] = j->w[(b->from + i) * taps + tap];
}

/* The input `back` rows before row t of a sequence that begins at row begin */
static const float *input_at(const struct job *j, const struct block *b, const float *state,
                             size_t begin, size_t t, size_t back)
{
    if (back <= t)
        return j->x + (begin + t - back) * b->ld + b->from;
    if (!state)
        return b->zero;
    return state + (j->c->taps - 1 - (back - t)) * j->c->D + b->from;
}

/* u of row t */
static void pre_activation(const struct job *j, const struct block *b, const float *state,
                           size_t begin, size_t t, float *u)
{
    size_t taps = j->c->taps;
    for (size_t i = 0; i < b->n; i++)
        u[i] = j->bias ? j->bias[b->from + i] : 0;
    for (size_t tap = 0; tap < taps; tap++) {
        const float *x = input_at(j, b, state, begin, t, taps - 1 - tap);
        for (size_t i = 0; i < b->n; i++)
            u[i] += b->w[tap][i] * x[i];
    }
}

/* s = 1 + e^{-u}: silu(u) = u / s */
static void silu_divisor(const struct job *j, const float *u, float *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        s[i] = -u[i];
    j->ctx->k->exp(s, s, n);
    for (size_t i = 0; i < n; i++)
        s[i] += 1;
}

/* The last taps - 1 inputs; oldest first, so that what moves is read before it is overwritten */
static void keep_inputs(const struct job *j, const struct block *b, size_t begin, size_t n,
                        float *state)
{
    for (size_t row = 0; row + 1 < j->c->taps; row++) {
        size_t back = j->c->taps - 1 - row; /* before the row after the last */
        memmove(state + row * j->c->D + b->from, input_at(j, b, state, begin, n, back),
                b->n * sizeof *state);
    }
}

static void fwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    struct block b;
    float s[BLOCK];
    (void)worker;
    block_begin(j, item, &b);
    for (size_t i = 0; i < j->batch->count; i++) {
        size_t begin = j->batch->begin[i], n = j->batch->begin[i + 1] - begin;
        float *state = tg_state_at(j->states, i);
        for (size_t t = 0; t < n; t++) {
            float *y = j->y + (begin + t) * j->c->D + b.from;
            pre_activation(j, &b, state, begin, t, y);
            if (!j->c->silu)
                continue;
            silu_divisor(j, y, s, b.n);
            for (size_t x = 0; x < b.n; x++)
                y[x] /= s[x];
        }
        if (state)
            keep_inputs(j, &b, begin, n, state);
    }
}

static void run(struct job *j, tg_item_fn item)
{
    j->block = tg_channels_of_item(j->c->D, j->ctx->threads);
    tg_parallel(j->ctx->threads, (j->c->D + j->block - 1) / j->block, item, j);
}

void tg_conv_fwd(const struct tg_ctx *ctx, const struct tg_conv *c, const struct tg_batch *batch,
                 const float *x, const float *w, const float *bias, float *y,
                 struct tg_states states)
{
    struct job j = {
        .ctx = ctx, .c = c, .batch = batch, .x = x, .w = w, .bias = bias, .y = y, .states = states};
    run(&j, fwd_item);
}

/* dy of one row becomes du, silu'(u) = (1 + u (1 - 1/s)) / s; adds to the weights' gradients */
static void row_bwd(const struct job *j, const struct block *b, size_t begin, size_t t,
                    float dw[TG_CONV_MAX_TAPS][BLOCK])
{
    float u[BLOCK], s[BLOCK], *du = j->dy + (begin + t) * j->c->D + b->from;
    if (j->c->silu) {
        pre_activation(j, b, NULL, begin, t, u);
        silu_divisor(j, u, s, b->n);
        for (size_t i = 0; i < b->n; i++) {
            float sigmoid = 1 / s[i];
            du[i] *= sigmoid + u[i] * sigmoid * (1 - sigmoid);
        }
    }
    for (size_t tap = 0; tap < j->c->taps; tap++) {
        const float *x = input_at(j, b, NULL, begin, t, j->c->taps - 1 - tap);
        for (size_t i = 0; i < b->n; i++)
            dw[tap][i] += du[i] * x[i];
    }
    for (size_t i = 0; j->dbias && i < b->n; i++)
        j->dbias[b->from + i] += du[i];
}

/* dx of row t of n, once du of the rows that read it is there */
static void dx_row(const struct job *j, const struct block *b, size_t begin, size_t n, size_t t)
{
    const size_t taps = j->c->taps;
    float *dx = j->dx + (begin + t) * b->ld + b->from;
    memset(dx, 0, b->n * sizeof *dx);
    for (size_t tap = 0; tap < taps; tap++) {
        size_t at = t + taps - 1 - tap;
        const float *du = j->dy + (begin + at) * j->c->D + b->from;
        for (size_t x = 0; at < n && x < b->n; x++)
            dx[x] += b->w[tap][x] * du[x];
    }
}

static void bwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    size_t taps = j->c->taps;
    struct block b;
    float dw[TG_CONV_MAX_TAPS][BLOCK];
    (void)worker;
    block_begin(j, item, &b);
    memset(dw, 0, taps * sizeof *dw);
    for (size_t i = 0; i < j->batch->count; i++) {
        size_t begin = j->batch->begin[i], n = j->batch->begin[i + 1] - begin;
        size_t last = n + taps - 1; /* du of rows from n on is zero */
        for (size_t t = 0; t < last; t++) {
            if (t < n)
                row_bwd(j, &b, begin, t, dw);
            if (j->dx && t + 1 >= taps)
                dx_row(j, &b, begin, n, t + 1 - taps);
        }
    }
    for (size_t x = 0; j->dw && x < b.n; x++)
        for (size_t tap = 0; tap < taps; tap++)
            j->dw[(b.from + x) * taps + tap] += dw[tap][x];
}

void tg_conv_bwd(const struct tg_ctx *ctx, const struct tg_conv *c, const struct tg_batch *batch,
                 const float *x, const float *w, const float *bias, float *dy, float *dx, float *dw,
                 float *dbias)
{
    struct job j = {.ctx = ctx,
                    .c = c,
                    .batch = batch,
                    .x = x,
                    .w = w,
                    .bias = bias,
                    .dy = dy,
                    .dx = dx,
                    .dw = dw,
                    .dbias = dbias};
    run(&j, bwd_item);
}

void tg_conv_ref(const struct tg_conv *c, size_t n, const double *x, const double *w,
                 const double *bias, double *y)
{
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < c->D; i++) {
            double u = bias ? bias[i] : 0;
            for (size_t tap = 0; tap < c->taps; tap++)
                if (t + tap + 1 >= c->taps)
                    u += w[i * c->taps + tap] * x[(t + tap + 1 - c->taps) * c->D + i];
            y[t * c->D + i] = c->silu ? u / (1 + exp(-u)) : u;
        }
}
