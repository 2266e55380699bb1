/* Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2): the symbols of a word are its bytes;
 * again and again the pair of neighbours of the lowest rank, the leftmost of them, becomes one
 * symbol.
 *
 * Short words: look for the lowest rank each time. Long words: a bucket of positions for each rank,
 * and a heap of the ranks whose bucket is not empty, so that ten million bytes without a space take
 * time in proportion. A pair that a merge of rank r makes has another rank than r, because it holds
 * the new symbol; so a whole bucket is worked off at once unless a lower rank turns up (which
 * trained tokenizers never have). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/tokenizer/byte_level.h"
#include "formats/tokenizer/pipeline.h"

enum { SHORT_WORD = 64, CACHED_BYTES = 26, CACHED_IDS = 9 };
#define NONE UINT32_MAX

struct merge {
    int32_t a, b; /* a = -1: free slot */
    uint32_t rank;
    int32_t id; /* of the two together */
};

struct bpe {
    int32_t byte_id[256]; /* -1: the byte has no token */
    struct merge *slots;  /* owned; open addressing by (a, b) */
    size_t mask;
    struct merge *by_rank; /* owned */
    size_t merge_count;
    struct tg_strmap words; /* whole words, for ignore_merges, over `bytes` */
    struct tg_text bytes;
    bool ignore_merges, fuse_unk;
    int32_t unk;
};

/* A word and its ids: one cache line. */
struct cached {
    unsigned char len, count; /* len 0: free */
    char word[CACHED_BYTES];
    int32_t ids[CACHED_IDS];
};

struct symbol {
    int32_t id; /* -1: merged into the one before */
    uint32_t prev, next;
};
struct entry {
    uint32_t pos, next;
};

struct scratch {
    struct cached *cache; /* owned, as all below */
    size_t cache_mask;
    struct symbol *symbols;
    struct entry *entries;
    uint32_t *head, *tail; /* of each rank's bucket; NONE: empty */
    uint32_t *heap, *batch;
    size_t symbols_cap, entries_cap, heap_cap, batch_cap, entry_count, heap_count, batch_count;
    uint32_t free_entry;
};

/* ---- the table of merges ---- */

static size_t pair_hash(int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32);
}

static const struct merge *find_merge(const struct bpe *m, int32_t a, int32_t b)
{
    for (size_t i = pair_hash(a, b) & m->mask;; i = (i + 1) & m->mask) {
        const struct merge *s = &m->slots[i];
        if (s->a == a && s->b == b)
            return s;
        if (s->a < 0)
            return NULL;
    }
}

/* The later of two merges of the same pair counts, as in HF. */
static void put_merge(struct bpe *m, struct merge merge)
{
    size_t i = pair_hash(merge.a, merge.b) & m->mask;
    while (m->slots[i].a >= 0 && (m->slots[i].a != merge.a || m->slots[i].b != merge.b))
        i = (i + 1) & m->mask;
    m->slots[i] = merge;
    m->by_rank[merge.rank] = merge;
}

/* ---- loading ---- */

