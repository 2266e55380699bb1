/* Gated linear attention (arXiv 2312.06635): a decay per key channel through a low rank. Equations
 * in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .gate = TG_LINEAR_SIGMOID, .norm = TG_LINEAR_NORM_HEAD, .z = TG_GATE_FN_SILU};

const struct tg_mixer_ops tg_mixer_gla = {.name = "gla", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
