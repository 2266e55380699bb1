/* LoLCATs (arXiv 2410.10254; HazyResearch/lolcats, linear_window_attention_sw): one denominator,
 * window scores relative to their maximum m_t and scaled by b_h = sigmoid(window_logit_h), far
 * branch not:
 *
 *   y_t = (b_h sum_win e^{s_tj - m_t} v_j + sum_far D_tj phi(q_t).phi(k_j) v_j)
 *         / (b_h sum_win e^{s_tj - m_t} + sum_far D_tj phi(q_t).phi(k_j) + sum_m e^{sink_hm})
 *
 * m_t is part of the definition and a constant for the gradient. As published D = 1 and there are
 * no sinks; the gated form has both. */
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

/* b = 0.1 as published; gate and sink those of the gated form. */
static const struct tg_mixer_start starts[] = {
    {"window_logit", -2.1972246F},
    {"gate.bias", 6},
    {"sink", -4},
    {NULL, 0},
};

static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    (void)o;
    tg_mixer_start_fill(m, starts, rule, data, count);
}

const struct tg_mixer_ops tg_mixer_lolcats = {
    .name = "lolcats",
    .saved_floats = tg_joint_mixer_saved,
    .work_floats = tg_joint_mixer_work,
    .forward = tg_joint_mixer_fwd,
    .backward = tg_joint_mixer_bwd,
    .state_floats = tg_joint_mixer_state,
    .step_work_floats = tg_joint_mixer_step_work,
    .step = tg_joint_mixer_step,
    .inherit = inherit,
};
