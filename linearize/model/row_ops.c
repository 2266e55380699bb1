#include "linearize/model/row_ops.h"

#include <string.h>

#include "base/pool.h"

/* One job for all of them: what differs is the function over a block of rows. */
struct job {
    const struct tg_kernels *k;
    const float *x, *w, *r_in, *dy;
    float *y, *r_out, *dw;
    float eps;
    size_t rows, n;
};

static size_t block_rows(const struct job *j, size_t block)
{
    size_t left = j->rows - block * TG_ROW_BLOCK;
    return left < TG_ROW_BLOCK ? left : TG_ROW_BLOCK;
}

static void rmsnorm_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t first = block * TG_ROW_BLOCK;
    for (size_t i = first; i < first + block_rows(j, block); i++) {
        float r = j->k->rmsnorm_fwd(j->x + i * j->n, j->w, j->eps, j->y + i * j->n, j->n);
        if (j->r_out)
            j->r_out[i] = r;
    }
}

void tg_rows_rmsnorm(const struct tg_ctx *ctx, const float *x, const float *w, float eps, float *y,
                     float *r, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .x = x, .w = w, .eps = eps, .y = y, .r_out = r, .rows = rows};
    j.n = n;
    tg_parallel(ctx->threads, tg_row_blocks(rows), rmsnorm_block, &j);
}

static void rmsnorm_bwd_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t first = block * TG_ROW_BLOCK;
    float *dw = j->dw + block * j->n;
    memset(dw, 0, j->n * sizeof *dw);
    for (size_t i = first; i < first + block_rows(j, block); i++)
        j->k->rmsnorm_bwd(j->x + i * j->n, j->w, j->r_in[i], j->dy + i * j->n, j->y + i * j->n, dw,
                          j->n);
}

void tg_rows_rmsnorm_bwd(const struct tg_ctx *ctx, const float *x, const float *w, const float *r,
                         const float *dy, float *dx, float *dw, float *partial, size_t rows,
                         size_t n)
{
    struct job j = {.k = ctx->k, .x = x, .w = w, .r_in = r, .dy = dy, .y = dx, .dw = partial};
    j.rows = rows;
    j.n = n;
    tg_parallel(ctx->threads, tg_row_blocks(rows), rmsnorm_bwd_block, &j);
    for (size_t block = 0; dw && block < tg_row_blocks(rows); block++)
        ctx->k->axpy(1, partial + block * n, dw, n);
}

static void silu_mul_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n;
    j->k->silu_mul_fwd(j->x + at, j->w + at, j->y + at, block_rows(j, block) * j->n);
}

void tg_rows_silu_mul(const struct tg_ctx *ctx, const float *a, const float *b, float *p,
                      size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .x = a, .w = b, .y = p, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), silu_mul_block, &j);
}

static void silu_mul_bwd_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n;
    j->k->silu_mul_bwd(j->x + at, j->w + at, j->dy + at, j->y + at, j->dw + at,
                       block_rows(j, block) * j->n);
}

void tg_rows_silu_mul_bwd(const struct tg_ctx *ctx, const float *a, const float *b, const float *dp,
                          float *da, float *db, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .x = a, .w = b, .dy = dp, .y = da, .dw = db, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), silu_mul_bwd_block, &j);
}

static void add_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n;
    j->k->axpy(1, j->x + at, j->y + at, block_rows(j, block) * j->n);
}

void tg_rows_add(const struct tg_ctx *ctx, const float *y, float *h, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .x = y, .y = h, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), add_block, &j);
}

static void add_bias_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t first = block * TG_ROW_BLOCK;
    for (size_t i = first; i < first + block_rows(j, block); i++)
        j->k->axpy(1, j->w, j->y + i * j->n, j->n);
}

void tg_rows_add_bias(const struct tg_ctx *ctx, const float *bias, float *h, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .w = bias, .y = h, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), add_bias_block, &j);
}

static void copy_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n;
    memcpy(j->y + at, j->x + at, block_rows(j, block) * j->n * sizeof *j->y);
}

void tg_rows_copy(const struct tg_ctx *ctx, const float *from, float *to, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .x = from, .y = to, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), copy_block, &j);
}
