/* Arrays that end at a page which may not be touched, so that reading or writing one element too
 * far ends the test; filled with NaN, so that what was not written shows. */
#ifndef TG_TESTS_GUARD_H
#define TG_TESTS_GUARD_H

#include <stddef.h>
#include <stdint.h>

struct tg_guarded {
    float *p; /* n floats, NaN; aligned to no more than 4 bytes */
    void *map;
    size_t bytes;
};
struct tg_guarded tg_guard(size_t n);
void tg_guard_free(struct tg_guarded *g);

/* Uniform in [-1, 1), the same sequence for the same seed. */
void tg_fill_random(float *x, size_t n, uint64_t seed);
void tg_to_double(const float *x, double *y, size_t n);

#endif
