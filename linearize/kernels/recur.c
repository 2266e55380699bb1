/* Batches of the recurrences of recur.h: heads and sequences over threads, and the step. */
#include "linearize/kernels/recur.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/denormals.h"
#include "linearize/kernels/recur_head.h"

/* Of one thread: a chunk's, then the states of sequences that have none. A carve, so that every
 * thread's part begins aligned. */
static size_t work_lay(const struct tg_recur *r, float *base, float **chunk, float **states)
{
    struct tg_carve c = {base, 0};
    *chunk = tg_carve(&c, tg_recur_head_work(r));
    *states = tg_carve(&c, tg_recur_state(r));
    return c.used;
}

size_t tg_recur_work(const struct tg_recur *r, int threads)
{
    float *chunk, *states;
    return work_lay(r, NULL, &chunk, &states) * (size_t)threads;
}

/* Offset of sequence i's saved states; a sum over those before, so asked for only where states are
 * saved: a batch of decode has thousands of sequences. */
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
    struct tg_shares shares; /* of key heads */
};

static float *at(float *p, size_t offset)
{
    return p ? p + offset : NULL;
}

static const float *at_const(const float *p, size_t offset)
{
    return p ? p + offset : NULL;
}

static size_t or_dense(size_t ld, size_t dense)
{
    return ld ? ld : dense;
}

static size_t queries(const struct tg_recur *r)
{
    return r->queries ? r->queries : 1;
}

/* Where head h of the row `begin` has its gate, and the stride of rows */
static size_t gate_at(const struct tg_recur *r, size_t begin, size_t h, size_t *ld)
{
    size_t each = r->gate == TG_GATE_CHANNEL ? r->K : 1;
    *ld = r->gate == TG_GATE_CONSTANT ? 0 : r->H * each;
    return begin * *ld + h * each;
}

/* Head h of the sequence that begins at row `begin`, its gradients and where its o begins */
static struct tg_recur_head head_of(const struct job *j, size_t begin, size_t h,
                                    struct tg_recur_grads *d, size_t *o)
{
    const struct tg_recur *r = j->r;
    const struct tg_recur_in *in = j->in;
    size_t n = queries(r), key = h / (r->H / r->G), K = r->K, V = r->V;
    struct tg_recur_head a = {.r = r,
                              .ld_q = or_dense(r->ld_q, r->G * n * K),
                              .ld_k = or_dense(r->ld_k, r->G * K),
                              .ld_v = or_dense(r->ld_v, r->H * V),
                              .ld_a = or_dense(r->ld_a, r->H * K),
                              .ld_o = r->H * n * V,
                              .ld_b = r->H};
    size_t g = gate_at(r, begin, h, &a.ld_g), ab = begin * a.ld_a + h * K;
    size_t q = begin * a.ld_q + key * n * K, k = begin * a.ld_k + key * K;
    size_t v = begin * a.ld_v + h * V, beta = begin * r->H + h;
    a.in = (struct tg_recur_in){in->q + q,
                                in->k + k,
                                in->v + v,
                                at_const(r->gate ? in->g : NULL, g),
                                at_const(in->beta, beta),
                                at_const(in->a, ab),
                                at_const(in->b, ab)};
    if (j->d)
        *d = (struct tg_recur_grads){j->d->q + q,    j->d->k + k,          j->d->v + v,
                                     at(j->d->g, g), at(j->d->beta, beta), at(j->d->a, ab),
                                     at(j->d->b, ab)};
    *o = begin * a.ld_o + h * n * V;
    return a;
}

/* A sequence's heads [first, end), and where their states are */
struct heads {
    size_t i, begin, n, first, end;
    float *states;        /* [end - first,K,V] */
    bool carried;         /* they are the caller's */
    size_t kept, kept_at; /* floats that a head keeps for backward; offset of head 0's */
    float *work;
};

