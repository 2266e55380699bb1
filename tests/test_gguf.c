#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf.h"
#include "tests/scratch.h"

#define DATA "tests/data/gguf/"

static struct tg_err err;

static struct tg_tensors *open_ok(const char *path)
{
    struct tg_tensors *t;
    if (tg_tensors_open(&t, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return t;
}

static void open_fails(const char *path, const char *why)
{
    struct tg_tensors *t;
    memset(&err, 0, sizeof err);
    if (tg_tensors_open(&t, path, &err) == TG_OK || t || !strstr(err.msg, why) ||
        !strstr(err.msg, path))
        fail_msg("%s: wanted '%s', got '%s'", path, why, err.msg);
}

static void assert_same_file(const char *a, const char *b)
{
    struct tg_map x, y;
    assert_int_equal(tg_map_open(&x, a, &err), TG_OK);
    assert_int_equal(tg_map_open(&y, b, &err), TG_OK);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    tg_map_close(&x);
    tg_map_close(&y);
}

/* What tests/ref/make_gguf.py writes, said again */

static const enum tg_dtype dtypes[] = {
    TG_F32,  TG_F16,  TG_BF16, TG_F64,  TG_I8,   TG_I16,  TG_I32,  TG_I64,  TG_Q4_0,  TG_Q4_1,
    TG_Q5_0, TG_Q5_1, TG_Q8_0, TG_Q2_K, TG_Q3_K, TG_Q4_K, TG_Q5_K, TG_Q6_K, TG_MXFP4,
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes, TENSORS = DTYPES + 3, SCALARS = 12, BYTES = 512 };

static const char hello[] = "h\xC3\xA9 \"x\"";
static const struct tg_gguf_kv scalars[SCALARS] = {
    {"u8", {.type = TG_GGUF_U8, .u = 200}},
    {"i8", {.type = TG_GGUF_I8, .i = -100}},
    {"u16", {.type = TG_GGUF_U16, .u = 60000}},
    {"i16", {.type = TG_GGUF_I16, .i = -30000}},
    {"u32", {.type = TG_GGUF_U32, .u = 4000000000}},
    {"i32", {.type = TG_GGUF_I32, .i = -2000000000}},
    {"f32", {.type = TG_GGUF_F32, .f = 1.5}},
    {"bool", {.type = TG_GGUF_BOOL, .b = true}},
    {"string", {.type = TG_GGUF_STRING, .s = {hello, sizeof hello - 1}}},
    {"u64", {.type = TG_GGUF_U64, .u = ((uint64_t)1 << 63) + 5}},
    {"i64", {.type = TG_GGUF_I64, .i = -((int64_t)1 << 62) - 1}},
    {"f64", {.type = TG_GGUF_F64, .f = 0.1}},
};

static struct tg_gguf_value middle(enum tg_gguf_type type)
{
    struct tg_gguf_value v = {.type = type};
    if (type == TG_GGUF_STRING)
        v.s = (struct tg_gguf_string){"", 0};
    else if (type == TG_GGUF_F32 || type == TG_GGUF_F64)
        v.f = 7;
    else if (type != TG_GGUF_BOOL)
        v.u = 7;
    return v;
}

static void assert_value(const char *key, const struct tg_gguf_value *v,
                         const struct tg_gguf_value *want)
{
    if (!v || v->type != want->type)
        fail_msg("%s: type", key);
    const bool same = v->type == TG_GGUF_STRING
                          ? v->s.len == want->s.len && !memcmp(v->s.text, want->s.text, v->s.len)
                      : v->type == TG_GGUF_BOOL                          ? v->b == want->b
                      : v->type == TG_GGUF_F32 || v->type == TG_GGUF_F64 ? v->f == want->f
                                                                         : v->u == want->u;
    if (!same)
        fail_msg("%s: value", key);
}

static struct tg_tensor_plan plan_of(size_t k, char name[16])
{
    struct tg_tensor_plan p = {.name = name, .rank = 2, .shape = {2, 3}};
    if (k < DTYPES) {
        const struct tg_dtype_info *info = tg_dtype_info(dtypes[k]);
        snprintf(name, 16, "w.%s", info->name);
        p.dtype = dtypes[k];
        p.shape[1] = info->block > 1 ? info->block : 3;
        return p;
    }
    static const int64_t shapes[3][4] = {{24}, {2, 3, 4}, {1, 2, 3, 4}};
    static const int ranks[3] = {1, 3, 4};
    p.rank = ranks[k - DTYPES];
    memcpy(p.shape, shapes[k - DTYPES], sizeof shapes[0]);
    snprintf(name, 16, "rank.%d", p.rank);
    return p;
}

static void bytes_of(size_t k, unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(k * 31 + i * 7);
    for (size_t i = 0; k >= DTYPES && i < 24; i++) {
        const float x = (float)i;
        memcpy(p + 4 * i, &x, 4);
    }
}

static void check_types(const struct tg_tensors *t)
{
    unsigned char want[BYTES];
    char key[16], name[16];
    assert_int_equal(tg_gguf_count(t), 2 + 2 * SCALARS);
    assert_string_equal(tg_gguf_at(t, 0)->key, "general.architecture");
    assert_string_equal(tg_gguf_at(t, 1)->key, "general.alignment");
    assert_string_equal(tg_tensors_meta(t, "general.architecture"), "llama");
    assert_null(tg_tensors_meta(t, "t.u8"));
    assert_null(tg_tensors_meta(t, "none"));
    assert_null(tg_gguf_find(t, "none"));
    for (size_t i = 0; i < SCALARS; i++) {
        const struct tg_gguf_value *want_value = &scalars[i].value, mid = middle(want_value->type);
        struct tg_gguf_value x;
        snprintf(key, sizeof key, "t.%s", scalars[i].key);
        assert_string_equal(tg_gguf_at(t, 2 + i)->key, key);
        assert_value(key, tg_gguf_find(t, key), want_value);
        assert_false(tg_gguf_element(tg_gguf_find(t, key), 0, &x));
        key[0] = 'a';
        const struct tg_gguf_value *a = tg_gguf_find(t, key);
        assert_true(a->type == TG_GGUF_ARRAY && a->array.count == 3);
        for (size_t e = 0; e < 3; e++) {
            assert_true(tg_gguf_element(a, e, &x));
            assert_value(key, &x, e == 1 ? &mid : want_value);
        }
        assert_false(tg_gguf_element(a, 3, &x));
    }
    assert_int_equal(tg_tensors_count(t), TENSORS);
    for (size_t k = 0; k < TENSORS; k++) {
        const struct tg_tensor_plan p = plan_of(k, name);
        const struct tg_tensor *x = tg_tensors_find(t, name);
        assert_true(x && x->dtype == p.dtype && x->rank == p.rank && x->bytes <= BYTES);
        assert_memory_equal(x->shape, p.shape, (size_t)p.rank * sizeof *p.shape);
        bytes_of(k, want, x->bytes);
        assert_memory_equal(x->data, want, x->bytes);
    }
}

/* What the gguf package wrote is read */
static void test_read(void **state)
{
    (void)state;
    struct tg_tensors *t = open_ok(DATA "types.gguf");
    assert_ptr_equal(tg_tensors_format(t), &tg_format_gguf);
    check_types(t);
    tg_tensors_close(t);
}

/* The same is written: the same bytes */
static int write_types(const char *path, const struct tg_tensors *source)
{
    struct tg_tensor_plan plan[TENSORS];
    char names[TENSORS][16];
    struct tg_gguf_kv kv[2 + 2 * SCALARS];
    unsigned char bytes[BYTES];
    struct tg_tensor_writer *w;
    for (size_t i = 0; i < 2 + 2 * SCALARS; i++)
        kv[i] = *tg_gguf_at(source, i);
    for (size_t k = 0; k < TENSORS; k++)
        plan[k] = plan_of(k, names[k]);
    const struct tg_write_options options = {
        .format = &tg_format_gguf, .single = true, .kv = kv, .kvs = 2 + 2 * SCALARS};
    int rc = tg_tensor_writer_open(&w, path, plan, TENSORS, &options, &err);
    for (size_t k; rc == TG_OK && (k = tg_tensor_writer_next(w)) < TENSORS;) {
        size_t n = 0, elements;
        tg_tensor_measure(plan[k].dtype, plan[k].rank, plan[k].shape, &elements, &n);
        bytes_of(k, bytes, n);
        rc = tg_tensor_writer_put_piece(w, bytes, n / 2, &err);
        if (rc == TG_OK)
            rc = tg_tensor_writer_put_piece(w, bytes + n / 2, n - n / 2, &err);
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, &err);
    tg_tensor_writer_close(w);
    return rc;
}

static void test_write(void **state)
{
    (void)state;
    char *dir = tg_scratch_dir("write"), *path = tg_path_join(dir, "x.gguf");
    struct tg_tensors *t = open_ok(DATA "types.gguf");
    if (write_types(path, t) != TG_OK)
        fail_msg("%s", err.msg);
    tg_tensors_close(t);
    assert_same_file(path, DATA "types.gguf");
    assert_int_equal(tg_files_in(dir), 1);
    tg_free(path);
    tg_free(dir);
}

/* The three tensors of make_gguf.py's parts, at most max_shard bytes in a file */
static int write_parts(const char *dir, uint64_t max_shard)
{
    static const struct tg_tensor_plan plan[] = {
        {"one", TG_F32, 2, {2, 3}}, {"two", TG_F32, 2, {2, 4}}, {"three", TG_F32, 2, {2, 5}}};
    const struct tg_gguf_kv kv = {"general.architecture", tg_gguf_text("llama", 5)};
    const struct tg_meta meta = {"general.name", "parts"};
    const struct tg_write_options options = {.format = &tg_format_gguf,
                                             .max_shard = max_shard,
                                             .kv = &kv,
                                             .kvs = 1,
                                             .meta = &meta,
                                             .metas = 1};
    struct tg_tensor_writer *w;
    unsigned char bytes[BYTES];
    int rc = tg_tensor_writer_open(&w, dir, plan, 3, &options, &err);
    for (size_t k; rc == TG_OK && (k = tg_tensor_writer_next(w)) < 3;) {
        bytes_of(k, bytes, sizeof bytes);
        rc = tg_tensor_writer_put_raw(w, bytes, &err);
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, &err);
    tg_tensor_writer_close(w);
    return rc;
}

static void check_parts(const char *path, size_t files)
{
    static const char *const names[] = {"one", "two", "three"};
    unsigned char want[BYTES];
    struct tg_tensors *t = open_ok(path);
    assert_int_equal(tg_tensors_file_count(t), files);
    assert_int_equal(tg_tensors_count(t), 3);
    assert_string_equal(tg_tensors_meta(t, "general.name"), "parts");
    for (size_t k = 0; k < 3; k++) {
        const struct tg_tensor *x = tg_tensors_find(t, names[k]);
        bytes_of(k, want, x->bytes);
        assert_memory_equal(x->data, want, x->bytes);
    }
    for (size_t i = 0; i < files && files > 1; i++) {
        char end[32];
        snprintf(end, sizeof end, "-%05d-of-%05d.gguf", (int)i + 1, (int)files);
        assert_non_null(strstr(tg_tensors_file(t, i), end));
    }
    tg_tensors_close(t);
}

/* Sets the byte at `skip` after the key's text in the file */
static void patch(const char *path, const char *key, size_t skip, unsigned char x)
{
    char *text;
    size_t len;
    const size_t n = strlen(key);
    assert_int_equal(tg_file_read(path, 100000, &text, &len, &err), TG_OK);
    char *at = memmem(text, len, key, n);
    assert_non_null(at);
    assert_true(at + n + skip < text + len);
    at[n + skip] = (char)x;
    assert_int_equal(tg_file_write(path, text, len, &err), TG_OK);
    tg_free(text);
}

/* Parts that do not agree; a value follows its key and the 4 bytes of its type */
static void test_parts_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t skip;
        unsigned char x;
        const char *why;
    } rows[] = {
        {"split.no", 4, 0, "call it part 1 of 3, its name part 2 of 3"},
        {"split.no", 4, 7, "call it part 8 of 3, its name part 2 of 3"},
        {"split.count", 4, 2, "call it part 2 of 2, its name part 2 of 3"},
        {"split.tensors.count", 4, 4, "split.tensors.count is 4, but its 3 parts hold 3"},
        {"split.tensors.count", 7, 0x80, "'split.tensors.count' is no integer in [0, 2147483647]"},
        {"split.n", 0, 'x', "metadata key 'split.no' is missing"},
        {"split.tensors.coun", 0, 'x', "metadata key 'split.tensors.count' is missing"},
        {"two", 20, 99, "model-00002-of-00003.gguf: tensor 'two' has the unknown type"},
    };
    char *dir = tg_scratch_dir("disagree");
    char *first = tg_path_join(dir, "model-00001-of-00003.gguf");
    char *second = tg_path_join(dir, "model-00002-of-00003.gguf");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t;
        assert_int_equal(write_parts(dir, 1), TG_OK);
        patch(second, rows[i].key, rows[i].skip, rows[i].x);
        if (tg_tensors_open(&t, first, &err) == TG_OK || t || !strstr(err.msg, rows[i].why) ||
            !strstr(err.msg, second))
            fail_msg("row %zu: wanted '%s', got '%s'", i, rows[i].why, err.msg);
    }
    assert_int_equal(write_parts(dir, 1), TG_OK);
    patch(first, "split.no", 4, 3);
    open_fails(first, "'split.no' is no integer in [0, 2]");
    assert_int_equal(write_parts(dir, 1), TG_OK);
    patch(first, "split.no", 4, 1);
    open_fails(first, "part 2 of 3, so its name must end in -00002-of-00003.gguf");
    tg_free(first);
    tg_free(second);
    tg_free(dir);
}

