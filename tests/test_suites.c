/* Validation suites, each on a hand-made oracle and a hand-made failure; results, checks and the
 * table of suites.
 *
 * The hand-made model: every weight zero but embedding, final norm and head. The mixers then add
 * nothing, the hidden state is the same for each token, and the logits are the head's row sums: a
 * distribution chosen by hand. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/strbuf.h"
#include "formats/corpus.h"
#include "linearize/kernels/gemm.h"
#include "linearize/surgery/surgery.h"
#include "tools/eval/validate.h"

enum { N = 4, D = 2, TOKENS = 40, LENGTH = 16 };
#define TOL 1e-6

static struct tg_ctx ctx(void)
{
    struct tg_ctx c = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 2};
    tg_gemm_init();
    return c;
}

/* A model that gives token i the logit logits[i], whatever the text. */
static struct tg_model *constant_model(const double *logits)
{
    struct tg_layer_spec layer = {.mixer = tg_mixer_schema_find("softmax"),
                                  .heads = 1,
                                  .kv_heads = 1,
                                  .head_dim = 2,
                                  .rotary_dim = 2,
                                  .attn_scale = 1,
                                  .mlp_dim = 2};
    struct tg_model_spec spec = {.vocab = N,
                                 .width = D,
                                 .norm.eps = 1e-5,
                                 .ropes = {{.theta = 1e4}},
                                 .bos_id = -1,
                                 .layer_count = 1,
                                 .layers = &layer};
    snprintf(spec.family, sizeof spec.family, "llama");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    struct tg_ctx c = ctx();
    struct tg_model *m = NULL;
    struct tg_err err = {0};
    if (tg_model_create(&m, &spec, &c, &err) != TG_OK)
        fail_msg("%s", err.msg);
    float *embed = tg_model_param(m, "embed.weight"), *norm = tg_model_param(m, "norm_out.weight");
    float *head = tg_model_param(m, "head.weight");
    for (size_t i = 0; i < N * D; i++) {
        embed[i] = 1; /* root mean square 1: the norm leaves it (nearly: eps) */
        head[i] = (float)(logits[i / D] / D);
    }
    for (size_t i = 0; i < D; i++)
        norm[i] = (float)sqrt(1 + 1e-5);
    return m;
}

static double log_sum(const double *x)
{
    double s = 0;
    for (size_t i = 0; i < N; i++)
        s += exp(x[i]);
    return log(s);
}

static const double one[N] = {0, 1, 2, 3}, other[N] = {3, 1, 2, 0.5};

static void text(int32_t *ids)
{
    for (size_t i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)(i * i % N);
}

/* What the two distributions give, by hand */
static double kl_by_hand(void)
{
    double kl = 0, za = log_sum(one), zb = log_sum(other);
    for (size_t i = 0; i < N; i++)
        kl += exp(one[i] - za) * ((one[i] - za) - (other[i] - zb));
    return kl;
}
static double ppl_by_hand(const double *logits)
{
    int32_t ids[TOKENS];
    double nll = 0;
    size_t n = 0;
    text(ids);
    for (size_t i = 0; i < TOKENS; i++)
        if (i % LENGTH) { /* the first token of a window is given */
            nll += log_sum(logits) - logits[ids[i]];
            n++;
        }
    return exp(nll / (double)n);
}

static void run_suite(const char *name, struct tg_model *teacher, struct tg_model *student,
                      struct tg_results *r)
{
    int32_t ids[TOKENS];
    struct tg_err err = {0};
    struct tg_suite_job job = {.teacher = teacher,
                               .student = student,
                               .ids = ids,
                               .count = TOKENS,
                               .length = LENGTH,
                               .prompts = 2,
                               .prompt_len = 4,
                               .continuation = 8};
    text(ids);
    if (tg_suite_find(name)->run(&job, r, &err) != TG_OK)
        fail_msg("%s: %s", name, err.msg);
}

static void test_ppl(void **state)
{
    (void)state;
    struct tg_model *a = constant_model(one), *b = constant_model(other);
    struct tg_results r = {0};
    run_suite("ppl", a, b, &r);
    assert_below(fabs(tg_results_get(&r, "teacher.ppl") / ppl_by_hand(one) - 1), TOL,
                 "teacher.ppl");
    assert_below(fabs(tg_results_get(&r, "student.ppl") / ppl_by_hand(other) - 1), TOL,
                 "student.ppl");
    assert_true(tg_results_get(&r, "targets") == TOKENS - 3); /* windows of 16, 16 and 8 */
    tg_results_release(&r);
    run_suite("ppl", NULL, b, &r); /* alone */
    assert_below(fabs(tg_results_get(&r, "student.ppl") / ppl_by_hand(other) - 1), TOL,
                 "student.ppl alone");
    assert_null(tg_results_find(&r, "teacher.ppl"));
    tg_results_release(&r);
    tg_model_free(a);
    tg_model_free(b);
}

