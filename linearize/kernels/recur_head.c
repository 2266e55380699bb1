/* One state of the recurrences of recur.h, chunk by chunk. With the scores M of recur_chunk.h, S
 * the state before the chunk, queries q, reader x (-k or a, with d = c_i or c_{i-1}), rights y_r
 * with values Z_r, of which z is written by what the reader finds:
 *
 *   E = V + (e^{d} . X) S + M^{xk} U,  U = diag(beta) E        (delta, Z_k = U)
 *   W = M^{xk} V + (e^{d} . X) S + M^{xb} W                    (general, Z_k = V, Z_b = W)
 *   O = (e^{c} . Q) S + sum_r M^{qr} Z_r
 *   S' = diag(e^{c_C}) S + sum_r (e^{c_C - c} . Y_r)^T Z_r
 *
 * E and W by forward substitution over blocks of 16 rows. Backward, dS the gradient of S':
 *
 *   dM^{qr} = dO Z_r^T,  dZ_r = sum_q M^{qr T} dO + (e^{c_C - c} . Y_r) dS
 *   R_i = dZ_{z,i} + sum_{j > i} M^{xz}_ji R_j, times beta_i for delta;  dbeta_i = (R_i / beta_i) .
 * E_i dM^{xz} = R Z_z^T;  delta: dV = R;  general: dM^{xk} = R V^T, dV = dZ_k + M^{xk T} R dq:
 * e^{c} . (dO S^T);  dx: e^{d} . (R S^T);  dy_r: e^{c_C - c} . (Z_r dS^T);  and from dM dc_C +=
 * sum_r y_r . dy_r of these + e^{c_C} . rowsum(dS . S) dS <- diag(e^{c_C}) dS + (e^{c} . Q)^T dO +
 * (e^{d} . X)^T R dg_i = sum of dc_l, l >= i in the chunk
 *
 * c and dc are double. */
#include "linearize/kernels/recur_head.h"

#include <string.h>

#include "linearize/kernels/recur_chunk.h"

enum { LONG_CHUNK = 64, SHORT_CHUNK = 32, SMALL_STATE = 64 * 64, BLOCK = TG_RECUR_BLOCK };

/* Rules that solve for values spend more inside a chunk; but a state is kept for each chunk, so
 * chunks are short only where states are small. */
size_t tg_recur_chunk_rows(const struct tg_recur *r)
{
    if (r->chunk)
        return r->chunk;
    return r->rule != TG_RULE_OUTER && r->K * r->V <= SMALL_STATE ? SHORT_CHUNK : LONG_CHUNK;
}

size_t tg_recur_head_work(const struct tg_recur *r)
{
    struct tg_recur_chunk s;
    return tg_recur_chunk_lay(r, tg_recur_chunk_rows(r), NULL, &s);
}

size_t tg_recur_head_saved(const struct tg_recur *r, size_t n)
{
    size_t C = tg_recur_chunk_rows(r);
    return (n + C - 1) / C * r->K * r->V;
}

/* y [C,n] = f x, rows of x ld apart */
static void copy_rows(const struct tg_recur_chunk *s, const float *x, size_t ld, size_t n, float f,
                      float *y)
{
    for (size_t i = 0; i < s->C; i++, x += ld, y += n) {
        memcpy(y, x, n * sizeof *y);
        if (f != 1)
            s->kern->scale(f, y, n);
    }
}

/* Gates, lefts, rights and v of the chunk that begins at row t */
static void load(const struct tg_recur_head *a, size_t t, struct tg_recur_chunk *s)
{
    size_t K = s->K, V = s->V;
    const struct tg_recur_in *in = &a->in;
    enum tg_rule rule = a->r->rule;
    tg_recur_gates(s, in->g ? in->g + t * a->ld_g : NULL, a->ld_g);
    for (size_t h = 0; h < s->queries; h++)
        copy_rows(s, in->q + t * a->ld_q + h * K, a->ld_q, K, a->r->scale,
                  tg_recur_left(s, s->left, h));
    copy_rows(s, in->k + t * a->ld_k, a->ld_k, K, 1, s->right);
    copy_rows(s, in->v + t * a->ld_v, a->ld_v, V, 1, rule == TG_RULE_DELTA ? s->E : s->values);
    float *reader = tg_recur_left(s, s->left, s->queries);
    if (rule == TG_RULE_DELTA)
        copy_rows(s, s->right, K, K, -1, reader);
    if (rule == TG_RULE_GENERAL) {
        copy_rows(s, in->a + t * a->ld_a, a->ld_a, K, 1, reader);
        copy_rows(s, in->b + t * a->ld_a, a->ld_a, K, 1, tg_recur_left(s, s->right, 1));
    }
}

