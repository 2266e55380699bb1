/* Tokenizers of a vocabulary that lies in a GGUF file. What the file does not say is as in
 * llama.cpp: the split pattern by name, BOS and the space before the text by kind. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/byte_bpe.h"
#include "formats/tokenizer/char_bpe.h"
#include "formats/tokenizer/pipeline.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char llama3[] =
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES;
static const char qwen2[] =
    CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACES;
static const char qwen35[] = CONTRACTIONS "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| "
                                          "?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACES;
static const char deepseek_v3[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES;
#define CASED "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define UNCASED "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BEFORE "[^\\r\\n\\p{L}\\p{N}]?"
static const char tekken[] = BEFORE CASED "*" UNCASED "+|" BEFORE CASED "+" UNCASED
                                          "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES;
#define SUFFIX "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
static const char gpt_4o[] = BEFORE CASED "*" UNCASED "+" SUFFIX BEFORE CASED "+" UNCASED "*" SUFFIX
                                          "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES;
/* Ideographs, and kana. */
static const char cjk_kana[] = "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+";
static const char cjk_hangul[] = "[\\x{4e00}-\\x{9fa5}\\x{0800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+";

/* The patterns run one after another, each on the pieces that the one before has left. */
static const struct {
    const char *name;
    const char *patterns[5];
    bool ignore_merges, add_bos;
} splits[] = {
    {"default", {tg_gpt2_pattern}, false, false},
    {"gpt-2", {tg_gpt2_pattern}, false, false},
    {"phi-2", {tg_gpt2_pattern}, false, false},
    {"gigachat", {tg_gpt2_pattern}, false, false},
    {"exaone4", {tg_gpt2_pattern}, false, false},
    {"mpt", {tg_gpt2_pattern}, false, false},
    {"olmo", {tg_gpt2_pattern}, false, false},
    {"jais", {tg_gpt2_pattern}, false, false},
    {"trillion", {tg_gpt2_pattern}, false, false},
    {"granite-docling", {tg_gpt2_pattern}, false, false},
    {"llama3", {llama3}, true, true},
    {"llama-v3", {llama3}, true, true},
    {"llama-bpe", {llama3}, true, true},
    {"falcon3", {llama3}, true, true},
    {"falcon-h1", {llama3}, true, true},
    {"pixtral", {llama3}, true, true},
    {"midm-2.0", {llama3}, true, true},
    {"lfm2", {llama3}, true, true},
    {"dbrx", {llama3}, false, false},
    {"smaug-bpe", {llama3}, false, false},
    {"glm4", {llama3}, false, false},
    {"chatglm-bpe", {llama3}, false, false},
    {"qwen2", {qwen2}, false, false},
    {"deepseek-r1-qwen", {qwen2}, false, false},
    {"megrez", {qwen2}, false, false},
    {"stablelm2", {qwen2}, false, false},
    {"hunyuan", {qwen2}, false, false},
    {"qwen35", {qwen35}, false, false},
    {"starcoder", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"refact", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"command-r", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"smollm", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"codeshell", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"exaone", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"minerva-7b", {"\\p{N}", tg_gpt2_pattern}, false, false},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", tg_gpt2_pattern, "[0-9][0-9][0-9]"}, false, false},
    {"tekken", {tekken}, true, true},
    {"gpt-4o", {gpt_4o}, false, false},
    {"llama4", {gpt_4o}, false, false},
    {"deepseek-coder",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", cjk_hangul, "\\p{N}"},
     false,
     false},
    {"deepseek-v3", {"\\p{N}{1,3}", cjk_kana, deepseek_v3}, false, false},
};

static int find_split(const struct tg_tokenizer *t, const char *pre, size_t *at, struct tg_err *err)
{
    for (*at = 0; *at < sizeof splits / sizeof splits[0]; ++*at)
        if (strcmp(pre ? pre : "default", splits[*at].name) == 0)
            return TG_OK;
    return tg_unsupported(t, err, "tokenizer.ggml.pre", pre);
}

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
    size_t at;
    struct tg_decoder *d = NULL;
    int rc = find_split(t, p->pre, &at, err);
    if (rc != TG_OK)
        return rc;
    for (size_t i = 0; i < 5 && splits[at].patterns[i] && rc == TG_OK; i++)
        rc = tg_pretok_add_split(t, splits[at].patterns[i], false, TG_SPLIT_ISOLATED, false, err);
    if (rc == TG_OK)
        rc = tg_byte_bpe_from_parts(t, p, splits[at].ignore_merges, err);
    if (rc == TG_OK)
        rc = tg_decoder_new(t, &d, err);
    if (rc == TG_OK)
        d->run = tg_decode_byte_level;
    *add_bos = splits[at].add_bos;
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
