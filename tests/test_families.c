/* Families against values of transformers: every folder with config.json, model.safetensors and
 * golden.safetensors in DIR (default tests/data/families), and the embedded teacher. Both ways of
 * running, greedy ids, gradients against a double reference. */
#include "tests/check.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/tensors.h"
#include "linearize/model/generate.h"
#include "tests/ref_model.h"

static const char *const TEACHER = "examples/teacher-8m";
/* float32 sums in another order than PyTorch's: 2e-6 is met in practice, a wrong operation is off
 * by 1e-3 and more */
static const double TOLERANCE = 1e-5;
static const double NOTABLE = 2e-6;
/* analytic float32 against central differences of a double reference, relative to the tensor's RMS
 * gradient */
static const double GRADIENT_TOLERANCE = 1e-5;
enum { FAMILY_PROMPT = 16, TEACHER_PROMPT = 64, GRADIENT_LENGTH = 30, PICKS = 3 };

/* A checkpoint with its golden values. */
struct family {
    const char *path;
    struct tg_model *m;
    struct tg_tensors *golden;
    int32_t *ids; /* [B,T] */
    size_t B, T;
};

static void must(int status, const struct tg_err *err)
{
    if (status)
        print_error("%s\n", err->msg);
    assert_int_equal(status, TG_OK);
}

static const struct tg_tensor *golden(const struct family *f, const char *name)
{
    return tg_tensors_find(f->golden, name);
}

static int32_t *read_ids(const struct tg_tensor *t)
{
    struct tg_err err = {0};
    int64_t *wide = malloc(t->elements * sizeof *wide);
    int32_t *ids = malloc(t->elements * sizeof *ids);
    must(tg_tensor_read_i64(t, wide, &err), &err);
    for (size_t i = 0; i < t->elements; i++)
        ids[i] = (int32_t)wide[i];
    free(wide);
    return ids;
}

static float *read_floats(const struct tg_tensor *t)
{
    struct tg_err err = {0};
    float *x = malloc(t->elements * sizeof *x);
    must(tg_tensor_read_f32(t, x, &err), &err);
    return x;
}

static void open_family(struct family *f, const char *path)
{
    struct tg_err err = {0};
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    char *file = tg_path_join(path, "golden.safetensors");
    *f = (struct family){.path = path};
    must(tg_model_load(&f->m, path, &ctx, &err), &err);
    must(tg_tensors_open(&f->golden, file, &err), &err);
    tg_free(file);
    const struct tg_tensor *ids = golden(f, "input_ids");
    assert_non_null(ids);
    f->ids = read_ids(ids);
    f->B = (size_t)ids->shape[0];
    f->T = (size_t)ids->shape[1];
}

static void close_family(struct family *f)
{
    tg_model_free(f->m);
    tg_tensors_close(f->golden);
    free(f->ids);
}

/* Hidden states of all tokens as they come: h[i] is [B,T,D]. */
struct capture {
    float **h;
    size_t T, D, B;
    const size_t *begin, *past; /* of the rows that come; past NULL: zeros */
};

static void take_hidden(void *ud, size_t index, const float *h)
{
    struct capture *c = ud;
    for (size_t i = 0; i < c->B; i++) {
        size_t at = i * c->T + (c->past ? c->past[i] : 0);
        memcpy(c->h[index] + at * c->D, h + c->begin[i] * c->D,
               (c->begin[i + 1] - c->begin[i]) * c->D * sizeof *h);
    }
}

static float **hidden_space(const struct family *f)
{
    size_t n = f->m->spec.layer_count + 1;
    float **h = malloc(n * sizeof *h);
    for (size_t i = 0; i < n; i++)
        h[i] = calloc(f->B * f->T * f->m->spec.width, sizeof **h);
    return h;
}

static void free_hidden(const struct family *f, float **h)
{
    for (size_t i = 0; i <= f->m->spec.layer_count; i++)
        free(h[i]);
    free(h);
}

