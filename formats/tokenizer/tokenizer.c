/* Loading tokenizer.json, and the way of a text through the stages of it. */
#include "formats/tokenizer/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/pipeline.h"
#include "formats/tokenizer/sentencepiece.h"

static const struct tg_token_model *const models[] = {
#define TG_TOKENIZER(name) &tg_token_model_##name,
#include "formats/tokenizer/tokenizers.def"
#undef TG_TOKENIZER
};

int tg_ids_push(struct tg_ids *ids, int32_t id, struct tg_err *err)
{
    if (!tg_grow(&ids->data, &ids->cap, ids->count + 1, sizeof *ids->data))
        return tg_fail(err, TG_ERR_NOMEM, "out of memory for %zu token ids", ids->count + 1);
    ids->data[ids->count++] = id;
    return TG_OK;
}

void tg_ids_release(struct tg_ids *ids)
{
    tg_free(ids->data);
    *ids = (struct tg_ids){0};
}

/* ---- for the stages ---- */

int tg_unsupported(const struct tg_tokenizer *t, struct tg_err *err, const char *key,
                   const char *value)
{
    return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: %s: '%.200s' is not supported", t->name, key,
                   value);
}

const char *tg_type_of(struct tg_json o)
{
    return tg_json_string(tg_json_key(o, "type"));
}

int tg_refuse_set(const struct tg_tokenizer *t, struct tg_json o, const char *key,
                  struct tg_err *err)
{
    struct tg_json v = tg_json_key(o, key);
    if (!tg_json_has(v) || (tg_json_is_string(v) && !*tg_json_string(v)) ||
        (tg_json_is_number(v) && tg_json_number(v) == 0))
        return TG_OK;
    if (tg_json_is_number(v))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: %s: %g is not supported", t->name, key,
                       tg_json_number(v));
    return tg_unsupported(t, err, key, tg_json_is_string(v) ? tg_json_string(v) : "a setting");
}

int tg_token_add(struct tg_tokenizer *t, const char *s, size_t len, int64_t id, struct tg_err *err)
{
    size_t at = t->pool.len;
    int shown = (int)(len < 200 ? len : 200);
    if (t->vocab_limit && (uint64_t)id >= t->vocab_limit)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: token '%.*s' has id %lld, but the model has only %zu", t->name, shown,
                       s, (long long)id, t->vocab_limit);
    if ((size_t)id < t->vocab && t->tokens[id].used)
        return tg_fail(err, TG_ERR_FORMAT, "%s: tokens '%.*s' and '%.*s' both have id %lld",
                       t->name, (int)(t->tokens[id].len < 200 ? t->tokens[id].len : 200),
                       t->pool.data + t->tokens[id].off, shown, s, (long long)id);
    if (tg_strmap_find(&t->by_name, t->pool.data, s, len) >= 0)
        return tg_fail(err, TG_ERR_FORMAT, "%s: the token '%.*s' stands twice in the vocabulary",
                       t->name, shown, s);
    if (at + len > UINT32_MAX ||
        !tg_grow(&t->tokens, &t->tokens_cap, (size_t)id + 1, sizeof *t->tokens) ||
        !tg_text_add(&t->pool, s, len) ||
        !tg_strmap_add(&t->by_name, t->pool.data, (uint32_t)at, (uint32_t)len, (int32_t)id))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    t->tokens[id] = (struct tg_token){.off = (uint32_t)at, .len = (uint32_t)len, .used = true};
    if ((size_t)id >= t->vocab)
        t->vocab = (size_t)id + 1;
    return TG_OK;
}

/* ---- loading ---- */

static int choose_model(struct tg_tokenizer *t, struct tg_json root, struct tg_err *err)
{
    struct tg_json model = tg_json_key(root, "model");
    const char *type = tg_type_of(model);
    if (!tg_json_is_object(model))
        return tg_fail(err, TG_ERR_FORMAT, "%s: model is missing or not an object", t->name);
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        if (models[i]->claims(root)) {
            t->model = models[i];
            return TG_OK;
        }
    return tg_unsupported(t, err, "model.type", type);
}

static int load_stages(struct tg_tokenizer *t, struct tg_json root, struct tg_err *err)
{
    int rc = tg_json_is_object(root)
                 ? TG_OK
                 : tg_fail(err, TG_ERR_FORMAT, "%s: the file is not a JSON object", t->name);
    if (rc == TG_OK)
        rc = choose_model(t, root, err);
    if (rc == TG_OK)
        rc = tg_refuse_set(t, root, "truncation", err);
    if (rc == TG_OK)
        rc = tg_refuse_set(t, root, "padding", err);
    if (rc == TG_OK)
        rc = tg_normalizer_load(t, tg_json_key(root, "normalizer"), err);
    if (rc == TG_OK)
        rc = tg_pretok_load(t, tg_json_key(root, "pre_tokenizer"), err);
    if (rc == TG_OK)
        rc = t->model->load(t, tg_json_key(root, "model"), err);
    if (rc == TG_OK)
        rc = tg_added_load(t, tg_json_key(root, "added_tokens"), err);
    if (rc == TG_OK)
        rc = tg_added_index(t, err);
    if (rc == TG_OK)
        rc = tg_post_load(t, tg_json_key(root, "post_processor"), err);
    t->decodes = tg_json_has(tg_json_key(root, "decoder"));
    return rc == TG_OK ? tg_decoder_load(t, tg_json_key(root, "decoder"), err) : rc;
}

