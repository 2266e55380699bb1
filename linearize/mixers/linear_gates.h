/* Gates of linear mixers, from a row of the frame's recipe: log decays g <= 0 per state head h of N
 * (one number, or one for each of K key channels), and the delta rule's beta.
 *
 *   NONE
 *   RETENTION  g_h = log(1 - 2^{-5-h})                      RetNet
 *   SLOPES     g_h = -c 2^{-8 (h+1) / N}, c = scales[0]     Lightning attention
 *   DECAY      g = -e^{A_log_h} softplus(f + dt_bias)       f = x Wa^T (one a head) or
 *                                                           (x Wfa^T) Wfb^T (one a channel)
 *   SIGMOID    g = log sigmoid((x Wfa^T) Wfb^T + b) / 16    GLA, one a channel
 *   FORGET     e^g = lb + (1 - lb) sigmoid(-k), then k <- 1 - e^g    HGRN2: k is the forget gate's
 *              negated logit, lb = sigmoid(lower_bound) per channel, or 0
 *
 * beta = c sigmoid(x Wb^T), c = 2 with negative eigenvalues, else 1. */
#ifndef TG_LINEARIZE_LINEAR_GATES_H
#define TG_LINEARIZE_LINEAR_GATES_H

#include "linearize/kernels/recur.h"
#include "linearize/mixers/mixer.h"

enum tg_linear_gate {
    TG_LINEAR_UNGATED,
    TG_LINEAR_RETENTION,
    TG_LINEAR_SLOPES,
    TG_LINEAR_DECAY,
    TG_LINEAR_SIGMOID,
    TG_LINEAR_FORGET
};

struct tg_linear_gates {
    enum tg_linear_gate kind;
    bool low_rank, beta;
    bool shared;          /* parameters whose names begin with shared_ (sse.h) */
    size_t N, each, rank; /* state heads; gates of one: 1 or K; of the low rank */
    float most;           /* c of beta */
};
struct tg_linear_gates tg_linear_gates_of(const struct tg_mixer *m, enum tg_linear_gate kind,
                                          bool beta);
enum tg_gate tg_linear_gates_kind(const struct tg_linear_gates *s); /* for the recurrence */

/* What forward makes and backward needs; NULL where there is none */
struct tg_linear_gate_values {
    float *low;  /* [rows,rank] */
    float *a;    /* [rows,N,each] before the activation */
    float *g;    /* as the recurrence wants it */
    float *beta; /* [rows,N] */
};
size_t tg_linear_gates_lay(const struct tg_linear_gates *s, size_t rows, float *base,
                           struct tg_linear_gate_values *v);
/* FORGET alone: logits u [rows,N,each] -> k. */
void tg_linear_gates_fwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                         const struct tg_mixer *m, size_t rows, const float *x, const float *u,
                         float *k, const struct tg_linear_gate_values *v);
/* FORGET alone: dk, in the gradient of k, becomes that of u. */
void tg_linear_forget_bwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                          const struct tg_mixer *m, size_t rows, const float *u, const float *dg,
                          float *dk, const struct tg_mixer_grads *d);
/* dg and dbeta (overwritten) -> parameters, and dx (added to) */
size_t tg_linear_gates_scratch(const struct tg_linear_gates *s, size_t rows);
void tg_linear_gates_bwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                         const struct tg_mixer *m, size_t rows, const float *x,
                         const struct tg_linear_gate_values *v, float *dg, float *dbeta, float *dx,
                         const struct tg_mixer_grads *d, float *scratch);

#endif
