/* The template for AVX2 with FMA; compiled with those flags, called only where base/cpu.c finds
 * them. */
#if defined(__x86_64__)
#include "linearize/kernels/x86/sum8.h"

#include <stddef.h>
#include <stdint.h>

static inline __m256i first_lanes(size_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), lane);
}

/* Eight rows at once, by hand: the compiler adds up the lanes of each sum one by one, which for
 * rows of a head's size costs more than the products. */
static void dots8(const float *x, const float *const w[8], size_t n, float out[8])
{
    __m256 sum[8];
    size_t i = 0;
    for (size_t r = 0; r < 8; r++)
        sum[r] = _mm256_setzero_ps();
    for (; i + 8 <= n; i += 8) {
        __m256 xi = _mm256_loadu_ps(x + i);
        for (size_t r = 0; r < 8; r++)
            sum[r] = _mm256_fmadd_ps(xi, _mm256_loadu_ps(w[r] + i), sum[r]);
    }
    if (i < n) {
        __m256i mask = first_lanes(n - i);
        __m256 xi = _mm256_maskload_ps(x + i, mask);
        for (size_t r = 0; r < 8; r++)
            sum[r] = _mm256_fmadd_ps(xi, _mm256_maskload_ps(w[r] + i, mask), sum[r]);
    }
    _mm256_storeu_ps(out, sum8(sum));
}

#define VEC __m256
#define MASK __m256i
#define MASK_OF first_lanes
#define ZERO _mm256_setzero_ps
#define SPREAD _mm256_set1_ps
#define FMA _mm256_fmadd_ps
#define ADD _mm256_add_ps
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#define LOAD_SOME(mask, p) _mm256_maskload_ps(p, mask)
#define STORE_SOME _mm256_maskstore_ps
enum { LANES = 8, MM_ROWS = 6 };
#include "linearize/kernels/x86/mm_tmpl.h"

#define OWN_DOTS8
#define OWN_MM
#define TABLE tg_kernels_avx2
#define TABLE_NAME "avx2"
#include "linearize/kernels/vec_tmpl.h"
#endif
