/* The recurrences of linear mixers, each written once; chunked. Per head of a value, with log gate
 * g_t <= 0 (none, one number per head, per token, or per token and key channel):
 *
 *   S' = diag(e^{g_t}) S_{t-1}
 *   outer     S_t = S' + k_t v_t^T                           (gated linear attention)
 *   delta     S_t = S' + k_t (beta_t (v_t - S'^T k_t))^T     (gated delta rule)
 *   general   S_t = S' + b_t (S_{t-1}^T a_t)^T + k_t v_t^T   (RWKV-7)
 *   o_t = scale S_t^T q_t
 *
 * The general rule reads the state before its decay; a = -e^g . k with b = beta k and values beta v
 * is the delta rule. Head h of the H value heads reads head h / (H / G) of the G key heads. With
 * `queries` n > 1, G = H and each state serves n query heads: query head h reads state h / n.
 *
 * Chunk form: Yang et al. 2024 (arXiv 2312.06635, 2406.06484, 2412.06464), Kimi Linear (arXiv
 * 2510.26692). Only differences b_i - b_j, i >= j, of summed gates are exponentiated (all <= 1).
 * Backward keeps S at chunk boundaries and recomputes inside. */
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

enum tg_rule { TG_RULE_OUTER, TG_RULE_DELTA, TG_RULE_GENERAL };

struct tg_recur {
    size_t H, G;    /* value heads; key heads of q and k, G divides H; general: G = H */
    size_t queries; /* query heads of one state: 0 or 1, or n > 1 with G = H */
    size_t K, V;    /* key and value size */
    size_t chunk;   /* 0: default */
    enum tg_gate gate;
    enum tg_rule rule;
    float scale;
    /* floats from one row to the next of q, of k, of v, and of a and b; 0: dense (G n K, G K, H V,
     * H K). Gradients alike */
    size_t ld_q, ld_k, ld_v, ld_a;
};

struct tg_recur_in {
    const float *q, *k; /* [rows,G n,K], [rows,G,K] */
    const float *v;     /* [rows,H,V] */
    const float *g;     /* as the gate kind says; NULL for none */
    const float *beta;  /* [rows,H]; delta alone */
    const float *a, *b; /* [rows,H,K]; general alone */
};
/* Same shapes; accumulated. dg NULL for gate none and constant. */
struct tg_recur_grads {
    float *q, *k, *v, *g, *beta, *a, *b;
};

/* state per sequence: S [H,K,V] */
static inline size_t tg_recur_state(const struct tg_recur *r)
{
    return r->H * r->K * r->V;
}
size_t tg_recur_chunk_rows(const struct tg_recur *r); /* of a chunk, the default included */
/* floats of scratch for fwd and bwd, and of what fwd saves for bwd (states at chunk boundaries) */
size_t tg_recur_work(const struct tg_recur *r, int threads);
size_t tg_recur_saved(const struct tg_recur *r, const struct tg_batch *batch);

/* o [rows,H n,V] dense. states: S [H,K,V] of each sequence, updated. saved may be NULL when no
 * backward follows. */
void tg_recur_fwd(const struct tg_ctx *ctx, const struct tg_recur *r, const struct tg_batch *batch,
                  const struct tg_recur_in *in, float *o, struct tg_states states, float *saved,
                  float *work);
/* Gradients for dout [rows,H n,V]. dstates [H,K,V] each: in: the gradient of the end state, out: of
 * the start state; none: the end is not used. */
void tg_recur_bwd(const struct tg_ctx *ctx, const struct tg_recur *r, const struct tg_batch *batch,
                  const struct tg_recur_in *in, const float *saved, const float *dout,
                  const struct tg_recur_grads *d, struct tg_states dstates, float *work);
/* One token of one state, to which fwd comes down: the row's q [n,K], k, v, g [1] or [K] or NULL by
 * kind, beta [1], a, b; state [K,V] updated, o [n,V]; u [V] scratch */
void tg_recur_step(const struct tg_kernels *kern, const struct tg_recur *r,
                   const struct tg_recur_in *in, float *state, float *o, float *u);

/* Double reference, token by token: one state, dense rows, q [n,queries,K], o [n,queries,V], g [n],
 * [n,K], [1] or NULL by kind. S [K,V]: start and end. */
struct tg_recur_ref {
    const double *q, *k, *v, *g, *beta, *a, *b;
};
void tg_recur_ref(const struct tg_recur *r, size_t n, const struct tg_recur_ref *in, double *S,
                  double *o);

#endif
