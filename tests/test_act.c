/* Activations, general norms and the soft-cap in every table of kernels that this processor can
 * run, against their definitions in long double; slopes against central differences of those. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "linearize/kernels/kernels.h"
#include "tests/check.h"
#include "tests/guard.h"

/* float32 rounds to 6e-8, an exponential of an argument around 10 to ten times that */
static const double TOLERANCE = 1e-6;
enum { SLOTS = 8, MAX_N = 1000 };
static const size_t sizes[] = {1, 3, 8, 15, 16, 17, 33, 64, 257, MAX_N};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Arrays that end at a guard page: random, of deviation `size` */
static struct tg_guarded guards[SLOTS];
static float *f[SLOTS];

static void open_slots(size_t n, float size)
{
    for (size_t i = 0; i < SLOTS; i++) {
        guards[i] = tg_guard(n);
        f[i] = guards[i].p;
        tg_fill_random(f[i], n, n * SLOTS + i);
        for (size_t j = 0; j < n; j++)
            f[i][j] *= size;
    }
}

static void close_slots(void)
{
    for (size_t i = 0; i < SLOTS; i++)
        tg_guard_free(&guards[i]);
}

/* act(a) times b, or for clamped_glu the whole of it */
static long double act(enum tg_activation kind, long double a, long double b)
{
    long double u = sqrtl(2 / M_PIl) * (a + 0.044715L * a * a * a);
    switch (kind) {
    case TG_ACT_SILU:
        return a / (1 + expl(-a)) * b;
    case TG_ACT_GELU:
        return a * erfcl(-a / sqrtl(2)) / 2 * b;
    case TG_ACT_GELU_TANH:
        return a / (1 + expl(-2 * u)) * b;
    case TG_ACT_RELU:
        return (a > 0 ? a : 0) * b;
    case TG_ACT_RELU2:
        return (a > 0 ? a * a : 0) * b;
    case TG_ACT_CLAMPED_GLU:
        a = a > 7 ? 7 : a;
        b = b > 7 ? 7 : b < -7 ? -7 : b;
        return a / (1 + expl(-1.702L * a)) * (b + 1);
    case TG_ACT_COUNT:
        break;
    }
    return NAN;
}

static long double slope_a(enum tg_activation kind, long double a, long double b)
{
    const long double step = 1e-6L;
    return (act(kind, a + step, b) - act(kind, a - step, b)) / (2 * step);
}

static long double slope_b(enum tg_activation kind, long double a, long double b)
{
    const long double step = 1e-6L;
    return (act(kind, a, b + step) - act(kind, a, b - step)) / (2 * step);
}

/* `b`: the second argument that leaves act alone */
static void run_act(const struct tg_kernels *k, enum tg_activation kind, size_t n)
{
    const struct tg_act_kernels *run = &k->act[kind];
    static double want[6][MAX_N];
    long double one = kind == TG_ACT_CLAMPED_GLU ? 0 : 1;
    float *a = f[0], *b = f[1], *dy = f[2];
    char what[6][64];
    for (size_t i = 0; i < n; i++) {
        want[0][i] = (double)act(kind, a[i], one);
        want[1][i] = (double)(dy[i] * slope_a(kind, a[i], one));
        want[2][i] = (double)act(kind, a[i], b[i]);
        want[3][i] = (double)(dy[i] * slope_a(kind, a[i], b[i]));
        want[4][i] = (double)(dy[i] * slope_b(kind, a[i], b[i]));
    }
    run->fwd(a, f[3], n);
    run->bwd(a, dy, f[4], n);
    run->mul_fwd(a, b, f[5], n);
    run->mul_bwd(a, b, dy, f[6], f[7], n);
    for (size_t j = 0; j < 5; j++) {
        snprintf(what[j], sizeof what[j], "%s %s part %zu, n = %zu", k->name,
                 tg_activation_name(kind), j, n);
        assert_below(tg_rel_error_fd(f[3 + j], want[j], n), TOLERANCE, what[j]);
    }
    /* in place: the result may lie on any argument */
    run->mul_bwd(a, b, dy, dy, b, n);
    assert_memory_equal(dy, f[6], n * sizeof *dy);
    assert_memory_equal(b, f[7], n * sizeof *b);
    run->fwd(a, a, n);
    assert_memory_equal(a, f[3], n * sizeof *a);
}

