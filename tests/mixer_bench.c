#include "tests/mixer_bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/params.h"
#include "tests/check.h"
#include "tests/guard.h"
#include "tests/linear_ref.h"
#include "tests/recurrent_ref.h"
#include "tests/rwkv_ref.h"

float *tg_bench_floats(size_t n)
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
static void fill_param(struct tg_bench *t, size_t rule)
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
static void open_params(struct tg_bench *t)
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
        t->param[i] = tg_bench_floats(t->count[i]);
        t->grad[i] = tg_bench_floats(t->count[i]);
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

struct tg_bench tg_bench_open(const struct tg_bench_pair *p)
{
    const struct tg_bench_shape *s = p->shape;
    struct tg_bench t = {.ops = p->ops};
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
        tg_linear_vary(&t.spec, p->way, s->G, s->window, s->sinks);
    tg_rwkv_vary(&t.spec, p->way);
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
    t.cosine = tg_bench_floats(t.longest * half);
    t.sine = tg_bench_floats(t.longest * half);
    for (size_t i = 0; i < t.longest * half; i++) {
        double angle = (double)(i / half) * pow(100, -(double)(i % half) / (double)half);
        t.cosine[i] = (float)cos(angle);
        t.sine[i] = (float)sin(angle);
    }
    t.x = tg_bench_floats(n);
    t.dy = tg_bench_floats(n);
    t.y = tg_bench_floats(n);
    t.dx = tg_bench_floats(n);
    tg_fill_random(t.x, n, 1);
    tg_fill_random(t.dy, n, 2);
    t.m = (struct tg_mixer){
        .width = s->D, .norm_eps = 1e-5F, .rope_cos = t.cosine, .rope_sin = t.sine};
    t.ctx = (struct tg_ctx){.k = tg_kernels_select((unsigned)TG_CPU_ALL), .threads = 1};
    return t;
}

void tg_bench_settle(struct tg_bench *t, const struct tg_bench_shape *s)
{
    t->m.spec = &t->spec;
    t->b = (struct tg_batch){s->count, t->begin, NULL};
    open_params(t);
}

void tg_bench_close(struct tg_bench *t)
{
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++) {
        tg_free(t->param[i]);
        tg_free(t->grad[i]);
    }
    float *used[] = {t->cosine, t->sine, t->x, t->dy, t->y, t->dx};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

void tg_bench_run(struct tg_bench *t, bool backward)
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

void tg_bench_decode_open(struct tg_bench_decode *d, struct tg_bench *t)
{
    memset(d, 0, sizeof *d);
    d->t = t;
    d->capacity = t->longest + 3;
    size_t n = t->ops->state_floats(&t->m, d->capacity);
    d->bytes = n * sizeof(float);
    for (size_t i = 0; i < t->b.count; i++) {
        d->states[i] = tg_bench_floats(n);
        d->copies[i] = tg_bench_floats(n);
    }
    d->y = tg_bench_floats(t->rows * t->m.width);
}

void tg_bench_decode_close(struct tg_bench_decode *d)
{
    for (size_t i = 0; i < d->t->b.count; i++) {
        tg_free(d->states[i]);
        tg_free(d->copies[i]);
    }
    tg_free(d->y);
}

bool tg_bench_advance(struct tg_bench_decode *d, size_t n)
{
    const struct tg_bench *t = d->t;
    size_t begin[TG_BENCH_SEQUENCES + 1] = {0}, D = t->m.width;
    struct tg_batch b = {t->b.count, begin, d->past};
    for (size_t i = 0; i < b.count; i++) {
        size_t left = t->begin[i + 1] - t->begin[i] - d->past[i];
        begin[i + 1] = begin[i] + (left < n ? left : n);
    }
    size_t rows = begin[b.count];
    if (rows == 0)
        return false;
    float *x = tg_bench_floats(rows * D);
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

void tg_bench_restart(struct tg_bench_decode *d)
{
    for (size_t i = 0; i < d->t->b.count; i++) {
        memset(d->states[i], 0, d->bytes);
        d->past[i] = 0;
    }
}
