/* The conversions in portable C. */
#define TABLE tg_dtype_fns_c
#define TABLE_NAME "c"
#include "formats/dtype_tmpl.h"
