/* Vocabularies of GGUF files, and merges by score against the plain method. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cursor.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "formats/tokenizer/tokenizer.h"

#define DATA "tests/data/tokenizers/"

/* A tokenizer.json or a SentencePiece model as parts. */
struct vocabulary {
    struct tg_vocab_parts p;
    const char *tokens[4096], *merges[4096];
    size_t token_lens[4096], merge_lens[4096];
    float scores[4096];
    int32_t types[4096];
    struct tg_json_doc *doc;
    char *text, *pairs[4096];
    size_t pair_count;
};

static void link_parts(struct vocabulary *v, const char *model, const char *pre)
{
    v->p = (struct tg_vocab_parts){
        .model = model,
        .pre = pre,
        .count = v->p.count,
        .tokens = v->tokens,
        .token_lens = v->token_lens,
        .scores = v->scores,
        .types = v->types,
        .merge_count = v->pair_count,
        .merges = v->merges,
        .merge_lens = v->merge_lens,
        .bos = 0,
        .eos = 1,
        .unk = -1,
        .add_bos = -1,
        .add_eos = -1,
        .add_space_prefix = -1,
    };
}

static struct vocabulary *from_json(const char *kind, const char *pre)
{
    struct vocabulary *v = tg_alloc(sizeof *v);
    char path[200];
    size_t len;
    snprintf(path, sizeof path, DATA "%s/tokenizer.json", kind);
    assert_int_equal(tg_file_read(path, 1 << 24, &v->text, &len, NULL), TG_OK);
    assert_int_equal(tg_json_parse(&v->doc, v->text, len, path, 0, NULL), TG_OK);
    struct tg_json root = tg_json_root(v->doc), model = tg_json_key(root, "model");
    for (struct tg_json c = tg_json_first(tg_json_key(model, "vocab")); c.node;
         c = tg_json_next(c)) {
        size_t id = (size_t)tg_json_number(c);
        v->tokens[id] = tg_json_name(c);
        v->token_lens[id] = strlen(v->tokens[id]);
        v->types[id] = 1;
        v->p.count = id >= v->p.count ? id + 1 : v->p.count;
    }
    for (struct tg_json c = tg_json_first(tg_json_key(root, "added_tokens")); c.node;
         c = tg_json_next(c))
        v->types[(size_t)tg_json_number(tg_json_key(c, "id"))] =
            tg_json_bool(tg_json_key(c, "special")) ? 3 : 4;
    for (struct tg_json c = tg_json_first(tg_json_key(model, "merges")); c.node;
         c = tg_json_next(c)) {
        struct tg_json a = tg_json_first(c);
        char pair[400];
        if (tg_json_is_string(c))
            snprintf(pair, sizeof pair, "%s", tg_json_string(c));
        else
            snprintf(pair, sizeof pair, "%s %s", tg_json_string(a),
                     tg_json_string(tg_json_next(a)));
        v->pairs[v->pair_count] = tg_strdup(pair);
        v->merges[v->pair_count] = v->pairs[v->pair_count];
        v->merge_lens[v->pair_count++] = strlen(pair);
    }
    link_parts(v, "gpt2", pre);
    return v;
}

static size_t read_varint(struct tg_cursor *c)
{
    size_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = tg_cursor_u8(c);
        v |= (size_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80))
            return v;
    }
}

/* A piece as the trainer writes it: text, score, and a type unless it is normal. */
static void read_piece(struct vocabulary *v, const uint8_t *bytes, size_t len)
{
    struct tg_cursor c = tg_cursor_over(bytes, len);
    size_t id = v->p.count++;
    uint32_t bits;
    read_varint(&c);
    v->token_lens[id] = read_varint(&c);
    v->tokens[id] = (const char *)tg_cursor_bytes(&c, v->token_lens[id]);
    read_varint(&c);
    bits = tg_cursor_u32(&c);
    memcpy(&v->scores[id], &bits, 4);
    v->types[id] = c.at < c.len ? (read_varint(&c), (int32_t)read_varint(&c)) : 1;
}

