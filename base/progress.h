/* Progress of long work, reported by libraries and drawn by tools. */
#ifndef TG_BASE_PROGRESS_H
#define TG_BASE_PROGRESS_H

#include <stdint.h>

/* done of total `unit`s in the named phase; note may be NULL ("kl 0.0312"). Returns non-zero to ask
 * for a stop: the library then leaves in a resumable state with TG_ERR_INTERRUPTED. */
typedef int (*tg_progress_fn)(void *ud, const char *phase, uint64_t done, uint64_t total,
                              const char *unit, const char *note);
struct tg_progress {
    tg_progress_fn fn; /* NULL: silent */
    void *ud;
};
static inline int tg_progress_tell(const struct tg_progress *p, const char *phase, uint64_t done,
                                   uint64_t total, const char *unit, const char *note)
{
    return p && p->fn ? p->fn(p->ud, phase, done, total, unit, note) : 0;
}

#endif
