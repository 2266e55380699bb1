/* Ids around a text and the chat template, of the files beside a tokenizer. What the model's
 * config says goes before what its tokenizer's says; a token is named by its text there. */
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/gguf_vocab_file.h"
#include "formats/tokenizer/sentencepiece.h"

#define KEY(name) "tokenizer.ggml." name

enum { TOKENIZER_CONFIG, SPECIAL_TOKENS, CONFIG, GENERATION, FILES };
static const char *const file_names[FILES] = {"tokenizer_config.json", "special_tokens_map.json",
                                              "config.json", "generation_config.json"};

struct beside {
    struct tg_json_doc *docs[FILES];
    struct tg_json roots[FILES]; /* absent without the file */
};

static void release(struct beside *b)
{
    for (size_t i = 0; i < FILES; i++)
        tg_json_free(b->docs[i]);
}

/* Absent if there is no such file */
static int load_beside(const struct tg_vocab_out *o, const char *name, struct tg_json_doc **doc,
                       struct tg_json *root, struct tg_err *err)
{
    char *path = tg_path_join(o->dir, name);
    int rc = path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->dir);
    if (rc == TG_OK && tg_path_exists(path) &&
        (rc = tg_json_load(doc, path, TG_JSON_INFINITY, err)) == TG_OK)
        *root = tg_json_root(*doc);
    tg_free(path);
    return rc;
}

static int load_all(const struct tg_vocab_out *o, struct beside *b, struct tg_err *err)
{
    int rc = TG_OK;
    for (size_t i = 0; i < FILES && rc == TG_OK; i++)
        rc = load_beside(o, file_names[i], &b->docs[i], &b->roots[i], err);
    const struct tg_json text = tg_json_key(b->roots[CONFIG], "text_config");
    if (tg_json_is_object(text))
        b->roots[CONFIG] = text;
    return rc;
}

/* The token of a key like "pad_token", which is a text or an object that has one; -1: none */
static int32_t named(const struct tg_vocab_out *o, const struct beside *b, const char *key)
{
    for (size_t i = TOKENIZER_CONFIG; i <= SPECIAL_TOKENS; i++) {
        const struct tg_json v = tg_json_key(b->roots[i], key);
        const char *text = tg_json_string(tg_json_is_object(v) ? tg_json_key(v, "content") : v);
        if (*text)
            return tg_tokenizer_id(o->t, text);
    }
    return -1;
}

static int check_id(const struct tg_vocab_out *o, struct tg_json v, int32_t *id, struct tg_err *err)
{
    const double x = tg_json_number(v);
    if (!tg_json_is_number(v) || x != (double)(int32_t)x || x >= (double)o->vocab)
        return tg_json_fail(v, "", TG_ERR_VALUE, err, "is not a token of %zu", o->vocab);
    *id = x < 0 ? -1 : (int32_t)x;
    return TG_OK;
}

/* The id under "eos_token_id" of the model's config, or the i-th of its list; *id is kept if there
 * is none. */
static int numbered(const struct tg_vocab_out *o, struct tg_json config, const char *key, size_t i,
                    int32_t *id, struct tg_err *err)
{
    struct tg_json v = tg_json_key(config, key);
    if (tg_json_is_array(v))
        for (v = tg_json_first(v); v.node && i; i--)
            v = tg_json_next(v);
    return tg_json_has(v) && !i ? check_id(o, v, id, err) : TG_OK;
}

/* bos, then eos, eot and eom; -1: none */
enum { BOS, EOS, ENDS = EOS + TG_GGUF_MAX_ENDS };

static int read_ends(struct tg_vocab_out *o, const struct beside *b, int32_t ids[ENDS],
                     struct tg_err *err)
{
    const struct tg_sentencepiece_spec *spec =
        tg_json_has(o->root) ? NULL : o->t->normalizers[0].spec;
    const struct tg_json list = tg_json_key(b->roots[GENERATION], "eos_token_id");
    const struct tg_json from = b->roots[tg_json_has(list) ? GENERATION : CONFIG];
    int rc = numbered(o, b->roots[CONFIG], "bos_token_id", 0, &ids[BOS], err);
    for (size_t i = 0; i < TG_GGUF_MAX_ENDS && rc == TG_OK; i++)
        rc = numbered(o, from, "eos_token_id", i, &ids[EOS + i], err);
    if (ids[BOS] < 0)
        ids[BOS] = named(o, b, "bos_token");
    if (ids[EOS] < 0)
        ids[EOS] = named(o, b, "eos_token");
    if (ids[BOS] < 0 && spec)
        ids[BOS] = spec->bos;
    if (ids[EOS] < 0 && spec)
        ids[EOS] = spec->eos;
    return rc;
}

static void take_ends(const struct tg_vocab_ends *ends, int32_t ids[ENDS])
{
    ids[BOS] = ends->bos;
    for (size_t i = 0; i < ends->eos_count && i < TG_GGUF_MAX_ENDS; i++)
        ids[EOS + i] = ends->eos[i];
}

static int check_ends(const struct tg_vocab_out *o, const int32_t ids[ENDS], struct tg_err *err)
{
    for (size_t i = 0; i < ENDS; i++)
        if (ids[i] >= 0 && (size_t)ids[i] >= o->vocab)
            return tg_fail(err, TG_ERR_VALUE, "%s: token id %d is not in [0, %zu)", o->t->name,
                           (int)ids[i], o->vocab);
    return TG_OK;
}

