/* The registry: rows in the order of convert/mixers.def. */
#include <string.h>

#include "linearize/mixers/mixer.h"
#include "linearize/mixers/rows.h"

#define TG_MIXER(name, ...) &tg_mixer_##name,
const struct tg_mixer_ops *const tg_mixers[] = {
#include "convert/mixers.def"
    NULL,
};
#undef TG_MIXER

const struct tg_mixer_ops *tg_mixer_find(const struct tg_mixer_schema *schema)
{
    for (size_t i = 0; schema && tg_mixers[i]; i++)
        if (strcmp(tg_mixers[i]->name, schema->name) == 0)
            return tg_mixers[i];
    return NULL;
}

size_t tg_mixer_step_work(const struct tg_mixer_ops *ops, const struct tg_mixer *m,
                          const struct tg_batch *b, size_t capacity, int threads)
{
    return ops->step_work_floats ? ops->step_work_floats(m, b, capacity, threads)
                                 : ops->work_floats(m, b, threads, false);
}