static void test_kl(void **state)
{
    (void)state;
    struct tg_model *a = constant_model(one), *b = constant_model(other);
    struct tg_results r = {0};
    run_suite("kl", a, a, &r);
    assert_below(fabs(tg_results_get(&r, "kl")), TOL, "kl to itself");
    assert_true(tg_results_get(&r, "top1") == 1);
    tg_results_release(&r);
    run_suite("kl", a, b, &r);
    assert_below(fabs(tg_results_get(&r, "kl") / kl_by_hand() - 1), TOL, "kl");
    assert_true(tg_results_get(&r, "top1") == 0);
    assert_true(tg_results_get(&r, "positions") == TOKENS);
    assert_below(fabs(tg_results_get(&r, "buckets.8-15.kl") / kl_by_hand() - 1), TOL,
                 "kl of a bucket");
    assert_true(tg_results_get(&r, "buckets.8-15.positions") == 16); /* two windows reach there */
    assert_null(tg_results_find(&r, "buckets.16-31.kl"));
    tg_results_release(&r);
    tg_model_free(a);
    tg_model_free(b);
}

static void test_generation(void **state)
{
    (void)state;
    struct tg_model *a = constant_model(one), *b = constant_model(other);
    struct tg_results r = {0};
    run_suite("generation", a, a, &r);
    assert_true(tg_results_get(&r, "generation_agreement") == 1);
    run_suite("generation", a, b, &r);
    assert_true(tg_results_get(&r, "generation_agreement") == 0);
    tg_results_release(&r);
    tg_model_free(a);
    tg_model_free(b);
}

