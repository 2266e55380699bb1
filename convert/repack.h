/* Repacking: the tensors of one set of files into another format, dtype or sharding, streamed in
 * pieces. Memory does not grow with the model or its largest tensor. */
#ifndef TG_CONVERT_REPACK_H
#define TG_CONVERT_REPACK_H

#include "base/progress.h"
#include "formats/tensors.h"

struct tg_repack_options {
    const struct tg_format *to; /* NULL: the format that is read */
    bool keep;                  /* dtypes stay; else floating tensors become `dtype` */
    enum tg_dtype dtype;
    uint64_t max_shard;                       /* 0: one file */
    bool single;                              /* the output is a file, not a directory */
    const char *const *only, *const *exclude; /* patterns with '*' */
    size_t onlys, excludes;
    int threads;
};
struct tg_repack_row {
    const struct tg_tensor *tensor;
    enum tg_dtype dtype; /* as it will be written */
    size_t bytes;
    const char *why; /* why not the dtype that was asked for; NULL */
};
struct tg_repack;

/* Which tensors become what; errors name what cannot be held. Borrows `in`. */
int tg_repack_plan(struct tg_repack **r, const struct tg_tensors *in,
                   const struct tg_repack_options *options, struct tg_err *err);
void tg_repack_free(struct tg_repack *r);
size_t tg_repack_count(const struct tg_repack *r);
const struct tg_repack_row *tg_repack_row(const struct tg_repack *r, size_t i);
/* Writes into the directory (or file) `path`. A value that overflows the target's range, or NaN and
 * infinities that it cannot hold, are an error that names tensor and element. */
int tg_repack_write(struct tg_repack *r, const char *path, const struct tg_progress *progress,
                    struct tg_err *err);

#endif
