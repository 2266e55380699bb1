/* Plans from options and files, rankings, and what a student inherits. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "linearize/surgery/surgery.h"
#include "tests/small_model.h"

enum { LAYERS = 8 };

static struct tg_layer_spec teacher_layers[LAYERS];

/* Eight softmax layers, of which number 6 has a window of 16 */
static struct tg_model_spec teacher_spec(void)
{
    struct tg_model_spec spec = {.vocab = 40, .width = 16, .norm.eps = 1e-6, .tied_head = true};
    snprintf(spec.family, sizeof spec.family, "llama");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    spec.ropes[0].theta = 10000;
    spec.layer_count = LAYERS;
    spec.layers = teacher_layers;
    for (size_t l = 0; l < LAYERS; l++)
        teacher_layers[l] = (struct tg_layer_spec){.mixer = tg_mixer_schema_find("softmax"),
                                                   .heads = 4,
                                                   .kv_heads = 2,
                                                   .head_dim = 6,
                                                   .rotary_dim = 6,
                                                   .attn_scale = 1 / sqrt(6),
                                                   .mlp_dim = 24};
    teacher_layers[6].mixer = tg_mixer_schema_find("window");
    teacher_layers[6].window = 16;
    return spec;
}

static struct tg_plan_options options(const char *mixer, const char *keep)
{
    return (struct tg_plan_options){.mixer = mixer, .keep = keep, .sinks = -1};
}

/* "x..x": which layers change */
static const char *changed(const struct tg_plan *p, char text[LAYERS + 1])
{
    for (size_t l = 0; l < p->count; l++)
        text[l] = p->layers[l].mixer ? 'x' : '.';
    text[p->count] = '\0';
    return text;
}

static const struct {
    const char *keep, *changed;
} KEEPS[] = {
    /* layer 6's window of 16 is smaller than 128 and stays whatever is asked */
    {"none", "xxxxxx.x"}, {"1,4", "x.xx.x.x"},     {"0-2,5", "...xx..x"},   {"7", "xxxxxx.."},
    {"0-7", "........"},  {"every:4", "xxx.xx.."}, {"every:2", "x.x.x..."}, {"every:8", "xxxxxx.."},
    {"6", "xxxxxx.x"},    {"auto:0", "xxxxxx.x"},
};

static void test_keep(void **state)
{
    struct tg_model_spec spec = teacher_spec();
    (void)state;
    for (size_t i = 0; i < sizeof KEEPS / sizeof *KEEPS; i++) {
        struct tg_plan_options o = options(NULL, KEEPS[i].keep);
        struct tg_plan p;
        struct tg_err err = {0};
        char text[LAYERS + 1];
        tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
        assert_string_equal(changed(&p, text), KEEPS[i].changed);
        tg_plan_release(&p);
    }
}

static void test_keep_small_window(void **state)
{
    struct tg_model_spec spec = teacher_spec();
    struct tg_plan_options o = options("window", "none");
    struct tg_plan p;
    struct tg_err err = {0};
    (void)state;
    o.window = 8;
    tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
    assert_ptr_equal(p.layers[6].mixer, tg_mixer_schema_find("window"));
    assert_true(p.layers[6].set[TG_PLAN_WINDOW].value == 8);
    assert_true(p.layers[0].set[TG_PLAN_SINKS].value == 0);
    tg_plan_release(&p);
}

