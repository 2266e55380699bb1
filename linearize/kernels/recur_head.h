/* One state of one sequence of recur.h, a chunk at a time, on the calling thread. */
#ifndef TG_LINEARIZE_RECUR_HEAD_H
#define TG_LINEARIZE_RECUR_HEAD_H

#include "linearize/kernels/recur.h"

/* Row t of an array begins t * ld floats after its start; gradients alike. */
struct tg_recur_head {
    const struct tg_recur *r;
    size_t n;
    struct tg_recur_in in;
    size_t ld_q, ld_k, ld_v, ld_a, ld_o, ld_g, ld_b; /* a: of a and b; g: 0 constant; b: beta */
};
size_t tg_recur_head_work(const struct tg_recur *r);
size_t tg_recur_head_saved(const struct tg_recur *r, size_t n);
/* The chunk that begins at row t, a multiple of tg_recur_chunk_rows: chunks in order. S [K,V] is
 * the state, zero at the text's start unless `carried`: then it comes from what was before and is
 * wanted after the text's end. saved: of the whole text, or NULL. */
void tg_recur_head_fwd(const struct tg_kernels *kern, const struct tg_recur_head *a, size_t t,
                       bool carried, float *o, float *S, float *saved, float *work);
/* Chunks from the last to the first; dS [K,V] is the gradient of the state after the chunk, then of
 * the state before it. */
void tg_recur_head_bwd(const struct tg_kernels *kern, const struct tg_recur_head *a, size_t t,
                       const float *saved, const float *dout, const struct tg_recur_grads *d,
                       float *dS, float *work);

#endif
