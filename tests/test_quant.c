/* Block types of GGUF against blocks and values made by ggml: bit for bit, by every table of
 * conversions that this processor can run. */
#include "tests/check.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "formats/dtype_fns.h"
#include "formats/tensors.h"

static struct tg_err err;

/* Masks of enum tg_cpu_flags that give each table once. */
static const unsigned masks[] = {0, TG_CPU_ALL};
enum { TABLES = sizeof masks / sizeof *masks };

static struct tg_tensors *open_golden(const char *file)
{
    struct tg_tensors *t;
    if (tg_tensors_open(&t, file, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return t;
}

/* The golden files spell a type as ggml's functions do: "q4_K", "mxfp4". */
static const struct tg_tensor *golden(const struct tg_tensors *t, enum tg_dtype type,
                                      const char *suffix)
{
    char name[32];
    snprintf(name, sizeof name, "%s", tg_dtype_info(type)->name);
    for (char *c = name; *c; c++)
        if (*c != 'K')
            *c = (char)tolower((unsigned char)*c);
    snprintf(name + strlen(name), sizeof name - strlen(name), "%s", suffix);
    const struct tg_tensor *found = tg_tensors_find(t, name);
    assert_true(!found || found->data);
    return found;
}

static void test_quant_read(void **state)
{
    (void)state;
    struct tg_tensors *t = open_golden("tests/data/quant/read.safetensors");
    int types = 0;
    for (int type = TG_Q4_0; type < TG_DTYPE_COUNT; type++, types++) {
        const struct tg_tensor *blocks = golden(t, (enum tg_dtype)type, ""),
                               *want = golden(t, (enum tg_dtype)type, ".f32");
        assert_true(blocks && want);
        const size_t n = want->elements;
        size_t bytes;
        assert_true(tg_dtype_bytes((enum tg_dtype)type, n, &bytes) && bytes == blocks->bytes);
        unsigned char *src = tg_alloc(bytes + 1), *dst = tg_alloc(4 * n + 1);
        memcpy(src + 1, blocks->data, bytes);
        for (int m = 0; m < TABLES; m++) {
            const struct tg_dtype_fns *fns = tg_dtype_fns_select(masks[m]);
            memset(dst, 0xEE, 4 * n + 1);
            fns->to[type](src + 1, dst + 1, n); /* unaligned on purpose */
            for (size_t i = 0; i < n; i++) {
                float got, expected;
                memcpy(&got, dst + 1 + 4 * i, 4);
                memcpy(&expected, (const char *)want->data + 4 * i, 4);
                if (isnan(expected) ? !isnan(got) : memcmp(&got, &expected, 4) != 0)
                    fail_msg("%s %s: element %zu: %.9g, not %.9g",
                             tg_dtype_info((enum tg_dtype)type)->name, fns->name, i, (double)got,
                             (double)expected);
            }
        }
        tg_free(src);
        tg_free(dst);
    }
    assert_int_equal(types, 11);
    tg_tensors_close(t);
}

static void test_quant_write(void **state)
{
    (void)state;
    struct tg_tensors *t = open_golden("tests/data/quant/write.safetensors");
    const struct tg_tensor *x = tg_tensors_find(t, "x");
    assert_true(x && x->data);
    const size_t n = x->elements;
    float *src = tg_alloc_floats(n + 1);
    memcpy((char *)src + 1, x->data, 4 * n);
    int types = 0;
    for (int type = TG_Q4_0; type < TG_DTYPE_COUNT; type++) {
        const struct tg_dtype_info *info = tg_dtype_info((enum tg_dtype)type);
        const struct tg_tensor *want = golden(t, (enum tg_dtype)type, "");
        assert_int_equal(want != NULL, info->from_f32);
        if (!want)
            continue;
        types++;
        unsigned char *got = tg_alloc(want->bytes + 1);
        for (int m = 0; m < TABLES; m++) {
            const struct tg_dtype_fns *fns = tg_dtype_fns_select(masks[m]);
            memset(got, 0xEE, want->bytes + 1);
            fns->from[type]((unsigned char *)src + 1, got + 1, n); /* unaligned on purpose */
            for (size_t i = 0; i < want->bytes; i++)
                if (got[1 + i] != ((const unsigned char *)want->data)[i])
                    fail_msg("%s %s: row %zu, block %zu, byte %zu: %02x, not %02x", info->name,
                             fns->name, i / info->block_bytes * info->block / 256,
                             i / info->block_bytes, i % info->block_bytes, got[1 + i],
                             ((const unsigned char *)want->data)[i]);
        }
        tg_free(got);
    }
    assert_int_equal(types, 8);
    tg_free(src);
    tg_tensors_close(t);
}

/* Written and read again, normal numbers come back with the error of rounding to even steps,
 * step / sqrt(12): the step is the mean largest magnitude of a block (2.19 of 32 numbers, 1.85 of
 * 16), or the mean range (4.2), over the number of codes; a tenth more is allowed for the rounding
 * of scales. */
static void test_quant_error(void **state)
{
    (void)state;
    static const struct {
        enum tg_dtype t;
        double step;
    } rows[] = {{TG_Q8_0, 2.19 / 127}, {TG_Q4_0, 2.19 / 8}, {TG_Q4_1, 4.2 / 15},
                {TG_Q5_0, 2.19 / 16},  {TG_Q5_1, 4.2 / 31}, {TG_Q4_K, 4.2 / 15},
                {TG_Q5_K, 4.2 / 31},   {TG_Q6_K, 1.85 / 32}};
    enum { N = 1 << 16 };
    float *x = tg_alloc_floats(N), *y = tg_alloc_floats(N);
    unsigned char *stored = tg_alloc((size_t)N * 2);
    struct tg_rng rng = tg_rng_make(5, 0);
    for (size_t i = 0; i < N; i++)
        x[i] = (float)tg_rng_normal(&rng);
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        tg_dtype_from_f32(rows[k].t, x, stored, N);
        tg_dtype_to_f32(rows[k].t, stored, y, N);
        assert_below(tg_rel_error_f(y, x, N), 1.1 * rows[k].step / sqrt(12),
                     tg_dtype_info(rows[k].t)->name);
    }
    tg_free(x);
    tg_free(y);
    tg_free(stored);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_read),
        cmocka_unit_test(test_quant_write),
        cmocka_unit_test(test_quant_error),
    };
    return tg_run_tests("quant", tests, sizeof tests / sizeof *tests);
}
