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

/* Of `groups` groups of heads, how many one item of work takes, strip of rows after strip. All of a
 * sequence, unless threads would wait: the rows of heads lie beside each other, and memory that is
 * read in order comes in time. */
static inline size_t tg_batch_groups_at_once(const struct tg_batch *b, size_t groups, int threads)
{
    const size_t n = (size_t)threads;
    if (b->count % n == 0 || b->count >= 8 * n)
        return groups;
    return groups > n ? groups / n : 1;
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
