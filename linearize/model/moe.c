#include "linearize/model/moe.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/model/mlp.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/router.h"
#include "linearize/model/row_ops.h"

/* n = rows k slots, sorted by expert and within one by row */
struct saved {
    float *p;                   /* [rows,E] what the scores became */
    float *weight;              /* [rows,k] */
    float *a, *b;               /* [n,M] before the activation */
    float *shared_a, *shared_b; /* [rows,S] */
    float *gate;                /* [rows] sigmoid of the shared expert's gate */
    uint32_t *choice, *slot;    /* [rows,k]: the expert, and where it stands */
    uint32_t *place, *begin; /* [n] the slot's place in [rows,k]; [E+1] first slot of each expert */
};
struct work {
    float *x;              /* [n,D] rows gathered; then results */
    float *dy;             /* [n,D] */
    float *p, *q;          /* [rows, M or S] */
    float *dweight, *ds;   /* [rows,k], [rows,E] */
    float *dgate, *router; /* [rows], [threads,2E] */
};

static uint32_t *carve_index(struct tg_carve *c, size_t count)
{
    return (uint32_t *)(void *)tg_carve(c, count);
}

static size_t lay_out_saved(const struct tg_layer_spec *l, size_t rows, float *base,
                            struct saved *s)
{
    struct tg_carve c = {base, 0};
    const struct tg_moe_spec *moe = &l->moe;
    size_t n = rows * moe->per_token;
    bool gated = l->mlp_kind == TG_MLP_GATED;
    s->p = tg_carve(&c, rows * moe->experts);
    s->weight = tg_carve(&c, n);
    s->a = tg_carve(&c, n * moe->mlp_dim);
    s->b = tg_carve(&c, gated ? n * moe->mlp_dim : 0);
    s->shared_a = tg_carve(&c, rows * moe->shared_dim);
    s->shared_b = tg_carve(&c, gated ? rows * moe->shared_dim : 0);
    s->gate = tg_carve(&c, rows);
    s->choice = carve_index(&c, n);
    s->slot = carve_index(&c, n);
    s->place = carve_index(&c, n);
    s->begin = carve_index(&c, moe->experts + 1);
    return c.used;
}

static size_t lay_out_work(const struct tg_model_spec *spec, const struct tg_layer_spec *l,
                           size_t rows, int threads, bool backward, float *base, struct work *w)
{
    struct tg_carve c = {base, 0};
    const struct tg_moe_spec *moe = &l->moe;
    size_t n = rows * moe->per_token;
    size_t widest = moe->shared_dim > moe->mlp_dim ? moe->shared_dim : moe->mlp_dim;
    w->x = tg_carve(&c, n * spec->width);
    w->p = tg_carve(&c, rows * widest);
    w->router = tg_carve(&c, (size_t)threads * 2 * moe->experts);
    if (!backward)
        return c.used;
    w->dy = tg_carve(&c, n * spec->width);
    w->q = tg_carve(&c, rows * widest);
    w->dweight = tg_carve(&c, n);
    w->ds = tg_carve(&c, rows * moe->experts);
    w->dgate = tg_carve(&c, rows);
    return c.used;
}

size_t tg_moe_saved_floats(const struct tg_model_spec *spec, size_t layer, size_t rows)
{
    struct saved s;
    const struct tg_layer_spec *l = &spec->layers[layer];
    return l->moe.experts ? lay_out_saved(l, rows, NULL, &s) : 0;
}

size_t tg_moe_work_floats(const struct tg_model_spec *spec, size_t layer, size_t rows, int threads,
                          bool backward)
{
    struct work w;
    struct saved s;
    const struct tg_layer_spec *l = &spec->layers[layer];
    if (!l->moe.experts)
        return 0;
    /* without backward what would be saved is scratch */
    return lay_out_work(spec, l, rows, threads, backward, NULL, &w) +
           lay_out_saved(l, rows, NULL, &s);
}

/* An expert, or (SIZE_MAX) the shared one */
static const size_t SHARED = SIZE_MAX;

