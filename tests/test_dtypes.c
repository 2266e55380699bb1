/* Element types: every value of the golden file bit for bit (a NaN must stay a NaN), every pattern,
 * every tie. */
#include "tests/check.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "formats/dtype_fns.h"
#include "formats/tensors.h"

static struct tg_err err;

static bool same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, 4) == 0;
}

static bool is_nan_pattern(enum tg_dtype t, const unsigned char *p)
{
    float x;
    tg_dtype_to_f32(t, p, &x, 1);
    return isnan(x);
}

static void check_from(const struct tg_tensors *t, const char *name, enum tg_dtype dtype)
{
    const struct tg_tensor *src = tg_tensors_find(t, "f32"), *want = tg_tensors_find(t, name);
    size_t size = tg_dtype_info(dtype)->block_bytes, n = src->elements, nans = 0;
    assert_int_equal(want->elements, n);
    float *x = tg_alloc_floats(n);
    unsigned char *got = tg_alloc(n * size + 1);
    assert_int_equal(tg_tensor_read_f32(src, x, &err), TG_OK);
    tg_dtype_from_f32(dtype, x, got + 1, n); /* unaligned on purpose */
    for (size_t i = 0; i < n; i++) {
        const unsigned char *w = (const unsigned char *)want->data + i * size,
                            *g = got + 1 + i * size;
        bool nan = is_nan_pattern(dtype, w);
        nans += nan;
        if (nan ? !is_nan_pattern(dtype, g) : memcmp(w, g, size) != 0)
            fail_msg("%s: element %zu (%.9g) differs", name, i, (double)x[i]);
    }
    assert_in_range(nans, 1, n / 2);
    tg_free(x);
    tg_free(got);
}

static void check_to(const void *patterns, size_t n, enum tg_dtype dtype,
                     const struct tg_tensor *want)
{
    float *got = tg_alloc_floats(n), *w = tg_alloc_floats(n);
    assert_int_equal(want->elements, n);
    assert_int_equal(tg_tensor_read_f32(want, w, &err), TG_OK);
    tg_dtype_to_f32(dtype, patterns, got, n);
    for (size_t i = 0; i < n; i++)
        if (!same_float(got[i], w[i]))
            fail_msg("%s: %zu: %.9g, not %.9g", want->name, i, (double)got[i], (double)w[i]);
    tg_free(got);
    tg_free(w);
}

static void test_dtypes_golden(void **state)
{
    (void)state;
    struct tg_tensors *t;
    assert_int_equal(tg_tensors_open(&t, "tests/data/dtypes.safetensors", &err), TG_OK);
    check_from(t, "bf16", TG_BF16);
    check_from(t, "f16", TG_F16);
    check_from(t, "f8_e4m3", TG_F8_E4M3);
    check_from(t, "f8_e5m2", TG_F8_E5M2);
    check_from(t, "e4m3_bits", TG_F8_E4M3);
    check_from(t, "e5m2_bits", TG_F8_E5M2);
    unsigned char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    check_to(all, 256, TG_F8_E4M3, tg_tensors_find(t, "all_e4m3_as_f32"));
    check_to(all, 256, TG_F8_E5M2, tg_tensors_find(t, "all_e5m2_as_f32"));
    check_to(tg_tensors_find(t, "all_f16")->data, 65536, TG_F16,
             tg_tensors_find(t, "all_f16_as_f32"));
    tg_tensors_close(t);
}

/* Every pattern of the small types comes back from float32 (negative zero where there is one, NaN
 * as NaN). */