static const struct {
    struct tg_plan_options o;
    const char *says[2];
} BAD_OPTIONS[] = {
    {{.keep = "99", .sinks = -1}, {"99", "8"}},
    {{.keep = "3-99", .sinks = -1}, {"99", "8"}},
    {{.keep = "99999999999999999999", .sinks = -1}, {"keep", "99999999999999999999"}},
    {{.keep = "", .sinks = -1}, {"keep", "none"}},
    {{.keep = "4-1", .sinks = -1}, {"4-1", "keep"}},
    {{.keep = "1,", .sinks = -1}, {"1,", "keep"}},
    {{.keep = "1 ,2", .sinks = -1}, {"1 ,2", "keep"}},
    {{.keep = "-1", .sinks = -1}, {"-1", "keep"}},
    {{.keep = "all", .sinks = -1}, {"all", "keep"}},
    {{.keep = "every:1", .sinks = -1}, {"every:1", "8"}},
    {{.keep = "every:9", .sinks = -1}, {"every:9", "8"}},
    {{.keep = "every:x", .sinks = -1}, {"every:x", "keep"}},
    {{.keep = "auto:2", .sinks = -1}, {"auto:2", "ranking"}},
    {{.keep = "auto:8", .sinks = -1}, {"auto:8", "7"}},
    {{.keep = NULL, .sinks = -1}, {"auto:2", "ranking"}},
    {{.mixer = "mamba", .keep = "none", .sinks = -1}, {"mamba", "gated_window"}},
    {{.mixer = "softmax", .keep = "none", .sinks = -1}, {"softmax", "gated_window"}},
    {{.mixer = "window", .keep = "none", .sinks = -1, .feature_map = "relu"},
     {"feature_map", "window"}},
    {{.mixer = "window", .keep = "none", .sinks = -1, .feature_dim = 8}, {"8", "window"}},
    {{.keep = "none", .sinks = -1, .feature_map = "cosine"}, {"cosine", "feature_map"}},
    {{.keep = "none", .sinks = -1, .feature_map = "relu", .feature_dim = 3}, {"feature_dim", "3"}},
    {{.keep = "none", .sinks = 1000}, {"sinks", "1000"}},
    {{.keep = "none", .sinks = -1, .window = (size_t)1 << 40}, {"window", "1099511627776"}},
};

static void assert_says(const struct tg_err *err, const char *part)
{
    if (!strstr(err->msg, part) || strlen(err->msg) < strlen(part) + 8)
        fail_msg("'%s' is not in: %s", part, err->msg);
}

static void test_bad_options(void **state)
{
    struct tg_model_spec spec = teacher_spec();
    (void)state;
    for (size_t i = 0; i < sizeof BAD_OPTIONS / sizeof *BAD_OPTIONS; i++) {
        const char *keep = BAD_OPTIONS[i].o.keep;
        struct tg_plan p;
        struct tg_err err = {0};
        int status = tg_plan_make(&p, &spec, &BAD_OPTIONS[i].o, NULL, &err);
        if (status != TG_ERR_VALUE)
            fail_msg("row %zu (keep %s) gave %d", i, keep ? keep : "default", status);
        assert_null(p.layers);
        if (!(keep && strcmp(keep, "1,") == 0))
            assert_says(&err, BAD_OPTIONS[i].says[0]);
        assert_says(&err, BAD_OPTIONS[i].says[1]);
    }
}

/* Only softmax and window layers can change. */
static void test_other_mixers_refused(void **state)
{
    struct tg_model_spec spec = teacher_spec();
    struct tg_plan_options o = options(NULL, "none");
    struct tg_plan p;
    struct tg_err err = {0};
    (void)state;
    teacher_layers[3].mixer = tg_mixer_schema_find("gated_window");
    teacher_layers[3].window = 64;
    teacher_layers[3].feature_dim = 6;
    assert_int_equal(tg_plan_make(&p, &spec, &o, NULL, &err), TG_ERR_VALUE);
    assert_says(&err, "layer 3");
    assert_says(&err, "gated_window");
    o.keep = "3";
    tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
    tg_plan_release(&p);
}

