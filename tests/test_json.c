#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"

static struct tg_err err;

static int parse(struct tg_json_doc **doc, const char *text, unsigned flags)
{
    memset(&err, 0, sizeof err);
    return tg_json_parse(doc, text, strlen(text), "doc.json", flags, &err);
}

static struct tg_json_doc *good(const char *text)
{
    struct tg_json_doc *doc;
    if (parse(&doc, text, 0) != TG_OK)
        fail_msg("%s: %s", text, err.msg);
    return doc;
}

/* Text that must be refused, and a part of the message. */
static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "ends where a value"},
        {" \n ", "ends where a value"},
        {"{\"a\":1,\"a\":2}", "\"a\" stands twice"},
        {"{\"a\":1,\"\\u0061\":2}", "stands twice"},
        {"{\"\xC3\xA9\":1,\"\\u00e9\":2}", "stands twice"},
        {"{\"\\ud83d\\ude00\":1,\"\xF0\x9F\x98\x80\":2}", "stands twice"},
        {"{\"x\":{\"b\":1},\"y\":{\"c\":1,\"d\":{\"c\":1},\"c\":3}}", "\"c\" stands twice"},
        {"{\"\":1,\"\":2}", "stands twice"},
        {"[1] 2", "column 5: bytes after"},
        {"[1]\n\nx", "line 3, column 1: bytes after"},
        {"{}}", "bytes after"},
        {"\"a\\u0000b\"", "\\u0000"},
        {"\"\\ud800\"", "surrogate"},
        {"\"\\ud800x\"", "surrogate"},
        {"\"\\udc00\"", "surrogate"},
        {"\"\\ud800\\ud800\"", "surrogate"},
        {"\"\\u12g4\"", "hexadecimal"},
        {"\"\\u12", "hexadecimal"},
        {"\"\\x\"", "escape"},
        {"\"\\", "escape"},
        {"\"abc", "without an end"},
        {"\"a\nb\"", "control character"},
        {"\"\xFF\"", "not valid UTF-8"},
        {"\"\xC0\x80\"", "not valid UTF-8"},
        {"\"\xE2\x82\"", "not valid UTF-8"},
        {"{\"\xED\xA0\x80\":1}", "not valid UTF-8"},
        {"\xFF", "not valid UTF-8"},
        {"\xEF\xBB\xBF{}", "not a value"},
        {"[1,]", "not a value"},
        {"[,1]", "not a value"},
        {"[1 2]", "',' or ']'"},
        {"{\"a\":1,}", "key in quotes"},
        {"{a:1}", "key in quotes"},
        {"{\"a\" 1}", "':'"},
        {"{\"a\":1 \"b\":2}", "',' or '}'"},
        {"[1", "',' or ']'"},
        {"{\"a\":1", "',' or '}'"},
        {"{\"a\":", "ends where"},
        {"01", "not a number"},
        {"-", "not a number"},
        {"+1", "not a value"},
        {"1.", "not a number"},
        {".5", "not a value"},
        {"1e", "not a number"},
        {"1e+", "not a number"},
        {"0x10", "bytes after"},
        {"1e999", "range of double"},
        {"-1e999", "range of double"},
        {"Infinity", "not a value"},
        {"-Infinity", "not a number"},
        {"NaN", "not a value"},
        {"nul", "not a value"},
        {"True", "not a value"},
        {"'a'", "not a value"},
        {"// x\n1", "not a value"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_json_doc *doc = (void *)1;
        int rc = parse(&doc, rows[i].text, 0);
        if (rc != TG_ERR_FORMAT || doc || !strstr(err.msg, rows[i].why) ||
            strncmp(err.msg, "doc.json: line ", 15) != 0)
            fail_msg("'%s' gave %d: %s", rows[i].text, rc, err.msg);
    }
    char digits[400];
    memset(digits, '9', 399);
    digits[399] = '\0';
    struct tg_json_doc *doc;
    assert_int_equal(parse(&doc, digits, 0), TG_ERR_FORMAT);
    assert_int_equal(tg_json_parse(&doc, "1\0", 2, "x", 0, &err),
                     TG_ERR_FORMAT); /* a NUL byte is no end */
    assert_int_equal(tg_json_parse(&doc, "[1\0]", 4, "x", 0, &err), TG_ERR_FORMAT);
}