static void fwd_chunk(const struct job *j, const struct heads *s, size_t h, size_t t)
{
    size_t o;
    struct tg_recur_head a = head_of(j, s->begin, h, NULL, &o);
    float *S = s->states + (h - s->first) * j->r->K * j->r->V;
    a.n = s->n;
    if (s->n == 1 && s->carried && !j->saved)
        tg_recur_step(j->ctx->k, j->r, &a.in, S, j->o + o, s->work);
    else
        tg_recur_head_fwd(j->ctx->k, &a, t, s->carried, j->o + o, S,
                          at(j->saved, s->kept_at + h * s->kept), s->work);
}

static void bwd_chunk(const struct job *j, const struct heads *s, size_t h, size_t t)
{
    size_t o;
    struct tg_recur_grads d;
    struct tg_recur_head a = head_of(j, s->begin, h, &d, &o);
    float *dS = s->states + (h - s->first) * j->r->K * j->r->V;
    a.n = s->n;
    tg_recur_head_bwd(j->ctx->k, &a, t, j->kept + s->kept_at + h * s->kept, j->dout + o, &d, dS,
                      s->work);
}

/* An item is a sequence and some of its key heads, all heads chunk by chunk. The value heads of a
 * group add to the same dq and dk, in order. */
static void heads_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_recur *r = j->r;
    const struct tg_share share = tg_share_of(&j->shares, item);
    const size_t C = tg_recur_chunk_rows(r), size = r->K * r->V, per = r->H / r->G;
    struct heads s = {.i = share.sequence, .first = share.first * per, .end = share.end * per};
    s.begin = j->batch->begin[s.i];
    s.n = j->batch->begin[s.i + 1] - s.begin;
    s.kept = tg_recur_head_saved(r, s.n);
    s.kept_at = j->saved || j->kept ? saved_at(r, j->batch, s.i) : 0;
    float *none;
    work_lay(r, j->work + (size_t)worker * tg_recur_work(r, 1), &s.work, &none);
    s.states = at(tg_state_at(j->states, s.i), s.first * size);
    s.carried = s.states;
    if (!s.carried) {
        s.states = none;
        memset(s.states, 0, (s.end - s.first) * size * sizeof *s.states);
    }
    unsigned mode = tg_denormals_off();
    for (size_t chunks = (s.n + C - 1) / C, c = 0; c < chunks; c++)
        for (size_t h = s.first; h < s.end; h++)
            if (j->d)
                bwd_chunk(j, &s, h, (chunks - 1 - c) * C);
            else
                fwd_chunk(j, &s, h, c * C);
    tg_denormals_restore(mode);
}

static void run(struct job *j)
{
    j->shares = tg_batch_shares(j->batch, j->r->G, j->ctx->threads);
    tg_parallel(j->ctx->threads, j->shares.items, heads_item, j);
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
    run(&j);
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
    run(&j);
}

void tg_recur_step(const struct tg_kernels *kern, const struct tg_recur *r,
                   const struct tg_recur_in *in, float *state, float *o, float *u)
{
    size_t K = r->K, V = r->V;
    float decay = 1;
    memset(u, 0, V * sizeof *u);
    for (size_t i = 0; i < K; i++) {
        float *s = state + i * V;
        if (r->rule == TG_RULE_GENERAL)
            kern->axpy(in->a[i], s, u, V);
        if (r->gate && (i == 0 || r->gate == TG_GATE_CHANNEL))
            decay = expf(in->g[r->gate == TG_GATE_CHANNEL ? i : 0]);
        if (r->gate)
            kern->scale(decay, s, V);
        if (r->rule == TG_RULE_DELTA)
            kern->axpy(in->k[i], s, u, V);
    }
    for (size_t c = 0; r->rule == TG_RULE_DELTA && c < V; c++)
        u[c] = *in->beta * (in->v[c] - u[c]);
    memset(o, 0, queries(r) * V * sizeof *o);
    for (size_t i = 0; i < K; i++) {
        float *s = state + i * V;
        kern->axpy(in->k[i], r->rule == TG_RULE_DELTA ? u : in->v, s, V);
        if (r->rule == TG_RULE_GENERAL)
            kern->axpy(in->b[i], u, s, V);
        for (size_t h = 0; h < queries(r); h++)
            kern->axpy(r->scale * in->q[h * K + i], s, o + h * V, V);
    }
}