static int load_vocab(struct tg_tokenizer *t, struct tg_json vocab, struct tg_err *err)
{
    if (!tg_json_is_object(vocab))
        return tg_fail(err, TG_ERR_FORMAT, "%s: model.vocab is not an object", t->name);
    size_t count = tg_json_count(vocab);
    if (!tg_strmap_init(&t->by_name, count + 64))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (struct tg_json c = tg_json_first(vocab); c.node; c = tg_json_next(c)) {
        double id = tg_json_number(c);
        if (!tg_json_is_number(c))
            return tg_fail(err, TG_ERR_FORMAT, "%s: model.vocab: '%s': the id is not a number",
                           t->name, tg_json_name(c));
        if (!(id >= 0 && id < TG_MAX_ID) || id != (double)(int64_t)id)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: model.vocab: '%s': the id %.17g is not an integer in [0, %d)",
                           t->name, tg_json_name(c), id, TG_MAX_ID);
        int rc = tg_token_add(t, tg_json_name(c), (int64_t)id, err);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

/* Ids of the 256 bytes, and of whole words if merges are to be ignored for them. */
static int load_bytes(struct tg_tokenizer *t, struct bpe *m, struct tg_err *err)
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

/* The two sides of a merge: "a b", or ["a","b"]. false: neither. */
static bool merge_sides(struct tg_json o, const char *side[2], size_t len[2])
{
    struct tg_json a = tg_json_first(o), b = tg_json_next(a);
    if (tg_json_is_string(o)) {
        side[0] = tg_json_string(o);
        const char *space = strchr(side[0], ' ');
        if (!space || strchr(space + 1, ' '))
            return false;
        side[1] = space + 1;
        len[0] = (size_t)(space - side[0]);
        len[1] = strlen(side[1]);
        return true;
    }
    if (!tg_json_is_array(o) || !tg_json_is_string(a) || !tg_json_is_string(b) ||
        tg_json_next(b).node)
        return false;
    side[0] = tg_json_string(a);
    side[1] = tg_json_string(b);
    len[0] = strlen(side[0]);
    len[1] = strlen(side[1]);
    return true;
}

static int load_merge(struct tg_tokenizer *t, struct bpe *m, struct tg_json o, uint32_t rank,
                      struct tg_text *both, struct tg_err *err)
{
    const char *side[2];
    size_t len[2];
    int32_t id[3];
    both->len = 0;
    if (!merge_sides(o, side, len))
        return tg_fail(err, TG_ERR_FORMAT, "%s: model.merges[%u] is not a pair of tokens", t->name,
                       rank);
    if (!tg_text_add(both, side[0], len[0]) || !tg_text_add(both, side[1], len[1]))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    const char *part[3] = {side[0], side[1], both->data};
    size_t part_len[3] = {len[0], len[1], both->len};
    for (size_t i = 0; i < 3; i++) {
        id[i] = tg_strmap_find(&t->by_name, t->pool.data, part[i], part_len[i]);
        if (id[i] < 0 || part_len[i] == 0)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: model.merges[%u]: '%.*s' is not a token of the vocabulary", t->name,
                           rank, (int)(part_len[i] < 200 ? part_len[i] : 200), part[i]);
    }
    put_merge(m, (struct merge){id[0], id[1], rank, id[2]});
    return TG_OK;
}

static int load_merges(struct tg_tokenizer *t, struct bpe *m, struct tg_json list,
                       struct tg_err *err)
{
    struct tg_text both = {0};
    uint32_t rank = 0;
    int rc = TG_OK;
    size_t size = 16;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: model.merges is missing or not an array", t->name);
    m->merge_count = tg_json_count(list);
    while (size < m->merge_count + m->merge_count / 2)
        size *= 2;
    m->slots = tg_alloc_array(size, sizeof *m->slots);
    m->by_rank = tg_alloc_array(m->merge_count, sizeof *m->by_rank);
    m->mask = size - 1;
    if (!m->slots || !m->by_rank)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (size_t i = 0; i < size; i++)
        m->slots[i].a = -1;
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c)) {
        if (strncmp(tg_json_string(c), "#version", 8) == 0)
            continue; /* the head of an old merges.txt, taken along */
        rc = load_merge(t, m, c, rank++, &both, err);
    }
    tg_text_release(&both);
    return rc;
}

/* unk_token, byte_fallback and fuse_unk say what becomes of a byte without a token. */
static int load_unknown(struct tg_tokenizer *t, struct bpe *m, struct tg_json model,
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
    m->unk = -1;
    if (complete)
        return TG_OK;
    if (fallback)
        return tg_unsupported(t, err, "model.byte_fallback with bytes that have no token", "true");
    if (unk && (m->unk = tg_strmap_find(&t->by_name, t->pool.data, unk, strlen(unk))) < 0)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: model.unk_token '%s' is not a token of the vocabulary", t->name, unk);
    return TG_OK;
}

