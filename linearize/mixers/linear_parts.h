/* Private to the frame of linear mixers: a layer's sizes and kernels, and the stages between
 * projection and recurrence. */
#ifndef TG_LINEARIZE_LINEAR_PARTS_H
#define TG_LINEARIZE_LINEAR_PARTS_H

#include "linearize/kernels/conv.h"
#include "linearize/kernels/featuremap.h"
#include "linearize/mixers/beside.h"
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/sse.h"

struct tg_linear_parts {
    const struct tg_linear_recipe *recipe;
    size_t rows, H, G, S, K, V, out; /* out: heads of the output */
    size_t states, key_heads;        /* heads of the recurrence, of its keys */
    size_t features, Vx;             /* sizes there: K or the map's; V, or V + 1 with ones */
    bool ones;
    bool activated_q, activated_k, activated_v; /* by convolution or silu */
    bool own_qk;                                /* q or k change before features are taken */
    bool own_values;                            /* there is one for each state, or a column more */
    bool own_features, rotary, has_window, series, low_z;
    struct tg_conv conv_q, conv_k, conv_v; /* taps 0: none */
    struct tg_gnorm unit_q, unit_k, norm;  /* norm.n 0: none */
    struct tg_map map;
    struct tg_linear_gates gates;
    struct tg_recur recur;
    struct tg_sse sse; /* of sparse rows: recur for each of their states */
    struct tg_beside window;
};
void tg_linear_parts_of(const struct tg_mixer *m, const struct tg_batch *b,
                        struct tg_linear_parts *p);

/* x [rows,heads,size] -> y, convolved (taps of the conv) or through silu */
void tg_linear_activate(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                        const struct tg_batch *b, const struct tg_conv *conv, const float *w,
                        const float *x, float *y, struct tg_states states);
/* dy is overwritten, dx written; dw accumulated (NULL: not wanted) */
void tg_linear_activate_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                            const struct tg_batch *b, const struct tg_conv *conv, const float *w,
                            const float *x, float *dy, float *dx, float *dw);

/* q1 [rows,H,K], k1 [rows,G,K] -> q [rows,H,features], k [rows,key_heads,features] */
void tg_linear_features(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                        const struct tg_mixer *m, const float *q1, const float *k1, float *q,
                        float *k);
/* dq, dk overwritten; dq1, dk1 written */
void tg_linear_features_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                            const struct tg_mixer *m, const float *q1, const float *k1,
                            const float *q, const float *k, float *dq, float *dk, float *dq1,
                            float *dk1, const struct tg_mixer_grads *d);

/* v1 [rows,S,V] -> v [rows,states,Vx], for each state its value, with ones a last column of 1; and
 * the sum of gradients back */
void tg_linear_values(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const float *v1,
                      float *v);
void tg_linear_values_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                          const float *dv, float *dv1);
/* o [rows,out,V+1] -> l = o / its last column; dl -> do. A denominator that is not positive (maps
 * whose products may be negative) gives l = 0. */
void tg_linear_divide(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const float *o,
                      float *l);
void tg_linear_divide_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const float *o,
                          const float *l, const float *dl, float *d_o);

#endif
