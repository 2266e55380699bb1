/* Element types: one row each. Their conversions are in dtype_tmpl.h. */
#include "formats/dtype.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "formats/dtype_fns.h"

static const struct tg_dtype_info rows[TG_DTYPE_COUNT] = {
    [TG_F32] = {"F32", 1, 4, true, true},
    [TG_F16] = {"F16", 1, 2, true, true},
    [TG_BF16] = {"BF16", 1, 2, true, true},
    [TG_F64] = {"F64", 1, 8, true, true},
    [TG_F8_E4M3] = {"F8_E4M3", 1, 1, true, true},
    [TG_F8_E5M2] = {"F8_E5M2", 1, 1, true, true},
    [TG_F8_E8M0] = {"F8_E8M0", 1, 1, true, true},
    [TG_BOOL] = {"BOOL", 1, 1, false, false},
    [TG_U8] = {"U8", 1, 1, false, false},
    [TG_I8] = {"I8", 1, 1, false, false},
    [TG_U16] = {"U16", 1, 2, false, false},
    [TG_I16] = {"I16", 1, 2, false, false},
    [TG_U32] = {"U32", 1, 4, false, false},
    [TG_I32] = {"I32", 1, 4, false, false},
    [TG_U64] = {"U64", 1, 8, false, false},
    [TG_I64] = {"I64", 1, 8, false, false},
    [TG_C64] = {"C64", 1, 8, false, false},
    [TG_F4] = {"F4", 2, 1, true, true},
    [TG_F6_E2M3] = {"F6_E2M3", 4, 3, true, true},
    [TG_F6_E3M2] = {"F6_E3M2", 4, 3, true, true},
    [TG_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 1, 1, true, true},
    [TG_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 1, 1, true, true},
    [TG_Q4_0] = {"Q4_0", 32, 18, true, true},
    [TG_Q4_1] = {"Q4_1", 32, 20, true, true},
    [TG_Q5_0] = {"Q5_0", 32, 22, true, true},
    [TG_Q5_1] = {"Q5_1", 32, 24, true, true},
    [TG_Q8_0] = {"Q8_0", 32, 34, true, true},
    [TG_Q2_K] = {"Q2_K", 256, 84, true, false},
    [TG_Q3_K] = {"Q3_K", 256, 110, true, false},
    [TG_Q4_K] = {"Q4_K", 256, 144, true, true},
    [TG_Q5_K] = {"Q5_K", 256, 176, true, true},
    [TG_Q6_K] = {"Q6_K", 256, 210, true, true},
    [TG_MXFP4] = {"MXFP4", 32, 17, true, false},
};

/* A block type is written with finite scales up to the largest half times what the code or the code
 * and the scale of a sub-block can be; a least squares scale may be larger than the range it fits
 * by a little, which a factor of two covers. */
#define HALF_MAX 65504.0f
static const float largest[TG_DTYPE_COUNT] = {
    [TG_F32] = FLT_MAX,
    [TG_F16] = 0x1.ffdffep15f,
    [TG_BF16] = 0x1.fefffep127f,
    [TG_F64] = FLT_MAX,
    [TG_F8_E4M3] = 464,
    [TG_F8_E5M2] = 0x1.dffffep15f,
    [TG_F8_E8M0] = 0x1.7ffffep127f,
    [TG_F4] = FLT_MAX,
    [TG_F6_E2M3] = FLT_MAX,
    [TG_F6_E3M2] = FLT_MAX,
    [TG_F8_E4M3FNUZ] = 0x1.effffep7f,
    [TG_F8_E5M2FNUZ] = 0x1.dffffep15f,
    [TG_Q4_0] = 8 * HALF_MAX,
    [TG_Q4_1] = HALF_MAX,
    [TG_Q5_0] = 16 * HALF_MAX,
    [TG_Q5_1] = HALF_MAX,
    [TG_Q8_0] = 127 * HALF_MAX,
    [TG_Q4_K] = 63 * HALF_MAX / 2,
    [TG_Q5_K] = 63 * HALF_MAX / 2,
    [TG_Q6_K] = 128 * 32 * HALF_MAX / 2,
};

const struct tg_dtype_info *tg_dtype_info(enum tg_dtype t)
{
    return &rows[t];
}

bool tg_dtype_bytes(enum tg_dtype t, size_t n, size_t *bytes)
{
    const struct tg_dtype_info *info = tg_dtype_info(t);
    return n % info->block == 0 && tg_mul_size(bytes, n / info->block, info->block_bytes);
}

bool tg_dtype_parse(const char *name, enum tg_dtype *out)
{
    for (int t = 0; t < TG_DTYPE_COUNT; t++) {
        if (strcmp(rows[t].name, name) == 0) {
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

const struct tg_dtype_fns *tg_dtype_fns_select(unsigned mask)
{
#if defined(__x86_64__)
    if (tg_cpu_flags() & mask & TG_CPU_AVX2)
        return &tg_dtype_fns_avx2;
#endif
    (void)mask;
    return &tg_dtype_fns_c;
}

void tg_dtype_to_f32(enum tg_dtype t, const void *src, float *dst, size_t n)
{
    const tg_dtype_fn to = tg_dtype_fns_select(TG_CPU_ALL)->to[t];
    if (to)
        to(src, (unsigned char *)dst, n);
}

void tg_dtype_from_f32(enum tg_dtype t, const float *src, void *dst, size_t n)
{
    const tg_dtype_fn from = tg_dtype_fns_select(TG_CPU_ALL)->from[t];
    if (from)
        from((const unsigned char *)src, dst, n);
}

void tg_dtype_convert(enum tg_dtype from, const void *src, enum tg_dtype to, void *dst, size_t n)
{
    enum { PIECE = 2048 }; /* whole blocks of every type; stays in the first cache */
    const struct tg_dtype_info *in = tg_dtype_info(from), *out = tg_dtype_info(to);
    float x[PIECE];
    if (from == to && n)
        memcpy(dst, src, n / in->block * in->block_bytes);
    else if (from == TG_F32)
        tg_dtype_from_f32(to, src, dst, n);
    else if (to == TG_F32)
        tg_dtype_to_f32(from, src, dst, n);
    else
        for (size_t at = 0; at < n; at += PIECE) {
            const size_t count = n - at < PIECE ? n - at : PIECE;
            tg_dtype_to_f32(from, (const char *)src + at / in->block * in->block_bytes, x, count);
            tg_dtype_from_f32(to, x, (char *)dst + at / out->block * out->block_bytes, count);
        }
}

size_t tg_f32_beyond(const float *x, size_t n, float limit)
{
    enum { PIECE = 1024 };
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t end = n - at < PIECE ? n : at + PIECE;
        int beyond = 0;
        for (size_t i = at; i < end; i++)
            beyond |= !(fabsf(x[i]) <= limit);
        for (size_t i = at; beyond && i < end; i++)
            if (!(fabsf(x[i]) <= limit))
                return i;
    }
    return n;
}

float tg_dtype_largest(enum tg_dtype t)
{
    return largest[t];
}
