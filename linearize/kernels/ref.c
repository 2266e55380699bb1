#include "linearize/kernels/ref.h"

#include <math.h>

void tg_gemm_ref(bool ta, bool tb, size_t m, size_t n, size_t k, double alpha, const double *a,
                 size_t lda, const double *b, size_t ldb, double beta, double *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++)
                sum +=
                    (ta ? a[l * lda + i] : a[i * lda + l]) * (tb ? b[j * ldb + l] : b[l * ldb + j]);
            c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
        }
}

double tg_rmsnorm_fwd_ref(const double *x, const double *w, double eps, double *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double r = 1 / sqrt(sum / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
    return r;
}

void tg_rmsnorm_bwd_ref(const double *x, const double *w, double r, const double *dy, double *dx,
                        double *dw, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += dy[i] * w[i] * x[i];
    for (size_t i = 0; i < n; i++) {
        dx[i] += r * (dy[i] * w[i] - x[i] * r * r * sum / (double)n);
        dw[i] += dy[i] * x[i] * r;
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

void tg_silu_mul_fwd_ref(const double *a, const double *b, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] * sigmoid(a[i]) * b[i];
}

void tg_silu_mul_bwd_ref(const double *a, const double *b, const double *dy, double *da, double *db,
                         size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double s = sigmoid(a[i]);
        da[i] = dy[i] * b[i] * (s + a[i] * s * sigmoid(-a[i]));
        db[i] = dy[i] * a[i] * s;
    }
}

void tg_rope_ref(double *x, const double *cos, const double *sin, double sign, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        double a = x[i], b = x[n / 2 + i];
        x[i] = a * cos[i] - b * sign * sin[i];
        x[n / 2 + i] = b * cos[i] + a * sign * sin[i];
    }
}

/* log sum e^{c x}; long double, since a KL near 0 is a small difference of two of these */
static long double log_sum_exp(const double *x, double c, size_t n)
{
    long double m = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        m = fmaxl(m, (long double)c * x[i]);
    for (size_t i = 0; i < n; i++)
        sum += expl((long double)c * x[i] - m);
    return m + logl(sum);
}

double tg_kl_row_ref(const double *teacher, const double *student, double inv_temp, double *grad,
                     size_t n)
{
    long double lt = log_sum_exp(teacher, inv_temp, n), ls = log_sum_exp(student, inv_temp, n);
    long double kl = 0;
    for (size_t i = 0; i < n; i++) {
        long double log_pt = (long double)inv_temp * teacher[i] - lt;
        long double log_ps = (long double)inv_temp * student[i] - ls;
        if (expl(log_pt) > 0)
            kl += expl(log_pt) * (log_pt - log_ps);
        grad[i] = (double)(inv_temp * (expl(log_ps) - expl(log_pt)));
    }
    return (double)kl;
}

double tg_ce_row_ref(const double *x, int32_t target, double *grad, size_t n)
{
    long double l = log_sum_exp(x, 1, n);
    for (size_t i = 0; i < n; i++)
        grad[i] = (double)(expl(x[i] - l) - ((int32_t)i == target));
    return (double)(l - x[target]);
}

void tg_adamw_ref(double *p, const double *g, double *m, double *v, double gscale, double lr,
                  double b1, double b2, double eps, double decay, double c1, double c2, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double gi = g[i] * gscale;
        m[i] = b1 * m[i] + (1 - b1) * gi;
        v[i] = b2 * v[i] + (1 - b2) * gi * gi;
        p[i] -= lr * (m[i] / c1 / (sqrt(v[i] / c2) + eps) + decay * p[i]);
    }
}

static double product(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static size_t first_key(const struct tg_attn *a, size_t begin, size_t t)
{
    return a->window && t - begin + 1 > a->window ? t + 1 - a->window : begin;
}

void tg_attn_fwd_ref(const struct tg_attn *a, const struct tg_batch *batch, const double *q,
                     const double *k, const double *v, double *o, double *lse, double *max_out)
{
    size_t H = a->H, G = a->G, K = a->K, V = a->V;
    for (size_t b = 0; b < batch->count; b++)
        for (size_t t = batch->begin[b]; t < batch->begin[b + 1]; t++)
            for (size_t h = 0; h < H; h++) {
                size_t g = h / (H / G), first = first_key(a, batch->begin[b], t);
                const double *qt = q + (t * H + h) * K;
                double *ot = o + (t * H + h) * V, m = -INFINITY, sum = 0;
                for (size_t j = first; j <= t; j++)
                    m = fmax(m, a->scale * product(qt, k + (j * G + g) * K, K));
                for (size_t c = 0; c < V; c++)
                    ot[c] = 0;
                for (size_t j = first; j <= t; j++) {
                    double e = exp(a->scale * product(qt, k + (j * G + g) * K, K) - m);
                    sum += e;
                    for (size_t c = 0; c < V; c++)
                        ot[c] += e * v[(j * G + g) * V + c];
                }
                for (size_t c = 0; c < V; c++)
                    ot[c] /= sum;
                lse[t * H + h] = m + log(sum);
                if (max_out)
                    max_out[t * H + h] = m;
            }
}

void tg_attn_bwd_ref(const struct tg_attn *a, const struct tg_batch *batch, const double *q,
                     const double *k, const double *v, const double *dy, const double *total,
                     const double *delta, double *dq, double *dk, double *dv)
{
    size_t H = a->H, G = a->G, K = a->K, V = a->V;
    for (size_t b = 0; b < batch->count; b++)
        for (size_t t = batch->begin[b]; t < batch->begin[b + 1]; t++)
            for (size_t h = 0; h < H; h++)
                for (size_t j = first_key(a, batch->begin[b], t); j <= t; j++) {
                    size_t row = t * H + h, key = j * G + h / (H / G);
                    double s = a->scale * product(q + row * K, k + key * K, K);
                    double p = exp(s - total[row]);
                    double ds = p * (product(dy + row * V, v + key * V, V) - delta[row]);
                    for (size_t c = 0; c < V; c++)
                        dv[key * V + c] += p * dy[row * V + c];
                    for (size_t c = 0; c < K; c++) {
                        dq[row * K + c] += a->scale * ds * k[key * K + c];
                        dk[key * K + c] += a->scale * ds * q[row * K + c];
                    }
                }
}
