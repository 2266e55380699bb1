/* The window beside a linear branch: softmax over the last keys, with sinks in its denominator, on
 * heads that are projected and rotated already; while decoding, a ring of the last keys and values
 * for each sequence. */
#ifndef TG_LINEARIZE_BESIDE_H
#define TG_LINEARIZE_BESIDE_H

#include "linearize/mixers/joint.h"
#include "linearize/mixers/mixer.h"
#include "linearize/mixers/ring.h"

struct tg_beside {
    struct tg_joint joint; /* without far branch */
    struct tg_ring ring;
};
/* False, and all sizes zero, if the layer has no window. */
bool tg_beside_of(const struct tg_mixer *m, struct tg_beside *w);
static inline size_t tg_beside_state(const struct tg_beside *w)
{
    return tg_ring_floats(&w->ring);
}

/* Forward and backward of whole sequences are tg_joint_fwd and tg_joint_bwd on w->joint. Decode: q
 * [rows,H,K], k [rows,G,K], v [rows,G,V] of new tokens -> y [rows,H,V]; the rings are updated. */
size_t tg_beside_step_work(const struct tg_beside *w, const struct tg_batch *b, int threads);
void tg_beside_step(const struct tg_ctx *ctx, const struct tg_beside *w, const struct tg_batch *b,
                    const float *q, const float *k, const float *v, struct tg_states states,
                    float *y, float *work);

#endif
