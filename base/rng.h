/* Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011): value i of stream (seed,
 * stream) is a pure function, so batch n is the same in any run, in any order, on any number of
 * threads. */
#ifndef TG_BASE_RNG_H
#define TG_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct tg_rng {
    uint64_t seed, stream, at; /* at: next 32-bit word */
};

struct tg_rng tg_rng_make(uint64_t seed, uint64_t stream);
uint32_t tg_rng_u32(struct tg_rng *r);
uint64_t tg_rng_u64(struct tg_rng *r);
uint64_t tg_rng_below(struct tg_rng *r, uint64_t n); /* uniform in [0, n), unbiased; n > 0 */
double tg_rng_uniform(struct tg_rng *r);             /* [0, 1), 53 bits */
double tg_rng_normal(struct tg_rng *r);              /* Box-Muller */
void tg_rng_shuffle(struct tg_rng *r, size_t *items, size_t count);
/* The first n of all [limit] become n different numbers below limit, in random order. */
void tg_rng_distinct(struct tg_rng *r, size_t *all, size_t n, size_t limit);

#endif