/* Left l times its gates since the chunk's start */
static void left_from_start(const struct tg_recur_chunk *s, size_t l, const float *x, float *y)
{
    size_t lag = l < s->queries ? 0 : s->lag;
    tg_recur_scale(s, s->before + (1 - lag) * s->N, x, y);
}

/* The right whose values are solved for, and what the substitution works on */
static size_t solved(const struct tg_recur_chunk *s)
{
    return s->rights - 1;
}

/* Values from the scores, v and the state; empty: the state is zero */
static void solve(const struct tg_recur_head *a, size_t t, bool empty, const float *S,
                  const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, V = s->V, z = solved(s);
    if (!tg_recur_reads(s))
        return;
    bool delta = a->r->rule == TG_RULE_DELTA;
    const float *M = tg_recur_scores_of(s, s->M, s->queries, z);
    float *U = s->values + z * C * V, *E = delta ? s->E : U;
    if (!delta)
        tg_recur_lower_times(s, tg_recur_scores_of(s, s->M, s->queries, 0), V, s->values, false, E,
                             V);
    if (!empty) {
        left_from_start(s, s->queries, tg_recur_left(s, s->left, s->queries), s->X);
        s->kern->mm(false, false, C, V, K, s->X, K, S, V, true, E, V);
    }
    for (size_t from = 0; from < C; from += BLOCK) {
        size_t to = from + BLOCK < C ? from + BLOCK : C;
        if (from)
            s->kern->mm(false, false, to - from, V, from, M + from * C, C, U, V, true, E + from * V,
                        V);
        for (size_t i = from; i < to; i++) {
            s->kern->weighted_sum(M + i * C + from, U + from * V, V, i - from, V, E + i * V);
            if (!delta)
                continue;
            memcpy(U + i * V, E + i * V, V * sizeof *U);
            s->kern->scale(a->in.beta[(t + i) * a->ld_b], U + i * V, V);
        }
    }
}

/* row d of S times e^{c_C} */
static void decay_state(const struct tg_recur_chunk *s, float *S)
{
    const float *last = s->before + s->C * s->N;
    for (size_t d = 0; s->gated && d < s->K; d++)
        s->kern->scale(last[s->N == 1 ? 0 : d], S + d * s->V, s->V);
}

static void chunk_fwd(const struct tg_recur_head *a, size_t t, bool empty, bool keep_end, float *o,
                      float *S, struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, V = s->V;
    load(a, t, s);
    tg_recur_scores(s);
    solve(a, t, empty, S, s);
    for (size_t h = 0; h < s->queries; h++) {
        float *to = o + t * a->ld_o + h * V;
        if (!empty) {
            left_from_start(s, h, tg_recur_left(s, s->left, h), s->X);
            s->kern->mm(false, false, C, V, K, s->X, K, S, V, false, to, a->ld_o);
        }
        for (size_t r = 0; r < s->rights; r++)
            tg_recur_lower_times(s, tg_recur_scores_of(s, s->M, h, r), V, s->values + r * C * V,
                                 !empty || r > 0, to, a->ld_o);
    }
    if (!keep_end)
        return;
    decay_state(s, S);
    for (size_t r = 0; r < s->rights; r++) {
        tg_recur_scale(s, s->after, tg_recur_left(s, s->right, r), s->Y);
        s->kern->mm(true, false, K, V, C, s->Y, K, s->values + r * C * V, V, true, S, V);
    }
}

/* Rows of the chunk that begins at row t */
static struct tg_recur_chunk chunk_at(const struct tg_kernels *kern, const struct tg_recur_head *a,
                                      size_t t, float *work)
{
    size_t C = tg_recur_chunk_rows(a->r);
    struct tg_recur_chunk s = {.kern = kern};
    tg_recur_chunk_lay(a->r, C, work, &s);
    s.C = a->n - t < C ? a->n - t : C;
    return s;
}

