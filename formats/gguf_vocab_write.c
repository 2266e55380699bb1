#include "formats/gguf_vocab_write.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/gguf_vocab.h"
#include "formats/gguf_vocab_file.h"
#include "formats/tensors.h"

#define KEY(name) "tokenizer.ggml." name

enum { MAX_FILE = 1 << 28 };

int tg_vocab_out_refuse(const struct tg_vocab_out *o, struct tg_err *err, const char *what,
                        const char *value)
{
    return tg_fail(err, TG_ERR_UNSUPPORTED,
                   "%s: %s: '%.200s' cannot be said in the metadata of a GGUF file", o->t->name,
                   what, value);
}

/* ---- tokens ---- */

int tg_vocab_out_added(struct tg_vocab_out *o, struct tg_err *err)
{
    for (size_t i = 0; i < o->t->added_count; i++) {
        const struct tg_added *a = &o->t->added[i];
        const struct tg_token *k = &o->t->tokens[a->id];
        const char *flag = a->single_word ? "single_word"
                           : a->lstrip    ? "lstrip"
                           : a->rstrip    ? "rstrip"
                                          : NULL;
        /* Engines look for control tokens only when they are asked to, so that what stands around
         * those does not change what a text becomes. */
        if (!a->special && flag)
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: added_tokens: %s of '%.*s' cannot be said in the metadata of a "
                           "GGUF file",
                           o->t->name, flag, (int)(k->len < 200 ? k->len : 200),
                           o->t->pool.data + k->off);
        o->types[a->id] = a->special ? TG_GGUF_CONTROL : TG_GGUF_USER;
    }
    return TG_OK;
}

/* A name for a place that has no token; engines want all of them to differ. */
static void put_unused(const struct tg_vocab_out *o, size_t id, struct tg_strbuf *text)
{
    char name[64];
    int n = snprintf(name, sizeof name, "[PAD%zu]", id);
    while (tg_tokenizer_id(o->t, name) >= 0 && n < 60)
        n += snprintf(name + n, sizeof name - (size_t)n, "_");
    tg_strbuf_add(text, name, (size_t)n);
}

static int put_tokens(struct tg_vocab_out *o, struct tg_err *err)
{
    struct tg_gguf_string *tokens = tg_gguf_own(o->keys, tg_alloc_array(o->vocab, sizeof *tokens));
    struct tg_strbuf text;
    tg_strbuf_init(&text, SIZE_MAX / 2);
    for (size_t id = 0; tokens && id < o->vocab; id++) {
        const struct tg_token *k = id < o->t->vocab ? &o->t->tokens[id] : NULL;
        const size_t from = text.len;
        if (!k || !k->used)
            put_unused(o, id, &text);
        else
            tg_strbuf_add(&text, o->t->pool.data + k->off, k->len);
        tokens[id].len = text.len - from;
    }
    const char *at = tg_gguf_own(o->keys, tg_strbuf_take(&text));
    tg_strbuf_release(&text);
    if (!tokens || !at)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->t->name);
    for (size_t id = 0; id < o->vocab; id++) {
        tokens[id].text = at;
        at += tokens[id].len;
    }
    tg_gguf_put(o->keys, KEY("tokens"), tg_gguf_array(TG_GGUF_STRING, tokens, o->vocab));
    tg_gguf_put_array(o->keys, KEY("token_type"), TG_GGUF_I32, o->types, o->vocab);
    if (o->llama)
        tg_gguf_put_array(o->keys, KEY("scores"), TG_GGUF_F32, o->scores, o->vocab);
    return TG_OK;
}

/* ---- of the files of a tokenizer ---- */

static int make_keys(struct tg_vocab_out *o, const struct tg_vocab_ends *ends, struct tg_err *err)
{
    const char *kind = tg_tokenizer_kind(o->t);
    int rc;
    for (size_t id = 0; id < o->vocab; id++)
        o->types[id] = id < o->t->vocab && o->t->tokens[id].used ? TG_GGUF_NORMAL : TG_GGUF_UNUSED;
    if (o->t->model == &tg_token_model_byte_bpe)
        rc = tg_vocab_out_bytes(o, err);
    else if (o->t->model == &tg_token_model_char_bpe)
        rc = tg_vocab_out_scores(o, err);
    else
        rc = tg_vocab_out_refuse(o, err, "model", kind);
    if (rc != TG_OK)
        return rc;
    tg_gguf_put_text(o->keys, KEY("model"), o->llama ? "llama" : "gpt2");
    tg_gguf_put_text(o->keys, KEY("pre"), o->pre);
    if ((rc = put_tokens(o, err)) || (rc = tg_vocab_out_ends(o, ends, err)))
        return rc;
    return tg_vocab_out_template(o, err);
}

