/* What the gated delta rule mixers share (gated_deltanet, kda). C = 2 G K + H V channels, H value
 * heads over G key heads:
 *
 *   [q k v] = silu(conv(x Wqkv^T)),  q, k <- q / sqrt(|q|^2 + 1e-6) per head
 *   beta = c sigmoid(x Wb^T),  c = 1 or 2 (negative eigenvalues)
 *   g = -e^{A_log} softplus(gate + dt_bias)
 *   o = the gated delta rule of kernels/recur.h, scale K^-1/2
 *   y = (w RMSnorm(o) f(z)) Wo^T
 *
 * gated_deltanet: gate = x Wa^T (one a head), z = x Wz^T, f = silu.
 * kda:            gate = (x Wfa^T) Wfb^T (one a channel), z = (x Wga^T) Wgb^T, f = sigmoid.
 *
 * State of a sequence: the last inputs of the convolution, then S [H,K,V]. */
#ifndef TG_LINEARIZE_DELTA_MIXER_H
#define TG_LINEARIZE_DELTA_MIXER_H

#include "linearize/mixers/mixer.h"

size_t tg_delta_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b);
size_t tg_delta_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                           bool backward);
void tg_delta_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, float *y, float *saved,
                        float *work);
void tg_delta_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, const float *dy,
                        const float *saved, float *dx, const struct tg_mixer_grads *d, float *work);
size_t tg_delta_mixer_state(const struct tg_mixer *m, size_t capacity);
void tg_delta_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, size_t capacity, const float *x,
                         float *const *states, float *y, float *work);

#endif
