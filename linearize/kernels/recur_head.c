/* One head of the recurrences of recur.h, chunk by chunk. A chunk has C rows, S is the state before
 * it, b_i the sum of g up to row i (a number or a vector over the K channels), and
 *
 *   P_ij = sum_d scale q_id k_jd e^{b_id - b_jd}  (j <= i)
 *   A_ij = sum_d k_id k_jd e^{b_id - b_jd}        (j < i)
 *   E = V - (e^{b} . K) S - A U,  U = diag(beta) E    (delta; forward substitution over rows)
 *   U = V                                             (outer)
 *   O = scale (e^{b} . Q) S + P U,  S' = diag(e^{b_C}) S + (e^{b_C - b} . K)^T U
 *
 * Backward, dS the gradient of S':
 *
 *   dP = dO U^T,  dU = P^T dO + (e^{b_C - b} . K) dS
 *   dR_i = beta_i Y_i,  Y_i = dU_i - sum_{j > i} A_ji dR_j  (delta; else dV = dU)
 *   dbeta_i = Y_i . E_i,  dV = dR,  dA = -dR U^T
 *   dq: from P, and e^{b} . (dO S^T);  dk+: from rows of A, and -e^{b} . (dR S^T)
 *   dk-: from columns of P and A, and e^{b_C - b} . (U dS^T);  dk = dk+ + dk-
 *   db_i = q_i . dq_i + k_i . dk+_i - k_i . dk-_i  (without P's diagonal, which has no gate)
 *   db_C += sum_i k_i . (e^{b_C - b_i} . (U dS^T)_i) + e^{b_C} . rowsum(dS . S)
 *   dS <- diag(e^{b_C}) dS + scale (e^{b} . Q)^T dO - (e^{b} . K)^T dR
 *   dg_i = sum of db_l, l >= i in the chunk
 *
 * (products of db by channel for a gate by channel). With one gate channel the part of db that
 * comes through P and A is taken from the scores, each pair M_ij = dP_ij P_ij + dA_ij A_ij once:
 *
 *   db_i += sum_{j < i} M_ij - sum_{l > i} M_li
 *
 * so that in dg_i the pairs on one side of i cancel to the last bit, which q . dq and k . dk,
 * rounded apart, do not. A gate by channel takes its exponentials pair by pair inside blocks of 16
 * rows; between blocks e^{b_i - b_j} = e^{b_i - b_r} e^{b_r - b_j} with r the first row of i's
 * block, so that both factors are <= 1. b and db are double. */
#include "linearize/kernels/recur_head.h"

#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"

enum { DEFAULT_CHUNK = 64, BLOCK = 16 };

struct scratch {
    const struct tg_kernels *kern;
    size_t C, K, V, N;     /* rows of this chunk; N gate channels: 1 or K */
    double *b, *db;        /* [C,N] */
    float *eb, *ec;        /* [C,N] e^{b_i}, e^{b_C - b_i} */
    float *q;              /* [C,K] scale Q */
    float *P, *A;          /* [C,C] */
    float *U, *E;          /* [C,V] */
    float *X, *Y;          /* [C,K] */
    float *row;            /* max(C,K) */
    float *dP, *dA;        /* [C,C] */
    float *dU;             /* [C,V] */
    float *dq, *dkp, *dkm; /* [C,K] */
    float *S;              /* [K,V] when the caller keeps no state */
};

static size_t chunk_of(const struct tg_recur *r)
{
    return r->chunk ? r->chunk : DEFAULT_CHUNK;
}

