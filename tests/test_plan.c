/* What the words of keep mean, other mixers for some layers, and every option that a plan can give:
 * through files, into the layer's spec, and refused where a mixer has none. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "linearize/surgery/surgery_internal.h"
#include "tests/small_model.h"

enum { MOST = 48 };

static struct tg_layer_spec teacher_layers[MOST];

static struct tg_layer_spec softmax_layer(void)
{
    return (struct tg_layer_spec){.mixer = tg_mixer_schema_find("softmax"),
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 8,
                                  .rotary_dim = 8,
                                  .attn_scale = 1 / sqrt(8),
                                  .mlp_dim = 24};
}

static struct tg_model_spec softmax_model(size_t layers)
{
    struct tg_model_spec spec = {.vocab = 40, .width = 16, .norm.eps = 1e-6, .tied_head = true};
    snprintf(spec.family, sizeof spec.family, "llama");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    spec.ropes[0].theta = 10000;
    spec.layer_count = layers;
    spec.layers = teacher_layers;
    for (size_t l = 0; l < layers; l++)
        teacher_layers[l] = softmax_layer();
    return spec;
}

static void assert_says(const struct tg_err *err, const char *part)
{
    if (!strstr(err->msg, part))
        fail_msg("'%s' is not in: %s", part, err->msg);
}

/* "0,4": the layers that are kept */
static const char *kept(const struct tg_plan *p, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    for (size_t l = 0; l < p->count; l++)
        if (!p->layers[l].mixer)
            used += (size_t)snprintf(buf + used, size - used, "%s%zu", used ? "," : "", l);
    return buf;
}

static void test_keep(void **state)
{
    static const struct {
        size_t layers;
        const char *keep, *kept;
    } rows[] = {
        {28, "ratio:3", "3,7,11,15,19,23,27"}, /* 7 of 28 */
        {24, "ratio:1", "1,3,5,7,9,11,13,15,17,19,21,23"},
        {24, "ratio:3", "3,7,11,15,19,23"},
        {24, "ratio:6", "6,13,20"},
        {24, "ratio:12", "12"},
        {25, "ratio:24", "24"},
        {24, "ratio:5", "5,11,17,23"},
        {10, "ratio:9", "9"},
        {10, "every:4", "3,7"},
        {24, "first", "0"},
        {24, "middle", "12"},
        {25, "middle", "12"},
        {24, "last", "23"},
        {24, "first,middle", "0,12"},
        {24, "1,middle", "1,12"}, /* of the DeltaNet paper */
        {24, "1,last", "1,23"},
        {6, "first-2,last", "0,1,2,5"},
        {6, "middle-last", "3,4,5"},
        {6, "last,0-1", "0,1,5"},
        {1, "first,middle,last", "0"},
        {6, "none", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model_spec spec = softmax_model(rows[i].layers);
        struct tg_plan_options o = {.keep = rows[i].keep, .sinks = -1};
        struct tg_plan p;
        struct tg_err err = {0};
        char text[160];
        tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
        if (strcmp(kept(&p, text, sizeof text), rows[i].kept) != 0)
            fail_msg("%s of %zu keeps %s, not %s", rows[i].keep, rows[i].layers, text,
                     rows[i].kept);
        tg_plan_release(&p);
    }
}

/* A ratio counts the layers that can change: a teacher's small windows are none of them. */
static void test_ratio_of_changeable(void **state)
{
    struct tg_model_spec spec = softmax_model(12);
    struct tg_plan_options o = {.keep = "ratio:2", .sinks = -1};
    struct tg_plan p;
    struct tg_err err = {0};
    char text[160];
    (void)state;
    for (size_t l = 0; l < 12; l += 2) {
        teacher_layers[l].mixer = tg_mixer_schema_find("window");
        teacher_layers[l].window = 16;
    }
    tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
    assert_string_equal(kept(&p, text, sizeof text), "0,2,4,5,6,8,10,11");
    tg_plan_release(&p);
    o.keep = "ratio:6";
    assert_int_equal(tg_plan_make(&p, &spec, &o, NULL, &err), TG_ERR_VALUE);
    assert_says(&err, "ratio:6 keeps none of 6 layers");
}

static void test_bad_keep(void **state)
{
    static const struct {
        const char *keep, *says;
    } rows[] = {
        {"ratio:24", "ratio:24 keeps none of 24 layers"},
        {"ratio:25", "ratio:25 keeps none of 24 layers"},
        {"ratio:0", "ratio:0"},
        {"ratio:", "'ratio:'"},
        {"ratio:3x", "'ratio:3x'"},
        {"ratio:-3", "'ratio:-3'"},
        {"ratio", "'ratio'"},
        {"firs", "'firs'"},
        {"firstlast", "'firstlast'"},
        {"first,", "'first,'"},
        {"last-first", "'last-first'"},
        {"middle-24", "no layer 24"},
        {"first;last", "'first;last'"},
    };
    struct tg_model_spec spec = softmax_model(24);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_plan_options o = {.keep = rows[i].keep, .sinks = -1};
        struct tg_plan p;
        struct tg_err err = {0};
        if (tg_plan_make(&p, &spec, &o, NULL, &err) != TG_ERR_VALUE)
            fail_msg("accepted: %s", rows[i].keep);
        assert_null(p.layers);
        assert_says(&err, "keep");
        assert_says(&err, rows[i].says);
    }
}

