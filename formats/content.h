/* What is in tensors, whatever format and files they lie in: hashes, and values that should not be
 * there. */
#ifndef TG_FORMATS_CONTENT_H
#define TG_FORMATS_CONTENT_H

#include "base/progress.h"
#include "formats/tensors.h"

struct tg_content {
    char hash[65]; /* SHA-256 of dtype, shape and elements; empty unless asked for */
    size_t nans, infinities, zeros;
    size_t first_bad; /* the first element that is NaN or infinite; elements if none is */
};
enum tg_content_flags { TG_CONTENT_HASH = 1, TG_CONTENT_VALUES = 2 };

/* Fills content[tg_tensors_count(t)]. Values are looked at in floating types only. */
int tg_content_read(const struct tg_tensors *t, unsigned flags, int threads,
                    struct tg_content *content, const struct tg_progress *progress,
                    struct tg_err *err);
/* One hash of all: of name and hash of each tensor in the order of names. Equal for two sets of
 * files exactly when they hold the same tensors, to the bit. */
void tg_content_hash(const struct tg_tensors *t, const struct tg_content *content, char hex[65]);

#endif