static void test_dtypes_round_trip(void **state)
{
    (void)state;
    static const enum tg_dtype types[] = {TG_F16,     TG_BF16,        TG_F8_E4M3,    TG_F8_E5M2,
                                          TG_F8_E8M0, TG_F8_E4M3FNUZ, TG_F8_E5M2FNUZ};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        size_t size = tg_dtype_info(types[k])->block_bytes, count = size == 2 ? 65536 : 256;
        for (size_t i = 0; i < count; i++) {
            unsigned char p[2] = {(unsigned char)i, (unsigned char)(i >> 8)}, q[2];
            float x;
            tg_dtype_to_f32(types[k], p, &x, 1);
            tg_dtype_from_f32(types[k], &x, q, 1);
            if (isnan(x) ? !is_nan_pattern(types[k], q) : memcmp(p, q, size) != 0)
                fail_msg("%s: pattern %zx", tg_dtype_info(types[k])->name, i);
        }
    }
    static const struct {
        enum tg_dtype t;
        unsigned char pattern;
        float value;
    } known[] = {
        {TG_F8_E4M3FNUZ, 0x7F, 240},
        {TG_F8_E4M3FNUZ, 0x01, 0x1p-10f},
        {TG_F8_E4M3FNUZ, 0x40, 1},
        {TG_F8_E5M2FNUZ, 0x7F, 57344},
        {TG_F8_E5M2FNUZ, 0x01, 0x1p-17f},
        {TG_F8_E5M2FNUZ, 0xC0, -1},
        {TG_F8_E8M0, 127, 1},
        {TG_F8_E8M0, 0, 0x1p-127f},
        {TG_F8_E8M0, 254, 0x1p127f},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        float x;
        unsigned char p;
        tg_dtype_to_f32(known[i].t, &known[i].pattern, &x, 1);
        tg_dtype_from_f32(known[i].t, &known[i].value, &p, 1);
        assert_true(x == known[i].value);
        assert_int_equal(p, known[i].pattern);
    }
    float wide[] = {1000, -1000, -1e-30f, NAN, 1.5f, 1.75f};
    unsigned char p[6];
    tg_dtype_from_f32(TG_F8_E4M3FNUZ, wide, p, 4);
    assert_memory_equal(p, ((unsigned char[]){0x80, 0x80, 0x00, 0x80}), 4);
    tg_dtype_from_f32(TG_F8_E8M0, wide + 4, p, 2);
    assert_memory_equal(p, ((unsigned char[]){128, 128}), 2);
    double d[2] = {1e300, 0.1};
    float f[2];
    tg_dtype_to_f32(TG_F64, d, f, 2);
    assert_true(isinf(f[0]) && f[1] == 0.1f);
}

static unsigned pattern_of(enum tg_dtype t, float x)
{
    unsigned char p[2] = {0, 0};
    tg_dtype_from_f32(t, &x, p, 1);
    return p[0] | (unsigned)p[1] << 8;
}

/* Halfway between neighbours the even pattern wins; one step of float32 to either side, the nearer.
 * Both signs. */
static void test_dtypes_ties(void **state)
{
    (void)state;
    static const struct {
        enum tg_dtype t;
        unsigned last, sign; /* pattern of the largest number, and of the sign */
    } rows[] = {{TG_F16, 0x7BFF, 0x8000},     {TG_BF16, 0x7F7F, 0x8000},
                {TG_F8_E4M3, 0x7E, 0x80},     {TG_F8_E5M2, 0x7B, 0x80},
                {TG_F8_E4M3FNUZ, 0x7F, 0x80}, {TG_F8_E5M2FNUZ, 0x7F, 0x80}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        for (unsigned p = 1; p < rows[k].last;
             p++) { /* from 1: below it one type has no negative zero */
            unsigned char low[2] = {(unsigned char)p, (unsigned char)(p >> 8)},
                          high[2] = {(unsigned char)(p + 1), (unsigned char)((p + 1) >> 8)};
            float a, b;
            tg_dtype_to_f32(rows[k].t, low, &a, 1);
            tg_dtype_to_f32(rows[k].t, high, &b, 1);
            float mid = (float)(((double)a + (double)b) / 2);
            unsigned even = p + (p & 1), s = rows[k].sign;
            if (pattern_of(rows[k].t, mid) != even ||
                pattern_of(rows[k].t, nextafterf(mid, 0)) != p ||
                pattern_of(rows[k].t, nextafterf(mid, INFINITY)) != p + 1 ||
                pattern_of(rows[k].t, -mid) != (even | s))
                fail_msg("%s: between %x and %x", tg_dtype_info(rows[k].t)->name, p, p + 1);
        }
    }
    assert_int_equal(pattern_of(TG_BF16, 0x1.fep127f), 0x7F7F);
    assert_int_equal(pattern_of(TG_BF16, 0x1.ffp127f), 0x7F80); /* halfway to 2^128 */
    assert_int_equal(pattern_of(TG_F16, 65519.996f), 0x7BFF);
    assert_int_equal(pattern_of(TG_F16, 65520), 0x7C00);
    assert_int_equal(pattern_of(TG_F16, 0x1p-25f), 0);
    assert_int_equal(pattern_of(TG_F16, 0x1.000002p-25f), 1);
    assert_int_equal(pattern_of(TG_F8_E4M3, 464), 0x7E);
    assert_int_equal(pattern_of(TG_F8_E4M3, 464.00003f), 0x7F);
    assert_int_equal(pattern_of(TG_F8_E5M2, 61439.996f), 0x7B);
    assert_int_equal(pattern_of(TG_F8_E5M2, 61440), 0x7C);
}

