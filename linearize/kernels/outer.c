/* Chunked gated outer-product recurrence; equations in outer.h.
 *
 * One head, one chunk of C rows, S and z the state before it, b_i the sum of g up to row i, and
 * E_ij = e^{b_i - b_j} for j <= i (else 0):
 *
 *   P = (Q K^T) . E
 *   num = P V + e^{b} . (Q S)                     den = rowsum(P) + e^{b} . (Q z)
 *   S' = e^{b_C} S + K^T (e^{b_C - b} . V)        z' = e^{b_C} z + K^T e^{b_C - b}
 *
 * Backward, dS and dz the gradients of S' and z':
 *
 *   dP_ij = dnum_i.v_j + dden_i       dA = dP . E        dV = P^T dnum + e^{b_C - b} . (K dS)
 *   dQ = dA K + X,  X = e^{b} . (dnum S^T + dden z^T)
 *   dK = dA^T Q + Y,  Y = e^{b_C - b} . (V dS^T + 1 dz^T)
 *   db_i = sum_j dP_ij P_ij - sum_j dP_ji P_ji + q_i.X_i - k_i.Y_i
 *   db_C += sum_i k_i.Y_i + e^{b_C} (dS.S + dz.z);        dg_i = sum_{l >= i in the chunk} db_l
 *   dS <- e^{b_C} dS + (e^{b} . Q)^T dnum;                 dz likewise
 *
 * dg is summed inside each chunk from the state's own gradient and not over the whole text, so its
 * error does not grow with the length. b and db are double.
 *
 * A gate per channel would replace E and the two row factors, in chunk_begin and decay_rows; a
 * constant gate is a g filled with one number. */
#include "linearize/kernels/outer.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/denormals.h"
#include "linearize/kernels/gemm.h"

enum { DEFAULT_CHUNK = 64 };

struct scratch {
    double *b, *db; /* [C] */
    float *eb;      /* [C] e^{b_i} */
    float *ec;      /* [C] e^{b_C - b_i} */
    float *row;     /* [C] */
    float *P, *D;   /* [C,C] */
    float *X;       /* [C,K] */
    float *W;       /* [C,V] */
    float *S, *z;   /* [K,V], [K] when the caller keeps no state */
};

size_t tg_outer_chunk_rows(size_t chunk)
{
    return chunk ? chunk : DEFAULT_CHUNK;
}

/* P and D only where rows read their own chunk */
static size_t scratch_lay(size_t K, size_t V, size_t C, bool across, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    s->b = (double *)(void *)tg_carve(&c, 2 * C);
    s->db = (double *)(void *)tg_carve(&c, 2 * C);
    s->eb = tg_carve(&c, C);
    s->ec = tg_carve(&c, C);
    s->row = tg_carve(&c, C);
    s->P = tg_carve(&c, across ? 0 : C * C);
    s->D = tg_carve(&c, across ? 0 : C * C);
    s->X = tg_carve(&c, C * K);
    s->W = tg_carve(&c, C * V);
    s->S = tg_carve(&c, K * V + K);
    s->z = s->S ? s->S + K * V : NULL;
    return c.used;
}

size_t tg_outer_head_work(size_t K, size_t V, size_t chunk)
{
    struct scratch s;
    return scratch_lay(K, V, tg_outer_chunk_rows(chunk), false, NULL, &s);
}

size_t tg_outer_across_work(size_t n, size_t K, size_t V, size_t chunk)
{
    struct scratch s;
    return scratch_lay(K, V, tg_outer_chunk_rows(chunk) < n ? tg_outer_chunk_rows(chunk) : n, true,
                       NULL, &s);
}

static void scratch_of(const struct tg_outer_head *a, float *work, struct scratch *s)
{
    size_t C = tg_outer_chunk_rows(a->chunk);
    scratch_lay(a->K, a->V, a->across && a->n < C ? a->n : C, a->across, work, s);
}

/* Do the keys of a chunk that has C rows enter the state? */
static bool enters(const struct tg_outer_head *a, size_t C)
{
    return !a->across || C == tg_outer_chunk_rows(a->chunk);
}

