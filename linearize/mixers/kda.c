/* Kimi Delta Attention (Kimi Linear, arXiv 2510.26692): the delta rule with a decay per channel.
 * Equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .rule = TG_RULE_DELTA,
    .gate = TG_LINEAR_DECAY,
    .unit = true,
    .norm = TG_LINEAR_NORM_HEAD,
    .z = TG_GATE_FN_SIGMOID,
};

const struct tg_mixer_ops tg_mixer_kda = {.name = "kda", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
