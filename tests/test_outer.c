/* The gated outer-product recurrence: chunks of every size, the double reference and the step are
 * the same; gradients by central differences of the reference; gates from none to -20 a row; long
 * texts. Feature maps: gradients by central differences. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/featuremap.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/outer.h"
#include "tests/check.h"
#include "tests/guard.h"

/* float32 rounds to 6e-8; sums of some hundred terms */
static const double FORWARD = 2e-6, GRADIENT = 1e-5;
static const size_t chunks[] = {1, 16, 32, 64, 128, 0};
enum { CHUNKS = sizeof chunks / sizeof *chunks };

struct bench {
    struct tg_outer o;
    struct tg_batch b;
    size_t begin[4], rows;
    float *q, *k, *v, *g, *dnum, *dden;
};

static float *floats(size_t n)
{
    float *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* g uniform in [2 low, 0) */
static struct bench open_bench(size_t T, size_t more, float low)
{
    struct bench t = {.o = {.H = 4, .G = 2, .K = 5, .V = 3}, .begin = {0, T, T, T + more}};
    t.rows = T + more;
    t.q = floats(t.rows * t.o.H * t.o.K);
    t.k = floats(t.rows * t.o.H * t.o.K);
    t.v = floats(t.rows * t.o.G * t.o.V);
    t.g = floats(t.rows * t.o.H);
    t.dnum = floats(t.rows * t.o.H * t.o.V);
    t.dden = floats(t.rows * t.o.H);
    tg_fill_random(t.q, t.rows * t.o.H * t.o.K, 1);
    tg_fill_random(t.k, t.rows * t.o.H * t.o.K, 2);
    tg_fill_random(t.v, t.rows * t.o.G * t.o.V, 3);
    tg_fill_random(t.g, t.rows * t.o.H, 4);
    tg_fill_random(t.dnum, t.rows * t.o.H * t.o.V, 5);
    tg_fill_random(t.dden, t.rows * t.o.H, 6);
    for (size_t i = 0; i < t.rows * t.o.H; i++)
        t.g[i] = low * (1 - t.g[i]);
    return t;
}

static void close_bench(struct bench *t)
{
    float *used[] = {t->q, t->k, t->v, t->g, t->dnum, t->dden};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

/* One head of one sequence in double, dense */
struct dense {
    size_t n, K, V;
    double *in[4]; /* q, k, v, g */
    size_t count[4];
    double *num, *den, *dnum, *dden;
};

static double *column(const float *from, size_t b0, size_t n, size_t heads, size_t h, size_t K)
{
    double *to = tg_alloc_array(n * K + 1, sizeof *to);
    assert_non_null(to);
    for (size_t t = 0; t < n; t++)
        tg_to_double(from + ((b0 + t) * heads + h) * K, to + t * K, K);
    return to;
}

static struct dense open_dense(const struct bench *t, size_t i, size_t h)
{
    size_t b0 = t->begin[i], n = t->begin[i + 1] - b0, H = t->o.H, G = t->o.G;
    size_t K = t->o.K, V = t->o.V;
    struct dense d = {.n = n, .K = K, .V = V, .count = {n * K, n * K, n * V, n}};
    d.in[0] = column(t->q, b0, n, H, h, K);
    d.in[1] = column(t->k, b0, n, H, h, K);
    d.in[2] = column(t->v, b0, n, G, h / (H / G), V);
    d.in[3] = column(t->g, b0, n, H, h, 1);
    d.dnum = column(t->dnum, b0, n, H, h, V);
    d.dden = column(t->dden, b0, n, H, h, 1);
    d.num = column(t->dnum, b0, n, H, h, V);
    d.den = column(t->dden, b0, n, H, h, 1);
    tg_outer_ref(n, K, V, d.in[0], d.in[1], d.in[2], d.in[3], d.num, d.den);
    return d;
}

static void close_dense(struct dense *d)
{
    double *used[] = {d->in[0], d->in[1], d->in[2], d->in[3], d->num, d->den, d->dnum, d->dden};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

static double loss(struct dense *d)
{
    double sum = 0;
    tg_outer_ref(d->n, d->K, d->V, d->in[0], d->in[1], d->in[2], d->in[3], d->num, d->den);
    for (size_t i = 0; i < d->n * d->V; i++)
        sum += d->num[i] * d->dnum[i];
    for (size_t i = 0; i < d->n; i++)
        sum += d->den[i] * d->dden[i];
    return sum;
}

/* The same head's part of a float array, as far as it lies in the batch's layout */
static double error_of(const struct bench *t, size_t i, size_t h, size_t heads, size_t K,
                       const float *got, const double *want)
{
    size_t n = t->begin[i + 1] - t->begin[i];
    double *mine = column(got, t->begin[i], n, heads, h, K);
    double e = tg_rel_error_d(mine, want, n * K);
    tg_free(mine);
    return e;
}

static void test_forward(void **state)
{
    static const size_t lengths[] = {1, 15, 63, 64, 65, 257};
    (void)state;
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths * CHUNKS; l++) {
        struct bench t = open_bench(lengths[l / CHUNKS], 5, l % 2 ? -0.01F : -1);
        t.o.chunk = chunks[l % CHUNKS];
        struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL),
                             .threads = 1 + (int)(l % 3)};
        struct tg_guarded num = tg_guard(t.rows * t.o.H * t.o.V), den = tg_guard(t.rows * t.o.H);
        struct tg_guarded work = tg_guard(tg_outer_work(&t.o, &t.b, ctx.threads));
        t.b = (struct tg_batch){3, t.begin, NULL};
        tg_outer_fwd(&ctx, &t.o, &t.b, t.q, t.k, t.v, t.g, num.p, den.p, NULL, NULL, work.p);
        for (size_t i = 0; i < 3 * t.o.H; i++) {
            struct dense d = open_dense(&t, i / t.o.H, i % t.o.H);
            if (d.n) {
                assert_below(error_of(&t, i / t.o.H, i % t.o.H, t.o.H, t.o.V, num.p, d.num),
                             FORWARD, "num");
                assert_below(error_of(&t, i / t.o.H, i % t.o.H, t.o.H, 1, den.p, d.den), FORWARD,
                             "den");
            }
            close_dense(&d);
        }
        tg_guard_free(&num);
        tg_guard_free(&den);
        tg_guard_free(&work);
        close_bench(&t);
    }
}

