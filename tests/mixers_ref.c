#include "tests/mixers_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"
#include "tests/elementwise_ref.h"
#include "tests/linear_ref.h"
#include "tests/mla_ref.h"
#include "tests/recurrent_ref.h"
#include "tests/rwkv_ref.h"
#include "tests/sparse_ref.h"

/* What a row computes, by its name: the reference shares no code or table with linearize. */
static const struct row {
    const char *name;
    bool far, gates, from_max, apart; /* apart: Lizard's two denominators */
} rows[] = {
    {"softmax", false, false, false, false},    {"window", false, false, false, false},
    {"gated_window", true, true, false, false}, {"lolcats", true, false, true, false},
    {"lizard", true, true, false, true},        {"latent", false, false, false, false},
    {"linear", true, false, false, false}, /* this and the next with a joint window */
    {"based", true, false, false, false},       {"block_causal", true, true, false, false},
    {"sma", false, false, false, false},
};

static const struct row *row_of(const struct tg_mixer *m)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, m->spec->mixer->name) == 0)
            return &rows[i];
    return NULL;
}

bool tg_ref_knows(const struct tg_mixer *m)
{
    return row_of(m) != NULL || tg_linear_ref_knows(m) || tg_recurrent_ref_knows(m) ||
           tg_mla_ref_knows(m) || tg_elementwise_ref_knows(m) || tg_rwkv_ref_knows(m);
}

const double *tg_ref_param(const struct tg_ref *r, const char *name)
{
    const struct tg_mixer_schema *s = r->mixer->spec->mixer;
    for (size_t i = 0; i < s->param_count; i++)
        if (strcmp(s->params[i].name, name) == 0)
            return r->param[i];
    return NULL;
}

double tg_ref_constant(const struct tg_ref *r, double value)
{
    struct tg_ref_consts *c = r->consts;
    if (c->record) {
        assert_true(c->at < c->limit);
        c->values[c->at] = value;
    }
    return c->values[c->at++];
}

