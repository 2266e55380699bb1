/* Conversions of whole arrays, one table for each set of instructions that they are compiled for.
 * Every table gives the same bits. Inside formats/: others call formats/dtype.h. */
#ifndef TG_FORMATS_DTYPE_FNS_H
#define TG_FORMATS_DTYPE_FNS_H

#include "formats/dtype.h"

/* n elements, whole blocks; any alignment; source and target do not overlap */
typedef void (*tg_dtype_fn)(const unsigned char *restrict src, unsigned char *restrict dst,
                            size_t n);

struct tg_dtype_fns {
    const char *name;                 /* "c", "avx2" */
    tg_dtype_fn to[TG_DTYPE_COUNT];   /* to float32; NULL: the type is not is_float */
    tg_dtype_fn from[TG_DTYPE_COUNT]; /* from float32; NULL: it is not from_f32 */
};

extern const struct tg_dtype_fns tg_dtype_fns_c;
#if defined(__x86_64__)
extern const struct tg_dtype_fns tg_dtype_fns_avx2;
#endif

/* The best table that both this processor and `mask` (enum tg_cpu_flags) allow. */
const struct tg_dtype_fns *tg_dtype_fns_select(unsigned mask);

#endif
