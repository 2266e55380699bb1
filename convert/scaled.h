/* Private to convert: weights stored as small floats with their scales in another tensor, by the
 * quantisation that config.json names (formats/block_scaled.h reads them).
 *
 *   fp8    NAME of an 8-bit float and NAME_scale_inv, one for each block of weight_block_size
 *   mxfp4  NAME_blocks and NAME_scales, 32 numbers to a scale (gpt-oss) */
#ifndef TG_CONVERT_SCALED_H
#define TG_CONVERT_SCALED_H

#include "base/json.h"
#include "formats/tensors.h"

struct tg_scaling {
    bool fp8, mxfp4;
    size_t block_rows, block_cols; /* fp8 */
};
/* quantization_config: what it says, nothing if there is none, or the refusal by name of any other
 * method. */
int tg_scaling_read(struct tg_json config, struct tg_scaling *s, struct tg_err *err);

/* A stored tensor as the weight that it stands for */
struct tg_stored {
    const struct tg_tensor *scales; /* NULL: it has none */
    int rank;
    int64_t shape[TG_MAX_RANK];
    size_t elements;
};
/* Is it one of the scales of this quantisation? They come with their weights. And is its name one
 * of a scaled weight or of scales? */
bool tg_scaling_is_scales(const struct tg_scaling *s, const char *name);
bool tg_scaling_takes(const struct tg_scaling *s, const char *name);
/* The name of the weight that scales of this name belong to */
void tg_scaling_weight_of(const struct tg_scaling *s, const char *scales, char *out, size_t size);
/* Fills *out; a weight without its scales is an error that names them. */
int tg_scaling_stored(const struct tg_scaling *s, const struct tg_tensors *tensors,
                      const struct tg_tensor *t, struct tg_stored *out, struct tg_err *err);
/* All elements of t, scaled, as float32 */
int tg_scaling_read_f32(const struct tg_scaling *s, const struct tg_tensor *t,
                        const struct tg_tensor *scales, float *dst, struct tg_err *err);

#endif
