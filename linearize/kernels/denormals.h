/* Between tg_denormals_off and tg_denormals_restore results below 2^-126 are zero on this thread.
 * Decays make many of them, and on x86 each costs a hundred cycles. */
#ifndef TG_LINEARIZE_DENORMALS_H
#define TG_LINEARIZE_DENORMALS_H

#if defined(__x86_64__)
#include <xmmintrin.h>

static inline unsigned tg_denormals_off(void)
{
    const unsigned before = _mm_getcsr(), flush_results = 0x8000, inputs_as_zero = 0x40;
    _mm_setcsr(before | flush_results | inputs_as_zero);
    return before;
}
static inline void tg_denormals_restore(unsigned before)
{
    _mm_setcsr(before);
}
#else
static inline unsigned tg_denormals_off(void)
{
    return 0;
}
static inline void tg_denormals_restore(unsigned before)
{
    (void)before;
}
#endif

#endif
