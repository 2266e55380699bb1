/* Qwen3.5 with experts, text models (Qwen3_5MoeTextConfig): Qwen3.5's layers, every mlp experts
 * with a gated shared one; weights of the taken experts always sum to 1. */
#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 2,
        .head_dim = 256,
        .max_positions = 32768,
        .bos_id = -1,
        .eos_id = -1,
        .sizes = {.vocab = 248320, .width = 2048, .mlp_dim = 512, .layers = 40, .heads = 16},
        .norm.plus_one = true,
        .rotary_share = 0.25,
        .layer = {.qk_norm = TG_QK_HEAD, .output_gate = true}};
    struct tg_moe_spec moe = {.experts = 256, .per_token = 8};
    int rc;

    if ((rc = tg_json_get_bool_or(c, "attention_bias", &d.layer.qkv_bias, err)))
        return rc;
    d.layer.o_bias = d.layer.qkv_bias;
    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = tg_config_qwen_hybrid(c, spec, err)) ||
        (rc = tg_config_qwen_moe(c, &moe, err)))
        return rc;
    moe.renormalise = true;
    return tg_config_sparse_layers(c, &moe, spec, err);
}

#define IN "[model.]layers.{i}.linear_attn."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_GATED_ATTENTION,
    TG_NAMES_DELTANET,
    {IN "in_proj_qkv.weight", "layers.{i}.mixer.qkv.weight", NULL},
    {IN "in_proj_z.weight", "layers.{i}.mixer.z.weight", NULL},
    {IN "in_proj_b.weight", "layers.{i}.mixer.b.weight", NULL},
    {IN "in_proj_a.weight", "layers.{i}.mixer.a.weight", NULL},
    TG_NAMES_EXPERTS,
    TG_NAMES_SHARED_EXPERT,
    {NULL, NULL, NULL},
};
#undef IN

static const char *const types[] = {"qwen3_5_moe_text", NULL};
static const char *const droppable[] = {"*rotary_emb.inv_freq", "mtp.*", NULL};

const struct tg_family tg_family_qwen3_5_moe_text = {
    .name = "qwen3_5_moe_text",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
