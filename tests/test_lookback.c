/* Measures of a teacher's attention: known attention, a plain softmax in double, sums over calls,
 * windows of a text, the same bits on any number of threads. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "distill/calibrate.h"
#include "linearize/surgery/lookback.h"
#include "linearize/surgery/surgery.h"
#include "tests/small_model.h"

enum { LONG = 70, SHORT = 33, ROWS = LONG + SHORT, D = 16, VOCAB = 80 };
static const size_t BEGIN[] = {0, LONG, LONG, ROWS}; /* an empty sequence between */
static const struct tg_batch BATCH = {.count = 3, .begin = BEGIN};
static const struct tg_test_shape SHAPE = {3, D, 4, 2, 6, 24, VOCAB, true, true, true};
static const struct tg_test_shape ONE_HEAD = {1, D, 1, 1, D, 24, VOCAB, false, false, true};

/* `shape` with its layers changed: weights are drawn anew */
static struct tg_model *remade(const struct tg_test_shape *shape, int threads,
                               void (*change)(struct tg_layer_spec *layers))
{
    struct tg_model *plain = tg_test_teacher(shape, threads, 5), *m;
    struct tg_err err = {0};
    change(plain->spec.layers);
    tg_test_must(tg_model_create(&m, &plain->spec, &plain->ctx, &err), &err);
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        const float *from = tg_model_param(plain, p->name);
        struct tg_rng rng = tg_rng_make(7, i);
        for (size_t j = 0; j < p->count; j++)
            m->data[p->offset + j] = from ? from[j] : (float)tg_rng_normal(&rng);
    }
    tg_model_free(plain);
    return m;
}

static void measure(const struct tg_model *m, const struct tg_batch *b, const int32_t *ids,
                    struct tg_lookback *look)
{
    struct tg_err err = {0};
    tg_test_must(tg_lookback_measure(look, m, b, ids, &err), &err);
}

static void fill(struct tg_model *m, const char *name, float scale)
{
    float *w = tg_model_param(m, name);
    for (size_t i = 0; i < D * D; i++)
        w[i] = i % (D + 1) == 0 ? scale : 0;
}

/* Layer 0 of a model of one head against the means of distance and entropy over BATCH */
static void check_one(const struct tg_model *m, const int32_t *ids, double (*distance)(size_t t),
                      double (*entropy)(size_t t), double tol)
{
    struct tg_lookback look = {0};
    double far = 0, spread = 0;
    for (size_t i = 0; i < BATCH.count; i++)
        for (size_t t = 0; t < BEGIN[i + 1] - BEGIN[i]; t++) {
            far += distance(t) / ROWS;
            spread += entropy(t) / ROWS;
        }
    measure(m, &BATCH, ids, &look);
    const struct tg_attention_stats *s = tg_lookback_of(&look, 0);
    assert_non_null(s);
    assert_int_equal(look.tokens, ROWS);
    assert_below(fabs(s->distance[0] - far), tol * (1 + far), "distance");
    assert_below(fabs(s->entropy[0] - spread), tol * (1 + spread), "entropy");
    tg_lookback_release(&look);
}

static double uniform_distance(size_t t)
{
    return (double)t / 2;
}
static double uniform_entropy(size_t t)
{
    return log((double)t + 1);
}
enum { WINDOW = 5 };
static double window_distance(size_t t)
{
    return (double)(t < WINDOW ? t : WINDOW - 1) / 2;
}
static double window_entropy(size_t t)
{
    return log(t < WINDOW ? (double)t + 1 : WINDOW);
}
/* A sink of logit 0 is one more key, which is not looked at. */
static double sink_distance(size_t t)
{
    return (double)(t * (t + 1) / 2) / (double)(t + 2);
}
static double sink_entropy(size_t t)
{
    return (double)(t + 1) / (double)(t + 2) * log((double)t + 2);
}
/* The same PERIOD tokens again and again: only the same ones are looked at. */
enum { PERIOD = 10 };
static double period_distance(size_t t)
{
    return (double)(t / PERIOD) * PERIOD / 2;
}
static double period_entropy(size_t t)
{
    return log((double)(t / PERIOD) + 1);
}
static double nothing(size_t t)
{
    (void)t;
    return 0;
}

