/* Jamba (JambaConfig): Mamba-1 layers with norms of dt, B and C, softmax attention without
 * positions at every attn_layer_period-th layer, experts at every expert_layer_period-th. */
#include <string.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

/* Layers i with i % period == offset */
static int read_period(struct tg_json c, const char *period_key, const char *offset_key,
                       size_t *period, size_t *offset, struct tg_err *err)
{
    int64_t at = (int64_t)*offset;
    int rc;

    if ((rc = tg_config_size_or(c, period_key, 1, 1 << 20, period, err)) ||
        (rc = tg_json_get_int_or(c, offset_key, 0, 1 << 20, &at, err)))
        return rc;
    *offset = (size_t)at;
    if (*offset >= *period)
        return tg_json_fail(c, offset_key, TG_ERR_VALUE, err, "%zu is not below %s, %zu", *offset,
                            period_key, *period);
    return TG_OK;
}

static int read_mamba(struct tg_json c, const struct tg_model_spec *spec,
                      struct tg_recurrent_spec *r, struct tg_err *err)
{
    size_t expand = 2;
    int rc;

    *r = (struct tg_recurrent_spec){.state = 16,
                                    .conv = 4,
                                    .rank = (spec->width + 15) / 16,
                                    .conv_bias = true,
                                    .norm = true,
                                    .norm_eps = spec->norm.eps};
    if ((rc = tg_config_size_or(c, "mamba_d_state", 1, TG_MAX_HEAD_DIM, &r->state, err)) ||
        (rc = tg_config_size_or(c, "mamba_d_conv", 1, 32, &r->conv, err)) ||
        (rc = tg_config_size_or(c, "mamba_expand", 1, 1024, &expand, err)) ||
        (strcmp(tg_json_string(tg_json_key(c, "mamba_dt_rank")), "auto") != 0 &&
         (rc = tg_config_size_or(c, "mamba_dt_rank", 1, TG_MAX_WIDTH, &r->rank, err))) ||
        (rc = tg_json_get_bool_or(c, "mamba_conv_bias", &r->conv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "mamba_proj_bias", &r->proj_bias, err)))
        return rc;
    r->out_bias = r->proj_bias;
    r->inner = expand * spec->width;
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults d = {
        .kv_heads = 8, .max_positions = 262144, .bos_id = 1, .eos_id = 2, .no_rotary = true};
    struct tg_moe_spec moe = {.experts = 16, .per_token = 2};
    struct tg_recurrent_spec r;
    size_t attention[2] = {8, 4}, experts[2] = {2, 1};
    int rc;

    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_mamba(c, spec, &r, err)) ||
        (rc = read_period(c, "attn_layer_period", "attn_layer_offset", &attention[0], &attention[1],
                          err)) ||
        (rc = read_period(c, "expert_layer_period", "expert_layer_offset", &experts[0], &experts[1],
                          err)) ||
        (rc = tg_config_size_or(c, "num_experts", 1, TG_MAX_EXPERTS, &moe.experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &moe.per_token, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *l = &spec->layers[i];
        moe.mlp_dim = l->mlp_dim;
        if (i % attention[0] != attention[1])
            tg_layer_recur(l, "mamba1", &r);
        if (moe.experts > 1 && i % experts[0] == experts[1])
            tg_layer_experts(l, &moe);
    }
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    {"[model.]embed_tokens.weight", "embed.weight", NULL},
    {"[model.]final_layernorm.weight", "norm_out.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {"[model.]layers.{i}.input_layernorm.weight", "layers.{i}.norm_in.weight", NULL},
    {"[model.]layers.{i}.pre_ff_layernorm.weight", "layers.{i}.norm_mlp.weight", NULL},
    {"[model.]layers.{i}.feed_forward.gate_proj.weight", "layers.{i}.mlp.gate.weight", NULL},
    {"[model.]layers.{i}.feed_forward.up_proj.weight", "layers.{i}.mlp.up.weight", NULL},
    {"[model.]layers.{i}.feed_forward.down_proj.weight", "layers.{i}.mlp.down.weight", NULL},
    {"[model.]layers.{i}.feed_forward.router.weight", "layers.{i}.moe.router.weight", NULL},
    {"[model.]layers.{i}.feed_forward.experts.{e}.gate_proj.weight", "layers.{i}.moe.gate.weight",
     tg_layout_expert},
    {"[model.]layers.{i}.feed_forward.experts.{e}.up_proj.weight", "layers.{i}.moe.up.weight",
     tg_layout_expert},
    {"[model.]layers.{i}.feed_forward.experts.{e}.down_proj.weight", "layers.{i}.moe.down.weight",
     tg_layout_expert},
    {"[model.]layers.{i}.feed_forward.experts.gate_up_proj", "layers.{i}.moe.gate.weight",
     tg_layout_experts_first},
    {"[model.]layers.{i}.feed_forward.experts.gate_up_proj", "layers.{i}.moe.up.weight",
     tg_layout_experts_second},
    {"[model.]layers.{i}.feed_forward.experts.down_proj", "layers.{i}.moe.down.weight", NULL},
    TG_NAMES_ATTENTION(NULL),
    {"[model.]layers.{i}.mamba.in_proj.weight", "layers.{i}.mixer.in.weight", NULL},
    {"[model.]layers.{i}.mamba.in_proj.bias", "layers.{i}.mixer.in.bias", NULL},
    {"[model.]layers.{i}.mamba.conv1d.weight", "layers.{i}.mixer.conv.weight", tg_layout_squeeze},
    {"[model.]layers.{i}.mamba.conv1d.bias", "layers.{i}.mixer.conv.bias", NULL},
    {"[model.]layers.{i}.mamba.x_proj.weight", "layers.{i}.mixer.x.weight", NULL},
    {"[model.]layers.{i}.mamba.dt_layernorm.weight", "layers.{i}.mixer.dt_norm.weight", NULL},
    {"[model.]layers.{i}.mamba.b_layernorm.weight", "layers.{i}.mixer.b_norm.weight", NULL},
    {"[model.]layers.{i}.mamba.c_layernorm.weight", "layers.{i}.mixer.c_norm.weight", NULL},
    {"[model.]layers.{i}.mamba.dt_proj.weight", "layers.{i}.mixer.dt.weight", NULL},
    {"[model.]layers.{i}.mamba.dt_proj.bias", "layers.{i}.mixer.dt.bias", NULL},
    {"[model.]layers.{i}.mamba.A_log", "layers.{i}.mixer.A_log", NULL},
    {"[model.]layers.{i}.mamba.D", "layers.{i}.mixer.skip", NULL},
    {"[model.]layers.{i}.mamba.out_proj.weight", "layers.{i}.mixer.out.weight", NULL},
    {"[model.]layers.{i}.mamba.out_proj.bias", "layers.{i}.mixer.out.bias", NULL},
    {NULL, NULL, NULL},
};

static const char *const types[] = {"jamba", NULL};

const struct tg_family tg_family_jamba = {
    .name = "jamba",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
