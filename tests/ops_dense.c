/* Golden operations of the softmax model: attention with and without window and sinks, rotary,
 * norm, MLP, losses. */
#include "tests/ops.h"

#include <math.h>
#include <string.h>

#include "linearize/kernels/attn.h"
#include "linearize/kernels/gemm.h"

/* With sinks: y = o e^{lse - total}, total = log(e^lse + sum_m e^{sink_hm}), delta = dy . y;
 * dsink_hm = -sum_t e^{sink_hm - total_t} delta_t. */
static void attention(struct tg_op *op, bool windowed, bool sinks)
{
    size_t B = tg_op_dim(op, "in.q", 0), T = tg_op_dim(op, "in.q", 1), rows = B * T;
    struct tg_attn a = {
        .H = tg_op_dim(op, "in.q", 2),
        .G = tg_op_dim(op, "in.k", 2),
        .K = tg_op_dim(op, "in.q", 3),
        .V = tg_op_dim(op, "in.v", 3),
        .window = windowed ? (size_t)tg_op_number(op, "window") : 0,
        .scale = (float)tg_op_number(op, "scale"),
    };
    struct tg_batch batch = tg_op_batch(op, B, T);
    const float *q = tg_op_load(op, "in.q"), *k = tg_op_load(op, "in.k");
    const float *v = tg_op_load(op, "in.v"), *dy = tg_op_load(op, "grad_out");
    const float *sink = sinks ? tg_op_load(op, "in.sink") : NULL;
    size_t M = sinks ? tg_op_dim(op, "in.sink", 1) : 0;
    if (op->failed)
        return;
    float *y = tg_op_floats(op, rows * a.H * a.V), *total = tg_op_floats(op, rows * a.H);
    float *delta = tg_op_floats(op, rows * a.H), *dsink = tg_op_floats(op, a.H * M);
    float *dq = tg_op_floats(op, rows * a.H * a.K), *dk = tg_op_floats(op, rows * a.G * a.K);
    float *dv = tg_op_floats(op, rows * a.G * a.V);

    tg_attn_fwd(&op->ctx, &a, &batch, q, k, v, y, total, NULL);
    for (size_t i = 0; i < rows * a.H; i++) {
        const float *s = sinks ? sink + i % a.H * M : NULL;
        float lse = total[i], den = 1;
        for (size_t m = 0; m < M; m++)
            den += expf(s[m] - lse);
        total[i] = lse + logf(den);
        op->ctx.k->scale(1 / den, y + i * a.V, a.V);
        delta[i] = op->ctx.k->dot(y + i * a.V, dy + i * a.V, a.V);
        for (size_t m = 0; m < M; m++)
            dsink[i % a.H * M + m] -= expf(s[m] - total[i]) * delta[i];
    }
    tg_attn_bwd(&op->ctx, &a, &batch, q, k, v, dy, total, delta, dq, dk, dv);
    tg_op_check(op, "out", y, rows * a.H * a.V);
    tg_op_check(op, "grad.q", dq, rows * a.H * a.K);
    tg_op_check(op, "grad.k", dk, rows * a.G * a.K);
    tg_op_check(op, "grad.v", dv, rows * a.G * a.V);
    if (sinks)
        tg_op_check(op, "grad.sink", dsink, a.H * M);
}

static void softmax(struct tg_op *op)
{
    attention(op, false, false);
}

static void swa(struct tg_op *op)
{
    attention(op, true, false);
}

static void swa_sink(struct tg_op *op)
{
    attention(op, true, true);
}

/* x [B,T,H,K]: position t turns by t theta^(-2i/K) */
static void rope(struct tg_op *op)
{
    size_t B = tg_op_dim(op, "in.x", 0), T = tg_op_dim(op, "in.x", 1);
    size_t H = tg_op_dim(op, "in.x", 2), K = tg_op_dim(op, "in.x", 3);
    double theta = tg_op_number(op, "theta");
    float *x = tg_op_load(op, "in.x"), *dy = tg_op_load(op, "grad_out");
    if (op->failed)
        return;
    float *cosine = tg_op_floats(op, T * K / 2), *sine = tg_op_floats(op, T * K / 2);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < K / 2; i++) {
            double angle = (double)t * pow(theta, -2.0 * (double)i / (double)K);
            cosine[t * K / 2 + i] = (float)cos(angle);
            sine[t * K / 2 + i] = (float)sin(angle);
        }
    for (size_t r = 0; r < B * T * H; r++) {
        size_t t = r / H % T;
        op->ctx.k->rope(x + r * K, cosine + t * K / 2, sine + t * K / 2, 1, K);
        op->ctx.k->rope(dy + r * K, cosine + t * K / 2, sine + t * K / 2, -1, K);
    }
    tg_op_check(op, "out", x, B * T * H * K);
    tg_op_check(op, "grad.x", dy, B * T * H * K);
}

