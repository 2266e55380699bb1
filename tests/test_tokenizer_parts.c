/* Parts of the tokenizers: the hand-written splitters against the generic engine, refusals by name,
 * long words, threads, memory that runs out. */
#include "tests/check.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "formats/tokenizer/chars.h"
#include "formats/tokenizer/regex.h"
#include "formats/tokenizer/tokenizer.h"

#define DATA "tests/data/tokenizers/"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char *const patterns[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES,
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES,
    CONTRACTIONS
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES,
};
enum { PATTERNS = sizeof patterns / sizeof patterns[0] };

static struct tg_regex *compiled(const char *pattern)
{
    struct tg_err err = {0};
    struct tg_regex *r = NULL;
    if (tg_regex_compile(&r, pattern, false, "test", &err) != TG_OK)
        fail_msg("%s", err.msg);
    return r;
}

static bool matches(const struct tg_regex *r, struct tg_regex_run *run, uint32_t c)
{
    char s[4];
    size_t begin, end, n = tg_utf8_encode(c, s);
    return tg_regex_find(r, run, s, n, 0, &begin, &end, NULL) == 1;
}

/* Our classes are of Unicode 16. The engine's may be older, but then only in what it does not know
 * at all. */
static void test_classes(void **state)
{
    static const struct {
        const char *pattern;
        unsigned bit;
    } kinds[] = {
        {"\\p{L}", TG_CHAR_L}, {"\\p{N}", TG_CHAR_N}, {"\\p{M}", TG_CHAR_M}, {"\\s", TG_CHAR_S}};
    (void)state;
    uint8_t *classes = tg_char_classes();
    struct tg_regex *unknown = compiled("\\p{Cn}");
    struct tg_regex_run run = {0};
    size_t bad = 0, newer = 0;
    for (size_t k = 0; k < 4; k++) {
        struct tg_regex *r = compiled(kinds[k].pattern);
        for (uint32_t c = 0; c < 0x110000; c++) {
            if (c >= 0xD800 && c < 0xE000)
                continue;
            if (matches(r, &run, c) == ((classes[c] & kinds[k].bit) != 0))
                continue;
            bad += !matches(unknown, &run, c);
            newer++;
        }
        tg_regex_free(r);
    }
    print_message("%zu characters are newer than the engine\n", newer);
    assert_int_equal(bad, 0);
    tg_regex_free(unknown);
    tg_regex_run_release(&run);
    tg_free(classes);
}

struct splitter {
    const struct tg_regex *r;
    tg_scan_fn scan;
    const uint8_t *classes;
    struct tg_regex_run run;
};

static void check_split(struct splitter *s, const char *text, size_t len)
{
    size_t begin, end;
    for (size_t at = 0; at < len; at = end) {
        size_t scanned = s->scan(s->classes, text, at, len);
        assert_int_equal(tg_regex_find(s->r, &s->run, text, len, at, &begin, &end, NULL), 1);
        if (begin != at || end != scanned)
            fail_msg("'%.*s' at %zu: by hand to %zu, engine from %zu to %zu", (int)len, text, at,
                     scanned, begin, end);
    }
}

/* Characters that the patterns tell apart, and any others that the engine's Unicode knows. */
static size_t random_text(struct tg_rng *rng, const struct tg_regex *unknown,
                          struct tg_regex_run *run, char *text)
{
    static const char *const pieces[] = {"'",
                                         "'s",
                                         "'S",
                                         "'\xC5\xBF",
                                         "'lL",
                                         "'ve",
                                         "'RE",
                                         "'m",
                                         "'D",
                                         "a",
                                         "Z",
                                         "\xC3\xA9",
                                         "1",
                                         "\xC2\xB2",
                                         " ",
                                         " ",
                                         "\n",
                                         "\r",
                                         "\t",
                                         "\xC2\xA0",
                                         "!",
                                         "\xCC\x81",
                                         "\xE4\xB8\xAD",
                                         "\xE2\x85\xA7",
                                         "_",
                                         "\xF0\x9F\x98\x80",
                                         ".",
                                         "\xE3\x80\x80"};
    size_t len = 0, count = 1 + tg_rng_below(rng, 24), kinds = sizeof pieces / sizeof pieces[0];
    uint64_t span = tg_rng_below(rng, 2) ? 0x3000 : 0x110000;
    for (size_t i = 0; i < count; i++) {
        if (tg_rng_below(rng, 4)) {
            const char *p = pieces[tg_rng_below(rng, kinds)];
            memcpy(text + len, p, strlen(p));
            len += strlen(p);
            continue;
        }
        uint32_t c = (uint32_t)tg_rng_below(rng, span);
        if ((c < 0xD800 || c >= 0xE000) && !matches(unknown, run, c))
            len += tg_utf8_encode(c, text + len);
    }
    return len;
}