static struct tg_mlp expert_mlp(const struct tg_model *m, size_t layer, size_t e)
{
    const struct tg_layer_index *i = &m->index->layers[layer];
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    bool shared = e == SHARED;
    const struct tg_mlp_index *at = shared ? &i->shared : &i->experts;
    size_t D = m->spec.width, M = shared ? l->moe.shared_dim : l->moe.mlp_dim;
    size_t number = shared ? 0 : e;
    const float *gate = tg_model_weight(m, at->gate), *bias = tg_model_weight(m, at->gate_bias);
    const float *up_bias = tg_model_weight(m, at->up_bias);
    const float *down_bias = tg_model_weight(m, at->down_bias);
    return (struct tg_mlp){.act = l->activation,
                           .gate = gate ? gate + number * M * D : NULL,
                           .up = tg_model_weight(m, at->up) + number * M * D,
                           .down = tg_model_weight(m, at->down) + number * M * D,
                           .gate_bias = bias ? bias + number * M : NULL,
                           .up_bias = up_bias ? up_bias + number * M : NULL,
                           .down_bias = down_bias ? down_bias + number * D : NULL,
                           .M = M,
                           .D = D,
                           .gate_scale = (float)tg_factor(l->gate_scale)};
}

/* Part `number` of a gradient, `size` floats each */
static float *part(const struct tg_model *m, float *grads, const bool *wanted, size_t index,
                   size_t number, size_t size)
{
    float *g = tg_model_gradient(m, grads, wanted, index);
    return g ? g + number * size : NULL;
}

static struct tg_mlp_grads expert_grads(const struct tg_model *m, size_t layer, size_t e,
                                        float *grads, const bool *wanted)
{
    const struct tg_layer_index *i = &m->index->layers[layer];
    const struct tg_mlp_index *at = e == SHARED ? &i->shared : &i->experts;
    size_t D = m->spec.width, k = e == SHARED ? 0 : e;
    size_t M = e == SHARED ? 0 : m->spec.layers[layer].moe.mlp_dim;
    return (struct tg_mlp_grads){
        part(m, grads, wanted, at->gate, k, M * D), part(m, grads, wanted, at->up, k, M * D),
        part(m, grads, wanted, at->down, k, M * D), part(m, grads, wanted, at->gate_bias, k, M),
        part(m, grads, wanted, at->up_bias, k, M),  part(m, grads, wanted, at->down_bias, k, D)};
}

static void sort_slots(const struct saved *s, size_t experts, size_t n)
{
    memset(s->begin, 0, (experts + 1) * sizeof *s->begin);
    for (size_t i = 0; i < n; i++)
        s->begin[s->choice[i] + 1]++;
    for (size_t e = 0; e < experts; e++)
        s->begin[e + 1] += s->begin[e];
    for (size_t i = 0; i < n; i++) { /* begin moves on to each expert's end, then back */
        uint32_t slot = s->begin[s->choice[i]]++;
        s->slot[i] = slot;
        s->place[slot] = (uint32_t)i;
    }
    for (size_t e = experts; e > 0; e--)
        s->begin[e] = s->begin[e - 1];
    s->begin[0] = 0;
}

struct move {
    const struct tg_kernels *k;
    const struct saved *s;
    const float *from;
    float *to;
    size_t per_token, width;
    bool weighted;
};

static void gather_slot(void *ud, size_t slot, int worker)
{
    const struct move *v = ud;
    (void)worker;
    memcpy(v->to + slot * v->width, v->from + v->s->place[slot] / v->per_token * v->width,
           v->width * sizeof *v->to);
}

static void gather(const struct tg_model *m, const struct saved *s, const float *from, float *to,
                   size_t per_token, size_t n)
{
    struct move v = {m->ctx.k, s, from, to, per_token, m->spec.width, false};
    tg_parallel(m->ctx.threads, n, gather_slot, &v);
}

/* to row = sum of its slots, times their weights if asked */
static void add_slots(void *ud, size_t row, int worker)
{
    const struct move *v = ud;
    float *to = v->to + row * v->width;
    (void)worker;
    memset(to, 0, v->width * sizeof *to);
    for (size_t j = row * v->per_token; j < (row + 1) * v->per_token; j++)
        v->k->axpy(v->weighted ? v->s->weight[j] : 1, v->from + v->s->slot[j] * v->width, to,
                   v->width);
}