/* Masks of enum tg_cpu_flags that give each table of conversions once. */
static const unsigned masks[] = {0, TG_CPU_ALL};

/* Every bit pattern of the top 16 bits of a float32, its lower bits at and around what rounding
 * looks at. */
static float *awkward_floats(size_t *n)
{
    static const uint32_t low[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1000, 0xEFFF};
    enum { LOW = sizeof low / sizeof *low };
    float *x = tg_alloc_floats(65536 * LOW);
    for (uint32_t i = 0; i < 65536 * LOW; i++) {
        const uint32_t u = i / LOW << 16 | low[i % LOW];
        memcpy(x + i, &u, 4);
    }
    *n = 65536 * LOW;
    return x;
}

/* All tables give the bits of the first, at every length of a tail, and write no byte more. */
static void test_dtype_tables(void **state)
{
    (void)state;
    enum { TAIL = 64, GUARD = 8 };
    size_t n, bytes;
    float *x = awkward_floats(&n);
    unsigned char *a = tg_alloc(8 * n + GUARD + 1), *b = tg_alloc(8 * n + GUARD + 1);
    float *fa = tg_alloc_floats(n), *fb = tg_alloc_floats(n);
    const struct tg_dtype_fns *first = tg_dtype_fns_select(0);
    for (int t = 0; t < TG_DTYPE_COUNT; t++) {
        const struct tg_dtype_info *info = tg_dtype_info((enum tg_dtype)t);
        for (size_t m = 0; m < sizeof masks / sizeof *masks; m++) {
            const struct tg_dtype_fns *other = tg_dtype_fns_select(masks[m]);
            assert_int_equal(other->to[t] != NULL, info->is_float);
            assert_int_equal(other->from[t] != NULL, info->from_f32);
            if (!info->is_float)
                continue;
            /* x as bytes: all patterns of all types */
            size_t count = 4 * n / info->block_bytes * info->block;
            count = (count < n ? count : n) / info->block * info->block;
            first->to[t]((unsigned char *)x, (unsigned char *)fa, count);
            other->to[t]((unsigned char *)x, (unsigned char *)fb, count);
            for (size_t i = 0; i < count; i++) /* which NaN a product gives is not said */
                assert_true(info->block > 4 ? same_float(fa[i], fb[i])
                                            : memcmp(fa + i, fb + i, 4) == 0);
            if (!info->from_f32)
                continue;
            for (size_t short_by = 0; short_by < TAIL; short_by++) {
                count = short_by ? TAIL - short_by : n;
                count -= count % info->block;
                assert_true(tg_dtype_bytes((enum tg_dtype)t, count, &bytes));
                memset(a, 0xA5, bytes + GUARD + 1);
                memset(b, 0xA5, bytes + GUARD + 1);
                first->from[t]((unsigned char *)x, a + 1, count);
                other->from[t]((unsigned char *)x, b + 1, count);
                assert_memory_equal(a, b, bytes + GUARD + 1);
                assert_int_equal(b[bytes + 1], 0xA5);
            }
        }
    }
    tg_free(x);
    tg_free(a);
    tg_free(b);
    tg_free(fa);
    tg_free(fb);
}

