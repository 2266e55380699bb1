/* Private to the frame of linear mixers: sparse state expansion (arXiv 2507.16577), the recurrence
 * of its rows. N states for each state head; a token t reads and writes the `active` of largest
 * e_t, and leaves the others as they are, without decay:
 *
 *   e       = softmax(x We^T) over N               one for all heads
 *   S^i     = the row's rule of (g, e^i k', v, beta)           for i chosen
 *   o       = sum over i chosen of e^i scale q' . S^i + o_s
 *   q', k'  = q1 + rot((x A^T) B^T), unit where the row's are
 *   o_s     = the same rule of (g_s, k, v, beta) read by q     shared state, unless no_shared
 *
 * Without the shared state q', k' are q, k, and N = 1 is the row without expansion to the bit.
 * Executed by rows gathered state after state, as a batch of shorter texts: cost is that of the
 * chosen. Which states are chosen has no gradient; de^i = dq~ . q' + dk~ . k' over all heads, q~
 * and k~ being the gathered rows, then softmax over all N. */
#ifndef TG_LINEARIZE_SSE_H
#define TG_LINEARIZE_SSE_H

#include "linearize/mixers/linear_gates.h"

struct tg_linear_parts;

struct tg_sse {
    size_t N, active; /* N 0: one state, no expansion */
    bool shared;
    struct tg_linear_gates gates; /* of the shared state */
};
struct tg_sse tg_sse_of(const struct tg_mixer *m, enum tg_linear_gate kind);
/* States of one head: N and the shared one; without expansion 1 */
size_t tg_sse_states(const struct tg_sse *s);

/* What forward makes and backward needs; NULL where there is none */
struct tg_sse_kept {
    float *e;                           /* [rows,N] */
    float *low_q, *low_k;               /* [rows,V] */
    float *q1, *k1, *q, *k;             /* of the sparse states: before unit vectors, and after */
    float *rq, *rk;                     /* of the unit vectors */
    float *states;                      /* at chunk boundaries; NULL without backward */
    struct tg_linear_gate_values gates; /* of the shared state */
};
size_t tg_sse_lay(const struct tg_linear_parts *p, const struct tg_batch *b, bool backward,
                  float *base, struct tg_sse_kept *k);
/* in: the row's heads at the recurrence and its gates; q1, k1 [rows,H,K], [rows,G,K] before unit
 * vectors. o [rows,out,V]. states: tg_sse_states times [S,K,V]. */
size_t tg_sse_work(const struct tg_linear_parts *p, const struct tg_batch *b, int threads);
void tg_sse_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_linear_parts *p,
                const struct tg_batch *b, const float *x, const struct tg_recur_in *in,
                const float *q1, const float *k1, float *o, struct tg_states states,
                const struct tg_sse_kept *k, float *work);

/* Backward in three parts, which share `work`: from do to `to` (added to) of the row's heads; what
 * the sparse states' give q1 and k1 (added to); parameters, and dx (added to). */
size_t tg_sse_bwd_work(const struct tg_linear_parts *p, const struct tg_batch *b, int threads);
void tg_sse_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const struct tg_batch *b,
                const struct tg_recur_in *in, const struct tg_sse_kept *k, const float *d_o,
                const struct tg_recur_grads *to, float *work);
void tg_sse_heads_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                      const struct tg_batch *b, const struct tg_sse_kept *k, float *dq1, float *dk1,
                      float *work);
void tg_sse_params_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                       const struct tg_linear_parts *p, const struct tg_batch *b, const float *x,
                       const struct tg_sse_kept *k, float *dx, const struct tg_mixer_grads *d,
                       float *work);

#endif