static void window_layer(struct tg_layer_spec *l)
{
    l->mixer = tg_mixer_schema_find("window");
    l->window = WINDOW;
}
static void sink_layer(struct tg_layer_spec *l)
{
    l->sinks = 1;
}
static void plain_layer(struct tg_layer_spec *l)
{
    l->rotary_dim = 0;
}

static void test_uniform(void **state)
{
    int32_t ids[ROWS];
    struct tg_model *m = tg_test_teacher(&ONE_HEAD, 2, 5);
    (void)state;
    tg_test_ids(ids, ROWS, VOCAB, 3);
    fill(m, "layers.0.mixer.q.weight", 0);
    check_one(m, ids, uniform_distance, uniform_entropy, 1e-12);
    tg_model_free(m);
    m = remade(&ONE_HEAD, 2, window_layer);
    fill(m, "layers.0.mixer.q.weight", 0);
    check_one(m, ids, window_distance, window_entropy, 1e-12);
    tg_model_free(m);
    m = remade(&ONE_HEAD, 2, sink_layer);
    fill(m, "layers.0.mixer.q.weight", 0);
    *tg_model_param(m, "layers.0.mixer.sink") = 0;
    check_one(m, ids, sink_distance, sink_entropy, 1e-12);
    tg_model_free(m);
}

static void test_same_token(void **state)
{
    int32_t ids[ROWS];
    struct tg_model *m = remade(&ONE_HEAD, 2, plain_layer);
    float *norm = tg_model_param(m, "layers.0.norm_in.weight");
    (void)state;
    for (size_t i = 0; i < D; i++)
        norm[i] = 1; /* all inputs of one length: no other's product is larger than its own */
    fill(m, "layers.0.mixer.q.weight", 1000);
    fill(m, "layers.0.mixer.k.weight", 1);
    for (size_t i = 0; i < ROWS; i++)
        ids[i] = (int32_t)(i % LONG);
    check_one(m, ids, nothing, nothing, 1e-12);
    for (size_t i = 0; i < ROWS; i++)
        ids[i] = (int32_t)(i % LONG % PERIOD);
    check_one(m, ids, period_distance, period_entropy, 1e-3);
    tg_model_free(m);
}

/* Layers with a window, a soft cap, sinks, part of the head turned, another scale */
static void all_kinds(struct tg_layer_spec *l)
{
    l[0].attn_softcap = 1.5;
    l[0].attn_scale = 0.9;
    l[1].mixer = tg_mixer_schema_find("window");
    l[1].window = 40;
    l[1].sinks = 2;
    l[2].rotary_dim = 4;
    l[2].sinks = 1;
}

struct reference {
    struct tg_model *m;
    double distance[3][4], entropy[3][4];
};

/* One head vector of layer `layer`, token t: projection, norm, rotary */
static void head_vector(const struct tg_model *m, size_t layer, const char *part, const float *x,
                        size_t h, size_t t, double *out)
{
    const struct tg_layer_spec *s = &m->spec.layers[layer];
    char name[64];
    double squares = 0;
    snprintf(name, sizeof name, "layers.%zu.mixer.%s.weight", layer, part);
    const float *w = tg_model_param(m, name);
    snprintf(name, sizeof name, "layers.%zu.mixer.%s.bias", layer, part);
    const float *bias = tg_model_param(m, name);
    snprintf(name, sizeof name, "layers.%zu.mixer.%s_norm.weight", layer, part);
    const float *norm = tg_model_param(m, name);
    for (size_t i = 0; i < s->head_dim; i++) {
        out[i] = (double)bias[h * s->head_dim + i];
        for (size_t d = 0; d < D; d++)
            out[i] += (double)w[(h * s->head_dim + i) * D + d] * (double)x[t * D + d];
        squares += out[i] * out[i] / (double)s->head_dim;
    }
    for (size_t i = 0; i < s->head_dim; i++)
        out[i] *= (double)norm[i] / sqrt(squares + m->spec.norm.eps);
    for (size_t i = 0, half = s->rotary_dim / 2; i < half; i++) {
        double angle = (double)t * pow(10000, -2.0 * (double)i / (double)s->rotary_dim);
        double a = out[i], b = out[i + half];
        out[i] = a * cos(angle) - b * sin(angle);
        out[i + half] = b * cos(angle) + a * sin(angle);
    }
}

