/* Bamba (BambaConfig): Mamba-2 layers, softmax attention with half-rotated heads at
 * attn_layer_indices. */
#include "convert/config_recurrent.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {.kv_heads = 8,
                                   .max_positions = 262144,
                                   .bos_id = 1,
                                   .eos_id = 2,
                                   .norm.eps = 1e-5,
                                   .rotary_share = 0.5};
    struct tg_recurrent_spec r = {
        .v_heads = 128, .groups = 1, .state = 256, .conv = 4, .conv_bias = true, .norm = true};
    bool attends[TG_MAX_LAYERS];
    int rc;

    if ((rc = tg_config_biases(c, &d.layer, err)) || (rc = tg_config_decoder(c, &d, spec, err)) ||
        (rc = tg_config_mamba2(c, spec->width, &r, err)) ||
        (rc = tg_config_listed(c, "attn_layer_indices", 0, spec->layer_count, attends, err)))
        return rc;
    r.norm_eps = spec->norm.eps;
    for (size_t i = 0; i < spec->layer_count; i++)
        if (!attends[i])
            tg_layer_recur(&spec->layers[i], "mamba2", &r);
    return TG_OK;
}

static const struct tg_name_rule names[] = {
    TG_NAMES_FEED_FORWARD,
    TG_NAMES_ATTENTION(NULL),
    TG_NAMES_MAMBA2("[model.]layers.{i}.mamba."),
    {NULL, NULL, NULL},
};

static const char *const types[] = {"bamba", NULL};

const struct tg_family tg_family_bamba = {
    .name = "bamba",
    .types = types,
    .names = names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
