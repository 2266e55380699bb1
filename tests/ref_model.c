/* Loops as in the equations; shares nothing with linearize/. Residual kinds are written out, one by
 * one. */
#include "tests/ref_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/ref_net.h"

const double *tg_ref_weight(const struct tg_ref_net *r, int layer, const char *name)
{
    size_t front = layer < 0 ? 0 : (size_t)snprintf(NULL, 0, "layers.%d.", layer);
    for (size_t i = 0; i < r->params->count; i++) {
        const struct tg_param *p = &r->params->items[i];
        if (p->layer == layer && strcmp(p->name + front, name) == 0)
            return r->data + p->offset;
    }
    return NULL;
}

double *tg_ref_zeros(size_t n)
{
    double *p = calloc(n ? n : 1, sizeof *p);
    if (!p)
        abort();
    return p;
}

void tg_ref_linear(const double *w, const double *b, const double *x, double *y, size_t n, size_t k)
{
    for (size_t i = 0; i < n; i++) {
        double sum = b ? b[i] : 0;
        for (size_t j = 0; j < k; j++)
            sum += w[i * k + j] * x[j];
        y[i] = sum;
    }
}

void tg_ref_norm(const struct tg_ref_net *r, int layer, const char *name, const double *x,
                 double *y, size_t n)
{
    const struct tg_norm_spec *norm = &r->spec->norm;
    double mean = 0, squares = 0;
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    const double *w = tg_ref_weight(r, layer, full);
    snprintf(full, sizeof full, "%s.bias", name);
    const double *b = tg_ref_weight(r, layer, full);
    for (size_t i = 0; norm->kind == TG_NORM_LAYER && i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++) {
        double f = w ? w[i] + norm->plus_one : 1;
        y[i] = (x[i] - mean) / sqrt(squares + norm->eps) * f + (b ? b[i] : 0);
    }
}

/* Arrays of a layer, [T,D] each */
struct space {
    double *x, *z, *y;
};

static void norm_rows(const struct tg_ref_net *r, int layer, const char *name, const double *x,
                      double *y, size_t T)
{
    size_t D = r->spec->width;
    for (size_t t = 0; t < T; t++)
        tg_ref_norm(r, layer, name, x + t * D, y + t * D, D);
}

static void mlp_rows(const struct tg_ref_net *r, int layer, const double *x, double *y, size_t T)
{
    size_t D = r->spec->width;
    for (size_t t = 0; t < T; t++)
        tg_ref_mlp(r, layer, x + t * D, y + t * D);
}

/* h = skip a + scale y */
static void add(double *h, double skip, const double *a, double scale, const double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h[i] = skip * a[i] + scale * y[i];
}

static void layer_forward(const struct tg_ref_net *r, int l, double *h, size_t T,
                          const struct space *s)
{
    const struct tg_layer_spec *spec = &r->spec->layers[l];
    double *x = s->x, *y = s->y, *z = s->z;
    double a = tg_factor(spec->mixer_scale), b = tg_factor(spec->mlp_scale);
    size_t n = T * r->spec->width;
    bool mlp = spec->mlp_kind != TG_MLP_NONE;
    switch (spec->residual) {
    case TG_RESIDUAL_PRE:
        norm_rows(r, l, "norm_in", h, x, T);
        tg_ref_attention(r, l, x, y, T);
        add(h, 1, h, a, y, n);
        if (!mlp)
            return;
        norm_rows(r, l, "norm_mlp", h, x, T);
        mlp_rows(r, l, x, y, T);
        add(h, 1, h, b, y, n);
        return;
    case TG_RESIDUAL_POST:
        tg_ref_attention(r, l, h, y, T);
        norm_rows(r, l, "norm_mixer_out", y, y, T);
        add(h, 1, h, a, y, n);
        mlp_rows(r, l, h, y, T);
        norm_rows(r, l, "norm_mlp_out", y, y, T);
        add(h, 1, h, b, y, n);
        return;
    case TG_RESIDUAL_SANDWICH:
        norm_rows(r, l, "norm_in", h, x, T);
        tg_ref_attention(r, l, x, y, T);
        norm_rows(r, l, "norm_mixer_out", y, y, T);
        add(h, 1, h, a, y, n);
        norm_rows(r, l, "norm_mlp", h, x, T);
        mlp_rows(r, l, x, y, T);
        norm_rows(r, l, "norm_mlp_out", y, y, T);
        add(h, 1, h, b, y, n);
        return;
    case TG_RESIDUAL_PARALLEL:
    case TG_RESIDUAL_SHARED:
        norm_rows(r, l, "norm_in", h, x, T);
        tg_ref_attention(r, l, x, y, T);
        if (spec->residual == TG_RESIDUAL_PARALLEL)
            norm_rows(r, l, "norm_mlp", h, x, T);
        mlp_rows(r, l, x, z, T);
        add(h, 1, h, a, y, n);
        add(h, 1, h, b, z, n);
        return;
    case TG_RESIDUAL_AFTER:
        tg_ref_attention(r, l, h, y, T);
        add(h, 1, h, a, y, n);
        norm_rows(r, l, "norm_mixer_out", h, h, T);
        mlp_rows(r, l, h, y, T);
        add(h, 1, h, b, y, n);
        norm_rows(r, l, "norm_mlp_out", h, h, T);
        return;
    case TG_RESIDUAL_NORMED:
        norm_rows(r, l, "norm_in", h, x, T);
        tg_ref_attention(r, l, x, y, T);
        add(h, tg_factor(spec->mixer_skip), x, a, y, n);
        norm_rows(r, l, "norm_mlp", h, x, T);
        mlp_rows(r, l, x, y, T);
        add(h, tg_factor(spec->mlp_skip), x, b, y, n);
        return;
    case TG_RESIDUAL_COUNT:
        break;
    }
    abort();
}

