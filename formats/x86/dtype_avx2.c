/* The conversions for AVX2 with F16C; compiled with those flags, called only where base/cpu.c finds
 * them. By hand is what the compiler does not find: the instructions that convert halves, which
 * serve the 8-bit floats too, and Q8_0. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OWN_F16
#define OWN_F8
#define OWN_Q8_0
#define TABLE tg_dtype_fns_avx2
#define TABLE_NAME "avx2"

/* NaNs become quiet, as in the template. */
static inline void widen_8_halves(const unsigned char *restrict src, unsigned char *restrict dst)
{
    const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)src);
    _mm256_storeu_ps((float *)(void *)dst, _mm256_cvtph_ps(h));
}

static void f16_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    unsigned char in[16] = {0}, out[32];
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        widen_8_halves(src + 2 * i, dst + 4 * i);
    if (i == n)
        return;
    memcpy(in, src + 2 * i, 2 * (n - i));
    widen_8_halves(in, out);
    memcpy(dst + 4 * i, out, 4 * (n - i));
}

/* The instruction keeps bits of a NaN; the template gives 0x7E00 and the sign. */
static inline void narrow_8_halves(const unsigned char *restrict src, unsigned char *restrict dst)
{
    const __m256 x = _mm256_loadu_ps((const float *)(const void *)src);
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256 quiet = _mm256_or_ps(_mm256_and_ps(x, _mm256_set1_ps(-0.0f)),
                                      _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)));
    const __m128i h = _mm256_cvtps_ph(_mm256_blendv_ps(x, quiet, nan), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)(void *)dst, h);
}

static void f32_to_f16(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    unsigned char in[32] = {0}, out[16];
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        narrow_8_halves(src + 4 * i, dst + 2 * i);
    if (i == n)
        return;
    memcpy(in, src + 4 * i, 4 * (n - i));
    narrow_8_halves(in, out);
    memcpy(dst + 2 * i, out, 2 * (n - i));
}

/* An E5M2 is the upper byte of a half. */
static inline void widen_8_e5m2(const unsigned char *restrict src, unsigned char *restrict dst)
{
    const __m128i u = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)src));
    _mm256_storeu_ps((float *)(void *)dst, _mm256_cvtph_ps(_mm_slli_epi16(u, 8)));
}

/* With its mantissa moved into place, an E4M3 is a half of 2^-8 its value, because their biases are
 * 7 and 15. The largest pattern is NaN. */
static inline void widen_8_e4m3(const unsigned char *restrict src, unsigned char *restrict dst)
{
    const __m128i u = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)src));
    const __m128i mag = _mm_and_si128(u, _mm_set1_epi16(0x7F));
    const __m128i sign = _mm_slli_epi16(_mm_xor_si128(u, mag), 8);
    const __m256 half = _mm256_cvtph_ps(_mm_or_si128(sign, _mm_slli_epi16(mag, 7)));
    const __m128i last = _mm_cmpeq_epi16(mag, _mm_set1_epi16(0x7F));
    const __m256 quiet = _mm256_castsi256_ps(
        _mm256_and_si256(_mm256_cvtepi16_epi32(last), _mm256_set1_epi32(0x7FC00000)));
    const __m256 number = _mm256_mul_ps(half, _mm256_set1_ps(256));
    const __m256 nan = _mm256_or_ps(_mm256_and_ps(number, _mm256_set1_ps(-0.0f)), quiet);
    _mm256_storeu_ps(
        (float *)(void *)dst,
        _mm256_blendv_ps(number, nan, _mm256_castsi256_ps(_mm256_cvtepi16_epi32(last))));
}

#define WIDEN_BYTES(form)                                                                          \
    static void form##_to_f32(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        unsigned char in[8] = {0}, out[32];                                                        \
        size_t i = 0;                                                                              \
        for (; i + 8 <= n; i += 8)                                                                 \
            widen_8_##form(src + i, dst + 4 * i);                                                  \
        if (i == n)                                                                                \
            return;                                                                                \
        memcpy(in, src + i, n - i);                                                                \
        widen_8_##form(in, out);                                                                   \
        memcpy(dst + 4 * i, out, 4 * (n - i));                                                     \
    }
WIDEN_BYTES(e5m2)
WIDEN_BYTES(e4m3)

/* max |x| of 32 numbers, by the order of their bits. */
static inline float largest_of_32(const __m256 x[4])
{
    const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i top = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++)
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(x[k]), mask));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

/* Eight products rounded half away from zero; 0 where the product is no 32-bit integer. */
static inline __m256i rounded_codes(__m256 x, __m256 id)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), below_half = _mm256_set1_ps(0x1.fffffep-2f);
    const __m256 v = _mm256_mul_ps(x, id);
    const __m256 sum = _mm256_add_ps(v, _mm256_or_ps(_mm256_and_ps(v, sign), below_half));
    const __m256 fits =
        _mm256_cmp_ps(_mm256_andnot_ps(sign, sum), _mm256_set1_ps(0x1p31f), _CMP_LT_OQ);
    return _mm256_cvttps_epi32(_mm256_and_ps(sum, fits));
}

/* See q8_0_write in the template: b = {d, int8 q[32]}. */
static inline void q8_0_write(const float *restrict from, unsigned char *restrict b)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256 x[4];
    __m256i q[4];
    for (int k = 0; k < 4; k++)
        x[k] = _mm256_loadu_ps(from + 8 * k);
    const float d = largest_of_32(x) / 127, id = d != 0 ? 1.0f / d : 0.0f;
    const __m256 ids = _mm256_set1_ps(id);
    for (int k = 0; k < 4; k++)
        q[k] = rounded_codes(x[k], ids);
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const uint16_t half = (uint16_t)(d == d ? _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT) : 0x7E00);
    memcpy(b, &half, 2);
    _mm256_storeu_si256((__m256i *)(void *)(b + 2), _mm256_permutevar8x32_epi32(bytes, in_order));
}

#include "formats/dtype_tmpl.h"
#endif
