/* The model card: README.md as the Hub reads it, from a model's record and what was written. */
#ifndef TG_TOOLS_CARD_H
#define TG_TOOLS_CARD_H

#include "base/strbuf.h"
#include "tools/export.h"
#include "tools/record.h"

struct tg_card {
    const char *path;  /* where the model will stand: its last part is the title */
    const char *file;  /* name of a GGUF file in there; NULL: config.json and weights */
    const char *dtype; /* "bf16" */
    const struct tg_record *record;
    const struct tg_model_spec *spec;      /* of the model as it is written */
    const struct tg_export_result *result; /* target, proof and notes; NULL: native */
    const char *command; /* that exported it; NULL: it is the record's last step */
};
/* README.md into `dir` */
int tg_card_write(const char *dir, const struct tg_card *card, struct tg_err *err);

/* The title: the path's last part, of letters, digits, '.', '_' and '-' alone */
void tg_card_title(const char *path, char *title, size_t size);
/* Text of others as Markdown that says just that, on one line, cut at a few hundred bytes */
void tg_card_text(struct tg_strbuf *out, const char *text);
/* The Hub's name of what loads the model first; target NULL: native */
const char *tg_card_library(const struct tg_target *target);
/* Tags of the engines that a target names, a line of YAML each; how each loads the model */
void tg_card_engine_tags(struct tg_strbuf *out, const struct tg_target *target);
void tg_card_engines(struct tg_strbuf *out, const struct tg_card *card, const char *title);

#endif
