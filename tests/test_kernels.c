/* Every table of kernels that this processor can run against the double reference: odd sizes,
 * arrays that end at a guard page and begin unaligned, extreme inputs; the references by central
 * differences. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "linearize/kernels/ref.h"
#include "tests/check.h"
#include "tests/guard.h"

/* float32 rounds to 6e-8; the longest chain here is a dot product of a few hundred terms */
static const double TOLERANCE = 1e-6;
enum { MAX_N = 1000, SLOTS = 8 };
static const size_t sizes[] = {1, 2, 3, 4, 7, 15, 16, 17, 31, 32, 33, 64, 65, 256, MAX_N};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Guarded arrays of n floats and their copies in double: inputs random, the rest NaN. */
struct slots {
    struct tg_guarded g[SLOTS];
    float *f[SLOTS];
    double d[SLOTS][MAX_N];
    size_t n;
};
static struct slots s;

static void open_slots(size_t n, size_t inputs)
{
    s.n = n;
    for (size_t i = 0; i < SLOTS; i++) {
        s.g[i] = tg_guard(n);
        s.f[i] = s.g[i].p;
        if (i < inputs) {
            tg_fill_random(s.f[i], n, n * SLOTS + i);
            tg_to_double(s.f[i], s.d[i], n);
        }
    }
}

static void close_slots(void)
{
    for (size_t i = 0; i < SLOTS; i++)
        tg_guard_free(&s.g[i]);
}

static void agree(const struct tg_kernels *k, size_t slot, const char *what)
{
    char text[64];
    snprintf(text, sizeof text, "%s %s, n = %zu", k->name, what, s.n);
    assert_below(tg_rel_error_fd(s.f[slot], s.d[slot], s.n), TOLERANCE, text);
}

static void near(double got, double want, double tolerance, const char *what)
{
    assert_below(fabs(got - want) / (fabs(want) > 0 ? fabs(want) : 1), tolerance, what);
}

/* Runs `fn` for every table and size with `inputs` random slots. */
static void each(void (*fn)(const struct tg_kernels *k, size_t n), size_t inputs)
{
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t i = 0; i < SIZES; i++) {
            open_slots(sizes[i], inputs);
            fn(*k, sizes[i]);
            close_slots();
        }
}

static void test_select(void **state)
{
    (void)state;
    const struct tg_kernels *const *all = tg_kernels_runnable();
    size_t n = 0;
    while (all[n])
        n++;
    assert_string_equal(all[0]->name, "c");
    assert_ptr_equal(tg_kernels_select(0), all[0]);
    assert_ptr_equal(tg_kernels_select((unsigned)(TG_CPU_ALL & ~TG_CPU_AMX)), all[n - 1]);
    const struct tg_kernels *best = tg_kernels_select((unsigned)TG_CPU_ALL);
    assert_ptr_equal(best->mm, all[n - 1]->mm);
    assert_int_equal(best->product != NULL, strcmp(best->name, "amx") == 0);
    assert_ptr_equal(tg_kernels_select(TG_CPU_AVX512), all[0]);
    assert_ptr_equal(tg_kernels_select(TG_CPU_AVX2), all[n > 1 ? 1 : 0]);
}

static double ulps(float got, double want)
{
    double ulp = want < 0x1p-126 ? 0x1p-149 : ldexp(1, ilogb(want) - 23);
    return fabs((double)got - want) / ulp;
}

/* Bit patterns over the whole range, in place and not, results below 2^-126 included. */
static void test_exp_range(void **state)
{
    (void)state;
    enum { N = 1031, STEP = 3989 };
    static float x[N], y[N];
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        double worst = 0;
        for (uint64_t bits = 0; bits < (uint64_t)1 << 32; bits += (uint64_t)N * STEP) {
            for (size_t i = 0; i < N; i++) {
                uint32_t u = (uint32_t)(bits + i * STEP);
                memcpy(&x[i], &u, sizeof u);
            }
            (*k)->exp(x, y, N);
            for (size_t i = 0; i < N; i++) {
                double want = exp((double)x[i]);
                if (isnan(x[i]))
                    assert_true(isnan(y[i]));
                else if (want >= 0x1.fffffep127)
                    assert_true(isinf(y[i]) || y[i] == 0x1.fffffep127f);
                else if (!(ulps(y[i], want) <= worst))
                    worst = ulps(y[i], want);
            }
        }
        assert_below(worst, 2, (*k)->name);
        float special[] = {-INFINITY, INFINITY, 0, -0.0f, NAN, -103.9f, -104, 88.7228f, 88.73f};
        (*k)->exp(special, special, 9);
        assert_true(special[0] == 0 && isinf(special[1]) && special[2] == 1 && special[3] == 1);
        assert_true(isnan(special[4]) && special[5] > 0 && special[6] == 0);
        assert_true(isfinite(special[7]) && isinf(special[8]));
    }
}

