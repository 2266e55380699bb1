/* Writing the block types of GGUF, part of dtype_tmpl.h, after quant_tmpl.h: byte for byte what
 * ggml's reference quantisers (quantize_row_*_ref, no importance matrix) give when every float32
 * operation rounds by itself. Numbers that do not fit where ggml converts them are converted as
 * x86 does, there to nothing and here to 0. */

/* The copy is a loop, not memcpy, so that it is made in the widths that the block is then read in:
 * a load that gathers several narrower stores waits for all of them. */
#define BLOCK_WRITER(type, elements, bytes)                                                        \
    static void f32_to_##type(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        float x[elements];                                                                         \
        for (size_t i = 0; i < n / elements; i++) {                                                \
            for (size_t j = 0; j < elements; j++)                                                  \
                x[j] = float_of(load32(src + i * sizeof x + 4 * j));                               \
            type##_write(x, dst + i * bytes);                                                      \
        }                                                                                          \
    }

static inline void store_half(unsigned char *p, float x)
{
    store16(p, narrow(bits_of(x), f16));
}

static inline float inverse(float d)
{
    return d != 0 ? 1.0f / d : 0.0f;
}

/* Towards zero; 0 for what is no 32-bit integer. */
static inline int32_t truncated(float x)
{
    const int32_t mag = (int32_t)(bits_of(x) & 0x7FFFFFFF);
    return (int32_t)(mag < 0x4F000000 ? x : 0.0f);
}

/* The largest magnitude, in bits, whose order is that of the numbers. */
static inline int32_t largest_bits(const float *x)
{
    int32_t top = 0;
    for (int j = 0; j < 32; j++) {
        int32_t mag = (int32_t)(bits_of(x[j]) & 0x7FFFFFFF);
        top = mag > top ? mag : top;
    }
    return top;
}

/* d = max |x| / 127, q = x / d rounded half away from zero: x plus one half (the float below it, so
 * that the sum cannot round up) with the sign of x, cut. */
#ifndef OWN_Q8_0
static inline void q8_0_write(const float *restrict x, unsigned char *restrict b)
{
    const float d = float_of((uint32_t)largest_bits(x)) / 127, id = inverse(d);
    store_half(b, d);
    for (int j = 0; j < 32; j++) {
        const float v = x[j] * id;
        b[2 + j] = (unsigned char)truncated(v + float_of((bits_of(v) & 0x80000000) | 0x3EFFFFFF));
    }
}
#endif
BLOCK_WRITER(q8_0, 32, 34)

/* The number of the largest magnitude, with its sign; of several the first; of zeros +0. */
static inline float signed_largest(const float *x)
{
    const int32_t top = largest_bits(x);
    int first = 32;
    for (int j = 0; j < 32; j++) {
        int at = (int32_t)(bits_of(x[j]) & 0x7FFFFFFF) == top ? j : 32;
        first = at < first ? at : first;
    }
    return top ? x[first] : 0.0f;
}

/* d gives the number of the largest magnitude the code 0; q = x / d + half, rounded, at most
 * 2 half - 1. `q` gets the codes of the 32 elements. */
static inline float codes_around(const float *restrict x, int half, int32_t *restrict q)
{
    const float d = signed_largest(x) / (float)-half, id = inverse(d);
    for (int j = 0; j < 32; j++) {
        int32_t code = truncated(x[j] * id + ((float)half + 0.5f));
        q[j] = code < 2 * half - 1 ? code : 2 * half - 1;
    }
    return d;
}

/* d and m from the least and the largest number; q = (x - m) / d, rounded, at most `top`. */
static inline float codes_above(const float *restrict x, int top, float *m, int32_t *restrict q)
{
    float min = x[0], max = x[0];
    for (int j = 1; j < 32; j++) {
        min = x[j] < min ? x[j] : min;
        max = x[j] > max ? x[j] : max;
    }
    const float d = (max - min) / (float)top, id = inverse(d);
    for (int j = 0; j < 32; j++) {
        int32_t code = truncated((x[j] - min) * id + 0.5f);
        q[j] = code < top ? code : top;
    }
    *m = min;
    return d;
}

