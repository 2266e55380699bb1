/* Kimi Linear (KimiLinearConfig): Kimi Delta Attention and latent attention without positions;
 * experts with a correction, and shared ones beside them, after the first layers. Layer numbers of
 * linear_attn_config begin with 1. */
#include <math.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_latents(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err)
{
    size_t straight = 128, shared = 64;
    int rc;

    l->kv_rank = 512;
    l->value_dim = 128;
    if ((rc = tg_config_size_or(c, "q_lora_rank", 1, TG_MAX_WIDTH, &l->q_rank, err)) ||
        (rc = tg_config_size_or(c, "kv_lora_rank", 1, TG_MAX_WIDTH, &l->kv_rank, err)) ||
        (rc = tg_config_size_or(c, "qk_nope_head_dim", 1, TG_MAX_HEAD_DIM / 2, &straight, err)) ||
        (rc = tg_config_size_or(c, "qk_rope_head_dim", 2, TG_MAX_HEAD_DIM / 2, &shared, err)) ||
        (rc = tg_config_size_or(c, "v_head_dim", 1, TG_MAX_HEAD_DIM, &l->value_dim, err)))
        return rc;
    if (shared % 2)
        return tg_json_fail(c, "qk_rope_head_dim", TG_ERR_VALUE, err, "%zu is not even", shared);
    l->head_dim = straight + shared;
    l->rotary_dim = shared;
    l->kv_heads = l->heads;
    l->latent_eps = 1e-6;
    l->attn_scale = 1 / sqrt((double)l->head_dim);
    l->mixer = tg_mixer_schema_find("mla");
    return TG_OK;
}

/* Of two keys the one that is there */
static const char *either(struct tg_json c, const char *a, const char *b)
{
    return tg_json_has(tg_json_key(c, a)) ? a : b;
}