/* The types of 4 and 6 bits: every pattern, where it lies, and what is above the largest number. */
static void test_dtypes_packed(void **state)
{
    (void)state;
    static const struct {
        enum tg_dtype t;
        int exp, man, bias;
        float largest, smallest;
    } rows[] = {{TG_F4, 2, 1, 1, 6, 0.5f},
                {TG_F6_E2M3, 2, 3, 1, 7.5f, 0.125f},
                {TG_F6_E3M2, 3, 2, 3, 28, 0.0625f}};
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        const int bits = 1 + rows[k].exp + rows[k].man, count = 1 << bits, half = count / 2;
        unsigned char packed[48] = {0}, again[48];
        float x[64];
        for (int i = 0; i < count; i++) /* pattern i is element i: the lowest bits first */
            for (int bit = 0; bit < bits; bit++)
                if (i >> bit & 1)
                    packed[(i * bits + bit) / 8] |= (unsigned char)(1 << (i * bits + bit) % 8);
        tg_dtype_to_f32(rows[k].t, packed, x, (size_t)count);
        for (int i = 0; i < count; i++) {
            const int e = (i % half) >> rows[k].man, m = i & ((1 << rows[k].man) - 1);
            const float v = ldexpf((float)(m + (e ? 1 << rows[k].man : 0)),
                                   (e ? e : 1) - rows[k].bias - rows[k].man);
            assert_true(same_float(x[i], i < half ? v : -v));
        }
        assert_true(x[half - 1] == rows[k].largest && x[1] == rows[k].smallest);
        tg_dtype_from_f32(rows[k].t, x, again, (size_t)count);
        assert_memory_equal(packed, again, (size_t)(count * bits / 8));

        /* halfway between neighbours the even pattern; one step to either side the nearer */
        for (int i = 0; i + 1 < half; i++) {
            const float mid = (x[i] + x[i + 1]) / 2;
            float four[4] = {mid, nextafterf(mid, -1), nextafterf(mid, 100), -mid}, back[4];
            tg_dtype_from_f32(rows[k].t, four, again, 4);
            tg_dtype_to_f32(rows[k].t, again, back, 4);
            const float even = x[i + (i & 1)];
            assert_true(same_float(back[0], even) && same_float(back[1], x[i]) &&
                        same_float(back[2], x[i + 1]) && same_float(back[3], -even));
        }
        const float beyond[4] = {1e30f, -INFINITY, NAN, -1e-30f}, top = rows[k].largest;
        float back[4];
        tg_dtype_from_f32(rows[k].t, beyond, again, 4);
        tg_dtype_to_f32(rows[k].t, again, back, 4);
        assert_true(back[0] == top && back[1] == -top && back[2] == top);
        assert_true(same_float(back[3], -0.0f));
    }
}

/* tg_dtype_largest is the last float32 that stays finite; above it f32_beyond finds it. */
static void test_dtypes_largest(void **state)
{
    (void)state;
    for (int t = 0; t < TG_DTYPE_COUNT; t++) {
        const struct tg_dtype_info *info = tg_dtype_info((enum tg_dtype)t);
        const float top = tg_dtype_largest((enum tg_dtype)t);
        float x[256], y[256];
        unsigned char stored[8 * 256];
        if (!info->from_f32)
            continue;
        for (int sign = 0; sign < 4; sign++) {
            for (int i = 0; i < 256; i++)
                x[i] = (sign & 2 && i % 3 ? 0.25f : 1) * ((sign & 1) != i % 2 ? -top : top);
            tg_dtype_from_f32((enum tg_dtype)t, x, stored, 256);
            tg_dtype_to_f32((enum tg_dtype)t, stored, y, 256);
            for (int i = 0; i < 256; i++)
                if (!isfinite(y[i]))
                    fail_msg("%s: %g becomes %g", info->name, (double)x[i], (double)y[i]);
        }
        if (info->block == 1 && top < FLT_MAX) {
            x[0] = nextafterf(top, INFINITY);
            tg_dtype_from_f32((enum tg_dtype)t, x, stored, 1);
            tg_dtype_to_f32((enum tg_dtype)t, stored, y, 1);
            assert_false(isfinite(y[0]));
        }
    }
    float x[2050];
    for (size_t i = 0; i < 2050; i++)
        x[i] = i % 2 ? -2 : 2;
    assert_int_equal(tg_f32_beyond(x, 2050, 2), 2050);
    assert_int_equal(tg_f32_beyond(x, 2050, 1.5f), 0);
    x[2049] = NAN;
    assert_int_equal(tg_f32_beyond(x, 2050, FLT_MAX), 2049);
    x[1100] = -INFINITY;
    assert_int_equal(tg_f32_beyond(x, 2050, FLT_MAX), 1100);
    assert_int_equal(tg_f32_beyond(x, 0, 1), 0);
}

