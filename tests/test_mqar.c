/* Associative recall from scratch: the generator's promises one by one and its distribution against
 * the definition, random starts, and training that learns the task, the same bits on any number of
 * threads. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "distill/mqar.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"
#include "tests/small_model.h"

enum { SEED = 5 };

static void open_task(struct tg_mqar *q, size_t vocab, size_t length, size_t pairs)
{
    struct tg_err err = {0};
    tg_test_must(tg_mqar_init(q, vocab, length, pairs, &err), &err);
}

/* Everything that mqar.h says of one example of K pairs */
static void check_example(const struct tg_mqar *q, size_t K, const int32_t *ids,
                          const int32_t *labels)
{
    size_t asked = 0;
    int32_t half = (int32_t)(q->vocab / 2);
    for (size_t i = 0; i < K; i++) {
        assert_true(ids[2 * i] >= 1 && ids[2 * i] < half);
        assert_true(ids[2 * i + 1] >= half && ids[2 * i + 1] < (int32_t)q->vocab);
        for (size_t j = 0; j < i; j++)
            assert_true(ids[2 * i] != ids[2 * j] && ids[2 * i + 1] != ids[2 * j + 1]);
    }
    for (size_t t = 0; t < q->length; t++) {
        size_t pair = 0;
        while (pair < 2 * K && ids[2 * K - 1 - pair] != ids[t])
            pair++;
        pair = pair < 2 * K ? (2 * K - 1 - pair) / 2 : K;
        assert_true(ids[t] >= 0 && ids[t] < (int32_t)q->vocab);
        if (labels[t] < 0) {
            assert_true(labels[t] == -1 && (t < 2 * K || pair == K));
            continue;
        }
        assert_true(t >= 2 * K && t % 2 == 0 && pair < K);
        assert_int_equal(ids[t], ids[2 * pair]);
        assert_int_equal(labels[t], ids[2 * pair + 1]);
        for (size_t u = 2 * K; u < t; u++)
            assert_true(ids[u] != ids[t]);
        asked++;
    }
    assert_int_equal(asked, K);
}

static void test_examples(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{64, 64, 8}, {8192, 64, 4},   {18, 33, 8},   {4, 4, 1},
                                       {5, 7, 1},   {1000, 256, 64}, {128, 128, 31}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct tg_mqar q;
        int32_t ids[256], labels[256], again[256], again_labels[256];
        open_task(&q, shapes[s][0], shapes[s][1], shapes[s][2]);
        size_t bytes = q.length * sizeof *ids, same = 0;
        for (uint64_t i = 0; i < 200; i++) {
            size_t fewer = 1 + i % q.pairs;
            tg_mqar_make(&q, SEED, i, fewer, ids, labels);
            check_example(&q, fewer, ids, labels);
            tg_mqar_make(&q, SEED, i, q.pairs, ids, labels);
            check_example(&q, q.pairs, ids, labels);
            tg_mqar_make(&q, SEED, i + 1, q.pairs, again, again_labels);
            same += !memcmp(ids, again, bytes);
            tg_mqar_make(&q, SEED, i, q.pairs, again, again_labels);
            assert_memory_equal(ids, again, bytes);
            assert_memory_equal(labels, again_labels, bytes);
        }
        assert_true(same < (q.pairs > 1 ? 1 : 120)); /* one pair of four tokens has few texts */
        tg_mqar_release(&q);
    }
    assert_true(tg_mqar_seed(SEED, TG_MQAR_TRAIN) != tg_mqar_seed(SEED, TG_MQAR_TEST));
    assert_true(tg_mqar_seed(SEED, TG_MQAR_CHECK) != tg_mqar_seed(SEED, TG_MQAR_TEST));
}

/* Pairs of training's examples as the steps pass */
static void test_fewest(void **state)
{
    (void)state;
    static const struct {
        size_t pairs, fewest, steps, at[6];
    } all[] = {{32, 4, 6, {4, 8, 16, 32, 32, 32}},
               {12, 2, 6, {2, 4, 8, 12, 12, 12}},
               {8, 8, 6, {8, 8, 8, 8, 8, 8}},
               {7, 3, 6, {3, 3, 6, 7, 7, 7}},
               {32, 4, 2, {4, 32}},
               {4, 1, 1, {1}},
               {4, 3, 2, {3, 4}}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct tg_mqar q;
        open_task(&q, 128, 128, all[i].pairs);
        for (uint64_t n = 0; n < all[i].steps; n++)
            assert_int_equal(tg_mqar_pairs_at(&q, all[i].fewest, n, all[i].steps), all[i].at[n]);
        tg_mqar_release(&q);
    }
}