static inline void store_nibbles(const int32_t *restrict q, unsigned char *restrict qs)
{
    for (int j = 0; j < 16; j++)
        qs[j] = (unsigned char)((q[j] & 15) | (q[j + 16] & 15) << 4);
}

static inline void store_fifth_bits(const int32_t *restrict q, unsigned char *restrict qh)
{
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)(q[j] >> 4 & 1) << j;
    store32(qh, bits);
}

static inline void q4_0_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    store_half(b, codes_around(x, 8, q));
    store_nibbles(q, b + 2);
}
BLOCK_WRITER(q4_0, 32, 18)

static inline void q5_0_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    store_half(b, codes_around(x, 16, q));
    store_fifth_bits(q, b + 2);
    store_nibbles(q, b + 6);
}
BLOCK_WRITER(q5_0, 32, 22)

static inline void q4_1_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    float m;
    store_half(b, codes_above(x, 15, &m, q));
    store_half(b + 2, m);
    store_nibbles(q, b + 4);
}
BLOCK_WRITER(q4_1, 32, 20)

static inline void q5_1_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[32];
    float m;
    store_half(b, codes_above(x, 31, &m, q));
    store_half(b + 2, m);
    store_fifth_bits(q, b + 4);
    store_nibbles(q, b + 8);
}
BLOCK_WRITER(q5_1, 32, 24)

/* Adding 1.5 * 2^23 rounds to an integer, ties to even, left in the low bits of the sum. What is no
 * such integer gives what those bits are: -2^22 for an infinity, 0 for NaN. */
static inline int32_t nearest(float x)
{
    return (int32_t)(bits_of(x + 12582912.0f) & 0x007FFFFF) - 0x00400000;
}

static inline int32_t clamped(int32_t q, int32_t low, int32_t high)
{
    q = q < low ? low : q;
    return q > high ? high : q;
}

static inline float magnitude(float x)
{
    return float_of(bits_of(x) & 0x7FFFFFFF);
}

/* The super-blocks fit their sub-blocks side by side: [element][sub-block], one lane for each, so
 * that every sum runs over the elements in order and the lanes still fill a vector. */
enum { SUB32 = 8, SUB16 = 16 };

/* Sub-blocks of 32 as x ~ scale q + min, min <= 0, q in [0, top], found by weighted least squares.
 */
struct affine {
    float scale[SUB32], min[SUB32];
    int32_t q[32][SUB32];
};

/* The sums that do not change while codes are tried, and what is best so far. */
struct affine_fit {
    float x[32][SUB32], weight[32][SUB32];
    float sum_w[SUB32], sum_x[SUB32], max[SUB32], error[SUB32];
};

/* Weights: root mean square of the sub-block plus |x|. The first codes spread over its range. */
static void affine_start(struct affine_fit *restrict f, int top, struct affine *restrict a)
{
    float rms[SUB32] = {0};
    for (int i = 0; i < 32; i++)
#pragma omp simd
        for (int j = 0; j < SUB32; j++)
            rms[j] += f->x[i][j] * f->x[i][j];
#pragma omp simd
    for (int j = 0; j < SUB32; j++)
        rms[j] = sqrtf(rms[j] / 32);
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        const float w = rms[j] + magnitude(f->x[0][j]);
        f->weight[0][j] = w;
        f->sum_w[j] = w;
        f->sum_x[j] = w * f->x[0][j];
        a->min[j] = f->max[j] = f->x[0][j];
        f->error[j] = 0;
    }
    for (int i = 1; i < 32; i++) {
#pragma omp simd
        for (int j = 0; j < SUB32; j++) {
            const float x = f->x[i][j], w = rms[j] + magnitude(x);
            f->weight[i][j] = w;
            a->min[j] = x < a->min[j] ? x : a->min[j];
            f->max[j] = x > f->max[j] ? x : f->max[j];
            f->sum_w[j] += w;
            f->sum_x[j] += w * x;
        }
    }
    float steps[SUB32];
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        a->min[j] = a->min[j] > 0 ? 0 : a->min[j];
        steps[j] = (float)top / (f->max[j] - a->min[j]);
        a->scale[j] = 1 / steps[j];
    }
    for (int i = 0; i < 32; i++) {
#pragma omp simd
        for (int j = 0; j < SUB32; j++) {
            const float x = f->x[i][j];
            const int32_t q = clamped(nearest(steps[j] * (x - a->min[j])), 0, top);
            const float diff = a->scale[j] * (float)q + a->min[j] - x;
            a->q[i][j] = q;
            f->error[j] += f->weight[i][j] * (diff * diff);
        }
    }
}

