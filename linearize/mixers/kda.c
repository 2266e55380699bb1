/* Kimi Delta Attention (Kimi Linear, arXiv 2510.26692); equations in delta_mixer.h. */
#include "linearize/mixers/delta_mixer.h"
#include "linearize/mixers/rows.h"

const struct tg_mixer_ops tg_mixer_kda = {
    .name = "kda",
    .saved_floats = tg_delta_mixer_saved,
    .work_floats = tg_delta_mixer_work,
    .forward = tg_delta_mixer_fwd,
    .backward = tg_delta_mixer_bwd,
    .state_floats = tg_delta_mixer_state,
    .step = tg_delta_mixer_step,
    .inherit = NULL,
};
