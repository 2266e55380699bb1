/* Qwen3-MoE (Qwen3MoeConfig): Qwen3's attention; experts in every decoder_sparse_step-th layer that
 * is not among mlp_only_layers; a window, if there is one, in every layer. */
#include "convert/config.h"
#include "convert/names.h"

static int read_moe(struct tg_json c, struct tg_moe_spec *m, struct tg_err *err)
{
    int rc;

    /* num_local_experts is how version 5 writes it */
    *m = (struct tg_moe_spec){.experts = 128, .per_token = 8, .mlp_dim = 768};
    if ((rc = tg_config_size_or(c, "num_experts", 1, TG_MAX_EXPERTS, &m->experts, err)) ||
        (rc = tg_config_size_or(c, "num_local_experts", 1, TG_MAX_EXPERTS, &m->experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &m->per_token, err)) ||
        (rc = tg_config_size_or(c, "moe_intermediate_size", 1, TG_MAX_MLP, &m->mlp_dim, err)))
        return rc;
    return tg_json_get_bool_or(c, "norm_topk_prob", &m->renormalise, err);
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 4,
                                   .max_positions = 32768,
                                   .bos_id = -1,
                                   .eos_id = -1,
                                   .layer.qk_norm = TG_QK_HEAD};
    struct tg_moe_spec moe;
    bool slides = false;
    size_t window;
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_moe(c, &moe, err)) ||
        (rc = tg_json_get_bool_or(c, "use_sliding_window", &slides, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        tg_layer_attend(&spec->layers[i], slides ? window : 0);
    return tg_config_sparse_layers(c, &moe, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_PRE,     TG_NAMES_ATTENTION(NULL),
    TG_NAMES_MLP,   TG_NAMES_EXPERTS, {NULL, NULL, NULL},
};

static const char *const types[] = {"qwen3_moe", NULL};

const struct tg_family tg_family_qwen3_moe = {
    .name = "qwen3_moe",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