/* Where the state before that chunk is kept */
static size_t saved_state(const struct tg_recur *r, size_t t)
{
    return t / tg_recur_chunk_rows(r) * r->K * r->V;
}

void tg_recur_head_fwd(const struct tg_kernels *kern, const struct tg_recur_head *a, size_t t,
                       bool carried, float *o, float *S, float *saved, float *work)
{
    struct tg_recur_chunk s = chunk_at(kern, a, t, work);
    if (saved)
        memcpy(saved + saved_state(a->r, t), S, s.K * s.V * sizeof *S);
    chunk_fwd(a, t, !carried && t == 0, carried || t + s.C < a->n, o, S, &s);
}

/* dvalues of what was solved becomes R; dbeta; dM of the reader, its dleft, its part of dS */
static void solve_bwd(const struct tg_recur_head *a, size_t t, const float *S, float *dbeta,
                      float *dS, const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, V = s->V, z = solved(s);
    const float *M = tg_recur_scores_of(s, s->M, s->queries, z);
    float *R = s->dvalues + z * C * V, *dx = tg_recur_left(s, s->dleft, s->queries);
    for (size_t to = C, from; to > 0; to = from) {
        from = (to - 1) / BLOCK * BLOCK;
        if (to < C)
            s->kern->mm(true, false, to - from, V, C - to, M + to * C + from, C, R + to * V, V,
                        true, R + from * V, V);
        for (size_t i = to; i-- > from;) {
            for (size_t j = i + 1; j < to; j++)
                s->row[j - i - 1] = M[j * C + i];
            s->kern->weighted_sum(s->row, R + (i + 1) * V, V, to - i - 1, V, R + i * V);
            if (a->r->rule != TG_RULE_DELTA)
                continue;
            dbeta[(t + i) * a->ld_b] += s->kern->dot(R + i * V, s->E + i * V, V);
            s->kern->scale(a->in.beta[(t + i) * a->ld_b], R + i * V, V);
        }
    }
    for (size_t r = 0; r < s->rights; r++)
        tg_recur_lower_products(s, V, R, V, s->values + r * C * V,
                                tg_recur_scores_of(s, s->dM, s->queries, r));
    if (z)
        tg_recur_lower_t_times(s, tg_recur_scores_of(s, s->M, s->queries, 0), V, R, V, true,
                               s->dvalues);
    s->kern->mm(false, true, C, K, V, R, V, S, V, false, dx, K);
    left_from_start(s, s->queries, dx, dx);
    left_from_start(s, s->queries, tg_recur_left(s, s->left, s->queries), s->X);
    s->kern->mm(true, false, K, V, C, s->X, K, R, V, true, dS, V);
}

/* Through the state after the chunk: dright, its part of dvalues, dc of the last row; then dS of
 * the state before as far as its decay goes */
static void state_bwd(const float *S, float *dS, const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, V = s->V, N = s->N;
    double *last = s->dc + (C - 1) * N;
    for (size_t r = 0; r < s->rights; r++) {
        float *y = tg_recur_left(s, s->right, r), *dy = tg_recur_left(s, s->dright, r);
        s->kern->mm(false, true, C, K, V, s->values + r * C * V, V, dS, V, false, dy, K);
        tg_recur_scale(s, s->after, dy, dy);
        tg_recur_scale(s, s->after, y, s->Y);
        s->kern->mm(false, false, C, V, K, s->Y, K, dS, V, true, s->dvalues + r * C * V, V);
        for (size_t i = 0; s->gated && i < C; i++)
            if (N > 1)
                s->kern->add_products(1, y + i * K, dy + i * K, last, K);
            else
                *last += s->kern->dot_d(y + i * K, dy + i * K, K);
    }
    decay_state(s, dS);
    for (size_t d = 0; s->gated && d < K; d++)
        last[N == 1 ? 0 : d] += (double)s->kern->dot(dS + d * V, S + d * V, V);
}

