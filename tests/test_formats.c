#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "formats/dtype.h"
#include "formats/format.h"
#include "formats/tensors.h"
#include "tests/scratch.h"

static struct tg_err err;

/* safetensors: single files, built from a header text. */

static unsigned char *file_of(const char *header, size_t data, size_t *len)
{
    size_t n = strlen(header);
    unsigned char *p = tg_alloc(8 + n + data);
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(p + 8, header, n);
    for (size_t i = 0; i < data; i++)
        p[8 + n + i] = (unsigned char)i;
    *len = 8 + n + data;
    return p;
}

static int over(const char *header, size_t data, struct tg_tensors **t, unsigned char **bytes)
{
    size_t len;
    memset(&err, 0, sizeof err);
    *bytes = file_of(header, data, &len);
    return tg_tensors_over(t, &tg_format_safetensors, *bytes, len, "x.safetensors", &err);
}

#define ENTRY(name, dtype, shape, begin, end)                                                      \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
    "]}"

static void test_safetensors_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data, count;
    } rows[] = {
        {"{}", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{\"__metadata__\":{\"format\":\"pt\"}}    ", 0, 0},
        {" \n{" ENTRY("a", "F32", "[2,3]", 0, 24) "}\n ", 24, 1},
        {"{" ENTRY("a", "F32", "[]", 0, 4) "}", 4, 1},
        {"{" ENTRY("a", "F32", "[0]", 0, 0) "}", 0, 1},
        {"{" ENTRY("b", "U8", "[4]", 4, 8) "," ENTRY("a", "F32", "[1]", 0, 4) "}", 8, 2},
        {"{" ENTRY("a", "U8", "[4]", 0, 4) "," ENTRY("z", "F32", "[3,0]", 4,
                                                     4) "," ENTRY("b", "U8", "[1]", 4, 5) "}",
         5, 3},
        {"{" ENTRY("a", "F4", "[2]", 0, 1) "," ENTRY("b", "F6_E2M3", "[4]", 1, 4) "}", 4, 2},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":[{}]}}", 1, 1},
        {"{" ENTRY("a", "U8", "[1,1,1,1,1,1,1,1]", 0, 1) "}", 1, 1},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t;
        unsigned char *bytes;
        if (over(rows[i].header, rows[i].data, &t, &bytes) != TG_OK)
            fail_msg("%s: %s", rows[i].header, err.msg);
        assert_int_equal(tg_tensors_count(t), rows[i].count);
        for (size_t k = 1; k < rows[i].count; k++)
            assert_true(strcmp(tg_tensors_at(t, k - 1)->name, tg_tensors_at(t, k)->name) < 0);
        tg_tensors_close(t);
        tg_free(bytes);
    }
}