static void test_activations(void **state)
{
    static const float scales[] = {1, 4};
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t kind = 0; kind < TG_ACT_COUNT; kind++)
            for (size_t i = 0; i < SIZES * 2; i++) {
                open_slots(sizes[i / 2], scales[i % 2]);
                run_act(*k, (enum tg_activation)kind, sizes[i / 2]);
                close_slots();
            }
}

/* gelu keeps its digits where it is small: relative to each value, from the tail to the top */
static void test_gelu_tail(void **state)
{
    enum { N = 1601 };
    static float x[N], y[N], z[N];
    (void)state;
    for (size_t i = 0; i < N; i++)
        x[i] = (float)((double)i / 100 - 8);
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        double worst = 0;
        (*k)->act[TG_ACT_GELU].fwd(x, y, N);
        (*k)->act[TG_ACT_GELU_TANH].fwd(x, z, N);
        for (size_t i = 0; i < N; i++) {
            double want[] = {(double)act(TG_ACT_GELU, x[i], 1),
                             (double)act(TG_ACT_GELU_TANH, x[i], 1)};
            if (x[i] != 0) {
                worst = fmax(worst, fabs(y[i] / want[0] - 1));
                worst = fmax(worst, x[i] > -4 ? fabs(z[i] / want[1] - 1) : 0);
            }
        }
        assert_below(worst, 3e-6, (*k)->name);
    }
}

/* Kinks, limits and what is far away */
static void test_extremes(void **state)
{
    float a[] = {-1e30f, -100, 100, 1e18f, 0, 8, 7, -8}, y[8], da[8], db[8];
    float b[] = {1, 1, 1, 1, 1, 9, -9, 7};
    const float one[] = {1, 1, 1, 1, 1, 1, 1, 1};
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        for (size_t kind = 0; kind < TG_ACT_COUNT; kind++) {
            (*k)->act[kind].fwd(a, y, 4);
            (*k)->act[kind].bwd(a, one, da, 4);
            assert_true(y[0] == 0 && fabsf(y[1]) < 1e-30f && da[0] == 0 && fabsf(da[1]) < 1e-30f);
            if (kind == TG_ACT_CLAMPED_GLU)
                assert_true(y[3] == y[2] && da[2] == 0 && da[3] == 0);
            else if (kind == TG_ACT_RELU2)
                assert_true(y[2] == 1e4f && da[2] == 200);
            else
                assert_true(y[2] == 100 && y[3] == 1e18f && da[2] == 1 && da[3] == 1);
        }
        const struct tg_act_kernels *glu = &(*k)->act[TG_ACT_CLAMPED_GLU];
        glu->mul_fwd(a, b, y, 8);
        glu->mul_bwd(a, b, one, da, db, 8);
        assert_below(fabs(y[5] - 8 * 7 / (1 + exp(-1.702 * 7))), 1e-4, "both limits");
        assert_below(fabs(y[6] + 6 * 7 / (1 + exp(-1.702 * 7))), 1e-4, "lower limit");
        assert_true(da[5] == 0 && db[5] == 0 && da[6] != 0 && db[6] == 0 && db[7] != 0);
    }
}