/* Both over [-100, 100] against double, what they give of infinities and NaN, and the same bits
 * wherever in an array an element stands */
static void test_gates(void **state)
{
    (void)state;
    enum { N = 37, STEPS = 20000 };
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        double sigmoid = 0, softplus = 0;
        for (int i = -STEPS; i < STEPS; i++) {
            float x[N], a[N], b[N], alone;
            for (int l = 0; l < N; l++)
                x[l] = 100.0f * ((float)i + (float)l / N) / STEPS;
            (*k)->sigmoid(x, a, N);
            (*k)->softplus(x, b, N);
            for (int l = 0; l < N; l++) {
                const double e = exp(-(double)x[l]);
                sigmoid = fmax(sigmoid, e < 1e38 ? ulps(a[l], 1 / (1 + e)) : a[l] > 1.5e-38f);
                softplus = fmax(softplus,
                                ulps(b[l], x[l] > 0 ? x[l] + log1p(e) : log1p(exp((double)x[l]))));
            }
            const int at = (i + STEPS) % N;
            (*k)->sigmoid(x + at, &alone, 1);
            assert_memory_equal(&alone, a + at, sizeof alone);
            (*k)->softplus(x + at, &alone, 1);
            assert_memory_equal(&alone, b + at, sizeof alone);
        }
        assert_below(sigmoid, 4, "sigmoid");
        assert_below(softplus, 4, "softplus");
        float special[] = {-INFINITY, INFINITY, 0, NAN}, y[4];
        (*k)->sigmoid(special, y, 4);
        assert_true(y[0] == 0 && y[1] == 1 && y[2] == 0.5f && isnan(y[3]));
        (*k)->softplus(special, y, 4);
        assert_true(y[0] >= 0 && y[0] < 1e-44f && y[1] == INFINITY && isnan(y[3]));
        assert_below(ulps(y[2], log(2)), 2, "softplus of 0");
    }
}

static void run_exp(const struct tg_kernels *k, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        s.d[1][i] = exp(s.d[0][i]);
        s.d[2][i] = exp(s.d[0][i] - 0.75);
        sum += s.d[2][i];
    }
    memcpy(s.f[2], s.f[0], n * sizeof(float));
    k->exp(s.f[0], s.f[1], n);
    agree(k, 1, "exp");
    near(k->exp_shift_sum(s.f[2], 0.75f, n), sum, TOLERANCE, "sum of exponentials");
    agree(k, 2, "exp_shift_sum");
}

static void test_exp(void **state)
{
    (void)state;
    each(run_exp, 1);
}

static void run_vector(const struct tg_kernels *k, size_t n)
{
    double dot = 0, squares = 0, magnitude = 0;
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        dot += s.d[0][i] * s.d[1][i];
        magnitude += fabs(s.d[0][i] * s.d[1][i]);
        squares += s.d[0][i] * s.d[0][i];
        top = s.f[0][i] > top ? s.f[0][i] : top;
        s.d[1][i] += (double)0.3f * s.d[0][i];
        s.d[2][i] *= (double)-1.7f;
    }
    assert_below(fabs(k->dot(s.f[0], s.f[1], n) - dot) / magnitude, TOLERANCE, "dot");
    near(k->sum_squares(s.f[0], n), squares, 1e-12, "sum_squares");
    assert_true(k->max(s.f[0], n) == top);
    k->axpy(0.3f, s.f[0], s.f[1], n);
    agree(k, 1, "axpy");
    k->scale(-1.7f, s.f[2], n);
    agree(k, 2, "scale");
}

static void test_vector(void **state)
{
    (void)state;
    each(run_vector, 3);
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        assert_true((*k)->max(NULL, 0) == -INFINITY && (*k)->dot(NULL, NULL, 0) == 0);
}

