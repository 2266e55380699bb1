/* The eight sums of eight vectors of eight floats. */
#ifndef TG_LINEARIZE_SUM8_H
#define TG_LINEARIZE_SUM8_H

#include <immintrin.h>

static inline __m256 sum8(const __m256 v[8])
{
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                         _mm256_permute2f128_ps(low, high, 0x31));
}

#endif
