#include "tests/check.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "base/utf8.h"

static char scratch[64];

static char *in_scratch(const char *name)
{
    char *p = tg_path_join(scratch, name);
    assert_non_null(p);
    return p;
}

static void test_status(void **state)
{
    (void)state;
    struct tg_err err = {0};
    assert_int_equal(tg_fail(NULL, TG_ERR_IO, "x"), TG_ERR_IO);
    assert_int_equal(tg_fail(&err, TG_ERR_VALUE, "%s: %d", "a", 7), TG_ERR_VALUE);
    assert_string_equal(err.msg, "a: 7");
    assert_int_equal(tg_err_prefix(&err, "file %d", 3), TG_ERR_VALUE);
    assert_string_equal(err.msg, "file 3: a: 7");
    tg_fail(&err, TG_ERR_VALUE, "again: %s", err.msg);
    assert_string_equal(err.msg, "again: file 3: a: 7");
    struct tg_err none = {0};
    assert_int_equal(tg_err_prefix(&none, "x"), TG_OK);
    assert_string_equal(none.msg, "");

    /* Whatever the offset at which the buffer ends, no sequence is split. */
    for (int pad = 0; pad < 8; pad++) {
        char text[1200];
        size_t n = 0;
        for (int i = 0; i < pad; i++)
            text[n++] = 'x';
        while (n < 1150) {
            memcpy(text + n, pad & 1 ? "\xE2\x82\xAC" : "\xF0\x9F\x98\x80", pad & 1 ? 3 : 4);
            n += pad & 1 ? 3 : 4;
        }
        text[n] = '\0';
        tg_fail(&err, TG_ERR_VALUE, "%s", text);
        size_t len = strlen(err.msg);
        assert_true(len > 1010 && len < sizeof err.msg);
        assert_int_equal(tg_utf8_check(err.msg, len), len);
    }
}

static void test_mem(void **state)
{
    (void)state;
    size_t out = 5;
    assert_false(tg_mul_size(&out, SIZE_MAX / 2, 3));
    assert_false(tg_add_size(&out, SIZE_MAX, 1));
    assert_int_equal(out, 5);
    assert_true(tg_mul_size(&out, 0, SIZE_MAX) && out == 0);
    assert_null(tg_alloc_array(SIZE_MAX / 4, 8));
    assert_null(tg_alloc_floats(SIZE_MAX / 2));
    void *p = tg_alloc(0);
    assert_non_null(p);
    tg_free(p);
    tg_free(NULL);
    unsigned char *z = tg_alloc(1000);
    assert_int_equal((uintptr_t)z % 64, 0);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(z[i], 0);
    tg_free(z);
    float *f = tg_alloc_floats(100);
    assert_int_equal((uintptr_t)f % 64, 0);
    tg_free(f);

    int *list = NULL;
    size_t cap = 0;
    for (int i = 0; i < 1000; i++) {
        assert_true(tg_grow(&list, &cap, (size_t)i + 1, sizeof *list));
        list[i] = i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(list[i], i);
    size_t kept = cap;
    assert_false(tg_grow(&list, &cap, SIZE_MAX / 2, sizeof *list));
    assert_int_equal(cap, kept);
    tg_free(list);

    tg_mem_fail_after(2);
    void *a = tg_alloc(8), *b = tg_alloc(8), *c = tg_alloc(8);
    assert_true(a && !b && c);
    tg_free(a);
    tg_free(c);
    char *s = tg_strndup("abcdef", 3);
    assert_string_equal(s, "abc");
    tg_free(s);
}

static void test_strbuf(void **state)
{
    (void)state;
    struct tg_strbuf s;
    tg_strbuf_init(&s, 100);
    assert_string_equal(s.text, "");
    for (int i = 0; i < 10; i++)
        tg_strbuf_printf(&s, "%d,", i);
    tg_strbuf_puts(&s, "end");
    assert_string_equal(s.text, "0,1,2,3,4,5,6,7,8,9,end");
    char fill[77];
    memset(fill, 'x', sizeof fill);
    tg_strbuf_add(&s, fill, 77);
    assert_false(s.failed);
    assert_int_equal(s.len, 100);
    tg_strbuf_puts(&s, "y");
    assert_true(s.failed);
    assert_int_equal(s.len, 100);
    assert_null(tg_strbuf_take(&s));
    tg_strbuf_init(&s, 10);
    tg_strbuf_puts(&s, "abc");
    tg_strbuf_clear(&s);
    tg_strbuf_puts(&s, "de");
    char *t = tg_strbuf_take(&s);
    assert_string_equal(t, "de");
    tg_free(t);
}

static void test_cursor(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    struct tg_cursor c = tg_cursor_over(bytes, sizeof bytes);
    assert_int_equal(tg_cursor_u8(&c), 1);
    assert_int_equal(tg_cursor_u16(&c), 0x0302);
    assert_int_equal(tg_cursor_u32(&c), 0x07060504);
    assert_true(tg_cursor_u64(&c) == 0x0F0E0D0C0B0A0908u);
    assert_false(c.failed);
    assert_non_null(tg_cursor_bytes(&c, 0));
    assert_int_equal(tg_cursor_u8(&c), 0);
    assert_true(c.failed);
    c = tg_cursor_over(bytes, 3);
    assert_int_equal(tg_cursor_u32(&c), 0);
    assert_true(c.failed);
    assert_int_equal(tg_cursor_u8(&c), 0); /* it stays failed */
    c = tg_cursor_over(bytes, 3);
    assert_null(tg_cursor_bytes(&c, SIZE_MAX));
}

static void test_utf8(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char buf[4];
        uint32_t back = 0;
        if (cp >= 0xD800 && cp < 0xE000)
            continue;
        size_t n = tg_utf8_encode(cp, buf);
        if (tg_utf8_decode(buf, n, &back) != n || back != cp ||
            (n > 1 && tg_utf8_decode(buf, n - 1, &back)))
            fail_msg("code point %x", (unsigned)cp);
    }
    static const char *const bad[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x80\x80",
                                      "\xE0\x9F\xBF",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xF0\x80\x80\x80",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFF",
                                      "\xC3(",
                                      "\xE2\x82("};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint32_t cp;
        assert_int_equal(tg_utf8_decode(bad[i], strlen(bad[i]), &cp), 0);
        char text[64];
        for (size_t at = 0; at < 20; at++) { /* the word-wise part must not pass over it */
            int n = snprintf(text, sizeof text, "%.*s%s%s", (int)at, "abcdefghijklmnopqrst", bad[i],
                             "tail tail tail");
            assert_int_equal(tg_utf8_check(text, (size_t)n), at);
        }
    }
    assert_int_equal(tg_utf8_check("caf\xC3\xA9", 5), 5);
    assert_int_equal(tg_utf8_check("caf\xC3\xA9", 4), 3);
}

