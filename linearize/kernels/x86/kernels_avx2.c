/* The template for AVX2 with FMA; compiled with those flags, called only where cpu.c finds them. */
#if defined(__x86_64__)
#define TABLE tg_kernels_avx2
#define TABLE_NAME "avx2"
#include "linearize/kernels/vec_tmpl.h"
#endif
