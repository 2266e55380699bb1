/* What sparse modular activation adds to a window, in double: which tokens attend, with what
 * factor, and the averages of all. */
#ifndef TG_TESTS_SPARSE_REF_H
#define TG_TESTS_SPARSE_REF_H

#include "tests/mixers_ref.h"

bool tg_sparse_ref_knows(const struct tg_mixer *m);
/* [count] factors of the rows of x, 0 of those that are not picked; freed by the caller. Whether a
 * row is picked is one of the reference's constants. */
double *tg_sparse_ref_picks(const struct tg_ref *r, size_t count, const double *x);
/* v [rows,G,K]: adds skip times the averages to y [rows,H,K] */
void tg_sparse_ref_average(const struct tg_ref *r, const struct tg_batch *b, const double *v,
                           double *y);

#endif
