/* The closed-form start: systems against elimination by hand, known gains found again, errors that
 * never grow, systems without a single solution, the same bits on any number of threads. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "distill/calibrate.h"
#include "linearize/kernels/lapack.h"
#include "linearize/surgery/surgery.h"
#include "tests/small_model.h"

/* Gauss elimination with row pivoting; x holds b */
static void eliminate(size_t n, double *a, double *x)
{
    for (size_t c = 0; c < n; c++) {
        size_t best = c;
        for (size_t r = c + 1; r < n; r++)
            best = fabs(a[r * n + c]) > fabs(a[best * n + c]) ? r : best;
        for (size_t i = 0; i < n; i++) {
            double t = a[c * n + i];
            a[c * n + i] = a[best * n + i];
            a[best * n + i] = t;
        }
        double t = x[c];
        x[c] = x[best];
        x[best] = t;
        for (size_t r = c + 1; r < n; r++) {
            double share = a[r * n + c] / a[c * n + c];
            for (size_t i = c; i < n; i++)
                a[r * n + i] -= share * a[c * n + i];
            x[r] -= share * x[c];
        }
    }
    for (size_t r = n; r-- > 0;) {
        for (size_t i = r + 1; i < n; i++)
            x[r] -= a[r * n + i] * x[i];
        x[r] /= a[r * n + r];
    }
}

static void test_lapack(void **state)
{
    static const size_t sizes[] = {1, 2, 3, 7, 16, 33, 100};
    enum { MOST = 100 };
    static double half[MOST * MOST], a[MOST * MOST], full[MOST * MOST];
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        double ridge[MOST], x[MOST], want[MOST];
        struct tg_rng rng = tg_rng_make(3, n);
        struct tg_err err = {0};
        for (size_t k = 0; k < n * n; k++)
            half[k] = tg_rng_normal(&rng);
        for (size_t r = 0; r < n; r++) {
            ridge[r] = 0.1 + (double)r;
            x[r] = want[r] = tg_rng_normal(&rng);
            for (size_t c = 0; c < n; c++) {
                double sum = r == c ? ridge[r] : 0;
                for (size_t k = 0; k < n; k++)
                    sum += half[r * n + k] * half[c * n + k];
                full[r * n + c] = sum;
                /* what stands below the diagonal must not be read */
                a[r * n + c] = c < r ? NAN : sum - (r == c ? ridge[r] : 0);
            }
        }
        tg_test_must(tg_lapack_solve_spd(n, a, ridge, x, &err), &err);
        eliminate(n, full, want);
        assert_below(tg_rel_error_d(x, want, n), 1e-12, "solution");
    }
}

static void test_lapack_refuses(void **state)
{
    double below[] = {1, 2, 2, 1}, nothing[] = {0}, bad[] = {NAN, 0, 0, 1}, x[] = {1, 1};
    double whole[] = {4, 0, 0, 1}, inf[] = {INFINITY, 1};
    struct tg_err err = {0};
    (void)state;
    assert_int_equal(tg_lapack_solve_spd(2, below, NULL, x, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "positive definite"));
    assert_int_equal(tg_lapack_solve_spd(1, nothing, NULL, x, &err), TG_ERR_VALUE);
    assert_int_equal(tg_lapack_solve_spd(2, bad, NULL, x, &err), TG_ERR_VALUE);
    assert_int_equal(tg_lapack_solve_spd(2, whole, NULL, inf, &err), TG_ERR_VALUE);
    tg_test_must(tg_lapack_solve_spd(0, NULL, NULL, NULL, &err), &err);
}

enum { LENGTH = 70, SEQUENCES = 3, ROWS = LENGTH * SEQUENCES };
static const size_t BEGIN[SEQUENCES + 1] = {0, LENGTH, 2 * LENGTH, ROWS};
static const struct tg_batch BATCH = {.count = SEQUENCES, .begin = BEGIN};

/* A teacher and its student, and x, y [rows,D] of layer 1 */
struct pair {
    struct tg_model *teacher, *student;
    struct tg_plan plan;
    bool changed[3];
    float *x, *y;
};