static double *zeros(size_t n)
{
    double *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* y [rows,n] = x [rows,k] W^T + bias */
static double *linear(const double *x, const double *w, const double *bias, size_t count, size_t n,
                      size_t k)
{
    double *y = zeros(count * n);
    for (size_t r = 0; r < count; r++)
        for (size_t i = 0; i < n; i++) {
            double sum = bias ? bias[i] : 0;
            for (size_t c = 0; c < k; c++)
                sum += x[r * k + c] * w[i * k + c];
            y[r * n + i] = sum;
        }
    return y;
}

void tg_ref_head_norm(const struct tg_ref *r, const double *w, double *x)
{
    size_t K = r->mixer->spec->head_dim;
    double sum = 0;
    for (size_t i = 0; w && i < K; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; w && i < K; i++)
        x[i] = x[i] * w[i] / sqrt(sum / (double)K + (double)r->mixer->norm_eps);
}

void tg_ref_head_turn(const struct tg_ref *r, size_t pos, const double *x, double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    size_t half = s->rotary_dim / 2;
    memcpy(y, x, s->head_dim * sizeof *y);
    for (size_t i = 0; i < half; i++) {
        double c = (double)r->mixer->rope_cos[pos * half + i];
        double sn = (double)r->mixer->rope_sin[pos * half + i];
        y[i] = x[i] * c - x[i + half] * sn;
        y[i + half] = x[i + half] * c + x[i] * sn;
    }
}

/* u [F] at the start of y becomes all products of [1, u]'s second order */
static size_t taylor(double *y, size_t F)
{
    double u[16];
    size_t n = 0;
    memcpy(u, y, F * sizeof *u);
    y[n++] = 1;
    for (size_t i = 0; i < F; i++)
        y[n++] = u[i] / pow((double)F, 0.25);
    for (size_t i = 0; i < F; i++)
        for (size_t j = i; j < F; j++)
            y[n++] = u[i] * u[j] / sqrt((double)F) / (i == j ? sqrt(2) : 1);
    return n;
}

size_t tg_ref_head_features(const struct tg_ref *r, const double *w, const double *x, double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    size_t K = s->head_dim, F = s->feature_dim;
    if (!tg_feature_map_has_weights(s->feature_map)) {
        for (size_t i = 0; i < K; i++)
            y[i] = s->feature_map == TG_MAP_RELU   ? fmax(x[i], 0)
                   : s->feature_map == TG_MAP_ELU1 ? (x[i] > 0 ? x[i] + 1 : exp(x[i]))
                                                   : x[i];
        return K;
    }
    double most = 0, sum[2] = {0, 0};
    for (size_t f = 0; f < F; f++) {
        y[f] = 0;
        for (size_t i = 0; i < K; i++)
            y[f] += x[i] * w[i * F + f];
        most = fmax(most, fabs(y[f]));
    }
    if (s->feature_map == TG_MAP_TAYLOR)
        return taylor(y, F);
    bool soft = s->feature_map == TG_MAP_HEDGEHOG_SOFTMAX;
    double shift = soft ? 0 : tg_ref_constant(r, most);
    for (size_t f = 0; f < F; f++) {
        double u = y[f];
        sum[0] += y[f] = exp(u - shift);
        sum[1] += y[F + f] = exp(-u - shift);
    }
    for (size_t f = 0; soft && f < 2 * F; f++)
        y[f] = fmax(y[f] / sum[f / F], 1e-12);
    return 2 * F;
}

/* One head of one sequence: q, k [T,K] rotated, q0, k0 not; v [T,K] row ld apart; g [T] logs; on
 * [T], NULL but for sma: factors of the tokens that attend and are attended to, 0 of the others */
struct head {
    size_t T, h;
    const double *q, *k, *q0, *k0, *v, *g, *on;
};

static bool is_on(const struct head *x, size_t t)
{
    return !x->on || x->on[t] > 0;
}

/* The first key that row t has scores with: of its chunk, if it is read in chunks */
static size_t first_key(const struct tg_ref *r, const struct head *x, size_t t)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    if (s->recurrent.chunk)
        return t - t % s->recurrent.chunk;
    if (!s->window)
        return 0;
    size_t j = t + 1;
    for (size_t seen = 0; j > 0 && seen < s->window; j--)
        seen += is_on(x, j - 1);
    return j;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Adds sum_j weight_j v_j over the keys at least `lag` back, D_tj gathered on the way; returns the
 * weights' sum. Nothing, if that is not positive. */
static double add_far(const struct head *x, size_t t, size_t lag, const double *pq,
                      const double *pk, size_t n, size_t K, double factor, double *num)
{
    double decay = 0, den = 0, *sum = zeros(K);
    for (size_t j = t + 1; j-- > 0;) {
        if (t - j >= lag) {
            double w = factor * exp(decay) * dot(pq + t * n, pk + j * n, n);
            den += w;
            for (size_t c = 0; c < K; c++)
                sum[c] += w * x->v[j * K + c];
        }
        decay += x->g[j];
    }
    for (size_t c = 0; c < K && den > 0; c++)
        num[c] += sum[c];
    tg_free(sum);
    return den > 0 ? den : 0;
}

/* y [T] rows ld apart */
static void head_forward(const struct tg_ref *r, const struct head *x, double *y, size_t ld)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const struct row *row = row_of(r->mixer);
    size_t K = s->head_dim, F = s->feature_dim, n = 0;
    size_t most = 2 * (K + F) + tg_feature_count(s), weights = x->h * K * F;
    const double *wq = tg_ref_param(r, "map_q.weight"), *wk = tg_ref_param(r, "map_k.weight");
    const double *sink = tg_ref_param(r, "sink"), *logit = tg_ref_param(r, "far_logit");
    const double *window_logit = tg_ref_param(r, "window_logit"), *alpha = tg_ref_param(r, "alpha");
    double *pq = zeros(x->T * most), *pk = zeros(x->T * most), *num = zeros(K), *far = zeros(K);
    for (size_t t = 0; row->far && t < x->T; t++) {
        n = tg_feature_count(s);
        tg_ref_head_features(r, wq ? wq + weights : NULL, (row->apart ? x->q0 : x->q) + t * K,
                             pq + t * n);
        tg_ref_head_features(r, wk ? wk + weights : NULL, (row->apart ? x->k0 : x->k) + t * K,
                             pk + t * n);
    }
    for (size_t t = 0; t < x->T; t++) {
        size_t first = first_key(r, x, t);
        double most_score = -INFINITY, den = 0, scale = 1;
        memset(num, 0, K * sizeof *num);
        memset(far, 0, K * sizeof *far);
        if (!is_on(x, t))
            continue;
        for (size_t j = first; j <= t; j++)
            most_score = fmax(most_score, s->attn_scale * dot(x->q + t * K, x->k + j * K, K));
        if (row->from_max)
            scale = exp(-tg_ref_constant(r, most_score)) / (1 + exp(-window_logit[x->h]));
        for (size_t j = first; j <= t; j++) {
            if (!is_on(x, j))
                continue;
            double w = scale * exp(s->attn_scale * dot(x->q + t * K, x->k + j * K, K));
            den += w;
            for (size_t c = 0; c < K; c++)
                num[c] += w * x->v[j * K + c];
        }
        for (size_t m = 0; sink && m < s->sinks; m++)
            den += exp(sink[x->h * s->sinks + m]);
        if (row->far && !row->apart)
            den += add_far(x, t, s->window ? s->window : t - first + 1, pq, pk, n, K,
                           logit ? exp(logit[x->h]) : 1, num);
        double all = row->apart ? add_far(x, t, 0, pq, pk, n, K, 1, far) : 0;
        for (size_t c = 0; c < K; c++)
            y[t * ld + c] = row->apart ? (all != 0 ? far[c] / all : 0) + alpha[x->h] * num[c] / den
                                       : (x->on ? x->on[t] : 1) * num[c] / den;
    }
    tg_free(pq);
    tg_free(pk);
    tg_free(num);
    tg_free(far);
}

