/* BPE over characters with byte fallback (SentencePiece, Kudo & Richardson 2018): the symbols of a
 * word are its characters. Merges come with ranks (tokenizer.json) or from scores of the pieces;
 * then two neighbours merge if their texts joined are a piece, so that every way to cut a piece in
 * two pieces is a merge of the rank that its score has.
 *
 * Text often comes in one piece, spaces and all. It is cut where no merge can join the two
 * characters (seams.h), which changes nothing but the time. */
#include "formats/tokenizer/char_bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/seams.h"
#include "formats/tokenizer/trie.h"

enum { NO_SYMBOL = -2 }; /* a character that no piece holds */

struct char_bpe {
    struct tg_merges merges;
    int32_t ascii[128];       /* symbols of characters; NO_SYMBOL: none */
    struct tg_strmap symbols; /* text of a token, or a character, to its symbol, over `text` */
    struct tg_text text;
    int32_t tokens;       /* symbols from here on are characters without a token */
    int32_t byte_id[256]; /* -1: none */
    struct tg_trie whole; /* pieces that are found as they stand */
    struct tg_seams seams;
    int32_t unk;
    bool by_score, byte_fallback, fuse_unk, ignore_merges;
};

/* ---- loading ---- */

static int out_of_memory(const struct tg_tokenizer *t, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
}

static int32_t find_symbol(const struct char_bpe *m, const char *s, size_t n)
{
    int32_t id = tg_strmap_find(&m->symbols, m->text.data, s, n);
    return id < 0 ? NO_SYMBOL : id;
}

static bool add_symbol(struct char_bpe *m, const char *s, size_t n, int32_t id)
{
    size_t at = m->text.len;
    return at + n <= UINT32_MAX && tg_text_add(&m->text, s, n) &&
           tg_strmap_add(&m->symbols, m->text.data, (uint32_t)at, (uint32_t)n, id);
}

void tg_byte_tokens(const struct tg_tokenizer *t, int32_t byte_id[256])
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < 256; i++) {
        char name[6] = {'<', '0', 'x', digits[i >> 4], digits[i & 15], '>'};
        byte_id[i] = tg_strmap_find(&t->by_name, t->pool.data, name, sizeof name);
    }
}

/* The model with the tokens whose role is not TG_PIECE_APART as symbols. roles NULL: all merge. */
static int start(struct tg_tokenizer *t, const uint8_t *roles, struct tg_err *err)
{
    struct char_bpe *m = tg_alloc(sizeof *m);
    t->model_state = m;
    if (!m || !tg_strmap_init(&m->symbols, t->vocab))
        return out_of_memory(t, err);
    m->tokens = (int32_t)t->vocab;
    m->unk = -1;
    tg_byte_tokens(t, m->byte_id);
    for (size_t id = 0; id < t->vocab; id++) {
        const struct tg_token *k = &t->tokens[id];
        if (k->used && (!roles || roles[id] == TG_PIECE_MERGES) &&
            !add_symbol(m, t->pool.data + k->off, k->len, (int32_t)id))
            return out_of_memory(t, err);
    }
    return TG_OK;
}

static void index_ascii(struct char_bpe *m)
{
    for (int c = 0; c < 128; c++)
        m->ascii[c] = find_symbol(m, (char[]){(char)c}, 1);
}

