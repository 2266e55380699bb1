/* The model card of an export: README.md as the Hub reads it. */
#ifndef TG_TOOLS_CARD_H
#define TG_TOOLS_CARD_H

#include "base/json.h"
#include "convert/target.h"

struct tg_card {
    const char *title;                /* name of the model; NULL: "hybrid" */
    const char *base_model;           /* "Qwen/Qwen3-0.6B" or a directory's name; NULL: not known */
    const char *license;              /* of the base model's card; NULL: not known */
    const char *command;              /* that made it */
    const char *report_path;          /* report.json of the run that made it; NULL: none */
    const struct tg_model_spec *spec; /* of the model as it is written */
    const struct tg_model_spec *source; /* before it was adapted: what the plan made */
    const struct tg_target *target;     /* NULL: native */
    enum tg_dtype dtype;
};
/* README.md into `dir` */
int tg_card_write(const char *dir, const struct tg_card *card, struct tg_err *err);

#endif
