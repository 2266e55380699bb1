/* The mixers that work channel by channel (hgrn, the hyena rows) again in double, from their
 * equations. */
#ifndef TG_TESTS_ELEMENTWISE_REF_H
#define TG_TESTS_ELEMENTWISE_REF_H

#include "tests/mixers_ref.h"

bool tg_elementwise_ref_knows(const struct tg_mixer *m);
void tg_elementwise_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                                double *y);

#endif