/* An empty tokenizer, or NULL. */
struct tg_tokenizer *tg_tokenizer_new(const char *name, size_t vocab_limit, struct tg_err *err)
{
    struct tg_tokenizer *t = tg_alloc(sizeof *t);
    if (!t || !(t->name = tg_strdup(name)) || !(t->classes = tg_char_classes())) {
        tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
        tg_tokenizer_free(t);
        return NULL;
    }
    t->vocab_limit = vocab_limit;
    return t;
}

/* *out gets t if rc is TG_OK; otherwise t is freed. */
int tg_tokenizer_done(struct tg_tokenizer **out, struct tg_tokenizer *t, int rc)
{
    if (rc == TG_OK)
        *out = t;
    else
        tg_tokenizer_free(t);
    return rc;
}

int tg_tokenizer_parse(struct tg_tokenizer **out, const char *json, size_t len, const char *name,
                       size_t vocab_limit, struct tg_err *err)
{
    struct tg_json_doc *doc;
    *out = NULL;
    int rc = tg_json_parse(&doc, json, len, name, 0, err);
    if (rc != TG_OK)
        return rc;
    struct tg_tokenizer *t = tg_tokenizer_new(name, vocab_limit, err);
    rc = t ? load_stages(t, tg_json_root(doc), err) : TG_ERR_NOMEM;
    tg_json_free(doc);
    return tg_tokenizer_done(out, t, rc);
}

int tg_tokenizer_parse_model(struct tg_tokenizer **out, const void *bytes, size_t len,
                             const char *name, size_t vocab_limit, struct tg_err *err)
{
    *out = NULL;
    struct tg_tokenizer *t = tg_tokenizer_new(name, vocab_limit, err);
    int rc = t ? tg_sentencepiece_build(t, bytes, len, err) : TG_ERR_NOMEM;
    return tg_tokenizer_done(out, t, rc);
}

/* An object begins; a protobuf may begin with the same bracket, but not with the same sign behind
 * it. */
static bool looks_like_json(const char *s, size_t len)
{
    size_t at = 0;
    while (at < len && strchr(" \t\r\n", s[at]) && s[at])
        at++;
    if (at == len || s[at] != '{')
        return at < len && s[at] == '[';
    for (at++; at < len && strchr(" \t\r\n", s[at]) && s[at]; at++)
        ;
    return at == len || s[at] == '"' || s[at] == '}';
}

/* The file in a directory that is to be read; the caller frees it. NULL: no memory. */
static char *file_of(const char *path)
{
    if (!tg_path_is_dir(path))
        return tg_strdup(path);
    char *json = tg_path_join(path, "tokenizer.json"), *model = NULL;
    if (!json || tg_path_exists(json))
        return json;
    model = tg_path_join(path, "tokenizer.model");
    bool other = model && tg_path_exists(model);
    if (other || !model) {
        tg_free(json);
        return model;
    }
    tg_free(model);
    return json;
}

int tg_tokenizer_load(struct tg_tokenizer **t, const char *path, size_t vocab_limit,
                      struct tg_err *err)
{
    enum { MAX_FILE = 1 << 28 };
    char *bytes = NULL, *file = file_of(path);
    size_t len;
    *t = NULL;
    if (!file)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    int rc = tg_file_read(file, MAX_FILE, &bytes, &len, err);
    bool json = rc == TG_OK && looks_like_json(bytes, len);
    if (rc == TG_OK)
        rc = json ? tg_tokenizer_parse(t, bytes, len, file, vocab_limit, err)
                  : tg_tokenizer_parse_model(t, bytes, len, file, vocab_limit, err);
    if (rc == TG_OK && !json && tg_path_is_dir(path)) {
        struct tg_tokenizer *made = *t;
        *t = NULL;
        rc = tg_tokenizer_done(t, made, tg_sentencepiece_surround(made, path, err));
    }
    tg_free(bytes);
    tg_free(file);
    return rc;
}

