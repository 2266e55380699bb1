/* Speed of the recurrences and of whole mixers: tokens a second and the share of the rate of sgemm,
 * forward, and forward with backward. One thread by its own processor time, two by the clock; the
 * best of several passes; ratio_of says how a long text is compared with a short one, and
 * docs/benchmarks.md how the operations are counted.
 *   mixers [PATTERN [THREADS]]      only rows whose name has it (a rule, a gate, a mixer), "" all
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "convert/params.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/recur.h"
#include "linearize/mixers/mixer.h"
#include "tools/blas_core.h"

enum { HEADS = 4, SHORT = 4096, LONG = 32768, SIDE = 512 };

static double seconds(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* In -1..1 */
static float *numbers(size_t n, unsigned seed)
{
    float *x = tg_alloc_floats(n + 1);
    struct tg_rng rng = tg_rng_make(seed, 0);
    for (size_t i = 0; x && i < n; i++)
        x[i] = (float)(tg_rng_u32(&rng) >> 8) / (float)(1 << 23) - 1;
    return x;
}

struct sample {
    double forward, both; /* seconds */
};

/* One pass of fn(ud, backward) both ways, if it is the best so far; its seconds */
static double pass_of(int threads, void (*fn)(void *ud, bool backward), void *ud,
                      struct sample *best)
{
    double start = seconds(threads);
    fn(ud, false);
    double middle = seconds(threads);
    fn(ud, true);
    double end = seconds(threads);
    best->forward = fmin(best->forward, middle - start);
    best->both = fmin(best->both, end - middle);
    return end - start;
}

/* The best of several passes. The first touches the memory. */
static struct sample time_of(int threads, void (*fn)(void *ud, bool backward), void *ud)
{
    struct sample best = {INFINITY, INFINITY};
    double spent = 0;
    for (int pass = 0; pass < 5 && (pass < 3 || spent < 4); pass++)
        spent += pass_of(threads, fn, ud, &best);
    return best;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts x[n]; n > 0 */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return 0.5 * (x[(n - 1) / 2] + x[n / 2]);
}

/* Time of a long text over that of a short one, the median of rounds. In a round both take about as
 * long, half of the short passes before the long one and half after it, so that a processor whose
 * clock wanders or that others use weighs on both alike. */
static struct sample ratio_of(int threads, void (*fn)(void *ud, bool backward), void *ud,
                              void *longer)
{
    enum { MOST = 25, LEAST = 5, TIMES = LONG / SHORT };
    double forward[MOST], both[MOST], spent = 0;
    struct sample once = {INFINITY, INFINITY};
    pass_of(threads, fn, longer, &once); /* touches the memory */
    int rounds = 0;
    for (; rounds < MOST && (rounds < LEAST || spent < 30); rounds++) {
        struct sample sum = {0, 0}, whole = {INFINITY, INFINITY};
        for (int i = 0; i < TIMES; i++) {
            if (i == TIMES / 2)
                spent += pass_of(threads, fn, longer, &whole);
            once = (struct sample){INFINITY, INFINITY};
            spent += pass_of(threads, fn, ud, &once);
            sum.forward += once.forward;
            sum.both += once.both;
        }
        forward[rounds] = TIMES * whole.forward / sum.forward;
        both[rounds] = TIMES * whole.both / sum.both;
    }
    return (struct sample){median(forward, rounds), median(both, rounds)};
}

struct product {
    struct tg_ctx ctx;
    float *a, *b, *c;
};

static void multiply(void *ud, bool backward)
{
    const struct product *p = ud;
    for (int i = 0; i < (backward ? 8 : 1); i++)
        tg_gemm(&p->ctx, false, false, SIDE, SIDE, SIDE, 1, p->a, SIDE, p->b, SIDE, 0, p->c, SIDE);
}

/* Operations a second of sgemm, matrices of 512 x 512 */
static double sgemm_rate(int threads)
{
    struct product p = {{.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = threads},
                        numbers((size_t)SIDE * SIDE, 1),
                        numbers((size_t)SIDE * SIDE, 2),
                        numbers((size_t)SIDE * SIDE, 3)};
    struct sample s = time_of(threads, multiply, &p);
    tg_free(p.a);
    tg_free(p.b);
    tg_free(p.c);
    return 8 * 2.0 * SIDE * SIDE * SIDE / s.both;
}

struct run {
    struct tg_ctx ctx;
    struct tg_recur r;
    size_t begin[2];
    struct tg_batch b;
    struct tg_recur_in in;
    struct tg_recur_grads d;
    float *arrays[8], *grads[8], *o, *dout, *saved, *work;
};

