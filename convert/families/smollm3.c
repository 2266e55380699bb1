/* SmolLM3 (SmolLM3Config): Llama without rotary in every no_rope_layer_interval-th layer, or where
 * no_rope_layers has 0; with use_sliding_window those see a window. */
#include "convert/config.h"
#include "convert/names.h"

/* 1: the layer is rotated */
static int read_rotated(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json list = tg_json_key(c, "no_rope_layers");
    size_t interval = 4, i = 0;
    int rc;

    if ((rc = tg_config_size_or(c, "no_rope_layer_interval", 1, (int64_t)1 << 31, &interval, err)))
        return rc;
    if (!tg_json_has(list)) {
        for (i = 0; i < spec->layer_count; i++)
            if ((i + 1) % interval == 0)
                spec->layers[i].rotary_dim = 0;
        return TG_OK;
    }
    if (!tg_json_is_array(list) || tg_json_count(list) != spec->layer_count)
        return tg_json_fail(c, "no_rope_layers", TG_ERR_VALUE, err,
                            "must be an array of num_hidden_layers = %zu numbers; it has %zu",
                            spec->layer_count, tg_json_count(list));
    for (struct tg_json v = tg_json_first(list); v.node; v = tg_json_next(v), i++) {
        if (!tg_json_is_number(v) || (tg_json_number(v) != 0 && tg_json_number(v) != 1))
            return tg_json_fail(v, "", TG_ERR_VALUE, err, "must be 0 or 1");
        if (tg_json_number(v) == 0)
            spec->layers[i].rotary_dim = 0;
    }
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 4,
                                   .max_positions = 32768,
                                   .bos_id = 128000,
                                   .eos_id = 128001,
                                   .tied = true,
                                   .theta = 2e6};
    bool use = false;
    size_t window;
    int rc;

    if ((rc = tg_config_biases(c, &d.layer, err)) ||
        (rc = tg_json_get_bool_or(c, "use_sliding_window", &use, err)) ||
        (rc = tg_config_window(c, 0, &window, err)))
        return rc;
    if ((rc = tg_config_decoder(c, &d, spec, err)) || (rc = read_rotated(c, spec, err)))
        return rc;
    if (tg_json_has(tg_json_key(c, "layer_types")))
        return tg_config_layer_types(c, use ? window : 0, 0, spec, err);
    for (size_t i = 0; i < spec->layer_count; i++)
        tg_layer_attend(&spec->layers[i], use && !spec->layers[i].rotary_dim ? window : 0);
    return TG_OK;
}

static const char *const types[] = {"smollm3", NULL};

const struct tg_family tg_family_smollm3 = {
    .name = "smollm3",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