static void test_depth(void **state)
{
    (void)state;
    for (int depth = 63; depth <= 66; depth++) {
        char text[200] = "";
        for (int i = 0; i < depth; i++) {
            text[i] = '[';
            text[depth + i] = ']';
        }
        struct tg_json_doc *doc;
        assert_int_equal(parse(&doc, text, 0), depth <= 64 ? TG_OK : TG_ERR_FORMAT);
        tg_json_free(doc);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double want;
    } rows[] = {
        {"0", 0},
        {"-0", -0.0},
        {"12", 12},
        {"-1.5e-3", -1.5e-3},
        {"1E5", 1e5},
        {"1e+2", 100},
        {"0.1", 0.1},
        {"1.7976931348623157e308", 1.7976931348623157e308},
        {"5e-324", 5e-324},
        {"1e-999", 0},
        {"0.1000000000000000055511151231257827021181583404541015625000000000000000001", 0.1},
        {"123456789012345678901234567890123456789012345678901234567890123456789012345678",
         1.2345678901234568e77},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[300];
        snprintf(text, sizeof text, "{\"before\":1,\"x\":%s,\"after\":[2]}", rows[i].text);
        struct tg_json_doc *doc = good(text);
        double got = tg_json_number(tg_json_key(tg_json_root(doc), "x"));
        assert_memory_equal(&got, &rows[i].want, sizeof got);
        assert_true(tg_json_number(tg_json_first(tg_json_key(tg_json_root(doc), "after"))) == 2);
        tg_json_free(doc);
    }
    struct tg_json_doc *doc;
    assert_int_equal(
        parse(&doc, "[1,NaN,{\"a\":-Infinity,\"b\":[NaN,2]},Infinity,3]", TG_JSON_INFINITY), TG_OK);
    struct tg_json v = tg_json_first(tg_json_root(doc));
    assert_true(tg_json_number(v) == 1);
    v = tg_json_next(v);
    assert_true(isnan(tg_json_number(v)));
    v = tg_json_next(v);
    assert_true(tg_json_number(tg_json_key(v, "a")) == -INFINITY);
    assert_true(isnan(tg_json_number(tg_json_first(tg_json_key(v, "b")))));
    assert_true(tg_json_number(tg_json_next(tg_json_first(tg_json_key(v, "b")))) == 2);
    v = tg_json_next(v);
    assert_true(tg_json_number(v) == INFINITY);
    v = tg_json_next(v);
    assert_true(tg_json_number(v) == 3 && !tg_json_next(v).node);
    tg_json_free(doc);
    static const char *const bad[] = {"Nan",   "-NaN", "Infinit", "Infinityx",
                                      "1e999", "-Inf", "[NaN1]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse(&doc, bad[i], TG_JSON_INFINITY), TG_ERR_FORMAT);
}

static void test_access(void **state)
{
    (void)state;
    struct tg_json_doc *doc =
        good("{\"a\":{\"b\":[1,{\"c\":true}],\"n\":null},\"s\":\"t\\u00e9\\n\\\"\\ud83d\\ude00\"}");
    struct tg_json root = tg_json_root(doc), a = tg_json_key(root, "a"), b = tg_json_key(a, "b");
    char path[64];
    assert_true(tg_json_is_object(root) && tg_json_is_array(b) && tg_json_count(b) == 2 &&
                tg_json_count(root) == 2);
    struct tg_json c = tg_json_key(tg_json_next(tg_json_first(b)), "c");
    assert_true(tg_json_is_bool(c) && tg_json_bool(c));
    assert_string_equal(tg_json_path(c, path, sizeof path), "a.b[1].c");
    assert_string_equal(tg_json_path(root, path, sizeof path), "");
    assert_string_equal(tg_json_path(c, path, 5), "a.b["); /* cut, never over */
    assert_string_equal(tg_json_name(c), "c");
    assert_true(tg_json_key(a, "n").node && !tg_json_has(tg_json_key(a, "n")));
    assert_false(tg_json_has(tg_json_key(root, "zz")));
    assert_false(tg_json_has(tg_json_key(b, "a")));
    assert_false(tg_json_has(tg_json_key(tg_json_key(root, "zz"), "y")));
    assert_string_equal(tg_json_string(tg_json_key(root, "s")), "t\xC3\xA9\n\"\xF0\x9F\x98\x80");
    assert_string_equal(tg_json_string(a), "");
    assert_false(tg_json_has(tg_json_key(root, "A"))); /* case counts */
    tg_json_free(doc);
    tg_json_free(NULL);
}

static void expect(int rc, int want, const char *why)
{
    if (rc != want || (why && !strstr(err.msg, why)))
        fail_msg("%d: %s (wanted %s)", rc, err.msg, why ? why : "");
    memset(&err, 0, sizeof err);
}

static void test_getters(void **state)
{
    (void)state;
    struct tg_json_doc *doc =
        good("{\"m\":{\"i\":3,\"f\":2.5,\"s\":\"x\",\"t\":true,\"z\":null,\"big\":9007199254740993,"
             "\"huge\":1e300,\"neg\":-4}}");
    struct tg_json m = tg_json_key(tg_json_root(doc), "m");
    int64_t i = -1;
    double d = -1;
    bool t = false;
    const char *s = NULL;
    expect(tg_json_get_int(m, "i", 0, 3, &i, &err), TG_OK, NULL);
    assert_int_equal(i, 3);
    expect(tg_json_get_int(m, "i", 4, 9, &i, &err), TG_ERR_VALUE,
           "doc.json: m.i: 3 is not in [4, 9]");
    expect(tg_json_get_int(m, "neg", 0, 9, &i, &err), TG_ERR_VALUE, "m.neg: -4");
    expect(tg_json_get_int(m, "f", 0, 9, &i, &err), TG_ERR_VALUE, "m.f: 2.5");
    expect(tg_json_get_int(m, "big", INT64_MIN, INT64_MAX, &i, &err), TG_ERR_VALUE, "2^53");
    expect(tg_json_get_int(m, "huge", INT64_MIN, INT64_MAX, &i, &err), TG_ERR_VALUE, "2^53");
    expect(tg_json_get_int(m, "s", 0, 9, &i, &err), TG_ERR_VALUE,
           "m.s: is a string, expected an integer");
    expect(tg_json_get_int(m, "none", 0, 9, &i, &err), TG_ERR_VALUE, "m.none: is missing");
    expect(tg_json_get_int(m, "z", 0, 9, &i, &err), TG_ERR_VALUE, "m.z: is null");
    expect(tg_json_get_int_or(m, "none", 0, 9, &i, &err), TG_OK, NULL);
    expect(tg_json_get_int_or(m, "z", 0, 9, &i, &err), TG_OK, NULL);
    assert_int_equal(i, 3);
    expect(tg_json_get_int_or(m, "t", 0, 9, &i, &err), TG_ERR_VALUE, "true or false");
    expect(tg_json_get_num(m, "f", 0, 2.5, &d, &err), TG_OK, NULL);
    assert_true(d == 2.5);
    expect(tg_json_get_num(m, "f", 0, 2, &d, &err), TG_ERR_VALUE, "m.f: 2.5 is not in [0, 2]");
    expect(tg_json_get_num_or(m, "none", 0, 2, &d, &err), TG_OK, NULL);
    expect(tg_json_get_bool_or(m, "t", &t, &err), TG_OK, NULL);
    assert_true(t);
    expect(tg_json_get_bool_or(m, "i", &t, &err), TG_ERR_VALUE,
           "is a number, expected true or false");
    expect(tg_json_get_str(m, "s", &s, &err), TG_OK, NULL);
    assert_string_equal(s, "x");
    expect(tg_json_get_str(m, "none", &s, &err), TG_ERR_VALUE, "is missing");
    expect(tg_json_get_str_or(m, "i", &s, &err), TG_ERR_VALUE, "expected a string");
    expect(tg_json_get_int(tg_json_key(m, "i"), "k", 0, 1, &i, &err), TG_ERR_VALUE,
           "m.i.k: the value around");
    expect(tg_json_get_int(tg_json_key(m, "none"), "k", 0, 1, &i, &err), TG_ERR_VALUE,
           "k: is missing");
    static const char *const known[] = {"i", "f", "s", "t", "z", "big", "huge", NULL};
    expect(tg_json_only_keys(m, known, &err), TG_ERR_VALUE, "m.neg: unknown key");
    static const char *const near[] = {"i", "f", "s", "t", "z", "big", "huge", "negg", "i", NULL};
    expect(tg_json_only_keys(m, near, &err), TG_ERR_VALUE, "did you mean \"negg\"?");
    tg_json_free(doc);

    /* a key too long to be compared is near nothing */
    char text[300] = "{\"";
    memset(text + 2, 'k', 200);
    memcpy(text + 202, "\":1}", 5);
    expect(tg_json_parse(&doc, text, strlen(text), "f", 0, &err), TG_OK, NULL);
    expect(tg_json_only_keys(tg_json_root(doc), known, &err), TG_ERR_VALUE, "unknown key");
    assert_null(strstr(err.msg, "did you mean"));
    tg_json_free(doc);
}

static void test_compare(void **state)
{
    static const struct {
        const char *a, *b, *where, *was, *is; /* where NULL: equal */
    } rows[] = {
        {"{\"x\":1,\"y\":[true,null]}", "{\"y\":[true,null],\"x\":1.0}", NULL, NULL, NULL},
        {"{\"x\":{\"y\":[1,2]}}", "{\"x\":{\"y\":[1,3]}}", "x.y[1]", "2", "3"},
        {"{\"x\":[1]}", "{\"x\":[1,{\"a\":2}]}", "x[1]", "absent", "{\"a\": 2}"},
        {"{\"x\":[1,2]}", "{\"x\":[1]}", "x[1]", "2", "absent"},
        {"{\"x\":1}", "{\"x\":1,\"z\":null}", "z", "absent", "null"},
        {"{\"x\":1,\"z\":\"a\"}", "{\"x\":1}", "z", "\"a\"", "absent"},
        {"{\"x\":\"1\"}", "{\"x\":1}", "x", "\"1\"", "1"},
        {"{\"x\":false}", "{\"x\":null}", "x", "false", "null"},
        {"{\"x\":[]}", "{\"x\":{}}", "x", "[]", "{}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_json_doc *a, *b;
        struct tg_json x, y;
        char buf[64];
        expect(tg_json_parse(&a, rows[i].a, strlen(rows[i].a), "a", 0, &err), TG_OK, NULL);
        expect(tg_json_parse(&b, rows[i].b, strlen(rows[i].b), "b", 0, &err), TG_OK, NULL);
        assert_int_equal(tg_json_equal(tg_json_root(a), tg_json_root(b), &x, &y), !rows[i].where);
        if (rows[i].where) {
            assert_string_equal(tg_json_path(x.node ? x : y, buf, sizeof buf), rows[i].where);
            assert_string_equal(tg_json_text(x, buf, sizeof buf), rows[i].was);
            assert_string_equal(tg_json_text(y, buf, sizeof buf), rows[i].is);
        }
        tg_json_free(a);
        tg_json_free(b);
    }
}

static void check_number(double v, const char *want)
{
    struct tg_strbuf s;
    struct tg_json_out j;
    tg_strbuf_init(&s, 1000);
    tg_jout_init(&j, &s, 0);
    tg_jout_num(&j, NULL, v);
    if (want)
        assert_string_equal(s.text, want);
    double back = strtod(s.text, NULL);
    assert_memory_equal(&back, &v, sizeof v);
    struct tg_json_doc *doc = good(s.text);
    tg_json_free(doc);
    tg_strbuf_release(&s);
}

static void test_writer(void **state)
{
    (void)state;
    struct tg_strbuf s;
    struct tg_json_out j;
    tg_strbuf_init(&s, 10000);
    tg_jout_init(&j, &s, 2);
    tg_jout_object(&j, NULL);
    tg_jout_str(&j, "k\"ey", "a\\b\n\x01\xC3\xA9\xFF");
    tg_jout_array(&j, "list");
    tg_jout_int(&j, NULL, -9007199254740992);
    tg_jout_num(&j, NULL, INFINITY);
    tg_jout_num(&j, NULL, -3);
    tg_jout_real(&j, NULL, -3);
    tg_jout_real(&j, NULL, 0.1);
    tg_jout_real(&j, NULL, 1e17);
    tg_jout_real(&j, NULL, NAN);
    tg_jout_object(&j, NULL);
    tg_jout_end_object(&j);
    tg_jout_bool(&j, NULL, false);
    tg_jout_null(&j, NULL);
    tg_jout_end_array(&j);
    tg_jout_array(&j, "none");
    tg_jout_end_array(&j);
    tg_jout_end_object(&j);
    assert_string_equal(
        s.text, "{\n  \"k\\\"ey\": \"a\\\\b\\n\\u0001\xC3\xA9\xEF\xBF\xBD\",\n  \"list\": [\n    "
                "-9007199254740992,\n    null,\n    -3,\n    -3.0,\n    0.1,\n    1e+17,\n    "
                "null,\n    {},\n    false,\n    null\n  ],\n  \"none\": []\n}");
    struct tg_json_doc *doc = good(s.text);
    struct tg_strbuf again;
    tg_strbuf_init(&again, 10000);
    tg_jout_init(&j, &again, 0);
    tg_jout_copy(&j, NULL, tg_json_root(doc));
    tg_json_free(doc);
    assert_string_equal(
        again.text,
        "{\"k\\\"ey\": \"a\\\\b\\n\\u0001\xC3\xA9\xEF\xBF\xBD\", \"list\": "
        "[-9007199254740992, null, -3, -3, 0.1, 1e+17, null, {}, false, null], \"none\": []}");
    tg_strbuf_release(&again);
    tg_strbuf_release(&s);
    check_number(0.1, "0.1");
    check_number(1e6, "1000000");
    check_number(-0.0, "-0");
    check_number(1.0 / 3, "0.3333333333333333");
    check_number(0.1f, "0.10000000149011612");
    check_number(1e22, "1e+22");
    check_number(5e-324, "5e-324");
    check_number(1.7976931348623157e308, "1.7976931348623157e+308");
    struct tg_rng r = tg_rng_make(3, 0);
    for (int i = 0; i < 20000; i++) {
        uint64_t u = tg_rng_u64(&r);
        double v;
        memcpy(&v, &u, 8);
        if (isfinite(v))
            check_number(v, NULL);
    }
}

/* Big vocabularies: linear time, and a duplicate among many is found. */
static void test_many_keys(void **state)
{
    (void)state;
    struct tg_strbuf s;
    tg_strbuf_init(&s, 1 << 24);
    tg_strbuf_puts(&s, "{\"first\":0");
    for (int i = 0; i < 150000; i++)
        tg_strbuf_printf(&s, ",\"token %d\":%d", i, i);
    size_t len = s.len;
    tg_strbuf_puts(&s, "}");
    struct tg_json_doc *doc = good(s.text);
    size_t n = 0;
    for (struct tg_json c = tg_json_first(tg_json_root(doc)); c.node; c = tg_json_next(c))
        n++;
    assert_int_equal(n, 150001);
    tg_json_free(doc);
    s.len = len;
    tg_strbuf_puts(&s, ",\"token \\u0037\":1}");
    assert_int_equal(parse(&doc, s.text, 0), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "stands twice"));
    tg_strbuf_release(&s);
}

/* No allocation failure leaks or is taken for success. */
static void test_torture(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":[1,NaN,\"x\"],\"b\":{\"c\":1},\"d\":{\"e\":2,\"f\":3}}";
    for (long n = 1;; n++) {
        struct tg_json_doc *doc;
        tg_mem_fail_after(n);
        int rc = parse(&doc, text, TG_JSON_INFINITY);
        tg_mem_fail_after(0);
        if (rc == TG_OK) {
            tg_json_free(doc);
            assert_true(n > 4);
            break;
        }
        assert_int_equal(rc, TG_ERR_NOMEM);
        assert_null(doc);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_depth),
        cmocka_unit_test(test_numbers),   cmocka_unit_test(test_access),
        cmocka_unit_test(test_getters),   cmocka_unit_test(test_writer),
        cmocka_unit_test(test_many_keys), cmocka_unit_test(test_torture),
        cmocka_unit_test(test_compare),
    };
    return tg_run_tests("json", tests, sizeof tests / sizeof *tests);
}
