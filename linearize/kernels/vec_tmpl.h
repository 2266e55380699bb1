/* The body of every table of kernels. A source file defines TABLE (the table's symbol) and
 * TABLE_NAME, and OWN_DOTS8 and OWN_MM if it has a dots8() and an mm() of its own, and includes
 * this once; plain loops are vectorised for the instructions that the file is compiled for. Sums
 * run in lanes whose number depends on those instructions alone, so a result depends on the table
 * and the arguments, never on threads.
 *
 * e^x: n = round(x / ln 2), r = x - n ln 2 with ln 2 in two parts (the first has few enough bits
 * that n times it is exact), a polynomial on |r| <= ln 2 / 2 (Cephes expf, S. Moshier), then 2^n in
 * two factors so that results below 2^-126 are rounded once and those above 2^128 become infinite.
 * Adding 1.5 * 2^23 rounds to an integer, left in the low bits. */
#include "linearize/kernels/tables.h"

#include <math.h>
#include <string.h>

#ifdef __clang__ /* leaves some of the loops scalar: slower, and nothing to warn of */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

static inline float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float exp_one(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    /* below -104 the result is 0, above 89 infinite; a NaN fails both comparisons and stays */
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 1.44269504088896341f + magic;
    float n = shifted - magic;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t u;
    memcpy(&u, &shifted, sizeof u);
    u -= 0x4b400000u; /* n, modulo 2^32 */
    uint32_t half = (u + 256u) / 2u - 128u;
    return p * bits_float((half + 127u) << 23) * bits_float((u - half + 127u) << 23);
}

/* e^x for x <= 0 in double, to 1e-14; 0 below -700. Taylor's series to the 11th power. */
static inline double exp_one_d(double x)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    double y = x < -700.0 ? -700.0 : x;
    double shifted = y * 1.4426950408889634074 + magic;
    double n = shifted - magic;
    double r = y - n * 6.93145751953125e-1;
    r = r - n * 1.42860682030941723212e-6;
    double p = 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    uint64_t u;
    memcpy(&u, &shifted, sizeof u);
    u = (u - 0x4338000000000000u + 1023u) << 52;
    double scale;
    memcpy(&scale, &u, sizeof scale);
    p *= scale;
    return x < -700.0 ? 0.0 : p;
}

static void exp_rows(const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = exp_one(x[i]);
}

static float exp_shift_sum(float *x, float shift, size_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        float e = exp_one(x[i] - shift);
        x[i] = e;
        sum += e;
    }
    return sum;
}

