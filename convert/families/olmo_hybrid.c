/* OLMo hybrid (OlmoHybridConfig): Gated DeltaNet with negative eigenvalues in pre-norm layers,
 * softmax attention with norms over all heads in post-norm ones; without rope_theta no rotary. */
#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_linear(struct tg_json c, const struct tg_model_spec *spec, struct tg_layer_spec *l,
                       struct tg_err *err)
{
    int rc;

    *l = (struct tg_layer_spec){
        .kv_heads = spec->layers[0].heads,
        .value_heads = spec->layers[0].heads,
        .recurrent = {.conv = 4, .negative_eigenvalues = true, .norm_eps = 1e-5}};
    if ((rc = tg_config_size_or(c, "linear_num_key_heads", 1, TG_MAX_HEADS, &l->kv_heads, err)))
        return rc;
    l->head_dim = 3 * spec->width / (4 * l->kv_heads);
    if ((rc = tg_config_size_or(c, "linear_key_head_dim", 1, TG_MAX_HEAD_DIM, &l->head_dim, err)))
        return rc;
    l->value_dim = 2 * l->head_dim;
    if ((rc = tg_config_deltanet(c, l, err)))
        return rc;
    return tg_json_get_bool_or(c, "linear_allow_neg_eigval", &l->recurrent.negative_eigenvalues,
                               err);
}

/* Does the config have a theta? */
static bool rotates(struct tg_json c)
{
    const struct tg_json new = tg_json_key(c, "rope_parameters"),
                         old = tg_json_key(c, "rope_theta");

    return tg_json_has(tg_json_key(new, "rope_theta")) || tg_json_has(old);
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const char *const kinds[4] = {"linear_attention", NULL, "full_attention", NULL};
    struct tg_config_defaults d = {.max_positions = 65536,
                                   .bos_id = -1,
                                   .eos_id = 100257,
                                   .no_rotary = !rotates(c),
                                   .layer = {.residual = TG_RESIDUAL_POST, .qk_norm = TG_QK_WIDE}};
    struct tg_layer_spec linear;
    bool recurs[TG_MAX_LAYERS], all = true;
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_linear(c, spec, &linear, err)) ||
        (rc = tg_config_kinds(c, "layer_types", kinds, 4, spec->layer_count, recurs, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        all = all && recurs[i];
    if (all && !tg_json_has(tg_json_key(c, "layer_types"))) /* one layer attends at least */
        recurs[spec->layer_count - 1] = false;
    for (size_t i = 0; i < spec->layer_count; i++)
        if (recurs[i]) {
            tg_layer_linear(&spec->layers[i], "gated_deltanet", &linear);
            spec->layers[i].residual = TG_RESIDUAL_PRE;
        }
    return TG_OK;
}

/* A version of transformers saves the norms of softmax layers under the linear layers' names: which
 * it is, the layer's kind says. */
static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_ATTENTION(NULL),
    TG_NAMES_MLP,
    {"[model.]layers.{i}.attention_layer_norm.weight", "layers.{i}.norm_in.weight", NULL},
    {"[model.]layers.{i}.feedforward_layer_norm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"[model.]layers.{i}.feedforward_layer_norm.weight", "layers.{i}.norm_mixer_out.weight", NULL},
    {"[model.]layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},
    {"[model.]layers.{i}.post_attention_layernorm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"[model.]layers.{i}.post_attention_layernorm.weight", "layers.{i}.norm_mixer_out.weight",
     NULL},
    {"[model.]layers.{i}.post_feedforward_layernorm.weight", "layers.{i}.norm_mlp_out.weight",
     NULL},
    {"[model.]layers.{i}.linear_attn.q_proj.weight", "layers.{i}.mixer.q.weight", NULL},
    {"[model.]layers.{i}.linear_attn.k_proj.weight", "layers.{i}.mixer.k.weight", NULL},
    {"[model.]layers.{i}.linear_attn.v_proj.weight", "layers.{i}.mixer.v.weight", NULL},
    {"[model.]layers.{i}.linear_attn.q_conv1d.weight", "layers.{i}.mixer.conv.weight",
     tg_layout_part_q},
    {"[model.]layers.{i}.linear_attn.k_conv1d.weight", "layers.{i}.mixer.conv.weight",
     tg_layout_part_k},
    {"[model.]layers.{i}.linear_attn.v_conv1d.weight", "layers.{i}.mixer.conv.weight",
     tg_layout_part_v},
    {"[model.]layers.{i}.linear_attn.conv1d.weight", "layers.{i}.mixer.conv.weight",
     tg_layout_squeeze},
    {"[model.]layers.{i}.linear_attn.a_proj.weight", "layers.{i}.mixer.a.weight", NULL},
    {"[model.]layers.{i}.linear_attn.b_proj.weight", "layers.{i}.mixer.b.weight", NULL},
    {"[model.]layers.{i}.linear_attn.g_proj.weight", "layers.{i}.mixer.z.weight", NULL},
    {"[model.]layers.{i}.linear_attn.A_log", "layers.{i}.mixer.A_log", NULL},
    {"[model.]layers.{i}.linear_attn.dt_bias", "layers.{i}.mixer.dt_bias", NULL},
    {"[model.]layers.{i}.linear_attn.o_norm.weight", "layers.{i}.mixer.norm.weight", NULL},
    {"[model.]layers.{i}.linear_attn.o_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {NULL, NULL, NULL},
};

static const char *const types[] = {"olmo_hybrid", NULL};

const struct tg_family tg_family_olmo_hybrid = {
    .name = "olmo_hybrid",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