static void test_parts(void **state)
{
    (void)state;
    static const char *const parts[] = {"model-00001-of-00003.gguf", "model-00002-of-00003.gguf",
                                        "model-00003-of-00003.gguf"};
    char *dir = tg_scratch_dir("parts");
    if (write_parts(dir, 1) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tg_files_in(dir), 3);
    for (size_t i = 0; i < 3; i++) {
        char *ours = tg_path_join(dir, parts[i]), *theirs = tg_path_join(DATA, parts[i]);
        assert_same_file(ours, theirs);
        check_parts(ours, 3); /* from any of them */
        tg_free(ours);
        tg_free(theirs);
    }
    check_parts(dir, 3);
    check_parts(DATA "first-00001-of-00002.gguf", 2); /* metadata alone in the first */
    check_parts(DATA "first-00002-of-00002.gguf", 2);

    char *two = tg_path_join(dir, parts[1]), *three = tg_path_join(dir, parts[2]);
    assert_int_equal(unlink(three), 0);
    open_fails(dir, "model-00003-of-00003.gguf is missing");
    open_fails(two, "model-00003-of-00003.gguf is missing");
    char *odd = tg_path_join(dir, "odd.gguf");
    assert_int_equal(rename(two, odd), 0);
    open_fails(odd, "part 2 of 3, so its name must end in -00002-of-00003.gguf");
    tg_free(odd);
    tg_free(two);
    tg_free(three);
    tg_free(dir);

    dir = tg_scratch_dir("parts");
    assert_int_equal(write_parts(dir, 1000), TG_OK);
    assert_int_equal(tg_files_in(dir), 1);
    check_parts(dir, 1);
    tg_free(dir);
}

