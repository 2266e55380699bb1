/* Every row of the mixer registry, at every shape below: forward and gradients against the double
 * reference (tests/mixers_ref.c), decode in every cut against forward, threads, causality, what
 * a new layer begins with. Nothing here knows a row; what the rows compute is in the reference. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/params.h"
#include "linearize/kernels/gemm.h"
#include "tests/check.h"
#include "tests/guard.h"
#include "tests/linear_ref.h"
#include "tests/mixers_ref.h"
#include "tests/recurrent_ref.h"
#include "tests/rwkv_ref.h"

/* float32 rounds to 6e-8; the chains here are some hundred terms through exponentials. A gradient
 * is a sum of terms that cancel. */
static const double FORWARD = 5e-6, GRADIENT = 1e-4, DECODE = 5e-6;

enum { MAX_SEQUENCES = 6 };

struct shape {
    const char *name;
    size_t D, H, G, K, rotary, window, sinks, F;
    enum tg_feature_map map;
    bool gated, bias, qk_norm;
    bool every; /* gradients element by element, not along random directions */
    size_t lengths[MAX_SEQUENCES];
    size_t count;
};
static const struct shape shapes[] = {
    {"tiny",
     6,
     2,
     1,
     4,
     4,
     3,
     1,
     4,
     TG_MAP_HEDGEHOG_SOFTMAX,
     true,
     true,
     true,
     true,
     {7, 1, 0, 5},
     4},
    {"exp", 5, 2, 2, 6, 2, 4, 2, 3, TG_MAP_HEDGEHOG_EXP, false, false, false, true, {9, 2}, 2},
    {"relu", 6, 3, 1, 4, 4, 2, 0, 4, TG_MAP_RELU, true, false, false, true, {8}, 1},
    {"elu1", 6, 4, 2, 2, 0, 1, 3, 2, TG_MAP_ELU1, true, true, false, true, {6, 3}, 2},
    {"identity", 6, 2, 1, 4, 4, 2, 1, 4, TG_MAP_IDENTITY, true, false, false, true, {5, 4}, 2},
    {"taylor", 5, 2, 1, 4, 4, 3, 1, 3, TG_MAP_TAYLOR, true, false, true, true, {7, 3}, 2},
    {"one token", 6, 2, 1, 4, 4, 3, 1, 4, TG_MAP_HEDGEHOG_SOFTMAX, true, false, true, true, {1}, 1},
    {"63 to 65",
     20,
     4,
     2,
     6,
     4,
     16,
     1,
     5,
     TG_MAP_HEDGEHOG_SOFTMAX,
     true,
     true,
     true,
     false,
     {63, 2, 64, 0, 65},
     5},
    {"wide window",
     12,
     2,
     1,
     8,
     8,
     100,
     4,
     8,
     TG_MAP_HEDGEHOG_SOFTMAX,
     false,
     false,
     false,
     false,
     {65, 1},
     2},
    {"257", 12, 2, 1, 8, 8, 50, 1, 8, TG_MAP_HEDGEHOG_SOFTMAX, true, false, true, false, {257}, 1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

struct pair {
    const struct tg_mixer_ops *ops;
    const struct tg_mixer_schema *schema;
    const struct shape *shape;
};

struct bench {
    const struct tg_mixer_ops *ops;
    struct tg_layer_spec spec;
    struct tg_mixer m;
    struct tg_ctx ctx;
    struct tg_batch b;
    size_t begin[MAX_SEQUENCES + 1], rows, longest;
    float *param[TG_MIXER_MAX_PARAMS], *grad[TG_MIXER_MAX_PARAMS];
    size_t count[TG_MIXER_MAX_PARAMS];
    float *cosine, *sine, *x, *dy, *y, *dx;
};

static float *floats(size_t n)
{
    float *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* Values at which every part of a row matters */
static void fill_param(struct bench *t, size_t rule)
{
    const char *name = t->spec.mixer->params[rule].name;
    float *p = t->param[rule], scale = 1, plus = 0;
    tg_fill_random(p, t->count[rule], 100 + rule);
    if (has(name, "norm") || has(name, "alpha"))
        scale = 0.3F, plus = 1;
    else if (has(name, "gate.bias"))
        plus = 2;
    else if (has(name, "router.bias")) /* most tokens are picked, not all */
        plus = 1;
    else if (has(name, "q.weight") || has(name, "k.weight"))
        scale = has(name, "map") ? 1 : 0.7F;
    for (size_t i = 0; i < t->count[rule]; i++)
        p[i] = plus + scale * p[i];
}

static bool takes_sinks(const struct tg_layer_spec *l)
{
    for (size_t i = 0; i < l->mixer->param_count; i++)
        if (l->mixer->params[i].flags & TG_PARAM_IF_SINKS &&
            tg_param_rule_applies(&l->mixer->params[i], l))
            return true;
    return false;
}

/* Sizes are those that convert gives a model of this one layer. */
static void open_params(struct bench *t)
{
    struct tg_layer_spec layer = t->spec;
    struct tg_model_spec spec = {.vocab = 1,
                                 .width = t->m.width,
                                 .norm.eps = 1e-5,
                                 .ropes = {{.theta = 100}},
                                 .layer_count = 1,
                                 .layers = &layer};
    struct tg_param_list list;
    struct tg_err err = {0};
    layer.mlp_dim = 1;
    if (!takes_sinks(&layer))
        layer.sinks = 0;
    if (tg_params_of(&spec, &list, &err) != TG_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < t->spec.mixer->param_count; i++) {
        char name[80];
        snprintf(name, sizeof name, "layers.0.mixer.%s", t->spec.mixer->params[i].name);
        const struct tg_param *p = tg_params_find(&list, name);
        assert_true(!p == !tg_param_rule_applies(&t->spec.mixer->params[i], &t->spec));
        if (!p)
            continue;
        t->count[i] = p->count;
        t->param[i] = floats(t->count[i]);
        t->grad[i] = floats(t->count[i]);
        t->m.param[i] = t->param[i];
        fill_param(t, i);
    }
    tg_params_release(&list);
}

static bool has_rule(const struct tg_mixer_schema *s, const char *name)
{
    for (size_t i = 0; i < s->param_count; i++)
        if (!strcmp(s->params[i].name, name))
            return true;
    return false;
}

static struct bench open_bench(const struct pair *p)
{
    const struct shape *s = p->shape;
    struct bench t = {.ops = p->ops};
    t.spec = (struct tg_layer_spec){.mixer = p->schema,
                                    .heads = s->H,
                                    .kv_heads = s->G,
                                    .head_dim = s->K,
                                    .rotary_dim = s->rotary,
                                    .window = p->schema->flags & TG_MIXER_WINDOW ? s->window : 0,
                                    .sinks = s->sinks,
                                    .feature_dim = s->F,
                                    .feature_map = s->map,
                                    .gated = s->gated,
                                    .qkv_bias = s->bias,
                                    .o_bias = s->bias,
                                    .qk_norm = s->qk_norm,
                                    .attn_scale = 1 / sqrt((double)s->K)};
    if (has_rule(p->schema, "kv_a.weight")) { /* latent attention: every head has its own keys */
        t.spec.kv_heads = s->H;
        t.spec.kv_rank = 5;
        t.spec.q_rank = s->bias ? 3 : 0;
        t.spec.latent_eps = 1e-5;
        t.spec.qk_norm = TG_QK_NONE;
    }
    if (p->schema->adopt)
        p->schema->adopt(&t.spec);
    if (p->schema->flags & TG_MIXER_BESIDE)
        tg_linear_vary(&t.spec, (size_t)(s - shapes), s->G, s->window, s->sinks);
    tg_rwkv_vary(&t.spec, (size_t)(s - shapes));
    if (!p->schema->adopt && p->schema->flags & TG_MIXER_RECURRENT)
        tg_recurrent_open(&t.spec);
    t.spec.kv_rank = t.spec.kv_rank < s->D ? t.spec.kv_rank : s->D;
    if (t.spec.recurrent.chunk) /* short ones: texts have several, and a part of one */
        t.spec.recurrent.chunk = s->window;
    for (size_t i = 0; i < s->count; i++) {
        t.begin[i + 1] = t.begin[i] + s->lengths[i];
        t.longest = s->lengths[i] > t.longest ? s->lengths[i] : t.longest;
    }
    t.rows = t.begin[s->count];
    size_t half = s->rotary / 2, n = t.rows * s->D;
    t.cosine = floats(t.longest * half);
    t.sine = floats(t.longest * half);
    for (size_t i = 0; i < t.longest * half; i++) {
        double angle = (double)(i / half) * pow(100, -(double)(i % half) / (double)half);
        t.cosine[i] = (float)cos(angle);
        t.sine[i] = (float)sin(angle);
    }
    t.x = floats(n);
    t.dy = floats(n);
    t.y = floats(n);
    t.dx = floats(n);
    tg_fill_random(t.x, n, 1);
    tg_fill_random(t.dy, n, 2);
    t.m = (struct tg_mixer){
        .width = s->D, .norm_eps = 1e-5F, .rope_cos = t.cosine, .rope_sin = t.sine};
    t.ctx = (struct tg_ctx){tg_kernels_select((unsigned)TG_CPU_ALL), 1};
    return t;
}

/* The bench holds pointers into itself, so they are set where it finally lies. */
static void settle(struct bench *t, const struct shape *s)
{
    t->m.spec = &t->spec;
    t->b = (struct tg_batch){s->count, t->begin, NULL};
    open_params(t);
}

static void close_bench(struct bench *t)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++) {
        tg_free(t->param[i]);
        tg_free(t->grad[i]);
    }
    float *used[] = {t->cosine, t->sine, t->x, t->dy, t->y, t->dx};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

/* y, and with `backward` dx and grad, in memory that ends at a guard page and begins as NaN */
static void run(struct bench *t, bool backward)
{
    size_t work = t->ops->work_floats(&t->m, &t->b, t->ctx.threads, false);
    size_t back = t->ops->work_floats(&t->m, &t->b, t->ctx.threads, true);
    struct tg_guarded saved = tg_guard(backward ? t->ops->saved_floats(&t->m, &t->b) : 0);
    struct tg_guarded w = tg_guard(work), wb = tg_guard(back);
    struct tg_mixer_grads d;
    memcpy(d.param, t->grad, sizeof d.param);
    for (size_t i = 0; i < t->rows * t->m.width; i++)
        t->y[i] = t->dx[i] = NAN;
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        if (t->grad[i])
            memset(t->grad[i], 0, t->count[i] * sizeof(float));
    t->ops->forward(&t->ctx, &t->m, &t->b, t->x, t->y, backward ? saved.p : NULL, w.p);
    if (backward)
        t->ops->backward(&t->ctx, &t->m, &t->b, t->x, t->dy, saved.p, t->dx, &d, wb.p);
    tg_guard_free(&saved);
    tg_guard_free(&w);
    tg_guard_free(&wb);
}

/* The double reference at the bench's values */
struct oracle {
    struct tg_ref ref;
    struct tg_ref_consts consts;
    const struct bench *t;
    bool every; /* gradients element by element */
    double *param[TG_MIXER_MAX_PARAMS], *x, *y;
};

static double *doubles(const float *from, size_t n)
{
    double *to = tg_alloc_array(n + 1, sizeof *to);
    assert_non_null(to);
    if (from)
        tg_to_double(from, to, n);
    return to;
}

static double loss(struct oracle *o)
{
    double sum = 0;
    tg_ref_forward(&o->ref, &o->t->b, o->x, o->y);
    for (size_t i = 0; i < o->t->rows * o->t->m.width; i++)
        sum += o->y[i] * (double)o->t->dy[i];
    return sum;
}

static void open_oracle(struct oracle *o, const struct bench *t, bool every)
{
    size_t n = t->rows * t->m.width;
    memset(o, 0, sizeof *o);
    o->t = t;
    o->every = every;
    o->x = doubles(t->x, n);
    o->y = doubles(NULL, n);
    o->consts.limit = 4 * t->rows * t->spec.heads;
    o->consts.values = doubles(NULL, o->consts.limit);
    o->ref.mixer = &t->m;
    o->ref.consts = &o->consts;
    for (size_t i = 0; i < t->spec.mixer->param_count; i++)
        if (t->param[i])
            o->ref.param[i] = o->param[i] = doubles(t->param[i], t->count[i]);
    o->consts.record = true;
    loss(o);
    o->consts.record = false;
}

static void close_oracle(struct oracle *o)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        tg_free(o->param[i]);
    tg_free(o->x);
    tg_free(o->y);
    tg_free(o->consts.values);
}

/* Central difference of the loss along `direction` [n] at p */
static double slope(struct oracle *o, double *p, const double *direction, size_t n, double *keep)
{
    const double step = 1e-5;
    double up, down;
    memcpy(keep, p, n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = keep[i] + step * direction[i];
    up = loss(o);
    for (size_t i = 0; i < n; i++)
        p[i] = keep[i] - step * direction[i];
    down = loss(o);
    memcpy(p, keep, n * sizeof *p);
    return (up - down) / (2 * step);
}

/* RMS over the elements, or the worst of two random directions divided by the size that a gradient
 * of this norm has along them. Relative to the gradient, or to a thousandth of dx where it is zero
 * or nearly so. */
static double gradient_error(struct oracle *o, double *p, const float *grad, size_t n)
{
    size_t rows = o->t->rows * o->t->m.width;
    double *direction = doubles(NULL, n), *keep = doubles(NULL, n), diff = 0, size = 0, dx = 0;
    for (size_t i = 0; i < rows; i++)
        dx += (double)o->t->dx[i] * (double)o->t->dx[i];
    for (size_t i = 0; i < n; i++)
        size += (double)grad[i] * (double)grad[i];
    for (size_t i = 0; o->every && i < n; i++) {
        direction[i] = 1;
        double e = slope(o, p, direction, n, keep) - (double)grad[i];
        diff += e * e;
        direction[i] = 0;
    }
    for (size_t round = 0; !o->every && round < 2; round++) {
        float *random = floats(n);
        double along = 0, norm = 0;
        tg_fill_random(random, n, 50 + round);
        for (size_t i = 0; i < n; i++) {
            direction[i] = (double)random[i];
            along += direction[i] * (double)grad[i];
            norm += direction[i] * direction[i];
        }
        double e = slope(o, p, direction, n, keep) - along;
        diff = fmax(diff, e * e / norm * (double)n);
        if (isnan(e))
            diff = e;
        tg_free(random);
    }
    tg_free(direction);
    tg_free(keep);
    return sqrt(diff / (double)n) / fmax(sqrt(size / (double)n), 1e-2 * sqrt(dx / (double)rows));
}

static void test_reference(void **state)
{
    const struct pair *p = *state;
    struct bench t = open_bench(p);
    struct oracle o;
    settle(&t, p->shape);
    assert_true(tg_ref_knows(&t.m));
    run(&t, true);
    open_oracle(&o, &t, p->shape->every);
    assert_below(tg_rel_error_fd(t.y, o.y, t.rows * t.m.width), FORWARD, "forward");
    assert_below(gradient_error(&o, o.x, t.dx, t.rows * t.m.width), GRADIENT, "dx");
    for (size_t i = 0; i < t.spec.mixer->param_count; i++)
        if (t.param[i])
            assert_below(gradient_error(&o, o.param[i], t.grad[i], t.count[i]), GRADIENT,
                         t.spec.mixer->params[i].name);
    float *y = floats(t.rows * t.m.width);
    memcpy(y, t.y, t.rows * t.m.width * sizeof *y);
    run(&t, false);
    assert_memory_equal(y, t.y, t.rows * t.m.width * sizeof *y); /* saved or not */
    tg_free(y);
    close_oracle(&o);
    close_bench(&t);
}

static void test_threads(void **state)
{
    const struct pair *p = *state;
    struct bench one = open_bench(p), more = open_bench(p);
    settle(&one, p->shape);
    settle(&more, p->shape);
    run(&one, true);
    for (int threads = 2; threads <= 3; threads++) {
        more.ctx.threads = threads;
        run(&more, true);
        assert_memory_equal(one.y, more.y, one.rows * one.m.width * sizeof *one.y);
        assert_memory_equal(one.dx, more.dx, one.rows * one.m.width * sizeof *one.y);
        for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
            if (one.grad[i])
                assert_memory_equal(one.grad[i], more.grad[i], one.count[i] * sizeof *one.y);
    }
    close_bench(&one);
    close_bench(&more);
}

/* A changed token changes no output before it and none of another sequence, to the bit. */
static void test_causal(void **state)
{
    const struct pair *p = *state;
    struct bench t = open_bench(p);
    settle(&t, p->shape);
    run(&t, false);
    size_t D = t.m.width, end = t.begin[1], at = end * 2 / 3;
    float *y = floats(t.rows * D);
    memcpy(y, t.y, t.rows * D * sizeof *y);
    for (size_t i = 0; i < D; i++)
        t.x[at * D + i] += 1;
    run(&t, false);
    assert_memory_equal(y, t.y, at * D * sizeof *y);
    assert_memory_not_equal(y + at * D, t.y + at * D, D * sizeof *y);
    assert_memory_equal(y + end * D, t.y + end * D, (t.rows - end) * D * sizeof *y);
    tg_free(y);
    close_bench(&t);
}

/* Decode of the whole bench. */
struct decode {
    struct bench *t;
    float *states[MAX_SEQUENCES], *copies[MAX_SEQUENCES];
    size_t past[MAX_SEQUENCES], bytes, capacity;
    float *y; /* like the bench's */
};

static void open_decode(struct decode *d, struct bench *t)
{
    memset(d, 0, sizeof *d);
    d->t = t;
    d->capacity = t->longest + 3;
    size_t n = t->ops->state_floats(&t->m, d->capacity);
    d->bytes = n * sizeof(float);
    for (size_t i = 0; i < t->b.count; i++) {
        d->states[i] = floats(n);
        d->copies[i] = floats(n);
    }
    d->y = floats(t->rows * t->m.width);
}

static void close_decode(struct decode *d)
{
    for (size_t i = 0; i < d->t->b.count; i++) {
        tg_free(d->states[i]);
        tg_free(d->copies[i]);
    }
    tg_free(d->y);
}

/* Up to n more tokens of each sequence; false when all are at their end */
static bool advance(struct decode *d, size_t n)
{
    const struct bench *t = d->t;
    size_t begin[MAX_SEQUENCES + 1] = {0}, D = t->m.width;
    struct tg_batch b = {t->b.count, begin, d->past};
    for (size_t i = 0; i < b.count; i++) {
        size_t left = t->begin[i + 1] - t->begin[i] - d->past[i];
        begin[i + 1] = begin[i] + (left < n ? left : n);
    }
    size_t rows = begin[b.count];
    if (rows == 0)
        return false;
    float *x = floats(rows * D);
    struct tg_guarded y = tg_guard(rows * D);
    struct tg_guarded work =
        tg_guard(tg_mixer_step_work(t->ops, &t->m, &b, d->capacity, t->ctx.threads));
    for (size_t i = 0; i < b.count; i++)
        memcpy(x + begin[i] * D, t->x + (t->begin[i] + d->past[i]) * D,
               (begin[i + 1] - begin[i]) * D * sizeof *x);
    t->ops->step(&t->ctx, &t->m, &b, d->capacity, x, d->states, y.p, work.p);
    for (size_t i = 0; i < b.count; i++) {
        memcpy(d->y + (t->begin[i] + d->past[i]) * D, y.p + begin[i] * D,
               (begin[i + 1] - begin[i]) * D * sizeof *x);
        d->past[i] += begin[i + 1] - begin[i];
    }
    tg_free(x);
    tg_guard_free(&y);
    tg_guard_free(&work);
    return true;
}

static void restart(struct decode *d)
{
    for (size_t i = 0; i < d->t->b.count; i++) {
        memset(d->states[i], 0, d->bytes);
        d->past[i] = 0;
    }
}

static void test_decode(void **state)
{
    static const size_t cuts[][4] = {{1, 1, 1, 1},     {2, 5, 1, 3},    {40, 1, 33, 7},
                                     {64, 64, 64, 64}, {1000, 1, 1, 1}, {7, 50, 100, 31}};
    const struct pair *p = *state;
    struct bench t = open_bench(p);
    struct decode d;
    settle(&t, p->shape);
    run(&t, false);
    open_decode(&d, &t);
    size_t n = t.rows * t.m.width;
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        char text[64];
        t.ctx.threads = 1 + (int)(c % 2);
        snprintf(text, sizeof text, "decode in pieces of %zu, %zu, ..", cuts[c][0], cuts[c][1]);
        restart(&d);
        for (size_t i = 0; advance(&d, cuts[c][i % 4]); i++)
            continue;
        assert_below(tg_rel_error_f(d.y, t.y, n), DECODE, text);
    }
    close_decode(&d);
    close_bench(&t);
}

/* A snapshot is a copy: going on from it, after other tokens have passed, gives the same bits. */
static void test_snapshot(void **state)
{
    const struct pair *p = *state;
    struct bench t = open_bench(p);
    struct decode d;
    settle(&t, p->shape);
    open_decode(&d, &t);
    size_t n = t.rows * t.m.width, past[MAX_SEQUENCES];
    float *y = floats(n);
    advance(&d, t.longest / 3);
    advance(&d, 1);
    memcpy(past, d.past, sizeof past);
    for (size_t i = 0; i < t.b.count; i++)
        memcpy(d.copies[i], d.states[i], d.bytes);
    while (advance(&d, 2))
        continue;
    memcpy(y, d.y, n * sizeof *y);
    memcpy(d.past, past, sizeof past);
    for (size_t i = 0; i < t.b.count; i++)
        memcpy(d.states[i], d.copies[i], d.bytes);
    while (advance(&d, 2))
        continue;
    assert_memory_equal(y, d.y, n * sizeof *y);
    tg_free(y);
    close_decode(&d);
    close_bench(&t);
}

/* What convert promises users about memory is what decode takes. */
static void test_state_size(void **state)
{
    const struct pair *p = *state;
    struct bench t = open_bench(p);
    settle(&t, p->shape);
    for (size_t capacity = 1; capacity <= 1000; capacity += 333)
        assert_int_equal(t.ops->state_floats(&t.m, capacity),
                         t.spec.mixer->state_floats(&t.spec) +
                             capacity * t.spec.mixer->kv_floats_per_token(&t.spec));
    close_bench(&t);
}

/* First values of a parameter, by its name */
static double first_value(const struct bench *t, size_t rule, size_t i)
{
    const struct tg_param_rule *r = &t->spec.mixer->params[rule];
    const char *mixer = t->spec.mixer->name;
    size_t K = t->spec.head_dim, F = t->spec.feature_dim;
    if (r->flags & TG_PARAM_IF_MAP)
        return i / F % K == i % F ? 1 : 0;
    if (strcmp(r->name, "gate.bias") == 0)
        return strcmp(mixer, "lizard") == 0 ? 4.6 : strcmp(mixer, "lolcats") == 0 ? 6 : 5;
    if (strcmp(r->name, "sink") == 0)
        return strcmp(mixer, "lizard") == 0 ? 0 : -4;
    if (strcmp(r->name, "alpha") == 0)
        return 1;
    if (strcmp(r->name, "router.bias") == 0)
        return 3;
    if (strcmp(r->name, "decay") == 0)
        return log(15);
    return strcmp(r->name, "window_logit") == 0 ? log(0.1 / 0.9) : 0;
}

/* First values that are neither constants nor copies */
static bool made_of_weights(const struct bench *t, size_t rule)
{
    const char *name = t->spec.mixer->params[rule].name;
    return has(name, "latent") || has(name, "_up.");
}

static void test_inherit(void **state)
{
    const struct pair *p = *state;
    struct bench t = open_bench(p);
    struct bench soft = open_bench(&(struct pair){tg_mixers[0], tg_mixer_schemas[0], p->shape});
    settle(&t, p->shape);
    settle(&soft, p->shape);
    const struct tg_origin origin = {.from = &soft.m, .layer = 1, .layer_count = 4};
    for (size_t rule = 0; rule < t.spec.mixer->param_count; rule++) {
        if (!t.param[rule] || !(t.spec.mixer->params[rule].flags & TG_PARAM_NEW) || !t.ops->inherit)
            continue;
        for (size_t i = 0; i < t.count[rule]; i++)
            t.param[rule][i] = NAN;
        t.ops->inherit(&t.m, &origin, rule, t.param[rule], t.count[rule]);
        for (size_t i = 0; i < t.count[rule]; i++)
            if (t.spec.mixer->flags & TG_MIXER_RECURRENT || made_of_weights(&t, rule))
                assert_true(isfinite(t.param[rule][i]));
            else
                assert_below(fabs((double)t.param[rule][i] - first_value(&t, rule, i)), 1e-6,
                             t.spec.mixer->params[rule].name);
    }
    close_bench(&t);
    close_bench(&soft);
}

/* With a window or chunk as long as the text and no sinks, these are the softmax layer. */
static void test_equals_softmax(void **state)
{
    (void)state;
    struct shape s = shapes[SHAPES - 2];
    s.sinks = 0;
    struct bench soft = open_bench(&(struct pair){tg_mixers[0], tg_mixer_schemas[0], &s});
    settle(&soft, &s);
    run(&soft, true);
    size_t n = soft.rows * soft.m.width, seen = 0;
    for (size_t i = 1; tg_mixers[i]; i++) {
        if (strcmp(tg_mixers[i]->name, "window") != 0 &&
            strcmp(tg_mixers[i]->name, "gated_window") != 0 &&
            strcmp(tg_mixers[i]->name, "block_causal") != 0)
            continue;
        struct bench t = open_bench(&(struct pair){tg_mixers[i], tg_mixer_schemas[i], &s});
        settle(&t, &s);
        run(&t, true);
        assert_below(tg_rel_error_f(t.y, soft.y, n), 1e-6, "forward");
        assert_below(tg_rel_error_f(t.dx, soft.dx, n), 1e-6, "dx");
        close_bench(&t);
        seen++;
    }
    assert_int_equal(seen, 3);
    close_bench(&soft);
}

static void test_registry(void **state)
{
    (void)state;
    size_t n = 0;
    for (; tg_mixer_schemas[n]; n++) {
        assert_non_null(tg_mixers[n]);
        assert_string_equal(tg_mixers[n]->name, tg_mixer_schemas[n]->name);
        assert_ptr_equal(tg_mixer_find(tg_mixer_schemas[n]), tg_mixers[n]);
    }
    assert_null(tg_mixers[n]);
    assert_null(tg_mixer_find(NULL));
}

int main(void)
{
    static const struct {
        const char *name;
        CMUnitTestFunction run;
    } kinds[] = {
        {"reference", test_reference}, {"threads", test_threads},   {"causal", test_causal},
        {"decode", test_decode},       {"snapshot", test_snapshot}, {"state size", test_state_size},
        {"inherit", test_inherit},
    };
    enum { KINDS = sizeof kinds / sizeof *kinds, NAME = 64 };
    size_t mixers = 0, n = 0;
    tg_gemm_init();
    while (tg_mixers[mixers])
        mixers++;
    size_t limit = mixers * SHAPES * KINDS + 2;
    struct CMUnitTest *tests = tg_alloc_array(limit, sizeof *tests);
    struct pair *pairs = tg_alloc_array(mixers * SHAPES, sizeof *pairs);
    char *names = tg_alloc_array(limit, NAME);
    if (!tests || !pairs || !names)
        return 1;
    tests[n++] = (struct CMUnitTest){"registry", test_registry, NULL, NULL, NULL};
    tests[n++] = (struct CMUnitTest){"equals softmax", test_equals_softmax, NULL, NULL, NULL};
    for (size_t i = 0; i < mixers * SHAPES; i++) {
        pairs[i] =
            (struct pair){tg_mixers[i / SHAPES], tg_mixer_schemas[i / SHAPES], &shapes[i % SHAPES]};
        for (size_t k = 0; k < KINDS; k++, n++) {
            snprintf(names + n * NAME, NAME, "%s, %s: %s", pairs[i].ops->name, pairs[i].shape->name,
                     kinds[k].name);
            tests[n] = (struct CMUnitTest){names + n * NAME, kinds[k].run, NULL, NULL, &pairs[i]};
        }
    }
    int status = tg_run_tests("mixers", tests, n);
    tg_free(tests);
    tg_free(pairs);
    tg_free(names);
    return status;
}