static size_t scratch_lay(const struct tg_recur *r, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    size_t C = chunk_of(r), K = r->K, V = r->V, N = r->gate == TG_GATE_CHANNEL ? K : 1;
    s->K = K;
    s->V = V;
    s->N = N;
    s->b = (double *)(void *)tg_carve(&c, 2 * C * N);
    s->db = (double *)(void *)tg_carve(&c, 2 * C * N);
    float **of_gate[] = {&s->eb, &s->ec}, **of_scores[] = {&s->P, &s->A, &s->dP, &s->dA};
    float **of_keys[] = {&s->q, &s->X, &s->Y, &s->dq, &s->dkp, &s->dkm};
    float **of_values[] = {&s->U, &s->E, &s->dU};
    for (size_t i = 0; i < sizeof of_gate / sizeof *of_gate; i++)
        *of_gate[i] = tg_carve(&c, C * N);
    for (size_t i = 0; i < sizeof of_scores / sizeof *of_scores; i++)
        *of_scores[i] = tg_carve(&c, C * C);
    for (size_t i = 0; i < sizeof of_keys / sizeof *of_keys; i++)
        *of_keys[i] = tg_carve(&c, C * K);
    for (size_t i = 0; i < sizeof of_values / sizeof *of_values; i++)
        *of_values[i] = tg_carve(&c, C * V);
    s->row = tg_carve(&c, C > K ? C : K);
    s->S = tg_carve(&c, K * V);
    return c.used;
}

size_t tg_recur_head_work(const struct tg_recur *r)
{
    struct scratch s;
    return scratch_lay(r, NULL, &s);
}

size_t tg_recur_head_saved(const struct tg_recur *r, size_t n)
{
    size_t C = chunk_of(r);
    return (n + C - 1) / C * r->K * r->V;
}

/* y_i = f_i . x_i, rows of x ld apart; f_i one number or K */
static void scale_rows(const struct scratch *s, const float *f, const float *x, size_t ld, float *y)
{
    for (size_t i = 0; i < s->C; i++)
        for (size_t d = 0; d < s->K; d++)
            y[i * s->K + d] = f[s->N == 1 ? i : i * s->K + d] * x[i * ld + d];
}

/* row d of S times e^{b_C} */
static void decay_state(const struct scratch *s, float *S)
{
    const float *last = s->eb + (s->C - 1) * s->N;
    for (size_t d = 0; d < s->K; d++)
        s->kern->scale(last[s->N == 1 ? 0 : d], S + d * s->V, s->V);
}

static void chunk_begin(const struct tg_recur_head *a, size_t t, struct scratch *s)
{
    size_t C = s->C, N = s->N;
    for (size_t i = 0; i < C; i++)
        for (size_t d = 0; d < N; d++)
            s->b[i * N + d] = (i ? s->b[(i - 1) * N + d] : 0) +
                              (a->in.g ? (double)a->in.g[(t + i) * a->ld_g + d] : 0);
    for (size_t i = 0; i < C * N; i++) {
        s->eb[i] = (float)s->b[i];
        s->ec[i] = (float)(s->b[(C - 1) * N + i % N] - s->b[i]);
    }
    s->kern->exp(s->eb, s->eb, C * N);
    s->kern->exp(s->ec, s->ec, C * N);
    for (size_t i = 0; i < C; i++)
        for (size_t d = 0; d < s->K; d++)
            s->q[i * s->K + d] = a->r->scale * a->in.q[(t + i) * a->ld_q + d];
}

/* s->row = e^{b_i - b_j}: over j <= i for one gate channel */
static void decay_row(const struct scratch *s, size_t i)
{
    for (size_t j = 0; j <= i; j++)
        s->row[j] = (float)(s->b[i] - s->b[j]);
    s->kern->exp(s->row, s->row, i + 1);
}

/* s->row = e^{b_i - b_j}: over channels */
static void decay_pair(const struct scratch *s, size_t i, size_t j)
{
    for (size_t d = 0; d < s->K; d++)
        s->row[d] = (float)(s->b[i * s->K + d] - s->b[j * s->K + d]);
    s->kern->exp(s->row, s->row, s->K);
}

/* y_i = x_i . e^{+-(b_i - b_r)}, i = from..to-1; the exponent is <= 0 */
static void scale_from(const struct scratch *s, size_t r, size_t from, size_t to, const float *x,
                       size_t ld, float *y)
{
    for (size_t i = from; i < to; i++) {
        decay_pair(s, i < r ? r : i, i < r ? i : r);
        for (size_t d = 0; d < s->K; d++)
            y[i * s->K + d] = s->row[d] * x[i * ld + d];
    }
}

