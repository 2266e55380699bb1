/* BASED (arXiv 2402.18668): linear attention with the second order Taylor map of projected heads.
 * Equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {.map = true, .scale = 1};

const struct tg_mixer_ops tg_mixer_based = {
    .name = "based", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
