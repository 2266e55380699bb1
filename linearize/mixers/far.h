/* The far branch: gated linear attention over the keys that are `lag` or more rows back (lag 0:
 * over all keys up to the row itself), as the outer-product recurrence of kernels/outer.h over
 * shifted keys. Row t takes in the key j = t - lag with the decay of the rows passed since:
 *
 *   k'_t = phi(k_j) e^{g_{j+1} + .. + g_t},  v'_t = v_j,  q'_t = phi(q_t)
 *   num_t = sum_{j <= t-lag} D_tj phi(q_t).phi(k_j) v_j,  den_t the same without v,
 *   D_tj = e^{g_{j+1} + .. + g_t}
 *
 * Or across chunks of rows counted from a sequence's start (lag 0, chunk their size): row t takes
 * in the keys of the chunks before its own, each decayed by all rows since, t's own included.
 *
 * g <= 0 per query head, so no exponential exceeds 1. The feature map has weights per query head,
 * on q and on k of kv head h / (H / G). Rows t < lag have num = 0, den = 0. */
#ifndef TG_LINEARIZE_FAR_H
#define TG_LINEARIZE_FAR_H

#include <stdbool.h>

#include "linearize/kernels/batch.h"
#include "linearize/kernels/featuremap.h"
#include "linearize/kernels/kernels.h"

struct tg_far {
    size_t H, G, V; /* head size is map.K */
    struct tg_map map;
    size_t lag, chunk;    /* chunk 0: default */
    bool across;          /* keys of earlier chunks alone */
    const float *wq, *wk; /* [H,K,F], NULL for maps without weights */
};
size_t tg_far_state(const struct tg_far *f); /* floats of one sequence; zeroed = nothing seen */
size_t tg_far_saved(const struct tg_far *f, const struct tg_batch *b);
size_t tg_far_work(const struct tg_far *f, const struct tg_batch *b, int threads, bool backward);

/* q [rows,H,K], k [rows,G,K], v [rows,G,V], g [rows,H] log gates or NULL -> num [rows,H,V],
 * den [rows,H]. states[i]: in: what sequence i's far keys before these rows left, out: the end
 * (NULL: from zero). saved NULL: no backward follows. */
void tg_far_fwd(const struct tg_ctx *ctx, const struct tg_far *f, const struct tg_batch *b,
                const float *q, const float *k, const float *v, const float *g, float *num,
                float *den, float *const *states, float *saved, float *work);
/* dq, dk, dv, dg, dwq, dwk are accumulated; dg NULL without g; dwq, dwk NULL: not wanted. */
void tg_far_bwd(const struct tg_ctx *ctx, const struct tg_far *f, const struct tg_batch *b,
                const float *q, const float *k, const float *v, const float *g, const float *saved,
                const float *dnum, const float *dden, float *dq, float *dk, float *dv, float *dg,
                float *dwq, float *dwk, float *work);

/* One row of head h: q [K]; k, v the key that enters now, `passed` the sum of g since it was seen,
 * g the row's own. state: the whole far state of the sequence. scratch [2 * features]. Returns den.
 */
float tg_far_step(const struct tg_kernels *kern, const struct tg_far *f, size_t h, const float *q,
                  const float *k, const float *v, float passed, float g, float *state, float *num,
                  float *scratch);

/* The same across chunks, in two parts. One row of head h, `passed` the sum of g since its chunk
 * began, its own included: num and den of the chunks before. scratch [features] */
float tg_far_read(const struct tg_kernels *kern, const struct tg_far *f, size_t h, const float *q,
                  float passed, const float *state, float *num, float *scratch);
/* A whole chunk of head h enters: k [chunk,K], v [chunk,V], g [chunk] or NULL. scratch [features]
 */
void tg_far_enter(const struct tg_kernels *kern, const struct tg_far *f, size_t h, const float *k,
                  const float *v, const float *g, float *state, float *scratch);

/* A gate's logarithm from its logit; its derivative is 1 - e^{log sigmoid(x)} */
float tg_log_sigmoid(float x);

#endif