/* 11 rows of n with a stride of n + 3: values, and the same bits alone and together */
static void run_rows(const struct tg_kernels *k, size_t n)
{
    enum { ROWS = 11 };
    struct tg_guarded rows = tg_guard((ROWS - 1) * (n + 3) + n);
    float p[ROWS], out[ROWS];
    double want[ROWS];
    tg_fill_random(rows.p, (ROWS - 1) * (n + 3) + n, n);
    tg_fill_random(p, ROWS, n + 1);
    for (size_t j = 0; j < ROWS; j++) {
        want[j] = 0;
        for (size_t i = 0; i < n; i++) {
            want[j] += s.d[0][i] * (double)rows.p[j * (n + 3) + i];
            s.d[1][i] += (double)p[j] * (double)rows.p[j * (n + 3) + i];
        }
    }
    k->dots(s.f[0], rows.p, n + 3, ROWS, n, out);
    assert_below(tg_rel_error_fd(out, want, ROWS), TOLERANCE, "dots");
    for (size_t j = 0; j < ROWS; j++) {
        float alone;
        k->dots(s.f[0], rows.p + j * (n + 3), n + 3, 1, n, &alone);
        assert_memory_equal(&alone, &out[j], sizeof alone);
    }
    k->weighted_sum(p, rows.p, n + 3, ROWS, n, s.f[1]);
    agree(k, 1, "weighted_sum");
    tg_guard_free(&rows);
}

static void test_rows(void **state)
{
    (void)state;
    each(run_rows, 2);
}

/* 5 rows of n with a stride of n + 3 */
static void run_row_updates(const struct tg_kernels *k, size_t n)
{
    enum { ROWS = 5 };
    const size_t stride = n + 3, size = (ROWS - 1) * stride + n;
    struct tg_guarded rows = tg_guard(size);
    static double want[ROWS * (MAX_N + 3)];
    float p[ROWS];
    tg_fill_random(rows.p, size, n);
    tg_fill_random(p, ROWS, n + 1);
    tg_to_double(rows.p, want, size);
    for (size_t j = 0; j < ROWS; j++)
        for (size_t i = 0; i < n; i++)
            want[j * stride + i] = (want[j * stride + i] + (double)p[j] * s.d[1][i]) * s.d[0][i];
    k->add_rows(p, s.f[1], rows.p, stride, ROWS, n);
    k->mul_rows(s.f[0], rows.p, stride, ROWS, n);
    assert_below(tg_rel_error_fd(rows.p, want, size), TOLERANCE, "add_rows, mul_rows");
    for (size_t i = 0; i < n; i++) {
        s.d[2][i] += s.d[0][i] * s.d[1][i];
        s.d[3][i] = s.d[0][i] * s.d[1][i];
    }
    k->add_mul(s.f[0], s.f[1], s.f[2], n);
    agree(k, 2, "add_mul");
    k->mul(s.f[0], s.f[1], s.f[3], n);
    agree(k, 3, "mul");
    tg_guard_free(&rows);
}

/* Sums in double: to its own digits. Exponentials of differences of doubles, both signs */
static void run_double(const struct tg_kernels *k, size_t n)
{
    static double sum[MAX_N], want[MAX_N], x[2 * MAX_N];
    double dot = 0, magnitude = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        dot += s.d[0][i] * s.d[1][i];
        magnitude += fabs(s.d[0][i] * s.d[1][i]);
        sum[i] = s.d[2][i];
        want[i] = s.d[2][i] - s.d[0][i] * s.d[1][i];
    }
    assert_below(fabs(k->dot_d(s.f[0], s.f[1], n) - dot) / magnitude, 1e-14, "dot_d");
    k->add_products(-1, s.f[0], s.f[1], sum, n);
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs(sum[i] - want[i]));
    assert_below(worst, 1e-15, "add_products");
    k->add_d(s.d[2], s.f[0], sum, n);
    for (size_t i = 0; i < n; i++)
        assert_true(sum[i] == s.d[2][i] + s.d[0][i]);
    struct tg_guarded y = tg_guard(2 * n);
    for (size_t minus = 0; minus < 2; minus++) {
        double diff[2 * MAX_N];
        for (size_t i = 0; i < 2 * n; i++) {
            x[i] = 1e6 + 20 * s.d[i / n][i % n];
            double d = x[i] - (1e6 + s.d[2][i % n]);
            diff[i] = exp((double)(float)(minus ? -d : d));
        }
        for (size_t i = 0; i < n; i++)
            sum[i] = 1e6 + s.d[2][i];
        k->exp_from(x, sum, minus, 2, n, y.p);
        assert_below(tg_rel_error_fd(y.p, diff, 2 * n), TOLERANCE, "exp_from");
    }
    tg_guard_free(&y);
}

static void test_row_updates(void **state)
{
    (void)state;
    each(run_row_updates, 3);
    each(run_double, 3);
}

