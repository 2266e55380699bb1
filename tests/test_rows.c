/* What holds for every row of the mixer registry, whatever it computes: chunk sizes do not matter,
 * nor how a text came into a state; strong gates overflow nothing; long texts cost no accuracy. And
 * rows that are others' special cases. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "tests/check.h"
#include "tests/mixer_bench.h"

/* As test_mixers': float32 through some hundred terms. Long texts: the bound of the promise. */
static const double SAME = 5e-6, GRADIENT = 1e-4, LONG = 1e-4;

enum { WAYS = 9, STRONG_TEXT = 10000, LONG_TEXT = 100000 };

/* Maps of the ways; what may be negative has no denominator that two sums agree on near 0 */
static const enum tg_feature_map maps[] = {TG_MAP_HEDGEHOG_SOFTMAX, TG_MAP_HEDGEHOG_EXP,
                                           TG_MAP_ELU1, TG_MAP_TAYLOR};

static struct tg_bench_shape shape_of(size_t way, size_t H, const size_t *lengths, size_t count)
{
    struct tg_bench_shape s = {.name = "rows",
                               .D = 6,
                               .H = H,
                               .G = H > 1 ? H / 2 : 1,
                               .K = 4,
                               .rotary = 4,
                               .window = 5,
                               .sinks = 1,
                               .F = 3,
                               .map = maps[way % (sizeof maps / sizeof *maps)],
                               .gated = way % 2 == 0,
                               .bias = true,
                               .qk_norm = way % 3 == 0,
                               .count = count};
    memcpy(s.lengths, lengths, count * sizeof *lengths);
    return s;
}

/* What a state holds after the text, by steps of n tokens (the last ones fewer) */
static void states_after(struct tg_bench_decode *d, size_t n, float *states)
{
    const size_t floats = d->bytes / sizeof *states;
    tg_bench_restart(d);
    while (tg_bench_advance(d, n))
        continue;
    for (size_t i = 0; i < d->t->b.count; i++)
        memcpy(states + i * floats, d->states[i], d->bytes);
}

/* Chunks of any size and single steps: the same outputs, gradients and final states */
static void chunks(const struct tg_bench_pair *p)
{
    static const size_t sizes[] = {1, 16, 32, 64, 128}, pieces[] = {7, 50, 1000};
    enum { SIZES = sizeof sizes / sizeof *sizes, PIECES = sizeof pieces / sizeof *pieces };
    struct tg_bench t = tg_bench_open(p);
    struct tg_bench_decode d;
    char text[80];
    tg_bench_settle(&t, p->shape);
    tg_bench_decode_open(&d, &t);
    const size_t n = t.rows * t.m.width, states = t.b.count * d.bytes / sizeof(float);
    float *want = tg_bench_floats(states), *got = tg_bench_floats(states);
    float *y = tg_bench_floats(n), *dx = tg_bench_floats(n);
    states_after(&d, 1, want);
    memcpy(y, d.y, n * sizeof *y);
    for (size_t i = 0; i < SIZES; i++) {
        t.m.chunk = sizes[i];
        tg_bench_run(&t, true);
        snprintf(text, sizeof text, "%s way %zu, chunks of %zu", t.ops->name, p->way, sizes[i]);
        assert_below(tg_rel_error_f(t.y, y, n), SAME, text);
        if (i == 0)
            memcpy(dx, t.dx, n * sizeof *dx);
        assert_below(tg_rel_error_f(t.dx, dx, n), GRADIENT, text);
        for (size_t piece = 0; piece < PIECES; piece++) {
            snprintf(text, sizeof text, "%s way %zu, chunks of %zu, steps of %zu", t.ops->name,
                     p->way, sizes[i], pieces[piece]);
            states_after(&d, pieces[piece], got);
            assert_below(tg_rel_error_f(d.y, y, n), SAME, text);
            assert_below(tg_rel_error_f(got, want, states), SAME, text);
        }
    }
    tg_free(want);
    tg_free(got);
    tg_free(y);
    tg_free(dx);
    tg_bench_decode_close(&d);
    tg_bench_close(&t);
}

static void test_chunks(void **state)
{
    static const size_t lengths[] = {129, 1, 67};
    const size_t *row = *state;
    for (size_t way = 0; way < WAYS; way++) {
        struct tg_bench_shape s = shape_of(way, 2, lengths, 3);
        chunks(&(struct tg_bench_pair){tg_mixers[*row], tg_mixer_schemas[*row], &s, way});
    }
}

