/* Gemma 2 (Gemma2Config): Gemma with norms before and after each branch, capped scores and logits,
 * a window in every other layer. */
#include <math.h>

#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 4,
        .head_dim = 256,
        .max_positions = 8192,
        .bos_id = 2,
        .eos_id = 1,
        .norm.plus_one = true,
        .activation = "gelu_pytorch_tanh",
        .tied = true,
        .layer = {.residual = TG_RESIDUAL_SANDWICH},
        .keys.activation = "hidden_activation",
    };
    double scalar = 256;
    size_t window;
    int rc;

    if ((rc = tg_config_refuse(c, "use_bidirectional_attention", err)) ||
        (rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_json_get_num_or(c, "query_pre_attn_scalar", 1e-6, 1e9, &scalar, err)) ||
        (rc = tg_config_cap(c, "attn_logit_softcapping", 50, &d.layer.attn_softcap, err)) ||
        (rc = tg_config_cap(c, "final_logit_softcapping", 30, &spec->logit_softcap, err)))
        return rc;
    d.layer.attn_scale = 1 / sqrt(scalar);
    if ((rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)))
        return rc;
    spec->embed_scale = sqrt((double)spec->width);
    return tg_config_layer_types(c, window, 2, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_SANDWICH, TG_NAMES_ATTENTION(NULL), TG_NAMES_MLP, {NULL, NULL, NULL},
};

static const char *const types[] = {"gemma2", NULL};

const struct tg_family tg_family_gemma2 = {
    .name = "gemma2",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