static void test_rng(void **state)
{
    (void)state;
    /* known answers of the authors' library for philox4x32-10; counter words 2 and 3 are the stream
     */
    static const struct {
        uint64_t seed, stream, at;
        uint32_t want[4];
    } known[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x168c234c90fdaa20,
         {0x2fe11a02, 0x572a2f27, 0x2f88763b, 0x78d5e325}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct tg_rng r = tg_rng_make(known[i].seed, known[i].stream);
        r.at = known[i].at;
        for (int j = 0; j < 4; j++)
            assert_int_equal(tg_rng_u32(&r), known[i].want[j]);
    }
    /* random access gives the same words as walking */
    struct tg_rng r = tg_rng_make(42, 7);
    uint32_t walk[100];
    for (int i = 0; i < 100; i++)
        walk[i] = tg_rng_u32(&r);
    for (int i = 99; i >= 0; i--) {
        struct tg_rng q = {42, 7, (uint64_t)i};
        assert_int_equal(tg_rng_u32(&q), walk[i]);
    }
    r = tg_rng_make(1, 1);
    double sum = 0, square = 0;
    size_t bins[10] = {0}, n = 200000;
    for (size_t i = 0; i < n; i++) {
        double x = tg_rng_normal(&r), u = tg_rng_uniform(&r);
        assert_true(u >= 0 && u < 1 && isfinite(x));
        sum += x;
        square += x * x;
        bins[tg_rng_below(&r, 10)]++;
    }
    assert_true(fabs(sum / (double)n) < 0.01);
    assert_true(fabs(square / (double)n - 1) < 0.02);
    for (int i = 0; i < 10; i++)
        assert_true(bins[i] > 19400 && bins[i] < 20600); /* 4.5 standard deviations */
    size_t items[50];
    for (size_t i = 0; i < 50; i++)
        items[i] = i;
    tg_rng_shuffle(&r, items, 50);
    size_t seen = 0, moved = 0;
    for (size_t i = 0; i < 50; i++) {
        seen += items[i];
        moved += items[i] != i;
    }
    assert_int_equal(seen, 49 * 25);
    assert_true(moved > 30);
    size_t pairs[5][5] = {{0}};
    for (size_t i = 0; i < 20000; i++) {
        tg_rng_distinct(&r, items, 2, 5);
        assert_true(items[0] < 5 && items[1] < 5 && items[0] != items[1]);
        pairs[items[0]][items[1]]++;
    }
    for (size_t a = 0; a < 5; a++)
        for (size_t c = 0; c < 5; c++) /* 1000 each, 4.5 standard deviations */
            assert_true(a == c || (pairs[a][c] > 860 && pairs[a][c] < 1140));
}

