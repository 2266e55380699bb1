/* What the mixers that work channel by channel begin as, made from a softmax layer, and the layers
 * that they refuse. That they compute what they should is test_mixers'. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "convert/params.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "tests/check.h"
#include "tests/guard.h"

enum { D = 24, H = 4, G = 2, K = 6, N = H * K, T = 40, LAYER = 2, LAYERS = 4 };

static const struct tg_layer_spec SOFTMAX = {.heads = H,
                                             .kv_heads = G,
                                             .head_dim = K,
                                             .rotary_dim = 4,
                                             .qkv_bias = true,
                                             .attn_scale = 0.4,
                                             .mlp_dim = 1};

struct layer {
    struct tg_layer_spec spec;
    struct tg_mixer m;
    float *param[TG_MIXER_MAX_PARAMS];
    size_t count[TG_MIXER_MAX_PARAMS];
};

static struct tg_model_spec model_of(struct tg_layer_spec *layer)
{
    return (struct tg_model_spec){.vocab = 1,
                                  .width = D,
                                  .norm.eps = 1e-5,
                                  .ropes = {{.theta = 100}},
                                  .layer_count = 1,
                                  .layers = layer};
}

/* A layer of random parameters */
static void open_layer(struct layer *l, const char *mixer, const struct tg_layer_spec *spec)
{
    struct tg_err err = {0};
    struct tg_param_list list;
    l->spec = *spec;
    l->spec.mixer = tg_mixer_schema_find(mixer);
    if (l->spec.mixer->adopt)
        l->spec.mixer->adopt(&l->spec);
    l->m = (struct tg_mixer){.spec = &l->spec, .width = D, .norm_eps = 1e-5F};
    struct tg_model_spec model = model_of(&l->spec);
    if (tg_spec_check(&model, mixer, &err) || tg_params_of(&model, &list, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < l->spec.mixer->param_count; i++) {
        char name[80] = "layers.0.mixer.";
        strncat(name, l->spec.mixer->params[i].name, 40);
        const struct tg_param *p = tg_params_find(&list, name);
        l->count[i] = p ? p->count : 0;
        l->param[i] = p ? tg_alloc_array(p->count, sizeof(float)) : NULL;
        l->m.param[i] = l->param[i];
        if (p)
            tg_fill_random(l->param[i], p->count, 100 + i);
    }
    tg_params_release(&list);
}

static void close_layer(struct layer *l)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        tg_free(l->param[i]);
}

/* Parameter `rule` of the softmax layer, its kv heads repeated where the new layer has more */
static void copy(const struct layer *from, const struct layer *to, size_t rule)
{
    const char *name = to->spec.mixer->params[rule].name;
    const float *p = tg_mixer_param(&from->m, name);
    size_t n = to->count[rule], groups = to->spec.kv_heads, each = n / groups;
    bool repeat = strchr("kv", name[0]) != NULL;
    for (size_t i = 0; i < n; i++)
        to->param[rule][i] = p[repeat ? i / each / (groups / G) * each + i % each : i];
}

static void make(struct layer *l, const char *mixer, const struct layer *from,
                 const struct tg_attention_stats *stats)
{
    const struct tg_origin origin = {&from->m, LAYER, LAYERS, stats};
    *l = (struct layer){0};
    open_layer(l, mixer, &SOFTMAX);
    for (size_t i = 0; i < l->spec.mixer->param_count; i++)
        if (l->param[i] && l->spec.mixer->params[i].flags & TG_PARAM_NEW)
            tg_mixer_find(l->spec.mixer)->inherit(&l->m, &origin, i, l->param[i], l->count[i]);
        else if (l->param[i])
            copy(from, l, i);
}

/* y [T,D] of one text */
static void forward(const struct layer *l, const float *x, float *y)
{
    const struct tg_mixer_ops *ops = tg_mixer_find(l->spec.mixer);
    const struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 1};
    const size_t begin[] = {0, T};
    const struct tg_batch b = {1, begin, NULL};
    struct tg_guarded work = tg_guard(ops->work_floats(&l->m, &b, 1, false));
    ops->forward(&ctx, &l->m, &b, x, y, NULL, work.p);
    tg_guard_free(&work);
}

