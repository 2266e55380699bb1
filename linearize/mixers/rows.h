/* One const struct per row of convert/mixers.def, each in its own file. */
#ifndef TG_LINEARIZE_MIXER_ROWS_H
#define TG_LINEARIZE_MIXER_ROWS_H

#include "linearize/mixers/mixer.h"

#define TG_MIXER(name, ...) extern const struct tg_mixer_ops tg_mixer_##name;
#include "convert/mixers.def"
#undef TG_MIXER

#endif
