/* Helium (HeliumConfig): Llama with rotary pairs side by side; attention_bias covers q, k and v. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 20,
                                   .head_dim = 128,
                                   .max_positions = 4096,
                                   .bos_id = 1,
                                   .eos_id = 2,
                                   .norm.eps = 1e-8,
                                   .theta = 100000};
    int rc;

    if ((rc = tg_json_get_bool_or(c, "attention_bias", &d.layer.qkv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "mlp_bias", &d.layer.mlp_bias, err)))
        return rc;
    return tg_config_decoder(c, &d, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_PRE,       TG_NAMES_ATTENTION(tg_layout_pairs),
    TG_NAMES_MLP,   {NULL, NULL, NULL},
};

static const char *const types[] = {"helium", NULL};

const struct tg_family tg_family_helium = {
    .name = "helium",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
