#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <zlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/corpus.h"
#include "formats/tensors.h"

static char scratch[64];
static struct tg_err err;
static const size_t roomy = 1 << 20;

static char *put(const char *name, const void *bytes, size_t n)
{
    char *path = tg_path_join(scratch, name);
    assert_non_null(path);
    FILE *f = fopen(path, "wb"); /* thousands of files: without tg_file_write's fsync */
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

/* `text` as one gzip member, appended to out; returns the new length. */
static size_t gzip(const char *text, size_t n, unsigned char *out, size_t at, size_t room)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)text;
    z.avail_in = (unsigned)n;
    z.next_out = out + at;
    z.avail_out = (unsigned)(room - at);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    at += z.total_out;
    deflateEnd(&z);
    return at;
}

static int read_text(const char *path, size_t max, const char *want)
{
    char *text = NULL;
    size_t len = 0;
    memset(&err, 0, sizeof err);
    int rc = tg_text_read(path, max, &text, &len, &err);
    if (rc == TG_OK) {
        assert_int_equal(len, strlen(want));
        assert_string_equal(text, want);
        tg_free(text);
    } else {
        assert_non_null(strstr(err.msg, path));
    }
    return rc;
}

static void test_text(void **state)
{
    (void)state;
    char *path = put("plain", "caf\xC3\xA9\n", 6);
    assert_int_equal(read_text(path, 6, "caf\xC3\xA9\n"), TG_OK);
    assert_int_equal(read_text(path, 5, ""), TG_ERR_VALUE);
    tg_free(path);
    path = put("latin", "0123456789caf\xE9 x", 16);
    assert_int_equal(read_text(path, roomy, ""), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "at byte 13"));
    tg_free(path);
    path = put("empty", "", 0);
    assert_int_equal(read_text(path, roomy, ""), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "empty"));
    tg_free(path);
    assert_int_equal(read_text("/nonexistent/text", roomy, ""), TG_ERR_IO);
    assert_int_equal(read_text("/tmp", roomy, ""), TG_ERR_IO);
}

static void test_gzip(void **state)
{
    (void)state;
    unsigned char z[4096];
    static const char want[] = "first member. second member. ";
    size_t one = gzip(want, 14, z, 0, sizeof z),
           two = gzip(want + 14, strlen(want) - 14, z, one, sizeof z);
    char *path = put("two.gz", z, two);
    assert_int_equal(read_text(path, roomy, want), TG_OK);
    assert_int_equal(read_text(path, strlen(want), want), TG_OK);
    assert_int_equal(read_text(path, strlen(want) - 1, ""), TG_ERR_VALUE);
    tg_free(path);
    for (size_t n = 2; n < two; n++) { /* cut anywhere but between the members */
        path = put("cut.gz", z, n);
        int rc = read_text(path, roomy, "first member. ");
        assert_int_equal(rc, n == one ? TG_OK : TG_ERR_FORMAT);
        tg_free(path);
    }
    for (size_t at = one - 8; at < one; at++) { /* CRC and length of the first member */
        z[at] ^= 1;
        path = put("crc.gz", z, two);
        assert_int_equal(read_text(path, roomy, ""), TG_ERR_FORMAT);
        tg_free(path);
        z[at] ^= 1;
    }
    memset(z + two, 0, 100);
    path = put("padded.gz", z, two + 100);
    assert_int_equal(read_text(path, roomy, want), TG_OK);
    tg_free(path);
    z[two] = 'x';
    path = put("trailing.gz", z, two + 100);
    assert_int_equal(read_text(path, roomy, ""), TG_ERR_FORMAT);
    tg_free(path);
    path = put("none.gz", z, gzip("", 0, z, 0, sizeof z));
    assert_int_equal(read_text(path, roomy, ""), TG_ERR_VALUE);
    tg_free(path);

    /* A bomb stops at the bound, whatever it would grow to; a large text passes the buffer's steps.
     */
    size_t big = 3000000;
    char *text = tg_alloc(big + 1);
    memset(text, 'a', big);
    path = put("big.gz", z, gzip(text, big, z, 0, sizeof z));
    assert_int_equal(read_text(path, 100000, ""), TG_ERR_VALUE);
    assert_int_equal(read_text(path, big - 1, ""), TG_ERR_VALUE);
    assert_int_equal(read_text(path, big, text), TG_OK);
    tg_free(path);
    tg_free(text);
}

