#include <string.h>

#include "base/rng.h"
#include "linearize/model/model.h"

void tg_model_random(struct tg_model *m, double size, uint64_t seed)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        const char *dot = strrchr(p->name, '.');
        struct tg_rng rng = tg_rng_make(seed, i);
        bool norm = strstr(p->name, "norm") && dot && !strcmp(dot, ".weight");
        float *data = m->data + p->offset;
        for (size_t j = 0; j < p->count; j++)
            data[j] = norm          ? (float)!m->spec.norm.plus_one
                      : p->rank < 2 ? 0
                                    : (float)(size * tg_rng_normal(&rng));
    }
}
