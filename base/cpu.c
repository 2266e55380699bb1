#include "base/cpu.h"

unsigned tg_cpu_flags(void)
{
    unsigned flags = 0;
#if defined(__x86_64__)
    /* the extensions that the Makefile compiles the x86/ folders with; the builtin also asks the
     * operating system whether it keeps the wide registers. Whatever has AVX2 has F16C */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        flags |= TG_CPU_AVX2;
    if ((flags & TG_CPU_AVX2) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        flags |= TG_CPU_AVX512;
#endif
    return flags;
}
