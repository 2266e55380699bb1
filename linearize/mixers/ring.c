/* The ring of keys and values; layout in ring.h. */
#include "linearize/mixers/ring.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "linearize/kernels/gemm.h"

void tg_ring_put(const struct tg_ring *r, float *state, size_t group, size_t p, const float *k,
                 const float *v)
{
    memcpy(tg_ring_key(r, state, group, p % r->slots), k, r->K * sizeof *k);
    memcpy(tg_ring_value(r, state, group, p % r->slots), v, r->V * sizeof *v);
}

void tg_ring_put_rows(const struct tg_ring *r, float *state, size_t p, size_t n, const float *k,
                      const float *v)
{
    for (size_t t = n > r->slots ? n - r->slots : 0; t < n; t++)
        for (size_t g = 0; g < r->G; g++)
            tg_ring_put(r, state, g, p + t, k + (t * r->G + g) * r->K, v + (t * r->G + g) * r->V);
}

size_t tg_ring_take(const struct tg_ring *r, const float *state, size_t past, float *k, float *v)
{
    size_t count = tg_ring_count(r, past);
    const float *values = state + r->G * r->slots * r->K;
    for (size_t t = 0; t < count; t++) {
        size_t slot = (past - count + t) % r->slots;
        for (size_t g = 0; g < r->G; g++) {
            memcpy(k + (t * r->G + g) * r->K, state + (g * r->slots + slot) * r->K,
                   r->K * sizeof *k);
            memcpy(v + (t * r->G + g) * r->V, values + (g * r->slots + slot) * r->V,
                   r->V * sizeof *v);
        }
    }
    return count;
}

void tg_ring_block(const struct tg_kernels *kern, const struct tg_ring *r, const float *state,
                   size_t group, size_t past, size_t from, size_t to, const float *q, size_t ld_q,
                   float scale, float cap, float *o, size_t ld_o, float *lse, float *max,
                   float *scores)
{
    size_t n = to - from, all = past + to;
    const float *keys = state + group * r->slots * r->K;
    const float *values = state + r->G * r->slots * r->K + group * r->slots * r->V;
    tg_scores(kern, n, all, r->K, scale, q + from * ld_q, ld_q, keys, r->K, scores, all);
    for (size_t i = 0; i < n; i++) {
        float *s = scores + i * all;
        size_t count = past + from + i + 1;
        if (cap > 0)
            kern->softcap_fwd(cap, s, count);
        float top = kern->max(s, count), sum = kern->exp_shift_sum(s, top, count);
        kern->scale(1 / sum, s, count);
        memset(s + count, 0, (all - count) * sizeof *s);
        lse[i] = top + logf(sum);
        if (max)
            max[i] = top;
    }
    tg_gemm1(false, false, n, r->V, all, 1, scores, all, values, r->V, 0, o + from * ld_o, ld_o);
}
