/* Retention (RetNet, arXiv 2307.08621): a fixed decay per head, norm and gate of each head's
 * output. Equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .gate = TG_LINEAR_RETENTION, .norm = TG_LINEAR_NORM_HEAD, .z = TG_GATE_FN_SILU};

const struct tg_mixer_ops tg_mixer_retnet = {
    .name = "retnet", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
