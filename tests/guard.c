#include "tests/guard.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct tg_guarded tg_guard(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), need = (n * sizeof(float) + page - 1) / page;
    struct tg_guarded g = {.bytes = (need + 1) * page};
    g.map = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect((char *)g.map + need * page, page, PROT_NONE) != 0) {
        perror("mmap");
        exit(1);
    }
    g.p = (float *)((char *)g.map + need * page) - n;
    for (size_t i = 0; i < n; i++)
        g.p[i] = NAN;
    return g;
}

void tg_guard_free(struct tg_guarded *g)
{
    munmap(g->map, g->bytes);
}

void tg_fill_random(float *x, size_t n, uint64_t seed)
{
    uint64_t s = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(int32_t)(uint32_t)(s >> 32) * 0x1p-31f;
    }
}

void tg_to_double(const float *x, double *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i];
}
