/* The body of every table of conversions: a source file defines TABLE (the table's symbol) and
 * TABLE_NAME, and OWN_F16, OWN_F8 (reading), OWN_Q8_0 (writing) if it has functions of its own for
 * them, and includes this once. Plain loops, which the compiler vectorises for the instructions
 * that the file is compiled for; each element is computed by itself and by the same operations, so
 * the tables agree bit for bit. */
#include "formats/dtype_fns.h"

#include <math.h>
#include <string.h>

#ifdef __clang__ /* leaves some of the loops scalar: slower, and nothing to warn of */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

static const uint32_t infinity_bits = 0x7F800000, quiet_nan_bits = 0x7FC00000;

static inline uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline uint32_t load16(const unsigned char *p)
{
    uint16_t u;
    memcpy(&u, p, 2);
    return u;
}

static inline uint32_t load32(const unsigned char *p)
{
    uint32_t u;
    memcpy(&u, p, 4);
    return u;
}

static inline void store16(unsigned char *p, uint32_t v)
{
    uint16_t u = (uint16_t)v;
    memcpy(p, &u, 2);
}

static inline void store32(unsigned char *p, uint32_t u)
{
    memcpy(p, &u, 4);
}

/* What the patterns of the largest magnitudes mean. */
enum special {
    NUMBERS, /* nothing but numbers */
    IEEE,    /* infinity, then NaNs */
    ONE_NAN, /* the last one is NaN */
    FNUZ     /* there is no negative zero, its pattern is the only NaN */
};

/* A small float: sign, exponent, mantissa. `overflow` is given for what rounds above `largest`. */
struct form {
    int exp, man, bias;
    uint32_t largest, overflow, nan;
    enum special special;
};

static const struct form f16 = {5, 10, 15, 0x7BFF, 0x7C00, 0x7E00, IEEE},
                         e4m3 = {4, 3, 7, 0x7E, 0x7F, 0x7F, ONE_NAN},
                         e5m2 = {5, 2, 15, 0x7B, 0x7C, 0x7F, IEEE},
                         e4m3_fnuz = {4, 3, 8, 0x7F, 0x80, 0x80, FNUZ},
                         e5m2_fnuz = {5, 2, 16, 0x7F, 0x80, 0x80, FNUZ},
                         e2m1 = {2, 1, 1, 7, 7, 7, NUMBERS}, e2m3 = {2, 3, 1, 31, 31, 31, NUMBERS},
                         e3m2 = {3, 2, 3, 31, 31, 31, NUMBERS};

static inline float power_of_two(int e)
{
    return float_of((uint32_t)(127 + e) << 23);
}

/* Pattern to the bits of a float32. Subnormal patterns count steps of 2^(1 - bias - man); the
 * others only need their exponent moved to float32's bias. */
static inline uint32_t widen(uint32_t u, const struct form f)
{
    const int32_t sign = 1 << (f.exp + f.man), mag = (int32_t)u & (sign - 1),
                  top = sign - (1 << f.man);
    const uint32_t placed = (uint32_t)mag << (23 - f.man);
    uint32_t r = placed + ((uint32_t)(127 - f.bias) << 23),
             tiny = bits_of((float)mag * power_of_two(1 - f.bias - f.man));
    r = mag < 1 << f.man ? tiny : r;
    if (f.special == IEEE) {
        r = mag >= top ? placed | infinity_bits : r;
        r = mag > top ? r | quiet_nan_bits : r;
    }
    if (f.special == ONE_NAN)
        r = mag == sign - 1 ? quiet_nan_bits : r;
    r |= (u & (uint32_t)sign) << (31 - f.exp - f.man);
    if (f.special == FNUZ)
        r = u == (uint32_t)sign ? quiet_nan_bits : r;
    return r;
}

/* Bits of a float32 to the nearest pattern, ties to even. Normal results round by integer addition.
 * Subnormal ones are rounded by the adder: added to 2^23 steps, x is left in units of the step in
 * the low bits of the sum. */