size_t tg_outer_head_saved(size_t n, size_t K, size_t V, size_t chunk)
{
    size_t C = tg_outer_chunk_rows(chunk);
    return (n + C - 1) / C * (K * V + K);
}

/* b, eb, ec of the C rows from t on */
static void chunk_begin(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t t,
                        size_t C, struct scratch *s)
{
    double sum = 0;
    for (size_t i = 0; i < C; i++) {
        sum += a->g ? (double)a->g[(t + i) * a->ld_g] : 0;
        s->b[i] = sum;
    }
    for (size_t i = 0; i < C; i++) {
        s->eb[i] = (float)s->b[i];
        s->ec[i] = (float)(sum - s->b[i]);
    }
    kern->exp(s->eb, s->eb, C);
    kern->exp(s->ec, s->ec, C);
}

/* s->row[0..i] = E_i */
static void decay_row(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t i,
                      struct scratch *s)
{
    for (size_t j = 0; j <= i; j++)
        s->row[j] = (float)(s->b[i] - s->b[j]);
    if (a->g)
        kern->exp(s->row, s->row, i + 1);
    else
        for (size_t j = 0; j <= i; j++)
            s->row[j] = 1;
}

/* W = factor_i x_i, rows of x ld apart */
static void decay_rows(size_t C, size_t V, const float *factor, const float *x, size_t ld, float *W)
{
    for (size_t i = 0; i < C; i++)
        for (size_t c = 0; c < V; c++)
            W[i * V + c] = factor[i] * x[i * ld + c];
}

/* S <- decay S + X^T W, z <- decay z + X^T weight; X [C,K] rows ld apart */
static void state_update(const struct tg_kernels *kern, size_t C, size_t K, size_t V, float decay,
                         const float *X, size_t ld, const float *W, const float *weight, float *S,
                         float *z)
{
    tg_gemm1(true, false, K, V, C, 1, X, ld, W, V, decay, S, V);
    kern->scale(decay, z, K);
    if (weight)
        for (size_t i = 0; i < C; i++)
            kern->axpy(weight[i], X + i * ld, z, K);
}

/* Through the chunk's own scores: added to num and den, or written */
static void scores_fwd(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t t,
                       size_t C, bool add, float *num, float *den, struct scratch *s)
{
    const float *q = a->q + t * a->ld_k, *k = a->k + t * a->ld_k, *v = a->v + t * a->ld_v;
    tg_scores(kern, C, C, a->K, 1, q, a->ld_k, k, a->ld_k, s->P, C);
    for (size_t i = 0; i < C; i++) {
        float *p = s->P + i * C, sum = 0;
        decay_row(kern, a, i, s);
        for (size_t j = 0; j <= i; j++) {
            p[j] *= s->row[j];
            sum += p[j];
        }
        for (size_t j = i + 1; j < C; j++)
            p[j] = 0;
        if (den)
            den[i * a->ld_g] = add ? sum + den[i * a->ld_g] : sum;
    }
    tg_gemm1(false, false, C, a->V, C, 1, s->P, C, v, a->ld_v, add ? 1 : 0, num, a->ld_n);
}

/* keep_end: the state after this chunk is wanted */
static void chunk_fwd(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t t,
                      size_t C, bool empty, bool keep_end, float *num, float *den, float *S,
                      float *z, struct scratch *s)
{
    size_t K = a->K, V = a->V;
    const float *q = a->q + t * a->ld_k, *k = a->k + t * a->ld_k, *v = a->v + t * a->ld_v;
    num += t * a->ld_n;
    den = den ? den + t * a->ld_g : NULL;
    chunk_begin(kern, a, t, C, s);
    if (!empty)
        tg_gemm1(false, false, C, V, K, 1, q, a->ld_k, S, V, 0, num, a->ld_n);
    for (size_t i = 0; i < C && (!empty || a->across); i++) {
        if (empty)
            memset(num + i * a->ld_n, 0, V * sizeof *num);
        else
            kern->scale(s->eb[i], num + i * a->ld_n, V);
        if (den)
            den[i * a->ld_g] = empty ? 0 : s->eb[i] * kern->dot(q + i * a->ld_k, z, K);
    }
    if (!a->across)
        scores_fwd(kern, a, t, C, !empty, num, den, s);
    if (!keep_end)
        return;
    decay_rows(C, V, s->ec, v, a->ld_v, s->W);
    state_update(kern, C, K, V, s->eb[C - 1], k, a->ld_k, s->W, s->ec, S, z);
}

