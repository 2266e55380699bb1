/* GLM-4 0414 (Glm4Config): norms before and after each branch, rotary pairs side by side in half of
 * each head, biases on q, k and v, gate and up in one tensor. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 2,
        .head_dim = 128,
        .max_positions = 131072,
        .bos_id = -1,
        .eos_id = 151329,
        .norm.eps = 1.5625e-7,
        .rotary_share = 0.5,
        .layer = {.residual = TG_RESIDUAL_SANDWICH, .qkv_bias = true},
    };
    const int rc = tg_json_get_bool_or(c, "attention_bias", &d.layer.qkv_bias, err);

    return rc == TG_OK ? tg_config_decoder(c, &d, spec, err) : rc;
}

#define IN "[model.]layers.{i}."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    {IN "post_self_attn_layernorm.weight", "layers.{i}.norm_mixer_out.weight", NULL},
    {IN "post_mlp_layernorm.weight", "layers.{i}.norm_mlp_out.weight", NULL},
    TG_NAMES_ATTENTION(tg_layout_pairs),
    {IN "mlp.gate_up_proj.weight", "layers.{i}.mlp.gate.weight", tg_layout_half_first},
    {IN "mlp.gate_up_proj.weight", "layers.{i}.mlp.up.weight", tg_layout_half_second},
    {IN "mlp.down_proj.weight", "layers.{i}.mlp.down.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"glm4", NULL};

const struct tg_family tg_family_glm4 = {
    .name = "glm4",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
