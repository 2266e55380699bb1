/* Experts of a layer's mlp; part of its spec. */
#ifndef TG_CONVERT_MOE_SPEC_H
#define TG_CONVERT_MOE_SPEC_H

#include <stdbool.h>
#include <stddef.h>

/* Scores s = W x (+ b) of a token over E experts, k of which are taken.
 *
 *   SOFTMAX_TOP  p = softmax(s) over all, top k of p; renormalise: p / sum of the taken
 *   TOP_SOFTMAX  top k of s, softmax over those
 *   SIGMOID      p = sigmoid(s); chosen by p + correction, within the `groups_kept` best groups (a
 *                group scores the sum of its two best); weights are p without the correction,
 *                renormalised if asked
 *
 * All weights are then multiplied by `scale`. y = sum of weight * expert(x) + shared expert. */
enum tg_router { TG_ROUTER_SOFTMAX_TOP, TG_ROUTER_TOP_SOFTMAX, TG_ROUTER_SIGMOID };
struct tg_moe_spec {
    size_t experts; /* E; 0: a dense mlp, and all else here is zero */
    size_t per_token, mlp_dim;
    enum tg_router router;
    bool renormalise, router_bias, correction, expert_bias;
    double scale;
    size_t groups, groups_kept; /* SIGMOID; 1, 1: no groups */
    size_t shared_dim;          /* width of the shared expert's mlp; 0: none */
    bool shared_gate;           /* it is multiplied by sigmoid(w . x) */
};

#endif