/* Scores by channel: M_ij = sum_d x_id k_jd e^{b_id - b_jd}, j <= i, x dense, the rest untouched.
 * X and Y are used. */
static void channel_scores(const struct scratch *s, const float *x, size_t ld_x, const float *k,
                           size_t ld, float *M)
{
    size_t C = s->C, K = s->K;
    for (size_t r = 0; r < C; r += BLOCK) {
        size_t end = r + BLOCK < C ? r + BLOCK : C;
        if (r) {
            scale_from(s, r, r, end, x, ld_x, s->X);
            scale_from(s, r, 0, r, k, ld, s->Y);
            tg_gemm1(false, true, end - r, r, K, 1, s->X + r * K, K, s->Y, K, 0, M + r * C, C);
        }
        for (size_t i = r; i < end; i++)
            for (size_t j = r; j <= i; j++) {
                float sum = 0;
                decay_pair(s, i, j);
                for (size_t d = 0; d < K; d++)
                    sum += x[i * ld_x + d] * k[j * ld + d] * s->row[d];
                M[i * C + j] = sum;
            }
    }
}

/* dx_i += sum_j dM_ij k_j . e^{b_i - b_j}, dk_j += sum_i dM_ij x_i . e^{b_i - b_j}, j < i. The
 * state's dU is not yet needed, X and Y are used. */
static void channel_scores_bwd(const struct scratch *s, const float *x, size_t ld_x, const float *k,
                               size_t ld, const float *dM, float *dx, float *dk)
{
    size_t C = s->C, K = s->K;
    for (size_t r = 0; r < C; r += BLOCK) {
        size_t end = r + BLOCK < C ? r + BLOCK : C;
        if (r) {
            scale_from(s, r, 0, r, k, ld, s->Y);
            tg_gemm1(false, false, end - r, K, r, 1, dM + r * C, C, s->Y, K, 0, s->X + r * K, K);
            scale_from(s, r, r, end, s->X, K, s->X);
            s->kern->axpy(1, s->X + r * K, dx + r * K, (end - r) * K);
            scale_from(s, r, r, end, x, ld_x, s->X);
            tg_gemm1(true, false, r, K, end - r, 1, dM + r * C, C, s->X + r * K, K, 0, s->Y, K);
            scale_from(s, r, 0, r, s->Y, K, s->Y);
            s->kern->axpy(1, s->Y, dk, r * K);
        }
        for (size_t i = r; i < end; i++)
            for (size_t j = r; j < i; j++) {
                float m = dM[i * C + j];
                decay_pair(s, i, j);
                for (size_t d = 0; d < K; d++) {
                    dx[i * K + d] += m * k[j * ld + d] * s->row[d];
                    dk[j * K + d] += m * x[i * ld_x + d] * s->row[d];
                }
            }
    }
}

/* P with its diagonal and A without; zeros above */
static void scores(const struct tg_recur_head *a, const float *k, struct scratch *s)
{
    size_t C = s->C, K = s->K;
    if (s->N > 1) {
        channel_scores(s, s->q, K, k, a->ld_k, s->P);
        if ((a->r->rule == TG_RULE_DELTA))
            channel_scores(s, k, a->ld_k, k, a->ld_k, s->A);
    } else {
        tg_gemm1(false, true, C, C, K, 1, s->q, K, k, a->ld_k, 0, s->P, C);
        if ((a->r->rule == TG_RULE_DELTA))
            tg_gemm1(false, true, C, C, K, 1, k, a->ld_k, k, a->ld_k, 0, s->A, C);
    }
    for (size_t i = 0; i < C; i++) {
        float *p = s->P + i * C, *m = s->A + i * C;
        if (s->N == 1 && a->in.g) {
            decay_row(s, i);
            for (size_t j = 0; j <= i; j++)
                p[j] *= s->row[j];
            for (size_t j = 0; (a->r->rule == TG_RULE_DELTA) && j < i; j++)
                m[j] *= s->row[j];
        }
        memset(p + i + 1, 0, (C - i - 1) * sizeof *p);
        memset(m + i, 0, (C - i) * sizeof *m);
    }
}