static void run_rmsnorm(const struct tg_kernels *k, size_t n)
{
    double r = tg_rmsnorm_fwd_ref(s.d[0], s.d[1], 1e-5, s.d[5], n);
    tg_rmsnorm_bwd_ref(s.d[0], s.d[1], r, s.d[2], s.d[3], s.d[4], n);
    float got = k->rmsnorm_fwd(s.f[0], s.f[1], 1e-5f, s.f[5], n);
    near(got, r, TOLERANCE, "rmsnorm's factor");
    agree(k, 5, "rmsnorm_fwd");
    k->rmsnorm_bwd(s.f[0], s.f[1], got, s.f[2], s.f[3], s.f[4], n);
    agree(k, 3, "rmsnorm dx");
    agree(k, 4, "rmsnorm dw");
    k->rmsnorm_fwd(s.f[0], s.f[1], 1e-5f, s.f[0], n);
    assert_memory_equal(s.f[0], s.f[5], n * sizeof(float));
}

static void test_rmsnorm(void **state)
{
    (void)state;
    each(run_rmsnorm, 5);
    float x[4] = {1e-20f, -1e-20f, 0, 0}, huge[4] = {1e30f, -1e30f, 1e30f, 1e30f}, w[4], y[4];
    w[0] = w[1] = w[2] = w[3] = 1;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        near((*k)->rmsnorm_fwd(x, w, 1e-6f, y, 4), 1e3, TOLERANCE, "factor of a zero row");
        (*k)->rmsnorm_fwd(huge, w, 1e-6f, y, 4);
        near(y[0], 1, TOLERANCE, "a row whose squares leave float32");
    }
}

static void run_silu(const struct tg_kernels *k, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s.f[0][i] *= 12;
        s.d[0][i] = s.f[0][i];
    }
    tg_silu_mul_fwd_ref(s.d[0], s.d[1], s.d[3], n);
    tg_silu_mul_bwd_ref(s.d[0], s.d[1], s.d[2], s.d[4], s.d[5], n);
    k->silu_mul_fwd(s.f[0], s.f[1], s.f[3], n);
    agree(k, 3, "silu_mul_fwd");
    k->silu_mul_bwd(s.f[0], s.f[1], s.f[2], s.f[4], s.f[5], n);
    agree(k, 4, "silu_mul da");
    agree(k, 5, "silu_mul db");
    k->silu_mul_bwd(s.f[0], s.f[1], s.f[2], s.f[0], s.f[1], n);
    assert_memory_equal(s.f[0], s.f[4], n * sizeof(float));
    assert_memory_equal(s.f[1], s.f[5], n * sizeof(float));
}

static void test_silu(void **state)
{
    (void)state;
    each(run_silu, 3);
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        float a[4] = {-1e4f, 1e4f, -88, -100}, b[4] = {1, 1, 1, 1}, y[4], da[4], db[4];
        (*k)->silu_mul_fwd(a, b, y, 4);
        (*k)->silu_mul_bwd(a, b, b, da, db, 4);
        assert_true(y[0] == 0 && y[1] == 1e4f && fabsf(y[2]) < 1e-30f && fabsf(y[3]) < 1e-30f);
        assert_true(da[0] == 0 && da[1] == 1 && db[0] == 0 && db[1] == 1e4f);
        assert_true(fabsf(da[2]) < 1e-30f && fabsf(da[3]) < 1e-30f);
    }
}

static void run_rope(const struct tg_kernels *k, size_t n)
{
    if (n % 2)
        return;
    float start[MAX_N];
    memcpy(start, s.f[0], n * sizeof(float));
    for (size_t i = 0; i < n / 2; i++) { /* true angles, so that -1 undoes +1 */
        s.f[1][i] = (float)(s.d[1][i] = cos((double)i));
        s.f[2][i] = (float)(s.d[2][i] = sin((double)i));
    }
    tg_rope_ref(s.d[0], s.d[1], s.d[2], 1, n);
    k->rope(s.f[0], s.f[1], s.f[2], 1, n);
    agree(k, 0, "rope");
    k->rope(s.f[0], s.f[1], s.f[2], -1, n);
    assert_below(tg_rel_error_f(s.f[0], start, n), TOLERANCE, "rope undone");
}

static void test_rope(void **state)
{
    (void)state;
    each(run_rope, 1);
}

