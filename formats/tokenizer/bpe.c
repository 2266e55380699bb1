/* Byte-pair encoding (Sennrich et al. 2016): again and again the pair of neighbours of the lowest
 * rank, the leftmost of them, becomes one symbol.
 *
 * Short words: look for the lowest rank each time. Long words: a bucket of positions for each rank,
 * and a heap of the ranks whose bucket is not empty. A bucket becomes a heap of positions when its
 * turn comes; if its merges make a pair of lower rank, what is left of it waits on a stack until
 * that rank is done. So n symbols take O(n log n), whatever the text and the ranks. */
#include "formats/tokenizer/bpe.h"

#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/pipeline.h"

#define NONE UINT32_MAX

/* ---- the table of merges ---- */

static size_t pair_hash(int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32);
}

static const struct tg_merge *find_merge(const struct tg_merges *m, int32_t a, int32_t b)
{
    for (size_t i = pair_hash(a, b) & m->mask;; i = (i + 1) & m->mask) {
        const struct tg_merge *s = &m->slots[i];
        if (s->a == a && s->b == b)
            return s;
        if (s->a < 0)
            return NULL;
    }
}

bool tg_merges_init(struct tg_merges *m, size_t count)
{
    size_t size = 16;
    while (size < count + count / 2)
        size *= 2;
    *m = (struct tg_merges){.slots = tg_alloc_array(size, sizeof *m->slots), .mask = size - 1};
    for (size_t i = 0; m->slots && i < size; i++)
        m->slots[i].a = -1;
    return m->slots != NULL;
}

void tg_merges_release(struct tg_merges *m)
{
    tg_free(m->slots);
    *m = (struct tg_merges){0};
}

void tg_merges_put(struct tg_merges *m, struct tg_merge merge)
{
    size_t i = pair_hash(merge.a, merge.b) & m->mask;
    while (m->slots[i].a >= 0 && (m->slots[i].a != merge.a || m->slots[i].b != merge.b))
        i = (i + 1) & m->mask;
    m->slots[i] = merge;
    if (merge.rank >= m->ranks)
        m->ranks = (size_t)merge.rank + 1;
}

bool tg_merges_has(const struct tg_merges *m, int32_t a, int32_t b)
{
    return find_merge(m, a, b) != NULL;
}

/* ---- loading ---- */

int tg_vocab_load(struct tg_tokenizer *t, struct tg_json vocab, struct tg_err *err)
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
        int rc = tg_token_add(t, tg_json_name(c), strlen(tg_json_name(c)), (int64_t)id, err);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

