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

/* y [rows,n] = rms(x) * w, may be x; r [rows] or NULL */
void tg_rows_rmsnorm(const struct tg_ctx *ctx, const float *x, const float *w, float eps, float *y,
                     float *r, size_t rows, size_t n);
/* dx += ..., dw += ... (NULL: not wanted): partial sums of each block of rows, added in order.
 * partial [tg_row_blocks(rows), n] is scratch. */
void tg_rows_rmsnorm_bwd(const struct tg_ctx *ctx, const float *x, const float *w, const float *r,
                         const float *dy, float *dx, float *dw, float *partial, size_t rows,
                         size_t n);
/* p = silu(a) * b; p may be a */
void tg_rows_silu_mul(const struct tg_ctx *ctx, const float *a, const float *b, float *p,
                      size_t rows, size_t n);
/* da may be dp */
void tg_rows_silu_mul_bwd(const struct tg_ctx *ctx, const float *a, const float *b, const float *dp,
                          float *da, float *db, size_t rows, size_t n);
/* h += y */
void tg_rows_add(const struct tg_ctx *ctx, const float *y, float *h, size_t rows, size_t n);
/* each row of h += bias [n] */
void tg_rows_add_bias(const struct tg_ctx *ctx, const float *bias, float *h, size_t rows, size_t n);
void tg_rows_copy(const struct tg_ctx *ctx, const float *from, float *to, size_t rows, size_t n);

#endif