static int load(struct tg_tokenizer *t, struct tg_json model, struct tg_err *err)
{
    static const char *const refused[] = {"dropout", "continuing_subword_prefix",
                                          "end_of_word_suffix"};
    struct bpe *m = tg_alloc(sizeof *m);
    if (!m)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    t->model_state = m;
    int rc = TG_OK;
    for (size_t i = 0; i < 3 && rc == TG_OK; i++)
        rc = tg_refuse_set(t, model, refused[i], err);
    if (rc == TG_OK)
        rc = tg_json_get_bool_or(model, "ignore_merges", &m->ignore_merges, err);
    if (rc == TG_OK)
        rc = load_vocab(t, tg_json_key(model, "vocab"), err);
    if (rc == TG_OK && m->ignore_merges && !tg_strmap_init(&m->words, t->vocab))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    if (rc == TG_OK)
        rc = load_bytes(t, m, err);
    if (rc == TG_OK)
        rc = load_unknown(t, m, model, err);
    return rc == TG_OK ? load_merges(t, m, tg_json_key(model, "merges"), err) : rc;
}

static void release(void *state)
{
    struct bpe *m = state;
    if (!m)
        return;
    tg_free(m->slots);
    tg_free(m->by_rank);
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

/* ---- short words ---- */

struct pairing {
    int32_t ids[SHORT_WORD];
    uint32_t rank[SHORT_WORD]; /* of the pair (i, i + 1); NONE: no merge */
    int32_t joined[SHORT_WORD];
};

static void set_pair(const struct bpe *m, struct pairing *p, size_t i)
{
    const struct merge *s = find_merge(m, p->ids[i], p->ids[i + 1]);
    p->rank[i] = s ? s->rank : NONE;
    p->joined[i] = s ? s->id : -1;
}

/* Merges p->ids[0..n) in place; returns how many remain. */
static size_t merge_short(const struct bpe *m, struct pairing *p, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++)
        set_pair(m, p, i);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = p->rank[i] < p->rank[best] ? i : best;
        if (p->rank[best] == NONE)
            break;
        p->ids[best] = p->joined[best];
        size_t move = n - best - 2;
        memmove(p->ids + best + 1, p->ids + best + 2, move * sizeof *p->ids);
        if (move) {
            memmove(p->rank + best + 1, p->rank + best + 2, (move - 1) * sizeof *p->rank);
            memmove(p->joined + best + 1, p->joined + best + 2, (move - 1) * sizeof *p->joined);
        }
        n--;
        if (best)
            set_pair(m, p, best - 1);
        if (best + 1 < n)
            set_pair(m, p, best);
    }
    return n;
}

/* ---- long words ---- */

static bool heap_push(struct scratch *s, uint32_t rank)
{
    if (!tg_grow(&s->heap, &s->heap_cap, s->heap_count + 1, sizeof *s->heap))
        return false;
    size_t i = s->heap_count++;
    while (i && s->heap[(i - 1) / 2] > rank) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = rank;
    return true;
}

