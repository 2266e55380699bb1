#include "tests/mla_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"

bool tg_mla_ref_knows(const struct tg_mixer *m)
{
    return strcmp(m->spec->mixer->name, "mla") == 0;
}

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

static void linear(const double *w, const double *b, const double *x, double *y, size_t n, size_t k)
{
    for (size_t i = 0; i < n; i++) {
        y[i] = b ? b[i] : 0;
        for (size_t j = 0; j < k; j++)
            y[i] += w[i * k + j] * x[j];
    }
}

static void rms(const struct tg_ref *r, const char *name, double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] / sqrt(sum + r->mixer->spec->latent_eps) * param(r, name)[i];
}

static void turn(const struct tg_mixer *m, size_t t, double *x)
{
    const size_t half = m->spec->rotary_dim / 2;
    for (size_t i = 0; i < half; i++) {
        double a = x[i], b = x[i + half], c = (double)m->rope_cos[t * half + i],
               s = (double)m->rope_sin[t * half + i];
        x[i] = a * c - b * s;
        x[i + half] = b * c + a * s;
    }
}

/* One token: q, k [H,K], v [H,V] */
static void token(const struct tg_ref *r, size_t t, const double *x, double *q, double *k,
                  double *v)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const size_t D = r->mixer->width, H = s->heads, K = s->head_dim, V = K, P = s->rotary_dim,
                 N = K - P, R = s->kv_rank, U = N + V;
    double *low = zeros(R + P + s->q_rank), *up = zeros(H * U);
    if (s->q_rank) {
        linear(param(r, "q_a.weight"), param(r, "q_a.bias"), x, low, s->q_rank, D);
        rms(r, "q_a_norm.weight", low, s->q_rank);
        linear(param(r, "q_b.weight"), NULL, low, q, H * K, s->q_rank);
    } else
        linear(param(r, "q.weight"), NULL, x, q, H * K, D);
    linear(param(r, "kv_a.weight"), param(r, "kv_a.bias"), x, low, R + P, D);
    rms(r, "kv_a_norm.weight", low, R);
    linear(param(r, "kv_b.weight"), NULL, low, up, H * U, R);
    turn(r->mixer, t, low + R);
    for (size_t h = 0; h < H; h++) {
        turn(r->mixer, t, q + h * K + N);
        memcpy(k + h * K, up + h * U, N * sizeof *k);
        memcpy(k + h * K + N, low + R, P * sizeof *k);
        memcpy(v + h * V, up + h * U + N, V * sizeof *v);
    }
    tg_free(low);
    tg_free(up);
}

static void attend(const struct tg_layer_spec *s, const double *q, const double *k, const double *v,
                   size_t t, size_t h, double *o)
{
    const size_t H = s->heads, K = s->head_dim;
    double top = -INFINITY, sum = 0, *p = zeros(t + 1);
    for (size_t j = 0; j <= t; j++) {
        for (size_t i = 0; i < K; i++)
            p[j] += s->attn_scale * q[(t * H + h) * K + i] * k[(j * H + h) * K + i];
        top = fmax(top, p[j]);
    }
    for (size_t j = 0; j <= t; j++)
        sum += exp(p[j] - top);
    for (size_t i = 0; i < K; i++) {
        o[i] = 0;
        for (size_t j = 0; j <= t; j++)
            o[i] += exp(p[j] - top) / sum * v[(j * H + h) * K + i];
    }
    tg_free(p);
}

void tg_mla_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                        double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const size_t D = r->mixer->width, H = s->heads, K = s->head_dim;
    for (size_t i = 0; i < b->count; i++) {
        const size_t T = b->begin[i + 1] - b->begin[i];
        const double *from = x + b->begin[i] * D;
        double *q = zeros(T * H * K), *k = zeros(T * H * K), *v = zeros(T * H * K),
               *o = zeros(H * K);
        for (size_t t = 0; t < T; t++)
            token(r, t, from + t * D, q + t * H * K, k + t * H * K, v + t * H * K);
        for (size_t t = 0; t < T; t++) {
            for (size_t h = 0; h < H; h++)
                attend(s, q, k, v, t, h, o + h * K);
            linear(param(r, "o.weight"), param(r, "o.bias"), o, y + (b->begin[i] + t) * D, D,
                   H * K);
        }
        tg_free(q);
        tg_free(k);
        tg_free(v);
        tg_free(o);
    }
}
