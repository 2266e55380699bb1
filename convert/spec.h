/* Model spec: everything by which decoder families differ, as data. Read from config.json by a
 * family row, drives the generic model in linearize/model. Dimension letters are those of
 * docs/notation.md. */
#ifndef TG_CONVERT_SPEC_H
#define TG_CONVERT_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "convert/mixers.h"

enum tg_rope_kind { TG_ROPE_DEFAULT, TG_ROPE_LLAMA3 };
struct tg_rope {
    enum tg_rope_kind kind;
    double theta;
    double factor, low_freq_factor, high_freq_factor, original_max_positions; /* llama3 */
};

enum tg_activation { TG_ACT_SILU };

struct tg_layer_spec {
    const struct tg_mixer_schema *mixer; /* row of mixers.def */
    size_t heads, kv_heads,
        head_dim; /* H, G, K; V = K in all rows so far. head_dim is a field, never width / heads */
    size_t rotary_dim;  /* 0: no rotary; half-split (NeoX) pairs over the first rotary_dim of K */
    size_t window;      /* keys 0 <= t - j < window; 0: unlimited */
    size_t sinks;       /* learned logits in the denominator, per query head */
    size_t feature_dim; /* F of the feature map (map's weights [H,K,F], features 2F for hedgehog) */
    enum tg_feature_map feature_map;
    bool gated; /* lolcats: the form with gate and sinks */
    bool qkv_bias, o_bias,
        qk_norm;       /* qk_norm: RMS over each head of q and k, weight [K], before rotary */
    double attn_scale; /* softmax scale, normally K^-0.5 */
    size_t mlp_dim;    /* M: down(act(gate x) * up x) */
    enum tg_activation activation;
    bool mlp_bias;
};

struct tg_model_spec {
    char family[32]; /* row of families.def that read it: "llama"; "tegu" for a native hybrid */
    char base_family[32]; /* native hybrids: the teacher's family, else same as family */
    size_t vocab, width;  /* N, D */
    double norm_eps;      /* RMS norm */
    bool tied_head;
    struct tg_rope rope;
    size_t max_positions; /* of the config; 0 unknown. Information: nothing is cut at it */
    int32_t bos_id;       /* -1: none */
    int32_t eos_ids[8];
    size_t eos_count;
    size_t layer_count;
    struct tg_layer_spec *layers; /* [layer_count], owned */
};

int tg_spec_copy(struct tg_model_spec *to, const struct tg_model_spec *from, struct tg_err *err);
void tg_spec_release(struct tg_model_spec *spec);
/* Every promise the model layer relies on (positive sizes, G divides H, rotary_dim even and <= K,
 * window where the mixer needs one, products in range, ...). `where` begins the message. */
int tg_spec_check(const struct tg_model_spec *spec, const char *where, struct tg_err *err);

/* The one table of parameters, derived from the spec in a fixed order: embed.weight; per layer
 * norm_in.weight, mixer.*, norm_mlp.weight, mlp.*; norm_out.weight; head.weight unless tied. */
struct tg_param {
    char name[80];     /* canonical: "layers.3.mixer.q.weight" */
    int layer;         /* -1 outside layers */
    const char *local; /* "q.weight" for mixer parameters: the rule's name; NULL otherwise */
    int rank;
    int64_t shape[4];
    size_t count;  /* elements */
    size_t offset; /* floats from the start of the parameter block; multiple of 16 */
    bool is_mixer; /* belongs to a mixer */
    bool is_new;   /* a mixer parameter that the softmax layer does not have (rule flag) */
    bool decays;   /* weight decay applies (rank >= 2) */
};
struct tg_param_list {
    struct tg_param *items; /* owned */
    size_t count;
    size_t floats; /* of the whole block */
};
int tg_params_of(const struct tg_model_spec *spec, struct tg_param_list *list, struct tg_err *err);
void tg_params_release(struct tg_param_list *list);
const struct tg_param *tg_params_find(const struct tg_param_list *list,
                                      const char *name); /* NULL if absent */

/* Bytes (f32 = 4, bf16 = 2: `element`) of key-value cache that grows with each token, and of
 * constant state (window rings and linear states, float32), for one sequence. From the mixer
 * schema. */
size_t tg_spec_kv_bytes_per_token(const struct tg_model_spec *spec, size_t element);
size_t tg_spec_state_bytes(const struct tg_model_spec *spec);
size_t tg_spec_param_count(const struct tg_model_spec *spec);

#endif
