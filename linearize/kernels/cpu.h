/* What the processor has, and the tables of kernels that were compiled for it. */
#ifndef TG_LINEARIZE_CPU_H
#define TG_LINEARIZE_CPU_H

#include "linearize/kernels/kernels.h"

/* Bits of enum tg_cpu_flags that processor and operating system can run. */
unsigned tg_cpu_flags(void);

extern const struct tg_kernels tg_kernels_c;
#if defined(__x86_64__)
extern const struct tg_kernels tg_kernels_avx2;
extern const struct tg_kernels tg_kernels_avx512;
#endif

#endif
