/* Ragged batches: sequences packed one after another without padding; row r of a [rows, n] array is
 * one token. */
#ifndef TG_LINEARIZE_BATCH_H
#define TG_LINEARIZE_BATCH_H

#include <stddef.h>

struct tg_batch {
    size_t count;        /* B sequences */
    const size_t *begin; /* [B+1] first row of each; begin[0] = 0, begin[B] = rows. Empty sequences
                            are allowed */
    const size_t *
        past; /* [B] tokens already in each sequence's state (positions start there); NULL: all 0 */
};
static inline size_t tg_batch_rows(const struct tg_batch *b)
{
    return b->begin[b->count];
}
static inline size_t tg_batch_past(const struct tg_batch *b, size_t i)
{
    return b->past ? b->past[i] : 0;
}

/* How a pass over groups of heads is shared out: an item is a sequence and `each` of its groups
 * (fewer at the end), strip of rows after strip. All of a sequence's, unless threads would wait:
 * the rows of heads lie beside each other, and memory that is read in order comes in time. */
struct tg_shares {
    size_t groups, each, items;
};
static inline struct tg_shares tg_batch_shares(const struct tg_batch *b, size_t groups, int threads)
{
    const size_t n = (size_t)threads;
    struct tg_shares s = {groups, groups, 0};
    if (b->count % n != 0 && b->count < 8 * n)
        s.each = groups > n ? groups / n : 1;
    s.items = b->count * ((groups + s.each - 1) / s.each);
    return s;
}

/* Groups [first, end) of a sequence */
struct tg_share {
    size_t sequence, first, end;
};
static inline struct tg_share tg_share_of(const struct tg_shares *s, size_t item)
{
    const size_t per = (s->groups + s->each - 1) / s->each, first = item % per * s->each;
    const size_t left = s->groups - first;
    return (struct tg_share){item / per, first, left < s->each ? s->groups : first + s->each};
}

/* The constant states of a batch's sequences: sequence i's is of[i] + offset. of NULL: every
 * sequence starts from zeros and its end is forgotten. */
struct tg_states {
    float *const *of;
    size_t offset;
};
static inline float *tg_state_at(struct tg_states s, size_t i)
{
    return s.of ? s.of[i] + s.offset : NULL;
}

#endif
