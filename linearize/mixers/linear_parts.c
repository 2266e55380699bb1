/* Sizes and stages of linear mixers; see linear_parts.h. */
#include "linearize/mixers/linear_parts.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "linearize/mixers/attn_proj.h"

static struct tg_conv conv_of(const struct tg_layer_spec *s, size_t channels)
{
    return (struct tg_conv){.D = channels, .taps = s->recurrent.conv, .silu = true};
}

static struct tg_gnorm unit_of(size_t heads, size_t K)
{
    return (struct tg_gnorm){.groups = heads, .n = K, .l2 = true, .eps = 1e-6F};
}

static struct tg_gnorm norm_of(const struct tg_linear_parts *p, const struct tg_mixer *m)
{
    const struct tg_layer_spec *s = m->spec;
    const float eps = s->recurrent.norm_eps > 0 ? (float)s->recurrent.norm_eps : m->norm_eps;
    enum tg_linear_norm kind = p->recipe->norm;
    if (kind == TG_LINEAR_NORM_NONE && p->recipe->map && s->plain_values)
        kind = TG_LINEAR_NORM_HEAD;
    if (kind == TG_LINEAR_NORM_NONE)
        return (struct tg_gnorm){0};
    bool wide = kind == TG_LINEAR_NORM_WIDE;
    return (struct tg_gnorm){.groups = wide ? 1 : p->out,
                             .n = wide ? p->out * p->V : p->V,
                             .shared = !wide,
                             .gate = p->recipe->z,
                             .eps = eps};
}

static void recurrence_of(const struct tg_mixer *m, struct tg_linear_parts *p)
{
    const struct tg_linear_recipe *r = p->recipe;
    p->recur = (struct tg_recur){.H = p->states,
                                 .G = p->key_heads,
                                 .queries = p->H > p->states ? p->H / p->states : 1,
                                 .K = p->features,
                                 .V = p->Vx,
                                 .chunk = m->chunk,
                                 .gate = tg_linear_gates_kind(&p->gates),
                                 .rule = r->rule,
                                 .scale = r->scale != 0 ? r->scale : 1 / sqrtf((float)p->K)};
}

void tg_linear_parts_of(const struct tg_mixer *m, const struct tg_batch *b,
                        struct tg_linear_parts *p)
{
    const struct tg_layer_spec *s = m->spec;
    const struct tg_linear_recipe *r = tg_mixer_find(s->mixer)->recipe;
    const bool convolved = s->recurrent.conv > 0;
    *p = (struct tg_linear_parts){.recipe = r,
                                  .rows = b ? tg_batch_rows(b) : 0,
                                  .H = s->heads,
                                  .G = s->kv_heads,
                                  .S = tg_value_heads(s),
                                  .K = s->head_dim,
                                  .V = tg_value_dim(s),
                                  .out = tg_out_heads(s),
                                  .ones = r->map && !s->plain_values,
                                  .activated_q = convolved || r->silu_q,
                                  .activated_k = convolved || r->silu_k,
                                  .activated_v = convolved || r->silu_v,
                                  .rotary = s->rotary_dim && !s->linear_plain,
                                  .low_z = tg_mixer_has(m, "g_a.weight")};
    const bool per_query = r->map && tg_feature_map_has_weights(s->feature_map);
    p->map = (struct tg_map){s->feature_map, p->K, s->feature_dim};
    p->states = per_query ? p->H : p->S;
    p->key_heads = per_query ? p->H : p->G;
    p->features = r->map ? tg_map_features(&p->map) : p->K;
    p->Vx = p->V + p->ones;
    p->own_values = p->ones || p->states != p->S;
    p->has_window = tg_beside_of(m, &p->window);
    p->series = p->has_window && s->window_form == TG_WINDOW_SERIES;
    p->own_features = r->map || r->unit;
    p->own_qk = p->activated_q || p->activated_k || r->gate == TG_LINEAR_FORGET ||
                (p->has_window && p->rotary);
    p->conv_q = conv_of(s, p->H * p->K);
    p->conv_k = conv_of(s, p->G * p->K);
    p->conv_v = conv_of(s, p->S * p->V);
    p->unit_q = unit_of(p->H, p->K);
    p->unit_k = unit_of(p->G, p->K);
    p->norm = norm_of(p, m);
    p->gates = tg_linear_gates_of(m, r->gate, r->rule == TG_RULE_DELTA);
    if (r->sparse)
        p->sse = tg_sse_of(m, r->gate);
    recurrence_of(m, p);
}

