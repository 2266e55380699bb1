/* The gated outer-product recurrence as a weighted sum over all earlier rows, in double:
 * num_t = sum_{j<=t} e^{g_{j+1} + .. + g_t} (q_t.k_j) v_j, den_t the same without v. */
#include "linearize/kernels/outer.h"

#include <math.h>

void tg_outer_ref(size_t n, size_t K, size_t V, const double *q, const double *k, const double *v,
                  const double *g, double *num, double *den)
{
    for (size_t t = 0; t < n; t++) {
        double decay = 0;
        den[t] = 0;
        for (size_t c = 0; c < V; c++)
            num[t * V + c] = 0;
        for (size_t j = t + 1; j-- > 0;) {
            double dot = 0;
            for (size_t i = 0; i < K; i++)
                dot += q[t * K + i] * k[j * K + i];
            dot *= exp(decay);
            den[t] += dot;
            for (size_t c = 0; c < V; c++)
                num[t * V + c] += dot * v[j * V + c];
            decay += g ? g[j] : 0;
        }
    }
}