/* Codes for `levels` steps over the range that the best minimum leaves, the scale and minimum that
 * fit them best, and their error: kept where it is smaller. */
static void affine_try(struct affine_fit *restrict f, int top, float levels,
                       struct affine *restrict a)
{
    float steps[SUB32], sum_l[SUB32] = {0}, sum_l2[SUB32] = {0}, sum_xl[SUB32] = {0};
    float scale[SUB32], min[SUB32], error[SUB32] = {0};
    int32_t q[32][SUB32], better[SUB32];
#pragma omp simd
    for (int j = 0; j < SUB32; j++)
        steps[j] = levels / (f->max[j] - a->min[j]);
    for (int i = 0; i < 32; i++) {
#pragma omp simd
        for (int j = 0; j < SUB32; j++) {
            const float x = f->x[i][j];
            q[i][j] = clamped(nearest(steps[j] * (x - a->min[j])), 0, top);
            const float l = (float)q[i][j], wl = f->weight[i][j] * l;
            sum_l[j] += wl;
            sum_l2[j] += wl * l;
            sum_xl[j] += wl * x;
        }
    }
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        const float det = f->sum_w[j] * sum_l2[j] - sum_l[j] * sum_l[j];
        const float s = (f->sum_w[j] * sum_xl[j] - f->sum_x[j] * sum_l[j]) / det,
                    m = (sum_l2[j] * f->sum_x[j] - sum_l[j] * sum_xl[j]) / det;
        scale[j] = m > 0 ? sum_xl[j] / sum_l2[j] : s;
        min[j] = m > 0 ? 0 : m;
        better[j] = det > 0;
    }
    for (int i = 0; i < 32; i++) {
#pragma omp simd
        for (int j = 0; j < SUB32; j++) {
            const float diff = scale[j] * (float)q[i][j] + min[j] - f->x[i][j];
            error[j] += f->weight[i][j] * (diff * diff);
        }
    }
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        better[j] = better[j] && error[j] < f->error[j];
        f->error[j] = better[j] ? error[j] : f->error[j];
        a->scale[j] = better[j] ? scale[j] : a->scale[j];
        a->min[j] = better[j] ? min[j] : a->min[j];
    }
    for (int i = 0; i < 32; i++)
#pragma omp simd
        for (int j = 0; j < SUB32; j++)
            a->q[i][j] = better[j] ? q[i][j] : a->q[i][j];
}

/* x[256]. Tries first_level + k / 10 levels more than `top`, k = 0 ... tries. */
static void affine_fit(const float *restrict x, int top, float first_level, int tries,
                       struct affine *restrict a)
{
    struct affine_fit f;
    float flat[SUB32];
    for (int i = 0; i < 32; i++)
#pragma omp simd
        for (int j = 0; j < SUB32; j++)
            f.x[i][j] = x[32 * j + i];
    affine_start(&f, top, a);
#pragma omp simd
    for (int j = 0; j < SUB32; j++)
        flat[j] = f.max[j] == a->min[j] ? a->min[j] : 1; /* all one number, which is not positive */
    for (int k = 0; k <= tries; k++)
        affine_try(&f, top, first_level + 0.1f * (float)k + (float)top, a);
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        if (flat[j] > 0)
            continue;
        a->scale[j] = 0;
        a->min[j] = flat[j];
        for (int i = 0; i < 32; i++)
            a->q[i][j] = 0;
    }
}

