/* DeepSeek V3 and R1 (DeepseekV3Config): latent attention; experts with a correction and groups
 * from layer first_k_dense_replace on, a shared one beside them; yarn also scales the scores. The
 * layers for multi-token prediction that follow the decoder's are dropped. */
#include <math.h>

#include "convert/config.h"
#include "convert/names.h"

/* The scores' share of yarn: m^2, m = 0.1 mscale_all_dim ln(factor) + 1 */
static int read_scale(struct tg_json c, const struct tg_rope *r, struct tg_layer_spec *l,
                      struct tg_err *err)
{
    const struct tg_json old = tg_json_key(c, "rope_scaling");
    const struct tg_json from = tg_json_has(old) ? old : tg_json_key(c, "rope_parameters");
    double all = 0;
    int rc;

    l->attn_scale = 1 / sqrt((double)l->head_dim);
    if (r->kind == TG_ROPE_DEFAULT)
        return TG_OK;
    if ((rc = tg_json_get_num_or(from, "mscale_all_dim", 0, 1e3, &all, err)))
        return rc;
    if (all > 0 && r->factor > 1) {
        const double m = 0.1 * all * log(r->factor) + 1;
        l->attn_scale *= m * m;
    }
    return TG_OK;
}

static int read_latents(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err)
{
    size_t straight = 128, rotated = 64;
    int rc;

    l->kv_rank = 512;
    l->value_dim = 128;
    l->q_rank = tg_json_key(c, "q_lora_rank").node ? 0 : 1536; /* null: straight */
    if ((rc = tg_config_size_or(c, "q_lora_rank", 1, TG_MAX_WIDTH, &l->q_rank, err)) ||
        (rc = tg_config_size_or(c, "kv_lora_rank", 1, TG_MAX_WIDTH, &l->kv_rank, err)) ||
        (rc = tg_config_size_or(c, "qk_nope_head_dim", 1, TG_MAX_HEAD_DIM / 2, &straight, err)) ||
        (rc = tg_config_size_or(c, "qk_rope_head_dim", 2, TG_MAX_HEAD_DIM / 2, &rotated, err)) ||
        (rc = tg_config_size_or(c, "v_head_dim", 1, TG_MAX_HEAD_DIM, &l->value_dim, err)))
        return rc;
    if (rotated % 2)
        return tg_json_fail(c, "qk_rope_head_dim", TG_ERR_VALUE, err, "%zu is not even", rotated);
    l->head_dim = straight + rotated;
    l->rotary_dim = rotated;
    l->kv_heads = l->heads;
    l->latent_eps = 1e-6;
    l->mixer = tg_mixer_schema_find("mla");
    return TG_OK;
}

static int read_moe(struct tg_json c, struct tg_moe_spec *m, struct tg_err *err)
{
    size_t shared = 1;
    int rc;

    *m = (struct tg_moe_spec){.experts = 256,
                              .per_token = 8,
                              .mlp_dim = 2048,
                              .router = TG_ROUTER_SIGMOID,
                              .renormalise = true,
                              .correction = true,
                              .scale = 2.5,
                              .groups = 8,
                              .groups_kept = 4};
    if ((rc = tg_config_size_or(c, "n_routed_experts", 1, TG_MAX_EXPERTS, &m->experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &m->per_token, err)) ||
        (rc = tg_config_size_or(c, "moe_intermediate_size", 1, TG_MAX_MLP, &m->mlp_dim, err)) ||
        (rc = tg_config_size_or(c, "n_shared_experts", 0, 1024, &shared, err)) ||
        (rc = tg_config_size_or(c, "n_group", 1, TG_MAX_EXPERTS, &m->groups, err)) ||
        (rc = tg_config_size_or(c, "topk_group", 1, TG_MAX_EXPERTS, &m->groups_kept, err)) ||
        (rc = tg_json_get_num_or(c, "routed_scaling_factor", 1e-6, 1e6, &m->scale, err)))
        return rc;
    m->shared_dim = shared * m->mlp_dim;
    return tg_json_get_bool_or(c, "norm_topk_prob", &m->renormalise, err);
}

