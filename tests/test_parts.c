/* What surrounds a recurrence: short convolution, gated norms, selective scan, elementwise scan,
 * decays. Against their double references or definitions; gradients by central differences; in
 * pieces with a state; several threads bit for bit. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/conv.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/scan.h"
#include "tests/check.h"
#include "tests/guard.h"

static const double FORWARD = 2e-6, GRADIENT = 1e-5;

static float *randoms(size_t n, uint64_t seed)
{
    float *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    if (seed)
        tg_fill_random(p, n, seed);
    return p;
}

static double *wide(const float *x, size_t n)
{
    double *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    if (x)
        tg_to_double(x, p, n);
    return p;
}

static struct tg_ctx context(int threads)
{
    return (struct tg_ctx){.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = threads};
}

static void free_all(void **used, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tg_free(used[i]);
}

typedef double (*loss_fn)(void *ud);

/* d loss / d x by central differences against got */
static void check_slope(loss_fn loss, void *ud, double *x, size_t n, const float *got,
                        const char *what)
{
    double *want = wide(NULL, n);
    for (size_t i = 0; i < n; i++) {
        double keep = x[i];
        x[i] = keep + 1e-5;
        double up = loss(ud);
        x[i] = keep - 1e-5;
        want[i] = (up - loss(ud)) / 2e-5;
        x[i] = keep;
    }
    assert_below(tg_rel_error_fd(got, want, n), GRADIENT, what);
    tg_free(want);
}

static double weighted(const double *y, const float *dy, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += y[i] * (double)dy[i];
    return sum;
}

struct conv_case {
    struct tg_conv c;
    size_t begin[4];
    double *x, *w, *bias, *y;
    const float *dy;
};

static double conv_loss(void *ud)
{
    struct conv_case *t = ud;
    for (size_t i = 0; i < 3; i++)
        tg_conv_ref(&t->c, t->begin[i + 1] - t->begin[i], t->x + t->begin[i] * t->c.D, t->w,
                    t->bias, t->y + t->begin[i] * t->c.D);
    return weighted(t->y, t->dy, t->begin[3] * t->c.D);
}

/* D channels inside rows of D + 3; the first sequence shorter than the taps */
static void conv_one(size_t D, size_t taps, bool silu, bool biased)
{
    enum { ROWS = 12, MORE = 3 };
    struct conv_case t = {.c = {.D = D, .taps = taps, .silu = silu}, .begin = {0, 2, 2, ROWS}};
    struct tg_batch b = {3, t.begin, NULL};
    size_t n = ROWS * D, ld = D + MORE;
    float *x = randoms(n, 1), *w = randoms(D * taps, 2), *dy = randoms(n, 4), *y = randoms(n, 0);
    float *bias = biased ? randoms(D, 3) : NULL, *far = randoms(ROWS * ld, 0), *y2 = randoms(n, 0);
    float *dx = randoms(ROWS * ld, 0), *dw = randoms(D * taps, 0), *db = randoms(D, 0);
    t.x = wide(x, n);
    t.w = wide(w, D * taps);
    t.bias = biased ? wide(bias, D) : NULL;
    t.y = wide(NULL, n);
    t.dy = dy;
    float *saved_dy = randoms(n, 4);
    for (size_t i = 0; i < n; i++)
        far[i / D * ld + i % D] = x[i];
    struct tg_conv strided = t.c;
    strided.ld_x = ld;
    struct tg_ctx one = context(1), two = context(2);
    tg_conv_fwd(&one, &t.c, &b, x, w, bias, y, (struct tg_states){0});
    tg_conv_fwd(&two, &strided, &b, far, w, bias, y2, (struct tg_states){0});
    conv_loss(&t);
    assert_below(tg_rel_error_fd(y, t.y, n), FORWARD, "convolution");
    assert_memory_equal(y, y2, n * sizeof *y);
    tg_conv_bwd(&two, &strided, &b, far, w, bias, saved_dy, dx, dw, biased ? db : NULL);
    for (size_t i = 0; i < n; i++)
        y2[i] = dx[i / D * ld + i % D];
    check_slope(conv_loss, &t, t.x, n, y2, "dx");
    check_slope(conv_loss, &t, t.w, D * taps, dw, "dw");
    if (biased)
        check_slope(conv_loss, &t, t.bias, D, db, "dbias");
    /* the last sequence row by row, then 1 + 7 + 2 rows */
    for (size_t piece = 0; piece < 2; piece++) {
        size_t cuts[2][4] = {{1, 1, 1, 1}, {1, 7, 2, 1}}, row = 2;
        float *state = randoms(tg_conv_state(&t.c), 0), *of[1] = {state};
        memset(y2, 0, n * sizeof *y2);
        for (size_t k = 0; row < ROWS; k++) {
            size_t begin[2] = {0, cuts[piece][k % 4]};
            struct tg_batch part = {1, begin, NULL};
            tg_conv_fwd(&two, &t.c, &part, x + row * D, w, bias, y2 + row * D,
                        (struct tg_states){of, 0});
            row += begin[1];
        }
        assert_memory_equal(y2 + 2 * D, y + 2 * D, (ROWS - 2) * D * sizeof *y);
        tg_free(state);
    }
    void *used[] = {x, w, dy, y, bias, far, y2, dx, dw, db, t.x, t.w, t.bias, t.y, saved_dy};
    free_all(used, sizeof used / sizeof *used);
}