/* D = 16, HK = 16 (a selection of one part), 24 (of two), 8 (narrower than D) */
static const struct tg_test_shape SHAPES[] = {
    {3, 16, 4, 2, 4, 24, 40, false, false, true},
    {3, 16, 4, 2, 6, 24, 40, true, true, false},
    {3, 16, 4, 1, 2, 24, 40, true, false, true},
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };

static float *o_of(const struct tg_model *m)
{
    return tg_model_param(m, "layers.1.mixer.o.weight");
}

static void mix(const struct tg_model *m, const float *x, float *y)
{
    struct tg_mixer mixer;
    tg_model_mixer(m, 1, m->data, NULL, &mixer);
    const struct tg_mixer_ops *ops = tg_mixer_find(mixer.spec->mixer);
    float *work = tg_alloc_floats(ops->work_floats(&mixer, &BATCH, m->ctx.threads, false));
    ops->forward(&m->ctx, &mixer, &BATCH, x, y, NULL, work);
    tg_free(work);
}

static void pair_init(struct pair *p, const struct tg_test_shape *shape, const char *mixer,
                      size_t window, int64_t sinks, int threads)
{
    struct tg_plan_options o = {.mixer = mixer, .keep = "0,2", .window = window, .sinks = sinks};
    struct tg_rng rng = tg_rng_make(8, shape->head_dim);
    struct tg_err err = {0};
    *p = (struct pair){.changed = {false, true, false}};
    p->teacher = tg_test_teacher(shape, threads, 5);
    tg_test_must(tg_plan_make(&p->plan, &p->teacher->spec, &o, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(p->teacher, &p->plan, NULL, &p->student, &err), &err);
    p->x = tg_alloc_floats(ROWS * shape->width);
    p->y = tg_alloc_floats(ROWS * shape->width);
    for (size_t i = 0; i < ROWS * shape->width; i++)
        p->x[i] = (float)tg_rng_normal(&rng);
    mix(p->teacher, p->x, p->y);
}
/* A student whose layer is the teacher's: no key is out of its window. */
static void pair_exact(struct pair *p, const struct tg_test_shape *shape, int threads)
{
    pair_init(p, shape, "window", 128, 0, threads);
}
static void pair_release(struct pair *p)
{
    tg_plan_release(&p->plan);
    tg_model_free(p->teacher);
    tg_model_free(p->student);
    tg_free(p->x);
    tg_free(p->y);
}

static void scale_head(struct tg_model *m, size_t h, float by)
{
    const struct tg_layer_spec *s = &m->spec.layers[1];
    size_t K = s->head_dim, HK = s->heads * K;
    for (size_t r = 0; r < m->spec.width; r++)
        for (size_t i = 0; i < K; i++)
            o_of(m)[r * HK + h * K + i] *= by;
}

/* Adds the pair's rows in two batches and applies. */
static int fit(struct pair *p, struct tg_gain_result *r, struct tg_err *err)
{
    size_t D = p->student->spec.width;
    struct tg_batch first = {.count = 1, .begin = BEGIN}, rest = {.count = 2, .begin = BEGIN};
    struct tg_gain_fit *f;
    tg_test_must(tg_gain_fit_create(&f, p->student, p->changed, &BATCH, err), err);
    tg_gain_fit_add(f, 0, &BATCH, NULL, NULL, NULL); /* not fitted: passed over */
    tg_gain_fit_add(f, 1, &first, NULL, p->x, p->y);
    tg_gain_fit_add(f, 1, &rest, NULL, p->x + LENGTH * D, p->y + LENGTH * D);
    int status = tg_gain_fit_apply(f, 1, r, err);
    tg_gain_fit_free(f);
    return status;
}

/* Relative error of the student's own forward */
static double measured(const struct pair *p)
{
    size_t cells = ROWS * p->student->spec.width;
    float *y = tg_alloc_floats(cells);
    mix(p->student, p->x, y);
    double error = tg_rel_error_f(y, p->y, cells);
    tg_free(y);
    return error;
}

static double o_error(const struct pair *p)
{
    const struct tg_layer_spec *s = &p->student->spec.layers[1];
    size_t cells = p->student->spec.width * s->heads * s->head_dim;
    return tg_rel_error_f(o_of(p->student), o_of(p->teacher), cells);
}

static void test_known_gains(void **state)
{
    static const float factors[] = {0.25f, 3, 1, 7};
    (void)state;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        struct pair p;
        struct tg_gain_result r;
        struct tg_err err = {0};
        pair_exact(&p, &SHAPES[i], 1);
        for (size_t h = 0; h < 4; h++)
            scale_head(p.student, h, factors[h]);
        assert_true(o_error(&p) > 0.1);
        double before = measured(&p);
        tg_test_must(fit(&p, &r, &err), &err);
        assert_below(o_error(&p), 1e-5, "weights");
        assert_below(fabs(r.before - before) / before, 1e-5, "error before");
        assert_below(measured(&p), 1e-5, "measured error");
        assert_below(r.after, 1e-5, "error after");
        assert_below(fabs(r.highest - 4), 1e-4, "highest gain");
        assert_below(fabs(r.lowest - 1.0 / 7), 1e-5, "lowest gain");
        assert_int_equal(r.at_limit, 0);
        pair_release(&p);
    }
}

