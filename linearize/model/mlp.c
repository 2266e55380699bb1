#include "linearize/model/mlp.h"

#include "linearize/kernels/gemm.h"
#include "linearize/model/row_ops.h"

void tg_mlp_hidden(const struct tg_ctx *ctx, const struct tg_mlp *mlp, const float *x, float *a,
                   float *b, float *p, size_t rows)
{
    size_t D = mlp->D, M = mlp->M;
    if (!mlp->gate) {
        tg_linear_fwd(ctx, x, mlp->up, mlp->up_bias, a, rows, M, D);
        tg_rows_act(ctx, mlp->act, a, NULL, p, rows, M);
        return;
    }
    tg_linear_fwd(ctx, x, mlp->gate, mlp->gate_bias, a, rows, M, D);
    tg_rows_scale(ctx, mlp->gate_scale, a, rows, M);
    tg_linear_fwd(ctx, x, mlp->up, mlp->up_bias, b, rows, M, D);
    tg_rows_act(ctx, mlp->act, a, b, p, rows, M);
}

void tg_mlp_down(const struct tg_ctx *ctx, const struct tg_mlp *mlp, float alpha, const float *p,
                 float beta, float *y, size_t rows)
{
    size_t D = mlp->D, M = mlp->M;
    tg_gemm(ctx, false, true, rows, D, M, alpha, p, M, mlp->down, M, beta, y, D);
    if (mlp->down_bias)
        tg_rows_add_bias(ctx, alpha, mlp->down_bias, y, rows, D);
}

void tg_mlp_bwd(const struct tg_ctx *ctx, const struct tg_mlp *mlp, const struct tg_mlp_grads *to,
                const float *x, const float *a, const float *b, const float *dy, float beta,
                float *dx, float *p, float *q, size_t rows)
{
    tg_rows_act(ctx, mlp->act, a, mlp->gate ? b : NULL, p, rows, mlp->M);
    tg_linear_bwd(ctx, p, mlp->down, dy, q, 0, to->down, to->down_bias, rows, mlp->D, mlp->M);
    tg_mlp_hidden_bwd(ctx, mlp, to, x, a, b, beta, dx, p, q, rows);
}

void tg_mlp_hidden_bwd(const struct tg_ctx *ctx, const struct tg_mlp *mlp,
                       const struct tg_mlp_grads *to, const float *x, const float *a,
                       const float *b, float beta, float *dx, float *p, float *q, size_t rows)
{
    size_t D = mlp->D, M = mlp->M;
    if (!mlp->gate) {
        tg_rows_act_bwd(ctx, mlp->act, a, NULL, q, q, NULL, rows, M);
        tg_linear_bwd(ctx, x, mlp->up, q, dx, beta, to->up, to->up_bias, rows, M, D);
        return;
    }
    tg_rows_act_bwd(ctx, mlp->act, a, b, q, q, p, rows, M);
    tg_rows_scale(ctx, mlp->gate_scale, q, rows, M);
    tg_linear_bwd(ctx, x, mlp->gate, q, dx, beta, to->gate, to->gate_bias, rows, M, D);
    tg_linear_bwd(ctx, x, mlp->up, p, dx, 1, to->up, to->up_bias, rows, M, D);
}
