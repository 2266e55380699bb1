/* RWKV-7 again in double, one token after another, its state as the paper has it: [V,K]. */
#ifndef TG_TESTS_RWKV_REF_H
#define TG_TESTS_RWKV_REF_H

#include "tests/mixers_ref.h"

bool tg_rwkv_ref_knows(const struct tg_mixer *m);
void tg_rwkv_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                         double *y);
/* Options of a layer that the row has adopted, another choice for each i; nothing of other rows */
void tg_rwkv_vary(struct tg_layer_spec *l, size_t i);

#endif
