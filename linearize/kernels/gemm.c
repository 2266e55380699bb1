/* C = alpha op(A) op(B) + beta C on blocks of C that the shape alone fixes, one OpenBLAS call on
 * one thread for each, so that any number of threads gives the same bits. Blocks are large (an
 * OpenBLAS call packs its panels of A and B anew), as even as can be, and enough to share among
 * threads.
 *
 * A few rows times a transposed matrix (decoding: y = x W^T) would spend its time packing W; there
 * every element of C is one dot product and W is read once. */
#include "linearize/kernels/gemm.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#include <cblas.h>

#include "base/pool.h"

enum {
    MAX_DOT_ROWS = 8,     /* more rows than this go to OpenBLAS */
    DOT_COLUMNS = 16,     /* rows of W that stay in the first cache while x's rows pass */
    BLOCK_COLUMNS = 2048, /* at most */
    MIN_COLUMNS = 128,    /* no block is split below this */
};
static const double one_block_flops = 4e6, dot_item_flops = 1e6;

void tg_gemm_init(void)
{
    openblas_set_num_threads(1);
}

const char *tg_gemm_core(void)
{
    return openblas_get_corename();
}

const char *tg_gemm_better_core(void)
{
    static const char *const old[] = {"Prescott", "Core2", "Nehalem", "Generic"};
    const unsigned flags = tg_cpu_flags();
    if (!(flags & TG_CPU_AVX2))
        return NULL;
    for (size_t i = 0; i < sizeof old / sizeof *old; i++)
        if (strcmp(tg_gemm_core(), old[i]) == 0)
            return flags & TG_CPU_AVX512 ? "SkylakeX" : "Haswell";
    return NULL;
}

struct gemm {
    const struct tg_kernels *kern;
    enum tg_precision precision;
    struct tg_product of;
    size_t rows, columns; /* of a block */
};