/* From dP and dA (zeros on and above the diagonal): adds to dq, dkp, dkm. dP and dA are
 * overwritten. */
static void scores_bwd(const struct tg_recur_head *a, const float *k, struct scratch *s)
{
    size_t C = s->C, K = s->K, ld = a->ld_k;
    if (s->N > 1) {
        channel_scores_bwd(s, s->q, K, k, ld, s->dP, s->dq, s->dkm);
        if ((a->r->rule == TG_RULE_DELTA))
            channel_scores_bwd(s, k, ld, k, ld, s->dA, s->dkp, s->dkm);
        return;
    }
    for (size_t i = 0; a->in.g && i < C; i++) {
        decay_row(s, i);
        for (size_t j = 0; j < i; j++)
            s->dP[i * C + j] *= s->row[j];
        for (size_t j = 0; (a->r->rule == TG_RULE_DELTA) && j < i; j++)
            s->dA[i * C + j] *= s->row[j];
    }
    tg_gemm1(false, false, C, K, C, 1, s->dP, C, k, ld, 1, s->dq, K);
    tg_gemm1(true, false, C, K, C, 1, s->dP, C, s->q, K, 1, s->dkm, K);
    if (!(a->r->rule == TG_RULE_DELTA))
        return;
    tg_gemm1(false, false, C, K, C, 1, s->dA, C, k, ld, 1, s->dkp, K);
    tg_gemm1(true, false, C, K, C, 1, s->dA, C, k, ld, 1, s->dkm, K);
}

/* E and U from A, v and the state; empty: the state is zero */
static void solve(const struct tg_recur_head *a, size_t t, bool empty, const float *S,
                  struct scratch *s)
{
    size_t C = s->C, V = s->V;
    const float *v = a->in.v + t * a->ld_v;
    float *to = (a->r->rule == TG_RULE_DELTA) ? s->E : s->U;
    for (size_t i = 0; i < C; i++)
        memcpy(to + i * V, v + i * a->ld_v, V * sizeof *to);
    if (!(a->r->rule == TG_RULE_DELTA))
        return;
    if (!empty) {
        scale_rows(s, s->eb, a->in.k + t * a->ld_k, a->ld_k, s->X);
        tg_gemm1(false, false, C, V, s->K, -1, s->X, s->K, S, V, 1, s->E, V);
    }
    for (size_t i = 0; i < C; i++) {
        float beta = a->in.beta[(t + i) * a->ld_b];
        for (size_t j = 0; j < i; j++)
            s->kern->axpy(-s->A[i * C + j], s->U + j * V, s->E + i * V, V);
        for (size_t c = 0; c < V; c++)
            s->U[i * V + c] = beta * s->E[i * V + c];
    }
}

static void chunk_fwd(const struct tg_recur_head *a, size_t t, bool empty, bool keep_end, float *o,
                      float *S, struct scratch *s)
{
    size_t C = s->C, K = s->K, V = s->V;
    const float *k = a->in.k + t * a->ld_k;
    chunk_begin(a, t, s);
    scores(a, k, s);
    solve(a, t, empty, S, s);
    o += t * a->ld_o;
    if (!empty) {
        scale_rows(s, s->eb, s->q, K, s->X);
        tg_gemm1(false, false, C, V, K, 1, s->X, K, S, V, 0, o, a->ld_o);
    }
    tg_gemm1(false, false, C, V, C, 1, s->P, C, s->U, V, empty ? 0 : 1, o, a->ld_o);
    if (!keep_end)
        return;
    scale_rows(s, s->ec, k, a->ld_k, s->X);
    decay_state(s, S);
    tg_gemm1(true, false, K, V, C, 1, s->X, K, s->U, V, 1, S, V);
}