static void test_jsonl(void **state)
{
    (void)state;
    static const char good[] =
        "{\"text\":\"one\\n\"}\n\n  \r\n{\"id\":3,\"text\":\"tw\\u00f6\"}\n{\"text\":\"\"}";
    char *path = put("good.jsonl", good, strlen(good));
    assert_int_equal(read_text(path, roomy, "one\ntw\xC3\xB6"), TG_OK);
    tg_free(path);
    unsigned char z[1024];
    path = put("good.jsonl.gz", z, gzip(good, strlen(good), z, 0, sizeof z));
    assert_int_equal(read_text(path, roomy, "one\ntw\xC3\xB6"), TG_OK);
    tg_free(path);
    path = put("good.txt", good, strlen(good)); /* the name decides */
    assert_int_equal(read_text(path, roomy, good), TG_OK);
    tg_free(path);
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"{\"text\":\"a\"}\n{\"text\":1}\n", "line 2: not an object with a string"},
        {"{\"text\":\"a\"}\n\n{\"txt\":\"b\"}\n", "line 3"},
        {"{\"text\":\"a\"}\n{\"text\":\"b\"\n", "line 2"},
        {"[1]", "line 1"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "stands twice"},
        {"{\"text\":\"\"}", "empty"},
        {"\n\n", "empty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        path = put("bad.jsonl", bad[i].text, strlen(bad[i].text));
        int rc = read_text(path, roomy, "");
        if (rc == TG_OK || !strstr(err.msg, bad[i].why))
            fail_msg("%s: %d %s", bad[i].text, rc, err.msg);
        tg_free(path);
    }
}

