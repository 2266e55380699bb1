/* A student that starts from nothing: random softmax layers, changed by surgery. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "linearize/surgery/surgery.h"

enum { TAPS_STREAM = 0x74617073 };

static bool has_taps(const struct tg_model *m, const struct tg_param *p)
{
    if (!p->is_new || p->layer < 0)
        return false;
    const struct tg_mixer_schema *schema = m->spec.layers[p->layer].mixer;
    for (size_t i = 0; i < schema->param_count; i++)
        if (!strcmp(schema->params[i].name, p->local))
            return schema->params[i].shape[p->rank - 1] == TG_DIM_TAPS;
    return false;
}

/* An inherited convolution is the identity, which keeps what the teacher's keys and values mean.
 * From nothing that is a poor start (tokens do not see each other): the taps are drawn as the
 * convolutions of torch are, uniform in +-taps^-1/2. */
static void draw_taps(struct tg_model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        if (!has_taps(m, p))
            continue;
        struct tg_rng rng = tg_rng_make(seed ^ TAPS_STREAM, i);
        double size = 1 / sqrt((double)p->shape[p->rank - 1]);
        for (size_t j = 0; j < p->count; j++)
            m->data[p->offset + j] = (float)(size * (2 * tg_rng_uniform(&rng) - 1));
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
        draw_taps(*out, seed);
    return status;
}
