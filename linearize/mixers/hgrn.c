/* HGRN (Qin, Yang and Zhong 2023, arXiv 2311.04823) over the I = H V channels that the softmax
 * layer's output projection reads, every channel a recurrence of its own:
 *
 *   f = lb + (1 - lb) sigmoid(x Wf^T + bf),  lb = sigmoid(lower_bound)
 *   h_t = f_t h_{t-1} + (1 - f_t) silu(x Wi^T + bi)
 *   y = (w RMSnorm(h) silu(x Wg^T + bg)) Wo^T + bo
 *
 * The norm goes over all channels. State of a sequence: h [I]. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/scan.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/rows.h"

static size_t channels_of(const struct tg_mixer *m)
{
    return m->spec->heads * tg_value_dim(m->spec);
}

static struct tg_gnorm norm_of(const struct tg_mixer *m)
{
    return (struct tg_gnorm){.groups = 1,
                             .n = channels_of(m),
                             .gate = TG_GATE_FN_SILU,
                             .eps = (float)m->spec->recurrent.norm_eps};
}

/* What forward makes, [rows,I]: i, f and g's projections, the decays, what enters, h, y; r [rows]
 */
struct kept {
    float *i, *a, *z, *f, *u, *h, *y;
    float *r, *gates;
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), n = rows * channels_of(m);
    float **all[] = {&k->i, &k->a, &k->z, &k->f, &k->u, &k->h, &k->y};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = tg_carve(&c, n);
    k->r = tg_carve(&c, rows);
    k->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(m, b, NULL, &k);
}

struct down {
    float *dh, *dz, *df, *di; /* [rows,I]; dh is dy before and du after */
    float *norm;
};

static size_t down_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct down *d)
{
    struct tg_carve c = {base, 0};
    struct tg_gnorm norm = norm_of(m);
    size_t rows = tg_batch_rows(b), n = rows * channels_of(m);
    float **all[] = {&d->dh, &d->dz, &d->df, &d->di};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        *all[i] = tg_carve(&c, n);
    d->norm = tg_carve(&c, tg_gnorm_work(&norm, rows));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct down d;
    (void)threads;
    return backward ? down_lay(m, b, NULL, &d) : saved_floats(m, b);
}

enum { BLOCK = TG_MOST_CHANNELS };

struct job {
    const struct tg_ctx *ctx;
    const float *bound; /* lower_bound */
    size_t rows, n;
    const struct kept *k;
    const struct down *g;
    float *dbound;
    size_t block; /* channels of an item */
};

/* Channels from..from+n-1 of an item, with lb and 1 - lb */
struct block {
    size_t from, n;
    float low[BLOCK], rest[BLOCK];
};

static void block_begin(const struct job *j, size_t item, struct block *b)
{
    b->from = item * j->block;
    b->n = j->n - b->from < j->block ? j->n - b->from : j->block;
    for (size_t c = 0; c < b->n; c++) {
        b->low[c] = 1 / (1 + expf(-j->bound[b->from + c]));
        b->rest[c] = 1 / (1 + expf(j->bound[b->from + c]));
    }
}

/* s = sigmoid(x); where wanted, t = sigmoid(-x), which keeps its digits where s is nearly 1 */
static void sigmoids(const struct job *j, const float *x, size_t n, float *s, float *t)
{
    for (size_t c = 0; c < n; c++)
        s[c] = -x[c];
    j->ctx->k->exp(s, s, n);
    for (size_t c = 0; c < n; c++) {
        if (t)
            t[c] = 1 / (1 + 1 / s[c]);
        s[c] = 1 / (1 + s[c]);
    }
}

/* From the projections: f, and u = (1 - f) silu(i) with 1 - f as the product that it is */
static void enter_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    struct block b;
    float s[BLOCK], t[BLOCK], in[BLOCK];
    (void)worker;
    block_begin(j, item, &b);
    for (size_t row = 0; row < j->rows; row++) {
        size_t at = row * j->n + b.from;
        sigmoids(j, j->k->a + at, b.n, s, t);
        sigmoids(j, j->k->i + at, b.n, in, NULL);
        for (size_t c = 0; c < b.n; c++) {
            j->k->f[at + c] = b.low[c] + (1 - b.low[c]) * s[c]; /* at most 1 */
            j->k->u[at + c] = b.rest[c] * t[c] * j->k->i[at + c] * in[c];
        }
    }
}