static struct tg_plan_override other(const char *layers, const char *mixer)
{
    struct tg_plan_override o = {{0}, {.mixer = mixer ? tg_mixer_schema_find(mixer) : NULL}};
    snprintf(o.layers, sizeof o.layers, "%s", layers);
    return o;
}

/* "ggwgwk": first letters of the mixers */
static const char *mixers(const struct tg_plan *p, char *buf)
{
    for (size_t l = 0; l < p->count; l++)
        buf[l] = p->layers[l].mixer ? p->layers[l].mixer->name[0] : 'k';
    buf[p->count] = '\0';
    return buf;
}

static void test_overrides(void **state)
{
    struct tg_model_spec spec = softmax_model(8);
    struct tg_plan_override list[] = {other("every:2", "window"), other("0,last", "lizard"),
                                      other("4", NULL)};
    struct tg_plan_options o = {.keep = "ratio:3", .sinks = -1, .overrides = list};
    struct tg_plan p;
    struct tg_err err = {0};
    char text[16];
    (void)state;
    list[0].to.set[TG_PLAN_WINDOW] = tg_given(64);
    o.set[TG_PLAN_WINDOW] = tg_given(32);
    o.override_count = 1; /* in turn, but for what is kept */
    tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
    assert_string_equal(mixers(&p, text), "gwgkgwgk");
    assert_true(p.layers[0].set[TG_PLAN_WINDOW].value == 32);
    assert_true(p.layers[1].set[TG_PLAN_WINDOW].value == 64);
    tg_plan_release(&p);
    o.override_count = 3;
    o.keep = "none";
    tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
    assert_string_equal(mixers(&p, text), "lwgwkwgl");
    assert_true(p.layers[0].set[TG_PLAN_WINDOW].value == 128); /* lizard's own */
    tg_plan_release(&p);
}

static void test_bad_overrides(void **state)
{
    static const struct {
        const char *layers, *says;
    } rows[] = {
        {"8", "there is no layer 8"}, {"auto:1", "'auto:1'"}, {"", "layer"},
        {"3", "they are kept"},       {"every:9", "every:9"},
    };
    struct tg_model_spec spec = softmax_model(8);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_plan_override list[] = {other(rows[i].layers, "window")};
        struct tg_plan_options o = {.keep = "3", .sinks = -1, .overrides = list};
        struct tg_plan p;
        struct tg_err err = {0};
        o.override_count = 1;
        if (tg_plan_make(&p, &spec, &o, NULL, &err) != TG_ERR_VALUE)
            fail_msg("accepted: '%s'", rows[i].layers);
        assert_null(p.layers);
        assert_says(&err, "layer");
        assert_says(&err, rows[i].says);
    }
    /* an option that the mixer does not have names layer, option and mixer */
    struct tg_plan_override list[] = {other("2", "window")};
    struct tg_plan_options o = {.keep = "3", .sinks = -1, .overrides = list, .override_count = 1};
    struct tg_plan p;
    struct tg_err err = {0};
    list[0].to.set[TG_PLAN_CONV] = tg_given(4);
    assert_int_equal(tg_plan_make(&p, &spec, &o, NULL, &err), TG_ERR_VALUE);
    assert_says(&err, "layer 2: mixer 'window' has no conv (4 was given)");
}