static void split_golden_texts(struct splitter *s, const char *kind)
{
    struct tg_err err = {0};
    char path[200], *text;
    size_t len;
    snprintf(path, sizeof path, DATA "%s/golden.jsonl", kind);
    if (tg_file_read(path, 1 << 28, &text, &len, &err) != TG_OK)
        fail_msg("%s", err.msg);
    check_split(s, text, len); /* as one text of letters, digits, escapes */
    for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1) {
        struct tg_json_doc *doc;
        if (tg_json_parse(&doc, at, (size_t)(end - at), "golden", 0, NULL) != TG_OK)
            continue; /* the one line with \u0000 */
        const char *t = tg_json_string(tg_json_key(tg_json_root(doc), "text"));
        check_split(s, t, strlen(t));
        tg_json_free(doc);
    }
    tg_free(text);
}

static void test_splitters(void **state)
{
    (void)state;
    uint8_t *classes = tg_char_classes();
    struct tg_regex *unknown = compiled("\\p{Cn}");
    struct tg_regex_run run = {0};
    char text[256];
    for (size_t k = 0; k < PATTERNS; k++) {
        struct tg_regex *r = compiled(patterns[k]);
        struct splitter s = {r, tg_scan_for(patterns[k]), classes, {0}};
        struct tg_rng rng = tg_rng_make(11, k);
        assert_non_null(s.scan);
        for (int i = 0; i < 50000; i++)
            check_split(&s, text, random_text(&rng, unknown, &run, text));
        split_golden_texts(&s, "gpt2");
        split_golden_texts(&s, "qwen2");
        tg_regex_run_release(&s.run);
        tg_regex_free(r);
    }
    assert_null(tg_scan_for("\\p{L}+"));
    tg_regex_free(unknown);
    tg_regex_run_release(&run);
    tg_free(classes);
}

/* ---- refusals ---- */

#define PRE                                                                                        \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\",\"b\"]]}"
#define MODEL_WITH(x) "\"model\":{\"type\":\"BPE\"," x "}"
#define SPLIT(x)                                                                                   \
    "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\"," x          \
    "},{\"type\":\"ByteLevel\"}]}," MODEL "}"
#define REGEX(x) SPLIT("\"pattern\":{\"Regex\":\"" x "\"},\"behavior\":\"Isolated\"")