static void test_auto(void **state)
{
    static const struct tg_rank_row rows[LAYERS] = {
        {0, 0.50, 0.000}, {1, 0.02, 0.001}, {2, 0.30, 0.30}, {3, 0.03, -0.004},
        {4, 0.90, 0.60},  {5, 0.10, 0.005}, {6, 9.00, 0.90}, {7, 0.01, 0.20},
    };
    static const struct {
        const char *keep;
        size_t pairs;
        const char *changed;
    } cases[] = {
        {"auto:1", 0, "xxxx.x.x"}, /* 6 cannot change */
        {"auto:2", 0, "xx.x.x.x"}, {"auto:3", 0, "xx.x.x.."},
        {"auto:4", 0, ".x.x.x.."}, /* recall of the rest is noise: KL decides */
        {"auto:5", 0, ".x.x...."}, {"auto:7", 0, "........"},
        {"auto:1", 3, "xxxx.x.x"}, /* a pair is two */
        {"auto:2", 3, "xxxx.x.."}, {"auto:3", 3, "xx.x.x.."},
    };
    size_t a[] = {2, 4, 4}, b[] = {4, 7, 6};
    double kl[] = {0.4, 0.3, 0.1}, lost[] = {0.101, 0.1, 0.0};
    struct tg_model_spec spec = teacher_spec();
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tg_rank rank = {
            (struct tg_rank_row *)rows, LAYERS, a, b, kl, lost, cases[i].pairs, 64};
        struct tg_plan_options o = options(NULL, cases[i].keep);
        struct tg_plan p;
        struct tg_err err = {0};
        char text[LAYERS + 1];
        tg_test_must(tg_plan_make(&p, &spec, &o, &rank, &err), &err);
        assert_string_equal(changed(&p, text), cases[i].changed);
        tg_plan_release(&p);
        rank.count = LAYERS - 1;
        assert_int_equal(tg_plan_make(&p, &spec, &o, &rank, &err), TG_ERR_MISMATCH);
    }
}

/* A file of its own in the system's folder for temporary files; the caller frees the name. */
static char *temporary(const char *text)
{
    char *path = tg_strdup("/tmp/tg_test_surgery_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    return path;
}

static void test_plan_file(void **state)
{
    struct tg_model_spec spec = teacher_spec();
    struct tg_plan_options o = {.mixer = "lolcats", .keep = "2", .window = 32, .sinks = 3};
    struct tg_plan p, q;
    struct tg_err err = {0};
    char *path = temporary("");
    (void)state;
    o.feature_map = "hedgehog_exp";
    o.feature_dim = 5;
    tg_test_must(tg_plan_make(&p, &spec, &o, NULL, &err), &err);
    assert_true(p.layers[0].set[TG_PLAN_GATED].value == 1);
    tg_test_must(tg_plan_save(&p, path, &err), &err);
    tg_test_must(tg_plan_load(&q, path, &spec, &err), &err);
    assert_int_equal(p.count, q.count);
    for (size_t l = 0; l < p.count; l++) {
        assert_ptr_equal(p.layers[l].mixer, q.layers[l].mixer);
        for (int k = 0; k < TG_PLAN_KEYS; k++) {
            assert_int_equal(p.layers[l].set[k].given, q.layers[l].set[k].given);
            assert_true(p.layers[l].set[k].value == q.layers[l].set[k].value);
        }
    }
    tg_plan_release(&p);
    tg_plan_release(&q);
    unlink(path);
    tg_free(path);
}

static int load_text(struct tg_plan *p, const char *text, struct tg_err *err)
{
    struct tg_model_spec spec = teacher_spec();
    char *path = temporary(text);
    int status = tg_plan_load(p, path, &spec, err);
    if (status)
        assert_says(err, path);
    unlink(path);
    tg_free(path);
    return status;
}

static void test_plan_json(void **state)
{
    struct tg_plan p;
    struct tg_err err = {0};
    char text[LAYERS + 1];
    (void)state;
    /* unlisted layers are kept, the file may change a small window, own keys beat the defaults */
    tg_test_must(
        load_text(&p,
                  "{\"mixer\": \"window\", \"layers\": [{\"layer\": 6, \"window\": 99},"
                  "{\"layer\": 1, \"mixer\": \"keep\"}, {\"layer\": 0, \"mixer\": \"lizard\"}]}",
                  &err),
        &err);
    assert_string_equal(changed(&p, text), "x.....x.");
    assert_true(p.layers[6].set[TG_PLAN_WINDOW].value == 99);
    assert_true(p.layers[0].set[TG_PLAN_WINDOW].value == 128);
    assert_true(p.layers[0].set[TG_PLAN_SINKS].value == 4);
    tg_plan_release(&p);
}

static const struct {
    const char *text, *says;
} BAD_PLANS[] = {
    {"", ""},
    {"[]", "object"},
    {"{}", "layers"},
    {"{\"layers\": {}}", "layers"},
    {"{\"layers\": [1]}", "layers[0]"},
    {"{\"layers\": [], \"mixr\": \"window\"}", "mixr"},
    {"{\"layers\": [{\"layer\": 99}]}", "99, the model has 8"},
    {"{\"layers\": [{\"layer\": -1}]}", "layers[0].layer"},
    {"{\"layers\": [{\"layer\": 1.5}]}", "layers[0].layer"},
    {"{\"layers\": [{\"layer\": \"1\"}]}", "layers[0].layer"},
    {"{\"layers\": [{\"mixer\": \"window\"}]}", "layer"},
    {"{\"layers\": [{\"layer\": 1}, {\"layer\": 1}]}", "layers[1].layer"},
    {"{\"layers\": [{\"layer\": 1, \"mixer\": \"mamba\"}]}", "mamba"},
    {"{\"layers\": [{\"layer\": 1, \"mixer\": 3}]}", "layers[0].mixer"},
    {"{\"layers\": [{\"layer\": 1, \"windw\": 3}]}", "windw"},
    {"{\"layers\": [{\"layer\": 1, \"window\": \"3\"}]}", "layers[0].window"},
    {"{\"layers\": [{\"layer\": 1, \"window\": 0}]}", "window 0"},
    {"{\"layers\": [{\"layer\": 1, \"window\": -3}]}", "layers[0].window"},
    {"{\"layers\": [{\"layer\": 1, \"window\": 1e300}]}", "layers[0].window"},
    {"{\"layers\": [{\"layer\": 1, \"sinks\": 1e6}]}", "layers[0].sinks"},
    {"{\"layers\": [{\"layer\": 1, \"gated\": 1}]}", "layers[0].gated"},
    {"{\"layers\": [{\"layer\": 1, \"gated\": true}]}", "gated"},
    {"{\"layers\": [{\"layer\": 1, \"feature_map\": \"cos\"}]}", "layers[0].feature_map"},
    {"{\"layers\": [{\"layer\": 1, \"feature_dim\": -1}]}", "layers[0].feature_dim"},
    {"{\"layers\": [{\"layer\": 1, \"mixer\": \"keep\", \"window\": 3}]}", "window"},
    {"{\"layers\": [{\"layer\": 1, \"mixer\": \"lolcats\", \"sinks\": 1}]}", "sinks 1"},
};

static void test_bad_plans(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof BAD_PLANS / sizeof *BAD_PLANS; i++) {
        struct tg_plan p;
        struct tg_err err = {0};
        if (load_text(&p, BAD_PLANS[i].text, &err) == TG_OK)
            fail_msg("accepted: %s", BAD_PLANS[i].text);
        assert_null(p.layers);
        assert_says(&err, BAD_PLANS[i].says);
    }
}