static void test_conv(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        conv_one(5, 4, i & 1, i & 2);
        conv_one(67, 3, i & 1, i & 2);
        conv_one(3, 1, i & 1, i & 2);
        conv_one(2, 7, i & 1, i & 2);
    }
}

struct norm_case {
    struct tg_gnorm g;
    size_t rows;
    double *x, *z, *w, *y;
    const float *dy;
};

static double norm_loss(void *ud)
{
    struct norm_case *t = ud;
    tg_gnorm_ref(&t->g, t->rows, t->x, t->z, t->w, t->y);
    return weighted(t->y, t->dy, t->rows * t->g.groups * t->g.n);
}

static void norm_one(struct tg_gnorm g, bool weight)
{
    struct norm_case t = {.g = g, .rows = 67};
    size_t n = t.rows * g.groups * g.n, nw = g.shared ? g.n : g.groups * g.n;
    float *x = randoms(n, 1), *z = randoms(n, 2), *w = weight ? randoms(nw, 3) : NULL;
    float *dy = randoms(n, 4), *y = randoms(n, 0), *y2 = randoms(n, 0), *r = randoms(n, 0);
    float *dx = randoms(n, 0), *dz = randoms(n, 0), *dw = randoms(nw, 0), *dw2 = randoms(nw, 0);
    float *work = randoms(tg_gnorm_work(&g, t.rows), 0);
    t.x = wide(x, n);
    t.z = wide(z, n);
    t.w = weight ? wide(w, nw) : NULL;
    t.y = wide(NULL, n);
    t.dy = dy;
    struct tg_ctx one = context(1), two = context(2);
    tg_gnorm_fwd(&one, &g, t.rows, x, g.gate ? z : NULL, w, y, r);
    memcpy(y2, x, n * sizeof *y2);
    tg_gnorm_fwd(&two, &g, t.rows, y2, g.gate ? z : NULL, w, y2, NULL);
    assert_memory_equal(y, y2, n * sizeof *y);
    norm_loss(&t);
    assert_below(tg_rel_error_fd(y, t.y, n), FORWARD, "norm");
    tg_gnorm_bwd(&one, &g, t.rows, x, g.gate ? z : NULL, w, r, dy, dx, g.gate ? dz : NULL,
                 weight ? dw : NULL, work);
    memcpy(y2, dy, n * sizeof *y2);
    tg_gnorm_bwd(&two, &g, t.rows, x, g.gate ? z : NULL, w, r, y2, y2, NULL, weight ? dw2 : NULL,
                 work);
    assert_memory_equal(dx, y2, n * sizeof *y2);
    assert_memory_equal(dw, dw2, nw * sizeof *dw);
    check_slope(norm_loss, &t, t.x, n, dx, "dx");
    if (g.gate)
        check_slope(norm_loss, &t, t.z, n, dz, "dz");
    if (weight)
        check_slope(norm_loss, &t, t.w, nw, dw, "dw");
    void *used[] = {x, z, w, dy, y, y2, r, dx, dz, dw, dw2, work, t.x, t.z, t.w, t.y};
    free_all(used, sizeof used / sizeof *used);
}

