/* Depthwise causal convolution over a few tokens, with optional bias and SiLU:
 *
 *   u_t = bias + sum_j w_j x_{t - taps + 1 + j},  y_t = silu(u_t) or u_t,  j = 0 .. taps - 1
 *
 * What precedes a sequence is zero, or its cache of the last taps - 1 inputs, oldest first. */
#ifndef TG_LINEARIZE_CONV_H
#define TG_LINEARIZE_CONV_H

#include <stdbool.h>

#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

enum { TG_CONV_MAX_TAPS = 32 };

struct tg_conv {
    size_t D, taps; /* channels; 1..TG_CONV_MAX_TAPS */
    bool silu;
    size_t ld_x; /* floats from one row of x to the next; 0: D. dx alike */
};
/* floats of state for each sequence: [taps - 1, D] */
static inline size_t tg_conv_state(const struct tg_conv *c)
{
    return (c->taps - 1) * c->D;
}

/* x [rows,D] -> y [rows,D] dense; w [D,taps], bias [D] or NULL; states are updated. */
void tg_conv_fwd(const struct tg_ctx *ctx, const struct tg_conv *c, const struct tg_batch *batch,
                 const float *x, const float *w, const float *bias, float *y,
                 struct tg_states states);
/* Every sequence from zeros. dy [rows,D] is overwritten by du; dx is written (NULL: not wanted);
 * dw [D,taps] and dbias [D] are accumulated (NULL: not wanted). */
void tg_conv_bwd(const struct tg_ctx *ctx, const struct tg_conv *c, const struct tg_batch *batch,
                 const float *x, const float *w, const float *bias, float *dy, float *dx, float *dw,
                 float *dbias);

/* Double reference: one sequence of n rows from zeros, dense. */
void tg_conv_ref(const struct tg_conv *c, size_t n, const double *x, const double *w,
                 const double *bias, double *y);

#endif
