/* Activations and general norms: the second part of the kernels' body, included by vec_tmpl.h.
 *
 * An activation is a value and a slope; ACTIVATION and ACTIVATION_GATE make the row
 * kernels of them. With Phi the
 * normal distribution's function and phi its density,
 *
 *   gelu       x Phi(x),                        slope Phi + x phi
 *   gelu_tanh  x s, s = sigmoid(2 u),           slope s + x s (1 - s) 2 u'
 *              u = sqrt(2/pi) (x + 0.044715 x^3), for (1 + tanh u) / 2 = sigmoid(2 u) cancels
 * nothing
 *
 * Phi is taken of the tail, erfc(z) = t P(t) e^{-z^2}, z = |x| / sqrt 2, t = 1 / (1 + 3/8 z), P the
 * polynomial of degree 9 fitted to the least relative error (2e-8), so that x Phi(x) keeps its
 * digits where it is small. */

static inline float sigmoid_one(float x)
{
    return 1 / (1 + exp_one(-x));
}

/* Phi(x); *density = phi(x) sqrt(2 pi) = e^{-x^2/2} */
static inline float normal_one(float x, float *density)
{
    float z = fabsf(x) * 0.70710678118654752f;
    float t = 1 / (1 + 0.375f * z);
    float e = exp_one(-0.5f * x * x);
    float p = 0.005097921094923065f;
    p = p * t + 0.03388582699631365f;
    p = p * t - 0.22237140739660383f;
    p = p * t + 0.34584418945735224f;
    p = p * t - 0.15747601738684155f;
    p = p * t + 0.23513469176772486f;
    p = p * t + 0.13483777668459823f;
    p = p * t + 0.20245819168245652f;
    p = p * t + 0.21099301349670677f;
    p = p * t + 0.2115958305173089f;
    float tail = 0.5f * t * p * e;
    *density = e;
    return x < 0 ? tail : 1 - tail;
}

static inline float silu_value(float x)
{
    return x / (1 + exp_one(-x));
}
static inline float silu_slope(float x)
{
    float s = sigmoid_one(x);
    return s * (1 + x * (1 - s));
}

static inline float gelu_value(float x)
{
    float density;
    return x * normal_one(x, &density);
}
static inline float gelu_slope(float x)
{
    float density, p = normal_one(x, &density);
    return p + x * (0.39894228040143268f * density);
}

static inline float gelu_tanh_value(float x)
{
    return x * sigmoid_one(1.5957691216057308f * (x + 0.044715f * (x * x * x)));
}
static inline float gelu_tanh_slope(float x)
{
    /* beyond 20 the slope is 0 or 1 to the last bit, and the cube of anything above stays finite */
    float y = x < -20 ? -20 : x > 20 ? 20 : x;
    float s = sigmoid_one(1.5957691216057308f * (y + 0.044715f * (y * y * y)));
    return s + y * (s * (1 - s)) * (1.5957691216057308f * (1 + 0.134145f * (y * y)));
}

static inline float relu_value(float x)
{
    return x < 0 ? 0 : x;
}
static inline float relu_slope(float x)
{
    return x > 0 ? 1 : 0;
}

static inline float relu2_value(float x)
{
    return x < 0 ? 0 : x * x;
}
static inline float relu2_slope(float x)
{
    return x < 0 ? 0 : 2 * x;
}

#define ACTIVATION(name)                                                                           \
    static void name##_fwd(const float *a, float *y, size_t n)                                     \
    {                                                                                              \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++) y[i] = name##_value(a[i]);              \
    }                                                                                              \
    static void name##_bwd(const float *a, const float *dy, float *da, size_t n)                   \
    {                                                                                              \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++) da[i] = dy[i] * name##_slope(a[i]);     \
    }                                                                                              \
    static void name##_mul_fwd(const float *a, const float *b, float *y, size_t n)                 \
    {                                                                                              \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++) y[i] = name##_value(a[i]) * b[i];       \
    }
#define ACTIVATION_GATE(name)                                                                      \
    static void name##_mul_bwd(const float *a, const float *b, const float *dy, float *da,         \
                               float *db, size_t n)                                                \
    {                                                                                              \
        _Pragma("omp simd") for (size_t i = 0; i < n; i++)                                         \
        {                                                                                          \
            float ai = a[i], bi = b[i], g = dy[i];                                                 \
            da[i] = g * bi * name##_slope(ai);                                                     \
            db[i] = g * name##_value(ai);                                                          \
        }                                                                                          \
    }
ACTIVATION(silu)
ACTIVATION(gelu)
ACTIVATION_GATE(gelu)
ACTIVATION(gelu_tanh)
ACTIVATION_GATE(gelu_tanh)
ACTIVATION(relu)
ACTIVATION_GATE(relu)
ACTIVATION(relu2)
ACTIVATION_GATE(relu2)

