/* Feature maps: what replaces e^{q.k} by a product of features phi(q).phi(k). On rows of one head,
 * on the calling thread; K the head size, W [K,F] the head's weights (maps that have some).
 *
 *   hedgehog_softmax   max([softmax(xW), softmax(-xW)], 1e-12)              2F features
 *   hedgehog_exp       [e^{xW - m}, e^{-xW - m}], m = max |xW| of the row   2F features
 *   relu, elu1, identity                                                     K features
 *   taylor             [1, u / F^{1/4}, u_i u_j / sqrt F, u_i^2 / sqrt(2 F)] i < j, u = xW
 *                                                              1 + F + F (F + 1) / 2 features
 *
 * Hedgehog: Zhang et al. 2024 (arXiv 2402.04347); the softmax form and its floor are LoLCATs'. m is
 * a constant for the gradient. Taylor: BASED (arXiv 2402.18668), packed: phi(u).phi(u') =
 * 1 + s + s^2 / 2, s = u.u' / sqrt F, which is at least 1/2. */
#ifndef TG_LINEARIZE_FEATUREMAP_H
#define TG_LINEARIZE_FEATUREMAP_H

#include "convert/mixers.h"
#include "linearize/kernels/kernels.h"

struct tg_map {
    enum tg_feature_map kind;
    size_t K, F;
};
size_t tg_map_features(const struct tg_map *m);

/* x [n,K] rows ld_x apart -> y [n, features] rows ld_y apart */
void tg_map_fwd(const struct tg_kernels *kern, const struct tg_map *m, size_t n, const float *x,
                size_t ld_x, const float *w, float *y, size_t ld_y);
/* y is the forward's output; dy as y, overwritten. dx (as x) and dw [K,F] (NULL: not wanted) are
 * accumulated. */
void tg_map_bwd(const struct tg_kernels *kern, const struct tg_map *m, size_t n, const float *x,
                size_t ld_x, const float *w, const float *y, float *dy, size_t ld_y, float *dx,
                float *dw);

#endif
