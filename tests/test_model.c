/* The model as a whole, over hybrids with a layer of every mixer row: forward = recurrent = pieces,
 * snapshots, ragged batches, threads, gradients, generation. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "linearize/model/generate.h"
#include "linearize/model/model_internal.h"
#include "linearize/surgery/surgery.h"
#include "tests/small_model.h"

/* the same sums in another order, in float32 */
static const double TOLERANCE = 1e-5;
static const double CLOSE = 1e-6;
/* central differences of a float32 loss along a direction: relative, and from the rounding of the
 * loss over the step */
static const double DIFFERENCE_TOLERANCE = 5e-4, DIFFERENCE_NOISE = 3e-6;

enum { D = 24, N = 50, WINDOW = 16, SEQUENCES = 3 };
static const struct tg_test_shape SHAPE = {1, D, 4, 2, 6, 32, N, true, true, true};
/* around the window and the chunk sizes */
static const size_t LENGTHS[] = {1, 2, 15, 16, 17, 63, 64, 65, 257};
enum { LENGTH_COUNT = sizeof LENGTHS / sizeof *LENGTHS, LONGEST = 257 };

/* All that can replace softmax */
static struct tg_model *hybrid(int threads)
{
    return tg_test_hybrid(&SHAPE, WINDOW, TG_MIXER_PLAN, "", 0, TG_TEST_ALL_ROWS, threads);
}

static float *floats(size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

/* hidden [rows,D] of a batch */
static float *forward(const struct tg_model *m, const int32_t *ids, size_t count,
                      const size_t *begin)
{
    struct tg_err err = {0};
    struct tg_run *r;
    struct tg_batch b = {.count = count, .begin = begin};
    float *hidden = floats(begin[count] * m->spec.width + 1);
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, m, &b, false, &err), &err);
    tg_model_forward(m, r, ids, &b, hidden, false, NULL);
    tg_run_free(r);
    return hidden;
}

static float *forward_one(const struct tg_model *m, const int32_t *ids, size_t T)
{
    size_t begin[] = {0, T};
    return forward(m, ids, 1, begin);
}

/* One sequence of the cache in pieces of at most `piece` tokens (0: sizes that vary); hidden [T,D]
 */
static void feed(struct tg_model *m, struct tg_cache *c, size_t sequence, size_t sequences,
                 const int32_t *ids, size_t T, size_t piece, float *hidden)
{
    static const size_t sizes[] = {5, 1, 17, 2, 40, 3};
    struct tg_err err = {0};
    for (size_t at = 0, k = 0; at < T; k++) {
        size_t begin[SEQUENCES + 1] = {0}, now = piece ? piece : sizes[k % 6];
        now = now < T - at ? now : T - at;
        for (size_t i = sequence; i < sequences; i++)
            begin[i + 1] = now;
        tg_test_must(tg_model_step(m, c, ids + at, begin, hidden + at * D, NULL, &err), &err);
        at += now;
    }
}

static void test_forward_is_recurrent(void **state)
{
    struct tg_model *m = hybrid(1);
    int32_t ids[LONGEST];
    (void)state;
    tg_test_ids(ids, LONGEST, N, 1);
    for (size_t i = 0; i < LENGTH_COUNT; i++)
        for (size_t piece = 0; piece < 2; piece++) {
            size_t T = LENGTHS[i];
            struct tg_cache *c;
            struct tg_err err = {0};
            float *want = forward_one(m, ids, T), *got = floats(T * D);
            tg_test_must(tg_cache_create(&c, m, 1, T, &err), &err);
            feed(m, c, 0, 1, ids, T, piece, got);
            assert_below(tg_rel_error_f(got, want, T * D), TOLERANCE,
                         piece ? "token by token" : "in pieces");
            assert_int_equal(tg_cache_length(c, 0), T);
            tg_cache_free(c);
            free(want);
            free(got);
        }
    tg_model_free(m);
}

/* No output depends on later tokens. */
static void test_causal(void **state)
{
    struct tg_model *m = hybrid(1);
    int32_t ids[100];
    (void)state;
    tg_test_ids(ids, 100, N, 1);
    float *a = forward_one(m, ids, 100);
    ids[70] = (ids[70] + 1) % N;
    float *b = forward_one(m, ids, 100);
    assert_memory_equal(a, b, 70 * D * sizeof *a);
    assert_memory_not_equal(a + 99 * D, b + 99 * D, D * sizeof *a); /* reaches beyond the windows */
    free(a);
    free(b);
    tg_model_free(m);
}

