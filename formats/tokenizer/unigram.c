/* Unigram language model (Kudo 2018): of all ways to cut a word into pieces the one with the
 * greatest sum of scores (Viterbi). A character without a piece of its own is the unknown piece, of
 * the lowest score less 10. A word takes time in proportion to its length times the length of the
 * longest piece.
 *
 * HF tokenizers adds up in double, SentencePiece in float; which of two equal or nearly equal cuts
 * wins depends on it, so each is done as it is done there. */
#include "formats/tokenizer/unigram.h"

#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/trie.h"

static const double UNKNOWN_PENALTY = 10;
/* SentencePiece starts its sums anew beyond it, so that a float has digits left. */
static const float RESTART = 100000;

struct unigram {
    struct tg_trie pieces;
    double *scores; /* owned; by id */
    double unknown;
    int32_t byte_id[256];
    int32_t unk; /* -1: a character without a piece is an error */
    bool in_float, byte_fallback;
};

/* The best way to a place in the word; from SIZE_MAX: not reached. */
struct place {
    double score;
    uint32_t from;
    int32_t id;
};
enum { NOT_REACHED = -1 };

struct part {
    uint32_t begin, end;
    int32_t id;
};
struct scratch {
    struct tg_bpe_scratch words; /* first: of the cache alone */
    struct place *places;        /* owned */
    struct part *parts;          /* owned */
    size_t places_cap, parts_cap;
};

/* ---- loading ---- */

static int out_of_memory(const struct tg_tokenizer *t, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
}

/* The trie of the tokens that may be found. roles NULL: all. */
static int index_pieces(struct tg_tokenizer *t, struct unigram *m, const uint8_t *roles,
                        struct tg_err *err)
{
    struct tg_trie_key *keys = tg_alloc_array(t->vocab, sizeof *keys);
    size_t count = 0;
    if (!keys)
        return out_of_memory(t, err);
    for (size_t id = 0; id < t->vocab; id++) {
        const struct tg_token *k = &t->tokens[id];
        if (k->used && k->len && (!roles || roles[id] != TG_PIECE_APART))
            keys[count++] = (struct tg_trie_key){t->pool.data + k->off, k->len, (int32_t)id};
    }
    bool ok = tg_trie_build(&m->pieces, keys, count);
    tg_free(keys);
    return ok ? TG_OK : out_of_memory(t, err);
}

static int start(struct tg_tokenizer *t, struct tg_err *err)
{
    struct unigram *m = tg_alloc(sizeof *m);
    t->model_state = m;
    if (!m || !(m->scores = tg_alloc_array(t->vocab, sizeof *m->scores)))
        return out_of_memory(t, err);
    m->unk = -1;
    tg_byte_tokens(t, m->byte_id);
    return TG_OK;
}

