/* A plan as people see it. */
#ifndef TG_TOOLS_PLAN_VIEW_H
#define TG_TOOLS_PLAN_VIEW_H

#include "linearize/surgery/surgery.h"
#include "tools/command.h"

/* Layers of the student beside the teacher's, then parameters, KV bytes and state bytes of both. */
void tg_plan_print(const struct tg_tool *t, const struct tg_model_spec *teacher,
                   const struct tg_model_spec *student);
/* "0,4": numbers of the layers that a plan keeps, or "none" */
const char *tg_plan_kept(const struct tg_plan *p, char *buf, size_t size);

#endif
