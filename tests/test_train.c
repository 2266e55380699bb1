/* The trainer on a small model: optimizer and schedule against double, LoRA's gradients, losses
 * that fall, runs that were stopped or copied in the middle and end with the same bits, settings.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "distill/eval.h"
#include "distill/hidden.h"
#include "distill/lora.h"
#include "distill/optim.h"
#include "formats/tensors.h"
#include "linearize/surgery/surgery.h"
#include "tests/check.h"
#include "tests/small_model.h"

static const double ROUNDING = 1e-5; /* float32 sums of a few dozen terms, some steps on */
enum { LENGTH = 16, TEXT = 16 * 40, SEED = 7 };
static const struct tg_test_shape shape = {
    .layers = 3, .width = 16, .heads = 2, .kv_heads = 1, .head_dim = 8, .mlp = 24, .vocab = 41};

static char root[64];
static const char *hidden_dir; /* of every run's job */
static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/tegu-train-XXXXXX");
    return mkdtemp(root) ? 0 : 1;
}
static int teardown(void **state)
{
    (void)state;
    hidden_dir = NULL;
    return tg_dir_remove(root, NULL);
}
static void in_root(char *path, size_t size, const char *name)
{
    snprintf(path, size, "%s/%s", root, name);
}

static struct tg_data *open_data(void)
{
    struct tg_err err = {0};
    char path[128], *files[1] = {path};
    int32_t ids[TEXT];
    struct tg_tensor_writer *w = NULL;
    struct tg_tensor_plan plan = {.name = "ids", .dtype = TG_I32, .rank = 1, .shape = {TEXT}};
    in_root(path, sizeof path, "text.safetensors");
    tg_test_ids(ids, TEXT, shape.vocab, SEED);
    tg_test_must(tg_tensor_writer_open(&w, path, &plan, 1, &tg_write_single, &err), &err);
    tg_test_must(tg_tensor_writer_put_raw(w, ids, &err), &err);
    tg_test_must(tg_tensor_writer_finish(w, &err), &err);
    tg_tensor_writer_close(w);
    struct tg_data_settings set = {.files = files, .file_count = 1, .length = LENGTH, .seed = SEED};
    struct tg_data *data = NULL;
    tg_test_must(tg_data_open(&data, &set, NULL, shape.vocab, &err), &err);
    return data;
}

static struct tg_model *make_student(const struct tg_model *teacher)
{
    struct tg_err err = {0};
    struct tg_plan plan;
    struct tg_model *student;
    struct tg_plan_options options = {.keep = "1", .window = 3, .sinks = 1};
    tg_test_must(tg_plan_make(&plan, &teacher->spec, &options, NULL, &err), &err);
    tg_test_must(tg_surgery_apply(teacher, &plan, NULL, &student, &err), &err);
    tg_plan_release(&plan);
    return student;
}

static const char *const stage_args[] = {
    "align:tokens=512,batch=4,micro=3,lr=1e-2,lr_new=1e-2",
    "kl:tokens=640,batch=4,micro=2,lr=3e-3,lr_new=1e-2,ce_share=0.1,temperature=1.5",
    "kl:tokens=512,batch=4,micro=1,lr=1e-2,train=lora:3",
    "ce:tokens=256,batch=2,lr=1e-3,decay=0.1",
};
enum { STAGES = sizeof stage_args / sizeof *stage_args };

/* A whole run in DIR, or as far as `stop_after` updates from here (0: to the end). */
struct stopper {
    long left;
    const char *copy_from, *copy_to; /* the run is copied at the stop instead of stopped */
};
static void copy_file(const char *from, const char *to)
{
    struct tg_err err = {0};
    char *text;
    size_t len;
    tg_test_must(tg_file_read(from, 1 << 26, &text, &len, &err), &err);
    tg_test_must(tg_file_write(to, text, len, &err), &err);
    tg_free(text);
}
static int count_down(void *ud, const char *phase, uint64_t done, uint64_t total, const char *unit,
                      const char *note)
{
    (void)phase, (void)done, (void)total, (void)unit, (void)note;
    struct stopper *s = ud;
    if (s->left == 0 || --s->left > 0)
        return 0;
    if (!s->copy_from)
        return 1;
    char from[256], to[256];
    snprintf(to, sizeof to, "%s/state", s->copy_to);
    assert_int_equal(tg_dir_make(to, NULL), TG_OK);
    static const char *const files[] = {"log.jsonl", "state/state.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/%s", s->copy_from, files[i]);
        snprintf(to, sizeof to, "%s/%s", s->copy_to, files[i]);
        copy_file(from, to);
    }
    return 0;
}

