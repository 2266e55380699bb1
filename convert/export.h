/* Exports: a hybrid written as a model of another architecture (target.h), and read back. */
#ifndef TG_CONVERT_EXPORT_H
#define TG_CONVERT_EXPORT_H

#include "base/progress.h"
#include "convert/checkpoint.h"
#include "convert/target.h"

/* A source over an open checkpoint, and over parameters in memory; both borrow. */
struct tg_export_source tg_export_from_checkpoint(const struct tg_checkpoint *c);
struct tg_block {
    const struct tg_param_list *params;
    const float *data;
};
struct tg_export_source tg_export_from_block(const struct tg_model_spec *spec,
                                             const struct tg_block *block);

/* The target of `auto` for a directory, or a GGUF file: the first that fits and has no pitfalls.
 * NULL: none does, and why says for each why not ("qwen3_5: layer 0: ..."). */
const struct tg_target *tg_target_auto(const struct tg_model_spec *spec, bool gguf,
                                       struct tg_remarks *why);
/* TG_OK, or what does not fit as an error that names layer and reason; pitfalls are errors unless
 * allowed, then notes. */
int tg_target_fits(const struct tg_target *t, const struct tg_model_spec *spec,
                   bool allow_irregular, struct tg_remarks *notes, struct tg_err *err);

/* Begins: the target must fit. `dtype`: f32, bf16 or f16, of a GGUF file also a mixture of
 * formats/gguf_types.h. Borrows `in` and tokenizer_dir, whose vocabulary a GGUF file gets (NULL:
 * none). */
int tg_export_begin(struct tg_export *x, const struct tg_target *target,
                    const struct tg_export_source *in, const char *dtype, const char *tokenizer_dir,
                    struct tg_err *err);
void tg_export_end(struct tg_export *x);
/* Parameter i of x->params, as float32 before it is rounded */
int tg_export_param(const struct tg_export *x, size_t i, float *dst, struct tg_err *err);
/* Config and weights into the directory `path`, which must exist; of a GGUF target into the file
 * `path`. */
int tg_export_write(const struct tg_export *x, const char *path, uint64_t max_shard,
                    const struct tg_progress *progress, struct tg_err *err);
/* Reads back what was written: the config must be the adapted spec, every parameter its rounding,
 * bit for bit. */
int tg_export_verify(const struct tg_export *x, const char *path, struct tg_err *err);

/* Where two specs differ, as text of one line ("layers[3].window: 64, 128") into buf; NULL if
 * nowhere. Family names do not count. */
const char *tg_export_difference(const struct tg_model_spec *a, const struct tg_model_spec *b,
                                 char *buf, size_t size);

#endif
