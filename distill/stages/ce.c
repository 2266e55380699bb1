/* Plain next-token cross-entropy; no teacher runs. */
#include "distill/stages/heads.h"
#include "distill/stages/rows.h"

static int ce_batch(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b,
                    double *loss, struct tg_err *err)
{
    return tg_heads_batch(io, ids, b, 1, loss, err);
}

const struct tg_stage tg_stage_ce = {
    .name = "ce",
    .summary = "next-token cross-entropy, without the teacher",
    .defaults = {.tokens = 1000000,
                 .train = TG_TRAIN_ALL,
                 .lr = 1e-4,
                 .lr_new = 1e-3,
                 .lr_end = 0.1,
                 .batch = 8},
    .begin = tg_heads_begin,
    .batch = ce_batch,
    .end = tg_heads_end,
};
