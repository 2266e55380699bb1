/* Private to convert: what config.json of hybrids says of their recurrent layers. */
#ifndef TG_CONVERT_CONFIG_RECURRENT_H
#define TG_CONVERT_CONFIG_RECURRENT_H

#include "convert/config.h"
#include "convert/layout.h"

/* The layer is recurrent: nothing of its attention stays. */
void tg_layer_recur(struct tg_layer_spec *l, const char *mixer, const struct tg_recurrent_spec *r);
/* The same for linear attention, with the heads, sizes, scale and recurrent fields of `from`: as
 * many query as key heads */
void tg_layer_linear(struct tg_layer_spec *l, const char *mixer, const struct tg_layer_spec *from);

/* Calls a layer what the array `key` calls it: names[0..1] are recurrent, names[2..3] attention
 * (the spellings of two versions, or NULL). Without the key every period-th layer is attention (0:
 * none). recurs [layer_count] is filled. */
int tg_config_kinds(struct tg_json c, const char *key, const char *const names[4], size_t period,
                    size_t layer_count, bool *recurs, struct tg_err *err);
/* [0 .. layer_count) by a list of layer numbers counted from `first`; false where it says nothing
 */
int tg_config_listed(struct tg_json c, const char *key, size_t first, size_t layer_count, bool *in,
                     struct tg_err *err);

/* linear_num_key_heads and so on of Qwen3-Next, Qwen3.5 and OLMo hybrid; *l holds the defaults */
int tg_config_deltanet(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err);
/* Qwen3-Next and Qwen3.5: layer_types, or every full_attention_interval-th layer as the decoder was
 * read and the others Gated DeltaNet */
int tg_config_qwen_hybrid(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err);
/* Their experts: softmax over all, a gated shared one; *m holds the defaults of experts and
 * per_token */
int tg_config_qwen_moe(struct tg_json c, struct tg_moe_spec *m, struct tg_err *err);
/* mamba_n_heads and so on of Bamba, Granite hybrid and Falcon-H1; *r holds the defaults, inner 0:
 * mamba_expand times the width. time_step_limit. */
int tg_config_mamba2(struct tg_json c, size_t width, struct tg_recurrent_spec *r,
                     struct tg_err *err);
/* [low, high]; high 0: none */
int tg_config_limits(struct tg_json c, const char *key, double *low, double *high,
                     struct tg_err *err);
/* An array of `count` numbers; what is there stays when the key is absent or null */
int tg_config_numbers(struct tg_json c, const char *key, size_t count, double *out,
                      struct tg_err *err);

/* Layouts of hybrids. G blocks of `block` rows are stored, of each `rows` rows from `first` on make
 * up the parameter's rows from `to` on: adds one piece. */
void tg_layout_blocks(const struct tg_layout_ask *ask, struct tg_layout *out, size_t G,
                      size_t block, size_t first, size_t rows, size_t to);
/* Rows q, k or v of conv.weight [C,taps], stored apart: [rows,taps] or [rows,1,taps], the latter
 * also cut into three equal parts instead of q, k and v */