static float max_of(const float *x, size_t n)
{
    float m = -INFINITY;
#pragma omp simd reduction(max : m)
    for (size_t i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

#ifndef OWN_DOTS8
/* x[n] . w[r][n] for eight rows, which share each load of x */
static void dots8(const float *x, const float *const w[8], size_t n, float out[8])
{
    for (size_t r = 0; r < 8; r += 4) {
        const float *w0 = w[r], *w1 = w[r + 1], *w2 = w[r + 2], *w3 = w[r + 3];
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
        for (size_t i = 0; i < n; i++) {
            s0 += x[i] * w0[i];
            s1 += x[i] * w1[i];
            s2 += x[i] * w2[i];
            s3 += x[i] * w3[i];
        }
        out[r] = s0, out[r + 1] = s1, out[r + 2] = s2, out[r + 3] = s3;
    }
}
#endif

/* Fewer than eight rows at the end are filled up with the first of them: the same code, so the
 * same bits, wherever a row stands. */
static void dots(const float *x, const float *w, size_t stride, size_t count, size_t n, float *out)
{
    for (size_t j = 0; j < count; j += 8) {
        const float *rows[8];
        float sums[8];
        size_t left = count - j < 8 ? count - j : 8;
        for (size_t r = 0; r < 8; r++)
            rows[r] = w + (j + (r < left ? r : 0)) * stride;
        dots8(x, rows, n, left < 8 ? sums : out + j);
        if (left < 8)
            memcpy(out + j, sums, left * sizeof *out);
    }
}

static float dot(const float *a, const float *b, size_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void axpy(float a, const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void weighted_sum(const float *p, const float *v, size_t stride, size_t count, size_t n,
                         float *o)
{
    size_t j = 0;
    for (; j + 4 <= count; j += 4) {
        const float *v0 = v + j * stride, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
        float p0 = p[j], p1 = p[j + 1], p2 = p[j + 2], p3 = p[j + 3];
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            o[i] += (p0 * v0[i] + p1 * v1[i]) + (p2 * v2[i] + p3 * v3[i]);
    }
    for (; j < count; j++)
        axpy(p[j], v + j * stride, o, n);
}

#ifdef OWN_MM
enum { FAST_MM = true };
#else
enum { FAST_MM = false };
static void mm(bool ta, bool tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
               const float *b, size_t ldb, bool add, float *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++, c += ldc) {
        if (!add)
            memset(c, 0, n * sizeof *c);
        for (size_t p = 0; !tb && p < k; p++)
            axpy(a[ta ? p * lda + i : i * lda + p], b + p * ldb, c, n);
        for (size_t j = 0; tb && j < n; j++)
            for (size_t p = 0; p < k; p++)
                c[j] += a[ta ? p * lda + i : i * lda + p] * b[j * ldb + p];
    }
}
#endif

static double sum_squares(const float *x, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static void scale(float a, float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

static void mul(const float *f, const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = f[i] * x[i];
}

static void add_mul(const float *f, const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] += f[i] * x[i];
}

static void mul_rows(const float *f, float *x, size_t stride, size_t count, size_t n)
{
    for (size_t j = 0; j < count; j++)
        mul(f, x + j * stride, x + j * stride, n);
}

static void add_rows(const float *p, const float *y, float *x, size_t stride, size_t count,
                     size_t n)
{
    for (size_t j = 0; j < count; j++)
        axpy(p[j], y, x + j * stride, n);
}

static double dot_d(const float *a, const float *b, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void add_products(double sign, const float *a, const float *b, double *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] += sign * ((double)a[i] * (double)b[i]);
}

static void add_d(const double *x, const float *g, double *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] + (double)g[i];
}

static void exp_from(const double *x, const double *ref, bool minus, size_t rows, size_t n,
                     float *y)
{
    const double sign = minus ? -1 : 1;
    for (size_t r = 0; r < rows; r++, x += n, y += n)
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            y[i] = exp_one((float)(sign * (x[i] - ref[i])));
}

static float rmsnorm_fwd(const float *x, const float *w, float eps, float *y, size_t n)
{
    float r = (float)(1 / sqrt(sum_squares(x, n) / (double)n + (double)eps));
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
    return r;
}

static void rmsnorm_bwd(const float *x, const float *w, float r, const float *dy, float *dx,
                        float *dw, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)(dy[i] * w[i]) * x[i];
    float c = (float)(sum / (double)n * r * r);
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        dx[i] += r * (dy[i] * w[i] - x[i] * c);
        dw[i] += dy[i] * (x[i] * r);
    }
}

#include "linearize/kernels/act_tmpl.h"

static void sigmoid_rows(const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = sigmoid_one(x[i]);
}

/* max(x, 0) + log(1 + e), e = e^-|x|; log(1 + e) = 2 artanh(s) = 2 (s + s^3 / 3 + s^5 / 5 + ...),
 * s = e / (2 + e) <= 1/3 */
static inline float softplus_one(float x)
{
    float e = exp_one(-fabsf(x)), s = e / (2.0f + e), t = s * s;
    float p = 1.0f / 15;
    p = p * t + 1.0f / 13;
    p = p * t + 1.0f / 11;
    p = p * t + 1.0f / 9;
    p = p * t + 1.0f / 7;
    p = p * t + 1.0f / 5;
    p = p * t + 1.0f / 3;
    return (x > 0.0f ? x : 0.0f) + 2.0f * (s + s * t * p);
}

static void softplus_rows(const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = softplus_one(x[i]);
}

static void rope(float *x, const float *cos, const float *sin, float sign, size_t n)
{
    size_t half = n / 2;
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i], s = sign * sin[i];
        x[i] = a * cos[i] - b * s;
        x[half + i] = b * cos[i] + a * s;
    }
}

/* With t, s the scaled logits and d = t - s:
 *
 *   KL = (sum e^t d) / (sum e^t) - log(sum e^t) + log(sum e^s)
 *
 * The terms nearly cancel when the distributions are near, so all of it is double, and a row
 * is summed in parts: a KL of 1e-7 over 150000 entries keeps float32's digits. */
enum { KL_PART = 1024 };

struct kl_sums {
    double teacher, student, cross;
};

static struct kl_sums kl_part(const float *teacher, const float *student, double t_max,
                              double s_max, double c, size_t n)
{
    double t_sum = 0, s_sum = 0, cross = 0;
#pragma omp simd reduction(+ : t_sum, s_sum, cross)
    for (size_t i = 0; i < n; i++) {
        double t = ((double)teacher[i] - t_max) * c, s = ((double)student[i] - s_max) * c;
        double e = exp_one_d(t);
        t_sum += e;
        s_sum += exp_one_d(s);
        cross += t < -700.0 ? 0.0 : e * (t - s);
    }
    return (struct kl_sums){t_sum, s_sum, cross};
}