static void check_gradients(const struct bench *t, size_t i, size_t h, float *const *got)
{
    const size_t K[4] = {t->o.K, t->o.K, 0, 1};
    struct dense d = open_dense(t, i, h);
    static const char *const names[] = {"dq", "dk", "dv", "dg"};
    for (size_t a = 0; a < 4; a++) {
        double *want = tg_alloc_array(d.count[a] + 1, sizeof *want);
        assert_non_null(want);
        for (size_t x = 0; x < d.count[a] && K[a]; x++) {
            double keep = d.in[a][x], up;
            d.in[a][x] = keep + 1e-5;
            up = loss(&d);
            d.in[a][x] = keep - 1e-5;
            want[x] = (up - loss(&d)) / 2e-5;
            d.in[a][x] = keep;
        }
        if (K[a])
            assert_below(error_of(t, i, h, t->o.H, K[a], got[a], want), GRADIENT, names[a]);
        tg_free(want);
    }
    close_dense(&d);
}

/* dv of a group is the sum over its heads: by linearity, num and den of the unit gradient. */
static void check_dv(const struct bench *t, size_t i, const float *dv)
{
    size_t n = t->begin[i + 1] - t->begin[i], V = t->o.V, per = t->o.H / t->o.G;
    for (size_t group = 0; group < t->o.G; group++) {
        double *want = tg_alloc_array(n * V + 1, sizeof *want);
        assert_non_null(want);
        for (size_t h = group * per; h < (group + 1) * per; h++) {
            struct dense d = open_dense(t, i, h);
            for (size_t x = 0; x < n * V; x++) {
                double keep = d.in[2][x], up;
                d.in[2][x] = keep + 1;
                up = loss(&d);
                d.in[2][x] = keep - 1;
                want[x] += (up - loss(&d)) / 2;
                d.in[2][x] = keep;
            }
            close_dense(&d);
        }
        assert_below(error_of(t, i, group, t->o.G, V, dv, want), GRADIENT, "dv");
        tg_free(want);
    }
}

