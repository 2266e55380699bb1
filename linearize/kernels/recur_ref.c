/* The recurrences of recur.h in double, one token after another. */
#include "linearize/kernels/recur.h"

#include <math.h>

static double gate_at(const struct tg_recur *r, const double *g, size_t t, size_t i)
{
    switch (r->gate) {
    case TG_GATE_NONE:
        return 0;
    case TG_GATE_CONSTANT:
        return g[0];
    case TG_GATE_SCALAR:
        return g[t];
    default:
        return g[t * r->K + i];
    }
}

void tg_recur_ref(const struct tg_recur *r, size_t n, const double *q, const double *k,
                  const double *v, const double *g, const double *beta, double *S, double *o)
{
    size_t K = r->K, V = r->V;
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < K; i++)
            for (size_t c = 0; c < V; c++)
                S[i * V + c] *= exp(gate_at(r, g, t, i));
        for (size_t c = 0; c < V; c++) {
            double u = v[t * V + c], sum = 0;
            for (size_t i = 0; r->delta && i < K; i++)
                u -= S[i * V + c] * k[t * K + i];
            if (r->delta)
                u *= beta[t];
            for (size_t i = 0; i < K; i++) {
                S[i * V + c] += k[t * K + i] * u;
                sum += S[i * V + c] * q[t * K + i];
            }
            o[t * V + c] = (double)r->scale * sum;
        }
    }
}