static void test_spec(void **state)
{
    (void)state;
    static const struct {
        const char *arg, *path; /* path NULL: refused */
        double begin, end;
        bool begin_share, end_share;
    } rows[] = {
        {"a.txt", "a.txt", 0, INFINITY, false, false},
        {"a.txt@0:85%", "a.txt", 0, 0.85, false, true},
        {"a.txt@85%:100%", "a.txt", 0.85, 1, true, true},
        {"a.txt@0:100000", "a.txt", 0, 100000, false, false},
        {"a.txt@300k:1.5M", "a.txt", 300000, 1500000, false, false},
        {"a.txt@50%:", "a.txt", 0.5, INFINITY, true, false},
        {"a.txt@:10", "a.txt", 0, 10, false, false},
        {"me@home/a.txt", "me@home/a.txt", 0, INFINITY, false, false},
        {"a@b.txt", "a@b.txt", 0, INFINITY, false, false},
        {"a@b.txt@1:2", "a@b.txt", 1, 2, false, false},
        {"a.txt@85%", NULL, 0, 0, false, false},
        {"a.txt@0:101%", NULL, 0, 0, false, false},
        {"a.txt@50%:20%", NULL, 0, 0, false, false},
        {"a.txt@5:5", NULL, 0, 0, false, false},
        {"a.txt@1:2:3", NULL, 0, 0, false, false},
        {"a.txt@1k5:2", NULL, 0, 0, false, false},
        {"a.txt@", NULL, 0, 0, false, false},
        {"@1:2", NULL, 0, 0, false, false},
        {"", NULL, 0, 0, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_corpus_spec s;
        int rc = tg_corpus_spec_parse(rows[i].arg, &s, &err);
        assert_int_equal(rc, rows[i].path ? TG_OK : TG_ERR_VALUE);
        if (rc != TG_OK)
            continue;
        assert_string_equal(s.path, rows[i].path);
        if (fabs(s.begin - rows[i].begin) > 1e-12 ||
            (s.end != rows[i].end && fabs(s.end - rows[i].end) > 1e-12) ||
            s.begin_share != rows[i].begin_share || s.end_share != rows[i].end_share)
            fail_msg("%s: %g %g", rows[i].arg, s.begin, s.end);
        tg_corpus_spec_release(&s);
    }
}

/* Reads what `part` names of the file and returns the status. */
static int read_part(const char *path, const char *part, const struct tg_tokenizer *tok,
                     size_t limit, struct tg_ids *ids)
{
    struct tg_strbuf arg;
    struct tg_corpus_spec spec;
    tg_strbuf_init(&arg, 1000);
    tg_strbuf_printf(&arg, "%s%s", path, part);
    memset(&err, 0, sizeof err);
    assert_int_equal(tg_corpus_spec_parse(arg.text, &spec, &err), TG_OK);
    int rc = tg_corpus_read(&spec, tok, limit, ids, &err);
    tg_corpus_spec_release(&spec);
    tg_strbuf_release(&arg);
    if (rc != TG_OK)
        assert_non_null(strstr(err.msg, path));
    return rc;
}

static size_t npy(unsigned char *out, const char *dict, int version, const void *data, size_t bytes)
{
    size_t n = strlen(dict), at = version == 1 ? 10 : 12;
    memcpy(out, "\x93NUMPY", 6);
    out[6] = (unsigned char)version;
    out[7] = 0;
    for (size_t i = 8; i < at; i++)
        out[i] = (unsigned char)(n >> (8 * (i - 8)));
    memcpy(out + at, dict, n);
    memcpy(out + at + n, data, bytes);
    return at + n + bytes;
}

static void test_token_files(void **state)
{
    (void)state;
    static const int32_t i4[] = {1, 2, 70000};
    static const int64_t i8[] = {1, 2, 70000}, negative[] = {1, -2},
                         large[] = {1, (int64_t)1 << 40};
    static const uint16_t u2[] = {1, 2, 65535};
    static const struct {
        const char *dict;
        int version;
        const void *data;
        size_t bytes;
        int32_t last;    /* of three, or */
        const char *why; /* the error */
    } rows[] = {
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }   \n", 1, i4, 12, 70000, NULL},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n", 2, i8, 24, 70000, NULL},
        {"{'shape': (3,), 'fortran_order': True, 'descr': '<u2'}\n", 3, u2, 6, 65535, NULL},
        {"{'descr': '<u4', 'fortran_order': False, 'shape': (3,), }\n", 1, i4, 12, 70000, NULL},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", 1, i4, 12, 0, "type '<f4'"},
        {"{'descr': '>i4', 'fortran_order': False, 'shape': (3,), }\n", 1, i4, 12, 0, "type '>i4'"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (1,3), }\n", 1, i4, 12, 0,
         "one dimension"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (), }\n", 1, i4, 12, 0,
         "one dimension"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (4,), }\n", 1, i4, 12, 0,
         "4 elements, but 12 bytes"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n", 1, i4, 12, 0,
         "2 elements, but 12 bytes"},
        {"{'descr': '<i8', 'shape': (99999999999999999999999,), }\n", 1, i8, 24, 0,
         "one dimension"},
        {"{'descr': '<i8', 'shape': (900000000000000000,), }\n", 1, i8, 24, 0, "elements, but"},
        {"{'descr': '<i4', }\n", 1, i4, 12, 0, "without 'shape'"},
        {"{'shape': (3,), }\n", 1, i4, 12, 0, "without 'descr'"},
        {"{'descr' '<i4', 'shape': (3,), }\n", 1, i4, 12, 0, "without 'descr'"},
        {"", 1, i4, 12, 0, "without 'descr'"},
        {"{'descr': '|u1', 'shape': (3,), }\n", 1, i4, 12, 0, "type '|u1'"},
        {"{'descr': 4, 'shape': (3,), }\n", 1, i4, 12, 0, "type 4, 'shap"},
        {"{'descr': '<i4', 'shape': [3], }\n", 1, i4, 12, 0, "shape [3]"},
        {"{'descr': '<i4', 'shape': (3), }\n", 1, i4, 12, 0, "shape (3)"},
        {"{'descr': '<i4', 'shape': (-3,), }\n", 1, i4, 12, 0, "shape (-3,)"},
        {"{'descr': '<i4', 'shape': (3.0,), }\n", 1, i4, 12, 0, "shape (3.0,)"},
        {"{'descr': '<i4', 'shape': (3,", 1, i4, 12, 0, "shape (3,"},
        {"{'descr': '<i8', 'shape': (2,), }\n", 1, negative, 16, 0, "token 1 has the id -2"},
        {"{'descr': '<i8', 'shape': (2,), }\n", 1, large, 16, 0,
         "token 1 has the id 1099511627776"},
        {"{'descr': '<i8', 'shape': (0,), }\n", 1, large, 0, 0, "no tokens"},
        {"{'descr': '<i4', 'shape': (3,), }\n", 9, i4, 12, 0, "version 9 is not"},
        {"{'descr': '<i4', 'shape': (3,), }\n", 0, i4, 12, 0, "version 0 is not"},
    };
    unsigned char file[512];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_ids ids = {0};
        char *path = put("ids.npy", file,
                         npy(file, rows[i].dict, rows[i].version, rows[i].data, rows[i].bytes));
        int rc = read_part(path, "", NULL, 0, &ids);
        if ((rc == TG_OK) != !rows[i].why || (rows[i].why && !strstr(err.msg, rows[i].why)))
            fail_msg("%s: %d %s", rows[i].dict, rc, err.msg);
        assert_int_equal(ids.count, rc == TG_OK ? 3 : 0);
        if (rc == TG_OK)
            assert_true(ids.data[0] == 1 && ids.data[1] == 2 && ids.data[2] == rows[i].last);
        if (rc == TG_OK) {
            assert_int_equal(read_part(path, "", NULL, (size_t)rows[i].last, &ids), TG_ERR_VALUE);
            assert_non_null(strstr(err.msg, "the vocabulary ends at"));
            assert_int_equal(ids.count, 3);
            assert_int_equal(read_part(path, "@1:2", NULL, (size_t)rows[i].last + 1, &ids),
                             TG_OK); /* appended */
            assert_true(ids.count == 4 && ids.data[3] == 2);
        }
        tg_ids_release(&ids);
        tg_free(path);
    }
    /* safetensors: a batch is read row after row */
    struct tg_ids ids = {0};
    char *path = tg_path_join(scratch, "ids.safetensors");
    static const char *const names[] = {"other", "input_ids"};
    for (size_t k = 0; k < 2; k++) {
        struct tg_tensor_plan plan[2] = {{names[k], TG_I32, 2, {1, 3}}, {"x", TG_F32, 1, {1}}};
        struct tg_tensor_writer *w;
        assert_int_equal(tg_tensor_writer_open(&w, path, plan, 2, &tg_write_single, &err), TG_OK);
        assert_int_equal(tg_tensor_writer_put_raw(w, i4, &err), TG_OK);
        assert_int_equal(tg_tensor_writer_put_f32(w, &(float){1}, &err), TG_OK);
        assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
        tg_tensor_writer_close(w);
        assert_int_equal(read_part(path, "", NULL, 0, &ids), k ? TG_OK : TG_ERR_FORMAT);
    }
    assert_true(ids.count == 3 && ids.data[2] == 70000);
    tg_ids_release(&ids);
    tg_free(path);
}

