/* block_causal and sma where they are something simpler, what a new layer begins as, and the layers
 * that are refused. That they compute what they should in between is test_mixers'. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/params.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "tests/check.h"
#include "tests/guard.h"

enum { D = 24, H = 4, G = 2, K = 6, V = 5, T = 70, WINDOW = 9, CHUNK = 16 };

static const double SAME = 1e-6;

static const struct tg_layer_spec SOFTMAX = {.heads = H,
                                             .kv_heads = G,
                                             .head_dim = K,
                                             .value_dim = V,
                                             .rotary_dim = 4,
                                             .feature_dim = 5,
                                             .qk_norm = TG_QK_HEAD,
                                             .attn_scale = 0.4,
                                             .attn_softcap = 3,
                                             .output_gate = true,
                                             .mlp_dim = 1};

struct layer {
    struct tg_layer_spec spec;
    struct tg_mixer m;
    float *param[TG_MIXER_MAX_PARAMS];
    size_t count[TG_MIXER_MAX_PARAMS];
    float cosine[T * 2], sine[T * 2];
};

static int check_spec(struct tg_layer_spec *layer, struct tg_param_list *list, struct tg_err *err)
{
    struct tg_model_spec model = {.vocab = 1,
                                  .width = D,
                                  .norm.eps = 1e-5,
                                  .ropes = {{.theta = 100}},
                                  .layer_count = 1,
                                  .layers = layer};
    int status = tg_spec_check(&model, "test", err);
    return status || !list ? status : tg_params_of(&model, list, err);
}

/* A layer of random parameters, a softmax layer's the same in each */
static void open_layer(struct layer *l, const char *mixer)
{
    struct tg_err err = {0};
    struct tg_param_list list;
    *l = (struct layer){.spec = SOFTMAX};
    l->spec.mixer = tg_mixer_schema_find(mixer);
    l->spec.window = l->spec.mixer->flags & TG_MIXER_WINDOW ? WINDOW : 0;
    if (l->spec.mixer->adopt)
        l->spec.mixer->adopt(&l->spec);
    if (l->spec.recurrent.chunk)
        l->spec.recurrent.chunk = CHUNK;
    if (check_spec(&l->spec, &list, &err))
        fail_msg("%s", err.msg);
    l->m = (struct tg_mixer){.spec = &l->spec,
                             .width = D,
                             .norm_eps = 1e-5F,
                             .rope_cos = l->cosine,
                             .rope_sin = l->sine};
    for (size_t i = 0; i < (size_t)T * 2; i++) {
        l->cosine[i] = cosf((float)(i / 2) / (i % 2 ? 10 : 1));
        l->sine[i] = sinf((float)(i / 2) / (i % 2 ? 10 : 1));
    }
    for (size_t i = 0; i < l->spec.mixer->param_count; i++) {
        char name[80];
        snprintf(name, sizeof name, "layers.0.mixer.%s", l->spec.mixer->params[i].name);
        const struct tg_param *p = tg_params_find(&list, name);
        if (!p)
            continue;
        l->count[i] = p->count;
        l->m.param[i] = l->param[i] = tg_alloc_array(p->count, sizeof(float));
        tg_fill_random(l->param[i], p->count, 100 + i);
    }
    tg_params_release(&list);
}

static void close_layer(struct layer *l)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        tg_free(l->param[i]);
}

static size_t rule_of(const struct layer *l, const char *name)
{
    size_t i = 0;
    while (i < l->spec.mixer->param_count && strcmp(l->spec.mixer->params[i].name, name) != 0)
        i++;
    assert_true(i < l->spec.mixer->param_count);
    return i;
}

static void set(struct layer *l, const char *name, float value)
{
    size_t rule = rule_of(l, name);
    for (size_t i = 0; i < l->count[rule]; i++)
        l->param[rule][i] = value;
}

