/* Private to convert: the stored tensors of an export, each put together from parameters by the
 * target's rules. */
#ifndef TG_CONVERT_EXPORT_STORED_H
#define TG_CONVERT_EXPORT_STORED_H

#include "convert/target.h"

/* One parameter, or a part of it, in one stored tensor */
struct tg_stored_part {
    size_t param; /* of the export's params */
    size_t expert;
    struct tg_layout layout;
    size_t tensor; /* of the plan */
};
struct tg_stored_plan {
    struct tg_tensor_plan *tensors; /* owned, names too; in the order of the parameters */
    size_t count, cap;
    size_t own; /* those below are put together from parameters, the rest are the target's extras */
    struct tg_stored_part *parts; /* owned; sorted by tensor */
    size_t part_count, part_cap;
    size_t *first; /* owned, [own + 1]: parts of each tensor */
};
/* Every element of every parameter goes to one place, every element of every tensor comes from one.
 */
int tg_stored_plan_make(struct tg_stored_plan *plan, const struct tg_export *x, struct tg_err *err);
void tg_stored_plan_release(struct tg_stored_plan *plan);

/* Values of parameters, of which the last few are kept: the parts of fused tensors and of experts
 * take turns. */
enum { TG_FILL_KEPT = 4 };
struct tg_fill_cache {
    float *data[TG_FILL_KEPT]; /* owned */
    size_t param[TG_FILL_KEPT], used[TG_FILL_KEPT], clock;
};
void tg_fill_cache_release(struct tg_fill_cache *c);
/* Parameter i before it is rounded; borrowed, until three others have been asked for. */
int tg_fill_cached(struct tg_fill_cache *c, const struct tg_export *x, size_t i, const float **data,
                   struct tg_err *err);
/* Tensor t of the plan as float32, in *data (tg_free) */
int tg_stored_build(const struct tg_stored_plan *plan, const struct tg_export *x,
                    struct tg_fill_cache *c, size_t t, float **data, struct tg_err *err);
size_t tg_stored_elements(const struct tg_tensor_plan *t);

#endif