static struct vocabulary *from_sentencepiece(const char *kind)
{
    struct vocabulary *v = tg_alloc(sizeof *v);
    char path[200];
    size_t len;
    snprintf(path, sizeof path, DATA "%s/tokenizer.model", kind);
    assert_int_equal(tg_file_read(path, 1 << 24, &v->text, &len, NULL), TG_OK);
    struct tg_cursor c = tg_cursor_over(v->text, len);
    while (read_varint(&c) == (1 << 3 | 2)) {
        size_t n = read_varint(&c);
        read_piece(v, tg_cursor_bytes(&c, n), n);
    }
    link_parts(v, "llama", NULL);
    v->p.unk = 0, v->p.bos = 1, v->p.eos = 2;
    return v;
}

static void vocabulary_free(struct vocabulary *v)
{
    tg_json_free(v->doc);
    tg_free(v->text);
    for (size_t i = 0; i < v->pair_count; i++)
        tg_free(v->pairs[i]);
    tg_free(v);
}

static struct tg_tokenizer *made(const struct vocabulary *v)
{
    struct tg_err err = {0};
    struct tg_tokenizer *t = NULL;
    if (tg_tokenizer_from_parts(&t, &v->p, "some.gguf", 0, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return t;
}

/* Golden texts of the kind; `ascii`: only those without other characters (normal forms are not for
 * GGUF files), and none that names a control piece, which SentencePiece does not look for. */
static size_t check_golden(const struct tg_tokenizer *t, const char *kind, bool ascii,
                           bool no_controls, const char *ids_key)
{
    char path[200], *text;
    size_t len, checked = 0;
    snprintf(path, sizeof path, DATA "%s/golden.jsonl", kind);
    assert_int_equal(tg_file_read(path, 1 << 24, &text, &len, NULL), TG_OK);
    for (char *at = text, *end; (end = strchr(at, '\n')); at = end + 1) {
        struct tg_json_doc *doc;
        struct tg_ids ids = {0};
        char *back = NULL;
        if (tg_json_parse(&doc, at, (size_t)(end - at), "golden", 0, NULL) != TG_OK)
            continue; /* the one line with \u0000 */
        struct tg_json o = tg_json_root(doc);
        const char *s = tg_json_string(tg_json_key(o, "text"));
        bool other = false;
        for (const char *p = s; *p; p++)
            other = other || (unsigned char)*p >= 0x80;
        bool named = strstr(s, "<s>") || strstr(s, "</s>") || strstr(s, "<unk>");
        if ((ascii && other) || (no_controls && named)) {
            tg_json_free(doc);
            continue;
        }
        assert_int_equal(tg_tokenizer_encode(t, s, strlen(s), true, &ids, NULL), TG_OK);
        size_t i = 0;
        for (struct tg_json c = tg_json_first(tg_json_key(o, ids_key)); c.node;
             c = tg_json_next(c), i++)
            if (i >= ids.count || ids.data[i] != (int32_t)tg_json_number(c))
                fail_msg("%s: '%s' differs at %zu", kind, s, i);
        assert_int_equal(i, ids.count);
        assert_int_equal(tg_tokenizer_decode(t, ids.data, ids.count, true, &back, &len, NULL),
                         TG_OK);
        assert_string_equal(back, tg_json_string(tg_json_key(o, "decoded")));
        tg_free(back);
        tg_ids_release(&ids);
        tg_json_free(doc);
        checked++;
    }
    tg_free(text);
    return checked;
}

static void test_gguf(void **state)
{
    static const struct {
        const char *kind, *pre;
        bool ascii;
        const char *ids; /* llama3: BOS is a habit of the pattern */
    } cases[] = {
        {"gpt2", "gpt-2", false, "ids"},
        {"llama3", "llama-bpe", false, "ids"},
        {"smollm", "smollm", false, "ids"},
        {"qwen3_5", "qwen35", true, "ids"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vocabulary *v = from_json(cases[i].kind, cases[i].pre);
        struct tg_tokenizer *t = made(v);
        vocabulary_free(v); /* nothing of it is kept */
        assert_in_range(check_golden(t, cases[i].kind, cases[i].ascii, false, cases[i].ids), 20,
                        200);
        tg_tokenizer_free(t);
    }
    struct vocabulary *v = from_sentencepiece("sp_bpe_llama");
    v->p.add_bos = 0;
    struct tg_tokenizer *t = made(v);
    assert_string_equal(tg_tokenizer_kind(t), "BPE");
    assert_in_range(check_golden(t, "sp_bpe_llama", false, true, "ids"), 40, 100);
    tg_tokenizer_free(t);
    v->p.add_bos = v->p.add_eos = 1;
    v->p.add_space_prefix = 0;
    struct tg_ids ids = {0};
    t = made(v);
    assert_int_equal(tg_tokenizer_encode(t, "<unk>e", 6, true, &ids, NULL), TG_OK);
    assert_int_equal(ids.count, 4);
    assert_int_equal(ids.data[0], 1);
    assert_int_equal(ids.data[1], 0);
    assert_int_equal(ids.data[2], tg_tokenizer_id(t, "e"));
    assert_int_equal(ids.data[3], 2);
    tg_ids_release(&ids);
    tg_tokenizer_free(t);
    vocabulary_free(v);
}

/* Every pattern that has a name compiles and loses nothing. */
static void test_patterns(void **state)
{
    static const char *const names[] = {
        "default",   "gpt-2",     "phi-2",     "gigachat",        "exaone4",    "mpt",
        "olmo",      "jais",      "trillion",  "granite-docling", "llama3",     "llama-v3",
        "llama-bpe", "falcon3",   "falcon-h1", "pixtral",         "midm-2.0",   "lfm2",
        "dbrx",      "smaug-bpe", "glm4",      "chatglm-bpe",     "qwen2",      "deepseek-r1-qwen",
        "megrez",    "stablelm2", "hunyuan",   "qwen35",          "starcoder",  "refact",
        "command-r", "smollm",    "codeshell", "exaone",          "minerva-7b", "falcon",
        "tekken",    "gpt-4o",    "llama4",    "deepseek-coder",  "deepseek-v3"};
    static const char text[] = "It's 12345 \xE4\xB8\xAD\xE6\x96\x87 e\xCC\x81!\r\n  (x_y)  ";
    (void)state;
    struct vocabulary *v = from_json("gpt2", NULL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct tg_ids ids = {0};
        char *back;
        size_t len;
        v->p.pre = names[i];
        struct tg_tokenizer *t = made(v);
        assert_int_equal(tg_tokenizer_encode(t, text, strlen(text), false, &ids, NULL), TG_OK);
        assert_int_equal(tg_tokenizer_decode(t, ids.data, ids.count, false, &back, &len, NULL),
                         TG_OK);
        assert_string_equal(back, text);
        tg_free(back);
        tg_ids_release(&ids);
        tg_tokenizer_free(t);
    }
    vocabulary_free(v);
}

static void refuse_parts(const struct vocabulary *v, size_t limit, int code, const char *says)
{
    struct tg_err err = {0};
    struct tg_tokenizer *t;
    int rc = tg_tokenizer_from_parts(&t, &v->p, "some.gguf", limit, &err);
    if (rc != code || !strstr(err.msg, says) || !strstr(err.msg, "some.gguf"))
        fail_msg("wanted %d '%s', got %d: %s", code, says, rc, err.msg);
    assert_null(t);
}

static void test_refused_parts(void **state)
{
    (void)state;
    struct vocabulary *v = from_json("gpt2", "no-such"), good;
    refuse_parts(v, 0, TG_ERR_UNSUPPORTED, "'no-such'");
    v->p.pre = "gpt-2";
    good = *v;
    refuse_parts(v, 1499, TG_ERR_MISMATCH, "only 1499");
    v->p.model = "bert";
    refuse_parts(v, 0, TG_ERR_UNSUPPORTED, "'bert'");
    v->p.model = "llama", v->p.scores = NULL;
    refuse_parts(v, 0, TG_ERR_FORMAT, "scores");
    v->p.scores = v->scores, v->scores[7] = NAN;
    refuse_parts(v, 0, TG_ERR_FORMAT, "token 7");
    v->scores[7] = 0, v->p.unk = 99999;
    refuse_parts(v, 0, TG_ERR_FORMAT, "99999");
    v->p = good.p, v->p.add_bos = 1, v->p.bos = -1;
    refuse_parts(v, 0, TG_ERR_FORMAT, "BOS");
    v->p = good.p, v->p.add_eos = 1, v->p.eos = 5000000000;
    refuse_parts(v, 0, TG_ERR_FORMAT, "EOS");
    v->p = good.p, v->p.count = 0;
    refuse_parts(v, 0, TG_ERR_FORMAT, "0 tokens");
    v->p = good.p, v->types[9] = 0;
    refuse_parts(v, 0, TG_ERR_FORMAT, "token 9 has type 0");
    v->types[9] = 1, v->merges[3] = "nopair", v->merge_lens[3] = 6;
    refuse_parts(v, 0, TG_ERR_FORMAT, "merge 3");
    v->merges[3] = "\xC4\xA0 zzz", v->merge_lens[3] = 6;
    refuse_parts(v, 0, TG_ERR_FORMAT, "'zzz'");
    v->tokens[9] = v->tokens[8], v->token_lens[9] = v->token_lens[8];
    refuse_parts(v, 0, TG_ERR_FORMAT, "twice");
    v->tokens[9] = "\xFF", v->token_lens[9] = 1;
    refuse_parts(v, 0, TG_ERR_FORMAT, "token 9 is not UTF-8");
    vocabulary_free(v);
}

/* ---- merges by score ---- */

/* The plain method on the texts of the symbols; returns how many are left. */
static size_t merge_plainly(const struct vocabulary *v, const char *text, size_t n, int32_t *ids)
{
    size_t begin[400], count = n;
    for (size_t i = 0; i <= n; i++)
        begin[i] = i;
    for (;;) {
        size_t best = SIZE_MAX;
        float score = 0;
        for (size_t i = 0; i + 1 < count; i++)
            for (size_t id = 0; id < v->p.count; id++)
                if (v->token_lens[id] == begin[i + 2] - begin[i] &&
                    memcmp(v->tokens[id], text + begin[i], v->token_lens[id]) == 0 &&
                    (best == SIZE_MAX || v->scores[id] > score)) {
                    best = i;
                    score = v->scores[id];
                }
        if (best == SIZE_MAX)
            break;
        count--;
        memmove(begin + best + 1, begin + best + 2, (count - best) * sizeof *begin);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t id = 0; id < v->p.count; id++)
            if (v->token_lens[id] == begin[i + 1] - begin[i] &&
                memcmp(v->tokens[id], text + begin[i], v->token_lens[id]) == 0)
                ids[i] = (int32_t)id;
    return count;
}

/* Vocabularies of a few letters with scores of few values, so that ties are the rule, and texts on
 * both ways through the merges. Not every letter is a token: what is left of it is byte tokens. */
static void test_scores(void **state)
{
    (void)state;
    struct tg_rng rng = tg_rng_make(31, 0);
    for (int round = 0; round < 60; round++) {
        struct vocabulary *v = tg_alloc(sizeof *v);
        char names[80][8];
        for (size_t i = 0; i < 3; i++)
            snprintf(names[v->p.count++], 8, "%c", (int)('a' + i));
        while (v->p.count < 3 + 3 + (size_t)round) {
            char name[8] = {0};
            size_t n = 2 + tg_rng_below(&rng, 5);
            bool twice = false;
            for (size_t i = 0; i < n; i++)
                name[i] = (char)('a' + tg_rng_below(&rng, round % 3 ? 3 : 1));
            for (size_t i = 0; i < v->p.count; i++)
                twice = twice || strcmp(names[i], name) == 0;
            if (twice && round % 3)
                continue;
            if (twice)
                break;
            snprintf(names[v->p.count++], 8, "%s", name);
        }
        for (size_t i = 0; i < v->p.count; i++) {
            v->tokens[i] = names[i];
            v->token_lens[i] = strlen(names[i]);
            v->scores[i] = (float)tg_rng_below(&rng, 1 + (uint64_t)round % 5);
            v->types[i] = 1;
        }
        link_parts(v, "llama", NULL);
        v->p.add_bos = v->p.add_space_prefix = 0;
        struct tg_tokenizer *t = made(v);
        for (int i = 0; i < 60; i++) {
            char text[300];
            int32_t want[300];
            struct tg_ids ids = {0};
            size_t n = 1 + tg_rng_below(&rng, i % 2 ? 40 : 200);
            for (size_t j = 0; j < n; j++)
                text[j] = (char)('a' + tg_rng_below(&rng, i % 5 ? 3 : 1));
            size_t count = merge_plainly(v, text, n, want);
            assert_int_equal(tg_tokenizer_encode(t, text, n, false, &ids, NULL), TG_OK);
            assert_int_equal(ids.count, count);
            assert_memory_equal(ids.data, want, count * sizeof *want);
            tg_ids_release(&ids);
        }
        tg_tokenizer_free(t);
        vocabulary_free(v);
    }
}

/* A million letters in one word, all scores equal: the leftmost pair is always the newest one. A
 * method that is not nearly linear would not come to an end here. */
static void test_equal_scores(void **state)
{
    enum { LONG = 2000000 };
    static const char *const names[] = {"a", "aa", "aaa", "aaaa", "aaaaa", "aaaaaa", "aaaaaaa"};
    (void)state;
    struct vocabulary *v = tg_alloc(sizeof *v);
    char *text = tg_alloc(LONG);
    memset(text, 'a', LONG);
    for (size_t order = 0; order < 3; order++) {
        struct tg_ids ids = {0};
        for (v->p.count = 0; v->p.count < 7; v->p.count++) {
            size_t i = v->p.count;
            v->tokens[i] = names[i];
            v->token_lens[i] = i + 1;
            v->scores[i] = order == 0 ? 0 : order == 1 ? (float)i : -(float)i;
            v->types[i] = 1;
        }
        link_parts(v, "llama", NULL);
        v->p.add_bos = v->p.add_space_prefix = 0;
        struct tg_tokenizer *t = made(v);
        assert_int_equal(tg_tokenizer_encode(t, text, LONG, false, &ids, NULL), TG_OK);
        assert_in_range(ids.count, LONG / 7, LONG / 2);
        tg_ids_release(&ids);
        tg_tokenizer_free(t);
    }
    tg_free(text);
    vocabulary_free(v);
}

/* Both kinds with the n-th allocation failing. */
static void test_memory(void **state)
{
    (void)state;
    struct vocabulary *all[] = {from_json("c_whitespace", "deepseek-v3"),
                                from_sentencepiece("sp_bpe_llama")};
    all[0]->p.count = 40, all[0]->p.merge_count = 0;
    for (size_t k = 0; k < 2; k++) {
        long failures = 0;
        int rc = TG_ERR_NOMEM;
        for (long n = 1; n <= 4000 && rc == TG_ERR_NOMEM; n++) {
            struct tg_tokenizer *t;
            struct tg_ids ids = {0};
            char *out = NULL;
            size_t len;
            tg_mem_fail_after(n);
            rc = tg_tokenizer_from_parts(&t, &all[k]->p, "some.gguf", 0, NULL);
            if (rc == TG_OK)
                rc = tg_tokenizer_encode(t, "<s> the \xE2\x80\xA6 12", 14, true, &ids, NULL);
            if (rc == TG_OK)
                rc = tg_tokenizer_decode(t, ids.data, ids.count, true, &out, &len, NULL);
            tg_mem_fail_after(0);
            tg_free(out);
            tg_ids_release(&ids);
            tg_tokenizer_free(t);
            assert_true(rc == TG_OK || rc == TG_ERR_NOMEM);
            failures += rc == TG_ERR_NOMEM;
        }
        print_message("%ld failures\n", failures);
        assert_int_equal(rc, TG_OK);
        assert_true(failures > 15);
        vocabulary_free(all[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf),          cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_refused_parts), cmocka_unit_test(test_scores),
        cmocka_unit_test(test_equal_scores),  cmocka_unit_test(test_memory),
    };
    return tg_run_tests("vocabularies", tests, sizeof tests / sizeof tests[0]);
}
