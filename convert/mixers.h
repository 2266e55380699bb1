/* What a mixer's parameters and options are, as data: rows of mixers.def. How it computes is
 * linearize/mixers/<name>.c. */
#ifndef TG_CONVERT_MIXERS_H
#define TG_CONVERT_MIXERS_H

#include <stdbool.h>
#include <stddef.h>

struct tg_layer_spec;

enum tg_feature_map {
    TG_MAP_HEDGEHOG_SOFTMAX, /* clamp([softmax(xW), softmax(-xW)], 1e-12): 2F features */
    TG_MAP_HEDGEHOG_EXP, /* [exp(xW - m), exp(-xW - m)], m = max |xW|, constant for the gradient: 2F
                            features */
    TG_MAP_RELU,         /* relu(x): K features, no weights */
    TG_MAP_ELU1,         /* elu(x) + 1 */
    TG_MAP_IDENTITY,
    TG_MAP_TAYLOR, /* second order of e^{u.u' / sqrt F}, u = xW: 1 + F + F (F + 1) / 2 features */
    TG_MAP_COUNT
};
enum { TG_MAX_TAYLOR = 64 };                            /* the largest F of TG_MAP_TAYLOR */
const char *tg_feature_map_name(enum tg_feature_map m); /* "hedgehog_softmax", .., "taylor" */
bool tg_feature_map_parse(const char *name, enum tg_feature_map *out);
bool tg_feature_map_has_weights(enum tg_feature_map m);
size_t tg_map_count(enum tg_feature_map m, size_t K, size_t F); /* features of one head */
size_t tg_feature_count(const struct tg_layer_spec *l);         /* the same of a layer's map */
size_t tg_feature_dim_limit(enum tg_feature_map m);             /* the largest F */
size_t tg_feature_dim_default(enum tg_feature_map m, size_t head_dim);

/* Symbolic dimensions of a parameter's shape */
enum tg_dim {
    TG_DIM_END,
    TG_DIM_D,
    TG_DIM_HK,
    TG_DIM_GK,
    TG_DIM_H,
    TG_DIM_K,
    TG_DIM_F,
    TG_DIM_SINKS,
    TG_DIM_HV,     /* of the output's heads: H V, or S V if that is more */
    TG_DIM_GV,     /* of the value heads: S V, of attention G V */
    TG_DIM_S,      /* value heads */
    TG_DIM_V,      /* V */
    TG_DIM_GATES,  /* S K */
    TG_DIM_QKV,    /* H K + G K + S V: q, k and v side by side */
    TG_DIM_Q_NORM, /* by tg_qk_norm: K, [H,K] or HK; stands alone */
    TG_DIM_K_NORM, /* K, [G,K] or GK */
    TG_DIM_1,
    /* latent attention */
    TG_DIM_Q_RANK,
    TG_DIM_KV_RANK,
    TG_DIM_KV_DOWN, /* kv_rank + rotary_dim */
    TG_DIM_KV_UP,   /* H (K - rotary_dim + V) */
    /* where q, k and v are multiplied channel by channel, so that G = H and V = K */
    TG_DIM_CHANNELS,   /* H K */
    TG_DIM_CHANNELS_3, /* 3 H K */
    /* of recurrent mixers, from the layer's tg_recurrent_spec */
    TG_DIM_V_HEADS,    /* v_heads */
    TG_DIM_TAPS,       /* conv */
    TG_DIM_KV_TAPS,    /* inner_conv */
    TG_DIM_RANK,       /* rank */
    TG_DIM_STATE,      /* state */
    TG_DIM_INNER,      /* inner */
    TG_DIM_INNER_2,    /* 2 inner */
    TG_DIM_INNER_3,    /* 3 inner */
    TG_DIM_X_B_C,      /* inner + 2 groups state */
    TG_DIM_Z_XBC_DT,   /* 2 inner + 2 groups state + v_heads */
    TG_DIM_DT_B_C,     /* rank + 2 state */
    TG_DIM_GROUPS,     /* groups */
    TG_DIM_GROUP_SIZE, /* inner / groups */
    TG_DIM_PARTITIONS  /* partitions */
};

enum tg_param_flags {
    TG_PARAM_NEW = 1,         /* not in the softmax layer it replaces */
    TG_PARAM_IF_QKV_BIAS = 2, /* present only if the layer has it */
    TG_PARAM_IF_O_BIAS = 4,
    TG_PARAM_IF_QK_NORM = 8,
    TG_PARAM_IF_SINKS = 16,
    TG_PARAM_IF_MAP = 32, /* feature map has weights */
    TG_PARAM_IF_GATED = 64,
    TG_PARAM_IF_OUT_GATE = 128,
    TG_PARAM_IF_QK_NORM_BIAS = 256,
    TG_PARAM_IF_Q_RANK = 512, /* latent attention: q from a latent, or straight */
    TG_PARAM_UNLESS_Q_RANK = 1024,
    TG_PARAM_IF_CONV_BIAS = 1 << 16, /* of recurrent mixers */
    TG_PARAM_IF_IN_BIAS = 1 << 17,
    TG_PARAM_IF_OUT_BIAS = 1 << 18,
    TG_PARAM_IF_INNER_NORM = 1 << 19,
    TG_PARAM_IF_TAPS =
        1 << 20, /* of linear mixers: convolution, window and its form, no denominator */
    TG_PARAM_IF_BESIDE = 1 << 21,
    TG_PARAM_IF_JOINT = 1 << 22,
    TG_PARAM_IF_PLAIN_VALUES = 1 << 23,
    TG_PARAM_IF_SHARED = 1 << 24, /* sse: a partition for all tokens */
    TG_PARAM_IF_BOUND = 1 << 25,  /* hgrn2: a decay never below it */
};
struct tg_param_rule {
    const char *name; /* "q.weight" */
    enum tg_dim shape[4];
    unsigned flags;
};

enum tg_mixer_flags {
    TG_MIXER_LINEAR = 1,      /* state does not grow with the text */
    TG_MIXER_WINDOW = 2,      /* needs window >= 1 */
    TG_MIXER_FAR = 4,         /* has a feature map */
    TG_MIXER_TEACHER = 8,     /* a plan can change it (softmax, window) */
    TG_MIXER_PLAN = 16,       /* a plan can give it */
    TG_MIXER_BESIDE = 32,     /* takes a window beside its linear branch, or none (window 0) */
    TG_MIXER_CHUNKED = 64,    /* in chunks of its recurrent.chunk tokens: needs it >= 1 */
    TG_MIXER_RECURRENT = 256, /* has fields in the layer's tg_recurrent_spec */
};
struct tg_mixer_schema {
    const char *name, *summary;
    unsigned flags;
    const struct tg_param_rule *params;
    size_t param_count;
    /* defaults when a plan gives nothing */
    size_t window, sinks;
    /* Makes the spec of a softmax layer this mixer's own, with default sizes; its mixer, window,
     * sinks and feature map are set already. NULL: nothing to do. */
    void (*adopt)(struct tg_layer_spec *l);
    size_t (*kv_floats_per_token)(const struct tg_layer_spec *l); /* cache that grows */
    size_t (*state_floats)(
        const struct tg_layer_spec *l); /* constant state for one sequence (ring + linear state) */
};
extern const struct tg_mixer_schema
    *const tg_mixer_schemas[]; /* NULL-terminated, in the order of mixers.def */
const struct tg_mixer_schema *tg_mixer_schema_find(const char *name); /* NULL if unknown */
bool tg_param_rule_applies(const struct tg_param_rule *r, const struct tg_layer_spec *l);

#endif
