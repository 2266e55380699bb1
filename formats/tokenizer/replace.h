/* Replace of tokenizer.json: every match of a pattern becomes the same text. Used by normalizers
 * and by decoders. */
#ifndef TG_FORMATS_REPLACE_H
#define TG_FORMATS_REPLACE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/status.h"
#include "formats/tokenizer/regex.h"
#include "formats/tokenizer/strmap.h"

struct tg_replace {
    struct tg_regex *regex; /* owned; or */
    char *literal;          /* owned; not empty */
    size_t literal_len, content_len;
    char *content; /* owned */
};
/* `key` is the stage, for messages. */
int tg_replace_load(struct tg_replace *r, struct tg_json o, const char *name, struct tg_err *err);
int tg_replace_set(struct tg_replace *r, const char *literal, const char *content, const char *name,
                   struct tg_err *err);
void tg_replace_release(struct tg_replace *r);
/* Appends text, replaced, to *out. *origin (or NULL): how many bytes at the beginning stand for the
 * first character of the whole; what replaces a match stands for the last character of it, or for
 * the first one if it stands before all (and this is the beginning of the `whole`). */
int tg_replace_run(const struct tg_replace *r, struct tg_regex_run *run, const char *text,
                   size_t len, struct tg_text *out, size_t *origin, bool whole, const char *name,
                   struct tg_err *err);

#endif