void tg_tokenizer_free(struct tg_tokenizer *t)
{
    if (!t)
        return;
    if (t->model)
        t->model->release(t->model_state);
    for (size_t i = 0; i < t->step_count; i++)
        tg_regex_free(t->steps[i].regex);
    for (size_t i = 0; i < t->normalizer_count; i++)
        tg_normalizer_release(&t->normalizers[i]);
    for (size_t i = 0; i < t->decoder_count; i++)
        tg_replace_release(&t->decoders[i].replace);
    tg_trie_release(&t->raw.trie);
    tg_trie_release(&t->normalized.trie);
    tg_strmap_release(&t->by_name);
    tg_text_release(&t->pool);
    tg_ids_release(&t->before);
    tg_ids_release(&t->after);
    void *owned[] = {t->name, t->tokens, t->classes, t->added};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        tg_free(owned[i]);
    tg_free(t);
}

/* ---- text to ids ---- */

int tg_ids_append(struct tg_encoder *e, const int32_t *ids, size_t n)
{
    struct tg_ids *to = e->ids;
    if (!tg_grow(&to->data, &to->cap, to->count + n, sizeof *to->data))
        return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    if (n)
        memcpy(to->data + to->count, ids, n * sizeof *ids);
    to->count += n;
    return TG_OK;
}

static int on_normalized(struct tg_encoder *e, struct tg_piece p, int32_t id)
{
    return id >= 0 ? tg_ids_append(e, &id, 1) : tg_pieces_emit(e, 0, p);
}

static int on_raw(struct tg_encoder *e, struct tg_piece p, int32_t id)
{
    if (id >= 0)
        return tg_ids_append(e, &id, 1);
    if (e->t->normalizer_count) {
        size_t origin = p.origin;
        int rc = tg_normalizer_run(e->t, &e->regex_run, p.text, p.len, &origin, &e->normal, e->err);
        if (rc != TG_OK)
            return rc;
        p = (struct tg_piece){e->normal.data, e->normal.len, origin};
    }
    return tg_added_split(e, &e->t->normalized, p, on_normalized);
}

static int push_all(struct tg_ids *to, const struct tg_ids *from, struct tg_err *err)
{
    int rc = TG_OK;
    for (size_t i = 0; i < from->count && rc == TG_OK; i++)
        rc = tg_ids_push(to, from->data[i], err);
    return rc;
}

int tg_tokenizer_encode(const struct tg_tokenizer *t, const char *text, size_t len, bool specials,
                        struct tg_ids *ids, struct tg_err *err)
{
    struct tg_encoder e = {.t = t, .ids = ids, .err = err, .text_len = len};
    size_t valid = tg_utf8_check(text, len), first = 0;
    int rc = TG_OK;
    if (valid < len)
        return tg_fail(err, TG_ERR_FORMAT, "the text is not UTF-8: byte 0x%02X at offset %zu",
                       (unsigned char)text[valid], valid);
    if (len)
        tg_char_at(text, &first);
    if (specials)
        rc = push_all(ids, &t->before, err);
    if (rc == TG_OK)
        rc = tg_added_split(&e, &t->raw, (struct tg_piece){text, len, first}, on_raw);
    if (rc == TG_OK && specials)
        rc = push_all(ids, &t->after, err);
    tg_text_release(&e.normal);
    for (size_t i = 0; i < t->step_count; i++)
        tg_text_release(&e.prefixed[i]);
    tg_regex_run_release(&e.regex_run);
    t->model->scratch_release(e.model_scratch);
    return rc;
}

/* ---- ids to text ---- */

int tg_tokenizer_decode(const struct tg_tokenizer *t, const int32_t *ids, size_t count,
                        bool skip_specials, char **text, size_t *len, struct tg_err *err)
{
    struct tg_pieces p = {0};
    bool ok = true;
    int rc = TG_OK;
    *text = NULL;
    for (size_t i = 0; i < count && ok; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->vocab || !t->tokens[ids[i]].used) {
            rc = tg_fail(err, TG_ERR_VALUE, "%s: id %d at position %zu is not a token", t->name,
                         (int)ids[i], i);
            goto out;
        }
        const struct tg_token *k = &t->tokens[ids[i]];
        if (skip_specials && k->special)
            continue;
        if (!t->decodes && p.count) /* HF joins with spaces when there is no decoder */
            ok = tg_text_add(&p.text, " ", 1);
        ok = ok && tg_pieces_add(&p, t->pool.data + k->off, k->len);
    }
    rc = ok ? tg_decoder_run(t, &p, err) : TG_OK;
    if (rc == TG_OK && (!ok || !tg_text_add(&p.text, "", 1))) /* the NUL behind it */
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    if (rc == TG_OK) {
        *len = p.text.len - 1;
        *text = p.text.data;
        p.text = (struct tg_text){0};
    }
out:
    tg_pieces_release(&p);
    return rc;
}

size_t tg_tokenizer_vocab(const struct tg_tokenizer *t)
{
    return t->vocab;
}

int32_t tg_tokenizer_id(const struct tg_tokenizer *t, const char *content)
{
    return tg_strmap_find(&t->by_name, t->pool.data, content, strlen(content));
}

const char *tg_tokenizer_kind(const struct tg_tokenizer *t)
{
    return t->model->name;
}