static void recur(void *ud, bool backward)
{
    const struct run *x = ud;
    tg_recur_fwd(&x->ctx, &x->r, &x->b, &x->in, x->o, (struct tg_states){0},
                 backward ? x->saved : NULL, x->work);
    if (backward)
        tg_recur_bwd(&x->ctx, &x->r, &x->b, &x->in, x->saved, x->dout, &x->d, (struct tg_states){0},
                     x->work);
}

/* Keys of norm about 1, gates of -0.05 on average, beta about 0.5; a = -k, b = k / 2 */
static bool fill(struct run *x, const size_t *count)
{
    for (size_t i = 0; i < 8; i++) {
        x->arrays[i] = numbers(count[i], (unsigned)i);
        x->grads[i] = tg_alloc_array(count[i] + 1, sizeof(float));
        if (!x->arrays[i] || !x->grads[i])
            return false;
    }
    float f = sqrtf(3 / (float)x->r.K);
    for (size_t i = 0; i < count[1]; i++)
        x->arrays[1][i] *= f;
    for (size_t i = 0; i < count[3]; i++)
        x->arrays[3][i] = -0.05F * (1 + x->arrays[3][i]);
    for (size_t i = 0; i < count[4]; i++)
        x->arrays[4][i] = 0.5F + 0.4F * x->arrays[4][i];
    for (size_t i = 0; i < count[5]; i++) {
        x->arrays[5][i] = -x->arrays[1][i];
        x->arrays[6][i] = 0.5F * x->arrays[1][i];
    }
    float **a = x->arrays, **g = x->grads;
    x->in = (struct tg_recur_in){a[0], a[1], a[2], a[3], a[4], a[5], a[6]};
    x->d = (struct tg_recur_grads){g[0], g[1], g[2], x->r.gate ? g[3] : NULL, g[4], g[5], g[6]};
    return true;
}

/* Operations of a token and head, see docs/benchmarks.md */
static struct sample operations(const struct tg_recur *r)
{
    double C = (double)tg_recur_chunk_rows(r), K = (double)r->K, V = (double)r->V;
    switch (r->rule) {
    case TG_RULE_OUTER:
        return (struct sample){C * (K + V) + 4 * K * V, C * (4 * K + 3 * V) + 12 * K * V};
    case TG_RULE_DELTA:
        return (struct sample){C * (2 * K + 2 * V) + 6 * K * V, C * (8 * K + 7 * V) + 20 * K * V};
    default:
        return (struct sample){C * (4 * K + 4 * V) + 8 * K * V, C * (16 * K + 14 * V) + 26 * K * V};
    }
}

static bool open_run(struct run *x, enum tg_rule rule, enum tg_gate gate, size_t K, size_t T,
                     int threads)
{
    const size_t H = HEADS, gates = gate == TG_GATE_NONE ? 0 : gate == TG_GATE_SCALAR ? H : H * K;
    *x = (struct run){
        .ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = threads},
        .r = {.H = H, .G = H, .K = K, .V = K, .gate = gate, .rule = rule, .scale = 0.1F},
        .begin = {0, T}};
    size_t row = T * H * K, count[8] = {row, row, row, T * gates, T * H, row, row, row};
    x->b = (struct tg_batch){1, x->begin, NULL};
    x->o = tg_alloc_floats(row);
    x->dout = numbers(row, 9);
    x->saved = tg_alloc_floats(tg_recur_saved(&x->r, &x->b));
    x->work = tg_alloc_floats(tg_recur_work(&x->r, threads));
    return x->o && x->dout && x->saved && x->work && fill(x, count);
}

static void close_run(struct run *x)
{
    for (size_t i = 0; i < 8; i++) {
        tg_free(x->arrays[i]);
        tg_free(x->grads[i]);
    }
    tg_free(x->o);
    tg_free(x->dout);
    tg_free(x->saved);
    tg_free(x->work);
}

/* Of a short text; *ratio: a long one's times over it */
static struct sample measure(enum tg_rule rule, enum tg_gate gate, size_t K, int threads,
                             struct sample *ratio)
{
    struct run x, l = {0};
    struct sample s = {NAN, NAN};
    if (open_run(&x, rule, gate, K, SHORT, threads)) {
        s = time_of(threads, recur, &x);
        if (ratio && open_run(&l, rule, gate, K, LONG, threads))
            *ratio = ratio_of(threads, recur, &x, &l);
    }
    close_run(&x);
    close_run(&l);
    return s;
}

