/* OLMo (OlmoConfig): layer norms without weights, optional limits of q, k and v. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.max_positions = 2048,
                                   .bos_id = -1,
                                   .eos_id = 50279,
                                   .norm = {TG_NORM_LAYER, .eps = 1e-5, .bare = true},
                                   .keys.eps = ""};
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_json_get_num_or(c, "clip_qkv", 1e-6, 1e9, &d.layer.qkv_clip, err)))
        return rc;
    return tg_config_decoder(c, &d, spec, err);
}

static const char *const types[] = {"olmo", NULL};

const struct tg_family tg_family_olmo = {
    .name = "olmo",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
