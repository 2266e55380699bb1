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

/* S_t from S_{t-1} */
static void advance(const struct tg_recur *r, const struct tg_recur_ref *in, size_t t, double *S)
{
    size_t K = r->K, V = r->V;
    for (size_t c = 0; c < V; c++) {
        double seen = 0, u = in->v[t * V + c];
        for (size_t i = 0; i < K; i++) {
            double *s = S + i * V + c;
            if (r->rule == TG_RULE_GENERAL)
                seen += in->a[t * K + i] * *s;
            *s *= exp(gate_at(r, in->g, t, i));
            if (r->rule == TG_RULE_DELTA)
                u -= *s * in->k[t * K + i];
        }
        if (r->rule == TG_RULE_DELTA)
            u *= in->beta[t];
        for (size_t i = 0; i < K; i++) {
            S[i * V + c] += in->k[t * K + i] * u;
            if (r->rule == TG_RULE_GENERAL)
                S[i * V + c] += in->b[t * K + i] * seen;
        }
    }
}

void tg_recur_ref(const struct tg_recur *r, size_t n, const struct tg_recur_ref *in, double *S,
                  double *o)
{
    size_t K = r->K, V = r->V, heads = r->queries ? r->queries : 1;
    for (size_t t = 0; t < n; t++) {
        advance(r, in, t, S);
        for (size_t h = t * heads; h < (t + 1) * heads; h++)
            for (size_t c = 0; c < V; c++) {
                double sum = 0;
                for (size_t i = 0; i < K; i++)
                    sum += S[i * V + c] * in->q[h * K + i];
                o[h * V + c] = (double)r->scale * sum;
            }
    }
}