/* Reads the bytes as a file of ids, which must fail with a message that names file and `why`. */
/* The same file compressed is the same ids; a compressed text by that name is no array. */
static void test_npy_gz(void **state)
{
    static const int32_t want[] = {1, 2, 70000};
    static const char dict[] = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }\n";
    unsigned char file[200], packed[400];
    size_t n = npy(file, dict, 1, want, sizeof want);
    size_t size = gzip((const char *)file, n, packed, 0, sizeof packed);
    struct tg_ids ids = {0};
    struct tg_corpus_spec spec = {.path = put("ids.npy.gz", packed, size), .end = INFINITY};
    (void)state;
    assert_int_equal(tg_corpus_read(&spec, NULL, 0, &ids, &err), TG_OK);
    assert_int_equal(ids.count, 3);
    assert_memory_equal(ids.data, want, sizeof want);
    tg_free(spec.path);
    size = gzip("words", 5, packed, 0, sizeof packed);
    spec.path = put("words.npy.gz", packed, size);
    assert_int_equal(tg_corpus_read(&spec, NULL, 0, &ids, &err), TG_ERR_FORMAT);
    assert_int_equal(ids.count, 3);
    tg_ids_release(&ids);
    tg_free(spec.path);
}

static void refuse_npy(const unsigned char *bytes, size_t n, const char *why)
{
    struct tg_ids ids = {0};
    char *path = put("bad.npy", bytes, n);
    const int rc = read_part(path, "", NULL, 0, &ids);
    if (rc == TG_OK || !strstr(err.msg, why))
        fail_msg("%zu bytes: %d %s; expected: %s", n, rc, err.msg, why);
    assert_int_equal(ids.count, 0);
    tg_ids_release(&ids);
    tg_free(path);
}

