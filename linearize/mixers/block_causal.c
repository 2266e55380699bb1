/* Softmax inside chunks of C tokens counted from the start of the text, gated linear attention over
 * the chunks before, and sinks, under one denominator (joint.h):
 *
 *   y_t = (sum_own e^{s_tj} v_j + e^{c_h} sum_before D_tj phi(q_t).phi(k_j) v_j)
 *         / (sum_own e^{s_tj} + e^{c_h} sum_before D_tj phi.phi + sum_m e^{sink_hm})
 *
 * own: j <= t of t's chunk, before: all earlier chunks; D_tj the product of sigmoid(gate_l),
 * l = j+1..t. Chunked softmax with a linear state is ARFlow's (arXiv 2501.16085), there without
 * causality inside a chunk and with a decay per chunk. */
#include <string.h>

#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

static const struct tg_mixer_start starts[] = {
    {"gate.bias", 5},
    {"sink", -4},
    {NULL, 0},
};

/* Where the teacher's look-back is known, keys fade over as many tokens as it looks back. */
static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    tg_mixer_start_fill(m, starts, rule, data, count);
    if (o->stats && strcmp(m->spec->mixer->params[rule].name, "gate.bias") == 0)
        for (size_t h = 0; h < count; h++)
            data[h] = tg_mixer_decay_logit(o->stats->distance[h]);
}

const struct tg_mixer_ops tg_mixer_block_causal = {
    .name = "block_causal",
    .saved_floats = tg_joint_mixer_saved,
    .work_floats = tg_joint_mixer_work,
    .forward = tg_joint_mixer_fwd,
    .backward = tg_joint_mixer_bwd,
    .state_floats = tg_joint_mixer_state,
    .step_work_floats = tg_joint_mixer_step_work,
    .step = tg_joint_mixer_step,
    .inherit = inherit,
};
