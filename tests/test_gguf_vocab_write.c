/* Tokenizers written as the vocabulary of a GGUF file, against what Tegu reads out of that file
 * again: the same ids for the golden texts and for random ones. */
#include "tests/check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "formats/format.h"
#include "formats/gguf_vocab.h"
#include "formats/gguf_vocab_write.h"
#include "formats/tokenizer/pipeline.h"
#include "formats/tokenizer/sentencepiece.h"
#include "formats/tokenizer/splits.h"

#define DATA "tests/data/tokenizers/"

static char scratch[64];
static struct tg_err err;

/* ---- a written file ---- */

static const struct tg_gguf_value *find(const struct tg_gguf_list *l, const char *key)
{
    for (size_t i = 0; i < l->count; i++)
        if (!strcmp(l->items[i].key, key))
            return &l->items[i].value;
    return NULL;
}

static const char *text_of(const struct tg_gguf_list *l, const char *key)
{
    const struct tg_gguf_value *v = find(l, key);
    return v && v->type == TG_GGUF_STRING ? v->s.text : "";
}

static int64_t id_of(const struct tg_gguf_list *l, const char *key)
{
    const struct tg_gguf_value *v = find(l, key);
    return v ? (int64_t)v->u : -1;
}

static struct tg_tokenizer *through_file(const struct tg_gguf_list *keys)
{
    const struct tg_write_options o = {
        .format = &tg_format_gguf, .single = true, .kv = keys->items, .kvs = keys->count};
    char *path = tg_path_join(scratch, "made.gguf");
    struct tg_tensor_writer *w;
    struct tg_tensors *t;
    struct tg_tokenizer *tok;
    if (tg_tensor_writer_open(&w, path, NULL, 0, &o, &err) != TG_OK ||
        tg_tensor_writer_finish(w, &err) != TG_OK)
        fail_msg("%s", err.msg);
    tg_tensor_writer_close(w);
    assert_int_equal(tg_tensors_open(&t, path, &err), TG_OK);
    if (tg_gguf_tokenizer(&tok, t, 0, &err) != TG_OK)
        fail_msg("%s", err.msg);
    tg_tensors_close(t);
    tg_free(path);
    return tok;
}

/* ---- texts ---- */

/* Words, digits, spaces of all kinds, contractions, marks, other scripts, anything */
static size_t random_text(struct tg_rng *r, char *out, size_t most)
{
    static const char *const bits[] = {
        " ",  "  ", "\n",     "\r\n",   "\t",  "'s", "'LL",    "e",   "th",   "The",  "and",
        "Ab", "xY", "1",      "23",     "456", "!",  "?!",     "...", "(",    "_",    "$",
        "`",  "^",  "'",      "\"",     "é",   "ß",  "ñ",      "Ж",   "中",   "文",   "か",
        "カ", "가", "١",      "²",      "—",   "…",  "“",      "́",    "़",     "🙂", "ſ",
        "Ǆ",  "ǅ",  "\u00a0", "\u2003", "ﬁ",   "ª",  "\u200b", "ing", "q he", "q▁he",
    };
    size_t len = 0;
    for (size_t n = tg_rng_below(r, 24); n && len + 8 < most; n--) {
        if (tg_rng_below(r, 8)) {
            const char *s = bits[tg_rng_below(r, sizeof bits / sizeof *bits)];
            memcpy(out + len, s, strlen(s));
            len += strlen(s);
            continue;
        }
        uint32_t c = (uint32_t)tg_rng_below(r, tg_rng_below(r, 2) ? 0x3000 : 0x20000);
        if (c == 0 || (c >= 0xD800 && c < 0xE000))
            c = 'z';
        len += tg_utf8_encode(c, out + len);
    }
    out[len] = '\0';
    return len;
}

/* How texts are chosen and changed so that a GGUF file can give the same ids */
struct manner {
    bool nfc;      /* the tokenizer has it, the file not */
    bool no_space; /* a space goes before a text in any case, where the tokenizer looks first */
    bool no_names; /* texts with names of control tokens are left out */
};

