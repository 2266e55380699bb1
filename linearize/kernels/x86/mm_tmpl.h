/* Products of small matrices, as kernels.h has them: C is cut into tiles of MM_ROWS rows and two
 * vectors of columns, whose sums stay in registers; A is read element by element, B by rows where
 * it lies, or, transposed, from a copy of the tile's columns. The file that includes this defines
 * VEC of LANES floats, MASK, and the operations on them.
 *
 * Every element of C is the sum over k in order, cut only where the copy ends: its bits depend on
 * the table and on k. */
#include "linearize/kernels/x86/transpose8.h"

#include <stdbool.h>
#include <stddef.h>

enum { MM_COLUMNS = 2 * LANES, MM_DEPTH = 128 };

/* Element (i,p) of A is a[i * row + p * step]. */
struct mm_left {
    const float *a;
    size_t row, step;
};

/* `rows` and `full` are constants where this is inlined. */
static inline __attribute__((always_inline)) void mm_tile(size_t rows, bool full, struct mm_left x,
                                                          const float *b, size_t ldb, size_t k,
                                                          size_t columns, bool add, float *c,
                                                          size_t ldc)
{
    VEC sum[MM_ROWS][2];
    MASK m0 = MASK_OF(columns), m1 = MASK_OF(columns > LANES ? columns - LANES : 0);
    for (size_t r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = ZERO();
    for (size_t p = 0; p < k; p++, b += ldb) {
        VEC b0 = full ? LOAD(b) : LOAD_SOME(m0, b);
        VEC b1 = full ? LOAD(b + LANES) : LOAD_SOME(m1, b + LANES);
        for (size_t r = 0; r < rows; r++) {
            VEC xr = SPREAD(x.a[r * x.row + p * x.step]);
            sum[r][0] = FMA(xr, b0, sum[r][0]);
            sum[r][1] = FMA(xr, b1, sum[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++, c += ldc) {
        if (add) {
            sum[r][0] = ADD(sum[r][0], full ? LOAD(c) : LOAD_SOME(m0, c));
            sum[r][1] = ADD(sum[r][1], full ? LOAD(c + LANES) : LOAD_SOME(m1, c + LANES));
        }
        if (full) {
            STORE(c, sum[r][0]);
            STORE(c + LANES, sum[r][1]);
        } else {
            STORE_SOME(c, m0, sum[r][0]);
            STORE_SOME(c + LANES, m1, sum[r][1]);
        }
    }
}

/* All rows of a tile's columns */
static inline __attribute__((always_inline)) void mm_panel(bool full, struct mm_left x,
                                                           const float *b, size_t ldb, size_t m,
                                                           size_t k, size_t columns, bool add,
                                                           float *c, size_t ldc)
{
    size_t i = 0;
    for (; i + MM_ROWS <= m; i += MM_ROWS, x.a += MM_ROWS * x.row)
        mm_tile(MM_ROWS, full, x, b, ldb, k, columns, add, c + i * ldc, ldc);
    for (; i + 2 <= m; i += 2, x.a += 2 * x.row)
        mm_tile(2, full, x, b, ldb, k, columns, add, c + i * ldc, ldc);
    if (i < m)
        mm_tile(1, full, x, b, ldb, k, columns, add, c + i * ldc, ldc);
}

/* to [k,MM_COLUMNS] = the first columns of B^T */
static void mm_copy(const float *b, size_t ldb, size_t k, size_t columns, float *to)
{
    size_t j = 0;
    for (; j + 8 <= columns; j += 8) {
        size_t p = 0;
        for (; p + 8 <= k; p += 8)
            transpose8(b + j * ldb + p, ldb, to + p * MM_COLUMNS + j, MM_COLUMNS);
        for (; p < k; p++)
            for (size_t l = 0; l < 8; l++)
                to[p * MM_COLUMNS + j + l] = b[(j + l) * ldb + p];
    }
    for (; j < columns; j++)
        for (size_t p = 0; p < k; p++)
            to[p * MM_COLUMNS + j] = b[j * ldb + p];
}

static void mm(bool ta, bool tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
               const float *b, size_t ldb, bool add, float *c, size_t ldc)
{
    float copy[MM_DEPTH * MM_COLUMNS];
    struct mm_left x = {a, ta ? 1 : lda, ta ? lda : 1};
    for (size_t j = 0; j < n; j += MM_COLUMNS) {
        size_t columns = n - j < MM_COLUMNS ? n - j : MM_COLUMNS, depth = tb ? MM_DEPTH : k;
        for (size_t p = 0; p == 0 || p < k; p += depth) {
            size_t now = k - p < depth ? k - p : depth;
            const float *from = tb ? copy : b + p * ldb + j;
            struct mm_left part = {x.a + p * x.step, x.row, x.step};
            if (tb)
                mm_copy(b + j * ldb + p, ldb, now, columns, copy);
            if (columns == MM_COLUMNS)
                mm_panel(true, part, from, tb ? MM_COLUMNS : ldb, m, now, columns, add || p, c + j,
                         ldc);
            else
                mm_panel(false, part, from, tb ? MM_COLUMNS : ldb, m, now, columns, add || p, c + j,
                         ldc);
            if (k == 0)
                break;
        }
    }
}