/* The state before a text and the gradient after it mostly are: their products are skipped. */
static bool all_zero(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n && x[i] == 0)
        i++;
    return i == n;
}

void tg_outer_head_fwd(const struct tg_kernels *kern, const struct tg_outer_head *a, float *num,
                       float *den, float *state, float *saved, float *work)
{
    size_t C = tg_outer_chunk_rows(a->chunk), size = a->K * a->V + a->K;
    struct scratch s;
    scratch_of(a, work, &s);
    float *S = state ? state : s.S;
    if (!state)
        memset(S, 0, size * sizeof *S);
    unsigned mode = tg_denormals_off();
    for (size_t t = 0; t < a->n; t += C) {
        if (saved)
            memcpy(saved + t / C * size, S, size * sizeof *S);
        size_t n = a->n - t < C ? a->n - t : C;
        bool keep_end = (state || t + n < a->n) && enters(a, n);
        bool empty = t == 0 && (!state || all_zero(S, size));
        chunk_fwd(kern, a, t, n, empty, keep_end, num, den, S, S + a->K * a->V, &s);
    }
    tg_denormals_restore(mode);
}

/* P and D hold Q K^T and dnum V^T: become P and dA; db (zeros) gets the gradient through E. */
static void scores_bwd(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t t,
                       size_t C, const float *dden, struct scratch *s)
{
    for (size_t i = 0; i < C; i++) {
        float *p = s->P + i * C, *d = s->D + i * C;
        float plus = dden ? dden[(t + i) * a->ld_g] : 0;
        double sum = 0;
        decay_row(kern, a, i, s);
        for (size_t j = 0; j <= i; j++) {
            d[j] = (d[j] + plus) * s->row[j];
            float m = d[j] * p[j];
            p[j] *= s->row[j];
            sum += (double)m;
            s->db[j] -= (double)m;
        }
        for (size_t j = i + 1; j < C; j++)
            p[j] = d[j] = 0;
        s->db[i] += sum;
    }
}

struct grads {
    const float *dnum, *dden;
    float *dq, *dk, *dv, *dg;
};

/* Through the chunk's own scores and the state before it (S, z) */
static void chunk_bwd_query(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t t,
                            size_t C, const float *S, const float *z, const struct grads *d,
                            struct scratch *s)
{
    size_t K = a->K, V = a->V, ld = a->ld_k;
    const float *q = a->q + t * ld, *k = a->k + t * ld, *v = a->v + t * a->ld_v;
    const float *dnum = d->dnum + t * a->ld_n;
    for (size_t i = 0; i < C; i++)
        s->db[i] = 0;
    if (!a->across) {
        tg_scores(kern, C, C, K, 1, q, ld, k, ld, s->P, C);
        tg_scores(kern, C, C, V, 1, dnum, a->ld_n, v, a->ld_v, s->D, C);
        scores_bwd(kern, a, t, C, d->dden, s);
    }
    bool start = !all_zero(S, K * V + K);
    if (start)
        tg_scores(kern, C, K, V, 1, dnum, a->ld_n, S, V, s->X, K);
    for (size_t i = 0; start && i < C; i++) {
        float *x = s->X + i * K;
        if (d->dden)
            kern->axpy(d->dden[(t + i) * a->ld_g], z, x, K);
        kern->scale(s->eb[i], x, K);
        s->db[i] += (double)kern->dot(q + i * ld, x, K);
        kern->axpy(1, x, d->dq + (t + i) * ld, K);
    }
    if (a->across)
        return;
    tg_gemm1(false, false, C, K, C, 1, s->D, C, k, ld, 1, d->dq + t * ld, ld);
    tg_gemm1(true, false, C, K, C, 1, s->D, C, q, ld, 1, d->dk + t * ld, ld);
    tg_gemm1(true, false, C, V, C, 1, s->P, C, dnum, a->ld_n, 1, d->dv + t * a->ld_v, a->ld_v);
}

