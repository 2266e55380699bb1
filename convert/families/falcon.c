/* Falcon (FalconConfig) in its three builds: multi-query (7B), new_decoder_architecture (40B, 180B;
 * Falcon 2), and as many kv heads as heads (1B). Layer norms, a plain mlp, q, k and v as one tensor
 * by groups. Those with alibi are refused. */
#include "convert/config.h"
#include "convert/names.h"

static int read_residual(struct tg_json c, bool grouped, enum tg_residual *out, struct tg_err *err)
{
    const char *key = "num_ln_in_parallel_attn";
    size_t norms = grouped ? 2 : 1;
    bool parallel = true;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "parallel_attn", &parallel, err)) ||
        (rc = tg_config_size_or(c, key, 1, 2, &norms, err)))
        return rc;
    if (!grouped && parallel && norms == 2)
        return tg_json_fail(c, key, TG_ERR_UNSUPPORTED, err,
                            "2 is not supported without new_decoder_architecture");
    if (grouped && !parallel)
        return tg_json_fail(c, "parallel_attn", TG_ERR_UNSUPPORTED, err,
                            "false is not supported with new_decoder_architecture");
    *out = !parallel ? TG_RESIDUAL_PRE : norms == 2 ? TG_RESIDUAL_PARALLEL : TG_RESIDUAL_SHARED;
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048,
        .bos_id = 11,
        .eos_id = 11,
        .mlp_widths = 4,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .activation = "gelu",
        .tied = true,
        .layer.mlp_kind = TG_MLP_PLAIN,
        .keys = {.kv_heads = "num_kv_heads",
                 .mlp_dim = "ffn_hidden_size",
                 .eps = "layer_norm_epsilon",
                 .activation = "activation"},
    };
    bool grouped = false, one = true, bias = false;
    int rc;

    if ((rc = tg_config_refuse(c, "alibi", err)) ||
        (rc = tg_json_get_bool_or(c, "new_decoder_architecture", &grouped, err)) ||
        (rc = tg_json_get_bool_or(c, "multi_query", &one, err)) ||
        (rc = tg_json_get_bool_or(c, "bias", &bias, err)) ||
        (rc = read_residual(c, grouped, &d.layer.residual, err)))
        return rc;
    d.layer.qkv_bias = d.layer.o_bias = d.layer.mlp_bias = bias;
    if (tg_json_has(tg_json_key(c, "n_embed")))
        d.keys.width = "n_embed";
    if ((rc = tg_config_decoder(c, &d, spec, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count && !grouped; i++)
        spec->layers[i].kv_heads = one ? 1 : spec->layers[i].heads;
    return TG_OK;
}

#define IN "[transformer.]h.{i}."
static const struct tg_name_rule names[] = {
    {"[transformer.]word_embeddings.weight", "embed.weight", NULL},
    {IN "input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},
    {IN "input_layernorm.bias", "layers.{i}.norm_in.bias", NULL},
    {IN "ln_attn.weight", "layers.{i}.norm_in.weight", NULL},
    {IN "ln_attn.bias", "layers.{i}.norm_in.bias", NULL},
    {IN "self_attention.query_key_value.weight", "layers.{i}.mixer.q.weight",
     tg_layout_qkv_groups_q},
    {IN "self_attention.query_key_value.weight", "layers.{i}.mixer.k.weight",
     tg_layout_qkv_groups_k},
    {IN "self_attention.query_key_value.weight", "layers.{i}.mixer.v.weight",
     tg_layout_qkv_groups_v},
    {IN "self_attention.query_key_value.bias", "layers.{i}.mixer.q.bias", tg_layout_qkv_groups_q},
    {IN "self_attention.query_key_value.bias", "layers.{i}.mixer.k.bias", tg_layout_qkv_groups_k},
    {IN "self_attention.query_key_value.bias", "layers.{i}.mixer.v.bias", tg_layout_qkv_groups_v},
    {IN "self_attention.dense.weight", "layers.{i}.mixer.o.weight", NULL},
    {IN "self_attention.dense.bias", "layers.{i}.mixer.o.bias", NULL},
    {IN "post_attention_layernorm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {IN "post_attention_layernorm.bias", "layers.{i}.norm_mlp.bias", NULL},
    {IN "ln_mlp.weight", "layers.{i}.norm_mlp.weight", NULL},
    {IN "ln_mlp.bias", "layers.{i}.norm_mlp.bias", NULL},
    {IN "mlp.dense_h_to_4h.weight", "layers.{i}.mlp.up.weight", NULL},
    {IN "mlp.dense_h_to_4h.bias", "layers.{i}.mlp.up.bias", NULL},
    {IN "mlp.dense_4h_to_h.weight", "layers.{i}.mlp.down.weight", NULL},
    {IN "mlp.dense_4h_to_h.bias", "layers.{i}.mlp.down.bias", NULL},
    {"[transformer.]ln_f.weight", "norm_out.weight", NULL},
    {"[transformer.]ln_f.bias", "norm_out.bias", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"falcon", NULL};

const struct tg_family tg_family_falcon = {
    .name = "falcon",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
