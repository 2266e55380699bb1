/* The choice among the tables of kernels, best last. */
#include "linearize/kernels/tables.h"

enum { TG_MAX_TABLES = 3 };

static const struct {
    const struct tg_kernels *table;
    unsigned needs;
} tables[] = {
    {&tg_kernels_c, 0},
#if defined(__x86_64__)
    {&tg_kernels_avx2, TG_CPU_AVX2},
    {&tg_kernels_avx512, TG_CPU_AVX2 | TG_CPU_AVX512},
#if defined(__linux__)
    {&tg_kernels_amx, TG_CPU_AVX2 | TG_CPU_AVX512 | TG_CPU_AMX},
#endif
#endif
};
enum { TABLES = sizeof tables / sizeof *tables };

const struct tg_kernels *tg_kernels_select(unsigned mask)
{
    unsigned have = tg_cpu_flags() & mask;
    size_t i = TABLES - 1;
    while ((tables[i].needs & have) != tables[i].needs)
        i--;
    return tables[i].table;
}

/* Each set of instructions contains the ones before it, so what can be run is a prefix. "amx" adds
 * no other kernel of these. */
static const struct tg_kernels *const prefixes[][TG_MAX_TABLES + 1] = {
    {&tg_kernels_c},
#if defined(__x86_64__)
    {&tg_kernels_c, &tg_kernels_avx2},
    {&tg_kernels_c, &tg_kernels_avx2, &tg_kernels_avx512},
#endif
};

const struct tg_kernels *const *tg_kernels_runnable(void)
{
    size_t last = sizeof prefixes / sizeof *prefixes - 1;
    unsigned have = tg_cpu_flags();
    while ((tables[last].needs & have) != tables[last].needs)
        last--;
    return prefixes[last];
}
