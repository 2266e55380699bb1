/* What each layer's softmax is worth: only that layer gets an untrained window; KL and recall lost,
 * inference only. All layers in one run: the teacher's prefix is shared, so layer l costs the
 * layers above it. Then pairs: everything windowed but the layer that matters most and one other.
 */
#ifndef TG_DISTILL_RANK_H
#define TG_DISTILL_RANK_H

#include "distill/eval.h"
#include "linearize/surgery/surgery.h"

struct tg_rank_settings {
    size_t window; /* 64 */
    size_t tokens; /* of text used (16k) */
    size_t length; /* 1024 */
    size_t items;  /* recall items a task (24) */
    size_t pairs;  /* 0: no pairs; else the layer that matters most is tried with this many others
                      (7) */
    uint64_t seed;
};
struct tg_rank_settings tg_rank_defaults(void);
int tg_rank_layers(struct tg_model *teacher, const struct tg_recall_source *s, const int32_t *ids,
                   size_t count, const struct tg_rank_settings *set, struct tg_rank *out,
                   const struct tg_progress *p, struct tg_err *err);

#endif
