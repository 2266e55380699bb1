/* Linear and recurrent mixers' own settings; part of a layer's spec. */
#ifndef TG_CONVERT_RECURRENT_SPEC_H
#define TG_CONVERT_RECURRENT_SPEC_H

#include <stdbool.h>
#include <stddef.h>

/* How a linear mixer's window joins its linear branch, which gives l for the window's w:
 *
 *   PARALLEL  y = l + alpha_h w, each with its own denominator
 *   SERIES    the same, but the linear branch's values are the window's output
 *   JOINT     one denominator: linear attention over what lies before the window (far.h) */
enum tg_window_form { TG_WINDOW_PARALLEL, TG_WINDOW_SERIES, TG_WINDOW_JOINT, TG_WINDOW_FORM_COUNT };
const char *tg_window_form_name(enum tg_window_form f); /* "parallel", "series", "joint" */

/* Mixers with a recurrent state beside attention's own fields: what they use is in their page. */
struct tg_recurrent_spec {
    size_t v_heads, v_dim;     /* of state-space layers: heads of x, size of each */
    size_t conv;               /* taps of the short convolution; 0: none */
    size_t inner_conv;         /* hyena: taps of that of k v */
    size_t state;              /* N of state-space layers, per channel */
    size_t groups;             /* groups of B and C */
    size_t inner;              /* channels between in and out projection */
    size_t rank;               /* of low-rank gates and dt */
    size_t partitions, active; /* sse: N <= 64 states, of which a token uses so many */
    bool no_shared;            /* sse: without the state that all tokens use */
    bool no_bound;             /* hgrn2: decays from 0, without a lower bound */
    size_t chunk;              /* block_causal: tokens of a block */
    size_t norm_groups;        /* groups of channels that its output norm treats apart; 0: one */
    /* of the convolution, the in (kda: the output gate's) and the out projection */
    bool conv_bias, proj_bias, out_bias, norm, norm_before_gate, negative_eigenvalues;
    double dt_min, dt_max;      /* limits of softplus(dt + bias); dt_max 0: none */
    double norm_eps;            /* of its output norm */
    double scales[8];           /* multipliers of the parts of the in projection, in its order */
    double in_scale, out_scale; /* and of its input and output */
    double beside_scale;        /* of the attention beside it */
};

#endif