static int of_tokenizer(struct tg_vocab_out *o, const struct tg_vocab_ends *ends,
                        struct tg_err *err)
{
    o->types = tg_alloc_array(o->vocab, sizeof *o->types);
    o->scores = tg_alloc_array(o->vocab, sizeof *o->scores);
    int rc = o->types && o->scores ? make_keys(o, ends, err)
                                   : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->t->name);
    tg_free(o->types);
    tg_free(o->scores);
    return rc;
}

static int of_files(const char *dir, const char *json, size_t vocab,
                    const struct tg_vocab_ends *ends, struct tg_gguf_list *keys, struct tg_err *err)
{
    struct tg_vocab_out o = {.dir = dir, .vocab = vocab, .keys = keys, .unk = -1};
    struct tg_tokenizer *t = NULL;
    struct tg_json_doc *doc = NULL;
    int rc = tg_tokenizer_load(&t, dir, vocab, err);
    if (rc == TG_OK && tg_path_exists(json) && !(rc = tg_json_load(&doc, json, 0, err)))
        o.root = tg_json_root(doc);
    o.t = t;
    if (rc == TG_OK)
        rc = of_tokenizer(&o, ends, err);
    tg_json_free(doc);
    tg_tokenizer_free(t);
    return rc;
}

/* ---- of a GGUF file ---- */

static void copy_value(struct tg_gguf_list *keys, const struct tg_gguf_kv *kv)
{
    const struct tg_gguf_value *v = &kv->value;
    if (v->type == TG_GGUF_ARRAY)
        tg_gguf_put_array(keys, kv->key, v->array.type, v->array.data, v->array.count);
    else if (v->type == TG_GGUF_STRING)
        tg_gguf_put_text(keys, kv->key, v->s.text);
    else
        tg_gguf_put(keys, kv->key, *v);
}

static int of_gguf(const char *path, size_t vocab, const struct tg_vocab_ends *ends,
                   struct tg_gguf_list *keys, struct tg_err *err)
{
    struct tg_tensors *t = NULL;
    const struct tg_gguf_value *tokens = NULL;
    int rc = tg_tensors_open(&t, path, err);
    const bool has = rc == TG_OK && tg_gguf_has_vocab(t);
    if (rc == TG_OK && !has)
        tg_gguf_vocab_none(ends, keys);
    if (has)
        rc = tg_gguf_get_array(t, KEY("tokens"), TG_GGUF_STRING, &tokens, err);
    if (rc == TG_OK && has && tokens->array.count != vocab)
        rc = tg_fail(err, TG_ERR_MISMATCH, "%s: '%s' has %zu elements, the model %zu tokens", path,
                     KEY("tokens"), tokens->array.count, vocab);
    for (size_t i = 0; rc == TG_OK && has && i < tg_gguf_count(t); i++)
        if (!strncmp(tg_gguf_at(t, i)->key, "tokenizer.", 10))
            copy_value(keys, tg_gguf_at(t, i));
    tg_tensors_close(t);
    return rc;
}

int tg_gguf_vocab_of(const char *dir, size_t vocab, const struct tg_vocab_ends *ends,
                     struct tg_gguf_list *keys, struct tg_err *err)
{
    char *json = tg_path_join(dir, "tokenizer.json"), *model = tg_path_join(dir, "tokenizer.model");
    char *gguf = tg_path_join(dir, "tokenizer.gguf");
    int rc;
    if (!json || !model || !gguf)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);
    else if (vocab == 0)
        rc = tg_fail(err, TG_ERR_VALUE, "%s: a model of no tokens", dir);
    else if (tg_path_exists(json) || tg_path_exists(model))
        rc = of_files(dir, json, vocab, ends, keys, err);
    else
        rc = of_gguf(tg_path_exists(gguf) ? gguf : dir, vocab, ends, keys, err);
    if (rc == TG_OK && keys->failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", dir);
    tg_free(json);
    tg_free(model);
    tg_free(gguf);
    return rc;
}
