/* Gemma (GemmaConfig): embeddings times width^0.5, norms by 1 + weight, a gated mlp with the tanh
 * form of gelu. */
#include <math.h>

#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 16,
                                   .head_dim = 256,
                                   .max_positions = 8192,
                                   .bos_id = 2,
                                   .eos_id = 1,
                                   .norm.plus_one = true,
                                   .activation = "gelu_pytorch_tanh",
                                   .tied = true};
    int rc;

    /* the key of version 4.39 and later, which was to go before a hidden_act of "gelu" */
    if (tg_json_has(tg_json_key(c, "hidden_activation")))
        d.keys.activation = "hidden_activation";
    if ((rc = tg_config_refuse(c, "use_bidirectional_attention", err)) ||
        (rc = tg_config_attention_bias(c, &d.layer, err)))
        return rc;
    rc = tg_config_decoder(c, &d, spec, err);
    spec->embed_scale = sqrt((double)spec->width);
    return rc;
}

static const char *const types[] = {"gemma", NULL};

const struct tg_family tg_family_gemma = {
    .name = "gemma",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
