/* How a parameter's elements lie in a stored tensor: fused, interleaved, transposed, one of many.
 * Every layout is a few nested loops of strides, so that one routine copies them all, and the map
 * of a checkpoint can be proved a bijection by counting. */
#ifndef TG_CONVERT_LAYOUT_H
#define TG_CONVERT_LAYOUT_H

#include <stdint.h>

#include "convert/params.h"

enum { TG_LAYOUT_LOOPS = 5, TG_LAYOUT_PIECES = 4 };
/* for each loop l, outermost first, n[l] < count: param[to + sum n to_l] = stored[from + sum n
 * from_l]
 */
struct tg_piece {
    size_t from, to; /* first element */
    int loops;
    struct {
        size_t count, from, to;
    } loop[TG_LAYOUT_LOOPS];
};
struct tg_layout {
    int rank; /* the shape that the stored tensor must have */
    int64_t shape[4];
    bool neg_exp;  /* stored = -exp(param): GGUF holds A for A_log */
    bool negative; /* stored = -param */
    int pieces;
    struct tg_piece piece[TG_LAYOUT_PIECES];
};
/* What a layout may look at. */
struct tg_layout_ask {
    const struct tg_model_spec *spec;
    const struct tg_layer_spec *layer; /* NULL outside layers */
    const struct tg_param *param;
    size_t expert;         /* the number at {e}, below TG_MAX_EXPERTS; 0 without */
    int stored_rank;       /* of the tensor in the file */
    const int64_t *stored; /* its shape */
};
/* Fills *out, zeroed before. Never fails: what does not fit shows in out->shape. Without pieces the
 * rule is passed over: in this layer the parameter is stored under another name (q of softmax and
 * of linear layers). */
typedef void (*tg_layout_fn)(const struct tg_layout_ask *ask, struct tg_layout *out);

/* Layouts that several families share; what one family alone has stands in its own file. Names end
 * in the parameter that a fused tensor is split into. */
void tg_layout_same(const struct tg_layout_ask *ask, struct tg_layout *out);
/* The same elements in a shape with more or fewer sizes of 1: conv1d [C,1,K], sinks [H] */
void tg_layout_squeeze(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Conv1D of GPT-2: stored [in,out] */
void tg_layout_transpose(const struct tg_layout_ask *ask, struct tg_layout *out);
/* A short convolution's taps with a size of 1 between: [C,1,K] */
void tg_layout_conv1d(const struct tg_layout_ask *ask, struct tg_layout *out);
/* -exp of the parameter */
void tg_layout_neg_exp(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Rows q, then k, then v: [HK + GK + SV, D], or the bias of that length; S value heads, of
 * attention G */
void tg_layout_qkv_q(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_qkv_k(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_qkv_v(const struct tg_layout_ask *ask, struct tg_layout *out);
/* The same transposed: [D, HK + GK + GV] (GPT-2's c_attn) */
void tg_layout_qkv_transposed_q(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_qkv_transposed_k(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_qkv_transposed_v(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Per kv head its group of query heads, then k, then v: [G, H/G + 2, K, D] flattened to rank 2
 * (Falcon; with H = G, GPT-NeoX), or the bias */
void tg_layout_qkv_groups_q(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_qkv_groups_k(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_qkv_groups_v(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Two matrices (or biases) one after the other: [2M, D] */
void tg_layout_half_first(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_half_second(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Rotary pairs stored side by side, (2j, 2j+1) of the first rotary_dim rows of each head: they
 * become (j, j + rotary_dim/2). Weights [heads K, D], biases [heads K], norms [K], [heads, K]. Only
 * for what is rotated: q, k, their biases and norms. */
void tg_layout_pairs(const struct tg_layout_ask *ask, struct tg_layout *out);
/* The same for the last rotary_dim rows: of each head (q_b [H K, ...]), or of a whole tensor that
 * is not made of heads (kv_a [kv_rank + rotary_dim, D]) */
void tg_layout_pairs_tail(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Expert {e} of [E, ...]: the stored tensor is one row of the parameter, any rank */
void tg_layout_expert(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Gate and up rows one after the other for all experts: [E, 2M, D], biases [E, 2M] */
void tg_layout_experts_first(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_experts_second(const struct tg_layout_ask *ask, struct tg_layout *out);
/* Query and output gate per head one after the other: [H 2 K, D], biases [H 2 K] (Qwen3-Next) */
void tg_layout_gated_q(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_gated_gate(const struct tg_layout_ask *ask, struct tg_layout *out);

/* Elements of all pieces */
size_t tg_layout_count(const struct tg_layout *l);
/* Copies one layout's elements from a stored tensor's values into the parameter's, and back. A
 * value that is no -exp of anything becomes NaN. */
void tg_layout_copy(const struct tg_layout *l, const float *stored, float *param);
void tg_layout_copy_back(const struct tg_layout *l, const float *param, float *stored);

#endif
