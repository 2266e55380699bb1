/* GPT-2 (GPT2Config): learned positions, layer norms, biases everywhere, a plain mlp; matrices
 * stored [in,out], q, k and v as one. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .max_positions = 1024,
        .bos_id = 50256,
        .eos_id = 50256,
        .mlp_widths = 4,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .bias = true},
        .activation = "gelu_new",
        .tied = true,
        .no_rotary = true,
        .layer = {.mlp_kind = TG_MLP_PLAIN, .qkv_bias = true, .o_bias = true, .mlp_bias = true},
        .keys = {.width = "n_embd",
                 .layers = "n_layer",
                 .heads = "n_head",
                 .kv_heads = "n_head",
                 .mlp_dim = "n_inner",
                 .positions = "n_positions",
                 .eps = "layer_norm_epsilon",
                 .activation = "activation_function"},
    };
    bool scaled = true, by_layer = false;
    int rc;

    if ((rc = tg_config_refuse(c, "add_cross_attention", err)) ||
        (rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_json_get_bool_or(c, "scale_attn_weights", &scaled, err)) ||
        (rc = tg_json_get_bool_or(c, "scale_attn_by_inverse_layer_idx", &by_layer, err)))
        return rc;
    spec->learned_positions = spec->max_positions;
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *l = &spec->layers[i];
        l->attn_scale = (scaled ? l->attn_scale : 1) / (by_layer ? (double)(i + 1) : 1);
    }
    return TG_OK;
}

#define IN "[transformer.]h.{i}."
static const struct tg_name_rule names[] = {
    {"[transformer.]wte.weight", "embed.weight", NULL},
    {"[transformer.]wpe.weight", "pos.weight", NULL},
    {IN "ln_1.weight", "layers.{i}.norm_in.weight", NULL},
    {IN "ln_1.bias", "layers.{i}.norm_in.bias", NULL},
    {IN "attn.c_attn.weight", "layers.{i}.mixer.q.weight", tg_layout_qkv_transposed_q},
    {IN "attn.c_attn.weight", "layers.{i}.mixer.k.weight", tg_layout_qkv_transposed_k},
    {IN "attn.c_attn.weight", "layers.{i}.mixer.v.weight", tg_layout_qkv_transposed_v},
    {IN "attn.c_attn.bias", "layers.{i}.mixer.q.bias", tg_layout_qkv_q},
    {IN "attn.c_attn.bias", "layers.{i}.mixer.k.bias", tg_layout_qkv_k},
    {IN "attn.c_attn.bias", "layers.{i}.mixer.v.bias", tg_layout_qkv_v},
    {IN "attn.c_proj.weight", "layers.{i}.mixer.o.weight", tg_layout_transpose},
    {IN "attn.c_proj.bias", "layers.{i}.mixer.o.bias", NULL},
    {IN "ln_2.weight", "layers.{i}.norm_mlp.weight", NULL},
    {IN "ln_2.bias", "layers.{i}.norm_mlp.bias", NULL},
    {IN "mlp.c_fc.weight", "layers.{i}.mlp.up.weight", tg_layout_transpose},
    {IN "mlp.c_fc.bias", "layers.{i}.mlp.up.bias", NULL},
    {IN "mlp.c_proj.weight", "layers.{i}.mlp.down.weight", tg_layout_transpose},
    {IN "mlp.c_proj.bias", "layers.{i}.mlp.down.bias", NULL},
    {"[transformer.]ln_f.weight", "norm_out.weight", NULL},
    {"[transformer.]ln_f.bias", "norm_out.bias", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN
static const char *const droppable[] = {"*.attn.bias", "*.attn.masked_bias", NULL}; /* masks */

static const char *const types[] = {"gpt2", NULL};

const struct tg_family tg_family_gpt2 = {
    .name = "gpt2",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
