/* Writing the super-blocks of GGUF, part of dtype_tmpl.h, after quant_write_tmpl.h: ggml's
 * reference quantisers as there. Each sub-block is fitted by sums over its elements in order.
 * Several sub-blocks are fitted side by side, one in each lane of a vector, which leaves every sum
 * as it is: x[i] holds element i of LANES sub-blocks. */

#ifdef __AVX2__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t int_lanes __attribute__((vector_size(4 * LANES)));

static inline lanes choose(int_lanes mask, lanes yes, lanes no)
{
    return (lanes)(((int_lanes)yes & mask) | ((int_lanes)no & ~mask));
}

static inline int_lanes choose_int(int_lanes mask, int_lanes yes, int_lanes no)
{
    return (yes & mask) | (no & ~mask);
}

static inline lanes magnitudes(lanes x)
{
    return (lanes)((int_lanes)x & 0x7FFFFFFF);
}

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

static inline int_lanes nearest_clamped(lanes x, int32_t low, int32_t high)
{
    const int_lanes zero = {0}, q = ((int_lanes)(x + 12582912.0f) & 0x007FFFFF) - 0x00400000;
    const int_lanes above = choose_int(q < low, zero + low, q);
    return choose_int(above > high, zero + high, above);
}

static inline lanes to_float(int_lanes q)
{
    return __builtin_convertvector(q, lanes);
}

/* Sub-blocks of 32 as x ~ scale q + min, min <= 0, q in [0, top]. */
struct affine {
    lanes scale, min;
    int_lanes q[32];
};

/* What a fit keeps while codes are tried: least squares with the weights w; the error of the best.
 */
struct affine_fit {
    lanes x[32], w[32], sum_w, sum_x, max, error;
};

/* Weights: root mean square of the sub-block plus |x|. */
static inline void affine_weights(struct affine_fit *restrict f, struct affine *restrict a)
{
    lanes rms = {0};
    for (int i = 0; i < 32; i++)
        rms += f->x[i] * f->x[i];
    for (int j = 0; j < LANES; j++)
        rms[j] = sqrtf(rms[j] / 32);
    f->w[0] = f->sum_w = rms + magnitudes(f->x[0]);
    f->sum_x = f->sum_w * f->x[0];
    a->min = f->max = f->x[0];
    for (int i = 1; i < 32; i++) {
        f->w[i] = rms + magnitudes(f->x[i]);
        a->min = choose(f->x[i] < a->min, f->x[i], a->min);
        f->max = choose(f->x[i] > f->max, f->x[i], f->max);
        f->sum_w += f->w[i];
        f->sum_x += f->w[i] * f->x[i];
    }
    a->min = choose(a->min > 0, (lanes){0}, a->min);
}

/* The first codes are spread over the range. */
static inline void affine_start(struct affine_fit *restrict f, int top, struct affine *restrict a)
{
    const lanes steps = (float)top / (f->max - a->min);
    a->scale = 1 / steps;
    f->error = (lanes){0};
    for (int i = 0; i < 32; i++) {
        a->q[i] = nearest_clamped(steps * (f->x[i] - a->min), 0, top);
        const lanes diff = a->scale * to_float(a->q[i]) + a->min - f->x[i];
        f->error += f->w[i] * (diff * diff);
    }
}

/* Codes for `levels` steps over the range that the best minimum leaves, the scale and minimum that
 * fit them best, and their error: kept where it is smaller. */
