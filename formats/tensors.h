/* Named tensors in files: one file or a sharded HF directory, mmapped. */
#ifndef TG_FORMATS_TENSORS_H
#define TG_FORMATS_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "formats/dtype.h"

enum { TG_MAX_RANK = 8 };

/* Borrows everything from its tg_tensors. */
struct tg_tensor {
    const char *name;
    enum tg_dtype dtype;
    int rank;
    int64_t shape[TG_MAX_RANK];
    size_t elements, bytes;
    /* The elements, contiguous and little-endian, in the mapping; may be unaligned. NULL when they
     * do not lie so in the file (strided views, compressed entries): tg_tensor_read_raw makes them.
     */
    const void *data;
    const char *file; /* path of the shard, for messages */
    /* Private to the format: makes elements [first, first + count) when data is NULL */
    int (*make)(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                struct tg_err *err);
    const void *source;
};

struct tg_tensors;

/* PATH: a file of any format of formats.def, known by its content; or a directory holding a
 * format's single file or its index with the shards (model.safetensors,
 * model.safetensors.index.json); formats are tried in the order of formats.def. All rules of the
 * format are enforced (docs/formats); with an index: every shard exists, every tensor is in the
 * shard that the index says, none is missing from, or unknown to, the index, none appears twice. */
int tg_tensors_open(struct tg_tensors **t, const char *path, struct tg_err *err);
void tg_tensors_close(struct tg_tensors *t);
size_t tg_tensors_count(const struct tg_tensors *t);
const struct tg_tensor *tg_tensors_at(const struct tg_tensors *t, size_t i); /* sorted by name */
const struct tg_tensor *tg_tensors_find(const struct tg_tensors *t,
                                        const char *name); /* NULL if absent */
size_t tg_tensors_file_count(const struct tg_tensors *t);
const char *tg_tensors_file(const struct tg_tensors *t, size_t i); /* paths of the shards */
const char *tg_tensors_meta(const struct tg_tensors *t,
                            const char *key); /* __metadata__ of the first file; NULL if absent */
/* Parses one file in memory, for fuzzing and tests. */
struct tg_format;
int tg_tensors_over(struct tg_tensors **t, const struct tg_format *format, const void *bytes,
                    size_t len, const char *name, struct tg_err *err);

/* Elements [first, first + count), whole blocks, as they are in the file: contiguous,
 * little-endian. tg_tensor_view gives them without a copy where they lie so in the file, else makes
 * them in `space` (of the size of tg_dtype_bytes). */
int tg_tensor_read_raw(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                       struct tg_err *err);
int tg_tensor_view(const struct tg_tensor *t, size_t first, size_t count, void *space,
                   const void **view, struct tg_err *err);
/* Hints for streaming: elements [first, first + count) will be read now, by this thread; they will
 * not be read again, their pages may leave this process. Change no value. */
void tg_tensors_fetch(const struct tg_tensors *t, const struct tg_tensor *x, size_t first,
                      size_t count);
void tg_tensors_forget(const struct tg_tensors *t, const struct tg_tensor *x, size_t first,
                       size_t count);
/* Elements as float32 into dst[elements]; integers are refused. */
int tg_tensor_read_f32(const struct tg_tensor *t, float *dst, struct tg_err *err);
/* Elements of an integer tensor (I8..I64, U8..U32) as int64. */
int tg_tensor_read_i64(const struct tg_tensor *t, int64_t *dst, struct tg_err *err);
/* "[2,40,96]" into buf */
const char *tg_shape_text(const int64_t *shape, int rank, char *buf, size_t size);

/* Streaming writer. A plan of all tensors first (names, dtypes, shapes), then their data in the
 * order that the writer says, in any number of pieces. */
struct tg_tensor_plan {
    const char *name;
    enum tg_dtype dtype;
    int rank;
    int64_t shape[TG_MAX_RANK];
};
struct tg_tensor_writer;
struct tg_meta {
    const char *key, *value;
};
struct tg_gguf_kv;
struct tg_write_options {
    const struct tg_format *format; /* NULL: safetensors */
    bool single;                    /* path is the file itself, which is never cut into shards */
    uint64_t max_shard;             /* bytes of tensors in a file; 0: one file */
    const struct tg_meta *meta;     /* strings; safetensors gets "format":"pt" added */
    size_t metas;
    const struct tg_gguf_kv *kv; /* typed metadata of formats/gguf.h */
    size_t kvs;
};
extern const struct tg_write_options tg_write_single; /* one safetensors file, nothing else */
/* `path`: a directory that exists, which gets the format's single file, or its shards with their
 * index when the plan is larger than max_shard; or with `single` the file. Options are copied; what
 * meta and kv point to must outlive the writer. Every file appears by rename, at the end. */
int tg_tensor_writer_open(struct tg_tensor_writer **w, const char *path,
                          const struct tg_tensor_plan *plan, size_t count,
                          const struct tg_write_options *options, struct tg_err *err);
/* The order in which data must arrive: the index in the plan of the next tensor, or count at the
 * end. */
size_t tg_tensor_writer_next(const struct tg_tensor_writer *w);
/* The same for any place i < count of that order */
size_t tg_tensor_writer_at(const struct tg_tensor_writer *w, size_t i);
/* A whole tensor converted from float32 (from_f32 dtypes only), or its raw bytes in the plan's
 * dtype. */
int tg_tensor_writer_put_f32(struct tg_tensor_writer *w, const float *data, struct tg_err *err);
int tg_tensor_writer_put_raw(struct tg_tensor_writer *w, const void *data, struct tg_err *err);
/* n raw bytes more of the next tensor, which is done when all its bytes have come */
int tg_tensor_writer_put_piece(struct tg_tensor_writer *w, const void *data, size_t n,
                               struct tg_err *err);
int tg_tensor_writer_finish(struct tg_tensor_writer *w,
                            struct tg_err *err); /* fails if a tensor was not put */
void tg_tensor_writer_close(
    struct tg_tensor_writer *w); /* without finish: nothing is left behind */

#endif