/* A value that each option can have, and that is no mixer's own */
static double sample(enum tg_plan_key key, const struct tg_mixer_schema *schema)
{
    const struct tg_plan_layer plain = {.mixer = schema};
    const struct tg_layer_spec from = softmax_layer();
    struct tg_layer_spec own;
    const struct tg_plan_option *row = &tg_plan_rows[key];
    tg_plan_layer_spec(&plain, 16, &from, &own);
    double value = tg_plan_value_in(key, 16, &own);
    if (row->store == TG_STORE_ERROR)
        return 0.25;
    if (key == TG_PLAN_GATED)
        return 1;
    return row->choice ? (value == 0 ? 1 : 0) : value + 1;
}

static struct tg_plan_layer with(const struct tg_mixer_schema *schema, enum tg_plan_key key)
{
    struct tg_plan_layer p = {.mixer = schema};
    p.set[key] = tg_given(sample(key, schema));
    if (key == TG_PLAN_SINKS && tg_plan_rows[TG_PLAN_GATED].has(schema))
        p.set[TG_PLAN_GATED] = tg_given(1);
    if (key == TG_PLAN_WINDOW_FORM && tg_plan_rows[key].has(schema))
        p.set[TG_PLAN_WINDOW] = tg_given(4);
    return p;
}

/* Every option of every mixer that a plan can give, written and read again, changes the layer's
 * spec; an option that a mixer does not have is refused, by key and by file. */
static void test_every_option(void **state)
{
    const struct tg_layer_spec from = softmax_layer();
    struct tg_model_spec spec = softmax_model(1);
    char path[] = "/tmp/tg_test_plan_XXXXXX";
    struct tg_err err = {0};
    size_t held = 0, refused = 0;
    (void)state;
    close(mkstemp(path));
    for (size_t m = 0; tg_mixer_schemas[m]; m++) {
        const struct tg_mixer_schema *schema = tg_mixer_schemas[m];
        for (int k = 0; k < TG_PLAN_KEYS && schema->flags & TG_MIXER_PLAN; k++) {
            const enum tg_plan_key key = (enum tg_plan_key)k;
            struct tg_plan_layer one = with(schema, key);
            struct tg_plan p = {&one, 1}, q;
            struct tg_layer_spec is;
            int status = tg_plan_check_layer(&one, &from, 0, "p", &err);
            tg_test_must(tg_plan_save(&p, path, NULL), &err);
            if (!tg_plan_rows[k].has(schema)) {
                assert_int_equal(status, TG_ERR_VALUE);
                assert_says(&err, "layer 0");
                assert_says(&err, tg_plan_rows[k].name);
                assert_says(&err, schema->name);
                assert_int_equal(tg_plan_load(&q, path, &spec, &err), TG_ERR_VALUE);
                refused++;
                continue;
            }
            tg_test_must(status, &err);
            tg_test_must(tg_plan_load(&q, path, &spec, &err), &err);
            assert_true(q.layers[0].set[k].given);
            assert_true(q.layers[0].set[k].value == one.set[k].value);
            tg_plan_layer_spec(&q.layers[0], 16, &from, &is);
            if (tg_plan_rows[k].store != TG_STORE_ERROR &&
                tg_plan_value_in(key, 16, &is) != one.set[k].value)
                fail_msg("%s: %s is %g, not %g", schema->name, tg_plan_rows[k].name,
                         tg_plan_value_in(key, 16, &is), one.set[k].value);
            tg_plan_release(&q);
            held++;
        }
    }
    assert_true(held > 0 && refused > 0);
    unlink(path);
}

/* The rank that an error allows: found in the weights when the student is made; of a latent alone,
 * and not beside a rank. */