static void test_rank_file(void **state)
{
    struct tg_rank_row rows[] = {{0, 0.1, 0.25}, {1, 1.0 / 3, -0.01}, {2, 0, 1}};
    size_t a[] = {0, 1}, b[] = {2, 2};
    double kl[] = {0.7, 1e-9}, lost[] = {0.5, 0};
    struct tg_rank r = {rows, 3, a, b, kl, lost, 2, 64}, s;
    struct tg_err err = {0};
    char *path = temporary("");
    (void)state;
    tg_test_must(tg_rank_save(&r, path, &err), &err);
    tg_test_must(tg_rank_load(&s, path, &err), &err);
    assert_int_equal(s.count, 3);
    assert_int_equal(s.pairs, 2);
    assert_int_equal(s.window, 64);
    assert_memory_equal(s.rows, rows, sizeof rows);
    assert_memory_equal(s.pair_a, a, sizeof a);
    assert_memory_equal(s.pair_b, b, sizeof b);
    assert_memory_equal(s.pair_kl, kl, sizeof kl);
    assert_memory_equal(s.pair_recall_lost, lost, sizeof lost);
    tg_rank_release(&s);
    unlink(path);
    tg_free(path);
}

static void test_bad_ranks(void **state)
{
    static const char *const texts[] = {
        "{}",
        "{\"window\": 64, \"layers\": []}",
        "{\"window\": 0, \"layers\": [{\"layer\":0,\"kl\":0,\"recall_lost\":0}]}",
        "{\"window\": 64, \"layers\": [{\"layer\":1,\"kl\":0,\"recall_lost\":0}]}",
        "{\"window\": 64, \"layers\": [{\"layer\":0,\"kl\":null,\"recall_lost\":0}]}",
        "{\"window\": 64, \"layers\": [{\"layer\":0,\"kl\":0,\"recall_lost\":2}]}",
        "{\"window\": 64, \"layers\": [{\"layer\":0,\"kl\":0,\"recall_lost\":0}], \"pairs\": 1}",
        "{\"window\": 64, \"layers\": [{\"layer\":0,\"kl\":0,\"recall_lost\":0}],"
        " \"pairs\": [{\"keep\":[0,1],\"kl\":0,\"recall_lost\":0}]}",
        "{\"window\": 64, \"layers\": [{\"layer\":0,\"kl\":0,\"recall_lost\":0}],"
        " \"pairs\": [{\"keep\":[0],\"kl\":0,\"recall_lost\":0}]}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct tg_rank r;
        struct tg_err err = {0};
        char *path = temporary(texts[i]);
        if (tg_rank_load(&r, path, &err) == TG_OK)
            fail_msg("accepted: %s", texts[i]);
        assert_says(&err, path);
        assert_null(r.rows);
        unlink(path);
        tg_free(path);
    }
}

