/* GEMM and linear layers against the double reference: every transposition, strides wider than the
 * matrix, guard pages behind each operand, alpha and beta, the same bits on any number of threads.
 */
#include "linearize/kernels/gemm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/ref.h"
#include "tests/check.h"
#include "tests/guard.h"

/* float32 rounds to 6e-8; sums of up to 8192 terms */
static const double TOLERANCE = 2e-6;

struct shape {
    size_t m, n, k;
};

/* a stored matrix of `rows` x `columns` with rows `pad` floats apart, ending at a guard page */
struct matrix {
    struct tg_guarded g;
    double *d;
    size_t rows, columns, ld, size;
};

static struct matrix matrix(size_t rows, size_t columns, size_t pad, uint64_t seed)
{
    struct matrix m = {.rows = rows, .columns = columns, .ld = columns + pad};
    m.size = rows ? (rows - 1) * m.ld + columns : 0;
    m.g = tg_guard(m.size);
    m.d = tg_alloc_array(m.size + 1, sizeof *m.d);
    assert_non_null(m.d);
    tg_fill_random(m.g.p, m.size, seed);
    tg_to_double(m.g.p, m.d, m.size);
    return m;
}

static void drop(struct matrix *m)
{
    tg_guard_free(&m->g);
    tg_free(m->d);
}

static void must_not_be_read(struct matrix *m)
{
    for (size_t i = 0; i < m->rows; i++)
        for (size_t j = 0; j < m->columns; j++)
            m->g.p[i * m->ld + j] = NAN;
}

static void one_product(struct tg_ctx ctx, bool ta, bool tb, struct shape s, float alpha,
                        float beta, size_t pad)
{
    struct matrix a = matrix(ta ? s.k : s.m, ta ? s.m : s.k, pad, 1);
    struct matrix b = matrix(tb ? s.n : s.k, tb ? s.k : s.n, pad, 2);
    struct matrix c = matrix(s.m, s.n, pad, 3);
    char what[128];
    snprintf(what, sizeof what, "%s %d%d %zu x %zu x %zu, beta %g, padding %zu", ctx.k->name, ta,
             tb, s.m, s.n, s.k, (double)beta, pad);
    tg_gemm_ref(ta, tb, s.m, s.n, s.k, (double)alpha, a.d, a.ld, b.d, b.ld, (double)beta, c.d,
                c.ld);
    if (beta == 0)
        must_not_be_read(&c);
    tg_gemm(&ctx, ta, tb, s.m, s.n, s.k, alpha, a.g.p, a.ld, b.g.p, b.ld, beta, c.g.p, c.ld);
    /* what lies between the rows is compared too: it must be as it was */
    assert_below(tg_rel_error_fd(c.g.p, c.d, c.size), TOLERANCE, what);
    drop(&a), drop(&b), drop(&c);
}

/* The kernels' own product of small matrices; a row of C alone has the same bits */
static void one_small(const struct tg_kernels *k, bool ta, bool tb, struct shape s, bool add,
                      size_t pad)
{
    struct matrix a = matrix(ta ? s.k : s.m, ta ? s.m : s.k, pad, 1);
    struct matrix b = matrix(tb ? s.n : s.k, tb ? s.k : s.n, pad, 2);
    struct matrix c = matrix(s.m, s.n, pad, 3), row = matrix(1, s.n, 0, 3);
    char what[128];
    snprintf(what, sizeof what, "%s mm %d%d %zu x %zu x %zu, add %d, padding %zu", k->name, ta, tb,
             s.m, s.n, s.k, add, pad);
    tg_gemm_ref(ta, tb, s.m, s.n, s.k, 1, a.d, a.ld, b.d, b.ld, add ? 1 : 0, c.d, c.ld);
    size_t last = s.m - 1;
    memcpy(row.g.p, c.g.p + last * c.ld, s.n * sizeof(float));
    if (!add)
        must_not_be_read(&c);
    k->mm(ta, tb, s.m, s.n, s.k, a.g.p, a.ld, b.g.p, b.ld, add, c.g.p, c.ld);
    assert_below(tg_rel_error_fd(c.g.p, c.d, c.size), TOLERANCE, what);
    k->mm(ta, tb, 1, s.n, s.k, a.g.p + (ta ? last : last * a.ld), a.ld, b.g.p, b.ld, add, row.g.p,
          row.ld);
    assert_memory_equal(row.g.p, c.g.p + last * c.ld, s.n * sizeof(float));
    drop(&a), drop(&b), drop(&c), drop(&row);
}

