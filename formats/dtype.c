/* Element types: one row each. Conversions are exact to float32 and round to nearest even from it,
 * bit for bit as PyTorch does: binary16 and bfloat16 (IEEE 754), and the 8-bit types of the OCP
 * "FP8" specification: E4M3 (no infinities, one NaN, largest 448; whatever rounds above it becomes
 * NaN), E5M2 (IEEE-like), the FNUZ forms (no negative zero, its pattern is NaN), E8M0 (a power of
 * two). */
#include "formats/dtype.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

typedef void (*convert_fn)(const unsigned char *restrict src, unsigned char *restrict dst,
                           size_t n);

static const uint32_t quiet_nan = 0x7FC00000;

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
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
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        uint32_t u = (uint32_t)h << 16;
        memcpy(dst + 4 * i, &u, 4);
    }
}

/* Adding 0x7FFF plus the lowest kept bit rounds to nearest even; it carries into infinity by
 * itself, but would turn some NaNs into infinity, so they become the quiet NaN 0x7FC0 as in
 * PyTorch. */
static void f32_to_bf16(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + 4 * i, 4);
        uint32_t r = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
        uint16_t h = (uint16_t)((u & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : r);
        memcpy(dst + 2 * i, &h, 2);
    }
}

/* The half's exponent and mantissa moved into place and scaled by 2^112 by one exact
 * multiplication, which also normalises subnormals; infinities and NaNs get their exponent
 * restored, NaNs become quiet. */
static void f16_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    const float scale = 0x1p112f;
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        uint32_t mag = (uint32_t)(h & 0x7FFF) << 13;
        uint32_t u = bits_of(float_of(mag) * scale);
        u = mag >= 0x0F800000 ? mag | 0x7F800000 : u;
        u = mag > 0x0F800000 ? u | quiet_nan : u;
        u |= (uint32_t)(h & 0x8000) << 16;
        memcpy(dst + 4 * i, &u, 4);
    }
}

/* Normal results round by integer addition. Subnormal ones are rounded by the adder: x + 0.5 leaves
 * x in units of 2^-24, the half's smallest step, in the low bits of the sum. NaNs become 0x7E00
 * with their sign, as in PyTorch. */
static void f32_to_f16(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + 4 * i, 4);
        uint32_t mag = u & 0x7FFFFFFF, r;
        uint32_t tiny = bits_of(float_of(mag) + 0.5f) - 0x3F000000;
        uint32_t normal = (mag - 0x38000000 + 0xFFF + (mag >> 13 & 1)) >> 13;
        r = mag < 0x38800000 ? tiny : normal;
        r = mag >= 0x47800000 ? 0x7C00 : r;
        r = mag > 0x7F800000 ? 0x7E00 : r;
        uint16_t h = (uint16_t)(r | (u >> 16 & 0x8000));
        memcpy(dst + 2 * i, &h, 2);
    }
}

/* The 8-bit floats, as one row of numbers. */
struct small {
    int exp_bits, man_bits, bias;
    unsigned largest,
        overflow; /* pattern of the largest number, and what is given for anything above it */
    unsigned nan; /* first NaN pattern (without sign, unless fnuz) */
    bool fnuz;    /* 0x80 is the only NaN and zero has no sign */
};

static const struct small e4m3 = {4, 3, 7, 0x7E, 0x7F, 0x7F, false};
static const struct small e5m2 = {5, 2, 15, 0x7B, 0x7C, 0x7D, false};
static const struct small e4m3_fnuz = {4, 3, 8, 0x7F, 0x80, 0x80, true};
static const struct small e5m2_fnuz = {5, 2, 16, 0x7F, 0x80, 0x80, true};

static float small_value(const struct small *t, unsigned byte)
{
    unsigned mag = byte & 0x7F, man = mag & ((1u << t->man_bits) - 1);
    int exp = (int)(mag >> t->man_bits);
    uint32_t sign = (byte & 0x80) << 24;
    if (t->fnuz && byte == t->nan)
        return float_of(quiet_nan);
    if (!t->fnuz && mag >= t->nan)
        return float_of(sign | quiet_nan | man << (23 - t->man_bits));
    if (mag > t->largest)
        return float_of(sign | 0x7F800000);
    int shift = (exp ? exp : 1) - t->bias - t->man_bits;
    float v = ldexpf((float)(man + (exp ? 1u << t->man_bits : 0)), shift);
    return sign ? -v : v;
}

