/* Command R (CohereConfig): one layer norm without bias for both branches, logits scaled, rotary
 * pairs side by side; with use_qk_norm a norm of its own for every head. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 8192,
        .bos_id = 5,
        .eos_id = 255001,
        .norm = {TG_NORM_LAYER, .eps = 1e-5},
        .tied = true,
        .theta = 500000,
        .layer = {.residual = TG_RESIDUAL_SHARED},
        .keys.eps = "layer_norm_eps",
    };
    bool norms = false;
    int rc;

    spec->logit_scale = 0.0625;
    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_json_get_bool_or(c, "use_qk_norm", &norms, err)) ||
        (rc = tg_json_get_num_or(c, "logit_scale", 1e-6, 1e6, &spec->logit_scale, err)))
        return rc;
    d.layer.qk_norm = norms ? TG_QK_EACH : TG_QK_NONE;
    return tg_config_decoder(c, &d, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_PRE,       TG_NAMES_ATTENTION(tg_layout_pairs),
    TG_NAMES_MLP,   {NULL, NULL, NULL},
};

static const char *const types[] = {"cohere", NULL};

const struct tg_family tg_family_cohere = {
    .name = "cohere",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
