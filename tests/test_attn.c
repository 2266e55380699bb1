/* Windowed attention against the double reference over lengths around the tile size, windows,
 * ragged batches and grouped heads: same bits on any number of threads, causality, guard pages,
 * large scores, one decoded row; the reference by central differences. */
#include "linearize/kernels/attn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/ref.h"
#include "tests/check.h"
#include "tests/guard.h"

/* float32 rounds to 6e-8; scores of size 3 and sums over up to 257 keys */
static const double TOLERANCE = 2e-6;

enum input { Q, KEY, VALUE, DY, TOTAL, DELTA, O, LSE, TOP, DQ, DK, DV, ARRAYS };
static const char *const names[ARRAYS] = {"q", "k",   "v",   "dy", "total", "delta",
                                          "o", "lse", "max", "dq", "dk",    "dv"};

struct problem {
    struct tg_attn a;
    struct tg_batch batch;
    size_t count[ARRAYS];
    struct tg_guarded f[ARRAYS];
    double *d[ARRAYS];
};

static void problem_open(struct problem *p, struct tg_attn a, struct tg_batch batch)
{
    size_t rows = tg_batch_rows(&batch);
    *p = (struct problem){.a = a, .batch = batch};
    p->count[Q] = p->count[DQ] = rows * a.H * a.K;
    p->count[KEY] = p->count[DK] = rows * a.G * a.K;
    p->count[VALUE] = p->count[DV] = rows * a.G * a.V;
    p->count[DY] = p->count[O] = rows * a.H * a.V;
    p->count[TOTAL] = p->count[DELTA] = p->count[LSE] = p->count[TOP] = rows * a.H;
    for (int i = 0; i < ARRAYS; i++) {
        p->f[i] = tg_guard(p->count[i]);
        p->d[i] = tg_alloc_array(p->count[i] + 1, sizeof(double));
        assert_non_null(p->d[i]);
        if (i <= DY || i == DELTA || i >= DQ) /* dq, dk, dv are added to */
            tg_fill_random(p->f[i].p, p->count[i], (uint64_t)i + 1);
        tg_to_double(p->f[i].p, p->d[i], p->count[i]);
    }
}

static void problem_close(struct problem *p)
{
    for (int i = 0; i < ARRAYS; i++) {
        tg_guard_free(&p->f[i]);
        tg_free(p->d[i]);
    }
}

/* Denominators that hold something besides the window: total = lse + 0.25 */
static void set_total(struct problem *p)
{
    tg_attn_fwd_ref(&p->a, &p->batch, p->d[Q], p->d[KEY], p->d[VALUE], p->d[O], p->d[LSE],
                    p->d[TOP]);
    for (size_t i = 0; i < p->count[TOTAL]; i++) {
        p->f[TOTAL].p[i] = (float)(p->d[LSE][i] + 0.25);
        p->d[TOTAL][i] = p->f[TOTAL].p[i];
    }
}

static void reference(struct problem *p)
{
    set_total(p);
    tg_attn_bwd_ref(&p->a, &p->batch, p->d[Q], p->d[KEY], p->d[VALUE], p->d[DY], p->d[TOTAL],
                    p->d[DELTA], p->d[DQ], p->d[DK], p->d[DV]);
}

static void run(struct problem *p, struct tg_ctx ctx)
{
    for (int i = DQ; i < ARRAYS; i++)
        tg_fill_random(p->f[i].p, p->count[i], (uint64_t)i + 1);
    tg_attn_fwd(&ctx, &p->a, &p->batch, p->f[Q].p, p->f[KEY].p, p->f[VALUE].p, p->f[O].p,
                p->f[LSE].p, p->f[TOP].p);
    tg_attn_bwd(&ctx, &p->a, &p->batch, p->f[Q].p, p->f[KEY].p, p->f[VALUE].p, p->f[DY].p,
                p->f[TOTAL].p, p->f[DELTA].p, p->f[DQ].p, p->f[DK].p, p->f[DV].p);
}

