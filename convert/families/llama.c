/* Llama (LlamaConfig of transformers 4 and 5): softmax everywhere, optional biases on all four
 * projections and on the MLP. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 2048, .bos_id = 1, .eos_id = 2, .sizes = {32000, 4096, 11008, 32, 32}};
    int rc;

    rc = tg_config_biases(c, &d.layer, err);
    return rc ? rc : tg_config_decoder(c, &d, spec, err);
}

static const char *const types[] = {"llama", NULL};

const struct tg_family tg_family_llama = {
    .name = "llama",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
