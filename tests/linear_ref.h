/* The rows of the linear frame again in double, one token after another. */
#ifndef TG_TESTS_LINEAR_REF_H
#define TG_TESTS_LINEAR_REF_H

#include "tests/mixers_ref.h"

bool tg_linear_ref_knows(const struct tg_mixer *m);
void tg_linear_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                           double *y);

/* Options of a layer that a row of the linear frame has adopted, another choice for each i: window
 * and its forms, kv heads shared (G of them) or expanded, more values than keys, rotary, output
 * gate, sizes of values, denominators, convolutions */
void tg_linear_vary(struct tg_layer_spec *l, size_t i, size_t G, size_t window, size_t sinks);

#endif
