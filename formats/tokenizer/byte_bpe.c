/* Byte-level BPE (GPT-2): the symbols of a word are its bytes. */
#include "formats/tokenizer/byte_bpe.h"

#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/byte_level.h"
#include "formats/tokenizer/pipeline.h"

struct byte_bpe {
    int32_t byte_id[256]; /* -1: the byte has no token */
    struct tg_merges merges;
    struct tg_strmap words; /* whole words, for ignore_merges, over `bytes` */
    struct tg_text bytes;
    bool ignore_merges, fuse_unk;
    int32_t unk;
};

/* ---- loading ---- */

/* Ids of the 256 bytes, and of whole words if merges are to be ignored for them. */
static int load_bytes(struct tg_tokenizer *t, struct byte_bpe *m, struct tg_err *err)
{
    for (size_t i = 0; i < 256; i++)
        m->byte_id[i] = -1;
    for (size_t id = 0; id < t->vocab; id++) {
        const struct tg_token *k = &t->tokens[id];
        const char *s = t->pool.data + k->off;
        size_t from = m->bytes.len, n;
        int byte = 0;
        for (size_t i = 0; i < k->len && byte >= 0; i += n) {
            byte = tg_byte_of_char(tg_char_at(s + i, &n));
            if (byte >= 0 && !tg_text_add(&m->bytes, (char[]){(char)byte}, 1))
                return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
        }
        if (!k->used || byte < 0) {
            m->bytes.len = from; /* a token that no bytes spell */
            continue;
        }
        n = m->bytes.len - from;
        if (n == 1)
            m->byte_id[(unsigned char)m->bytes.data[from]] = (int32_t)id;
        if (m->ignore_merges && n &&
            !tg_strmap_add(&m->words, m->bytes.data, (uint32_t)from, (uint32_t)n, (int32_t)id))
            return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
        if (!m->ignore_merges)
            m->bytes.len = from;
    }
    return TG_OK;
}

