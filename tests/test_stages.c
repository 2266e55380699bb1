/* Every row of stages.def on a small model: its gradient against differences of its own loss, the
 * same whatever the micro-batches, and the same bits for one and two threads. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "distill/stage.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"
#include "tests/small_model.h"

/* The loss is computed in float32, to about 1e-6, and the step chosen to change it by 6e-4; a
 * larger one meets curvature, which was seen to fall with the square of the step */
static const double DIFFERENCE = 5e-3;
static const double ROUNDING = 1e-5;
enum { LENGTH = 21, SEQUENCES = 3, ROWS = LENGTH * SEQUENCES };
static const struct tg_test_shape shape = {
    .layers = 3, .width = 16, .heads = 2, .kv_heads = 1, .head_dim = 8, .mlp = 24, .vocab = 41};

struct bench {
    struct tg_model *teacher, *student;
    struct tg_stage_settings set;
    bool changed[3], wanted[128];
    float *grads;
    double layer_loss[3];
    int32_t ids[ROWS];
    size_t begin[SEQUENCES + 1];
    struct tg_stage_io io;
    const struct tg_stage *stage;
};

static void bench_open(struct bench *b, const struct tg_stage *stage, int threads, double ce_share,
                       double temperature)
{
    struct tg_err err = {0};
    struct tg_plan plan;
    struct tg_plan_options options = {.keep = "1", .window = 5, .sinks = 1};
    *b = (struct bench){.stage = stage};
    b->teacher = tg_test_teacher(&shape, threads, 1);
    tg_test_must(tg_plan_make(&plan, &b->teacher->spec, &options, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(b->teacher, &plan, NULL, &b->student, &err), &err);
    tg_plan_release(&plan);
    tg_test_stir_new(b->student, 0.3, 2);
    b->changed[0] = b->changed[2] = true;
    snprintf(b->set.kind, sizeof b->set.kind, "%s", stage->name);
    tg_test_must(tg_stage_defaults(&b->set, &err), &err);
    b->set.ce_share = ce_share;
    b->set.temperature = temperature;
    assert_true(b->student->params.count <= 128);
    for (size_t i = 0; i < b->student->params.count; i++) {
        const struct tg_param *p = &b->student->params.items[i];
        b->wanted[i] = !stage->per_layer || (p->is_mixer && b->changed[p->layer]);
    }
    b->grads = tg_alloc_array(b->student->params.floats, sizeof *b->grads);
    assert_non_null(b->grads);
    tg_test_ids(b->ids, ROWS, shape.vocab, 3);
    for (size_t i = 0; i <= SEQUENCES; i++)
        b->begin[i] = i * LENGTH;
    b->io = (struct tg_stage_io){.teacher = stage->needs_teacher ? b->teacher : NULL,
                                 .student = b->student,
                                 .set = &b->set,
                                 .changed = b->changed,
                                 .wanted = b->wanted,
                                 .grads = b->grads,
                                 .weight = 1,
                                 .layer_loss = b->layer_loss};
    struct tg_batch largest = {.count = SEQUENCES, .begin = b->begin};
    tg_test_must(stage->begin(&b->io, &largest, &err), &err);
}
static void bench_close(struct bench *b)
{
    b->stage->end(&b->io);
    tg_free(b->grads);
    tg_model_free(b->student);
    tg_model_free(b->teacher);
}

/* Loss of sequences from.. (all of equal length); gradients accumulate with `weight`. */
static double run(struct bench *b, size_t from, size_t count, float weight)
{
    struct tg_err err = {0};
    struct tg_batch batch = {.count = count, .begin = b->begin};
    double loss = 0;
    b->io.weight = weight;
    tg_test_must(b->stage->batch(&b->io, b->ids + from * LENGTH, &batch, &loss, &err), &err);
    return loss;
}
static void clear(struct bench *b)
{
    memset(b->grads, 0, b->student->params.floats * sizeof *b->grads);
}
/* What the gradient is of: align sums over layers, its loss is their mean. */
static double objective(struct bench *b)
{
    double loss = run(b, 0, SEQUENCES, 1);
    return b->stage->per_layer ? loss * 2 : loss;
}

/* d/de loss(p + e g / |g|) = |g|, parameter by parameter */
static void check_gradient(const struct tg_stage *stage, double ce_share, double temperature,
                           const int32_t *labels)
{
    struct bench b;
    bench_open(&b, stage, 1, ce_share, temperature);
    b.io.labels = labels;
    run(&b, 0, SEQUENCES, 1);
    size_t floats = b.student->params.floats;
    float *g = tg_alloc_array(floats, sizeof *g), *p = b.student->data;
    float *at = tg_alloc_array(floats, sizeof *at);
    assert_non_null(g);
    assert_non_null(at);
    memcpy(g, b.grads, floats * sizeof *g);
    memcpy(at, p, floats * sizeof *at);
    for (size_t i = 0; i < b.student->params.count; i++) {
        const struct tg_param *q = &b.student->params.items[i];
        double norm = 0;
        for (size_t k = q->offset; k < q->offset + q->count; k++)
            norm += (double)g[k] * g[k];
        norm = sqrt(norm);
        if (!b.wanted[i]) {
            assert_true(norm == 0);
            continue;
        }
        if (norm < 1e-4) /* lost in the loss's rounding */
            continue;
        double side[2], step = 3e-4 / norm < 0.03 ? 3e-4 / norm : 0.03;
        for (int s = 0; s < 2; s++) {
            for (size_t k = q->offset; k < q->offset + q->count; k++)
                p[k] = at[k] + (float)((s ? -step : step) * g[k] / norm);
            side[s] = objective(&b);
        }
        memcpy(p + q->offset, at + q->offset, q->count * sizeof *p);
        char what[192];
        snprintf(what, sizeof what, "%s, ce_share %g, T %g: %s, slope %g", stage->name, ce_share,
                 temperature, q->name, norm);
        double slope = (side[0] - side[1]) / (2 * step);
        assert_below(fabs(slope / norm - 1), DIFFERENCE, what);
    }
    tg_free(g);
    tg_free(at);
    bench_close(&b);
}
static void test_gradients(void **state)
{
    (void)state;
    for (size_t i = 0; tg_stages[i]; i++)
        check_gradient(tg_stages[i], 0, 1, NULL);
    check_gradient(tg_stage_find("kl"), 0.3, 2, NULL);
}

/* Labels take the place of the next tokens: rows without one count for nothing. */
static void test_labels(void **state)
{
    (void)state;
    const struct tg_stage *ce = tg_stage_find("ce");
    size_t N = shape.vocab, D = shape.width, labelled = 0;
    int32_t labels[ROWS];
    float *hidden = tg_alloc_floats(ROWS * D), *logits = tg_alloc_floats(ROWS * N);
    struct tg_run *r;
    struct tg_err err = {0};
    struct bench b;
    assert_non_null(hidden);
    assert_non_null(logits);
    for (size_t i = 0; i < ROWS; i++)
        labels[i] = i % 7 == 3 || i == ROWS - 1 ? (int32_t)(i * 11 % N) : -1;
    bench_open(&b, ce, 1, 1, 1);
    struct tg_batch batch = {.count = SEQUENCES, .begin = b.begin};
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, b.student, &batch, false, &err), &err);
    tg_model_forward(b.student, r, b.ids, &batch, hidden, false, NULL);
    tg_model_logits(b.student, hidden, ROWS, logits);
    double want = 0;
    for (size_t i = 0; i < ROWS; i++) {
        double sum = 0;
        if (labels[i] < 0)
            continue;
        for (size_t n = 0; n < N; n++)
            sum += exp((double)logits[i * N + n]);
        want += log(sum) - logits[i * N + (size_t)labels[i]];
        labelled++;
    }
    b.io.labels = labels;
    assert_below(fabs(run(&b, 0, SEQUENCES, 1) / (want / (double)labelled) - 1), ROUNDING, "loss");
    tg_run_free(r);
    tg_free(hidden);
    tg_free(logits);
    bench_close(&b);
    check_gradient(ce, 1, 1, labels);
}

