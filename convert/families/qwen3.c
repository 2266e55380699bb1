/* Qwen3, dense (Qwen3Config): RMS norms over each head of q and k before the rotary; a head size of
 * 128 unless the config says otherwise; attention_bias covers all four projections; windows as in
 * qwen2. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {
        .kv_heads = 32, .head_dim = 128, .max_positions = 32768, .bos_id = -1, .eos_id = -1};
    bool attention_bias = false;
    int rc;

    if ((rc = tg_config_decoder(c, &defaults, spec, err)) ||
        (rc = tg_config_qwen_windows(c, spec, err)) ||
        (rc = tg_json_get_bool_or(c, "attention_bias", &attention_bias, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        spec->layers[i].qkv_bias = spec->layers[i].o_bias = attention_bias;
        spec->layers[i].qk_norm = true;
    }
    return TG_OK;
}

static const char *const types[] = {"qwen3", NULL};

const struct tg_family tg_family_qwen3 = {
    .name = "qwen3",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