/* The two sides of a merge: "a b", or ["a","b"]. false: neither. */
static bool merge_sides(struct tg_json o, const char *side[2], size_t len[2])
{
    struct tg_json a = tg_json_first(o), b = tg_json_next(a);
    if (tg_json_is_string(o)) {
        side[0] = tg_json_string(o);
        return tg_merge_sides(side[0], strlen(side[0]), side, len);
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

bool tg_merge_sides(const char *s, size_t n, const char *side[2], size_t len[2])
{
    const char *space = n ? memchr(s, ' ', n) : NULL;
    if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
        return false;
    side[0] = s;
    len[0] = (size_t)(space - s);
    side[1] = space + 1;
    len[1] = n - len[0] - 1;
    return true;
}

int tg_merges_add(struct tg_tokenizer *t, struct tg_merges *m, const char *const side[2],
                  const size_t len[2], uint32_t rank, struct tg_text *both, struct tg_err *err)
{
    int32_t id[3];
    both->len = 0;
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
    tg_merges_put(m, (struct tg_merge){id[0], id[1], rank, id[2]});
    return TG_OK;
}

int tg_merges_load(struct tg_tokenizer *t, struct tg_merges *m, struct tg_json list,
                   struct tg_err *err)
{
    struct tg_text both = {0};
    uint32_t rank = 0;
    int rc = TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_FORMAT, "%s: model.merges is missing or not an array", t->name);
    if (!tg_merges_init(m, tg_json_count(list)))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", t->name);
    for (struct tg_json c = tg_json_first(list); c.node && rc == TG_OK; c = tg_json_next(c)) {
        const char *side[2];
        size_t len[2];
        if (strncmp(tg_json_string(c), "#version", 8) == 0)
            continue; /* the head of an old merges.txt, taken along */
        if (!merge_sides(c, side, len))
            rc = tg_fail(err, TG_ERR_FORMAT, "%s: model.merges[%u] is not a pair of tokens",
                         t->name, rank);
        else
            rc = tg_merges_add(t, m, side, len, rank++, &both, err);
    }
    tg_text_release(&both);
    return rc;
}

int tg_bpe_refuse(const struct tg_tokenizer *t, struct tg_json model, struct tg_err *err)
{
    static const char *const refused[] = {"dropout", "continuing_subword_prefix",
                                          "end_of_word_suffix"};
    int rc = TG_OK;
    for (size_t i = 0; i < 3 && rc == TG_OK; i++)
        rc = tg_refuse_set(t, model, refused[i], err);
    return rc;
}

/* ---- short words ---- */

struct pairing {
    uint32_t rank[TG_SHORT_WORD]; /* of the pair (i, i + 1); NONE: no merge */
    int32_t joined[TG_SHORT_WORD];
};

static void set_pair(const struct tg_merges *m, const int32_t *ids, struct pairing *p, size_t i)
{
    const struct tg_merge *s = find_merge(m, ids[i], ids[i + 1]);
    p->rank[i] = s ? s->rank : NONE;
    p->joined[i] = s ? s->id : -1;
}

/* Merges ids[0..n) in place; returns how many remain. */
static size_t merge_short(const struct tg_merges *m, int32_t *ids, size_t n)
{
    struct pairing p;
    for (size_t i = 0; i + 1 < n; i++)
        set_pair(m, ids, &p, i);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            best = p.rank[i] < p.rank[best] ? i : best;
        if (p.rank[best] == NONE)
            break;
        ids[best] = p.joined[best];
        size_t move = n - best - 2;
        memmove(ids + best + 1, ids + best + 2, move * sizeof *ids);
        if (move) {
            memmove(p.rank + best + 1, p.rank + best + 2, (move - 1) * sizeof *p.rank);
            memmove(p.joined + best + 1, p.joined + best + 2, (move - 1) * sizeof *p.joined);
        }
        n--;
        if (best)
            set_pair(m, ids, &p, best - 1);
        if (best + 1 < n)
            set_pair(m, ids, &p, best);
    }
    return n;
}

/* ---- long words ---- */

/* Heaps of numbers with the lowest on top, in list[0..*n). */
static void heap_up(uint32_t *list, size_t i, uint32_t x)
{
    for (; i && list[(i - 1) / 2] > x; i = (i - 1) / 2)
        list[i] = list[(i - 1) / 2];
    list[i] = x;
}

static void heap_down(uint32_t *list, size_t n, size_t i, uint32_t x)
{
    size_t child;
    while ((child = 2 * i + 1) < n) {
        if (child + 1 < n && list[child + 1] < list[child])
            child++;
        if (list[child] >= x)
            break;
        list[i] = list[child];
        i = child;
    }
    list[i] = x;
}

static uint32_t heap_pop(uint32_t *list, size_t *n)
{
    uint32_t top = list[0], last = list[--*n];
    if (*n)
        heap_down(list, *n, 0, last);
    return top;
}

static bool push_rank(struct tg_bpe_scratch *s, uint32_t rank)
{
    if (!tg_grow(&s->heap, &s->heap_cap, s->heap_count + 1, sizeof *s->heap))
        return false;
    heap_up(s->heap, s->heap_count++, rank);
    return true;
}

