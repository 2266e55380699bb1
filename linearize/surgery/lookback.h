/* What a teacher's attention does on text: per layer and query head, how far back it looks and how
 * spread out it is. First values of decays and windows are made from it. */
#ifndef TG_LINEARIZE_LOOKBACK_H
#define TG_LINEARIZE_LOOKBACK_H

#include "linearize/model/model.h"

/* Means over all tokens measured so far. A zeroed struct has none. */
struct tg_lookback {
    size_t layers, tokens;
    struct tg_attention_stats *of; /* [layers]; NULL arrays: the layer does not attend. Owned */
    double *means, *sums; /* the arrays of `of`, and their sums over tokens, laid alike. Owned */
    size_t width;         /* D */
    float *vectors;       /* [layers][mean, constant][D] of `of`. Owned */
    double *inputs;       /* [layers][sum of x, of x^2][D]. Owned */
};

/* Runs the teacher over ids [rows] and adds every token's
 *
 *   distance  sum_j p_tj (t - j)        entropy  -sum_j p_tj log p_tj
 *
 *   output    the square of sum_j p_tj v_j, whose mean's root over V it becomes
 *
 * with p_tj the attention of token t to key j, learned sinks in its denominator; and the vector c
 * of each layer that makes E (c . x - 1)^2 least over its inputs x, their channels taken as
 * independent about their means mu (v_i the variance): c_i = (mu_i / v_i) / (1 + sum_j mu_j^2 /
 * v_j). Measured are the layers that a plan can change (softmax and window rows). Sequences start
 * from an empty state, and rotary tables must reach their length (tg_model_reserve). Sums are in
 * double, in an order that does not depend on the number of threads.
 *
 * Memory while it runs: the teacher's forward, q, k and v of one layer, and for each thread 32
 * scores for each token of the longest sequence. On failure `out` must not be used further, but
 * released. */
int tg_lookback_measure(struct tg_lookback *out, const struct tg_model *teacher,
                        const struct tg_batch *b, const int32_t *ids, struct tg_err *err);
void tg_lookback_release(struct tg_lookback *l);
/* NULL where nothing was measured; look may be NULL */
const struct tg_attention_stats *tg_lookback_of(const struct tg_lookback *look, size_t layer);

#endif