static inline int32_t six_bits(float x)
{
    const int32_t q = nearest(x) & 255;
    return q < 63 ? q : 63;
}

/* {d, dmin, scales[12]} of Q4_K and Q5_K, and the codes for what the stored scales say; those of
 * the fit stay where the scale becomes 0. */
static void affine_write(const float *restrict x, int top, float first_level, int tries,
                         unsigned char *restrict b, int32_t *restrict q)
{
    struct affine a;
    float max_scale = 0, max_min = 0;
    affine_fit(x, top, first_level, tries, &a);
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        max_scale = a.scale[j] > max_scale ? a.scale[j] : max_scale;
        max_min = -a.min[j] > max_min ? -a.min[j] : max_min;
    }
    const float inv_scale = max_scale > 0 ? 63 / max_scale : 0,
                inv_min = max_min > 0 ? 63 / max_min : 0;
    unsigned char *packed = b + 4;
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        const int32_t s = six_bits(inv_scale * a.scale[j]), m = six_bits(inv_min * -a.min[j]);
        if (j < 4) {
            packed[j] = (unsigned char)s;
            packed[j + 4] = (unsigned char)m;
        } else {
            packed[j + 4] = (unsigned char)((s & 15) | (m & 15) << 4);
            packed[j - 4] = (unsigned char)(packed[j - 4] | s >> 4 << 6);
            packed[j] = (unsigned char)(packed[j] | m >> 4 << 6);
        }
    }
    store_half(b, max_scale / 63);
    store_half(b + 2, max_min / 63);
#pragma omp simd
    for (int j = 0; j < SUB32; j++) {
        int scale, min;
        scale_min(packed, j, &scale, &min);
        const float d = half_at(b) * (float)scale, dm = half_at(b + 2) * (float)min;
        for (int i = 0; i < 32; i++)
            q[32 * j + i] = d != 0 ? clamped(nearest((x[32 * j + i] + dm) / d), 0, top) : a.q[i][j];
    }
}

static void q4_k_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[256];
    affine_write(x, 15, -1.0f, 20, b, q);
    for (int p = 0; p < 4; p++)
        for (int l = 0; l < 32; l++)
            b[16 + 32 * p + l] = (unsigned char)(q[64 * p + l] | q[64 * p + 32 + l] << 4);
}
BLOCK_WRITER(q4_k, 256, 144)

static void q5_k_write(const float *restrict x, unsigned char *restrict b)
{
    int32_t q[256];
    affine_write(x, 31, -0.5f, 15, b, q);
    for (int l = 0; l < 32; l++) {
        int32_t high = 0;
        for (int j = 0; j < 8; j++)
            high |= q[32 * j + l] >> 4 << j;
        b[16 + l] = (unsigned char)high;
    }
    for (int p = 0; p < 4; p++)
        for (int l = 0; l < 32; l++)
            b[48 + 32 * p + l] =
                (unsigned char)((q[64 * p + l] & 15) | (q[64 * p + 32 + l] & 15) << 4);
}
BLOCK_WRITER(q5_k, 256, 176)

/* Sub-blocks of 16 as x ~ scale (q - 32), found by least squares with weights x^2. */
struct linear {
    float x[16][SUB16], max[SUB16]; /* the number of the largest magnitude */
    float scale[SUB16], best[SUB16];
    int32_t q[16][SUB16];
};

/* Codes for -levels steps up to max, and the scale that fits them best; kept where it explains more
 * (`first`: in any case). */
