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
    const void *data; /* in the mapping; may be unaligned */
    const char *file; /* path of the shard, for messages */
};

struct tg_tensors;

/* PATH: a .safetensors file, or a directory holding model.safetensors or
 * model.safetensors.index.json with its shards. All rules of the format are enforced (see
 * safetensors.c); with an index: every shard exists, every tensor is in the shard that the index
 * says, none is missing from, or unknown to, the index, none appears twice. */
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
/* Parses a header in memory (the whole file's bytes), for fuzzing and tests. */
int tg_tensors_over(struct tg_tensors **t, const void *bytes, size_t len, const char *name,
                    struct tg_err *err);

/* Elements as float32 into dst[elements]; integers are refused. */
int tg_tensor_read_f32(const struct tg_tensor *t, float *dst, struct tg_err *err);
/* Elements of an integer tensor (I8..I64, U8..U32) as int64. */
int tg_tensor_read_i64(const struct tg_tensor *t, int64_t *dst, struct tg_err *err);
/* "[2,40,96]" into buf */
const char *tg_shape_text(const int64_t *shape, int rank, char *buf, size_t size);

/* Streaming writer. A plan of all tensors first (names, dtypes, shapes), then their data in the
 * plan's order in any number of pieces. Tensors are laid out by dtype alignment then in plan order;
 * the header is padded to 8 bytes. */
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
/* DIR/model.safetensors, or DIR/model-0000i-of-0000n.safetensors with an index when the plan is
 * larger than max_shard bytes (0: one file). `single`: path is the file itself (no sharding). meta
 * gets "format":"pt" added. Each file appears by rename. */
int tg_tensor_writer_open(struct tg_tensor_writer **w, const char *path, bool single,
                          const struct tg_tensor_plan *plan, size_t count, uint64_t max_shard,
                          const struct tg_meta *meta, size_t metas, struct tg_err *err);
/* The order in which data must arrive: writer_next gives the index in the plan of the next tensor,
 * or count at the end. */
size_t tg_tensor_writer_next(const struct tg_tensor_writer *w);
/* A whole tensor converted from float32 (float dtypes only), or its raw bytes in the plan's dtype.
 */
int tg_tensor_writer_put_f32(struct tg_tensor_writer *w, const float *data, struct tg_err *err);
int tg_tensor_writer_put_raw(struct tg_tensor_writer *w, const void *data, struct tg_err *err);
int tg_tensor_writer_finish(struct tg_tensor_writer *w,
                            struct tg_err *err); /* fails if a tensor was not put */
void tg_tensor_writer_close(
    struct tg_tensor_writer *w); /* without finish: nothing is left behind */

#endif
