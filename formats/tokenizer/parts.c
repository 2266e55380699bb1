/* Tokenizers of a vocabulary that lies in a GGUF file. What the file does not say is as in
 * llama.cpp: the split pattern by name, BOS and the space before the text by kind. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/byte_bpe.h"
#include "formats/tokenizer/char_bpe.h"
#include "formats/tokenizer/pipeline.h"
#include "formats/tokenizer/splits.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

/* ---- tokens ---- */

static int type_of(const struct tg_vocab_parts *p, size_t id)
{
    return p->types ? p->types[id] : NORMAL;
}

static int add_tokens(struct tg_tokenizer *t, const struct tg_vocab_parts *p, struct tg_err *err)
{
    if (p->count == 0 || p->count > TG_MAX_ID)
        return tg_fail(err, TG_ERR_FORMAT, "%s: %zu tokens, not 1 to %d", t->name, p->count,
                       TG_MAX_ID);
    if (!tg_strmap_init(&t->by_name, p->count + 64))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (size_t id = 0; id < p->count; id++) {
        const char *s = p->tokens[id];
        size_t len = p->token_lens[id];
        if (tg_utf8_check(s, len) < len)
            return tg_fail(err, TG_ERR_FORMAT, "%s: token %zu is not UTF-8", t->name, id);
        if (type_of(p, id) < NORMAL || type_of(p, id) > BYTE)
            return tg_fail(err, TG_ERR_FORMAT, "%s: token %zu has type %d, not 1 to 6", t->name, id,
                           type_of(p, id));
        int rc = tg_token_add(t, s, len, (int64_t)id, err);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

/* Control, unknown and user-defined tokens are found in the text as it is. */
static int add_special(struct tg_tokenizer *t, const struct tg_vocab_parts *p, struct tg_err *err)
{
    int rc = TG_OK;
    for (size_t id = 0; id < p->count && rc == TG_OK; id++) {
        int type = type_of(p, id);
        struct tg_added a = {.id = (int32_t)id, .special = type != USER};
        if ((type == CONTROL || type == UNKNOWN || type == USER) && t->tokens[id].len)
            rc = tg_added_push(t, a, err);
    }
    return rc == TG_OK ? tg_added_index(t, err) : rc;
}

static int put_around(struct tg_tokenizer *t, const struct tg_vocab_parts *p, const char *what,
                      int64_t id, struct tg_ids *to, struct tg_err *err)
{
    if (id < 0 || (uint64_t)id >= p->count)
        return tg_fail(err, TG_ERR_FORMAT, "%s: %s is wanted, but its id %lld is not in [0, %zu)",
                       t->name, what, (long long)id, p->count);
    return tg_ids_push(to, (int32_t)id, err);
}

/* ---- the kinds ---- */

static int build_gpt2(struct tg_tokenizer *t, const struct tg_vocab_parts *p, bool *add_bos,
                      struct tg_err *err)
{
    const struct tg_split *split = tg_split_find(p->pre ? p->pre : "default");
    struct tg_decoder *d = NULL;
    int rc = split ? TG_OK : tg_unsupported(t, err, "tokenizer.ggml.pre", p->pre);
    for (size_t i = 0; rc == TG_OK && i < TG_SPLIT_PATTERNS && split->patterns[i]; i++)
        rc = tg_pretok_add_split(t, split->patterns[i], false, TG_SPLIT_ISOLATED, false, err);
    if (rc == TG_OK)
        rc = tg_byte_bpe_from_parts(t, p, split->ignore_merges, err);
    if (rc == TG_OK)
        rc = tg_decoder_new(t, &d, err);
    if (rc == TG_OK)
        d->run = tg_decode_byte_level;
    *add_bos = split && split->add_bos;
    return rc;
}

/* A space before each text between special tokens; spaces as U+2581. */
static int add_space_stages(struct tg_tokenizer *t, bool prefix, struct tg_err *err)
{
    struct tg_normalizer *n = NULL;
    struct tg_decoder *d = NULL;
    int rc = TG_OK;
    if (prefix && (rc = tg_normalizer_new(t, &n, err)) == TG_OK)
        rc = tg_normalizer_set_prepend(t, n, "\xE2\x96\x81", err);
    if (rc == TG_OK && (rc = tg_normalizer_new(t, &n, err)) == TG_OK)
        rc = tg_normalizer_set_replace(t, n, " ", "\xE2\x96\x81", err);
    if (rc == TG_OK && (rc = tg_decoder_new(t, &d, err)) == TG_OK) {
        d->run = tg_decode_replace;
        rc = tg_replace_set(&d->replace, "\xE2\x96\x81", " ", t->name, err);
    }
    if (rc == TG_OK && (rc = tg_decoder_new(t, &d, err)) == TG_OK)
        d->run = tg_decode_bytes;
    if (rc == TG_OK && (rc = tg_decoder_new(t, &d, err)) == TG_OK)
        d->run = tg_decode_fuse;
    if (rc == TG_OK && prefix && (rc = tg_decoder_new(t, &d, err)) == TG_OK) {
        d->run = tg_decode_strip;
        d->content[0] = ' ';
        d->start = 1;
    }
    return rc;
}

static int build_llama(struct tg_tokenizer *t, const struct tg_vocab_parts *p, bool *add_bos,
                       struct tg_err *err)
{
    size_t bytes = 0;
    *add_bos = true;
    if (!p->scores)
        return tg_fail(err, TG_ERR_FORMAT, "%s: tokenizer.ggml.scores is missing", t->name);
    uint8_t *roles = tg_alloc(p->count);
    if (!roles)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    int rc = TG_OK;
    for (size_t id = 0; id < p->count && rc == TG_OK; id++) {
        int type = type_of(p, id);
        roles[id] =
            type == NORMAL || type == USER || type == UNUSED ? TG_PIECE_MERGES : TG_PIECE_APART;
        bytes += type == BYTE;
        if (!isfinite(p->scores[id]))
            rc = tg_fail(err, TG_ERR_FORMAT, "%s: the score of token %zu is not finite", t->name,
                         id);
    }
    if (rc == TG_OK && p->unk >= 0 && (uint64_t)p->unk >= p->count)
        rc = tg_fail(err, TG_ERR_FORMAT, "%s: the unknown token's id %lld is not in [0, %zu)",
                     t->name, (long long)p->unk, p->count);
    if (rc == TG_OK)
        rc = tg_char_bpe_from_scores(t, p->scores, roles, bytes > 0,
                                     p->unk >= 0 ? (int32_t)p->unk : -1, err);
    tg_free(roles);
    return rc == TG_OK ? add_space_stages(t, p->add_space_prefix != 0, err) : rc;
}

static int build(struct tg_tokenizer *t, const struct tg_vocab_parts *p, struct tg_err *err)
{
    static const struct {
        const char *model;
        int (*build)(struct tg_tokenizer *, const struct tg_vocab_parts *, bool *, struct tg_err *);
    } known[] = {{"gpt2", build_gpt2}, {"llama", build_llama}};
    bool add_bos = false;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(p->model, known[i].model) != 0)
            continue;
        int rc = add_tokens(t, p, err);
        if (rc == TG_OK)
            rc = known[i].build(t, p, &add_bos, err);
        if (rc == TG_OK)
            rc = add_special(t, p, err);
        if (rc == TG_OK && (p->add_bos < 0 ? add_bos && p->bos >= 0 : p->add_bos))
            rc = put_around(t, p, "BOS", p->bos, &t->before, err);
        if (rc == TG_OK && p->add_eos > 0)
            rc = put_around(t, p, "EOS", p->eos, &t->after, err);
        t->decodes = true;
        return rc;
    }
    return tg_unsupported(t, err, "tokenizer.ggml.model", p->model);
}

int tg_tokenizer_from_parts(struct tg_tokenizer **out, const struct tg_vocab_parts *p,
                            const char *name, size_t vocab_limit, struct tg_err *err)
{
    *out = NULL;
    struct tg_tokenizer *t = tg_tokenizer_new(name, vocab_limit, err);
    return tg_tokenizer_done(out, t, t ? build(t, p, err) : TG_ERR_NOMEM);
}
