/* Phi-1, 1.5 and 2 (PhiConfig): one layer norm for both branches, which are added together; biases
 * everywhere, the head's included; a part of each head is rotated. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048,
        .bos_id = 1,
        .eos_id = 2,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .activation = "gelu_new",
        .rotary_share = 0.5,
        .layer = {.residual = TG_RESIDUAL_SHARED,
                  .mlp_kind = TG_MLP_PLAIN,
                  .qkv_bias = true,
                  .o_bias = true,
                  .mlp_bias = true},
        .keys.eps = "layer_norm_eps",
    };
    bool norms = false;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "qk_layernorm", &norms, err)))
        return rc;
    d.layer.qk_norm = norms ? TG_QK_HEAD : TG_QK_NONE;
    d.layer.qk_norm_bias = norms;
    spec->head_bias = true;
    return tg_config_decoder(c, &d, spec, err);
}

#define IN "[model.]layers.{i}."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {IN "self_attn.dense.weight", "layers.{i}.mixer.o.weight", NULL},
    {IN "self_attn.dense.bias", "layers.{i}.mixer.o.bias", NULL},
    {IN "self_attn.q_layernorm.weight", "layers.{i}.mixer.q_norm.weight", NULL},
    {IN "self_attn.q_layernorm.bias", "layers.{i}.mixer.q_norm.bias", NULL},
    {IN "self_attn.k_layernorm.weight", "layers.{i}.mixer.k_norm.weight", NULL},
    {IN "self_attn.k_layernorm.bias", "layers.{i}.mixer.k_norm.bias", NULL},
    {IN "mlp.fc1.weight", "layers.{i}.mlp.up.weight", NULL},
    {IN "mlp.fc1.bias", "layers.{i}.mlp.up.bias", NULL},
    {IN "mlp.fc2.weight", "layers.{i}.mlp.down.weight", NULL},
    {IN "mlp.fc2.bias", "layers.{i}.mlp.down.bias", NULL},
    {"[model.]final_layernorm.weight", "norm_out.weight", NULL},
    {"[model.]final_layernorm.bias", "norm_out.bias", NULL},
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"phi", NULL};

const struct tg_family tg_family_phi = {
    .name = "phi",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
