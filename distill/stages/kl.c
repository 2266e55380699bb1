/* Logit distillation: KL(teacher || student) over all positions at temperature T, with an optional
 * share of cross-entropy (heads.h). */
#include "distill/stages/heads.h"
#include "distill/stages/rows.h"

static int kl_batch(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b,
                    double *loss, struct tg_err *err)
{
    return tg_heads_batch(io, ids, b, io->set->ce_share, loss, err);
}

const struct tg_stage tg_stage_kl = {
    .name = "kl",
    .summary = "KL from the teacher's logits to the student's",
    .needs_teacher = true,
    .keeps_hidden = true,
    .defaults = {.tokens = 3000000,
                 .train = TG_TRAIN_ALL,
                 .lr = 7e-5,
                 .lr_new = 2e-3,
                 .lr_end = 0.01,
                 .batch = 4},
    .begin = tg_heads_begin,
    .batch = kl_batch,
    .end = tg_heads_end,
};