static void refer_row(struct reference *r, size_t layer, size_t h, const float *x, size_t t)
{
    const struct tg_layer_spec *s = &r->m->spec.layers[layer];
    char name[64];
    double q[8], k[8], p[LONG], total = 0;
    snprintf(name, sizeof name, "layers.%zu.mixer.sink", layer);
    for (size_t i = 0; i < s->sinks; i++)
        total += exp((double)tg_model_param(r->m, name)[h * s->sinks + i]);
    head_vector(r->m, layer, "q", x, h, t, q);
    for (size_t j = 0; j <= t; j++) {
        double score = 0;
        head_vector(r->m, layer, "k", x, h / (s->heads / s->kv_heads), j, k);
        for (size_t i = 0; i < s->head_dim; i++)
            score += q[i] * k[i] * s->attn_scale;
        if (s->attn_softcap > 0)
            score = s->attn_softcap * tanh(score / s->attn_softcap);
        p[j] = s->window && t - j >= s->window ? 0 : exp(score);
        total += p[j];
    }
    for (size_t j = 0; j <= t; j++) {
        p[j] /= total;
        r->distance[layer][h] += p[j] * (double)(t - j) / ROWS;
        r->entropy[layer][h] -= p[j] > 0 ? p[j] * log(p[j]) / ROWS : 0;
    }
}

static void refer(void *ud, size_t layer, const float *x, const float *y)
{
    struct reference *r = ud;
    (void)y;
    for (size_t i = 0; i < BATCH.count; i++)
        for (size_t t = 0; t < BEGIN[i + 1] - BEGIN[i]; t++)
            for (size_t h = 0; h < 4; h++)
                refer_row(r, layer, h, x + BEGIN[i] * D, t);
}

static void test_reference(void **state)
{
    struct reference want = {.m = remade(&SHAPE, 1, all_kinds)};
    struct tg_hooks hooks = {.mixer = refer, .ud = &want};
    struct tg_lookback look = {0};
    struct tg_run *run;
    struct tg_err err = {0};
    float hidden[ROWS * D];
    int32_t ids[ROWS];
    (void)state;
    tg_test_ids(ids, ROWS, VOCAB, 3);
    tg_test_must(tg_run_create(&run, &err), &err);
    tg_test_must(tg_run_fit(run, want.m, &BATCH, false, &err), &err);
    tg_model_forward(want.m, run, ids, &BATCH, hidden, false, &hooks);
    measure(want.m, &BATCH, ids, &look);
    for (size_t l = 0; l < 3; l++) {
        const struct tg_attention_stats *s = tg_lookback_of(&look, l);
        assert_below(tg_rel_error_d(s->distance, want.distance[l], 4), 1e-6, "distance");
        assert_below(tg_rel_error_d(s->entropy, want.entropy[l], 4), 1e-6, "entropy");
    }
    tg_lookback_release(&look);
    tg_run_free(run);
    tg_model_free(want.m);
}

