/* Gated DeltaNet as the layers of Qwen3-Next, Qwen3.5 and OLMo hybrid (Yang et al. 2024, arXiv
 * 2412.06464); equations in delta_mixer.h. */
#include "linearize/mixers/delta_mixer.h"
#include "linearize/mixers/rows.h"

const struct tg_mixer_ops tg_mixer_gated_deltanet = {
    .name = "gated_deltanet",
    .saved_floats = tg_delta_mixer_saved,
    .work_floats = tg_delta_mixer_work,
    .forward = tg_delta_mixer_fwd,
    .backward = tg_delta_mixer_bwd,
    .state_floats = tg_delta_mixer_state,
    .step = tg_delta_mixer_step,
    .inherit = NULL,
};