static void test_rank_error(void **state)
{
    static const struct tg_test_shape shape = {2, 16, 4, 2, 6, 24, 40, true, true, false};
    struct tg_model *t = tg_test_teacher(&shape, 1, 5), *s;
    struct tg_plan_layer layers[2] = {{.mixer = tg_mixer_schema_find("latent")}};
    const struct tg_plan p = {layers, 2};
    struct tg_err err = {0};
    size_t last = 17;
    (void)state;
    for (double error = 0; error <= 1; error += 0.25) { /* from all of 16 to the least */
        layers[0].set[TG_PLAN_RANK_ERROR] = tg_given(error);
        tg_test_must(tg_surgery_apply(t, &p, NULL, &s, &err), &err);
        size_t rank = s->spec.layers[0].kv_rank;
        assert_true(rank < last && rank >= 1);
        assert_true(error > 0 || rank == 16);
        assert_true(error < 1 || rank == 1);
        last = rank;
        tg_model_free(s);
    }
    layers[0].set[TG_PLAN_RANK] = tg_given(4);
    assert_int_equal(tg_surgery_apply(t, &p, NULL, &s, &err), TG_ERR_VALUE);
    assert_says(&err, "layer 0: rank and rank_error are both given");
    tg_model_free(t);
}

static void adopt_all(struct tg_layer_spec *l)
{
    l->recurrent.conv = 4;
    l->recurrent.rank = l->kv_heads * 8; /* follows another option */
    l->recurrent.groups = 1;
    l->recurrent.partitions = 4;
    l->recurrent.active = 1;
    l->recurrent.chunk = 64;
}

/* A mixer that has every option: where each is held, and that what is given beats what the mixer
 * derives, while what it derives follows what is given. */
static void test_options_held(void **state)
{
    static const struct tg_param_rule rules[] = {
        {"q.weight", {TG_DIM_HK, TG_DIM_D}, 0},
        {"k.weight", {TG_DIM_GK, TG_DIM_D}, 0},
        {"conv.weight", {TG_DIM_QKV, TG_DIM_TAPS}, 0},
        {"f_a.weight", {TG_DIM_RANK, TG_DIM_D}, 0},
        {"in.weight", {TG_DIM_X_B_C, TG_DIM_D}, 0},
        {"in.bias", {TG_DIM_X_B_C}, TG_PARAM_IF_IN_BIAS},
        {"b.weight", {TG_DIM_H, TG_DIM_D}, 0},
        {"sink", {TG_DIM_H, TG_DIM_SINKS}, TG_PARAM_IF_SINKS},
        {"gate.bias", {TG_DIM_H}, TG_PARAM_IF_GATED},
        {"out_gate.weight", {TG_DIM_HV, TG_DIM_D}, TG_PARAM_IF_OUT_GATE},
        {"norm.weight", {TG_DIM_HV}, TG_PARAM_IF_PLAIN_VALUES},
        {"lower_bound", {TG_DIM_HK}, TG_PARAM_IF_BOUND},
    };
    static const struct tg_mixer_schema all = {.name = "all",
                                               .flags = TG_MIXER_PLAN | TG_MIXER_BESIDE |
                                                        TG_MIXER_FAR | TG_MIXER_RECURRENT,
                                               .params = rules,
                                               .param_count = sizeof rules / sizeof *rules,
                                               .adopt = adopt_all};
    const struct tg_layer_spec from = softmax_layer();
    struct tg_layer_spec is;
    struct tg_err err = {0};
    (void)state;
    for (int k = 0; k < TG_PLAN_KEYS; k++) {
        struct tg_plan_layer one = with(&all, (enum tg_plan_key)k);
        if (k == TG_PLAN_RANK_ERROR) /* of those with a latent, whose rank is another */
            continue;
        if (!tg_plan_rows[k].has(&all))
            fail_msg("it has no %s", tg_plan_rows[k].name);
        tg_test_must(tg_plan_check_layer(&one, &from, 0, "p", &err), &err);
        tg_plan_layer_spec(&one, 16, &from, &is);
        if (tg_plan_value_in((enum tg_plan_key)k, 16, &is) != one.set[k].value)
            fail_msg("%s is not held", tg_plan_rows[k].name);
    }
    struct tg_plan_layer one = {.mixer = &all};
    one.set[TG_PLAN_ROTARY] = one.set[TG_PLAN_NORMALISE] = tg_given(0);
    one.set[TG_PLAN_KV] = tg_given(1);
    one.set[TG_PLAN_OUTPUT_GATE] = one.set[TG_PLAN_NEGATIVE_EIGENVALUES] = tg_given(1);
    one.set[TG_PLAN_WINDOW] = tg_given(9);
    one.set[TG_PLAN_WINDOW_FORM] = tg_given(TG_WINDOW_JOINT);
    one.set[TG_PLAN_CONV] = tg_given(0);
    tg_plan_layer_spec(&one, 16, &from, &is);
    assert_true(is.linear_plain && is.plain_values && is.output_gate);
    assert_true(is.recurrent.negative_eigenvalues);
    assert_int_equal(is.kv_heads, 4);
    assert_int_equal(is.recurrent.rank, 32);
    assert_int_equal(is.recurrent.conv, 0);
    assert_int_equal(is.recurrent.chunk, 64);
    assert_int_equal(is.window, 9);
    assert_int_equal(is.window_form, TG_WINDOW_JOINT);
    assert_int_equal(is.feature_dim, 8);
    one.set[TG_PLAN_WINDOW] = tg_given(0); /* a form of nothing */
    assert_int_equal(tg_plan_check_layer(&one, &from, 3, "p", &err), TG_ERR_VALUE);
    assert_says(&err, "p: layer 3: window_form joint needs a window, 'all' has none here");
    one.set[TG_PLAN_CONV] = tg_given(33);
    assert_int_equal(tg_plan_check_layer(&one, &from, 3, "p", &err), TG_ERR_VALUE);
    assert_says(&err, "p: layer 3: conv 33 is not in [0, 32] for 'all'");
}

