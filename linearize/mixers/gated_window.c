/* The default: softmax window, gated far branch and sinks under one denominator (joint.h):
 *   y_t = (sum_win e^{s_tj} v_j + e^{c_h} sum_far D_tj phi(q_t).phi(k_j) v_j)
 *         / (sum_win e^{s_tj} + e^{c_h} sum_far D_tj phi.phi + sum_m e^{sink_hm})
 * win: t - j < window, far: the rest; D_tj the product of sigmoid(gate_l), l = j+1..t. q and k
 * carry rotary in both parts. LoLCATs (arXiv 2410.10254) without its maximum in the definition,
 * with Lizard's gate (arXiv 2507.09025). */
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

/* The rest starts at 0, maps at the identity: far keys fade with a half-life of about 100 tokens.
 */
static const struct tg_mixer_start starts[] = {
    {"gate.bias", 5},
    {"sink", -4},
    {NULL, 0},
};

static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    (void)o;
    tg_mixer_start_fill(m, starts, rule, data, count);
}

const struct tg_mixer_ops tg_mixer_gated_window = {
    .name = "gated_window",
    .saved_floats = tg_joint_mixer_saved,
    .work_floats = tg_joint_mixer_work,
    .forward = tg_joint_mixer_fwd,
    .backward = tg_joint_mixer_bwd,
    .state_floats = tg_joint_mixer_state,
    .step_work_floats = tg_joint_mixer_step_work,
    .step = tg_joint_mixer_step,
    .inherit = inherit,
};
