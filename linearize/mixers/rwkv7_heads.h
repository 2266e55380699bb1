/* RWKV-7's arithmetic on heads around its recurrence, without projections; equations in rwkv7.c. */
#ifndef TG_LINEARIZE_RWKV7_HEADS_H
#define TG_LINEARIZE_RWKV7_HEADS_H

#include "linearize/kernels/kernels.h"

struct tg_rwkv_params {
    const float *k_k, *k_a, *r_k;         /* [H,K] */
    const float *norm_weight, *norm_bias; /* [H,V] */
};
struct tg_rwkv_heads {
    size_t rows, H, K, V;
    float eps; /* of the norm */
    struct tg_rwkv_params w;
    const float *q, *k0, *v; /* [rows,H,K], [rows,H,K], [rows,H,V] */
    float *g, *a;            /* [rows,H,K] enter: arguments of the sigmoids -> log decays, rates */
    float *read, *write, *k; /* [rows,H,K] -kk, kk . a, k: the recurrence's a, b and k */
    float *unit;             /* [rows,H] kk = unit k0 . k_k */
    const float *o, *gate;   /* [rows,H,V] of the recurrence; the output gate */
    float *stats, *bonus, *sum; /* [rows,H,2], [rows,H]; norm(o) + bonus v [rows,H,V] */
    float *y;                   /* sum . gate */
};
/* Before the recurrence: from q, k0, g, a */
void tg_rwkv_enter(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h);
/* After it: from q, k, v, o, gate */
void tg_rwkv_leave(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h);

struct tg_rwkv_grads {
    const float *y;          /* given */
    float *sum, *gate, *o;   /* written by leave */
    float *q, *k, *v;        /* the bonus' part, written by leave */
    float *read, *write, *g; /* the recurrence's; g becomes its argument's */
    float *a, *k0;           /* written by enter */
    float *k_k, *k_a, *r_k, *norm_weight, *norm_bias; /* accumulated; never NULL */
};
void tg_rwkv_leave_bwd(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h,
                       const struct tg_rwkv_grads *d);
/* With the recurrence's gradients in k, read, write and g */
void tg_rwkv_enter_bwd(const struct tg_ctx *ctx, const struct tg_rwkv_heads *h,
                       const struct tg_rwkv_grads *d);

#endif