static const struct {
    const char *json;
    int code;
    const char *says;
} refusals[] = {
    {"[]", TG_ERR_FORMAT, "not a JSON object"},
    {"{}", TG_ERR_FORMAT, "model"},
    {"{" PRE ",\"model\":{\"type\":\"Unigram\"}}", TG_ERR_FORMAT, "model.vocab"},
    {"{\"model\":{\"type\":\"WordPiece\"}}", TG_ERR_UNSUPPORTED, "WordPiece"},
    {"{" PRE "," MODEL_WITH("\"merges\":[]") "}", TG_ERR_FORMAT, "vocab"},
    {"{" PRE "," MODEL_WITH(VOCAB) "}", TG_ERR_FORMAT, "merges"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[\"a c\"]") "}", TG_ERR_FORMAT, "'c'"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[\"b a\"]") "}", TG_ERR_FORMAT, "'ba'"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[\"a b c\"]") "}", TG_ERR_FORMAT, "merges[0]"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[[\"a\"]]") "}", TG_ERR_FORMAT, "merges[0]"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[7]") "}", TG_ERR_FORMAT, "merges[0]"},
    {"{" PRE "," MODEL_WITH("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]") "}", TG_ERR_FORMAT,
     "both have id 0"},
    {"{" PRE "," MODEL_WITH("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]") "}", TG_ERR_FORMAT,
     "twice"},
    {"{" PRE "," MODEL_WITH("\"vocab\":{\"a\":-1},\"merges\":[]") "}", TG_ERR_FORMAT, "'a'"},
    {"{" PRE "," MODEL_WITH("\"vocab\":{\"a\":1.5},\"merges\":[]") "}", TG_ERR_FORMAT, "'a'"},
    {"{" PRE "," MODEL_WITH("\"vocab\":{\"a\":4294967296},\"merges\":[]") "}", TG_ERR_FORMAT,
     "'a'"},
    {"{" PRE "," MODEL_WITH("\"vocab\":{\"a\":\"0\"},\"merges\":[]") "}", TG_ERR_FORMAT,
     "'a': the id is not a number"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[],\"dropout\":0.1") "}", TG_ERR_UNSUPPORTED,
     "dropout"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[],\"continuing_subword_prefix\":\"##\"") "}",
     TG_ERR_UNSUPPORTED, "##"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[],\"end_of_word_suffix\":\"</w>\"") "}",
     TG_ERR_UNSUPPORTED, "</w>"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[],\"byte_fallback\":true") "}", TG_ERR_UNSUPPORTED,
     "byte_fallback"},
    {"{" PRE "," MODEL_WITH(VOCAB ",\"merges\":[],\"unk_token\":\"?\"") "}", TG_ERR_FORMAT, "unk"},
    {"{" PRE "," MODEL ",\"normalizer\":{\"type\":\"BertNormalizer\"}}", TG_ERR_UNSUPPORTED,
     "BertNormalizer"},
    {"{" PRE "," MODEL
     ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Nmt\"}]}}",
     TG_ERR_UNSUPPORTED, "Nmt"},
    {"{" PRE "," MODEL ",\"decoder\":{\"type\":\"WordPiece\"}}", TG_ERR_UNSUPPORTED, "WordPiece"},
    {"{" PRE "," MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", TG_ERR_UNSUPPORTED,
     "BertProcessing"},
    {"{" PRE "," MODEL
     ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
     "\"id\":\"x\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"ids\":[9]}}}}",
     TG_ERR_FORMAT, "9"},
    {"{" PRE "," MODEL ",\"truncation\":{\"max_length\":8}}", TG_ERR_UNSUPPORTED, "truncation"},
    {"{" PRE "," MODEL ",\"padding\":{\"strategy\":\"x\"}}", TG_ERR_UNSUPPORTED, "padding"},
    {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]}", TG_ERR_FORMAT,
     "both have id 1"},
    {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":5,\"content\":\"a\"}]}", TG_ERR_MISMATCH, "'a'"},
    {"{" PRE "," MODEL ",\"added_tokens\":[{\"id\":9,\"content\":\"x\"}]}", TG_ERR_MISMATCH,
     "has id 9, but the model has only 9"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{"
     "\"type\":"
     "\"Digits\"}]}," MODEL "}",
     TG_ERR_UNSUPPORTED, "Digits"},
    {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"BertPreTokenizer\"},"
     "{"
     "\"type\":"
     "\"ByteLevel\"}]}," MODEL "}",
     TG_ERR_UNSUPPORTED, "BertPreTokenizer"},
    {SPLIT("\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Sideways\""), TG_ERR_UNSUPPORTED,
     "Sideways"},
    {REGEX("(a"), TG_ERR_UNSUPPORTED, "(a"},
    {REGEX("a\\\\K"), TG_ERR_UNSUPPORTED, "\\K"},
    {REGEX("\\\\R"), TG_ERR_UNSUPPORTED, "\\R"},
    {REGEX("[a-z&&[b]]"), TG_ERR_UNSUPPORTED, "&&"},
    {REGEX("(?x:a)"), TG_ERR_UNSUPPORTED, "(?x"},
    {REGEX("a{1,3}+"), TG_ERR_UNSUPPORTED, "}+"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct tg_tokenizer *t = NULL;
        struct tg_err err = {0};
        const char *json = refusals[i].json;
        int rc = tg_tokenizer_parse(&t, json, strlen(json), "some/tokenizer.json", 9, &err);
        if (rc != refusals[i].code || !strstr(err.msg, refusals[i].says) ||
            !strstr(err.msg, "some/tokenizer.json"))
            fail_msg("%s\n gives %d: %s", json, rc, err.msg);
        assert_null(t);
    }
}

/* ---- whole tokenizers ---- */