static void scatter(const struct tg_model *m, const struct saved *s, size_t per_token,
                    bool weighted, const float *from, float *to, size_t rows)
{
    struct move v = {m->ctx.k, s, from, to, per_token, m->spec.width, weighted};
    tg_parallel(m->ctx.threads, rows, add_slots, &v);
}

static void shared_forward(const struct tg_model *m, size_t layer, const float *x, float *y,
                           size_t rows, const struct saved *s, const struct work *w)
{
    const struct tg_ctx *ctx = &m->ctx;
    const float *gate = tg_model_weight(m, m->index->layers[layer].shared_gate);
    struct tg_mlp mlp = expert_mlp(m, layer, SHARED);
    size_t D = m->spec.width;
    tg_mlp_hidden(ctx, &mlp, x, s->shared_a, s->shared_b, w->p, rows);
    if (!gate) {
        tg_mlp_down(ctx, &mlp, 1, w->p, 1, y, rows);
        return;
    }
    tg_linear_fwd(ctx, x, gate, NULL, s->gate, rows, 1, D);
    tg_mlp_down(ctx, &mlp, 1, w->p, 0, w->x, rows);
    for (size_t r = 0; r < rows; r++) {
        s->gate[r] = 1 / (1 + expf(-s->gate[r]));
        ctx->k->axpy(s->gate[r], w->x + r * D, y + r * D, D);
    }
}

void tg_moe_forward(const struct tg_model *m, size_t layer, const float *x, float *y, size_t rows,
                    float *saved, float *work)
{
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_moe_spec *moe = &l->moe;
    size_t D = m->spec.width, M = moe->mlp_dim, n = rows * moe->per_token;
    struct work w;
    struct saved s;
    size_t used = lay_out_work(&m->spec, l, rows, m->ctx.threads, false, work, &w);
    lay_out_saved(l, rows, saved ? saved : work + used, &s);

    tg_linear_fwd(&m->ctx, x, tg_model_weight(m, at->router), tg_model_weight(m, at->router_bias),
                  s.p, rows, moe->experts, D);
    tg_router_fwd(&m->ctx, moe, tg_model_weight(m, at->correction), s.p, s.choice, s.weight,
                  w.router, rows);
    sort_slots(&s, moe->experts, n);
    gather(m, &s, x, w.x, moe->per_token, n);
    for (size_t e = 0; e < moe->experts; e++) {
        size_t first = s.begin[e], count = s.begin[e + 1] - first;
        struct tg_mlp mlp = expert_mlp(m, layer, e);
        if (!count)
            continue;
        tg_mlp_hidden(&m->ctx, &mlp, w.x + first * D, s.a + first * M, s.b + first * M, w.p, count);
        tg_mlp_down(&m->ctx, &mlp, 1, w.p, 0, w.x + first * D, count);
    }
    scatter(m, &s, moe->per_token, true, w.x, y, rows);
    if (moe->shared_dim)
        shared_forward(m, layer, x, y, rows, &s, &w);
}

/* Row r of dy and q, the gradients of an mlp's output and of its activation's result, without the
 * factor of the output, get it; the factor's own gradient is <dy, down p + bias> = <q, p> + <dy,
 * bias>. */
static float through_factor(const struct tg_kernels *k, const struct tg_mlp *mlp, float factor,
                            const float *p, float *q, float *dy)
{
    float d = k->dot(q, p, mlp->M);
    if (mlp->down_bias)
        d += k->dot(dy, mlp->down_bias, mlp->D);
    k->scale(factor, q, mlp->M);
    k->scale(factor, dy, mlp->D);
    return d;
}

/* q and p of `count` rows whose dy [count,D] has no factor yet */
static void open_factor(const struct tg_ctx *ctx, const struct tg_mlp *mlp, const float *a,
                        const float *b, const float *dy, const struct work *w, size_t count)
{
    tg_rows_act(ctx, mlp->act, a, mlp->gate ? b : NULL, w->p, count, mlp->M);
    tg_linear_bwd(ctx, NULL, mlp->down, dy, w->q, 0, NULL, NULL, count, mlp->D, mlp->M);
}