static inline uint32_t narrow(uint32_t u, const struct form f)
{
    const int shift = 23 - f.man;
    const int32_t mag = (int32_t)(u & 0x7FFFFFFF), low = (128 - f.bias) << 23;
    const uint32_t sign = u >> (31 - f.exp - f.man) & 1u << (f.exp + f.man);
    const float steps = power_of_two(24 - f.bias - f.man);
    int32_t tiny = (int32_t)(bits_of(float_of((uint32_t)mag) + steps) - bits_of(steps));
    int32_t r =
        (mag - ((127 - f.bias) << 23) + (1 << (shift - 1)) - 1 + (mag >> shift & 1)) >> shift;
    r = mag < low ? tiny : r;
    r = r > (int32_t)f.largest ? (int32_t)f.overflow : r;
    r = mag > (int32_t)infinity_bits ? (int32_t)f.nan : r;
    uint32_t with_sign = (uint32_t)r | sign;
    if (f.special == FNUZ)
        with_sign = r == 0 ? 0 : with_sign;
    if (f.special == NUMBERS)
        with_sign = mag > (int32_t)infinity_bits ? f.nan : with_sign;
    return with_sign;
}

static void f32_copy(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    if (n)
        memcpy(dst, src, 4 * n);
}

static void f64_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, src + 8 * i, 8);
        float x = (float)d;
        memcpy(dst + 4 * i, &x, 4);
    }
}

static void f32_to_f64(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, src + 4 * i, 4);
        double d = x;
        memcpy(dst + 8 * i, &d, 8);
    }
}

static void bf16_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        store32(dst + 4 * i, load16(src + 2 * i) << 16);
}

/* Adding 0x7FFF plus the lowest kept bit rounds to nearest even; it carries into infinity by
 * itself, but would turn some NaNs into infinity, so they become the quiet NaN 0x7FC0 as in
 * PyTorch. */
static void f32_to_bf16(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = load32(src + 4 * i), r = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
        store16(dst + 2 * i, (int32_t)(u & 0x7FFFFFFF) > (int32_t)infinity_bits ? 0x7FC0 : r);
    }
}

#ifndef OWN_F16
static void f16_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        store32(dst + 4 * i, widen(load16(src + 2 * i), f16));
}

static void f32_to_f16(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        store16(dst + 2 * i, narrow(load32(src + 4 * i), f16));
}
#endif

#define READ_BYTES(form)                                                                           \
    static void form##_to_f32(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        for (size_t i = 0; i < n; i++)                                                             \
            store32(dst + 4 * i, widen(src[i], form));                                             \
    }
#define WRITE_BYTES(form)                                                                          \
    static void f32_to_##form(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        for (size_t i = 0; i < n; i++)                                                             \
            dst[i] = (unsigned char)narrow(load32(src + 4 * i), form);                             \
    }
#ifndef OWN_F8
READ_BYTES(e4m3)
READ_BYTES(e5m2)
#endif
READ_BYTES(e4m3_fnuz)
READ_BYTES(e5m2_fnuz)
WRITE_BYTES(e4m3)
WRITE_BYTES(e5m2)
WRITE_BYTES(e4m3_fnuz)
WRITE_BYTES(e5m2_fnuz)

/* A power of two; 2^-127 is subnormal. */
static void e8m0_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t b = src[i], r = b == 0 ? 0x00400000 : b << 23;
        store32(dst + 4 * i, b == 0xFF ? quiet_nan_bits : r);
    }
}

/* The exponent, rounded up from a mantissa of one half; the sign is dropped. */
static void f32_to_e8m0(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = load32(src + 4 * i);
        uint32_t exp = u >> 23 & 0xFF, half = u >> 22 & 1, rest = (u & 0x3FFFFF) != 0;
        dst[i] = (unsigned char)(exp + (exp < 0xFF && half && (rest || exp > 0)));
    }
}

/* Two elements a byte, the first in the low bits. */
static void e2m1_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        store32(dst + 8 * i, widen(src[i] & 15, e2m1));
        store32(dst + 8 * i + 4, widen(src[i] >> 4, e2m1));
    }
}

static void f32_to_e2m1(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n / 2; i++)
        dst[i] = (unsigned char)(narrow(load32(src + 8 * i), e2m1) |
                                 narrow(load32(src + 8 * i + 4), e2m1) << 4);
}