/* Cut at every byte, and the length wrong in each of its bytes. */
static void test_npy_header(void **state)
{
    (void)state;
    static const char dict[] = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }   \n";
    static const int32_t data[] = {1, 2, 3};
    static const unsigned char wrong[] = {1, 2, 4, 12, 13, 127, 255, 254, 250, 249, 200};
    unsigned char file[512];
    char why[96];
    for (int version = 1; version <= 3; version++) {
        const size_t whole = npy(file, dict, version, data, 12), head = whole - 12,
                     length = sizeof dict - 1, width = version == 1 ? 2 : 4;
        for (size_t n = 0; n < whole; n++) {
            if (n < 6)
                snprintf(why, sizeof why, "text needs a tokenizer");
            else if (n < head)
                snprintf(why, sizeof why, "ends beyond the file's %zu bytes", n);
            else
                snprintf(why, sizeof why, "3 elements, but %zu bytes of data", n - head);
            refuse_npy(file, n, why);
        }
        for (size_t at = 0; at < width; at++) {
            const unsigned char keep = file[8 + at];
            for (size_t k = 0; k < sizeof wrong; k++) {
                const unsigned char value = (unsigned char)(keep + wrong[k]);
                const size_t says = (length & ~((size_t)255 << (8 * at))) | (size_t)value
                                                                                << (8 * at);
                if (says >= 1024)
                    snprintf(why, sizeof why, "a length of %zu bytes, limit 1023", says);
                else if (says > length + 12)
                    snprintf(why, sizeof why, "ends beyond the file's %zu bytes", whole);
                else if (says >
                         strlen("{'descr': '<i4', 'fortran_order': False, 'shape': (3,)") - 1)
                    snprintf(why, sizeof why, "3 elements, but %zu bytes",
                             whole - (head - length) - says);
                else
                    snprintf(why, sizeof why, ".npy ");
                file[8 + at] = value;
                refuse_npy(file, whole, why);
            }
            file[8 + at] = keep;
        }
    }
}

static size_t peak_memory(void)
{
    struct rusage u;
    assert_int_equal(getrusage(RUSAGE_SELF, &u), 0);
    return (size_t)u.ru_maxrss << 10;
}

/* What would grow to 256 MiB, as one member and as 256, is refused at the stated maximum while
 * little more than that is held. */
static void test_bombs(void **state)
{
    (void)state;
    enum { PIECE = 1 << 20, PIECES = 256, MAX = 1 << 20, ALLOWED = 16 << 20, ROOM = 1 << 20 };
    unsigned char *z = tg_alloc(ROOM);
    char *text = tg_alloc(PIECE), why[64];
    size_t n = 0, one = 0;
    z_stream s = {0};
    memset(text, 'a', PIECE);
    assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    s.next_out = z;
    s.avail_out = ROOM;
    for (int i = 0; i < PIECES; i++) {
        s.next_in = (unsigned char *)text;
        s.avail_in = PIECE;
        assert_true(deflate(&s, i + 1 < PIECES ? Z_NO_FLUSH : Z_FINISH) >= 0);
    }
    one = s.total_out;
    deflateEnd(&s);
    assert_in_range(one, 1, (size_t)PIECE * PIECES / 1000);
    char *single = put("bomb.gz", z, one);
    one = gzip(text, PIECE, z, 0, ROOM);
    for (n = one; n < one * PIECES; n += one)
        memcpy(z + n, z, one);
    char *members = put("bomb.jsonl.gz", z, n);

    const size_t before = peak_memory();
    snprintf(why, sizeof why, "larger than %d bytes", MAX);
    assert_int_equal(read_text(single, MAX, ""), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, why));
    assert_int_equal(read_text(members, MAX, ""), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, why));
    assert_in_range(peak_memory() - before, 0, ALLOWED);
    tg_free(single);
    tg_free(members);
    tg_free(text);
    tg_free(z);
}

