/* Linear attention with a feature map and the sum of weights below (Katharopoulos et al. 2020,
 * arXiv 2006.16236), or with a norm of each head's output in its place (plain_values). Equations in
 * linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {.map = true, .scale = 1};

const struct tg_mixer_ops tg_mixer_linear = {
    .name = "linear", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
