/* Attention of the double reference: softmax and window layers with everything that a spec may ask
 * for, and latent attention. Every score is computed where it is needed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/linear_ref.h"
#include "tests/recurrent_ref.h"
#include "tests/ref_net.h"

/* Where pair i stands on yarn's ramp: 0 keeps its frequency, 1 divides it */
static double yarn_ramp(const struct tg_rope *r, size_t i, size_t n)
{
    double limits[2], turns[2] = {r->beta_fast, r->beta_slow};
    for (int k = 0; k < 2; k++)
        limits[k] = (double)n * log(r->original_max_positions / (turns[k] * 2 * M_PI)) /
                    (2 * log(r->theta));
    double low = fmax(r->truncate ? floor(limits[0]) : limits[0], 0);
    double high = fmin(r->truncate ? ceil(limits[1]) : limits[1], (double)n - 1);
    return fmin(fmax(((double)i - low) / (low == high ? 0.001 : high - low), 0), 1);
}

static double frequency(const struct tg_rope *r, size_t i, size_t n, size_t T)
{
    double exponent = 2.0 * (double)i / (double)n, f = pow(r->theta, -exponent);
    switch (r->kind) {
    case TG_ROPE_DEFAULT:
    case TG_ROPE_COUNT:
        return f;
    case TG_ROPE_NONE:
        return 0;
    case TG_ROPE_LINEAR:
        return f / r->factor;
    case TG_ROPE_DYNAMIC: {
        double ratio = fmax((double)T, r->original_max_positions) / r->original_max_positions;
        double grown =
            r->theta * pow(r->factor * ratio - (r->factor - 1), (double)n / ((double)n - 2));
        return pow(grown, -exponent);
    }
    case TG_ROPE_YARN: {
        double ramp = yarn_ramp(r, i, n);
        return f / r->factor * ramp + f * (1 - ramp);
    }
    case TG_ROPE_LONGROPE:
        return f / ((double)T > r->original_max_positions ? r->long_factor[i] : r->short_factor[i]);
    case TG_ROPE_LLAMA3:
        break;
    }
    double turns = r->original_max_positions * f / (2 * M_PI);
    if (turns < r->low_freq_factor)
        return f / r->factor;
    if (turns > r->high_freq_factor)
        return f;
    double s = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - s) * f / r->factor + s * f;
}

/* x [n]: pairs (i, i + n/2) turned by the angles of token t of a text of T */
static void rotate(const struct tg_ref_net *r, int layer, size_t t, size_t T, double *x)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    const struct tg_rope *rope = &r->spec->ropes[l->rope];
    size_t n = l->rotary_dim;
    for (size_t i = 0, j = n / 2; i < n / 2; i++, j++) {
        double angle = (double)t * frequency(rope, i, n, T), f = tg_factor(rope->attention_factor);
        double a = x[i], b = x[j], c = cos(angle) * f, s = sin(angle) * f;
        x[i] = a * c - b * s;
        x[j] = b * c + a * s;
    }
}

/* x [n] normalised in place with weights that begin at w, b (NULL: none) */
static void norm(const struct tg_norm_spec *s, double eps, const double *w, const double *b,
                 double *x, size_t n)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; s->kind == TG_NORM_LAYER && i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        x[i] = (x[i] - mean) / sqrt(squares + eps) * (w ? w[i] + s->plus_one : 1) + (b ? b[i] : 0);
}

/* Heads of q or k of one token: limit, norm, rotary */
static void prepare_heads(const struct tg_ref_net *r, int layer, const char *name, size_t t,
                          size_t T, double *x, size_t heads)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    const struct tg_norm_spec *s = &r->spec->norm;
    char full[64];
    size_t K = l->head_dim;
    snprintf(full, sizeof full, "%s.weight", name);
    const double *w = tg_ref_weight(r, layer, full);
    snprintf(full, sizeof full, "%s.bias", name);
    const double *b = tg_ref_weight(r, layer, full);
    if (l->qk_norm == TG_QK_WIDE)
        norm(s, s->eps, w, b, x, heads * K);
    for (size_t h = 0; h < heads; h++) {
        size_t at = l->qk_norm == TG_QK_EACH ? h * K : 0;
        if (l->qk_norm == TG_QK_HEAD || l->qk_norm == TG_QK_EACH)
            norm(s, s->eps, w + at, b ? b + at : NULL, x + h * K, K);
        rotate(r, layer, t, T, x + h * K);
    }
}

