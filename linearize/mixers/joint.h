/* Softmax window, far branch and sinks under one denominator: the arithmetic of every mixer whose
 * row is a convex combination of values. Per query head, lse_t and o_t the window's softmax
 * (attn.h), num and den the far branch (far.h, keys `window` or more back; or, in blocks, softmax
 * over the keys of the row's own block and a far branch over the blocks before it):
 *
 *   Z_t = e^{lse_t} + e^{c_t} den_t + sum_m e^{sink_m + off_t}
 *   y_t = (e^{lse_t} o_t + e^{c_t} num_t) / Z_t
 *
 *   gated_window:  off_t = 0, c_t = logit_h                       nothing depends on a maximum
 *   LoLCATs:       off_t = c_t = max_t - log sigmoid(logit_h)     max_t the largest window score,
 *                  a constant for the gradient: dividing by e^{off_t} gives the published form
 *
 * Without a far branch it is softmax over a window, with sinks or without. Evaluated with a row
 * maximum taken out of every exponent. A row whose den_t is not positive (no far keys; or the
 * identity map, whose products may be negative) is its window and sinks alone. */
#ifndef TG_LINEARIZE_JOINT_H
#define TG_LINEARIZE_JOINT_H

#include <stdbool.h>

#include "linearize/kernels/attn.h"
#include "linearize/mixers/far.h"

struct tg_joint {
    struct tg_attn attn;
    size_t sinks;
    const float *sink; /* [H, sinks] */
    bool has_far;
    bool from_max;      /* LoLCATs: far and sinks are relative to the window's maximum */
    const float *logit; /* [H] far_logit, or window_logit if from_max */
    size_t block;       /* > 0: rows of a block, counted from the start of a sequence */
    struct tg_far far;  /* lag = attn.window; in blocks: across chunks of `block` */
};
struct tg_joint_grads {
    float *logit, *sink, *wq, *wk; /* accumulated; NULL: not wanted */
};
size_t tg_joint_saved(const struct tg_joint *j, const struct tg_batch *b);
size_t tg_joint_work(const struct tg_joint *j, const struct tg_batch *b, int threads,
                     bool backward);

/* q [rows,H,K], k [rows,G,K], v [rows,G,V], g [rows,H] log gates or NULL -> y [rows,H,V]. states:
 * far states as in tg_far_fwd. saved NULL: no backward follows. */
void tg_joint_fwd(const struct tg_ctx *ctx, const struct tg_joint *j, const struct tg_batch *b,
                  const float *q, const float *k, const float *v, const float *g, float *y,
                  float *const *states, float *saved, float *work);
/* y is the forward's output. dq, dk, dv, dg (NULL without g) are accumulated. */
void tg_joint_bwd(const struct tg_ctx *ctx, const struct tg_joint *j, const struct tg_batch *b,
                  const float *q, const float *k, const float *v, const float *g, const float *y,
                  const float *saved, const float *dy, float *dq, float *dk, float *dv, float *dg,
                  const struct tg_joint_grads *d, float *work);
/* One row of head h: y [V] in: o, out: the result. num NULL, den 0: no far key yet. Returns log Z.
 */
float tg_joint_row(const struct tg_joint *j, size_t h, float lse, float max, const float *num,
                   float den, float *y);

#endif
