#include "distill/stage.h"

#include <string.h>

#include "distill/stages/rows.h"

const struct tg_stage *const tg_stages[] = {
#define TG_STAGE(name) &tg_stage_##name,
#include "distill/stages.def"
#undef TG_STAGE
    NULL};

const struct tg_stage *tg_stage_find(const char *name)
{
    for (size_t i = 0; tg_stages[i]; i++)
        if (strcmp(tg_stages[i]->name, name) == 0)
            return tg_stages[i];
    return NULL;
}
