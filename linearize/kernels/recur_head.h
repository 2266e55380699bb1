/* One state of one sequence of recur.h on the calling thread. */
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
/* state [K,V] as in recur.h */
void tg_recur_head_fwd(const struct tg_kernels *kern, const struct tg_recur_head *a, float *o,
                       float *state, float *saved, float *work);
void tg_recur_head_bwd(const struct tg_kernels *kern, const struct tg_recur_head *a,
                       const float *saved, const float *dout, const struct tg_recur_grads *d,
                       float *dstate, float *work);

#endif
