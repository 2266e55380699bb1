/* Kernels: a const table of function pointers over plain floats, filled with portable C and
 * overridden by what the processor has. They do not fail, allocate or start threads; unless said
 * otherwise arguments may not alias. "rows" kernels work on [rows, n] with a row stride in floats.
 * Gradients accumulate (+=) only where said. */
#ifndef TG_LINEARIZE_KERNELS_H
#define TG_LINEARIZE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cpu.h"
#include "convert/spec.h"

/* A norm of one row: y = (x - mean) r f + b.
 *
 *   RMS    mean = 0, r = (mean(x^2) + eps)^-1/2
 *   LAYER  mean of x, r = (variance of x + eps)^-1/2
 *
 * f is w, or 1 + w, or 1 without w: the parameter stays w. */
struct tg_norm {
    bool layer, plus_one;
    float eps;
    const float *w, *b; /* [n] or NULL */
};

/* An activation, alone and as a gate. Gradients are written, not accumulated. y, da, db may be any
 * of the arguments. */
struct tg_act_kernels {
    void (*fwd)(const float *a, float *y, size_t n); /* y = act(a) */
    void (*bwd)(const float *a, const float *dy, float *da, size_t n);
    void (*mul_fwd)(const float *a, const float *b, float *y, size_t n); /* y = act(a) b */
    void (*mul_bwd)(const float *a, const float *b, const float *dy, float *da, float *db,
                    size_t n);
};

/* Of the factors of large products with weights, where a processor multiplies bfloat16 faster than
 * float32; elsewhere, and for small products, all are float32. Sums are float32.
 *
 *   FLOAT32  x                                                     24 significant bits
 *   BF16X2   x0 + x1, x0 = bf16(x), x1 = bf16(x - x0), without x1 y1     16
 *   BF16     bf16(x), to the nearest, ties to even                       8
 */
enum tg_precision { TG_PREC_F32, TG_PREC_BF16X2, TG_PREC_BF16 };

/* C[m,n] = alpha op(A) op(B) + beta C, as tg_gemm has them */
struct tg_product {
    bool ta, tb;
    size_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    size_t lda, ldb, ldc;
};

struct tg_kernels {
    const char *name; /* "c", "avx2", "avx512", "amx" */

    /* y = e^x, element-wise, below 2 ulp; y may be x. e^-inf = 0; overflow gives +inf; NaN stays
     * NaN */
    void (*exp)(const float *x, float *y, size_t n);
    /* y = 1 / (1 + e^-x) and y = log(1 + e^x), element-wise, to a few ulp; y may be x */
    void (*sigmoid)(const float *x, float *y, size_t n);
    void (*softplus)(const float *x, float *y, size_t n);
    /* x[i] <- e^(x[i] - shift); returns the sum (fixed order). shift = -inf is not allowed */
    float (*exp_shift_sum)(float *x, float shift, size_t n);
    float (*max)(const float *x, size_t n); /* -inf for n = 0 */
    float (*dot)(const float *a, const float *b, size_t n);
    /* out[j] = x[n] . w_j[n], w_j = w + j * stride, j < count: one query against many keys, a
     * matrix times a vector. Each out[j] depends on x and w_j alone, to the bit */
    void (*dots)(const float *x, const float *w, size_t stride, size_t count, size_t n, float *out);
    /* o[n] += sum_j p[j] v_j[n], v_j = v + j * stride, j < count */
    void (*weighted_sum)(const float *p, const float *v, size_t stride, size_t count, size_t n,
                         float *o);
    /* C [m,n] (+)= op(A) op(B) as tg_gemm has them, for matrices that fit a cache: no panels are
     * packed. A row of C depends on its row of op(A) alone, to the bit */
    void (*mm)(bool ta, bool tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
               const float *b, size_t ldb, bool add, float *c, size_t ldc);
    bool fast_mm; /* written for its instructions: A B^T faster than OpenBLAS's, which packs both */
    /* The product at BF16X2 or BF16; NULL where float32 is as fast. An infinite factor gives NaN at
     * BF16X2. */
    void (*product)(const struct tg_product *p, enum tg_precision precision);
    double (*sum_squares)(const float *x, size_t n);           /* accumulated in double */
    void (*axpy)(float a, const float *x, float *y, size_t n); /* y += a x */
    void (*scale)(float a, float *x, size_t n);
    void (*mul)(const float *f, const float *x, float *y, size_t n); /* y = f x; y may be x or f */
    void (*add_mul)(const float *f, const float *x, float *y, size_t n); /* y += f x */
    /* Rows x_j = x + j * stride, j < count: x_j *= f, and x_j += p[j] y */
    void (*mul_rows)(const float *f, float *x, size_t stride, size_t count, size_t n);
    void (*add_rows)(const float *p, const float *y, float *x, size_t stride, size_t count,
                     size_t n);
    /* Of exact products, in double: their sum, and y += sign a b */
    double (*dot_d)(const float *a, const float *b, size_t n);
    void (*add_products)(double sign, const float *a, const float *b, double *y, size_t n);
    void (*add_d)(const double *x, const float *g, double *y, size_t n); /* y = x + g */
    /* y_i = e^{x_i - ref}, or e^{ref - x_i} if minus, rows [rows,n]; differences are rounded */
    void (*exp_from)(const double *x, const double *ref, bool minus, size_t rows, size_t n,
                     float *y);