static void compare(const struct problem *p, const char *where)
{
    for (int i = O; i < ARRAYS; i++) {
        char what[128];
        snprintf(what, sizeof what, "%s of %s", names[i], where);
        assert_below(tg_rel_error_fd(p->f[i].p, p->d[i], p->count[i]), TOLERANCE, what);
    }
}

static const size_t windows[] = {0, 1, 7, 64, 1000};

/* One batch under every window; every table on one thread; the best one on 2 and 3 too, which must
 * give the same bits (one pass or two in the backward). */
static void all_windows(struct tg_attn a, struct tg_batch batch)
{
    const struct tg_kernels *best = tg_kernels_select((unsigned)TG_CPU_ALL);
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        struct problem p;
        a.window = windows[w];
        problem_open(&p, a, batch);
        reference(&p);
        for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
            char where[96];
            snprintf(where, sizeof where, "%s, %zu rows in %zu, window %zu", (*k)->name,
                     tg_batch_rows(&batch), batch.count, a.window);
            run(&p, (struct tg_ctx){.k = *k, .threads = 1});
            compare(&p, where);
        }
        float *keep[ARRAYS] = {NULL}; /* of the last table, which is the best */
        for (int i = O; i < ARRAYS; i++) {
            keep[i] = tg_alloc_array(p.count[i] + 1, sizeof(float));
            assert_non_null(keep[i]);
            memcpy(keep[i], p.f[i].p, p.count[i] * sizeof(float));
        }
        for (int threads = 2; threads <= 5; threads++) {
            run(&p, (struct tg_ctx){.k = best, .threads = threads});
            for (int i = O; i < ARRAYS; i++)
                if (p.count[i])
                    assert_memory_equal(p.f[i].p, keep[i], p.count[i] * sizeof(float));
        }
        for (int i = O; i < ARRAYS; i++)
            tg_free(keep[i]);
        problem_close(&p);
    }
}

static void test_lengths(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 2, 63, 64, 65, 257};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t begin[2] = {0, lengths[i]};
        struct tg_batch batch = {.count = 1, .begin = begin};
        all_windows((struct tg_attn){.H = 2, .G = 1, .K = 8, .V = 12, .scale = 0.6f}, batch);
    }
}

static void test_ragged(void **state)
{
    (void)state;
    size_t begin[] = {0, 0, 70, 71, 71, 200, 264, 264}, past[7] = {0}, none[] = {0, 0};
    struct tg_batch batch = {.count = 7, .begin = begin, .past = past};
    all_windows((struct tg_attn){.H = 6, .G = 2, .K = 5, .V = 3, .scale = 0.6f}, batch);
    all_windows((struct tg_attn){.H = 3, .G = 3, .K = 17, .V = 33, .scale = 0.3f}, batch);
    all_windows((struct tg_attn){.H = 2, .G = 1, .K = 4, .V = 4, .scale = 1},
                (struct tg_batch){.count = 1, .begin = none});
    all_windows((struct tg_attn){.H = 2, .G = 1, .K = 4, .V = 4, .scale = 1},
                (struct tg_batch){.count = 0, .begin = none});
}

/* What follows token t, and what has left its window, does not touch its output: to the bit. */
static void test_causality(void **state)
{
    (void)state;
    enum { T = 150, CHANGED = 70, WINDOW = 20 };
    struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    struct tg_attn a = {.H = 2, .G = 1, .K = 8, .V = 6, .window = WINDOW, .scale = 0.5f};
    size_t begin[2] = {0, T}, row = a.H * a.V;
    struct problem p;
    float before[T * 12];
    problem_open(&p, a, (struct tg_batch){.count = 1, .begin = begin});
    set_total(&p);
    run(&p, ctx);
    memcpy(before, p.f[O].p, sizeof before);
    for (size_t c = 0; c < a.K; c++)
        p.f[KEY].p[CHANGED * a.K + c] += 3;
    p.f[VALUE].p[CHANGED * a.V] = -5;
    run(&p, ctx);
    for (size_t t = 0; t < T; t++) {
        bool sees = t >= CHANGED && t < CHANGED + WINDOW;
        assert_int_equal(memcmp(before + t * row, p.f[O].p + t * row, row * sizeof(float)) != 0,
                         sees);
    }
    problem_close(&p);
}

