#include "base/pool.h"

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

void tg_parallel(int threads, size_t items, tg_item_fn fn, void *ud)
{
    if (threads > 1 && items < (size_t)threads)
        threads = (int)items;
    if (threads <= 1) {
        for (size_t i = 0; i < items; i++)
            fn(ud, i, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t i = 0; i < items; i++)
        fn(ud, i, omp_get_thread_num());
}

struct rows_job {
    size_t rows;
    tg_rows_fn fn;
    void *ud;
};

static void rows_item(void *ud, size_t item, int worker)
{
    const struct rows_job *j = ud;
    const size_t from = item * TG_BLOCK_ROWS, left = j->rows - from;
    j->fn(j->ud, from, left < TG_BLOCK_ROWS ? j->rows : from + TG_BLOCK_ROWS, worker);
}

void tg_parallel_rows(int threads, size_t rows, tg_rows_fn fn, void *ud)
{
    struct rows_job j = {rows, fn, ud};
    tg_parallel(threads, tg_blocks_of_rows(rows), rows_item, &j);
}

/* Processors that the quota "QUOTA PERIOD" of a cgroup v2 directory allows, rounded up; `most` if
 * it sets none. */
static int quota_of(const char *dir, int most)
{
    char path[4200];
    double quota, period;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", dir);
    FILE *f = fopen(path, "re");
    if (!f)
        return most;
    int got = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    if (got != 2 || !(quota > 0) || !(period > 0) || !(ceil(quota / period) < most))
        return most;
    return (int)ceil(quota / period);
}

/* The quota binds in this process's group and in each of its parents. */
static int cgroup_limit(int most)
{
    char line[4096], dir[4096] = "";
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(dir, sizeof dir, "%s", line + 3);
        }
    }
    if (f)
        fclose(f);
    for (;;) {
        most = quota_of(dir, most);
        char *slash = strrchr(dir, '/');
        if (!slash)
            return most;
        *slash = '\0';
    }
}

int tg_cpu_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    n = cgroup_limit(n);
    return n < 1 ? 1 : n > 64 ? 64 : n;
}
