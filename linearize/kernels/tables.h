/* The tables of kernels that were compiled. */
#ifndef TG_LINEARIZE_TABLES_H
#define TG_LINEARIZE_TABLES_H

#include "linearize/kernels/kernels.h"

extern const struct tg_kernels tg_kernels_c;
#if defined(__x86_64__)
extern const struct tg_kernels tg_kernels_avx2;
extern const struct tg_kernels tg_kernels_avx512;
#if defined(__linux__)
extern const struct tg_kernels tg_kernels_amx;
void tg_product_amx(const struct tg_product *p, enum tg_precision precision);
#endif
#endif

#endif