static int run(const char *dir, int threads, struct stopper *stopper, double save_every,
               const char *fingerprint, float **weights, size_t *floats, struct tg_err *err)
{
    struct tg_model *teacher = tg_test_teacher(&shape, threads, 1);
    struct tg_model *student = make_student(teacher);
    struct tg_data *data = open_data();
    struct tg_stage_settings stages[STAGES];
    for (size_t i = 0; i < STAGES; i++)
        tg_test_must(tg_stage_parse_arg(stage_args[i], &stages[i], err), err);
    struct tg_progress progress = {count_down, stopper};
    struct tg_train_job job = {.teacher = teacher,
                               .student = student,
                               .data = data,
                               .stages = stages,
                               .stage_count = STAGES,
                               .seed = SEED,
                               .run_dir = dir,
                               .fingerprint = fingerprint,
                               .save_every = save_every,
                               .progress = stopper ? &progress : NULL,
                               .hidden_dir = hidden_dir};
    int status = tg_train(&job, err);
    if (weights && status == TG_OK) {
        *floats = student->params.floats;
        *weights = tg_alloc_floats(*floats);
        assert_non_null(*weights);
        memcpy(*weights, student->data, *floats * sizeof **weights);
    }
    tg_data_close(data);
    tg_model_free(student);
    tg_model_free(teacher);
    return status;
}

/* The log with its times left out, which are the only thing that may differ. */
static char *log_of(const char *dir, size_t *lines)
{
    struct tg_err err = {0};
    char path[256], *text;
    size_t len, to = 0;
    snprintf(path, sizeof path, "%s/log.jsonl", dir);
    tg_test_must(tg_file_read(path, 1 << 24, &text, &len, &err), &err);
    *lines = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        char *seconds = strstr(line, "\"seconds\"");
        assert_non_null(seconds);
        assert_true(seconds < end);
        memmove(text + to, line, (size_t)(seconds - line));
        to += (size_t)(seconds - line);
        ++*lines;
    }
    text[to] = '\0';
    return text;
}

struct outcome {
    float *weights;
    size_t floats, lines;
    char *log;
};
static struct outcome finish(const char *name, int threads)
{
    struct tg_err err = {0};
    struct outcome o = {0};
    char dir[128];
    in_root(dir, sizeof dir, name);
    tg_test_must(run(dir, threads, NULL, 1e9, "{\"a\":1}", &o.weights, &o.floats, &err), &err);
    o.log = log_of(dir, &o.lines);
    return o;
}
static void outcome_free(struct outcome *o)
{
    tg_free(o->weights);
    tg_free(o->log);
}
static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->floats, b->floats);
    assert_memory_equal(a->weights, b->weights, a->floats * sizeof(float));
    assert_int_equal(a->lines, b->lines);
    assert_string_equal(a->log, b->log);
}

static void test_threads(void **state)
{
    (void)state;
    struct outcome one = finish("threads1", 1), two = finish("threads2", 2);
    assert_int_equal(one.lines, 8 + 10 + 8 + 8);
    assert_same(&one, &two);
    outcome_free(&one);
    outcome_free(&two);
}

/* Stopped after every few updates, in every stage, and gone on with each time. */
static void test_stopped(void **state)
{
    (void)state;
    struct tg_err err = {0};
    struct outcome whole = finish("whole", 1), parts = {0};
    char dir[128];
    int status = TG_ERR_INTERRUPTED, stops = 0;
    in_root(dir, sizeof dir, "stopped");
    while (status == TG_ERR_INTERRUPTED) {
        struct stopper s = {.left = 1 + stops % 4};
        status = run(dir, 1, &s, 1e9, "{\"a\":1}", &parts.weights, &parts.floats, &err);
        stops++;
    }
    tg_test_must(status, &err);
    assert_true(stops > 8);
    parts.log = log_of(dir, &parts.lines);
    assert_same(&whole, &parts);
    outcome_free(&whole);
    outcome_free(&parts);
}