static void test_gradients(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHUNKS; c++) {
        struct bench t = open_bench(37, 4, c % 2 ? -0.01F : -0.7F);
        t.o.chunk = chunks[c];
        t.b = (struct tg_batch){3, t.begin, NULL};
        struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
        float *num = floats(t.rows * t.o.H * t.o.V), *saved = floats(tg_outer_saved(&t.o, &t.b));
        float *work = floats(tg_outer_work(&t.o, &t.b, 2)), *den = floats(t.rows * t.o.H);
        float *d[4] = {floats(t.rows * t.o.H * t.o.K), floats(t.rows * t.o.H * t.o.K),
                       floats(t.rows * t.o.G * t.o.V), floats(t.rows * t.o.H)};
        tg_outer_fwd(&ctx, &t.o, &t.b, t.q, t.k, t.v, t.g, num, den, NULL, saved, work);
        tg_outer_bwd(&ctx, &t.o, &t.b, t.q, t.k, t.v, t.g, saved, t.dnum, t.dden, d[0], d[1], d[2],
                     d[3], NULL, work);
        for (size_t i = 0; i < 3; i += 2) {
            for (size_t h = 0; h < t.o.H; h++)
                check_gradients(&t, i, h, d);
            check_dv(&t, i, d[2]);
        }
        for (size_t a = 0; a < 4; a++)
            tg_free(d[a]);
        tg_free(num);
        tg_free(den);
        tg_free(saved);
        tg_free(work);
        close_bench(&t);
    }
}

/* The state handed from one piece to the next, and the row by row step, give what one run gives. */
static void test_state(void **state)
{
    (void)state;
    struct bench t = open_bench(150, 0, -0.05F);
    struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 1};
    size_t H = t.o.H, G = t.o.G, K = t.o.K, V = t.o.V, cut[3] = {0, 67, 150};
    float *whole = floats(t.rows * H * V), *parts = floats(t.rows * H * V);
    float *den = floats(t.rows * H), *part_den = floats(t.rows * H);
    float *states = floats(tg_outer_state(&t.o)), *end = floats(tg_outer_state(&t.o));
    float *work = floats(tg_outer_work(&t.o, &t.b, 1));
    t.b = (struct tg_batch){1, t.begin, NULL};
    tg_outer_fwd(&ctx, &t.o, &t.b, t.q, t.k, t.v, t.g, whole, den, end, NULL, work);
    for (size_t i = 0; i < 2; i++) {
        size_t begin[2] = {0, cut[i + 1] - cut[i]}, at = cut[i];
        struct tg_batch b = {1, begin, NULL};
        tg_outer_fwd(&ctx, &t.o, &b, t.q + at * H * K, t.k + at * H * K, t.v + at * G * V,
                     t.g + at * H, parts + at * H * V, part_den + at * H, states, NULL, work);
    }
    assert_below(tg_rel_error_f(parts, whole, t.rows * H * V), FORWARD, "num in two pieces");
    assert_below(tg_rel_error_f(part_den, den, t.rows * H), FORWARD, "den in two pieces");
    assert_below(tg_rel_error_f(states, end, tg_outer_state(&t.o)), FORWARD, "state");
    memset(states, 0, tg_outer_state(&t.o) * sizeof *states);
    for (size_t r = 0; r < t.rows * H; r++) {
        size_t h = r % H, kv = r / H * G + h / (H / G);
        part_den[r] = tg_outer_step(ctx.k, K, V, t.q + r * K, t.k + r * K, t.v + kv * V, t.g[r],
                                    states + h * K * (V + 1), parts + r * V);
    }
    assert_below(tg_rel_error_f(parts, whole, t.rows * H * V), FORWARD, "num by steps");
    assert_below(tg_rel_error_f(part_den, den, t.rows * H), FORWARD, "den by steps");
    float *used[] = {whole, parts, den, part_den, states, end, work};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
    close_bench(&t);
}

