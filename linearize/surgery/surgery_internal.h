/* Inside linearize/surgery only. */
#ifndef TG_LINEARIZE_SURGERY_INTERNAL_H
#define TG_LINEARIZE_SURGERY_INTERNAL_H

#include "linearize/surgery/surgery.h"

enum { TG_PLAN_MAX_WINDOW = 1 << 24, TG_PLAN_MAX_SINKS = 256, TG_PLAN_MAX_FEATURES = 1 << 14 };

/* What the mixer gets where the user says nothing. `mixer` must be set. */
void tg_plan_defaults(struct tg_plan_layer *p);
bool tg_schema_has(const struct tg_mixer_schema *schema, unsigned param_flag);
/* Row `name` of mixers.def that can replace softmax, or an error that lists those there are. */
int tg_plan_mixer(const char *name, const char *where, const struct tg_mixer_schema **out,
                  struct tg_err *err);
int tg_plan_init(struct tg_plan *p, size_t layers, struct tg_err *err);
/* Every changed layer against the teacher's */
int tg_plan_check(const struct tg_plan *p, const struct tg_model_spec *teacher, const char *where,
                  struct tg_err *err);

#endif