static void test_small(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 1, 1},    {2, 3, 64},    {3, 7, 129},  {8, 33, 65},    {9, 15, 8}, {5, 7, 0},
        {16, 16, 64}, {64, 64, 64},  {65, 31, 17}, {13, 48, 300},  {7, 8, 9},  {64, 128, 16},
        {40, 1, 24},  {17, 257, 70}, {1, 64, 256}, {100, 130, 31},
    };
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t t = 0; t < 4; t++)
                for (size_t add = 0; add < 2; add++)
                    one_small(*k, t & 1, t & 2, shapes[i], add, (i + t) % 2 * 5);
}

static void test_products(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 1, 1}, {1, 17, 5},   {2, 3, 64},   {3, 1000, 7},   {8, 33, 65},    {9, 33, 65},
        {5, 7, 0}, {64, 64, 64}, {65, 31, 17}, {130, 70, 300}, {257, 129, 70}, {300, 700, 24},
    };
    static const float scales[][2] = {{1, 0}, {1, 1}, {-0.5f, 0}, {0.75f, 0.25f}};
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t t = 0; t < 4; t++)
                for (size_t e = 0; e < 4; e++)
                    one_product((struct tg_ctx){.k = *k, .threads = 2}, t & 1, t & 2, shapes[i],
                                scales[e][0], scales[e][1], e);
}

/* Shapes that are split in different ways; the empty ones touch nothing. */
static void test_threads(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {1, 8192, 64},   {4, 3000, 300},  {8, 2048, 256},  {16, 4100, 64},
        {130, 300, 256}, {256, 256, 512}, {704, 256, 128}, {1025, 70, 65},
        {4097, 130, 33}, {0, 5, 5},       {5, 0, 5},
    };
    const struct tg_kernels *k = tg_kernels_select((unsigned)TG_CPU_ALL);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t t = 0; t < 4; t++) {
            bool ta = t & 1, tb = t & 2;
            struct shape s = shapes[i];
            struct matrix a = matrix(ta ? s.k : s.m, ta ? s.m : s.k, 0, 1);
            struct matrix b = matrix(tb ? s.n : s.k, tb ? s.k : s.n, 0, 2);
            struct matrix one = matrix(s.m, s.n, 0, 3);
            tg_gemm(&(struct tg_ctx){.k = k, .threads = 1}, ta, tb, s.m, s.n, s.k, 1, a.g.p, a.ld,
                    b.g.p, b.ld, 1, one.g.p, one.ld);
            for (int threads = 2; threads <= 5; threads++) {
                struct matrix c = matrix(s.m, s.n, 0, 3);
                tg_gemm(&(struct tg_ctx){.k = k, .threads = threads}, ta, tb, s.m, s.n, s.k, 1,
                        a.g.p, a.ld, b.g.p, b.ld, 1, c.g.p, c.ld);
                if (c.size)
                    assert_memory_equal(c.g.p, one.g.p, c.size * sizeof(float));
                drop(&c);
            }
            drop(&a), drop(&b), drop(&one);
        }
}

/* A row of a short product has the same bits whether computed alone or with others: decoding one
 * sequence or several gives the same. */
static void test_short_rows(void **state)
{
    (void)state;
    enum { M = 8, N = 200, K = 129 };
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        struct tg_ctx ctx = {.k = *k, .threads = 1};
        struct matrix x = matrix(M, K, 0, 1), w = matrix(N, K, 0, 2), y = matrix(M, N, 0, 3);
        float alone[N];
        tg_linear_fwd(&ctx, x.g.p, w.g.p, NULL, y.g.p, M, N, K);
        for (size_t i = 0; i < M; i++) {
            tg_linear_fwd(&ctx, x.g.p + i * K, w.g.p, NULL, alone, 1, N, K);
            assert_memory_equal(alone, y.g.p + i * N, sizeof alone);
        }
        drop(&x), drop(&w), drop(&y);
    }
}

/* bf16(x): 8 significant bits, to the nearest, ties to even */
static double to_bf16(double x)
{
    int exponent;
    return x == 0 ? 0
                  : (frexp(x, &exponent), ldexp(nearbyint(ldexp(x, 8 - exponent)), exponent - 8));
}