/* Scores of thousands: only differences are exponentiated. */
static void test_large_scores(void **state)
{
    (void)state;
    size_t begin[2] = {0, 100};
    struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 1};
    struct tg_attn a = {.H = 1, .G = 1, .K = 1, .V = 2, .scale = 4096};
    struct problem p;
    problem_open(&p, a, (struct tg_batch){.count = 1, .begin = begin});
    for (size_t i = 0; i < 100; i++) { /* products exact in float32 */
        p.d[Q][i] = p.f[Q].p[i] = i % 2 ? 1 : -1;
        p.d[KEY][i] = p.f[KEY].p[i] = (float)((int)(i * 7 % 16) - 8) / 8;
    }
    reference(&p);
    run(&p, ctx);
    assert_below(tg_rel_error_fd(p.f[O].p, p.d[O], p.count[O]), TOLERANCE, "o of large scores");
    assert_below(tg_rel_error_fd(p.f[LSE].p, p.d[LSE], p.count[LSE]), TOLERANCE, "lse");
    p.f[KEY].p[50] = NAN; /* must show in every row that sees it, and in no other */
    run(&p, ctx);
    for (size_t t = 0; t < 100; t++)
        assert_true((isnan(p.f[O].p[t * 2]) != 0) == (t >= 50));
    p.f[KEY].p[0] = NAN; /* all that the first row sees */
    run(&p, ctx);
    for (size_t t = 0; t < 100; t++)
        assert_true(isnan(p.f[O].p[t * 2]) && isnan(p.f[LSE].p[t]));
    problem_close(&p);
}

/* 20000 tokens in a window: sampled rows against one decoded row over the same keys. */
static void test_long(void **state)
{
    (void)state;
    enum { T = 20000, WINDOW = 100, K = 8, V = 5 };
    struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    size_t begin[2] = {0, T};
    struct tg_attn a = {.H = 1, .G = 1, .K = K, .V = V, .window = WINDOW, .scale = 0.5f};
    struct problem p;
    problem_open(&p, a, (struct tg_batch){.count = 1, .begin = begin});
    tg_attn_fwd(&ctx, &a, &p.batch, p.f[Q].p, p.f[KEY].p, p.f[VALUE].p, p.f[O].p, p.f[LSE].p, NULL);
    for (size_t t = 0; t < T; t += 499) {
        size_t first = t + 1 > WINDOW ? t + 1 - WINDOW : 0;
        float scores[WINDOW], o[V], top;
        float lse = tg_attn_row(ctx.k, p.f[Q].p + t * K, p.f[KEY].p + first * K, K,
                                p.f[VALUE].p + first * V, V, t + 1 - first, K, V, a.scale, 0,
                                scores, o, &top);
        assert_below(tg_rel_error_f(o, p.f[O].p + t * V, V), TOLERANCE, "row of a long text");
        assert_below(fabs((double)lse - (double)p.f[LSE].p[t]), TOLERANCE * 10, "its lse");
    }
    problem_close(&p);
}

