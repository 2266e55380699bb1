/* Groups of a run's settings as JSON, for run.json: all that must be equal for a run to go on. */
#ifndef TG_TOOLS_SETTINGS_JSON_H
#define TG_TOOLS_SETTINGS_JSON_H

#include "tools/command.h"
#include "tools/groups.h"
#include "tools/recipe.h"

/* Version, BLAS core and kernels: results depend on them in the last bits. Threads are no part of
 * it: results do not depend on their number. */
void tg_settings_machine(struct tg_json_out *out, const struct tg_tool *t);
/* Files by name and content */
int tg_settings_data(struct tg_json_out *out, const struct tg_data_flags *d, bool held_out,
                     struct tg_err *err);
void tg_settings_stages(struct tg_json_out *out, const struct tg_recipe *r);

#endif
