/* The recurrent mixers again in double, one token after another, straight from their equations. */
#ifndef TG_TESTS_RECURRENT_REF_H
#define TG_TESTS_RECURRENT_REF_H

#include "tests/mixers_ref.h"

bool tg_recurrent_ref_knows(const struct tg_mixer *m);
void tg_recurrent_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                              double *y);
/* One text of T tokens without the attention that may stand beside the layer; whether one does */
void tg_recurrent_ref_own(const struct tg_ref *r, size_t T, const double *x, double *y);
bool tg_recurrent_ref_beside(const struct tg_mixer *m);
/* Settings of a recurrent layer made from those of an attention layer, so that every shape of a
 * test has one: heads H over G, sizes K and K + 1, short convolutions, every factor other than 1 */
void tg_recurrent_open(struct tg_layer_spec *s);

#endif
