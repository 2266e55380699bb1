/* Model specs in tests: comparison field by field, and configs edited key by key. */
#ifndef TG_TESTS_SPECS_H
#define TG_TESTS_SPECS_H

#include <stdbool.h>

#include "convert/spec.h"

/* Name of the first field that differs, or NULL. `family` is not compared: a native hybrid's is
 * "tegu". */
const char *tg_spec_difference(const struct tg_model_spec *a, const struct tg_model_spec *b);

/* The JSON object `text` with `key` set to `value`, copied as it stands (NULL: removed); caller
 * frees with tg_free. NULL if the text is no JSON. */
char *tg_json_with(const char *text, const char *key, const char *value);

#endif
