/* The latent mixer as surgery makes it: singular values, the softmax layer at full rank, errors
 * that fall with the rank, ranks from errors, decode over many blocks, layers that are refused. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "linearize/kernels/lapack.h"
#include "linearize/mixers/latent.h"
#include "linearize/surgery/surgery.h"
#include "tests/small_model.h"

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Rows of vt orthonormal, and A vt_i of length s_i, apart from each other at right angles: that is
 * what singular vectors are. */
static void check_svd(size_t m, size_t n, const double *a, const double *s, const double *vt)
{
    const size_t least = m < n ? m : n;
    double *images = tg_alloc_array(least * m, sizeof *images), power = 0;
    for (size_t i = 0; i < least; i++)
        for (size_t r = 0; r < m; r++)
            images[i * m + r] = dot(a + r * n, vt + i * n, n);
    for (size_t i = 0; i < least; i++) {
        assert_true(s[i] >= 0 && (i == 0 || s[i] <= s[i - 1]));
        power += s[i] * s[i];
        for (size_t j = 0; j < least; j++) {
            const double same = i == j ? 1 : 0;
            assert_below(fabs(dot(vt + i * n, vt + j * n, n) - same), 1e-12, "vectors");
            assert_below(fabs(dot(images + i * m, images + j * m, m) - same * s[i] * s[i]),
                         1e-12 * (1 + s[0] * s[0]), "images");
        }
    }
    assert_below(fabs(power - dot(a, a, m * n)), 1e-12 * (1 + power), "power");
    tg_free(images);
}

static void test_svd(void **state)
{
    static const size_t sizes[][2] = {{1, 1}, {1, 7}, {7, 1}, {5, 9}, {9, 5}, {40, 64}, {64, 64}};
    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const size_t m = sizes[k][0], n = sizes[k][1], least = m < n ? m : n;
        double *a = tg_alloc_array(m * n, sizeof *a), *copy = tg_alloc_array(m * n, sizeof *a);
        double *s = tg_alloc_array(least, sizeof *s), *vt = tg_alloc_array(least * n, sizeof *vt);
        double *alone = tg_alloc_array(least, sizeof *s);
        struct tg_rng rng = tg_rng_make(4, k);
        struct tg_err err = {0};
        for (size_t i = 0; i < m * n; i++)
            a[i] = tg_rng_normal(&rng);
        memcpy(copy, a, m * n * sizeof *a);
        tg_test_must(tg_lapack_svd(m, n, copy, s, vt, &err), &err);
        check_svd(m, n, a, s, vt);
        memcpy(copy, a, m * n * sizeof *a);
        tg_test_must(tg_lapack_svd(m, n, copy, alone, NULL, &err), &err);
        assert_below(tg_rel_error_d(alone, s, least), 1e-12, "values alone");
        a[m * n - 1] = NAN;
        assert_int_equal(tg_lapack_svd(m, n, a, s, vt, &err), TG_ERR_VALUE);
        double *used[] = {a, copy, s, vt, alone};
        for (size_t i = 0; i < sizeof used / sizeof *used; i++)
            tg_free(used[i]);
    }
}

/* G (K + V) = 24: below D = 40, and above D = 16 */
static const struct tg_test_shape NARROW = {2, 40, 4, 2, 6, 24, 50, true, true, true};
static const struct tg_test_shape WIDE = {2, 16, 4, 2, 6, 24, 50, false, false, true};

static size_t wanted_rank;
static void adopt_rank(struct tg_layer_spec *l)
{
    l->kv_rank = wanted_rank;
}

/* The student whose layers are all latents of `rank` (0: as the row says); NULL on error */
static struct tg_model *student_of(const struct tg_model *t, size_t rank, size_t sinks,
                                   struct tg_err *err)
{
    struct tg_mixer_schema row = *tg_mixer_schema_find("latent");
    struct tg_plan_layer layers[2] = {{.mixer = &row}, {.mixer = &row}};
    const struct tg_plan plan = {.layers = layers, .count = 2};
    struct tg_model *s;
    wanted_rank = rank;
    if (sinks)
        layers[0].set[TG_PLAN_SINKS] = layers[1].set[TG_PLAN_SINKS] = tg_given((double)sinks);
    if (rank)
        row.adopt = adopt_rank;
    if (tg_surgery_apply(t, &plan, NULL, &s, err))
        return NULL;
    for (size_t l = 0; l < 2; l++) /* `row` ends here */
        s->spec.layers[l].mixer = tg_mixer_schema_find("latent");
    return s;
}

