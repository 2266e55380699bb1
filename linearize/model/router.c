#include "linearize/model/router.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

/* Added to the sum that SIGMOID's weights are divided by; below float32's resolution of any sum but
 * that of vanishing ones. */
static const float SIGMOID_EPS = 1e-20f;

struct route {
    const struct tg_ctx *ctx;
    const struct tg_moe_spec *moe;
    const float *correction, *p, *dweight;
    float *s, *weight, *scratch, *ds;
    uint32_t *choice;
};

/* The first of the largest of v that is not among the `taken` ones so far, which v holds as -inf */
static uint32_t best_left(const float *v, size_t n, const uint32_t *taken, size_t count)
{
    size_t best = 0;
    for (size_t i = 0; i < count; i++) /* ascending search needs no order of `taken` */
        if (taken[i] == best) {
            best++;
            i = (size_t)-1;
        }
    for (size_t e = best + 1; e < n; e++)
        if (v[e] > v[best])
            best = e;
    return (uint32_t)best;
}

/* The k best of v, which is destroyed */
static void top(float *v, size_t n, size_t k, uint32_t *choice)
{
    for (size_t j = 0; j < k; j++) {
        choice[j] = best_left(v, n, choice, j);
        v[choice[j]] = -INFINITY;
    }
}

/* Sum of the two best */
static float group_score(const float *v, size_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (v[i] > first) {
            second = first;
            first = v[i];
        } else if (v[i] > second) {
            second = v[i];
        }
    return n > 1 ? first + second : first;
}

/* Experts outside the best groups are out of the choice. scores [groups] is scratch. */
static void mask_groups(const struct tg_moe_spec *moe, float *v, float *scores)
{
    size_t groups = moe->groups, kept = moe->groups_kept;
    if (groups <= 1 || kept >= groups)
        return;
    size_t size = moe->experts / groups;
    for (size_t g = 0; g < groups; g++)
        scores[g] = group_score(v + g * size, size);
    for (size_t g = 0; g < groups; g++) {
        size_t better = 0;
        for (size_t other = 0; other < groups; other++)
            better += scores[other] > scores[g] || (scores[other] == scores[g] && other < g);
        for (size_t i = 0; better >= kept && i < size; i++)
            v[g * size + i] = -INFINITY;
    }
}

static void softmax(const struct tg_kernels *k, float *x, size_t n)
{
    float sum = k->exp_shift_sum(x, k->max(x, n), n);
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* What the taken p are divided by */
static float divisor(const struct tg_moe_spec *moe, const float *p, const uint32_t *choice)
{
    float sum = moe->router == TG_ROUTER_SIGMOID ? SIGMOID_EPS : 0;
    if (!moe->renormalise || moe->router == TG_ROUTER_TOP_SOFTMAX)
        return 1;
    for (size_t j = 0; j < moe->per_token; j++)
        sum += p[choice[j]];
    return sum;
}

static void route_row(void *ud, size_t row, int worker)
{
    const struct route *r = ud;
    const struct tg_moe_spec *moe = r->moe;
    const struct tg_kernels *kern = r->ctx->k;
    size_t E = moe->experts, k = moe->per_token;
    float *p = r->s + row * E, *v = r->scratch + (size_t)worker * 2 * E;
    float *weight = r->weight + row * k, scale = (float)tg_factor(moe->scale);
    uint32_t *choice = r->choice + row * k;
    if (moe->router == TG_ROUTER_SOFTMAX_TOP)
        softmax(kern, p, E);
    if (moe->router == TG_ROUTER_SIGMOID)
        for (size_t e = 0; e < E; e++)
            p[e] = 1 / (1 + expf(-p[e]));
    memcpy(v, p, E * sizeof *v);
    if (r->correction)
        kern->axpy(1, r->correction, v, E);
    if (moe->router == TG_ROUTER_SIGMOID)
        mask_groups(moe, v, v + E);
    top(v, E, k, choice);
    float by = divisor(moe, p, choice);
    for (size_t j = 0; j < k; j++)
        weight[j] = p[choice[j]] / by;
    if (moe->router == TG_ROUTER_TOP_SOFTMAX)
        softmax(kern, weight, k);
    for (size_t j = 0; j < k; j++)
        weight[j] *= scale;
}

void tg_router_fwd(const struct tg_ctx *ctx, const struct tg_moe_spec *moe, const float *correction,
                   float *s, uint32_t *choice, float *weight, float *scratch, size_t rows)
{
    struct route r = {.ctx = ctx, .moe = moe, .correction = correction, .s = s, .choice = choice};
    r.weight = weight;
    r.scratch = scratch;
    tg_parallel(ctx->threads, rows, route_row, &r);
}

/* With v = w / scale and S the divisor:
 *   renormalised       dp_j = (dv_j - sum_i dv_i v_i) / S
 *   softmax over all   ds_e = p_e (dp_e - sum_i dp_i p_i)
 *   softmax over taken ds_j = v_j (dv_j - sum_i dv_i v_i)
 *   sigmoid            ds_j = dp_j p_j (1 - p_j) */
static void route_row_bwd(void *ud, size_t row, int worker)
{
    const struct route *r = ud;
    const struct tg_moe_spec *moe = r->moe;
    size_t E = moe->experts, k = moe->per_token;
    const float *p = r->p + row * E, *weight = r->weight + row * k, *dw = r->dweight + row * k;
    const uint32_t *choice = r->choice + row * k;
    float *ds = r->ds + row * E, scale = (float)tg_factor(moe->scale);
    double along = 0, across = 0;
    float by = divisor(moe, p, choice);
    bool top_softmax = moe->router == TG_ROUTER_TOP_SOFTMAX;
    (void)worker;
    memset(ds, 0, E * sizeof *ds);
    if (moe->renormalise || top_softmax)
        for (size_t j = 0; j < k; j++)
            along += (double)dw[j] * weight[j];
    for (size_t j = 0; j < k; j++) {
        double dp = ((double)dw[j] * scale - along) / by, pj = p[choice[j]];
        across += dp * pj;
        if (top_softmax)
            dp *= weight[j] / scale;
        else if (moe->router == TG_ROUTER_SIGMOID)
            dp *= pj * (1 - pj);
        ds[choice[j]] = (float)dp;
    }
    if (moe->router == TG_ROUTER_SOFTMAX_TOP)
        for (size_t e = 0; e < E; e++)
            ds[e] = p[e] * (ds[e] - (float)across);
}

void tg_router_bwd(const struct tg_ctx *ctx, const struct tg_moe_spec *moe, const float *p,
                   const uint32_t *choice, const float *weight, const float *dweight, float *ds,
                   size_t rows)
{
    struct route r = {.ctx = ctx, .moe = moe, .p = p, .dweight = dweight, .ds = ds};
    r.choice = (uint32_t *)choice;
    r.weight = (float *)weight;
    tg_parallel(ctx->threads, rows, route_row_bwd, &r);
}
