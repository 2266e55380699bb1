#include "tests/sparse_ref.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"

bool tg_sparse_ref_knows(const struct tg_mixer *m)
{
    return strcmp(m->spec->mixer->name, "sma") == 0;
}

static const double *param(const struct tg_ref *r, const char *name)
{
    const struct tg_mixer_schema *s = r->mixer->spec->mixer;
    size_t i = 0;
    while (i < s->param_count && strcmp(s->params[i].name, name) != 0)
        i++;
    assert_true(i < s->param_count);
    return r->param[i];
}

double *tg_sparse_ref_picks(const struct tg_ref *r, size_t count, const double *x)
{
    const size_t D = r->mixer->width;
    const double *w = param(r, "router.weight"), tau = exp(*param(r, "temperature"));
    double *on = tg_alloc_array(count + 1, sizeof *on);
    assert_non_null(on);
    for (size_t t = 0; t < count; t++) {
        double logit = *param(r, "router.bias");
        for (size_t c = 0; c < D; c++)
            logit += w[c] * x[t * D + c];
        double p = exp(logit / tau) / (1 + exp(logit / tau));
        on[t] = tg_ref_constant(r, p > 0.5) > 0 ? p : 0;
    }
    return on;
}

/* As a sum over all earlier values, without a state */
void tg_sparse_ref_average(const struct tg_ref *r, const struct tg_batch *b, const double *v,
                           double *y)
{
    const struct tg_layer_spec *s = r->mixer->spec;
    const size_t K = s->head_dim, H = s->heads, G = s->kv_heads;
    const double *decay = param(r, "decay"), *skip = param(r, "skip");
    for (size_t i = 0; i < b->count; i++)
        for (size_t t = b->begin[i]; t < b->begin[i + 1]; t++)
            for (size_t c = 0; c < H * K; c++) {
                double a = 1 / (1 + exp(-decay[c])), sum = 0;
                size_t channel = c / K / (H / G) * K + c % K;
                for (size_t j = b->begin[i]; j <= t; j++)
                    sum += pow(a, (double)(t - j)) * v[j * G * K + channel];
                y[t * H * K + c] += skip[c] * (1 - a) * sum;
            }
}
