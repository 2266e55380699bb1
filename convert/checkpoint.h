/* A model on disk: family detected, config read into a spec, every tensor mapped to its canonical
 * name. */
#ifndef TG_CONVERT_CHECKPOINT_H
#define TG_CONVERT_CHECKPOINT_H

#include <stdint.h>

#include "base/status.h"
#include "convert/layout.h"
#include "formats/tensors.h"

struct tg_checkpoint;

/* PATH: a directory with config.json and safetensors weights. The map of tensors is checked to be a
 * bijection: every tensor known, every parameter present, shapes and dtypes right. fp8 in blocks
 * and mxfp4 are read, other quantised checkpoints are refused by the method's name. */
int tg_checkpoint_open(struct tg_checkpoint **c, const char *path, struct tg_err *err);
void tg_checkpoint_close(struct tg_checkpoint *c);
const struct tg_model_spec *tg_checkpoint_spec(const struct tg_checkpoint *c);
const struct tg_param_list *tg_checkpoint_params(const struct tg_checkpoint *c);
const struct tg_tensors *tg_checkpoint_tensors(const struct tg_checkpoint *c);
const char *tg_checkpoint_path(const struct tg_checkpoint *c);
/* The stored tensors behind parameter i of tg_checkpoint_params, and how its elements lie in them;
 * borrowed. */
struct tg_source {
    const struct tg_tensor *tensor;
    const struct tg_tensor *scales; /* of small floats that have them (fp8, mxfp4); else NULL */
    size_t expert;                  /* the number at {e} in its name */
    struct tg_layout layout;
};
const struct tg_source *tg_checkpoint_sources(const struct tg_checkpoint *c, size_t i,
                                              size_t *count);
/* Parameter i as float32 into dst[params.items[i].count]; NaN and infinities are an error that
 * names the tensor. */
int tg_checkpoint_read(const struct tg_checkpoint *c, size_t i, float *dst, struct tg_err *err);
/* SHA-256 over the bytes of config.json, tokenizer.json and every weight file, in that order: the
 * teacher's identity. */
int tg_checkpoint_hash(const struct tg_checkpoint *c, char hex[65], struct tg_err *err);

/* Only the config: no weights are opened. */
int tg_config_read(const char *path, struct tg_model_spec *spec, struct tg_err *err);
int tg_config_parse(const char *json, size_t len, const char *name, struct tg_model_spec *spec,
                    struct tg_err *err);

/* Writes a native hybrid checkpoint (or a teacher family's own layout never: always model_type
 * "tegu") into `dir`, which must exist: config.json, weights from params[spec's block], and the
 * tokenizer and generation files copied byte for byte from `teacher_dir`. meta goes into
 * config.json under "tegu" and into the safetensors metadata. */
struct tg_native_meta {
    const char *command, *version; /* command line as run */
    uint64_t seed;
    const char *teacher_hash; /* tg_checkpoint_hash of the teacher */
    const char *teacher_name; /* last part of its path */
};
int tg_native_write(const char *dir, const struct tg_model_spec *spec, const float *params,
                    enum tg_dtype dtype, uint64_t max_shard, const char *teacher_dir,
                    const struct tg_native_meta *meta, struct tg_err *err);

#endif
