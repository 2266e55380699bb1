/* Mixture of experts; for linearize/model alone.
 *
 *   y_t = sum_{e in top k of t} w_te expert_e(x_t)  +  shared(x_t) [sigmoid(g . x_t)]
 *
 * w as the router of convert/spec.h says. Rows are sorted by expert, so that each expert is one set
 * of products over its rows; results are added in the order of a row's choices, which does not
 * depend on threads. The choice is constant for the gradient, and so is the correction. */
#ifndef TG_LINEARIZE_MOE_H
#define TG_LINEARIZE_MOE_H

#include "linearize/model/model.h"

/* In floats; 0 for a layer without experts */
size_t tg_moe_saved_floats(const struct tg_model_spec *spec, size_t layer, size_t rows);
size_t tg_moe_work_floats(const struct tg_model_spec *spec, size_t layer, size_t rows, int threads,
                          bool backward);
/* x [rows,D] -> y [rows,D] (written). saved NULL: no backward will follow. */
void tg_moe_forward(const struct tg_model *m, size_t layer, const float *x, float *y, size_t rows,
                    float *saved, float *work);
/* dy [rows,D] -> dx [rows,D] (written), gradients accumulated where wanted */
void tg_moe_backward(const struct tg_model *m, size_t layer, const float *x, const float *dy,
                     const float *saved, float *dx, float *grads, const bool *wanted, float *work,
                     size_t rows);

#endif
