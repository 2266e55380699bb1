/* What every attention-like mixer shares with the softmax layer that it replaces: projections of
 * the hidden states with bias and limit, norms of q and k, rotary positions, the output projection
 * with its gate.
 *
 *   q = rot(norm_q(clip(x Wq^T + bq))), k = rot(norm_k(clip(x Wk^T + bk))), v = clip(x Wv^T + bv)
 *   out = (y * sigmoid(x Wg^T + bg)) Wo^T + bo, without the gate where the layer has none
 *
 * Position of a row: tokens already in its sequence's state + its index in the sequence. */
#ifndef TG_LINEARIZE_ATTN_PROJ_H
#define TG_LINEARIZE_ATTN_PROJ_H

#include "linearize/mixers/mixer.h"

/* Rule `name` of the mixer's schema: whether its layer has it, its values, its gradient (NULL if
 * absent) */
bool tg_mixer_has(const struct tg_mixer *m, const char *name);
const float *tg_mixer_param(const struct tg_mixer *m, const char *name);
float *tg_mixer_grad(const struct tg_mixer *m, const struct tg_mixer_grads *d, const char *name);

/* What keys and values are projected from: the mixer's input by k.weight and v.weight, or for some
 * rows something made of it */
struct tg_kv_input {
    const float *x; /* [rows,n] */
    size_t n;
    const char *k, *v; /* names of the weights [GK,n], [GV,n] */
};

/* Floats kept for backward: what norms and limits were of */
size_t tg_proj_saved(const struct tg_mixer *m, const struct tg_batch *b);
size_t tg_proj_work(const struct tg_mixer *m, const struct tg_batch *b); /* of tg_proj_bwd */
/* x [rows,D] -> q [rows,H,K], k [rows,G,K] without rotary, v [rows,G,V]. saved NULL: no backward
 * follows. */
void tg_proj_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 const float *x, float *q, float *k, float *v, float *saved);
/* The parts of it, for keys and values of another input; v NULL: keys alone */
void tg_proj_q_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   const float *x, float *q, float *saved);
void tg_proj_kv_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const struct tg_kv_input *from, float *k, float *v, float *saved);
/* dq, dk, dv are overwritten; dx [rows,D] is written; parameter gradients accumulate. */
void tg_proj_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 const float *x, const float *saved, float *dq, float *dk, float *dv, float *dx,
                 const struct tg_mixer_grads *d, float *work);
/* The same with the gradient of `from` written to dfrom [rows,n] apart from dx */
void tg_proj_from_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const float *x, const struct tg_kv_input *from, const float *saved, float *dq,
                      float *dk, float *dv, float *dx, float *dfrom, const struct tg_mixer_grads *d,
                      float *work);
/* Rotary in place, q or k may be NULL; sign +1 forward, -1 for gradients. Nothing without rotary.
 */
void tg_proj_rotate(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    float *q, float *k, float sign);
/* y [rows,H,V] (of mixers with more value heads [rows,S,V]) -> out [rows,D]. gates:
 * tg_proj_out_floats (0 without output gate), from forward to backward; x is the mixer's input. */
size_t tg_proj_out_floats(const struct tg_mixer *m, const struct tg_batch *b);
void tg_proj_out_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *y, float *out, float *gates);
/* dy is written; gates then hold the gradient that _gate_bwd adds to dx, once dx is written. */
void tg_proj_out_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *y, const float *dout, float *dy, const struct tg_mixer_grads *d,
                     float *gates);
void tg_proj_out_gate_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                          const struct tg_batch *b, const float *x, const float *gates, float *dx,
                          const struct tg_mixer_grads *d);

/* log sigmoid(x Wg^T + bg) -> g [rows,H], from "gate.weight", "gate.bias"; the backward overwrites
 * dg and adds to dx [rows,D]. */
void tg_gate_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows, const float *x,
                 float *g);
void tg_gate_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows, const float *x,
                 const float *g, float *dg, float *dx, const struct tg_mixer_grads *d);

#endif
