#include "linearize/mixers/qk_norm.h"

#include <string.h>

#include "base/pool.h"
#include "linearize/mixers/attn_proj.h"

struct run {
    const struct tg_qk_norm_job *j;
    float *x, *stats, *parts; /* parts: [blocks][dw, db, dy] */
    const float *raw, *kept;
};

struct tg_qk_norm_job tg_qk_norm_of(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows,
                                    size_t heads, const char *weight, const char *bias)
{
    const size_t K = m->spec->head_dim;
    const enum tg_qk_norm span = m->spec->qk_norm;
    struct tg_qk_norm_job j = {.ctx = ctx, .rows = rows};
    j.norm = (struct tg_norm){.layer = m->norm && m->norm->kind == TG_NORM_LAYER,
                              .plus_one = m->norm && m->norm->plus_one,
                              .eps = m->norm_eps,
                              .w = tg_mixer_param(m, weight),
                              .b = tg_mixer_param(m, bias)};
    j.vectors = span == TG_QK_WIDE ? 1 : heads;
    j.n = span == TG_QK_WIDE ? heads * K : K;
    j.stride = span == TG_QK_EACH ? K : 0;
    j.weights = span == TG_QK_HEAD ? K : heads * K;
    return j;
}

size_t tg_qk_norm_stats(const struct tg_qk_norm_job *j)
{
    return j->rows * j->vectors * 2;
}

static size_t part_floats(const struct tg_qk_norm_job *j)
{
    return 2 * j->weights + j->n;
}

size_t tg_qk_norm_work(const struct tg_qk_norm_job *j)
{
    return tg_blocks_of_rows(j->rows) * part_floats(j);
}

static struct tg_norm norm_of(const struct tg_qk_norm_job *j, size_t vector)
{
    struct tg_norm norm = j->norm;
    const size_t at = vector % j->vectors * j->stride;
    if (norm.w)
        norm.w += at;
    if (norm.b)
        norm.b += at;
    return norm;
}

static void fwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct run *r = ud;
    const struct tg_qk_norm_job *j = r->j;
    (void)worker;
    for (size_t i = from * j->vectors; i < to * j->vectors; i++) {
        const struct tg_norm norm = norm_of(j, i);
        float stats[2], *x = r->x + i * j->n;
        j->ctx->k->norm_fwd(&norm, x, x, stats, j->n);
        if (r->stats)
            memcpy(r->stats + 2 * i, stats, sizeof stats);
    }
}

void tg_qk_norm_fwd(const struct tg_qk_norm_job *j, float *x, float *stats)
{
    struct run r = {.j = j, .x = x, .stats = stats};
    tg_parallel_rows(j->ctx->threads, j->rows, fwd_rows, &r);
}

static void bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct run *r = ud;
    const struct tg_qk_norm_job *j = r->j;
    float *dw = r->parts + from / TG_BLOCK_ROWS * part_floats(j), *db = dw + j->weights,
          *dy = db + j->weights;
    (void)worker;
    memset(dw, 0, 2 * j->weights * sizeof *dw);
    for (size_t i = from * j->vectors; i < to * j->vectors; i++) {
        const struct tg_norm norm = norm_of(j, i);
        const size_t at = i % j->vectors * j->stride;
        float *dx = r->x + i * j->n;
        memcpy(dy, dx, j->n * sizeof *dy);
        memset(dx, 0, j->n * sizeof *dx);
        j->ctx->k->norm_bwd(&norm, r->kept + 2 * i, r->raw + i * j->n, dy, dx, dw + at, db + at,
                            j->n);
    }
}

void tg_qk_norm_bwd(const struct tg_qk_norm_job *j, const float *raw, const float *stats, float *dx,
                    float *dw, float *db, float *work)
{
    struct run r = {.j = j, .x = dx, .parts = work, .raw = raw, .kept = stats};
    tg_parallel_rows(j->ctx->threads, j->rows, bwd_rows, &r);
    for (size_t block = 0; block < tg_blocks_of_rows(j->rows); block++) {
        const float *part = work + block * part_floats(j);
        if (dw)
            j->ctx->k->axpy(1, part, dw, j->weights);
        if (db)
            j->ctx->k->axpy(1, part + j->weights, db, j->weights);
    }
}
