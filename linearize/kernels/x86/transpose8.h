/* to [8,8] = from^T, rows apart by the strides. */
#ifndef TG_LINEARIZE_TRANSPOSE8_H
#define TG_LINEARIZE_TRANSPOSE8_H

#include <immintrin.h>
#include <stddef.h>

static inline void transpose8(const float *from, size_t ld, float *to, size_t ld_to)
{
    __m256 r[8], s[8];
    for (size_t i = 0; i < 4; i++) { /* rows i and i+4: halves side by side */
        const float *low = from + i * ld, *high = from + (i + 4) * ld;
        r[i] =
            _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
        r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)),
                                        _mm_loadu_ps(high + 4), 1);
    }
    for (size_t i = 0; i < 8; i += 4) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
        s[i + 2] = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        s[i + 3] = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        _mm256_storeu_ps(to + i * ld_to, _mm256_shuffle_ps(s[i], s[i + 2], 0x44));
        _mm256_storeu_ps(to + (i + 1) * ld_to, _mm256_shuffle_ps(s[i], s[i + 2], 0xee));
        _mm256_storeu_ps(to + (i + 2) * ld_to, _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44));
        _mm256_storeu_ps(to + (i + 3) * ld_to, _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee));
    }
}

#endif