/* The first and the second part of every number */
static void cut(const double *x, size_t n, double *first, double *second)
{
    for (size_t i = 0; i < n; i++) {
        first[i] = to_bf16(x[i]);
        second[i] = to_bf16(x[i] - first[i]);
    }
}

/* What a precision says of the factors, summed in double; float32 sums of it come close. */
static void one_precision(struct tg_ctx ctx, bool ta, bool tb, struct shape s, float alpha,
                          float beta, size_t pad)
{
    struct matrix a = matrix(ta ? s.k : s.m, ta ? s.m : s.k, pad, 1);
    struct matrix b = matrix(tb ? s.n : s.k, tb ? s.k : s.n, pad, 2);
    struct matrix c = matrix(s.m, s.n, pad, 3), whole = matrix(s.m, s.n, pad, 3);
    struct matrix a0 = matrix(a.rows, a.columns, pad, 1), a1 = matrix(a.rows, a.columns, pad, 1);
    struct matrix b0 = matrix(b.rows, b.columns, pad, 2), b1 = matrix(b.rows, b.columns, pad, 2);
    char what[128];
    snprintf(what, sizeof what, "precision %d, %d%d %zu x %zu x %zu, beta %g, padding %zu",
             ctx.precision, ta, tb, s.m, s.n, s.k, (double)beta, pad);
    cut(a.d, a.size, a0.d, a1.d);
    cut(b.d, b.size, b0.d, b1.d);
    tg_gemm_ref(ta, tb, s.m, s.n, s.k, alpha, a.d, a.ld, b.d, b.ld, beta, whole.d, c.ld);
    tg_gemm_ref(ta, tb, s.m, s.n, s.k, alpha, a0.d, a.ld, b0.d, b.ld, beta, c.d, c.ld);
    if (ctx.precision == TG_PREC_BF16X2) {
        tg_gemm_ref(ta, tb, s.m, s.n, s.k, alpha, a0.d, a.ld, b1.d, b.ld, 1, c.d, c.ld);
        tg_gemm_ref(ta, tb, s.m, s.n, s.k, alpha, a1.d, a.ld, b0.d, b.ld, 1, c.d, c.ld);
    }
    if (beta == 0)
        must_not_be_read(&c);
    tg_gemm(&ctx, ta, tb, s.m, s.n, s.k, alpha, a.g.p, a.ld, b.g.p, b.ld, beta, c.g.p, c.ld);
    assert_below(tg_rel_error_fd(c.g.p, c.d, c.size), TOLERANCE, what);
    /* significant bits as promised */
    assert_below(tg_rel_error_fd(c.g.p, whole.d, c.size),
                 ctx.precision == TG_PREC_BF16X2 ? ldexp(1, -16) : ldexp(1, -8), what);
    drop(&a), drop(&b), drop(&c), drop(&whole), drop(&a0), drop(&a1), drop(&b0), drop(&b1);
}

static const struct shape large[] = {{129, 130, 131}, {1031, 70, 65}, {70, 1031, 33},
                                     {600, 17, 300},  {33, 95, 1000}, {513, 129, 257}};
enum { LARGE = sizeof large / sizeof *large };

static void test_precision(void **state)
{
    (void)state;
    static const float scales[][2] = {{1, 0}, {1, 1}, {-0.5f, 0}, {0.75f, 0.25f}};
    const struct tg_kernels *k = tg_kernels_select((unsigned)TG_CPU_ALL);
    if (!k->product)
        skip();
    for (size_t i = 0; i < LARGE; i++)
        for (size_t t = 0; t < 4; t++)
            for (size_t e = 0; e < 4; e++)
                for (int p = TG_PREC_BF16X2; p <= TG_PREC_BF16; p++)
                    one_precision((struct tg_ctx){k, 2, (enum tg_precision)p}, t & 1, t & 2,
                                  large[i], scales[e][0], scales[e][1], e);
}

/* C of the same factors, beta 1 */
static struct matrix product_of(struct tg_ctx ctx, struct shape s)
{
    struct matrix a = matrix(s.m, s.k, 0, 1), b = matrix(s.k, s.n, 0, 2),
                  c = matrix(s.m, s.n, 0, 3);
    tg_gemm(&ctx, false, false, s.m, s.n, s.k, 1, a.g.p, s.k, b.g.p, s.n, 1, c.g.p, s.n);
    drop(&a), drop(&b);
    return c;
}

