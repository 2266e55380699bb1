/* Gates of linear mixers; equations in linear_gates.h. */
#include "linearize/mixers/linear_gates.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/far.h"

static const float SIGMOID_ROOT = 16; /* GLA's temperature */

struct tg_linear_gates tg_linear_gates_of(const struct tg_mixer *m, enum tg_linear_gate kind,
                                          bool beta)
{
    const struct tg_layer_spec *l = m->spec;
    struct tg_linear_gates s = {.kind = kind,
                                .beta = beta,
                                .low_rank = tg_mixer_has(m, "f_a.weight"),
                                .N = tg_value_heads(l),
                                .rank = l->recurrent.rank,
                                .most = l->recurrent.negative_eigenvalues ? 2 : 1};
    s.each = s.low_rank || kind == TG_LINEAR_FORGET ? l->head_dim : 1;
    return s;
}

enum tg_gate tg_linear_gates_kind(const struct tg_linear_gates *s)
{
    switch (s->kind) {
    case TG_LINEAR_UNGATED:
        return TG_GATE_NONE;
    case TG_LINEAR_RETENTION:
    case TG_LINEAR_SLOPES:
        return TG_GATE_CONSTANT;
    default:
        return s->each > 1 ? TG_GATE_CHANNEL : TG_GATE_SCALAR;
    }
}

static bool projected(const struct tg_linear_gates *s)
{
    return s->kind == TG_LINEAR_DECAY || s->kind == TG_LINEAR_SIGMOID;
}

static size_t gates_of(const struct tg_linear_gates *s)
{
    return s->N * s->each;
}

size_t tg_linear_gates_lay(const struct tg_linear_gates *s, size_t rows, float *base,
                           struct tg_linear_gate_values *v)
{
    struct tg_carve c = {base, 0};
    enum tg_gate kind = tg_linear_gates_kind(s);
    size_t g = kind == TG_GATE_CONSTANT ? s->N : rows * gates_of(s);
    *v = (struct tg_linear_gate_values){0};
    if (projected(s) && s->low_rank)
        v->low = tg_carve(&c, rows * s->rank);
    if (projected(s))
        v->a = tg_carve(&c, rows * gates_of(s));
    if (kind != TG_GATE_NONE)
        v->g = tg_carve(&c, g);
    if (s->beta)
        v->beta = tg_carve(&c, rows * s->N);
    return c.used;
}

static struct tg_decay decay_of(const struct tg_linear_gates *s)
{
    return (struct tg_decay){.H = s->N, .n = s->each, .high = INFINITY};
}

/* A parameter's name: `name` begins with shared_ */
static const char *own(const struct tg_linear_gates *s, const char *name)
{
    return s->shared ? name : name + strlen("shared_");
}

/* a = x Wa^T, or through the low rank */
static void project(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                    const struct tg_mixer *m, size_t rows, const float *x,
                    const struct tg_linear_gate_values *v)
{
    const float *first =
        tg_mixer_param(m, own(s, s->low_rank ? "shared_f_a.weight" : "shared_a.weight"));
    tg_linear_fwd(ctx, x, first, NULL, s->low_rank ? v->low : v->a, rows,
                  s->low_rank ? s->rank : gates_of(s), m->width);
    if (s->low_rank)
        tg_linear_fwd(ctx, v->low, tg_mixer_param(m, own(s, "shared_f_b.weight")),
                      tg_mixer_param(m, own(s, "shared_f_b.bias")), v->a, rows, gates_of(s),
                      s->rank);
}

