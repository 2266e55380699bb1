/* OPT (OPTConfig): learned positions from row 2 on, layer norms, biases everywhere, a plain mlp.
 * The 350m build has its norms after the sums, no last norm, and embeddings of another width. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048,
        .bos_id = 2,
        .eos_id = 2,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .activation = "relu",
        .tied = true,
        .no_rotary = true,
        .layer.mlp_kind = TG_MLP_PLAIN,
        .keys = {.kv_heads = "num_attention_heads",
                 .mlp_dim = "ffn_dim",
                 .eps = "",
                 .activation = "activation_function"},
    };
    bool before = true, no_last = false, bias = true, affine = true;
    size_t embed = 0;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "do_layer_norm_before", &before, err)) ||
        (rc = tg_json_get_bool_or(c, "_remove_final_layer_norm", &no_last, err)) ||
        (rc = tg_json_get_bool_or(c, "enable_bias", &bias, err)) ||
        (rc = tg_json_get_bool_or(c, "layer_norm_elementwise_affine", &affine, err)) ||
        (rc = tg_config_size_or(c, "word_embed_proj_dim", 1, TG_MAX_WIDTH, &embed, err)))
        return rc;
    d.norm.bias = affine;
    d.norm.bare = !affine;
    d.layer.residual = before ? TG_RESIDUAL_PRE : TG_RESIDUAL_AFTER;
    d.layer.qkv_bias = d.layer.o_bias = d.layer.mlp_bias = bias;
    if ((rc = tg_config_decoder(c, &d, spec, err)))
        return rc;
    spec->no_norm_out = !before || no_last;
    spec->embed_dim = embed == spec->width ? 0 : embed;
    spec->position_offset = 2;
    spec->learned_positions = spec->max_positions + spec->position_offset;
    return TG_OK;
}

#define IN "[model.]decoder.layers.{i}."
static const struct tg_name_rule names[] = {
    {"[model.]decoder.embed_tokens.weight", "embed.weight", NULL},
    {"[model.]decoder.embed_positions.weight", "pos.weight", NULL},
    {"[model.]decoder.project_in.weight", "embed_in.weight", NULL},
    {"[model.]decoder.project_out.weight", "embed_out.weight", NULL},
    {IN "self_attn_layer_norm.weight", "layers.{i}.norm_in.weight", NULL},
    {IN "self_attn_layer_norm.bias", "layers.{i}.norm_in.bias", NULL},
    {IN "self_attn_layer_norm.weight", "layers.{i}.norm_mixer_out.weight", NULL},
    {IN "self_attn_layer_norm.bias", "layers.{i}.norm_mixer_out.bias", NULL},
    {IN "self_attn.q_proj.weight", "layers.{i}.mixer.q.weight", NULL},
    {IN "self_attn.q_proj.bias", "layers.{i}.mixer.q.bias", NULL},
    {IN "self_attn.k_proj.weight", "layers.{i}.mixer.k.weight", NULL},
    {IN "self_attn.k_proj.bias", "layers.{i}.mixer.k.bias", NULL},
    {IN "self_attn.v_proj.weight", "layers.{i}.mixer.v.weight", NULL},
    {IN "self_attn.v_proj.bias", "layers.{i}.mixer.v.bias", NULL},
    {IN "self_attn.out_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {IN "self_attn.out_proj.bias", "layers.{i}.mixer.o.bias", NULL},
    {IN "final_layer_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {IN "final_layer_norm.bias", "layers.{i}.norm_mlp.bias", NULL},
    {IN "final_layer_norm.weight", "layers.{i}.norm_mlp_out.weight", NULL},
    {IN "final_layer_norm.bias", "layers.{i}.norm_mlp_out.bias", NULL},
    {IN "fc1.weight", "layers.{i}.mlp.up.weight", NULL},
    {IN "fc1.bias", "layers.{i}.mlp.up.bias", NULL},
    {IN "fc2.weight", "layers.{i}.mlp.down.weight", NULL},
    {IN "fc2.bias", "layers.{i}.mlp.down.bias", NULL},
    {"[model.]decoder.final_layer_norm.weight", "norm_out.weight", NULL},
    {"[model.]decoder.final_layer_norm.bias", "norm_out.bias", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"opt", NULL};

const struct tg_family tg_family_opt = {
    .name = "opt",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