/* The first values of a parameter, of a layer that a softmax layer becomes */
static const float *begin_with(struct layer *l, const struct tg_attention_stats *stats,
                               const char *name)
{
    struct layer soft;
    size_t rule = rule_of(l, name);
    open_layer(&soft, "softmax");
    const struct tg_origin origin = {&soft.m, 0, 1, stats};
    tg_mixer_find(l->spec.mixer)->inherit(&l->m, &origin, rule, l->param[rule], l->count[rule]);
    close_layer(&soft);
    return l->param[rule];
}

/* y, dx [T,D] of texts that begin at `begin`; dx of the gradient dy = x */
static void run(const struct layer *l, size_t count, const size_t *begin, float *y, float *dx)
{
    const struct tg_mixer_ops *ops = tg_mixer_find(l->spec.mixer);
    const struct tg_ctx ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    const struct tg_batch b = {count, begin, NULL};
    const struct tg_mixer_grads none = {{NULL}};
    struct tg_guarded work = tg_guard(ops->work_floats(&l->m, &b, 2, false)),
                      back = tg_guard(ops->work_floats(&l->m, &b, 2, true)),
                      saved = tg_guard(ops->saved_floats(&l->m, &b));
    float x[T * D];
    tg_fill_random(x, (size_t)T * D, 1);
    ops->forward(&ctx, &l->m, &b, x, y, saved.p, work.p);
    ops->backward(&ctx, &l->m, &b, x, x, saved.p, dx, &none, back.p);
    tg_guard_free(&work);
    tg_guard_free(&back);
    tg_guard_free(&saved);
}

static void assert_same(const struct layer *a, const struct layer *b, float factor,
                        const char *what)
{
    static const size_t whole[] = {0, 33, 33, T};
    float y[2][T * D], dx[2][T * D];
    run(a, 3, whole, y[0], dx[0]);
    run(b, 3, whole, y[1], dx[1]);
    for (size_t i = 0; i < (size_t)T * D; i++) {
        y[1][i] *= factor;
        dx[1][i] *= factor;
    }
    assert_below(tg_rel_error_f(y[0], y[1], (size_t)T * D), SAME, what);
    assert_below(tg_rel_error_f(dx[0], dx[1], (size_t)T * D), SAME, what);
}

/* A chunk that is as long as the text is the softmax layer, whatever the far branch is. */
static void test_one_chunk(void **state)
{
    struct layer soft, l;
    (void)state;
    open_layer(&soft, "softmax");
    open_layer(&l, "block_causal");
    l.spec.recurrent.chunk = T;
    assert_same(&l, &soft, 1, "one chunk");
    close_layer(&soft);
    close_layer(&l);
}

/* Closed gates: every chunk is a text of its own. Scores depend on the distance of positions alone.
 */
static void test_closed_gates(void **state)
{
    static const size_t whole[] = {0, T}, apart[] = {0, 16, 32, 48, 64, T};
    struct layer l;
    float y[2][T * D], dx[2][T * D];
    (void)state;
    open_layer(&l, "block_causal");
    run(&l, 1, whole, y[0], dx[0]);
    run(&l, 5, apart, y[1], dx[1]);
    assert_true(tg_rel_error_f(y[0], y[1], (size_t)T * D) > 1e-2);
    set(&l, "gate.weight", 0);
    set(&l, "gate.bias", -60);
    run(&l, 1, whole, y[0], dx[0]);
    run(&l, 5, apart, y[1], dx[1]);
    assert_below(tg_rel_error_f(y[0], y[1], (size_t)T * D), SAME, "y");
    assert_below(tg_rel_error_f(dx[0], dx[1], (size_t)T * D), SAME, "dx");
    close_layer(&l);
}