struct pass {
    const struct tg_ctx *ctx;
    const struct tg_linear_parts *p;
    const struct tg_mixer *m;
    size_t width; /* floats of a row, for silu */
    const float *x, *dy, *x2, *y, *y2;
    float *out, *out2, *dx, *dx2, *dw, *dw2;
};

static void silu_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    (void)worker;
    j->ctx->k->act[TG_ACT_SILU].fwd(j->x + from * j->width, j->out + from * j->width,
                                    (to - from) * j->width);
}

static void silu_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    (void)worker;
    j->ctx->k->act[TG_ACT_SILU].bwd(j->x + from * j->width, j->dy + from * j->width,
                                    j->dx + from * j->width, (to - from) * j->width);
}

void tg_linear_activate(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                        const struct tg_batch *b, const struct tg_conv *conv, const float *w,
                        const float *x, float *y, struct tg_states states)
{
    struct pass j = {.ctx = ctx, .p = p, .width = conv->D, .x = x, .out = y};
    if (conv->taps)
        tg_conv_fwd(ctx, conv, b, x, w, NULL, y, states);
    else
        tg_parallel_rows(ctx->threads, p->rows, silu_rows, &j);
}

void tg_linear_activate_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                            const struct tg_batch *b, const struct tg_conv *conv, const float *w,
                            const float *x, float *dy, float *dx, float *dw)
{
    struct pass j = {.ctx = ctx, .p = p, .width = conv->D, .x = x, .dy = dy, .dx = dx};
    if (conv->taps)
        tg_conv_bwd(ctx, conv, b, x, w, NULL, dy, dx, dw, NULL);
    else
        tg_parallel_rows(ctx->threads, p->rows, silu_bwd_rows, &j);
}

static const float *head_weights(const struct tg_linear_parts *p, const float *w, size_t h)
{
    return w ? w + h * p->K * p->map.F : NULL;
}

/* Heads of one kv head's group: its queries, and the key for each of them or for all */
static void features_item(void *ud, size_t group, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    size_t per = p->H / p->G, keys = p->key_heads / p->G, F = p->features;
    const float *wq = tg_mixer_param(j->m, "map_q.weight"),
                *wk = tg_mixer_param(j->m, "map_k.weight");
    (void)worker;
    for (size_t h = group * per; h < (group + 1) * per; h++)
        tg_map_fwd(j->ctx->k, &p->map, p->rows, j->x + h * p->K, p->H * p->K,
                   head_weights(p, wq, h), j->out + h * F, p->H * F);
    for (size_t h = group * keys; h < (group + 1) * keys; h++)
        tg_map_fwd(j->ctx->k, &p->map, p->rows, j->x2 + group * p->K, p->G * p->K,
                   head_weights(p, wk, h), j->out2 + h * F, p->key_heads * F);
}

void tg_linear_features(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                        const struct tg_mixer *m, const float *q1, const float *k1, float *q,
                        float *k)
{
    struct pass j = {.ctx = ctx, .p = p, .m = m, .x = q1, .x2 = k1, .out = q, .out2 = k};
    tg_parallel(ctx->threads, p->G, features_item, &j);
}

static void features_bwd_item(void *ud, size_t group, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    size_t per = p->H / p->G, keys = p->key_heads / p->G, F = p->features, KF = p->K * p->map.F;
    const float *wq = tg_mixer_param(j->m, "map_q.weight"),
                *wk = tg_mixer_param(j->m, "map_k.weight");
    (void)worker;
    for (size_t h = group * per; h < (group + 1) * per; h++)
        tg_map_bwd(j->ctx->k, &p->map, p->rows, j->x + h * p->K, p->H * p->K,
                   head_weights(p, wq, h), j->y + h * F, j->out + h * F, p->H * F, j->dx + h * p->K,
                   j->dw ? j->dw + h * KF : NULL);
    for (size_t h = group * keys; h < (group + 1) * keys; h++)
        tg_map_bwd(j->ctx->k, &p->map, p->rows, j->x2 + group * p->K, p->G * p->K,
                   head_weights(p, wk, h), j->y2 + h * F, j->out2 + h * F, p->key_heads * F,
                   j->dx2 + group * p->K, j->dw2 ? j->dw2 + h * KF : NULL);
}