/* unk_token, byte_fallback and fuse_unk say what becomes of a byte without a token. */
static int load_unknown(struct tg_tokenizer *t, struct byte_bpe *m, struct tg_json model,
                        struct tg_err *err)
{
    bool fallback = false, complete = true;
    const char *unk = NULL;
    int rc = tg_json_get_bool_or(model, "byte_fallback", &fallback, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(model, "fuse_unk", &m->fuse_unk, err);
    if (rc == TG_OK)
        rc = tg_json_get_str_or(model, "unk_token", &unk, err);
    if (rc != TG_OK)
        return rc;
    for (size_t i = 0; i < 256; i++)
        complete = complete && m->byte_id[i] >= 0;
    if (complete)
        return TG_OK;
    if (fallback)
        return tg_unsupported(t, err, "model.byte_fallback with bytes that have no token", "true");
    if (unk && (m->unk = tg_strmap_find(&t->by_name, t->pool.data, unk, strlen(unk))) < 0)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: model.unk_token '%s' is not a token of the vocabulary", t->name, unk);
    return TG_OK;
}

/* After the vocabulary. */
static int start(struct tg_tokenizer *t, bool ignore_merges, struct tg_err *err)
{
    struct byte_bpe *m = tg_alloc(sizeof *m);
    t->model_state = m;
    if (!m || (ignore_merges && !tg_strmap_init(&m->words, t->vocab)))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    m->ignore_merges = ignore_merges;
    m->unk = -1;
    return load_bytes(t, m, err);
}

static int load(struct tg_tokenizer *t, struct tg_json model, struct tg_err *err)
{
    bool ignore_merges = false;
    int rc = tg_bpe_refuse(t, model, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(model, "ignore_merges", &ignore_merges, err);
    if (rc == TG_OK)
        rc = tg_vocab_load(t, tg_json_key(model, "vocab"), err);
    if (rc == TG_OK)
        rc = start(t, ignore_merges, err);
    if (rc != TG_OK)
        return rc;
    struct byte_bpe *m = t->model_state;
    rc = load_unknown(t, m, model, err);
    return rc == TG_OK ? tg_merges_load(t, &m->merges, tg_json_key(model, "merges"), err) : rc;
}

int tg_byte_bpe_from_parts(struct tg_tokenizer *t, const struct tg_vocab_parts *p,
                           bool ignore_merges, struct tg_err *err)
{
    struct tg_text both = {0};
    t->model = &tg_token_model_byte_bpe;
    int rc = start(t, ignore_merges, err);
    if (rc != TG_OK)
        return rc;
    struct byte_bpe *m = t->model_state;
    if (!tg_merges_init(&m->merges, p->merge_count))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (size_t i = 0; i < p->merge_count && rc == TG_OK; i++) {
        const char *side[2];
        size_t len[2];
        rc = tg_merge_sides(p->merges[i], p->merge_lens[i], side, len)
                 ? tg_merges_add(t, &m->merges, side, len, (uint32_t)i, &both, err)
                 : tg_fail(err, TG_ERR_FORMAT, "%s: merge %zu is not a pair of tokens", t->name, i);
    }
    tg_text_release(&both);
    return rc;
}

static void release(void *state)
{
    struct byte_bpe *m = state;
    if (!m)
        return;
    tg_merges_release(&m->merges);
    tg_strmap_release(&m->words);
    tg_text_release(&m->bytes);
    tg_free(m);
}

/* ByteLevel may stand anywhere in the pre-tokenizer; whether it does is known before the model is
 * loaded. */
static bool claims(struct tg_json root)
{
    struct tg_json model = tg_json_key(root, "model");
    const char *type = tg_type_of(model);
    struct tg_json pre = tg_json_key(root, "pre_tokenizer");
    bool bytes = strcmp(tg_type_of(pre), "ByteLevel") == 0;
    struct tg_json list = tg_json_key(pre, "pretokenizers");
    for (struct tg_json c = tg_json_first(list); c.node; c = tg_json_next(c))
        bytes = bytes || strcmp(tg_type_of(c), "ByteLevel") == 0;
    return bytes && (strcmp(type, "BPE") == 0 ||
                     (!*type && tg_json_has(tg_json_key(model, "merges")))); /* files before 2020 */
}

/* ---- words ---- */

/* First symbols of a word; a byte without a token is left out or becomes unk (fused: a run of them
 * one unk), as in HF. */
static size_t first_symbols(const struct byte_bpe *m, const char *word, size_t len, int32_t *ids)
{
    size_t n = 0;
    bool after_unk = false;
    for (size_t i = 0; i < len; i++) {
        int32_t id = m->byte_id[(unsigned char)word[i]];
        if (id < 0 && !(after_unk && m->fuse_unk))
            id = m->unk;
        after_unk = m->byte_id[(unsigned char)word[i]] < 0;
        if (id >= 0)
            ids[n++] = id;
    }
    return n;
}

static int encode(struct tg_encoder *e, const char *word, size_t len)
{
    const struct byte_bpe *m = e->t->model_state;
    struct tg_bpe_scratch *s = tg_bpe_scratch_of(e);
    if (!s)
        return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    struct tg_cached_word *c = tg_bpe_cached(s, word, len);
    if (tg_bpe_is_cached(c, word, len))
        return tg_ids_append(e, c->ids, c->count);
    int32_t id = m->ignore_merges ? tg_strmap_find(&m->words, m->bytes.data, word, len) : -1;
    size_t n = 1;
    int rc = tg_bpe_room(e, s, len);
    if (rc != TG_OK)
        return rc;
    if (id >= 0) {
        s->ids[0] = id;
    } else {
        n = first_symbols(m, word, len, s->ids);
        if (!tg_bpe_merge(&m->merges, s, &n))
            return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    }
    tg_bpe_remember(c, word, len, s->ids, n);
    return tg_ids_append(e, s->ids, n);
}

const struct tg_token_model tg_token_model_byte_bpe = {
    .name = "byte-level BPE",
    .claims = claims,
    .load = load,
    .encode = encode,
    .release = release,
    .scratch_release = tg_bpe_scratch_release,
};