static void test_exact_stays(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        struct pair p;
        struct tg_gain_result r;
        struct tg_err err = {0};
        pair_exact(&p, &SHAPES[i], 1);
        tg_test_must(fit(&p, &r, &err), &err);
        assert_below(o_error(&p), 1e-6, "weights");
        assert_below(r.before, 1e-5, "error before");
        assert_below(fabs(r.lowest - 1), 1e-6, "lowest gain");
        assert_below(fabs(r.highest - 1), 1e-6, "highest gain");
        pair_release(&p);
    }
}

static void test_never_worse(void **state)
{
    static const char *const mixers[] = {"window", "gated_window", "lolcats", "lizard"};
    (void)state;
    for (size_t i = 0; i < SHAPE_COUNT * 4; i++) {
        struct pair p;
        struct tg_gain_result r;
        struct tg_err err = {0};
        pair_init(&p, &SHAPES[i / 4], mixers[i % 4], 8, -1, 1);
        tg_test_stir_new(p.student, 0.5, i);
        double before = measured(&p);
        tg_test_must(fit(&p, &r, &err), &err);
        assert_below(fabs(r.before - before) / before, 1e-5, "error before");
        assert_below(fabs(r.after - measured(&p)) / before, 1e-5, "error after");
        assert_below(r.after, 0.999 * before, mixers[i % 4]);
        pair_release(&p);
    }
}

/* Gains that would have to leave the range: set to its limits, the others still solved for. */
static void test_range(void **state)
{
    struct pair p;
    struct tg_gain_result r;
    struct tg_err err = {0};
    (void)state;
    pair_exact(&p, &SHAPES[1], 1);
    scale_head(p.student, 0, 1 / 64.0f);
    scale_head(p.student, 1, 64);
    scale_head(p.student, 2, -1);
    scale_head(p.student, 3, 2);
    double before = measured(&p);
    tg_test_must(fit(&p, &r, &err), &err);
    assert_below(fabs(r.lowest - 0.1), 1e-9, "lowest gain");
    assert_true(r.at_limit >= 2);
    assert_below(r.after, before, "error");
    assert_below(fabs(r.after - measured(&p)) / before, 1e-5, "error after");
    pair_release(&p);
}

/* Two heads with the same output share what is missing; one without output is left alone. */
static void test_singular(void **state)
{
    struct pair p;
    struct tg_gain_result r;
    struct tg_err err = {0};
    (void)state;
    pair_exact(&p, &SHAPES[0], 1);
    struct tg_model *both[] = {p.teacher, p.student};
    for (size_t i = 0; i < 2; i++) {
        size_t D = 16, K = 4, HK = 16;
        float *q = tg_model_param(both[i], "layers.1.mixer.q.weight"), *o = o_of(both[i]);
        memcpy(q + K * D, q, K * D * sizeof *q); /* heads 0 and 1 read kv head 0 */
        for (size_t row = 0; row < D; row++)
            memcpy(o + row * HK + K, o + row * HK, K * sizeof *o);
        scale_head(both[i], 3, 0);
    }
    mix(p.teacher, p.x, p.y);
    scale_head(p.student, 0, 0.4f);
    scale_head(p.student, 1, 0.4f);
    tg_test_must(fit(&p, &r, &err), &err);
    assert_below(o_error(&p), 1e-5, "weights");
    assert_below(fabs(r.highest - 2.5), 1e-4, "gain of the equal heads");
    assert_below(fabs(r.lowest - 1), 1e-4, "gain of the silent head");
    assert_below(r.after, 1e-5, "error after");
    pair_release(&p);
}

