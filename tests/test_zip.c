#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/zip.h"
#include "tests/zip_build.h"

static struct tg_err err;

/* One entry of each form */
static const unsigned char text[300] = "text that deflates deflates deflates deflates deflates";
static const struct zip_part parts[] = {
    {.name = "r/stored", .data = text, .size = 60},
    {.name = "r/deflated", .data = text, .size = sizeof text, .deflate = true},
    {.name = "r/later", .data = text, .size = 7, .descriptor = true},
    {.name = "r/wide", .data = text, .size = 90, .deflate = true, .descriptor = true, .wide = true},
    {.name = "r/wide-stored", .data = text, .size = 5, .wide = true},
    {.name = "r/empty", .data = text, .size = 0},
    {.name = "r/folder/", .data = text, .size = 0},
};
enum { PARTS = sizeof parts / sizeof *parts, ROOM = 8192 };

static struct zip_bytes sample(bool wide)
{
    struct zip_bytes z = {tg_alloc(ROOM), 0};
    zip_build(&z, parts, PARTS, wide);
    assert_true(z.n < ROOM);
    return z;
}

/* Reads an archive of which every entry must have the content of its part, or fail; its own block,
 * so that a read past the end is seen. */
static int read_copy(const unsigned char *bytes, size_t n)
{
    struct tg_zip z;
    unsigned char *own = tg_alloc(n), got[sizeof text];
    memcpy(own, bytes, n);
    memset(&err, 0, sizeof err);
    int rc = tg_zip_read(&z, own, n, "x.zip", &err);
    for (size_t i = 0; i < PARTS && rc == TG_OK; i++) {
        const struct tg_zip_entry *e = tg_zip_find(&z, parts[i].name);
        assert_int_equal(z.count, PARTS);
        assert_non_null(e);
        assert_true(e->size == parts[i].size && e->deflated == parts[i].deflate);
        rc = tg_zip_extract(&z, e, got, &err);
        if (rc == TG_OK)
            assert_memory_equal(got, parts[i].data, parts[i].size);
        if (rc == TG_OK && !e->deflated)
            assert_int_equal(tg_zip_check(&z, e, &err), TG_OK);
    }
    tg_zip_release(&z);
    tg_free(own);
    if (rc != TG_OK && (strncmp(err.msg, "x.zip: ", 7) || err.code != rc || rc == TG_ERR_NOMEM))
        fail_msg("%d %s", rc, err.msg);
    return rc;
}

static void test_forms(void **state)
{
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        struct zip_bytes z = sample(wide);
        if (read_copy(z.p, z.n) != TG_OK)
            fail_msg("%s", err.msg);
        for (size_t n = 0; n < z.n; n++)
            assert_int_equal(read_copy(z.p, n), TG_ERR_FORMAT);
        z.p[z.n - 2] = 3; /* a comment */
        memcpy(z.p + z.n, "abc", 3);
        assert_int_equal(read_copy(z.p, z.n + 3), TG_OK);
        assert_int_equal(read_copy(z.p, z.n + 2), TG_ERR_FORMAT);
        assert_int_equal(read_copy(z.p, z.n + 4), TG_ERR_FORMAT);
        memmove(z.p + 1, z.p, z.n); /* something before the archive */
        assert_int_equal(read_copy(z.p, z.n + 1), TG_ERR_FORMAT);
        tg_free(z.p);
    }
}

