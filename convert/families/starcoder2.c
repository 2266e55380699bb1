/* StarCoder2 (Starcoder2Config): layer norms, a plain mlp, biases everywhere, a window in every
 * layer if there is one. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 2,
        .max_positions = 4096,
        .bos_id = 50256,
        .eos_id = 50256,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .activation = "gelu_pytorch_tanh",
        .tied = true,
        .layer = {.mlp_kind = TG_MLP_PLAIN},
        .keys.eps = "norm_epsilon",
    };
    bool bias = true;
    size_t window;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "use_bias", &bias, err)))
        return rc;
    d.layer.qkv_bias = d.layer.o_bias = d.layer.mlp_bias = bias;
    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = tg_config_window(c, 0, &window, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        tg_layer_attend(&spec->layers[i], window);
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {"[model.]layers.{i}.mlp.c_fc.weight", "layers.{i}.mlp.up.weight", NULL},
    {"[model.]layers.{i}.mlp.c_fc.bias", "layers.{i}.mlp.up.bias", NULL},
    {"[model.]layers.{i}.mlp.c_proj.weight", "layers.{i}.mlp.down.weight", NULL},
    {"[model.]layers.{i}.mlp.c_proj.bias", "layers.{i}.mlp.down.bias", NULL},
    {NULL, NULL, NULL},
};

static const char *const types[] = {"starcoder2", NULL};

const struct tg_family tg_family_starcoder2 = {
    .name = "starcoder2",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
