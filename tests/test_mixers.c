/* Every row of the mixer registry, at every shape below: forward and gradients against the double
 * reference (tests/mixers_ref.c), decode in every cut against forward, threads, causality, what
 * a new layer begins with. Nothing here knows a row; what the rows compute is in the reference. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "tests/check.h"
#include "tests/guard.h"
#include "tests/mixer_bench.h"
#include "tests/mixers_ref.h"

/* float32 rounds to 6e-8; the chains here are some hundred terms through exponentials. A gradient
 * is a sum of terms that cancel. */
static const double FORWARD = 5e-6, GRADIENT = 1e-4, DECODE = 5e-6;

static const struct tg_bench_shape shapes[] = {
    {"tiny",
     6,
     2,
     1,
     4,
     4,
     3,
     1,
     4,
     TG_MAP_HEDGEHOG_SOFTMAX,
     true,
     true,
     true,
     true,
     {7, 1, 0, 5},
     4},
    {"exp", 5, 2, 2, 6, 2, 4, 2, 3, TG_MAP_HEDGEHOG_EXP, false, false, false, true, {9, 2}, 2},
    {"relu", 6, 3, 1, 4, 4, 2, 0, 4, TG_MAP_RELU, true, false, false, true, {8}, 1},
    {"elu1", 6, 4, 2, 2, 0, 1, 3, 2, TG_MAP_ELU1, true, true, false, true, {6, 3}, 2},
    {"identity", 6, 2, 1, 4, 4, 2, 1, 4, TG_MAP_IDENTITY, true, false, false, true, {5, 4}, 2},
    {"taylor", 5, 2, 1, 4, 4, 3, 1, 3, TG_MAP_TAYLOR, true, false, true, true, {7, 3}, 2},
    {"one token", 6, 2, 1, 4, 4, 3, 1, 4, TG_MAP_HEDGEHOG_SOFTMAX, true, false, true, true, {1}, 1},
    {"63 to 65",
     20,
     4,
     2,
     6,
     4,
     16,
     1,
     5,
     TG_MAP_HEDGEHOG_SOFTMAX,
     true,
     true,
     true,
     false,
     {63, 2, 64, 0, 65},
     5},
    {"wide window",
     12,
     2,
     1,
     8,
     8,
     100,
     4,
     8,
     TG_MAP_HEDGEHOG_SOFTMAX,
     false,
     false,
     false,
     false,
     {65, 1},
     2},
    /* features so many that a far branch takes several strips (far.c) */
    {"257",
     12,
     2,
     1,
     8,
     8,
     50,
     1,
     128,
     TG_MAP_HEDGEHOG_SOFTMAX,
     true,
     false,
     true,
     false,
     {257},
     1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* The double reference at the bench's values */
struct oracle {
    struct tg_ref ref;
    struct tg_ref_consts consts;
    const struct tg_bench *t;
    bool every; /* gradients element by element */
    double *param[TG_MIXER_MAX_PARAMS], *x, *y;
};

static double *doubles(const float *from, size_t n)
{
    double *to = tg_alloc_array(n + 1, sizeof *to);
    assert_non_null(to);
    if (from)
        tg_to_double(from, to, n);
    return to;
}

static double loss(struct oracle *o)
{
    double sum = 0;
    tg_ref_forward(&o->ref, &o->t->b, o->x, o->y);
    for (size_t i = 0; i < o->t->rows * o->t->m.width; i++)
        sum += o->y[i] * (double)o->t->dy[i];
    return sum;
}

static void open_oracle(struct oracle *o, const struct tg_bench *t, bool every)
{
    size_t n = t->rows * t->m.width;
    memset(o, 0, sizeof *o);
    o->t = t;
    o->every = every;
    o->x = doubles(t->x, n);
    o->y = doubles(NULL, n);
    o->consts.limit = 4 * t->rows * t->spec.heads;
    o->consts.values = doubles(NULL, o->consts.limit);
    o->ref.mixer = &t->m;
    o->ref.consts = &o->consts;
    for (size_t i = 0; i < t->spec.mixer->param_count; i++)
        if (t->param[i])
            o->ref.param[i] = o->param[i] = doubles(t->param[i], t->count[i]);
    o->consts.record = true;
    loss(o);
    o->consts.record = false;
}

static void close_oracle(struct oracle *o)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        tg_free(o->param[i]);
    tg_free(o->x);
    tg_free(o->y);
    tg_free(o->consts.values);
}

/* Central difference of the loss along `direction` [n] at p */
static double slope(struct oracle *o, double *p, const double *direction, size_t n, double *keep)
{
    const double step = 1e-5;
    double up, down;
    memcpy(keep, p, n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = keep[i] + step * direction[i];
    up = loss(o);
    for (size_t i = 0; i < n; i++)
        p[i] = keep[i] - step * direction[i];
    down = loss(o);
    memcpy(p, keep, n * sizeof *p);
    return (up - down) / (2 * step);
}

/* RMS over the elements, or the worst of two random directions divided by the size that a gradient
 * of this norm has along them. Relative to the gradient, or to a thousandth of dx where it is zero
 * or nearly so. */
static double gradient_error(struct oracle *o, double *p, const float *grad, size_t n)
{
    size_t rows = o->t->rows * o->t->m.width;
    double *direction = doubles(NULL, n), *keep = doubles(NULL, n), diff = 0, size = 0, dx = 0;
    for (size_t i = 0; i < rows; i++)
        dx += (double)o->t->dx[i] * (double)o->t->dx[i];
    for (size_t i = 0; i < n; i++)
        size += (double)grad[i] * (double)grad[i];
    for (size_t i = 0; o->every && i < n; i++) {
        direction[i] = 1;
        double e = slope(o, p, direction, n, keep) - (double)grad[i];
        diff += e * e;
        direction[i] = 0;
    }
    for (size_t round = 0; !o->every && round < 2; round++) {
        float *random = tg_bench_floats(n);
        double along = 0, norm = 0;
        tg_fill_random(random, n, 50 + round);
        for (size_t i = 0; i < n; i++) {
            direction[i] = (double)random[i];
            along += direction[i] * (double)grad[i];
            norm += direction[i] * direction[i];
        }
        double e = slope(o, p, direction, n, keep) - along;
        diff = fmax(diff, e * e / norm * (double)n);
        if (isnan(e))
            diff = e;
        tg_free(random);
    }
    tg_free(direction);
    tg_free(keep);
    return sqrt(diff / (double)n) / fmax(sqrt(size / (double)n), 1e-2 * sqrt(dx / (double)rows));
}

static void test_reference(void **state)
{
    const struct tg_bench_pair *p = *state;
    struct tg_bench t = tg_bench_open(p);
    struct oracle o;
    tg_bench_settle(&t, p->shape);
    assert_true(tg_ref_knows(&t.m));
    tg_bench_run(&t, true);
    open_oracle(&o, &t, p->shape->every);
    assert_below(tg_rel_error_fd(t.y, o.y, t.rows * t.m.width), FORWARD, "forward");
    assert_below(gradient_error(&o, o.x, t.dx, t.rows * t.m.width), GRADIENT, "dx");
    for (size_t i = 0; i < t.spec.mixer->param_count; i++)
        if (t.param[i])
            assert_below(gradient_error(&o, o.param[i], t.grad[i], t.count[i]), GRADIENT,
                         t.spec.mixer->params[i].name);
    float *y = tg_bench_floats(t.rows * t.m.width);
    memcpy(y, t.y, t.rows * t.m.width * sizeof *y);
    tg_bench_run(&t, false);
    assert_memory_equal(y, t.y, t.rows * t.m.width * sizeof *y); /* saved or not */
    tg_free(y);
    close_oracle(&o);
    tg_bench_close(&t);
}

static void test_threads(void **state)
{
    const struct tg_bench_pair *p = *state;
    struct tg_bench one = tg_bench_open(p), more = tg_bench_open(p);
    tg_bench_settle(&one, p->shape);
    tg_bench_settle(&more, p->shape);
    tg_bench_run(&one, true);
    for (int threads = 2; threads <= 3; threads++) {
        more.ctx.threads = threads;
        tg_bench_run(&more, true);
        assert_memory_equal(one.y, more.y, one.rows * one.m.width * sizeof *one.y);
        assert_memory_equal(one.dx, more.dx, one.rows * one.m.width * sizeof *one.y);
        for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
            if (one.grad[i])
                assert_memory_equal(one.grad[i], more.grad[i], one.count[i] * sizeof *one.y);
    }
    tg_bench_close(&one);
    tg_bench_close(&more);
}

/* A changed token changes no output before it and none of another sequence, to the bit. */
static void test_causal(void **state)
{
    const struct tg_bench_pair *p = *state;
    struct tg_bench t = tg_bench_open(p);
    tg_bench_settle(&t, p->shape);
    tg_bench_run(&t, false);
    size_t D = t.m.width, end = t.begin[1], at = end * 2 / 3;
    float *y = tg_bench_floats(t.rows * D);
    memcpy(y, t.y, t.rows * D * sizeof *y);
    for (size_t i = 0; i < D; i++)
        t.x[at * D + i] += 1;
    tg_bench_run(&t, false);
    assert_memory_equal(y, t.y, at * D * sizeof *y);
    assert_memory_not_equal(y + at * D, t.y + at * D, D * sizeof *y);
    assert_memory_equal(y + end * D, t.y + end * D, (t.rows - end) * D * sizeof *y);
    tg_free(y);
    tg_bench_close(&t);
}

static void test_decode(void **state)
{
    static const size_t cuts[][4] = {{1, 1, 1, 1},     {2, 5, 1, 3},    {40, 1, 33, 7},
                                     {64, 64, 64, 64}, {1000, 1, 1, 1}, {7, 50, 100, 31}};
    const struct tg_bench_pair *p = *state;
    struct tg_bench t = tg_bench_open(p);
    struct tg_bench_decode d;
    tg_bench_settle(&t, p->shape);
    tg_bench_run(&t, false);
    tg_bench_decode_open(&d, &t);
    size_t n = t.rows * t.m.width;
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        char text[64];
        t.ctx.threads = 1 + (int)(c % 2);
        snprintf(text, sizeof text, "decode in pieces of %zu, %zu, ..", cuts[c][0], cuts[c][1]);
        tg_bench_restart(&d);
        for (size_t i = 0; tg_bench_advance(&d, cuts[c][i % 4]); i++)
            continue;
        assert_below(tg_rel_error_f(d.y, t.y, n), DECODE, text);
    }
    tg_bench_decode_close(&d);
    tg_bench_close(&t);
}

/* A snapshot is a copy: going on from it, after other tokens have passed, gives the same bits. */
static void test_snapshot(void **state)
{
    const struct tg_bench_pair *p = *state;
    struct tg_bench t = tg_bench_open(p);
    struct tg_bench_decode d;
    tg_bench_settle(&t, p->shape);
    tg_bench_decode_open(&d, &t);
    size_t n = t.rows * t.m.width, past[TG_BENCH_SEQUENCES];
    float *y = tg_bench_floats(n);
    tg_bench_advance(&d, t.longest / 3);
    tg_bench_advance(&d, 1);
    memcpy(past, d.past, sizeof past);
    for (size_t i = 0; i < t.b.count; i++)
        memcpy(d.copies[i], d.states[i], d.bytes);
    while (tg_bench_advance(&d, 2))
        continue;
    memcpy(y, d.y, n * sizeof *y);
    memcpy(d.past, past, sizeof past);
    for (size_t i = 0; i < t.b.count; i++)
        memcpy(d.states[i], d.copies[i], d.bytes);
    while (tg_bench_advance(&d, 2))
        continue;
    assert_memory_equal(y, d.y, n * sizeof *y);
    tg_free(y);
    tg_bench_decode_close(&d);
    tg_bench_close(&t);
}

/* What convert promises users about memory is what decode takes. */
static void test_state_size(void **state)
{
    const struct tg_bench_pair *p = *state;
    struct tg_bench t = tg_bench_open(p);
    tg_bench_settle(&t, p->shape);
    for (size_t capacity = 1; capacity <= 1000; capacity += 333)
        assert_int_equal(t.ops->state_floats(&t.m, capacity),
                         t.spec.mixer->state_floats(&t.spec) +
                             capacity * t.spec.mixer->kv_floats_per_token(&t.spec));
    tg_bench_close(&t);
}

/* First values of a parameter, by its name */
static double first_value(const struct tg_bench *t, size_t rule, size_t i)
{
    const struct tg_param_rule *r = &t->spec.mixer->params[rule];
    const char *mixer = t->spec.mixer->name;
    size_t K = t->spec.head_dim, F = t->spec.feature_dim;
    if (r->flags & TG_PARAM_IF_MAP)
        return i / F % K == i % F ? 1 : 0;
    if (strcmp(r->name, "gate.bias") == 0)
        return strcmp(mixer, "lizard") == 0 ? 4.6 : strcmp(mixer, "lolcats") == 0 ? 6 : 5;
    if (strcmp(r->name, "sink") == 0)
        return strcmp(mixer, "lizard") == 0 ? 0 : -4;
    if (strcmp(r->name, "alpha") == 0)
        return 1;
    if (strcmp(r->name, "router.bias") == 0)
        return 3;
    if (strcmp(r->name, "decay") == 0)
        return log(15);
    return strcmp(r->name, "window_logit") == 0 ? log(0.1 / 0.9) : 0;
}

/* First values that are neither constants nor copies */
static bool made_of_weights(const struct tg_bench *t, size_t rule)
{
    const char *name = t->spec.mixer->params[rule].name;
    return strstr(name, "latent") || strstr(name, "_up.");
}

static void test_inherit(void **state)
{
    const struct tg_bench_pair *p = *state;
    struct tg_bench t = tg_bench_open(p);
    struct tg_bench soft =
        tg_bench_open(&(struct tg_bench_pair){tg_mixers[0], tg_mixer_schemas[0], p->shape, 0});
    tg_bench_settle(&t, p->shape);
    tg_bench_settle(&soft, p->shape);
    const struct tg_origin origin = {.from = &soft.m, .layer = 1, .layer_count = 4};
    for (size_t rule = 0; rule < t.spec.mixer->param_count; rule++) {
        if (!t.param[rule] || !(t.spec.mixer->params[rule].flags & TG_PARAM_NEW) || !t.ops->inherit)
            continue;
        for (size_t i = 0; i < t.count[rule]; i++)
            t.param[rule][i] = NAN;
        t.ops->inherit(&t.m, &origin, rule, t.param[rule], t.count[rule]);
        for (size_t i = 0; i < t.count[rule]; i++)
            if (t.spec.mixer->flags & TG_MIXER_RECURRENT || made_of_weights(&t, rule))
                assert_true(isfinite(t.param[rule][i]));
            else
                assert_below(fabs((double)t.param[rule][i] - first_value(&t, rule, i)), 1e-6,
                             t.spec.mixer->params[rule].name);
    }
    tg_bench_close(&t);
    tg_bench_close(&soft);
}

/* With a window or chunk as long as the text and no sinks, these are the softmax layer. */
static void test_equals_softmax(void **state)
{
    (void)state;
    struct tg_bench_shape s = shapes[SHAPES - 2];
    s.sinks = 0;
    struct tg_bench soft =
        tg_bench_open(&(struct tg_bench_pair){tg_mixers[0], tg_mixer_schemas[0], &s, 0});
    tg_bench_settle(&soft, &s);
    tg_bench_run(&soft, true);
    size_t n = soft.rows * soft.m.width, seen = 0;
    for (size_t i = 1; tg_mixers[i]; i++) {
        if (strcmp(tg_mixers[i]->name, "window") != 0 &&
            strcmp(tg_mixers[i]->name, "gated_window") != 0 &&
            strcmp(tg_mixers[i]->name, "block_causal") != 0)
            continue;
        struct tg_bench t =
            tg_bench_open(&(struct tg_bench_pair){tg_mixers[i], tg_mixer_schemas[i], &s, 0});
        tg_bench_settle(&t, &s);
        tg_bench_run(&t, true);
        assert_below(tg_rel_error_f(t.y, soft.y, n), 1e-6, "forward");
        assert_below(tg_rel_error_f(t.dx, soft.dx, n), 1e-6, "dx");
        tg_bench_close(&t);
        seen++;
    }
    assert_int_equal(seen, 3);
    tg_bench_close(&soft);
}

static void test_registry(void **state)
{
    (void)state;
    size_t n = 0;
    for (; tg_mixer_schemas[n]; n++) {
        assert_non_null(tg_mixers[n]);
        assert_string_equal(tg_mixers[n]->name, tg_mixer_schemas[n]->name);
        assert_ptr_equal(tg_mixer_find(tg_mixer_schemas[n]), tg_mixers[n]);
    }
    assert_null(tg_mixers[n]);
    assert_null(tg_mixer_find(NULL));
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } kinds[] = {
        {"reference", test_reference}, {"threads", test_threads},   {"causal", test_causal},
        {"decode", test_decode},       {"snapshot", test_snapshot}, {"state size", test_state_size},
        {"inherit", test_inherit},
    };
    enum { KINDS = sizeof kinds / sizeof *kinds, NAME = 64 };
    size_t mixers = 0, n = 0;
    tg_gemm_init();
    while (tg_mixers[mixers])
        mixers++;
    size_t limit = mixers * SHAPES * KINDS + 2;
    struct CMUnitTest *tests = tg_alloc_array(limit, sizeof *tests);
    struct tg_bench_pair *pairs = tg_alloc_array(mixers * SHAPES, sizeof *pairs);
    char *names = tg_alloc_array(limit, NAME);
    if (!tests || !pairs || !names)
        return 1;
    tests[n++] = (struct CMUnitTest){"registry", test_registry, NULL, NULL, NULL};
    tests[n++] = (struct CMUnitTest){"equals softmax", test_equals_softmax, NULL, NULL, NULL};
    for (size_t i = 0; i < mixers * SHAPES; i++) {
        pairs[i] = (struct tg_bench_pair){tg_mixers[i / SHAPES], tg_mixer_schemas[i / SHAPES],
                                          &shapes[i % SHAPES], i % SHAPES};
        for (size_t k = 0; k < KINDS; k++, n++) {
            snprintf(names + n * NAME, NAME, "%s, %s: %s", pairs[i].ops->name, pairs[i].shape->name,
                     kinds[k].name);
            tests[n] = (struct CMUnitTest){names + n * NAME, kinds[k].run, NULL, NULL, &pairs[i]};
        }
    }
    int status = tg_run_tests("mixers", tests, n);
    tg_free(tests);
    tg_free(pairs);
    tg_free(names);
    return status;
}
