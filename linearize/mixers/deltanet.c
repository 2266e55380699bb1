/* DeltaNet (arXiv 2406.06484): the delta rule without decay, short convolution. Equations in
 * linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .rule = TG_RULE_DELTA, .unit = true, .norm = TG_LINEAR_NORM_HEAD};

const struct tg_mixer_ops tg_mixer_deltanet = {
    .name = "deltanet", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