/* Through the state after the chunk, whose gradient (dS, dz) is known; then that of the state
 * before */
static void chunk_bwd_state(const struct tg_kernels *kern, const struct tg_outer_head *a, size_t t,
                            size_t C, const float *S, float *dS, const struct grads *d,
                            struct scratch *s)
{
    size_t K = a->K, V = a->V, ld = a->ld_k;
    const float *k = a->k + t * ld, *v = a->v + t * a->ld_v;
    float *dz = dS + K * V, decay = enters(a, C) ? s->eb[C - 1] : 1;
    bool later = enters(a, C) && !all_zero(dS, K * V + K);
    if (later)
        tg_scores(kern, C, K, V, 1, v, a->ld_v, dS, V, s->X, K);
    double last = 0;
    for (size_t i = 0; later && i < C; i++) {
        float *y = s->X + i * K;
        kern->axpy(1, dz, y, K);
        kern->scale(s->ec[i], y, K);
        double u = (double)kern->dot(k + i * ld, y, K);
        s->db[i] -= u;
        last += u;
        kern->axpy(1, y, d->dk + (t + i) * ld, K);
    }
    if (later)
        tg_gemm1(false, false, C, V, K, 1, k, ld, dS, V, 0, s->W, V);
    for (size_t i = 0; later && i < C; i++)
        kern->axpy(s->ec[i], s->W + i * V, d->dv + (t + i) * a->ld_v, V);
    if (later)
        s->db[C - 1] += last + (double)decay * (double)kern->dot(dS, S, K * V + K);
    decay_rows(C, V, s->eb, d->dnum + t * a->ld_n, a->ld_n, s->W);
    if (d->dden)
        for (size_t i = 0; i < C; i++)
            s->eb[i] *= d->dden[(t + i) * a->ld_g];
    state_update(kern, C, K, V, decay, a->q + t * ld, ld, s->W, d->dden ? s->eb : NULL, dS, dz);
}

void tg_outer_head_bwd(const struct tg_kernels *kern, const struct tg_outer_head *a,
                       const float *saved, const float *dnum, const float *dden, float *dq,
                       float *dk, float *dv, float *dg, float *dstate, float *work)
{
    size_t C = tg_outer_chunk_rows(a->chunk), size = a->K * a->V + a->K;
    struct grads d = {dnum, dden, dq, dk, dv, dg};
    struct scratch s;
    scratch_of(a, work, &s);
    float *dS = dstate ? dstate : s.S;
    if (!dstate)
        memset(dS, 0, size * sizeof *dS);
    unsigned mode = tg_denormals_off();
    for (size_t c = (a->n + C - 1) / C; c-- > 0;) {
        size_t t = c * C, n = a->n - t < C ? a->n - t : C;
        const float *S = saved + c * size;
        chunk_begin(kern, a, t, n, &s);
        chunk_bwd_query(kern, a, t, n, S, S + a->K * a->V, &d, &s);
        chunk_bwd_state(kern, a, t, n, S, dS, &d, &s);
        double sum = 0;
        for (size_t i = n; dg && i-- > 0;) {
            sum += s.db[i];
            dg[(t + i) * a->ld_g] += (float)sum;
        }
    }
    tg_denormals_restore(mode);
}

size_t tg_outer_work(const struct tg_outer *o, const struct tg_batch *batch, int threads)
{
    (void)batch;
    return tg_outer_head_work(o->K, o->V, o->chunk) * (size_t)threads;
}

/* Offset of sequence i's saved states; a sum over those before, so asked for only where states are
 * saved */
static size_t saved_at(const struct tg_outer *o, const struct tg_batch *batch, size_t i)
{
    size_t sum = 0;
    for (size_t s = 0; s < i; s++)
        sum +=
            o->H * tg_outer_head_saved(batch->begin[s + 1] - batch->begin[s], o->K, o->V, o->chunk);
    return sum;
}

size_t tg_outer_saved(const struct tg_outer *o, const struct tg_batch *batch)
{
    return saved_at(o, batch, batch->count);
}

