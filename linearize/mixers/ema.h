/* Exponential moving averages of values, a constant decay for each channel of each query head:
 *
 *   e_t = a e_{t-1} + (1 - a) v_t,  a = sigmoid(decay)
 *
 * The bare form of the moving averages of Mega (arXiv 2209.10655). v [rows,G,V], head h averages
 * kv head h / (H / G); e [rows,H,V]; decay [H,V]. Backward, with D_t = de_t + a D_{t+1}:
 *
 *   dv_t += (1 - a) D_t,   ddecay += a (1 - a) sum_t D_t (e_{t-1} - v_t) */
#ifndef TG_LINEARIZE_EMA_H
#define TG_LINEARIZE_EMA_H

#include <stdbool.h>

#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

struct tg_ema {
    size_t H, G, V;
    const float *decay;
};
size_t tg_ema_work(const struct tg_ema *a, const struct tg_batch *b, bool backward);
/* states: [H,V] of each sequence */
void tg_ema_fwd(const struct tg_ctx *ctx, const struct tg_ema *a, const struct tg_batch *b,
                const float *v, float *e, struct tg_states states, float *work);
/* de is overwritten; dv is accumulated, ddecay too (NULL: not wanted). Sequences begin at 0. */
void tg_ema_bwd(const struct tg_ctx *ctx, const struct tg_ema *a, const struct tg_batch *b,
                const float *v, const float *e, float *de, float *dv, float *ddecay, float *work);

#endif
