/* Model spec: everything by which decoder families differ, as data. Read from config.json by a
 * family row, drives the generic model in linearize/model. Dimension letters are those of
 * docs/notation.md. A field that is zero means the plain Llama way; a factor that is zero stands
 * for 1 (tg_factor), so that a zeroed spec is a plain one. */
#ifndef TG_CONVERT_SPEC_H
#define TG_CONVERT_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "convert/mixers.h"
#include "convert/moe_spec.h"
#include "convert/recurrent_spec.h"
#include "convert/rope.h"

/* RMS: x r w, r = (mean(x^2) + eps)^-1/2. LAYER: (x - mean) r w + b, r of the variance. */
enum tg_norm_kind { TG_NORM_RMS, TG_NORM_LAYER };
struct tg_norm_spec {
    enum tg_norm_kind kind;
    double eps;
    bool plus_one; /* the factor is 1 + w (Gemma, Nemotron) */
    bool bare;     /* no weight and no bias (OLMo) */
    bool bias;
};

/* How a layer's branches join the residual stream h; x is a branch's input.
 *
 *   PRE       h += mixer(norm_in(h));  h += mlp(norm_mlp(h))                       Llama
 *   POST      h += norm_mixer_out(mixer(h));  h += norm_mlp_out(mlp(h))            OLMo 2, EXAONE 4
 *   SANDWICH  h += norm_mixer_out(mixer(norm_in(h)));  likewise for the mlp        Gemma 2, GLM 4
 *   PARALLEL  h += mixer(norm_in(h)) + mlp(norm_mlp(h))                            GPT-NeoX
 *   SHARED    x = norm_in(h);  h += mixer(x) + mlp(x)                              Phi, Cohere,
 * Falcon AFTER     h = norm_mixer_out(h + mixer(h));  h = norm_mlp_out(h + mlp(h))      OPT-350m
 *   NORMED    x = norm_in(h);  h = skip x + mixer(x);  likewise for the mlp        MiniMax
 *
 * A layer says its own kind: linear and softmax layers of one model may differ (OLMo hybrid). */
enum tg_residual {
    TG_RESIDUAL_PRE,
    TG_RESIDUAL_POST,
    TG_RESIDUAL_SANDWICH,
    TG_RESIDUAL_PARALLEL,
    TG_RESIDUAL_SHARED,
    TG_RESIDUAL_AFTER,
    TG_RESIDUAL_NORMED,
    TG_RESIDUAL_COUNT
};
struct tg_residual_info {
    const char *name; /* "pre" */
    bool norm_in, norm_mixer_out, norm_mlp, norm_mlp_out;
    bool parallel, /* both branches read h as it came into the layer */
        after,     /* norm_*_out are of the sum */
        normed;    /* the residual is the branch's normalised input */
};
const struct tg_residual_info *tg_residual_info(enum tg_residual r);

enum tg_activation {
    TG_ACT_SILU,
    TG_ACT_GELU,      /* x Phi(x), by erf */
    TG_ACT_GELU_TANH, /* its tanh form: gelu_new, gelu_pytorch_tanh, gelu_fast */
    TG_ACT_RELU,
    TG_ACT_RELU2,       /* relu(x)^2 */
    TG_ACT_CLAMPED_GLU, /* gpt-oss: g = min(g, 7), u in [-7, 7]: g sigmoid(1.702 g) (u + 1) */
    TG_ACT_COUNT
};
const char *tg_activation_name(enum tg_activation a); /* "silu", "gelu", "gelu_tanh", ... */

/* GATED: down(act(gate x) * up x).  PLAIN: down(act(up x)).  NONE: no mlp at all (Mamba-2). */
enum tg_mlp_kind { TG_MLP_GATED, TG_MLP_PLAIN, TG_MLP_NONE };

/* Norms of q and k, of the model's norm kind, eps and plus_one. HEAD: weight [K] for every head;
 * EACH: weight [H,K] (k: [G,K]), a head its own row; WIDE: over all heads as one row, weight [HK].
 */
enum tg_qk_norm { TG_QK_NONE, TG_QK_HEAD, TG_QK_EACH, TG_QK_WIDE };

