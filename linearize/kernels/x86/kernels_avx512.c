/* The template for AVX-512 (F, BW, VL, DQ); compiled with those flags, called only where
 * base/cpu.c finds them. */
#if defined(__x86_64__)
#include "linearize/kernels/x86/sum8.h"

#include <stddef.h>

/* as in kernels_avx2.c, with lanes of 16 */
static void dots8(const float *x, const float *const w[8], size_t n, float out[8])
{
    __m512 sum[8];
    __m256 half[8];
    size_t i = 0;
    for (size_t r = 0; r < 8; r++)
        sum[r] = _mm512_setzero_ps();
    for (; i + 16 <= n; i += 16) {
        __m512 xi = _mm512_loadu_ps(x + i);
        for (size_t r = 0; r < 8; r++)
            sum[r] = _mm512_fmadd_ps(xi, _mm512_loadu_ps(w[r] + i), sum[r]);
    }
    if (i < n) {
        __mmask16 mask = (__mmask16)((1u << (n - i)) - 1);
        __m512 xi = _mm512_maskz_loadu_ps(mask, x + i);
        for (size_t r = 0; r < 8; r++)
            sum[r] = _mm512_fmadd_ps(xi, _mm512_maskz_loadu_ps(mask, w[r] + i), sum[r]);
    }
    for (size_t r = 0; r < 8; r++)
        half[r] = _mm256_add_ps(_mm512_castps512_ps256(sum[r]), _mm512_extractf32x8_ps(sum[r], 1));
    _mm256_storeu_ps(out, sum8(half));
}

#define VEC __m512
#define MASK __mmask16
#define MASK_OF(n) ((__mmask16)((n) < 16 ? (1u << (n)) - 1 : 0xffffu))
#define ZERO _mm512_setzero_ps
#define SPREAD _mm512_set1_ps
#define FMA _mm512_fmadd_ps
#define ADD _mm512_add_ps
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#define LOAD_SOME _mm512_maskz_loadu_ps
#define STORE_SOME _mm512_mask_storeu_ps
enum { LANES = 16, MM_ROWS = 8 };
#include "linearize/kernels/x86/mm_tmpl.h"

#define OWN_DOTS8
#define OWN_MM
#define TABLE tg_kernels_avx512
#define TABLE_NAME "avx512"
#include "linearize/kernels/vec_tmpl.h"

#if defined(__linux__)
const struct tg_kernels tg_kernels_amx = {.name = "amx", .product = tg_product_amx, KERNELS};
#endif
#endif
