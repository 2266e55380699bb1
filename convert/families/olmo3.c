/* OLMo 3 (Olmo3Config): OLMo 2 with a window in three layers of four; what scales the rotary is for
 * full layers alone. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048,
        .bos_id = -1,
        .eos_id = 50279,
        .norm.eps = 1e-5,
        .theta = 500000,
        .local_theta = 500000,
        .layer = {.residual = TG_RESIDUAL_POST, .qk_norm = TG_QK_WIDE},
    };
    size_t window;
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)))
        return rc;
    return tg_config_layer_types(c, window, 4, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_POST, TG_NAMES_ATTENTION(NULL), TG_NAMES_MLP, {NULL, NULL, NULL},
};

static const char *const types[] = {"olmo3", NULL};

const struct tg_family tg_family_olmo3 = {
    .name = "olmo3",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
