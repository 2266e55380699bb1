/* Loops as in the equations; shares nothing with linearize/. */
#include "tests/ref_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ref {
    const struct tg_model_spec *spec;
    const struct tg_param_list *params;
    const double *data;
};

static const double *weight(const struct ref *r, int layer, const char *name)
{
    char full[96];
    if (layer >= 0)
        snprintf(full, sizeof full, "layers.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    const struct tg_param *p = tg_params_find(r->params, full);
    return p ? r->data + p->offset : NULL;
}

static double *zeros(size_t n)
{
    double *p = calloc(n ? n : 1, sizeof *p);
    if (!p)
        abort();
    return p;
}

static void rms_norm(const double *x, const double *w, double eps, double *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] / sqrt(sum / (double)n + eps) * w[i];
}

/* y [n] = W [n,k] x (+ b) */
static void linear(const double *w, const double *b, const double *x, double *y, size_t n, size_t k)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = b ? b[i] : 0;
        for (size_t j = 0; j < k; j++)
            y[i] += w[i * k + j] * x[j];
    }
}

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
static void prepare_heads(const struct ref *r, int layer, const char *norm, const double *turn,
                          double *x, size_t heads)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    for (size_t h = 0; h < heads; h++) {
        double *head = x + h * l->head_dim;
        if (l->qk_norm)
            rms_norm(head, weight(r, layer, norm), r->spec->norm.eps, head, l->head_dim);
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
    double *s = zeros(t + 1);
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

static void attention(const struct ref *r, int layer, double *h, size_t T)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    size_t D = r->spec->width, K = l->head_dim, Q = l->heads * K, G = l->kv_heads * K;
    double *x = zeros(D), *y = zeros(D), *o = zeros(Q), *turn = zeros(K);
    double *q = zeros(T * Q), *k = zeros(T * G), *v = zeros(T * G);
    for (size_t t = 0; t < T; t++) {
        rms_norm(h + t * D, weight(r, layer, "norm_in.weight"), r->spec->norm.eps, x, D);
        linear(weight(r, layer, "mixer.q.weight"), weight(r, layer, "mixer.q.bias"), x, q + t * Q,
               Q, D);
        linear(weight(r, layer, "mixer.k.weight"), weight(r, layer, "mixer.k.bias"), x, k + t * G,
               G, D);
        linear(weight(r, layer, "mixer.v.weight"), weight(r, layer, "mixer.v.bias"), x, v + t * G,
               G, D);
        turns_of(&r->spec->ropes[0], t, turn, l->rotary_dim);
        prepare_heads(r, layer, "mixer.q_norm.weight", turn, q + t * Q, l->heads);
        prepare_heads(r, layer, "mixer.k_norm.weight", turn, k + t * G, l->kv_heads);
    }
    for (size_t t = 0; t < T; t++) {
        for (size_t n = 0; n < l->heads; n++)
            attend(l, q + t * Q + n * K, k, v, t, n, o + n * K);
        linear(weight(r, layer, "mixer.o.weight"), weight(r, layer, "mixer.o.bias"), o, y, D, Q);
        for (size_t i = 0; i < D; i++)
            h[t * D + i] += y[i];
    }
    free(x), free(y), free(o), free(q), free(k), free(v), free(turn);
}

static void mlp(const struct ref *r, int layer, double *h, size_t T)
{
    size_t D = r->spec->width, M = r->spec->layers[layer].mlp_dim;
    double *x = zeros(D), *y = zeros(D), *a = zeros(M), *b = zeros(M);
    for (size_t t = 0; t < T; t++) {
        rms_norm(h + t * D, weight(r, layer, "norm_mlp.weight"), r->spec->norm.eps, x, D);
        linear(weight(r, layer, "mlp.gate.weight"), weight(r, layer, "mlp.gate.bias"), x, a, M, D);
        linear(weight(r, layer, "mlp.up.weight"), weight(r, layer, "mlp.up.bias"), x, b, M, D);
        for (size_t i = 0; i < M; i++)
            a[i] = a[i] / (1 + exp(-a[i])) * b[i];
        linear(weight(r, layer, "mlp.down.weight"), weight(r, layer, "mlp.down.bias"), a, y, D, M);
        for (size_t i = 0; i < D; i++)
            h[t * D + i] += y[i];
    }
    free(x), free(y), free(a), free(b);
}

static double cross_entropy(const double *logits, size_t n, int32_t target)
{
    double top = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, logits[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp(logits[i] - top);
    return top + log(sum) - logits[target];
}

double tg_ref_loss(const struct tg_model_spec *spec, const struct tg_param_list *params,
                   const double *data, const int32_t *ids, size_t T, double *logits)
{
    struct ref r = {spec, params, data};
    size_t D = spec->width, N = spec->vocab;
    const double *embed = weight(&r, -1, "embed.weight");
    const double *head = spec->tied_head ? embed : weight(&r, -1, "head.weight");
    double *h = zeros(T * D), *x = zeros(D), *row = zeros(N), loss = 0;
    for (size_t t = 0; t < T; t++)
        memcpy(h + t * D, embed + (size_t)ids[t] * D, D * sizeof *h);
    for (size_t l = 0; l < spec->layer_count; l++) {
        attention(&r, (int)l, h, T);
        mlp(&r, (int)l, h, T);
    }
    for (size_t t = 0; t < T; t++) {
        rms_norm(h + t * D, weight(&r, -1, "norm_out.weight"), spec->norm.eps, x, D);
        linear(head, NULL, x, row, N, D);
        if (logits)
            memcpy(logits + t * N, row, N * sizeof *row);
        if (t + 1 < T)
            loss += cross_entropy(row, N, ids[t + 1]) / (double)(T - 1);
    }
    free(h), free(x), free(row);
    return loss;
}
