/* HGRN2 (arXiv 2404.07904): the key is what the forget gate lets go. Equations in linear_mixer.h.
 */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .gate = TG_LINEAR_FORGET, .silu_q = true, .norm = TG_LINEAR_NORM_WIDE};

const struct tg_mixer_ops tg_mixer_hgrn2 = {
    .name = "hgrn2", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
