/* Keys of random streams: every draw of training and evaluation is a pure function of (seed, what
 * it is for). */
#ifndef TG_DISTILL_KEYS_H
#define TG_DISTILL_KEYS_H

#include "base/rng.h"

/* A new seed from a seed and two numbers that say what it is for. */
static inline uint64_t tg_key(uint64_t seed, uint64_t a, uint64_t b)
{
    struct tg_rng first = tg_rng_make(seed, a);
    struct tg_rng second = tg_rng_make(tg_rng_u64(&first), b);
    return tg_rng_u64(&second);
}

#endif