struct tg_layer_spec {
    const struct tg_mixer_schema *mixer; /* row of mixers.def */
    size_t heads, kv_heads, head_dim;    /* H, G, K. head_dim is a field, never width / heads */
    size_t value_dim;                    /* V; 0: K */
    size_t value_heads; /* of linear mixers; a multiple of G, 0: G. More than H: heads of the output
                           too, and query head h serves value heads h n .. h n + n - 1 */
    size_t rotary_dim;  /* 0: no rotary; half-split (NeoX) pairs over the first rotary_dim of K */
    size_t rope;        /* which of the model's ropes turns it */
    size_t window;      /* keys 0 <= t - j < window; 0: unlimited, of linear mixers: none */
    enum tg_window_form window_form; /* of linear mixers with a window */
    bool linear_plain;               /* their linear branch has no rotary (the window keeps it) */
    bool plain_values;  /* linear: no denominator, a norm of each head's output in its place */
    size_t sinks;       /* learned logits in the denominator, per query head */
    size_t feature_dim; /* F of the feature map (map's weights [H,K,F]) */
    enum tg_feature_map feature_map;
    bool gated; /* lolcats: the form with gate and sinks */
    bool qkv_bias, o_bias;
    enum tg_qk_norm qk_norm; /* before rotary */
    bool qk_norm_bias;
    double attn_scale;   /* softmax scale, normally K^-0.5 */
    double attn_softcap; /* c: scores become c tanh(s / c); 0: none */
    double qkv_clip;     /* q, k, v after projection limited to [-c, c]; 0: none */
    bool output_gate; /* o_t * sigmoid(gate x) before the output projection, gate.weight [HV,D] */
    /* k and v from a latent of kv_rank (latent, mla). Of mla: q from one of q_rank (0: straight),
     * and the last rotary_dim of K are one rotated key for all heads. */
    size_t q_rank, kv_rank;
    double latent_eps; /* of the latents' RMS norms */
    struct tg_recurrent_spec recurrent;

    enum tg_residual residual;
    double mixer_scale, mlp_scale; /* of a branch before it is added; 1 */
    double mixer_skip, mlp_skip;   /* NORMED: of the residual; 1 */
    enum tg_mlp_kind mlp_kind;
    size_t mlp_dim; /* M; with experts: 0 */
    enum tg_activation activation;
    bool mlp_bias;
    double gate_scale, down_scale; /* Falcon-H1: of gate x, of the mlp's output; 1 */
    struct tg_moe_spec moe;
};

enum { TG_MAX_ROPES = 2 };
struct tg_model_spec {
    char family[32]; /* row of families.def that read it: "llama"; "tegu" for a native hybrid */
    char base_family[32]; /* native hybrids: the teacher's family, else same as family */
    size_t vocab, width;  /* N, D */
    struct tg_norm_spec norm;
    bool no_norm_out; /* the last layer's output goes straight to the head */
    bool tied_head, head_bias;
    double embed_scale;   /* of embeddings; 1 */
    double logit_scale;   /* of logits; 1 */
    double logit_softcap; /* c: logits become c tanh(x / c); 0: none */
    size_t embed_dim; /* 0: width; else embed_in.weight [D,E], embed_out.weight [E,D] beside it */
    size_t learned_positions; /* rows of pos.weight; 0: none */
    size_t position_offset;   /* row of the first token (OPT: 2) */
    struct tg_rope ropes[TG_MAX_ROPES];
    bool pairs_apart; /* in the file that is read, rotary pairs are (j, j + n/2) where its family
                         stores them side by side (layout.h) */
    size_t max_positions; /* of the config; 0 unknown. Information: nothing is cut at it */
    int32_t bos_id;       /* -1: none */
    int32_t eos_ids[8];
    size_t eos_count;
    size_t layer_count;
    struct tg_layer_spec *layers; /* [layer_count], owned */
};

static inline double tg_factor(double f)
{
    return f != 0 ? f : 1;
}
static inline size_t tg_value_dim(const struct tg_layer_spec *l)
{
    return l->value_dim ? l->value_dim : l->head_dim;
}
static inline size_t tg_value_heads(const struct tg_layer_spec *l)
{
    return l->value_heads ? l->value_heads : l->kv_heads;
}
/* Heads of what the mixer's output projection reads */
static inline size_t tg_out_heads(const struct tg_layer_spec *l)
{
    return tg_value_heads(l) > l->heads ? tg_value_heads(l) : l->heads;
}
/* Size of q, k and v side by side */
static inline size_t tg_joined_rows(const struct tg_layer_spec *l)
{
    return (l->heads + l->kv_heads) * l->head_dim + tg_value_heads(l) * tg_value_dim(l);
}

int tg_spec_copy(struct tg_model_spec *to, const struct tg_model_spec *from, struct tg_err *err);
void tg_spec_release(struct tg_model_spec *spec);
/* Every promise the model layer relies on (positive sizes, G divides H, rotary_dim even and <= K,
 * window where the mixer needs one, products in range, ...). `where` begins the message. */
int tg_spec_check(const struct tg_model_spec *spec, const char *where, struct tg_err *err);

/* Bytes (f32 = 4, bf16 = 2: `element`) of key-value cache that grows with each token, and of
 * constant state (window rings and linear states, float32), for one sequence. From the mixer
 * schema. */
size_t tg_spec_kv_bytes_per_token(const struct tg_model_spec *spec, size_t element);
size_t tg_spec_state_bytes(const struct tg_model_spec *spec);
size_t tg_spec_param_count(const struct tg_model_spec *spec);

#endif