struct count {
    unsigned char hits[1000];
    int workers[64];
};

static void count_item(void *ud, size_t item, int worker)
{
    struct count *c = ud;
    c->hits[item]++;
    c->workers[worker] = 1;
}

static void test_pool(void **state)
{
    (void)state;
    static const int threads[] = {0, 1, 2, 3, 8};
    static const size_t items[] = {0, 1, 2, 7, 1000};
    for (size_t t = 0; t < 5; t++) {
        for (size_t n = 0; n < 5; n++) {
            struct count c = {0};
            tg_parallel(threads[t], items[n], count_item, &c);
            for (size_t i = 0; i < 1000; i++)
                assert_int_equal(c.hits[i], i < items[n]);
            for (int w = threads[t] > 1 ? threads[t] : 1; w < 64; w++)
                assert_int_equal(c.workers[w], 0);
        }
    }
    assert_in_range(tg_cpu_count(), 1, 64);
}

static void test_sha256(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hex;
    } known[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    char hex[65];
    for (size_t i = 0; i < 3; i++) {
        tg_sha256(known[i].text, strlen(known[i].text), hex);
        assert_string_equal(hex, known[i].hex);
    }
    char *million = tg_alloc(1000000), *path = in_scratch("million");
    memset(million, 'a', 1000000);
    tg_sha256(million, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    struct tg_err err = {0};
    assert_int_equal(tg_file_write(path, million, 1000000, &err), TG_OK);
    memset(hex, 0, sizeof hex);
    assert_int_equal(tg_sha256_file(path, hex, &err), TG_OK);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(tg_sha256_file("/nonexistent", hex, &err), TG_ERR_IO);
    assert_int_equal(tg_sha256_file("/dev/null", hex, &err), TG_ERR_IO); /* as /dev/zero: endless */
    tg_free(million);
    tg_free(path);
}

static size_t names_in(const char *dir)
{
    char **names;
    size_t n;
    struct tg_err err = {0};
    assert_int_equal(tg_dir_list(dir, &names, &n, &err), TG_OK);
    tg_names_free(names, n);
    return n;
}

static void test_file(void **state)
{
    (void)state;
    struct tg_err err = {0};
    char *dir = in_scratch("files"), *path, *text;
    size_t len;
    assert_int_equal(tg_dir_make(dir, &err), TG_OK);
    path = tg_path_join(dir, "a");
    char *pipe = in_scratch("pipe"); /* as a device: not to be replaced by a file */
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_int_equal(tg_file_write(pipe, "hello", 5, &err), TG_ERR_IO);
    assert_non_null(strstr(err.msg, "not a regular file"));
    struct stat there;
    assert_true(stat(pipe, &there) == 0 && S_ISFIFO(there.st_mode));
    unlink(pipe);
    tg_free(pipe);
    assert_int_equal(tg_file_write(path, "hello", 5, &err), TG_OK);
    assert_int_equal(names_in(dir), 1);
    assert_int_equal(tg_file_read(path, 5, &text, &len, &err), TG_OK);
    assert_string_equal(text, "hello");
    tg_free(text);
    assert_int_equal(tg_file_read(path, 4, &text, &len, &err), TG_ERR_VALUE);
    struct tg_map m;
    assert_int_equal(tg_map_open(&m, path, &err), TG_OK);
    assert_true(m.size == 5 && memcmp(m.data, "hello", 5) == 0);
    tg_map_close(&m);
    tg_map_close(&m);
    assert_int_equal(tg_map_open(&m, dir, &err), TG_ERR_IO);
    assert_non_null(strstr(err.msg, dir));
    assert_int_equal(tg_map_open(&m, "/dev/null", &err), TG_ERR_IO);

    /* An abandoned output leaves the old file and no other. */
    struct tg_out *o;
    assert_int_equal(tg_out_open(&o, path, &err), TG_OK);
    assert_int_equal(tg_out_write(o, "other", 5, &err), TG_OK);
    tg_out_close(o);
    assert_int_equal(names_in(dir), 1);
    assert_int_equal(tg_file_read(path, 5, &text, &len, &err), TG_OK);
    assert_string_equal(text, "hello");
    tg_free(text);

    /* Pieces below, at and above the buffer's size. */
    size_t total = 0;
    assert_int_equal(tg_out_open(&o, path, &err), TG_OK);
    char *block = tg_alloc(700000);
    static const size_t pieces[] = {1, 0, 262143, 262144, 3, 700000, 262145, 7};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        memset(block, 'a' + (int)i, pieces[i]);
        assert_int_equal(tg_out_write(o, block, pieces[i], &err), TG_OK);
        total += pieces[i];
    }
    assert_int_equal(tg_out_commit(o, &err), TG_OK);
    tg_out_close(o);
    assert_int_equal(tg_file_read(path, 1 << 24, &text, &len, &err), TG_OK);
    assert_int_equal(len, total);
    size_t at = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        for (size_t k = 0; k < pieces[i]; k++)
            if (text[at++] != 'a' + (int)i)
                fail_msg("byte %zu", at - 1);
    }
    tg_free(text);
    tg_free(block);
    tg_free(path);
    tg_free(dir);
}

