/* Private to formats: token ids in NumPy's .npy. */
#ifndef TG_FORMATS_NPY_H
#define TG_FORMATS_NPY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "formats/tensors.h"

bool tg_npy_probe(const void *bytes, size_t len);

/* A one-dimensional little-endian integer array, of bytes that the probe knows, as a tensor that
 * borrows `bytes` and `file`. */
int tg_npy_parse(const void *bytes, size_t len, const char *file, struct tg_tensor *t,
                 struct tg_err *err);

#endif