static void test_micro_batches(void **state)
{
    (void)state;
    for (size_t i = 0; tg_stages[i]; i++) {
        struct bench b;
        bench_open(&b, tg_stages[i], 1, 0, 1);
        if (b.stage->per_layer) { /* relative to the micro-batch's own power: equal only alone */
            bench_close(&b);
            continue;
        }
        double whole = run(&b, 0, SEQUENCES, 1), parts = 0;
        size_t floats = b.student->params.floats;
        float *want = tg_alloc_array(floats, sizeof *want);
        assert_non_null(want);
        memcpy(want, b.grads, floats * sizeof *want);
        clear(&b);
        for (size_t s = 0; s < SEQUENCES; s++)
            parts += run(&b, s, 1, 1.0f / SEQUENCES) / SEQUENCES;
        assert_below(fabs(parts / whole - 1), ROUNDING, tg_stages[i]->name);
        assert_below(tg_rel_error_f(b.grads, want, floats), ROUNDING, tg_stages[i]->name);
        tg_free(want);
        bench_close(&b);
    }
}

static void test_threads(void **state)
{
    (void)state;
    for (size_t i = 0; tg_stages[i]; i++) {
        struct bench one, two;
        bench_open(&one, tg_stages[i], 1, 0.5, 2);
        bench_open(&two, tg_stages[i], 2, 0.5, 2);
        double a = run(&one, 0, SEQUENCES, 1), c = run(&two, 0, SEQUENCES, 1);
        assert_true(a == c);
        assert_memory_equal(one.grads, two.grads, one.student->params.floats * sizeof(float));
        bench_close(&one);
        bench_close(&two);
    }
}

/* A student that is its teacher has nothing to learn. */
static void test_fixed_point(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b, tg_stage_find("kl"), 1, 0, 1);
    for (size_t i = 0; i < b.student->params.count; i++) {
        const struct tg_param *p = &b.student->params.items[i];
        if (strstr(p->name, "sink") || strstr(p->name, "far_logit"))
            for (size_t k = 0; k < p->count; k++)
                b.student->data[p->offset + k] = -80; /* window alone */
    }
    for (size_t l = 0; l < shape.layers; l++)
        if (b.changed[l])
            b.student->spec.layers[l].window = LENGTH;
    double loss = run(&b, 0, SEQUENCES, 1);
    assert_below(fabs(loss), 1e-9, "kl of a copy");
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),     cmocka_unit_test(test_labels),
        cmocka_unit_test(test_micro_batches), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_fixed_point),
    };
    return tg_run_tests("stages", tests, sizeof tests / sizeof *tests);
}
