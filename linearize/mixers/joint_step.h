/* Decode of a joint denominator (joint.h), one or several new tokens of each sequence at a time.
 *
 * A state is a ring of the last `window` keys and values, with gates the logarithms of those
 * tokens', and the far state. Token p first moves the key p - window, whose slot it takes, into the
 * far state with the decay of the gates passed since. In blocks the ring holds the block that is
 * being read, and all of it moves when its last token is in. Without either it is softmax over
 * everything, whose ring never wraps. Many new tokens are run as a forward over [ring, new] that
 * starts from the far state. */
#ifndef TG_LINEARIZE_JOINT_STEP_H
#define TG_LINEARIZE_JOINT_STEP_H

#include "linearize/mixers/joint.h"

/* From so many new tokens on they are run in one piece, of this many rows at most, joined to the
 * ring's keys */
enum { TG_STEP_ROWS_MIN = 32, TG_STEP_PIECE = 2048 };

/* Floats of a sequence's state; zeroed = empty */
size_t tg_joint_state(const struct tg_joint *j, bool gated, size_t capacity);
size_t tg_joint_step_work(const struct tg_joint *j, const struct tg_batch *b, size_t capacity,
                          int threads);
/* As tg_joint_fwd, b->past[i] tokens being in states[i] */
void tg_joint_step(const struct tg_ctx *ctx, const struct tg_joint *j, const struct tg_batch *b,
                   size_t capacity, const float *q, const float *k, const float *v, const float *g,
                   float *const *states, float *y, float *work);

#endif
