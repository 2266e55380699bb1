/* The runs of a sweep, from --mixers and --keep. */
#ifndef TG_TOOLS_SWEEP_CHOICES_H
#define TG_TOOLS_SWEEP_CHOICES_H

#include "tools/groups.h"

struct tg_sweep_choice {
    struct tg_plan_flags flags;
    struct tg_plan_request ask; /* the same, read; borrows from flags */
    char mixer[96], keep[96], name[160];
};
struct tg_sweep_choices {
    struct tg_sweep_choice *items; /* owned, [count]: mixers within keeps */
    size_t count;
    char (*keeps)[96]; /* owned, [keep_count] */
    size_t keep_count;
};
/* Each mixer (MIXER:OPTION=VALUE...) with each choice of keep; a value of `keeps` may hold several:
 * none and words with a colon are one each, what stands between them is one list. Usage errors. */
int tg_sweep_choices_read(struct tg_sweep_choices *c, const struct tg_texts *mixers,
                          const struct tg_texts *keeps, struct tg_err *err);
void tg_sweep_choices_release(struct tg_sweep_choices *c);
/* "lolcats:window=32" and "ratio:3" as the name of a folder: "lolcats-window=32.ratio-3" */
void tg_sweep_name(const char *mixer, const char *keep, const char *more, char *buf, size_t size);

#endif
