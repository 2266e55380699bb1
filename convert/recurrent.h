/* Private to convert: sizes of recurrent mixers, from a layer's tg_recurrent_spec. */
#ifndef TG_CONVERT_RECURRENT_H
#define TG_CONVERT_RECURRENT_H

#include "convert/spec.h"

/* TG_DIM_V_HEADS and those after it; 0 for others */
size_t tg_recurrent_size(enum tg_dim d, const struct tg_recurrent_spec *r);
/* Every size that the mixer's parameters name is in range, and what must divide does. */
int tg_recurrent_check(const struct tg_layer_spec *l, const char *where, struct tg_err *err);

#endif
