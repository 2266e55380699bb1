/* Tokenizers against HF tokenizers and SentencePiece: every DIR/<kind>/tokenizer.json or
 * tokenizer.model with its golden.jsonl (text, ids, ids_no_special, decoded). DIR is the first
 * argument, tests/data/tokenizers by default. A folder may hold golden.jsonl alone: its tokenizer
 * is then that of the default folder. */
#include "tests/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/tokenizer/tokenizer.h"

#define DATA "tests/data/tokenizers"
static const char *data = DATA;

/* ---- golden files ---- */

static bool same_ids(const struct tg_ids *got, struct tg_json want)
{
    size_t i = 0;
    for (struct tg_json c = tg_json_first(want); c.node; c = tg_json_next(c), i++)
        if (i >= got->count || got->data[i] != (int32_t)tg_json_number(c))
            return false;
    return i == got->count;
}

/* base/json.h refuses \u0000, which golden texts hold: before parsing it becomes U+10FFFF, which
 * they do not, and back. */
#define NUL_STAND_IN "\xF4\x8F\xBF\xBF"
static void hide_nuls(struct tg_strbuf *out, const char *line, size_t len)
{
    for (size_t i = 0, n; i < len; i += n) {
        n = line[i] == '\\' && i + 1 < len ? 2 : 1;
        bool nul = n == 2 && i + 6 <= len && memcmp(line + i, "\\u0000", 6) == 0;
        n = nul ? 6 : n;
        tg_strbuf_add(out, nul ? NUL_STAND_IN : line + i, nul ? 4 : n);
    }
}

static void show_nuls(struct tg_strbuf *out, const char *s)
{
    for (const char *at; (at = strstr(s, NUL_STAND_IN)); s = at + 4) {
        tg_strbuf_add(out, s, (size_t)(at - s));
        tg_strbuf_add(out, "", 1);
    }
    tg_strbuf_puts(out, s);
}

/* One line; prints and returns false on the first difference. */
static bool check_line(const struct tg_tokenizer *t, const char *line, size_t len, size_t number)
{
    struct tg_err err = {0};
    struct tg_json_doc *doc;
    struct tg_ids ids[2] = {{0}};
    struct tg_strbuf hidden, in, want;
    char *text = NULL;
    const char *part = "encode";
    size_t text_len = 0;
    tg_strbuf_init(&hidden, SIZE_MAX);
    tg_strbuf_init(&in, SIZE_MAX);
    tg_strbuf_init(&want, SIZE_MAX);
    hide_nuls(&hidden, line, len);
    if (tg_json_parse(&doc, hidden.text, hidden.len, "golden.jsonl", 0, &err) != TG_OK)
        fail_msg("line %zu: %s", number, err.msg);
    struct tg_json o = tg_json_root(doc);
    show_nuls(&in, tg_json_string(tg_json_key(o, "text")));
    show_nuls(&want, tg_json_string(tg_json_key(o, "decoded")));
    bool ok = true;
    for (int i = 0; i < 2; i++)
        ok = ok && tg_tokenizer_encode(t, in.text, in.len, i == 0, &ids[i], &err) == TG_OK;
    if (ok)
        ok = same_ids(&ids[0], tg_json_key(o, part = "ids"));
    if (ok)
        ok = same_ids(&ids[1], tg_json_key(o, part = "ids_no_special"));
    if (ok) {
        part = "decoded";
        ok = tg_tokenizer_decode(t, ids[0].data, ids[0].count, true, &text, &text_len, &err) ==
                 TG_OK &&
             text_len == want.len && memcmp(text, want.text, text_len) == 0;
    }
    if (!ok)
        print_error("line %zu: '%.80s': %s differs %s\n", number, in.text, part, err.msg);
    tg_free(text);
    tg_ids_release(&ids[0]);
    tg_ids_release(&ids[1]);
    tg_json_free(doc);
    tg_strbuf_release(&hidden);
    tg_strbuf_release(&in);
    tg_strbuf_release(&want);
    return ok;
}

static struct tg_tokenizer *load_kind(const char *folder, const char *kind)
{
    struct tg_err err = {0};
    struct tg_tokenizer *t;
    static const char *const names[] = {"tokenizer.json", "tokenizer.model"};
    char path[1200];
    bool own = false;
    for (size_t i = 0; i < 2 && !own; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", folder, kind, names[i]);
        own = tg_path_exists(path);
    }
    snprintf(path, sizeof path, "%s/%s", own ? folder : DATA, kind);
    if (tg_tokenizer_load(&t, path, 0, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return t;
}

static void test_golden(void **state)
{
    const char *kind = *state;
    struct tg_err err = {0};
    char path[1200], *text;
    size_t len, lines = 0, bad = 0;
    struct tg_tokenizer *t = load_kind(data, kind);
    snprintf(path, sizeof path, "%s/%s/golden.jsonl", data, kind);
    if (tg_file_read(path, 1 << 28, &text, &len, &err) != TG_OK)
        fail_msg("%s", err.msg);
    for (char *at = text; at < text + len; lines++) {
        char *end = strchr(at, '\n');
        size_t n = end ? (size_t)(end - at) : strlen(at);
        bad += !check_line(t, at, n, lines + 1);
        at += n + 1;
    }
    tg_free(text);
    tg_tokenizer_free(t);
    print_message("%s: %zu of %zu texts equal\n", kind, lines - bad, lines);
    assert_true(lines > 0);
    assert_int_equal(bad, 0);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct CMUnitTest *)a)->name, ((const struct CMUnitTest *)b)->name);
}

int main(int argc, char **argv)
{
    enum { MAX_KINDS = 256 };
    static struct CMUnitTest tests[MAX_KINDS];
    size_t count = 0;
    struct dirent *d;
    data = argc > 1 ? argv[1] : DATA;
    DIR *dir = opendir(data);
    if (!dir) {
        fprintf(stderr, "%s: cannot be opened\n0 passed, 1 failed\n", data);
        return 1;
    }
    while ((d = readdir(dir)) && count < MAX_KINDS) {
        char *kind = d->d_name[0] != '.' ? tg_strdup(d->d_name) : NULL;
        if (kind)
            tests[count++] = (struct CMUnitTest){kind, test_golden, NULL, NULL, kind};
    }
    closedir(dir);
    qsort(tests, count, sizeof *tests, by_name);
    return tg_run_tests("tokenizers", tests, count);
}
