/* Gemma 3, text (Gemma3TextConfig): Gemma 2 with norms of q and k, no caps, five layers of six with
 * a window and a rope of their own. */
#include <math.h>

#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .kv_heads = 4,
        .head_dim = 256,
        .max_positions = 131072,
        .bos_id = 2,
        .eos_id = 1,
        .sizes = {262208, 2304, 9216, 26, 8},
        .norm.plus_one = true,
        .activation = "gelu_pytorch_tanh",
        .tied = true,
        .theta = 1e6,
        .local_theta = 1e4,
        .layer = {.residual = TG_RESIDUAL_SANDWICH, .qk_norm = TG_QK_HEAD},
        .keys = {.activation = "hidden_activation", .local_theta = "rope_local_base_freq"},
    };
    double scalar = 256;
    size_t window, period = 6;
    int rc;

    if ((rc = tg_config_refuse(c, "use_bidirectional_attention", err)) ||
        (rc = tg_config_attention_bias(c, &d.layer, err)) ||
        (rc = tg_json_get_num_or(c, "query_pre_attn_scalar", 1e-6, 1e9, &scalar, err)) ||
        (rc = tg_config_cap(c, "attn_logit_softcapping", 0, &d.layer.attn_softcap, err)) ||
        (rc = tg_config_cap(c, "final_logit_softcapping", 0, &spec->logit_softcap, err)))
        return rc;
    d.layer.attn_scale = 1 / sqrt(scalar);
    if ((rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)) ||
        (rc = tg_config_size_or(c, "sliding_window_pattern", 1, (int64_t)1 << 31, &period, err)))
        return rc;
    spec->embed_scale = sqrt((double)spec->width);
    return tg_config_layer_types(c, window, period, spec, err);
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FRAME, TG_NAMES_SANDWICH, TG_NAMES_ATTENTION(NULL), TG_NAMES_MLP, {NULL, NULL, NULL},
};

static const char *const types[] = {"gemma3_text", NULL};

const struct tg_family tg_family_gemma3_text = {
    .name = "gemma3_text",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
