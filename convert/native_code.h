/* Private to convert: the Python files that load a native checkpoint in transformers
 * (convert/native/), compiled into the library. */
#ifndef TG_CONVERT_NATIVE_CODE_H
#define TG_CONVERT_NATIVE_CODE_H

#include <stddef.h>

struct tg_native_code {
    const char *name; /* "modeling_tegu.py" */
    const unsigned char *data;
    size_t size;
};
extern const struct tg_native_code tg_native_codes[]; /* ends with a NULL name */

#endif
