/* Mixtral (MixtralConfig): Mistral whose mlp is experts; softmax over the scores of those taken. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {.kv_heads = 8,
                                                       .max_positions = 131072,
                                                       .bos_id = 1,
                                                       .eos_id = 2,
                                                       .norm.eps = 1e-5,
                                                       .theta = 1e6};
    struct tg_moe_spec moe = {
        .experts = 8, .per_token = 2, .router = TG_ROUTER_SOFTMAX_TOP, .renormalise = true};
    size_t window;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_config_size_or(c, "num_local_experts", 1, TG_MAX_EXPERTS, &moe.experts, err)) ||
        (rc =
             tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &moe.per_token, err)) ||
        (rc = tg_config_window(c, 0, &window, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        moe.mlp_dim = spec->layers[i].mlp_dim;
        tg_layer_attend(&spec->layers[i], window);
        tg_layer_experts(&spec->layers[i], &moe);
    }
    return TG_OK;
}

#define IN "[model.]layers.{i}.block_sparse_moe."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {IN "gate.weight", "layers.{i}.moe.router.weight", NULL},
    {IN "experts.{e}.w1.weight", "layers.{i}.moe.gate.weight", tg_layout_expert},
    {IN "experts.{e}.w3.weight", "layers.{i}.moe.up.weight", tg_layout_expert},
    {IN "experts.{e}.w2.weight", "layers.{i}.moe.down.weight", tg_layout_expert},
    TG_NAMES_EXPERTS,
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"mixtral", NULL};

const struct tg_family tg_family_mixtral = {
    .name = "mixtral",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
