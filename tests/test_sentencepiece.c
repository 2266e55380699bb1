/* SentencePiece models that are cut or broken, what stands around their ids, and maps of characters
 * with any offsets. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "formats/tokenizer/charsmap.h"
#include "formats/tokenizer/tokenizer.h"

#define DATA "tests/data/tokenizers/"
#define MARK "\xE2\x96\x81"

/* ---- messages by hand ---- */

struct bytes {
    uint8_t data[4096];
    size_t len;
};

static void put_varint(struct bytes *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        b->data[b->len++] = (uint8_t)(v | 0x80);
    b->data[b->len++] = (uint8_t)v;
}

static void put_int(struct bytes *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

static void put_bytes(struct bytes *b, unsigned field, const void *s, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    memcpy(b->data + b->len, s, n);
    b->len += n;
}

static void put_piece(struct bytes *b, const char *s, size_t n, float score, int type)
{
    struct bytes p = {.len = 0};
    put_bytes(&p, 1, s, n);
    put_varint(&p, 2 << 3 | 5);
    memcpy(p.data + p.len, &score, 4);
    p.len += 4;
    put_int(&p, 3, (uint64_t)type);
    put_bytes(b, 1, p.data, p.len);
}

/* <unk>, <s>, "a", "b", "ab" of a BPE model. */
static struct bytes small_model(int model_type)
{
    struct bytes b = {.len = 0}, trainer = {.len = 0}, normalizer = {.len = 0};
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, "<s>", 3, 0, 3);
    put_piece(&b, "a", 1, -2, 1);
    put_piece(&b, "b", 1, -3, 1);
    put_piece(&b, "ab", 2, -1, 1);
    put_piece(&b, MARK, 3, -4, 1);
    put_int(&trainer, 3, (uint64_t)model_type);
    put_bytes(&b, 2, trainer.data, trainer.len);
    put_int(&normalizer, 3, 1);
    put_bytes(&b, 3, normalizer.data, normalizer.len);
    return b;
}

static int parse(const struct bytes *b, size_t len, struct tg_err *err)
{
    struct tg_tokenizer *t = NULL;
    int rc = tg_tokenizer_parse_model(&t, b->data, len, "some/tokenizer.model", 100, err);
    assert_true((rc == TG_OK) == (t != NULL));
    tg_tokenizer_free(t);
    return rc;
}

static void test_cut_models(void **state)
{
    static const char *const kinds[] = {"sp_bpe_bare", "sp_unigram"};
    (void)state;
    struct bytes b = small_model(2);
    size_t good = 0;
    assert_int_equal(parse(&b, b.len, NULL), TG_OK);
    for (size_t n = 0; n < b.len; n++)
        good += parse(&b, n, NULL) == TG_OK;
    assert_int_equal(good, 7); /* between two fields it is a smaller model */
    for (size_t k = 0; k < 2; k++) {
        char path[200], *bytes;
        size_t len;
        snprintf(path, sizeof path, DATA "%s/tokenizer.model", kinds[k]);
        assert_int_equal(tg_file_read(path, 1 << 20, &bytes, &len, NULL), TG_OK);
        for (size_t n = 0; n < len; n += n < len - 1500 ? 29 : 1) {
            struct tg_tokenizer *t = NULL;
            char *cut = tg_alloc(n); /* of this size, so that a read behind it is found */
            memcpy(cut, bytes, n);
            tg_tokenizer_parse_model(&t, cut, n, path, 0, NULL);
            tg_tokenizer_free(t);
            tg_free(cut);
        }
        tg_free(bytes);
    }
}

/* ---- models that are refused ---- */

static void expect_refusal(const struct bytes *b, int code, const char *says)
{
    struct tg_err err = {0};
    int rc = parse(b, b->len, &err);
    if (rc != code || !strstr(err.msg, says) || !strstr(err.msg, "some/tokenizer.model"))
        fail_msg("wanted %d '%s', got %d: %s", code, says, rc, err.msg);
}

static void test_refused_pieces(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        float score;
        int type, code;
        const char *says;
    } cases[] = {
        {"", 0, 0, 1, TG_ERR_FORMAT, "has 0 bytes"},
        {"a\0b", 3, 0, 1, TG_ERR_FORMAT, "piece 6"},
        {"\xC3(", 2, 0, 1, TG_ERR_FORMAT, "piece 6"},
        {"x", 1, NAN, 1, TG_ERR_FORMAT, "'x' is not finite"},
        {"x", 1, INFINITY, 1, TG_ERR_FORMAT, "'x' is not finite"},
        {"x", 1, 0, 7, TG_ERR_FORMAT, "type 7"},
        {"x", 1, 0, 0, TG_ERR_FORMAT, "type 0"},
        {"ab", 2, 0, 1, TG_ERR_FORMAT, "'ab' stands twice"},
        {"x", 1, 0, 2, TG_ERR_FORMAT, "both unknown"},
        {"<0x41>", 6, 0, 6, TG_ERR_FORMAT, "1 byte pieces, but byte_fallback is false"},
        {"bad", 3, 0, 6, TG_ERR_FORMAT, "'bad'"},
        {"ba", 2, 0, 5, TG_ERR_UNSUPPORTED, "'ba'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = small_model(2);
        put_piece(&b, cases[i].text, cases[i].len, cases[i].score, cases[i].type);
        expect_refusal(&b, cases[i].code, cases[i].says);
    }
    struct bytes b = small_model(1); /* in a Unigram model an unused piece is left out */
    put_piece(&b, "ba", 2, 0, 5);
    put_piece(&b, "\0", 1, 0, 5); /* holes may stand anywhere */
    put_piece(&b, "\0", 1, 0, 5);
    assert_int_equal(parse(&b, b.len, NULL), TG_OK);
}

