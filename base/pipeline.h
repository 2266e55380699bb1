/* Work that several threads make and one uses in order: a bounded conveyor. */
#ifndef TG_BASE_PIPELINE_H
#define TG_BASE_PIPELINE_H

#include <stddef.h>

#include "base/status.h"

struct tg_pipeline {
    size_t items;
    int threads;  /* that make; at least 1. 1: everything on the calling thread */
    size_t slots; /* items that may be made and not yet used; at least 1 */
    /* Makes `item` into `slot` (of [0, slots)); called by any thread, worker in [0, threads). */
    int (*make)(void *ud, size_t item, size_t slot, int worker, struct tg_err *err);
    /* Uses it; on the calling thread, items in order. The slot is free afterwards. */
    int (*use)(void *ud, size_t item, size_t slot, struct tg_err *err);
    void *ud;
};
/* The error of the first item, in order, that failed; nothing after it is used. */
int tg_pipeline_run(const struct tg_pipeline *p, struct tg_err *err);

#endif
