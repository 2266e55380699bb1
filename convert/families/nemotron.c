/* Nemotron and Minitron (NemotronConfig): layer norms by 1 + weight with bias, a plain mlp with
 * relu^2, half of each head rotated. */
#include "convert/config.h"
#include "convert/names.h"

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_config_defaults d = {
        .max_positions = 4096,
        .bos_id = 2,
        .eos_id = 3,
        .norm = {TG_NORM_LAYER, .eps = 1e-5, .plus_one = true, .bias = true},
        .activation = "relu2",
        .rotary_share = 0.5,
        .layer.mlp_kind = TG_MLP_PLAIN,
        .keys.eps = "norm_eps",
    };
    int rc;

    rc = tg_config_biases(c, &d.layer, err);
    return rc ? rc : tg_config_decoder(c, &d, spec, err);
}

static const char *const types[] = {"nemotron", NULL};

const struct tg_family tg_family_nemotron = {
    .name = "nemotron",
    .types = types,
    .names = tg_decoder_names,
    .droppable = tg_decoder_droppable,
    .read_config = read_config,
};
