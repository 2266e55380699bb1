#include "tests/recurrent_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"

void tg_recurrent_open(struct tg_layer_spec *s)
{
    size_t inner = s->heads * (s->head_dim + 1);
    struct tg_recurrent_spec r = {.v_heads = s->heads,
                                  .v_dim = s->head_dim + 1,
                                  .conv = 1 + (s->feature_dim + 1) % 5,
                                  .state = s->feature_dim,
                                  .groups = s->kv_heads,
                                  .inner = inner,
                                  .rank = 3,
                                  .norm_groups = s->kv_heads,
                                  .conv_bias = s->qkv_bias,
                                  .proj_bias = s->o_bias,
                                  .out_bias = s->o_bias,
                                  .norm = s->qk_norm != TG_QK_NONE,
                                  .norm_before_gate = s->gated,
                                  .negative_eigenvalues = s->gated,
                                  .norm_eps = 1e-2,
                                  .scales = {0.9, 1.1, 0.8, 1.2, 0.7},
                                  .in_scale = 1.3,
                                  .out_scale = 0.6,
                                  .beside_scale = 1.4};
    s->recurrent = r;
}

static const double *param(const struct tg_ref *r, const char *name)
{
    const struct tg_mixer_schema *s = r->mixer->spec->mixer;
    for (size_t i = 0; i < s->param_count; i++)
        if (strcmp(s->params[i].name, name) == 0)
            return r->param[i];
    return NULL;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu(double x)
{
    return x * sigmoid(x);
}

static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* Memory of one sequence, freed at once */
struct pool {
    double *blocks[32];
    size_t count;
};

static double *take(struct pool *p, size_t n)
{
    double *x = tg_alloc_array(n + 1, sizeof *x);
    assert_non_null(x);
    assert_true(p->count < 32);
    p->blocks[p->count++] = x;
    return x;
}

static void give_back(struct pool *p)
{
    while (p->count)
        tg_free(p->blocks[--p->count]);
}

/* y [T,n] = x [T,k] W^T + bias, parameters by name; the bias may not be there */
static double *linear(const struct tg_ref *r, struct pool *p, const char *name, const char *bias,
                      const double *x, size_t T, size_t n, size_t k)
{
    const double *w = param(r, name), *b = bias ? param(r, bias) : NULL;
    double *y = take(p, T * n);
    for (size_t i = 0; i < T * n; i++) {
        y[i] = b ? b[i % n] : 0;
        for (size_t c = 0; c < k; c++)
            y[i] += x[i / n * k + c] * w[i % n * k + c];
    }
    return y;
}

/* Causal depthwise convolution of the channels from..from+n-1 of rows of `ld` */
static double *conv(const struct tg_ref *r, struct pool *p, const double *x, size_t T, size_t ld,
                    size_t from, size_t n, bool activate)
{
    const double *w = param(r, "conv.weight"), *b = param(r, "conv.bias");
    size_t taps = r->mixer->spec->recurrent.conv;
    double *y = take(p, T * n);
    for (size_t t = 0; t < T; t++)
        for (size_t c = 0; c < n; c++) {
            double u = b ? b[c] : 0;
            for (size_t back = 0; back < taps && back <= t; back++)
                u += w[c * taps + taps - 1 - back] * x[(t - back) * ld + from + c];
            y[t * n + c] = activate ? silu(u) : u;
        }
    return y;
}

static void rms(double *x, size_t n, const double *w, double eps)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        x[i] *= (w ? w[i] : 1) / sqrt(sum / (double)n + eps);
}

/* One token of one head: S [K,V] */
static void token(double *S, size_t K, size_t V, const double *q, const double *k, const double *v,
                  const double *decay, size_t decays, double beta, double *o)
{
    for (size_t c = 0; c < V; c++) {
        double u = v[c];
        for (size_t i = 0; i < K; i++)
            S[i * V + c] *= decay[decays == 1 ? 0 : i];
        for (size_t i = 0; beta != 0 && i < K; i++)
            u -= S[i * V + c] * k[i];
        o[c] = 0;
        for (size_t i = 0; i < K; i++) {
            S[i * V + c] += k[i] * u * (beta != 0 ? beta : 1);
            o[c] += S[i * V + c] * q[i];
        }
    }
}

