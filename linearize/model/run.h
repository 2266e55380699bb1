/* What a run holds; for linearize/model alone. */
#ifndef TG_LINEARIZE_RUN_H
#define TG_LINEARIZE_RUN_H

#include "linearize/model/model.h"

/* Kept from forward for backward, per layer. Normalised inputs and the activation's result are
 * recomputed: they cost one pass. */
struct tg_saved_layer {
    float *h_in, *h_mid; /* [rows,D] before and after the mixer; h_mid NULL for parallel branches */
    float *mixer;
    float *mixer_out, *mlp_out; /* [rows,D] what the norm behind a branch was of; NULL without */
    float *gate, *up;           /* [rows,M] */
    float *moe;
};
struct tg_run {
    float *block;
    size_t block_floats;
    struct tg_saved_layer *saved; /* [saved_count] */
    size_t saved_count, saved_cap;
    size_t rows; /* as fitted */
    float *h_last;
    float *x, *y, *p, *q;  /* scratch: [rows,D] twice, [rows,M] twice */
    float *dy, *dx;        /* [rows,D] of backward through other kinds than plain ones */
    float *token, *dtoken; /* [rows,E] of backward through embed_in */
    float *stats;          /* [rows,2] */
    float *partial, *work;
    struct tg_ropes ropes; /* of those that depend on the batch's longest sequence */
};

#endif
