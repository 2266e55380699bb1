/* Weights with scales in a tensor of their own, against torch and transformers, bit for bit, and
 * against a plain loop; wrong shapes by name. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/block_scaled.h"

static struct tg_err err;
static struct tg_tensors *file;

static const struct tg_tensor *tensor(const char *name)
{
    const struct tg_tensor *t = tg_tensors_find(file, name);
    if (!t)
        fail_msg("no tensor %s", name);
    return t;
}

static int set_up(void **state)
{
    (void)state;
    return tg_tensors_open(&file, "tests/data/quant/scaled.safetensors", &err);
}

static int tear_down(void **state)
{
    (void)state;
    tg_tensors_close(file);
    return 0;
}

/* All at once, then in pieces that begin and end inside blocks and rows. */
static void check_values(const struct tg_block_scaled *s, const char *name)
{
    const struct tg_tensor *want = tensor(name);
    const size_t n = want->elements, piece = 14;
    assert_int_equal(s->matrices * s->rows * s->cols, n);
    float *expected = tg_alloc_floats(n), *got = tg_alloc_floats(n);
    assert_int_equal(tg_tensor_read_f32(want, expected, &err), TG_OK);
    assert_int_equal(tg_block_scaled_read(s, 0, n, got, &err), TG_OK);
    assert_memory_equal(got, expected, 4 * n);
    memset(got, 0xEE, 4 * n);
    for (size_t at = 0; at < n; at += piece)
        assert_int_equal(
            tg_block_scaled_read(s, at, n - at < piece ? n - at : piece, got + at, &err), TG_OK);
    assert_memory_equal(got, expected, 4 * n);
    assert_int_equal(tg_block_scaled_read(s, n - 2, 4, got, &err), TG_ERR_VALUE);
    tg_free(expected);
    tg_free(got);
}

static void test_scaled_golden(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "ragged", "row", "tensor"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char weight[32], scale[32], values[32];
        struct tg_block_scaled s;
        snprintf(weight, sizeof weight, "%s.weight", names[i]);
        snprintf(scale, sizeof scale, "%s.scale", names[i]);
        snprintf(values, sizeof values, "%s.f32", names[i]);
        if (tg_block_scaled_open(&s, tensor(weight), tensor(scale), 16, 24, &err) != TG_OK)
            fail_msg("%s", err.msg);
        check_values(&s, values);
        tg_block_scaled_close(&s);
    }
    struct tg_block_scaled s;
    assert_int_equal(tg_mxfp4_open(&s, tensor("mxfp4.blocks"), tensor("mxfp4.scales"), &err),
                     TG_OK);
    check_values(&s, "mxfp4.f32");
    tg_block_scaled_close(&s);
}

/* One value of [matrix][row][col], by the definition. */
static double plain(const unsigned char *w, const float *scale, size_t rows, size_t cols, size_t br,
                    size_t bc, size_t m, size_t i, size_t j)
{
    const size_t gr = (rows + br - 1) / br, gc = (cols + bc - 1) / bc;
    const int byte = w[(m * rows + i) * cols + j], exp = byte >> 3 & 15, man = byte & 7;
    const double v = exp ? ldexp(8 + man, exp - 10) : ldexp(man, -9);
    return (byte & 0x80 ? -v : v) * (double)scale[(m * gr + i / br) * gc + j / bc];
}

static void test_scaled_plain(void **state)
{
    (void)state;
    enum { M = 2, R = 131, C = 259 };
    static const size_t blocks[][2] = {{128, 128}, {1, 32}, {32, 1}, {7, 5}, {200, 300}};
    unsigned char *w = tg_alloc(M * R * C + 1);
    float *got = tg_alloc_floats(M * R * C), *want = tg_alloc_floats(M * R * C);
    for (size_t i = 0; i < M * R * C; i++)
        w[i + 1] = (unsigned char)(i * 37 % 127 | (i % 3 ? 0x80 : 0)); /* 0x7F is NaN */
    struct tg_tensor weight = {.name = "w",
                               .dtype = TG_F8_E4M3,
                               .rank = 3,
                               .shape = {M, R, C},
                               .elements = M * R * C,
                               .bytes = M * R * C,
                               .data = w + 1,
                               .file = "memory"};
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        const size_t br = blocks[b][0], bc = blocks[b][1], gr = (R + br - 1) / br,
                     gc = (C + bc - 1) / bc;
        float *scale = tg_alloc_floats(M * gr * gc);
        for (size_t i = 0; i < M * gr * gc; i++)
            scale[i] = 0.25f + (float)(i % 1024) / 128;
        struct tg_tensor scales = {.name = "s",
                                   .dtype = TG_F32,
                                   .rank = 3,
                                   .shape = {M, (int64_t)gr, (int64_t)gc},
                                   .elements = M * gr * gc,
                                   .bytes = 4 * M * gr * gc,
                                   .data = scale,
                                   .file = "memory"};
        struct tg_block_scaled s;
        assert_int_equal(tg_block_scaled_open(&s, &weight, &scales, br, bc, &err), TG_OK);
        assert_int_equal(tg_block_scaled_read(&s, 0, M * R * C, got, &err), TG_OK);
        for (size_t m = 0; m < M; m++)
            for (size_t i = 0; i < R; i++)
                for (size_t j = 0; j < C; j++)
                    want[(m * R + i) * C + j] = (float)plain(w + 1, scale, R, C, br, bc, m, i, j);
        assert_memory_equal(got, want, sizeof *got * M * R * C);
        tg_block_scaled_close(&s);
        tg_free(scale);
    }
    tg_free(w);
    tg_free(got);
    tg_free(want);
}