/* The embedded teacher finds what stands far back; with a window of 16 it cannot. */
static void test_recall(void **state)
{
    (void)state;
    const char *path = "examples/teacher-8m";
    struct tg_err err = {0};
    struct tg_ctx c = ctx();
    struct tg_model *teacher = NULL, *blind = NULL;
    struct tg_tokenizer *tok = NULL;
    struct tg_ids ids = {0};
    struct tg_corpus_spec spec = {0};
    struct tg_recall_source source = {0};
    struct tg_plan plan = {0};
    struct tg_plan_options o = {.mixer = "window", .keep = "none", .window = 16, .sinks = 0};
    struct tg_results r = {0};
    struct tg_recall_size sizes[1];
    if (tg_model_load(&teacher, path, &c, &err) || tg_tokenizer_load(&tok, path, 0, &err) ||
        tg_corpus_spec_parse("examples/teacher-8m/heldout.txt.gz@0:8000", &spec, &err) ||
        tg_corpus_read(&spec, tok, 8192, &ids, &err) ||
        tg_recall_source_init(&source, tok, ids.data, ids.count, &err) ||
        tg_recall_size_parse("needle:256", &sizes[0], &err) ||
        tg_plan_make(&plan, &teacher->spec, &o, NULL, &err) ||
        tg_surgery_apply(teacher, &plan, NULL, &blind, &err))
        fail_msg("%s", err.msg);
    struct tg_suite_job job = {.teacher = teacher,
                               .student = blind,
                               .recall = &source,
                               .sizes = sizes,
                               .size_count = 1,
                               .items = 4};
    if (tg_suite_find("recall")->run(&job, &r, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_true(tg_results_get(&r, "recall.needle.256.teacher") == 1);
    assert_true(tg_results_get(&r, "recall.needle.256.student") == 0);
    tg_results_release(&r);
    tg_plan_release(&plan);
    tg_recall_source_release(&source);
    tg_corpus_spec_release(&spec);
    tg_ids_release(&ids);
    tg_tokenizer_free(tok);
    tg_model_free(blind);
    tg_model_free(teacher);
}

/* Every row of the table: found by name, and its names are what its run puts (recall's run has a
 * test of its own). */
static void test_registry(void **state)
{
    (void)state;
    struct tg_model *a = constant_model(one), *b = constant_model(other);
    for (size_t i = 0; tg_suites[i]; i++) {
        const struct tg_suite *s = tg_suites[i];
        struct tg_results names = {0}, run = {0};
        struct tg_err err = {0};
        struct tg_suite_job job = {0};
        assert_ptr_equal(tg_suite_find(s->name), s);
        assert_true(s->summary && s->summary[0]);
        assert_int_equal(s->names(&job, true, &names, &err), TG_OK);
        if (!s->needs_tokenizer) {
            run_suite(s->name, a, b, &run);
            for (size_t k = 0; k < names.count; k++)
                if (!tg_results_find(&run, names.items[k].path))
                    fail_msg("%s: %s is promised and not put", s->name, names.items[k].path);
            for (size_t k = 0; k < run.count; k++)
                if (strncmp(run.items[k].path, "buckets.", 8) != 0 &&
                    !tg_results_find(&names, run.items[k].path))
                    fail_msg("%s: %s is put and not promised", s->name, run.items[k].path);
        }
        tg_results_release(&names);
        tg_results_release(&run);
    }
    assert_null(tg_suite_find("none"));
    tg_model_free(a);
    tg_model_free(b);
}

static void put(struct tg_results *r, const char *path, double v)
{
    assert_int_equal(tg_results_put(r, v, NULL, "%s", path), TG_OK);
}

static void test_checks(void **state)
{
    (void)state;
    struct tg_results r = {0};
    static const struct {
        const char *text, *path; /* path NULL: an error */
        bool fails;
    } cases[] = {
        {"kl>0.05", "kl", false},
        {"kl>0.005", "kl", true},
        {"kl >= 0.01", "kl", true},
        {"kl<0.01", "kl", false},
        {"kl<=0.01", "kl", true},
        {"needle.1024<0.95", "recall.needle.1024.student", true},
        {"recall.needle.1024.teacher<0.95", "recall.needle.1024.teacher", false},
        {"student.ppl>7", "student.ppl", true},
        {"buckets.8-15.kl>0.5", "buckets.8-15.kl", true},
        {"lost>1", "lost", true}, /* not a number: fails */
        {"lost<1", "lost", true},
        {"ppl>7", NULL, false},     /* teacher's or student's */
        {"8-15.kl>7", NULL, false}, /* buckets only in full */
        {"needle<1", NULL, false},  /* no leaf */
        {"1024<1", "recall.needle.1024.student", true},
        {"kl", NULL, false},
        {"kl>", NULL, false},
        {"kl>x", NULL, false},
        {"kl=1", NULL, false},
        {">1", NULL, false},
        {"kl>1 2", NULL, false},
        {"kl>nan", NULL, false},
    };
    put(&r, "teacher.ppl", 8);
    put(&r, "student.ppl", 9);
    put(&r, "kl", 0.01);
    put(&r, "recall.needle.1024.teacher", 1);
    put(&r, "recall.needle.1024.student", 0.9);
    put(&r, "buckets.8-15.kl", 1);
    put(&r, "untrained.kl", 2);
    put(&r, "lost", NAN);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tg_check c;
        const struct tg_result *found = NULL;
        struct tg_err err = {0};
        int status = tg_check_parse(cases[i].text, &c, &err);
        if (status == TG_OK)
            status = tg_check_resolve(&c, &r, &found, &err);
        if ((status == TG_OK) != (cases[i].path != NULL))
            fail_msg("%s: %s", cases[i].text, status ? err.msg : "was accepted");
        if (status)
            continue;
        assert_string_equal(found->path, cases[i].path);
        if (tg_check_fails(&c, found->value) != cases[i].fails)
            fail_msg("%s: judged wrongly", cases[i].text);
    }
    tg_results_release(&r);
}

/* Dotted paths become nested objects and come back. */
static void test_results_json(void **state)
{
    (void)state;
    struct tg_results r = {0}, back = {0};
    struct tg_strbuf s;
    struct tg_json_out out;
    struct tg_json_doc *doc = NULL;
    struct tg_err err = {0};
    put(&r, "teacher.ppl", 8.5);
    put(&r, "kl", 0.25);
    put(&r, "teacher.params", 7);
    put(&r, "recall.kv.8.student", 1);
    put(&r, "recall.kv.32.student", 0);
    tg_strbuf_init(&s, 1 << 16);
    tg_jout_init(&out, &s, 0);
    tg_jout_object(&out, NULL);
    tg_results_write_json(&r, &out);
    tg_jout_end_object(&out);
    if (tg_json_parse(&doc, s.text, s.len, "results", 0, &err) ||
        tg_results_read_json(&back, tg_json_root(doc), &err))
        fail_msg("%s: %s", err.msg, s.text); /* the parser refuses a name written twice */
    assert_int_equal(back.count, r.count);
    for (size_t i = 0; i < r.count; i++)
        assert_true(tg_results_get(&back, r.items[i].path) == r.items[i].value);
    tg_json_free(doc);
    tg_strbuf_release(&s);
    tg_results_release(&r);
    tg_results_release(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ppl),          cmocka_unit_test(test_kl),
        cmocka_unit_test(test_generation),   cmocka_unit_test(test_recall),
        cmocka_unit_test(test_registry),     cmocka_unit_test(test_checks),
        cmocka_unit_test(test_results_json),
    };
    return tg_run_tests("suites", tests, sizeof tests / sizeof tests[0]);
}