static void run_adamw(const struct tg_kernels *k, size_t n)
{
    const float b1 = 0.9f, b2 = 0.95f;
    for (size_t i = 0; i < n; i++) { /* p, g, m, v >= 0 */
        s.f[3][i] = fabsf(s.f[3][i]);
        s.d[3][i] = s.f[3][i];
    }
    k->adamw(s.f[0], s.f[1], s.f[2], s.f[3], 0.5f, 1e-2f, b1, b2, 1e-8f, 0.1f, 0.271f, 0.142f, n);
    tg_adamw_ref(s.d[0], s.d[1], s.d[2], s.d[3], 0.5, (double)1e-2f, (double)b1, (double)b2,
                 (double)1e-8f, (double)0.1f, (double)0.271f, (double)0.142f, n);
    agree(k, 0, "adamw p");
    agree(k, 2, "adamw m");
    agree(k, 3, "adamw v");
}

static void test_adamw(void **state)
{
    (void)state;
    each(run_adamw, 4);
}

static void run_losses(const struct tg_kernels *k, size_t n)
{
    for (size_t slot = 0; slot < 2; slot++)
        for (size_t i = 0; i < n; i++)
            s.d[slot][i] = s.f[slot][i] *= 10;
    memcpy(s.f[2], s.f[1], n * sizeof(float));
    memcpy(s.f[3], s.f[1], n * sizeof(float));
    double grad[MAX_N], kl = tg_kl_row_ref(s.d[0], s.d[1], 0.5, grad, n);
    double ce = tg_ce_row_ref(s.d[1], (int32_t)(n / 2), s.d[3], n);
    for (size_t i = 0; i < n; i++) {
        s.d[2][i] = 3 * grad[i];
        s.d[3][i] *= -2;
    }
    assert_below(fabs(k->kl_row(s.f[0], s.f[1], 0.5f, 0, n) - kl), 1e-10 * (kl + 1e-3), "kl");
    assert_below(fabs(k->ce_row(s.f[1], (int32_t)(n / 2), 0, n) - ce), 1e-10 * (ce + 1e-3), "ce");
    for (size_t i = 0; i < n; i++) /* weight 0 leaves the row alone */
        assert_true((double)s.f[1][i] == s.d[1][i]);
    k->kl_row(s.f[0], s.f[2], 0.5f, 3, n);
    k->ce_row(s.f[3], (int32_t)(n / 2), -2, n);
    if (n > 1) { /* with one entry both gradients are zero */
        agree(k, 2, "kl gradient");
        agree(k, 3, "ce gradient");
    } else {
        assert_true(s.f[2][0] == 0 && s.f[3][0] == 0);
    }
}

static void test_losses(void **state)
{
    (void)state;
    each(run_losses, 2);
}

/* Near distributions over a real vocabulary: a KL of 1e-3 and less to float32's last digit. */
static void test_kl_small(void **state)
{
    (void)state;
    enum { N = 150001 };
    static const float noise[] = {0.1f, 0.03f, 0.001f};
    static double t[N], u[N], grad[N];
    struct tg_guarded teacher = tg_guard(N), student = tg_guard(N);
    for (size_t c = 0; c < 3; c++)
        for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
            tg_fill_random(teacher.p, N, 5);
            tg_fill_random(student.p, N, 6);
            for (size_t i = 0; i < N; i++) {
                teacher.p[i] *= 12;
                student.p[i] = teacher.p[i] + noise[c] * student.p[i];
            }
            tg_to_double(teacher.p, t, N);
            tg_to_double(student.p, u, N);
            double want = tg_kl_row_ref(t, u, 1, grad, N);
            assert_true(want > 0 && want < 1e-2);
            near((*k)->kl_row(teacher.p, student.p, 1, 1, N), want, 6e-8, "small kl");
            /* a difference of two float32 exponentials: the nearer they are, the fewer digits */
            assert_below(tg_rel_error_fd(student.p, grad, N), 2e-6 / (double)noise[c],
                         "small kl's gradient");
        }
    tg_guard_free(&teacher);
    tg_guard_free(&student);
}