/* A run that was killed is the files that it left: they are copied in the middle, the log being
 * ahead of the state. */
static void test_killed(void **state)
{
    (void)state;
    struct outcome whole = finish("not-killed", 1);
    for (long at = 2; at <= 34; at += 4) {
        struct tg_err err = {0};
        char from[128], to[128], name[48];
        snprintf(name, sizeof name, "killed-%ld", at);
        in_root(from, sizeof from, name);
        snprintf(name, sizeof name, "killed-%ld-copy", at);
        in_root(to, sizeof to, name);
        struct stopper s = {.left = at, .copy_from = from, .copy_to = to};
        tg_test_must(run(from, 1, &s, 0, "{\"a\":1}", NULL, NULL, &err), &err);
        struct outcome rest = finish(name, 1);
        assert_same(&whole, &rest);
        outcome_free(&rest);
    }
    outcome_free(&whole);
}

static void assert_same_as(const struct outcome *want, const char *name)
{
    struct outcome o = finish(name, 1);
    assert_same(want, &o);
    outcome_free(&o);
}

/* Runs that share the teacher's hidden states end with the bits of one that does not, also where
 * the file was damaged or cut short; what it holds is used. */
static void test_hidden(void **state)
{
    (void)state;
    struct tg_err err = {0};
    struct tg_hidden h = {.fd = -1};
    struct outcome whole = finish("hidden-not", 1), wrong;
    char dir[128], path[160];
    float zeros[LENGTH * 16] = {0}, kept[LENGTH * 16];
    in_root(dir, sizeof dir, "hidden");
    hidden_dir = dir;
    assert_same_as(&whole, "hidden-first");
    assert_same_as(&whole, "hidden-second");
    snprintf(path, sizeof path, "%s/1", dir); /* the kl stage of 40 sequences */
    tg_test_must(tg_hidden_open(&h, path, LENGTH, shape.width, &err), &err);
    const off_t record = sizeof kept + 4;
    assert_int_equal(lseek(h.fd, 0, SEEK_END), 40 * record);
    assert_true(tg_hidden_get(&h, 39, kept));
    assert_false(tg_hidden_get(&h, 40, kept));

    assert_int_equal(pwrite(h.fd, "?", 1, 7 * record + 100), 1);
    assert_false(tg_hidden_get(&h, 7, kept));
    assert_same_as(&whole, "hidden-damaged");
    assert_true(tg_hidden_get(&h, 7, kept));
    assert_int_equal(ftruncate(h.fd, 20 * record - 3), 0);
    assert_false(tg_hidden_get(&h, 19, kept));
    assert_same_as(&whole, "hidden-short");
    assert_true(tg_hidden_get(&h, 39, kept));
    assert_int_equal(ftruncate(h.fd, 0), 0);
    tg_test_must(tg_hidden_put(&h, 39, kept, &err), &err);
    assert_false(tg_hidden_get(&h, 0, kept)); /* a hole */
    assert_same_as(&whole, "hidden-hole");

    for (uint64_t n = 0; n < 40; n++)
        tg_test_must(tg_hidden_put(&h, n, zeros, &err), &err);
    wrong = finish("hidden-wrong", 1);
    assert_memory_not_equal(wrong.weights, whole.weights, whole.floats * sizeof(float));
    tg_hidden_close(&h);
    outcome_free(&wrong);
    outcome_free(&whole);
}

static void test_fingerprint(void **state)
{
    (void)state;
    static const struct {
        const char *now, *message;
    } cases[] = {
        {"{\"data\":{\"length\":512},\"seed\":[1,2]}", "data.length = 1024, now it is 512"},
        {"{\"data\":{\"length\":1024},\"seed\":[1,3]}", "seed[1] = 2, now it is 3"},
        {"{\"data\":{\"length\":1024}}", "seed = [1"},
        {"{\"data\":{\"length\":1024},\"seed\":[1,2],\"x\":\"y\"}", "x = absent, now it is \"y\""},
    };
    struct tg_err err = {0};
    char dir[128];
    struct stopper s = {.left = 2};
    in_root(dir, sizeof dir, "fingerprint");
    const char *was = "{\"data\":{\"length\":1024},\"seed\":[1,2]}";
    assert_int_equal(run(dir, 1, &s, 1e9, was, NULL, NULL, &err), TG_ERR_INTERRUPTED);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(run(dir, 1, NULL, 1e9, cases[i].now, NULL, NULL, &err), TG_ERR_MISMATCH);
        if (!strstr(err.msg, cases[i].message))
            fail_msg("'%s' does not say '%s'", err.msg, cases[i].message);
    }
    /* the order of keys does not matter */
    tg_test_must(
        run(dir, 1, NULL, 1e9, "{\"seed\":[1,2],\"data\":{\"length\":1024}}", NULL, NULL, &err),
        &err);
}