static void test_snapshot(void **state)
{
    enum { T = 90, HALF = 41 };
    struct tg_model *m = hybrid(1);
    struct tg_cache *c, *other;
    struct tg_err err = {0};
    int32_t ids[T];
    float *a = floats(T * D), *b = floats(T * D);
    (void)state;
    tg_test_ids(ids, T, N, 3);
    tg_test_must(tg_cache_create(&c, m, SEQUENCES, T, &err), &err);
    size_t bytes = tg_cache_snapshot_bytes(c);
    char *shot = malloc(bytes + 1);
    feed(m, c, 0, SEQUENCES, ids, HALF, 0, a);
    tg_cache_snapshot(c, 0, shot);
    feed(m, c, 0, SEQUENCES, ids + HALF, T - HALF, 0, a + HALF * D);

    tg_test_must(tg_cache_restore(c, 2, shot, bytes, &err), &err);
    assert_int_equal(tg_cache_length(c, 2), HALF);
    feed(m, c, 2, SEQUENCES, ids + HALF, T - HALF, 0, b + HALF * D);
    assert_memory_equal(a + HALF * D, b + HALF * D, (T - HALF) * D * sizeof *a);

    tg_cache_reset(c, 0);
    assert_int_equal(tg_cache_length(c, 0), 0);
    feed(m, c, 0, SEQUENCES, ids, HALF, 0, b);
    assert_memory_equal(a, b, HALF * D * sizeof *a);

    /* refused: cut, too long, not one, of another capacity or model */
    assert_int_equal(tg_cache_restore(c, 1, shot, bytes - 1, &err), TG_ERR_FORMAT);
    assert_int_equal(tg_cache_restore(c, 1, shot, bytes + 1, &err), TG_ERR_FORMAT);
    assert_int_equal(tg_cache_restore(c, 1, shot, 7, &err), TG_ERR_FORMAT);
    shot[0] ^= 1;
    assert_int_equal(tg_cache_restore(c, 1, shot, bytes, &err), TG_ERR_FORMAT);
    shot[0] ^= 1;
    tg_test_must(tg_cache_create(&other, m, 1, T + 1, &err), &err);
    assert_int_equal(tg_cache_restore(other, 0, shot, bytes, &err), TG_ERR_MISMATCH);
    tg_cache_free(other);
    struct tg_model *t = tg_test_teacher(&SHAPE, 1, 7);
    tg_test_must(tg_cache_create(&other, t, 1, T, &err), &err);
    assert_int_equal(tg_cache_restore(other, 0, shot, bytes, &err), TG_ERR_MISMATCH);
    assert_int_equal(tg_cache_length(other, 0), 0);
    size_t begin[] = {0, 1};
    tg_cache_free(c);
    tg_test_must(tg_cache_create(&c, m, 1, 4, &err), &err);
    assert_int_equal(tg_model_step(t, c, ids, begin, a, NULL, &err), TG_ERR_MISMATCH);
    tg_cache_free(other);
    tg_cache_free(c);
    tg_model_free(t);
    tg_model_free(m);
    free(shot);
    free(a);
    free(b);
}

static void test_cache_limits(void **state)
{
    struct tg_model *m = hybrid(1);
    struct tg_cache *c;
    struct tg_err err = {0};
    int32_t ids[6] = {1, 2, 3, 4, 5, N};
    size_t begin[] = {0, 5}, one[] = {0, 1}, none[] = {0, 0};
    float h[6 * D];
    (void)state;
    assert_int_equal(tg_cache_create(&c, m, 0, 5, &err), TG_ERR_VALUE);
    assert_int_equal(tg_cache_create(&c, m, 1, 0, &err), TG_ERR_VALUE);
    assert_int_equal(tg_cache_create(&c, m, SIZE_MAX / 8, 1 << 20, &err), TG_ERR_NOMEM);
    tg_test_must(tg_cache_create(&c, m, 1, 5, &err), &err);
    assert_true(tg_cache_bytes(c) > 0);
    assert_int_equal(tg_model_step(m, c, ids + 5, one, h, NULL, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "50"));
    tg_test_must(tg_model_step(m, c, ids, begin, h, NULL, &err), &err);
    assert_int_equal(tg_model_step(m, c, ids, one, h, NULL, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "6 tokens"));
    assert_int_equal(tg_cache_length(c, 0), 5);
    tg_test_must(tg_model_step(m, c, ids, none, h, NULL, &err), &err);
    tg_cache_free(c);
    tg_model_free(m);
}