/* Where the first and the second key are asked: p_i = w_i / sum w, then p_j / (1 - p_i) of the
 * rest, w_i = i^-0.99 */
static void test_gaps(void **state)
{
    (void)state;
    enum { DRAWS = 40000, SLOTS = 6 };
    struct tg_mqar q;
    int32_t ids[4 + 2 * SLOTS], labels[4 + 2 * SLOTS];
    double p[SLOTS], sum = 0, seen[2][SLOTS] = {{0}};
    open_task(&q, 64, 4 + 2 * SLOTS, 2);
    for (size_t i = 0; i < SLOTS; i++)
        sum += p[i] = pow((double)(i + 1), -0.99);
    for (uint64_t n = 0; n < DRAWS; n++) {
        tg_mqar_make(&q, SEED, n, 2, ids, labels);
        for (size_t i = 0; i < SLOTS; i++)
            for (size_t key = 0; key < 2; key++)
                seen[key][i] += ids[4 + 2 * i] == ids[2 * key];
    }
    for (size_t i = 0; i < SLOTS; i++) {
        double first = p[i] / sum, second = 0;
        for (size_t j = 0; j < SLOTS; j++)
            if (j != i)
                second += p[j] / sum * p[i] / (sum - p[j]);
        /* a deviation of 4.5 of a share's own */
        assert_below(fabs(seen[0][i] / DRAWS - first), 4.5 * sqrt(first / DRAWS), "first gap");
        assert_below(fabs(seen[1][i] / DRAWS - second), 4.5 * sqrt(second / DRAWS), "second gap");
    }
    tg_mqar_release(&q);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        size_t vocab, length, pairs;
        const char *says;
    } bad[] = {
        {64, 64, 0, "0 pairs must be in [1, 16]"},
        {64, 64, 17, "17 pairs must be in [1, 16]"},
        {16, 64, 8, "a vocabulary of 16 has no 8 keys"},
        {(size_t)1 << 32, 64, 8, "a vocabulary of 4294967296"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tg_mqar q;
        struct tg_err err = {0};
        assert_int_equal(tg_mqar_init(&q, bad[i].vocab, bad[i].length, bad[i].pairs, &err),
                         TG_ERR_VALUE);
        assert_non_null(strstr(err.msg, bad[i].says));
    }
    for (long n = 1; n <= 3; n++) {
        struct tg_mqar q;
        struct tg_err err = {0};
        tg_mem_fail_after(n);
        assert_int_equal(tg_mqar_init(&q, 64, 64, 8, &err), TG_ERR_NOMEM);
        tg_mem_fail_after(0);
        assert_null(q.order);
    }
}

/* One-layer models whose layers hold a mixer and nothing else */
static void base_spec(struct tg_layer_spec *layer, size_t layers, struct tg_model_spec *spec)
{
    for (size_t l = 0; l < layers; l++)
        layer[l] = (struct tg_layer_spec){.mixer = tg_mixer_schema_find("softmax"),
                                          .heads = 2,
                                          .kv_heads = 2,
                                          .head_dim = 16,
                                          .rotary_dim = 16,
                                          .attn_scale = 0.25,
                                          .mlp_kind = TG_MLP_NONE};
    *spec = (struct tg_model_spec){.family = "tegu",
                                   .base_family = "llama",
                                   .vocab = 16,
                                   .width = 32,
                                   .norm.eps = 1e-6,
                                   .ropes = {{.theta = 10000}},
                                   .bos_id = -1,
                                   .layer_count = layers,
                                   .layers = layer};
}
static const double SIZE = 0.05; /* not what surgery gives new parameters */

static struct tg_model *start(const char *mixer, int threads, uint64_t seed)
{
    struct tg_layer_spec layers[2];
    struct tg_model_spec spec;
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = threads};
    struct tg_plan plan = {0};
    struct tg_plan_options o = {.mixer = mixer, .keep = "none", .sinks = -1};
    struct tg_err err = {0};
    struct tg_model *m;
    base_spec(layers, 2, &spec);
    if (mixer)
        tg_test_must(tg_plan_make(&plan, &spec, &o, NULL, &err), &err);
    tg_test_must(tg_surgery_random(&spec, mixer ? &plan : NULL, &ctx, SIZE, seed, &m, &err), &err);
    tg_plan_release(&plan);
    return m;
}

