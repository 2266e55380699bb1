/* A vocabulary in a GGUF file against the tokenizer.json that it is made of here. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf.h"
#include "formats/gguf_vocab.h"

#define SOURCE "tests/data/tokenizers/gpt2/"

static char scratch[64];
static struct tg_err err;

/* tokenizer.json as metadata; tokens are borrowed from the document, merges are owned */
struct vocab {
    struct tg_json_doc *doc;
    struct tg_gguf_string *tokens, *merges;
    int32_t *types;
    float *scores;
    size_t count, merge_count;
};

static void read_vocab(struct vocab *v)
{
    assert_int_equal(tg_json_load(&v->doc, SOURCE "tokenizer.json", 0, &err), TG_OK);
    const struct tg_json root = tg_json_root(v->doc), model = tg_json_key(root, "model");
    const struct tg_json words = tg_json_key(model, "vocab"), merges = tg_json_key(model, "merges");
    const struct tg_json added = tg_json_key(root, "added_tokens");
    size_t at = 0;
    v->count = tg_json_count(words);
    for (struct tg_json a = tg_json_first(added); a.node; a = tg_json_next(a))
        if ((size_t)tg_json_number(tg_json_key(a, "id")) >= v->count)
            v->count = (size_t)tg_json_number(tg_json_key(a, "id")) + 1;
    v->tokens = tg_alloc_array(v->count, sizeof *v->tokens);
    v->types = tg_alloc_array(v->count, sizeof *v->types);
    v->scores = tg_alloc_array(v->count, sizeof *v->scores);
    for (struct tg_json w = tg_json_first(words); w.node; w = tg_json_next(w)) {
        const size_t id = (size_t)tg_json_number(w);
        v->tokens[id] = (struct tg_gguf_string){tg_json_name(w), strlen(tg_json_name(w))};
        v->types[id] = 1;
    }
    for (struct tg_json a = tg_json_first(added); a.node; a = tg_json_next(a)) {
        const size_t id = (size_t)tg_json_number(tg_json_key(a, "id"));
        const char *text = tg_json_string(tg_json_key(a, "content"));
        v->tokens[id] = (struct tg_gguf_string){text, strlen(text)};
        v->types[id] = 3;
    }
    v->merges = tg_alloc_array(tg_json_count(merges), sizeof *v->merges);
    for (struct tg_json m = tg_json_first(merges); m.node; m = tg_json_next(m)) {
        const struct tg_json first = tg_json_first(m);
        char pair[256];
        const int n = snprintf(pair, sizeof pair, "%s %s", tg_json_string(first),
                               tg_json_string(tg_json_next(first)));
        assert_true(n > 2 && (size_t)n < sizeof pair);
        v->merges[at++] = (struct tg_gguf_string){tg_strdup(pair), (size_t)n};
    }
    v->merge_count = at;
}

static void release_vocab(struct vocab *v)
{
    tg_json_free(v->doc);
    for (size_t i = 0; i < v->merge_count; i++)
        tg_free((char *)v->merges[i].text);
    tg_free(v->tokens);
    tg_free(v->merges);
    tg_free(v->types);
    tg_free(v->scores);
}

/* A file of the vocabulary alone, with one key set or (type COUNT) left out */
static struct tg_tensors *open_vocab(const struct vocab *v, const struct tg_gguf_kv *change)
{
    struct tg_gguf_kv kv[] = {
        {"tokenizer.ggml.model", tg_gguf_text("gpt2", 4)},
        {"tokenizer.ggml.pre", tg_gguf_text("gpt-2", 5)},
        {"tokenizer.ggml.tokens", tg_gguf_array(TG_GGUF_STRING, v->tokens, v->count)},
        {"tokenizer.ggml.merges", tg_gguf_array(TG_GGUF_STRING, v->merges, v->merge_count)},
        {"tokenizer.ggml.token_type", tg_gguf_array(TG_GGUF_I32, v->types, v->count)},
        {"tokenizer.ggml.scores", tg_gguf_array(TG_GGUF_F32, v->scores, v->count)},
        {"tokenizer.ggml.bos_token_id", tg_gguf_u32(0)},
        {"tokenizer.ggml.eos_token_id", tg_gguf_u32(1)},
        {"tokenizer.ggml.add_bos_token", tg_gguf_bool(false)},
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof kv / sizeof *kv; i++) {
        kv[count] = change && !strcmp(kv[i].key, change->key) ? *change : kv[i];
        count += kv[count].value.type != TG_GGUF_TYPE_COUNT;
    }
    struct tg_tensor_writer *w;
    struct tg_tensors *t;
    char *path = tg_path_join(scratch, "vocab.gguf");
    const struct tg_write_options o = {
        .format = &tg_format_gguf, .single = true, .kv = kv, .kvs = count};
    assert_int_equal(tg_tensor_writer_open(&w, path, NULL, 0, &o, &err), TG_OK);
    assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
    tg_tensor_writer_close(w);
    assert_int_equal(tg_tensors_open(&t, path, &err), TG_OK);
    tg_free(path);
    return t;
}