/* The decoded row against the reference's last row, strided keys and values, each table. */
static void test_row(void **state)
{
    (void)state;
    enum { K = 17, V = 9, LONGEST = 130, STRIDE = 40 };
    static const size_t counts[] = {1, 2, 5, 64, LONGEST};
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            size_t count = counts[c], begin[2] = {0, count};
            struct tg_attn a = {.H = 1, .G = 1, .K = K, .V = V, .scale = 0.4f};
            struct problem p;
            problem_open(&p, a, (struct tg_batch){.count = 1, .begin = begin});
            set_total(&p);
            struct tg_guarded kv = tg_guard((count - 1) * STRIDE + K + V), s = tg_guard(count);
            for (size_t j = 0; j < count; j++) {
                memcpy(kv.p + j * STRIDE, p.f[KEY].p + j * K, K * sizeof(float));
                memcpy(kv.p + j * STRIDE + K, p.f[VALUE].p + j * V, V * sizeof(float));
            }
            float o[V], top, lse;
            size_t last = count - 1;
            lse = tg_attn_row(*k, p.f[Q].p + last * K, kv.p, STRIDE, kv.p + K, STRIDE, count, K, V,
                              a.scale, 0, s.p, o, &top);
            assert_below(tg_rel_error_fd(o, p.d[O] + last * V, V), TOLERANCE, "row");
            assert_below(tg_rel_error_fd(&lse, p.d[LSE] + last, 1), TOLERANCE, "row's lse");
            assert_below(tg_rel_error_fd(&top, p.d[TOP] + last, 1), TOLERANCE, "row's maximum");
            tg_guard_free(&kv), tg_guard_free(&s);
            problem_close(&p);
        }
    float o[2], lse = tg_attn_row(tg_kernels_select(0), NULL, NULL, 0, NULL, 0, 0, 4, 2, 1, 0, NULL,
                                  o, NULL);
    assert_true(lse == -INFINITY && o[0] == 0 && o[1] == 0);
}

/* L = sum dy . y with y = o e^{lse - total}, total = log(e^lse + e^EXTRA): what a sink does. */
static const double EXTRA = 0.3;

static double joint_loss(struct problem *p, bool keep)
{
    double loss = 0;
    tg_attn_fwd_ref(&p->a, &p->batch, p->d[Q], p->d[KEY], p->d[VALUE], p->d[O], p->d[LSE], NULL);
    for (size_t i = 0; i < p->count[LSE]; i++) {
        double total = log(exp(p->d[LSE][i]) + exp(EXTRA)), delta = 0;
        for (size_t c = 0; c < p->a.V; c++)
            delta += p->d[DY][i * p->a.V + c] * p->d[O][i * p->a.V + c];
        delta *= exp(p->d[LSE][i] - total);
        loss += delta;
        if (keep)
            p->d[TOTAL][i] = total, p->d[DELTA][i] = delta;
    }
    return loss;
}

static void test_reference(void **state)
{
    (void)state;
    size_t begin[] = {0, 1, 1, 8};
    struct problem p;
    problem_open(&p, (struct tg_attn){.H = 4, .G = 2, .K = 3, .V = 2, .window = 4, .scale = 0.9f},
                 (struct tg_batch){.count = 3, .begin = begin});
    for (int i = DQ; i < ARRAYS; i++)
        memset(p.d[i], 0, p.count[i] * sizeof(double));
    joint_loss(&p, true);
    tg_attn_bwd_ref(&p.a, &p.batch, p.d[Q], p.d[KEY], p.d[VALUE], p.d[DY], p.d[TOTAL], p.d[DELTA],
                    p.d[DQ], p.d[DK], p.d[DV]);
    for (int in = Q; in <= VALUE; in++) {
        double want[128], *x = p.d[in], step = 1e-5;
        assert_true(p.count[in] <= 128);
        for (size_t i = 0; i < p.count[in]; i++) {
            double at = x[i], up, down;
            x[i] = at + step;
            up = joint_loss(&p, false);
            x[i] = at - step;
            down = joint_loss(&p, false);
            x[i] = at;
            want[i] = (up - down) / (2 * step);
        }
        assert_below(tg_rel_error_d(p.d[DQ + in], want, p.count[in]), 1e-8, names[DQ + in]);
    }
    problem_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),    cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_ragged),       cmocka_unit_test(test_causality),
        cmocka_unit_test(test_large_scores), cmocka_unit_test(test_long),
        cmocka_unit_test(test_row),
    };
    tg_gemm_init();
    return tg_run_tests("attn", tests, sizeof tests / sizeof *tests);
}
