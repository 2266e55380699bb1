/* Reading the block types of GGUF, part of dtype_tmpl.h. Layouts and arithmetic are those of ggml
 * (ggml-quants.c, dequantize_row_*): all products and sums in float32, none of them fused. d and m
 * are binary16; a block holds 32 elements, a super-block ("_K") 256 in sub-blocks of 16 or 32 with
 * scales of their own. */

static inline float half_at(const unsigned char *p)
{
    return float_of(widen(load16(p), f16));
}

#define BLOCK_READER(type, elements, bytes)                                                        \
    static void type##_to_f32(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        float y[elements];                                                                         \
        for (size_t i = 0; i < n / elements; i++) {                                                \
            type##_read(src + i * bytes, y);                                                       \
            memcpy(dst + i * sizeof y, y, sizeof y);                                               \
        }                                                                                          \
    }

/* {d, qs[16]}: y = d (q - 8); byte j holds elements j (low) and j + 16 */
static inline void q4_0_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b);
    const unsigned char *qs = b + 2;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((qs[j] & 15) - 8) * d;
        y[j + 16] = (float)((qs[j] >> 4) - 8) * d;
    }
}
BLOCK_READER(q4_0, 32, 18)

/* {d, m, qs[16]}: y = d q + m */
static inline void q4_1_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b), m = half_at(b + 2);
    const unsigned char *qs = b + 4;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(qs[j] & 15) * d + m;
        y[j + 16] = (float)(qs[j] >> 4) * d + m;
    }
}
BLOCK_READER(q4_1, 32, 20)

/* {d, qh[4], qs[16]}: y = d (q - 16); bit i of qh is the fifth bit of element i */
static inline void q5_0_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b);
    const uint32_t qh = load32(b + 2);
    const unsigned char *qs = b + 6;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((int)((qs[j] & 15) | (qh >> j & 1) << 4) - 16) * d;
        y[j + 16] = (float)((int)(qs[j] >> 4 | (qh >> (j + 16) & 1) << 4) - 16) * d;
    }
}
BLOCK_READER(q5_0, 32, 22)

/* {d, m, qh[4], qs[16]}: y = d q + m */
static inline void q5_1_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b), m = half_at(b + 2);
    const uint32_t qh = load32(b + 4);
    const unsigned char *qs = b + 8;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(int)((qs[j] & 15) | (qh >> j & 1) << 4) * d + m;
        y[j + 16] = (float)(int)(qs[j] >> 4 | (qh >> (j + 16) & 1) << 4) * d + m;
    }
}
BLOCK_READER(q5_1, 32, 24)

/* {d, int8 qs[32]}: y = d q */
static inline void q8_0_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b);
    for (int j = 0; j < 32; j++)
        y[j] = (float)(int8_t)b[2 + j] * d;
}
BLOCK_READER(q8_0, 32, 34)

/* {scales[16], qs[64], d, dmin}: y = d (scale & 15) q - dmin (scale >> 4), a scale for 16 elements.
 * Element 128 h + 32 g + l is in bits 2g, 2g + 1 of qs[32 h + l]. */
static inline void q2_k_read(const unsigned char *b, float *restrict y)
{
    const unsigned char *scales = b, *qs = b + 16;
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int s = 0; s < 16; s++) {
        const float dl = d * (float)(scales[s] & 15), ml = dmin * (float)(scales[s] >> 4);
        const unsigned char *q = qs + s / 8 * 32 + s % 2 * 16;
        for (int l = 0; l < 16; l++)
            y[16 * s + l] = dl * (float)(q[l] >> s / 2 % 4 * 2 & 3) - ml;
    }
}
BLOCK_READER(q2_k, 256, 84)

/* {hmask[32], qs[64], scales[12], d}: y = d (scale - 32) (q - 4), a scale for 16 elements. The low
 * two bits of q are as in Q2_K, the third of element 32 g + l is bit g of hmask[l]. Scale s has
 * its low four bits in a nibble of scales[s % 8], its high two in scales[8 + s % 4]. */