static uint64_t get(const unsigned char *p, size_t width)
{
    uint64_t v = 0;
    for (size_t i = 0; i < width; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void set(unsigned char *p, size_t width, uint64_t v)
{
    for (size_t i = 0; i < width; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

/* Widths of the fields of each record; a negative one may say anything. */
static const struct record {
    uint32_t sig;
    signed char fields[20];
} records[] = {
    {0x04034B50, {4, -2, 2, 2, -4, 4, 4, 4, 2, 2}},
    {0x02014B50, {4, -4, 2, 2, -4, 4, 4, 4, 2, 2, 2, 2, -6, 4}},
    {0x06064B50, {4, 8, -4, 4, 4, 8, 8, 8, 8}},
    {0x07064B50, {4, 4, 8, 4}},
    {0x06054B50, {4, 2, 2, 2, 2, 4, 4, 2}},
    {0x08074B50, {4, 4, 4, 4}},
    {0x00100001, {2, 2, 8, 8}}, /* zip64 extra fields, of local headers and of the directory */
    {0x00180001, {2, 2, 8, 8, 8}},
};

/* Every field of every record set to numbers that are wrong by little and by much: an error, or, in
 * the fields that do not matter, the same contents. */
static size_t mutate(const struct zip_bytes *z, size_t at, const struct record *r)
{
    const unsigned char *local = z->p + at;
    size_t tried = 0;
    for (size_t i = 0; r->fields[i]; i++) {
        const bool free_field = r->fields[i] < 0;
        const size_t width = (size_t)(free_field ? -r->fields[i] : r->fields[i]);
        const uint64_t was = get(z->p + at, width),
                       most = width == 8 ? UINT64_MAX : ((uint64_t)1 << (8 * width)) - 1;
        const uint64_t values[] = {0,       1,           most,     most - 1, most / 2, was + 1,
                                   was - 1, z->n,        z->n + 1, z->n - 1, was << 8, was | 1 << 7,
                                   was ^ 1, most / 2 + 1};
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            if ((values[v] & most) == was)
                continue;
            set(z->p + at, width, values[v]);
            const int rc = read_copy(z->p, z->n);
            const bool later = (values[v] & most) == 0 && /* the descriptor says it */
                               ((r->sig == 0x04034B50 && i >= 5 && i <= 7 && local[6] & 1 << 3) ||
                                (r->sig == 0x00100001 && i >= 2));
            if (!later && (rc == TG_OK) != free_field)
                fail_msg("record %08X at %zu, field %zu: %llx instead of %llx: %d", r->sig, at, i,
                         (unsigned long long)(values[v] & most), (unsigned long long)was, rc);
            tried++;
        }
        set(z->p + at, width, was);
        at += width;
    }
    return tried;
}

static void test_fields(void **state)
{
    (void)state;
    size_t tried = 0, found[sizeof records / sizeof *records] = {0};
    for (int wide = 0; wide < 2; wide++) {
        struct zip_bytes z = sample(wide);
        for (size_t at = 0; at + 4 <= z.n; at++)
            for (size_t r = 0; r < sizeof records / sizeof *records; r++)
                if (get(z.p + at, 4) == records[r].sig) {
                    struct record wider = records[r];
                    if (records[r].sig == 0x08074B50 && get(z.p + at + 12, 4) == 0)
                        memcpy(wider.fields, (signed char[]){4, 4, 8, 8, 0}, 5);
                    tried += mutate(&z, at, &wider);
                    found[r]++;
                }
        assert_int_equal(read_copy(z.p, z.n), TG_OK); /* all is back in place */
        tg_free(z.p);
    }
    static const size_t want[] = {2 * PARTS, 2 * PARTS, 1, 1, 2, 4, 4, 4};
    assert_memory_equal(found, want, sizeof want);
    assert_true(tried > 4000);
}

/* Every byte that is not part of a time, a version or an attribute */
static void test_bytes(void **state)
{
    (void)state;
    struct zip_bytes z = sample(true);
    size_t harmless = 0;
    for (size_t at = 0; at < z.n; at++) {
        z.p[at] ^= 0x55;
        harmless += read_copy(z.p, z.n) == TG_OK;
        z.p[at] ^= 0x55;
    }
    assert_int_equal(harmless, PARTS * (2 + 4) + PARTS * (4 + 4 + 6) + 4);
    tg_free(z.p);
}

static void expect(const struct zip_bytes *z, int code, const char *why)
{
    const int rc = read_copy(z->p, z->n);
    if (rc != code || !strstr(err.msg, why))
        fail_msg("wanted '%s': %d %s", why, rc, err.msg);
}

/* An archive of one part after another, then changed by hand at the last local and central header.
 */
static void test_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"/abs", "../up", "a/../../b", "a\\b", "", "a/.."};
    unsigned char space[2048];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct zip_part bad = {.name = names[i], .data = text, .size = 3};
        struct zip_bytes z = {space, 0};
        zip_build(&z, &bad, 1, false);
        expect(&z, TG_ERR_FORMAT, "has a name that is empty, absolute, climbs");
    }
    const struct zip_part twice[] = {{.name = "a", .data = text, .size = 3},
                                     {.name = "a", .data = text, .size = 3}};
    struct zip_bytes z = {space, 0};
    zip_build(&z, twice, 2, false);
    expect(&z, TG_ERR_FORMAT, "'a' stands twice");

    /* the second entry of the directory says where the first one lies */
    const struct zip_part two[] = {{.name = "a", .data = text, .size = 3},
                                   {.name = "b", .data = text, .size = 3}};
    z.n = 0;
    zip_build(&z, two, 2, false);
    const size_t second = z.n - 22 - 47, first = second - 47;
    z.p[34 + 30] = 'b';
    memcpy(space + 30, "b", 1);
    set(z.p + second + 42, 4, 0);
    z.p[first + 46] = 'b';
    z.p[second + 46] = 'b';
    expect(&z, TG_ERR_FORMAT, "inside entry 'b', which ends at 34");

    static const struct {
        size_t local, central, width;
        uint64_t value;
        int code;
        const char *why;
    } rows[] = {
        {6, 8, 2, 1 << 11 | 1, TG_ERR_UNSUPPORTED, "entry 'a': encryption"},
        {6, 8, 2, 1 << 13, TG_ERR_UNSUPPORTED, "entry 'a': general purpose flags 8192"},
        {8, 10, 2, 12, TG_ERR_UNSUPPORTED, "entry 'a': compression method 12"},
        {14, 16, 4, 0x12345678, TG_ERR_FORMAT, "CRC"},
        {18, 20, 4, 2, TG_ERR_FORMAT, "its two sizes differ (2, expected 3)"},
        {22, 24, 4, 4, TG_ERR_FORMAT, "its two sizes differ (3, expected 4)"},
        {22, 24, 4, UINT32_MAX, TG_ERR_FORMAT, "zip64 extra field is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        z.n = 0;
        zip_build(&z, two, 1, false);
        set(z.p + rows[i].local, rows[i].width, rows[i].value);
        set(z.p + z.n - 22 - 47 + rows[i].central, rows[i].width, rows[i].value);
        struct tg_zip a;
        unsigned char got[8];
        int rc = tg_zip_read(&a, z.p, z.n, "x.zip", &err);
        if (rc == TG_OK)
            rc = tg_zip_extract(&a, &a.entries[0], got, &err);
        if (rc != rows[i].code || !strstr(err.msg, rows[i].why) || strncmp(err.msg, "x.zip: ", 7))
            fail_msg("%s: %d %s", rows[i].why, rc, err.msg);
        tg_zip_release(&a);
    }
}

/* Sizes of 64 bits that would wrap around, and an extra field that stands twice. */
static void test_wide(void **state)
{
    (void)state;
    const struct zip_part part = {.name = "a", .data = text, .size = 5, .wide = true};
    unsigned char space[2048];
    struct zip_bytes z = {space, 0};
    zip_build(&z, &part, 1, true);
    const size_t central = z.n - 22 - 20 - 56 - 28 - 47, extra = central + 47;
    for (int i = 0; i < 2; i++) {
        set(z.p + 31 + 4 + 8 * i, 8, UINT64_MAX - 20);
        set(z.p + extra + 4 + 8 * i, 8, UINT64_MAX - 20);
    }
    expect(&z, TG_ERR_FORMAT, "entry 'a': its data end after the directory begins");

    z.n = 0;
    zip_build(&z, &part, 1, true);
    set(z.p + central + 20, 4, 5); /* only the size asks for the extra field */
    set(z.p + central + 42, 4, 0);
    set(z.p + extra, 4, 1 | 8 << 16);
    set(z.p + extra + 12, 4, 1 | 12 << 16);
    expect(&z, TG_ERR_FORMAT, "entry 'a': two zip64 extra fields");
}

/* What deflated entries say of themselves against what they hold. */
static void test_deflated(void **state)
{
    (void)state;
    static const struct {
        long change;
        const char *why;
    } rows[] = {{-1, "do not make its 299 bytes"},
                {1, "do not make its 301 bytes"},
                {1000000, "larger than deflate can make of its bytes"}};
    const struct zip_part part = {.name = "a", .data = text, .size = sizeof text, .deflate = true};
    unsigned char space[2048], *got = tg_alloc(301);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct zip_bytes z = {space, 0};
        struct tg_zip a;
        zip_build(&z, &part, 1, false);
        set(z.p + 22, 4, (uint64_t)((long)sizeof text + rows[i].change));
        set(z.p + z.n - 22 - 47 + 24, 4, (uint64_t)((long)sizeof text + rows[i].change));
        int rc = tg_zip_read(&a, z.p, z.n, "x.zip", &err);
        if (rc == TG_OK)
            rc = tg_zip_extract(&a, &a.entries[0], got, &err);
        if (rc != TG_ERR_FORMAT || !strstr(err.msg, rows[i].why))
            fail_msg("%s: %d %s", rows[i].why, rc, err.msg);
        tg_zip_release(&a);
    }
    tg_free(got);
}

