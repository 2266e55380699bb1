/* Private to convert: tensor names through a family's table of patterns. */
#ifndef TG_CONVERT_NAMES_H
#define TG_CONVERT_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "convert/family.h"

enum { TG_NAME_SIZE = 256 };

/* One rule: source name -> canonical name, with the number at {e} (0 without); and the other way,
 * for messages and for writing. False if the rule does not match or the result does not fit. */
bool tg_name_canonical(const struct tg_name_rule *rule, const char *source, char *out, size_t size,
                       size_t *expert);
bool tg_name_source(const struct tg_name_rule *rule, const char *canonical, size_t expert,
                    char *out, size_t size);
/* Does the whole name match a pattern in which '*' stands for any characters? */
bool tg_name_like(const char *pattern, const char *name);
/* The quantisation method that tensors of this name belong to, or NULL */
const char *tg_name_quantised(const char *name);

/* What the families of the llama shape share */
extern const struct tg_name_rule tg_decoder_names[];
extern const char *const tg_decoder_droppable[];

#endif