static void run_parallel(const struct family *f, float **h)
{
    struct tg_err err = {0};
    struct tg_run *r;
    size_t begin[8] = {0};
    float *hidden = malloc(f->B * f->T * f->m->spec.width * sizeof *hidden);
    struct tg_batch b = {.count = f->B, .begin = begin};
    struct capture c = {h, f->T, f->m->spec.width, f->B, begin, NULL};
    struct tg_hooks hooks = {.hidden = take_hidden, .ud = &c};
    assert_true(f->B < 8);
    for (size_t i = 0; i < f->B; i++)
        begin[i + 1] = begin[i] + f->T;
    must(tg_run_create(&r, &err), &err);
    must(tg_run_fit(r, f->m, &b, false, &err), &err);
    tg_model_forward(f->m, r, f->ids, &b, hidden, false, &hooks);
    tg_run_free(r);
    free(hidden);
}

/* Through the cache: one token at a time, or in pieces whose sizes differ among sequences and may
 * be 0. */
static void run_recurrent(const struct family *f, bool pieces, float **h)
{
    static const size_t sizes[] = {3, 1, 0, 7, 2, 13, 0, 1, 5};
    struct tg_err err = {0};
    struct tg_cache *cache;
    size_t begin[8] = {0}, past[8] = {0}, n = sizeof sizes / sizeof *sizes, done = 0;
    int32_t *ids = malloc(f->B * f->T * sizeof *ids);
    float *hidden = malloc(f->B * f->T * f->m->spec.width * sizeof *hidden);
    struct capture c = {h, f->T, f->m->spec.width, f->B, begin, past};
    struct tg_hooks hooks = {.hidden = take_hidden, .ud = &c};
    must(tg_cache_create(&cache, f->m, f->B, f->T, &err), &err);
    for (size_t step = 0; done < f->B * f->T; step++) {
        for (size_t i = 0; i < f->B; i++) {
            size_t left = f->T - past[i], now = pieces ? sizes[(step + 4 * i) % n] : 1;
            now = now < left ? now : left;
            memcpy(ids + begin[i], f->ids + i * f->T + past[i], now * sizeof *ids);
            begin[i + 1] = begin[i] + now;
        }
        must(tg_model_step(f->m, cache, ids, begin, hidden, &hooks, &err), &err);
        for (size_t i = 0; i < f->B; i++)
            past[i] += begin[i + 1] - begin[i];
        done += begin[f->B];
        assert_int_equal(tg_cache_length(cache, 0), past[0]);
    }
    tg_cache_free(cache);
    free(ids);
    free(hidden);
}

static double note(double worst, double error, const struct family *f, const char *way,
                   const char *what)
{
    if (!(error < NOTABLE))
        printf("%s %s: %s differs by %.3g\n", tg_path_base(f->path), way, what, error);
    assert_below(error, TOLERANCE, what);
    return error > worst ? error : worst;
}

/* What transformers calls the last hidden state of a model whose embeddings are narrower than it:
 * h projected to their size */
static float *to_embedding(const struct family *f, const float *h)
{
    size_t rows = f->B * f->T, E = f->m->spec.embed_dim, D = f->m->spec.width;
    const float *w = tg_model_param(f->m, "embed_out.weight");
    float *y = malloc(rows * E * sizeof *y);
    for (size_t i = 0; i < rows * E; i++)
        y[i] = f->m->ctx.k->dot(h + i / E * D, w + i % E * D, D);
    return y;
}

/* transformers' Mamba-2 alone calls "hidden.i" what comes after layer i: it is our state before
 * layer i + 1, and what the last layer made becomes our last one by the final norm. */
static size_t our_index(const struct family *f, size_t i, float *want)
{
    size_t layers = f->m->spec.layer_count;
    if (strcmp(f->m->spec.family, "mamba2") != 0 || i == layers)
        return i;
    if (i + 1 == layers)
        tg_model_final_norm(f->m, want, f->B * f->T);
    return i + 1;
}

static double compare_hidden(const struct family *f, float **h, const char *way)
{
    double worst = 0;
    int found = 0;
    for (size_t i = 0; i <= f->m->spec.layer_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "hidden.%zu", i);
        const struct tg_tensor *t = golden(f, name);
        if (!t)
            continue;
        const bool narrow = i == f->m->spec.layer_count && f->m->spec.embed_dim;
        float *want = read_floats(t);
        float *have = h[our_index(f, i, want)], *got = narrow ? to_embedding(f, have) : have;
        assert_int_equal(t->elements,
                         f->B * f->T * (narrow ? f->m->spec.embed_dim : f->m->spec.width));
        worst = note(worst, tg_rel_error_f(got, want, t->elements), f, way, name);
        free(want);
        if (narrow)
            free(got);
        found++;
    }
    assert_true(found >= 3);
    return worst;
}

