/* The conversions for AVX2; compiled with that flag, called only where base/cpu.c finds it. */
#if defined(__x86_64__)
#define TABLE tg_dtype_fns_avx2
#define TABLE_NAME "avx2"
#include "formats/dtype_tmpl.h"
#endif