/* value and slope share the sigmoid */
static void silu_mul_bwd(const float *a, const float *b, const float *dy, float *da, float *db,
                         size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float ai = a[i], bi = b[i], g = dy[i];
        float s = 1 / (1 + exp_one(-ai));
        da[i] = g * bi * (s * (1 + ai * (1 - s)));
        db[i] = g * (ai * s);
    }
}

/* gpt-oss: g = min(a, 7), u = b limited to [-7, 7]; y = g sigmoid(1.702 g) (u + 1). No gradient
 * passes a limit. */
static const float GLU_LIMIT = 7, GLU_ALPHA = 1.702f;

static inline float clamped_value(float g)
{
    g = g > GLU_LIMIT ? GLU_LIMIT : g;
    return g * sigmoid_one(GLU_ALPHA * g);
}
static inline float clamped_slope(float g)
{
    float s = sigmoid_one(GLU_ALPHA * g);
    return g > GLU_LIMIT ? 0 : s * (1 + GLU_ALPHA * g * (1 - s));
}
static inline float limited(float u)
{
    return u > GLU_LIMIT ? GLU_LIMIT : u < -GLU_LIMIT ? -GLU_LIMIT : u;
}

static void clamped_fwd(const float *a, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = clamped_value(a[i]);
}

static void clamped_bwd(const float *a, const float *dy, float *da, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        da[i] = dy[i] * clamped_slope(a[i]);
}

static void clamped_mul_fwd(const float *a, const float *b, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = clamped_value(a[i]) * (limited(b[i]) + 1);
}

static void clamped_mul_bwd(const float *a, const float *b, const float *dy, float *da, float *db,
                            size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float ai = a[i], bi = b[i], g = dy[i];
        da[i] = g * (limited(bi) + 1) * clamped_slope(ai);
        db[i] = bi > GLU_LIMIT || bi < -GLU_LIMIT ? 0 : g * clamped_value(ai);
    }
}

/* tanh x: a polynomial near 0 (Cephes tanhf), elsewhere (1 - e) / (1 + e), e = e^{-2|x|} */
static inline float tanh_one(float x)
{
    float m = fabsf(x), s = x * x;
    float p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    p = p * s * x + x;
    float e = exp_one(-2 * m), q = (1 - e) / (1 + e);
    return m < 0.625f ? p : x < 0 ? -q : q;
}

static void softcap_fwd(float cap, float *x, size_t n)
{
    float inverse = 1 / cap;
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_one(x[i] * inverse);
}

/* 1 - tanh^2 = 4 e / (1 + e)^2 */
static void softcap_bwd(float cap, const float *x, float *dy, size_t n)
{
    float inverse = 1 / cap;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float e = exp_one(-2 * fabsf(x[i] * inverse)), half = 1 / (1 + e);
        dy[i] *= 4 * e * half * half;
    }
}

static inline float norm_factor(const float *w, float one, size_t i)
{
    return w ? one + w[i] : 1;
}

static void norm_fwd(const struct tg_norm *norm, const float *x, float *y, float stats[2], size_t n)
{
    const float *w = norm->w, *b = norm->b, one = norm->plus_one ? 1 : 0;
    if (!norm->layer && w && !b && !norm->plus_one) {
        stats[0] = 0;
        stats[1] = rmsnorm_fwd(x, w, norm->eps, y, n);
        return;
    }
    double sum = 0, squares = 0;
    if (norm->layer) {
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++)
            sum += (double)x[i];
    }
    double centre = sum / (double)n;
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - centre;
        squares += d * d;
    }
    float mean = (float)centre;
    float r = (float)(1 / sqrt(squares / (double)n + (double)norm->eps));
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * r * norm_factor(w, one, i);
    if (b)
        axpy(1, b, y, n);
    stats[0] = mean;
    stats[1] = r;
}

static void norm_bwd(const struct tg_norm *norm, const float stats[2], const float *x,
                     const float *dy, float *dx, float *dw, float *db, size_t n)
{
    const float *w = norm->w, one = norm->plus_one ? 1 : 0, mean = stats[0], r = stats[1];
    if (!norm->layer && w && !norm->plus_one && !norm->b) {
        rmsnorm_bwd(x, w, r, dy, dx, dw, n);
        return;
    }
    double sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
    for (size_t i = 0; i < n; i++) {
        float g = dy[i] * norm_factor(w, one, i);
        sum += (double)g;
        along += (double)g * ((x[i] - mean) * r);
    }
    float c = norm->layer ? (float)(sum / (double)n) : 0, d = (float)(along / (double)n);
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        dx[i] += r * (dy[i] * norm_factor(w, one, i) - c - (x[i] - mean) * r * d);
    if (w) {
#pragma omp simd
        for (size_t i = 0; i < n; i++)
            dw[i] += dy[i] * ((x[i] - mean) * r);
    }
    if (norm->b)
        axpy(1, dy, db, n);
}