/* "logits" are those of every position, "logits_every_4" of each fourth. */
static double compare_logits(const struct family *f, float **h, const char *way)
{
    const struct tg_tensor *all = golden(f, "logits"), *some = golden(f, "logits_every_4");
    size_t N = f->m->spec.vocab, D = f->m->spec.width, stride = all ? 1 : 4;
    const struct tg_tensor *t = all ? all : some;
    assert_non_null(t);
    float *want = read_floats(t), *got = malloc(t->elements * sizeof *got);
    size_t rows = t->elements / N;
    assert_int_equal(rows, f->B * f->T / stride);
    for (size_t i = 0; i < rows; i++)
        tg_model_logits(f->m, h[f->m->spec.layer_count] + i * stride * D, 1, got + i * N);
    double error = note(0, tg_rel_error_f(got, want, t->elements), f, way, "logits");
    free(want);
    free(got);
    return error;
}

static double compare_logprobs(const struct family *f, float **h, const char *way)
{
    const struct tg_tensor *t = golden(f, "token_logprobs");
    size_t N = f->m->spec.vocab, D = f->m->spec.width;
    if (!t)
        return 0;
    assert_true(f->B == 1 && t->elements == f->T - 1);
    float *want = read_floats(t), *got = malloc(t->elements * sizeof *got);
    float *row = malloc(N * sizeof *row);
    for (size_t i = 0; i < t->elements; i++) {
        tg_model_logits(f->m, h[f->m->spec.layer_count] + i * D, 1, row);
        got[i] = (float)-f->m->ctx.k->ce_row(row, f->ids[i + 1], 0, N);
    }
    double error = note(0, tg_rel_error_f(got, want, t->elements), f, way, "token_logprobs");
    free(want);
    free(got);
    free(row);
    return error;
}

static void check_way(const char *path, const char *way, const struct tg_kernels *k)
{
    struct family f;
    open_family(&f, path);
    f.m->ctx.k = k;
    float **h = hidden_space(&f);
    if (strcmp(way, "parallel") == 0)
        run_parallel(&f, h);
    else
        run_recurrent(&f, strcmp(way, "pieces") == 0, h);
    double hidden = compare_hidden(&f, h, way), logits = compare_logits(&f, h, way);
    double logprobs = compare_logprobs(&f, h, way);
    printf("%s %s (%s): hidden states %.2g, logits %.2g", tg_path_base(path), way, k->name, hidden,
           logits);
    printf(logprobs > 0 ? ", log-probabilities %.2g\n" : "\n", logprobs);
    free_hidden(&f, h);
    close_family(&f);
}

static void test_parallel(void **state)
{
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++)
        check_way(*state, "parallel", *k);
}

static void test_recurrent(void **state)
{
    check_way(*state, "recurrent", tg_kernels_select(TG_CPU_ALL));
}

static void test_pieces(void **state)
{
    check_way(*state, "pieces", tg_kernels_select(TG_CPU_ALL));
}

static void test_greedy(void **state)
{
    struct family f;
    struct tg_err err = {0};
    open_family(&f, *state);
    const struct tg_tensor *t = golden(&f, "generated_ids");
    assert_non_null(t);
    int32_t *want = read_ids(t);
    size_t prompt = strcmp(f.path, TEACHER) == 0 ? TEACHER_PROMPT : FAMILY_PROMPT, made;
    assert_true(t->elements > prompt);
    size_t count = t->elements - prompt;
    int32_t *got = malloc(count * sizeof *got);
    const int32_t *prompts[] = {f.ids};
    struct tg_sampling greedy = {.temperature = 0, .top_p = 1};
    assert_memory_equal(want, f.ids, prompt * sizeof *want);
    must(tg_generate(f.m, prompts, &prompt, 1, count, &greedy, false, got, &made, NULL, NULL, &err),
         &err);
    assert_int_equal(made, count);
    assert_memory_equal(got, want + prompt, count * sizeof *got);
    free(want);
    free(got);
    close_family(&f);
}