/* df holds the gradient of f in the recurrence, dh that of u: di, and df becomes that of a */
static void enter_bwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    struct block b;
    float s[BLOCK], t[BLOCK], in[BLOCK], sum[BLOCK] = {0};
    (void)worker;
    block_begin(j, item, &b);
    for (size_t row = 0; row < j->rows; row++) {
        size_t at = row * j->n + b.from;
        const float *i = j->k->i + at, *du = j->g->dh + at;
        float *df = j->g->df + at, *di = j->g->di + at;
        sigmoids(j, j->k->a + at, b.n, s, t);
        sigmoids(j, i, b.n, in, NULL);
        for (size_t c = 0; c < b.n; c++) {
            float silu = i[c] * in[c], d = df[c] - du[c] * silu;
            di[c] = du[c] * b.rest[c] * t[c] * (in[c] + silu * (1 - in[c]));
            df[c] = d * b.rest[c] * s[c] * t[c];
            sum[c] += d * t[c];
        }
    }
    for (size_t c = 0; j->dbound && c < b.n; c++)
        j->dbound[b.from + c] += sum[c] * b.low[c] * b.rest[c];
}

/* Backward with g; dbound may be NULL */
static void enter(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows,
                  const struct kept *k, const struct down *g, float *dbound)
{
    struct job j = {ctx, tg_mixer_param(m, "lower_bound"), rows, channels_of(m), k, g, dbound, 0};
    j.block = tg_channels_of_item(j.n, ctx->threads);
    tg_parallel(ctx->threads, (j.n + j.block - 1) / j.block, g ? enter_bwd_item : enter_item, &j);
}

static void project(const struct tg_ctx *ctx, const struct tg_mixer *m, const char *weight,
                    const char *bias, const float *x, float *y, size_t rows)
{
    tg_linear_fwd(ctx, x, tg_mixer_param(m, weight), tg_mixer_param(m, bias), y, rows,
                  channels_of(m), m->width);
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, struct tg_states states, float *y, const struct kept *k)
{
    struct tg_gnorm norm = norm_of(m);
    size_t rows = tg_batch_rows(b);
    project(ctx, m, "i.weight", "i.bias", x, k->i, rows);
    project(ctx, m, "f.weight", "f.bias", x, k->a, rows);
    project(ctx, m, "g.weight", "g.bias", x, k->z, rows);
    enter(ctx, m, rows, k, NULL, NULL);
    tg_lru_fwd(ctx, norm.n, b, k->f, k->u, k->h, states);
    tg_gnorm_fwd(ctx, &norm, rows, k->h, k->z, tg_mixer_param(m, "norm.weight"), k->y, k->r);
    tg_proj_out_fwd(ctx, m, b, x, k->y, y, k->gates);
}

static void fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, float *y, float *saved, float *work)
{
    struct kept k;
    kept_lay(m, b, saved ? saved : work, &k);
    run(ctx, m, b, x, (struct tg_states){0}, y, &k);
}

