/* What kl and ce share: a student's forward, a loss on its logits in chunks of rows, and its
 * backward. */
#ifndef TG_DISTILL_STAGES_HEADS_H
#define TG_DISTILL_STAGES_HEADS_H

#include "distill/stage.h"

/* One loss on logits: (1 - ce_share) T^2 KL(teacher/T || student/T) + ce_share CE; T^2 keeps the
 * gradient's size when T changes. Means over rows and over targets. */
int tg_heads_begin(struct tg_stage_io *io, const struct tg_batch *largest, struct tg_err *err);
int tg_heads_batch(struct tg_stage_io *io, const int32_t *ids, const struct tg_batch *b,
                   double ce_share, double *loss, struct tg_err *err);
void tg_heads_end(struct tg_stage_io *io);

#endif