/* Shared parameters are copied bit for bit, kept layers too; new ones are the mixer's own start. */
static void test_inheritance(void **state)
{
    static const struct tg_test_shape shape = {4, 16, 4, 2, 6, 24, 40, true, true, false};
    static const char *const mixers[] = {"window", "gated_window", "lolcats", "lizard"};
    struct tg_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof mixers / sizeof *mixers; i++) {
        struct tg_model *t = tg_test_teacher(&shape, 1, 5), *s;
        struct tg_plan_options o = options(mixers[i], "1");
        struct tg_plan p;
        size_t copied = 0, new_ones = 0;
        tg_test_must(tg_plan_make(&p, &t->spec, &o, NULL, &err), &err);
        tg_test_must(tg_surgery_apply(t, &p, NULL, &s, &err), &err);
        assert_string_equal(s->spec.family, "tegu");
        assert_string_equal(s->spec.base_family, "llama");
        assert_string_equal(s->spec.layers[1].mixer->name, "softmax");
        assert_string_equal(s->spec.layers[2].mixer->name, mixers[i]);
        for (size_t k = 0; k < s->params.count; k++) {
            const struct tg_param *to = &s->params.items[k];
            const float *from = tg_model_param(t, to->name);
            new_ones += to->is_new;
            assert_int_equal(from == NULL, to->is_new);
            copied += from != NULL;
            if (from)
                assert_memory_equal(s->data + to->offset, from, to->count * sizeof *from);
        }
        assert_int_equal(copied, t->params.count);
        assert_int_equal(new_ones > 0, strcmp(mixers[i], "window") != 0);
        tg_plan_release(&p);
        tg_model_free(s);
        tg_model_free(t);
    }
}

