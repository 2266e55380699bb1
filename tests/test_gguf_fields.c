#include "tests/check.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/format.h"
#include "formats/gguf.h"

static struct tg_err err;

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

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_cut),
    };
    return tg_run_tests("gguf_fields", tests, sizeof tests / sizeof *tests);
}