static inline void q3_k_read(const unsigned char *b, float *restrict y)
{
    const unsigned char *hmask = b, *qs = b + 32, *scales = b + 96;
    const float d = half_at(b + 108);
    for (int s = 0; s < 16; s++) {
        const int scale = (scales[s % 8] >> s / 8 * 4 & 15) | (scales[8 + s % 4] >> s / 4 * 2 & 3)
                                                                  << 4;
        const float dl = d * (float)(scale - 32);
        const unsigned char *q = qs + s / 8 * 32 + s % 2 * 16, *h = hmask + s % 2 * 16;
        for (int l = 0; l < 16; l++)
            y[16 * s + l] =
                dl * (float)(((q[l] >> s / 2 % 4 * 2 & 3) | (h[l] >> s / 2 & 1) << 2) - 4);
    }
}
BLOCK_READER(q3_k, 256, 110)

/* The 6-bit scale and minimum of sub-block j of Q4_K and Q5_K: the first four of each lie in the
 * low bits of bytes 0-3 and 4-7; the others have their low nibbles in bytes 8-11 and their high two
 * bits on top of bytes 0-3 and 4-7. */
static inline void scale_min(const unsigned char *packed, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = packed[j] & 63;
        *min = packed[j + 4] & 63;
    } else {
        *scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        *min = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}

/* {d, dmin, scales[12], qs[128]}: y = d scale q - dmin min for 8 sub-blocks of 32; byte l of each
 * 32 holds element l of one sub-block (low) and of the next */
static inline void q4_k_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        scale_min(b + 4, j, &scale, &min);
        const float dl = d * (float)scale, ml = dmin * (float)min;
        const unsigned char *q = b + 16 + j / 2 * 32;
        for (int l = 0; l < 32; l++)
            y[32 * j + l] = dl * (float)(q[l] >> j % 2 * 4 & 15) - ml;
    }
}
BLOCK_READER(q4_k, 256, 144)

/* {d, dmin, scales[12], qh[32], qs[128]}: as Q4_K; bit j of qh[l] is the fifth of element l of
 * sub-block j */
static inline void q5_k_read(const unsigned char *b, float *restrict y)
{
    const float d = half_at(b), dmin = half_at(b + 2);
    const unsigned char *qh = b + 16;
    for (int j = 0; j < 8; j++) {
        int scale, min;
        scale_min(b + 4, j, &scale, &min);
        const float dl = d * (float)scale, ml = dmin * (float)min;
        const unsigned char *q = b + 48 + j / 2 * 32;
        for (int l = 0; l < 32; l++)
            y[32 * j + l] = dl * (float)((q[l] >> j % 2 * 4 & 15) | (qh[l] >> j & 1) << 4) - ml;
    }
}
BLOCK_READER(q5_k, 256, 176)

/* {ql[128], qh[64], int8 scales[16], d}: y = d scale (q - 32), a scale for 16 elements. Element
 * 128 h + 32 g + l has its low four bits in a nibble (g / 2) of ql[64 h + 32 (g % 2) + l], its high
 * two in bits 2g, 2g + 1 of qh[32 h + l]. */
static inline void q6_k_read(const unsigned char *b, float *restrict y)
{
    const unsigned char *ql = b, *qh = b + 128, *scales = b + 192;
    const float d = half_at(b + 208);
    for (int s = 0; s < 16; s++) {
        const int h = s / 8, g = s / 2 % 4, half = s % 2 * 16;
        const float dl = d * (float)(int8_t)scales[s];
        const unsigned char *low = ql + 64 * h + 32 * (g % 2) + half, *high = qh + 32 * h + half;
        for (int l = 0; l < 16; l++)
            y[16 * s + l] =
                dl * (float)(((low[l] >> g / 2 * 4 & 15) | (high[l] >> 2 * g & 3) << 4) - 32);
    }
}
BLOCK_READER(q6_k, 256, 210)

/* {e, qs[16]}: y = 2^(e - 128) times twice the E2M1 number, nibbles as in Q4_0. Zero has no sign,
 * and e = 255, NaN in the OCP specification, counts as a power of two: both as in ggml. */
static inline void mxfp4_read(const unsigned char *b, float *restrict y)
{
    static const int8_t twice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    const float d = float_of(b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23);
    for (int j = 0; j < 16; j++) {
        y[j] = (float)twice[b[1 + j] & 15] * d;
        y[j + 16] = (float)twice[b[1 + j] >> 4] * d;
    }
}
BLOCK_READER(mxfp4, 32, 17)
