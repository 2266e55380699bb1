#include "linearize/model/row_ops.h"

#include <string.h>

#include "base/pool.h"

/* One job for all of them: what differs is the function over a block of rows. */
struct job {
    const struct tg_kernels *k;
    const struct tg_act_kernels *act;
    const struct tg_norm *norm;
    const float *x, *w, *dy;
    float *y, *stats, *dw;
    float scale;
    size_t rows, n;
};

static size_t block_rows(const struct job *j, size_t block)
{
    size_t left = j->rows - block * TG_ROW_BLOCK;
    return left < TG_ROW_BLOCK ? left : TG_ROW_BLOCK;
}

static void norm_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t first = block * TG_ROW_BLOCK;
    for (size_t i = first; i < first + block_rows(j, block); i++) {
        float stats[2];
        j->k->norm_fwd(j->norm, j->x + i * j->n, j->y + i * j->n, stats, j->n);
        if (j->stats)
            memcpy(j->stats + 2 * i, stats, sizeof stats);
    }
}

void tg_rows_norm(const struct tg_ctx *ctx, const struct tg_norm *norm, const float *x, float *y,
                  float *stats, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .norm = norm, .x = x, .y = y, .stats = stats, .rows = rows};
    j.n = n;
    tg_parallel(ctx->threads, tg_row_blocks(rows), norm_block, &j);
}

static void norm_bwd_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t first = block * TG_ROW_BLOCK;
    float *dw = j->dw + 2 * block * j->n;
    memset(dw, 0, 2 * j->n * sizeof *dw);
    for (size_t i = first; i < first + block_rows(j, block); i++)
        j->k->norm_bwd(j->norm, j->stats + 2 * i, j->x + i * j->n, j->dy + i * j->n,
                       j->y + i * j->n, dw, dw + j->n, j->n);
}

void tg_rows_norm_bwd(const struct tg_ctx *ctx, const struct tg_norm *norm, const float *x,
                      const float *stats, const float *dy, float *dx, float *dw, float *db,
                      float *partial, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .norm = norm, .x = x, .dy = dy, .y = dx, .dw = partial};
    j.stats = (float *)stats;
    j.rows = rows;
    j.n = n;
    tg_parallel(ctx->threads, tg_row_blocks(rows), norm_bwd_block, &j);
    for (size_t block = 0; dw && block < tg_row_blocks(rows); block++)
        ctx->k->axpy(1, partial + 2 * block * n, dw, n);
    for (size_t block = 0; db && block < tg_row_blocks(rows); block++)
        ctx->k->axpy(1, partial + (2 * block + 1) * n, db, n);
}

static void act_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n, cells = block_rows(j, block) * j->n;
    if (j->w)
        j->act->mul_fwd(j->x + at, j->w + at, j->y + at, cells);
    else
        j->act->fwd(j->x + at, j->y + at, cells);
}

void tg_rows_act(const struct tg_ctx *ctx, enum tg_activation act, const float *a, const float *b,
                 float *p, size_t rows, size_t n)
{
    struct job j = {.act = &ctx->k->act[act], .x = a, .w = b, .y = p, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), act_block, &j);
}

static void act_bwd_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n, cells = block_rows(j, block) * j->n;
    if (j->w)
        j->act->mul_bwd(j->x + at, j->w + at, j->dy + at, j->y + at, j->dw + at, cells);
    else
        j->act->bwd(j->x + at, j->dy + at, j->y + at, cells);
}

void tg_rows_act_bwd(const struct tg_ctx *ctx, enum tg_activation act, const float *a,
                     const float *b, const float *dp, float *da, float *db, size_t rows, size_t n)
{
    struct job j = {.act = &ctx->k->act[act], .x = a, .w = b, .dy = dp, .y = da, .dw = db};
    j.rows = rows;
    j.n = n;
    tg_parallel(ctx->threads, tg_row_blocks(rows), act_bwd_block, &j);
}

static void add_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n;
    j->k->axpy(j->scale, j->x + at, j->y + at, block_rows(j, block) * j->n);
}

void tg_rows_add(const struct tg_ctx *ctx, float scale, const float *y, float *h, size_t rows,
                 size_t n)
{
    struct job j = {.k = ctx->k, .scale = scale, .x = y, .y = h, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), add_block, &j);
}

static void add_bias_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t first = block * TG_ROW_BLOCK;
    for (size_t i = first; i < first + block_rows(j, block); i++)
        j->k->axpy(j->scale, j->w, j->y + i * j->n, j->n);
}

void tg_rows_add_bias(const struct tg_ctx *ctx, float scale, const float *bias, float *h,
                      size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .scale = scale, .w = bias, .y = h, .rows = rows, .n = n};
    tg_parallel(ctx->threads, tg_row_blocks(rows), add_bias_block, &j);
}

static void scale_block(void *ud, size_t block, int worker)
{
    const struct job *j = ud;
    (void)worker;
    size_t at = block * TG_ROW_BLOCK * j->n;
    j->k->scale(j->scale, j->y + at, block_rows(j, block) * j->n);
}

void tg_rows_scale(const struct tg_ctx *ctx, float scale, float *x, size_t rows, size_t n)
{
    struct job j = {.k = ctx->k, .scale = scale, .y = x, .rows = rows, .n = n};
    if (scale != 1)
        tg_parallel(ctx->threads, tg_row_blocks(rows), scale_block, &j);
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
