#include "tests/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/format.h"
#include "formats/gguf.h"

#define DATA "tests/data/gguf/"

static char scratch[64];
static struct tg_err err;

static char *fresh_dir(const char *name)
{
    char *p = tg_path_join(scratch, name);
    assert_int_equal(tg_dir_remove(p, &err), TG_OK);
    assert_int_equal(tg_dir_make(p, &err), TG_OK);
    return p;
}

static size_t names_in(const char *dir)
{
    char **names;
    size_t n;
    assert_int_equal(tg_dir_list(dir, &names, &n, &err), TG_OK);
    tg_names_free(names, n);
    return n;
}

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
    char *dir = fresh_dir("write"), *path = tg_path_join(dir, "x.gguf");
    struct tg_tensors *t = open_ok(DATA "types.gguf");
    if (write_types(path, t) != TG_OK)
        fail_msg("%s", err.msg);
    tg_tensors_close(t);
    assert_same_file(path, DATA "types.gguf");
    assert_int_equal(names_in(dir), 1);
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

static void test_parts(void **state)
{
    (void)state;
    static const char *const parts[] = {"model-00001-of-00003.gguf", "model-00002-of-00003.gguf",
                                        "model-00003-of-00003.gguf"};
    char *dir = fresh_dir("parts");
    if (write_parts(dir, 1) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(names_in(dir), 3);
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

    dir = fresh_dir("parts");
    assert_int_equal(write_parts(dir, 1000), TG_OK);
    assert_int_equal(names_in(dir), 1);
    check_parts(dir, 1);
    tg_free(dir);
}

/* Files made field by field, so that each field can be set wrong */

struct built {
    struct tg_strbuf s;
    struct {
        const char *label;
        size_t at, size;
    } fields[80];
    size_t count;
};

static void put(struct built *b, const char *label, uint64_t x, size_t size)
{
    char bytes[8];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(unsigned char)(x >> (8 * i));
    b->fields[b->count].label = label;
    b->fields[b->count].at = b->s.len;
    b->fields[b->count++].size = size;
    tg_strbuf_add(&b->s, bytes, size);
}

static void put_text(struct built *b, const char *label, const char *text)
{
    put(b, label, strlen(text), 8);
    tg_strbuf_puts(&b->s, text);
}

static void put_tensor(struct built *b, const char *name, uint64_t rows, uint64_t row,
                       uint32_t type, uint64_t offset)
{
    put_text(b, "name", name);
    put(b, "dims", 2, 4);
    put(b, "ne0", row, 8);
    put(b, "ne1", rows, 8);
    put(b, "type", type, 4);
    put(b, "offset", offset, 8);
}

/* Three keys, two tensors */
static void build(struct built *b)
{
    b->count = 0;
    tg_strbuf_init(&b->s, 10000);
    put(b, "magic", 0x46554747, 4);
    put(b, "version", 3, 4);
    put(b, "tensors", 2, 8);
    put(b, "keys", 4, 8);
    put_text(b, "key", "general.alignment");
    put(b, "align.type", TG_GGUF_U32, 4);
    put(b, "align", 16, 4);
    put_text(b, "key2", "name");
    put(b, "text.type", TG_GGUF_STRING, 4);
    put_text(b, "text", "a string");
    put_text(b, "key3", "list");
    put(b, "list.type", TG_GGUF_ARRAY, 4);
    put(b, "list.of", TG_GGUF_U16, 4);
    put(b, "list.count", 3, 8);
    put(b, "list.0", 0x0101, 2);
    put(b, "list.1", 0x0101, 2);
    put(b, "list.2", 0x0101, 2);
    put_text(b, "key4", "words");
    put(b, "words.type", TG_GGUF_ARRAY, 4);
    put(b, "words.of", TG_GGUF_STRING, 4);
    put(b, "words.count", 2, 8);
    put_text(b, "word0", "first");
    put_text(b, "word1", "second");
    put_tensor(b, "a", 2, 3, 0, 0);
    put_tensor(b, "b", 2, 32, 8, 32);
    while (b->s.len % 16)
        put(b, "pad", 0, 1);
    for (size_t i = 0; i < 32 + 68; i++)
        put(b, "data", 0, 1), b->count--;
}

/* nth field of this label set to x */
static void set(struct built *b, const char *label, size_t nth, uint64_t x)
{
    for (size_t i = 0; i < b->count; i++) {
        if (strcmp(b->fields[i].label, label) != 0 || nth--)
            continue;
        for (size_t k = 0; k < b->fields[i].size; k++)
            b->s.text[b->fields[i].at + k] = (char)(unsigned char)(x >> (8 * k));
        return;
    }
    fail_msg("no field %s", label);
}

/* From a block of exactly n bytes, so that a sanitizer sees a read past the end */
static int over(const char *text, size_t n, struct tg_tensors **t, void **block)
{
    memset(&err, 0, sizeof err);
    *block = tg_alloc(n);
    memcpy(*block, text, n);
    return tg_tensors_over(t, &tg_format_gguf, *block, n, "x.gguf", &err);
}

#define MAX UINT64_MAX
static const struct {
    const char *label;
    size_t nth;
    uint64_t x;
    const char *why; /* NULL: is read; "": is refused, whatever is said */
} wrong[] = {
    {"magic", 0, 0, "does not begin with"},
    {"magic", 0, 1, "does not begin with"},
    {"magic", 0, MAX, "does not begin with"},
    {"magic", 0, 0x47554747, "does not begin with"},
    {"version", 0, 0, "version 0"},
    {"version", 0, 1, "version 1, only 2 and 3"},
    {"version", 0, 2, NULL},
    {"version", 0, 4, "version 4"},
    {"version", 0, MAX, "version 4294967295"},
    {"version", 0, 0x03000000, "big-endian"},
    {"tensors", 0, 0, NULL},
    {"tensors", 0, 1, NULL},
    {"tensors", 0, 3, ""},
    {"tensors", 0, MAX, "-1 tensors do not fit"},
    {"tensors", 0, 20, "20 tensors do not fit"},
    {"keys", 0, 0, ""},
    {"keys", 0, 3, ""},
    {"keys", 0, 5, ""},
    {"keys", 0, MAX, "-1 metadata keys do not fit"},
    {"key", 0, 0, "metadata key 0 is empty"},
    {"key", 0, 1, ""},
    {"key", 0, 16, ""},
    {"key", 0, 18, "has the unknown type"},
    {"key", 0, (1 << 30) + 1, "above the limit of 1073741824"},
    {"key", 0, 1 << 30, "ends inside a metadata key"},
    {"key", 0, MAX, "above the limit"},
    {"align.type", 0, TG_GGUF_I32, "has type I32, must be U32"},
    {"align.type", 0, TG_GGUF_F32, "has type F32, must be U32"},
    {"align.type", 0, 13, "'general.alignment' has the unknown type 13"},
    {"align.type", 0, MAX, "unknown type 4294967295"},
    {"align", 0, 0, "alignment is 0"},
    {"align", 0, 1, "tensor 'b': its data begin at offset 32, those before it end at 24"},
    {"align", 0, 3, "alignment is 3, must be a power of two"},
    {"align", 0, 8, "those before it end at 24"},
    {"align", 0, 64, "those before it end at 64"},
    {"align", 0, (uint64_t)1 << 31, "those before it end at 2147483648"},
    {"align", 0, MAX, "alignment is 4294967295"},
    {"text.type", 0, 0, ""},
    {"text", 0, 0, ""},
    {"text", 0, 9, ""},
    {"text", 0, (1 << 30) + 1, "name has a string of 1073741825 bytes"},
    {"text", 0, MAX, "above the limit"},
    {"list.of", 0, TG_GGUF_ARRAY, "'list' is an array of arrays"},
    {"list.of", 0, 13, "'list' is an array of the unknown type 13"},
    {"list.of", 0, MAX, "unknown type 4294967295"},
    {"list.of", 0, TG_GGUF_STRING, ""},
    {"list.count", 0, 0, ""},
    {"list.count", 0, 2, ""},
    {"list.count", 0, 4, ""},
    {"list.count", 0, (1 << 30) + 1, "'list' has 1073741825 elements"},
    {"list.count", 0, MAX, "'list' has 18446744073709551615 elements"},
    {"words.count", 0, 1, ""},
    {"words.count", 0, 3, ""},
    {"words.count", 0, 1 << 30, "'words' has 1073741824 elements"},
    {"word0", 0, MAX, "words has a string of"},
    {"word1", 0, 7, ""},
    {"name", 0, 0, ""},
    {"name", 0, 2, ""},
    {"name", 0, 64, "name has 64 bytes, at most 63"},
    {"name", 0, MAX, "above the limit"},
    {"dims", 0, 0, ""},
    {"dims", 0, 1, ""},
    {"dims", 0, 3, ""},
    {"dims", 0, 5, "'a' has 5 dimensions, at most 4"},
    {"dims", 0, MAX, "'a' has 4294967295 dimensions"},
    {"ne0", 0, 0, "those before it end at 0"},
    {"ne0", 0, 4, NULL},
    {"ne0", 0, 5, "those before it end at 48"},
    {"ne0", 0, MAX, "'a': ne[0] is -1"},
    {"ne1", 0, (uint64_t)1 << 63, "'a': ne[1] is -9223372036854775808"},
    {"ne1", 0, INT64_MAX, "'a': F32 [9223372036854775807,3] overflows"},
    {"ne1", 0, (uint64_t)1 << 60, "'a': F32 [1152921504606846976,3] overflows"},
    {"ne0", 1, 31, "rows of 31 are no whole number of blocks of 32 (Q8_0)"},
    {"ne0", 1, 1, "rows of 1 are no whole"},
    {"ne0", 1, 33, "rows of 33 are no whole"},
    {"ne0", 1, 64, "'b': 136 bytes at offset 32"},
    {"ne1", 1, 1, NULL},
    {"ne1", 1, 3, "do not lie in the file's"},
    {"ne1", 1, INT64_MAX, "overflows"},
    {"type", 0, 4, "'a' has type Q4_2 (4), which was removed"},
    {"type", 0, 33, "'a' has type Q4_0_8_8 (33), which was removed"},
    {"type", 0, 9, "'a' has type Q8_1 (9), which Tegu does not read"},
    {"type", 0, 16, "type IQ2_XXS (16), which Tegu does not read"},
    {"type", 0, 34, "type TQ1_0 (34), which"},
    {"type", 0, 40, "type NVFP4 (40), which Tegu does not read"},
    {"type", 0, 43, "'a' has the unknown type 43"},
    {"type", 0, MAX, "'a' has the unknown type 4294967295"},
    {"type", 0, 2, "rows of 3 are no whole number of blocks of 32 (Q4_0)"},
    {"type", 1, 28, "do not lie in the file's"},
    {"offset", 0, 1, "'a': its data begin at offset 1, those before it end at 0"},
    {"offset", 1, 0, "'b': its data begin at offset 0, those before it end at 32"},
    {"offset", 1, 31, "begin at offset 31"},
    {"offset", 1, 48, "begin at offset 48"},
    {"offset", 1, MAX, "begin at offset 18446744073709551615"},
};

static void test_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i <= sizeof wrong / sizeof *wrong; i++) {
        const bool as_is = i == sizeof wrong / sizeof *wrong;
        const char *why = as_is ? NULL : wrong[i].why;
        struct built b;
        struct tg_tensors *t;
        void *block;
        build(&b);
        if (!as_is)
            set(&b, wrong[i].label, wrong[i].nth, wrong[i].x);
        int rc = over(b.s.text, b.s.len, &t, &block);
        if ((rc == TG_OK) != !why || (t != NULL) != !why || (why && !strstr(err.msg, why)) ||
            (why && !strstr(err.msg, "x.gguf")))
            fail_msg("row %zu: %s[%zu] = %" PRIu64 ": wanted '%s', got '%s'", i,
                     as_is ? "" : wrong[i].label, as_is ? 0 : wrong[i].nth, as_is ? 0 : wrong[i].x,
                     why ? why : "success", err.msg);
        tg_tensors_close(t);
        tg_free(block);
        tg_strbuf_release(&b.s);
    }
}

