/* The rows of stages.def, one file each. */
#ifndef TG_DISTILL_STAGES_ROWS_H
#define TG_DISTILL_STAGES_ROWS_H

#include "distill/stage.h"

#define TG_STAGE(name) extern const struct tg_stage tg_stage_##name;
#include "distill/stages.def"
#undef TG_STAGE

#endif