/* model.vocab: [[piece, score], ...], the id is the place in the list. */
static int load_pieces(struct tg_tokenizer *t, struct tg_json vocab, struct tg_err *err)
{
    size_t id = 0;
    if (!tg_json_is_array(vocab) || tg_json_count(vocab) == 0 || tg_json_count(vocab) > TG_MAX_ID)
        return tg_fail(err, TG_ERR_FORMAT, "%s: model.vocab is not an array of 1 to %d pieces",
                       t->name, TG_MAX_ID);
    if (!tg_strmap_init(&t->by_name, tg_json_count(vocab) + 64))
        return out_of_memory(t, err);
    for (struct tg_json c = tg_json_first(vocab); c.node; c = tg_json_next(c), id++) {
        struct tg_json piece = tg_json_first(c), score = tg_json_next(piece);
        if (!tg_json_is_array(c) || !tg_json_is_string(piece) || !tg_json_is_number(score) ||
            tg_json_next(score).node)
            return tg_fail(err, TG_ERR_FORMAT, "%s: model.vocab[%zu] is not [piece, score]",
                           t->name, id);
        const char *s = tg_json_string(piece);
        int rc = tg_token_add(t, s, strlen(s), (int64_t)id, err);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

static int load(struct tg_tokenizer *t, struct tg_json model, struct tg_err *err)
{
    struct tg_json vocab = tg_json_key(model, "vocab");
    int64_t unk = -1;
    size_t id = 0;
    int rc = load_pieces(t, vocab, err);
    if (rc == TG_OK)
        rc = start(t, err);
    if (rc != TG_OK)
        return rc;
    struct unigram *m = t->model_state;
    double min_score = 0;
    for (struct tg_json c = tg_json_first(vocab); c.node; c = tg_json_next(c), id++) {
        m->scores[id] = tg_json_number(tg_json_next(tg_json_first(c)));
        min_score = id == 0 || m->scores[id] < min_score ? m->scores[id] : min_score;
    }
    m->unknown = min_score - UNKNOWN_PENALTY;
    rc = tg_json_get_bool_or(model, "byte_fallback", &m->byte_fallback, err);
    if (rc == TG_OK)
        rc = tg_json_get_int_or(model, "unk_id", 0, (int64_t)t->vocab - 1, &unk, err);
    if (rc == TG_OK)
        rc = tg_refuse_set(t, model, "alpha", err);
    m->unk = (int32_t)unk;
    return rc == TG_OK ? index_pieces(t, m, NULL, err) : rc;
}

int tg_unigram_from_scores(struct tg_tokenizer *t, const float *scores, const uint8_t *roles,
                           float min_score, bool byte_fallback, int32_t unk, struct tg_err *err)
{
    t->model = &tg_token_model_unigram;
    int rc = start(t, err);
    if (rc != TG_OK)
        return rc;
    struct unigram *m = t->model_state;
    for (size_t id = 0; id < t->vocab; id++)
        m->scores[id] = roles[id] == TG_PIECE_WHOLE ? (float)(0.1 * ((double)t->tokens[id].len - 1))
                                                    : scores[id];
    m->unknown = min_score - (float)UNKNOWN_PENALTY;
    m->in_float = true;
    m->byte_fallback = byte_fallback;
    m->unk = unk;
    return index_pieces(t, m, roles, err);
}

static bool claims(struct tg_json root)
{
    return strcmp(tg_type_of(tg_json_key(root, "model")), "Unigram") == 0;
}

static void release(void *state)
{
    struct unigram *m = state;
    if (!m)
        return;
    tg_trie_release(&m->pieces);
    tg_free(m->scores);
    tg_free(m);
}

/* ---- the best cut ---- */

static double sum(const struct unigram *m, double a, double b)
{
    return m->in_float ? (double)((float)a + (float)b) : a + b;
}

static void reach(const struct unigram *m, struct place *to, double till_here, double score,
                  uint32_t from, int32_t id)
{
    double candidate = sum(m, till_here, score);
    if (to->id == NOT_REACHED || candidate > to->score)
        *to = (struct place){candidate, from, id};
}

/* Takes the sum at `at` off all places from there to the furthest that is reached. */
static void restart(struct place *p, size_t at, size_t furthest)
{
    float off = (float)p[at].score;
    for (size_t i = at; i <= furthest; i++)
        if (i == at || p[i].id != NOT_REACHED)
            p[i].score = (double)((float)p[i].score - off);
}

/* Fills places[0..len]. */
static int find_best(struct tg_encoder *e, const struct unigram *m, struct place *p,
                     const char *word, size_t len)
{
    size_t furthest = 0, n;
    for (size_t i = 0; i <= len; i++)
        p[i] = (struct place){0, 0, NOT_REACHED};
    for (size_t at = 0; at < len; at += n) {
        bool single = false;
        uint32_t node = 0;
        tg_char_at(word + at, &n);
        if (m->in_float && (p[at].score > RESTART || p[at].score < -RESTART))
            restart(p, at, furthest);
        for (size_t i = at; i < len && m->pieces.nodes; i++) {
            node = tg_trie_step(&m->pieces, node, (unsigned char)word[i]);
            if (!node)
                break;
            int32_t id = m->pieces.nodes[node].value;
            if (id < 0)
                continue;
            single = single || i + 1 - at == n;
            furthest = i + 1 > furthest ? i + 1 : furthest;
            reach(m, &p[i + 1], p[at].score, m->scores[id], (uint32_t)at, id);
        }
        if (single)
            continue;
        if (m->unk < 0)
            return tg_fail(e->err, TG_ERR_UNSUPPORTED,
                           "%s: the character '%.*s' has no piece, and there is no unknown piece",
                           e->t->name, (int)n, word + at);
        furthest = at + n > furthest ? at + n : furthest;
        reach(m, &p[at + n], p[at].score, m->unknown, (uint32_t)at, m->unk);
    }
    return TG_OK;
}

/* ---- words ---- */

/* An unknown part: a piece if a run of unknown ones spells one (HF), its bytes, or unk. */
static int push_unknown(struct tg_encoder *e, const struct unigram *m, const char *s, size_t n)
{
    int32_t id = -1;
    if (!m->in_float && tg_trie_longest(&m->pieces, s, n, &id) == n)
        return tg_ids_append(e, &id, 1);
    bool bytes = m->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = m->byte_id[(unsigned char)s[i]] >= 0;
    if (!bytes)
        return tg_ids_append(e, &m->unk, 1);
    int rc = TG_OK;
    for (size_t i = 0; i < n && rc == TG_OK; i++)
        rc = tg_ids_append(e, &m->byte_id[(unsigned char)s[i]], 1);
    return rc;
}

/* Follows the best way back; neighbouring unknown parts become one. Parts come last first. */
static bool way_back(const struct unigram *m, struct scratch *s, size_t len, size_t *count)
{
    *count = 0;
    for (size_t at = len; at > 0; at = s->places[at].from) {
        struct part p = {s->places[at].from, (uint32_t)at, s->places[at].id};
        struct part *last = *count ? &s->parts[*count - 1] : NULL;
        if (last && p.id == m->unk && last->id == m->unk) {
            last->begin = p.begin;
            continue;
        }
        if (!tg_grow(&s->parts, &s->parts_cap, *count + 1, sizeof *s->parts))
            return false;
        s->parts[(*count)++] = p;
    }
    return true;
}

static struct scratch *scratch_of(struct tg_encoder *e)
{
    struct scratch *s = e->model_scratch;
    if (!s)
        s = e->model_scratch = tg_alloc(sizeof *s);
    if (s && !s->words.cache && !tg_bpe_cache_make(&s->words, e->text_len))
        return NULL;
    return s;
}

static int encode(struct tg_encoder *e, const char *word, size_t len)
{
    const struct unigram *m = e->t->model_state;
    struct scratch *s = scratch_of(e);
    size_t count = 0, first = e->ids->count;
    if (!s)
        return out_of_memory(e->t, e->err);
    struct tg_cached_word *c = tg_bpe_cached(&s->words, word, len);
    if (tg_bpe_is_cached(c, word, len))
        return tg_ids_append(e, c->ids, c->count);
    if (len >= UINT32_MAX / 2)
        return tg_fail(e->err, TG_ERR_UNSUPPORTED, "%s: a word of %zu bytes", e->t->name, len);
    if (!tg_grow(&s->places, &s->places_cap, len + 1, sizeof *s->places))
        return out_of_memory(e->t, e->err);
    int rc = find_best(e, m, s->places, word, len);
    if (rc == TG_OK && !way_back(m, s, len, &count))
        rc = out_of_memory(e->t, e->err);
    while (rc == TG_OK && count--) {
        const struct part *p = &s->parts[count];
        rc = p->id == m->unk ? push_unknown(e, m, word + p->begin, p->end - p->begin)
                             : tg_ids_append(e, &p->id, 1);
    }
    if (rc == TG_OK && e->ids->count > first)
        tg_bpe_remember(c, word, len, e->ids->data + first, e->ids->count - first);
    return rc;
}

static void scratch_release(void *scratch)
{
    struct scratch *s = scratch;
    if (!s)
        return;
    tg_free(s->words.cache);
    tg_free(s->places);
    tg_free(s->parts);
    tg_free(s);
}

const struct tg_token_model tg_token_model_unigram = {
    .name = "Unigram",
    .claims = claims,
    .load = load,
    .encode = encode,
    .release = release,
    .scratch_release = scratch_release,
};
