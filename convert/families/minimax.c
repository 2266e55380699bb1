/* MiniMax (MiniMaxConfig): Lightning attention and softmax attention in turn, experts everywhere;
 * the residual is the branch's normalised input. */
#include "convert/config_recurrent.h"
#include "convert/names.h"

struct factors {
    double skip[2], scale[2], mlp_skip, mlp_scale; /* of softmax, of linear layers */
};

static int read_factors(struct tg_json c, struct factors *f, struct tg_err *err)
{
    const struct {
        const char *key;
        double *to;
    } all[] = {
        {"full_attn_alpha_factor", &f->skip[0]},   {"full_attn_beta_factor", &f->scale[0]},
        {"linear_attn_alpha_factor", &f->skip[1]}, {"linear_attn_beta_factor", &f->scale[1]},
        {"mlp_alpha_factor", &f->mlp_skip},        {"mlp_beta_factor", &f->mlp_scale},
    };
    int rc;

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *all[i].to = 1;
        if ((rc = tg_json_get_num_or(c, all[i].key, 1e-9, 1e6, all[i].to, err)))
            return rc;
    }
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const char *const kinds[4] = {"linear_attention", NULL, "full_attention", NULL};
    static const struct tg_config_defaults d = {.kv_heads = 8,
                                                .max_positions = 131072,
                                                .bos_id = 1,
                                                .eos_id = 2,
                                                .norm.eps = 1e-5,
                                                .theta = 1e6,
                                                .layer.residual = TG_RESIDUAL_NORMED};
    struct tg_moe_spec moe = {.experts = 8, .per_token = 2, .renormalise = true};
    struct factors f;
    bool recurs[TG_MAX_LAYERS];
    size_t window = 0;
    int rc;

    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_factors(c, &f, err)) ||
        (rc = tg_config_window(c, 0, &window, err)) ||
        (rc = tg_config_size_or(c, "num_local_experts", 1, TG_MAX_EXPERTS, &moe.experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &moe.per_token, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) /* without the key: the even layers attend */
        recurs[i] = i % 2;
    if (tg_json_has(tg_json_key(c, "layer_types")) &&
        (rc = tg_config_kinds(c, "layer_types", kinds, 0, spec->layer_count, recurs, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *l = &spec->layers[i];
        struct tg_layer_spec linear = {.kv_heads = l->heads,
                                       .head_dim = l->head_dim,
                                       .attn_scale = 1,
                                       .recurrent.norm_eps = 1e-6};
        linear.recurrent.scales[0] = 1 - (double)i / ((double)spec->layer_count - 1 + 1e-5) + 1e-5;
        moe.mlp_dim = l->mlp_dim;
        tg_layer_experts(l, &moe);
        if (recurs[i])
            tg_layer_linear(l, "lightning", &linear);
        else
            tg_layer_attend(l, window);
        l->mixer_skip = f.skip[recurs[i]];
        l->mixer_scale = f.scale[recurs[i]];
        l->mlp_skip = f.mlp_skip;
        l->mlp_scale = f.mlp_scale;
    }
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME,
    TG_NAMES_PRE,
    TG_NAMES_ATTENTION(NULL),
    {"[model.]layers.{i}.self_attn.qkv_proj.weight", "layers.{i}.mixer.q.weight",
     tg_layout_qkv_groups_q},
    {"[model.]layers.{i}.self_attn.qkv_proj.weight", "layers.{i}.mixer.k.weight",
     tg_layout_qkv_groups_k},
    {"[model.]layers.{i}.self_attn.qkv_proj.weight", "layers.{i}.mixer.v.weight",
     tg_layout_qkv_groups_v},
    {"[model.]layers.{i}.self_attn.output_gate.weight", "layers.{i}.mixer.z.weight", NULL},
    {"[model.]layers.{i}.self_attn.norm.weight", "layers.{i}.mixer.norm.weight", NULL},
    {"[model.]layers.{i}.self_attn.out_proj.weight", "layers.{i}.mixer.o.weight", NULL},
    {"[model.]layers.{i}.block_sparse_moe.gate.weight", "layers.{i}.moe.router.weight", NULL},
    {"[model.]layers.{i}.block_sparse_moe.experts.{e}.w1.weight", "layers.{i}.moe.gate.weight",
     tg_layout_expert},
    {"[model.]layers.{i}.block_sparse_moe.experts.{e}.w3.weight", "layers.{i}.moe.up.weight",
     tg_layout_expert},
    {"[model.]layers.{i}.block_sparse_moe.experts.{e}.w2.weight", "layers.{i}.moe.down.weight",
     tg_layout_expert},
    TG_NAMES_EXPERTS,
    {NULL, NULL, NULL},
};

/* Buffers that follow from the config */
static const char *const droppable[] = {"*rotary_emb.inv_freq", "*.slope_rate",     "*.query_decay",
                                        "*.key_decay",          "*.diagonal_decay", NULL};
static const char *const types[] = {"minimax", NULL};

const struct tg_family tg_family_minimax = {
    .name = "minimax",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
