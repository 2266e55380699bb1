/* Row kernels over all rows of a batch, in parallel over blocks of rows that depend on the shape
 * alone. */
#ifndef TG_LINEARIZE_ROW_OPS_H
#define TG_LINEARIZE_ROW_OPS_H

#include "linearize/kernels/kernels.h"

enum { TG_ROW_BLOCK = 32 };
static inline size_t tg_row_blocks(size_t rows)
{
    return (rows + TG_ROW_BLOCK - 1) / TG_ROW_BLOCK;
}

/* y [rows,n] = norm(x), may be x; stats [rows,2] for backward, or NULL */
void tg_rows_norm(const struct tg_ctx *ctx, const struct tg_norm *norm, const float *x, float *y,
                  float *stats, size_t rows, size_t n);
/* dx += ..., dw += ..., db += ... (NULL: not wanted): partial sums of each block of rows, added in
 * order. partial [tg_row_blocks(rows), 2, n] is scratch. */
void tg_rows_norm_bwd(const struct tg_ctx *ctx, const struct tg_norm *norm, const float *x,
                      const float *stats, const float *dy, float *dx, float *dw, float *db,
                      float *partial, size_t rows, size_t n);
/* p = act(a) * b, or act(a) with b NULL; p may be a */
void tg_rows_act(const struct tg_ctx *ctx, enum tg_activation act, const float *a, const float *b,
                 float *p, size_t rows, size_t n);
/* da may be dp; db is not written with b NULL */
void tg_rows_act_bwd(const struct tg_ctx *ctx, enum tg_activation act, const float *a,
                     const float *b, const float *dp, float *da, float *db, size_t rows, size_t n);
/* h += scale y */
void tg_rows_add(const struct tg_ctx *ctx, float scale, const float *y, float *h, size_t rows,
                 size_t n);
/* each row of h += scale bias [n] */
void tg_rows_add_bias(const struct tg_ctx *ctx, float scale, const float *bias, float *h,
                      size_t rows, size_t n);
void tg_rows_scale(const struct tg_ctx *ctx, float scale, float *x, size_t rows, size_t n);
void tg_rows_copy(const struct tg_ctx *ctx, const float *from, float *to, size_t rows, size_t n);

#endif
