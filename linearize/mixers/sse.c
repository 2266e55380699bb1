/* Sparse state expansion (Pan et al. 2025, arXiv 2507.16577) over GLA and over Gated DeltaNet.
 * Equations in sse.h and linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_linear_recipe gla = {
    .gate = TG_LINEAR_SIGMOID, .norm = TG_LINEAR_NORM_HEAD, .z = TG_GATE_FN_SILU, .sparse = true};
static const struct tg_linear_recipe delta = {.rule = TG_RULE_DELTA,
                                              .gate = TG_LINEAR_DECAY,
                                              .unit = true,
                                              .norm = TG_LINEAR_NORM_HEAD,
                                              .z = TG_GATE_FN_SILU,
                                              .sparse = true};

const struct tg_mixer_ops tg_mixer_sse = {.name = "sse", .recipe = &gla, TG_LINEAR_MIXER_OPS};
const struct tg_mixer_ops tg_mixer_sse_deltanet = {
    .name = "sse_deltanet", .recipe = &delta, TG_LINEAR_MIXER_OPS};