static void recurrences(int threads, double sgemm, const char *pattern)
{
    static const char *const rules[] = {"outer", "delta", "general"};
    static const char *const gates[] = {"none", "constant", "scalar", "channel"};
    static const enum tg_gate kinds[] = {TG_GATE_NONE, TG_GATE_SCALAR, TG_GATE_CHANNEL};
    printf(
        "\n| rule, gate | K = V | forward | of sgemm | with backward | of sgemm | of gla | %d / %d "
        "|\n|---|---|---|---|---|---|---|---|\n",
        LONG, SHORT);
    for (size_t K = 64; K <= 128; K *= 2) {
        struct sample gla = measure(TG_RULE_OUTER, TG_GATE_CHANNEL, K, threads, NULL);
        for (int rule = 0; rule < 3; rule++)
            for (int g = 0; g < 3; g++) {
                struct tg_recur r = {.K = K, .V = K, .rule = (enum tg_rule)rule};
                struct sample ops = operations(&r), ratio = {NAN, NAN};
                if (!strstr(rules[rule], pattern) && !strstr(gates[kinds[g]], pattern))
                    continue;
                struct sample s = measure((enum tg_rule)rule, kinds[g], K, threads, &ratio);
                double all = (double)SHORT * HEADS / sgemm;
                printf(
                    "| %s, %s | %zu | %.0f | %.0f%% | %.0f | %.0f%% | %.2f, %.2f | %.2f, %.2f |\n",
                    rules[rule], gates[kinds[g]], K, SHORT / s.forward,
                    100 * all * ops.forward / s.forward, SHORT / s.both,
                    100 * all * ops.both / s.both, s.forward / gla.forward, s.both / gla.both,
                    ratio.forward, ratio.both);
                fflush(stdout);
            }
    }
}

/* A layer of 4 heads as the row makes it of a softmax layer */
struct layer {
    struct tg_ctx ctx;
    const struct tg_mixer_ops *ops;
    struct tg_layer_spec spec;
    struct tg_mixer m;
    struct tg_mixer_grads d;
    size_t begin[2];
    struct tg_batch b;
    float *param[TG_MIXER_MAX_PARAMS], *cosine, *sine, *x, *y, *dx, *saved, *work;
    double products; /* operations of the weights for a token */
};

static void whole(void *ud, bool backward)
{
    const struct layer *l = ud;
    l->ops->forward(&l->ctx, &l->m, &l->b, l->x, l->y, backward ? l->saved : NULL, l->work);
    if (backward)
        l->ops->backward(&l->ctx, &l->m, &l->b, l->x, l->y, l->saved, l->dx, &l->d, l->work);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Weights of about width^-1/2, norms of 1 */
static bool open_params(struct layer *l)
{
    struct tg_layer_spec layer = l->spec;
    struct tg_model_spec spec = {.vocab = 1,
                                 .width = l->m.width,
                                 .norm.eps = 1e-5,
                                 .ropes = {{.theta = 10000}},
                                 .layer_count = 1,
                                 .layers = &layer};
    struct tg_param_list list;
    struct tg_err err = {0};
    bool complete = true;
    layer.mlp_dim = 1;
    if (tg_params_of(&spec, &list, &err) != TG_OK) {
        printf("%s: %s\n", layer.mixer->name, err.msg);
        return false;
    }
    for (size_t i = 0; i < layer.mixer->param_count; i++) {
        const char *rule = layer.mixer->params[i].name;
        char name[80];
        snprintf(name, sizeof name, "layers.0.mixer.%s", rule);
        const struct tg_param *p = tg_params_find(&list, name);
        if (!p)
            continue;
        float scale = 1 / sqrtf((float)l->m.width);
        l->param[i] = numbers(p->count, (unsigned)i);
        l->d.param[i] = tg_alloc_array(p->count + 1, sizeof(float));
        complete = complete && l->param[i] && l->d.param[i];
        for (size_t x = 0; l->param[i] && x < p->count; x++)
            l->param[i][x] = strstr(rule, "norm") ? 1 : scale * l->param[i][x];
        l->m.param[i] = l->param[i];
        l->products += ends_with(rule, ".weight") ? 2 * (double)p->count : 0;
    }
    tg_params_release(&list);
    return complete;
}

static void close_layer(struct layer *l)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++) {
        tg_free(l->param[i]);
        tg_free(l->d.param[i]);
    }
    float *used[] = {l->cosine, l->sine, l->x, l->y, l->dx, l->saved, l->work};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

