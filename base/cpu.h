/* What the processor has, for code that is compiled more than once. */
#ifndef TG_BASE_CPU_H
#define TG_BASE_CPU_H

enum tg_cpu_flags { TG_CPU_AVX2 = 1, TG_CPU_AVX512 = 2, TG_CPU_AMX = 4, TG_CPU_ALL = ~0 };

/* Bits of enum tg_cpu_flags that processor and operating system can run. Linux grants tiles (AMX)
 * to a process that asks: the first call does. */
unsigned tg_cpu_flags(void);

#endif
