/* One mlp over given weights: a layer's own, one expert, or the shared expert.
 *
 *   GATED  y = down(act(gate_scale gate x) * up x)      PLAIN  y = down(act(up x))
 *
 * each projection with its bias, if there is one. */
#ifndef TG_LINEARIZE_MLP_H
#define TG_LINEARIZE_MLP_H

#include "linearize/kernels/kernels.h"

struct tg_mlp {
    enum tg_activation act;
    const float *gate, *up, *down; /* [M,D], [M,D], [D,M]; gate NULL: PLAIN */
    const float *gate_bias, *up_bias, *down_bias;
    size_t M, D;
    float gate_scale;
};
/* Where gradients go; NULL: not wanted */
struct tg_mlp_grads {
    float *gate, *up, *down, *gate_bias, *up_bias, *down_bias;
};

/* x [rows,D] -> a, b [rows,M] before the activation (b: GATED alone), p [rows,M] after it; p may be
 * a */
void tg_mlp_hidden(const struct tg_ctx *ctx, const struct tg_mlp *mlp, const float *x, float *a,
                   float *b, float *p, size_t rows);
/* y = beta y + alpha (down p + bias) */
void tg_mlp_down(const struct tg_ctx *ctx, const struct tg_mlp *mlp, float alpha, const float *p,
                 float beta, float *y, size_t rows);
/* dy [rows,D] -> dx [rows,D] = beta dx + ...; a, b as tg_mlp_hidden left them; p, q [rows,M] are
 * scratch */
void tg_mlp_bwd(const struct tg_ctx *ctx, const struct tg_mlp *mlp, const struct tg_mlp_grads *to,
                const float *x, const float *a, const float *b, const float *dy, float beta,
                float *dx, float *p, float *q, size_t rows);
/* Its second half: q [rows,M] is the gradient of the activation's result and is overwritten, p is
 * scratch */
void tg_mlp_hidden_bwd(const struct tg_ctx *ctx, const struct tg_mlp *mlp,
                       const struct tg_mlp_grads *to, const float *x, const float *a,
                       const float *b, float beta, float *dx, float *p, float *q, size_t rows);

#endif
