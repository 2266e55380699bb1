/* Granite 3 (GraniteConfig): Llama with four multipliers. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048, .bos_id = 1, .eos_id = 2, .layer.attn_scale = 1};
    double divisor = 1;
    int rc;

    spec->embed_scale = 1;
    d.layer.mixer_scale = 1;
    if ((rc = tg_config_biases(c, &d.layer, err)) ||
        (rc = tg_json_get_num_or(c, "embedding_multiplier", 1e-6, 1e6, &spec->embed_scale, err)) ||
        (rc = tg_json_get_num_or(c, "logits_scaling", 1e-6, 1e6, &divisor, err)) ||
        (rc = tg_json_get_num_or(c, "residual_multiplier", 1e-6, 1e6, &d.layer.mixer_scale, err)) ||
        (rc = tg_json_get_num_or(c, "attention_multiplier", 1e-6, 1e6, &d.layer.attn_scale, err)))
        return rc;
    d.layer.mlp_scale = d.layer.mixer_scale;
    spec->logit_scale = 1 / divisor;
    return tg_config_decoder(c, &d, spec, err);
}

static const char *const types[] = {"granite", NULL};

const struct tg_family tg_family_granite = {
    .name = "granite",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
