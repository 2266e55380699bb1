/* Everything of a mixer whose heads compute a joint denominator (joint.h): what differs between
 * such rows is in their spec and their schema's parameters (far_logit or window_logit, sink, gate,
 * maps), so a row is these functions and its own `inherit`. */
#ifndef TG_LINEARIZE_JOINT_MIXER_H
#define TG_LINEARIZE_JOINT_MIXER_H

#include "linearize/mixers/joint_step.h"
#include "linearize/mixers/mixer.h"

size_t tg_joint_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b);
size_t tg_joint_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                           bool backward);
void tg_joint_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, float *y, float *saved,
                        float *work);
void tg_joint_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, const float *dy,
                        const float *saved, float *dx, const struct tg_mixer_grads *d, float *work);
size_t tg_joint_mixer_state(const struct tg_mixer *m, size_t capacity);
size_t tg_joint_mixer_step_work(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                                int threads);
void tg_joint_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, size_t capacity, const float *x,
                         float *const *states, float *y, float *work);

/* Far branch and window of a layer, for rows with another way of putting them together */
struct tg_far tg_mixer_far(const struct tg_mixer *m, size_t lag);
struct tg_attn tg_mixer_attn(const struct tg_mixer *m);
struct tg_joint tg_mixer_joint(const struct tg_mixer *m);
void tg_mixer_fill(float *data, size_t count, float value);
/* First values of new parameters: maps get ones on the diagonal of each head's [K,F], so that
 * features begin as the head's own components; others the value of their row in `starts` (ends with
 * a NULL name), or 0. */
struct tg_mixer_start {
    const char *name;
    float value;
};
void tg_mixer_start_fill(const struct tg_mixer *m, const struct tg_mixer_start *starts, size_t rule,
                         float *data, size_t count);
/* x with 1 / (1 - sigmoid(x)) = distance, of 2 to 10^4: a decay under which the past counts for
 * about so many tokens */
float tg_mixer_decay_logit(double distance);

#endif
