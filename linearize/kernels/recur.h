/* The two recurrences of linear mixers, each written once; chunked. Per head of a value, with log
 * gate g_t <= 0 (none, one number per head, per token, or per token and key channel):
 *
 *   S' = diag(e^{g_t}) S_{t-1}
 *   u_t = v_t                               (outer: gated linear attention)
 *   u_t = beta_t (v_t - S'^T k_t)           (delta: gated delta rule)
 *   S_t = S' + k_t u_t^T,   o_t = scale S_t^T q_t
 *
 * Head h of the H value heads reads head h / (H / G) of the G key heads. Chunk form: Yang et al.
 * 2024 (arXiv 2312.06635, 2406.06484, 2412.06464), Kimi Linear (arXiv 2510.26692). Only differences
 * b_i - b_j, i >= j, of summed gates are exponentiated (all <= 1). Backward keeps S at chunk
 * boundaries and recomputes inside. */
#ifndef TG_LINEARIZE_RECUR_H
#define TG_LINEARIZE_RECUR_H

#include <stdbool.h>

#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

enum tg_gate {
    TG_GATE_NONE,
    TG_GATE_CONSTANT, /* g [H], the same for every token; has no gradient */
    TG_GATE_SCALAR,   /* g [rows,H] */
    TG_GATE_CHANNEL   /* g [rows,H,K] */
};

struct tg_recur {
    size_t H, G;  /* value heads; key heads of q and k, G divides H */
    size_t K, V;  /* key and value size */
    size_t chunk; /* 0: default */
    enum tg_gate gate;
    bool delta;
    float scale;
    /* floats from one row of q and k, and of v, to the next; 0: dense (G K, H V). Gradients alike
     */
    size_t ld_k, ld_v;
};

struct tg_recur_in {
    const float *q, *k; /* [rows,G,K] */
    const float *v;     /* [rows,H,V] */
    const float *g;     /* as the gate kind says; NULL for none */
    const float *beta;  /* [rows,H]; NULL without delta */
};
/* Same shapes; accumulated. dg NULL for gate none and constant, dbeta NULL without delta. */
struct tg_recur_grads {
    float *q, *k, *v, *g, *beta;
};

/* state per sequence: S [H,K,V] */
static inline size_t tg_recur_state(const struct tg_recur *r)
{
    return r->H * r->K * r->V;
}
/* floats of scratch for fwd and bwd, and of what fwd saves for bwd (states at chunk boundaries) */
size_t tg_recur_work(const struct tg_recur *r, int threads);
size_t tg_recur_saved(const struct tg_recur *r, const struct tg_batch *batch);

/* o [rows,H,V] dense. states: S [H,K,V] of each sequence, updated. saved may be NULL when no
 * backward follows. */
void tg_recur_fwd(const struct tg_ctx *ctx, const struct tg_recur *r, const struct tg_batch *batch,
                  const struct tg_recur_in *in, float *o, struct tg_states states, float *saved,
                  float *work);
/* Gradients for dout [rows,H,V]. dstates [H,K,V] each: in: the gradient of the end state, out: of
 * the start state; none: the end is not used. */
void tg_recur_bwd(const struct tg_ctx *ctx, const struct tg_recur *r, const struct tg_batch *batch,
                  const struct tg_recur_in *in, const float *saved, const float *dout,
                  const struct tg_recur_grads *d, struct tg_states dstates, float *work);
/* One token of one head, to which fwd comes down: g [1] or [K] or NULL by kind; state [K,V]
 * updated, o [V]; u [V] scratch */
void tg_recur_step(const struct tg_kernels *kern, const struct tg_recur *r, const float *q,
                   const float *k, const float *v, const float *g, float beta, float *state,
                   float *o, float *u);

/* Double reference, token by token: one head, dense rows, g [n], [n,K], [1] or NULL by kind. S
 * [K,V]: start and end. */
void tg_recur_ref(const struct tg_recur *r, size_t n, const double *q, const double *k,
                  const double *v, const double *g, const double *beta, double *S, double *o);

#endif