/* Memory of a linear hybrid's cache does not grow with the text it can hold. */
static void test_constant_memory(void **state)
{
    struct tg_model *m =
        tg_test_hybrid(&SHAPE, WINDOW, TG_MIXER_PLAN | TG_MIXER_LINEAR, "", 0, TG_TEST_ALL_ROWS, 1);
    struct tg_cache *a, *b;
    struct tg_err err = {0};
    size_t last = m->spec.layer_count - 1;
    (void)state;
    m->spec.layer_count = last; /* without the softmax layer */
    tg_test_must(tg_cache_create(&a, m, 1, 1000, &err), &err);
    tg_test_must(tg_cache_create(&b, m, 1, 1000000, &err), &err);
    assert_int_equal(tg_cache_bytes(a), tg_cache_bytes(b));
    tg_cache_free(a);
    tg_cache_free(b);
    m->spec.layer_count = last + 1;
    tg_model_free(m);
}

static void test_ragged(void **state)
{
    static const size_t begin[] = {0, 1, 1, 65, 98, 100};
    enum { COUNT = 5, ROWS = 100 };
    struct tg_model *m = hybrid(1);
    int32_t ids[ROWS];
    (void)state;
    tg_test_ids(ids, ROWS, N, 4);
    float *all = forward(m, ids, COUNT, begin);
    for (size_t i = 0; i < COUNT; i++) {
        size_t n = begin[i + 1] - begin[i];
        float *alone = forward_one(m, ids + begin[i], n);
        if (n)
            assert_below(tg_rel_error_f(all + begin[i] * D, alone, n * D), CLOSE, "alone");
        free(alone);
    }
    free(all);
    tg_model_free(m);
}

/* Cross-entropy of the next token within each sequence, in double; gradient if grads. */
static double loss_of(const struct tg_model *m, const int32_t *ids, const struct tg_batch *b,
                      float *grads, const bool *wanted)
{
    struct tg_err err = {0};
    struct tg_run *r;
    size_t rows = tg_batch_rows(b);
    float *hidden = floats(rows * D), *dhidden = floats(rows * D), *logits = floats(rows * N);
    double loss = 0;
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, m, b, grads != NULL, &err), &err);
    tg_model_forward(m, r, ids, b, hidden, grads != NULL, NULL);
    tg_model_logits(m, hidden, rows, logits);
    for (size_t i = 0; i < b->count; i++)
        for (size_t t = b->begin[i]; t < b->begin[i + 1]; t++) {
            if (t + 1 < b->begin[i + 1])
                loss += m->ctx.k->ce_row(logits + t * N, ids[t + 1], 1.0f / (float)rows, N);
            else
                memset(logits + t * N, 0, N * sizeof *logits);
        }
    if (grads) {
        tg_model_logits_backward(m, hidden, logits, rows, dhidden, grads, wanted);
        tg_model_backward(m, r, ids, b, dhidden, grads, wanted);
    }
    tg_run_free(r);
    free(hidden);
    free(dhidden);
    free(logits);
    return loss / (double)rows;
}

static const size_t GRADIENT_BEGIN[] = {0, 40, 41, 90};
enum { GRADIENT_ROWS = 90 };

/* By how much the loss changes otherwise than g says, per unit along `direction` [count] in
 * parameter p: central differences with two steps, extrapolated to none, so that the error is of
 * fourth order. */
static double slope_error(struct tg_model *m, const struct tg_param *p, const float *g,
                          const double *direction, double longest, const int32_t *ids,
                          const struct tg_batch *b)
{
    float *w = m->data + p->offset, *keep = floats(p->count);
    double error[2];
    memcpy(keep, w, p->count * sizeof *w);
    for (int k = 0; k < 2; k++) {
        double step = longest / (1 << k), change = 0, expected = 0;
        for (int sign = 1; sign >= -1; sign -= 2) {
            for (size_t j = 0; j < p->count; j++)
                w[j] = keep[j] + (float)(sign * step * direction[j]);
            for (size_t j = 0; j < p->count; j++)
                expected += sign * (double)g[j] * w[j];
            change += sign * loss_of(m, ids, b, NULL, NULL);
        }
        error[k] = (change - expected) / (2 * step);
    }
    memcpy(w, keep, p->count * sizeof *w);
    free(keep);
    return (4 * error[1] - error[0]) / 3;
}

