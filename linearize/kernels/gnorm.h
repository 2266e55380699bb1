/* Normalisation of short vectors (one for each head or group of a row), weighted and gated:
 *
 *   r = (sum u^2 / d + eps)^-1/2,  d = n (RMS norm) or 1 (L2 norm)
 *   y = u r w f(z),  u = x                 (norm, then gate: Gated DeltaNet, KDA)
 *   y = u r w,       u = x f(z)            (gate, then norm: Mamba-2)
 *
 * f is silu, sigmoid or 1. w may be missing (1). */
#ifndef TG_LINEARIZE_GNORM_H
#define TG_LINEARIZE_GNORM_H

#include <stdbool.h>

#include "linearize/kernels/kernels.h"

enum tg_gate_fn { TG_GATE_FN_NONE, TG_GATE_FN_SILU, TG_GATE_FN_SIGMOID };

struct tg_gnorm {
    size_t groups, n; /* vectors of a row; their size */
    bool l2;          /* d = 1 */
    bool shared;      /* w [n] for every vector; else w [groups n] */
    bool gate_first;
    enum tg_gate_fn gate;
    float eps;
    size_t ld_x, ld_z; /* floats between rows of x, y (and dx, dy) and of z (and dz); 0: dense */
};

/* x, y [rows,groups,n], y may be x; r [rows,groups] kept for backward, may be NULL */
void tg_gnorm_fwd(const struct tg_ctx *ctx, const struct tg_gnorm *g, size_t rows, const float *x,
                  const float *z, const float *w, float *y, float *r);
/* dx and dz are written (dx may be dy); dw accumulated (NULL: not wanted). work:
 * tg_gnorm_work floats */
size_t tg_gnorm_work(const struct tg_gnorm *g, size_t rows);
void tg_gnorm_bwd(const struct tg_ctx *ctx, const struct tg_gnorm *g, size_t rows, const float *x,
                  const float *z, const float *w, const float *r, const float *dy, float *dx,
                  float *dz, float *dw, float *work);

/* Double reference, dense */
void tg_gnorm_ref(const struct tg_gnorm *g, size_t rows, const double *x, const double *z,
                  const double *w, double *y);

#endif
