/* Batches of the recurrences of recur.h: heads and sequences over threads, and the step. */
#include "linearize/kernels/recur.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "linearize/kernels/recur_head.h"

size_t tg_recur_work(const struct tg_recur *r, int threads)
{
    return tg_recur_head_work(r) * (size_t)threads;
}

/* Offset of sequence i's saved states */
static size_t saved_at(const struct tg_recur *r, const struct tg_batch *batch, size_t i)
{
    size_t sum = 0;
    for (size_t s = 0; s < i; s++)
        sum += r->H * tg_recur_head_saved(r, batch->begin[s + 1] - batch->begin[s]);
    return sum;
}

size_t tg_recur_saved(const struct tg_recur *r, const struct tg_batch *batch)
{
    return saved_at(r, batch, batch->count);
}

struct job {
    const struct tg_ctx *ctx;
    const struct tg_recur *r;
    const struct tg_batch *batch;
    const struct tg_recur_in *in;
    float *o, *saved;               /* forward */
    const float *kept, *dout;       /* backward */
    const struct tg_recur_grads *d; /* backward */
    struct tg_states states;
    float *work;
};

static float *at(float *p, size_t offset)
{
    return p ? p + offset : NULL;
}

static const float *at_const(const float *p, size_t offset)
{
    return p ? p + offset : NULL;
}

static size_t ld_k(const struct tg_recur *r)
{
    return r->ld_k ? r->ld_k : r->G * r->K;
}

static size_t ld_v(const struct tg_recur *r)
{
    return r->ld_v ? r->ld_v : r->H * r->V;
}

/* Where head h of the row `begin` has its gate, and the stride of rows */
static size_t gate_at(const struct tg_recur *r, size_t begin, size_t h, size_t *ld)
{
    size_t each = r->gate == TG_GATE_CHANNEL ? r->K : 1;
    *ld = r->gate == TG_GATE_CONSTANT ? 0 : r->H * each;
    return begin * *ld + h * each;
}

/* An item is a sequence and a key head: the value heads of a group add to the same dq and dk, in
 * order. */
static void head_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_recur *r = j->r;
    size_t i = item / r->G, group = item % r->G, per = r->H / r->G, size = r->K * r->V;
    float *start = tg_state_at(j->states, i);
    size_t begin = j->batch->begin[i], n = j->batch->begin[i + 1] - begin;
    size_t kept = tg_recur_head_saved(r, n), base = saved_at(r, j->batch, i);
    float *work = j->work + (size_t)worker * tg_recur_head_work(r);
    for (size_t h = group * per; h < (group + 1) * per; h++) {
        struct tg_recur_head a = {.r = r, .n = n, .ld_k = ld_k(r), .ld_v = ld_v(r)};
        size_t k = begin * a.ld_k + group * r->K, v = begin * a.ld_v + h * r->V;
        size_t o = (begin * r->H + h) * r->V, b = begin * r->H + h;
        size_t g = gate_at(r, begin, h, &a.ld_g);
        size_t keep = base + h * kept;
        float *state = at(start, h * size);
        a.ld_o = r->H * r->V;
        a.ld_b = r->H;
        a.in =
            (struct tg_recur_in){j->in->q + k, j->in->k + k, j->in->v + v,
                                 at_const(r->gate ? j->in->g : NULL, g), at_const(j->in->beta, b)};
        if (j->o && n == 1 && state && !j->saved) {
            tg_recur_step(j->ctx->k, r, a.in.q, a.in.k, a.in.v, a.in.g, r->delta ? *a.in.beta : 0,
                          state, j->o + o, work);
            continue;
        }
        if (j->o) {
            tg_recur_head_fwd(j->ctx->k, &a, j->o + o, state, at(j->saved, keep), work);
            continue;
        }
        struct tg_recur_grads d = {j->d->q + k, j->d->k + k, j->d->v + v, at(j->d->g, g),
                                   at(j->d->beta, b)};
        tg_recur_head_bwd(j->ctx->k, &a, j->kept + keep, j->dout + o, &d, state, work);
    }
}

void tg_recur_fwd(const struct tg_ctx *ctx, const struct tg_recur *r, const struct tg_batch *batch,
                  const struct tg_recur_in *in, float *o, struct tg_states states, float *saved,
                  float *work)
{
    struct job j = {.ctx = ctx,
                    .r = r,
                    .batch = batch,
                    .in = in,
                    .o = o,
                    .states = states,
                    .saved = saved,
                    .work = work};
    tg_parallel(ctx->threads, batch->count * r->G, head_item, &j);
}

void tg_recur_bwd(const struct tg_ctx *ctx, const struct tg_recur *r, const struct tg_batch *batch,
                  const struct tg_recur_in *in, const float *saved, const float *dout,
                  const struct tg_recur_grads *d, struct tg_states dstates, float *work)
{
    struct job j = {.ctx = ctx,
                    .r = r,
                    .batch = batch,
                    .in = in,
                    .kept = saved,
                    .dout = dout,
                    .d = d,
                    .states = dstates,
                    .work = work};
    tg_parallel(ctx->threads, batch->count * r->G, head_item, &j);
}

void tg_recur_step(const struct tg_kernels *kern, const struct tg_recur *r, const float *q,
                   const float *k, const float *v, const float *g, float beta, float *state,
                   float *o, float *u)
{
    size_t K = r->K, V = r->V;
    float decay = 1;
    memset(u, 0, V * sizeof *u);
    for (size_t i = 0; i < K; i++) {
        float *s = state + i * V;
        if (r->gate && (i == 0 || r->gate == TG_GATE_CHANNEL))
            decay = expf(g[r->gate == TG_GATE_CHANNEL ? i : 0]);
        if (r->gate)
            kern->scale(decay, s, V);
        if (r->delta)
            kern->axpy(k[i], s, u, V);
    }
    for (size_t c = 0; c < V; c++) {
        u[c] = r->delta ? beta * (v[c] - u[c]) : v[c];
        o[c] = 0;
    }
    for (size_t i = 0; i < K; i++) {
        kern->axpy(k[i], u, state + i * V, V);
        kern->axpy(r->scale * q[i], state + i * V, o, V);
    }
}
