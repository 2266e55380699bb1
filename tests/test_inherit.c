/* What a Mamba-2 layer begins with in place of softmax: rows that are the teacher's bit for bit,
 * decays that look as far back as its heads, and an output that resembles its layer's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"
#include "tests/small_model.h"

enum { D = 48, H = 4, K = 12, T = 48, TEXTS = 4, ROWS = T * TEXTS };

/* A teacher of one softmax layer */
struct shape {
    size_t G, groups; /* kv heads; groups of B and C, 0: as the row takes them */
    enum tg_qk_norm norm;
    bool bias, gate;
    size_t copies; /* of each head, 0: one */
    bool bare;     /* no biases in the new layer's projections */
};
struct pair {
    struct tg_model *teacher, *student;
    struct tg_mixer from, to;
};

static void fill(struct tg_model *m)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_rng rng = tg_rng_make(3, i);
        const bool bias = strstr(p->name, "bias") != NULL, norm = strstr(p->name, "norm") != NULL;
        const double size = norm || bias ? 0.2 : 1 / sqrt((double)p->shape[1]);
        for (size_t j = 0; j < p->count; j++)
            m->data[p->offset + j] = (float)((norm && !bias) + size * tg_rng_normal(&rng));
    }
}

static struct tg_model_spec spec_of(const struct shape *s, struct tg_layer_spec *layer)
{
    struct tg_model_spec spec = {.vocab = 8,
                                 .width = D,
                                 .norm.eps = 1e-6,
                                 .tied_head = true,
                                 .ropes = {{.theta = 10000}},
                                 .bos_id = -1,
                                 .layer_count = 1,
                                 .layers = layer};
    *layer = (struct tg_layer_spec){.mixer = tg_mixer_schema_find("softmax"),
                                    .heads = H,
                                    .kv_heads = s->G,
                                    .head_dim = K,
                                    .rotary_dim = K,
                                    .qkv_bias = s->bias,
                                    .o_bias = s->bias,
                                    .qk_norm = s->norm,
                                    .output_gate = s->gate,
                                    .attn_scale = 1 / sqrt(K),
                                    .mlp_dim = 16};
    snprintf(spec.family, sizeof spec.family, "llama");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    return spec;
}

/* The new layer's parameters, as surgery asks for them */
static void inherit(struct pair *p, const struct tg_attention_stats *stats)
{
    const struct tg_origin o = {.from = &p->from, .layer_count = 1, .stats = stats};
    for (size_t i = 0; i < p->to.spec->mixer->param_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "layers.0.mixer.%s", p->to.spec->mixer->params[i].name);
        const struct tg_param *q = tg_params_find(&p->student->params, name);
        if (!q)
            continue;
        tg_mixer_find(p->to.spec->mixer)
            ->inherit(&p->to, &o, i, p->student->data + q->offset, q->count);
    }
}

static struct pair open_pair(const struct shape *s, const struct tg_attention_stats *stats)
{
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    struct tg_layer_spec layer;
    struct tg_model_spec spec = spec_of(s, &layer);
    struct tg_err err = {0};
    struct pair p = {NULL};
    tg_test_must(tg_model_create(&p.teacher, &spec, &ctx, &err), &err);
    tg_test_must(tg_model_reserve(p.teacher, T, &err), &err);
    fill(p.teacher);
    layer.mixer = tg_mixer_schema_find("mamba2");
    layer.recurrent.groups = s->groups;
    layer.recurrent.inner = s->copies * H * K;
    layer.mixer->adopt(&layer);
    layer.recurrent.proj_bias = layer.recurrent.out_bias = !s->bare;
    tg_test_must(tg_model_create(&p.student, &spec, &ctx, &err), &err);
    tg_model_mixer(p.teacher, 0, p.teacher->data, NULL, &p.from);
    tg_model_mixer(p.student, 0, p.student->data, NULL, &p.to);
    inherit(&p, stats);
    return p;
}

static void close_pair(struct pair *p)
{
    tg_model_free(p->student);
    tg_model_free(p->teacher);
}

