/* The decoder of linearize/model written plainly in double, for softmax and window layers without
 * sinks: what gradients and logits are measured against. */
#ifndef TG_TESTS_REF_MODEL_H
#define TG_TESTS_REF_MODEL_H

#include "convert/params.h"

/* Mean cross-entropy of the next token over ids [T]; logits [T,N] may be NULL. data is a block in
 * the layout of params. */
double tg_ref_loss(const struct tg_model_spec *spec, const struct tg_param_list *params,
                   const double *data, const int32_t *ids, size_t T, double *logits);

#endif
