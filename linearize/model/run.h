/* What a run holds; for linearize/model alone. */
#ifndef TG_LINEARIZE_RUN_H
#define TG_LINEARIZE_RUN_H

#include "linearize/model/model.h"

/* Kept from forward for backward, per layer. The normalised inputs and silu(gate) * up are
 * recomputed: they cost one pass. */
struct tg_saved_layer {
    float *h_in, *r_in;   /* [rows,D], [rows] */
    float *h_mid, *r_mid; /* after the mixer */
    float *mixer;
    float *gate, *up; /* [rows,M] */
};
struct tg_run {
    float *block;
    size_t block_floats;
    struct tg_saved_layer *saved; /* [saved_count] */
    size_t saved_count, saved_cap;
    size_t rows; /* as fitted */
    float *h_last, *r_last;
    float *x, *y, *p, *q; /* scratch: [rows,D] twice, [rows,M] twice */
    float *r, *partial, *work;
};

#endif
