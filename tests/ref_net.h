/* What the parts of the double reference share: a model's parameters by name, a linear map, the
 * model's norm. */
#ifndef TG_TESTS_REF_NET_H
#define TG_TESTS_REF_NET_H

#include "convert/params.h"

struct tg_ref_net {
    const struct tg_model_spec *spec;
    const struct tg_param_list *params;
    const double *data;
};
/* NULL if there is none; layer -1: outside layers */
const double *tg_ref_weight(const struct tg_ref_net *r, int layer, const char *name);
double *tg_ref_zeros(size_t n); /* freed with free */
/* y [n] = W [n,k] x (+ b) */
void tg_ref_linear(const double *w, const double *b, const double *x, double *y, size_t n,
                   size_t k);
/* The model's norm over n entries, its weight and bias by name (without .weight, .bias) */
void tg_ref_norm(const struct tg_ref_net *r, int layer, const char *name, const double *x,
                 double *y, size_t n);

/* The layer's mixer, softmax or window: x [T,D] -> y [T,D] */
void tg_ref_attention(const struct tg_ref_net *r, int layer, const double *x, double *y, size_t T);
/* Its mlp or experts, of one token: x [D] -> y [D] */
void tg_ref_mlp(const struct tg_ref_net *r, int layer, const double *x, double *y);

#endif