static int read_moe(struct tg_json c, struct tg_moe_spec *m, struct tg_err *err)
{
    const struct {
        const char *key;
        size_t *to, low, most;
    } sizes[] = {
        {either(c, "num_experts", "num_local_experts"), &m->experts, 1, TG_MAX_EXPERTS},
        {either(c, "num_experts_per_token", "num_experts_per_tok"), &m->per_token, 1,
         TG_MAX_EXPERTS},
        {"moe_intermediate_size", &m->mlp_dim, 1, TG_MAX_MLP},
        {either(c, "num_shared_experts", "n_shared_experts"), &m->shared_dim, 0, 1024},
        {either(c, "num_expert_group", "n_group"), &m->groups, 1, TG_MAX_EXPERTS},
        {"topk_group", &m->groups_kept, 1, TG_MAX_EXPERTS},
    };
    int rc;

    *m = (struct tg_moe_spec){.experts = 256,
                              .per_token = 8,
                              .mlp_dim = 1024,
                              .router = TG_ROUTER_SIGMOID,
                              .renormalise = true,
                              .correction = true,
                              .scale = 2.446,
                              .groups = 1,
                              .groups_kept = 1,
                              .shared_dim = 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if ((rc = tg_config_size_or(c, sizes[i].key, (int64_t)sizes[i].low, (int64_t)sizes[i].most,
                                    sizes[i].to, err)))
            return rc;
    m->shared_dim *= m->mlp_dim;
    if ((rc = tg_json_get_num_or(c, "routed_scaling_factor", 1e-6, 1e6, &m->scale, err)))
        return rc;
    return tg_json_get_bool_or(c, either(c, "moe_renormalize", "norm_topk_prob"), &m->renormalise,
                               err);
}

/* layer_types, or kda_layers, or all but every fourth and the first */
static int read_kinds(struct tg_json c, struct tg_json linear, size_t layer_count, bool *recurs,
                      struct tg_err *err)
{
    static const char *const kinds[4] = {"linear_attention", NULL, "full_attention", NULL};

    if (tg_json_has(tg_json_key(c, "layer_types")))
        return tg_config_kinds(c, "layer_types", kinds, 0, layer_count, recurs, err);
    if (tg_json_has(tg_json_key(linear, "kda_layers")))
        return tg_config_listed(linear, "kda_layers", 1, layer_count, recurs, err);
    for (size_t i = 0; i < layer_count; i++)
        recurs[i] = i == 0 || i % 4;
    return TG_OK;
}

/* mlp_layer_types, or first_k_dense_replace dense ones */
static int read_sparse(struct tg_json c, size_t layer_count, bool *sparse, struct tg_err *err)
{
    static const char *const kinds[4] = {"sparse", NULL, "dense", NULL};
    size_t dense = 1;
    int rc;

    if (tg_json_has(tg_json_key(c, "mlp_layer_types")))
        return tg_config_kinds(c, "mlp_layer_types", kinds, 0, layer_count, sparse, err);
    if ((rc = tg_config_size_or(c, "first_k_dense_replace", 0, TG_MAX_LAYERS, &dense, err)))
        return rc;
    for (size_t i = 0; i < layer_count; i++)
        sparse[i] = i >= dense;
    return TG_OK;
}

static int read_linear(struct tg_json c, struct tg_json linear, struct tg_layer_spec *l,
                       struct tg_err *err)
{
    const struct {
        const char *own, *nested;
        size_t *to;
        int64_t most;
    } sizes[] = {
        {"linear_head_dim", "head_dim", &l->head_dim, TG_MAX_HEAD_DIM},
        {"linear_num_heads", "num_heads", &l->kv_heads, TG_MAX_HEADS},
        {"linear_conv_kernel_dim", "short_conv_kernel_size", &l->recurrent.conv, 32},
    };
    int rc;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if ((rc = tg_config_size_or(c, sizes[i].own, 1, sizes[i].most, sizes[i].to, err)) ||
            (tg_json_has(linear) &&
             (rc = tg_config_size_or(linear, sizes[i].nested, 1, sizes[i].most, sizes[i].to, err))))
            return rc;
    l->recurrent.rank = l->head_dim;
    l->attn_scale = 1 / sqrt((double)l->head_dim);
    return TG_OK;
}

static int read_layers(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json linear = tg_json_key(c, "linear_attn_config");
    struct tg_layer_spec l = {
        .head_dim = 128, .kv_heads = 32, .recurrent = {.conv = 4, .norm_eps = spec->norm.eps}};
    struct tg_moe_spec moe;
    bool recurs[TG_MAX_LAYERS], sparse[TG_MAX_LAYERS];
    int rc;

    if (tg_json_has(linear) && !tg_json_is_object(linear))
        return tg_json_fail(c, "linear_attn_config", TG_ERR_VALUE, err, "must be an object");
    if ((rc = read_linear(c, linear, &l, err)) || (rc = read_moe(c, &moe, err)) ||
        (rc = read_kinds(c, linear, spec->layer_count, recurs, err)) ||
        (rc = read_sparse(c, spec->layer_count, sparse, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        if (recurs[i])
            tg_layer_linear(&spec->layers[i], "kda", &l);
        if (sparse[i])
            tg_layer_experts(&spec->layers[i], &moe);
    }
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_config_defaults d = {
        .kv_heads = 32,
        .head_dim = 64,
        .max_positions = 1048576,
        .bos_id = 163584,
        .eos_id = 163586,
        .norm.eps = 1e-5,
        .keys.positions = either(c, "model_max_length", "max_position_embeddings")};
    struct tg_layer_spec l = {0};
    bool plain = true;
    int rc;

    if ((rc = tg_config_model(c, &d, spec, err)) ||
        (rc = tg_config_heads(c, &d, spec->width, &l, err)) || (rc = read_latents(c, &l, err)) ||
        (rc = tg_config_mlp(c, &d, spec->width, &l, err)) ||
        (rc = tg_config_activation(c, &d, &l.activation, err)) ||
        (rc = tg_json_get_bool_or(c, "attention_bias", &l.qkv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "mla_use_nope", &plain, err)))
        return rc;
    if (!plain)
        return tg_json_fail(c, "mla_use_nope", TG_ERR_UNSUPPORTED, err, "false is not supported");
    l.o_bias = l.qkv_bias;
    spec->ropes[0] = (struct tg_rope){.kind = TG_ROPE_NONE, .theta = 10000};
    if ((rc = tg_config_layers(c, &d, &l, spec, err)))
        return rc;
    return read_layers(c, spec, err);
}

/* Dense mlps are found under either name. */
#define IN "[model.]layers.{i}."
#define ATT IN "self_attn."
#define SPARSE IN "block_sparse_moe."
#define KDA(name, canonical)                                                                       \
    {                                                                                              \
        ATT name, "layers.{i}.mixer." canonical, NULL                                              \
    }
#define SHARED(name)                                                                               \
    {                                                                                              \
        SPARSE "shared_experts." name "_proj.weight", "layers.{i}.moe.shared." name ".weight",     \
            NULL                                                                                   \
    }
#define DENSE(name)                                                                                \
    {                                                                                              \
        SPARSE name "_proj.weight", "layers.{i}.mlp." name ".weight", NULL                         \
    }
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_MLP,
    KDA("q_a_proj.weight", "q_a.weight"),
    KDA("q_a_proj.bias", "q_a.bias"),
    KDA("q_a_layernorm.weight", "q_a_norm.weight"),
    KDA("q_b_proj.weight", "q_b.weight"),
    KDA("kv_a_proj_with_mqa.weight", "kv_a.weight"),
    KDA("kv_a_proj_with_mqa.bias", "kv_a.bias"),
    KDA("kv_a_layernorm.weight", "kv_a_norm.weight"),
    KDA("kv_b_proj.weight", "kv_b.weight"),
    KDA("q_proj.weight", "q.weight"),
    KDA("o_proj.weight", "o.weight"),
    KDA("o_proj.bias", "o.bias"),
    KDA("k_proj.weight", "k.weight"),
    KDA("v_proj.weight", "v.weight"),
    {ATT "q_conv1d.weight", "layers.{i}.mixer.conv.weight", tg_layout_part_q},
    {ATT "k_conv1d.weight", "layers.{i}.mixer.conv.weight", tg_layout_part_k},
    {ATT "v_conv1d.weight", "layers.{i}.mixer.conv.weight", tg_layout_part_v},
    {ATT "A_log", "layers.{i}.mixer.A_log", tg_layout_squeeze},
    KDA("dt_bias", "dt_bias"),
    KDA("f_a_proj.weight", "f_a.weight"),
    KDA("f_b_proj.weight", "f_b.weight"),
    KDA("g_a_proj.weight", "g_a.weight"),
    KDA("g_b_proj.weight", "g_b.weight"),
    KDA("b_proj.weight", "b.weight"),
    KDA("o_norm.weight", "norm.weight"),
    DENSE("gate"),
    DENSE("up"),
    DENSE("down"),
    {SPARSE "gate.weight", "layers.{i}.moe.router.weight", NULL},
    {SPARSE "gate.e_score_correction_bias", "layers.{i}.moe.correction", NULL},
    {SPARSE "experts.{e}.w1.weight", "layers.{i}.moe.gate.weight", tg_layout_expert},
    {SPARSE "experts.{e}.w3.weight", "layers.{i}.moe.up.weight", tg_layout_expert},
    {SPARSE "experts.{e}.w2.weight", "layers.{i}.moe.down.weight", tg_layout_expert},
    SHARED("gate"),
    SHARED("up"),
    SHARED("down"),
    {NULL, NULL, NULL},
};
#undef DENSE
#undef SHARED
#undef KDA
#undef SPARSE
#undef ATT
#undef IN

static const char *const types[] = {"kimi_linear", NULL};

const struct tg_family tg_family_kimi_linear = {
    .name = "kimi_linear",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
