/* LFM2 (Lfm2Config): gated short convolutions and softmax attention with q/k norms. The mlp's width
 * may be adjusted from the key's. */
#include "convert/config_recurrent.h"
#include "convert/names.h"

/* intermediate_size, or two thirds of it times a factor, rounded up to a multiple */
static int read_mlp(struct tg_json c, size_t *mlp_dim, struct tg_err *err)
{
    bool adjust = true;
    double factor = 1;
    size_t multiple = 256;
    int rc;

    if ((rc = tg_config_size_or(c, "block_ff_dim", 1, TG_MAX_MLP, mlp_dim, err)) ||
        (rc = tg_json_get_bool_or(c, "block_auto_adjust_ff_dim", &adjust, err)) ||
        (rc = tg_json_get_num_or(c, "block_ffn_dim_multiplier", 1e-3, 1e3, &factor, err)) ||
        (rc = tg_config_size_or(c, "block_multiple_of", 1, TG_MAX_MLP, &multiple, err)) || !adjust)
        return rc;
    *mlp_dim = 2 * *mlp_dim / 3;
    if (tg_json_has(tg_json_key(c, "block_ffn_dim_multiplier")) ||
        !tg_json_key(c, "block_ffn_dim_multiplier").node) {
        *mlp_dim = (size_t)(factor * (double)*mlp_dim);
        *mlp_dim = (*mlp_dim + multiple - 1) / multiple * multiple;
    }
    return TG_OK;
}

static int read_kinds(struct tg_json c, const struct tg_model_spec *spec, bool *recurs,
                      struct tg_err *err)
{
    static const char *const kinds[4] = {"conv", "linear_attention", "full_attention", NULL};
    int rc;

    if (tg_json_has(tg_json_key(c, "layer_types")))
        return tg_config_kinds(c, "layer_types", kinds, 0, spec->layer_count, recurs, err);
    if ((rc = tg_config_listed(c, "full_attn_idxs", 0, spec->layer_count, recurs, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        recurs[i] = tg_json_has(tg_json_key(c, "full_attn_idxs")) && !recurs[i];
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults d = {.kv_heads = 8,
                                                .max_positions = 128000,
                                                .bos_id = 1,
                                                .eos_id = 2,
                                                .norm.eps = 1e-5,
                                                .tied = true,
                                                .theta = 1e6,
                                                .layer.qk_norm = TG_QK_HEAD,
                                                .keys.eps = "norm_eps"};
    struct tg_recurrent_spec r = {.conv = 3};
    bool recurs[TG_MAX_LAYERS];
    size_t mlp_dim;
    int rc;

    if ((rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_json_get_bool_or(c, "tie_embedding", &spec->tied_head, err)) ||
        (rc = tg_config_size_or(c, "conv_L_cache", 1, 32, &r.conv, err)) ||
        (rc = tg_json_get_bool_or(c, "conv_bias", &r.conv_bias, err)) ||
        (rc = read_kinds(c, spec, recurs, err)))
        return rc;
    mlp_dim = spec->layers[0].mlp_dim;
    if ((rc = read_mlp(c, &mlp_dim, err)))
        return rc;
    r.inner = spec->width;
    r.proj_bias = r.out_bias = r.conv_bias;
    for (size_t i = 0; i < spec->layer_count; i++) {
        spec->layers[i].mlp_dim = mlp_dim;
        if (recurs[i])
            tg_layer_recur(&spec->layers[i], "short_conv", &r);
    }
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    {"[model.]embed_tokens.weight", "embed.weight", NULL},
    {"[model.]embedding_norm.weight", "norm_out.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {"[model.]layers.{i}.operator_norm.weight", "layers.{i}.norm_in.weight", NULL},
    {"[model.]layers.{i}.ffn_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"[model.]layers.{i}.feed_forward.w1.weight", "layers.{i}.mlp.gate.weight", NULL},
    {"[model.]layers.{i}.feed_forward.w3.weight", "layers.{i}.mlp.up.weight", NULL},
    {"[model.]layers.{i}.feed_forward.w2.weight", "layers.{i}.mlp.down.weight", NULL},
    {"[model.]layers.{i}.self_attn.q_proj.weight", "layers.{i}.mixer.q.weight", NULL},
    {"[model.]layers.{i}.self_attn.k_proj.weight", "layers.{i}.mixer.k.weight", NULL},
    {"[model.]layers.{i}.self_attn.v_proj.weight", "layers.{i}.mixer.v.weight", NULL},
    {"[model.]layers.{i}.self_attn.out_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {"[model.]layers.{i}.self_attn.q_layernorm.weight", "layers.{i}.mixer.q_norm.weight", NULL},
    {"[model.]layers.{i}.self_attn.k_layernorm.weight", "layers.{i}.mixer.k_norm.weight", NULL},
    {"[model.]layers.{i}.conv.in_proj.weight", "layers.{i}.mixer.in.weight", NULL},
    {"[model.]layers.{i}.conv.in_proj.bias", "layers.{i}.mixer.in.bias", NULL},
    {"[model.]layers.{i}.conv.conv.weight", "layers.{i}.mixer.conv.weight", tg_layout_squeeze},
    {"[model.]layers.{i}.conv.conv.bias", "layers.{i}.mixer.conv.bias", NULL},
    {"[model.]layers.{i}.conv.out_proj.weight", "layers.{i}.mixer.out.weight", NULL},
    {"[model.]layers.{i}.conv.out_proj.bias", "layers.{i}.mixer.out.bias", NULL},
    {NULL, NULL, NULL},
};

static const char *const types[] = {"lfm2", NULL};

const struct tg_family tg_family_lfm2 = {
    .name = "lfm2",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