void tg_linear_features_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                            const struct tg_mixer *m, const float *q1, const float *k1,
                            const float *q, const float *k, float *dq, float *dk, float *dq1,
                            float *dk1, const struct tg_mixer_grads *d)
{
    struct pass j = {.ctx = ctx,
                     .p = p,
                     .m = m,
                     .x = q1,
                     .x2 = k1,
                     .y = q,
                     .y2 = k,
                     .out = dq,
                     .out2 = dk,
                     .dx = dq1,
                     .dx2 = dk1,
                     .dw = tg_mixer_grad(m, d, "map_q.weight"),
                     .dw2 = tg_mixer_grad(m, d, "map_k.weight")};
    memset(dq1, 0, p->rows * p->H * p->K * sizeof *dq1);
    memset(dk1, 0, p->rows * p->G * p->K * sizeof *dk1);
    tg_parallel(ctx->threads, p->G, features_bwd_item, &j);
}

static void values_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    size_t per = p->states / p->S, V = p->V;
    (void)worker;
    for (size_t i = from * p->states; i < to * p->states; i++) {
        size_t source = i / p->states * p->S + i % p->states / per;
        memcpy(j->out + i * p->Vx, j->x + source * V, V * sizeof *j->out);
        if (p->ones)
            j->out[i * p->Vx + V] = 1;
    }
}

void tg_linear_values(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const float *v1,
                      float *v)
{
    struct pass j = {.ctx = ctx, .p = p, .x = v1, .out = v};
    tg_parallel_rows(ctx->threads, p->rows, values_rows, &j);
}

static void values_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    size_t per = p->states / p->S, V = p->V;
    (void)worker;
    memset(j->dx + from * p->S * V, 0, (to - from) * p->S * V * sizeof *j->dx);
    for (size_t i = from * p->states; i < to * p->states; i++) {
        size_t source = i / p->states * p->S + i % p->states / per;
        j->ctx->k->axpy(1, j->dy + i * p->Vx, j->dx + source * V, V);
    }
}

void tg_linear_values_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                          const float *dv, float *dv1)
{
    struct pass j = {.ctx = ctx, .p = p, .dy = dv, .dx = dv1};
    tg_parallel_rows(ctx->threads, p->rows, values_bwd_rows, &j);
}

static void divide_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    size_t V = p->V;
    (void)worker;
    for (size_t i = from * p->out; i < to * p->out; i++) {
        const float *o = j->x + i * p->Vx;
        float part = o[V] > 0 ? 1 / o[V] : 0;
        for (size_t c = 0; c < V; c++)
            j->out[i * V + c] = part * o[c];
    }
}

void tg_linear_divide(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const float *o,
                      float *l)
{
    struct pass j = {.ctx = ctx, .p = p, .x = o, .out = l};
    tg_parallel_rows(ctx->threads, p->rows, divide_rows, &j);
}

/* dN = dl / D, dD = -(dl . l) / D */
static void divide_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    size_t V = p->V;
    (void)worker;
    for (size_t i = from * p->out; i < to * p->out; i++) {
        const float *o = j->x + i * p->Vx, *dl = j->dy + i * V;
        float part = o[V] > 0 ? 1 / o[V] : 0, *d_o = j->dx + i * p->Vx;
        d_o[V] = -part * j->ctx->k->dot(dl, j->y + i * V, V);
        for (size_t c = 0; c < V; c++)
            d_o[c] = part * dl[c];
    }
}

void tg_linear_divide_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const float *o,
                          const float *l, const float *dl, float *d_o)
{
    struct pass j = {.ctx = ctx, .p = p, .x = o, .y = l, .dy = dl, .dx = d_o};
    tg_parallel_rows(ctx->threads, p->rows, divide_bwd_rows, &j);
}
