/* Lightning attention of MiniMax (arXiv 2501.08313): silu of q, k and v, a fixed decay per head, a
 * norm over all heads. Equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .gate = TG_LINEAR_SLOPES,
    .silu_q = true,
    .silu_k = true,
    .silu_v = true,
    .norm = TG_LINEAR_NORM_WIDE,
    .z = TG_GATE_FN_SIGMOID,
    .scale = 1,
};

const struct tg_mixer_ops tg_mixer_lightning = {
    .name = "lightning", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