/* o [I] gated by z [I] */
static void mamba2_gate(const struct tg_ref *r, const double *z, double *o)
{
    const struct tg_recurrent_spec *s = &r->mixer->spec->recurrent;
    size_t most = s->norm_groups ? s->norm_groups : 1;
    size_t groups = s->norm ? most : 0, n = groups ? s->inner / groups : 0;
    const double *w = param(r, "norm.weight");
    double eps = s->norm_eps > 0 ? s->norm_eps : (double)r->mixer->norm_eps;
    bool last = s->norm && s->norm_before_gate;
    for (size_t c = 0; !last && c < s->inner; c++)
        o[c] *= silu(z[c]);
    for (size_t g = 0; g < groups; g++)
        rms(o + g * n, n, w + g * n, eps);
    for (size_t c = 0; last && c < s->inner; c++)
        o[c] *= silu(z[c]);
}

static double *mamba2(const struct tg_ref *r, struct pool *p, const double *x, size_t T)
{
    const struct tg_recurrent_spec *s = &r->mixer->spec->recurrent;
    size_t D = r->mixer->width, N = s->state, V = s->v_dim, H = s->v_heads, G = s->groups;
    size_t I = s->inner, xbc = I + 2 * G * N, all = I + xbc + H;
    const double *bias = param(r, "in.bias");
    double *pre = linear(r, p, "in.weight", NULL, x, T, all, D);
    for (size_t i = 0; i < T * all; i++) {
        size_t c = i % all, part = c < I               ? 0
                                   : c < 2 * I         ? 1
                                   : c < 2 * I + G * N ? 2
                                   : c < I + xbc       ? 3
                                                       : 4;
        pre[i] =
            tg_factor(s->scales[part]) * (tg_factor(s->in_scale) * pre[i] + (bias ? bias[c] : 0));
    }
    double *mix = conv(r, p, pre, T, all, I, xbc, true);
    double *S = take(p, H * N * V), *o = take(p, T * I), *v = take(p, V);
    for (size_t t = 0; t < T; t++) {
        for (size_t h = 0; h < H; h++) {
            double *row = mix + t * xbc, *to = o + t * I + h * V;
            double dt = softplus(pre[t * all + I + xbc + h] + param(r, "dt_bias")[h]);
            dt = fmax(dt, s->dt_min);
            dt = s->dt_max > 0 ? fmin(dt, s->dt_max) : dt;
            double decay = exp(-exp(param(r, "A_log")[h]) * dt);
            const double *B = row + I + h / (H / G) * N;
            for (size_t c = 0; c < V; c++)
                v[c] = dt * row[h * V + c];
            token(S + h * N * V, N, V, B + G * N, B, v, &decay, 1, 0, to);
            for (size_t c = 0; c < V; c++)
                to[c] += param(r, "skip")[h] * row[h * V + c];
        }
        mamba2_gate(r, pre + t * all, o + t * I);
    }
    double *y = linear(r, p, "out.weight", "out.bias", o, T, D, I);
    for (size_t i = 0; i < T * D; i++)
        y[i] *= tg_factor(s->out_scale);
    return y;
}

static double *mamba1(const struct tg_ref *r, struct pool *p, const double *x, size_t T)
{
    const struct tg_recurrent_spec *s = &r->mixer->spec->recurrent;
    size_t D = r->mixer->width, I = s->inner, N = s->state, R = s->rank, ld = R + 2 * N;
    double *pre = linear(r, p, "in.weight", "in.bias", x, T, 2 * I, D);
    double *u = conv(r, p, pre, T, 2 * I, 0, I, true);
    double *in = linear(r, p, "x.weight", NULL, u, T, ld, I);
    double *low = take(p, T * R), *h = take(p, I * N), *o = take(p, T * I);
    for (size_t t = 0; t < T; t++) {
        double *row = in + t * ld;
        if (s->norm) {
            rms(row, R, param(r, "dt_norm.weight"), s->norm_eps);
            rms(row + R, N, param(r, "b_norm.weight"), s->norm_eps);
            rms(row + R + N, N, param(r, "c_norm.weight"), s->norm_eps);
        }
        memcpy(low + t * R, row, R * sizeof *low);
    }
    double *dt = linear(r, p, "dt.weight", "dt.bias", low, T, I, R);
    for (size_t i = 0; i < T * I; i++) {
        size_t t = i / I, c = i % I;
        double step = softplus(dt[i]);
        o[i] = param(r, "skip")[c] * u[i];
        for (size_t k = 0; k < N; k++) {
            double *to = h + c * N + k;
            *to = exp(-exp(param(r, "A_log")[c * N + k]) * step) * *to +
                  step * u[i] * in[t * ld + R + k];
            o[i] += *to * in[t * ld + R + N + k];
        }
        o[i] *= silu(pre[t * 2 * I + I + c]);
    }
    return linear(r, p, "out.weight", "out.bias", o, T, D, I);
}