/* One scale for each column, and one for each matrix: blocks of all rows, and of all there is. */
static void test_scaled_columns(void **state)
{
    (void)state;
    enum { M = 3, R = 5, C = 7 };
    unsigned char ones[M * R * C];
    float scale[M * C], got[M * R * C];
    memset(ones, 0x38, sizeof ones); /* 1.0 */
    for (int i = 0; i < M * C; i++)
        scale[i] = (float)(i + 1);
    struct tg_tensor w = {.name = "w",
                          .dtype = TG_F8_E4M3,
                          .rank = 3,
                          .shape = {M, R, C},
                          .elements = M * R * C,
                          .bytes = M * R * C,
                          .data = ones,
                          .file = "memory"},
                     g = {.name = "s",
                          .dtype = TG_F32,
                          .rank = 3,
                          .shape = {M, 1, C},
                          .elements = M * C,
                          .bytes = 4 * M * C,
                          .data = scale,
                          .file = "memory"};
    for (int per_matrix = 0; per_matrix < 2; per_matrix++) {
        struct tg_block_scaled s;
        if (per_matrix) {
            g.shape[2] = 1;
            g.elements = M;
        }
        assert_int_equal(tg_block_scaled_open(&s, &w, &g, 2, 4, &err), TG_OK);
        assert_int_equal(tg_block_scaled_read(&s, 0, M * R * C, got, &err), TG_OK);
        for (int i = 0; i < M * R * C; i++) {
            const int m = i / (R * C), c = i % C;
            assert_true(got[i] == scale[per_matrix ? m : m * C + c]);
        }
        tg_block_scaled_close(&s);
    }
}

static void expect_error(int rc, int code, const char *part)
{
    assert_int_equal(rc, code);
    if (!strstr(err.msg, part))
        fail_msg("'%s' lacks '%s'", err.msg, part);
}

static void test_scaled_refused(void **state)
{
    (void)state;
    struct tg_block_scaled s;
    struct tg_tensor w = *tensor("ragged.weight"), g = *tensor("ragged.scale");
    expect_error(tg_block_scaled_open(&s, &w, &g, 16, 16, &err), TG_ERR_MISMATCH,
                 "column or block");
    expect_error(tg_block_scaled_open(&s, &w, &g, 0, 24, &err), TG_ERR_VALUE, "blocks of 0 x 24");
    expect_error(tg_block_scaled_open(&s, &w, tensor("row.scale"), 16, 24, &err), TG_ERR_MISMATCH,
                 "leading sizes");
    expect_error(tg_block_scaled_open(&s, tensor("ragged.f32"), &g, 16, 24, &err),
                 TG_ERR_UNSUPPORTED, "at most 8 bits");
    expect_error(tg_block_scaled_open(&s, tensor("tensor.scale"), &g, 16, 24, &err),
                 TG_ERR_UNSUPPORTED, "F32");
    w.rank = 1;
    expect_error(tg_block_scaled_open(&s, &w, &g, 16, 24, &err), TG_ERR_MISMATCH, "1 dimensions");
    float bad[2 * 3 * 3];
    memcpy(bad, g.data, sizeof bad);
    bad[7] = INFINITY;
    g.data = bad;
    w.rank = 3;
    expect_error(tg_block_scaled_open(&s, &w, &g, 16, 24, &err), TG_ERR_VALUE,
                 "element 7 is not finite");
    tg_block_scaled_close(&s);

    struct tg_tensor b = *tensor("mxfp4.blocks"), e = *tensor("mxfp4.scales");
    unsigned char scales[2 * 5 * 3];
    memcpy(scales, e.data, sizeof scales);
    scales[11] = 255;
    e.data = scales;
    expect_error(tg_mxfp4_open(&s, &b, &e, &err), TG_ERR_VALUE, "element 11 is not finite");
    tg_block_scaled_close(&s);
    e.shape[2] = 2;
    expect_error(tg_mxfp4_open(&s, &b, &e, &err), TG_ERR_MISMATCH, "groups");
    e = *tensor("mxfp4.scales");
    b.shape[3] = 8;
    expect_error(tg_mxfp4_open(&s, &b, &e, &err), TG_ERR_MISMATCH, "groups, 16");
    b = *tensor("mxfp4.blocks");
    expect_error(tg_mxfp4_open(&s, &b, tensor("row.scale"), &err), TG_ERR_MISMATCH, "U8");
    tg_mem_fail_after(1);
    expect_error(tg_mxfp4_open(&s, &b, &e, &err), TG_ERR_NOMEM, "no memory");
    tg_block_scaled_close(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_scaled_golden, set_up, tear_down),
        cmocka_unit_test(test_scaled_plain),
        cmocka_unit_test(test_scaled_columns),
        cmocka_unit_test_setup_teardown(test_scaled_refused, set_up, tear_down),
    };
    return tg_run_tests("block_scaled", tests, sizeof tests / sizeof *tests);
}