static void run_norm(const struct tg_kernels *k, struct tg_norm norm, float offset, size_t n)
{
    static double want[4][MAX_N];
    const float *dy = f[1];
    double sum = 0, squares = 0, along = 0, across = 0;
    float stats[2];
    char what[64];
    for (size_t i = 0; i < n; i++)
        f[0][i] += offset;
    const float *x = f[0];
    for (size_t i = 0; norm.layer && i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    double r = 1 / sqrt(squares / (double)n + norm.eps);
    for (size_t i = 0; i < n; i++) {
        double w = norm.w ? norm.w[i] + (double)norm.plus_one : 1, z = (x[i] - mean) * r;
        want[0][i] = z * w + (norm.b ? norm.b[i] : 0);
        along += dy[i] * w * z;
        across += norm.layer ? dy[i] * w : 0;
        want[2][i] = f[6][i] + dy[i] * z;
        want[3][i] = f[7][i] + (double)dy[i];
    }
    for (size_t i = 0; i < n; i++) {
        double w = norm.w ? norm.w[i] + (double)norm.plus_one : 1, z = (x[i] - mean) * r;
        want[1][i] = f[5][i] + r * (dy[i] * w - across / (double)n - z * along / (double)n);
    }
    k->norm_fwd(&norm, x, f[4], stats, n);
    k->norm_bwd(&norm, stats, x, dy, f[5], f[6], f[7], n);
    /* an offset of m leaves the float x - mean with its rounding, relative to the deviation 1 */
    double tolerance = TOLERANCE * (1 + fabs((double)offset));
    snprintf(what, sizeof what, "%s %s %d%d%d, n = %zu", k->name, norm.layer ? "layer" : "rms",
             norm.w != NULL, norm.b != NULL, norm.plus_one, n);
    assert_below(fabs(stats[1] / r - 1), TOLERANCE, what);
    assert_below(tg_rel_error_fd(f[4], want[0], n), tolerance, what);
    assert_below(tg_rel_error_fd(f[5], want[1], n), tolerance, what);
    if (norm.w)
        assert_below(tg_rel_error_fd(f[6], want[2], n), tolerance, what);
    if (norm.b)
        assert_below(tg_rel_error_fd(f[7], want[3], n), tolerance, what);
    k->norm_fwd(&norm, x, f[0], stats, n);
    assert_memory_equal(f[0], f[4], n * sizeof *x);
}

static void test_norms(void **state)
{
    static const float offsets[] = {0, 30};
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t i = 0; i < SIZES; i++)
            for (int way = 0; way < 16; way++) {
                size_t n = sizes[i];
                struct tg_norm norm = {.layer = way & 1, .plus_one = way & 2, .eps = 1e-5f};
                open_slots(n, 1);
                norm.w = way & 4 ? f[2] : NULL;
                norm.b = way & 8 ? f[3] : NULL;
                for (int j = 0; j < (norm.layer ? 2 : 1) && n > 1; j++) {
                    run_norm(*k, norm, offsets[j], n);
                    close_slots();
                    open_slots(n, 1);
                    norm.w = way & 4 ? f[2] : NULL;
                    norm.b = way & 8 ? f[3] : NULL;
                }
                close_slots();
            }
}

/* One pass over the squares would give a variance of nothing, or below it. */
static void test_far_mean(void **state)
{
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        float x[64], y[64], stats[2];
        struct tg_norm norm = {.layer = true, .eps = 1e-12f};
        for (size_t i = 0; i < 64; i++)
            x[i] = 65536 + (float)(i % 2);
        (*k)->norm_fwd(&norm, x, y, stats, 64);
        assert_below(fabs(stats[1] - 2), 1e-6, "deviation 1/2 around 65536");
    }
}

/* The plain norm is rmsnorm, bit for bit. */
static void test_plain(void **state)
{
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        float stats[2];
        open_slots(257, 1);
        struct tg_norm norm = {.eps = 1e-6f, .w = f[2]};
        (*k)->norm_fwd(&norm, f[0], f[4], stats, 257);
        float r = (*k)->rmsnorm_fwd(f[0], f[2], 1e-6f, f[5], 257);
        assert_true(r == stats[1] && stats[0] == 0);
        assert_memory_equal(f[4], f[5], 257 * sizeof(float));
        close_slots();
    }
}

static void test_softcap(void **state)
{
    static const float caps[] = {0.5f, 5, 30, 1000};
    static double want[2][MAX_N];
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t c = 0; c < 4; c++)
            for (size_t i = 0; i < SIZES; i++) {
                size_t n = sizes[i];
                open_slots(n, 4);
                for (size_t j = 0; j < n; j++) {
                    double t = tanh((double)f[0][j] / caps[c]);
                    want[0][j] = caps[c] * t;
                    want[1][j] = f[1][j] * (1 - t * t);
                }
                (*k)->softcap_bwd(caps[c], f[0], f[1], n);
                (*k)->softcap_fwd(caps[c], f[0], n);
                assert_below(tg_rel_error_fd(f[0], want[0], n), TOLERANCE, "softcap");
                assert_below(tg_rel_error_fd(f[1], want[1], n), TOLERANCE, "its gradient");
                close_slots();
            }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations), cmocka_unit_test(test_gelu_tail),
        cmocka_unit_test(test_extremes),    cmocka_unit_test(test_norms),
        cmocka_unit_test(test_far_mean),    cmocka_unit_test(test_plain),
        cmocka_unit_test(test_softcap),
    };
    return tg_run_tests("activations and norms", tests, sizeof tests / sizeof *tests);
}
