/* tokenizer.ggml.* as struct tg_vocab_parts: lists are checked to be as long as the vocabulary, ids
 * to lie in it. */
#include "formats/gguf_vocab.h"

#include <string.h>

#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf.h"

#define KEY(name) "tokenizer.ggml." name

/* What tg_vocab_parts borrows and the file does not hold in its form */
struct lists {
    const char **tokens, **merges;
    size_t *token_lens, *merge_lens;
    float *scores;
    int32_t *types;
};

static void lists_release(struct lists *l)
{
    tg_free(l->tokens);
    tg_free(l->merges);
    tg_free(l->token_lens);
    tg_free(l->merge_lens);
    tg_free(l->scores);
    tg_free(l->types);
}

static int fail_memory(const struct tg_tensors *t, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", tg_tensors_file(t, 0));
}

static int read_texts(const struct tg_tensors *t, const char *key, const char ***texts,
                      size_t **lens, size_t *count, struct tg_err *err)
{
    const struct tg_gguf_value *v;
    const int rc = tg_gguf_get_array(t, key, TG_GGUF_STRING, &v, err);
    if (rc != TG_OK)
        return rc;
    *texts = tg_alloc_array(v->array.count, sizeof **texts);
    *lens = tg_alloc_array(v->array.count, sizeof **lens);
    if (!*texts || !*lens)
        return fail_memory(t, err);
    *count = v->array.count;
    const struct tg_gguf_string *s = v->array.data;
    for (size_t i = 0; i < *count; i++) {
        (*texts)[i] = s[i].text;
        (*lens)[i] = s[i].len;
    }
    return TG_OK;
}

/* A list of one number for each token, if there is one; in `out` [count] of size 4 */
static int read_numbers(const struct tg_tensors *t, const char *key, enum tg_gguf_type type,
                        size_t count, void **out, struct tg_err *err)
{
    const struct tg_gguf_value *v = tg_gguf_find(t, key);
    struct tg_gguf_value x;
    if (!v)
        return TG_OK;
    const int rc = tg_gguf_get_array(t, key, type, &v, err);
    if (rc != TG_OK)
        return rc;
    if (v->array.count != count)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: '%s' has %zu elements, " KEY("tokens") " %zu",
                       tg_tensors_file(t, 0), key, v->array.count, count);
    if (!(*out = tg_alloc_array(count, 4)))
        return fail_memory(t, err);
    for (size_t i = 0; tg_gguf_element(v, i, &x); i++) {
        if (type == TG_GGUF_F32)
            ((float *)*out)[i] = (float)x.f;
        else
            ((int32_t *)*out)[i] = (int32_t)x.i;
    }
    return TG_OK;
}

static int read_lists(const struct tg_tensors *t, struct tg_vocab_parts *p, struct lists *l,
                      struct tg_err *err)
{
    void *scores = NULL, *types = NULL;
    int rc = read_texts(t, KEY("tokens"), &l->tokens, &l->token_lens, &p->count, err);
    if (rc == TG_OK && tg_gguf_find(t, KEY("merges")))
        rc = read_texts(t, KEY("merges"), &l->merges, &l->merge_lens, &p->merge_count, err);
    if (rc == TG_OK)
        rc = read_numbers(t, KEY("scores"), TG_GGUF_F32, p->count, &scores, err);
    if (rc == TG_OK)
        rc = read_numbers(t, KEY("token_type"), TG_GGUF_I32, p->count, &types, err);
    p->tokens = l->tokens;
    p->token_lens = l->token_lens;
    p->merges = l->merges;
    p->merge_lens = l->merge_lens;
    p->scores = l->scores = scores;
    p->types = l->types = types;
    return rc;
}

/* -1 when the file does not say */
static int read_id(const struct tg_tensors *t, const char *key, size_t count, int64_t *id,
                   struct tg_err *err)
{
    *id = -1;
    return tg_gguf_find(t, key) ? tg_gguf_get_int(t, key, 0, (int64_t)count - 1, id, err) : TG_OK;
}

static int read_flag(const struct tg_tensors *t, const char *key, int *flag, struct tg_err *err)
{
    bool yes = false;
    *flag = -1;
    const int rc = tg_gguf_find(t, key) ? tg_gguf_get_bool(t, key, &yes, err) : TG_OK;
    if (rc == TG_OK && tg_gguf_find(t, key))
        *flag = yes;
    return rc;
}

static int read_parts(const struct tg_tensors *t, struct tg_vocab_parts *p, struct lists *l,
                      struct tg_err *err)
{
    int rc;
    if ((rc = tg_gguf_get_string(t, KEY("model"), &p->model, err)) ||
        (tg_gguf_find(t, KEY("pre")) && (rc = tg_gguf_get_string(t, KEY("pre"), &p->pre, err))) ||
        (rc = read_lists(t, p, l, err)) ||
        (rc = read_id(t, KEY("bos_token_id"), p->count, &p->bos, err)) ||
        (rc = read_id(t, KEY("eos_token_id"), p->count, &p->eos, err)) ||
        (rc = read_id(t, KEY("unknown_token_id"), p->count, &p->unk, err)) ||
        (rc = read_flag(t, KEY("add_bos_token"), &p->add_bos, err)) ||
        (rc = read_flag(t, KEY("add_eos_token"), &p->add_eos, err)))
        return rc;
    return read_flag(t, KEY("add_space_prefix"), &p->add_space_prefix, err);
}

bool tg_gguf_has_vocab(const struct tg_tensors *t)
{
    return tg_gguf_find(t, KEY("tokens")) != NULL;
}

int tg_gguf_tokenizer(struct tg_tokenizer **tok, const struct tg_tensors *t, size_t vocab_limit,
                      struct tg_err *err)
{
    struct tg_vocab_parts p = {0};
    struct lists l = {0};
    *tok = NULL;
    int rc = read_parts(t, &p, &l, err);
    if (rc == TG_OK)
        rc = tg_tokenizer_from_parts(tok, &p, tg_tensors_file(t, 0), vocab_limit, err);
    lists_release(&l);
    return rc;
}

int tg_gguf_vocab_write(const struct tg_tensors *t, const char *path, struct tg_err *err)
{
    struct tg_write_options o = {.format = &tg_format_gguf, .single = true};
    struct tg_tensor_writer *w = NULL;
    struct tg_gguf_kv *kv;
    size_t all;
    int rc = tg_gguf_keys(t, false, &kv, &all, err);
    for (size_t i = 0; i < all && rc == TG_OK; i++)
        if (!strncmp(kv[i].key, "tokenizer.", 10) || !strcmp(kv[i].key, "general.architecture"))
            kv[o.kvs++] = kv[i];
    o.kv = kv;
    if (rc == TG_OK)
        rc = tg_tensor_writer_open(&w, path, NULL, 0, &o, err);
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, err);
    tg_tensor_writer_close(w);
    tg_free(kv);
    return rc;
}
