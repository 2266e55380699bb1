/* Softmax attention over the last `window` tokens, with learned sink logits in the denominator:
 *   y_t = sum_{t-j < window} e^{s_tj} v_j / (sum_{t-j < window} e^{s_tj} + sum_m e^{sink_hm})
 * Windows: Mistral 7B (arXiv 2310.06825); sink logits: gpt-oss, after StreamingLLM (arXiv
 * 2309.17453). */
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

/* The only new parameter is the sinks: small beside the scores of a trained layer. */
static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    (void)m;
    (void)o;
    (void)rule;
    tg_mixer_fill(data, count, -4);
}

const struct tg_mixer_ops tg_mixer_window = {
    .name = "window",
    .saved_floats = tg_joint_mixer_saved,
    .work_floats = tg_joint_mixer_work,
    .forward = tg_joint_mixer_fwd,
    .backward = tg_joint_mixer_bwd,
    .state_floats = tg_joint_mixer_state,
    .step_work_floats = tg_joint_mixer_step_work,
    .step = tg_joint_mixer_step,
    .inherit = inherit,
};