/* The names do not say how rotary pairs lie: the config does, for both forms. */
static int read_pairs(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    bool pairs = true;
    const int rc = tg_json_get_bool_or(c, "rope_interleave", &pairs, err);

    spec->pairs_apart = !pairs;
    return rc;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .kv_heads = 128, .head_dim = 64, .max_positions = 4096, .bos_id = 0, .eos_id = 1};
    struct tg_layer_spec l = {0};
    struct tg_moe_spec moe;
    size_t dense = 3;
    double share = 1;
    int rc;

    if ((rc = tg_config_model(c, &defaults, spec, err)) ||
        (rc = tg_config_ropes(c, &defaults, spec, &share, err)) ||
        (rc = tg_config_heads(c, &defaults, spec->width, &l, err)) ||
        (rc = read_latents(c, &l, err)) || (rc = read_scale(c, &spec->ropes[0], &l, err)) ||
        (rc = read_pairs(c, spec, err)) ||
        (rc = tg_config_mlp(c, &defaults, spec->width, &l, err)) ||
        (rc = tg_config_activation(c, &defaults, &l.activation, err)) ||
        (rc = tg_json_get_bool_or(c, "attention_bias", &l.qkv_bias, err)) ||
        (rc = read_moe(c, &moe, err)) ||
        (rc = tg_config_size_or(c, "first_k_dense_replace", 0, TG_MAX_LAYERS, &dense, err)))
        return rc;
    l.o_bias = l.qkv_bias;
    if ((rc = tg_config_layers(c, &defaults, &l, spec, err)))
        return rc;
    for (size_t i = dense; i < spec->layer_count; i++)
        tg_layer_experts(&spec->layers[i], &moe);
    return TG_OK;
}

#define IN "[model.]layers.{i}."
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    {IN "self_attn.q_proj.weight", "layers.{i}.mixer.q.weight", tg_layout_pairs_tail},
    {IN "self_attn.q_a_proj.weight", "layers.{i}.mixer.q_a.weight", NULL},
    {IN "self_attn.q_a_proj.bias", "layers.{i}.mixer.q_a.bias", NULL},
    {IN "self_attn.q_a_layernorm.weight", "layers.{i}.mixer.q_a_norm.weight", NULL},
    {IN "self_attn.q_b_proj.weight", "layers.{i}.mixer.q_b.weight", tg_layout_pairs_tail},
    {IN "self_attn.kv_a_proj_with_mqa.weight", "layers.{i}.mixer.kv_a.weight",
     tg_layout_pairs_tail},
    {IN "self_attn.kv_a_proj_with_mqa.bias", "layers.{i}.mixer.kv_a.bias", tg_layout_pairs_tail},
    {IN "self_attn.kv_a_layernorm.weight", "layers.{i}.mixer.kv_a_norm.weight", NULL},
    {IN "self_attn.kv_b_proj.weight", "layers.{i}.mixer.kv_b.weight", NULL},
    {IN "self_attn.o_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {IN "self_attn.o_proj.bias", "layers.{i}.mixer.o.bias", NULL},
    TG_NAMES_MLP,
    TG_NAMES_EXPERTS,
    {IN "mlp.gate.e_score_correction_bias", "layers.{i}.moe.correction", NULL},
    {IN "mlp.shared_experts.gate_proj.weight", "layers.{i}.moe.shared.gate.weight", NULL},
    {IN "mlp.shared_experts.up_proj.weight", "layers.{i}.moe.shared.up.weight", NULL},
    {IN "mlp.shared_experts.down_proj.weight", "layers.{i}.moe.shared.down.weight", NULL},
    {NULL, NULL, NULL},
};
#undef IN
static const char *const droppable[] = {"*rotary_emb.inv_freq", "model.layers.{+}.*", NULL};

static const char *const types[] = {"deepseek_v3", NULL};

const struct tg_family tg_family_deepseek_v3 = {
    .name = "deepseek_v3",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
