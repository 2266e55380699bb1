/* The decoder of linearize/model written plainly in double, for softmax and window layers without
 * sinks: what gradients and logits are measured against. */
#ifndef TG_TESTS_REF_MODEL_H
#define TG_TESTS_REF_MODEL_H

#include "convert/params.h"

/* Mean cross-entropy of the next token over ids [T]; logits [T,N] may be NULL. data is a block in
 * the layout of params. */
double tg_ref_loss(const struct tg_model_spec *spec, const struct tg_param_list *params,
                   const double *data, const int32_t *ids, size_t T, double *logits);

/* The same in two parts, for many losses that differ in a later layer alone: the states [T,D] that
 * leave the first `layers` layers, freed with free, and the loss that follows from them. */
double *tg_ref_hidden(const struct tg_model_spec *spec, const struct tg_param_list *params,
                      const double *data, const int32_t *ids, size_t T, size_t layers);
double tg_ref_loss_after(const struct tg_model_spec *spec, const struct tg_param_list *params,
                         const double *data, const int32_t *ids, size_t T, size_t layers,
                         const double *hidden, double *logits);

#endif
