#include "tests/sse_ref.h"

#include <math.h>
#include <string.h>

#include "tests/check.h"

bool tg_sse_ref_knows(const struct tg_mixer *m)
{
    return strcmp(m->spec->mixer->name, "sse") == 0 ||
           strcmp(m->spec->mixer->name, "sse_deltanet") == 0;
}

/* A state is used if fewer than `active` are before it: larger, or as large and earlier. */
static bool used(const double *p, size_t N, size_t active, size_t i)
{
    size_t before = 0;
    for (size_t j = 0; j < N; j++)
        before += p[j] > p[i] || (p[j] == p[i] && j < i);
    return before < active;
}

void tg_sse_ref_use(const struct tg_ref *r, size_t T, const double *x, double *e)
{
    const size_t D = r->mixer->width, N = r->mixer->spec->recurrent.partitions;
    const double *w = tg_ref_param(r, "partition.weight");
    double p[64];
    assert_true(N >= 1 && N <= 64);
    for (size_t t = 0; t < T; t++) {
        double sum = 0;
        for (size_t i = 0; i < N; i++) {
            double logit = 0;
            for (size_t c = 0; c < D; c++)
                logit += w[i * D + c] * x[t * D + c];
            sum += p[i] = exp(logit);
        }
        for (size_t i = 0; i < N; i++) {
            bool use = used(p, N, r->mixer->spec->recurrent.active, i);
            e[i * T + t] = tg_ref_constant(r, use) > 0 ? p[i] / sum : 0;
        }
    }
}