static void put_charsmap(struct bytes *b, unsigned spec, const void *map, size_t len)
{
    struct bytes n = {.len = 0};
    put_bytes(&n, 2, map, len);
    put_bytes(b, spec, n.data, n.len);
}

static void test_refused_models(void **state)
{
    static const uint8_t maps[][12] = {
        {4, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 'c', 'd'}, /* no NUL at the end */
        {3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},         /* no whole unit */
        {8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},         /* nothing behind the trie */
        {0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0},
        {4, 0, 0, 0, 0, 0, 0, 0, 0xC3, '(', 0, 0}, /* no UTF-8 */
    };
    (void)state;
    struct bytes b = {.len = 0};
    expect_refusal(&b, TG_ERR_FORMAT, "no pieces");
    b = small_model(3);
    expect_refusal(&b, TG_ERR_UNSUPPORTED, "WORD");
    b = small_model(4);
    expect_refusal(&b, TG_ERR_UNSUPPORTED, "CHAR");
    b = small_model(9);
    expect_refusal(&b, TG_ERR_UNSUPPORTED, "model_type");
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        b = small_model(1);
        put_charsmap(&b, 3, maps[i], sizeof maps[i]);
        expect_refusal(&b, TG_ERR_FORMAT, "precompiled_charsmap");
    }
    b = small_model(1);
    put_charsmap(&b, 5, maps[0], sizeof maps[0]);
    expect_refusal(&b, TG_ERR_UNSUPPORTED, "denormalizer_spec");
    b = small_model(1);
    put_int(&b, 1, 5); /* pieces as a number */
    expect_refusal(&b, TG_ERR_FORMAT, "wire type");
    b = small_model(1);
    put_varint(&b, 7 << 3 | 3); /* a group */
    expect_refusal(&b, TG_ERR_FORMAT, "not a SentencePiece model");
    b = (struct bytes){.len = 0};
    put_piece(&b, "a", 1, 0, 1);
    expect_refusal(&b, TG_ERR_FORMAT, "no piece is unknown");
    struct tg_tokenizer *t;
    struct tg_err err = {0};
    assert_int_equal(tg_tokenizer_load(&t, DATA "sp_bpe", 399, &err), TG_ERR_MISMATCH);
    assert_non_null(strstr(err.msg, "the model has only 399"));
}

/* ids of a directory with a tokenizer.model: what stands around them is in tokenizer_config.json.
 */
static void test_surround(void **state)
{
    static const struct {
        const char *config;
        int before, after; /* -1: an error */
    } cases[] = {
        {"{}", 0, 0},
        {"{\"tokenizer_class\":\"LlamaTokenizer\"}", 1, 0},
        {"{\"tokenizer_class\":\"T5Tokenizer\",\"add_eos_token\":null}", 0, 1},
        {"{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":false,\"add_eos_token\":true}",
         0, 1},
        {"{\"add_bos_token\":7}", -1, 0},
    };
    const char *dir = "build/tests/sp_surround";
    struct bytes b = small_model(2);
    char path[200];
    (void)state;
    put_piece(&b, "</s>", 4, 0, 3);
    assert_int_equal(tg_dir_make(dir, NULL), TG_OK);
    snprintf(path, sizeof path, "%s/tokenizer.model", dir);
    assert_int_equal(tg_file_write(path, b.data, b.len, NULL), TG_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tg_tokenizer *t;
        struct tg_ids ids = {0};
        snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
        assert_int_equal(tg_file_write(path, cases[i].config, strlen(cases[i].config), NULL),
                         TG_OK);
        int rc = tg_tokenizer_load(&t, dir, 0, NULL);
        assert_int_equal(rc == TG_OK, cases[i].before >= 0);
        if (rc != TG_OK)
            continue;
        assert_int_equal(tg_tokenizer_encode(t, "ab", 2, true, &ids, NULL), TG_OK);
        assert_int_equal(ids.count, 2 + cases[i].before + cases[i].after);
        assert_int_equal(ids.data[0], cases[i].before ? 1 : 5);
        assert_int_equal(ids.data[ids.count - 1], cases[i].after ? 6 : 4);
        tg_ids_release(&ids);
        tg_tokenizer_free(t);
    }
    snprintf(path, sizeof path, "%s/added_tokens.json", dir);
    assert_int_equal(tg_file_write(path, "{}", 2, NULL), TG_OK);
    struct tg_tokenizer *t;
    assert_int_equal(tg_tokenizer_load(&t, dir, 0, NULL), TG_ERR_UNSUPPORTED);
    assert_int_equal(tg_dir_remove(dir, NULL), TG_OK);
}