static void test_norm(void **state)
{
    (void)state;
    for (int i = 0; i < 24; i++) {
        struct tg_gnorm g = {.groups = 2, .n = 5, .eps = 1e-3F};
        g.gate = (enum tg_gate_fn)(i % 3);
        g.gate_first = i / 3 % 2;
        g.shared = i / 6 % 2;
        g.l2 = i / 12;
        norm_one(g, true);
        norm_one(g, false);
    }
}

static void test_ssm1(void **state)
{
    enum { T = 19, D = 21 };
    (void)state;
    for (size_t N = 3; N <= 70; N += 67) {
        struct tg_ssm1 s = {D, N, N + 2};
        float *x = randoms(T * D, 1), *dt = randoms(T * D, 2), *A = randoms(D * N, 3);
        float *B = randoms(T * s.ld, 4), *C = randoms(T * s.ld, 5), *skip = randoms(D, 6);
        float *y = randoms(T * D, 0), *y2 = randoms(T * D, 0), *h = randoms(D * N, 7);
        float *h2 = randoms(D * N, 7), *of[1] = {h}, *of2[1] = {h2};
        for (size_t i = 0; i < T * D; i++)
            dt[i] = 1 + dt[i];
        double *b = wide(NULL, T * N), *c = wide(NULL, T * N), *want = wide(NULL, T * D);
        for (size_t i = 0; i < T * N; i++) {
            b[i] = (double)B[i / N * s.ld + i % N];
            c[i] = (double)C[i / N * s.ld + i % N];
        }
        double *xd = wide(x, T * D), *dd = wide(dt, T * D), *ad = wide(A, D * N);
        double *sd = wide(skip, D), *hd = wide(h, D * N);
        tg_ssm1_ref(&s, T, xd, dd, ad, b, c, sd, hd, want);
        struct tg_ctx one = context(1), two = context(2);
        size_t begin[2] = {0, T};
        struct tg_batch batch = {1, begin, NULL};
        struct tg_ssm1_in in = {x, dt, A, B, C, skip};
        tg_ssm1_fwd(&one, &s, &batch, &in, y, (struct tg_states){of, 0}, NULL);
        assert_below(tg_rel_error_fd(y, want, T * D), FORWARD, "selective scan");
        assert_below(tg_rel_error_fd(h, hd, D * N), FORWARD, "its state");
        for (size_t t = 0; t < T; t++) {
            begin[1] = 1;
            in = (struct tg_ssm1_in){x + t * D, dt + t * D, A, B + t * s.ld, C + t * s.ld, skip};
            tg_ssm1_fwd(&two, &s, &batch, &in, y2 + t * D, (struct tg_states){of2, 0}, NULL);
        }
        assert_memory_equal(y, y2, T * D * sizeof *y);
        assert_memory_equal(h, h2, D * N * sizeof *h);
        void *used[] = {x, dt, A, B, C, skip, y, y2, h, h2, b, c, want, xd, dd, ad, sd, hd};
        free_all(used, sizeof used / sizeof *used);
    }
}

/* Against its definition, in pieces and with several sequences; its backward is checked by a golden
 * file. */
