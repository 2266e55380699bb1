/* A student that starts from nothing: random softmax layers, changed by surgery. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "linearize/surgery/surgery.h"

enum { NEW_STREAM = 0x74617073 };

/* What a new parameter is, NULL: none of a mixer's own */
static const struct tg_param_rule *rule_of(const struct tg_model *m, const struct tg_param *p)
{
    if (!p->is_new || p->layer < 0)
        return NULL;
    const struct tg_mixer_schema *schema = m->spec.layers[p->layer].mixer;
    for (size_t i = 0; i < schema->param_count; i++)
        if (!strcmp(schema->params[i].name, p->local))
            return &schema->params[i];
    return NULL;
}

/* An inherited convolution is the identity, which keeps what the teacher's keys and values mean.
 * From nothing that is a poor start (tokens do not see each other): the taps are drawn as the
 * convolutions of torch are, uniform in +-taps^-1/2. The choice among partitions is as random as
 * the other weights are. */
static void draw_new(struct tg_model *m, double size, uint64_t seed)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        const struct tg_param_rule *rule = rule_of(m, p);
        if (!rule)
            continue;
        const enum tg_dim last = rule->shape[p->rank - 1];
        const bool taps = last == TG_DIM_TAPS || last == TG_DIM_KV_TAPS;
        if (!taps && rule->shape[0] != TG_DIM_PARTITIONS)
            continue;
        struct tg_rng rng = tg_rng_make(seed ^ NEW_STREAM, i);
        const double most = 1 / sqrt((double)p->shape[p->rank - 1]);
        for (size_t j = 0; j < p->count; j++)
            m->data[p->offset + j] =
                (float)(taps ? most * (2 * tg_rng_uniform(&rng) - 1) : size * tg_rng_normal(&rng));
    }
}

int tg_surgery_random(const struct tg_model_spec *spec, const struct tg_plan *p,
                      const struct tg_ctx *ctx, double size, uint64_t seed, struct tg_model **out,
                      struct tg_err *err)
{
    struct tg_model *start = NULL;
    *out = NULL;
    int status = tg_model_create(&start, spec, ctx, err);
    if (status)
        return status;
    tg_model_random(start, size, seed);
    if (!p) {
        *out = start;
        return TG_OK;
    }
    status = tg_surgery_apply(start, p, NULL, out, err);
    tg_model_free(start);
    if (!status)
        draw_new(*out, size, seed);
    return status;
}