/* Ids that the tokenizer puts around a text: BOS before it, EOS behind it, or nothing */
static int check_around(const struct tg_vocab_out *o, const struct tg_ids *ids, const char *what,
                        int32_t *id, struct tg_err *err)
{
    if (ids->count == 0)
        return TG_OK;
    if (ids->count == 1 && *id < 0)
        *id = ids->data[0];
    if (ids->count == 1 && *id == ids->data[0])
        return TG_OK;
    return tg_fail(err, TG_ERR_UNSUPPORTED,
                   "%s: post_processor: puts %zu tokens, the first %d, at the %s of a text; in a "
                   "GGUF file it can be one, which is the model's %s_token_id, %d",
                   o->t->name, ids->count, (int)ids->data[0], *what == 'b' ? "beginning" : "end",
                   what, (int)*id);
}

static void put_id(struct tg_gguf_list *keys, const char *key, int32_t id)
{
    if (id >= 0)
        tg_gguf_put(keys, key, tg_gguf_u32((uint32_t)id));
}

static void put_ends(struct tg_gguf_list *keys, const int32_t ids[ENDS])
{
    static const char *const names[ENDS] = {KEY("bos_token_id"), KEY("eos_token_id"),
                                            KEY("eot_token_id"), KEY("eom_token_id")};
    for (size_t i = 0; i < ENDS; i++)
        put_id(keys, names[i], ids[i]);
}

void tg_gguf_vocab_none(const struct tg_vocab_ends *ends, struct tg_gguf_list *keys)
{
    int32_t ids[ENDS] = {-1, -1, -1, -1};
    if (ends)
        take_ends(ends, ids);
    tg_gguf_put_text(keys, KEY("model"), "none"); /* without this key engines load no model */
    put_ends(keys, ids);
}

int tg_vocab_out_ends(struct tg_vocab_out *o, const struct tg_vocab_ends *ends, struct tg_err *err)
{
    struct beside b = {.docs = {NULL}};
    int32_t ids[ENDS] = {-1, -1, -1, -1}, pad = -1;
    int rc = load_all(o, &b, err);
    if (ends)
        take_ends(ends, ids);
    else if (rc == TG_OK)
        rc = read_ends(o, &b, ids, err);
    if (rc == TG_OK)
        rc = check_ends(o, ids, err);
    if (rc == TG_OK)
        rc = check_around(o, &o->t->before, "bos", &ids[BOS], err);
    if (rc == TG_OK)
        rc = check_around(o, &o->t->after, "eos", &ids[EOS], err);
    if (rc == TG_OK)
        rc = numbered(o, b.roots[CONFIG], "pad_token_id", 0, &pad, err);
    if (o->unk < 0)
        o->unk = named(o, &b, "unk_token");
    if (named(o, &b, "pad_token") >= 0)
        pad = named(o, &b, "pad_token");
    release(&b);
    if (rc != TG_OK)
        return rc;
    put_ends(o->keys, ids);
    put_id(o->keys, KEY("unknown_token_id"), o->unk);
    put_id(o->keys, KEY("padding_token_id"), pad);
    tg_gguf_put(o->keys, KEY("add_bos_token"), tg_gguf_bool(o->t->before.count > 0));
    tg_gguf_put(o->keys, KEY("add_eos_token"), tg_gguf_bool(o->t->after.count > 0));
    tg_gguf_put(o->keys, KEY("add_space_prefix"), tg_gguf_bool(o->space_prefix));
    return TG_OK;
}

/* ---- the chat template ---- */

/* A template, or a list of {name, template} of which "default" is the plain one */
static void put_template(struct tg_vocab_out *o, struct tg_json v)
{
    const char *text = tg_json_string(v);
    for (struct tg_json c = tg_json_first(v); tg_json_is_array(v) && c.node; c = tg_json_next(c))
        if (strcmp(tg_json_string(tg_json_key(c, "name")), "default") == 0)
            text = tg_json_string(tg_json_key(c, "template"));
    if (*text)
        tg_gguf_put_text(o->keys, "tokenizer.chat_template", text);
}

int tg_vocab_out_template(struct tg_vocab_out *o, struct tg_err *err)
{
    enum { MAX_TEMPLATE = 1 << 24 };
    struct tg_json_doc *doc = NULL;
    struct tg_json root = {0};
    char *path = tg_path_join(o->dir, "chat_template.jinja"), *text = NULL;
    size_t len;
    int rc = path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", o->dir);
    if (rc == TG_OK && tg_path_exists(path)) {
        rc = tg_file_read(path, MAX_TEMPLATE, &text, &len, err);
        if (rc == TG_OK)
            tg_gguf_put_text(o->keys, "tokenizer.chat_template", text);
    } else if (rc == TG_OK) {
        rc = load_beside(o, file_names[TOKENIZER_CONFIG], &doc, &root, err);
        if (rc == TG_OK)
            put_template(o, tg_json_key(root, "chat_template"));
    }
    tg_json_free(doc);
    tg_free(text);
    tg_free(path);
    return rc;
}