enum { TOKENS = 30 };
static void hidden_of(const struct tg_model *m, float *hidden)
{
    static const size_t begin[] = {0, 1, TOKENS};
    const struct tg_batch b = {.count = 2, .begin = begin};
    struct tg_run *run;
    struct tg_err err = {0};
    int32_t ids[TOKENS];
    tg_test_ids(ids, TOKENS, m->spec.vocab, 2);
    tg_test_must(tg_run_create(&run, &err), &err);
    tg_test_must(tg_run_fit(run, m, &b, false, &err), &err);
    tg_model_forward(m, run, ids, &b, hidden, false, NULL);
    tg_run_free(run);
}

/* Relative error of layer 0's key and value weights, and of the model's hidden states */
static void errors_at(const struct tg_model *t, size_t rank, double *weights, double *hidden)
{
    const size_t D = t->spec.width;
    const char *names[2][2] = {{"layers.0.mixer.k.weight", "layers.0.mixer.k_up.weight"},
                               {"layers.0.mixer.v.weight", "layers.0.mixer.v_up.weight"}};
    struct tg_err err = {0};
    struct tg_model *s = student_of(t, rank, 0, &err);
    float *want = tg_alloc_floats(TOKENS * D), *got = tg_alloc_floats(TOKENS * D);
    double lost = 0, all = 0;
    assert_non_null(s);
    assert_int_equal(s->spec.layers[0].kv_rank, rank);
    const float *down = tg_model_param(s, "layers.0.mixer.latent.weight");
    for (size_t i = 0; i < 2 * 12 * D; i++) {
        const size_t part = i / (12 * D), row = i / D % 12, d = i % D;
        const double w = (double)tg_model_param(t, names[part][0])[row * D + d];
        double sum = 0;
        for (size_t r = 0; r < rank; r++)
            sum +=
                (double)tg_model_param(s, names[part][1])[row * rank + r] * (double)down[r * D + d];
        lost += (w - sum) * (w - sum);
        all += w * w;
    }
    hidden_of(t, want);
    hidden_of(s, got);
    *weights = sqrt(lost / all);
    *hidden = tg_rel_error_f(got, want, TOKENS * D);
    tg_free(want);
    tg_free(got);
    tg_model_free(s);
}

/* At full rank the student is the teacher; below it weights lose more with each rank, and the rank
 * that is found for an error is the smallest that keeps it. */
static void test_ranks(void **state)
{
    static const struct tg_test_shape *const shapes[] = {&NARROW, &WIDE};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tg_model *t = tg_test_teacher(shapes[i], 2, 5);
        const size_t full = i == 0 ? 24 : 16;
        double before = 1, weights, hidden;
        struct tg_mixer from;
        struct tg_err err = {0};
        size_t rank;
        t->spec.layers[1].qkv_clip = i == 0 ? 0.8 : 0;
        t->spec.layers[0].attn_softcap = i == 0 ? 0 : 1.5;
        tg_model_mixer(t, 0, t->data, NULL, &from);
        for (size_t r = 1; r < full; r++) {
            errors_at(t, r, &weights, &hidden);
            assert_true(weights < before && hidden > 1e-4);
            before = weights;
            tg_test_must(tg_latent_rank(&from, weights * 1.0001, &rank, &err), &err);
            assert_int_equal(rank, r);
            tg_test_must(tg_latent_rank(&from, weights * 0.9999, &rank, &err), &err);
            assert_int_equal(rank, r + 1);
        }
        errors_at(t, full, &weights, &hidden);
        assert_below(weights, 1e-6, "weights at full rank");
        assert_below(hidden, 1e-5, "hidden states at full rank");
        tg_test_must(tg_latent_rank(&from, 1, &rank, &err), &err);
        assert_int_equal(rank, 1);
        tg_test_must(tg_latent_rank(&from, 0, &rank, &err), &err);
        assert_int_equal(rank, full);
        tg_model_free(t);
    }
}

/* Weights of low rank: a latent wider than it loses nothing and stays finite. */
static void test_low_rank_weights(void **state)
{
    struct tg_model *t = tg_test_teacher(&NARROW, 1, 5);
    double weights, hidden;
    (void)state;
    memset(tg_model_param(t, "layers.0.mixer.k.weight"), 0, 12 * 40 * sizeof(float));
    float *v = tg_model_param(t, "layers.1.mixer.v.weight");
    for (size_t i = 40; i < 12 * 40; i++)
        v[i] = v[i % 40] * (float)(i / 40);
    errors_at(t, 18, &weights, &hidden);
    assert_below(weights, 1e-6, "weights");
    assert_below(hidden, 1e-5, "hidden states");
    tg_model_free(t);
}