/* Every golden text gives the same ids and comes back. */
static void test_same(void **state)
{
    (void)state;
    struct vocab v;
    struct tg_tokenizer *tok;
    char *text;
    size_t len, lines = 0;
    read_vocab(&v);
    struct tg_tensors *t = open_vocab(&v, NULL);
    assert_true(tg_gguf_has_vocab(t));
    if (tg_gguf_tokenizer(&tok, t, 0, &err) != TG_OK)
        fail_msg("%s", err.msg);
    tg_tensors_close(t);
    release_vocab(&v);
    assert_int_equal(tg_file_read(SOURCE "golden.jsonl", 1 << 24, &text, &len, &err), TG_OK);
    for (char *at = text; at < text + len; lines++) {
        char *end = strchr(at, '\n');
        struct tg_json_doc *doc;
        struct tg_ids ids = {0};
        char *next = end + 1;
        *end = '\0';
        if (strstr(at, "\\u0000")) { /* which the JSON reader refuses */
            at = next;
            continue;
        }
        assert_int_equal(tg_json_parse(&doc, at, (size_t)(end - at), "golden", 0, &err), TG_OK);
        const struct tg_json root = tg_json_root(doc), want = tg_json_key(root, "ids");
        const char *s = tg_json_string(tg_json_key(root, "text"));
        if (tg_tokenizer_encode(tok, s, strlen(s), true, &ids, &err) != TG_OK)
            fail_msg("%s", err.msg);
        assert_int_equal(ids.count, tg_json_count(want));
        size_t i = 0;
        for (struct tg_json x = tg_json_first(want); x.node; x = tg_json_next(x), i++)
            if (ids.data[i] != (int32_t)tg_json_number(x))
                fail_msg("'%s': id %zu is %d", s, i, ids.data[i]);
        tg_ids_release(&ids);
        tg_json_free(doc);
        at = next;
    }
    assert_true(lines > 50);
    tg_free(text);
    tg_tokenizer_free(tok);
}

static void test_refused(void **state)
{
    (void)state;
    struct vocab v;
    read_vocab(&v);
    const struct {
        struct tg_gguf_kv kv;
        const char *why;
    } rows[] = {
#define LEFT_OUT {.type = TG_GGUF_TYPE_COUNT}
        {{"tokenizer.ggml.model", LEFT_OUT}, "'tokenizer.ggml.model' is missing"},
        {{"tokenizer.ggml.model", tg_gguf_u32(1)}, "is 1 (U32), must be a STRING"},
        {{"tokenizer.ggml.model", tg_gguf_text("rwkv", 4)}, "rwkv"},
        {{"tokenizer.ggml.pre", tg_gguf_text("nobody", 6)}, "nobody"},
        {{"tokenizer.ggml.tokens", LEFT_OUT}, "'tokenizer.ggml.tokens' is missing"},
        {{"tokenizer.ggml.tokens", tg_gguf_array(TG_GGUF_I32, v.types, v.count)},
         "must be an array of STRING"},
        {{"tokenizer.ggml.tokens", tg_gguf_array(TG_GGUF_STRING, v.tokens, v.count - 1)},
         "'tokenizer.ggml.scores' has "},
        {{"tokenizer.ggml.token_type", tg_gguf_array(TG_GGUF_I32, v.types, v.count - 1)},
         "'tokenizer.ggml.token_type' has "},
        {{"tokenizer.ggml.token_type", tg_gguf_array(TG_GGUF_U32, v.types, v.count)},
         "must be an array of I32"},
        {{"tokenizer.ggml.scores", tg_gguf_array(TG_GGUF_I32, v.types, v.count)},
         "must be an array of F32"},
        {{"tokenizer.ggml.merges", tg_gguf_text("a b", 3)}, "must be an array of STRING"},
        {{"tokenizer.ggml.bos_token_id", tg_gguf_u32((uint32_t)v.count)},
         "'tokenizer.ggml.bos_token_id' is"},
        {{"tokenizer.ggml.add_bos_token", tg_gguf_u32(1)}, "must be a BOOL"},
#undef LEFT_OUT
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tokenizer *tok;
        struct tg_tensors *t = open_vocab(&v, &rows[i].kv);
        memset(&err, 0, sizeof err);
        if (tg_gguf_tokenizer(&tok, t, 0, &err) == TG_OK || tok || !strstr(err.msg, rows[i].why) ||
            !strstr(err.msg, "vocab.gguf"))
            fail_msg("row %zu: wanted '%s', got '%s'", i, rows[i].why, err.msg);
        tg_tensors_close(t);
    }
    struct tg_tokenizer *tok;
    struct tg_tensors *t = open_vocab(&v, NULL);
    assert_int_not_equal(tg_gguf_tokenizer(&tok, t, v.count - 1, &err), TG_OK);
    tg_tensors_close(t);
    release_vocab(&v);
}

static void test_torture(void **state)
{
    (void)state;
    struct vocab v;
    read_vocab(&v);
    struct tg_tensors *t = open_vocab(&v, NULL);
    for (long n = 1;; n++) {
        struct tg_tokenizer *tok;
        tg_mem_fail_after(n);
        int rc = tg_gguf_tokenizer(&tok, t, 0, &err);
        tg_mem_fail_after(0);
        tg_tokenizer_free(tok);
        if (rc == TG_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(rc, TG_ERR_NOMEM);
        assert_null(tok);
    }
    tg_tensors_close(t);
    release_vocab(&v);
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_refused),
        cmocka_unit_test_setup_teardown(test_torture, NULL, remove_scratch),
    };
    snprintf(scratch, sizeof scratch, "/tmp/tegu-gguf-vocab-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    return tg_run_tests("gguf_vocab", tests, sizeof tests / sizeof *tests);
}
