/* Mamba-2 layers of Mamba-2, Bamba and Granite hybrid; equations in mamba2_core.h. */
#include "linearize/mixers/mamba2_core.h"
#include "linearize/mixers/rows.h"

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    tg_mamba2_fwd(ctx, m, b, x, (struct tg_states){0}, y, saved, work);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    (void)capacity;
    return tg_mamba2_state(m);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    (void)capacity;
    tg_mamba2_fwd(ctx, m, b, x, (struct tg_states){states, 0}, y, NULL, work);
}

const struct tg_mixer_ops tg_mixer_mamba2 = {
    .name = "mamba2",
    .saved_floats = tg_mamba2_saved,
    .work_floats = tg_mamba2_work,
    .forward = fwd,
    .backward = tg_mamba2_bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = tg_mamba2_inherit,
};