/* Half the cache, in eights; a rank that cannot be, layers that see a window, weights that are not
 * finite */
static void test_sizes_and_refusals(void **state)
{
    struct tg_plan_options o = {.mixer = "latent", .keep = "none", .sinks = -1};
    struct tg_model *t = tg_test_teacher(&NARROW, 1, 5), *s;
    struct tg_err err = {0};
    struct tg_plan plan;
    (void)state;
    s = student_of(t, 0, 0, &err);
    assert_int_equal(s->spec.layers[0].kv_rank, 16);
    assert_int_equal(tg_spec_kv_bytes_per_token(&s->spec, 4), 2 * 16 * 4);
    assert_int_equal(tg_spec_kv_bytes_per_token(&t->spec, 4), 2 * 24 * 4);
    tg_model_free(s);
    assert_null(student_of(t, 25, 0, &err));
    assert_non_null(strstr(err.msg, "layer 0: kv_rank is 25, must be 1 to 24"));
    t->spec.layers[1].mixer = tg_mixer_schema_find("window");
    t->spec.layers[1].window = 9;
    tg_test_must(tg_plan_make(&plan, &t->spec, &o, NULL, &err), &err);
    assert_non_null(plan.layers[0].mixer);
    assert_null(plan.layers[1].mixer);
    tg_plan_release(&plan);
    assert_null(student_of(t, 8, 0, &err));
    assert_non_null(strstr(err.msg, "layer 1 sees 9 tokens; 'latent' keeps and sees all of them"));
    t->spec.layers[1].mixer = tg_mixer_schema_find("softmax");
    t->spec.layers[1].window = 0;
    tg_model_param(t, "layers.1.mixer.v.weight")[3] = INFINITY;
    assert_null(student_of(t, 8, 0, &err));
    assert_non_null(strstr(err.msg, "layers.1.mixer.latent.weight"));
    tg_model_free(t);
}

/* Prompts and single tokens over more latents than are expanded at a time, against forward */
static void test_long_decode(void **state)
{
    enum { LONG = 700, OTHER = 300, D = 40, ROWS = LONG + OTHER };
    static const size_t cuts[][2] = {{1, 0}, {256, 7}, {2, 250}, {341, 0}, {40, 1}, {60, 42}};
    static const size_t whole[] = {0, LONG, ROWS};
    const struct tg_batch b = {.count = 2, .begin = whole};
    struct tg_model *t = tg_test_teacher(&NARROW, 2, 5);
    t->spec.layers[1].qkv_clip = 0.8; /* values that are limited cannot be summed as latents */
    struct tg_err err = {0};
    struct tg_model *s = student_of(t, 13, 2, &err);
    struct tg_cache *cache;
    struct tg_run *run;
    float *want = tg_alloc_floats(ROWS * D), *got = tg_alloc_floats(ROWS * D);
    int32_t ids[ROWS], some[ROWS];
    size_t at[2] = {0, 0};
    (void)state;
    tg_test_stir_new(s, 0.1, 3);
    tg_test_ids(ids, ROWS, NARROW.vocab, 2);
    tg_test_must(tg_run_create(&run, &err), &err);
    tg_test_must(tg_run_fit(run, s, &b, false, &err), &err);
    tg_model_forward(s, run, ids, &b, want, false, NULL);
    tg_test_must(tg_cache_create(&cache, s, 2, LONG, &err), &err);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        const size_t begin[] = {0, cuts[i][0], cuts[i][0] + cuts[i][1]};
        memcpy(some, ids + at[0], cuts[i][0] * sizeof *ids);
        memcpy(some + begin[1], ids + LONG + at[1], cuts[i][1] * sizeof *ids);
        tg_test_must(tg_model_step(s, cache, some, begin, got, NULL, &err), &err);
        assert_below(tg_rel_error_f(got, want + at[0] * D, cuts[i][0] * D), 1e-5, "first");
        assert_below(tg_rel_error_f(got + begin[1] * D, want + (LONG + at[1]) * D, cuts[i][1] * D),
                     1e-5, "second");
        at[0] += cuts[i][0];
        at[1] += cuts[i][1];
    }
    assert_int_equal(at[0], LONG);
    assert_int_equal(at[1], OTHER);
    tg_free(want);
    tg_free(got);
    tg_run_free(run);
    tg_cache_free(cache);
    tg_model_free(s);
    tg_model_free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_svd),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_low_rank_weights),
        cmocka_unit_test(test_sizes_and_refusals),
        cmocka_unit_test(test_long_decode),
    };
    return tg_run_tests("latent", tests, sizeof tests / sizeof *tests);
}