static void test_duplicates(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *why;
    } rows[] = {
        {"words", "word\xFF", "metadata key 3 is not UTF-8"},
        {"words", "wo\0ds", "metadata key 3 is not UTF-8 without NUL"},
        {"list", "name", "metadata key 'name' stands twice"},
        {"b", "a", "tensor 'a' is in x.gguf and in x.gguf"},
        {"b", "\x80", "a tensor's name is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct built b;
        struct tg_tensors *t;
        void *block;
        build(&b);
        const size_t n = strlen(rows[i].from);
        bool found = false;
        for (size_t at = 8; at + n <= b.s.len && !found; at++)
            if (!memcmp(b.s.text + at, rows[i].from, n) && b.s.text[at - 8] == (char)n &&
                !b.s.text[at - 7]) {
                memcpy(b.s.text + at, rows[i].to, n);
                found = true;
            }
        assert_true(found);
        if (over(b.s.text, b.s.len, &t, &block) == TG_OK || !strstr(err.msg, rows[i].why))
            fail_msg("%s: %s", rows[i].why, err.msg);
        tg_free(block);
        tg_strbuf_release(&b.s);
    }
}

static void test_cut(void **state)
{
    (void)state;
    struct built b;
    build(&b);
    for (size_t n = 0; n < b.s.len; n++) {
        struct tg_tensors *t;
        void *block;
        if (over(b.s.text, n, &t, &block) == TG_OK || t || !strstr(err.msg, "x.gguf: "))
            fail_msg("cut at %zu: %s", n, err.msg);
        tg_free(block);
    }
    tg_strbuf_release(&b.s);
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
    assert_int_equal(tg_gguf_count(t), 0);
    assert_null(tg_gguf_find(t, "format"));
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
    char *dir = fresh_dir("refused");
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
        assert_int_equal(names_in(dir), 0);
    }
    tg_free(dir);
}

/* An array and a string without content, a rank of 0, and nothing at all */
static void test_edges(void **state)
{
    (void)state;
    char *dir = fresh_dir("edges");
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
    char *out = fresh_dir("torture");
    for (long n = 1;; n++) {
        tg_mem_fail_after(n);
        int rc = write_parts(out, 1);
        tg_mem_fail_after(0);
        if (rc == TG_OK) {
            assert_true(n > 20);
            break;
        }
        if (names_in(out) != 0)
            fail_msg("allocation %ld: files left after: %s", n, err.msg);
    }
    tg_free(out);
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
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
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_edges),
        cmocka_unit_test_setup_teardown(test_torture, NULL, remove_scratch),
    };
    if (argc > 1)
        return write_samples(argv[1]);
    snprintf(scratch, sizeof scratch, "/tmp/tegu-gguf-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    return tg_run_tests("gguf", tests, sizeof tests / sizeof *tests);
}