/* Rows that read earlier chunks alone, from a state on: num, den and the end in double. x holds
 * everything that is differentiated: q [n,K], k [n,K], v [n,V], g [n], the state [K,V], [K]. */
enum { ACROSS_ROWS = 37, ACROSS_K = 5, ACROSS_V = 3, ACROSS_STATE = ACROSS_K * (ACROSS_V + 1) };
enum {
    AT_K = ACROSS_ROWS * ACROSS_K,
    AT_V = 2 * AT_K,
    AT_G = AT_V + ACROSS_ROWS * ACROSS_V,
    AT_STATE = AT_G + ACROSS_ROWS,
    ACROSS_IN = AT_STATE + ACROSS_STATE,
    AT_DEN = ACROSS_ROWS * ACROSS_V,
    AT_END = AT_DEN + ACROSS_ROWS,
    ACROSS_OUT = AT_END + ACROSS_STATE
};

static void across_ref(const double *x, size_t chunk, double *out)
{
    double *end = out + AT_END;
    memcpy(end, x + AT_STATE, ACROSS_STATE * sizeof *end);
    for (size_t from = 0; from < ACROSS_ROWS; from += chunk) {
        size_t to = from + chunk < ACROSS_ROWS ? from + chunk : ACROSS_ROWS;
        double passed = 0;
        for (size_t t = from; t < to; t++) {
            passed += x[AT_G + t];
            for (size_t c = 0; c <= ACROSS_V; c++) {
                double sum = 0;
                for (size_t i = 0; i < ACROSS_K; i++)
                    sum += x[t * ACROSS_K + i] *
                           end[c < ACROSS_V ? i * ACROSS_V + c : ACROSS_K * ACROSS_V + i];
                out[c < ACROSS_V ? t * ACROSS_V + c : AT_DEN + t] = exp(passed) * sum;
            }
        }
        for (size_t i = 0; i < ACROSS_STATE && to - from == chunk; i++)
            end[i] *= exp(passed);
        for (size_t t = from; t < to && to - from == chunk; t++) {
            passed -= x[AT_G + t];
            for (size_t i = 0; i < ACROSS_STATE; i++) {
                bool sums = i < ACROSS_K * ACROSS_V;
                double k = x[AT_K + t * ACROSS_K + (sums ? i / ACROSS_V : i - ACROSS_K * ACROSS_V)];
                end[i] += exp(passed) * k * (sums ? x[AT_V + t * ACROSS_V + i % ACROSS_V] : 1);
            }
        }
    }
}

