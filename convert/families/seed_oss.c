/* Seed-OSS (SeedOssConfig): Llama with biases on q, k and v, and one on o if attention_out_bias. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 8,
                                   .head_dim = 128,
                                   .max_positions = 524288,
                                   .bos_id = 0,
                                   .eos_id = 2,
                                   .layer.qkv_bias = true};
    int rc;

    if ((rc = tg_json_get_bool_or(c, "attention_bias", &d.layer.qkv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "attention_out_bias", &d.layer.o_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "mlp_bias", &d.layer.mlp_bias, err)))
        return rc;
    return tg_config_decoder(c, &d, spec, err);
}

static const char *const types[] = {"seed_oss", NULL};

const struct tg_family tg_family_seed_oss = {
    .name = "seed_oss",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
