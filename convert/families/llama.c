/* Llama (LlamaConfig of transformers 4 and 5): softmax everywhere, optional biases on all four
 * projections and on the MLP. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .max_positions = 2048, .bos_id = 1, .eos_id = 2};
    bool attention_bias = false, mlp_bias = false;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_json_get_bool_or(c, "attention_bias", &attention_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "mlp_bias", &mlp_bias, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        spec->layers[i].qkv_bias = spec->layers[i].o_bias = attention_bias;
        spec->layers[i].mlp_bias = mlp_bias;
    }
    return TG_OK;
}

static const char *const types[] = {"llama", NULL};

const struct tg_family tg_family_llama = {
    .name = "llama",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
