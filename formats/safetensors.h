/* The safetensors format: the parser of one file, used by tensors.c. Rules:
 * docs/formats/safetensors.md. */
#ifndef TG_FORMATS_SAFETENSORS_H
#define TG_FORMATS_SAFETENSORS_H

#include "base/json.h"
#include "formats/tensors.h"

enum { TG_SAFETENSORS_HEADER_MAX = 100000000 };

struct tg_tensor_list {
    struct tg_tensor *items; /* owned: tg_free */
    size_t count, cap;
};

/* Appends the tensors of a whole file in memory. Names borrow from *header, which the caller frees;
 * data from `bytes`; `file` is borrowed for messages. */
int tg_safetensors_parse(const void *bytes, size_t len, const char *file,
                         struct tg_tensor_list *list, struct tg_json_doc **header,
                         struct tg_err *err);

/* elements and bytes from dtype, rank and shape; false when they overflow, a size is negative, or
 * the bits do not fill bytes. */
bool tg_tensor_measure(enum tg_dtype dtype, int rank, const int64_t *shape, size_t *elements,
                       size_t *bytes);

#endif