static bool same_bits(struct tg_ctx one, struct tg_ctx two, struct shape s)
{
    struct matrix c = product_of(one, s), d = product_of(two, s);
    bool same = memcmp(c.g.p, d.g.p, c.size * sizeof(float)) == 0;
    drop(&c), drop(&d);
    return same;
}

/* A precision is float32 for small products and where there is no unit for it, and the number of
 * threads does not change a bit of it. */
static void test_precision_bits(void **state)
{
    (void)state;
    const struct tg_kernels *best = tg_kernels_select((unsigned)TG_CPU_ALL);
    const struct shape small = {64, 64, 64};
    for (int p = TG_PREC_BF16X2; p <= TG_PREC_BF16; p++) {
        const enum tg_precision precision = (enum tg_precision)p;
        for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
            assert_true(same_bits((struct tg_ctx){*k, 1, TG_PREC_F32},
                                  (struct tg_ctx){*k, 1, precision}, large[0]));
        assert_true(same_bits((struct tg_ctx){best, 1, TG_PREC_F32},
                              (struct tg_ctx){best, 1, precision}, small));
        for (int threads = 2; threads <= 5; threads++)
            assert_true(same_bits((struct tg_ctx){best, 1, precision},
                                  (struct tg_ctx){best, threads, precision}, large[1]));
        if (best->product)
            assert_false(same_bits((struct tg_ctx){best, 1, TG_PREC_F32},
                                   (struct tg_ctx){best, 1, precision}, large[0]));
    }
}

static void one_linear(struct tg_ctx ctx, size_t rows, size_t n, size_t k)
{
    struct matrix x = matrix(rows, k, 0, 1), w = matrix(n, k, 0, 2), bias = matrix(1, n, 0, 3);
    struct matrix y = matrix(rows, n, 0, 4), dy = matrix(rows, n, 0, 5), dx = matrix(rows, k, 0, 6);
    struct matrix dw = matrix(n, k, 0, 7), dbias = matrix(1, n, 0, 8), dx2 = matrix(rows, k, 0, 6);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < n; j++) {
            y.d[r * n + j] = bias.d[j];
            dbias.d[j] += dy.d[r * n + j];
        }
    tg_gemm_ref(false, true, rows, n, k, 1, x.d, k, w.d, k, 1, y.d, n);
    tg_gemm_ref(false, false, rows, k, n, 1, dy.d, n, w.d, k, 0.5, dx.d, k);
    tg_gemm_ref(true, false, n, k, rows, 1, dy.d, n, x.d, k, 1, dw.d, k);
    tg_linear_fwd(&ctx, x.g.p, w.g.p, bias.g.p, y.g.p, rows, n, k);
    tg_linear_bwd(&ctx, x.g.p, w.g.p, dy.g.p, dx.g.p, 0.5f, dw.g.p, dbias.g.p, rows, n, k);
    tg_linear_bwd(&ctx, x.g.p, w.g.p, dy.g.p, dx2.g.p, 0.5f, NULL, NULL, rows, n, k);
    assert_below(tg_rel_error_fd(y.g.p, y.d, y.size), TOLERANCE, "linear y");
    assert_below(tg_rel_error_fd(dx.g.p, dx.d, dx.size), TOLERANCE, "linear dx");
    assert_below(tg_rel_error_fd(dw.g.p, dw.d, dw.size), TOLERANCE, "linear dw");
    assert_below(tg_rel_error_fd(dbias.g.p, dbias.d, dbias.size), TOLERANCE, "linear dbias");
    assert_memory_equal(dx2.g.p, dx.g.p, dx.size * sizeof(float));
    drop(&x), drop(&w), drop(&bias), drop(&y), drop(&dy), drop(&dx), drop(&dw), drop(&dbias);
    drop(&dx2);
}

static void test_linear(void **state)
{
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (int threads = 1; threads <= 3; threads++) {
            one_linear((struct tg_ctx){.k = *k, .threads = threads}, 1, 65, 33);
            one_linear((struct tg_ctx){.k = *k, .threads = threads}, 7, 130, 64);
            one_linear((struct tg_ctx){.k = *k, .threads = threads}, 300, 100, 70);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),          cmocka_unit_test(test_products),
        cmocka_unit_test(test_threads),        cmocka_unit_test(test_short_rows),
        cmocka_unit_test(test_linear),         cmocka_unit_test(test_precision),
        cmocka_unit_test(test_precision_bits),
    };
    tg_gemm_init();
    return tg_run_tests("gemm", tests, sizeof tests / sizeof *tests);
}
