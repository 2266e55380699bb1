/* What an RWKV-7 layer begins with in place of softmax, and the layers that the row refuses. That
 * it computes what it should is test_mixers'. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"
#include "tests/small_model.h"

enum { D = 48, H = 4, G = 2, K = 12, T = 48 };

static const double distance[H] = {6, 12, 40, 2000}, entropy[H] = {0.2, 1, 2, 3};

struct pair {
    struct tg_model *teacher, *student;
    struct tg_mixer from, to; /* of layer 1 */
};

static struct pair open_pair(bool measured)
{
    static const struct tg_test_shape shape = {2, D, H, G, K, 32, 40, true, true, true};
    const struct tg_plan_options o = {.mixer = "rwkv7", .keep = "0", .sinks = -1};
    struct tg_attention_stats of[2] = {{.distance = NULL},
                                       {.distance = distance, .entropy = entropy}};
    const struct tg_lookback look = {.layers = 2, .tokens = 1, .of = of};
    struct pair p = {.teacher = tg_test_teacher(&shape, 1, 3)};
    struct tg_plan plan;
    struct tg_err err = {0};
    tg_test_must(tg_plan_make(&plan, &p.teacher->spec, &o, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(p.teacher, &plan, measured ? &look : NULL, &p.student, &err),
                 &err);
    tg_test_must(tg_model_reserve(p.teacher, T, &err), &err);
    tg_model_mixer(p.teacher, 1, p.teacher->data, NULL, &p.from);
    tg_model_mixer(p.student, 1, p.student->data, NULL, &p.to);
    tg_plan_release(&plan);
    return p;
}

static void close_pair(struct pair *p)
{
    tg_model_free(p->student);
    tg_model_free(p->teacher);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* A constant decay f looks back f / (1 - f): the head's distance, spread by 4 each way over its
 * channels. Rates are e^{-entropy / 2}. */
static void test_decays(void **state)
{
    (void)state;
    struct pair p = open_pair(true);
    const float *w0 = tg_mixer_param(&p.to, "w0"), *a0 = tg_mixer_param(&p.to, "a0");
    for (size_t i = 0; i < H * K; i++) {
        const double f = exp(-exp(-0.5) * sigmoid((double)w0[i]));
        const double want = distance[i / K] * pow(16, (double)(i % K) / (K - 1) - 0.5);
        assert_below(fabs(f / (1 - f) / want - 1), 1e-4, "distance");
        assert_below(fabs(sigmoid((double)a0[i]) - exp(-entropy[i / K] / 2)), 1e-6, "rate");
    }
    close_pair(&p);
    p = open_pair(false);
    w0 = tg_mixer_param(&p.to, "w0");
    for (size_t h = 0; h + 1 < H; h++)
        assert_true(w0[h * K] > w0[(h + 1) * K]);
    for (size_t i = 0; i < p.student->params.floats; i++)
        assert_true(isfinite(p.student->data[i]));
    close_pair(&p);
}

/* Keys and values of the kv heads, repeated; all else that softmax has as it is */
static void test_inherited(void **state)
{
    static const struct {
        const char *name;
        size_t n;
    } same[] = {{"q.weight", H * K * D}, {"q.bias", H * K},       {"q_norm.weight", K},
                {"k_norm.weight", K},    {"o.weight", D * H * K}, {"o.bias", D}};
    (void)state;
    struct pair p = open_pair(true);
    for (size_t h = 0; h < H; h++)
        assert_memory_equal(tg_mixer_param(&p.to, "k.weight") + h * K * D,
                            tg_mixer_param(&p.from, "k.weight") + h / (H / G) * K * D,
                            (size_t)K * D * sizeof(float));
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_memory_equal(tg_mixer_param(&p.to, same[i].name),
                            tg_mixer_param(&p.from, same[i].name), same[i].n * sizeof(float));
    close_pair(&p);
}

static float *forward(const struct pair *p, const struct tg_mixer *m, const float *x)
{
    const struct tg_mixer_ops *ops = tg_mixer_find(m->spec->mixer);
    const size_t begin[] = {0, T};
    const struct tg_batch b = {1, begin, NULL};
    float *y = tg_alloc_array((size_t)T * D, sizeof *y);
    float *work = tg_alloc_array(ops->work_floats(m, &b, 1, false), sizeof *work);
    assert_non_null(y);
    assert_non_null(work);
    ops->forward(&p->teacher->ctx, m, &b, x, y, NULL, work);
    tg_free(work);
    return y;
}

/* The gate is open, and outputs have about the size of the teacher's. */
static void test_size(void **state)
{
    const size_t R = K;
    float x[T * D];
    (void)state;
    for (int measured = 0; measured < 2; measured++) {
        struct pair p = open_pair(measured);
        struct tg_rng rng = tg_rng_make(5, 1);
        const float *g1 = tg_mixer_param(&p.to, "g1.weight"),
                    *g2 = tg_mixer_param(&p.to, "g2.weight");
        double got = 0, want = 0;
        for (size_t i = 0; i < (size_t)T * D; i++)
            x[i] = (float)tg_rng_normal(&rng);
        for (size_t t = 0; t < T; t++) {
            double gate = 0;
            for (size_t r = 0; r < R; r++) {
                double low = 0;
                for (size_t c = 0; c < D; c++)
                    low += (double)x[t * D + c] * (double)g1[r * D + c];
                gate += sigmoid(low) * (double)g2[r];
            }
            assert_below(fabs(gate - 1), 0.1, "gate");
        }
        float *y = forward(&p, &p.to, x), *teacher = forward(&p, &p.from, x);
        for (size_t i = 0; i < (size_t)T * D; i++) {
            got += (double)y[i] * (double)y[i];
            want += (double)teacher[i] * (double)teacher[i];
        }
        if (!(got < 4 * want && want < 4 * got))
            fail_msg("output of size %g, the teacher's has %g", sqrt(got), sqrt(want));
        tg_free(y);
        tg_free(teacher);
        close_pair(&p);
    }
}

static void test_refused(void **state)
{
    static const struct {
        size_t kv_heads, value_heads, rank;
        const char *message;
    } bad[] = {
        {G, 0, 8, "kv_heads 2, value heads 2: mixer rwkv7 has a key and a value for each"},
        {H, 2 * H, 8, "kv_heads 4, value heads 8"},
        {H, 0, 0, "rank of mixer rwkv7: 0, must be 1 to"},
    };
    (void)state;
    struct pair p = open_pair(false);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tg_layer_spec *l = &p.student->spec.layers[1], keep = *l;
        struct tg_err err = {0};
        l->kv_heads = bad[i].kv_heads;
        l->value_heads = bad[i].value_heads;
        l->recurrent.rank = bad[i].rank;
        assert_int_equal(tg_spec_check(&p.student->spec, "plan", &err), TG_ERR_VALUE);
        if (!strstr(err.msg, bad[i].message))
            fail_msg("\"%s\" does not say: %s", err.msg, bad[i].message);
        *l = keep;
        assert_int_equal(tg_spec_check(&p.student->spec, "plan", &err), TG_OK);
    }
    close_pair(&p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decays),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_refused),
    };
    return tg_run_tests("rwkv", tests, sizeof tests / sizeof *tests);
}