static void embed(const struct tg_ref_net *r, const int32_t *ids, size_t T, double *h)
{
    const struct tg_model_spec *spec = r->spec;
    size_t D = spec->width, E = spec->embed_dim ? spec->embed_dim : D;
    const double *pos = tg_ref_weight(r, -1, "pos.weight");
    for (size_t t = 0; t < T; t++) {
        const double *e = tg_ref_weight(r, -1, "embed.weight") + (size_t)ids[t] * E;
        if (spec->embed_dim)
            tg_ref_linear(tg_ref_weight(r, -1, "embed_in.weight"), NULL, e, h + t * D, D, E);
        for (size_t i = 0; i < D; i++)
            h[t * D + i] = tg_factor(spec->embed_scale) * (spec->embed_dim ? h[t * D + i] : e[i]) +
                           (pos ? pos[(spec->position_offset + t) * D + i] : 0);
    }
}

/* h [D] after the last layer -> logits [N] */
static void head(const struct tg_ref_net *r, const double *h, double *logits)
{
    const struct tg_model_spec *spec = r->spec;
    size_t D = spec->width, E = spec->embed_dim ? spec->embed_dim : D;
    double *x = tg_ref_zeros(D), *z = tg_ref_zeros(E), cap = spec->logit_softcap;
    const double *w = tg_ref_weight(r, -1, spec->tied_head ? "embed.weight" : "head.weight");
    memcpy(x, h, D * sizeof *x);
    if (!spec->no_norm_out)
        tg_ref_norm(r, -1, "norm_out", h, x, D);
    if (spec->embed_dim)
        tg_ref_linear(tg_ref_weight(r, -1, "embed_out.weight"), NULL, x, z, E, D);
    tg_ref_linear(w, tg_ref_weight(r, -1, "head.bias"), spec->embed_dim ? z : x, logits,
                  spec->vocab, E);
    for (size_t i = 0; i < spec->vocab; i++) {
        logits[i] *= tg_factor(spec->logit_scale);
        if (cap != 0)
            logits[i] = cap * tanh(logits[i] / cap);
    }
    free(x), free(z);
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

double *tg_ref_hidden(const struct tg_model_spec *spec, const struct tg_param_list *params,
                      const double *data, const int32_t *ids, size_t T, size_t layers)
{
    struct tg_ref_net r = {spec, params, data};
    size_t n = T * spec->width;
    double *h = tg_ref_zeros(n);
    struct space s = {tg_ref_zeros(n), tg_ref_zeros(n), tg_ref_zeros(n)};
    embed(&r, ids, T, h);
    for (size_t l = 0; l < layers; l++)
        layer_forward(&r, (int)l, h, T, &s);
    free(s.x), free(s.y), free(s.z);
    return h;
}

double tg_ref_loss_after(const struct tg_model_spec *spec, const struct tg_param_list *params,
                         const double *data, const int32_t *ids, size_t T, size_t layers,
                         const double *hidden, double *logits)
{
    struct tg_ref_net r = {spec, params, data};
    size_t D = spec->width, N = spec->vocab;
    double *h = tg_ref_zeros(T * D), *row = tg_ref_zeros(N), loss = 0;
    struct space s = {tg_ref_zeros(T * D), tg_ref_zeros(T * D), tg_ref_zeros(T * D)};
    memcpy(h, hidden, T * D * sizeof *h);
    for (size_t l = layers; l < spec->layer_count; l++)
        layer_forward(&r, (int)l, h, T, &s);
    for (size_t t = 0; t < T; t++) {
        head(&r, h + t * D, row);
        if (logits)
            memcpy(logits + t * N, row, N * sizeof *row);
        if (t + 1 < T)
            loss += cross_entropy(row, N, ids[t + 1]) / (double)(T - 1);
    }
    free(h), free(row), free(s.x), free(s.y), free(s.z);
    return loss;
}

double tg_ref_loss(const struct tg_model_spec *spec, const struct tg_param_list *params,
                   const double *data, const int32_t *ids, size_t T, double *logits)
{
    double *h = tg_ref_hidden(spec, params, data, ids, T, 0);
    double loss = tg_ref_loss_after(spec, params, data, ids, T, 0, h, logits);
    free(h);
    return loss;
}