static void test_random_softmax(void **state)
{
    (void)state;
    struct tg_model *m = start(NULL, 1, SEED), *same = start(NULL, 1, SEED),
                    *other = start(NULL, 1, SEED + 1);
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        const float *w = m->data + p->offset;
        double sum = 0, square = 0, n = (double)p->count;
        for (size_t j = 0; j < p->count; j++) {
            sum += w[j];
            square += (double)w[j] * w[j];
        }
        if (strstr(p->name, "norm")) {
            assert_true(sum == n && square == n);
            continue;
        }
        /* 5 deviations of the mean and of the mean square */
        assert_below(fabs(sum / n), 5 * SIZE / sqrt(n), p->name);
        assert_below(fabs(square / n / (SIZE * SIZE) - 1), 5 * sqrt(2 / n), p->name);
        assert_true(memcmp(w, other->data + p->offset, p->count * sizeof *w) != 0);
    }
    assert_memory_equal(m->data, same->data, m->params.floats * sizeof(float));
    tg_model_free(m);
    tg_model_free(same);
    tg_model_free(other);
}

/* A random start of every mixer that a plan can give: finite, its own for every seed, short
 * convolutions uniform, and the choice among partitions as large as the other weights. */
static void test_random_mixers(void **state)
{
    (void)state;
    size_t partitions = 0, short_convs = 0;
    for (size_t s = 0; tg_mixer_schemas[s]; s++) {
        const struct tg_mixer_schema *schema = tg_mixer_schemas[s];
        if (!(schema->flags & TG_MIXER_PLAN))
            continue;
        struct tg_model *m = start(schema->name, 1, SEED), *same = start(schema->name, 1, SEED);
        assert_memory_equal(m->data, same->data, m->params.floats * sizeof(float));
        for (size_t i = 0; i < m->params.count; i++) {
            const struct tg_param *p = &m->params.items[i];
            const float *w = m->data + p->offset;
            size_t rule = 0, taps = (size_t)p->shape[1], up = 0;
            double square = 0;
            for (size_t j = 0; j < p->count; j++)
                assert_true(isfinite(w[j]));
            while (p->is_mixer && strcmp(schema->params[rule].name, p->local) != 0)
                rule++;
            if (!p->is_mixer)
                continue;
            const enum tg_dim *shape = schema->params[rule].shape;
            if (shape[0] == TG_DIM_PARTITIONS) {
                for (size_t j = 0; j < p->count; j++)
                    square += (double)w[j] * w[j] / (SIZE * SIZE);
                assert_below(fabs(square / (double)p->count - 1), 5 * sqrt(2 / (double)p->count),
                             p->name);
                partitions++;
            }
            if (shape[1] != TG_DIM_TAPS && shape[1] != TG_DIM_KV_TAPS)
                continue;
            short_convs++;
            for (size_t j = 0; j < p->count; j++) {
                assert_true(fabs((double)w[j]) <= 1 / sqrt((double)taps));
                up += w[j] > 0;
                square += (double)w[j] * w[j] * (double)taps;
            }
            /* mean square of a uniform variable in [-1, 1]: 1/3, its deviation 0.298 / sqrt(n) */
            assert_below(fabs(square / (double)p->count - 1.0 / 3), 1.5 / sqrt((double)p->count),
                         p->name);
            assert_true(up > p->count / 3 && up < p->count * 2 / 3);
        }
        tg_model_free(m);
        tg_model_free(same);
    }
    /* of two layers each: sse, sse_deltanet; seven mixers at least, hyena_se of two kinds */
    assert_int_equal(partitions, 4);
    assert_true(short_convs >= 16);
}

/* Loss of examples 0.. of a stream and share of their questions that m answers, from its logits */
static double recount(const struct tg_model *m, struct tg_mqar *q, enum tg_mqar_use use,
                      size_t examples, size_t pairs, double *accuracy)
{
    enum { T = 16, N = 16 };
    struct tg_run *r;
    struct tg_err err = {0};
    size_t begin[2] = {0, T}, right = 0, asked = 0;
    struct tg_batch b = {1, begin, NULL};
    int32_t ids[T], labels[T];
    float hidden[T * 32], logits[T * N];
    double loss = 0;
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, m, &b, false, &err), &err);
    for (uint64_t i = 0; i < examples; i++) {
        tg_mqar_make(q, tg_mqar_seed(SEED, use), i, pairs, ids, labels);
        asked += pairs;
        tg_model_forward(m, r, ids, &b, hidden, false, NULL);
        tg_model_logits(m, hidden, T, logits);
        for (size_t t = 0; t < T; t++) {
            const float *row = logits + t * N;
            size_t best = 0;
            double sum = 0;
            if (labels[t] < 0)
                continue;
            for (size_t n = 0; n < N; n++) {
                best = row[n] > row[best] ? n : best;
                sum += exp((double)row[n]);
            }
            right += labels[t] == (int32_t)best;
            loss += log(sum) - row[labels[t]];
        }
    }
    tg_run_free(r);
    *accuracy = (double)right / (double)asked;
    return loss / (double)asked;
}

