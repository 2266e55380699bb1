/* GPT-NeoX and Pythia (GPTNeoXConfig): layer norms, both branches from one residual (each by a norm
 * of its own), a plain mlp, q, k and v as one tensor by heads, a part of each head rotated. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048,
        .bos_id = 0,
        .eos_id = 2,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .activation = "gelu",
        .rotary_share = 0.25,
        .layer = {.mlp_kind = TG_MLP_PLAIN, .mlp_bias = true},
        .keys = {.kv_heads = "num_attention_heads",
                 .eps = "layer_norm_eps",
                 .theta = "rotary_emb_base",
                 .rotary_share = "rotary_pct"},
    };
    bool bias = true, parallel = true;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "attention_bias", &bias, err)) ||
        (rc = tg_json_get_bool_or(c, "use_parallel_residual", &parallel, err)))
        return rc;
    d.layer.qkv_bias = d.layer.o_bias = bias;
    d.layer.residual = parallel ? TG_RESIDUAL_PARALLEL : TG_RESIDUAL_PRE;
    return tg_config_decoder(c, &d, spec, err);
}

#define IN "[gpt_neox.]layers.{i}."
static const struct tg_name_rule names[] = {
    {"[gpt_neox.]embed_in.weight", "embed.weight", NULL},
    {IN "input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},
    {IN "input_layernorm.bias", "layers.{i}.norm_in.bias", NULL},
    {IN "post_attention_layernorm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {IN "post_attention_layernorm.bias", "layers.{i}.norm_mlp.bias", NULL},
    {IN "attention.query_key_value.weight", "layers.{i}.mixer.q.weight", tg_layout_qkv_groups_q},
    {IN "attention.query_key_value.weight", "layers.{i}.mixer.k.weight", tg_layout_qkv_groups_k},
    {IN "attention.query_key_value.weight", "layers.{i}.mixer.v.weight", tg_layout_qkv_groups_v},
    {IN "attention.query_key_value.bias", "layers.{i}.mixer.q.bias", tg_layout_qkv_groups_q},
    {IN "attention.query_key_value.bias", "layers.{i}.mixer.k.bias", tg_layout_qkv_groups_k},
    {IN "attention.query_key_value.bias", "layers.{i}.mixer.v.bias", tg_layout_qkv_groups_v},
    {IN "attention.dense.weight", "layers.{i}.mixer.o.weight", NULL},
    {IN "attention.dense.bias", "layers.{i}.mixer.o.bias", NULL},
    {IN "mlp.dense_h_to_4h.weight", "layers.{i}.mlp.up.weight", NULL},
    {IN "mlp.dense_h_to_4h.bias", "layers.{i}.mlp.up.bias", NULL},
    {IN "mlp.dense_4h_to_h.weight", "layers.{i}.mlp.down.weight", NULL},
    {IN "mlp.dense_4h_to_h.bias", "layers.{i}.mlp.down.bias", NULL},
    {"[gpt_neox.]final_layer_norm.weight", "norm_out.weight", NULL},
    {"[gpt_neox.]final_layer_norm.bias", "norm_out.bias", NULL},
    {"embed_out.weight", "head.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN
/* masks */
static const char *const droppable[] = {"*.attention.bias", "*.attention.masked_bias",
                                        "*rotary_emb.inv_freq", NULL};

static const char *const types[] = {"gpt_neox", NULL};

const struct tg_family tg_family_gpt_neox = {
    .name = "gpt_neox",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