static void linear_try(struct linear *restrict f, float levels, bool first)
{
    float steps[SUB16], sum_xl[SUB16] = {0}, sum_l2[SUB16] = {0};
    int32_t q[16][SUB16], better[SUB16];
#pragma omp simd
    for (int j = 0; j < SUB16; j++)
        steps[j] = -levels / f->max[j];
    for (int i = 0; i < 16; i++) {
#pragma omp simd
        for (int j = 0; j < SUB16; j++) {
            const float x = f->x[i][j], w = x * x;
            q[i][j] = clamped(nearest(steps[j] * x), -32, 31);
            const float l = (float)q[i][j];
            sum_xl[j] += w * x * l;
            sum_l2[j] += w * l * l;
        }
    }
#pragma omp simd
    for (int j = 0; j < SUB16; j++) {
        const float scale = sum_xl[j] / sum_l2[j];
        better[j] = first || (sum_l2[j] > 0 && sum_xl[j] * sum_xl[j] > f->best[j] * sum_l2[j]);
        const float kept = first && sum_l2[j] == 0 ? 0 : scale;
        f->scale[j] = better[j] ? kept : f->scale[j];
        f->best[j] = better[j] ? kept * sum_xl[j] : f->best[j];
    }
    for (int i = 0; i < 16; i++)
#pragma omp simd
        for (int j = 0; j < SUB16; j++)
            f->q[i][j] = better[j] ? q[i][j] + 32 : f->q[i][j];
}

static void linear_fit(const float *restrict x, struct linear *restrict f)
{
    float top[SUB16] = {0};
    memset(f->max, 0, sizeof f->max);
    for (int i = 0; i < 16; i++) {
#pragma omp simd
        for (int j = 0; j < SUB16; j++) {
            const float v = x[16 * j + i], mag = magnitude(v);
            f->x[i][j] = v;
            f->max[j] = mag > top[j] ? v : f->max[j];
            top[j] = mag > top[j] ? mag : top[j];
        }
    }
    linear_try(f, 32, true);
    for (int k = -9; k <= 9; k++)
        if (k)
            linear_try(f, 32 + 0.1f * (float)k, false);
#pragma omp simd
    for (int j = 0; j < SUB16; j++) {
        if (!(top[j] < 1e-15f))
            continue;
        f->scale[j] = 0;
        for (int i = 0; i < 16; i++)
            f->q[i][j] = 0;
    }
}

static void q6_k_pack(const int32_t *restrict q, unsigned char *restrict b)
{
    for (int h = 0; h < 2; h++) {
        const int32_t *of = q + 128 * h;
        unsigned char *low = b + 64 * h, *high = b + 128 + 32 * h;
        for (int l = 0; l < 32; l++) {
            low[l] = (unsigned char)((of[l] & 15) | (of[l + 64] & 15) << 4);
            low[l + 32] = (unsigned char)((of[l + 32] & 15) | (of[l + 96] & 15) << 4);
            high[l] = (unsigned char)(of[l] >> 4 | of[l + 32] >> 4 << 2 | of[l + 64] >> 4 << 4 |
                                      of[l + 96] >> 4 << 6);
        }
    }
}

/* The scale of the largest magnitude becomes -128. */
static void q6_k_write(const float *restrict x, unsigned char *restrict b)
{
    struct linear f;
    int32_t q[256];
    float max_scale = 0, top = 0;
    linear_fit(x, &f);
#pragma omp simd
    for (int j = 0; j < SUB16; j++) {
        max_scale = magnitude(f.scale[j]) > top ? f.scale[j] : max_scale;
        top = magnitude(f.scale[j]) > top ? magnitude(f.scale[j]) : top;
    }
    if (top < 1e-15f) {
        memset(b, 0, 210);
        return;
    }
    const float steps = -128 / max_scale;
    store_half(b + 208, 1 / steps);
#pragma omp simd
    for (int j = 0; j < SUB16; j++) {
        const int32_t s = nearest(steps * f.scale[j]);
        b[192 + j] = (unsigned char)(s < 127 ? s : 127);
        const float d = half_at(b + 208) * (float)(int8_t)b[192 + j];
        for (int i = 0; i < 16; i++)
            q[16 * j + i] = d != 0 ? clamped(nearest(x[16 * j + i] / d), -32, 31) + 32 : f.q[i][j];
    }
    q6_k_pack(q, b);
}
BLOCK_WRITER(q6_k, 256, 210)