/* Below the limit at one of two steps: the loss bends too much for the long one where many layers
 * follow, and rounds too much for the short one where it is flat. A wrong gradient is so at both.
 */
static void assert_slope(struct tg_model *m, const struct tg_param *p, const float *g,
                         const double *direction, double longest, double norm, const int32_t *ids,
                         const struct tg_batch *b)
{
    const double limit = DIFFERENCE_TOLERANCE + DIFFERENCE_NOISE / norm;
    double error = fabs(slope_error(m, p, g, direction, longest, ids, b)) / norm;
    if (!(error < limit))
        error = fmin(error, fabs(slope_error(m, p, g, direction, longest / 2, ids, b)) / norm);
    assert_below(error, limit, p->name);
}

/* Each tensor along its own gradient, where the loss must change at the rate |g|, and along a
 * random direction, where missing parts show. */
static void check_gradients(struct tg_model *m)
{
    struct tg_batch b = {.count = 3, .begin = GRADIENT_BEGIN};
    int32_t ids[GRADIENT_ROWS];
    float *grads = calloc(m->params.floats, sizeof *grads);
    tg_test_ids(ids, GRADIENT_ROWS, N, 5);
    loss_of(m, ids, &b, grads, NULL);
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        const float *g = grads + p->offset;
        double *along = malloc(p->count * sizeof *along),
               *random = malloc(p->count * sizeof *along);
        double norm = 0, size = 0;
        struct tg_rng rng = tg_rng_make(21, i);
        for (size_t j = 0; j < p->count; j++) {
            norm += (double)g[j] * g[j];
            random[j] = tg_rng_normal(&rng);
            size += random[j] * random[j];
        }
        norm = sqrt(norm);
        if (norm < 1e-4)
            fail_msg("%s has a gradient of %g: the test sees nothing", p->name, norm);
        for (size_t j = 0; j < p->count; j++) {
            along[j] = g[j] / norm;
            random[j] /= sqrt(size);
        }
        const double step = 0.04 / fmax(1, 4 * norm);
        assert_slope(m, p, g, along, step, norm, ids, &b);
        assert_slope(m, p, g, random, step, norm, ids, &b);
        free(along);
        free(random);
    }
    free(grads);
}

/* A few rows at a time: through more layers the loss bends too much for a difference. Not through
 * lolcats, whose gradient is by definition that of a function with the window's maximum held
 * constant; with a soft norm of a state's output, which with one token in it is else the sign of
 * q . k; with every partition of sse in use; and far from where the router of sma changes its mind,
 * for there the loss jumps. */
static void test_gradients(void **state)
{
    enum { FEW = 5 };
    (void)state;
    for (size_t first = 0;; first += FEW) {
        struct tg_model *m =
            tg_test_hybrid(&SHAPE, WINDOW, TG_MIXER_PLAN, "lolcats", first, FEW, 1);
        size_t layers = m->spec.layer_count;
        for (size_t l = 0; l < layers; l++) {
            struct tg_recurrent_spec *r = &m->spec.layers[l].recurrent;
            r->norm_eps = 0.1;
            r->active = r->partitions;
        }
        for (size_t i = 0; i < m->params.count; i++)
            if (m->params.items[i].is_mixer && !strcmp(m->params.items[i].local, "router.bias"))
                m->data[m->params.items[i].offset] = 5;
        if (layers > 1)
            check_gradients(m);
        tg_model_free(m);
        if (layers <= FEW)
            break;
    }
}