static void test_gated_window_start(void **state)
{
    static const struct tg_test_shape shape = {1, 16, 4, 2, 6, 24, 40, false, false, true};
    struct tg_model *t = tg_test_teacher(&shape, 1, 5), *s;
    struct tg_plan_options o = options("gated_window", "none");
    struct tg_plan p;
    struct tg_err err = {0};
    (void)state;
    tg_test_must(tg_plan_make(&p, &t->spec, &o, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(t, &p, NULL, &s, &err), &err);
    for (size_t h = 0; h < 4; h++) {
        assert_true(tg_model_param(s, "layers.0.mixer.gate.bias")[h] == 5);
        assert_true(tg_model_param(s, "layers.0.mixer.far_logit")[h] == 0);
        assert_true(tg_model_param(s, "layers.0.mixer.sink")[h] == -4);
        for (size_t i = 0; i < 36; i++)
            assert_true(tg_model_param(s, "layers.0.mixer.map_q.weight")[h * 36 + i] ==
                        (float)(i % 7 == 0));
    }
    tg_plan_release(&p);
    tg_model_free(s);
    tg_model_free(t);
}

/* A window row whose layers have a kv head for each query head, and one with a single kv head */
static void each_its_own(struct tg_layer_spec *l)
{
    l->kv_heads = l->heads;
}
static void one_for_all(struct tg_layer_spec *l)
{
    l->kv_heads = 1;
}

static struct tg_model *teacher_with(enum tg_qk_norm norm)
{
    static const struct tg_test_shape shape = {2, 16, 6, 2, 6, 24, 40, true, true, true};
    struct tg_model *plain = tg_test_teacher(&shape, 1, 5), *t;
    struct tg_err err = {0};
    for (size_t l = 0; l < 2; l++)
        plain->spec.layers[l].qk_norm = norm;
    tg_test_must(tg_model_create(&t, &plain->spec, &plain->ctx, &err), &err);
    for (size_t i = 0; i < t->params.count; i++) {
        struct tg_rng rng = tg_rng_make(6, i);
        for (size_t j = 0; j < t->params.items[i].count; j++)
            t->data[t->params.items[i].offset + j] = (float)(0.5 + 0.5 * tg_rng_normal(&rng));
    }
    tg_model_free(plain);
    return t;
}

enum { TOKENS = 30 };
static void hidden_of(const struct tg_model *m, float *hidden)
{
    static const size_t begin[] = {0, TOKENS};
    const struct tg_batch b = {.count = 1, .begin = begin};
    struct tg_run *run;
    struct tg_err err = {0};
    int32_t ids[TOKENS];
    tg_test_ids(ids, TOKENS, m->spec.vocab, 2);
    tg_test_must(tg_run_create(&run, &err), &err);
    tg_test_must(tg_run_fit(run, m, &b, false, &err), &err);
    tg_model_forward(m, run, ids, &b, hidden, false, NULL);
    tg_run_free(run);
}

/* Repeated kv heads give the teacher's own outputs, whatever the norm of k is over. */
static void test_repeated_heads(void **state)
{
    struct tg_mixer_schema row = *tg_mixer_schema_find("window");
    struct tg_plan_layer layers[2] = {{.mixer = &row}, {.mixer = &row}};
    const struct tg_plan plan = {.layers = layers, .count = 2};
    layers[0].set[TG_PLAN_WINDOW] = layers[1].set[TG_PLAN_WINDOW] = tg_given(TOKENS);
    float want[TOKENS * 16], got[TOKENS * 16];
    struct tg_err err = {0};
    (void)state;
    for (int norm = TG_QK_NONE; norm <= TG_QK_WIDE; norm++) {
        struct tg_model *t = teacher_with((enum tg_qk_norm)norm), *s;
        row.adopt = each_its_own;
        tg_test_must(tg_surgery_apply(t, &plan, NULL, &s, &err), &err);
        assert_int_equal(s->spec.layers[1].kv_heads, 6);
        hidden_of(t, want);
        hidden_of(s, got);
        assert_below(tg_rel_error_f(got, want, TOKENS * 16), 1e-5, "repeated kv heads");
        tg_model_free(s);
        row.adopt = one_for_all;
        assert_int_equal(tg_surgery_apply(t, &plan, NULL, &s, &err), TG_ERR_MISMATCH);
        assert_non_null(strstr(err.msg, "layers.0.mixer.k.weight"));
        assert_null(s);
        tg_model_free(t);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep),           cmocka_unit_test(test_keep_small_window),
        cmocka_unit_test(test_bad_options),    cmocka_unit_test(test_other_mixers_refused),
        cmocka_unit_test(test_auto),           cmocka_unit_test(test_plan_file),
        cmocka_unit_test(test_plan_json),      cmocka_unit_test(test_bad_plans),
        cmocka_unit_test(test_rank_file),      cmocka_unit_test(test_bad_ranks),
        cmocka_unit_test(test_inheritance),    cmocka_unit_test(test_gated_window_start),
        cmocka_unit_test(test_repeated_heads),
    };
    return tg_run_tests("surgery", tests, sizeof tests / sizeof *tests);
}