/* Through float32 in pieces: the same as all at once, and a copy of what is not a float. */
static void test_dtypes_convert(void **state)
{
    (void)state;
    enum { N = 2048 * 2 + 256 };
    static float x[N];
    static unsigned char bf16[2 * N], want[8 * N], got[8 * N];
    for (size_t i = 0; i < N; i++)
        x[i] = ldexpf((float)(i * 2654435761u % 4093) - 2000, -8);
    tg_dtype_from_f32(TG_BF16, x, bf16, N);
    tg_dtype_to_f32(TG_BF16, bf16, x, N);
    for (int t = 0; t < TG_DTYPE_COUNT; t++) {
        size_t bytes;
        if (!tg_dtype_info((enum tg_dtype)t)->from_f32)
            continue;
        assert_true(tg_dtype_bytes((enum tg_dtype)t, N, &bytes));
        tg_dtype_from_f32((enum tg_dtype)t, x, want, N);
        tg_dtype_convert(TG_BF16, bf16, (enum tg_dtype)t, got, N);
        assert_memory_equal(got, want, bytes);
        tg_dtype_convert(TG_F32, x, (enum tg_dtype)t, got, N);
        assert_memory_equal(got, want, bytes);
    }
    const int64_t integers[3] = {INT64_MIN, -1, 5};
    int64_t copy[3];
    tg_dtype_convert(TG_I64, integers, TG_I64, copy, 3);
    assert_memory_equal(integers, copy, sizeof copy);
    tg_dtype_convert(TG_F16, bf16, TG_F32, got, N);
    tg_dtype_to_f32(TG_F16, bf16, (float *)(void *)want, N);
    assert_memory_equal(got, want, 4 * N);
}

static void test_dtype_names(void **state)
{
    (void)state;
    static const unsigned bits[] = {32, 16, 16, 64, 8,  8,  8, 8, 8, 8, 16,
                                    16, 32, 32, 64, 64, 64, 4, 6, 6, 8, 8};
    enum tg_dtype t;
    for (int i = 0; i < TG_DTYPE_COUNT; i++) {
        assert_true(tg_dtype_parse(tg_dtype_info((enum tg_dtype)i)->name, &t) && (int)t == i);
        size_t bytes = 0;
        if (i < (int)(sizeof bits / sizeof *bits)) {
            assert_true(tg_dtype_bytes((enum tg_dtype)i, 8, &bytes));
            assert_int_equal(bytes, bits[i]);
        }
    }
    assert_false(tg_dtype_parse("bf16", &t));
    assert_true(tg_dtype_parse_short("bf16", &t) && t == TG_BF16);
    assert_true(tg_dtype_parse_short("float16", &t) && t == TG_F16);
    assert_true(tg_dtype_parse_short("float32", &t) && t == TG_F32);
    assert_false(tg_dtype_parse_short("int8", &t));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes_golden),  cmocka_unit_test(test_dtypes_round_trip),
        cmocka_unit_test(test_dtypes_ties),    cmocka_unit_test(test_dtype_tables),
        cmocka_unit_test(test_dtypes_packed),  cmocka_unit_test(test_dtypes_largest),
        cmocka_unit_test(test_dtypes_convert), cmocka_unit_test(test_dtype_names),
    };
    return tg_run_tests("dtypes", tests, sizeof tests / sizeof *tests);
}