/* Adds what is in dleft, dright, none and dc to the caller's gradients of rows t on. */
static void write_grads(const struct tg_recur_head *a, size_t t, const struct tg_recur_grads *d,
                        const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, N = s->N;
    const struct tg_kernels *kern = s->kern;
    for (size_t l = 0; l < s->lefts; l++)
        for (size_t r = 0; r < s->rights; r++) {
            const float *none = s->none + (l * s->rights + r) * C;
            size_t behind = l < s->queries ? 0 : s->lag;
            for (size_t i = behind; i < C && (l < s->queries || s->lag); i++) {
                size_t j = i - behind;
                kern->axpy(none[i], tg_recur_left(s, s->right, r) + j * K,
                           tg_recur_left(s, s->dleft, l) + i * K, K);
                kern->axpy(none[i], tg_recur_left(s, s->left, l) + i * K,
                           tg_recur_left(s, s->dright, r) + j * K, K);
            }
        }
    for (size_t i = 0; i < C; i++) {
        const float *dx = tg_recur_left(s, s->dleft, s->queries) + i * K, *dk = s->dright + i * K;
        for (size_t h = 0; h < s->queries; h++)
            kern->axpy(a->r->scale, tg_recur_left(s, s->dleft, h) + i * K,
                       d->q + (t + i) * a->ld_q + h * K, K);
        kern->axpy(1, dk, d->k + (t + i) * a->ld_k, K);
        kern->axpy(1, s->dvalues + i * s->V, d->v + (t + i) * a->ld_v, s->V);
        if (a->r->rule == TG_RULE_DELTA)
            kern->axpy(-1, dx, d->k + (t + i) * a->ld_k, K);
        if (a->r->rule == TG_RULE_GENERAL) {
            kern->axpy(1, dx, d->a + (t + i) * a->ld_a, K);
            kern->axpy(1, dk + C * K, d->b + (t + i) * a->ld_a, K);
        }
    }
    for (size_t i = C; d->g && i-- > 0;)
        for (size_t c = 0; c < N; c++) {
            double *dc = s->dc + i * N + c;
            *dc += i + 1 < C ? dc[N] : 0;
            d->g[(t + i) * a->ld_g + c] += (float)*dc;
        }
}

static void chunk_bwd(const struct tg_recur_head *a, size_t t, const float *S, const float *dout,
                      const struct tg_recur_grads *d, float *dS, struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, V = s->V;
    load(a, t, s);
    tg_recur_scores(s);
    solve(a, t, false, S, s);
    memset(s->dc, 0, C * s->N * sizeof *s->dc);
    for (size_t h = 0; h < s->queries; h++)
        for (size_t r = 0; r < s->rights; r++) {
            const float *dO = dout + t * a->ld_o + h * V;
            tg_recur_lower_products(s, V, dO, a->ld_o, s->values + r * C * V,
                                    tg_recur_scores_of(s, s->dM, h, r));
            tg_recur_lower_t_times(s, tg_recur_scores_of(s, s->M, h, r), V, dO, a->ld_o, h > 0,
                                   s->dvalues + r * C * V);
        }
    state_bwd(S, dS, s);
    for (size_t h = 0; h < s->queries; h++) {
        const float *dO = dout + t * a->ld_o + h * V;
        float *dq = tg_recur_left(s, s->dleft, h);
        s->kern->mm(false, true, C, K, V, dO, a->ld_o, S, V, false, dq, K);
        left_from_start(s, h, dq, dq);
        left_from_start(s, h, tg_recur_left(s, s->left, h), s->X);
        s->kern->mm(true, false, K, V, C, s->X, K, dO, a->ld_o, true, dS, V);
    }
    if (tg_recur_reads(s))
        solve_bwd(a, t, S, d->beta, dS, s);
    tg_recur_take_none(s);
    tg_recur_scores_bwd(s, d->g != NULL);
    write_grads(a, t, d, s);
}

void tg_recur_head_bwd(const struct tg_kernels *kern, const struct tg_recur_head *a, size_t t,
                       const float *saved, const float *dout, const struct tg_recur_grads *d,
                       float *dS, float *work)
{
    struct tg_recur_chunk s = chunk_at(kern, a, t, work);
    chunk_bwd(a, t, saved + saved_state(a->r, t), dout, d, dS, &s);
}