static inline void affine_try(struct affine_fit *restrict f, int top, float levels,
                              struct affine *restrict a)
{
    const lanes steps = levels / (f->max - a->min), zero = {0};
    lanes sum_l = zero, sum_l2 = zero, sum_xl = zero, error = zero;
    int_lanes q[32];
    for (int i = 0; i < 32; i++) {
        q[i] = nearest_clamped(steps * (f->x[i] - a->min), 0, top);
        const lanes l = to_float(q[i]), wl = f->w[i] * l;
        sum_l += wl;
        sum_l2 += wl * l;
        sum_xl += wl * f->x[i];
    }
    const lanes det = f->sum_w * sum_l2 - sum_l * sum_l;
    lanes scale = (f->sum_w * sum_xl - f->sum_x * sum_l) / det,
          min = (sum_l2 * f->sum_x - sum_l * sum_xl) / det;
    scale = choose(min > 0, sum_xl / sum_l2, scale);
    min = choose(min > 0, zero, min);
    for (int i = 0; i < 32; i++) {
        const lanes diff = scale * to_float(q[i]) + min - f->x[i];
        error += f->w[i] * (diff * diff);
    }
    const int_lanes better = (det > 0) & (error < f->error);
    f->error = choose(better, error, f->error);
    a->scale = choose(better, scale, a->scale);
    a->min = choose(better, min, a->min);
    for (int i = 0; i < 32; i++)
        a->q[i] = choose_int(better, q[i], a->q[i]);
}

/* LANES sub-blocks. Tries first_level + k / 10 levels more than `top`, k = 0 ... tries. */
static void affine_fit(const float *restrict x, int top, float first_level, int tries,
                       struct affine *restrict a)
{
    struct affine_fit f;
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < LANES; j++)
            f.x[i][j] = x[32 * j + i];
    affine_weights(&f, a);
    const lanes lowest = a->min;
    const int_lanes flat = f.max == lowest; /* all one number, which is not positive */
    affine_start(&f, top, a);
    for (int k = 0; k <= tries; k++)
        affine_try(&f, top, first_level + 0.1f * (float)k + (float)top, a);
    a->scale = choose(flat, (lanes){0}, a->scale);
    a->min = choose(flat, lowest, a->min);
    for (int i = 0; i < 32; i++)
        a->q[i] &= ~flat;
}

static inline int32_t six_bits(float x)
{
    const int32_t q = nearest(x) & 255;
    return q < 63 ? q : 63;
}

/* See scale_min in quant_tmpl.h. */
static void store_scale_mins(const float *restrict scale, const float *restrict min,
                             float inv_scale, float inv_min, unsigned char *restrict packed)
{
    for (int j = 0; j < 8; j++) {
        const int32_t s = six_bits(inv_scale * scale[j]), m = six_bits(inv_min * min[j]);
        if (j < 4) {
            packed[j] = (unsigned char)s;
            packed[j + 4] = (unsigned char)m;
        } else {
            packed[j + 4] = (unsigned char)((s & 15) | (m & 15) << 4);
            packed[j - 4] = (unsigned char)(packed[j - 4] | s >> 4 << 6);
            packed[j] = (unsigned char)(packed[j] | m >> 4 << 6);
        }
    }
}

/* {d, dmin, scales[12]} of Q4_K and Q5_K, and the codes for what the stored scales say; those of
 * the fit stay where the scale becomes 0. */
