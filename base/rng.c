/* Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011).
 * The key is the seed, the counter is (word index / 4, stream), so each word is a pure function of
 * (seed, stream, index). */
#include "base/rng.h"

#include <math.h>

static void philox(uint32_t key0, uint32_t key1, uint32_t c[4])
{
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(p1 >> 32) ^ c1 ^ key0;
        c[1] = (uint32_t)p1;
        c[2] = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c[3] = (uint32_t)p0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

struct tg_rng tg_rng_make(uint64_t seed, uint64_t stream)
{
    return (struct tg_rng){.seed = seed, .stream = stream};
}

uint32_t tg_rng_u32(struct tg_rng *r)
{
    uint64_t block = r->at >> 2;
    uint32_t c[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)r->stream,
                     (uint32_t)(r->stream >> 32)};
    philox((uint32_t)r->seed, (uint32_t)(r->seed >> 32), c);
    return c[r->at++ & 3];
}

uint64_t tg_rng_u64(struct tg_rng *r)
{
    uint64_t low = tg_rng_u32(r);
    return low | (uint64_t)tg_rng_u32(r) << 32;
}

/* Values below 2^64 mod n are drawn again, so that every remainder has the same number of sources.
 */
uint64_t tg_rng_below(struct tg_rng *r, uint64_t n)
{
    uint64_t least = (0 - n) % n;
    for (;;) {
        uint64_t v = tg_rng_u64(r);
        if (v >= least)
            return v % n;
    }
}

double tg_rng_uniform(struct tg_rng *r)
{
    return (double)(tg_rng_u64(r) >> 11) * 0x1p-53;
}

double tg_rng_normal(struct tg_rng *r)
{
    double u = 1.0 - tg_rng_uniform(r); /* (0, 1]: the logarithm is finite */
    double v = tg_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

void tg_rng_shuffle(struct tg_rng *r, size_t *items, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = (size_t)tg_rng_below(r, i);
        size_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

void tg_rng_distinct(struct tg_rng *r, size_t *all, size_t n, size_t limit)
{
    for (size_t i = 0; i < limit; i++)
        all[i] = i;
    for (size_t i = 0; i < n; i++) {
        size_t j = i + (size_t)tg_rng_below(r, limit - i), t = all[i];
        all[i] = all[j];
        all[j] = t;
    }
}