static void same_ids(const struct tg_tokenizer *a, const struct tg_tokenizer *b, const char *s,
                     const struct manner *how, const char *what)
{
    struct tg_ids x = {0}, y = {0};
    utf8proc_uint8_t *normal = how->nfc ? utf8proc_NFC((const utf8proc_uint8_t *)s) : NULL;
    const char *t = normal ? (const char *)normal : s;
    const bool space = *t == ' ' || !strncmp(t, "\xE2\x96\x81", 3);
    const bool names = strstr(t, "<s>") || strstr(t, "</s>") || strstr(t, "<unk>");
    if (!(how->no_space && space) && !(how->no_names && names)) {
        assert_int_equal(tg_tokenizer_encode(a, t, strlen(t), true, &x, &err), TG_OK);
        assert_int_equal(tg_tokenizer_encode(b, t, strlen(t), true, &y, &err), TG_OK);
        for (size_t i = 0; i < x.count || i < y.count; i++)
            if (i >= x.count || i >= y.count || x.data[i] != y.data[i])
                fail_msg("%s: '%s' differs at token %zu of %zu, %zu", what, t, i, x.count, y.count);
    }
    tg_ids_release(&x);
    tg_ids_release(&y);
    free(normal);
}

static void same_on_texts(const struct tg_tokenizer *a, const struct tg_tokenizer *b,
                          const struct manner *how, uint64_t seed, const char *what)
{
    struct tg_rng r = tg_rng_make(seed, 1);
    char text[512];
    for (size_t i = 0; i < 3000; i++) {
        random_text(&r, text, sizeof text);
        same_ids(a, b, text, how, what);
    }
}

static void same_on_golden(const struct tg_tokenizer *a, const struct tg_tokenizer *b,
                           const struct manner *how, const char *folder)
{
    char path[200], *text;
    size_t len;
    snprintf(path, sizeof path, DATA "%s/golden.jsonl", folder);
    assert_int_equal(tg_file_read(path, 1 << 24, &text, &len, &err), TG_OK);
    for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1) {
        struct tg_json_doc *doc;
        if (tg_json_parse(&doc, at, (size_t)(end - at), "golden", 0, NULL) != TG_OK)
            continue; /* the one line with \u0000 */
        same_ids(a, b, tg_json_string(tg_json_key(tg_json_root(doc), "text")), how, folder);
        tg_json_free(doc);
    }
    tg_free(text);
}

/* ---- every folder ---- */

static const struct {
    const char *folder, *pre; /* NULL: refused */
    const char *why;
    struct manner how;
} folders[] = {
    {"books8k", "qwen2", NULL, {0}},
    {"gpt2", "gpt-2", NULL, {0}},
    {"llama3", "llama-bpe", NULL, {0}},
    {"qwen3_5", "qwen35", NULL, {.nfc = true}},
    {"smollm", "smollm", NULL, {0}},
    {"v_deepseek", "deepseek-v3", NULL, {0}},
    {"sp_bpe_llama", "default", NULL, {.no_names = true}},
    {"sp_bpe_bytes", NULL, "user-defined piece: '<sep>'", {0}},
    {"qwen2", NULL, "lstrip of 'lower'", {0}},
    {"gpt2_prefix_space", NULL, "add_prefix_space: 'true'", {0}},
    {"spbpe_llama2", NULL, "not every way to cut is there", {0}},
    {"spbpe_metaspace", NULL, "not every way to cut is there", {0}},
    {"c_gemma", NULL, "added_tokens: rstrip", {0}},
    {"c_ignore", NULL, "split of a Metaspace", {0}},
    {"c_normal", NULL, "normalizer: 'NFKD'", {0}},
    {"c_unk", NULL, "byte_fallback: 'false'", {0}},
    {"c_digits", NULL, "pre_tokenizer: 'Sequence'", {0}},
    {"sp_bpe", NULL, "precompiled_charsmap", {0}},
    {"unigram", NULL, "'Unigram'", {0}},
    {"sp_unigram", NULL, "'Unigram'", {0}},
    {"v_added_nfkc", NULL, "normalizer: 'NFKC'", {0}},
    {"v_crossed", NULL, "no pattern", {0}},
    {"v_digits", NULL, "'\\p{N}+' with ignore_merges false", {0}},
    {"v_missing", NULL, "without a token for the byte: '0x", {0}},
    {"v_no_decoder", NULL, "decoder", {0}},
    {"v_split_removed", NULL, "behavior: 'Removed'", {0}},
    {"v_split_string", NULL, "pattern: 'String'", {0}},
    {"v_escapes", NULL, "behavior: 'MergedWithPrevious'", {0}},
};