/* Each kind of stage lowers what it is there to lower, measured on all of its text. */
static void test_loss_falls(void **state)
{
    (void)state;
    static const char *const args[] = {
        "align:tokens=8k,batch=4,lr=3e-3,lr_new=3e-2", "kl:tokens=8k,batch=4,lr=1e-3",
        "kl:tokens=8k,batch=4,lr=1e-2,train=lora:2", "ce:tokens=8k,batch=4,lr=3e-3"};
    struct tg_err err = {0};
    struct tg_model *teacher = tg_test_teacher(&shape, 2, 1), *student = make_student(teacher);
    struct tg_data *data = open_data();
    struct tg_text_eval was, now;
    tg_test_must(tg_eval_text(teacher, student, data->train, TEXT, LENGTH, 0, &was, NULL, &err),
                 &err);
    for (size_t i = 0; i < sizeof args / sizeof *args; i++) {
        struct tg_stage_settings stage;
        char dir[128], name[16];
        snprintf(name, sizeof name, "falls-%zu", i);
        in_root(dir, sizeof dir, name);
        tg_test_must(tg_stage_parse_arg(args[i], &stage, &err), &err);
        struct tg_train_job job = {.teacher = teacher,
                                   .student = student,
                                   .data = data,
                                   .stages = &stage,
                                   .stage_count = 1,
                                   .run_dir = dir,
                                   .save_every = 1e9};
        tg_test_must(tg_train(&job, &err), &err);
        tg_test_must(tg_eval_text(teacher, student, data->train, TEXT, LENGTH, 0, &now, NULL, &err),
                     &err);
        if (strcmp(stage.kind, "ce") == 0)
            assert_below(now.student_nll / was.student_nll, 0.9, args[i]);
        else
            assert_below(now.kl / was.kl, 0.9, args[i]);
        was = now;
    }
    tg_data_close(data);
    tg_model_free(student);
    tg_model_free(teacher);
}

/* The student's weights after a few updates of a wide head, its products at a precision */
static float *trained(const char *arg, const char *name, size_t *floats)
{
    struct tg_test_shape wide = shape;
    struct tg_err err = {0};
    struct tg_stage_settings stage;
    char dir[128];
    wide.vocab = 1024;
    in_root(dir, sizeof dir, name);
    struct tg_model *teacher = tg_test_teacher(&wide, 2, 1), *student = make_student(teacher);
    struct tg_data *data = open_data();
    tg_test_must(tg_stage_parse_arg(arg, &stage, &err), &err);
    struct tg_train_job job = {.teacher = teacher,
                               .student = student,
                               .data = data,
                               .stages = &stage,
                               .stage_count = 1,
                               .run_dir = dir,
                               .save_every = 1e9};
    tg_test_must(tg_train(&job, &err), &err);
    assert_int_equal(student->ctx.precision, TG_PREC_F32);
    assert_int_equal(teacher->ctx.precision, TG_PREC_F32);
    *floats = student->params.floats;
    float *weights = tg_alloc_floats(*floats);
    assert_non_null(weights);
    memcpy(weights, student->data, *floats * sizeof *weights);
    tg_data_close(data);
    tg_model_free(student);
    tg_model_free(teacher);
    return weights;
}

/* A stage's precision reaches its products, and those of its passes alone. */
static void test_precision(void **state)
{
    (void)state;
    static const char *const args[] = {"kl:tokens=640,batch=8,micro=8",
                                       "kl:tokens=640,batch=8,micro=8,precision=bf16x2",
                                       "kl:tokens=640,batch=8,micro=8,precision=bf16"};
    float *w[3];
    size_t floats;
    for (size_t i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "precise-%zu", i);
        w[i] = trained(args[i], name, &floats);
    }
    const bool unit = tg_kernels_select((unsigned)TG_CPU_ALL)->product;
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(memcmp(w[i], w[0], floats * sizeof **w) != 0, unit);
        assert_below(tg_rel_error_f(w[i], w[0], floats), i == 1 ? 1e-4 : 1e-2, args[i]);
    }
    for (size_t i = 0; i < 3; i++)
        tg_free(w[i]);
}