static void test_bad_option_files(void **state)
{
    static const struct {
        const char *options, *says;
    } rows[] = {
        {"\"window_form\": \"across\"", "layers[0].window_form: 'across' is unknown; there are "
                                        "parallel, series, joint"},
        {"\"window_form\": 1", "layers[0].window_form"},
        {"\"window_form\": \"joint\"", "'gated_window' has no window_form (joint was given)"},
        {"\"rotary\": \"no\"", "layers[0].rotary"},
        {"\"rotary\": false", "'gated_window' has no rotary (false was given)"},
        {"\"kv\": \"many\"", "layers[0].kv: 'many' is unknown; there are shared, expanded"},
        {"\"conv\": 33", "layers[0].conv"},
        {"\"conv\": -1", "layers[0].conv"},
        {"\"rank\": 0", "layers[0].rank"},
        {"\"groups\": \"2\"", "layers[0].groups"},
        {"\"partitions\": 0", "layers[0].partitions"},
        {"\"active\": 1.5", "layers[0].active"},
        {"\"mixer\": \"latent\", \"rank_error\": 1.5", "layers[0].rank_error"},
        {"\"mixer\": \"latent\", \"rank_error\": \"0.1\"", "layers[0].rank_error"},
        {"\"rank_error\": 0.1", "'gated_window' has no rank_error (0.1 was given)"},
        {"\"chunk\": 0", "layers[0].chunk"},
        {"\"normalise\": 1", "layers[0].normalise"},
        {"\"negative_eigenvalues\": 0", "layers[0].negative_eigenvalues"},
    };
    struct tg_model_spec spec = softmax_model(1);
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        struct tg_json_doc *doc = NULL;
        struct tg_plan p = {0};
        struct tg_err err = {0};
        snprintf(text, sizeof text, "{\"layers\": [{\"layer\": 0, %s}]}", rows[i].options);
        tg_test_must(tg_json_parse(&doc, text, strlen(text), "plan", 0, &err), &err);
        if (tg_plan_parse(&p, tg_json_root(doc), &spec, &err) == TG_OK)
            fail_msg("accepted: %s", rows[i].options);
        assert_null(p.layers);
        assert_says(&err, rows[i].says);
        tg_json_free(doc);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_ratio_of_changeable),
        cmocka_unit_test(test_bad_keep),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_bad_overrides),
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_options_held),
        cmocka_unit_test(test_rank_error),
        cmocka_unit_test(test_bad_option_files),
    };
    return tg_run_tests("plan", tests, sizeof tests / sizeof *tests);
}
