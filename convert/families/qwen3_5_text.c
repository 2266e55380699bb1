/* Qwen3.5 text models, dense (Qwen3_5TextConfig) and with experts (Qwen3_5MoeTextConfig):
 * Qwen3-Next's layers, the linear ones' projections apart. With experts every mlp is experts with a
 * gated shared one, and the weights of those taken always sum to 1. */
#include "convert/config_recurrent.h"

#include <string.h>

#include "convert/names.h"

static const char *const types[] = {"qwen3_5_text", "qwen3_5_moe_text", NULL};

/* What the class with experts takes for absent keys, where the dense one takes something else */
static void sparse_defaults(struct tg_config_defaults *d)
{
    d->kv_heads = 2;
    d->sizes.width = 2048;
    d->sizes.mlp_dim = 512;
    d->sizes.layers = 40;
    d->keys.mlp_dim = "moe_intermediate_size"; /* no layer has an mlp of another size */
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 4,
        .head_dim = 256,
        .max_positions = 32768,
        .bos_id = -1,
        .eos_id = -1,
        .sizes = {.vocab = 248320, .width = 4096, .mlp_dim = 12288, .layers = 32, .heads = 16},
        .norm.plus_one = true,
        .rotary_share = 0.25,
        .layer = {.qk_norm = TG_QK_HEAD, .output_gate = true}};
    struct tg_moe_spec moe = {.experts = 256, .per_token = 8};
    const char *type;
    int rc;

    if ((rc = tg_json_get_str(c, "model_type", &type, err)))
        return rc;
    const bool sparse = strcmp(type, types[1]) == 0;
    if (sparse)
        sparse_defaults(&d);
    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)) || (rc = tg_config_qwen_hybrid(c, spec, err)))
        return rc;
    if (!sparse)
        return TG_OK;
    if ((rc = tg_config_qwen_moe(c, &moe, err)))
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
    {IN "in_proj_qkv.weight", "layers.{i}.mixer.q.weight", tg_layout_qkv_q},
    {IN "in_proj_qkv.weight", "layers.{i}.mixer.k.weight", tg_layout_qkv_k},
    {IN "in_proj_qkv.weight", "layers.{i}.mixer.v.weight", tg_layout_qkv_v},
    {IN "in_proj_z.weight", "layers.{i}.mixer.z.weight", NULL},
    {IN "in_proj_b.weight", "layers.{i}.mixer.b.weight", NULL},
    {IN "in_proj_a.weight", "layers.{i}.mixer.a.weight", NULL},
    TG_NAMES_MLP,
    TG_NAMES_EXPERTS,
    TG_NAMES_SHARED_EXPERT,
    {NULL, NULL, NULL},
};
#undef IN

static const char *const droppable[] = {"*rotary_emb.inv_freq", "mtp.*", NULL};

const struct tg_family tg_family_qwen3_5_text = {
    .name = "qwen3_5_text",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