static double *short_conv(const struct tg_ref *r, struct pool *p, const double *x, size_t T)
{
    size_t D = r->mixer->width, I = r->mixer->spec->recurrent.inner;
    double *pre = linear(r, p, "in.weight", "in.bias", x, T, 3 * I, D), *u = take(p, T * I);
    for (size_t i = 0; i < T * I; i++)
        u[i] = pre[i / I * 3 * I + i % I] * pre[i / I * 3 * I + 2 * I + i % I];
    double *c = conv(r, p, u, T, I, 0, I, false);
    for (size_t i = 0; i < T * I; i++)
        c[i] *= pre[i / I * 3 * I + I + i % I];
    return linear(r, p, "out.weight", "out.bias", c, T, D, I);
}

static double *rglru(const struct tg_ref *r, struct pool *p, const double *x, size_t T)
{
    const struct tg_recurrent_spec *s = &r->mixer->spec->recurrent;
    size_t D = r->mixer->width, I = s->inner, n = I / s->groups;
    double *y = linear(r, p, "y.weight", "y.bias", x, T, I, D);
    double *u = conv(r, p, linear(r, p, "x.weight", "x.bias", x, T, I, D), T, I, 0, I, false);
    double *h = take(p, I), *o = take(p, T * I);
    const double *wi = param(r, "input_gate.weight"), *wr = param(r, "decay_gate.weight");
    for (size_t i = 0; i < T * I; i++) {
        size_t t = i / I, c = i % I, block = c / n;
        double in = param(r, "input_gate.bias")[c], rec = param(r, "decay_gate.bias")[c];
        for (size_t k = 0; k < n; k++) {
            in += u[t * I + block * n + k] * wi[(block * n + k) * n + c % n];
            rec += u[t * I + block * n + k] * wr[(block * n + k) * n + c % n];
        }
        double a = exp(-8 * sigmoid(rec) * softplus(param(r, "decay")[c]));
        double root = t ? sqrt(1 - a * a) : 1, v = y[i];
        h[c] = (t ? a * h[c] : 0) + root * sigmoid(in) * u[i];
        o[i] = h[c] * 0.5 * v * (1 + tanh(sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v)));
    }
    return linear(r, p, "out.weight", "out.bias", o, T, D, I);
}

static const struct row {
    const char *name;
    double *(*run)(const struct tg_ref *r, struct pool *p, const double *x, size_t T);
    bool attention; /* softmax on the same input is added */
} rows[] = {
    {"mamba2", mamba2, false}, {"mamba2_attention", mamba2, true},
    {"mamba1", mamba1, false}, {"short_conv", short_conv, false},
    {"rglru", rglru, false},
};

static const struct row *row_of(const struct tg_mixer *m)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, m->spec->mixer->name) == 0)
            return &rows[i];
    return NULL;
}

bool tg_recurrent_ref_knows(const struct tg_mixer *m)
{
    return row_of(m) != NULL;
}

/* The softmax layer whose parameters come first in the row */
static void attention(const struct tg_ref *r, const struct tg_batch *b, const double *x, double *y)
{
    struct tg_layer_spec spec = *r->mixer->spec;
    struct tg_mixer m = *r->mixer;
    struct tg_ref inner = *r;
    spec.mixer = tg_mixer_schema_find("softmax");
    m.spec = &spec;
    inner.mixer = &m;
    tg_ref_forward(&inner, b, x, y);
}

bool tg_recurrent_ref_beside(const struct tg_mixer *m)
{
    return row_of(m)->attention;
}

void tg_recurrent_ref_own(const struct tg_ref *r, size_t T, const double *x, double *y)
{
    struct pool p = {{NULL}, 0};
    memcpy(y, row_of(r->mixer)->run(r, &p, x, T), T * r->mixer->width * sizeof *y);
    give_back(&p);
}

void tg_recurrent_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                              double *y)
{
    size_t D = r->mixer->width, n = tg_batch_rows(b) * D;
    bool attends = tg_recurrent_ref_beside(r->mixer);
    double beside = r->mixer->spec->recurrent.beside_scale;
    double *other = tg_alloc_array(n + 1, sizeof *other);
    assert_non_null(other);
    if (attends)
        attention(r, b, x, other);
    for (size_t i = 0; i < b->count; i++)
        tg_recurrent_ref_own(r, b->begin[i + 1] - b->begin[i], x + b->begin[i] * D,
                             y + b->begin[i] * D);
    for (size_t i = 0; attends && i < n; i++)
        y[i] += beside * other[i];
    tg_free(other);
}
