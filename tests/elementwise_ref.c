#include "tests/elementwise_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"

static const double *param(const struct tg_ref *r, const char *name)
{
    const struct tg_mixer_schema *s = r->mixer->spec->mixer;
    for (size_t i = 0; i < s->param_count; i++)
        if (strcmp(s->params[i].name, name) == 0)
            return r->param[i];
    return NULL;
}

static double *zeros(size_t n)
{
    double *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* y [T,n] = x [T,k] W^T + bias, by name */
static double *linear(const struct tg_ref *r, const char *weight, const char *bias, const double *x,
                      size_t T, size_t n, size_t k)
{
    const double *w = param(r, weight), *b = param(r, bias);
    double *y = zeros(T * n);
    for (size_t i = 0; i < T * n; i++) {
        y[i] = b ? b[i % n] : 0;
        for (size_t c = 0; c < k; c++)
            y[i] += x[i / n * k + c] * w[i % n * k + c];
    }
    return y;
}

static double log_sigmoid(double x)
{
    return x > 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
}

static double log_add(double a, double b)
{
    return fmax(a, b) + log1p(exp(-fabs(a - b)));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* h_t is the sum of all that came in, each by the product of the later decays: no recurrence, and
 * the decays as logarithms. */
static void hgrn(const struct tg_ref *r, const double *x, size_t T, double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    size_t D = r->mixer->width, n = s->heads * (s->value_dim ? s->value_dim : s->head_dim);
    double *in = linear(r, "i.weight", "i.bias", x, T, n, D);
    double *f = linear(r, "f.weight", "f.bias", x, T, n, D);
    double *g = linear(r, "g.weight", "g.bias", x, T, n, D), *h = zeros(T * n);
    for (size_t i = 0; i < T * n; i++) {
        double bound = param(r, "lower_bound")[i % n];
        f[i] = log_add(log_sigmoid(bound), log_sigmoid(-bound) + log_sigmoid(f[i]));
    }
    for (size_t t = 0; t < T; t++) {
        double squares = 0;
        for (size_t c = 0; c < n; c++) {
            double decay = 0, *to = h + t * n + c;
            for (size_t j = t + 1; j-- > 0;) {
                *to += exp(decay) * -expm1(f[j * n + c]) * silu(in[j * n + c]);
                decay += f[j * n + c];
            }
            squares += *to * *to;
        }
        for (size_t c = 0; c < n; c++)
            h[t * n + c] *= param(r, "norm.weight")[c] * silu(g[t * n + c]) /
                            sqrt(squares / (double)n + s->recurrent.norm_eps);
    }
    double *out = linear(r, "o.weight", "o.bias", h, T, D, n);
    memcpy(y, out, T * D * sizeof *y);
    double *used[] = {in, f, g, h, out};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        tg_free(used[i]);
}

/* A head's q or k over its root mean square */
static void norm(const struct tg_ref *r, const char *name, double *x, size_t vectors)
{
    size_t K = r->mixer->spec->head_dim;
    for (size_t i = 0; i < vectors * K; i += K) {
        double squares = 0;
        for (size_t c = 0; c < K; c++)
            squares += x[i + c] * x[i + c];
        for (size_t c = 0; c < K; c++)
            x[i + c] *= param(r, name)[c] / sqrt(squares / (double)K + (double)r->mixer->norm_eps);
    }
}

/* x [T,n] becomes its convolution, w [n,taps]; from the last row to the first */
static void convolve(const double *w, size_t taps, double *x, size_t T, size_t n)
{
    for (size_t t = T; t-- > 0;)
        for (size_t c = 0; c < n; c++) {
            double sum = 0;
            for (size_t back = 0; back < taps && back <= t; back++)
                sum += w[c * taps + taps - 1 - back] * x[(t - back) * n + c];
            x[t * n + c] = sum;
        }
}

static void hyena(const struct tg_ref *r, const double *x, size_t T, double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    size_t D = r->mixer->width, n = s->heads * s->head_dim, taps = s->recurrent.conv;
    double *qkv[] = {linear(r, "q.weight", "q.bias", x, T, n, D),
                     linear(r, "k.weight", "k.bias", x, T, n, D),
                     linear(r, "v.weight", "v.bias", x, T, n, D)};
    if (s->qk_norm) {
        norm(r, "q_norm.weight", qkv[0], T * s->heads);
        norm(r, "k_norm.weight", qkv[1], T * s->heads);
    }
    for (size_t i = 0; strcmp(s->mixer->name, "hyena_y") != 0 && i < 3; i++)
        convolve(param(r, "conv.weight") + i * n * taps, taps, qkv[i], T, n);
    for (size_t i = 0; i < T * n; i++)
        qkv[1][i] *= qkv[2][i];
    if (strcmp(s->mixer->name, "hyena_x") != 0)
        convolve(param(r, "inner_conv.weight"), s->recurrent.inner_conv, qkv[1], T, n);
    for (size_t i = 0; i < T * n; i++)
        qkv[1][i] *= qkv[0][i];
    double *out = linear(r, "o.weight", "o.bias", qkv[1], T, D, n);
    memcpy(y, out, T * D * sizeof *y);
    for (size_t i = 0; i < 3; i++)
        tg_free(qkv[i]);
    tg_free(out);
}

static const struct row {
    const char *name;
    void (*run)(const struct tg_ref *r, const double *x, size_t T, double *y);
} rows[] = {{"hgrn", hgrn}, {"hyena_x", hyena}, {"hyena_y", hyena}, {"hyena_se", hyena}};

static const struct row *row_of(const struct tg_mixer *m)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, m->spec->mixer->name) == 0)
            return &rows[i];
    return NULL;
}

bool tg_elementwise_ref_knows(const struct tg_mixer *m)
{
    return row_of(m) != NULL;
}

void tg_elementwise_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                                double *y)
{
    size_t D = r->mixer->width;
    for (size_t i = 0; i < b->count; i++)
        row_of(r->mixer)->run(r, x + b->begin[i] * D, b->begin[i + 1] - b->begin[i],
                              y + b->begin[i] * D);
}