static void across(size_t chunk)
{
    const struct tg_kernels *kern = tg_kernels_select((unsigned)TG_CPU_ALL);
    float x[ACROSS_IN], dout[ACROSS_OUT], got[ACROSS_OUT], dx[ACROSS_IN] = {0};
    double in[ACROSS_IN], out[ACROSS_OUT], want[ACROSS_IN];
    const size_t n = ACROSS_ROWS, K = ACROSS_K, V = ACROSS_V;
    struct tg_outer_head a = {n, K, V, chunk, x, x + AT_K, x + AT_V, x + AT_G, K, V, V, 1, true};
    struct tg_guarded work = tg_guard(tg_outer_across_work(n, K, V, chunk)),
                      saved = tg_guard(tg_outer_head_saved(n, K, V, chunk));
    tg_fill_random(x, ACROSS_IN, 1);
    tg_fill_random(dout, ACROSS_OUT, 2);
    for (size_t t = 0; t < n; t++)
        x[AT_G + t] = -fabsf(x[AT_G + t]) / 4;
    tg_to_double(x, in, ACROSS_IN);
    across_ref(in, chunk, out);
    memcpy(got + AT_END, x + AT_STATE, ACROSS_STATE * sizeof *got);
    tg_outer_head_fwd(kern, &a, got, got + AT_DEN, got + AT_END, saved.p, work.p);
    assert_below(tg_rel_error_fd(got, out, ACROSS_OUT), FORWARD, "across chunks");
    memcpy(dx + AT_STATE, dout + AT_END, ACROSS_STATE * sizeof *dx);
    tg_outer_head_bwd(kern, &a, saved.p, dout, dout + AT_DEN, dx, dx + AT_K, dx + AT_V, dx + AT_G,
                      dx + AT_STATE, work.p);
    for (size_t i = 0; i < ACROSS_IN; i++) {
        double keep = in[i];
        want[i] = 0;
        for (int sign = -1; sign <= 1; sign += 2) {
            in[i] = keep + sign * 1e-5;
            across_ref(in, chunk, out);
            for (size_t o = 0; o < ACROSS_OUT; o++)
                want[i] += sign * out[o] * (double)dout[o] / 2e-5;
        }
        in[i] = keep;
    }
    assert_below(tg_rel_error_fd(dx, want, ACROSS_IN), GRADIENT, "gradients across chunks");
    tg_guard_free(&work);
    tg_guard_free(&saved);
}

static void test_across(void **state)
{
    (void)state;
    across(1);
    across(5);
    across(36);
    across(37); /* enters as a whole */
    across(100);
}

/* 100,000 rows: chunks and steps in float32 against the recurrence in double, at gates from none to
 * -20; gradients finite, also of the gate. Keys are features: not negative. */
static void long_text(float low)
{
    struct bench t = open_bench(100000, 0, low);
    struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    size_t H = t.o.H, G = t.o.G, K = t.o.K, V = t.o.V, n = t.rows * H;
    t.b = (struct tg_batch){1, t.begin, NULL};
    for (size_t i = 0; i < n * K; i++) {
        t.q[i] = fabsf(t.q[i]);
        t.k[i] = fabsf(t.k[i]);
    }
    float *num = floats(n * V), *den = floats(n), *step = floats(n * V), *step_den = floats(n);
    float *state = floats(tg_outer_state(&t.o)), *work = floats(tg_outer_work(&t.o, &t.b, 2));
    float *saved = floats(tg_outer_saved(&t.o, &t.b)), *d = floats(2 * n * K + n + t.rows * G * V);
    double *exact = tg_alloc_array(H * K * (V + 1), sizeof *exact);
    double *want = tg_alloc_array(n * V, sizeof *want);
    assert_non_null(exact);
    assert_non_null(want);
    tg_outer_fwd(&ctx, &t.o, &t.b, t.q, t.k, t.v, t.g, num, den, NULL, saved, work);
    for (size_t r = 0; r < n; r++) {
        size_t h = r % H, kv = r / H * G + h / (H / G);
        double *S = exact + h * K * (V + 1), z = 0;
        step_den[r] = tg_outer_step(ctx.k, K, V, t.q + r * K, t.k + r * K, t.v + kv * V, t.g[r],
                                    state + h * K * (V + 1), step + r * V);
        for (size_t i = 0; i < K * (V + 1); i++) {
            double value = i % (V + 1) < V ? (double)t.v[kv * V + i % (V + 1)] : 1;
            double q = (double)t.q[r * K + i / (V + 1)];
            S[i] = exp((double)t.g[r]) * S[i] + (double)t.k[r * K + i / (V + 1)] * value;
            if (i % (V + 1) < V)
                want[r * V + i % (V + 1)] += q * S[i];
            else
                z += q * S[i];
        }
        for (size_t i = 0; i < V; i++) {
            want[r * V + i] /= z;
            num[r * V + i] /= den[r];
            step[r * V + i] /= step_den[r];
        }
    }
    char text[80];
    snprintf(text, sizeof text, "100,000 rows, gates about %g", (double)low);
    assert_below(tg_rel_error_f(num, step, n * V), 1e-4, text);
    assert_below(tg_rel_error_fd(num, want, n * V), 1e-4, text);
    tg_outer_bwd(&ctx, &t.o, &t.b, t.q, t.k, t.v, t.g, saved, t.dnum, t.dden, d, d + n * K,
                 d + 2 * n * K, d + 2 * n * K + t.rows * G * V, NULL, work);
    for (size_t i = 0; i < 2 * n * K + n + t.rows * G * V; i++)
        assert_true(isfinite(d[i]));
    float *used[] = {num, den, step, step_den, state, work, saved, d};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
    tg_free(exact);
    tg_free(want);
    close_bench(&t);
}

