#include "tests/rwkv_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"

bool tg_rwkv_ref_knows(const struct tg_mixer *m)
{
    return strcmp(m->spec->mixer->name, "rwkv7") == 0;
}

void tg_rwkv_vary(struct tg_layer_spec *l, size_t i)
{
    if (strcmp(l->mixer->name, "rwkv7") != 0)
        return;
    l->value_dim = l->head_dim + i % 3;
    l->linear_plain = i % 2;
    l->output_gate = i % 4 > 1;
    l->recurrent.rank = 3;
    l->recurrent.norm_eps = 1e-2; /* heads of two channels: differences that cancel have no slope */
}

static double *zeros(size_t n)
{
    double *p = tg_alloc_array(n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* y [n] = W x + bias of one token, by name; NULL names: nothing added */
static void linear(const struct tg_ref *r, const char *weight, const char *bias, const double *x,
                   double *y, size_t n, size_t k)
{
    const double *w = tg_ref_param(r, weight), *b = bias ? tg_ref_param(r, bias) : NULL;
    for (size_t i = 0; i < n; i++) {
        y[i] = b ? b[i] : 0;
        for (size_t c = 0; c < k; c++)
            y[i] += w[i * k + c] * x[c];
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* One token's vectors, of all heads: r, k0, w (the decay itself), a [H,K]; v, gate, o [H,V] */
struct token {
    double *r, *k, *w, *a, *v, *gate, *o, *out, *low, *turned;
};

static void project(const struct tg_ref *r, size_t t, const double *x, const struct token *k)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const size_t D = r->mixer->width, H = s->heads, K = s->head_dim, R = s->recurrent.rank,
                 V = s->value_dim ? s->value_dim : K;
    linear(r, "q.weight", "q.bias", x, k->r, H * K, D);
    linear(r, "k.weight", "k.bias", x, k->k, H * K, D);
    linear(r, "v.weight", "v.bias", x, k->v, H * V, D);
    for (size_t h = 0; h < H; h++) {
        double *both[] = {k->r + h * K, k->k + h * K};
        for (size_t i = 0; i < 2; i++) {
            if (s->qk_norm)
                tg_ref_head_norm(r, tg_ref_param(r, i ? "k_norm.weight" : "q_norm.weight"),
                                 both[i]);
            tg_ref_head_turn(r, t, both[i], k->turned);
            if (!s->linear_plain)
                memcpy(both[i], k->turned, K * sizeof *k->turned);
        }
    }
    linear(r, "w1.weight", NULL, x, k->low, R, D);
    for (size_t i = 0; i < R; i++)
        k->low[i] = tanh(k->low[i]);
    linear(r, "w2.weight", "w0", k->low, k->w, H * K, R);
    for (size_t i = 0; i < H * K; i++)
        k->w[i] = exp(-exp(-0.5) * sigmoid(k->w[i]));
    linear(r, "a1.weight", NULL, x, k->low, R, D);
    linear(r, "a2.weight", "a0", k->low, k->a, H * K, R);
    for (size_t i = 0; i < H * K; i++)
        k->a[i] = sigmoid(k->a[i]);
    linear(r, "g1.weight", NULL, x, k->low, R, D);
    for (size_t i = 0; i < R; i++)
        k->low[i] = sigmoid(k->low[i]);
    linear(r, "g2.weight", NULL, k->low, k->gate, H * V, R);
}

/* S [V,K] of head h: S <- S diag(w) - (S kk) (kk a)^T + v k^T; o = S r, normalised, with the bonus
 */
static void head(const struct tg_ref *r, size_t h, const struct token *x, double *S, double *kk)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const size_t K = s->head_dim, V = s->value_dim ? s->value_dim : K;
    const double *k_k = tg_ref_param(r, "k_k") + h * K, *k_a = tg_ref_param(r, "k_a") + h * K;
    const double *r_k = tg_ref_param(r, "r_k") + h * K, *a = x->a + h * K, *k0 = x->k + h * K;
    double length = 0, bonus = 0, mean = 0, variance = 0, *o = x->o + h * V;
    for (size_t c = 0; c < K; c++)
        length += k0[c] * k_k[c] * k0[c] * k_k[c];
    for (size_t c = 0; c < K; c++)
        kk[c] = k0[c] * k_k[c] / sqrt(length);
    for (size_t e = 0; e < V; e++) {
        double seen = 0, *row = S + e * K;
        for (size_t c = 0; c < K; c++)
            seen += row[c] * kk[c];
        o[e] = 0;
        for (size_t c = 0; c < K; c++) {
            double k = k0[c] * (1 + (a[c] - 1) * k_a[c]);
            row[c] = row[c] * x->w[h * K + c] - seen * kk[c] * a[c] + x->v[h * V + e] * k;
            o[e] += row[c] * x->r[h * K + c];
        }
        mean += o[e] / (double)V;
    }
    for (size_t c = 0; c < K; c++)
        bonus += x->r[h * K + c] * k0[c] * (1 + (a[c] - 1) * k_a[c]) * r_k[c];
    for (size_t e = 0; e < V; e++)
        variance += (o[e] - mean) * (o[e] - mean) / (double)V;
    for (size_t e = 0; e < V; e++) {
        o[e] = (o[e] - mean) / sqrt(variance + s->recurrent.norm_eps);
        o[e] = o[e] * tg_ref_param(r, "norm.weight")[h * V + e] +
               tg_ref_param(r, "norm.bias")[h * V + e] + bonus * x->v[h * V + e];
        o[e] *= x->gate[h * V + e];
    }
}

void tg_rwkv_ref_forward(const struct tg_ref *r, const struct tg_batch *b, const double *x,
                         double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const size_t D = r->mixer->width, H = s->heads, K = s->head_dim,
                 V = s->value_dim ? s->value_dim : K, most = H * (K + V) + s->recurrent.rank;
    double *all = zeros(10 * most), *S = zeros(H * K * V), *kk = zeros(K);
    double *at[10];
    for (size_t i = 0; i < 10; i++)
        at[i] = all + i * most;
    const struct token k = {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9]};
    for (size_t i = 0; i < b->count; i++) {
        memset(S, 0, H * K * V * sizeof *S);
        for (size_t row = b->begin[i]; row < b->begin[i + 1]; row++) {
            project(r, row - b->begin[i], x + row * D, &k);
            for (size_t h = 0; h < H; h++)
                head(r, h, &k, S + h * K * V, kk);
            if (s->output_gate)
                linear(r, "out_gate.weight", "out_gate.bias", x + row * D, k.out, H * V, D);
            for (size_t e = 0; e < H * V && s->output_gate; e++)
                k.o[e] *= sigmoid(k.out[e]);
            linear(r, "o.weight", "o.bias", k.o, y + row * D, D, H * V);
        }
    }
    tg_free(all);
    tg_free(S);
    tg_free(kk);
}