/* Puts position `pos` at the end of its rank's bucket. */
static bool bucket_add(struct tg_bpe_scratch *s, uint32_t rank, uint32_t pos)
{
    uint32_t at = s->free_entry;
    if (at != NONE) {
        s->free_entry = s->entries[at].next;
    } else {
        if (!tg_grow(&s->entries, &s->entries_cap, s->entry_count + 1, sizeof *s->entries))
            return false;
        at = (uint32_t)s->entry_count++;
    }
    s->entries[at] = (struct tg_bpe_entry){pos, NONE};
    if (s->head[rank] == NONE) {
        s->head[rank] = at;
        if (!push_rank(s, rank))
            return false;
    } else {
        s->entries[s->tail[rank]].next = at;
    }
    s->tail[rank] = at;
    return true;
}

/* Looks at the pair (pos, next of pos): the rank at which it merges, or NONE. */
static uint32_t pair_at(const struct tg_merges *m, struct tg_bpe_symbol *y, uint32_t pos)
{
    const struct tg_merge *g =
        y[pos].next == NONE ? NULL : find_merge(m, y[pos].id, y[y[pos].next].id);
    y[pos].rank = g ? g->rank : NONE;
    y[pos].joined = g ? g->id : -1;
    return y[pos].rank;
}

/* The batch of a rank, on top of the stack: what waited there and what its bucket has got. */
static bool open_batch(struct tg_bpe_scratch *s, uint32_t rank)
{
    bool waited = s->batch_count && s->batches[s->batch_count - 1].rank == rank;
    if (!waited) {
        if (!tg_grow(&s->batches, &s->batches_cap, s->batch_count + 1, sizeof *s->batches))
            return false;
        s->batches[s->batch_count++] = (struct tg_bpe_batch){rank, s->waiting_count};
    }
    size_t begin = s->batches[s->batch_count - 1].begin;
    for (uint32_t at = s->head[rank]; at != NONE;) {
        uint32_t next = s->entries[at].next;
        if (!tg_grow(&s->waiting, &s->waiting_cap, s->waiting_count + 1, sizeof *s->waiting))
            return false;
        heap_up(s->waiting + begin, s->waiting_count - begin, s->entries[at].pos);
        s->waiting_count++;
        s->entries[at].next = s->free_entry;
        s->free_entry = at;
        at = next;
    }
    s->head[rank] = NONE;
    return true;
}

/* A pair that a merge of rank `rank` has made. *lower: it merges before that rank. */
static bool new_pair(const struct tg_merges *m, struct tg_bpe_scratch *s, uint32_t pos,
                     uint32_t rank, bool *lower)
{
    uint32_t r = pos == NONE ? NONE : pair_at(m, s->symbols, pos);
    if (r == NONE)
        return true;
    if (r != rank) {
        *lower = *lower || r < rank;
        return bucket_add(s, r, pos);
    }
    size_t begin = s->batches[s->batch_count - 1].begin;
    if (!tg_grow(&s->waiting, &s->waiting_cap, s->waiting_count + 1, sizeof *s->waiting))
        return false;
    heap_up(s->waiting + begin, s->waiting_count - begin, pos);
    s->waiting_count++;
    return true;
}

/* All merges of one rank, until a lower rank turns up. */
static bool merge_rank(const struct tg_merges *m, struct tg_bpe_scratch *s, uint32_t rank)
{
    struct tg_bpe_symbol *y = s->symbols;
    if (!open_batch(s, rank))
        return false;
    size_t begin = s->batches[s->batch_count - 1].begin;
    while (s->waiting_count > begin) {
        bool lower = false;
        size_t left = s->waiting_count - begin;
        uint32_t pos = heap_pop(s->waiting + begin, &left);
        s->waiting_count = begin + left;
        if (y[pos].rank != rank)
            continue; /* one of the two has been merged since */
        uint32_t next = y[pos].next;
        y[pos].id = y[pos].joined;
        y[pos].next = y[next].next;
        y[next].rank = NONE;
        if (y[pos].next != NONE)
            y[y[pos].next].prev = pos;
        if (!new_pair(m, s, y[pos].prev, rank, &lower) || !new_pair(m, s, pos, rank, &lower))
            return false;
        if (lower)
            return push_rank(s, rank);
    }
    s->batch_count--;
    return true;
}

