/* Qwen3, dense (Qwen3Config): RMS norms over each head of q and k before the rotary; a head size of
 * 128 unless the config says otherwise; attention_bias covers all four projections; windows as in
 * qwen2. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 32,
                                   .head_dim = 128,
                                   .max_positions = 32768,
                                   .bos_id = -1,
                                   .eos_id = -1,
                                   .sizes = {151936, 4096, 22016, 32, 32},
                                   .layer.qk_norm = TG_QK_HEAD};
    int rc;

    if ((rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_config_decoder(c, &d, spec, err)))
        return rc;
    return tg_config_qwen_windows(c, spec, err);
}

static const char *const types[] = {"qwen3", NULL};

const struct tg_family tg_family_qwen3 = {
    .name = "qwen3",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