/* All tokens picked with certainty, averages unused: the window. As it begins: a part of it. */
static void test_all_picked(void **state)
{
    struct layer window, l;
    (void)state;
    open_layer(&window, "window");
    open_layer(&l, "sma");
    set(&l, "router.bias", 100);
    set(&l, "skip", 0);
    assert_same(&l, &window, 1, "all picked");
    for (size_t i = 0; i < l.spec.mixer->param_count; i++)
        if (l.param[i] && l.spec.mixer->params[i].flags & TG_PARAM_NEW)
            begin_with(&l, NULL, l.spec.mixer->params[i].name);
    assert_same(&l, &window, 1 / (1 + expf(-3)), "a new layer");
    close_layer(&window);
    close_layer(&l);
}

/* None picked: averages alone, and nothing of q and k. */
static void test_none_picked(void **state)
{
    static const size_t whole[] = {0, T};
    struct layer l;
    float x[T * D], y[T * D], dx[T * D];
    double want[T * D] = {0}, e[H * V] = {0};
    (void)state;
    open_layer(&l, "sma");
    set(&l, "router.bias", -100);
    set(&l, "q.weight", NAN);
    set(&l, "out_gate.weight", 0); /* a half of everything */
    run(&l, 1, whole, y, dx);
    tg_fill_random(x, (size_t)T * D, 1);
    const float *wv = tg_mixer_param(&l.m, "v.weight"), *wo = tg_mixer_param(&l.m, "o.weight");
    const float *decay = tg_mixer_param(&l.m, "decay"), *skip = tg_mixer_param(&l.m, "skip");
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < (size_t)H * V; c++) {
            double v = 0, a = 1 / (1 + exp(-(double)decay[c]));
            for (size_t i = 0; i < D; i++)
                v += (double)wv[(c / V / (H / G) * V + c % V) * D + i] * (double)x[t * D + i];
            e[c] = a * e[c] + (1 - a) * v;
            for (size_t i = 0; i < D; i++)
                want[t * D + i] += (double)wo[i * H * V + c] / 2 * (double)skip[c] * e[c];
        }
    assert_below(tg_rel_error_fd(y, want, (size_t)T * D), SAME, "averages");
    close_layer(&l);
}

/* Where it was measured how far the teacher looks back, a head forgets over about that distance. */
static void test_distance(void **state)
{
    const double distance[H] = {1, 5, 30, 1e9}, kept[H] = {0.5, 0.8, 29.0 / 30, 0.9999};
    const struct tg_attention_stats stats = {.distance = distance, .entropy = distance};
    struct layer block, sma;
    (void)state;
    open_layer(&block, "block_causal");
    open_layer(&sma, "sma");
    const float *bias = begin_with(&block, &stats, "gate.bias");
    const float *decay = begin_with(&sma, &stats, "decay");
    for (size_t h = 0; h < H; h++) {
        assert_below(fabs(1 / (1 + exp(-(double)bias[h])) - kept[h]), 1e-6, "gate");
        for (size_t c = 0; c < V; c++)
            assert_true(decay[h * V + c] == bias[h]);
    }
    assert_true(begin_with(&block, NULL, "gate.bias")[0] == 5);
    close_layer(&block);
    close_layer(&sma);
}

static void test_refused(void **state)
{
    struct tg_err err = {0};
    struct layer l;
    (void)state;
    open_layer(&l, "block_causal");
    l.spec.recurrent.chunk = 0;
    assert_int_equal(check_spec(&l.spec, NULL, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "layer 0: chunk of mixer block_causal: 0, must be 1 to"));
    close_layer(&l);
    open_layer(&l, "sma");
    l.spec.window = 0;
    assert_int_equal(check_spec(&l.spec, NULL, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "layer 0: window is 0, must be 1 to"));
    close_layer(&l);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_chunk),  cmocka_unit_test(test_closed_gates),
        cmocka_unit_test(test_all_picked), cmocka_unit_test(test_none_picked),
        cmocka_unit_test(test_distance),   cmocka_unit_test(test_refused),
    };
    tg_gemm_init();
    return tg_run_tests("sparse", tests, sizeof tests / sizeof *tests);
}
