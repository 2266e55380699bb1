/* RWKV-7 "Goose" (arXiv 2503.14456) for conversion, as RADLADS has it (arXiv 2505.03005): no token
 * shift, and q, k, v of the softmax layer. Per head, . channel by channel:
 *
 *   g  = -e^{-1/2} sigmoid(w0 + tanh(x W1^T) W2^T)      log decay, each channel
 *   a  = sigmoid(a0 + (x A1^T) A2^T)                    rate of removal, each channel
 *   kk = u / sqrt(|u|^2 + 1e-24),  u = k0 . k_k         k0 = x Wk^T
 *   k  = k0 . (1 + (a - 1) . k_a)
 *   S_t = diag(e^g) S_{t-1} - (kk . a) (S_{t-1}^T kk)^T + k v^T,  o = S_t^T q
 *   y  = ((LayerNorm(o) + (q . k . r_k summed) v) . gate) Wo^T,  gate = sigmoid(x G1^T) G2^T
 *
 * The norm is each head's, with weight and bias. q and k0 are rotated unless the layer is plain.
 * State of a sequence: S [H,K,V]. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/recur.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/linear_mixer.h"
#include "linearize/mixers/rows.h"
#include "linearize/mixers/rwkv7_heads.h"

static bool rotary(const struct tg_mixer *m)
{
    return m->spec->rotary_dim && !m->spec->linear_plain;
}

static struct tg_recur recur_of(const struct tg_mixer *m)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct tg_recur){.H = s->heads,
                             .G = s->heads,
                             .K = s->head_dim,
                             .V = tg_value_dim(s),
                             .chunk = m->chunk,
                             .gate = TG_GATE_CHANNEL,
                             .rule = TG_RULE_GENERAL,
                             .scale = 1};
}

/* The three low ranks: first and second weight, what is added, sizes */
enum { LOW_DECAY, LOW_RATE, LOW_GATE, LOWS };
static const struct {
    const char *first, *second, *bias;
} lows[LOWS] = {{"w1.weight", "w2.weight", "w0"},
                {"a1.weight", "a2.weight", "a0"},
                {"g1.weight", "g2.weight", NULL}};

struct kept {
    struct tg_rwkv_heads h;
    float *q, *k0, *v, *o, *gate; /* h's, to be written */
    float *low[LOWS];             /* [rows,rank] */
    float *proj, *states, *out_gates;
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_batch *b, bool backward,
                       float *base, struct kept *k)
{
    const struct tg_recur r = recur_of(m);
    const size_t rows = tg_batch_rows(b), n = rows * r.H, rank = m->spec->recurrent.rank;
    struct tg_carve c = {base, 0};
    struct tg_rwkv_heads *h = &k->h;
    float **keys[] = {&k->q, &k->k0, &h->g, &h->a, &h->read, &h->write, &h->k};
    float **values[] = {&k->v, &k->o, &k->gate, &h->sum, &h->y};
    memset(k, 0, sizeof *k);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        *keys[i] = tg_carve(&c, n * r.K);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        *values[i] = tg_carve(&c, n * r.V);
    for (size_t i = 0; i < LOWS; i++)
        k->low[i] = tg_carve(&c, rows * rank);
    h->unit = tg_carve(&c, n);
    h->stats = tg_carve(&c, 2 * n);
    h->bonus = tg_carve(&c, n);
    k->proj = backward ? tg_carve(&c, tg_proj_saved(m, b)) : NULL;
    k->states = backward ? tg_carve(&c, tg_recur_saved(&r, b)) : NULL;
    k->out_gates = tg_carve(&c, tg_proj_out_floats(m, b));
    h->rows = rows;
    h->H = r.H;
    h->K = r.K;
    h->V = r.V;
    h->eps = (float)m->spec->recurrent.norm_eps;
    h->w = (struct tg_rwkv_params){tg_mixer_param(m, "k_k"), tg_mixer_param(m, "k_a"),
                                   tg_mixer_param(m, "r_k"), tg_mixer_param(m, "norm.weight"),
                                   tg_mixer_param(m, "norm.bias")};
    h->q = k->q;
    h->k0 = k->k0;
    h->v = k->v;
    h->o = k->o;
    h->gate = k->gate;
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(m, b, true, NULL, &k);
}

struct down {
    struct tg_rwkv_grads d;
    float *y, *low, *sums, *proj, *recur;
    size_t sum_count;
};

