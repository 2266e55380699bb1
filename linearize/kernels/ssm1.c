/* Selective scan; equations in scan.h. Backward of one channel, dh the gradient of its state:
 *
 *   dh += C_t dy_t;  dC_t = dy_t h_t;  a = e^{-A dt_t}, A = e^{A_log};  e = dh h_{t-1} a
 *   ddt_t = sum (dh x_t B_t - A e);  dx_t = dt_t sum(dh B_t) + skip dy_t;  dB_t = dh dt_t x_t
 *   dA_log -= A dt_t e;  dskip += dy_t x_t;  dh <- a dh
 *
 * The states of SPAN rows are made again from the saved one before them. dB and dC are sums over
 * channels: each block of channels has its own, added in order. */
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "linearize/kernels/scan.h"

enum { CHANNELS = 32, STATES = 64, SPAN = 32 };

struct job {
    const struct tg_ctx *ctx;
    const struct tg_ssm1 *s;
    const struct tg_batch *batch;
    const struct tg_ssm1_in *in;
    float *y, *saved;
    struct tg_states states;
    const float *kept, *dy;
    const struct tg_ssm1_grads *d;
    float *partial; /* [blocks][2][rows,N]: dB, dC */
};

static size_t blocks_of(const struct tg_ssm1 *s)
{
    return (s->D + CHANNELS - 1) / CHANNELS;
}

/* Spans of the sequences before i */
static size_t spans_before(const struct tg_batch *batch, size_t i)
{
    size_t n = 0;
    for (size_t q = 0; q < i; q++)
        n += (batch->begin[q + 1] - batch->begin[q] + SPAN - 1) / SPAN;
    return n;
}

size_t tg_ssm1_saved(const struct tg_ssm1 *s, const struct tg_batch *batch)
{
    return spans_before(batch, batch->count) * s->D * s->N;
}

size_t tg_ssm1_bwd_work(const struct tg_ssm1 *s, const struct tg_batch *batch)
{
    return blocks_of(s) * 2 * tg_batch_rows(batch) * s->N;
}

/* Some states of one channel of one sequence: n of them, from `from` on */
struct piece {
    size_t i, c, from, n;
    float A[STATES];
};

static void piece_begin(const struct job *j, size_t i, size_t c, size_t from, struct piece *p)
{
    p->i = i;
    p->c = c;
    p->from = from;
    p->n = j->s->N - from < STATES ? j->s->N - from : STATES;
    j->ctx->k->exp(j->in->A_log + c * j->s->N + from, p->A, p->n);
}

/* decay = e^{-A dt}, h <- decay h + dt x B */
static void advance(const struct job *j, const struct piece *p, size_t row, float *decay, float *h)
{
    size_t at = row * j->s->D + p->c;
    const float *B = j->in->B + row * j->s->ld + p->from;
    float dt = j->in->dt[at], in = dt * j->in->x[at];
    for (size_t k = 0; k < p->n; k++)
        decay[k] = -p->A[k] * dt;
    j->ctx->k->exp(decay, decay, p->n);
    for (size_t k = 0; k < p->n; k++)
        h[k] = decay[k] * h[k] + in * B[k];
}

static void piece_fwd(const struct job *j, const struct piece *p, float *state)
{
    const struct tg_ssm1 *s = j->s;
    size_t first = j->batch->begin[p->i], end = j->batch->begin[p->i + 1];
    float h[STATES] = {0}, decay[STATES];
    float *saved = j->saved ? j->saved + (spans_before(j->batch, p->i) * s->D + p->c) * s->N : NULL;
    if (state)
        memcpy(h, state + p->c * s->N + p->from, p->n * sizeof *h);
    for (size_t row = first; row < end; row++) {
        size_t at = row * s->D + p->c;
        const float *C = j->in->C + row * s->ld + p->from;
        if (saved && (row - first) % SPAN == 0)
            memcpy(saved + (row - first) / SPAN * s->D * s->N + p->from, h, p->n * sizeof *h);
        float sum = p->from ? j->y[at] : j->in->skip[p->c] * j->in->x[at];
        advance(j, p, row, decay, h);
        for (size_t k = 0; k < p->n; k++)
            sum += h[k] * C[k];
        j->y[at] = sum;
    }
    if (state)
        memcpy(state + p->c * s->N + p->from, h, p->n * sizeof *h);
}

static void fwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    size_t i = item / blocks_of(j->s), from = item % blocks_of(j->s) * CHANNELS;
    size_t to = from + CHANNELS < j->s->D ? from + CHANNELS : j->s->D;
    (void)worker;
    for (size_t c = from; c < to; c++)
        for (size_t k = 0; k < j->s->N; k += STATES) {
            struct piece p;
            piece_begin(j, i, c, k, &p);
            piece_fwd(j, &p, tg_state_at(j->states, i));
        }
}

void tg_ssm1_fwd(const struct tg_ctx *ctx, const struct tg_ssm1 *s, const struct tg_batch *batch,
                 const struct tg_ssm1_in *in, float *y, struct tg_states states, float *saved)
{
    struct job j = {
        .ctx = ctx, .s = s, .batch = batch, .in = in, .y = y, .saved = saved, .states = states};
    tg_parallel(ctx->threads, batch->count * blocks_of(s), fwd_item, &j);
}