/* q [T,H,K], k [T,G,K], v [T,G,V] of one layer */
struct heads {
    double *q, *k, *v;
    size_t H, G, K, V;
};

/* o [V] of token t, head h */
static void attend(const struct tg_ref_net *r, int layer, const struct heads *a, size_t t, size_t h,
                   double *o)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    const double *sink = tg_ref_weight(r, layer, "mixer.sink");
    size_t g = h / (a->H / a->G), first = l->window && t + 1 > l->window ? t + 1 - l->window : 0;
    double top = -INFINITY, sum = 0, *s = tg_ref_zeros(t + 1);
    for (size_t j = first; j <= t; j++) {
        for (size_t i = 0; i < a->K; i++)
            s[j] +=
                l->attn_scale * a->q[(t * a->H + h) * a->K + i] * a->k[(j * a->G + g) * a->K + i];
        if (l->attn_softcap > 0)
            s[j] = l->attn_softcap * tanh(s[j] / l->attn_softcap);
        top = fmax(top, s[j]);
    }
    for (size_t j = first; j <= t; j++)
        sum += exp(s[j] - top);
    for (size_t m = 0; sink && m < l->sinks; m++)
        sum += exp(sink[h * l->sinks + m] - top);
    memset(o, 0, a->V * sizeof *o);
    for (size_t j = first; j <= t; j++) {
        const double weight = exp(s[j] - top) / sum;
        for (size_t i = 0; i < a->V; i++)
            o[i] += weight * a->v[(j * a->G + g) * a->V + i];
    }
    free(s);
}

static void limit(double *x, size_t n, double most)
{
    for (size_t i = 0; most > 0 && i < n; i++)
        x[i] = fmin(fmax(x[i], -most), most);
}

static void plain_heads(const struct tg_ref_net *r, int layer, const double *x, size_t T,
                        const struct heads *a)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    size_t D = r->spec->width, Q = a->H * a->K, G = a->G * a->K, V = a->G * a->V;
    for (size_t t = 0; t < T; t++) {
        double *q = a->q + t * Q, *k = a->k + t * G, *v = a->v + t * V;
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.q.weight"),
                      tg_ref_weight(r, layer, "mixer.q.bias"), x + t * D, q, Q, D);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.k.weight"),
                      tg_ref_weight(r, layer, "mixer.k.bias"), x + t * D, k, G, D);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.v.weight"),
                      tg_ref_weight(r, layer, "mixer.v.bias"), x + t * D, v, V, D);
        limit(q, Q, l->qkv_clip);
        limit(k, G, l->qkv_clip);
        limit(v, V, l->qkv_clip);
        prepare_heads(r, layer, "mixer.q_norm", t, T, q, a->H);
        prepare_heads(r, layer, "mixer.k_norm", t, T, k, a->G);
    }
}

/* Latent attention: q by way of a latent or straight; k and v from one latent, and a rotated part
 * of k that all heads share. */
static void latent_heads(const struct tg_ref_net *r, int layer, const double *x, size_t T,
                         const struct heads *a)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    static const struct tg_norm_spec rms = {.kind = TG_NORM_RMS};
    size_t D = r->spec->width, R = l->kv_rank, P = l->rotary_dim, N = a->K - P, U = N + a->V;
    double *low = tg_ref_zeros(l->q_rank + R + P), *up = tg_ref_zeros(a->H * U);
    for (size_t t = 0; t < T; t++) {
        double *q = a->q + t * a->H * a->K;
        if (l->q_rank) {
            tg_ref_linear(tg_ref_weight(r, layer, "mixer.q_a.weight"),
                          tg_ref_weight(r, layer, "mixer.q_a.bias"), x + t * D, low, l->q_rank, D);
            norm(&rms, l->latent_eps, tg_ref_weight(r, layer, "mixer.q_a_norm.weight"), NULL, low,
                 l->q_rank);
            tg_ref_linear(tg_ref_weight(r, layer, "mixer.q_b.weight"), NULL, low, q, a->H * a->K,
                          l->q_rank);
        } else
            tg_ref_linear(tg_ref_weight(r, layer, "mixer.q.weight"), NULL, x + t * D, q,
                          a->H * a->K, D);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.kv_a.weight"),
                      tg_ref_weight(r, layer, "mixer.kv_a.bias"), x + t * D, low, R + P, D);
        norm(&rms, l->latent_eps, tg_ref_weight(r, layer, "mixer.kv_a_norm.weight"), NULL, low, R);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.kv_b.weight"), NULL, low, up, a->H * U, R);
        rotate(r, layer, t, T, low + R);
        for (size_t h = 0; h < a->H; h++) {
            double *k = a->k + (t * a->H + h) * a->K;
            rotate(r, layer, t, T, q + h * a->K + N);
            memcpy(k, up + h * U, N * sizeof *k);
            memcpy(k + N, low + R, P * sizeof *k);
            memcpy(a->v + (t * a->H + h) * a->V, up + h * U + N, a->V * sizeof *k);
        }
    }
    free(low), free(up);
}