static void test_safetensors_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *why;
    } rows[] = {
        {"", 0, "value is expected"},
        {"[]", 0, "not a JSON object"},
        {"{", 0, "key in quotes"},
        {"{\"a\":1}", 0, "'a': its entry is not an object"},
        {"{\"__metadata__\":1}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "value of 'k' is not a string"},
        {"{\"__metadata__\":{\"k\":null}}", 0, "value of 'k' is not a string"},
        {"{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("a", "U8", "[1]", 1, 2) "}", 2,
         "\"a\" stands twice"},
        {"{" ENTRY("a", "X8", "[1]", 0, 1) "}", 1, "'a': unknown dtype 'X8'"},
        {"{" ENTRY("a", "f32", "[1]", 0, 4) "}", 4, "unknown dtype"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype is missing"},
        {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype is not a string"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "shape is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1,
         "shape is not an array"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "not an array of two"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
         "not an array of two"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1, "not integers"},
        {"{" ENTRY("a", "U8", "[1]", -1, 0) "}", 1, "not integers"},
        {"{" ENTRY("a", "U8", "[1]", 0, 0.5) "}", 1, "not integers"},
        {"{" ENTRY("a", "U8", "[1]", 0, 18446744073709551615) "}", 1, "not integers"},
        {"{" ENTRY("a", "U8", "[-1]", 0, 1) "}", 1, "shape[0]"},
        {"{" ENTRY("a", "U8", "[1,1.5]", 0, 1) "}", 1, "shape[1]"},
        {"{" ENTRY("a", "U8", "[1,null]", 0, 1) "}", 1, "shape[1]"},
        {"{" ENTRY("a", "U8", "[4294967296,4294967296]", 0, 1) "}", 1, "overflows"},
        {"{" ENTRY("a", "F64", "[1152921504606846976,1]", 0, 1) "}", 1, "shape[0]"},
        {"{" ENTRY("a", "F64", "[4503599627370496,1024]", 0, 1) "}", 1, "overflows"},
        {"{" ENTRY("a", "F4", "[3]", 0, 2) "}", 2, "whole bytes"},
        {"{" ENTRY("a", "F6_E3M2", "[2]", 0, 2) "}", 2, "whole bytes"},
        {"{" ENTRY("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, "9 dimensions"},
        {"{" ENTRY("a", "F32", "[2]", 0, 4) "}", 4, "dtype and shape need 8"},
        {"{" ENTRY("a", "U8", "[1]", 1, 0) "}", 1, "do not lie"},
        {"{" ENTRY("a", "U8", "[2]", 0, 2) "}", 1, "do not lie in the file's 1 bytes"},
        {"{" ENTRY("a", "U8", "[2]", 0, 2) "}", 3, "3 bytes of data, but the tensors end at 2"},
        {"{}", 1, "1 bytes of data"},
        {"{" ENTRY("a", "U8", "[1]", 1, 2) "}", 2, "'a': gap"},
        {"{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[1]", 3, 4) "}", 4, "'b': gap"},
        {"{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[2]", 1, 3) "}", 3,
         "'b': overlap"},
        {"{" ENTRY("a", "U8", "[2]", 0, 2) "," ENTRY("b", "U8", "[2]", 0, 2) "}", 2, "overlap"},
        {"{" ENTRY("a", "U8", "[4]", 0, 4) "," ENTRY("z", "U8", "[0]", 2, 2) "}", 4,
         "'z': overlap"},
        {"{\"a\xFF\":1}", 0, "UTF-8"},
        {"{" ENTRY("a", "U8", "[1]", 0, 1) "}x", 1, "bytes after"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t = (void *)1;
        unsigned char *bytes;
        int rc = over(rows[i].header, rows[i].data, &t, &bytes);
        if (rc == TG_OK || t || !strstr(err.msg, rows[i].why) ||
            strncmp(err.msg, "x.safetensors: ", 15) != 0)
            fail_msg("%s: %d %s", rows[i].header, rc, err.msg);
        tg_free(bytes);
    }
}

/* A file with several types, a scalar and an empty tensor. */
static const char sample[] =
    "{\"__metadata__\":{\"k\":\"v\"}," ENTRY("w", "BF16", "[2,3]", 8, 20) "," ENTRY(
        "s", "F64", "[]", 0, 8) "," ENTRY("e", "F32", "[0,7]", 20, 20) "," ENTRY("u", "U8", "[3]",
                                                                                 20, 23) "}";

static void test_safetensors_cut(void **state)
{
    (void)state;
    size_t len;
    unsigned char *whole = file_of(sample, 23, &len);
    struct tg_tensors *t;
    for (size_t n = 0; n <= len; n++) {
        unsigned char *cut = tg_alloc(n); /* its own block, so that a read past the end is seen */
        memcpy(cut, whole, n);
        memset(&err, 0, sizeof err);
        int rc = tg_tensors_over(&t, &tg_format_safetensors, cut, n, "cut", &err);
        assert_int_equal(rc, n == len ? TG_OK : TG_ERR_FORMAT);
        tg_tensors_close(t);
        tg_free(cut);
    }
    static const uint64_t wrong[] = {
        0, 1, 7, 8, UINT64_MAX, INT64_MAX, 100000000, 100000001, (uint64_t)1 << 32};
    uint64_t right = len - 8 - 23;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong + 3; i++) {
        uint64_t v = i < sizeof wrong / sizeof *wrong ? wrong[i]
                                                      : len - 9 + i - sizeof wrong / sizeof *wrong;
        if (v == right)
            continue;
        for (int k = 0; k < 8; k++)
            whole[k] = (unsigned char)(v >> (8 * k));
        assert_int_equal(tg_tensors_over(&t, &tg_format_safetensors, whole, len, "wrong", &err),
                         TG_ERR_FORMAT);
    }
    tg_free(whole);
}