    /* RMS norm of one row: y = x * r * w, r = (mean(x^2) + eps)^-1/2; returns r (saved for
     * backward). y may be x. */
    float (*rmsnorm_fwd)(const float *x, const float *w, float eps, float *y, size_t n);
    /* dx (+)= ... : dx += r (dy w - x r^2 sum(dy w x) / n); dw += dy x r */
    void (*rmsnorm_bwd)(const float *x, const float *w, float r, const float *dy, float *dx,
                        float *dw, size_t n);

    /* stats: mean and r, for backward. Mean, variance and squares are accumulated in double. y may
     * be x. A plain RMS norm has rmsnorm's bits. */
    void (*norm_fwd)(const struct tg_norm *norm, const float *x, float *y, float stats[2],
                     size_t n);
    /* With g = dy f and z = (x - mean) r:
     *   dx += r (g - z mean(g z)), for LAYER r (g - mean(g) - z mean(g z));  dw += dy z;  db += dy
     * dw and db are written only if the norm has w and b. */
    void (*norm_bwd)(const struct tg_norm *norm, const float stats[2], const float *x,
                     const float *dy, float *dx, float *dw, float *db, size_t n);

    /* x <- cap tanh(x / cap); dy <- dy times the slope there, x being the value before */
    void (*softcap_fwd)(float cap, float *x, size_t n);
    void (*softcap_bwd)(float cap, const float *x, float *dy, size_t n);

    struct tg_act_kernels act[TG_ACT_COUNT];
    /* SwiGLU gate: y = silu(a) * b; y may be a */
    void (*silu_mul_fwd)(const float *a, const float *b, float *y, size_t n);
    /* da = dy b silu'(a), db = dy silu(a): written, not accumulated; da may be a or dy, db may be b
     */
    void (*silu_mul_bwd)(const float *a, const float *b, const float *dy, float *da, float *db,
                         size_t n);

    /* Half-split rotary of one head vector of n (even) components: (x_i, x_{i+n/2}) turned by the
     * angle whose cos and sin are given [n/2]; in place. sign = +1 forward, -1 backward (the
     * transpose). */
    void (*rope)(float *x, const float *cos, const float *sin, float sign, size_t n);

    /* One row of KL(softmax(teacher) || softmax(student)), natural log, both at 1/temperature
     * `inv_temp`; student's row is overwritten by weight * dKL/dstudent (the gradient of KL alone,
     * times inv_temp from the chain rule) if weight != 0. Returns the KL, summed in double. A
     * teacher's logit of -inf has probability 0 and adds nothing. */
    double (*kl_row)(const float *teacher, float *student, float inv_temp, float weight, size_t n);
    /* One row of cross-entropy -log softmax(x)[target]; x is overwritten by weight * gradient if
     * weight != 0. Summed in double. */
    double (*ce_row)(float *x, int32_t target, float weight, size_t n);

    /* AdamW on n elements, g first multiplied by gscale; c1 = 1 - b1^step, c2 = 1 - b2^step:
     *   m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2
     *   p -= lr ((m / c1) / (sqrt(v / c2) + eps) + decay p) */
    void (*adamw)(float *p, const float *g, float *m, float *v, float gscale, float lr, float b1,
                  float b2, float eps, float decay, float c1, float c2, size_t n);
};

/* The first of the largest; 0 if x[0] is not a number */
static inline size_t tg_argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* The best table that both the processor and `mask` (enum tg_cpu_flags) allow. Const, never freed.
 */
const struct tg_kernels *tg_kernels_select(unsigned mask);
/* Every table this processor can run, portable C first, NULL-terminated: for tests and selftest.
 * "amx", which is "avx512" with `product`, is not among them. */
const struct tg_kernels *const *tg_kernels_runnable(void);

/* How to compute: passed down to everything that does arithmetic. */
struct tg_ctx {
    const struct tg_kernels *k;
    int threads;                 /* 1..64 */
    enum tg_precision precision; /* of tg_gemm and what calls it */
};

#endif