static void softmax(const struct tg_ref_net *r, int layer, const double *x, double *y, size_t T)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    const double *gate = tg_ref_weight(r, layer, "mixer.out_gate.weight");
    struct heads a = {.H = l->heads, .K = l->head_dim, .V = tg_value_dim(l)};
    a.G = l->kv_rank ? l->heads : l->kv_heads;
    size_t D = r->spec->width, O = a.H * a.V;
    a.q = tg_ref_zeros(T * a.H * a.K);
    a.k = tg_ref_zeros(T * a.G * a.K);
    a.v = tg_ref_zeros(T * a.G * a.V);
    double *o = tg_ref_zeros(O), *g = tg_ref_zeros(O);
    if (l->kv_rank)
        latent_heads(r, layer, x, T, &a);
    else
        plain_heads(r, layer, x, T, &a);
    for (size_t t = 0; t < T; t++) {
        for (size_t h = 0; h < a.H; h++)
            attend(r, layer, &a, t, h, o + h * a.V);
        if (gate)
            tg_ref_linear(gate, tg_ref_weight(r, layer, "mixer.out_gate.bias"), x + t * D, g, O, D);
        for (size_t i = 0; gate && i < O; i++)
            o[i] /= 1 + exp(-g[i]);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.o.weight"),
                      tg_ref_weight(r, layer, "mixer.o.bias"), o, y + t * D, D, O);
    }
    free(a.q), free(a.k), free(a.v), free(o), free(g);
}

/* Cosines, then sines [T,rotary_dim/2] of a mixer's positions; NULL without any */
static float *rope_tables(const struct tg_ref_net *r, const struct tg_layer_spec *l, size_t T)
{
    const size_t half = l->rotary_dim / 2;
    float *tables = half ? malloc(2 * T * half * sizeof *tables) : NULL;
    for (size_t i = 0; i < T * half; i++) {
        double angle =
            (double)(i / half) * frequency(&r->spec->ropes[l->rope], i % half, l->rotary_dim, T);
        tables[i] = (float)cos(angle);
        tables[T * half + i] = (float)sin(angle);
    }
    return tables;
}

/* A recurrent layer through the reference of the mixers, softmax beside it if there is one */
static void recurrent(const struct tg_ref_net *r, int layer, const double *x, double *y, size_t T)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    struct tg_mixer m = {.spec = l, .width = r->spec->width};
    struct tg_ref own = {.mixer = &m};
    double beside = tg_factor(l->recurrent.beside_scale);
    double *other = tg_ref_zeros(T * r->spec->width);
    for (size_t i = 0; i < l->mixer->param_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "mixer.%s", l->mixer->params[i].name);
        own.param[i] = tg_ref_weight(r, layer, name);
    }
    if (tg_linear_ref_knows(&m)) {
        const size_t begin[2] = {0, T};
        struct tg_ref_consts none = {0};
        float *tables = rope_tables(r, l, T);
        own.consts = &none;
        m.rope_cos = tables;
        m.rope_sin = tables ? tables + T * (l->rotary_dim / 2) : NULL;
        tg_linear_ref_forward(&own, &(struct tg_batch){1, begin, NULL}, x, y);
        free(tables);
        free(other);
        return;
    }
    if (tg_recurrent_ref_beside(&m))
        softmax(r, layer, x, other, T);
    tg_recurrent_ref_own(&own, T, x, y);
    for (size_t i = 0; i < T * r->spec->width; i++)
        y[i] += beside * other[i];
    free(other);
}

void tg_ref_attention(const struct tg_ref_net *r, int layer, const double *x, double *y, size_t T)
{
    if (r->spec->layers[layer].mixer->flags & TG_MIXER_RECURRENT)
        recurrent(r, layer, x, y, T);
    else
        softmax(r, layer, x, y, T);
}