static void test_encoded(void **state)
{
    (void)state;
    struct tg_tokenizer *tok;
    struct tg_ids all = {0}, ids = {0}, parts = {0};
    if (tg_tokenizer_load(&tok, "examples/teacher-8m", 0, &err) != TG_OK)
        fail_msg("%s", err.msg);
    struct tg_strbuf s;
    tg_strbuf_init(&s, 100000);
    for (int i = 0; i < 200; i++)
        tg_strbuf_printf(&s, "Line %d of the text, with a few words.\n", i * 7);
    assert_int_equal(tg_tokenizer_encode(tok, s.text, s.len, false, &all, &err), TG_OK);
    char *path = put("text.txt", s.text, s.len);
    assert_int_equal(read_part(path, "", NULL, 0, &ids), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "needs a tokenizer"));
    assert_int_equal(read_part(path, "", tok, 0, &ids), TG_OK);
    assert_int_equal(ids.count, all.count);
    assert_memory_equal(ids.data, all.data, all.count * sizeof *all.data);

    /* Neighbouring parts make up the whole, whatever the percent. */
    static const char *const halves[][2] = {
        {"@0:85%", "@85%:100%"}, {"@:33.3%", "@33.3%:"}, {"@0:17", "@17:"}};
    for (size_t i = 0; i < 3; i++) {
        parts.count = 0;
        assert_int_equal(read_part(path, halves[i][0], tok, 0, &parts), TG_OK);
        assert_in_range(parts.count, 1, all.count - 1);
        assert_int_equal(read_part(path, halves[i][1], tok, 0, &parts), TG_OK);
        assert_int_equal(parts.count, all.count);
        assert_memory_equal(parts.data, all.data, all.count * sizeof *all.data);
    }
    assert_int_equal(read_part(path, "@0:1M", tok, 0, &parts),
                     TG_ERR_VALUE); /* more than there are */
    assert_int_equal(read_part(path, "@1M:", tok, 0, &parts), TG_ERR_VALUE);
    assert_int_equal(read_part(path, "@0:0.001%", tok, 0, &parts), TG_ERR_VALUE);
    assert_int_equal(read_part(path, "", tok, 2, &parts), TG_ERR_VALUE);
    assert_int_equal(parts.count, all.count);
    tg_free(path);

    static const char lines[] = "{\"text\":\"One document.\"}\n{\"text\":\" Another\"}\n";
    path = put("docs.jsonl", lines, strlen(lines));
    ids.count = all.count = 0;
    assert_int_equal(read_part(path, "", tok, 0, &ids), TG_OK);
    assert_int_equal(tg_tokenizer_encode(tok, "One document.", 13, false, &all, &err), TG_OK);
    assert_int_equal(tg_tokenizer_encode(tok, " Another", 8, false, &all, &err), TG_OK);
    assert_int_equal(ids.count, all.count);
    assert_memory_equal(ids.data, all.data, all.count * sizeof *all.data);
    tg_free(path);

    for (long n = 1;; n++) { /* memory exhausted at each allocation */
        path = put("torture.jsonl", lines, strlen(lines));
        ids.count = 0;
        struct tg_corpus_spec spec = {.path = path, .end = INFINITY};
        tg_mem_fail_after(n);
        int rc = tg_corpus_read(&spec, tok, 0, &ids, &err);
        tg_mem_fail_after(0);
        tg_free(path);
        if (rc == TG_OK)
            break;
        assert_int_equal(rc, TG_ERR_NOMEM);
        assert_int_equal(ids.count, 0);
    }
    tg_ids_release(&all);
    tg_ids_release(&ids);
    tg_ids_release(&parts);
    tg_strbuf_release(&s);
    tg_tokenizer_free(tok);
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bombs), /* before others raise the peak */
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_spec),
        cmocka_unit_test(test_token_files),
        cmocka_unit_test(test_npy_gz),
        cmocka_unit_test(test_npy_header),
        cmocka_unit_test_setup_teardown(test_encoded, NULL, remove_scratch),
    };
    snprintf(scratch, sizeof scratch, "/tmp/tegu-corpus-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    return tg_run_tests("corpus", tests, sizeof tests / sizeof *tests);
}