/* A directory without model.gguf */
static void test_directory(void **state)
{
    (void)state;
    char *dir = tg_scratch_dir("directory"), *one = tg_path_join(dir, "one.gguf");
    char *vocab = tg_path_join(dir, "tokenizer.gguf");
    struct tg_tensors *t = open_ok(DATA "types.gguf");
    assert_int_equal(write_types(vocab, t), TG_OK);
    open_fails(dir, "holds none of");
    assert_int_equal(write_types(one, t), TG_OK);
    tg_tensors_close(t);
    t = open_ok(dir);
    assert_string_equal(tg_tensors_file(t, 0), one);
    tg_tensors_close(t);
    assert_int_equal(write_parts(dir, 1), TG_OK);
    open_fails(dir, "holds 4 .gguf files, which are not the parts of one set");
    assert_int_equal(unlink(one), 0);
    check_parts(dir, 3);
    tg_free(vocab);
    tg_free(one);
    tg_free(dir);
}

static void test_getters(void **state)
{
    (void)state;
    struct tg_tensors *t = open_ok(DATA "types.gguf");
    const struct tg_gguf_value *a;
    const char *s;
    int64_t i = 0;
    double f = 0;
    bool yes = false;
    assert_int_equal(tg_gguf_get_int(t, "t.i32", INT32_MIN, 0, &i, &err), TG_OK);
    assert_true(i == -2000000000);
    assert_int_equal(tg_gguf_get_int(t, "t.u16", 60000, 60000, &i, &err), TG_OK);
    assert_true(i == 60000);
    assert_int_equal(tg_gguf_get_float(t, "t.f64", 0, 0.1, &f, &err), TG_OK);
    assert_true(f == 0.1);
    assert_int_equal(tg_gguf_get_bool(t, "t.bool", &yes, &err), TG_OK);
    assert_true(yes);
    assert_int_equal(tg_gguf_get_string(t, "t.string", &s, &err), TG_OK);
    assert_string_equal(s, hello);
    assert_int_equal(tg_gguf_get_array(t, "a.u64", TG_GGUF_U64, &a, &err), TG_OK);
    assert_int_equal(a->array.count, 3);

    const struct {
        int rc;
        const char *why;
    } rows[] = {
#define FAILS(call, text) {(call) == TG_OK ? TG_OK : strstr(err.msg, text) ? -1 : -2, text}
        FAILS(tg_gguf_get_int(t, "t.no", 0, 1, &i, &err), "types.gguf: metadata key 't.no' is m"),
        FAILS(tg_gguf_get_int(t, "t.u8", 0, 199, &i, &err),
              "types.gguf: metadata key 't.u8' is 200 (U8), must be an integer in [0, 199]"),
        FAILS(tg_gguf_get_int(t, "t.i8", -99, 0, &i, &err), "'t.i8' is -100 (I8)"),
        FAILS(tg_gguf_get_int(t, "t.u64", 0, INT64_MAX, &i, &err),
              "is 9223372036854775813 (U64), must be an integer"),
        FAILS(tg_gguf_get_int(t, "t.f32", 0, 9, &i, &err), "is 1.5 (F32), must be an integer"),
        FAILS(tg_gguf_get_int(t, "t.bool", 0, 9, &i, &err), "is true (BOOL), must be an integer"),
        FAILS(tg_gguf_get_float(t, "t.f32", 2, 3, &f, &err), "is 1.5 (F32), must be a float in"),
        FAILS(tg_gguf_get_float(t, "t.u8", 0, 300, &f, &err), "is 200 (U8), must be a float"),
        FAILS(tg_gguf_get_bool(t, "t.u8", &yes, &err), "is 200 (U8), must be a BOOL"),
        FAILS(tg_gguf_get_string(t, "a.u8", &s, &err), "is an array of 3 U8 (ARRAY), must be"),
        FAILS(tg_gguf_get_array(t, "t.string", TG_GGUF_U8, &a, &err), "is the string 'h"),
        FAILS(tg_gguf_get_array(t, "a.u8", TG_GGUF_I8, &a, &err), "must be an array of I8"),
#undef FAILS
    };
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        if (rows[r].rc != -1)
            fail_msg("%s: %d", rows[r].why, rows[r].rc);
    tg_tensors_close(t);

    t = open_ok("tests/data/dtypes.safetensors"); /* another format has no such metadata */
    struct tg_gguf_kv *kv;
    size_t count;
    assert_int_equal(tg_gguf_count(t), 0);
    assert_null(tg_gguf_find(t, "format"));
    assert_int_equal(tg_gguf_keys(t, false, &kv, &count, &err), TG_OK);
    assert_int_equal(count, 0);
    tg_free(kv);
    tg_tensors_close(t);

    t = open_ok(DATA "model-00003-of-00003.gguf"); /* what a copy gets */
    assert_int_equal(tg_gguf_count(t), 5);
    assert_int_equal(tg_gguf_keys(t, false, &kv, &count, &err), TG_OK);
    assert_int_equal(count, 2);
    assert_string_equal(kv[0].key, "general.architecture");
    assert_string_equal(kv[1].key, "general.name");
    tg_free(kv);
    tg_tensors_close(t);
}

