/* OLMo 2 (Olmo2Config): norms after the branches, and over all heads of q and of k as one row. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048,
        .bos_id = -1,
        .eos_id = 50279,
        .norm.eps = 1e-5,
        .layer = {.residual = TG_RESIDUAL_POST, .qk_norm = TG_QK_WIDE},
    };
    int rc;

    rc = tg_config_attention_bias(c, &d.layer, err);
    return rc ? rc : tg_config_decoder(c, &d, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_POST, TG_NAMES_ATTENTION(NULL), TG_NAMES_MLP, {NULL, NULL, NULL},
};

static const char *const types[] = {"olmo2", NULL};

const struct tg_family tg_family_olmo2 = {
    .name = "olmo2",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