/* One row backward: dh in and out; h is the state after it, before the one before */
static void row_bwd(const struct job *j, const struct piece *p, size_t row, const float *h,
                    const float *before, const float *decay, float *dh, float *dA, float *partial)
{
    const struct tg_ssm1 *s = j->s;
    size_t at = row * s->D + p->c, rows = tg_batch_rows(j->batch);
    const float *B = j->in->B + row * s->ld + p->from, *C = j->in->C + row * s->ld + p->from;
    float *dB = partial + row * s->N + p->from, *dC = dB + rows * s->N;
    float dy = j->dy[at], x = j->in->x[at], dt = j->in->dt[at], ddt = 0, along = 0;
    for (size_t k = 0; k < p->n; k++) {
        dh[k] += C[k] * dy;
        dC[k] += dy * h[k];
        dB[k] += dh[k] * dt * x;
        along += dh[k] * B[k];
        float e = dh[k] * before[k] * decay[k];
        ddt -= p->A[k] * e;
        dA[k] -= p->A[k] * dt * e;
        dh[k] *= decay[k];
    }
    j->d->dt[at] = (p->from ? j->d->dt[at] : 0) + ddt + along * x;
    j->d->x[at] = (p->from ? j->d->x[at] : j->in->skip[p->c] * dy) + along * dt;
}

static void piece_bwd(const struct job *j, const struct piece *p, float *partial)
{
    const struct tg_ssm1 *s = j->s;
    size_t first = j->batch->begin[p->i], end = j->batch->begin[p->i + 1];
    const float *kept = j->kept + (spans_before(j->batch, p->i) * s->D + p->c) * s->N + p->from;
    float h[SPAN + 1][STATES], decay[SPAN][STATES], dh[STATES] = {0}, dA[STATES] = {0};
    for (size_t span = (end - first + SPAN - 1) / SPAN; span-- > 0;) {
        size_t from = first + span * SPAN, n = end - from < SPAN ? end - from : SPAN;
        memcpy(h[0], kept + span * s->D * s->N, p->n * sizeof **h);
        for (size_t t = 0; t < n; t++) {
            memcpy(h[t + 1], h[t], p->n * sizeof **h);
            advance(j, p, from + t, decay[t], h[t + 1]);
        }
        for (size_t t = n; t-- > 0;)
            row_bwd(j, p, from + t, h[t + 1], h[t], decay[t], dh, dA, partial);
    }
    for (size_t k = 0; j->d->A_log && k < p->n; k++)
        j->d->A_log[p->c * s->N + p->from + k] += dA[k];
}

/* An item is a block of channels: all sequences, in order */
static void bwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_ssm1 *s = j->s;
    size_t rows = tg_batch_rows(j->batch), from = item * CHANNELS;
    size_t to = from + CHANNELS < s->D ? from + CHANNELS : s->D;
    float *partial = j->partial + item * 2 * rows * s->N;
    (void)worker;
    memset(partial, 0, 2 * rows * s->N * sizeof *partial);
    for (size_t c = from; c < to; c++) {
        for (size_t i = 0; i < j->batch->count; i++)
            for (size_t k = 0; k < s->N; k += STATES) {
                struct piece p;
                piece_begin(j, i, c, k, &p);
                piece_bwd(j, &p, partial);
            }
        for (size_t row = 0; j->d->skip && row < rows; row++)
            j->d->skip[c] += j->dy[row * s->D + c] * j->in->x[row * s->D + c];
    }
}

void tg_ssm1_bwd(const struct tg_ctx *ctx, const struct tg_ssm1 *s, const struct tg_batch *batch,
                 const struct tg_ssm1_in *in, const float *saved, const float *dy,
                 const struct tg_ssm1_grads *d, float *work)
{
    struct job j = {.ctx = ctx,
                    .s = s,
                    .batch = batch,
                    .in = in,
                    .kept = saved,
                    .dy = dy,
                    .d = d,
                    .partial = work};
    size_t rows = tg_batch_rows(batch), each = rows * s->N;
    tg_parallel(ctx->threads, blocks_of(s), bwd_item, &j);
    for (size_t i = 0; i < each; i++) {
        float dB = 0, dC = 0;
        for (size_t b = 0; b < blocks_of(s); b++) {
            dB += work[2 * b * each + i];
            dC += work[(2 * b + 1) * each + i];
        }
        d->B[i / s->N * s->ld + i % s->N] = dB;
        d->C[i / s->N * s->ld + i % s->N] = dC;
    }
}

void tg_ssm1_ref(const struct tg_ssm1 *s, size_t n, const double *x, const double *dt,
                 const double *A_log, const double *B, const double *C, const double *skip,
                 double *h, double *y)
{
    for (size_t t = 0; t < n; t++)
        for (size_t c = 0; c < s->D; c++) {
            double in = x[t * s->D + c], step = dt[t * s->D + c], sum = skip[c] * in;
            for (size_t k = 0; k < s->N; k++) {
                double *to = h + c * s->N + k;
                *to = exp(-exp(A_log[c * s->N + k]) * step) * *to + step * in * B[t * s->N + k];
                sum += *to * C[t * s->N + k];
            }
            y[t * s->D + c] = sum;
        }
}