void tg_gemm1(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, const float *a,
              size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    assert(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX);
    assert(lda <= INT_MAX && ldb <= INT_MAX && ldc <= INT_MAX);
    if (m == 0 || n == 0)
        return;
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans,
                (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void tg_scores(const struct tg_kernels *kern, size_t m, size_t n, size_t k, float alpha,
               const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc)
{
    if (!kern->fast_mm) {
        tg_gemm1(false, true, m, n, k, alpha, a, lda, b, ldb, 0, c, ldc);
        return;
    }
    kern->mm(false, true, m, n, k, a, lda, b, ldb, false, c, ldc);
    for (size_t i = 0; alpha != 1 && i < m; i++)
        kern->scale(alpha, c + i * ldc, n);
}

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* n in `parts` of equal size but for rounding up to a multiple of 16 */
static size_t even_part(size_t n, size_t parts)
{
    return smaller(ceil_div(ceil_div(n, parts), 16) * 16, n);
}

static void block_item(void *ud, size_t item, int worker)
{
    const struct gemm *g = ud;
    struct tg_product p = g->of;
    (void)worker;
    size_t row_blocks = ceil_div(p.m, g->rows);
    size_t i = item % row_blocks * g->rows, j = item / row_blocks * g->columns;
    p.a += p.ta ? i : i * p.lda;
    p.b += p.tb ? j * p.ldb : j;
    p.c += i * p.ldc + j;
    p.m = smaller(g->rows, p.m - i);
    p.n = smaller(g->columns, p.n - j);
    if (g->precision != TG_PREC_F32)
        g->kern->product(&p, g->precision);
    else
        tg_gemm1(p.ta, p.tb, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, p.c, p.ldc);
}

/* one block, or few and odd in number: two threads would wait for each other */
static bool lopsided(size_t blocks)
{
    return blocks % 2 == 1 && blocks < 16;
}

static double flops(const struct tg_product *p)
{
    return 2.0 * (double)p->m * (double)p->n * (double)p->k;
}

/* From the shape alone. */
static void choose_blocks(struct gemm *g)
{
    size_t m = g->of.m, n = g->of.n;
    g->rows = m, g->columns = n;
    if (flops(&g->of) < one_block_flops)
        return;
    size_t target = m >= 1024 ? 512 : m > 128 ? (m + 1) / 2 : m;
    size_t down = ceil_div(m, target), across = ceil_div(n, BLOCK_COLUMNS);
    if (down > 1 && lopsided(down))
        down++;
    g->rows = even_part(m, down);
    down = ceil_div(m, g->rows);
    while (lopsided(down * across) && n / (across + 1) >= MIN_COLUMNS)
        across++;
    g->columns = even_part(n, across);
}

static void dots_item(void *ud, size_t item, int worker)
{
    const struct gemm *g = ud;
    const struct tg_product *p = &g->of;
    (void)worker;
    float out[DOT_COLUMNS];
    size_t end = smaller(p->n, (item + 1) * g->columns);
    for (size_t j = item * g->columns; j < end; j += DOT_COLUMNS) {
        size_t count = smaller(DOT_COLUMNS, end - j);
        for (size_t i = 0; i < p->m; i++) {
            float *c = p->c + i * p->ldc + j;
            g->kern->dots(p->a + i * p->lda, p->b + j * p->ldb, p->ldb, count, p->k, out);
            for (size_t l = 0; l < count; l++)
                c[l] = p->beta == 0 ? p->alpha * out[l] : p->alpha * out[l] + p->beta * c[l];
        }
    }
}

void tg_gemm(const struct tg_ctx *ctx, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha,
             const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
             size_t ldc)
{
    if (m == 0 || n == 0)
        return;
    struct gemm g = {.kern = ctx->k, .of = {ta, tb, m, n, k, alpha, beta, a, b, c, lda, ldb, ldc}};
    if (m <= MAX_DOT_ROWS && !ta && tb && k > 0) {
        size_t items = (size_t)(flops(&g.of) / dot_item_flops) + 1;
        g.columns = ceil_div(ceil_div(n, items), DOT_COLUMNS) * DOT_COLUMNS;
        tg_parallel(ctx->threads, ceil_div(n, g.columns), dots_item, &g);
        return;
    }
    if (ctx->k->product && flops(&g.of) >= one_block_flops)
        g.precision = ctx->precision;
    choose_blocks(&g);
    tg_parallel(ctx->threads, ceil_div(m, g.rows) * ceil_div(n, g.columns), block_item, &g);
}

void tg_linear_fwd(const struct tg_ctx *ctx, const float *x, const float *w, const float *bias,
                   float *y, size_t rows, size_t n, size_t k)
{
    if (bias)
        for (size_t r = 0; r < rows; r++)
            memcpy(y + r * n, bias, n * sizeof *y);
    tg_gemm(ctx, false, true, rows, n, k, 1, x, k, w, k, bias ? 1 : 0, y, n);
}

enum { BIAS_COLUMNS = 64 };

struct bias_grad {
    const float *dy;
    float *dbias;
    size_t rows, n;
};

static void bias_item(void *ud, size_t item, int worker)
{
    const struct bias_grad *b = ud;
    (void)worker;
    double sum[BIAS_COLUMNS] = {0};
    size_t first = item * BIAS_COLUMNS, count = smaller(BIAS_COLUMNS, b->n - first);
    for (size_t r = 0; r < b->rows; r++) {
        const float *dy = b->dy + r * b->n + first;
        for (size_t j = 0; j < count; j++)
            sum[j] += dy[j];
    }
    for (size_t j = 0; j < count; j++)
        b->dbias[first + j] += (float)sum[j];
}

void tg_linear_bwd(const struct tg_ctx *ctx, const float *x, const float *w, const float *dy,
                   float *dx, float beta, float *dw, float *dbias, size_t rows, size_t n, size_t k)
{
    if (dx)
        tg_gemm(ctx, false, false, rows, k, n, 1, dy, n, w, k, beta, dx, k);
    if (dw)
        tg_gemm(ctx, true, false, n, k, rows, 1, dy, n, x, k, 1, dw, k);
    if (dbias) {
        struct bias_grad b = {dy, dbias, rows, n};
        tg_parallel(ctx->threads, ceil_div(n, BIAS_COLUMNS), bias_item, &b);
    }
}
