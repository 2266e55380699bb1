/* Weights that a Hugging Face checkpoint stores as small floats in one tensor and their scales in
 * another: element [.., i, j] is worth w[.., i, j] times one scale of the block that holds it, the
 * product rounded once to float32. See docs/formats/dtypes.md. */
#ifndef TG_FORMATS_BLOCK_SCALED_H
#define TG_FORMATS_BLOCK_SCALED_H

#include "formats/tensors.h"

/* A weight with its scales: matrices * rows * cols elements, row-major. */
struct tg_block_scaled {
    const struct tg_tensor *weight; /* borrowed */
    enum tg_dtype
        dtype; /* of its elements; not weight->dtype where two of them lie in a byte of U8 */
    size_t matrices, rows, cols;
    size_t block_rows, block_cols, grid_rows, grid_cols;
    float *scale;  /* [matrices or 1, grid_rows, grid_cols]; owned */
    bool one_grid; /* the same grid for all matrices */
};

/* weight [.., rows, cols], a float type of at most 8 bits; scale of a float type, or U8, which
 * means E8M0 (2^(byte - 127)). The shape of `scale` says what it is: one element         one scale
 * for the whole tensor
 *   [.., rows]          one for each row (output channel)
 *   [.., R, C]          R = ceil(rows / block_rows) for blocks of rows, rows for each, 1 for all
 *                       together, in this order; C the same of columns
 * with the leading sizes of the weight. DeepSeek's weight_scale_inv is the last form with blocks of
 * 128 x 128. Anything else, a block size of 0, and a scale that is not finite, are errors that name
 * the tensors. The scales are copied; close frees them (also after an error). */
int tg_block_scaled_open(struct tg_block_scaled *s, const struct tg_tensor *weight,
                         const struct tg_tensor *scale, size_t block_rows, size_t block_cols,
                         struct tg_err *err);
/* MXFP4 as gpt-oss stores it: blocks U8 [.., rows, groups, 16] of two E2M1 numbers a byte, the
 * first in the low nibble; scales U8 [.., rows, groups], E8M0, where 255 is refused. Gives [..,
 * rows, cols = groups * 32] in the order of the file; transformers hands the model the transpose of
 * the last two dimensions, [.., cols, rows]. */
int tg_mxfp4_open(struct tg_block_scaled *s, const struct tg_tensor *blocks,
                  const struct tg_tensor *scales, struct tg_err *err);
/* Elements [first, first + count) of matrices * rows * cols as float32: whole blocks of the dtype
 * (two elements of F4). */
int tg_block_scaled_read(const struct tg_block_scaled *s, size_t first, size_t count, float *dst,
                         struct tg_err *err);
void tg_block_scaled_close(struct tg_block_scaled *s);

#endif