static bool open_layer(struct layer *l, const struct tg_mixer_schema *schema, size_t K, size_t T,
                       int threads)
{
    const size_t D = HEADS * K, half = K / 2;
    *l = (struct layer){.ctx = {.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = threads},
                        .ops = tg_mixer_find(schema),
                        .begin = {0, T}};
    l->spec = (struct tg_layer_spec){.mixer = schema,
                                     .heads = HEADS,
                                     .kv_heads = HEADS,
                                     .head_dim = K,
                                     .rotary_dim = K,
                                     .window = schema->window,
                                     .sinks = schema->sinks,
                                     .feature_dim = schema->flags & TG_MIXER_FAR ? K : 0,
                                     .attn_scale = 1 / sqrt((double)K)};
    if (schema->adopt)
        schema->adopt(&l->spec);
    l->b = (struct tg_batch){1, l->begin, NULL};
    l->cosine = tg_alloc_floats(T * half);
    l->sine = tg_alloc_floats(T * half);
    for (size_t i = 0; l->cosine && l->sine && i < T * half; i++) {
        double angle = (double)(i / half) * pow(10000, -(double)(i % half) / (double)half);
        l->cosine[i] = (float)cos(angle);
        l->sine[i] = (float)sin(angle);
    }
    l->m = (struct tg_mixer){.spec = &l->spec,
                             .width = D,
                             .norm_eps = 1e-5F,
                             .rope_cos = l->cosine,
                             .rope_sin = l->sine};
    if (!open_params(l))
        return false;
    size_t forward = l->ops->work_floats(&l->m, &l->b, threads, false);
    size_t backward = l->ops->work_floats(&l->m, &l->b, threads, true);
    l->x = numbers(T * D, 1);
    l->y = tg_alloc_floats(T * D);
    l->dx = tg_alloc_floats(T * D);
    l->saved = tg_alloc_floats(l->ops->saved_floats(&l->m, &l->b) + 1);
    l->work = tg_alloc_floats((forward > backward ? forward : backward) + 1);
    return l->cosine && l->sine && l->x && l->y && l->dx && l->saved && l->work;
}

/* Rows that a plan gives, and what they replace; long texts where the state does not grow */
static void mixers(int threads, double sgemm, const char *pattern)
{
    printf("\n| mixer | head | forward | of sgemm | with backward | of sgemm | %d / %d |\n"
           "|---|---|---|---|---|---|---|\n",
           LONG, SHORT);
    for (size_t K = 64; K <= 128; K *= 2)
        for (size_t i = 0; tg_mixer_schemas[i]; i++) {
            const struct tg_mixer_schema *schema = tg_mixer_schemas[i];
            struct layer l, longer = {0};
            if (!(schema->flags & (TG_MIXER_TEACHER | TG_MIXER_PLAN)) ||
                !strstr(schema->name, pattern))
                continue;
            bool open = open_layer(&l, schema, K, SHORT, threads);
            bool grows = schema->kv_floats_per_token(&l.spec) != 0;
            if (open && (grows || open_layer(&longer, schema, K, LONG, threads))) {
                struct sample s = time_of(threads, whole, &l), ratio = {NAN, NAN};
                if (!grows)
                    ratio = ratio_of(threads, whole, &l, &longer);
                double all = (double)SHORT * l.products / sgemm;
                printf("| `%s` | %zu | %.0f | %.0f%% | %.0f | %.0f%% | %.2f, %.2f |\n",
                       schema->name, K, SHORT / s.forward, 100 * all / s.forward, SHORT / s.both,
                       300 * all / s.both, ratio.forward, ratio.both);
                fflush(stdout);
            }
            close_layer(&l);
            close_layer(&longer);
        }
}

int main(int argc, char **argv)
{
    tg_choose_blas_core(argv);
    const char *pattern = argc > 1 ? argv[1] : "";
    tg_gemm_init();
    int only = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 0;
    for (int threads = only ? only : 1; threads <= (only ? only : 2); threads++) {
        double sgemm = sgemm_rate(threads);
        printf("\n%d thread%s, OpenBLAS core %s, sgemm %.0f GFLOP/s, 4 heads, %d tokens\n", threads,
               threads > 1 ? "s" : "", tg_gemm_core(), 1e-9 * sgemm, SHORT);
        recurrences(threads, sgemm, pattern);
        mixers(threads, sgemm, pattern);
    }
    return 0;
}
