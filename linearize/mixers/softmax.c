/* Softmax attention over all earlier tokens, as transformers' Llama, Mistral, Qwen2 and Qwen3
 * layers:
 *
 *   y_t = sum_{j <= t} e^{s_tj} v_j / sum_{j <= t} e^{s_tj},   s_tj = scale q_t . k_j
 *
 * Its decode cache grows with the text. Nothing in it is new, so it has no inherit. */
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

const struct tg_mixer_ops tg_mixer_softmax = {
    .name = "softmax",
    .saved_floats = tg_joint_mixer_saved,
    .work_floats = tg_joint_mixer_work,
    .forward = tg_joint_mixer_fwd,
    .backward = tg_joint_mixer_bwd,
    .state_floats = tg_joint_mixer_state,
    .step_work_floats = tg_joint_mixer_step_work,
    .step = tg_joint_mixer_step,
    .inherit = NULL,
};