/* ---- maps of characters ---- */

/* Any change of the units and texts gives a refusal or a map that stays inside itself and whose
 * replacements are UTF-8. */
static void test_charsmap_offsets(void **state)
{
    char *json, *base64;
    size_t len;
    (void)state;
    assert_int_equal(tg_file_read(DATA "u_precompiled/tokenizer.json", 1 << 20, &json, &len, NULL),
                     TG_OK);
    struct tg_json_doc *doc;
    assert_int_equal(tg_json_parse(&doc, json, len, "u_precompiled", 0, NULL), TG_OK);
    struct tg_json first =
        tg_json_first(tg_json_key(tg_json_key(tg_json_root(doc), "normalizer"), "normalizers"));
    base64 = tg_strdup(tg_json_string(tg_json_key(first, "precompiled_charsmap")));
    struct tg_rng rng = tg_rng_make(21, 0);
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t made = 0, matched = 0, n = strlen(base64);
    assert_true(n > 1000);
    for (int round = 0; round < 3000; round++) {
        struct tg_charsmap *map = NULL;
        size_t at[3];
        char old[3];
        for (size_t i = 0; i < 3; i++) {
            at[i] = tg_rng_below(&rng, n - 4);
            old[i] = base64[at[i]];
            base64[at[i]] = digits[tg_rng_below(&rng, 64)];
        }
        if (tg_charsmap_parse(&map, base64, "test", NULL) == TG_OK) {
            made++;
            for (uint32_t c = 1; c < 0x3100; c += 1 + (uint32_t)tg_rng_below(&rng, 9)) {
                char s[8];
                const char *to;
                size_t k = tg_utf8_encode(c, s), to_len;
                k += tg_utf8_encode(0x301, s + k);
                size_t used = tg_charsmap_match(map, s, k, round % 2, &to, &to_len);
                assert_true(used <= k);
                matched += used > 0;
                assert_true(used == 0 || tg_utf8_check(to, to_len) == to_len);
            }
        }
        tg_charsmap_free(map);
        for (size_t i = 3; i-- > 0;)
            base64[at[i]] = old[i];
    }
    print_message("%zu maps, %zu matches\n", made, matched);
    assert_true(made > 1000 && matched > 1000);
    struct tg_charsmap *map = NULL;
    assert_int_equal(tg_charsmap_parse(&map, "AB*D", "test", NULL), TG_ERR_FORMAT);
    tg_free(base64);
    tg_json_free(doc);
    tg_free(json);
}

/* 'a' leads to a unit that holds the offset of a text. */
static void test_charsmap_texts(void **state)
{
    static const struct {
        uint32_t leaf, value;
        const char *to; /* NULL: no match */
    } cases[] = {
        {0x60, 0, "\xC3\xA9"}, {0x60, 2, ""},      {0x60, 1, NULL},
        {0x60, 3, NULL},       {0x60, 1000, NULL}, {1000, 0, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t units[128] = {0};
        uint8_t bytes[4 + sizeof units + 3] = {sizeof units & 0xFF, sizeof units >> 8};
        struct tg_charsmap *map;
        const char *to;
        size_t len;
        units['a'] = 'a' | 0x100 | ('a' ^ cases[i].leaf) << 10;
        units[0x60] = 0x80000000u | cases[i].value;
        for (size_t k = 0; k < 128; k++)
            for (size_t j = 0; j < 4; j++)
                bytes[4 + 4 * k + j] = (uint8_t)(units[k] >> (8 * j));
        memcpy(bytes + 4 + sizeof units, "\xC3\xA9", 3);
        assert_int_equal(tg_charsmap_make(&map, bytes, sizeof bytes, "test", NULL), TG_OK);
        size_t used = tg_charsmap_match(map, "ab", 2, true, &to, &len);
        assert_int_equal(used, cases[i].to != NULL);
        if (used) {
            assert_int_equal(len, strlen(cases[i].to));
            assert_memory_equal(to, cases[i].to, len);
        }
        tg_charsmap_free(map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_models),       cmocka_unit_test(test_refused_pieces),
        cmocka_unit_test(test_refused_models),   cmocka_unit_test(test_surround),
        cmocka_unit_test(test_charsmap_offsets), cmocka_unit_test(test_charsmap_texts),
    };
    return tg_run_tests("sentencepiece", tests, sizeof tests / sizeof tests[0]);
}