void tg_recur_head_fwd(const struct tg_kernels *kern, const struct tg_recur_head *a, float *o,
                       float *state, float *saved, float *work)
{
    size_t C = chunk_of(a->r), size = a->r->K * a->r->V;
    struct scratch s = {.kern = kern};
    scratch_lay(a->r, work, &s);
    float *S = state ? state : s.S;
    if (!state)
        memset(S, 0, size * sizeof *S);
    for (size_t t = 0; t < a->n; t += C) {
        if (saved)
            memcpy(saved + t / C * size, S, size * sizeof *S);
        s.C = a->n - t < C ? a->n - t : C;
        chunk_fwd(a, t, !state && t == 0, state || t + s.C < a->n, o, S, &s);
    }
}

/* The triangle on and above the diagonal to zero */
static void strictly_lower(size_t C, float *M)
{
    for (size_t i = 0; i < C; i++)
        memset(M + i * C + i, 0, (C - i) * sizeof *M);
}

/* dU becomes dR; dbeta; dA, dkp, and dS without (e^b . K)^T dR */
static void delta_bwd(const struct tg_recur_head *a, size_t t, const float *S, float *dbeta,
                      float *dS, struct scratch *s)
{
    size_t C = s->C, K = s->K, V = s->V;
    for (size_t i = C; i-- > 0;) {
        float *y = s->dU + i * V;
        dbeta[(t + i) * a->ld_b] += s->kern->dot(y, s->E + i * V, V);
        s->kern->scale(a->in.beta[(t + i) * a->ld_b], y, V);
        for (size_t j = 0; j < i; j++)
            s->kern->axpy(-s->A[i * C + j], y, s->dU + j * V, V);
    }
    tg_gemm1(false, true, C, C, V, -1, s->dU, V, s->U, V, 0, s->dA, C);
    strictly_lower(C, s->dA);
    tg_gemm1(false, true, C, K, V, -1, s->dU, V, S, V, 0, s->dkp, K);
    scale_rows(s, s->eb, s->dkp, K, s->dkp);
    scale_rows(s, s->eb, a->in.k + t * a->ld_k, a->ld_k, s->X);
    tg_gemm1(true, false, K, V, C, -1, s->X, K, s->dU, V, 1, dS, V);
}

/* Through the state after the chunk: dkm, its part of dU, db of the last row; then dS of the state
 * before as far as the decay and q go. dq holds e^b . (dO S^T). */
static void state_bwd(const struct tg_recur_head *a, size_t t, const float *S, const float *dout,
                      float *dS, struct scratch *s)
{
    size_t C = s->C, K = s->K, V = s->V, N = s->N;
    const float *k = a->in.k + t * a->ld_k;
    double *last = s->db + (C - 1) * N;
    tg_gemm1(false, true, C, K, V, 1, s->U, V, dS, V, 0, s->dkm, K);
    scale_rows(s, s->ec, s->dkm, K, s->dkm);
    scale_rows(s, s->ec, k, a->ld_k, s->X);
    tg_gemm1(false, false, C, V, K, 1, s->X, K, dS, V, 1, s->dU, V);
    for (size_t i = 0; i < C; i++)
        for (size_t d = 0; d < K; d++)
            last[N == 1 ? 0 : d] += (double)k[i * a->ld_k + d] * (double)s->dkm[i * K + d];
    decay_state(s, dS);
    for (size_t d = 0; d < K; d++)
        last[N == 1 ? 0 : d] += (double)s->kern->dot(dS + d * V, S + d * V, V);
    scale_rows(s, s->eb, s->q, K, s->X);
    tg_gemm1(true, false, K, V, C, 1, s->X, K, dout, a->ld_o, 1, dS, V);
}

/* db of what dq, dkp and dkm hold */
static void gates_from_keys(const struct tg_recur_head *a, const float *k, struct scratch *s)
{
    size_t K = s->K, N = s->N;
    for (size_t i = 0; i < s->C; i++)
        for (size_t c = 0; c < K; c++) {
            size_t x = i * K + c;
            s->db[N == 1 ? i : x] +=
                (double)s->q[x] * (double)s->dq[x] +
                (double)k[i * a->ld_k + c] * ((double)s->dkp[x] - (double)s->dkm[x]);
        }
}

