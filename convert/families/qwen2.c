/* Qwen2 and Qwen2.5 (Qwen2Config): biases on q, k and v, none on o; windows from max_window_layers
 * upwards if use_sliding_window, or as layer_types says. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct tg_config_defaults defaults = {.kv_heads = 32,
                                                       .max_positions = 32768,
                                                       .bos_id = -1,
                                                       .eos_id = -1,
                                                       .sizes = {151936, 4096, 22016, 32, 32},
                                                       .layer.qkv_bias = true};
    const int rc = tg_config_decoder(c, &defaults, spec, err);

    return rc == TG_OK ? tg_config_qwen_windows(c, spec, err) : rc;
}

static const char *const types[] = {"qwen2", NULL};

const struct tg_family tg_family_qwen2 = {
    .name = "qwen2",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