static void test_threads(void **state)
{
    struct tg_batch b = {.count = 3, .begin = GRADIENT_BEGIN};
    int32_t ids[GRADIENT_ROWS];
    float *hidden[3], *grads[3], *stepped[3];
    size_t size = 0;
    (void)state;
    tg_test_ids(ids, GRADIENT_ROWS, N, 5);
    for (int k = 0; k < 3; k++) {
        struct tg_model *m = hybrid(k + 1);
        struct tg_cache *c;
        struct tg_err err = {0};
        size = m->params.floats * sizeof(float);
        hidden[k] = forward(m, ids, 3, GRADIENT_BEGIN);
        grads[k] = calloc(1, size);
        stepped[k] = floats(GRADIENT_ROWS * D);
        loss_of(m, ids, &b, grads[k], NULL);
        tg_test_must(tg_cache_create(&c, m, 3, GRADIENT_ROWS, &err), &err);
        tg_test_must(tg_model_step(m, c, ids, GRADIENT_BEGIN, stepped[k], NULL, &err), &err);
        tg_cache_free(c);
        tg_model_free(m);
    }
    for (int k = 1; k < 3; k++) {
        assert_memory_equal(hidden[k], hidden[0], GRADIENT_ROWS * D * sizeof(float));
        assert_memory_equal(stepped[k], stepped[0], GRADIENT_ROWS * D * sizeof(float));
        assert_memory_equal(grads[k], grads[0], size);
    }
    for (int k = 0; k < 3; k++) {
        free(hidden[k]);
        free(grads[k]);
        free(stepped[k]);
    }
}

/* What is not wanted gets nothing; the rest is as if all were wanted. */
static void test_wanted(void **state)
{
    struct tg_model *m = hybrid(1);
    struct tg_batch b = {.count = 3, .begin = GRADIENT_BEGIN};
    int32_t ids[GRADIENT_ROWS];
    float *all = calloc(m->params.floats, sizeof *all);
    bool wanted[1024] = {false};
    (void)state;
    assert_true(m->params.count <= 1024);
    tg_test_ids(ids, GRADIENT_ROWS, N, 5);
    loss_of(m, ids, &b, all, NULL);
    for (int mode = 0; mode < 3; mode++) { /* mixers above layer 1; every third; none */
        float *some = calloc(m->params.floats, sizeof *some);
        for (size_t i = 0; i < m->params.count; i++)
            wanted[i] = mode == 0   ? m->params.items[i].is_mixer && m->params.items[i].layer > 1
                        : mode == 1 ? i % 3 == 1
                                    : false;
        loss_of(m, ids, &b, some, wanted);
        for (size_t i = 0; i < m->params.count; i++) {
            const struct tg_param *p = &m->params.items[i];
            for (size_t j = 0; j < p->count; j++)
                assert_true(some[p->offset + j] == (wanted[i] ? all[p->offset + j] : 0));
        }
        free(some);
    }
    free(all);
    tg_model_free(m);
}

/* Gradients add to what is there. */
static void test_accumulates(void **state)
{
    struct tg_model *m = hybrid(1);
    struct tg_batch b = {.count = 3, .begin = GRADIENT_BEGIN};
    int32_t ids[GRADIENT_ROWS];
    float *once = calloc(m->params.floats, sizeof *once);
    float *twice = calloc(m->params.floats, sizeof *twice);
    (void)state;
    tg_test_ids(ids, GRADIENT_ROWS, N, 5);
    loss_of(m, ids, &b, once, NULL);
    loss_of(m, ids, &b, twice, NULL);
    loss_of(m, ids, &b, twice, NULL);
    for (size_t i = 0; i < m->params.floats; i++)
        once[i] *= 2;
    assert_below(tg_rel_error_f(twice, once, m->params.floats), CLOSE, "twice");
    free(once);
    free(twice);
    tg_model_free(m);
}

/* Without sinks and with nothing outside the window, the start is the teacher exactly. */
static void test_wide_window(void **state)
{
    static const char *const mixers[] = {"window", "gated_window"};
    struct tg_test_shape shape = SHAPE;
    struct tg_err err = {0};
    int32_t ids[65];
    (void)state;
    shape.layers = 3;
    tg_test_ids(ids, 65, N, 6);
    for (int i = 0; i < 2; i++) {
        struct tg_model *t = tg_test_teacher(&shape, 1, 8), *s;
        struct tg_plan_options o = {.mixer = mixers[i], .keep = "none", .window = 65};
        struct tg_plan p;
        tg_test_must(tg_plan_make(&p, &t->spec, &o, NULL, &err), &err);
        tg_test_must(tg_surgery_apply(t, &p, NULL, &s, &err), &err);
        float *want = forward_one(t, ids, 65), *got = forward_one(s, ids, 65);
        assert_below(tg_rel_error_f(got, want, 65 * D), CLOSE, mixers[i]);
        free(want);
        free(got);
        tg_plan_release(&p);
        tg_model_free(t);
        tg_model_free(s);
    }
}

/* Frequencies and tables against float32 values of numpy, in the order of operations of
 * transformers */