/* Parameters that make gates, and the value at which one is about -20 a step, or as strong as the
 * row can have it (rwkv7). Weights beside them listen little, so that it stays there. */
static const struct {
    const char *name;
    float value;
} strong[] = {
    {"gate.bias", -20},   /* log sigmoid */
    {"dt_bias", 20},      /* -e^{A_log} softplus */
    {"dt.bias", 20},      /* the same of mamba1 */
    {"A_log", 0},         /* of both */
    {"f_b.bias", -320},   /* log sigmoid / 16 */
    {"k.bias", 20},       /* hgrn2: log of lb + (1 - lb) sigmoid(-k) */
    {"f.bias", -20},      /* hgrn: log of lb + (1 - lb) sigmoid */
    {"lower_bound", -20}, /* of both: lb = sigmoid */
    {"w0", 20},           /* -e^-1/2 sigmoid */
    {"decay", 2.2F},      /* rglru: -8 sigmoid(decay_gate) softplus; sma: a logit */
    {"decay_gate.bias", 9},
};
enum { STRONG = sizeof strong / sizeof *strong };
static const char *const quiet[] = {"gate.weight",       "a.weight",  "f_b.weight",
                                    "k.weight",          "f.weight",  "w2.weight",
                                    "decay_gate.weight", "dt.weight", "in.weight"};

static size_t rule_of(const struct tg_bench *t, const char *name)
{
    size_t i = 0;
    while (i < t->spec.mixer->param_count && strcmp(t->spec.mixer->params[i].name, name) != 0)
        i++;
    return i;
}

/* Whether the row has gates, which are strong now. A bias of keys is a gate's in hgrn2 alone. */
static bool strengthen(struct tg_bench *t)
{
    const bool sma = !strcmp(t->ops->name, "sma"), hgrn2 = !strcmp(t->ops->name, "hgrn2");
    bool any = !strcmp(t->ops->name, "lightning");
    if (any) /* a constant of the layer: -c 2^-8 of one head */
        t->spec.recurrent.scales[0] = 20 * 256;
    for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
        const size_t rule = rule_of(t, quiet[i]);
        for (size_t c = 0; rule < t->spec.mixer->param_count && c < t->count[rule]; c++)
            t->param[rule][c] *= 0.1F;
    }
    for (size_t i = 0; i < STRONG; i++) {
        const size_t rule = rule_of(t, strong[i].name);
        if (rule == t->spec.mixer->param_count || !t->param[rule] ||
            (!strcmp(strong[i].name, "k.bias") && !hgrn2))
            continue;
        for (size_t c = 0; c < t->count[rule]; c++)
            t->param[rule][c] = sma ? -20 : strong[i].value;
        any = true;
    }
    return any;
}

static void assert_finite(const float *x, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            fail_msg("%s: element %zu of %zu is %g", what, i, n, (double)x[i]);
}

static void test_strong_gates(void **state)
{
    static const size_t lengths[] = {STRONG_TEXT};
    const size_t *row = *state;
    for (size_t way = 0; way < 2; way++) {
        struct tg_bench_shape s = shape_of(way, 1, lengths, 1);
        const struct tg_bench_pair p = {tg_mixers[*row], tg_mixer_schemas[*row], &s, way};
        s.qk_norm = false; /* hgrn2's gates are keys */
        struct tg_bench t = tg_bench_open(&p);
        tg_bench_settle(&t, &s);
        if (strengthen(&t)) {
            const size_t n = t.rows * t.m.width;
            tg_bench_run(&t, true);
            assert_finite(t.y, n, "outputs");
            assert_finite(t.dx, n, "dx");
            for (size_t i = 0; i < t.spec.mixer->param_count; i++)
                assert_finite(t.grad[i], t.grad[i] ? t.count[i] : 0, t.spec.mixer->params[i].name);
        }
        tg_bench_close(&t);
    }
}

/* No name above is of a parameter that no row has. */
static void test_gates_are_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < STRONG; i++) {
        bool found = false;
        for (size_t row = 0; tg_mixer_schemas[row]; row++)
            for (size_t r = 0; r < tg_mixer_schemas[row]->param_count; r++)
                found |= !strcmp(tg_mixer_schemas[row]->params[r].name, strong[i].name);
        if (!found)
            fail_msg("no row has a parameter %s", strong[i].name);
    }
}

