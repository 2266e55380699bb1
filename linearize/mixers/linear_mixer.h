/* The frame of linear mixers: a row is a recipe of this one form. Heads as in attention: H query
 * heads over G key heads of size K; S value heads of size V (a multiple of G, mostly G).
 *
 *   q, k, v = x Wq^T, x Wk^T, x Wv^T          bias, limit, q/k norm as the layer has them
 *   w       = window(rot q, rot k, v)         with a window: softmax of its own (beside.h)
 *   v       = w                               window in series
 *   q, k, v = silu(conv(.))                   with a short convolution; or silu of some (recipe)
 *   q, k    = rot(.)                          unless the linear branch is plain
 *   q, k    = x / sqrt(|x|^2 + 1e-6)          recipe: unit; or phi(.), recipe: map
 *   o       = recurrence of kernels/recur.h, gates of linear_gates.h, beta = c sigmoid(x Wb^T);
 *             recipe: sparse, that of sse.h
 *   l       = o / (the same sum over ones in place of v)     recipe: map, unless plain_values
 *           = norm(o) . f(z)                                 else; z = x Wz^T or (x Wga^T) Wgb^T +
 * b y       = (l + alpha . w) Wo^T            alpha per head; output gate and bias as the layer has
 *
 * A state serves H / S query heads where keys and values are shared (S < H); maps with weights have
 * some for every query head, and a state for each. The joint form of a window (one denominator) is
 * joint_mixer.h's. State of a sequence: convolutions of q, k, v; recurrence; ring of the window. */
#ifndef TG_LINEARIZE_LINEAR_MIXER_H
#define TG_LINEARIZE_LINEAR_MIXER_H

#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/recur.h"
#include "linearize/mixers/linear_gates.h"
#include "linearize/mixers/mixer.h"

enum tg_linear_norm {
    TG_LINEAR_NORM_NONE,
    TG_LINEAR_NORM_HEAD, /* RMS over each head, weight [V] for all */
    TG_LINEAR_NORM_WIDE  /* RMS over all heads, weight [HV] */
};
struct tg_linear_recipe {
    enum tg_rule rule;
    enum tg_linear_gate gate;
    bool silu_q, silu_k, silu_v; /* without a convolution */
    bool unit, map;
    bool sparse; /* states of which a token uses few (sse.h) */
    enum tg_linear_norm norm;
    enum tg_gate_fn z; /* f; TG_GATE_FN_NONE: no z */
    float scale;       /* of o; 0: K^-1/2 */
};

size_t tg_linear_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b);
size_t tg_linear_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                            bool backward);
void tg_linear_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, const float *x, float *y, float *saved,
                         float *work);
void tg_linear_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, const float *x, const float *dy,
                         const float *saved, float *dx, const struct tg_mixer_grads *d,
                         float *work);
size_t tg_linear_mixer_state(const struct tg_mixer *m, size_t capacity);
size_t tg_linear_mixer_step_work(const struct tg_mixer *m, const struct tg_batch *b,
                                 size_t capacity, int threads);
void tg_linear_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                          const struct tg_batch *b, size_t capacity, const float *x,
                          float *const *states, float *y, float *work);
/* First values: linear_inherit.c */
void tg_linear_inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule,
                       float *data, size_t count);

/* The log decay of gate i, `each` a state head, and the rate at which state head s overwrites */
double tg_linear_first_decay(const struct tg_mixer *m, const struct tg_origin *o, size_t i,
                             size_t each);
double tg_linear_first_rate(const struct tg_mixer *m, const struct tg_origin *o, size_t s);

/* Keys of unit rows are centred, q/k norms that the layer has not folded into q and k */
void tg_linear_adjust(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                      size_t count);

/* A row's functions; it adds its name and recipe */
#define TG_LINEAR_MIXER_OPS                                                                        \
    .saved_floats = tg_linear_mixer_saved, .work_floats = tg_linear_mixer_work,                    \
    .forward = tg_linear_mixer_fwd, .backward = tg_linear_mixer_bwd,                               \
    .state_floats = tg_linear_mixer_state, .step_work_floats = tg_linear_mixer_step_work,          \
    .step = tg_linear_mixer_step, .inherit = tg_linear_inherit, .adjust = tg_linear_adjust

#endif
