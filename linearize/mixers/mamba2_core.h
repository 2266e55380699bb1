/* Mamba-2 (Dao and Gu 2024, arXiv 2405.21060) for the rows that have it, alone or beside attention.
 * H heads of V channels (I = H V inner channels), N states a channel, G groups of B and C:
 *
 *   [z | xBC | dt] = m (c x Win^T + bin),  m a factor for each of z, x, B, C, dt, c for the input
 *   [x B C] = silu(conv(xBC)),  dt = limited softplus(dt + dt_bias)
 *   S_h <- e^{-e^{A_log} dt} S_h + B (dt x_h)^T,  o_h = S_h^T C + skip_h x_h
 *   norm:     y = w RMSnorm(o silu(z)), or w RMSnorm(o) silu(z) when the norm comes before the gate
 *   no norm:  y = o silu(z)
 *   out = out_scale (y Wout^T + bout)
 *
 * State of a sequence: the last inputs of the convolution, then S [H,N,V]. */
#ifndef TG_LINEARIZE_MAMBA2_CORE_H
#define TG_LINEARIZE_MAMBA2_CORE_H

#include "linearize/mixers/mixer.h"

size_t tg_mamba2_saved(const struct tg_mixer *m, const struct tg_batch *b);
size_t tg_mamba2_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                      bool backward);
size_t tg_mamba2_state(const struct tg_mixer *m);
/* states: of NULL for texts from their beginning; then saved may be given */
void tg_mamba2_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   const float *x, struct tg_states states, float *y, float *saved, float *work);
void tg_mamba2_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   const float *x, const float *dy, const float *saved, float *dx,
                   const struct tg_mixer_grads *d, float *work);
/* First values from a softmax layer (mamba2_inherit.c): the inherit of a row with these parameters
 */
void tg_mamba2_inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule,
                       float *data, size_t count);

#endif