/* Patterns are counted in order of magnitude: x in units of the step around it, rounded to even,
 * plus the patterns below. */
static unsigned small_pattern(const struct small *t, float x)
{
    unsigned sign = bits_of(x) >> 24 & 0x80, r = t->overflow;
    if (isnan(x))
        return t->fnuz ? t->nan : sign | 0x7F;
    float mag = fabsf(x);
    if (mag < 0x1p20f) { /* above every largest number */
        int exp = mag > 0 ? ilogbf(mag) : 1 - t->bias;
        if (exp < 1 - t->bias)
            exp = 1 - t->bias;
        float units = rintf(ldexpf(mag, t->man_bits - exp));
        r = (unsigned)((exp + t->bias - 1) << t->man_bits) + (unsigned)units;
        if (r > t->largest)
            r = t->overflow;
    }
    return t->fnuz && (r == 0 || r == t->nan) ? r : r | sign;
}

static void small_to_f32(const struct small *t, const unsigned char *src, unsigned char *dst,
                         size_t n)
{
    float table[256];
    for (unsigned b = 0; b < 256; b++)
        table[b] = small_value(t, b);
    for (size_t i = 0; i < n; i++)
        memcpy(dst + 4 * i, &table[src[i]], 4);
}

static void f32_to_small(const struct small *t, const unsigned char *src, unsigned char *dst,
                         size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, src + 4 * i, 4);
        dst[i] = (unsigned char)small_pattern(t, x);
    }
}

static void e8m0_to_f32(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = src[i] == 0xFF ? float_of(quiet_nan) : ldexpf(1.0f, src[i] - 127);
        memcpy(dst + 4 * i, &x, 4);
    }
}

/* The exponent, rounded up from a mantissa of one half; the sign is dropped. */
static void f32_to_e8m0(const unsigned char *restrict src, unsigned char *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, src + 4 * i, 4);
        unsigned exp = u >> 23 & 0xFF, half = u >> 22 & 1, rest = (u & 0x3FFFFF) != 0;
        dst[i] = (unsigned char)(exp < 0xFF && half && (rest || exp > 0) ? exp + 1 : exp);
    }
}