void tg_layout_part_q(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_part_k(const struct tg_layout_ask *ask, struct tg_layout *out);
void tg_layout_part_v(const struct tg_layout_ask *ask, struct tg_layout *out);

/* Names that hybrids share, by part */
#define TG_NAMES_DELTANET                                                                          \
    {"[model.]layers.{i}.linear_attn.A_log", "layers.{i}.mixer.A_log", NULL},                      \
        {"[model.]layers.{i}.linear_attn.dt_bias", "layers.{i}.mixer.dt_bias", NULL},              \
        {"[model.]layers.{i}.linear_attn.conv1d.weight", "layers.{i}.mixer.conv.weight",           \
         tg_layout_squeeze},                                                                       \
        {"[model.]layers.{i}.linear_attn.norm.weight", "layers.{i}.mixer.norm.weight", NULL},      \
    {                                                                                              \
        "[model.]layers.{i}.linear_attn.out_proj.weight", "layers.{i}.mixer.o.weight", NULL        \
    }
/* A shared expert with a gate beside TG_NAMES_EXPERTS */
#define TG_NAMES_SHARED_EXPERT                                                                     \
    {"[model.]layers.{i}.mlp.shared_expert.gate_proj.weight", "layers.{i}.moe.shared.gate.weight", \
     NULL},                                                                                        \
        {"[model.]layers.{i}.mlp.shared_expert.up_proj.weight", "layers.{i}.moe.shared.up.weight", \
         NULL},                                                                                    \
        {"[model.]layers.{i}.mlp.shared_expert.down_proj.weight",                                  \
         "layers.{i}.moe.shared.down.weight", NULL},                                               \
    {                                                                                              \
        "[model.]layers.{i}.mlp.shared_expert_gate.weight", "layers.{i}.moe.shared_gate.weight",   \
            NULL                                                                                   \
    }
/* Attention whose q and output gate lie together, head by head */
#define TG_NAMES_GATED_ATTENTION                                                                   \
    {"[model.]layers.{i}.self_attn.q_proj.weight", "layers.{i}.mixer.q.weight",                    \
     tg_layout_gated_q},                                                                           \
        {"[model.]layers.{i}.self_attn.q_proj.weight", "layers.{i}.mixer.out_gate.weight",         \
         tg_layout_gated_gate},                                                                    \
        {"[model.]layers.{i}.self_attn.q_proj.bias", "layers.{i}.mixer.q.bias",                    \
         tg_layout_gated_q},                                                                       \
        {"[model.]layers.{i}.self_attn.q_proj.bias", "layers.{i}.mixer.out_gate.bias",             \
         tg_layout_gated_gate},                                                                    \
        {"[model.]layers.{i}.self_attn.k_proj.weight", "layers.{i}.mixer.k.weight", NULL},         \
        {"[model.]layers.{i}.self_attn.k_proj.bias", "layers.{i}.mixer.k.bias", NULL},             \
        {"[model.]layers.{i}.self_attn.v_proj.weight", "layers.{i}.mixer.v.weight", NULL},         \
        {"[model.]layers.{i}.self_attn.v_proj.bias", "layers.{i}.mixer.v.bias", NULL},             \
        {"[model.]layers.{i}.self_attn.o_proj.weight", "layers.{i}.mixer.o.weight", NULL},         \
        {"[model.]layers.{i}.self_attn.o_proj.bias", "layers.{i}.mixer.o.bias", NULL},             \
        {"[model.]layers.{i}.self_attn.q_norm.weight", "layers.{i}.mixer.q_norm.weight", NULL},    \
    {                                                                                              \
        "[model.]layers.{i}.self_attn.k_norm.weight", "layers.{i}.mixer.k_norm.weight", NULL       \
    }
/* Frame, norms and mlp of Bamba and Falcon-H1 */
#define TG_NAMES_FEED_FORWARD                                                                      \
    {"[model.]embed_tokens.weight", "embed.weight", NULL},                                         \
        {"[model.]final_layernorm.weight", "norm_out.weight", NULL},                               \
        {"lm_head.weight", "head.weight", NULL},                                                   \
        {"[model.]layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},          \
        {"[model.]layers.{i}.pre_ff_layernorm.weight", "layers.{i}.norm_mlp.weight", NULL},        \
        {"[model.]layers.{i}.feed_forward.gate_proj.weight", "layers.{i}.mlp.gate.weight", NULL},  \
        {"[model.]layers.{i}.feed_forward.gate_proj.bias", "layers.{i}.mlp.gate.bias", NULL},      \
        {"[model.]layers.{i}.feed_forward.up_proj.weight", "layers.{i}.mlp.up.weight", NULL},      \
        {"[model.]layers.{i}.feed_forward.up_proj.bias", "layers.{i}.mlp.up.bias", NULL},          \
        {"[model.]layers.{i}.feed_forward.down_proj.weight", "layers.{i}.mlp.down.weight", NULL},  \
    {                                                                                              \
        "[model.]layers.{i}.feed_forward.down_proj.bias", "layers.{i}.mlp.down.bias", NULL         \
    }
/* Mamba-2 under [model.]layers.{i}.PART */
#define TG_NAMES_MAMBA2(prefix)                                                                    \
    {prefix "in_proj.weight", "layers.{i}.mixer.in.weight", NULL},                                 \
        {prefix "in_proj.bias", "layers.{i}.mixer.in.bias", NULL},                                 \
        {prefix "conv1d.weight", "layers.{i}.mixer.conv.weight", tg_layout_squeeze},               \
        {prefix "conv1d.bias", "layers.{i}.mixer.conv.bias", NULL},                                \
        {prefix "dt_bias", "layers.{i}.mixer.dt_bias", NULL},                                      \
        {prefix "A_log", "layers.{i}.mixer.A_log", NULL},                                          \
        {prefix "D", "layers.{i}.mixer.skip", NULL},                                               \
        {prefix "norm.weight", "layers.{i}.mixer.norm.weight", NULL},                              \
        {prefix "out_proj.weight", "layers.{i}.mixer.out.weight", NULL},                           \
    {                                                                                              \
        prefix "out_proj.bias", "layers.{i}.mixer.out.bias", NULL                                  \
    }

#endif
