/* Falcon-H1 (FalconH1Config): Mamba-2 and softmax attention side by side in every layer, with fixed
 * multipliers almost everywhere. Those of attention's input and of the keys go into the scale of
 * the scores, what is left of the first into that of its output. */
#include <math.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

struct factors {
    double embed, head, mlp[2], key, in, out;
};

static int read_factors(struct tg_json c, struct factors *f, struct tg_recurrent_spec *r,
                        struct tg_err *err)
{
    const struct {
        const char *key;
        double *to;
    } single[] = {
        {"embedding_multiplier", &f->embed},   {"lm_head_multiplier", &f->head},
        {"key_multiplier", &f->key},           {"attention_in_multiplier", &f->in},
        {"attention_out_multiplier", &f->out}, {"ssm_in_multiplier", &r->in_scale},
        {"ssm_out_multiplier", &r->out_scale},
    };
    int rc;

    for (size_t i = 0; i < sizeof single / sizeof *single; i++) {
        *single[i].to = 1;
        if ((rc = tg_json_get_num_or(c, single[i].key, 1e-9, 1e6, single[i].to, err)))
            return rc;
    }
    for (size_t i = 0; i < 5; i++)
        r->scales[i] = 1;
    f->mlp[0] = f->mlp[1] = 1;
    if ((rc = tg_config_numbers(c, "ssm_multipliers", 5, r->scales, err)))
        return rc;
    return tg_config_numbers(c, "mlp_multipliers", 2, f->mlp, err);
}

static int read_mamba(struct tg_json c, struct tg_model_spec *spec, struct tg_recurrent_spec *r,
                      struct tg_err *err)
{
    int rc;

    r->v_heads = 128;
    r->groups = 1;
    r->state = 256;
    r->conv = 4;
    r->conv_bias = r->norm_before_gate = true;
    r->inner =
        tg_json_key(c, "mamba_d_ssm").node ? 0 : 1024; /* null: mamba_expand times the width */
    if ((rc = tg_config_size_or(c, "mamba_d_ssm", 1, TG_MAX_MLP, &r->inner, err)) ||
        (rc = tg_config_mamba2(c, spec->width, r, err)) ||
        (rc = tg_json_get_bool_or(c, "mamba_rms_norm", &r->norm, err)) ||
        (rc = tg_json_get_bool_or(c, "mamba_norm_before_gate", &r->norm_before_gate, err)))
        return rc;
    r->out_bias = false;
    r->norm_groups = r->groups;
    r->norm_eps = spec->norm.eps;
    return tg_json_get_bool_or(c, "projectors_bias", &r->out_bias, err);
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 8, .max_positions = 8192, .bos_id = 1, .eos_id = 2, .norm.eps = 1e-5};
    struct tg_recurrent_spec r = {0};
    struct factors f;
    int rc;

    if ((rc = tg_config_biases(c, &d.layer, err)) || (rc = read_factors(c, &f, &r, err)))
        return rc;
    if (d.layer.qkv_bias && f.in != 1)
        return tg_json_fail(c, "attention_in_multiplier", TG_ERR_UNSUPPORTED, err,
                            "%g with attention_bias is not supported; known: 1", f.in);
    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_mamba(c, spec, &r, err)))
        return rc;
    r.beside_scale = f.in * f.out;
    spec->embed_scale = f.embed;
    spec->logit_scale = f.head;
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *l = &spec->layers[i];
        l->mixer = tg_mixer_schema_find("mamba2_attention");
        l->recurrent = r;
        l->attn_scale *= f.in * f.in * f.key;
        l->gate_scale = f.mlp[0];
        l->down_scale = f.mlp[1];
    }
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FEED_FORWARD,
    TG_NAMES_ATTENTION(NULL),
    TG_NAMES_MAMBA2("[model.]layers.{i}.mamba."),
    {NULL, NULL, NULL},
};

static const char *const types[] = {"falcon_h1", NULL};

const struct tg_family tg_family_falcon_h1 = {
    .name = "falcon_h1",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
