/* Parallel loops over OpenMP. Each item has one writer, so results do not depend on the number of
 * threads. */
#ifndef TG_BASE_POOL_H
#define TG_BASE_POOL_H

#include <stddef.h>

/* Calls fn(ud, item, worker) for item = 0..items-1, dynamically scheduled; worker is in [0,
 * threads) and may index scratch memory. Runs inline when threads or items is 1. Not nested. */
typedef void (*tg_item_fn)(void *ud, size_t item, int worker);
void tg_parallel(int threads, size_t items, tg_item_fn fn, void *ud);

int tg_cpu_count(void); /* processors this process may use (affinity and cgroup-quota aware), at
                           least 1, at most 64 */

#endif