static uint32_t heap_pop(struct scratch *s)
{
    uint32_t top = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < s->heap_count) {
        if (child + 1 < s->heap_count && s->heap[child + 1] < s->heap[child])
            child++;
        if (s->heap[child] >= last)
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* Puts position `pos` at the end of its rank's bucket. */
static bool bucket_add(struct scratch *s, uint32_t rank, uint32_t pos)
{
    uint32_t at = s->free_entry;
    if (at != NONE) {
        s->free_entry = s->entries[at].next;
    } else {
        if (!tg_grow(&s->entries, &s->entries_cap, s->entry_count + 1, sizeof *s->entries))
            return false;
        at = (uint32_t)s->entry_count++;
    }
    s->entries[at] = (struct entry){pos, NONE};
    if (s->head[rank] == NONE) {
        s->head[rank] = at;
        if (!heap_push(s, rank))
            return false;
    } else {
        s->entries[s->tail[rank]].next = at;
    }
    s->tail[rank] = at;
    return true;
}

/* Pair (pos, next of pos), if it merges; *lower is set if its rank is under `rank`. */
static bool add_pair(const struct bpe *m, struct scratch *s, uint32_t pos, uint32_t rank,
                     bool *lower)
{
    if (pos == NONE || s->symbols[pos].next == NONE)
        return true;
    const struct merge *g = find_merge(m, s->symbols[pos].id, s->symbols[s->symbols[pos].next].id);
    if (!g)
        return true;
    *lower = *lower || g->rank < rank;
    return bucket_add(s, g->rank, pos);
}

static int by_position(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Empties the bucket into the batch, in the order of the text. */
static bool take_bucket(struct scratch *s, uint32_t rank)
{
    bool sorted = true;
    s->batch_count = 0;
    for (uint32_t at = s->head[rank]; at != NONE;) {
        uint32_t next = s->entries[at].next, pos = s->entries[at].pos;
        if (!tg_grow(&s->batch, &s->batch_cap, s->batch_count + 1, sizeof *s->batch))
            return false;
        sorted = sorted && (s->batch_count == 0 || s->batch[s->batch_count - 1] < pos);
        s->batch[s->batch_count++] = pos;
        s->entries[at].next = s->free_entry;
        s->free_entry = at;
        at = next;
    }
    s->head[rank] = NONE;
    if (!sorted)
        qsort(s->batch, s->batch_count, sizeof *s->batch, by_position);
    return true;
}

/* All merges of one rank, until a lower rank turns up; what is left goes back into the bucket. */
static bool merge_rank(const struct bpe *m, struct scratch *s, uint32_t rank)
{
    const struct merge *g = &m->by_rank[rank];
    struct symbol *y = s->symbols;
    bool lower = false;
    if (!take_bucket(s, rank))
        return false;
    for (size_t i = 0; i < s->batch_count; i++) {
        uint32_t pos = s->batch[i], next = y[pos].next;
        if (lower) {
            if (!bucket_add(s, rank, pos))
                return false;
            continue;
        }
        if (y[pos].id != g->a || next == NONE || y[next].id != g->b)
            continue; /* one of the two has been merged since */
        y[pos].id = g->id;
        y[pos].next = y[next].next;
        y[next].id = -1;
        if (y[pos].next != NONE)
            y[y[pos].next].prev = pos;
        if (!add_pair(m, s, y[pos].prev, rank, &lower) || !add_pair(m, s, pos, rank, &lower))
            return false;
    }
    return true;
}

/* Merges s->symbols[0..n), which are linked by it. */
static bool merge_long(const struct bpe *m, struct scratch *s, size_t n)
{
    bool lower = false;
    if (!s->head) {
        s->head = tg_alloc_array(m->merge_count, sizeof *s->head);
        s->tail = tg_alloc_array(m->merge_count, sizeof *s->tail);
        if (!s->head || !s->tail)
            return false;
        memset(s->head, 0xFF, m->merge_count * sizeof *s->head);
    }
    s->entry_count = s->heap_count = 0;
    s->free_entry = NONE;
    for (size_t i = 0; i < n; i++) {
        s->symbols[i].prev = i ? (uint32_t)i - 1 : NONE;
        s->symbols[i].next = i + 1 < n ? (uint32_t)i + 1 : NONE;
    }
    for (size_t i = 0; i < n; i++)
        if (!add_pair(m, s, (uint32_t)i, 0, &lower))
            return false;
    while (s->heap_count)
        if (!merge_rank(m, s, heap_pop(s)))
            return false;
    return true;
}

/* ---- words ---- */

/* First symbols of a word; a byte without a token is left out or becomes unk (fused: a run of them
 * one unk), as in HF. */
struct filling {
    const struct bpe *m;
    const char *word;
    size_t at, len;
    bool unk_waits;
};

/* The next symbol, or -1 at the end. */
static int32_t next_symbol(struct filling *f)
{
    while (f->at < f->len) {
        int32_t id = f->m->byte_id[(unsigned char)f->word[f->at]];
        if (id >= 0 && f->unk_waits) {
            f->unk_waits = false;
            return f->m->unk;
        }
        f->at++;
        if (id >= 0)
            return id;
        if (f->m->unk >= 0) {
            if (f->unk_waits && !f->m->fuse_unk)
                return f->m->unk;
            f->unk_waits = true;
        }
    }
    if (!f->unk_waits)
        return -1;
    f->unk_waits = false;
    return f->m->unk;
}

static int push_ids(struct tg_encoder *e, const int32_t *ids, size_t n)
{
    struct tg_ids *to = e->ids;
    if (!tg_grow(&to->data, &to->cap, to->count + n, sizeof *to->data))
        return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    if (n)
        memcpy(to->data + to->count, ids, n * sizeof *ids);
    to->count += n;
    return TG_OK;
}

static int encode_long(struct tg_encoder *e, struct scratch *s, const char *word, size_t len)
{
    const struct bpe *m = e->t->model_state;
    struct filling f = {m, word, 0, len, false};
    size_t n = 0;
    int rc = TG_OK;
    int32_t id;
    if (len >= NONE / 2)
        return tg_fail(e->err, TG_ERR_UNSUPPORTED, "%s: a word of %zu bytes", e->t->name, len);
    if (!tg_grow(&s->symbols, &s->symbols_cap, len + 1, sizeof *s->symbols))
        return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    while ((id = next_symbol(&f)) >= 0)
        s->symbols[n++].id = id;
    if (!merge_long(m, s, n))
        return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    for (uint32_t i = n ? 0 : NONE; i != NONE && rc == TG_OK; i = s->symbols[i].next)
        rc = push_ids(e, &s->symbols[i].id, 1);
    return rc;
}

/* The cache grows with the text of the call, up to 2 MiB. NULL: no memory. */
static struct scratch *scratch_of(struct tg_encoder *e)
{
    struct scratch *s = e->model_scratch;
    if (s)
        return s;
    size_t size = 16;
    while (size < e->text_len / 16 && size < 1 << 15)
        size *= 2;
    s = e->model_scratch = tg_alloc(sizeof *s);
    if (s && (s->cache = tg_alloc_array(size, sizeof *s->cache)))
        s->cache_mask = size - 1;
    return s && s->cache ? s : NULL;
}

static int encode(struct tg_encoder *e, const char *word, size_t len)
{
    const struct bpe *m = e->t->model_state;
    struct scratch *s = scratch_of(e);
    struct cached *c = NULL;
    if (!s)
        return tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
    if (len <= CACHED_BYTES) {
        c = &s->cache[tg_hash_bytes(word, len) & s->cache_mask];
        if (c->len == len && memcmp(c->word, word, len) == 0)
            return push_ids(e, c->ids, c->count);
    }
    struct pairing p;
    size_t n = 0;
    int32_t id = m->ignore_merges ? tg_strmap_find(&m->words, m->bytes.data, word, len) : -1;
    if (id >= 0) {
        p.ids[n++] = id;
    } else if (len > SHORT_WORD) {
        return encode_long(e, s, word, len);
    } else {
        struct filling f = {m, word, 0, len, false};
        while ((id = next_symbol(&f)) >= 0)
            p.ids[n++] = id;
        n = merge_short(m, &p, n);
    }
    if (c && n <= CACHED_IDS) {
        c->len = (unsigned char)len;
        c->count = (unsigned char)n;
        memcpy(c->word, word, len);
        memcpy(c->ids, p.ids, n * sizeof *p.ids);
    }
    return push_ids(e, p.ids, n);
}

static void scratch_release(void *scratch)
{
    struct scratch *s = scratch;
    if (!s)
        return;
    void *owned[] = {s->cache, s->symbols, s->entries, s->head, s->tail, s->heap, s->batch};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        tg_free(owned[i]);
    tg_free(s);
}

const struct tg_token_model tg_token_model_byte_bpe = {
    .name = "byte-level BPE",
    .claims = claims,
    .load = load,
    .encode = encode,
    .release = release,
    .scratch_release = scratch_release,
};