/* da -> parameters and dx; low: scratch [rows,rank] */
static void project_bwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                        const struct tg_mixer *m, size_t rows, const float *x,
                        const struct tg_linear_gate_values *v, const float *da, float *dx,
                        const struct tg_mixer_grads *d, float *low)
{
    const char *first = own(s, s->low_rank ? "shared_f_a.weight" : "shared_a.weight");
    if (s->low_rank) {
        tg_linear_bwd(ctx, v->low, tg_mixer_param(m, own(s, "shared_f_b.weight")), da, low, 0,
                      tg_mixer_grad(m, d, own(s, "shared_f_b.weight")),
                      tg_mixer_grad(m, d, own(s, "shared_f_b.bias")), rows, gates_of(s), s->rank);
        da = low;
    }
    tg_linear_bwd(ctx, x, tg_mixer_param(m, first), da, dx, 1, tg_mixer_grad(m, d, first), NULL,
                  rows, s->low_rank ? s->rank : gates_of(s), m->width);
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* What loops over rows and channels share */
struct pass {
    const struct tg_kernels *kern;
    const struct tg_linear_gates *s;
    const struct tg_mixer *m;
    size_t rows;
    const float *u, *a, *in; /* logits; before the activation; a gradient */
    float *k, *g, *out;
    float *dbound; /* [gates] or NULL */
};

enum { CHANNELS = 64 };

/* Of negated logits u: k = (1 - lb) sigmoid(u), g = log(lb + (1 - lb) sigmoid(-u)). Without a lower
 * bound, lb = 0, g = -softplus(u), for sigmoid(-u) may be 0. */
static void forget_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const float *bound = tg_mixer_param(j->m, "lower_bound");
    const size_t n = gates_of(j->s);
    (void)worker;
    j->kern->sigmoid(j->u + from * n, j->k + from * n, (to - from) * n);
    if (!bound)
        j->kern->softplus(j->u + from * n, j->g + from * n, (to - from) * n);
    for (size_t i = from * n; i < to * n; i++) {
        float lb = bound ? sigmoid(bound[i % n]) : 0;
        j->g[i] = bound ? logf(lb + (1 - lb) * sigmoid(-j->u[i])) : -j->g[i];
        j->k[i] *= 1 - lb;
    }
}

/* With p = sigmoid(u), f = e^g: dk/du = (1 - lb) p (1 - p), dg/du = -(1 - lb) p (1 - p) / f,
 * dk/dlb = -p, dg/dlb = p / f. (1 - p) / f is at most 1 / (1 - lb). dk becomes du. An item is a
 * block of channels. */
static void forget_bwd_item(void *ud, size_t item, int worker)
{
    const struct pass *j = ud;
    const float *bound = tg_mixer_param(j->m, "lower_bound"), *u = j->u, *dg = j->in;
    const size_t n = gates_of(j->s), first = item * CHANNELS;
    const size_t count = n - first < CHANNELS ? n - first : CHANNELS;
    float *dk = j->out, lb[CHANNELS] = {0};
    float p[CHANNELS], rest[CHANNELS];
    double sum[CHANNELS] = {0};
    (void)worker;
    for (size_t c = 0; bound && c < count; c++)
        lb[c] = sigmoid(bound[first + c]);
    for (size_t row = 0; row < j->rows; row++) {
        j->kern->sigmoid(u + row * n + first, p, count);
        for (size_t c = 0; c < count; c++)
            rest[c] = -u[row * n + first + c];
        j->kern->sigmoid(rest, rest, count);
        for (size_t c = 0, i = row * n + first; c < count; c++, i++) {
            float f = lb[c] + (1 - lb[c]) * rest[c];
            if (bound)
                sum[c] += (double)p[c] * ((double)dg[i] / (double)f - (double)dk[i]);
            dk[i] = (1 - lb[c]) * p[c] * (dk[i] * rest[c] - dg[i] * (bound ? rest[c] / f : 1));
        }
    }
    for (size_t c = 0; j->dbound && c < count; c++)
        j->dbound[first + c] += (float)(sum[c] * (double)(lb[c] * (1 - lb[c])));
}

void tg_linear_forget_bwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                          const struct tg_mixer *m, size_t rows, const float *u, const float *dg,
                          float *dk, const struct tg_mixer_grads *d)
{
    struct pass j = {.kern = ctx->k, .s = s, .m = m, .rows = rows, .u = u, .in = dg, .out = dk};
    j.dbound = tg_mixer_grad(m, d, "lower_bound");
    tg_parallel(ctx->threads, (gates_of(s) + CHANNELS - 1) / CHANNELS, forget_bwd_item, &j);
}

/* g = log sigmoid(a) / SIGMOID_ROOT = -softplus(-a) / SIGMOID_ROOT */
static void sigmoid_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const size_t n = gates_of(j->s);
    (void)worker;
    for (size_t i = from * n; i < to * n; i++)
        j->g[i] = -j->a[i];
    j->kern->softplus(j->g + from * n, j->g + from * n, (to - from) * n);
    j->kern->scale(-1 / SIGMOID_ROOT, j->g + from * n, (to - from) * n);
}

