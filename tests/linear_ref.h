/* The rows of the linear frame again in double, one token after another. */
#ifndef TG_TESTS_LINEAR_REF_H
#define TG_TESTS_LINEAR_REF_H

#include "tests/mixers_ref.h"

bool tg_linear_ref_knows(const struct tg_mixer *m);
void tg_linear_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                           double *y);

#endif
