/* Inside linearize/surgery only. */
#ifndef TG_LINEARIZE_SURGERY_INTERNAL_H
#define TG_LINEARIZE_SURGERY_INTERNAL_H

#include "linearize/surgery/surgery.h"

/* Gives window, sinks and feature map of a mixer that has them their defaults, so that a file says
 * what they were. `mixer` must be set. */
void tg_plan_defaults(struct tg_plan_layer *p);
bool tg_schema_has(const struct tg_mixer_schema *schema, unsigned param_flag);
/* Number of `name` among the option's names, or an error that lists them; `where` begins it. */
int tg_plan_choose(enum tg_plan_key key, const char *name, const char *where, double *value,
                   struct tg_err *err);
/* Layers by the words of keep: sets chosen [layers]. can_change [layers] and rank are for ratio and
 * auto. `what` begins messages ("keep"). */
int tg_plan_pick(const char *what, const char *words, const struct tg_rank *rank,
                 const bool *can_change, bool *chosen, size_t layers, struct tg_err *err);
/* Row `name` of mixers.def that can replace softmax, or an error that lists those there are. */
int tg_plan_mixer(const char *name, const char *where, const struct tg_mixer_schema **out,
                  struct tg_err *err);
int tg_plan_init(struct tg_plan *p, size_t layers, struct tg_err *err);
/* Every changed layer's options against its mixer and the teacher's layer */
int tg_plan_check_layer(const struct tg_plan_layer *p, const struct tg_layer_spec *from, size_t l,
                        const char *where, struct tg_err *err);
int tg_plan_check(const struct tg_plan *p, const struct tg_model_spec *teacher, const char *where,
                  struct tg_err *err);

#endif