static void test_read(void **state)
{
    (void)state;
    struct tg_tensors *t;
    unsigned char *bytes;
    float f[6];
    int64_t v[4];
    char shape[32];
    assert_int_equal(over(sample, 23, &t, &bytes), TG_OK);
    const struct tg_tensor *w = tg_tensors_find(t, "w"), *u = tg_tensors_find(t, "u"),
                           *s = tg_tensors_find(t, "s");
    assert_null(tg_tensors_find(t, "x"));
    assert_true(w->rank == 2 && w->shape[0] == 2 && w->shape[1] == 3 && w->elements == 6 &&
                w->bytes == 12);
    assert_string_equal(tg_shape_text(w->shape, w->rank, shape, sizeof shape), "[2,3]");
    assert_string_equal(tg_shape_text(w->shape, w->rank, shape, 4), "[2,");
    assert_true(s->rank == 0 && s->elements == 1 && tg_tensors_find(t, "e")->elements == 0);
    assert_string_equal(tg_tensors_meta(t, "k"), "v");
    assert_null(tg_tensors_meta(t, "none"));
    assert_int_equal(tg_tensor_read_f32(w, f, &err), TG_OK);
    for (int i = 0; i < 6; i++) {
        uint32_t bits = (uint32_t)(8 + 2 * i) << 16 | (uint32_t)(9 + 2 * i) << 24;
        assert_memory_equal(&f[i], &bits, 4);
    }
    assert_int_equal(tg_tensor_read_f32(u, f, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "'u': U8"));
    assert_int_equal(tg_tensor_read_i64(w, v, &err), TG_ERR_UNSUPPORTED);
    assert_int_equal(tg_tensor_read_i64(u, v, &err), TG_OK);
    assert_true(v[0] == 20 && v[1] == 21 && v[2] == 22);
    tg_tensors_close(t);
    tg_free(bytes);
    static const unsigned char ints[8] = {0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    static const struct {
        enum tg_dtype t;
        int64_t want;
    } rows[] = {{TG_I8, -2},   {TG_I16, -2},     {TG_I32, -2},        {TG_I64, -2},
                {TG_U8, 0xFE}, {TG_U16, 0xFFFE}, {TG_U32, 0xFFFFFFFE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensor x = {
            .name = "x", .file = "f", .dtype = rows[i].t, .elements = 1, .data = ints};
        assert_int_equal(tg_tensor_read_i64(&x, v, &err), TG_OK);
        assert_true(v[0] == rows[i].want);
    }
    struct tg_tensor x = {.name = "x", .file = "f", .dtype = TG_U64, .elements = 1, .data = ints};
    assert_int_equal(tg_tensor_read_i64(&x, v, &err), TG_ERR_VALUE);
}

/* writer */

/* One tensor of each type that safetensors holds and some shapes; data are the bytes of a counter.
 */
enum { HELD = TG_F8_E5M2FNUZ + 1, PLANNED = HELD + 3 };
static void make_plan(struct tg_tensor_plan *plan, char names[PLANNED][16])
{
    for (int i = 0; i < PLANNED; i++) {
        snprintf(names[i], 16, "t\"%d", i);
        plan[i] = (struct tg_tensor_plan){names[i], TG_F32, 2, {4, i + 1}};
        if (i < HELD)
            plan[i].dtype = (enum tg_dtype)i;
    }
    plan[PLANNED - 1].rank = 0;
    plan[PLANNED - 2].shape[0] = 0;
}

static void fill(unsigned char *p, size_t n, size_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(seed * 31 + i * 7);
}

static int write_all(const char *path, bool single, uint64_t max_shard)
{
    struct tg_tensor_plan plan[PLANNED];
    char names[PLANNED][16];
    struct tg_tensor_writer *w;
    struct tg_meta meta = {"note", "a \"b\" \xC3\xA9"};
    unsigned char data[1024];
    make_plan(plan, names);
    struct tg_write_options options = {
        .single = single, .max_shard = max_shard, .meta = &meta, .metas = 1};
    int rc = tg_tensor_writer_open(&w, path, plan, PLANNED, &options, &err);
    for (size_t i; rc == TG_OK && (i = tg_tensor_writer_next(w)) < PLANNED;) {
        fill(data, sizeof data, i);
        rc = tg_tensor_writer_put_raw(w, data, &err);
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, &err);
    tg_tensor_writer_close(w);
    return rc;
}

static void check_all(const char *path)
{
    struct tg_tensor_plan plan[PLANNED];
    char names[PLANNED][16];
    struct tg_tensors *t;
    unsigned char data[1024];
    make_plan(plan, names);
    if (tg_tensors_open(&t, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tg_tensors_count(t), PLANNED);
    for (size_t i = 0; i < PLANNED; i++) {
        const struct tg_tensor *x = tg_tensors_find(t, names[i]);
        assert_non_null(x);
        assert_true(x->dtype == plan[i].dtype && x->rank == plan[i].rank);
        assert_memory_equal(x->shape, plan[i].shape, (size_t)x->rank * sizeof *x->shape);
        fill(data, sizeof data, i);
        assert_memory_equal(x->data, data, x->bytes);
        const struct tg_dtype_info *info = tg_dtype_info(x->dtype);
        size_t align = info->block == 1 ? info->block_bytes : 1;
        assert_true(align < 2 || (uintptr_t)x->data % align == 0);
    }
    assert_string_equal(tg_tensors_meta(t, "format"), "pt");
    assert_string_equal(tg_tensors_meta(t, "note"), "a \"b\" \xC3\xA9");
    tg_tensors_close(t);
}

static void test_writer_round_trip(void **state)
{
    (void)state;
    static const uint64_t limits[] = {0, 1, 100, 500, 1000000};
    for (size_t i = 0; i < 5; i++) {
        char *dir = tg_scratch_dir("round");
        if (write_all(dir, false, limits[i]) != TG_OK)
            fail_msg("%s", err.msg);
        check_all(dir);
        char *index = tg_path_join(dir, "model.safetensors.index.json");
        assert_int_equal(tg_path_exists(index), limits[i] > 0 && limits[i] < 1000000);
        struct tg_tensors *t;
        assert_int_equal(tg_tensors_open(&t, dir, &err), TG_OK);
        size_t files = tg_tensors_file_count(t);
        assert_int_equal(tg_files_in(dir), files + (files > 1)); /* nothing else is left */
        for (size_t k = 0; k < tg_tensors_count(t) && limits[i] >= 100; k++) {
            size_t sum = 0; /* bytes in this tensor's shard */
            for (size_t m = 0; m < tg_tensors_count(t); m++)
                sum += tg_tensors_at(t, m)->file == tg_tensors_at(t, k)->file
                           ? tg_tensors_at(t, m)->bytes
                           : 0;
            assert_true(sum <= limits[i] || sum == tg_tensors_at(t, k)->bytes ||
                        tg_tensors_at(t, k)->bytes == 0);
        }
        tg_tensors_close(t);
        tg_free(index);
        tg_free(dir);
    }
    char *dir = tg_scratch_dir("single"), *path = tg_path_join(dir, "x.safetensors");
    assert_int_equal(write_all(path, true, 1), TG_OK);
    check_all(path);
    assert_int_equal(tg_files_in(dir), 1);
    struct tg_tensor_writer *w; /* an empty plan is a file too */
    assert_int_equal(tg_tensor_writer_open(&w, path, NULL, 0, &tg_write_single, &err), TG_OK);
    assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
    tg_tensor_writer_close(w);
    struct tg_tensors *t;
    assert_int_equal(tg_tensors_open(&t, path, &err), TG_OK);
    assert_int_equal(tg_tensors_count(t), 0);
    tg_tensors_close(t);
    tg_free(path);
    tg_free(dir);
}

static void test_writer_f32(void **state)
{
    (void)state;
    enum { N = 70001 }; /* more than two conversion chunks */
    char *dir = tg_scratch_dir("f32");
    static const enum tg_dtype types[] = {TG_BF16, TG_F32, TG_F64, TG_F16, TG_F8_E5M2};
    struct tg_tensor_plan plan[6];
    char names[5][4] = {"a", "b", "c", "d", "e"};
    for (int i = 0; i < 5; i++)
        plan[i] = (struct tg_tensor_plan){names[i], types[i], 1, {N}};
    plan[5] = (struct tg_tensor_plan){"ints", TG_I32, 1, {2}};
    float *x = tg_alloc_floats(N), *back = tg_alloc_floats(N);
    struct tg_rng r = tg_rng_make(5, 0);
    for (int i = 0; i < N; i++)
        x[i] = (float)tg_rng_normal(&r);
    struct tg_tensor_writer *w;
    assert_int_equal(tg_tensor_writer_open(&w, dir, plan, 6, NULL, &err), TG_OK);
    for (size_t i; (i = tg_tensor_writer_next(w)) < 6;) {
        int32_t two[2] = {-1, 7};
        if (i < 5) {
            assert_int_equal(tg_tensor_writer_put_f32(w, x, &err), TG_OK);
            continue;
        }
        assert_int_equal(tg_tensor_writer_put_f32(w, x, &err), TG_ERR_UNSUPPORTED);
        assert_int_equal(tg_tensor_writer_finish(w, &err), TG_ERR_VALUE); /* one is still to come */
        assert_non_null(strstr(err.msg, "'"));
        assert_int_equal(tg_tensor_writer_put_raw(w, two, &err), TG_OK);
    }
    assert_int_equal(tg_tensor_writer_put_f32(w, x, &err), TG_ERR_VALUE);
    assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
    tg_tensor_writer_close(w);
    struct tg_tensors *t;
    assert_int_equal(tg_tensors_open(&t, dir, &err), TG_OK);
    unsigned char *want = tg_alloc(N * 8);
    for (int i = 0; i < 5; i++) {
        const struct tg_tensor *y = tg_tensors_find(t, names[i]);
        tg_dtype_from_f32(types[i], x, want, N);
        assert_memory_equal(y->data, want, y->bytes);
        assert_int_equal(tg_tensor_read_f32(y, back, &err), TG_OK);
        if (types[i] == TG_F32 || types[i] == TG_F64)
            assert_memory_equal(back, x, N * sizeof *x);
        else
            assert_below(tg_rel_error_f(back, x, N), types[i] == TG_F8_E5M2 ? 0.125 : 0.004,
                         names[i]); /* half a step */
    }
    tg_tensors_close(t);
    tg_free(want);
    tg_free(x);
    tg_free(back);
    tg_free(dir);
}

static void test_writer_refused(void **state)
{
    (void)state;
    char *dir = tg_scratch_dir("refused"), *none = tg_path_join(dir, "no/such/place");
    struct tg_tensor_writer *w;
    static const struct {
        struct tg_tensor_plan plan[2];
        const char *why;
    } rows[] = {
        {{{"a", TG_F32, 1, {2}}, {"a", TG_F32, 1, {2}}}, "'a' stands twice"},
        {{{"__metadata__", TG_F32, 1, {2}}, {"a", TG_F32, 1, {2}}}, "cannot be the name"},
        {{{"a\xFF", TG_F32, 1, {2}}, {"a", TG_F32, 1, {2}}}, "cannot be the name"},
        {{{"a", TG_F32, 9, {2}}, {"b", TG_F32, 1, {2}}}, "9 dimensions"},
        {{{"a", TG_F32, -1, {2}}, {"b", TG_F32, 1, {2}}}, "-1 dimensions"},
        {{{"a", TG_F32, 2, {2, -2}}, {"b", TG_F32, 1, {2}}}, "overflows"},
        {{{"a", TG_F32, 2, {INT64_MAX, 3}}, {"b", TG_F32, 1, {2}}}, "overflows"},
        {{{"a", TG_F4, 1, {3}}, {"b", TG_F32, 1, {2}}}, "whole bytes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(tg_tensor_writer_open(&w, dir, rows[i].plan, 2, NULL, &err), TG_ERR_VALUE);
        if (w || !strstr(err.msg, rows[i].why))
            fail_msg("%s: %s", rows[i].why, err.msg);
        assert_int_equal(tg_files_in(dir), 0);
    }
    assert_int_equal(write_all(none, false, 0), TG_ERR_IO);
    assert_non_null(strstr(err.msg, none));
    tg_free(none);

    /* Left before the end: nothing stays, an older file is untouched. */
    struct tg_tensor_plan two[2] = {{"a", TG_F32, 1, {100}}, {"b", TG_F32, 1, {100}}};
    float zeros[100] = {0};
    for (int sharded = 0; sharded < 2; sharded++) {
        assert_int_equal(
            tg_tensor_writer_open(&w, dir, two, 2,
                                  &(struct tg_write_options){.max_shard = sharded ? 400 : 0}, &err),
            TG_OK);
        assert_int_equal(tg_tensor_writer_put_f32(w, zeros, &err), TG_OK);
        if (sharded)
            assert_int_equal(tg_tensor_writer_put_f32(w, zeros, &err), TG_OK);
        tg_tensor_writer_close(w);
        assert_int_equal(tg_files_in(dir), 0);
    }

    /* A disk that is full from the second shard on. */
    char *tmp = tg_path_join(dir, "model-00002-of-00002.safetensors.tmp");
    assert_int_equal(symlink("/dev/full", tmp), 0);
    assert_int_equal(
        tg_tensor_writer_open(&w, dir, two, 2, &(struct tg_write_options){.max_shard = 400}, &err),
        TG_OK);
    int rc = TG_OK;
    for (int i = 0; i < 2 && rc == TG_OK; i++)
        rc = tg_tensor_writer_put_f32(w, zeros, &err);
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, &err);
    assert_int_equal(rc, TG_ERR_IO);
    assert_non_null(strstr(err.msg, "model-00002-of-00002.safetensors: cannot write"));
    tg_tensor_writer_close(w);
    assert_int_equal(tg_files_in(dir), 0);
    tg_free(tmp);
    tg_free(dir);
}

/* sharded directories */

static void put_text(const char *dir, const char *name, const char *text)
{
    char *path = tg_path_join(dir, name);
    assert_int_equal(tg_file_write(path, text, strlen(text), &err), TG_OK);
    tg_free(path);
}

static void put_shard(const char *dir, const char *name, const char *header, size_t data)
{
    char *path = tg_path_join(dir, name);
    size_t len;
    unsigned char *bytes = file_of(header, data, &len);
    assert_int_equal(tg_file_write(path, bytes, len, &err), TG_OK);
    tg_free(bytes);
    tg_free(path);
}

static void test_shards(void **state)
{
    (void)state;
    static const struct {
        const char *index, *why; /* why NULL: is read */
    } rows[] = {
        {"{\"metadata\":{},\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\"}}", NULL},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\"}}", "'c' in"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\",\"d\":\"1.st\"}}",
         "'d' should be in 1.st, but no shard"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"1.st\",\"c\":\"2.st\"}}",
         "'b' should be in 1.st, but is in"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"3.st\"}}", "missing shard"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\",\"x\":\"dup.st\"}}",
         "'a' is in"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"../2.st\"}}",
         "'c' is not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":7}}", "'c' is not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"\"}}", "'c' is not a file name"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"a\":\"2.st\"}}", "stands twice"},
        {"{\"weight_map\":{}}", "weight_map is missing, empty"},
        {"{\"weight_map\":[]}", "weight_map is missing, empty"},
        {"{}", "weight_map is missing, empty"},
        {"[]", "weight_map is missing, empty"},
        {"{", "key in quotes"},
        {"{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\",\"z\":\"bad.st\"}}",
         "bad.st: header length"},
    };
    char *dir = tg_scratch_dir("shards");
    struct tg_tensors *t;
    assert_int_equal(tg_tensors_open(&t, dir, &err), TG_ERR_IO);
    assert_non_null(
        strstr(err.msg, "holds none of model.safetensors, model.safetensors.index.json"));
    put_shard(dir, "1.st", "{" ENTRY("a", "U8", "[3]", 0, 3) "}", 3);
    put_shard(dir, "2.st", "{" ENTRY("c", "U8", "[1]", 0, 1) "," ENTRY("b", "U8", "[2]", 1, 3) "}",
              3);
    put_shard(dir, "dup.st",
              "{" ENTRY("a", "U8", "[1]", 0, 1) "," ENTRY("x", "U8", "[2]", 1, 3) "}", 3);
    put_text(dir, "bad.st", "not a safetensors file");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put_text(dir, "model.safetensors.index.json", rows[i].index);
        int rc = tg_tensors_open(&t, dir, &err);
        if (!rows[i].why && rc != TG_OK)
            fail_msg("%s: %s", rows[i].index, err.msg);
        if (rows[i].why &&
            (rc == TG_OK || t || !strstr(err.msg, rows[i].why) || !strstr(err.msg, dir)))
            fail_msg("%s: %d %s", rows[i].index, rc, err.msg);
        if (rc == TG_OK) {
            assert_int_equal(tg_tensors_file_count(t), 2);
            assert_int_equal(((const unsigned char *)tg_tensors_find(t, "b")->data)[1], 2);
        }
        tg_tensors_close(t);
    }
    char *none = tg_path_join(dir, "none.safetensors");
    assert_int_equal(tg_tensors_open(&t, none, &err), TG_ERR_IO);
    assert_non_null(strstr(err.msg, none));
    tg_free(none);
    tg_free(dir);
}