static size_t down_lay(const struct tg_mixer *m, const struct tg_batch *b, int threads, float *base,
                       struct down *w)
{
    const struct tg_recur r = recur_of(m);
    const size_t rows = tg_batch_rows(b), n = rows * r.H;
    struct tg_carve c = {base, 0};
    struct tg_rwkv_grads *d = &w->d;
    float **keys[] = {&d->q, &d->k, &d->read, &d->write, &d->g, &d->a, &d->k0};
    float **values[] = {&w->y, &d->sum, &d->gate, &d->o, &d->v};
    float **sums[] = {&d->k_k, &d->k_a, &d->r_k, &d->norm_weight, &d->norm_bias};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        *keys[i] = tg_carve(&c, n * r.K);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        *values[i] = tg_carve(&c, n * r.V);
    const size_t before = c.used;
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        *sums[i] = tg_carve(&c, r.H * (i < 3 ? r.K : r.V));
    w->sums = d->k_k;
    w->sum_count = c.used - before;
    w->low = tg_carve(&c, rows * m->spec->recurrent.rank);
    w->proj = tg_carve(&c, tg_proj_work(m, b));
    w->recur = tg_carve(&c, tg_recur_work(&r, threads));
    d->y = w->y;
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    const struct tg_recur r = recur_of(m);
    struct kept k;
    struct down w;
    return backward ? down_lay(m, b, threads, NULL, &w)
                    : kept_lay(m, b, false, NULL, &k) + tg_recur_work(&r, threads);
}

/* tanh of the decay's, nothing of the rate's, sigmoid of the gate's */
static float bend(size_t low, float x)
{
    return low == LOW_DECAY ? tanhf(x) : low == LOW_GATE ? 1 / (1 + expf(-x)) : x;
}

/* its slope from its value */
static float slope(size_t low, float y)
{
    return low == LOW_DECAY ? 1 - y * y : low == LOW_GATE ? y * (1 - y) : 1;
}

static size_t low_outputs(const struct tg_rwkv_heads *h, size_t low)
{
    return h->H * (low == LOW_GATE ? h->V : h->K);
}

static void low_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct kept *k,
                    size_t low, const float *x, float *y)
{
    const size_t rows = k->h.rows, rank = m->spec->recurrent.rank;
    const float *bias = lows[low].bias ? tg_mixer_param(m, lows[low].bias) : NULL;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, lows[low].first), NULL, k->low[low], rows, rank,
                  m->width);
    for (size_t i = 0; i < rows * rank; i++)
        k->low[low][i] = bend(low, k->low[low][i]);
    tg_linear_fwd(ctx, k->low[low], tg_mixer_param(m, lows[low].second), bias, y, rows,
                  low_outputs(&k->h, low), rank);
}

/* dy -> parameters and dx (added to); scratch [rows,rank] */
static void low_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct kept *k,
                    size_t low, const float *x, const float *dy, float *dx,
                    const struct tg_mixer_grads *d, float *scratch)
{
    const size_t rows = k->h.rows, rank = m->spec->recurrent.rank;
    float *bias = lows[low].bias ? tg_mixer_grad(m, d, lows[low].bias) : NULL;
    tg_linear_bwd(ctx, k->low[low], tg_mixer_param(m, lows[low].second), dy, scratch, 0,
                  tg_mixer_grad(m, d, lows[low].second), bias, rows, low_outputs(&k->h, low), rank);
    for (size_t i = 0; i < rows * rank; i++)
        scratch[i] *= slope(low, k->low[low][i]);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, lows[low].first), scratch, dx, 1,
                  tg_mixer_grad(m, d, lows[low].first), NULL, rows, rank, m->width);
}

static struct tg_recur_in recur_in(const struct kept *k)
{
    const struct tg_rwkv_heads *h = &k->h;
    return (struct tg_recur_in){
        .q = h->q, .k = h->k, .v = h->v, .g = h->g, .a = h->read, .b = h->write};
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, struct tg_states states, float *y, const struct kept *k,
                float *work)
{
    const struct tg_recur r = recur_of(m);
    const struct tg_recur_in in = recur_in(k);
    tg_proj_fwd(ctx, m, b, x, k->q, k->k0, k->v, k->proj);
    if (rotary(m))
        tg_proj_rotate(ctx, m, b, k->q, k->k0, 1);
    low_fwd(ctx, m, k, LOW_DECAY, x, k->h.g);
    low_fwd(ctx, m, k, LOW_RATE, x, k->h.a);
    low_fwd(ctx, m, k, LOW_GATE, x, k->gate);
    tg_rwkv_enter(ctx, &k->h);
    tg_recur_fwd(ctx, &r, b, &in, k->o, states, k->states, work);
    tg_rwkv_leave(ctx, &k->h);
    tg_proj_out_fwd(ctx, m, b, x, k->h.y, y, k->out_gates);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct kept k;
    const size_t used = kept_lay(m, b, saved, saved ? saved : work, &k);
    run(ctx, m, b, x, (struct tg_states){0}, y, &k, saved ? work : work + used);
}

