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

/* A small llama config; the same with another model_type, then one key changed (NULL: none, value
 * NULL: removed), which the caller frees with tg_free. */
extern const char tg_llama_config[];
char *tg_config_with(const char *family, const char *key, const char *value);
int tg_parse_config(const char *text, struct tg_model_spec *spec, struct tg_err *err);
/* These fail the test. */
void tg_must_parse(const char *text, struct tg_model_spec *spec);
struct tg_model_spec tg_spec_with(const char *family, const char *key, const char *value);
/* The spec written as a native hybrid's config and read again is the same. */
void tg_check_native(const struct tg_model_spec *spec, const char *what);

#endif
