/* Granite 4 hybrid (GraniteMoeHybridConfig): Mamba-2 or softmax attention by layer_types, without
 * positions unless position_embedding_type is "rope"; experts beside a shared one, or with no
 * experts that one alone; Granite's multipliers. */
#include <string.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_factors(struct tg_json c, struct tg_model_spec *spec, struct tg_layer_spec *l,
                        struct tg_err *err)
{
    double embed = 1, logits = 1, residual = 1;
    int rc;

    l->attn_scale = 1;
    if ((rc = tg_json_get_num_or(c, "embedding_multiplier", 1e-9, 1e6, &embed, err)) ||
        (rc = tg_json_get_num_or(c, "logits_scaling", 1e-9, 1e6, &logits, err)) ||
        (rc = tg_json_get_num_or(c, "residual_multiplier", 1e-9, 1e6, &residual, err)) ||
        (rc = tg_json_get_num_or(c, "attention_multiplier", 1e-9, 1e6, &l->attn_scale, err)))
        return rc;
    spec->embed_scale = embed;
    spec->logit_scale = 1 / logits;
    l->mixer_scale = l->mlp_scale = residual;
    return TG_OK;
}

/* mlp_dim was read from intermediate_size, which is an expert's */
static int read_mlps(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_moe_spec m = {.experts = 8,
                            .per_token = 2,
                            .router = TG_ROUTER_TOP_SOFTMAX,
                            .mlp_dim = spec->layers[0].mlp_dim,
                            .shared_dim = 1024};
    int rc;

    if ((rc = tg_config_size_or(c, "num_local_experts", 0, TG_MAX_EXPERTS, &m.experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", m.experts ? 1 : 0, TG_MAX_EXPERTS,
                                &m.per_token, err)) ||
        (rc = tg_config_size_or(c, "shared_intermediate_size", 1, TG_MAX_MLP, &m.shared_dim, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        if (m.experts)
            tg_layer_experts(&spec->layers[i], &m);
        else
            spec->layers[i].mlp_dim = m.shared_dim;
    }
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const char *const kinds[4] = {"linear_attention", "mamba", "full_attention",
                                         "attention"};
    struct tg_config_defaults d = {
        .max_positions = 2048, .bos_id = 1, .eos_id = 2, .no_rotary = true};
    struct tg_recurrent_spec r = {
        .v_heads = 128, .groups = 1, .state = 256, .conv = 4, .conv_bias = true, .norm = true};
    bool recurs[TG_MAX_LAYERS];
    const char *positions = "";
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_json_get_str_or(c, "position_embedding_type", &positions, err)) ||
        (rc = read_factors(c, spec, &d.layer, err)))
        return rc;
    d.no_rotary = strcmp(positions, "rope") != 0;
    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_mlps(c, spec, err)) ||
        (rc = tg_config_mamba2(c, spec->width, &r, err)) ||
        (rc = tg_config_kinds(c,
                              tg_json_has(tg_json_key(c, "layers_block_type")) ? "layers_block_type"
                                                                               : "layer_types",
                              kinds, 0, spec->layer_count, recurs, err)))
        return rc;
    r.norm_eps = spec->norm.eps;
    for (size_t i = 0; i < spec->layer_count; i++)
        if (recurs[i])
            tg_layer_recur(&spec->layers[i], "mamba2", &r);
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    TG_NAMES_MAMBA2("[model.]layers.{i}.mamba."),
    {"[model.]layers.{i}.shared_mlp.input_linear.weight", "layers.{i}.mlp.gate.weight",
     tg_layout_half_first},
    {"[model.]layers.{i}.shared_mlp.input_linear.weight", "layers.{i}.mlp.up.weight",
     tg_layout_half_second},
    {"[model.]layers.{i}.shared_mlp.output_linear.weight", "layers.{i}.mlp.down.weight", NULL},
    {"[model.]layers.{i}.shared_mlp.input_linear.weight", "layers.{i}.moe.shared.gate.weight",
     tg_layout_half_first},
    {"[model.]layers.{i}.shared_mlp.input_linear.weight", "layers.{i}.moe.shared.up.weight",
     tg_layout_half_second},
    {"[model.]layers.{i}.shared_mlp.output_linear.weight", "layers.{i}.moe.shared.down.weight",
     NULL},
    {"[model.]layers.{i}.block_sparse_moe.router.layer.weight", "layers.{i}.moe.router.weight",
     NULL},
    {"[model.]layers.{i}.block_sparse_moe.input_linear.weight", "layers.{i}.moe.gate.weight",
     tg_layout_experts_first},
    {"[model.]layers.{i}.block_sparse_moe.input_linear.weight", "layers.{i}.moe.up.weight",
     tg_layout_experts_second},
    {"[model.]layers.{i}.block_sparse_moe.output_linear.weight", "layers.{i}.moe.down.weight",
     NULL},
    {NULL, NULL, NULL},
};

static const char *const types[] = {"granitemoehybrid", NULL};

const struct tg_family tg_family_granitemoehybrid = {
    .name = "granitemoehybrid",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