static double kl_row(const float *teacher, float *student, float inv_temp, float weight, size_t n)
{
    const double t_max = max_of(teacher, n), s_max = max_of(student, n);
    double t_sum = 0, s_sum = 0, cross = 0;
    for (size_t i = 0; i < n; i += KL_PART) {
        size_t count = n - i < KL_PART ? n - i : KL_PART;
        struct kl_sums part =
            kl_part(teacher + i, student + i, t_max, s_max, (double)inv_temp, count);
        t_sum += part.teacher;
        s_sum += part.student;
        cross += part.cross;
    }
    double kl = cross / t_sum - log(t_sum) + log(s_sum);
    if (weight != 0) {
        float tm = (float)t_max, sm = (float)s_max, scale_all = weight * inv_temp;
        float ts = (float)(1 / t_sum), ss = (float)(1 / s_sum);
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float pt = exp_one((teacher[i] - tm) * inv_temp) * ts;
            float ps = exp_one((student[i] - sm) * inv_temp) * ss;
            student[i] = scale_all * (ps - pt);
        }
    }
    return kl;
}

static double ce_row(float *x, int32_t target, float weight, size_t n)
{
    const float m = max_of(x, n);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += exp_one_d((double)x[i] - m);
    double loss = log(sum) - ((double)x[target] - m);
    if (weight != 0) {
        float inv = (float)(1 / sum);
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            x[i] = weight * (exp_one(x[i] - m) * inv);
        /* p - 1 from the loss keeps its digits when p is near 1 */
        x[target] = weight * (float)expm1(-loss);
    }
    return loss;
}

static void adamw(float *p, const float *g, float *m, float *v, float gscale, float lr, float b1,
                  float b2, float eps, float decay, float c1, float c2, size_t n)
{
    const float i1 = 1 / c1, i2 = 1 / c2;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] * gscale;
        float mi = b1 * m[i] + (1 - b1) * gi, vi = b2 * v[i] + (1 - b2) * (gi * gi);
        m[i] = mi;
        v[i] = vi;
        p[i] -= lr * (mi * i1 / (sqrtf(vi * i2) + eps) + decay * p[i]);
    }
}

/* Beside the name; a table with more than the template has says so itself. */
#define KERNELS                                                                                    \
    .exp = exp_rows, .sigmoid = sigmoid_rows, .softplus = softplus_rows,                           \
    .exp_shift_sum = exp_shift_sum, .max = max_of, .dot = dot, .dots = dots,                       \
    .weighted_sum = weighted_sum, .mm = mm, .fast_mm = FAST_MM, .sum_squares = sum_squares,        \
    .axpy = axpy, .scale = scale, .mul = mul, .add_mul = add_mul, .mul_rows = mul_rows,            \
    .add_rows = add_rows, .dot_d = dot_d, .add_products = add_products, .add_d = add_d,            \
    .exp_from = exp_from, .rmsnorm_fwd = rmsnorm_fwd, .rmsnorm_bwd = rmsnorm_bwd,                  \
    .norm_fwd = norm_fwd, .norm_bwd = norm_bwd, .softcap_fwd = softcap_fwd,                        \
    .softcap_bwd = softcap_bwd,                                                                    \
    .act = {[TG_ACT_SILU] = {silu_fwd, silu_bwd, silu_mul_fwd, silu_mul_bwd},                      \
            [TG_ACT_GELU] = {gelu_fwd, gelu_bwd, gelu_mul_fwd, gelu_mul_bwd},                      \
            [TG_ACT_GELU_TANH] = {gelu_tanh_fwd, gelu_tanh_bwd, gelu_tanh_mul_fwd,                 \
                                  gelu_tanh_mul_bwd},                                              \
            [TG_ACT_RELU] = {relu_fwd, relu_bwd, relu_mul_fwd, relu_mul_bwd},                      \
            [TG_ACT_RELU2] = {relu2_fwd, relu2_bwd, relu2_mul_fwd, relu2_mul_bwd},                 \
            [TG_ACT_CLAMPED_GLU] = {clamped_fwd, clamped_bwd, clamped_mul_fwd, clamped_mul_bwd}},  \
    .silu_mul_fwd = silu_mul_fwd, .silu_mul_bwd = silu_mul_bwd, .rope = rope, .kl_row = kl_row,    \
    .ce_row = ce_row, .adamw = adamw

const struct tg_kernels TABLE = {.name = TABLE_NAME, KERNELS};