static void test_write_refused(void **state)
{
    (void)state;
    char long_name[65];
    memset(long_name, 'x', 64);
    long_name[64] = '\0';
    const struct {
        struct tg_tensor_plan plan;
        struct tg_gguf_kv kv;
        struct tg_meta meta;
        const char *why;
    } rows[] = {
#define OK_PLAN {"a", TG_F32, 1, {4}}
#define OK_KV                                                                                      \
    {                                                                                              \
        "k",                                                                                       \
        {                                                                                          \
            .type = TG_GGUF_U8                                                                     \
        }                                                                                          \
    }
#define OK_META                                                                                    \
    {                                                                                              \
        "m", ""                                                                                    \
    }
        {{long_name, TG_F32, 1, {4}}, OK_KV, OK_META, "at most 63 bytes"},
        {{"a", TG_F32, 5, {1, 1, 1, 1, 1}}, OK_KV, OK_META, "5 dimensions, GGUF holds at most 4"},
        {{"a", TG_F32, 2, {4, 0}}, OK_KV, OK_META, "no empty tensor"},
        {{"a", TG_Q8_0, 2, {32, 31}}, OK_KV, OK_META, "rows of 31 are no whole"},
        {{"a", TG_Q4_K, 2, {8, 32}}, OK_KV, OK_META, "rows of 32 are no whole number of blocks"},
        {{"a", TG_Q8_0, 0, {0}}, OK_KV, OK_META, "fill whole bytes"},
        {{"a", TG_U8, 1, {4}}, OK_KV, OK_META, "gguf files do not hold U8"},
        {{"a", TG_F8_E4M3, 1, {4}}, OK_KV, OK_META, "gguf files do not hold F8_E4M3"},
        {OK_PLAN, {"", {.type = TG_GGUF_U8}}, OK_META, "key '' is empty"},
        {OK_PLAN, {"\xFF", {.type = TG_GGUF_U8}}, OK_META, "not UTF-8"},
        {OK_PLAN, {"m", {.type = TG_GGUF_U8}}, OK_META, "'m' stands twice"},
        {OK_PLAN, {"split.no", {.type = TG_GGUF_U16}}, OK_META, "is the writer's own"},
        {OK_PLAN, {"k", {.type = TG_GGUF_U8, .u = 256}}, OK_META, "'k' does not fit its type"},
        {OK_PLAN, {"k", {.type = TG_GGUF_I16, .i = -32769}}, OK_META, "does not fit"},
        {OK_PLAN, {"k", {.type = TG_GGUF_I8, .i = 128}}, OK_META, "does not fit"},
        {OK_PLAN, {"k", {.type = TG_GGUF_TYPE_COUNT}}, OK_META, "has an unknown type"},
        {OK_PLAN,
         {"k", {.type = TG_GGUF_ARRAY, .array = {TG_GGUF_ARRAY, 0, NULL}}},
         OK_META,
         "array of an unknown"},
        {OK_PLAN,
         {"general.alignment", {.type = TG_GGUF_U32, .u = 24}},
         OK_META,
         "a U32 and a power of two"},
        {OK_PLAN, {"general.alignment", {.type = TG_GGUF_U64, .u = 32}}, OK_META, "a U32 and"},
        {OK_PLAN, OK_KV, {"general.alignment", "32"}, "a U32 and"},
        {OK_PLAN, OK_KV, {"split.count", "2"}, "the writer's own"},
#undef OK_PLAN
#undef OK_KV
#undef OK_META
    };
    char *dir = tg_scratch_dir("refused");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensor_writer *w;
        const struct tg_write_options o = {.format = &tg_format_gguf,
                                           .kv = &rows[i].kv,
                                           .kvs = 1,
                                           .meta = &rows[i].meta,
                                           .metas = 1};
        memset(&err, 0, sizeof err);
        if (tg_tensor_writer_open(&w, dir, &rows[i].plan, 1, &o, &err) == TG_OK || w ||
            !strstr(err.msg, rows[i].why))
            fail_msg("row %zu: wanted '%s', got '%s'", i, rows[i].why, err.msg);
        assert_int_equal(tg_files_in(dir), 0);
    }
    tg_free(dir);
}