static struct tg_tokenizer *loaded(const char *kind)
{
    struct tg_err err = {0};
    struct tg_tokenizer *t;
    char path[200];
    snprintf(path, sizeof path, DATA "%s", kind);
    if (tg_tokenizer_load(&t, path, 0, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return t;
}

static void test_interface(void **state)
{
    (void)state;
    struct tg_err err = {0};
    struct tg_tokenizer *t = loaded("qwen2"), *none;
    struct tg_ids ids = {0};
    char *text;
    size_t len;
    assert_string_equal(tg_tokenizer_kind(t), "byte-level BPE");
    assert_int_equal(tg_tokenizer_vocab(t), 1503);
    assert_int_equal(tg_tokenizer_id(t, "<tool>"), 1500);
    assert_int_equal(tg_tokenizer_id(t, "no such token"), -1);
    assert_int_equal(tg_tokenizer_encode(t, "abc\xC3(", 5, true, &ids, &err), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "offset 3"));
    assert_int_equal(tg_tokenizer_decode(t, (int32_t[]){1, 1503}, 2, false, &text, &len, &err),
                     TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "1503"));
    assert_int_equal(tg_tokenizer_decode(t, (int32_t[]){-1}, 1, false, &text, &len, &err),
                     TG_ERR_VALUE);
    assert_int_equal(tg_tokenizer_load(&none, DATA "qwen2", 1502, &err), TG_ERR_MISMATCH);
    assert_non_null(strstr(err.msg, "fancyword"));
    assert_int_equal(tg_tokenizer_load(&none, DATA "nothing", 0, &err), TG_ERR_IO);
    tg_ids_release(&ids);
    tg_tokenizer_free(t);
}

/* Bytes that are no UTF-8 become U+FFFD as in Rust: one for each longest beginning of a sequence.
 */
static void test_lossy(void **state)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"a\xC3z", "a\xEF\xBF\xBDz"},
        {"\xE4\xB8", "\xEF\xBF\xBD"},
        {"\xE0\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF0\x9F\x98z", "\xEF\xBF\xBDz"},
        {"\xF0\x9F\xF0\x9F\x98\x80", "\xEF\xBF\xBD\xF0\x9F\x98\x80"},
        {"\xF4\x90\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF5\xC0\xFF", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
    };
    (void)state;
    struct tg_tokenizer *t = loaded("gpt2");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t ids[8];
        char *text;
        size_t count = 0, len;
        for (const char *b = cases[i].bytes; *b; b++) {
            unsigned byte = (unsigned char)*b; /* '!'..'~' and two ranges stand for themselves */
            uint32_t c = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD) ? byte
                         : byte <= 32                                                   ? byte + 256
                         : byte == 0xAD                                                 ? 0x143
                                        : byte - 0x7F + 0x121;
            char name[5] = {0};
            tg_utf8_encode(c, name);
            ids[count++] = tg_tokenizer_id(t, name);
        }
        assert_int_equal(tg_tokenizer_decode(t, ids, count, false, &text, &len, NULL), TG_OK);
        assert_string_equal(text, cases[i].text);
        tg_free(text);
    }
    tg_tokenizer_free(t);
}

/* Four million bytes in one word, in every model and on both ways through the merges (v_shuffled:
 * ranks that do not grow). A method that is not linear would not come to an end here. */
static void test_long_words(void **state)
{
    enum { LONG = 4000000 };
    static const char *const kinds[] = {"books8k", "v_shuffled", "spbpe_llama2",
                                        "c_gemma", "u_whole",    "sp_unigram"};
    (void)state;
    struct tg_rng rng = tg_rng_make(3, 0);
    char *word = tg_alloc(LONG), *text;
    for (size_t i = 0; i < LONG; i++)
        word[i] = i < LONG / 2 ? "etaoinsh"[tg_rng_below(&rng, 8)] : 'a';
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct tg_tokenizer *t = loaded(kinds[k]);
        struct tg_ids ids = {0};
        size_t len;
        assert_int_equal(tg_tokenizer_encode(t, word, LONG, false, &ids, NULL), TG_OK);
        assert_in_range(ids.count, LONG / 20, LONG);
        assert_int_equal(tg_tokenizer_decode(t, ids.data, ids.count, false, &text, &len, NULL),
                         TG_OK);
        assert_int_equal(len, LONG);
        assert_memory_equal(text, word, LONG);
        tg_free(text);
        tg_ids_release(&ids);
        tg_tokenizer_free(t);
    }
    tg_free(word);
}

/* The two ways through the merges agree where both can be taken: a word of 64 bytes is short, with
 * one byte more it is long, and the ids before the last pieces are the same. */
