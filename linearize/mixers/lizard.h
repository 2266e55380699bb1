/* Lizard's arithmetic on heads, without projections. */
#ifndef TG_LINEARIZE_LIZARD_H
#define TG_LINEARIZE_LIZARD_H

#include "linearize/mixers/joint.h"

/* Two branches: `window`, a joint form without far part, on rotated q and k; `all`, a far branch of
 * lag 0, on q and k without rotary. */
struct tg_lizard {
    struct tg_joint window;
    struct tg_far all;
    const float *alpha; /* [H] */
};
struct tg_lizard_heads {
    const float *q, *k;   /* [rows,H,K], [rows,G,K] rotated */
    const float *q0, *k0; /* without rotary */
    const float *v, *g;   /* [rows,G,V], log gates [rows,H] */
};
struct tg_lizard_grads {
    float *q, *k, *q0, *k0, *v, *g; /* accumulated */
    float *alpha, *sink, *wq, *wk;  /* accumulated; NULL: not wanted */
};
size_t tg_lizard_saved(const struct tg_lizard *l, const struct tg_batch *b);
size_t tg_lizard_work(const struct tg_lizard *l, const struct tg_batch *b, int threads,
                      bool backward);
/* y [rows,H,V]; states: those of tg_far_fwd */
void tg_lizard_fwd(const struct tg_ctx *ctx, const struct tg_lizard *l, const struct tg_batch *b,
                   const struct tg_lizard_heads *x, float *y, float *const *states, float *saved,
                   float *work);
void tg_lizard_bwd(const struct tg_ctx *ctx, const struct tg_lizard *l, const struct tg_batch *b,
                   const struct tg_lizard_heads *x, const float *saved, const float *dy,
                   const struct tg_lizard_grads *d, float *work);
/* One row of head h from its two branches, ya normalised */
void tg_lizard_row(const struct tg_lizard *l, size_t h, const float *ya, const float *num,
                   float den, float *y);

#endif