static const struct {
    size_t i;
    float plain, llama3; /* sizes 64 and 128 */
} FREQUENCIES[] = {
    {0, 1, 1},
    {1, 0.7498942017555237f, 0},
    {5, 0.23713736236095428f, 0},
    {10, 0, 0.12868738174438477f},
    {17, 0.007498942315578461f, 0},
    {28, 0, 0.0032114461064338684f}, /* the last three of these are mixed, mixed and divided */
    {30, 0, 0.0013718936825171113f},
    {31, 0.0001333521504420787f, 0.0008567514596506953f},
    {40, 0, 3.428102354519069e-05f},
    {63, 0, 3.068925877869333e-07f},
};
static const struct {
    size_t t, i;
    double cosine, sine;
} ANGLES[] = {
    {0, 5, 1, 0},
    {1, 0, 0.5403022766113281, 0.8414710164070129},
    {1000, 1, -0.584592878818512, 0.8113267421722412},
    {1000, 17, 0.347627192735672, 0.9376328587532043},
    {4095, 0, -0.06597599387168884, -0.9978212118148804},
    {4095, 1, -0.09004635363817215, -0.9959375858306885},
    {4095, 5, -0.9475278216597983, -0.31967331321309495},
    {4095, 17, 0.7598210573196411, -0.6501322388648987},
};

static void test_rope(void **state)
{
    struct tg_rope plain = {.theta = 10000};
    struct tg_rope llama3 = {.kind = TG_ROPE_LLAMA3,
                             .theta = 500000,
                             .factor = 8,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_max_positions = 8192};
    float f[32], g[64], *cosines = floats(4096 * 32), *sines = floats(4096 * 32);
    (void)state;
    tg_rope_frequencies(&plain, 64, 4096, f);
    tg_rope_frequencies(&llama3, 128, 4096, g);
    for (size_t k = 0; k < sizeof FREQUENCIES / sizeof *FREQUENCIES; k++) {
        size_t i = FREQUENCIES[k].i;
        if (FREQUENCIES[k].plain > 0)
            assert_below(fabs(f[i] / FREQUENCIES[k].plain - 1), 1e-7, "frequency");
        if (FREQUENCIES[k].llama3 > 0)
            assert_below(fabs(g[i] / FREQUENCIES[k].llama3 - 1), 2e-7, "llama3 frequency");
    }
    tg_rope_table(f, 1, 64, 0, 4096, cosines, sines);
    for (size_t k = 0; k < sizeof ANGLES / sizeof *ANGLES; k++) {
        size_t at = ANGLES[k].t * 32 + ANGLES[k].i;
        assert_below(fabs(cosines[at] - ANGLES[k].cosine), 1e-6, "cosine");
        assert_below(fabs(sines[at] - ANGLES[k].sine), 1e-6, "sine");
    }
    free(cosines);
    free(sines);
}

/* Tables that grew hold what tables made at once hold; a run beyond them is refused. */
static void test_reserve(void **state)
{
    struct tg_model *a = tg_test_teacher(&SHAPE, 1, 7), *b = tg_test_teacher(&SHAPE, 1, 7);
    struct tg_err err = {0};
    struct tg_run *r;
    size_t begin[] = {0, 20000};
    struct tg_batch batch = {.count = 1, .begin = begin};
    (void)state;
    tg_test_must(tg_run_create(&r, &err), &err);
    assert_int_equal(tg_run_fit(r, a, &batch, false, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "20000"));
    tg_test_must(tg_model_reserve(a, 5000, &err), &err);
    tg_test_must(tg_model_reserve(a, 20000, &err), &err);
    tg_test_must(tg_model_reserve(b, 20000, &err), &err);
    assert_memory_equal(a->ropes.tables[0].cosine, b->ropes.tables[0].cosine,
                        20000 * 3 * sizeof(float));
    assert_memory_equal(a->ropes.tables[0].sine, b->ropes.tables[0].sine,
                        20000 * 3 * sizeof(float));
    tg_test_must(tg_run_fit(r, a, &batch, false, &err), &err);
    tg_run_free(r);
    tg_model_free(a);
    tg_model_free(b);
}

struct seen {
    size_t count, stop_after;
};

static int count_token(void *ud, size_t sequence, int32_t id)
{
    struct seen *s = ud;
    (void)sequence;
    assert_in_range(id, 0, N - 1);
    return ++s->count == s->stop_after;
}