static void sigmoid_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const size_t n = gates_of(j->s);
    (void)worker;
    for (size_t i = from * n; i < to * n; i++)
        j->out[i] = -j->a[i];
    j->kern->sigmoid(j->out + from * n, j->out + from * n, (to - from) * n);
    for (size_t i = from * n; i < to * n; i++)
        j->out[i] *= j->in[i] / SIGMOID_ROOT;
}

static void constant(const struct tg_linear_gates *s, const struct tg_mixer *m, float *g)
{
    for (size_t h = 0; h < s->N; h++)
        g[h] = s->kind == TG_LINEAR_RETENTION ? (float)log1p(-exp2(-5 - (double)h))
                                              : (float)(-tg_factor(m->spec->recurrent.scales[0]) *
                                                        exp2(-8 * (double)(h + 1) / (double)s->N));
}

void tg_linear_gates_fwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                         const struct tg_mixer *m, size_t rows, const float *x, const float *u,
                         float *k, const struct tg_linear_gate_values *v)
{
    struct tg_decay decay = decay_of(s);
    if (projected(s))
        project(ctx, s, m, rows, x, v);
    if (s->kind == TG_LINEAR_DECAY)
        tg_decay_fwd(ctx, &decay, rows, v->a, tg_mixer_param(m, own(s, "shared_dt_bias")),
                     tg_mixer_param(m, own(s, "shared_A_log")), NULL, v->g);
    struct pass pass = {
        .kern = ctx->k, .s = s, .m = m, .rows = rows, .u = u, .a = v->a, .k = k, .g = v->g};
    if (s->kind == TG_LINEAR_SIGMOID)
        tg_parallel_rows(ctx->threads, rows, sigmoid_rows, &pass);
    if (s->kind == TG_LINEAR_FORGET)
        tg_parallel_rows(ctx->threads, rows, forget_rows, &pass);
    if (tg_linear_gates_kind(s) == TG_GATE_CONSTANT)
        constant(s, m, v->g);
    if (!s->beta)
        return;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "b.weight"), NULL, v->beta, rows, s->N, m->width);
    ctx->k->sigmoid(v->beta, v->beta, rows * s->N);
    ctx->k->scale(s->most, v->beta, rows * s->N);
}

size_t tg_linear_gates_scratch(const struct tg_linear_gates *s, size_t rows)
{
    struct tg_carve c = {NULL, 0};
    tg_carve(&c, projected(s) ? rows * gates_of(s) : 0);
    tg_carve(&c, projected(s) && s->low_rank ? rows * s->rank : 0);
    return c.used;
}

void tg_linear_gates_bwd(const struct tg_ctx *ctx, const struct tg_linear_gates *s,
                         const struct tg_mixer *m, size_t rows, const float *x,
                         const struct tg_linear_gate_values *v, float *dg, float *dbeta, float *dx,
                         const struct tg_mixer_grads *d, float *scratch)
{
    struct tg_decay decay = decay_of(s);
    struct tg_carve c = {scratch, 0};
    float *da = tg_carve(&c, projected(s) ? rows * gates_of(s) : 0);
    float *low = tg_carve(&c, projected(s) && s->low_rank ? rows * s->rank : 0);
    if (s->kind == TG_LINEAR_DECAY)
        tg_decay_bwd(ctx, &decay, rows, v->a, tg_mixer_param(m, own(s, "shared_dt_bias")),
                     tg_mixer_param(m, own(s, "shared_A_log")), dg, NULL, da,
                     tg_mixer_grad(m, d, own(s, "shared_dt_bias")),
                     tg_mixer_grad(m, d, own(s, "shared_A_log")));
    struct pass pass = {
        .kern = ctx->k, .s = s, .m = m, .rows = rows, .a = v->a, .in = dg, .out = da};
    if (s->kind == TG_LINEAR_SIGMOID)
        tg_parallel_rows(ctx->threads, rows, sigmoid_bwd_rows, &pass);
    if (projected(s))
        project_bwd(ctx, s, m, rows, x, v, da, dx, d, low);
    if (!s->beta)
        return;
    for (size_t i = 0; i < rows * s->N; i++)
        dbeta[i] *= v->beta[i] * (1 - v->beta[i] / s->most);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "b.weight"), dbeta, dx, 1,
                  tg_mixer_grad(m, d, "b.weight"), NULL, rows, s->N, m->width);
}