static void test_loss_extremes(void **state)
{
    (void)state;
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        float same[3] = {1, 2, 3}, t[3] = {-INFINITY, 0, 1}, u[3] = {-INFINITY, 1, 0};
        assert_true((*k)->kl_row(same, (float[3]){1, 2, 3}, 1, 0, 3) == 0);
        near((*k)->kl_row(t, u, 1, 1, 3), tanh(0.5), 1e-12, "kl with a masked entry");
        assert_true(u[0] == 0 && isfinite(u[1]));
        float far_t[2] = {1e4f, -1e4f}, far_u[2] = {-1e4f, 1e4f};
        near((*k)->kl_row(far_t, far_u, 1, 1, 2), 2e4, 1e-12, "kl of certain opposites");
        assert_true(far_u[0] == -1 && far_u[1] == 1);
        float x[2] = {3e38f, -3e38f}, y[2] = {-3e38f, 3e38f}, bad[2] = {NAN, 0};
        assert_true((*k)->ce_row(x, 0, 1, 2) == 0 && x[0] == 0 && x[1] == 0);
        near((*k)->ce_row(y, 0, 1, 2), 6e38, 1e-6, "ce of a certain mistake");
        assert_true(y[0] == -1 && y[1] == 1);
        assert_true(isnan((*k)->ce_row(bad, 1, 0, 2)));
        assert_true(isnan((*k)->kl_row(same, (float[3]){NAN, 0, 0}, 1, 0, 3)));
        assert_true(isnan((*k)->kl_row((float[3]){0, NAN, 0}, same, 1, 0, 3)));
    }
}

/* Each gradient of a scalar function of x against (f(x + e) - f(x - e)) / 2e. */
static void differences(double (*f)(const double *x, void *ud), void *ud, double *x, size_t n,
                        const double *grad, const char *what)
{
    double want[64];
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) {
        double keep = x[i], step = 1e-5, up, down;
        x[i] = keep + step;
        up = f(x, ud);
        x[i] = keep - step;
        down = f(x, ud);
        x[i] = keep;
        want[i] = (up - down) / (2 * step);
    }
    assert_below(tg_rel_error_d(grad, want, n), 1e-8, what);
}

enum { DIFF_N = 10 };

static double weighted(const double *y, const double *dy)
{
    double sum = 0;
    for (size_t i = 0; i < DIFF_N; i++)
        sum += y[i] * dy[i];
    return sum;
}

/* ud: dy, x holds both arguments one after the other */
static double rmsnorm_value(const double *x, void *ud)
{
    double y[DIFF_N];
    tg_rmsnorm_fwd_ref(x, x + DIFF_N, 1e-3, y, DIFF_N);
    return weighted(y, ud);
}

static double silu_value(const double *x, void *ud)
{
    double y[DIFF_N];
    tg_silu_mul_fwd_ref(x, x + DIFF_N, y, DIFF_N);
    return weighted(y, ud);
}

static double kl_value(const double *x, void *ud)
{
    double grad[DIFF_N];
    return tg_kl_row_ref(ud, x, 0.7, grad, DIFF_N);
}

static double ce_value(const double *x, void *ud)
{
    double grad[DIFF_N];
    (void)ud;
    return tg_ce_row_ref(x, 3, grad, DIFF_N);
}

static void test_references(void **state)
{
    (void)state;
    float random[3 * DIFF_N];
    double x[3 * DIFF_N], y[DIFF_N], grad[2 * DIFF_N] = {0}, *dy = x + 2 * DIFF_N;
    tg_fill_random(random, 3 * DIFF_N, 9);
    tg_to_double(random, x, 3 * DIFF_N);
    double r = tg_rmsnorm_fwd_ref(x, x + DIFF_N, 1e-3, y, DIFF_N);
    tg_rmsnorm_bwd_ref(x, x + DIFF_N, r, dy, grad, grad + DIFF_N, DIFF_N);
    differences(rmsnorm_value, dy, x, 2 * DIFF_N, grad, "rmsnorm reference");
    tg_silu_mul_bwd_ref(x, x + DIFF_N, dy, grad, grad + DIFF_N, DIFF_N);
    differences(silu_value, dy, x, 2 * DIFF_N, grad, "silu reference");
    tg_kl_row_ref(dy, x, 0.7, grad, DIFF_N);
    differences(kl_value, dy, x, DIFF_N, grad, "kl reference");
    tg_ce_row_ref(x, 3, grad, DIFF_N);
    differences(ce_value, NULL, x, DIFF_N, grad, "ce reference");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select),      cmocka_unit_test(test_exp_range),
        cmocka_unit_test(test_gates),       cmocka_unit_test(test_exp),
        cmocka_unit_test(test_vector),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_row_updates), cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_silu),        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_adamw),       cmocka_unit_test(test_losses),
        cmocka_unit_test(test_kl_small),    cmocka_unit_test(test_loss_extremes),
        cmocka_unit_test(test_references),
    };
    return tg_run_tests("kernels", tests, sizeof tests / sizeof *tests);
}