static void test_numbers(void **state)
{
    (void)state;
    enum { EXAMPLES = 300 }; /* more than one micro-batch */
    struct tg_mqar q;
    struct tg_mqar_settings set = {
        .batch = EXAMPLES, .lr = 1e-3, .enough = 2, .examples = EXAMPLES, .seed = SEED};
    struct tg_mqar_result result;
    struct tg_err err = {0};
    struct tg_model *m = start(NULL, 1, SEED);
    double accuracy, loss;
    open_task(&q, 16, 16, 2);
    tg_test_must(tg_mqar_train(m, &q, &set, "test", &result, NULL, &err), &err);
    assert_int_equal(result.steps, 0);
    recount(m, &q, TG_MQAR_TEST, EXAMPLES, 2, &accuracy);
    assert_true(accuracy > 0 && result.accuracy == accuracy);
    for (size_t n = 0; n < m->params.floats; n++) /* losses that differ from example to example */
        m->data[n] *= 10;
    set.steps = 1;
    for (set.fewest = 0; set.fewest < 2; set.fewest++) {
        loss = recount(m, &q, TG_MQAR_TRAIN, EXAMPLES, set.fewest ? 1 : 2, &accuracy);
        tg_test_must(tg_mqar_train(m, &q, &set, "test", &result, NULL, &err), &err);
        assert_below(fabs(result.loss / loss - 1), 1e-6, "loss of the first step");
    }
    tg_model_free(m);
    tg_mqar_release(&q);
}

/* Batches that are no multiple of a micro-batch, on one to three threads */
static void test_training(void **state)
{
    (void)state;
    struct tg_mqar q;
    struct tg_mqar_settings set = {.steps = 4,
                                   .batch = 67,
                                   .lr = 1e-2,
                                   .decay = 0.1,
                                   .enough = 2,
                                   .examples = 90,
                                   .seed = SEED};
    struct tg_mqar_result first = {0}, result;
    struct tg_model *one = NULL;
    open_task(&q, 16, 128, 2);
    for (int threads = 1; threads <= 3; threads++) {
        struct tg_err err = {0};
        struct tg_model *m = start("gated_window", threads, SEED);
        tg_test_must(tg_mqar_train(m, &q, &set, "test", &result, NULL, &err), &err);
        if (one) {
            assert_memory_equal(m->data, one->data, m->params.floats * sizeof(float));
            assert_true(result.loss == first.loss && result.accuracy == first.accuracy);
            tg_model_free(m);
            continue;
        }
        one = m;
        first = result;
        assert_int_equal(result.steps, 4);
    }
    tg_model_free(one);
    tg_mqar_release(&q);
}

static int stop_at_once(void *ud, const char *phase, uint64_t done, uint64_t total,
                        const char *unit, const char *note)
{
    (void)ud, (void)phase, (void)done, (void)total, (void)unit, (void)note;
    return 1;
}

static void test_ends(void **state)
{
    (void)state;
    struct tg_mqar q;
    struct tg_mqar_settings set = {
        .steps = 1000, .batch = 64, .lr = 3e-3, .enough = 0.97, .examples = 256, .seed = SEED};
    struct tg_mqar_result result;
    struct tg_progress progress = {stop_at_once, NULL};
    struct tg_err err = {0};
    struct tg_model *m = start(NULL, 2, SEED);
    open_task(&q, 16, 16, 2);
    assert_int_equal(tg_mqar_train(m, &q, &set, "test", &result, &progress, &err),
                     TG_ERR_INTERRUPTED);
    assert_int_equal(result.steps, 1);
    set.lr = 1e30;
    assert_int_equal(tg_mqar_train(m, &q, &set, "test", &result, NULL, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "not finite"));
    tg_model_free(m);
    m = start(NULL, 2, SEED);
    set.lr = 3e-3;
    tg_test_must(tg_mqar_train(m, &q, &set, "test", &result, NULL, &err), &err);
    assert_true(result.steps < 1000 && result.steps % 100 == 0);
    assert_true(result.accuracy > 0.9); /* guessing among the two values: 0.5 */
    tg_model_free(m);
    tg_mqar_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),       cmocka_unit_test(test_fewest),
        cmocka_unit_test(test_gaps),           cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random_softmax), cmocka_unit_test(test_random_mixers),
        cmocka_unit_test(test_numbers),        cmocka_unit_test(test_training),
        cmocka_unit_test(test_ends),
    };
    return tg_run_tests("mqar", tests, sizeof tests / sizeof *tests);
}
