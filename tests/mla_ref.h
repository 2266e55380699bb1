/* Latent attention again in double, from its equations: no latent is kept, every key is made. */
#ifndef TG_TESTS_MLA_REF_H
#define TG_TESTS_MLA_REF_H

#include "tests/mixers_ref.h"

bool tg_mla_ref_knows(const struct tg_mixer *m);
void tg_mla_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                        double *y);

#endif
