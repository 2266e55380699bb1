/* Private to convert: the config.json of a native hybrid, written where it is read. */
#ifndef TG_CONVERT_NATIVE_H
#define TG_CONVERT_NATIVE_H

#include "base/strbuf.h"
#include "convert/checkpoint.h"

enum { TG_NATIVE_FORMAT = 2 };

/* docs/formats/native.md; `to` may have failed when this returns */
void tg_native_config(struct tg_strbuf *to, const struct tg_model_spec *spec, enum tg_dtype dtype,
                      const struct tg_native_meta *meta);

#endif
