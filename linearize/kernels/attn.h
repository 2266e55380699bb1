/* Causal softmax attention over a window, blocked: never a T x T matrix. The building block of
 * every mixer with true softmax scores. Per query head h of H, kv head h / (H / G).
 *
 *   s_tj = scale q_t . k_j  for 0 <= t - j < window; with a soft cap c: c tanh(s_tj / c)
 *   lse_t = log sum_j e^{s_tj},   o_t = sum_j e^{s_tj - lse_t} v_j
 *
 * The backward takes the log of the whole denominator that the caller normalised with (softmax
 * alone: lse itself; with sinks or a far branch: the joint one), so that p_tj = e^{s_tj - total_t},
 * ds_tj = p_tj (dy_t . v_j - delta_t), times 1 - (s_tj / c)^2 with a cap; dv_j += p_tj dy_t.
 *
 * Cost O(T window), memory O(T): scratch is 32 KB of each thread's stack. */
#ifndef TG_LINEARIZE_ATTN_H
#define TG_LINEARIZE_ATTN_H

#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

struct tg_attn {
    size_t H, G, K, V;
    size_t window; /* 0: unlimited */
    float scale;
    float cap; /* 0: none */
};

/* q [rows,H,K], k [rows,G,K], v [rows,G,V], o [rows,H,V], lse [rows,H]. Also max_out [rows,H]
 * (NULL: not wanted): the largest score in the row's window (lolcats needs it). batch->past must be
 * NULL or 0: keys are those of the rows. */
void tg_attn_fwd(const struct tg_ctx *ctx, const struct tg_attn *a, const struct tg_batch *batch,
                 const float *q, const float *k, const float *v, float *o, float *lse,
                 float *max_out);
/* dy [rows,H,V], total [rows,H], delta [rows,H]. dq, dk, dv are accumulated (+=). Bit-equal for any
 * number of threads. */
void tg_attn_bwd(const struct tg_ctx *ctx, const struct tg_attn *a, const struct tg_batch *batch,
                 const float *q, const float *k, const float *v, const float *dy,
                 const float *total, const float *delta, float *dq, float *dk, float *dv);
/* One query row of one head against `count` cached keys: key of slot i at k[i * stride], oldest
 * first in at most two runs is the caller's affair (order does not matter). Returns lse; o [V].
 * scores: scratch [count]. */
float tg_attn_row(const struct tg_kernels *kern, const float *q, const float *k, size_t k_stride,
                  const float *v, size_t v_stride, size_t count, size_t K, size_t V, float scale,
                  float cap, float *scores, float *o, float *max_out);

#endif