static void rmsnorm(struct tg_op *op)
{
    const struct tg_tensor *shape = tg_op_tensor(op, "in.x");
    size_t D = tg_op_dim(op, "in.w", 0), rows = shape && D ? shape->elements / D : 0;
    float eps = (float)tg_op_number(op, "eps");
    const float *x = tg_op_load(op, "in.x"), *w = tg_op_load(op, "in.w");
    const float *dy = tg_op_load(op, "grad_out");
    if (op->failed)
        return;
    float *y = tg_op_floats(op, rows * D), *dx = tg_op_floats(op, rows * D);
    float *dw = tg_op_floats(op, D);
    for (size_t r = 0; r < rows; r++) {
        float inv = op->ctx.k->rmsnorm_fwd(x + r * D, w, eps, y + r * D, D);
        op->ctx.k->rmsnorm_bwd(x + r * D, w, inv, dy + r * D, dx + r * D, dw, D);
    }
    tg_op_check(op, "out", y, rows * D);
    tg_op_check(op, "grad.x", dx, rows * D);
    tg_op_check(op, "grad.w", dw, D);
}

/* y = (silu(x Wg^T) * (x Wu^T)) Wd^T, Wg, Wu [M,D], Wd [D,M] */
static void swiglu(struct tg_op *op)
{
    const struct tg_ctx *ctx = &op->ctx;
    const struct tg_tensor *shape = tg_op_tensor(op, "in.x");
    size_t M = tg_op_dim(op, "in.w_gate", 0), D = tg_op_dim(op, "in.w_gate", 1);
    size_t rows = shape && D ? shape->elements / D : 0;
    const float *x = tg_op_load(op, "in.x"), *wg = tg_op_load(op, "in.w_gate");
    const float *wu = tg_op_load(op, "in.w_up"), *wd = tg_op_load(op, "in.w_down");
    const float *dy = tg_op_load(op, "grad_out");
    if (op->failed)
        return;
    float *a = tg_op_floats(op, rows * M), *b = tg_op_floats(op, rows * M);
    float *h = tg_op_floats(op, rows * M), *dh = tg_op_floats(op, rows * M);
    float *y = tg_op_floats(op, rows * D), *dx = tg_op_floats(op, rows * D);
    float *dwg = tg_op_floats(op, M * D), *dwu = tg_op_floats(op, M * D);
    float *dwd = tg_op_floats(op, M * D);
    tg_linear_fwd(ctx, x, wg, NULL, a, rows, M, D);
    tg_linear_fwd(ctx, x, wu, NULL, b, rows, M, D);
    ctx->k->silu_mul_fwd(a, b, h, rows * M);
    tg_linear_fwd(ctx, h, wd, NULL, y, rows, D, M);
    tg_linear_bwd(ctx, h, wd, dy, dh, 0, dwd, NULL, rows, D, M);
    ctx->k->silu_mul_bwd(a, b, dh, a, b, rows * M);
    tg_linear_bwd(ctx, x, wg, a, dx, 0, dwg, NULL, rows, M, D);
    tg_linear_bwd(ctx, x, wu, b, dx, 1, dwu, NULL, rows, M, D);
    tg_op_check(op, "out", y, rows * D);
    tg_op_check(op, "grad.x", dx, rows * D);
    tg_op_check(op, "grad.w_gate", dwg, M * D);
    tg_op_check(op, "grad.w_up", dwu, M * D);
    tg_op_check(op, "grad.w_down", dwd, M * D);
}

/* mean over rows, times grad_out [1] */
static void kl_loss(struct tg_op *op)
{
    size_t rows = tg_op_dim(op, "in.student_logits", 0), N = tg_op_dim(op, "in.student_logits", 1);
    const float *teacher = tg_op_load(op, "teacher_logits"), *dy = tg_op_load(op, "grad_out");
    float *student = tg_op_load(op, "in.student_logits");
    if (op->failed)
        return;
    double sum = 0;
    for (size_t r = 0; r < rows; r++)
        sum += op->ctx.k->kl_row(teacher + r * N, student + r * N, 1, dy[0] / (float)rows, N);
    float out = (float)(sum / (double)rows);
    tg_op_check(op, "out", &out, 1);
    tg_op_check(op, "grad.student_logits", student, rows * N);
}

static void ce_loss(struct tg_op *op)
{
    size_t rows = tg_op_dim(op, "in.logits", 0), N = tg_op_dim(op, "in.logits", 1);
    const int64_t *targets = tg_op_load_int(op, "targets");
    const float *dy = tg_op_load(op, "grad_out");
    float *x = tg_op_load(op, "in.logits");
    if (op->failed)
        return;
    double sum = 0;
    for (size_t r = 0; r < rows; r++) {
        if (targets[r] < 0 || targets[r] >= (int64_t)N) {
            tg_op_fail(op, "target %lld is not below %zu", (long long)targets[r], N);
            return;
        }
        sum += op->ctx.k->ce_row(x + r * N, (int32_t)targets[r], dy[0] / (float)rows, N);
    }
    float out = (float)(sum / (double)rows);
    tg_op_check(op, "out", &out, 1);
    tg_op_check(op, "grad.logits", x, rows * N);
}

const struct tg_op_row tg_ops_dense[] = {
    {"softmax", softmax}, {"swa", swa},         {"swa_sink", swa_sink},
    {"rope", rope},       {"rmsnorm", rmsnorm}, {"swiglu", swiglu},
    {"kl_loss", kl_loss}, {"ce_loss", ce_loss}, {NULL, NULL},
};