/* An array and a string without content, a rank of 0, and nothing at all */
static void test_edges(void **state)
{
    (void)state;
    char *dir = tg_scratch_dir("edges");
    const struct tg_gguf_kv kv[] = {
        {"none", tg_gguf_array(TG_GGUF_F32, NULL, 0)},
        {"words", tg_gguf_array(TG_GGUF_STRING, NULL, 0)},
        {"empty", tg_gguf_text("", 0)},
        {"nul", tg_gguf_text("a\0b", 3)},
        {"yes", tg_gguf_bool(true)},
        {"n", tg_gguf_u32(7)},
        {"x", tg_gguf_f32(0.25f)},
    };
    const struct tg_tensor_plan plan = {.name = "scalar", .dtype = TG_F32};
    const struct tg_write_options o = {.format = &tg_format_gguf, .kv = kv, .kvs = 7};
    const float one = 1;
    struct tg_tensor_writer *w;
    assert_int_equal(tg_tensor_writer_open(&w, dir, &plan, 1, &o, &err), TG_OK);
    assert_int_equal(tg_tensor_writer_put_f32(w, &one, &err), TG_OK);
    assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
    tg_tensor_writer_close(w);
    struct tg_tensors *t = open_ok(dir);
    struct tg_gguf_value x;
    assert_int_equal(tg_tensors_find(t, "scalar")->rank, 0);
    assert_false(tg_gguf_element(tg_gguf_find(t, "none"), 0, &x));
    assert_false(tg_gguf_element(tg_gguf_find(t, "words"), 0, &x));
    assert_string_equal(tg_tensors_meta(t, "empty"), "");
    assert_null(tg_tensors_meta(t, "nul")); /* a C string would be cut */
    assert_int_equal(tg_gguf_find(t, "nul")->s.len, 3);
    assert_memory_equal(tg_gguf_find(t, "nul")->s.text, "a\0b", 4);
    assert_true(tg_gguf_find(t, "yes")->b && tg_gguf_find(t, "n")->u == 7 &&
                tg_gguf_find(t, "x")->f == 0.25);
    tg_tensors_close(t);
    const struct tg_write_options nothing = {.format = &tg_format_gguf};
    assert_int_equal(tg_tensor_writer_open(&w, dir, NULL, 0, &nothing, &err), TG_OK);
    assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
    tg_tensor_writer_close(w);
    t = open_ok(dir);
    assert_true(tg_tensors_count(t) == 0 && tg_gguf_count(t) == 0);
    tg_tensors_close(t);
    tg_free(dir);
}

