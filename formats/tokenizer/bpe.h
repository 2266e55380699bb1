/* Merging of symbols by rank, which all kinds of byte-pair encoding share: the table of merges, the
 * way through a short and a long word, and a memory of words that were met. */
#ifndef TG_FORMATS_BPE_H
#define TG_FORMATS_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "formats/tokenizer/strmap.h"

struct tg_tokenizer;
struct tg_encoder;

struct tg_merge {
    int32_t a, b;  /* a < 0: a free slot */
    uint32_t rank; /* the lowest merges first, of equal ones the leftmost */
    int32_t id;    /* of the two together */
};
struct tg_merges {
    struct tg_merge *slots; /* owned; open addressing by (a, b) */
    size_t mask;
    size_t ranks; /* ranks are below it */
};
/* Room for `count` merges. false: no memory. */
bool tg_merges_init(struct tg_merges *m, size_t count);
void tg_merges_release(struct tg_merges *m);
/* The later of two merges of the same pair counts, as in HF. */
void tg_merges_put(struct tg_merges *m, struct tg_merge merge);
bool tg_merges_has(const struct tg_merges *m, int32_t a, int32_t b);
/* model.vocab: an object of tokens and ids. */
int tg_vocab_load(struct tg_tokenizer *t, struct tg_json vocab, struct tg_err *err);
/* model.merges, after the vocabulary: "a b" or ["a","b"]. */
int tg_merges_load(struct tg_tokenizer *t, struct tg_merges *m, struct tg_json list,
                   struct tg_err *err);
/* One merge of tokens of the vocabulary; `both` is scratch. */
int tg_merges_add(struct tg_tokenizer *t, struct tg_merges *m, const char *const side[2],
                  const size_t len[2], uint32_t rank, struct tg_text *both, struct tg_err *err);
/* Cuts "a b" at its only space; false: it has none, or several. */
bool tg_merge_sides(const char *s, size_t n, const char *side[2], size_t len[2]);
/* Settings of a BPE model that nothing here does. */
int tg_bpe_refuse(const struct tg_tokenizer *t, struct tg_json model, struct tg_err *err);

enum { TG_SHORT_WORD = 64, TG_CACHED_BYTES = 26, TG_CACHED_IDS = 9 };

/* A word and its ids: one cache line. */
struct tg_cached_word {
    unsigned char len, count; /* len 0: free */
    char word[TG_CACHED_BYTES];
    int32_t ids[TG_CACHED_IDS];
};

struct tg_bpe_symbol {
    int32_t id;
    uint32_t prev, next;
    uint32_t rank;  /* of the pair with the next symbol, or none */
    int32_t joined; /* what the pair becomes */
};
struct tg_bpe_entry {
    uint32_t pos, next;
};
/* Positions of one rank that wait for a lower one: a heap in `waiting` from `begin` on. */
struct tg_bpe_batch {
    uint32_t rank;
    size_t begin;
};

/* Memory of one call. */
struct tg_bpe_scratch {
    struct tg_cached_word *cache; /* owned, as all below */
    size_t cache_mask;
    int32_t *ids; /* symbols of the word, then what they merged to */
    struct tg_bpe_symbol *symbols;
    struct tg_bpe_entry *entries;
    uint32_t *head, *tail; /* of each rank's bucket */
    uint32_t *heap;        /* ranks whose bucket or batch is not empty */
    uint32_t *waiting;
    struct tg_bpe_batch *batches; /* a stack: the lowest rank on top */
    size_t ids_cap, symbols_cap, entries_cap, heap_cap, waiting_cap, batches_cap;
    size_t entry_count, heap_count, waiting_count, batch_count;
    uint32_t free_entry;
};
/* e->model_scratch, made on the first call; NULL: no memory. */
struct tg_bpe_scratch *tg_bpe_scratch_of(struct tg_encoder *e);
void tg_bpe_scratch_release(void *scratch);
/* The cache alone, sized for a text of text_len bytes. */
bool tg_bpe_cache_make(struct tg_bpe_scratch *s, size_t text_len);

/* Merges s->ids[0..*n), the symbols of a word, in place. false: no memory. */
bool tg_bpe_merge(const struct tg_merges *m, struct tg_bpe_scratch *s, size_t *n);
/* Room for n symbols in s->ids: an error naming the tokenizer if there is none. */
int tg_bpe_room(struct tg_encoder *e, struct tg_bpe_scratch *s, size_t n);

/* The place for a word in the cache, or NULL if it is too long. */
struct tg_cached_word *tg_bpe_cached(struct tg_bpe_scratch *s, const char *word, size_t len);
static inline bool tg_bpe_is_cached(const struct tg_cached_word *c, const char *word, size_t len)
{
    if (!c || c->len != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (c->word[i] != word[i])
            return false;
    return true;
}
void tg_bpe_remember(struct tg_cached_word *c, const char *word, size_t len, const int32_t *ids,
                     size_t n);

#endif
