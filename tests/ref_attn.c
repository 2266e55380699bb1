/* Attention of the double reference. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/recurrent_ref.h"
#include "tests/ref_net.h"

static double frequency(const struct tg_rope *rope, size_t i, size_t n)
{
    double f = pow(rope->theta, -2.0 * (double)i / (double)n);
    if (rope->kind == TG_ROPE_DEFAULT)
        return f;
    double turns = rope->original_max_positions * f / (2 * M_PI);
    if (turns < rope->low_freq_factor)
        return f / rope->factor;
    if (turns > rope->high_freq_factor)
        return f;
    double s = (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - s) * f / rope->factor + s * f;
}

/* Cosines, then sines, of token t's angles */
static void turns_of(const struct tg_rope *rope, size_t t, double *turn, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        double angle = (double)t * frequency(rope, i, n);
        turn[i] = cos(angle);
        turn[i + n / 2] = sin(angle);
    }
}

static void rotate(const double *turn, double *x, size_t n)
{
    for (size_t i = 0, j = n / 2; i < n / 2; i++, j++) {
        double a = x[i], b = x[j];
        x[i] = a * turn[i] - b * turn[j];
        x[j] = b * turn[i] + a * turn[j];
    }
}

/* Heads of q or k of one token: norm, then rotary */
static void prepare_heads(const struct tg_ref_net *r, int layer, const char *norm,
                          const double *turn, double *x, size_t heads)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    for (size_t h = 0; h < heads; h++) {
        double *head = x + h * l->head_dim;
        if (l->qk_norm)
            tg_ref_norm(r, layer, norm, head, head, l->head_dim);
        rotate(turn, head, l->rotary_dim);
    }
}

/* q, k, v of all tokens -> o of token t, head h */
static void attend(const struct tg_layer_spec *l, const double *q, const double *k, const double *v,
                   size_t t, size_t h, double *o)
{
    size_t K = l->head_dim, g = h / (l->heads / l->kv_heads), total_k = l->kv_heads * K;
    size_t first = l->window && t + 1 > l->window ? t + 1 - l->window : 0;
    double top = -INFINITY, sum = 0;
    double *s = tg_ref_zeros(t + 1);
    for (size_t j = first; j <= t; j++) {
        for (size_t i = 0; i < K; i++)
            s[j] += l->attn_scale * q[i] * k[j * total_k + g * K + i];
        top = fmax(top, s[j]);
    }
    memset(o, 0, K * sizeof *o);
    for (size_t j = first; j <= t; j++) {
        double e = exp(s[j] - top);
        sum += e;
        for (size_t i = 0; i < K; i++)
            o[i] += e * v[j * total_k + g * K + i];
    }
    for (size_t i = 0; i < K; i++)
        o[i] /= sum;
    free(s);
}

static void softmax(const struct tg_ref_net *r, int layer, const double *x, double *y, size_t T)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    size_t D = r->spec->width, K = l->head_dim, Q = l->heads * K, G = l->kv_heads * K;
    double *o = tg_ref_zeros(Q), *turn = tg_ref_zeros(K);
    double *q = tg_ref_zeros(T * Q), *k = tg_ref_zeros(T * G), *v = tg_ref_zeros(T * G);
    for (size_t t = 0; t < T; t++) {
        const double *xt = x + t * D;
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.q.weight"),
                      tg_ref_weight(r, layer, "mixer.q.bias"), xt, q + t * Q, Q, D);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.k.weight"),
                      tg_ref_weight(r, layer, "mixer.k.bias"), xt, k + t * G, G, D);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.v.weight"),
                      tg_ref_weight(r, layer, "mixer.v.bias"), xt, v + t * G, G, D);
        turns_of(&r->spec->ropes[0], t, turn, l->rotary_dim);
        prepare_heads(r, layer, "mixer.q_norm", turn, q + t * Q, l->heads);
        prepare_heads(r, layer, "mixer.k_norm", turn, k + t * G, l->kv_heads);
    }
    for (size_t t = 0; t < T; t++) {
        for (size_t n = 0; n < l->heads; n++)
            attend(l, q + t * Q + n * K, k, v, t, n, o + n * K);
        tg_ref_linear(tg_ref_weight(r, layer, "mixer.o.weight"),
                      tg_ref_weight(r, layer, "mixer.o.bias"), o, y + t * D, D, Q);
    }
    free(o), free(q), free(k), free(v), free(turn);
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