static double *rows_of_head(const double *from, size_t b0, size_t T, size_t heads, size_t h,
                            size_t K)
{
    double *to = zeros(T * K);
    for (size_t t = 0; t < T; t++)
        memcpy(to + t * K, from + ((b0 + t) * heads + h) * K, K * sizeof *to);
    return to;
}

static void one_head(const struct tg_ref *r, size_t b0, size_t T, size_t h, const double *q,
                     const double *k, const double *v, const double *gate, const double *on,
                     double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    size_t K = s->head_dim, H = s->heads, G = s->kv_heads, group = h / (H / G);
    double *q0 = rows_of_head(q, b0, T, H, h, K), *k0 = rows_of_head(k, b0, T, G, group, K);
    double *vh = rows_of_head(v, b0, T, G, group, K), *g = zeros(T);
    double *qr = zeros(T * K), *kr = zeros(T * K);
    for (size_t t = 0; t < T; t++) {
        tg_ref_head_norm(r, s->qk_norm ? tg_ref_param(r, "q_norm.weight") : NULL, q0 + t * K);
        tg_ref_head_norm(r, s->qk_norm ? tg_ref_param(r, "k_norm.weight") : NULL, k0 + t * K);
        tg_ref_head_turn(r, t, q0 + t * K, qr + t * K);
        tg_ref_head_turn(r, t, k0 + t * K, kr + t * K);
        g[t] = gate ? -log1p(exp(-gate[(b0 + t) * H + h])) : 0;
    }
    struct head x = {T, h, qr, kr, q0, k0, vh, g, on ? on + b0 : NULL};
    head_forward(r, &x, y + (b0 * H + h) * K, H * K);
    double *used[] = {q0, k0, vh, g, qr, kr};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

void tg_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x, double *y)
{
    if (tg_linear_ref_knows(r->mixer)) {
        tg_linear_ref_forward(r, b, x, y);
        return;
    }
    if (tg_recurrent_ref_knows(r->mixer)) {
        tg_recurrent_ref_forward(r, b, x, y);
        return;
    }
    if (tg_elementwise_ref_knows(r->mixer)) {
        tg_elementwise_ref_forward(r, b, x, y);
        return;
    }
    if (tg_rwkv_ref_knows(r->mixer)) {
        tg_rwkv_ref_forward(r, b, x, y);
        return;
    }
    if (tg_mla_ref_knows(r->mixer)) {
        tg_mla_ref_forward(r, b, x, y);
        return;
    }
    const struct tg_layer_spec *s = r->mixer->spec;
    size_t count = tg_batch_rows(b), D = r->mixer->width, K = s->head_dim;
    size_t H = s->heads, G = s->kv_heads;
    bool gates = row_of(r->mixer)->gates || (row_of(r->mixer)->far && s->gated);
    double *q = linear(x, tg_ref_param(r, "q.weight"), tg_ref_param(r, "q.bias"), count, H * K, D);
    const double *down = tg_ref_param(r, "latent.weight"), *of = x;
    const size_t n = down ? s->kv_rank : D;
    double *c = down ? linear(x, down, NULL, count, n, D) : zeros(0);
    if (down)
        of = c;
    double *k = linear(of, tg_ref_param(r, down ? "k_up.weight" : "k.weight"),
                       tg_ref_param(r, "k.bias"), count, G * K, n);
    double *v = linear(of, tg_ref_param(r, down ? "v_up.weight" : "v.weight"),
                       tg_ref_param(r, "v.bias"), count, G * K, n);
    tg_free(c);
    double *g =
        gates ? linear(x, tg_ref_param(r, "gate.weight"), tg_ref_param(r, "gate.bias"), count, H, D)
              : NULL;
    double *o = zeros(count * H * K);
    r->consts->at = 0;
    double *on = tg_sparse_ref_knows(r->mixer) ? tg_sparse_ref_picks(r, count, x) : NULL;
    for (size_t i = 0; i < b->count; i++)
        for (size_t h = 0; h < H; h++)
            one_head(r, b->begin[i], b->begin[i + 1] - b->begin[i], h, q, k, v, g, on, o);
    if (on)
        tg_sparse_ref_average(r, b, v, o);
    double *out =
        linear(o, tg_ref_param(r, "o.weight"), tg_ref_param(r, "o.bias"), count, D, H * K);
    memcpy(y, out, count * D * sizeof *y);
    double *used[] = {q, k, v, g, o, on, out};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}