static void test_refused(void **state)
{
    struct pair p;
    struct tg_gain_result r;
    struct tg_gain_fit *f;
    struct tg_err err = {0};
    (void)state;
    pair_exact(&p, &SHAPES[0], 1);
    tg_test_must(tg_gain_fit_create(&f, p.student, p.changed, &BATCH, &err), &err);
    assert_int_equal(tg_gain_fit_apply(f, 1, &r, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "layer 1"));
    tg_gain_fit_free(f);
    p.y[77] = INFINITY;
    assert_int_equal(fit(&p, &r, &err), TG_ERR_VALUE);
    assert_true(o_error(&p) == 0);
    p.y[77] = 0;
    p.x[30] = NAN;
    assert_int_equal(fit(&p, &r, &err), TG_ERR_VALUE);
    assert_true(o_error(&p) == 0);
    pair_release(&p);
}

/* The whole way over text: one result per changed layer, the same bits on 1 and 2 threads. */
static void test_threads(void **state)
{
    static const struct tg_test_shape shape = {3, 32, 4, 2, 12, 48, 40, true, true, false};
    enum { TEXT = 1000 };
    int32_t ids[TEXT];
    struct tg_gain_result r[2][3] = {{{0}}};
    struct pair p[2];
    struct tg_err err = {0};
    (void)state;
    tg_test_ids(ids, TEXT, shape.vocab, 4);
    for (int i = 0; i < 2; i++) {
        pair_init(&p[i], &shape, "lolcats", 16, -1, i + 1);
        tg_test_must(tg_calibrate_gains(p[i].teacher, p[i].student, p[i].changed, ids, TEXT, 100,
                                        700, r[i], NULL, &err),
                     &err);
        assert_true(r[i][1].after < r[i][1].before && r[i][1].after > 0);
        assert_true(r[i][0].before == 0 && r[i][2].before == 0);
    }
    assert_memory_equal(r[0], r[1], sizeof r[0]);
    assert_memory_equal(p[0].student->data, p[1].student->data,
                        p[0].student->params.floats * sizeof(float));
    /* only o of the changed layer differs from what was inherited */
    for (size_t i = 0; i < p[0].teacher->params.count; i++) {
        const struct tg_param *from = &p[0].teacher->params.items[i];
        bool same = memcmp(tg_model_param(p[0].student, from->name),
                           p[0].teacher->data + from->offset, from->count * sizeof(float)) == 0;
        assert_int_equal(same, strcmp(from->name, "layers.1.mixer.o.weight") != 0);
    }
    pair_release(&p[0]);
    pair_release(&p[1]);
}

/* Texts shorter than a window, and none */
static void test_short_text(void **state)
{
    struct pair p;
    struct tg_gain_result r[3];
    struct tg_err err = {0};
    int32_t ids[20];
    (void)state;
    tg_test_ids(ids, 20, 40, 4);
    pair_init(&p, &SHAPES[0], "gated_window", 4, -1, 1);
    tg_test_must(tg_calibrate_gains(p.teacher, p.student, p.changed, ids, 20, 64, 8, r, NULL, &err),
                 &err);
    assert_true(r[1].after < r[1].before);
    assert_int_equal(
        tg_calibrate_gains(p.teacher, p.student, p.changed, ids, 0, 64, 8, r, NULL, &err),
        TG_ERR_VALUE);
    pair_release(&p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lapack),      cmocka_unit_test(test_lapack_refuses),
        cmocka_unit_test(test_known_gains), cmocka_unit_test(test_exact_stays),
        cmocka_unit_test(test_never_worse), cmocka_unit_test(test_range),
        cmocka_unit_test(test_singular),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_short_text),
    };
    return tg_run_tests("closed form", tests, sizeof tests / sizeof *tests);
}
