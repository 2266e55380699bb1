#include "base/cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Tiles of bfloat16 and AVX-512's conversion to it, which the processor lists and the kernel must
 * grant: a thread's state grows by 8 KiB. */
static bool has_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AVX512_BF16 = 1 << 5 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE))
        return false;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & AVX512_BF16))
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

static unsigned find(void)
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
#if defined(__x86_64__) && defined(__linux__)
    if ((flags & TG_CPU_AVX512) && has_tiles())
        flags |= TG_CPU_AMX;
#endif
    return flags;
}

unsigned tg_cpu_flags(void)
{
    enum { KNOWN = 1 << 30 };
    static atomic_uint found; /* asking is slow on a virtual machine */
    unsigned flags = atomic_load_explicit(&found, memory_order_relaxed);
    if (!flags)
        atomic_store_explicit(&found, flags = find() | KNOWN, memory_order_relaxed);
    return flags & ~(unsigned)KNOWN;
}