static void test_lru(void **state)
{
    enum { T = 9, D = 70 };
    (void)state;
    float *a = randoms(T * D, 1), *u = randoms(T * D, 2), *h = randoms(T * D, 0);
    float *h2 = randoms(T * D, 0), *last = randoms(D, 0), *of[1] = {last};
    size_t begin[4] = {0, 2, 2, T};
    struct tg_batch batch = {3, begin, NULL};
    struct tg_ctx ctx = context(2);
    tg_lru_fwd(&ctx, D, &batch, a, u, h, (struct tg_states){0});
    double *want = wide(NULL, T * D);
    for (size_t i = 0; i < T * D; i++) {
        bool first = i / D == 0 || i / D == 2;
        want[i] = (double)u[i] + (first ? 0 : (double)a[i] * want[i - D]);
    }
    assert_below(tg_rel_error_fd(h, want, T * D), FORWARD, "scan");
    for (size_t t = 2; t < T; t++) {
        size_t one[2] = {0, 1};
        struct tg_batch b = {1, one, NULL};
        tg_lru_fwd(&ctx, D, &b, a + t * D, u + t * D, h2 + t * D, (struct tg_states){of, 0});
    }
    assert_memory_equal(h2 + 2 * D, h + 2 * D, (T - 2) * D * sizeof *h);
    void *used[] = {a, u, h, h2, last, want};
    free_all(used, sizeof used / sizeof *used);
}

struct decay_case {
    struct tg_decay d;
    size_t rows;
    double *a, *bias, *A_log;
    const float *dg, *ddt;
};

static double decay_loss(void *ud)
{
    struct decay_case *t = ud;
    size_t width = t->d.H * t->d.n;
    double sum = 0;
    for (size_t i = 0; i < t->rows * width; i++) {
        double dt = log1p(exp(t->a[i] + t->bias[i % width]));
        dt = fmin(fmax(dt, (double)t->d.low), (double)t->d.high);
        sum -= exp(t->A_log[i % width / t->d.n]) * dt * (double)t->dg[i];
        sum += dt * (double)t->ddt[i];
    }
    return sum;
}

static void test_decay(void **state)
{
    enum { ROWS = 11, H = 3, N = 4, WIDE = H * N };
    (void)state;
    for (int limited = 0; limited < 2; limited++) {
        struct decay_case t = {.d = {H, N, 0, 0, INFINITY}, .rows = ROWS};
        if (limited)
            t.d = (struct tg_decay){H, N, 0, 0.5F, 0.9F};
        float *a = randoms(ROWS * WIDE, 1), *bias = randoms(WIDE, 2), *A = randoms(H, 3);
        float *dg = randoms(ROWS * WIDE, 4), *ddt = randoms(ROWS * WIDE, 5);
        float *dt = randoms(ROWS * WIDE, 0), *g = randoms(ROWS * WIDE, 0);
        float *da = randoms(ROWS * WIDE, 0), *dbias = randoms(WIDE, 0), *dA = randoms(H, 0);
        t.a = wide(a, ROWS * WIDE);
        t.bias = wide(bias, WIDE);
        t.A_log = wide(A, H);
        t.dg = dg;
        t.ddt = ddt;
        struct tg_ctx ctx = context(2);
        tg_decay_fwd(&ctx, &t.d, ROWS, a, bias, A, dt, g);
        double sum = 0;
        for (size_t i = 0; i < ROWS * WIDE; i++)
            sum += (double)g[i] * (double)dg[i] + (double)dt[i] * (double)ddt[i];
        assert_below(fabs(sum / decay_loss(&t) - 1), 1e-5, "decay");
        tg_decay_bwd(&ctx, &t.d, ROWS, a, bias, A, dg, ddt, da, dbias, dA);
        check_slope(decay_loss, &t, t.a, ROWS * WIDE, da, "da");
        check_slope(decay_loss, &t, t.bias, WIDE, dbias, "dbias");
        check_slope(decay_loss, &t, t.A_log, H, dA, "dA_log");
        void *used[] = {a, bias, A, dg, ddt, dt, g, da, dbias, dA, t.a, t.bias, t.A_log};
        free_all(used, sizeof used / sizeof *used);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv), cmocka_unit_test(test_norm),  cmocka_unit_test(test_ssm1),
        cmocka_unit_test(test_lru),  cmocka_unit_test(test_decay),
    };
    tg_gemm_init();
    return tg_run_tests("parts", tests, sizeof tests / sizeof *tests);
}
