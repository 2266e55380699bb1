/* The template for AVX-512 (F, BW, VL, DQ); compiled with those flags, called only where cpu.c
 * finds them. */
#if defined(__x86_64__)
#define TABLE tg_kernels_avx512
#define TABLE_NAME "avx512"
#include "linearize/kernels/vec_tmpl.h"
#endif