static void test_optimizer(void **state)
{
    (void)state;
    enum { N = 70000, STEPS = 3 };
    static float p[N], g[N];
    static double wp[N], wm[N], wv[N];
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 2};
    struct tg_stage_settings set = {
        .clip = 0.5, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.1};
    struct tg_optim o = {0};
    struct tg_segment *s;
    struct tg_err err = {0};
    tg_test_must(tg_optim_add(&o, "", "a", p, g, N / 2, &s, &err), &err);
    s->decays = true;
    tg_test_must(tg_optim_add(&o, "", "b", p + N / 2, g + N / 2, N / 2, &s, &err), &err);
    s->is_new = true;
    tg_test_must(tg_optim_init(&o, &err), &err);
    struct tg_rng rng = tg_rng_make(SEED, 0);
    for (size_t i = 0; i < N; i++)
        wp[i] = p[i] = (float)tg_rng_normal(&rng);
    for (int step = 1; step <= STEPS; step++) {
        double norm = 0;
        for (size_t i = 0; i < N; i++) {
            g[i] = (float)tg_rng_normal(&rng);
            norm += (double)g[i] * g[i];
        }
        norm = sqrt(norm);
        assert_below(fabs(tg_optim_norm(&o, &ctx) / norm - 1), 1e-12, "norm");
        tg_optim_step(&o, &ctx, &set, (uint64_t)step, 1e-2, 3e-2);
        for (size_t i = 0; i < N; i++) {
            double lr = i < N / 2 ? 1e-2 : 3e-2, decay = i < N / 2 ? 0.1 : 0;
            double x = g[i] * set.clip / norm;
            wm[i] = 0.9 * wm[i] + 0.1 * x;
            wv[i] = 0.95 * wv[i] + 0.05 * x * x;
            double mean = wm[i] / (1 - pow(0.9, step)), square = wv[i] / (1 - pow(0.95, step));
            wp[i] -= lr * (mean / (sqrt(square) + 1e-8) + decay * wp[i]);
        }
    }
    assert_below(tg_rel_error_fd(p, wp, N), ROUNDING, "AdamW");
    tg_optim_release(&o);
}

static void test_schedule(void **state)
{
    (void)state;
    assert_below(fabs(tg_schedule(0, 100, 0.1, 0.2) - 0.1), 1e-12, "first step of ten");
    assert_below(fabs(tg_schedule(9, 100, 0.1, 0.2) - 1), 1e-12, "end of the warm-up");
    assert_below(fabs(tg_schedule(55, 100, 0.1, 0.2) - 0.6), 1e-12, "half way down");
    assert_below(fabs(tg_schedule(100, 100, 0.1, 0.2) - 0.2), 1e-12, "end");
    assert_below(fabs(tg_schedule(0, 1, 0, 0.1) - 1), 1e-12, "a single step");
}

