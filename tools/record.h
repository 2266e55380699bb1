/* How a model came to be: tegu_report.json, which stands beside the weights and goes from model to
 * model with them (docs/formats/native.md). The model card is made from it. */
#ifndef TG_TOOLS_RECORD_H
#define TG_TOOLS_RECORD_H

#include "base/json.h"
#include "tools/report/report.h"

enum { TG_RECORD_FORMAT = 1 };
#define TG_RECORD_FILE "tegu_report.json"

struct tg_record {
    struct tg_json_doc *doc; /* owned; always a whole record, once opened */
};
/* Of a model's directory or file. Where it has none: the teacher that its config names, or itself
 * as the base model, with license and languages of its card. */
int tg_record_open(struct tg_record *r, const char *model, struct tg_err *err);
void tg_record_close(struct tg_record *r);

/* What a command did: other weights, so that earlier results fall away */
struct tg_record_step {
    const char *teacher_name, *teacher_hash; /* NULL: as before */
    const char *settings;                    /* an object of JSON; NULL: none */
};
int tg_record_step(struct tg_record *r, const struct tg_tool *t, const struct tg_record_step *step,
                   struct tg_err *err);
/* What was measured, and of which weights */
int tg_record_results(struct tg_record *r, const struct tg_report *report, const char *arch,
                      const char *dtype, struct tg_err *err);
int tg_record_save(const struct tg_record *r, const char *dir, struct tg_err *err);

struct tg_json tg_record_root(const struct tg_record *r);
/* Has the model been made from its base model, or is it that model? */
bool tg_record_is_made(const struct tg_record *r);

#endif
