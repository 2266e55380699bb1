/* Ministral (MinistralConfig): Mistral whose layer_types say which layers see the window; without
 * them all do, if there is one. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .kv_heads = 8, .max_positions = 131072, .bos_id = 1, .eos_id = 2};
    size_t window;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)))
        return rc;
    return tg_config_layer_types(c, window, spec->layer_count + 1, spec, err);
}

static const char *const types[] = {"ministral", NULL};

const struct tg_family tg_family_ministral = {
    .name = "ministral",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