/* One token after another, by the step alone: y [rows,D] of one sequence */
static void step_all(struct tg_bench *t, float *y)
{
    static const size_t begin[] = {0, 1};
    const size_t D = t->m.width;
    size_t past = 0;
    const struct tg_batch b = {1, begin, &past};
    float *states = tg_bench_floats(t->ops->state_floats(&t->m, t->rows));
    float *work = tg_bench_floats(tg_mixer_step_work(t->ops, &t->m, &b, t->rows, 1));
    for (; past < t->rows; past++)
        t->ops->step(&t->ctx, &t->m, &b, t->rows, t->x + past * D, &states, y + past * D, work);
    tg_free(states);
    tg_free(work);
}

/* Rows with a cache that grows are attention over the whole text: not what this is about. */
static void test_long_text(void **state)
{
    static const size_t lengths[] = {LONG_TEXT};
    const size_t *row = *state;
    struct tg_bench_shape s = shape_of(0, 1, lengths, 1);
    const struct tg_bench_pair p = {tg_mixers[*row], tg_mixer_schemas[*row], &s, 0};
    struct tg_bench t = tg_bench_open(&p);
    tg_bench_settle(&t, &s);
    if (!t.spec.mixer->kv_floats_per_token(&t.spec)) {
        float *y = tg_bench_floats(t.rows * t.m.width);
        tg_bench_run(&t, false);
        step_all(&t, y);
        assert_below(tg_rel_error_f(t.y, y, t.rows * t.m.width), LONG, t.ops->name);
        tg_free(y);
    }
    tg_bench_close(&t);
}

static float *param_of(struct tg_bench *t, const char *name, size_t *n)
{
    const size_t rule = rule_of(t, name);
    assert_true(rule < t->spec.mixer->param_count && t->param[rule]);
    *n = t->count[rule];
    return t->param[rule];
}

static void fill(struct tg_bench *t, const char *name, float value)
{
    size_t n;
    float *p = param_of(t, name, &n);
    for (size_t i = 0; i < n; i++)
        p[i] = value;
}

static struct tg_bench open_row(const char *name, const struct tg_bench_shape *s, size_t way)
{
    size_t i = 0;
    while (tg_mixers[i] && strcmp(tg_mixers[i]->name, name) != 0)
        i++;
    assert_non_null(tg_mixers[i]);
    struct tg_bench t =
        tg_bench_open(&(struct tg_bench_pair){tg_mixers[i], tg_mixer_schemas[i], s, way});
    if (t.spec.recurrent.rank) /* a row of the low rank for each head's gate */
        t.spec.recurrent.rank = tg_value_heads(&t.spec);
    return t;
}

/* Parameters of the same name get the same values; first inputs of tokens are 1, by which a
 * projection without bias gives a constant. */
static void alike(struct tg_bench *a, struct tg_bench *b)
{
    for (size_t i = 0; i < a->spec.mixer->param_count; i++) {
        const size_t rule = rule_of(b, a->spec.mixer->params[i].name);
        if (!a->param[i] || rule == b->spec.mixer->param_count || !b->param[rule])
            continue;
        for (size_t c = 0; a->count[i] == b->count[rule] && c < a->count[i]; c++)
            b->param[rule][c] = a->param[i][c];
    }
    for (size_t row = 0; row < a->rows; row++)
        a->x[row * a->m.width] = b->x[row * a->m.width] = 1;
}

/* silu(x Wz^T) = 1 for every token */
static void constant_z(struct tg_bench *t)
{
    size_t n;
    float *z = param_of(t, "z.weight", &n);
    for (size_t i = 0; i < n; i++)
        z[i] = i % t->m.width ? 0 : 1.2784645F;
}

static void assert_alike(struct tg_bench *a, struct tg_bench *b, const char *what)
{
    static const char *const names[] = {"q.weight",    "k.weight", "v.weight",
                                        "conv.weight", "b.weight", "o.weight"};
    tg_bench_run(a, true);
    tg_bench_run(b, true);
    assert_below(tg_rel_error_f(a->y, b->y, a->rows * a->m.width), SAME, what);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t x = rule_of(a, names[i]), y = rule_of(b, names[i]);
        assert_below(tg_rel_error_f(a->grad[x], b->grad[y], a->count[x]), GRADIENT, names[i]);
    }
}