static void recur_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const struct kept *k, const struct down *w)
{
    const struct tg_recur r = recur_of(m);
    const struct tg_recur_in in = recur_in(k);
    const struct tg_rwkv_grads *d = &w->d;
    const struct tg_recur_grads to = {
        .q = d->q, .k = d->k, .v = d->v, .g = d->g, .a = d->read, .b = d->write};
    const size_t n = k->h.rows * r.H * r.K;
    memset(d->read, 0, n * sizeof *d->read);
    memset(d->write, 0, n * sizeof *d->write);
    memset(d->g, 0, n * sizeof *d->g);
    tg_recur_bwd(ctx, &r, b, &in, k->states, d->o, &to, (struct tg_states){0}, w->recur);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *grads, float *work)
{
    struct kept k;
    struct down w;
    kept_lay(m, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(m, b, ctx->threads, work, &w);
    memset(w.sums, 0, w.sum_count * sizeof *w.sums);
    tg_proj_out_bwd(ctx, m, b, k.h.y, dy, w.y, grads, k.out_gates);
    tg_rwkv_leave_bwd(ctx, &k.h, &w.d);
    recur_bwd(ctx, m, b, &k, &w);
    tg_rwkv_enter_bwd(ctx, &k.h, &w.d);
    if (rotary(m))
        tg_proj_rotate(ctx, m, b, w.d.q, w.d.k0, -1);
    tg_proj_bwd(ctx, m, b, x, k.proj, w.d.q, w.d.k0, w.d.v, dx, grads, w.proj);
    low_bwd(ctx, m, &k, LOW_DECAY, x, w.d.g, dx, grads, w.low);
    low_bwd(ctx, m, &k, LOW_RATE, x, w.d.a, dx, grads, w.low);
    low_bwd(ctx, m, &k, LOW_GATE, x, w.d.gate, dx, grads, w.low);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.out_gates, dx, grads);
    const struct {
        const char *name;
        const float *sum;
        size_t n;
    } sums[] = {{"k_k", w.d.k_k, k.h.K},
                {"k_a", w.d.k_a, k.h.K},
                {"r_k", w.d.r_k, k.h.K},
                {"norm.weight", w.d.norm_weight, k.h.V},
                {"norm.bias", w.d.norm_bias, k.h.V}};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        float *to = tg_mixer_grad(m, grads, sums[i].name);
        if (to)
            ctx->k->axpy(1, sums[i].sum, to, k.h.H * sums[i].n);
    }
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    const struct tg_recur r = recur_of(m);
    (void)capacity;
    return tg_recur_state(&r);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct kept k;
    (void)capacity;
    const size_t used = kept_lay(m, b, false, work, &k);
    run(ctx, m, b, x, (struct tg_states){states, 0}, y, &k, work + used);
}

static double logit(double p)
{
    return log(p) - log1p(-p);
}

/* Root mean square of the channels of v that head h reads, for white inputs of unit size */
static double size_of_values(const struct tg_mixer *from, size_t h)
{
    const struct tg_layer_spec *s = from->spec;
    const size_t V = tg_value_dim(s), at = h / (s->heads / s->kv_heads) * V;
    const float *w = tg_mixer_param(from, "v.weight") + at * from->width;
    const float *bias = tg_mixer_param(from, "v.bias");
    double sum = 0;
    for (size_t i = 0; i < V * from->width; i++)
        sum += (double)w[i] * (double)w[i];
    for (size_t i = 0; bias && i < V; i++)
        sum += (double)bias[at + i] * (double)bias[at + i];
    return sqrt(sum / (double)V);
}

/* Value i of a rule [H,n]; the norm's output is as large as a mean of e^entropy independent values,
 * of four where nobody has measured. */
static double first_value(const struct tg_mixer *m, const struct tg_origin *o, const char *name,
                          size_t i)
{
    const size_t K = m->spec->head_dim, V = tg_value_dim(m->spec);
    if (!strcmp(name, "k_k") || !strcmp(name, "k_a"))
        return 1;
    if (!strcmp(name, "w0"))
        return logit(fmin(-tg_linear_first_decay(m, o, i, K) * exp(0.5), 0.98));
    if (!strcmp(name, "a0"))
        return logit(tg_linear_first_rate(m, o, i / K));
    if (!strcmp(name, "norm.weight"))
        return size_of_values(o->from, i / V) *
               (o->stats ? exp(-o->stats->entropy[i / V] / 2) : 0.5);
    if (!strcmp(name, "g2.weight")) /* of rank sigmoids near 1/2: 1 */
        return 2 / (double)m->spec->recurrent.rank;
    return 0;
}

static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    const char *name = m->spec->mixer->params[rule].name;
    const double root = 1 / sqrt((double)m->width);
    const bool gate = !strcmp(name, "g1.weight");
    struct tg_rng rng = tg_rng_make(o->layer, rule);
    if (gate || !strcmp(name, "w1.weight") || !strcmp(name, "a1.weight"))
        for (size_t i = 0; i < count; i++)
            data[i] = (float)((gate ? 0.1 : 1) * root * tg_rng_normal(&rng));
    else
        for (size_t i = 0; i < count; i++)
            data[i] = (float)first_value(m, o, name, i);
}

const struct tg_mixer_ops tg_mixer_rwkv7 = {
    .name = "rwkv7",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = inherit,
};