static float *floats(size_t n)
{
    float *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

static void forward(const struct pair *p, const struct tg_mixer *m, const float *x, float *y)
{
    const struct tg_mixer_ops *ops = tg_mixer_find(m->spec->mixer);
    size_t begin[TEXTS + 1];
    for (size_t i = 0; i <= TEXTS; i++)
        begin[i] = i * T;
    const struct tg_batch b = {TEXTS, begin, NULL};
    float *work = floats(ops->work_floats(m, &b, 1, false));
    ops->forward(&p->teacher->ctx, m, &b, x, y, NULL, work);
    tg_free(work);
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Rows [ROWS, D] of mean square 1, as a norm makes them */
static float *inputs(void)
{
    struct tg_rng rng = tg_rng_make(9, 1);
    float *x = floats(ROWS * D);
    for (size_t i = 0; i < ROWS * D; i++)
        x[i] = (float)tg_rng_normal(&rng);
    for (size_t i = 0; i < ROWS; i++) {
        const float r = (float)sqrt(D / dot(x + i * D, x + i * D, D));
        for (size_t c = 0; c < D; c++)
            x[i * D + c] *= r;
    }
    return x;
}

static double correlation(const float *a, const float *b)
{
    enum { N = ROWS * D };
    return dot(a, b, N) / sqrt(dot(a, a, N) * dot(b, b, N));
}

/* Of the new layer's output with the teacher's; the size over the teacher's */
static double resemblance(const struct pair *p, double *size)
{
    float *x = inputs(), *want = floats(ROWS * D), *got = floats(ROWS * D);
    forward(p, &p->from, x, want);
    forward(p, &p->to, x, got);
    for (size_t i = 0; i < ROWS * D; i++)
        assert_true(isfinite(got[i]));
    const double same = correlation(got, want);
    *size = sqrt(dot(got, got, ROWS * D) / dot(want, want, ROWS * D));
    tg_free(x);
    tg_free(want);
    tg_free(got);
    return same;
}

#define PLAIN 1, false
static const struct shape shapes[] = {
    {4, 0, TG_QK_NONE, false, false, PLAIN},    {2, 0, TG_QK_NONE, false, false, PLAIN},
    {1, 0, TG_QK_NONE, true, false, PLAIN},     {4, 1, TG_QK_NONE, true, false, PLAIN},
    {2, 4, TG_QK_NONE, false, false, PLAIN},    {2, 0, TG_QK_HEAD, true, false, PLAIN},
    {2, 0, TG_QK_EACH, false, false, PLAIN},    {1, 2, TG_QK_WIDE, true, false, PLAIN},
    {2, 0, TG_QK_NONE, false, true, PLAIN},     {4, 0, TG_QK_HEAD, true, true, PLAIN},
    {2, 1, TG_QK_NONE, false, false, 2, false}, {2, 4, TG_QK_WIDE, true, true, 3, false},
};
#undef PLAIN
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Random queries and keys attend to all earlier tokens nearly alike. Scores of variance 1 give
 * softmax weights whose mean square is e times the square of their mean, so the plain mean of the
 * values, which is all that a layer without scores could give, has a correlation of e^-1/2 = 0.61
 * with the output. Half of it is asked where the look-back is known; where it is guessed, from one
 * token to a thousand, half of that, for it suits about half of the heads. */
static void test_output(void **state)
{
    double distance[H], entropy[H], size;
    const struct tg_attention_stats known = {.distance = distance, .entropy = entropy},
                                    *const stats[2] = {&known, NULL};
    (void)state;
    for (size_t h = 0; h < H; h++) {
        distance[h] = (T - 1) / 4.0;
        entropy[h] = 0;
        for (size_t t = 1; t <= T; t++)
            entropy[h] += log((double)t) / T;
    }
    for (size_t i = 0; i < 2 * SHAPES; i++) {
        struct pair p = open_pair(&shapes[i / 2], stats[i % 2]);
        const double same = resemblance(&p, &size);
        if (getenv("TG_TEST_VERBOSE"))
            printf("shape %zu, look-back %s: correlation %.3f, size %.2f\n", i / 2,
                   i % 2 ? "guessed" : "known", same, size);
        if (!(same > (i % 2 ? 0.15 : 0.3)) || !(size > 0.25 && size < 4))
            fail_msg("shape %zu, look-back %s: correlation %.3f, size %.2f", i / 2,
                     i % 2 ? "guessed" : "known", same, size);
        close_pair(&p);
    }
}

/* y [ROWS, n] = x W^T */
static float *project(const struct tg_mixer *m, const char *name, const float *x, size_t n)
{
    const float *w = tg_mixer_param(m, name);
    float *y = floats(ROWS * n);
    for (size_t i = 0; i < ROWS * n; i++)
        y[i] = (float)dot(x + i / n * D, w + i % n * D, D);
    return y;
}

/* o of token t of the text at `row`, head h: what mamba2_inherit.c says that the layer begins as */
static void first_order(const float *q, const float *k, const float *v, size_t row, size_t t,
                        size_t h, double look_back, double *o)
{
    const size_t n = H * K;
    memset(o, 0, K * sizeof *o);
    for (size_t j = 0; j <= t; j++) {
        const float *qt = q + (row + t) * n + h * K, *kj = k + (row + j) * n + h * K;
        const double score = dot(qt + 1, kj + 1, K - 1) / sqrt(K);
        const double weight = pow(1 - 1 / look_back, (double)(t - j)) * (1 + score) / look_back;
        for (size_t c = 0; c < K; c++)
            o[c] += weight * (double)v[(row + j) * n + h * K + c];
    }
}

/* Against the sum that the start stands for, at scores below the limit. Silu bends B and C by a
 * quarter of their typical size: that much noise in scores that are half of the sum. */
static void test_first_order(void **state)
{
    enum { N = H * K };
    double distance[H] = {2, 6, 12, 30}, entropy[H] = {1, 2, 3, 3}, o[N];
    const struct tg_attention_stats stats = {.distance = distance, .entropy = entropy};
    (void)state;
    struct pair p = open_pair(&(struct shape){.G = H}, NULL);
    float *w = (float *)(uintptr_t)tg_mixer_param(&p.from, "q.weight");
    for (size_t i = 0; i < N * D; i++)
        w[i] *= 0.7F;
    inherit(&p, &stats);
    float *x = inputs(), *got = floats(ROWS * D), *want = floats(ROWS * D);
    float *q = project(&p.from, "q.weight", x, N), *k = project(&p.from, "k.weight", x, N),
          *v = project(&p.from, "v.weight", x, N);
    forward(&p, &p.to, x, got);
    for (size_t row = 0; row < ROWS; row++) {
        double square = 0;
        for (size_t h = 0; h < H; h++)
            first_order(q, k, v, row / T * T, row % T, h, 1 + distance[h], o + h * K);
        for (size_t c = 0; c < N; c++)
            square += o[c] * o[c];
        for (size_t i = 0; i < D; i++)
            for (size_t c = 0; c < N; c++)
                want[row * D + i] +=
                    (float)(o[c] / sqrt(square)) * tg_mixer_param(&p.from, "o.weight")[i * N + c];
    }
    const double same = correlation(got, want);
    if (getenv("TG_TEST_VERBOSE"))
        printf("first order: correlation %.4f\n", same);
    assert_true(same > 0.95);
    float *used[] = {x, got, want, q, k, v};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
    close_pair(&p);
}

static void assert_rows(const float *got, const float *want, size_t rows, size_t width)
{
    assert_memory_equal(got, want, rows * width * sizeof *got);
}

/* Without norms and with a group for each head, all of the teacher's rows are there but those of
 * the constant's channel. */
static void test_rows(void **state)
{
    (void)state;
    for (size_t G = 1; G <= H; G *= 2) {
        struct pair p = open_pair(&(struct shape){.G = G, .groups = H, .bias = true}, NULL);
        const float *w = tg_mixer_param(&p.to, "in.weight"), *b = tg_mixer_param(&p.to, "in.bias");
        enum { I = H * K };
        for (size_t h = 0; h < H; h++) {
            const size_t kv = h / (H / G) * K, at = I + h * K;
            assert_rows(w + at * D, tg_mixer_param(&p.from, "v.weight") + kv * D, K, D);
            assert_rows(b + at, tg_mixer_param(&p.from, "v.bias") + kv, K, 1);
            assert_rows(w + (at + I + 1) * D, tg_mixer_param(&p.from, "k.weight") + (kv + 1) * D,
                        K - 1, D);
            assert_rows(w + (at + 2 * I + 1) * D,
                        tg_mixer_param(&p.from, "q.weight") + (h * K + 1) * D, K - 1, D);
            assert_rows(b + at + 2 * I + 1, tg_mixer_param(&p.from, "q.bias") + h * K + 1, K - 1,
                        1);
            for (size_t c = 0; c < K; c++)
                assert_true(b[at + I + c] == 0 && b[h * K + c] == 4);
            for (size_t c = 0; c < D; c++)
                assert_true(w[(at + I) * D + c] == 0 && w[(at + 2 * I) * D + c] == 0);
        }
        for (size_t c = 0; c < H * D; c++)
            assert_true(w[4 * I * D + c] == 0);
        assert_rows(tg_mixer_param(&p.to, "out.weight"), tg_mixer_param(&p.from, "o.weight"), D, I);
        assert_rows(tg_mixer_param(&p.to, "out.bias"), tg_mixer_param(&p.from, "o.bias"), D, 1);
        close_pair(&p);
    }
}

/* A group that serves two query heads has their mean; one for two kv heads has theirs. */
static void test_means(void **state)
{
    (void)state;
    struct pair p = open_pair(&(struct shape){.G = 4, .groups = 2}, NULL);
    enum { I = H * K, BC = 2 * K };
    const float *w = tg_mixer_param(&p.to, "in.weight");
    const float *k = tg_mixer_param(&p.from, "k.weight"), *q = tg_mixer_param(&p.from, "q.weight");
    for (size_t g = 0; g < 2; g++)
        for (size_t c = 1; c < K; c++)
            for (size_t i = 0; i < D; i++) {
                const size_t a = (2 * g * K + c) * D + i, b = a + K * D;
                const float *B = w + (2 * I + g * K + c) * D + i;
                assert_true(B[0] == (k[a] + k[b]) / 2);
                assert_true(B[BC * D] == (q[a] + q[b]) / 2);
            }
    close_pair(&p);
}

/* Per head a decay e^g with 1 / (1 - e^g) = 1 + distance, and without measurements rates from slow
 * to fast */
static void test_decays(void **state)
{
    double distance[H] = {0.5, 3, 40, 2000}, entropy[H] = {0.1, 1, 2, 5};
    const struct tg_attention_stats stats = {.distance = distance, .entropy = entropy};
    double last = 1e-3;
    (void)state;
    struct pair p = open_pair(&shapes[0], &stats);
    const float *A = tg_mixer_param(&p.to, "A_log"), *bias = tg_mixer_param(&p.to, "dt_bias");
    for (size_t h = 0; h < H; h++) {
        const double rate = exp((double)A[h]) * log1p(exp((double)bias[h]));
        assert_below(fabs(-1 / expm1(-rate) / (1 + distance[h]) - 1), 1e-5, "look-back");
    }
    inherit(&p, NULL);
    for (size_t h = 0; h < H; h++) {
        const double rate = exp((double)A[h]) * log1p(exp((double)bias[h]));
        assert_true(rate > last && rate < 1.6);
        last = rate;
    }
    close_pair(&p);
}

/* Copies of a head: x from the same rows, a share of the same columns, and looks back around its
 * own with a factor of 4 between them. */
static void test_copies(void **state)
{
    enum { TIMES = 2, I = TIMES * H * K };
    double distance[H] = {1, 3, 40, 2000}, entropy[H] = {0.1, 1, 2, 5};
    const struct tg_attention_stats stats = {.distance = distance, .entropy = entropy};
    (void)state;
    struct pair p = open_pair(&(struct shape){.G = 2, .groups = 1, .copies = TIMES}, &stats);
    const float *w = tg_mixer_param(&p.to, "in.weight"), *v = tg_mixer_param(&p.from, "v.weight");
    const float *out = tg_mixer_param(&p.to, "out.weight"),
                *o = tg_mixer_param(&p.from, "o.weight");
    const float *A = tg_mixer_param(&p.to, "A_log"), *bias = tg_mixer_param(&p.to, "dt_bias");
    for (size_t h = 0; h < TIMES * H; h++) {
        const double rate = exp((double)A[h]) * log1p(exp((double)bias[h]));
        const double want = distance[h / TIMES] * (h % TIMES ? 2 : 0.5);
        assert_below(fabs(-1 / expm1(-rate) / (1 + want) - 1), 1e-5, "look-back of a copy");
        assert_rows(w + (I + h * K) * D, v + h / TIMES / 2 * K * D, K, D);
        for (size_t i = 0; i < D * K; i++)
            assert_true(out[i / K * I + h * K + i % K] ==
                        o[i / K * H * K + h / TIMES * K + i % K] / TIMES);
    }
    close_pair(&p);
}

/* Channel 0 of the inputs is 4 for all tokens. */
static float *constant_inputs(void)
{
    float *x = inputs();
    for (size_t i = 0; i < ROWS; i++) {
        float *row = x + i * D;
        const float r = (float)sqrt((D - 16) / dot(row + 1, row + 1, D - 1));
        for (size_t c = 1; c < D; c++)
            row[c] *= r;
        row[0] = 4;
    }
    return x;
}

/* What a layer with biases begins with, one without has through the inputs' constant; where none
 * was measured it is at least a layer. */
static void test_bare(void **state)
{
    double distance[H] = {2, 6, 12, 30}, entropy[H] = {1, 2, 3, 3}, size;
    float constant[D] = {0.25F};
    const struct tg_attention_stats stats = {
        .distance = distance, .entropy = entropy, .constant = constant};
    (void)state;
    for (int bias = 0; bias < 2; bias++) {
        struct shape s = {.G = 2, .groups = 1, .bias = bias};
        struct pair with = open_pair(&s, &stats), without;
        s.bare = true;
        without = open_pair(&s, &stats);
        const float *w = tg_mixer_param(&with.to, "in.weight"),
                    *b = tg_mixer_param(&with.to, "in.bias"),
                    *bare = tg_mixer_param(&without.to, "in.weight");
        for (size_t i = 0; i < (2 * H * K + 2 * K + H) * D; i++)
            assert_true(bare[i] == w[i] + b[i / D] * constant[i % D]);
        float *x = constant_inputs(), *want = floats(ROWS * D), *got = floats(ROWS * D);
        forward(&with, &with.to, x, want);
        forward(&without, &without.to, x, got);
        for (size_t i = 0; i < ROWS * D; i++) /* out.bias alone is lost */
            want[i] -= tg_mixer_param(&with.to, "out.bias")[i % D];
        if (bias)
            assert_true(correlation(got, want) > 0.95);
        else
            assert_below(tg_rel_error_f(got, want, ROWS * D), 1e-4, "without biases");
        inherit(&without, NULL);
        assert_true(resemblance(&without, &size) > 0 && size > 0.1);
        tg_free(x);
        tg_free(want);
        tg_free(got);
        close_pair(&with);
        close_pair(&without);
    }
}

/* By a plan: the spec that is adopted, and every parameter has a value. */
static void test_surgery(void **state)
{
    static const struct tg_test_shape shape = {2, D, H, 2, K, 32, 40, true, true, true};
    struct tg_plan_options o = {.mixer = "mamba2", .keep = "0", .sinks = -1};
    struct tg_model *t = tg_test_teacher(&shape, 1, 3), *s;
    struct tg_plan plan;
    struct tg_err err = {0};
    (void)state;
    tg_test_must(tg_plan_make(&plan, &t->spec, &o, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(t, &plan, NULL, &s, &err), &err);
    assert_string_equal(s->spec.layers[0].mixer->name, "softmax");
    const struct tg_layer_spec *l = &s->spec.layers[1];
    assert_string_equal(l->mixer->name, "mamba2");
    assert_int_equal(l->heads + l->kv_heads + l->head_dim + l->rotary_dim, 0);
    assert_int_equal(l->recurrent.v_heads, H);
    assert_int_equal(l->recurrent.v_dim, K);
    assert_int_equal(l->recurrent.state, K);
    assert_int_equal(l->recurrent.groups, 2);
    assert_int_equal(l->recurrent.inner, H * K);
    assert_memory_equal(tg_model_param(s, "layers.1.mixer.out.weight"),
                        tg_model_param(t, "layers.1.mixer.o.weight"), D * H * K * sizeof(float));
    for (size_t i = 0; i < s->params.floats; i++)
        assert_true(isfinite(s->data[i]));
    tg_plan_release(&plan);
    tg_model_free(s);
    tg_model_free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output), cmocka_unit_test(test_first_order),
        cmocka_unit_test(test_rows),   cmocka_unit_test(test_means),
        cmocka_unit_test(test_decays), cmocka_unit_test(test_copies),
        cmocka_unit_test(test_bare),   cmocka_unit_test(test_surgery),
    };
    return tg_run_tests("inherit", tests, sizeof tests / sizeof *tests);
}