static void check_folder(const char *folder)
{
    char dir[300];
    struct tg_tokenizer *t, *back;
    struct tg_gguf_list keys = {0};
    size_t row = 0;
    while (row < sizeof folders / sizeof *folders && strcmp(folders[row].folder, folder) != 0)
        row++;
    const bool known = row < sizeof folders / sizeof *folders;
    snprintf(dir, sizeof dir, DATA "%s", folder);
    assert_int_equal(tg_tokenizer_load(&t, dir, 0, &err), TG_OK);
    const size_t vocab = tg_tokenizer_vocab(t) + 5;
    const int rc = tg_gguf_vocab_of(dir, vocab, NULL, &keys, &err);
    if (rc != TG_OK) {
        if ((known && (folders[row].pre || !strstr(err.msg, folders[row].why))) ||
            rc != TG_ERR_UNSUPPORTED || !strstr(err.msg, folder))
            fail_msg("%s: %s", folder, err.msg);
    } else {
        if (!known || !folders[row].pre ||
            strcmp(text_of(&keys, "tokenizer.ggml.pre"), folders[row].pre) != 0)
            fail_msg("%s: written with '%s'", folder, text_of(&keys, "tokenizer.ggml.pre"));
        char pad[32];
        back = through_file(&keys);
        snprintf(pad, sizeof pad, "[PAD%zu]", vocab - 1);
        assert_int_equal(tg_tokenizer_vocab(back), vocab);
        assert_int_equal(tg_tokenizer_id(back, pad), vocab - 1);
        same_on_golden(t, back, &folders[row].how, folder);
        same_on_texts(t, back, &folders[row].how, row, folder);
        tg_tokenizer_free(back);
    }
    tg_gguf_list_release(&keys);
    tg_tokenizer_free(t);
}

static void test_folders(void **state)
{
    size_t seen = 0;
    DIR *d = opendir(DATA);
    (void)state;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)); seen++)
        if (e->d_name[0] != '.')
            check_folder(e->d_name);
    closedir(d);
    assert_true(seen > 60);
}