static double row_times(const float *w, const float *bias, size_t row, const double *x, size_t n)
{
    double sum = bias ? (double)bias[row] : 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)w[row * n + i] * x[i];
    return sum;
}

/* The softmax layer's projection `name` of token x for channel c of head h */
static double projected(const struct layer *l, const char *weight, const char *bias, size_t heads,
                        size_t channel, const double *x)
{
    size_t row = channel / K / (H / heads) * K + channel % K;
    return row_times(tg_mixer_param(&l->m, weight), tg_mixer_param(&l->m, bias), row, x, D);
}

/* The identity for convolutions: all three rows are (q . k . v) Wo^T. */
static void test_hyena_start(void **state)
{
    static const char *const names[] = {"hyena_x", "hyena_y", "hyena_se"};
    struct layer soft = {0};
    float x[T * D], y[T * D];
    double want[T * D], in[T * D], mix[N];
    (void)state;
    open_layer(&soft, "softmax", &SOFTMAX);
    tg_fill_random(x, T * D, 1);
    tg_to_double(x, in, T * D);
    for (size_t t = 0; t < T; t++) {
        for (size_t c = 0; c < N; c++)
            mix[c] = projected(&soft, "q.weight", "q.bias", H, c, in + t * D) *
                     projected(&soft, "k.weight", "k.bias", G, c, in + t * D) *
                     projected(&soft, "v.weight", "v.bias", G, c, in + t * D);
        for (size_t c = 0; c < D; c++)
            want[t * D + c] = row_times(tg_mixer_param(&soft.m, "o.weight"), NULL, c, mix, N);
    }
    for (size_t i = 0; i < 3; i++) {
        struct layer l;
        make(&l, names[i], &soft, NULL);
        forward(&l, x, y);
        assert_below(tg_rel_error_fd(y, want, T * D), 1e-6, names[i]);
        close_layer(&l);
    }
    close_layer(&soft);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double decay_of(const struct layer *l, size_t channel)
{
    double low = sigmoid((double)tg_mixer_param(&l->m, "lower_bound")[channel]);
    return low + (1 - low) * sigmoid((double)tg_mixer_param(&l->m, "f.bias")[channel]);
}

/* Mean of j over the weights (1 - f) f^j is as far as the head looked back. */
static void test_hgrn_distance(void **state)
{
    static const double distance[H] = {0.02, 0.7, 12, 900};
    const struct tg_attention_stats stats = {.distance = distance};
    struct layer soft = {0}, plain, measured;
    (void)state;
    open_layer(&soft, "softmax", &SOFTMAX);
    make(&plain, "hgrn", &soft, NULL);
    make(&measured, "hgrn", &soft, &stats);
    for (size_t c = 0; c < N; c++) {
        double f = decay_of(&plain, c), g = decay_of(&measured, c), at = (double)(c % K) / (K - 1);
        assert_below(fabs(f / (1 - f) / pow(256, at) - 1), 1e-4, "spread");
        assert_below(fabs(g / (1 - g) / distance[c / K] - 1), 1e-3, "measured");
        assert_below(sigmoid((double)tg_mixer_param(&measured.m, "lower_bound")[c]),
                     fmin(0.9 * LAYER / LAYERS + 1e-6, g), "lower bound");
    }
    assert_below(fabs(sigmoid((double)tg_mixer_param(&plain.m, "lower_bound")[K - 1]) - 0.45), 1e-6,
                 "lower bound by depth");
    close_layer(&soft);
    close_layer(&plain);
    close_layer(&measured);
}

/* A new layer is Wo of running means of v, over their size and times that of means of noise as
 * large as v; silu is almost linear where v enters, and 1 at the gate. */
static void test_hgrn_start(void **state)
{
    struct layer soft = {0}, l;
    float x[T * D], y[T * D];
    double want[T * D], in[T * D], h[N] = {0}, mix[N], size = 0, noise = 0;
    (void)state;
    open_layer(&soft, "softmax", &SOFTMAX);
    make(&l, "hgrn", &soft, NULL);
    tg_fill_random(x, T * D, 1);
    tg_to_double(x, in, T * D);
    const float *v = tg_mixer_param(&soft.m, "v.weight"), *b = tg_mixer_param(&soft.m, "v.bias");
    for (size_t i = 0; i < G * K * D; i++)
        size += (double)v[i] * (double)v[i] / (G * K);
    for (size_t i = 0; i < G * K; i++)
        size += (double)b[i] * (double)b[i] / (G * K);
    for (size_t c = 0; c < N; c++)
        noise += (1 - decay_of(&l, c)) / (1 + decay_of(&l, c)) / N;
    for (size_t t = 0; t < T; t++) {
        double squares = 0;
        for (size_t c = 0; c < N; c++) {
            double f = decay_of(&l, c);
            h[c] = f * h[c] + (1 - f) * projected(&soft, "v.weight", "v.bias", G, c, in + t * D);
            squares += h[c] * h[c] / N;
        }
        for (size_t c = 0; c < N; c++)
            mix[c] = h[c] * sqrt(size * noise / squares);
        for (size_t c = 0; c < D; c++)
            want[t * D + c] = row_times(tg_mixer_param(&soft.m, "o.weight"), NULL, c, mix, N);
    }
    forward(&l, x, y);
    assert_below(tg_rel_error_fd(y, want, T * D), 0.1, "running mean of v");
    close_layer(&soft);
    close_layer(&l);
}

/* Gates far beyond what exp can hold are 0 and 1: nothing enters, or nothing more than the lower
 * bound is kept. */
static void test_hgrn_far_gates(void **state)
{
    static const float biases[] = {1e3F, -1e3F, -40};
    struct layer soft = {0}, l;
    float x[T * D], y[3][T * D];
    (void)state;
    open_layer(&soft, "softmax", &SOFTMAX);
    make(&l, "hgrn", &soft, NULL);
    tg_fill_random(x, T * D, 1);
    for (size_t i = 0; i < 3; i++) {
        float *bias = (float *)(uintptr_t)tg_mixer_param(&l.m, "f.bias");
        for (size_t c = 0; c < N; c++)
            bias[c] = biases[i];
        forward(&l, x, y[i]);
    }
    for (size_t i = 0; i < T * D; i++)
        assert_true(y[0][i] == 0);
    assert_below(tg_rel_error_f(y[1], y[2], T * D), 1e-6, "open gates");
    close_layer(&soft);
    close_layer(&l);
}

static void test_refused(void **state)
{
    static const struct {
        const char *mixer, *message;
        size_t value_dim, kv_heads, conv, inner_conv, heads;
    } bad[] = {
        {"hyena_x", "value_dim is 5", 5, H, 4, 0, H},
        {"hyena_y", "value_dim is 5", 5, H, 0, 4, H},
        {"hyena_x", "kv_heads is 2", 0, G, 4, 0, H},
        {"hyena_x", "convolution taps of mixer hyena_x: 0, must be 1 to 32", 0, H, 0, 0, H},
        {"hyena_se", "inner convolution taps of mixer hyena_se: 33, must be 1 to 32", 0, H, 4, 33,
         H},
        {"hgrn", "heads is 0", 0, 1, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tg_layer_spec layer = SOFTMAX;
        struct tg_model_spec model = model_of(&layer);
        struct tg_err err = {0};
        layer.mixer = tg_mixer_schema_find(bad[i].mixer);
        layer.mixer->adopt(&layer);
        assert_int_equal(tg_spec_check(&model, "plan", &err), TG_OK);
        layer.value_dim = bad[i].value_dim;
        layer.kv_heads = bad[i].kv_heads;
        layer.heads = bad[i].heads;
        layer.recurrent.conv = bad[i].conv;
        layer.recurrent.inner_conv = bad[i].inner_conv;
        assert_int_equal(tg_spec_check(&model, "plan", &err), TG_ERR_VALUE);
        if (!strstr(err.msg, bad[i].message))
            fail_msg("\"%s\" does not say: %s", err.msg, bad[i].message);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hyena_start), cmocka_unit_test(test_hgrn_distance),
        cmocka_unit_test(test_hgrn_start),  cmocka_unit_test(test_hgrn_far_gates),
        cmocka_unit_test(test_refused),
    };
    tg_gemm_init();
    return tg_run_tests("elementwise", tests, sizeof tests / sizeof *tests);
}