enum { NO_WINDOW = 3 };
static const size_t no_window[NO_WINDOW] = {1, 4, 8}; /* of tg_linear_vary's ways */

/* Equal decays of a head's channels, both output gates held at 1 */
static void test_kda_is_gated_deltanet(void **state)
{
    static const size_t lengths[] = {70, 9};
    (void)state;
    for (size_t way = 0; way < NO_WINDOW; way++) {
        struct tg_bench_shape s = shape_of(no_window[way], 2, lengths, 2);
        struct tg_bench gated = open_row("gated_deltanet", &s, no_window[way]);
        struct tg_bench kda = open_row("kda", &s, no_window[way]);
        tg_bench_settle(&gated, &s);
        tg_bench_settle(&kda, &s);
        alike(&gated, &kda);
        constant_z(&gated);
        fill(&kda, "g_b.weight", 0); /* sigmoid(0) = 1/2 */
        if (kda.spec.recurrent.proj_bias)
            fill(&kda, "g_b.bias", 0);
        size_t n, heads = tg_value_heads(&kda.spec), K = kda.spec.head_dim;
        const float *a = param_of(&gated, "a.weight", &n), *bias;
        memcpy(param_of(&kda, "f_a.weight", &n), a, heads * s.D * sizeof *a);
        float *f_b = param_of(&kda, "f_b.weight", &n);
        for (size_t i = 0; i < n; i++)
            f_b[i] = i % heads == i / heads / K;
        bias = param_of(&gated, "dt_bias", &n);
        float *to = param_of(&kda, "dt_bias", &n);
        for (size_t i = 0; i < n; i++)
            to[i] = bias[i / K];
        float *norm = param_of(&kda, "norm.weight", &n);
        for (size_t i = 0; i < n; i++)
            norm[i] *= 2;
        assert_alike(&gated, &kda, "kda with equal channels");
        tg_bench_close(&gated);
        tg_bench_close(&kda);
    }
}

static void test_gated_deltanet_is_deltanet(void **state)
{
    static const size_t lengths[] = {70, 9};
    (void)state;
    for (size_t way = 0; way < NO_WINDOW; way++) {
        struct tg_bench_shape s = shape_of(no_window[way], 2, lengths, 2);
        struct tg_bench gated = open_row("gated_deltanet", &s, no_window[way]);
        struct tg_bench plain = open_row("deltanet", &s, no_window[way]);
        tg_bench_settle(&gated, &s);
        tg_bench_settle(&plain, &s);
        alike(&gated, &plain);
        constant_z(&gated);
        fill(&gated, "A_log", -60);
        assert_alike(&gated, &plain, "gated_deltanet without decay");
        tg_bench_close(&gated);
        tg_bench_close(&plain);
    }
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } kinds[] = {{"chunks", test_chunks},
                 {"strong gates", test_strong_gates},
                 {"long text", test_long_text}};
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(test_gates_are_rows),
        cmocka_unit_test(test_kda_is_gated_deltanet),
        cmocka_unit_test(test_gated_deltanet_is_deltanet),
    };
    enum { KINDS = sizeof kinds / sizeof *kinds, OTHERS = sizeof others / sizeof *others };
    enum { NAME = 64 };
    size_t mixers = 0, n = 0;
    tg_gemm_init();
    while (tg_mixers[mixers])
        mixers++;
    struct CMUnitTest *tests = tg_alloc_array(mixers * KINDS + OTHERS, sizeof *tests);
    size_t *rows = tg_alloc_array(mixers, sizeof *rows);
    char *names = tg_alloc_array(mixers * KINDS, NAME);
    if (!tests || !rows || !names)
        return 1;
    for (size_t i = 0; i < mixers; i++) {
        rows[i] = i;
        for (size_t k = 0; k < KINDS; k++, n++) {
            snprintf(names + n * NAME, NAME, "%s: %s", tg_mixers[i]->name, kinds[k].name);
            tests[n] = (struct CMUnitTest){names + n * NAME, kinds[k].run, NULL, NULL, &rows[i]};
        }
    }
    for (size_t i = 0; i < OTHERS; i++)
        tests[n++] = others[i];
    int status = tg_run_tests("rows", tests, n);
    tg_free(tests);
    tg_free(rows);
    tg_free(names);
    return status;
}