/* memory exhausted at each allocation: an error, no leak (seen under AddressSanitizer), no file
 * left */

static void test_torture(void **state)
{
    (void)state;
    char *dir = tg_scratch_dir("torture"), *out = tg_scratch_dir("torture-out");
    assert_int_equal(write_all(dir, false, 500), TG_OK);
    for (long n = 1;; n++) {
        struct tg_tensors *t;
        tg_mem_fail_after(n);
        int rc = tg_tensors_open(&t, dir, &err);
        tg_mem_fail_after(0);
        tg_tensors_close(t);
        if (rc == TG_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(rc, TG_ERR_NOMEM);
        assert_null(t);
    }
    for (long n = 1;; n++) {
        tg_mem_fail_after(n);
        int rc = write_all(out, false, 500);
        tg_mem_fail_after(0);
        if (rc == TG_OK) {
            assert_true(n > 100);
            break;
        }
        if (tg_files_in(out) != 0)
            fail_msg("allocation %ld: %d files left after: %s", n, (int)tg_files_in(out), err.msg);
    }
    tg_free(dir);
    tg_free(out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_accepted),
        cmocka_unit_test(test_safetensors_refused),
        cmocka_unit_test(test_safetensors_cut),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_writer_round_trip),
        cmocka_unit_test(test_writer_f32),
        cmocka_unit_test(test_writer_refused),
        cmocka_unit_test(test_shards),
        cmocka_unit_test_setup_teardown(test_torture, NULL, tg_scratch_remove),
    };
    if (!tg_scratch_make("formats"))
        return 1;
    return tg_run_tests("formats", tests, sizeof tests / sizeof *tests);
}