/* Loss and gradient of one sequence; grads in the layout of the parameters. */
static double loss_and_gradient(struct tg_model *m, const int32_t *ids, size_t T, float *grads)
{
    struct tg_err err = {0};
    struct tg_run *r;
    size_t begin[2] = {0, T}, N = m->spec.vocab, D = m->spec.width;
    struct tg_batch b = {.count = 1, .begin = begin};
    float *hidden = malloc(T * D * sizeof *hidden), *dhidden = malloc(T * D * sizeof *dhidden);
    float *logits = malloc(T * N * sizeof *logits);
    double loss = 0;
    must(tg_run_create(&r, &err), &err);
    must(tg_run_fit(r, m, &b, true, &err), &err);
    tg_model_forward(m, r, ids, &b, hidden, true, NULL);
    tg_model_logits(m, hidden, T, logits);
    memset(logits + (T - 1) * N, 0, N * sizeof *logits);
    for (size_t t = 0; t + 1 < T; t++)
        loss += m->ctx.k->ce_row(logits + t * N, ids[t + 1], 1.0f / (float)(T - 1), N);
    tg_model_logits_backward(m, hidden, logits, T, dhidden, grads, NULL);
    tg_model_backward(m, r, ids, &b, dhidden, grads, NULL);
    tg_run_free(r);
    free(hidden);
    free(dhidden);
    free(logits);
    return loss / (double)(T - 1);
}

static double rms(const float *x, size_t n)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)x[i] * x[i];
    return sqrt(squares / (double)n);
}

/* `hidden` is what enters `layer`; NULL: from the ids on */
static double loss_in_double(const struct tg_model *m, const double *data, const int32_t *ids,
                             size_t layer, const double *hidden)
{
    const size_t T = GRADIENT_LENGTH;
    return hidden ? tg_ref_loss_after(&m->spec, &m->params, data, ids, T, layer, hidden, NULL)
                  : tg_ref_loss(&m->spec, &m->params, data, ids, T, NULL);
}

/* RMS error of the gradient at the largest entry and a few others, over the RMS gradient of the
 * tensor; over that of the model, `whole`, for a tensor whose own is nothing beside it, such as a
 * bias of k without rotary, which moves all scores of a query alike. `hidden` is what enters the
 * tensor's layer, NULL for one outside layers. */
static double gradient_error(const struct tg_model *m, const struct tg_param *p, double *data,
                             const float *grads, double whole, const int32_t *ids,
                             const double *hidden)
{
    const double step = 1e-6; /* short: the unit norm of a short vector is strongly curved */
    const float *g = grads + p->offset;
    size_t picks[PICKS] = {0, p->count / 3, p->count - 1};
    if (p->layer < 0 && p->shape[0] == (int64_t)m->spec.vocab) {
        /* rows of the first and last input */
        size_t row = p->count / m->spec.vocab;
        picks[1] = (size_t)ids[0] * row;
        picks[2] = (size_t)ids[GRADIENT_LENGTH - 2] * row + row / 2;
    }
    double size = rms(g, p->count), error = 0, picked = 0;
    for (size_t i = 0; i < p->count; i++)
        if (fabsf(g[i]) > fabsf(g[picks[0]]))
            picks[0] = i;
    for (int k = 0; k < PICKS; k++) {
        double *w = data + p->offset + picks[k], keep = *w;
        *w = keep + step;
        double above = loss_in_double(m, data, ids, (size_t)p->layer, hidden);
        *w = keep - step;
        double below = loss_in_double(m, data, ids, (size_t)p->layer, hidden);
        *w = keep;
        double diff = (above - below) / (2 * step) - g[picks[k]];
        error += diff * diff / PICKS;
        picked += (double)g[picks[k]] * g[picks[k]] / PICKS;
    }
    size = size < GRADIENT_TOLERANCE * whole ? whole : size;
    return sqrt(error / fmax(picked, size * size));
}

/* The worst of all parameters on `ids`; *name is its name */
static double worst_gradient(struct tg_model *m, double *data, const int32_t *ids,
                             const char **name)
{
    size_t T = GRADIENT_LENGTH;
    float *grads = calloc(m->params.floats, sizeof *grads);
    double *logits = malloc(T * m->spec.vocab * sizeof *logits), worst = 0;
    double got = loss_and_gradient(m, ids, T, grads);
    double want = tg_ref_loss(&m->spec, &m->params, data, ids, T, logits);
    assert_below(fabs(got - want) / want, 1e-6, "loss");
    const double whole = rms(grads, m->params.floats);
    int before = -1;
    double *hidden = NULL;
    for (size_t i = 0; i < m->params.count && !isnan(worst); i++) {
        const struct tg_param *p = &m->params.items[i];
        if (p->layer != before) {
            free(hidden);
            before = p->layer;
            hidden = before < 0 ? NULL
                                : tg_ref_hidden(&m->spec, &m->params, data, ids, T, (size_t)before);
        }
        double error = gradient_error(m, p, data, grads, whole, ids, hidden);
        if (!(error <= worst)) {
            worst = error;
            *name = p->name;
        }
    }
    free(hidden);
    free(grads);
    free(logits);
    return worst;
}