/* db of a single gate channel through P and A, from dP and dA */
static void gates_from_scores(const struct tg_recur_head *a, struct scratch *s)
{
    size_t C = s->C;
    for (size_t i = 0; i < C; i++) {
        double row = 0;
        for (size_t j = 0; j < i; j++) {
            size_t x = i * C + j;
            double m = (double)s->dP[x] * (double)s->P[x];
            if ((a->r->rule == TG_RULE_DELTA))
                m += (double)s->dA[x] * (double)s->A[x];
            row += m;
            s->db[j] -= m;
        }
        s->db[i] += row;
    }
}

/* Adds dq, dkp, dkm, P's diagonal and db to the caller's gradients. */
static void write_grads(const struct tg_recur_head *a, size_t t, const float *diagonal,
                        const struct tg_recur_grads *d, struct scratch *s)
{
    size_t K = s->K, N = s->N;
    const float *k = a->in.k + t * a->ld_k;
    float *dq = d->q + t * a->ld_q, *dk = d->k + t * a->ld_k;
    for (size_t i = 0; i < s->C; i++)
        for (size_t c = 0; c < K; c++) {
            size_t x = i * K + c, at = i * a->ld_k + c;
            dq[i * a->ld_q + c] += a->r->scale * (s->dq[x] + diagonal[i] * k[at]);
            dk[at] += s->dkp[x] + s->dkm[x] + diagonal[i] * s->q[x];
        }
    for (size_t c = 0; d->g && c < N; c++) {
        double sum = 0;
        for (size_t i = s->C; i-- > 0;) {
            sum += s->db[i * N + c];
            d->g[(t + i) * a->ld_g + c] += (float)sum;
        }
    }
}

static void chunk_bwd(const struct tg_recur_head *a, size_t t, const float *S, const float *dout,
                      const struct tg_recur_grads *d, float *dS, struct scratch *s)
{
    size_t C = s->C, K = s->K, V = s->V;
    const float *k = a->in.k + t * a->ld_k;
    dout += t * a->ld_o;
    chunk_begin(a, t, s);
    scores(a, k, s);
    solve(a, t, false, S, s);
    memset(s->db, 0, C * s->N * sizeof *s->db);
    memset(s->dkp, 0, C * K * sizeof *s->dkp);
    tg_gemm1(false, true, C, C, V, 1, dout, a->ld_o, s->U, V, 0, s->dP, C);
    tg_gemm1(true, false, C, V, C, 1, s->P, C, dout, a->ld_o, 0, s->dU, V);
    tg_gemm1(false, true, C, K, V, 1, dout, a->ld_o, S, V, 0, s->dq, K);
    scale_rows(s, s->eb, s->dq, K, s->dq);
    state_bwd(a, t, S, dout, dS, s);
    if ((a->r->rule == TG_RULE_DELTA))
        delta_bwd(a, t, S, d->beta, dS, s);
    for (size_t i = 0; i < C; i++)
        s->kern->axpy(1, s->dU + i * V, d->v + (t + i) * a->ld_v, V);
    float *diagonal = s->ec; /* no longer needed */
    for (size_t i = 0; i < C; i++)
        diagonal[i] = s->dP[i * C + i];
    strictly_lower(C, s->dP);
    if (s->N == 1 && d->g) {
        gates_from_keys(a, k, s);
        gates_from_scores(a, s);
    }
    scores_bwd(a, k, s);
    if (s->N > 1)
        gates_from_keys(a, k, s);
    write_grads(a, t, diagonal, d, s);
}

void tg_recur_head_bwd(const struct tg_kernels *kern, const struct tg_recur_head *a,
                       const float *saved, const float *dout, const struct tg_recur_grads *d,
                       float *dstate, float *work)
{
    size_t C = chunk_of(a->r), size = a->r->K * a->r->V;
    struct scratch s = {.kern = kern};
    scratch_lay(a->r, work, &s);
    float *dS = dstate ? dstate : s.S;
    if (!dstate)
        memset(dS, 0, size * sizeof *dS);
    for (size_t c = (a->n + C - 1) / C; c-- > 0;) {
        size_t t = c * C;
        s.C = a->n - t < C ? a->n - t : C;
        chunk_bwd(a, t, saved + c * size, dout, d, dS, &s);
    }
}