static const struct row {
    struct tg_dtype_info info;
    convert_fn to, from;
    const struct small *small;
} rows[TG_DTYPE_COUNT] = {
    [TG_F32] = {{"F32", 1, 4, true, true}, f32_copy, f32_copy, NULL},
    [TG_F16] = {{"F16", 1, 2, true, true}, f16_to_f32, f32_to_f16, NULL},
    [TG_BF16] = {{"BF16", 1, 2, true, true}, bf16_to_f32, f32_to_bf16, NULL},
    [TG_F64] = {{"F64", 1, 8, true, true}, f64_to_f32, f32_to_f64, NULL},
    [TG_F8_E4M3] = {{"F8_E4M3", 1, 1, true, true}, NULL, NULL, &e4m3},
    [TG_F8_E5M2] = {{"F8_E5M2", 1, 1, true, true}, NULL, NULL, &e5m2},
    [TG_F8_E8M0] = {{"F8_E8M0", 1, 1, true, true}, e8m0_to_f32, f32_to_e8m0, NULL},
    [TG_BOOL] = {.info = {"BOOL", 1, 1, false, false}},
    [TG_U8] = {.info = {"U8", 1, 1, false, false}},
    [TG_I8] = {.info = {"I8", 1, 1, false, false}},
    [TG_U16] = {.info = {"U16", 1, 2, false, false}},
    [TG_I16] = {.info = {"I16", 1, 2, false, false}},
    [TG_U32] = {.info = {"U32", 1, 4, false, false}},
    [TG_I32] = {.info = {"I32", 1, 4, false, false}},
    [TG_U64] = {.info = {"U64", 1, 8, false, false}},
    [TG_I64] = {.info = {"I64", 1, 8, false, false}},
    [TG_C64] = {.info = {"C64", 1, 8, false, false}},
    [TG_F4] = {.info = {"F4", 2, 1, false, false}},
    [TG_F6_E2M3] = {.info = {"F6_E2M3", 4, 3, false, false}},
    [TG_F6_E3M2] = {.info = {"F6_E3M2", 4, 3, false, false}},
    [TG_F8_E4M3FNUZ] = {{"F8_E4M3FNUZ", 1, 1, true, true}, NULL, NULL, &e4m3_fnuz},
    [TG_F8_E5M2FNUZ] = {{"F8_E5M2FNUZ", 1, 1, true, true}, NULL, NULL, &e5m2_fnuz},
    [TG_Q4_0] = {.info = {"Q4_0", 32, 18, false, false}},
    [TG_Q4_1] = {.info = {"Q4_1", 32, 20, false, false}},
    [TG_Q5_0] = {.info = {"Q5_0", 32, 22, false, false}},
    [TG_Q5_1] = {.info = {"Q5_1", 32, 24, false, false}},
    [TG_Q8_0] = {.info = {"Q8_0", 32, 34, false, false}},
    [TG_Q2_K] = {.info = {"Q2_K", 256, 84, false, false}},
    [TG_Q3_K] = {.info = {"Q3_K", 256, 110, false, false}},
    [TG_Q4_K] = {.info = {"Q4_K", 256, 144, false, false}},
    [TG_Q5_K] = {.info = {"Q5_K", 256, 176, false, false}},
    [TG_Q6_K] = {.info = {"Q6_K", 256, 210, false, false}},
    [TG_MXFP4] = {.info = {"MXFP4", 32, 17, false, false}},
};

const struct tg_dtype_info *tg_dtype_info(enum tg_dtype t)
{
    return &rows[t].info;
}

bool tg_dtype_bytes(enum tg_dtype t, size_t n, size_t *bytes)
{
    const struct tg_dtype_info *info = tg_dtype_info(t);
    return n % info->block == 0 && tg_mul_size(bytes, n / info->block, info->block_bytes);
}

bool tg_dtype_parse(const char *name, enum tg_dtype *out)
{
    for (int t = 0; t < TG_DTYPE_COUNT; t++) {
        if (strcmp(rows[t].info.name, name) == 0) {
            *out = (enum tg_dtype)t;
            return true;
        }
    }
    return false;
}

bool tg_dtype_parse_short(const char *name, enum tg_dtype *out)
{
    static const struct {
        const char *name;
        enum tg_dtype t;
    } names[] = {
        {"f32", TG_F32},
        {"float32", TG_F32},
        {"float", TG_F32},
        {"bf16", TG_BF16},
        {"bfloat16", TG_BF16},
        {"f16", TG_F16},
        {"float16", TG_F16},
        {"half", TG_F16},
        {"f64", TG_F64},
        {"float64", TG_F64},
        {"double", TG_F64},
        {"f8_e4m3", TG_F8_E4M3},
        {"float8_e4m3fn", TG_F8_E4M3},
        {"f8_e5m2", TG_F8_E5M2},
        {"float8_e5m2", TG_F8_E5M2},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].name, name) == 0) {
            *out = names[i].t;
            return true;
        }
    }
    return false;
}

void tg_dtype_to_f32(enum tg_dtype t, const void *src, float *dst, size_t n)
{
    if (rows[t].small)
        small_to_f32(rows[t].small, src, (unsigned char *)dst, n);
    else if (rows[t].to)
        rows[t].to(src, (unsigned char *)dst, n);
}

void tg_dtype_from_f32(enum tg_dtype t, const float *src, void *dst, size_t n)
{
    if (rows[t].small)
        f32_to_small(rows[t].small, (const unsigned char *)src, dst, n);
    else if (rows[t].from)
        rows[t].from((const unsigned char *)src, dst, n);
}
