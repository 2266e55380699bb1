/* Parallel loops over OpenMP. Each item has one writer, so results do not depend on the number of
 * threads. */
#ifndef TG_BASE_POOL_H
#define TG_BASE_POOL_H

#include <stddef.h>

/* Calls fn(ud, item, worker) for item = 0..items-1, dynamically scheduled; worker is in [0,
 * threads) and may index scratch memory. Runs inline when threads or items is 1. Not nested. */
typedef void (*tg_item_fn)(void *ud, size_t item, int worker);
void tg_parallel(int threads, size_t items, tg_item_fn fn, void *ud);

/* The same for rows in blocks of TG_BLOCK_ROWS, the last one shorter: fn(ud, from, to, worker) for
 * rows [from, to). Blocks depend on the number of rows alone, and so do sums over them; block
 * from / TG_BLOCK_ROWS of tg_blocks_of_rows(rows) may index what is summed of each. */
enum { TG_BLOCK_ROWS = 64 };
typedef void (*tg_rows_fn)(void *ud, size_t from, size_t to, int worker);
void tg_parallel_rows(int threads, size_t rows, tg_rows_fn fn, void *ud);
static inline size_t tg_blocks_of_rows(size_t rows)
{
    return (rows + TG_BLOCK_ROWS - 1) / TG_BLOCK_ROWS;
}

/* Channels of an item where each channel has one writer that goes through all rows: an even share
 * of n for each thread, a multiple of TG_LEAST_CHANNELS and at most TG_MOST_CHANNELS. The wider,
 * the more of a row is read in order, which memory that no cache holds is slow without. */
enum { TG_LEAST_CHANNELS = 64, TG_MOST_CHANNELS = 512 };
static inline size_t tg_channels_of_item(size_t n, int threads)
{
    size_t share = (n + (size_t)threads - 1) / (size_t)threads;
    share = (share + TG_LEAST_CHANNELS - 1) / TG_LEAST_CHANNELS * TG_LEAST_CHANNELS;
    return share < TG_MOST_CHANNELS ? share : TG_MOST_CHANNELS;
}

int tg_cpu_count(void); /* processors this process may use (affinity and cgroup-quota aware), at
                           least 1, at most 64 */

#endif
