/* The portable table: the template in plain C, vectorised for what every processor of the target
 * has. */
#define TABLE tg_kernels_c
#define TABLE_NAME "c"
#include "linearize/kernels/vec_tmpl.h"
