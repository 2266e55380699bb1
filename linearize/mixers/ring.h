/* Keys and values of decode: the last `slots` tokens of a sequence, token p in slot p mod slots.
 * With as many slots as tokens it is the growing cache of a softmax layer. Layout k [G][slots][K],
 * then v [G][slots][V]: a head's keys are contiguous. Zeroed memory is the empty ring. */
#ifndef TG_LINEARIZE_RING_H
#define TG_LINEARIZE_RING_H

#include "linearize/kernels/kernels.h"

struct tg_ring {
    size_t G, K, V, slots;
};
static inline size_t tg_ring_floats(const struct tg_ring *r)
{
    return r->G * r->slots * (r->K + r->V);
}
static inline float *tg_ring_key(const struct tg_ring *r, float *state, size_t group, size_t slot)
{
    return state + (group * r->slots + slot) * r->K;
}
static inline float *tg_ring_value(const struct tg_ring *r, float *state, size_t group, size_t slot)
{
    return state + r->G * r->slots * r->K + (group * r->slots + slot) * r->V;
}
/* Tokens held after `past` of them were put */
static inline size_t tg_ring_count(const struct tg_ring *r, size_t past)
{
    return past < r->slots ? past : r->slots;
}

/* Token p of one kv head: k [K], v [V] */
void tg_ring_put(const struct tg_ring *r, float *state, size_t group, size_t p, const float *k,
                 const float *v);
/* n tokens from p on, k [n,G,K], v [n,G,V]; only those that stay are copied */
void tg_ring_put_rows(const struct tg_ring *r, float *state, size_t p, size_t n, const float *k,
                      const float *v);
/* The tokens held, oldest first, to k [count,G,K], v [count,G,V]; returns count */
size_t tg_ring_take(const struct tg_ring *r, const float *state, size_t past, float *k, float *v);

/* Rows [from, to) of one head over a cache that has not wrapped, row t over tokens 0..t: q and o
 * rows ld apart, row 0 is token `past`; lse, max [to - from]. scores: scratch [(to - from) *
 * (past + to)]. */
void tg_ring_block(const struct tg_kernels *kern, const struct tg_ring *r, const float *state,
                   size_t group, size_t past, size_t from, size_t to, const float *q, size_t ld_q,
                   float scale, float cap, float *o, size_t ld_o, float *lse, float *max,
                   float *scores);

#endif
