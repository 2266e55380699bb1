/* Mamba-2 (Mamba2Config): nothing but state-space layers, without attention and mlp. */
#include <math.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_layer(struct tg_json c, struct tg_model_spec *spec, struct tg_recurrent_spec *r,
                      struct tg_err *err)
{
    size_t expand = 2;
    int rc;

    *r = (struct tg_recurrent_spec){.v_heads = 128,
                                    .v_dim = 64,
                                    .state = 128,
                                    .groups = 8,
                                    .conv = 4,
                                    .conv_bias = true,
                                    .norm = true,
                                    .norm_eps = spec->norm.eps};
    if ((rc = tg_config_size_or(c, "num_heads", 1, TG_MAX_HEADS, &r->v_heads, err)) ||
        (rc = tg_config_size_or(c, "head_dim", 1, TG_MAX_HEAD_DIM, &r->v_dim, err)) ||
        (rc = tg_config_size_or(c, "state_size", 1, TG_MAX_HEAD_DIM, &r->state, err)) ||
        (rc = tg_config_size_or(c, "n_groups", 1, TG_MAX_HEADS, &r->groups, err)) ||
        (rc = tg_config_size_or(c, "conv_kernel", 1, 32, &r->conv, err)) ||
        (rc = tg_config_size_or(c, "expand", 1, 1024, &expand, err)) ||
        (rc = tg_json_get_bool_or(c, "use_conv_bias", &r->conv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "use_bias", &r->proj_bias, err)) ||
        (rc = tg_config_limits(c, "time_step_limit", &r->dt_min, &r->dt_max, err)))
        return rc;
    r->out_bias = r->proj_bias;
    r->inner = expand * spec->width;
    if (r->inner != r->v_heads * r->v_dim)
        return tg_json_fail(c, "head_dim", TG_ERR_VALUE, err,
                            "%zu heads of %zu are not %zu channels", r->v_heads, r->v_dim,
                            r->inner);
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults d = {.max_positions = 0,
                                                .bos_id = 0,
                                                .eos_id = 2,
                                                .norm.eps = 1e-5,
                                                .keys.eps = "layer_norm_epsilon"};
    struct tg_layer_spec l = {.mlp_kind = TG_MLP_NONE};
    struct tg_recurrent_spec r;
    int rc;

    if ((rc = tg_config_model(c, &d, spec, err)) ||
        (rc = tg_config_activation(c, &d, &l.activation, err)) ||
        (rc = read_layer(c, spec, &r, err)))
        return rc;
    if (l.activation != TG_ACT_SILU)
        return tg_json_fail(c, "hidden_act", TG_ERR_UNSUPPORTED, err, "only silu is supported");
    tg_layer_recur(&l, "mamba2", &r);
    return tg_config_layers(c, &d, &l, spec, err);
}

static const struct tg_name_rule names[] = {
    {"backbone.embeddings.weight", "embed.weight", NULL},
    {"backbone.embedding.weight", "embed.weight", NULL},
    {"backbone.norm_f.weight", "norm_out.weight", NULL},
    {"lm_head.weight", "head.weight", NULL},
    {"backbone.layers.{i}.norm.weight", "layers.{i}.norm_in.weight", NULL},
    TG_NAMES_MAMBA2("backbone.layers.{i}.mixer."),
    {NULL, NULL, NULL},
};

static const char *const types[] = {"mamba2", NULL};

const struct tg_family tg_family_mamba2 = {
    .name = "mamba2",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
