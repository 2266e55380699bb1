/* Recipes: the settings of hybridize and distill as JSON. Each key is one of the command line's
 * options, read and checked by the same table; an option given on the command line overrides the
 * recipe. */
#ifndef TG_TOOLS_RECIPE_H
#define TG_TOOLS_RECIPE_H

#include "distill/train.h"
#include "tools/options.h"

struct tg_tool;

enum { TG_MAX_STAGES = 16 };
struct tg_recipe {
    struct tg_json_doc *doc; /* owned; the strings that were set into options live in it */
    const char *teacher;     /* NULL: not said */
    struct tg_stage_settings stages[TG_MAX_STAGES];
    size_t stage_count;
};
/* Reads text and sets the options of `p` that were not given (p NULL: only checks). `name` begins
 * every message, then the path of the key. */
int tg_recipe_parse(struct tg_recipe *r, const char *text, size_t len, const char *name,
                    struct tg_parse *p, struct tg_err *err);
int tg_recipe_load(struct tg_recipe *r, const char *path, struct tg_parse *p, struct tg_err *err);
void tg_recipe_release(struct tg_recipe *r);
/* Stages of --stage arguments, which replace the recipe's; with neither, the defaults: align, then
 * kl. Every setting filled in. */
int tg_recipe_stages(struct tg_recipe *r, const struct tg_texts *args, struct tg_err *err);
/* Notes a stage's precision that this processor has no unit for. */
void tg_recipe_note_precision(const struct tg_recipe *r, struct tg_tool *t);

#endif
