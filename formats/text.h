/* Text files below corpus.c. */
#ifndef TG_FORMATS_TEXT_H
#define TG_FORMATS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* The file's bytes, decompressed if it is gzip; not empty, NUL-terminated; caller frees. */
int tg_bytes_read(const char *path, size_t max, char **bytes, size_t *len, struct tg_err *err);
/* The same, checked to be UTF-8 and not empty, NUL-terminated; caller frees.
 */
int tg_text_read_raw(const char *path, size_t max, char **text, size_t *len, struct tg_err *err);

bool tg_text_is_jsonl(const char *path); /* by its name: .jsonl or .jsonl.gz */

/* Calls fn with the "text" of each line of a .jsonl text; blank lines are passed over. */
typedef int (*tg_text_fn)(void *ud, const char *text, size_t len, struct tg_err *err);
int tg_text_each(const char *path, const char *text, size_t len, tg_text_fn fn, void *ud,
                 struct tg_err *err);

#endif
