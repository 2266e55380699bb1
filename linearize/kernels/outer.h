/* The gated outer-product recurrence, written once; chunked. Per head, with log gate g_t <= 0:
 *
 *   S_t = e^{g_t} S_{t-1} + k_t v_t^T        num_t = S_t^T q_t
 *   z_t = e^{g_t} z_{t-1} + k_t              den_t = z_t . q_t
 *
 * Chunk form: b_i = sum of g in the chunk up to i; num = e^{b_i} q_i S + sum_{j<=i} e^{b_i - b_j}
 * (q_i.k_j) v_j. Only differences b_i - b_j with i >= j are exponentiated (all <= 1). Backward
 * keeps S at chunk boundaries and recomputes inside. Cost is linear in the number of rows. */
#ifndef TG_LINEARIZE_OUTER_H
#define TG_LINEARIZE_OUTER_H

#include <stdbool.h>

#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

struct tg_outer {
    size_t H, G;  /* q, k, g, z per query head; v per kv head (h / (H / G)) */
    size_t K, V;  /* feature and value size */
    size_t chunk; /* 0: default */
};
/* state per sequence and head: S [K,V] then z [K] */
static inline size_t tg_outer_state(const struct tg_outer *o)
{
    return o->H * o->K * (o->V + 1);
}
/* floats of scratch for fwd and bwd, and of what fwd saves for bwd (states at chunk boundaries) */
size_t tg_outer_work(const struct tg_outer *o, const struct tg_batch *batch, int threads);
size_t tg_outer_saved(const struct tg_outer *o, const struct tg_batch *batch);

/* q, k [rows,H,K]; v [rows,G,V]; g [rows,H] or NULL (no decay); num [rows,H,V]; den [rows,H] or
 * NULL. state [B][H,(K*V + K)]: in: the start (NULL: zero), out: the end (state is updated in place
 * when not NULL). saved may be NULL when no backward follows. */
void tg_outer_fwd(const struct tg_ctx *ctx, const struct tg_outer *o, const struct tg_batch *batch,
                  const float *q, const float *k, const float *v, const float *g, float *num,
                  float *den, float *state, float *saved, float *work);
/* Gradients for dnum [rows,H,V] and dden [rows,H] (NULL: none). dq, dk, dv, dg are accumulated (dg
 * NULL without g). dstate: in: the gradient of the end state (NULL: zero), out: of the start state.
 */
void tg_outer_bwd(const struct tg_ctx *ctx, const struct tg_outer *o, const struct tg_batch *batch,
                  const float *q, const float *k, const float *v, const float *g,
                  const float *saved, const float *dnum, const float *dden, float *dq, float *dk,
                  float *dv, float *dg, float *dstate, float *work);
/* One token of one head: state [K*V + K] updated, num [V], returns den. */
float tg_outer_step(const struct tg_kernels *kern, size_t K, size_t V, const float *q,
                    const float *k, const float *v, float g, float *state, float *num);

/* One head of one sequence on the calling thread, for callers that make k on the way. Row t of an
 * array begins t * ld floats after its start. */
struct tg_outer_head {
    size_t n, K, V, chunk;         /* n rows */
    const float *q, *k, *v, *g;    /* [n,K], [n,K], [n,V], [n] or NULL */
    size_t ld_k, ld_v, ld_n, ld_g; /* of q and k; of v; of num; of g and den; gradients alike */
    /* A row reads the chunks before its own alone: num_i = e^{b_i} S^T q_i with S of those chunks.
     * Keys enter the state where their chunk is whole: rows after the last whole chunk leave it as
     * it was. */
    bool across;
};
size_t tg_outer_chunk_rows(size_t chunk); /* of a chunk, the default included */
size_t tg_outer_head_work(size_t K, size_t V, size_t chunk);
/* scratch of such heads of at most n rows */
size_t tg_outer_across_work(size_t n, size_t K, size_t V, size_t chunk);
size_t tg_outer_head_saved(size_t n, size_t K, size_t V, size_t chunk);
/* state [K*V + K] as above; NULL: starts from zero and forgets the end */
void tg_outer_head_fwd(const struct tg_kernels *kern, const struct tg_outer_head *a, float *num,
                       float *den, float *state, float *saved, float *work);
void tg_outer_head_bwd(const struct tg_kernels *kern, const struct tg_outer_head *a,
                       const float *saved, const float *dnum, const float *dden, float *dq,
                       float *dk, float *dv, float *dg, float *dstate, float *work);

/* Double reference, quadratic in n, no chunks and no state: one head, dense rows (ld_k = K, ...).
 * num [n,V], den [n]. */
void tg_outer_ref(size_t n, size_t K, size_t V, const double *q, const double *k, const double *v,
                  const double *g, double *num, double *den);

#endif