static void affine_write(const float *restrict x, int top, float first_level, int tries,
                         unsigned char *restrict b, int32_t *restrict q)
{
    float scale[8], min[8], max_scale = 0, max_min = 0;
    for (int group = 0; group < 8; group += LANES) {
        struct affine a;
        affine_fit(x + 32 * group, top, first_level, tries, &a);
        for (int j = 0; j < LANES; j++) {
            scale[group + j] = a.scale[j];
            min[group + j] = -a.min[j];
            for (int i = 0; i < 32; i++)
                q[32 * (group + j) + i] = a.q[i][j];
        }
    }
    for (int j = 0; j < 8; j++) {
        max_scale = scale[j] > max_scale ? scale[j] : max_scale;
        max_min = min[j] > max_min ? min[j] : max_min;
    }
    store_scale_mins(scale, min, max_scale > 0 ? 63 / max_scale : 0, max_min > 0 ? 63 / max_min : 0,
                     b + 4);
    store_half(b, max_scale / 63);
    store_half(b + 2, max_min / 63);
    for (int j = 0; j < 8; j++) {
        int stored_scale, stored_min;
        scale_min(b + 4, j, &stored_scale, &stored_min);
        const float d = half_at(b) * (float)stored_scale, dm = half_at(b + 2) * (float)stored_min;
        for (int i = 32 * j; i < 32 * j + 32 && d != 0; i++)
            q[i] = clamped(nearest((x[i] + dm) / d), 0, top);
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

/* Sub-blocks of 16 as x ~ scale (q - 32): least squares with weights x^2. `best` is how much of the
 * sum of squares the scale explains. */
struct linear {
    lanes x[16], max; /* the number of the largest magnitude, of several the first */
    lanes scale, best;
    int_lanes q[16];
};

/* Codes for -levels steps up to max, and the scale that fits them best: kept where it explains
 * more, the first ones (`first`) in any case. */
static inline void linear_try(struct linear *restrict f, float levels, bool first)
{
    const lanes steps = -levels / f->max, zero = {0};
    lanes sum_xl = zero, sum_l2 = zero;
    int_lanes q[16];
    for (int i = 0; i < 16; i++) {
        q[i] = nearest_clamped(steps * f->x[i], -32, 31);
        const lanes l = to_float(q[i]), w = f->x[i] * f->x[i];
        sum_xl += w * f->x[i] * l;
        sum_l2 += w * l * l;
    }
    lanes scale = sum_xl / sum_l2;
    int_lanes better = (sum_l2 > 0) & (sum_xl * sum_xl > f->best * sum_l2);
    if (first) {
        scale = choose(sum_l2 == 0, zero, scale);
        better = zero == zero;
    }
    f->scale = choose(better, scale, f->scale);
    f->best = choose(better, scale * sum_xl, f->best);
    for (int i = 0; i < 16; i++)
        f->q[i] = choose_int(better, q[i] + 32, f->q[i]);
}

/* LANES sub-blocks; what is smaller than 1e-15 counts as zeros. */
static void linear_fit(const float *restrict x, struct linear *restrict f)
{
    lanes top = {0};
    memset(f, 0, sizeof *f);
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < LANES; j++)
            f->x[i][j] = x[16 * j + i];
        const lanes mag = magnitudes(f->x[i]);
        f->max = choose(mag > top, f->x[i], f->max);
        top = choose(mag > top, mag, top);
    }
    linear_try(f, 32, true);
    for (int k = -9; k <= 9; k++)
        if (k)
            linear_try(f, 32 + 0.1f * (float)k, false);
    const int_lanes tiny = top < 1e-15f;
    f->scale = choose(tiny, (lanes){0}, f->scale);
    for (int i = 0; i < 16; i++)
        f->q[i] &= ~tiny;
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
    float scale[16], max_scale = 0, top = 0;
    int32_t q[256];
    for (int group = 0; group < 16; group += LANES) {
        struct linear f;
        linear_fit(x + 16 * group, &f);
        for (int j = 0; j < LANES; j++) {
            scale[group + j] = f.scale[j];
            for (int i = 0; i < 16; i++)
                q[16 * (group + j) + i] = f.q[i][j];
        }
    }
    for (int j = 0; j < 16; j++) {
        const float mag = fabsf(scale[j]);
        max_scale = mag > top ? scale[j] : max_scale;
        top = mag > top ? mag : top;
    }
    if (top < 1e-15f) {
        memset(b, 0, 210);
        return;
    }
    const float steps = -128 / max_scale;
    store_half(b + 208, 1 / steps);
    for (int j = 0; j < 16; j++) {
        const int32_t s = nearest(steps * scale[j]);
        b[192 + j] = (unsigned char)(s < 127 ? s : 127);
        const float d = half_at(b + 208) * (float)(int8_t)b[192 + j];
        for (int i = 16 * j; i < 16 * j + 16 && d != 0; i++)
            q[i] = clamped(nearest(x[i] / d), -32, 31) + 32;
    }
    q6_k_pack(q, b);
}
BLOCK_WRITER(q6_k, 256, 210)
