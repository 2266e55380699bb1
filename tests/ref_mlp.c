/* Mlps and experts of the double reference, token by token and expert by expert. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/ref_net.h"

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* act(a) * b */
static double gate(enum tg_activation act, double a, double b)
{
    double u = sqrt(2 / M_PI) * (a + 0.044715 * a * a * a);
    switch (act) {
    case TG_ACT_SILU:
        return a * sigmoid(a) * b;
    case TG_ACT_GELU:
        return a * erfc(-a / sqrt(2)) / 2 * b;
    case TG_ACT_GELU_TANH:
        return a * (1 + tanh(u)) / 2 * b;
    case TG_ACT_RELU:
        return fmax(a, 0) * b;
    case TG_ACT_RELU2:
        return pow(fmax(a, 0), 2) * b;
    case TG_ACT_CLAMPED_GLU:
        a = fmin(a, 7);
        return a * sigmoid(1.702 * a) * (fmax(-7, fmin(b, 7)) + 1);
    case TG_ACT_COUNT:
        break;
    }
    abort();
}

static const double *part(const struct tg_ref_net *r, int layer, const char *prefix,
                          const char *name, size_t at)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    const double *w = tg_ref_weight(r, layer, full);
    return w ? w + at : NULL;
}

/* y [D] += factor times an mlp of M; e: which of the experts under this prefix */
static void add_mlp(const struct tg_ref_net *r, int layer, const char *prefix, size_t e, size_t M,
                    double factor, const double *x, double *y)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    size_t D = r->spec->width;
    double *a = tg_ref_zeros(M), *b = tg_ref_zeros(M), *out = tg_ref_zeros(D);
    bool gated = l->mlp_kind == TG_MLP_GATED;
    tg_ref_linear(part(r, layer, prefix, "up.weight", e * M * D),
                  part(r, layer, prefix, "up.bias", e * M), x, b, M, D);
    if (gated)
        tg_ref_linear(part(r, layer, prefix, "gate.weight", e * M * D),
                      part(r, layer, prefix, "gate.bias", e * M), x, a, M, D);
    for (size_t i = 0; i < M; i++)
        a[i] = gated ? gate(l->activation, tg_factor(l->gate_scale) * a[i], b[i])
                     : gate(l->activation, b[i], 1);
    tg_ref_linear(part(r, layer, prefix, "down.weight", e * M * D),
                  part(r, layer, prefix, "down.bias", e * D), a, out, D, M);
    for (size_t i = 0; i < D; i++)
        y[i] += factor * out[i];
    free(a), free(b), free(out);
}

/* How many of v are before e: greater, or equal and earlier */
static size_t rank_of(const double *v, size_t n, size_t e)
{
    size_t before = 0;
    for (size_t i = 0; i < n; i++)
        before += v[i] > v[e] || (v[i] == v[e] && i < e);
    return before;
}

/* The weight of every expert, 0 for those not chosen */
static void route(const struct tg_ref_net *r, int layer, const double *x, double *w)
{
    const struct tg_moe_spec *moe = &r->spec->layers[layer].moe;
    size_t E = moe->experts, groups = moe->groups ? moe->groups : 1, size = E / groups;
    const double *correction = tg_ref_weight(r, layer, "moe.correction");
    double *p = tg_ref_zeros(E), *v = tg_ref_zeros(E), *score = tg_ref_zeros(groups), total = 0;
    tg_ref_linear(tg_ref_weight(r, layer, "moe.router.weight"),
                  tg_ref_weight(r, layer, "moe.router.bias"), x, p, E, r->spec->width);
    for (size_t e = 0; e < E; e++) {
        p[e] = moe->router == TG_ROUTER_SIGMOID ? sigmoid(p[e]) : exp(p[e]);
        total += p[e];
    }
    for (size_t e = 0; e < E; e++) {
        if (moe->router == TG_ROUTER_SOFTMAX_TOP)
            p[e] /= total;
        v[e] = p[e] + (correction ? correction[e] : 0);
    }
    for (size_t g = 0; g < groups; g++)
        for (size_t i = 0; i < size; i++)
            score[g] += rank_of(v + g * size, size, i) < 2 ? v[g * size + i] : 0;
    for (size_t e = 0; groups > 1 && e < E; e++)
        if (rank_of(score, groups, e / size) >= moe->groups_kept)
            v[e] = -1e30;
    total = 0;
    for (size_t e = 0; e < E; e++) {
        w[e] = rank_of(v, E, e) < moe->per_token ? p[e] : 0;
        total += w[e];
    }
    bool divide = moe->renormalise || moe->router == TG_ROUTER_TOP_SOFTMAX;
    for (size_t e = 0; e < E; e++)
        w[e] *= tg_factor(moe->scale) / (divide ? total : 1);
    free(p), free(v), free(score);
}

static void experts(const struct tg_ref_net *r, int layer, const double *x, double *y)
{
    const struct tg_moe_spec *moe = &r->spec->layers[layer].moe;
    const double *shared_gate = tg_ref_weight(r, layer, "moe.shared_gate.weight");
    double *w = tg_ref_zeros(moe->experts), factor = 0;
    route(r, layer, x, w);
    for (size_t e = 0; e < moe->experts; e++)
        if (w[e] != 0)
            add_mlp(r, layer, "moe", e, moe->mlp_dim, w[e], x, y);
    if (shared_gate)
        tg_ref_linear(shared_gate, NULL, x, &factor, 1, r->spec->width);
    if (moe->shared_dim)
        add_mlp(r, layer, "moe.shared", 0, moe->shared_dim, shared_gate ? sigmoid(factor) : 1, x,
                y);
    free(w);
}

void tg_ref_mlp(const struct tg_ref_net *r, int layer, const double *x, double *y)
{
    const struct tg_layer_spec *l = &r->spec->layers[layer];
    for (size_t i = 0; i < r->spec->width; i++)
        y[i] = 0;
    if (l->moe.experts)
        experts(r, layer, x, y);
    else
        add_mlp(r, layer, "mlp", 0, l->mlp_dim, 1, x, y);
    for (size_t i = 0; i < r->spec->width; i++)
        y[i] *= tg_factor(l->down_scale);
}