/* Writing: whatever is written is read again, at multiples of 64. */
static void test_written(void **state)
{
    (void)state;
    char dir[] = "/tmp/tegu-zip-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = tg_path_join(dir, "x.zip");
    struct tg_zip_out w = {.path = path};
    assert_int_equal(tg_out_open(&w.out, path, &err), TG_OK);
    for (size_t i = 0; i < PARTS; i++) {
        assert_int_equal(tg_zip_begin(&w, parts[i].name, parts[i].size, &err), TG_OK);
        for (size_t at = 0; at < parts[i].size; at++)
            assert_int_equal(tg_zip_write(&w, text + at, 1, &err), TG_OK);
        assert_int_equal(tg_zip_end(&w, &err), TG_OK);
    }
    assert_int_equal(tg_zip_finish(&w, &err), TG_OK);
    assert_int_equal(tg_out_commit(w.out, &err), TG_OK);
    tg_out_close(w.out);
    tg_zip_out_release(&w);
    struct tg_map m;
    struct tg_zip z;
    assert_int_equal(tg_map_open(&m, path, &err), TG_OK);
    if (tg_zip_read(&z, m.data, m.size, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(z.count, PARTS);
    for (size_t i = 0; i < PARTS; i++) {
        const struct tg_zip_entry *e = tg_zip_find(&z, parts[i].name);
        assert_int_equal((e->data - z.bytes) % 64, 0);
        assert_int_equal(tg_zip_check(&z, e, &err), TG_OK);
        assert_int_equal(e->size, parts[i].size);
        assert_memory_equal(e->data, text, e->size);
    }
    tg_zip_release(&z);
    tg_map_close(&m);
    tg_free(path);
    assert_int_equal(tg_dir_remove(dir, &err), TG_OK);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),   cmocka_unit_test(test_fields),
        cmocka_unit_test(test_bytes),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_wide),    cmocka_unit_test(test_deflated),
        cmocka_unit_test(test_written),
    };
    return tg_run_tests("zip", tests, sizeof tests / sizeof *tests);
}