/* The embedded teacher: its text, line by line */
static void test_teacher(void **state)
{
    (void)state;
    static const struct manner plain = {0};
    const char *dir = "examples/teacher-8m";
    struct tg_gguf_list keys = {0};
    struct tg_tokenizer *t, *back;
    if (tg_gguf_vocab_of(dir, 8192, NULL, &keys, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_string_equal(text_of(&keys, "tokenizer.ggml.pre"), "qwen2");
    assert_int_equal(id_of(&keys, "tokenizer.ggml.bos_token_id"), 0);
    assert_int_equal(id_of(&keys, "tokenizer.ggml.eos_token_id"), 0);
    assert_false(find(&keys, "tokenizer.ggml.add_bos_token")->b);
    assert_int_equal(tg_tokenizer_load(&t, dir, 0, &err), TG_OK);
    back = through_file(&keys);
    same_on_texts(t, back, &plain, 77, dir);
    tg_tokenizer_free(back);
    tg_tokenizer_free(t);
    tg_gguf_list_release(&keys);
}

/* ---- made folders ---- */

static void put_file(const char *name, const char *text)
{
    char *path = tg_path_join(scratch, name);
    assert_int_equal(tg_file_write(path, text, strlen(text), &err), TG_OK);
    tg_free(path);
}

static void remove_file(const char *name)
{
    char *path = tg_path_join(scratch, name);
    unlink(path);
    tg_free(path);
}

static void put_splits(struct tg_json_out *j, const struct tg_split *s)
{
    tg_jout_object(j, "pre_tokenizer");
    tg_jout_str(j, "type", "Sequence");
    tg_jout_array(j, "pretokenizers");
    for (size_t i = 0; i < TG_SPLIT_PATTERNS && s->patterns[i]; i++) {
        tg_jout_object(j, NULL);
        tg_jout_str(j, "type", "Split");
        tg_jout_object(j, "pattern");
        tg_jout_str(j, "Regex", s->patterns[i]);
        tg_jout_end_object(j);
        tg_jout_str(j, "behavior", "Isolated");
        tg_jout_bool(j, "invert", false);
        tg_jout_end_object(j);
    }
    tg_jout_object(j, NULL);
    tg_jout_str(j, "type", "ByteLevel");
    tg_jout_bool(j, "add_prefix_space", false);
    tg_jout_bool(j, "trim_offsets", true);
    tg_jout_bool(j, "use_regex", false);
    tg_jout_end_object(j);
    tg_jout_end_array(j);
    tg_jout_end_object(j);
}

/* tokenizer.json of "gpt2" with the patterns of a row */
static void make_split_folder(const struct tg_split *s)
{
    struct tg_json_doc *doc;
    struct tg_strbuf text;
    struct tg_json_out j;
    assert_int_equal(tg_json_load(&doc, DATA "gpt2/tokenizer.json", 0, &err), TG_OK);
    const struct tg_json root = tg_json_root(doc), model = tg_json_key(root, "model");
    tg_strbuf_init(&text, 1 << 24);
    tg_jout_init(&j, &text, 0);
    tg_jout_object(&j, NULL);
    tg_jout_copy(&j, "added_tokens", tg_json_key(root, "added_tokens"));
    put_splits(&j, s);
    tg_jout_copy(&j, "decoder", tg_json_key(root, "decoder"));
    tg_jout_object(&j, "model");
    tg_jout_str(&j, "type", "BPE");
    tg_jout_bool(&j, "ignore_merges", s->ignore_merges);
    tg_jout_copy(&j, "vocab", tg_json_key(model, "vocab"));
    tg_jout_copy(&j, "merges", tg_json_key(model, "merges"));
    tg_jout_end_object(&j);
    tg_jout_end_object(&j);
    put_file("tokenizer.json", text.text);
    tg_strbuf_release(&text);
    tg_json_free(doc);
}

/* Each of llama.cpp's ways to cut is found by its patterns and cuts in the same way. */
static void test_splits(void **state)
{
    static const struct manner plain = {0};
    size_t names = 0;
    (void)state;
    for (const struct tg_split *s = tg_splits; s->name; s++) {
        struct tg_gguf_list keys = {0};
        struct tg_tokenizer *t, *back;
        make_split_folder(s);
        if (tg_gguf_vocab_of(scratch, 1500, NULL, &keys, &err) != TG_OK)
            fail_msg("%s", err.msg);
        const struct tg_split *got = tg_split_find(text_of(&keys, "tokenizer.ggml.pre"));
        assert_non_null(got);
        assert_int_equal(got->ignore_merges, s->ignore_merges);
        for (size_t i = 0; i < TG_SPLIT_PATTERNS; i++)
            assert_true(got->patterns[i] == s->patterns[i] ||
                        !strcmp(got->patterns[i], s->patterns[i]));
        if (got == s) {
            assert_int_equal(tg_tokenizer_load(&t, scratch, 0, &err), TG_OK);
            back = through_file(&keys);
            same_on_texts(t, back, &plain, names++, s->name);
            tg_tokenizer_free(back);
            tg_tokenizer_free(t);
        }
        tg_gguf_list_release(&keys);
    }
    remove_file("tokenizer.json");
    assert_true(names >= 12);
}

static void refused(size_t vocab, const struct tg_vocab_ends *ends, const char *why)
{
    struct tg_gguf_list keys = {0};
    memset(&err, 0, sizeof err);
    if (tg_gguf_vocab_of(scratch, vocab, ends, &keys, &err) == TG_OK || !strstr(err.msg, why))
        fail_msg("wanted '%s', got '%s'", why, err.msg);
    tg_gguf_list_release(&keys);
}

/* A way to cut a piece in two that are tokens too */
struct cut {
    size_t id, at;
};
static const struct tg_tokenizer *cut_of;
static int by_score(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;
    const float *s = cut_of->normalizers[0].spec->scores;
    return s[x->id] > s[y->id] ? -1 : s[x->id] < s[y->id] ? 1 : x->at > y->at ? 1 : -1;
}

/* apart: the first cut of a piece that has two goes behind all others. */
static void put_cuts(struct tg_json_out *j, const struct tg_tokenizer *t, bool apart)
{
    struct cut cuts[8192];
    size_t count = 0;
    for (size_t id = 0; id < t->vocab; id++)
        for (size_t i = 1, n = t->tokens[id].len; i < n; i++) {
            const char *s = t->pool.data + t->tokens[id].off;
            if (t->normalizers[0].spec->types[id] == TG_PIECE_NORMAL &&
                tg_strmap_find(&t->by_name, t->pool.data, s, i) >= 0 &&
                tg_strmap_find(&t->by_name, t->pool.data, s + i, n - i) >= 0)
                cuts[count++] = (struct cut){id, i};
        }
    cut_of = t;
    qsort(cuts, count, sizeof *cuts, by_score);
    for (size_t i = 0; i + 1 < count && apart; i++)
        if (cuts[i].id == cuts[i + 1].id) {
            const struct cut c = cuts[i];
            memmove(&cuts[i], &cuts[i + 1], (count - i - 1) * sizeof *cuts);
            cuts[count - 1] = c;
            apart = false;
        }
    assert_false(apart);
    tg_jout_array(j, "merges");
    for (size_t i = 0; i < count; i++) {
        const struct cut c = cuts[i];
        const char *s = t->pool.data + t->tokens[c.id].off;
        char side[2][200];
        snprintf(side[0], sizeof side[0], "%.*s", (int)c.at, s);
        snprintf(side[1], sizeof side[1], "%.*s", (int)(t->tokens[c.id].len - c.at), s + c.at);
        tg_jout_array(j, NULL);
        tg_jout_str(j, NULL, side[0]);
        tg_jout_str(j, NULL, side[1]);
        tg_jout_end_array(j);
    }
    tg_jout_end_array(j);
}

/* A tokenizer.json as transformers makes it of a tokenizer.model: stages around it as given */
static void make_scores_folder(const struct tg_tokenizer *t, const char *stages, bool apart)
{
    struct tg_strbuf text;
    struct tg_json_out j;
    tg_strbuf_init(&text, 1 << 24);
    tg_strbuf_printf(&text, "{%s,\"model\":", stages);
    tg_jout_init(&j, &text, 0);
    tg_jout_object(&j, NULL);
    tg_jout_str(&j, "type", "BPE");
    tg_jout_bool(&j, "byte_fallback", true);
    tg_jout_bool(&j, "fuse_unk", true);
    tg_jout_str(&j, "unk_token", "<unk>");
    tg_jout_object(&j, "vocab");
    for (size_t id = 0; id < t->vocab; id++) {
        char name[200];
        snprintf(name, sizeof name, "%.*s", (int)t->tokens[id].len,
                 t->pool.data + t->tokens[id].off);
        tg_jout_int(&j, name, (int64_t)id);
    }
    tg_jout_end_object(&j);
    put_cuts(&j, t, apart);
    tg_jout_end_object(&j);
    tg_strbuf_puts(&text, "}");
    assert_false(text.failed);
    put_file("tokenizer.json", text.text);
    tg_strbuf_release(&text);
}

#define PREPEND                                                                                    \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","                \
    "\"prepend\":\"▁\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]}"
#define REPLACE                                                                                    \
    "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"},"    \
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},"                        \
    "\"behavior\":\"MergedWithPrevious\",\"invert\":false}"
#define METASPACE                                                                                  \
    "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\","                           \
    "\"prepend_scheme\":\"first\",\"split\":false}"

#define NO_ADDED ",\"added_tokens\":[]"
#define ADDED(flags)                                                                               \
    ",\"added_tokens\":[{\"id\":600,\"content\":\"q he\",\"special\":false" flags "}]"

/* Merges that stand for scores become scores again, whatever marks the spaces. */
static void test_scores(void **state)
{
    static const struct {
        const char *stages;
        struct manner how;
        bool prefix;
    } rows[] = {
        {PREPEND NO_ADDED, {.no_names = true}, true},
        {REPLACE NO_ADDED, {.no_names = true}, false},
        {METASPACE NO_ADDED, {.no_names = true, .no_space = true}, true},
        {PREPEND ADDED(",\"normalized\":false"), {.no_names = true}, true},
        {REPLACE ADDED(",\"normalized\":false"), {.no_names = true}, false},
    };
    struct tg_tokenizer *model;
    (void)state;
    assert_int_equal(tg_tokenizer_load(&model, DATA "sp_bpe_llama", 0, &err), TG_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_gguf_list keys = {0};
        struct tg_tokenizer *t, *back;
        make_scores_folder(model, rows[i].stages, false);
        if (tg_tokenizer_load(&t, scratch, 0, &err) != TG_OK ||
            tg_gguf_vocab_of(scratch, t->vocab, NULL, &keys, &err) != TG_OK)
            fail_msg("%s", err.msg);
        assert_string_equal(text_of(&keys, "tokenizer.ggml.model"), "llama");
        assert_int_equal(id_of(&keys, "tokenizer.ggml.unknown_token_id"), 0);
        assert_int_equal(find(&keys, "tokenizer.ggml.add_space_prefix")->b, rows[i].prefix);
        back = through_file(&keys);
        same_on_texts(t, back, &rows[i].how, i, rows[i].stages);
        tg_tokenizer_free(back);
        tg_tokenizer_free(t);
        tg_gguf_list_release(&keys);
    }
    /* a user-defined token with a marked space is like any other */
    struct tg_gguf_list keys = {0};
    struct tg_gguf_value type;
    make_scores_folder(model,
                       REPLACE ",\"added_tokens\":[{\"id\":499,\"content\":\"▁\","
                               "\"special\":false,\"normalized\":false}]",
                       false);
    assert_int_equal(tg_gguf_vocab_of(scratch, 600, NULL, &keys, &err), TG_OK);
    assert_true(tg_gguf_element(find(&keys, "tokenizer.ggml.token_type"), 499, &type));
    assert_int_equal(type.i, 1);
    tg_gguf_list_release(&keys);
    make_scores_folder(model, PREPEND NO_ADDED, true);
    refused(700, NULL, "others stand between those of");
    make_scores_folder(model, METASPACE ADDED(",\"normalized\":false"), false);
    refused(700, NULL, "'q he' is no special token, and a Metaspace beside it");
    make_scores_folder(model, PREPEND ADDED(",\"normalized\":true"), false);
    refused(700, NULL, "q▁he' is no special token, and that it is looked for in the normalised");
    tg_tokenizer_free(model);
    remove_file("tokenizer.json");
}

/* ---- files beside the tokenizer ---- */

static void copy_tokenizer(const char *folder)
{
    char path[200], *text;
    size_t len;
    snprintf(path, sizeof path, DATA "%s/tokenizer.json", folder);
    assert_int_equal(tg_file_read(path, 1 << 24, &text, &len, &err), TG_OK);
    put_file("tokenizer.json", text);
    tg_free(text);
}

static void expect_ids(const struct tg_vocab_ends *ends, int64_t bos, int64_t eos, int64_t eot,
                       int64_t eom, int64_t pad)
{
    struct tg_gguf_list keys = {0};
    if (tg_gguf_vocab_of(scratch, 1500, ends, &keys, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(id_of(&keys, "tokenizer.ggml.bos_token_id"), bos);
    assert_int_equal(id_of(&keys, "tokenizer.ggml.eos_token_id"), eos);
    assert_int_equal(id_of(&keys, "tokenizer.ggml.eot_token_id"), eot);
    assert_int_equal(id_of(&keys, "tokenizer.ggml.eom_token_id"), eom);
    assert_int_equal(id_of(&keys, "tokenizer.ggml.padding_token_id"), pad);
    tg_gguf_list_release(&keys);
}

static void test_ends(void **state)
{
    (void)state;
    copy_tokenizer("llama3"); /* BOS 0 before each text */
    expect_ids(NULL, 0, -1, -1, -1, -1);
    put_file("tokenizer_config.json",
             "{\"bos_token\":\"<|begin|>\",\"eos_token\":{\"content\":\"<|end|>\"}}");
    put_file("special_tokens_map.json", "{\"pad_token\":\"<|user|>\"}");
    expect_ids(NULL, 0, 1, -1, -1, 2);
    put_file("config.json", "{\"bos_token_id\":null,\"eos_token_id\":2,\"pad_token_id\":1}");
    expect_ids(NULL, 0, 2, -1, -1, 2);
    put_file("generation_config.json", "{\"eos_token_id\":[7,8,9,10]}");
    expect_ids(NULL, 0, 7, 8, 9, 2);
    static const int32_t eos[] = {3, 4};
    expect_ids(&(struct tg_vocab_ends){0, eos, 2}, 0, 3, 4, -1, 2);
    expect_ids(&(struct tg_vocab_ends){-1, eos, 1}, 0, 3, -1, -1, 2);
    refused(1500, &(struct tg_vocab_ends){5, eos, 1}, "model's bos_token_id, 5");
    static const int32_t far[] = {1500};
    refused(1500, &(struct tg_vocab_ends){0, far, 1}, "token id 1500 is not in [0, 1500)");
    refused(1499, NULL, "only 1499");
    refused(0, NULL, "no tokens");
    put_file("generation_config.json", "{\"eos_token_id\":[7,1500]}");
    refused(1500, NULL, "eos_token_id[1]: is not a token of 1500");
    put_file("generation_config.json", "{\"eos_token_id\":[7,\"8\"]}");
    refused(1500, NULL, "eos_token_id[1]");
    put_file("generation_config.json", "{");
    refused(1500, NULL, "generation_config.json");
    remove_file("generation_config.json");
    remove_file("config.json");
    remove_file("special_tokens_map.json");
}

static void test_template(void **state)
{
    static const char *const configs[] = {
        "{\"chat_template\":\"{{ one }}\"}",
        "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"two\"},"
        "{\"name\":\"default\",\"template\":\"{{ one }}\"}]}",
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tg_gguf_list keys = {0};
        if (i < 2)
            put_file("tokenizer_config.json", configs[i]);
        else
            put_file("chat_template.jinja", "{{ three }}\n");
        assert_int_equal(tg_gguf_vocab_of(scratch, 1500, NULL, &keys, &err), TG_OK);
        assert_string_equal(text_of(&keys, "tokenizer.chat_template"),
                            i < 2 ? "{{ one }}" : "{{ three }}\n");
        tg_gguf_list_release(&keys);
    }
    remove_file("chat_template.jinja");
    remove_file("tokenizer_config.json");
}

/* A hybrid of a GGUF teacher has its vocabulary as tokenizer.gguf. */
static void test_copy(void **state)
{
    static const struct manner plain = {0};
    struct tg_gguf_list keys = {0}, again = {0};
    struct tg_tokenizer *t, *back;
    char *from = tg_path_join(scratch, "made.gguf"), *to = tg_path_join(scratch, "tokenizer.gguf");
    (void)state;
    assert_int_equal(tg_gguf_vocab_of(DATA "llama3", 1504, NULL, &keys, &err), TG_OK);
    tg_gguf_put_text(&keys, "general.architecture", "llama");
    tg_tokenizer_free(through_file(&keys));
    assert_int_equal(rename(from, to), 0);
    remove_file("tokenizer.json");
    if (tg_gguf_vocab_of(scratch, 1504, NULL, &again, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(again.count, keys.count - 1);
    assert_null(find(&again, "general.architecture"));
    assert_int_equal(tg_tokenizer_load(&t, DATA "llama3", 0, &err), TG_OK);
    back = through_file(&again);
    same_on_texts(t, back, &plain, 5, "copy");
    refused(1505, NULL, "has 1504 elements, the model 1505");
    tg_tokenizer_free(back);
    tg_tokenizer_free(t);
    tg_gguf_list_release(&again);
    assert_int_equal(tg_gguf_vocab_of(to, 1504, NULL, &again, &err), TG_OK);
    assert_int_equal(again.count, keys.count - 1);
    tg_gguf_list_release(&again);
    tg_gguf_list_release(&keys);
    unlink(to);
    remove_file("made.gguf");
    refused(1504, NULL, scratch);
    tg_free(from);
    tg_free(to);
}

/* Files with bytes changed, put in or cut off: an error, or keys of a tokenizer */
static void test_mutated(void **state)
{
    static const char *const from[] = {DATA "v_deepseek/tokenizer.json",
                                       DATA "c_gemma/tokenizer.json", "tokenizer_config.json"};
    struct tg_rng r = tg_rng_make(9, 9);
    size_t good = 0;
    (void)state;
    copy_tokenizer("v_deepseek");
    for (size_t i = 0; i < 450; i++) {
        const char *name = i % 3 == 2 ? "tokenizer_config.json" : "tokenizer.json";
        struct tg_gguf_list keys = {0};
        char *text;
        size_t len;
        if (i % 3 == 2)
            text = tg_strdup("{\"eos_token\":{\"content\":\"e\"},\"pad_token\":\"d\","
                             "\"chat_template\":[{\"name\":\"default\",\"template\":\"x\"}]}"),
            len = strlen(text);
        else
            assert_int_equal(tg_file_read(from[i % 3], 1 << 24, &text, &len, &err), TG_OK);
        for (size_t n = 1 + tg_rng_below(&r, 3); n; n--)
            text[tg_rng_below(&r, len)] = "\"{}[],:09ax\\-"[tg_rng_below(&r, 14)];
        if (tg_rng_below(&r, 8) == 0)
            text[tg_rng_below(&r, len)] = '\0';
        put_file(name, text);
        tg_free(text);
        if (tg_gguf_vocab_of(scratch, 500, NULL, &keys, &err) == TG_OK) {
            tg_tokenizer_free(through_file(&keys));
            good++;
        }
        tg_gguf_list_release(&keys);
        if (i % 3 == 2)
            remove_file(name);
        else
            copy_tokenizer("v_deepseek");
    }
    remove_file("tokenizer.json");
    remove_file("made.gguf");
    assert_in_range(good, 10, 350);
}

/* Models that have none: of a directory, of a GGUF file */
static void test_none(void **state)
{
    static const char *const dirs[] = {"tests/data/families/llama", "tests/data/gguf/types.gguf"};
    static const int32_t eos[] = {3, 4};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tg_gguf_list keys = {0};
        const struct tg_vocab_ends ends = {1, eos, 2};
        if (tg_gguf_vocab_of(dirs[i], 99, &ends, &keys, &err) != TG_OK)
            fail_msg("%s", err.msg);
        assert_int_equal(keys.count, 4);
        assert_string_equal(text_of(&keys, "tokenizer.ggml.model"), "none");
        assert_int_equal(id_of(&keys, "tokenizer.ggml.bos_token_id"), 1);
        assert_int_equal(id_of(&keys, "tokenizer.ggml.eot_token_id"), 4);
        tg_gguf_list_release(&keys);
    }
}

static void test_torture(void **state)
{
    static const char *const dirs[] = {DATA "llama3", DATA "sp_bpe_llama"};
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (long n = 1;; n += n < 200 ? 1 : 97) {
            struct tg_gguf_list keys = {0};
            tg_mem_fail_after(n);
            const int rc = tg_gguf_vocab_of(dirs[i], 1600, NULL, &keys, &err);
            tg_mem_fail_after(0);
            tg_gguf_list_release(&keys);
            if (rc == TG_OK) {
                assert_true(n > 50);
                break;
            }
            assert_int_equal(rc, TG_ERR_NOMEM);
        }
}

/* ---- for other readers ---- */

static void write_sample(const char *dir, size_t vocab, const char *folder, const char *name)
{
    struct tg_gguf_list keys = {0};
    struct tg_tensor_writer *w;
    char path[400];
    tg_gguf_put_text(&keys, "general.architecture", "llama");
    if (tg_gguf_vocab_of(dir, vocab, NULL, &keys, &err) == TG_OK) {
        const struct tg_write_options o = {
            .format = &tg_format_gguf, .single = true, .kv = keys.items, .kvs = keys.count};
        snprintf(path, sizeof path, "%s/%s.gguf", folder, name);
        if (tg_tensor_writer_open(&w, path, NULL, 0, &o, &err) != TG_OK ||
            tg_tensor_writer_finish(w, &err) != TG_OK)
            printf("%s\n", err.msg);
        tg_tensor_writer_close(w);
    }
    tg_gguf_list_release(&keys);
}

/* FOLDER/NAME.gguf of each folder that can be written; of each way to cut with its tokenizer.json
 * beside it as split-NAME.json */
static int write_samples(const char *folder)
{
    char path[400];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct tg_tokenizer *t;
        snprintf(path, sizeof path, DATA "%s", folders[i].folder);
        if (folders[i].pre && tg_tokenizer_load(&t, path, 0, &err) == TG_OK) {
            write_sample(path, tg_tokenizer_vocab(t) + 5, folder, folders[i].folder);
            tg_tokenizer_free(t);
        }
    }
    for (const struct tg_split *s = tg_splits; s->name; s++) {
        char name[64], from[100];
        make_split_folder(s);
        snprintf(name, sizeof name, "split-%s", s->name);
        write_sample(scratch, 1500, folder, name);
        snprintf(from, sizeof from, "%s/tokenizer.json", scratch);
        snprintf(path, sizeof path, "%s/%s.json", folder, name);
        if (rename(from, path) != 0)
            return 1;
    }
    return tg_dir_remove(scratch, NULL) != TG_OK;
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_teacher),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_template),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_none),
        cmocka_unit_test_setup_teardown(test_torture, NULL, remove_scratch),
    };
    snprintf(scratch, sizeof scratch, "/tmp/tegu-vocab-write-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    if (argc > 1)
        return write_samples(argv[1]);
    return tg_run_tests("gguf_vocab_write", tests, sizeof tests / sizeof *tests);
}