/* Together or alone, sampled or greedy: a sequence gets the same tokens. */
static void test_generate(void **state)
{
    enum { B = 3, COUNT = 40 };
    static const size_t lengths[B] = {3, 70, 1};
    struct tg_sampling samplings[] = {
        {.temperature = 0, .top_p = 1},
        {.temperature = 0.8, .top_p = 1, .seed = 3},
        {.temperature = 1.3, .top_k = 7, .top_p = 0.9, .seed = 4},
    };
    struct tg_model *m = hybrid(1);
    struct tg_err err = {0};
    int32_t text[80], together[B * COUNT], alone[B * COUNT];
    const int32_t *prompts[B] = {text, text + 5, text + 9};
    size_t made[B];
    (void)state;
    tg_test_ids(text, 80, N, 12);
    for (size_t k = 0; k < 3; k++) {
        struct seen seen = {0};
        tg_test_must(tg_generate(m, prompts, lengths, B, COUNT, &samplings[k], false, together,
                                 made, count_token, &seen, &err),
                     &err);
        assert_int_equal(seen.count, B * COUNT);
        for (size_t b = 0; b < B; b++) {
            /* sequence 0 is drawn from stream 0, so the others are compared through a batch that
             * ends with them */
            assert_int_equal(made[b], COUNT);
            tg_test_must(tg_generate(m, prompts, lengths, b + 1, COUNT, &samplings[k], false, alone,
                                     made, NULL, NULL, &err),
                         &err);
            assert_memory_equal(alone + b * COUNT, together + b * COUNT, COUNT * sizeof *alone);
        }
    }
    samplings[0] = (struct tg_sampling){.temperature = 2, .top_k = 1, .top_p = 1};
    tg_test_must(tg_generate(m, prompts, lengths, B, COUNT, &samplings[0], false, alone, made, NULL,
                             NULL, &err),
                 &err);
    samplings[0] = (struct tg_sampling){.temperature = 0, .top_p = 1};
    tg_test_must(tg_generate(m, prompts, lengths, B, COUNT, &samplings[0], false, together, made,
                             NULL, NULL, &err),
                 &err);
    assert_memory_equal(alone, together, sizeof alone);
    tg_model_free(m);
}

static void test_generate_stops(void **state)
{
    enum { B = 2, COUNT = 30 };
    struct tg_model *m = hybrid(1);
    struct tg_err err = {0};
    int32_t text[] = {4, 8, 15, 16}, all[B * COUNT], cut[B * COUNT];
    const int32_t *prompts[B] = {text, text + 1};
    size_t lengths[B] = {4, 2}, made[B];
    struct tg_sampling s = {.temperature = 1, .top_p = 1, .seed = 1};
    struct seen seen = {0, 7};
    (void)state;
    tg_test_must(tg_generate(m, prompts, lengths, B, COUNT, &s, true, all, made, NULL, NULL, &err),
                 &err);
    assert_int_equal(made[0], COUNT);
    m->spec.eos_count = 1;
    m->spec.eos_ids[0] = all[5]; /* what sequence 0 says sixth, if not before */
    size_t first = 0;
    while (all[first] != all[5])
        first++;
    tg_test_must(tg_generate(m, prompts, lengths, B, COUNT, &s, true, cut, made, NULL, NULL, &err),
                 &err);
    assert_int_equal(made[0], first + 1);
    assert_memory_equal(cut, all, made[0] * sizeof *cut);
    assert_memory_equal(cut + COUNT, all + COUNT, made[1] * sizeof *cut);
    tg_test_must(
        tg_generate(m, prompts, lengths, B, COUNT, &s, false, cut, made, count_token, &seen, &err),
        &err);
    assert_int_equal(seen.count, 7);
    assert_int_equal(made[0] + made[1], 7);

    lengths[1] = 0;
    assert_int_equal(tg_generate(m, prompts, lengths, B, 1, &s, true, cut, made, NULL, NULL, &err),
                     TG_ERR_VALUE);
    lengths[1] = 2;
    text[1] = N;
    assert_int_equal(tg_generate(m, prompts, lengths, B, 1, &s, true, cut, made, NULL, NULL, &err),
                     TG_ERR_VALUE);
    s.top_p = 0;
    assert_int_equal(tg_generate(m, prompts, lengths, B, 1, &s, true, cut, made, NULL, NULL, &err),
                     TG_ERR_VALUE);
    tg_model_free(m);
}