static int load_unknown(struct tg_tokenizer *t, struct char_bpe *m, struct tg_json model,
                        struct tg_err *err)
{
    const char *unk = NULL;
    int rc = tg_json_get_bool_or(model, "byte_fallback", &m->byte_fallback, err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(model, "fuse_unk", &m->fuse_unk, err);
    if (rc == TG_OK)
        rc = tg_json_get_str_or(model, "unk_token", &unk, err);
    if (rc != TG_OK || !unk)
        return rc;
    m->unk = tg_strmap_find(&t->by_name, t->pool.data, unk, strlen(unk));
    return m->unk >= 0
               ? TG_OK
               : tg_fail(err, TG_ERR_FORMAT,
                         "%s: model.unk_token '%s' is not a token of the vocabulary", t->name, unk);
}

/* Symbols that a word can begin with: characters, bytes, unk. */
static int find_seams(struct tg_tokenizer *t, struct char_bpe *m, struct tg_err *err)
{
    size_t count = m->symbols.used + (size_t)m->tokens + 1;
    bool *initial = tg_alloc(count);
    if (!initial)
        return out_of_memory(t, err);
    for (size_t i = 0; i <= m->symbols.mask; i++) {
        const struct tg_strmap_slot *s = &m->symbols.slots[i];
        size_t n = 0;
        if (s->id >= 0 && s->len)
            tg_char_at(m->text.data + s->off, &n);
        if (n && n == s->len)
            initial[s->id] = true;
    }
    for (size_t i = 0; i < 256 && m->byte_fallback && !m->by_score; i++)
        if (m->byte_id[i] >= 0)
            initial[m->byte_id[i]] = true;
    if (m->unk >= 0 && !m->by_score)
        initial[m->unk] = true;
    bool ok = tg_seams_make(&m->seams, t, &m->merges, initial, count);
    tg_free(initial);
    return ok ? TG_OK : out_of_memory(t, err);
}

static int load(struct tg_tokenizer *t, struct tg_json model, struct tg_err *err)
{
    int rc = tg_bpe_refuse(t, model, err);
    if (rc == TG_OK)
        rc = tg_vocab_load(t, tg_json_key(model, "vocab"), err);
    if (rc == TG_OK)
        rc = start(t, NULL, err);
    if (rc != TG_OK)
        return rc;
    struct char_bpe *m = t->model_state;
    index_ascii(m);
    rc = tg_json_get_bool_or(model, "ignore_merges", &m->ignore_merges, err);
    if (rc == TG_OK)
        rc = load_unknown(t, m, model, err);
    if (rc == TG_OK)
        rc = tg_merges_load(t, &m->merges, tg_json_key(model, "merges"), err);
    return rc == TG_OK ? find_seams(t, m, err) : rc;
}

static bool claims(struct tg_json root)
{
    return strcmp(tg_type_of(tg_json_key(root, "model")), "BPE") == 0;
}

/* ---- merges from scores ---- */

struct scored {
    float score;
    int32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Characters of pieces that are no tokens themselves become symbols too. */
static bool add_characters(struct tg_tokenizer *t, struct char_bpe *m, const uint8_t *roles)
{
    int32_t next = m->tokens;
    for (size_t id = 0; id < t->vocab; id++) {
        const struct tg_token *k = &t->tokens[id];
        const char *s = t->pool.data + k->off;
        size_t n;
        for (size_t i = 0; k->used && roles[id] == TG_PIECE_MERGES && i < k->len; i += n) {
            tg_char_at(s + i, &n);
            if (find_symbol(m, s + i, n) == NO_SYMBOL && !add_symbol(m, s + i, n, next++))
                return false;
        }
    }
    return true;
}

/* Every way to cut the piece in two symbols; only counts them if `put` is false. */
static size_t cuts_of(struct tg_tokenizer *t, struct char_bpe *m, int32_t id, uint32_t rank,
                      bool put)
{
    const struct tg_token *k = &t->tokens[id];
    const char *s = t->pool.data + k->off;
    size_t found = 0, n;
    for (size_t i = (tg_char_at(s, &n), n); i < k->len; i += n) {
        int32_t a = find_symbol(m, s, i), b = find_symbol(m, s + i, k->len - i);
        tg_char_at(s + i, &n);
        if (a == NO_SYMBOL || b == NO_SYMBOL)
            continue;
        found++;
        if (put)
            tg_merges_put(&m->merges, (struct tg_merge){a, b, rank, id});
    }
    return found;
}

static int merges_of_scores(struct tg_tokenizer *t, struct char_bpe *m, const float *scores,
                            const uint8_t *roles, struct tg_err *err)
{
    struct scored *list = tg_alloc_array(t->vocab, sizeof *list);
    size_t count = 0, cuts = 0;
    if (!list)
        return out_of_memory(t, err);
    for (size_t id = 0; id < t->vocab; id++)
        if (t->tokens[id].used && roles[id] == TG_PIECE_MERGES && t->tokens[id].len) {
            list[count++] = (struct scored){scores[id], (int32_t)id};
            cuts += cuts_of(t, m, (int32_t)id, 0, false);
        }
    bool ok = tg_merges_init(&m->merges, cuts);
    if (ok)
        qsort(list, count, sizeof *list, by_score);
    uint32_t rank = 0;
    for (size_t i = 0; ok && i < count; i++) {
        rank += i && list[i].score != list[i - 1].score;
        cuts_of(t, m, list[i].id, rank, true);
    }
    tg_free(list);
    return ok ? TG_OK : out_of_memory(t, err);
}

static bool index_whole(struct tg_tokenizer *t, struct char_bpe *m, const uint8_t *roles)
{
    struct tg_trie_key *keys = tg_alloc_array(t->vocab, sizeof *keys);
    size_t count = 0;
    if (!keys)
        return false;
    for (size_t id = 0; id < t->vocab; id++)
        if (t->tokens[id].used && roles[id] == TG_PIECE_WHOLE)
            keys[count++] = (struct tg_trie_key){t->pool.data + t->tokens[id].off,
                                                 t->tokens[id].len, (int32_t)id};
    bool ok = tg_trie_build(&m->whole, keys, count);
    tg_free(keys);
    return ok;
}

int tg_char_bpe_from_scores(struct tg_tokenizer *t, const float *scores, const uint8_t *roles,
                            bool byte_fallback, int32_t unk, struct tg_err *err)
{
    t->model = &tg_token_model_char_bpe;
    int rc = start(t, roles, err);
    if (rc != TG_OK)
        return rc;
    struct char_bpe *m = t->model_state;
    m->by_score = m->fuse_unk = true;
    m->byte_fallback = byte_fallback;
    m->unk = unk;
    if (!add_characters(t, m, roles) || !index_whole(t, m, roles))
        return out_of_memory(t, err);
    index_ascii(m);
    rc = merges_of_scores(t, m, scores, roles, err);
    return rc == TG_OK ? find_seams(t, m, err) : rc;
}

static void release(void *state)
{
    struct char_bpe *m = state;
    if (!m)
        return;
    tg_merges_release(&m->merges);
    tg_strmap_release(&m->symbols);
    tg_text_release(&m->text);
    tg_trie_release(&m->whole);
    tg_seams_release(&m->seams);
    tg_free(m);
}

/* ---- words ---- */

static int32_t symbol_at(const struct char_bpe *m, const char *s, size_t *n)
{
    if ((unsigned char)*s < 0x80) {
        *n = 1;
        return m->ascii[(unsigned char)*s];
    }
    tg_char_at(s, n);
    return find_symbol(m, s, *n);
}

/* Bytes of an unknown character; false: one has no token. */
static bool add_bytes(const struct char_bpe *m, const char *s, size_t n, int32_t *ids,
                      size_t *count)
{
    for (size_t i = 0; i < n; i++)
        if (m->byte_id[(unsigned char)s[i]] < 0)
            return false;
    for (size_t i = 0; i < n; i++)
        ids[(*count)++] = m->byte_id[(unsigned char)s[i]];
    return true;
}

/* Symbols by rank: an unknown character becomes its bytes if all have tokens, otherwise unk, which
 * waits for the next known character (so bytes overtake it, as in HF). */
static size_t ranked_symbols(const struct char_bpe *m, const char *word, size_t len, int32_t *ids)
{
    size_t count = 0, n;
    bool waits = false;
    for (size_t i = 0; i < len; i += n) {
        int32_t id = symbol_at(m, word + i, &n);
        if (id < 0 && m->byte_fallback && add_bytes(m, word + i, n, ids, &count))
            continue;
        if (waits && (id >= 0 || !m->fuse_unk)) {
            ids[count++] = m->unk;
            waits = false;
        }
        if (id >= 0)
            ids[count++] = id;
        else
            waits = m->unk >= 0;
    }
    if (waits)
        ids[count++] = m->unk;
    return count;
}

/* The next symbol and its length. */
static int32_t next_symbol(const struct char_bpe *m, const char *s, size_t len, size_t *n)
{
    int32_t id;
    *n = tg_trie_longest(&m->whole, s, len, &id);
    return *n ? id : symbol_at(m, s, n);
}

static size_t scored_symbols(const struct char_bpe *m, const char *word, size_t len, int32_t *ids)
{
    size_t count = 0;
    for (size_t i = 0, n; i < len; i += n)
        ids[count++] = next_symbol(m, word + i, len - i, &n);
    return count;
}

/* Ids of what the scores left; every symbol that is no token is one character of the word. */
static int push_scored(struct tg_encoder *e, const struct char_bpe *m, const char *word,
                       const int32_t *symbols, size_t count)
{
    bool after_unk = false;
    int rc = TG_OK;
    for (size_t i = 0, at = 0, n; i < count && rc == TG_OK; i++, at += n) {
        int32_t id = symbols[i], bytes[4];
        size_t used = 0;
        if (id >= 0 && id < m->tokens) {
            n = e->t->tokens[id].len;
            after_unk = false;
            rc = tg_ids_append(e, &id, 1);
            continue;
        }
        tg_char_at(word + at, &n);
        if (m->byte_fallback && add_bytes(m, word + at, n, bytes, &used)) {
            rc = tg_ids_append(e, bytes, used);
            continue;
        }
        if (m->unk < 0)
            return tg_fail(e->err, TG_ERR_UNSUPPORTED,
                           "%s: the character '%.*s' has no token, and there is no unknown token",
                           e->t->name, (int)n, word + at);
        if (!after_unk)
            rc = tg_ids_append(e, &m->unk, 1);
        after_unk = true;
    }
    return rc;
}

/* Length of the part at the beginning of the word that no merge leaves. Around unknown characters,
 * which may become one unk, nothing is cut. */
static size_t part_length(const struct char_bpe *m, const char *word, size_t len)
{
    size_t at, n;
    int32_t before = next_symbol(m, word, len, &at);
    for (; at < len; at += n) {
        int32_t id = next_symbol(m, word + at, len - at, &n);
        if (before >= 0 && id >= 0 && !tg_seams_join(&m->seams, before, id))
            break;
        before = id;
    }
    return at;
}

static int encode_part(struct tg_encoder *e, const struct char_bpe *m, struct tg_bpe_scratch *s,
                       const char *word, size_t len)
{
    struct tg_cached_word *c = tg_bpe_cached(s, word, len);
    size_t first = e->ids->count;
    if (tg_bpe_is_cached(c, word, len))
        return tg_ids_append(e, c->ids, c->count);
    int rc = tg_bpe_room(e, s, len);
    if (rc != TG_OK)
        return rc;
    size_t n =
        m->by_score ? scored_symbols(m, word, len, s->ids) : ranked_symbols(m, word, len, s->ids);
    if (!tg_bpe_merge(&m->merges, s, &n))
        return out_of_memory(e->t, e->err);
    rc = m->by_score ? push_scored(e, m, word, s->ids, n) : tg_ids_append(e, s->ids, n);
    if (rc == TG_OK && e->ids->count > first)
        tg_bpe_remember(c, word, len, e->ids->data + first, e->ids->count - first);
    return rc;
}

static int encode(struct tg_encoder *e, const char *word, size_t len)
{
    const struct char_bpe *m = e->t->model_state;
    struct tg_bpe_scratch *s = tg_bpe_scratch_of(e);
    int rc = TG_OK;
    if (!s)
        return out_of_memory(e->t, e->err);
    int32_t whole = m->ignore_merges ? find_symbol(m, word, len) : NO_SYMBOL;
    if (whole >= 0)
        return tg_ids_append(e, &whole, 1);
    for (size_t at = 0, n; at < len && rc == TG_OK; at += n) {
        n = m->seams.known ? part_length(m, word + at, len - at) : len;
        rc = encode_part(e, m, s, word + at, n);
    }
    return rc;
}

const struct tg_token_model tg_token_model_char_bpe = {
    .name = "BPE",
    .claims = claims,
    .load = load,
    .encode = encode,
    .release = release,
    .scratch_release = tg_bpe_scratch_release,
};