/* Sequence by sequence, and on other numbers of threads */
static void test_calls_and_threads(void **state)
{
    struct tg_lookback one = {0}, parts = {0};
    int32_t ids[ROWS];
    (void)state;
    tg_test_ids(ids, ROWS, VOCAB, 3);
    struct tg_model *m = remade(&SHAPE, 1, all_kinds);
    measure(m, &BATCH, ids, &one);
    for (size_t i = 0; i < BATCH.count; i++) {
        const size_t own[] = {0, BEGIN[i + 1] - BEGIN[i]};
        measure(m, &(struct tg_batch){.count = 1, .begin = own}, ids + BEGIN[i], &parts);
    }
    assert_int_equal(parts.tokens, ROWS);
    assert_below(tg_rel_error_d(parts.means, one.means, 3 * 8), 1e-6, "in three calls");
    tg_model_free(m);
    for (int threads = 2; threads <= 3; threads++) {
        struct tg_lookback look = {0};
        m = remade(&SHAPE, threads, all_kinds);
        measure(m, &BATCH, ids, &look);
        assert_memory_equal(look.means, one.means, 3 * 8 * sizeof *one.means);
        tg_lookback_release(&look);
        tg_model_free(m);
    }
    tg_lookback_release(&one);
    tg_lookback_release(&parts);
}

/* Layers that do not attend have no measures; what was not measured has none; bad weights are
 * named. */
static void test_nothing_to_say(void **state)
{
    struct tg_plan_options o = {.keep = "0,2", .window = 8};
    struct tg_model *t = tg_test_teacher(&SHAPE, 1, 5), *s;
    struct tg_lookback look = {0};
    struct tg_plan plan;
    struct tg_err err = {0};
    int32_t ids[ROWS];
    (void)state;
    tg_test_ids(ids, ROWS, VOCAB, 3);
    assert_null(tg_lookback_of(NULL, 0));
    assert_null(tg_lookback_of(&look, 0));
    tg_test_must(tg_plan_make(&plan, &t->spec, &o, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(t, &plan, NULL, &s, &err), &err);
    measure(s, &BATCH, ids, &look);
    assert_non_null(tg_lookback_of(&look, 0));
    assert_null(tg_lookback_of(&look, 1));
    assert_non_null(tg_lookback_of(&look, 2));
    tg_lookback_release(&look);
    tg_model_param(t, "layers.1.mixer.q.bias")[7] = NAN;
    assert_int_equal(tg_lookback_measure(&look, t, &BATCH, ids, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "layer 1, head 1"));
    tg_lookback_release(&look);
    tg_plan_release(&plan);
    tg_model_free(s);
    tg_model_free(t);
}

/* Windows spread over a text, as many at a time as fit: the same as window by window */
static void test_windows(void **state)
{
    enum { COUNT = 9000, LENGTH = 700, WINDOWS = 5 }; /* 12 windows: every second */
    struct tg_model *m = tg_test_teacher(&SHAPE, 1, 5);
    struct tg_lookback got = {0}, want = {0};
    int32_t *ids = tg_alloc_array(COUNT, sizeof *ids);
    const size_t begin[] = {0, LENGTH};
    struct tg_err err = {0};
    (void)state;
    tg_test_ids(ids, COUNT, VOCAB, 4);
    tg_test_must(tg_calibrate_lookback(m, ids, COUNT, LENGTH, WINDOWS, &got, NULL, &err), &err);
    for (size_t i = 0; i < WINDOWS; i++)
        measure(m, &(struct tg_batch){.count = 1, .begin = begin}, ids + i * 2 * LENGTH, &want);
    assert_int_equal(got.tokens, WINDOWS * LENGTH);
    assert_below(tg_rel_error_d(got.means, want.means, 3 * 8), 1e-6, "windows");
    tg_lookback_release(&got);
    tg_test_must(tg_calibrate_lookback(m, ids, 90, LENGTH, WINDOWS, &got, NULL, &err), &err);
    assert_int_equal(got.tokens, 90); /* the text is shorter than a window */
    tg_lookback_release(&got);
    assert_int_equal(tg_calibrate_lookback(m, ids, 0, LENGTH, WINDOWS, &got, NULL, &err),
                     TG_ERR_VALUE);
    tg_lookback_release(&got);
    tg_lookback_release(&want);
    tg_free(ids);
    tg_model_free(m);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform),        cmocka_unit_test(test_same_token),
        cmocka_unit_test(test_reference),      cmocka_unit_test(test_calls_and_threads),
        cmocka_unit_test(test_nothing_to_say), cmocka_unit_test(test_windows),
    };
    return tg_run_tests("lookback", tests, sizeof tests / sizeof *tests);
}
