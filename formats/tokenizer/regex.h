/* Regular expressions of tokenizer.json (Oniguruma's Ruby syntax), run by PCRE2. Where the two
 * differ in meaning the pattern is rewritten, or refused by name. */
#ifndef TG_FORMATS_REGEX_H
#define TG_FORMATS_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tg_regex;

/* `name` is the file, for messages. literal: `pattern` is plain text. Immutable: any number of
 * threads may match. */
int tg_regex_compile(struct tg_regex **r, const char *pattern, bool literal, const char *name,
                     struct tg_err *err);
void tg_regex_free(struct tg_regex *r);

/* Memory of the matches of one thread, for any number of expressions; starts zeroed. */
struct tg_regex_run {
    void *general, *data, *context, *jit_stack;
};
void tg_regex_run_release(struct tg_regex_run *run);

/* First match at or after `from` of text, which is valid UTF-8: 1 found, 0 none, negative on error.
 */
int tg_regex_find(const struct tg_regex *r, struct tg_regex_run *run, const char *text, size_t len,
                  size_t from, size_t *start, size_t *end, struct tg_err *err);

/* The matches in turn, as Oniguruma's iterator gives them: an empty one right behind a match is
 * passed over. Returns as tg_regex_find. */
struct tg_regex_walk {
    size_t from, last;
};
static inline struct tg_regex_walk tg_regex_walk_from(size_t from)
{
    return (struct tg_regex_walk){from, SIZE_MAX};
}
int tg_regex_next(const struct tg_regex *r, struct tg_regex_run *run, const char *text, size_t len,
                  struct tg_regex_walk *walk, size_t *start, size_t *end, struct tg_err *err);

#endif