/* memory exhausted at each allocation */
static void test_torture(void **state)
{
    (void)state;
    static const char *const paths[] = {DATA "types.gguf", DATA "model-00002-of-00003.gguf"};
    for (size_t i = 0; i < 2; i++) {
        for (long n = 1;; n++) {
            struct tg_tensors *t;
            tg_mem_fail_after(n);
            int rc = tg_tensors_open(&t, paths[i], &err);
            tg_mem_fail_after(0);
            tg_tensors_close(t);
            if (rc == TG_OK) {
                assert_true(n > 20);
                break;
            }
            assert_int_equal(rc, TG_ERR_NOMEM);
            assert_null(t);
        }
    }
    char *out = tg_scratch_dir("torture");
    for (long n = 1;; n++) {
        tg_mem_fail_after(n);
        int rc = write_parts(out, 1);
        tg_mem_fail_after(0);
        if (rc == TG_OK) {
            assert_true(n > 20);
            break;
        }
        if (tg_files_in(out) != 0)
            fail_msg("allocation %ld: files left after: %s", n, err.msg);
    }
    tg_free(out);
}

/* With a directory, only writes there what tests/interop/check_gguf.py reads. */
static int write_samples(const char *dir)
{
    struct tg_tensors *t = NULL;
    char *path = tg_path_join(dir, "types.gguf");
    int rc = tg_tensors_open(&t, DATA "types.gguf", &err);
    if (rc == TG_OK)
        rc = write_types(path, t);
    if (rc == TG_OK)
        rc = write_parts(dir, 1);
    if (rc != TG_OK)
        fprintf(stderr, "%s\n", err.msg);
    tg_tensors_close(t);
    tg_free(path);
    return rc != TG_OK;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_parts_refused),
        cmocka_unit_test(test_directory),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_edges),
        cmocka_unit_test_setup_teardown(test_torture, NULL, tg_scratch_remove),
    };
    if (argc > 1)
        return write_samples(argv[1]);
    if (!tg_scratch_make("gguf"))
        return 1;
    return tg_run_tests("gguf", tests, sizeof tests / sizeof *tests);
}