static void bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const float *x, const float *dy, const float *saved, float *dx,
                const struct tg_mixer_grads *d, float *work)
{
    struct tg_gnorm norm = norm_of(m);
    size_t rows = tg_batch_rows(b);
    struct kept k;
    struct down g;
    kept_lay(m, b, (float *)(uintptr_t)saved, &k);
    down_lay(m, b, work, &g);
    tg_proj_out_bwd(ctx, m, b, k.y, dy, g.dh, d, k.gates);
    tg_gnorm_bwd(ctx, &norm, rows, k.h, k.z, tg_mixer_param(m, "norm.weight"), k.r, g.dh, g.dh,
                 g.dz, tg_mixer_grad(m, d, "norm.weight"), g.norm);
    tg_lru_bwd(ctx, norm.n, b, k.f, k.h, (struct tg_states){0}, g.dh, g.df, (struct tg_states){0});
    enter(ctx, m, rows, &k, &g, tg_mixer_grad(m, d, "lower_bound"));
    const struct {
        const char *weight, *bias;
        const float *dy;
    } ways[] = {
        {"i.weight", "i.bias", g.di}, {"f.weight", "f.bias", g.df}, {"g.weight", "g.bias", g.dz}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        tg_linear_bwd(ctx, x, tg_mixer_param(m, ways[i].weight), ways[i].dy, dx, i ? 1 : 0,
                      tg_mixer_grad(m, d, ways[i].weight), tg_mixer_grad(m, d, ways[i].bias), rows,
                      norm.n, m->width);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    (void)capacity;
    return channels_of(m);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct kept k;
    (void)capacity;
    kept_lay(m, b, work, &k);
    run(ctx, m, b, x, (struct tg_states){states, 0}, y, &k);
}

/* Root mean square of v's channels for inputs that are white, of unit size */
static double size_of_values(const struct tg_mixer *from)
{
    const float *w = tg_mixer_param(from, "v.weight"), *bias = tg_mixer_param(from, "v.bias");
    size_t n = from->spec->kv_heads * tg_value_dim(from->spec);
    double sum = 0;
    for (size_t i = 0; i < n * from->width; i++)
        sum += (double)w[i] * (double)w[i];
    for (size_t i = 0; bias && i < n; i++)
        sum += (double)bias[i] * (double)bias[i];
    return sum > 0 ? sqrt(sum / (double)n) : 1;
}

/* Projections into silu are this small, where silu(x) = x / 2 + x^2 / 4 is nearly linear; the norm
 * divides the factor out again. Smaller still would leave weights that one step of training loses.
 */
static const double SMALL = 1.0 / 16;
static const double OPEN = 1.2784645427610738; /* silu(OPEN) = 1 */

/* v's rows (of `row` floats) with kv heads repeated, scaled to SMALL */
static void values_of(const struct tg_mixer *from, const float *v, size_t row, float *data)
{
    const struct tg_layer_spec *s = from->spec;
    size_t n = tg_value_dim(s) * row, each = s->heads / s->kv_heads;
    double scale = SMALL / size_of_values(from);
    for (size_t h = 0; h < s->heads; h++)
        for (size_t i = 0; i < n; i++)
            data[h * n + i] = (float)(scale * (double)v[h / each * n + i]);
}

/* First f of a channel. A channel of constant f weights the past by (1 - f) f^j, which looks back
 * f / (1 - f) tokens on average: as far as its head did, or if nobody has measured, from 1 token in
 * a head's first channel to 256 in its last, evenly in the logarithm. */
static double first_decay(const struct tg_mixer *m, const struct tg_origin *o, size_t channel)
{
    size_t V = tg_value_dim(m->spec), at = channel % V;
    double far = V > 1 ? exp2(8 * (double)at / (double)(V - 1)) : 16;
    if (o->stats && o->stats->distance)
        far = o->stats->distance[channel / V];
    far = fmin(fmax(far, 0.01), 1e4);
    return far / (1 + far);
}

/* Root mean square of the running means of v, if tokens are independent: a mean with weights
 * (1 - f) f^j has (1 - f) / (1 + f) of their variance. */
static double size_of_means(const struct tg_mixer *m, const struct tg_origin *o)
{
    size_t n = channels_of(m);
    double sum = 0;
    for (size_t c = 0; c < n; c++) {
        double f = first_decay(m, o, c);
        sum += (1 - f) / (1 + f);
    }
    return size_of_values(o->from) * sqrt(sum / (double)n);
}

/* First lower bound: rises with depth to 0.9, as the deeper layers look further back, but no higher
 * than half of the first decay, which must stay in reach. Not 0 in the first layer: that has no
 * logit. */
static double first_bound(const struct tg_origin *o, double decay)
{
    double depth = 0.9 * (double)o->layer / (double)o->layer_count;
    return fmax(fmin(depth, decay / 2), 1e-3);
}

static double logit(double p)
{
    return log(p) - log1p(-p);
}

static void fill(float *data, size_t count, double value)
{
    for (size_t i = 0; i < count; i++)
        data[i] = (float)value;
}

static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    const char *name = m->spec->mixer->params[rule].name;
    bool bound = strcmp(name, "lower_bound") == 0, decay = strcmp(name, "f.bias") == 0;
    for (size_t i = 0; (bound || decay) && i < count; i++) {
        double f = first_decay(m, o, i), low = first_bound(o, f);
        data[i] = (float)logit(bound ? low : (f - low) / (1 - low));
    }
    if (strcmp(name, "i.weight") == 0)
        values_of(o->from, tg_mixer_param(o->from, "v.weight"), m->width, data);
    else if (strcmp(name, "i.bias") == 0)
        values_of(o->from, tg_mixer_param(o->from, "v.bias"), 1, data);
    else if (strcmp(name, "norm.weight") == 0)
        fill(data, count, size_of_means(m, o));
    else if (strcmp(name, "g.bias") == 0)
        fill(data, count, OPEN);
    else if (!bound && !decay) /* f.weight, g.weight: what a token says is not heard yet */
        fill(data, count, 0);
}

const struct tg_mixer_ops tg_mixer_hgrn = {
    .name = "hgrn",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = fwd,
    .backward = bwd,
    .state_floats = state_floats,
    .step = step,
    .inherit = inherit,
};