static void test_long(void **state)
{
    (void)state;
    long_text(0);
    long_text(-1e-6F);
    long_text(-0.007F);
    long_text(-20);
}

static void test_maps(void **state)
{
    enum { N = 4, K = 5, F = 3 };
    (void)state;
    for (int kind = 0; kind < TG_MAP_COUNT; kind++) {
        const struct tg_kernels *kern = tg_kernels_select((unsigned)TG_CPU_ALL);
        struct tg_map m = {(enum tg_feature_map)kind, K, F};
        size_t n = tg_map_features(&m), ld_x = K + 2, ld_y = n + 1;
        float x[N * (K + 2)], w[K * F], y[N * 16], dy[N * 16], du[N * 16];
        float dx[N * (K + 2)] = {0}, dw[K * F] = {0}, *to[2] = {x, w}, *got[2] = {dx, dw};
        size_t counts[2] = {N * (K + 2), tg_feature_map_has_weights(m.kind) ? K * F : 0};
        tg_fill_random(x, N * (K + 2), 1);
        tg_fill_random(w, K * F, 2);
        tg_fill_random(dy, N * 16, 3);
        memcpy(du, dy, sizeof dy);
        tg_map_fwd(kern, &m, N, x, ld_x, w, y, ld_y);
        tg_map_bwd(kern, &m, N, x, ld_x, w, y, du, ld_y, dx, dw);
        float shift[N] = {0};
        for (size_t r = 0; r < N && kind == TG_MAP_HEDGEHOG_EXP; r++)
            for (size_t i = 0; i < 2 * F; i++) /* e^{u - m} e^{-u - m} = e^{-2m} */
                shift[r] = -0.5F * logf(y[r * ld_y] * y[r * ld_y + F]);
        for (size_t a = 0; a < 2; a++)
            for (size_t i = 0; i < counts[a]; i++) {
                float keep = to[a][i];
                double slope = 0;
                for (int side = -1; side <= 1; side += 2) {
                    to[a][i] = keep + (float)side * 1e-2F;
                    tg_map_fwd(kern, &m, N, x, ld_x, w, y, ld_y);
                    for (size_t j = 0; j < N * ld_y; j++) {
                        size_t r = j / ld_y;
                        double value = j % ld_y < n ? (double)y[j] : 0;
                        if (kind == TG_MAP_HEDGEHOG_EXP && j % ld_y < n) /* undo the moving shift */
                            value *= exp(-(double)shift[r]) *
                                     pow((double)y[r * ld_y] * (double)y[r * ld_y + F], -0.5);
                        slope += side * value * (double)(j % ld_y < n ? dy[j] : 0);
                    }
                }
                to[a][i] = keep;
                slope /= 2 * (double)1e-2F;
                assert_below(fabs(slope - (double)got[a][i]), 2e-3, tg_feature_map_name(m.kind));
            }
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward), cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_state),   cmocka_unit_test(test_across),
        cmocka_unit_test(test_long),    cmocka_unit_test(test_maps),
    };
    tg_gemm_init();
    return tg_run_tests("outer", tests, sizeof tests / sizeof *tests);
}