struct job {
    const struct tg_ctx *ctx;
    const struct tg_outer *o;
    const struct tg_batch *batch;
    const float *q, *k, *v, *g;
    float *num, *den, *state, *saved; /* forward */
    const float *kept, *dnum, *dden;  /* backward */
    float *dq, *dk, *dv, *dg, *dstate;
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

/* An item is a sequence and a kv head: the heads of a group add to the same dv, in order. */
static void head_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_outer *o = j->o;
    size_t i = item / o->G, group = item % o->G, per = o->H / o->G, size = o->K * o->V + o->K;
    size_t begin = j->batch->begin[i], n = j->batch->begin[i + 1] - begin;
    size_t kept = tg_outer_head_saved(n, o->K, o->V, o->chunk);
    size_t base = j->saved || j->kept ? saved_at(o, j->batch, i) : 0;
    float *work = j->work + (size_t)worker * tg_outer_head_work(o->K, o->V, o->chunk);
    for (size_t h = group * per; h < (group + 1) * per; h++) {
        size_t rh = begin * o->H + h, rg = begin * o->G + group;
        struct tg_outer_head a = {.n = n,
                                  .K = o->K,
                                  .V = o->V,
                                  .chunk = o->chunk,
                                  .q = j->q + rh * o->K,
                                  .k = j->k + rh * o->K,
                                  .v = j->v + rg * o->V,
                                  .g = at_const(j->g, rh),
                                  .ld_k = o->H * o->K,
                                  .ld_v = o->G * o->V,
                                  .ld_n = o->H * o->V,
                                  .ld_g = o->H};
        size_t state = (i * o->H + h) * size, keep = base + h * kept;
        if (j->num)
            tg_outer_head_fwd(j->ctx->k, &a, j->num + rh * o->V, at(j->den, rh),
                              at(j->state, state), at(j->saved, keep), work);
        else
            tg_outer_head_bwd(j->ctx->k, &a, j->kept + keep, j->dnum + rh * o->V,
                              at_const(j->dden, rh), j->dq + rh * o->K, j->dk + rh * o->K,
                              j->dv + rg * o->V, at(j->dg, rh), at(j->dstate, state), work);
    }
}

void tg_outer_fwd(const struct tg_ctx *ctx, const struct tg_outer *o, const struct tg_batch *batch,
                  const float *q, const float *k, const float *v, const float *g, float *num,
                  float *den, float *state, float *saved, float *work)
{
    struct job j = {.ctx = ctx,
                    .o = o,
                    .batch = batch,
                    .q = q,
                    .k = k,
                    .v = v,
                    .g = g,
                    .num = num,
                    .den = den,
                    .state = state,
                    .saved = saved,
                    .work = work};
    tg_parallel(ctx->threads, batch->count * o->G, head_item, &j);
}

void tg_outer_bwd(const struct tg_ctx *ctx, const struct tg_outer *o, const struct tg_batch *batch,
                  const float *q, const float *k, const float *v, const float *g,
                  const float *saved, const float *dnum, const float *dden, float *dq, float *dk,
                  float *dv, float *dg, float *dstate, float *work)
{
    struct job j = {.ctx = ctx,
                    .o = o,
                    .batch = batch,
                    .q = q,
                    .k = k,
                    .v = v,
                    .g = g,
                    .kept = saved,
                    .dnum = dnum,
                    .dden = dden,
                    .dq = dq,
                    .dk = dk,
                    .dv = dv,
                    .dg = g ? dg : NULL,
                    .dstate = dstate,
                    .work = work};
    tg_parallel(ctx->threads, batch->count * o->G, head_item, &j);
}

float tg_outer_step(const struct tg_kernels *kern, size_t K, size_t V, const float *q,
                    const float *k, const float *v, float g, float *state, float *num)
{
    float decay = expf(g), *z = state + K * V;
    memset(num, 0, V * sizeof *num);
    for (size_t i = 0; i < K; i++) {
        float *s = state + i * V;
        kern->scale(decay, s, V);
        kern->axpy(k[i], v, s, V);
        kern->axpy(q[i], s, num, V);
        z[i] = decay * z[i] + k[i];
    }
    return kern->dot(q, z, K);
}