/* Merges the symbols that s->ids[0..*n) begins with. */
static bool merge_long(const struct tg_merges *m, struct tg_bpe_scratch *s, size_t *n)
{
    if (!s->head) {
        s->head = tg_alloc_array(m->ranks + 1, sizeof *s->head);
        s->tail = tg_alloc_array(m->ranks + 1, sizeof *s->tail);
        if (!s->head || !s->tail)
            return false;
        memset(s->head, 0xFF, m->ranks * sizeof *s->head);
    }
    if (!tg_grow(&s->symbols, &s->symbols_cap, *n, sizeof *s->symbols))
        return false;
    struct tg_bpe_symbol *y = s->symbols;
    s->entry_count = s->heap_count = s->waiting_count = s->batch_count = 0;
    s->free_entry = NONE;
    for (size_t i = 0; i < *n; i++) {
        y[i].id = s->ids[i];
        y[i].prev = i ? (uint32_t)i - 1 : NONE;
        y[i].next = i + 1 < *n ? (uint32_t)i + 1 : NONE;
    }
    for (uint32_t i = 0; i < *n; i++)
        if (pair_at(m, y, i) != NONE && !bucket_add(s, y[i].rank, i))
            return false;
    while (s->heap_count)
        if (!merge_rank(m, s, heap_pop(s->heap, &s->heap_count)))
            return false;
    *n = 0;
    for (uint32_t i = 0; i != NONE; i = y[i].next)
        s->ids[(*n)++] = y[i].id;
    return true;
}

bool tg_bpe_merge(const struct tg_merges *m, struct tg_bpe_scratch *s, size_t *n)
{
    if (*n > TG_SHORT_WORD)
        return merge_long(m, s, n);
    *n = merge_short(m, s->ids, *n);
    return true;
}

/* ---- scratch ---- */

/* The cache grows with the text of the call, up to 2 MiB. */
bool tg_bpe_cache_make(struct tg_bpe_scratch *s, size_t text_len)
{
    size_t size = 16;
    while (size < text_len / 16 && size < 1 << 15)
        size *= 2;
    s->cache = tg_alloc_array(size, sizeof *s->cache);
    s->cache_mask = size - 1;
    return s->cache != NULL;
}

struct tg_bpe_scratch *tg_bpe_scratch_of(struct tg_encoder *e)
{
    struct tg_bpe_scratch *s = e->model_scratch;
    if (!s)
        s = e->model_scratch = tg_alloc(sizeof *s);
    if (s && !s->cache && !tg_bpe_cache_make(s, e->text_len))
        return NULL;
    return s;
}

void tg_bpe_scratch_release(void *scratch)
{
    struct tg_bpe_scratch *s = scratch;
    if (!s)
        return;
    void *owned[] = {s->cache, s->ids,  s->symbols, s->entries, s->head,
                     s->tail,  s->heap, s->waiting, s->batches};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        tg_free(owned[i]);
    tg_free(s);
}

int tg_bpe_room(struct tg_encoder *e, struct tg_bpe_scratch *s, size_t n)
{
    if (n >= NONE / 2)
        return tg_fail(e->err, TG_ERR_UNSUPPORTED, "%s: a word of %zu bytes", e->t->name, n);
    return tg_grow(&s->ids, &s->ids_cap, n + 1, sizeof *s->ids)
               ? TG_OK
               : tg_fail(e->err, TG_ERR_NOMEM, "%s: out of memory", e->t->name);
}

struct tg_cached_word *tg_bpe_cached(struct tg_bpe_scratch *s, const char *word, size_t len)
{
    return len <= TG_CACHED_BYTES ? &s->cache[tg_hash_bytes(word, len) & s->cache_mask] : NULL;
}

void tg_bpe_remember(struct tg_cached_word *c, const char *word, size_t len, const int32_t *ids,
                     size_t n)
{
    if (!c || n > TG_CACHED_IDS)
        return;
    c->len = (unsigned char)len;
    c->count = (unsigned char)n;
    memcpy(c->word, word, len);
    memcpy(c->ids, ids, n * sizeof *ids);
}