/* Four elements in the 24 bits of three bytes, little-endian, the first in the lowest bits. */
#define SIX_BIT_FORM(form)                                                                         \
    static void form##_to_f32(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        for (size_t i = 0; i < n / 4; i++) {                                                       \
            const unsigned char *p = src + 3 * i;                                                  \
            uint32_t four = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;                     \
            for (size_t k = 0; k < 4; k++)                                                         \
                store32(dst + 16 * i + 4 * k, widen(four >> 6 * k & 63, form));                    \
        }                                                                                          \
    }                                                                                              \
    static void f32_to_##form(const unsigned char *restrict src, unsigned char *restrict dst,      \
                              size_t n)                                                            \
    {                                                                                              \
        for (size_t i = 0; i < n / 4; i++) {                                                       \
            uint32_t four = 0;                                                                     \
            for (size_t k = 0; k < 4; k++)                                                         \
                four |= narrow(load32(src + 16 * i + 4 * k), form) << 6 * k;                       \
            for (size_t k = 0; k < 3; k++)                                                         \
                dst[3 * i + k] = (unsigned char)(four >> 8 * k);                                   \
        }                                                                                          \
    }
SIX_BIT_FORM(e2m3)
SIX_BIT_FORM(e3m2)

#include "formats/quant_tmpl.h"
#include "formats/quant_write_tmpl.h"
#include "formats/quant_k_tmpl.h"

const struct tg_dtype_fns TABLE = {
    TABLE_NAME,
    .to =
        {
            [TG_F32] = f32_copy,
            [TG_F16] = f16_to_f32,
            [TG_BF16] = bf16_to_f32,
            [TG_F64] = f64_to_f32,
            [TG_F8_E4M3] = e4m3_to_f32,
            [TG_F8_E5M2] = e5m2_to_f32,
            [TG_F8_E8M0] = e8m0_to_f32,
            [TG_F4] = e2m1_to_f32,
            [TG_F6_E2M3] = e2m3_to_f32,
            [TG_F6_E3M2] = e3m2_to_f32,
            [TG_F8_E4M3FNUZ] = e4m3_fnuz_to_f32,
            [TG_F8_E5M2FNUZ] = e5m2_fnuz_to_f32,
            [TG_Q4_0] = q4_0_to_f32,
            [TG_Q4_1] = q4_1_to_f32,
            [TG_Q5_0] = q5_0_to_f32,
            [TG_Q5_1] = q5_1_to_f32,
            [TG_Q8_0] = q8_0_to_f32,
            [TG_Q2_K] = q2_k_to_f32,
            [TG_Q3_K] = q3_k_to_f32,
            [TG_Q4_K] = q4_k_to_f32,
            [TG_Q5_K] = q5_k_to_f32,
            [TG_Q6_K] = q6_k_to_f32,
            [TG_MXFP4] = mxfp4_to_f32,
        },
    .from =
        {
            [TG_F32] = f32_copy,
            [TG_F16] = f32_to_f16,
            [TG_BF16] = f32_to_bf16,
            [TG_F64] = f32_to_f64,
            [TG_F8_E4M3] = f32_to_e4m3,
            [TG_F8_E5M2] = f32_to_e5m2,
            [TG_F8_E8M0] = f32_to_e8m0,
            [TG_F4] = f32_to_e2m1,
            [TG_F6_E2M3] = f32_to_e2m3,
            [TG_F6_E3M2] = f32_to_e3m2,
            [TG_F8_E4M3FNUZ] = f32_to_e4m3_fnuz,
            [TG_F8_E5M2FNUZ] = f32_to_e5m2_fnuz,
            [TG_Q4_0] = f32_to_q4_0,
            [TG_Q4_1] = f32_to_q4_1,
            [TG_Q5_0] = f32_to_q5_0,
            [TG_Q5_1] = f32_to_q5_1,
            [TG_Q8_0] = f32_to_q8_0,
            [TG_Q4_K] = f32_to_q4_k,
            [TG_Q5_K] = f32_to_q5_k,
            [TG_Q6_K] = f32_to_q6_k,
        },
};