/* First tokens of many sequences follow the softmax, cut as asked. */
static void test_distribution(void **state)
{
    enum { B = 2000 };
    struct tg_model *m = hybrid(1);
    struct tg_err err = {0};
    int32_t text[] = {3, 1, 4};
    const int32_t **prompts = malloc(B * sizeof *prompts);
    size_t *lengths = malloc(B * sizeof *lengths), *made = malloc(B * sizeof *made);
    int32_t *out = malloc(B * sizeof *out);
    double p[N], total = 0;
    float logits[N], *hidden = forward_one(m, text, 3);
    (void)state;
    for (size_t i = 0; i < B; i++) {
        prompts[i] = text;
        lengths[i] = 3;
    }
    tg_model_logits(m, hidden + 2 * D, 1, logits);
    for (size_t i = 0; i < N; i++)
        total += p[i] = exp(logits[i] / 0.7);
    for (int top_k = 0; top_k <= 5; top_k += 5) {
        struct tg_sampling s = {.temperature = 0.7, .top_p = 1, .seed = 9, .top_k = (size_t)top_k};
        double counts[N] = {0}, chi = 0, kept = 0;
        tg_test_must(tg_generate(m, prompts, lengths, B, 1, &s, false, out, made, NULL, NULL, &err),
                     &err);
        for (size_t i = 0; i < B; i++)
            counts[out[i]]++;
        int cells = 0;
        for (size_t i = 0; i < N; i++) {
            int above = 0;
            for (size_t j = 0; j < N; j++)
                above += logits[j] > logits[i];
            if (top_k && above >= top_k)
                assert_true(counts[i] == 0);
            else
                kept += p[i];
        }
        for (size_t i = 0; i < N; i++) {
            double expected = B * p[i] / (top_k ? kept : total);
            if (counts[i] > 0 || (!top_k && expected > 8)) {
                chi += (counts[i] - expected) * (counts[i] - expected) / expected;
                cells++;
            }
        }
        /* mean `cells`, deviation sqrt(2 cells): four deviations */
        assert_true(cells >= 3 && chi < cells + 4 * sqrt(2.0 * cells));
    }
    free(hidden);
    free(prompts);
    free(lengths);
    free(made);
    free(out);
    tg_model_free(m);
}

/* Every allocation fails once: an error comes back and nothing is lost (address sanitizer looks).
 */
static void test_no_memory(void **state)
{
    struct tg_test_shape shape = SHAPE;
    struct tg_model *t = tg_test_teacher(&shape, 1, 7), *s;
    struct tg_plan_options o = {.keep = "none", .sinks = -1, .window = 4};
    int32_t text[] = {3, 1, 4}, out[4];
    const int32_t *prompts[] = {text};
    size_t length = 3, made, begin[] = {0, 3};
    struct tg_sampling sampling = {.temperature = 1, .top_k = 3, .top_p = 1};
    struct tg_batch b = {.count = 1, .begin = begin};
    int failures = 0;
    (void)state;
    for (long n = 1;; n++) {
        struct tg_plan p = {0};
        struct tg_run *r = NULL;
        struct tg_err err = {0};
        s = NULL;
        tg_mem_fail_after(n);
        int status = tg_plan_make(&p, &t->spec, &o, NULL, &err);
        if (!status)
            status = tg_surgery_apply(t, &p, NULL, &s, &err);
        if (!status)
            status = tg_run_create(&r, &err);
        if (!status)
            status = tg_run_fit(r, s, &b, true, &err);
        if (!status)
            status = tg_generate(s, prompts, &length, 1, 4, &sampling, false, out, &made, NULL,
                                 NULL, &err);
        tg_mem_fail_after(0);
        tg_plan_release(&p);
        tg_run_free(r);
        tg_model_free(s);
        if (status == TG_OK)
            break;
        assert_int_equal(status, TG_ERR_NOMEM);
        assert_true(err.msg[0] != '\0');
        failures++;
    }
    assert_true(failures > 15);
    tg_model_free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward_is_recurrent),
        cmocka_unit_test(test_causal),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_cache_limits),
        cmocka_unit_test(test_constant_memory),
        cmocka_unit_test(test_ragged),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_wanted),
        cmocka_unit_test(test_accumulates),
        cmocka_unit_test(test_wide_window),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_generate_stops),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_no_memory),
    };
    return tg_run_tests("model", tests, sizeof tests / sizeof *tests);
}
