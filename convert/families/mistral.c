/* Mistral (MistralConfig): Llama without biases; sliding_window, when it is not null, applies to
 * every layer, and is 4096 when the key is absent. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {.kv_heads = 8,
                                                       .max_positions = 131072,
                                                       .bos_id = 1,
                                                       .eos_id = 2,
                                                       .sizes = {32000, 4096, 14336, 32, 32}};
    size_t window;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        tg_layer_attend(&spec->layers[i], window);
    return TG_OK;
}

static const char *const types[] = {"mistral", NULL};

const struct tg_family tg_family_mistral = {
    .name = "mistral",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