/* dL/dA and dL/dB of L = <G, W0 + s B A> for a given G */
static void test_lora(void **state)
{
    (void)state;
    struct tg_err err = {0};
    struct tg_model *m = tg_test_teacher(&shape, 1, 1);
    size_t floats = m->params.floats;
    float *g = tg_alloc_array(floats, sizeof *g), *before = tg_alloc_array(floats, sizeof *before);
    assert_non_null(g);
    assert_non_null(before);
    memcpy(before, m->data, floats * sizeof *before);
    struct tg_lora l;
    tg_test_must(tg_lora_init(&l, m, 3, SEED, &err), &err);
    assert_int_equal(l.count, 7 * shape.layers);
    tg_lora_merge(&l, m);
    assert_memory_equal(m->data, before, floats * sizeof *before);
    struct tg_rng rng = tg_rng_make(SEED, 1);
    for (size_t i = 0; i < floats; i++)
        g[i] = (float)tg_rng_normal(&rng);
    for (size_t i = 0; i < l.count; i++)
        for (size_t j = 0; j < l.items[i].n * l.rank; j++)
            l.items[i].b[j] = (float)tg_rng_normal(&rng);
    tg_lora_merge(&l, m);
    tg_lora_backward(&l, m, g);
    double error = 0;
    for (size_t i = 0; i < l.count; i++) {
        const struct tg_lora_item *it = &l.items[i];
        const float *G = g + m->params.items[it->param].offset;
        const float *W = m->data + m->params.items[it->param].offset;
        for (size_t r = 0; r < it->n; r++)
            for (size_t c = 0; c < it->k; c++) {
                double w = it->w0[r * it->k + c];
                for (size_t q = 0; q < l.rank; q++)
                    w += 2.0 * it->b[r * l.rank + q] * it->a[q * it->k + c];
                error = fmax(error, fabs(w - W[r * it->k + c]));
            }
        for (size_t q = 0; q < l.rank; q++) {
            for (size_t c = 0; c < it->k; c++) {
                double da = 0;
                for (size_t r = 0; r < it->n; r++)
                    da += 2.0 * it->b[r * l.rank + q] * G[r * it->k + c];
                error = fmax(error, fabs(da - it->da[q * it->k + c]));
            }
            for (size_t r = 0; r < it->n; r++) {
                double db = 0;
                for (size_t c = 0; c < it->k; c++)
                    db += 2.0 * G[r * it->k + c] * it->a[q * it->k + c];
                error = fmax(error, fabs(db - it->db[r * l.rank + q]));
            }
        }
    }
    assert_below(error, ROUNDING, "LoRA");
    tg_lora_release(&l);
    tg_free(g);
    tg_free(before);
    tg_model_free(m);
}

static void test_settings(void **state)
{
    (void)state;
    struct tg_err err = {0};
    struct tg_stage_settings s, back;
    tg_test_must(
        tg_stage_parse_arg("kl:tokens=3M,lr=2e-4,train=lora:8,clip=0,precision=bf16x2", &s, &err),
        &err);
    assert_true(s.tokens == 3000000 && s.lr == 2e-4 && s.clip == 0 && s.train == TG_TRAIN_LORA &&
                s.lora_rank == 8 && s.batch > 0 && s.precision == TG_PREC_BF16X2);
    tg_test_must(tg_stage_defaults(&s, &err), &err);
    assert_true(s.clip == 0); /* said to be none, and stays so */
    struct tg_strbuf text;
    struct tg_json_out out;
    struct tg_json_doc *doc;
    tg_strbuf_init(&text, 4096);
    tg_jout_init(&out, &text, 0);
    tg_stage_write_json(&s, &out, NULL);
    tg_test_must(tg_json_parse(&doc, text.text, text.len, "stage", 0, &err), &err);
    tg_test_must(tg_stage_parse_json(tg_json_root(doc), &back, &err), &err);
    assert_memory_equal(&s, &back, sizeof s);
    tg_json_free(doc);
    tg_strbuf_release(&text);
    struct tg_stage_settings zero = {.kind = "kl"};
    tg_test_must(tg_stage_defaults(&zero, &err), &err);
    assert_true(zero.train == TG_TRAIN_ALL && zero.lr > 0 && zero.tokens > 0 &&
                zero.precision == TG_PREC_F32);

    static const char *const bad[][2] = {
        {"kll:tokens=1", "kll"},
        {"kl:token=3", "token"},
        {"kl:tokens=-3", "tokens"},
        {"kl:tokens=1.5", "whole"},
        {"kl:tokens=3X", "tokens"},
        {"kl:train=lora:0", "rank"},
        {"kl:precision=bf8", "must be float32, bf16x2 or bf16"},
        {"kl:train=some", "some"},
        {"kl:lr=nan", "lr"},
        {"kl:lr", "KEY=VALUE"},
        {"kl:beta1=1", "beta1"},
        {"kl:tokens=99999999999999999999", "tokens"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tg_stage_parse_arg(bad[i][0], &s, &err), TG_ERR_VALUE);
        if (!strstr(err.msg, bad[i][1]))
            fail_msg("'%s' does not name '%s'", err.msg, bad[i][1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hidden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fingerprint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loss_falls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_precision, setup, teardown),
        cmocka_unit_test(test_optimizer),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_lora),
        cmocka_unit_test(test_settings),
    };
    return tg_run_tests("train", tests, sizeof tests / sizeof *tests);
}
