/* What sparse state expansion adds to the linear rows, in double: which states a token uses, and
 * with what factor. */
#ifndef TG_TESTS_SSE_REF_H
#define TG_TESTS_SSE_REF_H

#include "tests/mixers_ref.h"

bool tg_sse_ref_knows(const struct tg_mixer *m);
/* Of one text x [T,D], to e [N,T]: the factor of a state that a token uses, 0 of the others. Which
 * are used is one of the reference's constants for each. */
void tg_sse_ref_use(const struct tg_ref *r, size_t T, const double *x, double *e);

#endif
