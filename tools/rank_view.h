/* A ranking as people and programs see it. */
#ifndef TG_TOOLS_RANK_VIEW_H
#define TG_TOOLS_RANK_VIEW_H

#include "linearize/surgery/surgery.h"
#include "tools/command.h"

void tg_rank_print(const struct tg_tool *t, const struct tg_rank *r);
int tg_rank_print_json(const struct tg_rank *r, struct tg_err *err);

#endif