static void test_short_and_long(void **state)
{
    static const char *const pieces[] = {"abc", "abc", "abc", "ab", "cba", "a", "b", "c"};
    (void)state;
    struct tg_tokenizer *t = loaded("v_crossed");
    struct tg_rng rng = tg_rng_make(4, 0);
    char word[65];
    for (int i = 0; i < 20000; i++) {
        struct tg_ids a = {0}, b = {0};
        for (size_t j = 0; j < 64;) {
            const char *p = pieces[tg_rng_below(&rng, 8)];
            for (; *p && j < 64; p++)
                word[j++] = *p;
        }
        word[64] = '\x01'; /* merges with nothing */
        assert_int_equal(tg_tokenizer_encode(t, word, 64, false, &a, NULL), TG_OK);
        assert_int_equal(tg_tokenizer_encode(t, word, 65, false, &b, NULL), TG_OK);
        assert_int_equal(a.count + 1, b.count);
        assert_memory_equal(a.data, b.data, a.count * sizeof *a.data);
        tg_ids_release(&a);
        tg_ids_release(&b);
    }
    tg_tokenizer_free(t);
}

struct crowd {
    const struct tg_tokenizer *t;
    const char *text;
    size_t len;
    struct tg_ids ids[16];
};

static void encode_item(void *ud, size_t item, int worker)
{
    struct crowd *c = ud;
    (void)worker;
    tg_tokenizer_encode(c->t, c->text, c->len, true, &c->ids[item], NULL);
}

static void test_threads(void **state)
{
    struct crowd c = {.t = loaded("v_deepseek")}; /* it has expressions for the engine */
    char *text;
    (void)state;
    assert_int_equal(tg_file_read(DATA "gpt2/golden.jsonl", 1 << 28, &text, &c.len, NULL), TG_OK);
    c.text = text;
    tg_parallel(4, 16, encode_item, &c);
    assert_true(c.ids[0].count > 1000);
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(c.ids[i].count, c.ids[0].count);
        assert_memory_equal(c.ids[i].data, c.ids[0].data, c.ids[0].count * sizeof *c.ids[0].data);
    }
    for (size_t i = 0; i < 16; i++)
        tg_ids_release(&c.ids[i]);
    tg_free(text);
    tg_tokenizer_free((struct tg_tokenizer *)c.t);
}

/* Load, encode and decode with the n-th allocation failing: an error that says so, or a result
 * where memory only served speed. */
static void test_memory(void **state)
{
    static const char text[] = "the cat \xE2\x80\xA6 <a b>  \xEF\xAC\x81 e\xCC\x81 "
                               "theretheretheretheretheretheretheretheretheretheretheretherethere!";
    static const char *const kinds[] = {
        "v_added_nfkc",       "v_deepseek",    "v_split_contiguous",
        "c_normal",           "c_meta_first",  "c_punctuation_removed",
        "c_whitespace_split", "u_precompiled", "u_bytes",
        "sp_unigram_bytes",   "sp_bpe_bytes"};
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        char path[200];
        long failures = 0;
        int rc = TG_OK;
        snprintf(path, sizeof path, DATA "%s", kinds[k]);
        for (long n = 1; n <= 400; n++) {
            struct tg_tokenizer *t;
            struct tg_ids ids = {0};
            char *out = NULL;
            size_t len;
            tg_mem_fail_after(n);
            rc = tg_tokenizer_load(&t, path, 0, NULL);
            if (rc == TG_OK)
                rc = tg_tokenizer_encode(t, text, sizeof text - 1, true, &ids, NULL);
            if (rc == TG_OK)
                rc = tg_tokenizer_decode(t, ids.data, ids.count, true, &out, &len, NULL);
            tg_mem_fail_after(0);
            tg_free(out);
            tg_ids_release(&ids);
            tg_tokenizer_free(t);
            assert_true(rc == TG_OK || rc == TG_ERR_NOMEM);
            failures += rc == TG_ERR_NOMEM;
        }
        print_message("%s: %ld failures\n", kinds[k], failures);
        assert_int_equal(rc, TG_OK); /* the last one was behind the end */
        assert_true(failures > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),        cmocka_unit_test(test_splitters),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_interface),
        cmocka_unit_test(test_lossy),          cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_short_and_long), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_memory),
    };
    return tg_run_tests("tokenizer parts", tests, sizeof tests / sizeof tests[0]);
}
