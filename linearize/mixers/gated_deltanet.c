/* Gated DeltaNet (arXiv 2412.06464), as in Qwen3-Next, Qwen3.5 and OLMo hybrid: the delta rule
 * with a decay per head. Equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe recipe = {
    .rule = TG_RULE_DELTA,
    .gate = TG_LINEAR_DECAY,
    .unit = true,
    .norm = TG_LINEAR_NORM_HEAD,
    .z = TG_GATE_FN_SILU,
};

const struct tg_mixer_ops tg_mixer_gated_deltanet = {
    .name = "gated_deltanet", .recipe = &recipe, TG_LINEAR_MIXER_OPS};