static void test_full_disk(void **state)
{
    (void)state;
    struct tg_err err = {0};
    char *dir = in_scratch("full"), *path, *tmp;
    assert_int_equal(tg_dir_make(dir, &err), TG_OK);
    path = tg_path_join(dir, "out");
    tmp = tg_path_join(dir, "out.tmp");
    char *big = tg_alloc(1 << 20);

    assert_int_equal(symlink("/dev/full", tmp), 0);
    assert_int_equal(tg_file_write(path, "small", 5, &err),
                     TG_ERR_IO); /* seen only when the buffer is flushed */
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, strerror(ENOSPC)));
    assert_int_equal(names_in(dir), 0);
    assert_false(tg_path_exists(tmp));

    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){300000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = tg_file_write(path, big, 1 << 20, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(rc, TG_ERR_IO);
    assert_non_null(strstr(err.msg, path));
    assert_int_equal(names_in(dir), 0);
    tg_free(big);
    tg_free(path);
    tg_free(tmp);
    tg_free(dir);
}

static void check_content(const char *dir, const char *name, const char *want)
{
    char *path = tg_path_join(dir, name), *text = NULL;
    size_t len;
    struct tg_err err = {0};
    int rc = tg_file_read(path, 100, &text, &len, &err);
    if (!want)
        assert_int_equal(rc, TG_ERR_IO);
    else
        assert_string_equal(text, want);
    if (rc == TG_OK)
        tg_free(text);
    tg_free(path);
}

static void test_dir(void **state)
{
    (void)state;
    struct tg_err err = {0};
    char *dir = in_scratch("tree/x/out/"), *parent = in_scratch("tree/x"), *tmp, *f;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(tg_dir_begin(dir, round == 1, &tmp, &err), TG_OK);
        f = tg_path_join(tmp, round ? "new" : "old");
        assert_int_equal(tg_file_write(f, round ? "2" : "1", 1, &err), TG_OK);
        tg_free(f);
        assert_int_equal(tg_dir_commit(tmp, dir, &err), TG_OK);
        assert_false(tg_path_exists(tmp));
        tg_free(tmp);
        check_content(dir, "old", round ? NULL : "1");
        check_content(dir, "new", round ? "2" : NULL);
        assert_int_equal(tg_dir_begin(dir, false, &tmp, &err), TG_ERR_EXISTS);
        assert_null(tmp);
    }
    /* A stale temporary of a killed run is emptied. */
    char *stale = in_scratch("tree/x/out.tmp/deep/er");
    assert_int_equal(tg_dir_make(stale, &err), TG_OK);
    assert_int_equal(tg_dir_begin(dir, true, &tmp, &err), TG_OK);
    assert_false(tg_path_exists(stale));
    assert_true(tg_path_is_dir(tmp));
    tg_free(stale);
    tg_free(tmp);
    assert_int_equal(tg_dir_remove(parent, &err), TG_OK);
    assert_false(tg_path_exists(parent));
    assert_int_equal(tg_dir_remove(parent, &err), TG_OK);
    char *join = tg_path_join("a/", "b"), *bare = tg_path_join("", "b");
    assert_string_equal(join, "a/b");
    assert_string_equal(bare, "b");
    assert_string_equal(tg_path_base("x/y/z.t"), "z.t");
    assert_int_equal(tg_dir_make("/dev/null/x", &err), TG_ERR_IO);
    assert_non_null(strstr(err.msg, "/dev/null"));
    tg_free(join);
    tg_free(bare);
    tg_free(parent);
    tg_free(dir);
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_mem),
        cmocka_unit_test(test_strbuf),
        cmocka_unit_test(test_cursor),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_rng),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test_setup_teardown(test_dir, NULL, remove_scratch),
    };
    snprintf(scratch, sizeof scratch, "/tmp/tegu-base-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    return tg_run_tests("base", tests, sizeof tests / sizeof *tests);
}