/* The rest of backward through an mlp whose output had a factor, which dy and q now have too */
static void close_factor(const struct tg_ctx *ctx, const struct tg_mlp *mlp,
                         const struct tg_mlp_grads *to, const float *x, const float *a,
                         const float *b, float *dy, float beta, float *dx, const struct work *w,
                         size_t count)
{
    tg_linear_bwd(ctx, w->p, mlp->down, dy, NULL, 0, to->down, to->down_bias, count, mlp->D,
                  mlp->M);
    tg_mlp_hidden_bwd(ctx, mlp, to, x, a, b, beta, dx, w->p, w->q, count);
}

static void expert_backward(const struct tg_model *m, size_t layer, size_t e, const struct saved *s,
                            const struct work *w, float *grads, const bool *wanted)
{
    size_t first = s->begin[e], count = s->begin[e + 1] - first, D = m->spec.width;
    struct tg_mlp mlp = expert_mlp(m, layer, e);
    struct tg_mlp_grads to = expert_grads(m, layer, e, grads, wanted);
    const float *a = s->a + first * mlp.M, *b = s->b + first * mlp.M;
    float *dy = w->dy + first * D;
    if (!count)
        return;
    open_factor(&m->ctx, &mlp, a, b, dy, w, count);
    for (size_t i = 0; i < count; i++) {
        size_t j = s->place[first + i];
        w->dweight[j] = through_factor(m->ctx.k, &mlp, s->weight[j], w->p + i * mlp.M,
                                       w->q + i * mlp.M, dy + i * D);
    }
    close_factor(&m->ctx, &mlp, &to, w->x + first * D, a, b, dy, 0, dy, w, count);
}

/* dx += */
static void shared_backward(const struct tg_model *m, size_t layer, const float *x, const float *dy,
                            const struct saved *s, const struct work *w, float *dx, float *grads,
                            const bool *wanted, size_t rows)
{
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_ctx *ctx = &m->ctx;
    const float *gate = tg_model_weight(m, at->shared_gate);
    size_t D = m->spec.width;
    struct tg_mlp mlp = expert_mlp(m, layer, SHARED);
    struct tg_mlp_grads to = expert_grads(m, layer, SHARED, grads, wanted);
    if (!gate) {
        tg_mlp_bwd(ctx, &mlp, &to, x, s->shared_a, s->shared_b, dy, 1, dx, w->p, w->q, rows);
        return;
    }
    tg_rows_copy(ctx, dy, w->dy, rows, D);
    open_factor(ctx, &mlp, s->shared_a, s->shared_b, w->dy, w, rows);
    for (size_t r = 0; r < rows; r++)
        w->dgate[r] = s->gate[r] * (1 - s->gate[r]) *
                      through_factor(ctx->k, &mlp, s->gate[r], w->p + r * mlp.M, w->q + r * mlp.M,
                                     w->dy + r * D);
    close_factor(ctx, &mlp, &to, x, s->shared_a, s->shared_b, w->dy, 1, dx, w, rows);
    tg_linear_bwd(ctx, x, gate, w->dgate, dx, 1,
                  tg_model_gradient(m, grads, wanted, at->shared_gate), NULL, rows, 1, D);
}

void tg_moe_backward(const struct tg_model *m, size_t layer, const float *x, const float *dy,
                     const float *saved, float *dx, float *grads, const bool *wanted, float *work,
                     size_t rows)
{
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_moe_spec *moe = &l->moe;
    size_t D = m->spec.width, n = rows * moe->per_token;
    struct work w;
    struct saved s;
    lay_out_work(&m->spec, l, rows, m->ctx.threads, true, work, &w);
    lay_out_saved(l, rows, (float *)saved, &s);

    gather(m, &s, x, w.x, moe->per_token, n);
    gather(m, &s, dy, w.dy, moe->per_token, n);
    for (size_t e = 0; e < moe->experts; e++)
        expert_backward(m, layer, e, &s, &w, grads, wanted);
    scatter(m, &s, moe->per_token, false, w.dy, dx, rows);
    tg_router_bwd(&m->ctx, moe, s.p, s.choice, s.weight, w.dweight, w.ds, rows);
    tg_linear_bwd(&m->ctx, x, tg_model_weight(m, at->router), w.ds, dx, 1,
                  tg_model_gradient(m, grads, wanted, at->router),
                  tg_model_gradient(m, grads, wanted, at->router_bias), rows, moe->experts, D);
    if (moe->shared_dim)
        shared_backward(m, layer, x, dy, &s, &w, dx, grads, wanted, rows);
}