/* On the file's ids, or on the same from a later one on: the slope of a norm is that of 1 / |o|, so
 * where an output all but cancels, its rounding in float32 is many times that of the gradient
 * elsewhere. A gradient that is wrong is so on all of them. */
static void test_gradient(void **state)
{
    enum { STRETCHES = 4 };
    struct family f;
    open_family(&f, *state);
    const size_t n = f.B * f.T;
    int32_t *twice = malloc(2 * n * sizeof *twice);
    double *data = malloc(f.m->params.floats * sizeof *data), worst = NAN;
    const char *name = "no parameter";
    for (size_t i = 0; i < 2 * n; i++)
        twice[i] = f.ids[i % n];
    for (size_t i = 0; i < f.m->params.floats; i++)
        data[i] = f.m->data[i];
    for (size_t k = 0; k < STRETCHES && !(worst < GRADIENT_TOLERANCE); k++)
        worst = worst_gradient(f.m, data, twice + k * n / STRETCHES, &name);
    assert_below(worst, GRADIENT_TOLERANCE, name);
    printf("%s gradients: %.2g\n", tg_path_base(f.path), worst);
    free(twice);
    free(data);
    close_family(&f);
}

static bool is_family(const char *path)
{
    static const char *const files[] = {"config.json", "model.safetensors", "golden.safetensors"};
    bool all = true;
    for (int i = 0; i < 3; i++) {
        char *file = tg_path_join(path, files[i]);
        all = all && tg_path_exists(file);
        tg_free(file);
    }
    return all;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum { MAX_FAMILIES = 256 };

static size_t find_families(const char *dir, char **paths)
{
    DIR *d = opendir(dir);
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d)) && n < MAX_FAMILIES;) {
        char *path = tg_path_join(dir, e->d_name);
        if (e->d_name[0] != '.' && is_family(path))
            paths[n++] = path;
        else
            tg_free(path);
    }
    if (d)
        closedir(d);
    qsort(paths, n, sizeof *paths, by_name);
    return n;
}

static const struct {
    const char *name;
    CMUnitTestFunction run;
    bool small_only; /* the double reference is too slow for the teacher */
} CHECKS[] = {
    {"parallel", test_parallel, false}, {"recurrent", test_recurrent, false},
    {"pieces", test_pieces, false},     {"greedy", test_greedy, false},
    {"gradients", test_gradient, true},
};
enum { CHECK_COUNT = sizeof CHECKS / sizeof *CHECKS };

int main(int argc, char **argv)
{
    static char *paths[MAX_FAMILIES + 1];
    static struct CMUnitTest tests[(MAX_FAMILIES + 1) * CHECK_COUNT];
    static char names[(MAX_FAMILIES + 1) * CHECK_COUNT][96];
    const char *dir = argc > 1 ? argv[1] : "tests/data/families";
    size_t families = find_families(dir, paths), n = 0;
    if (families == 0) {
        fprintf(stderr, "%s: no family with config.json, model.safetensors, golden.safetensors\n",
                dir);
        return 1;
    }
    if (argc <= 1)
        paths[families++] = tg_strdup(TEACHER);
    for (size_t i = 0; i < families; i++)
        for (size_t k = 0; k < CHECK_COUNT; k++) {
            if (CHECKS[k].small_only && strcmp(paths[i], TEACHER) == 0)
                continue;
            snprintf(names[n], sizeof names[n], "%.64s %s", tg_path_base(paths[i]), CHECKS[k].name);
            tests[n] = (struct CMUnitTest){names[n], CHECKS[k].run, NULL, NULL, paths[i]};
            n++;
        }
    int status = tg_run_tests("families", tests, n);
    for (size_t i = 0; i < families; i++)
        tg_free(paths[i]);
    return status;
}
