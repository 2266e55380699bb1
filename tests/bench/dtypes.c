/* Speed of the conversions of element types: one thread, arrays of 16 million elements that it has
 * touched before, the best of seven passes. Prints GB/s of what is read plus what is written. */
#include <stdio.h>
#include <time.h>

#include "base/mem.h"
#include "formats/dtype.h"

enum { ELEMENTS = 1 << 24, PASSES = 7 };

/* Of this thread on a processor. */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(enum tg_dtype from, const void *src, enum tg_dtype to, void *dst)
{
    size_t in, out;
    double best = 1e9;
    if (!tg_dtype_bytes(from, ELEMENTS, &in) || !tg_dtype_bytes(to, ELEMENTS, &out))
        return;
    for (int pass = 0; pass < PASSES; pass++) {
        const double start = seconds();
        tg_dtype_convert(from, src, to, dst, ELEMENTS);
        const double took = seconds() - start;
        best = took < best ? took : best;
    }
    printf("%-11s -> %-11s %7.2f GB/s (%.2f of %s)\n", tg_dtype_info(from)->name,
           tg_dtype_info(to)->name, 1e-9 * (double)(in + out) / best, 1e-9 * (double)in / best,
           tg_dtype_info(from)->name);
}

int main(void)
{
    float *x = tg_alloc_floats(ELEMENTS);
    unsigned char *stored = tg_alloc((size_t)ELEMENTS * 8), *other = tg_alloc((size_t)ELEMENTS * 8);
    if (!x || !stored || !other)
        return 1;
    for (size_t i = 0; i < ELEMENTS; i++)
        x[i] = 0.02f * ((float)(i * 2654435761u % 4096) / 2048 - 1);
    measure(TG_F32, x, TG_F32, stored);
    for (int t = 0; t < TG_DTYPE_COUNT; t++) {
        const struct tg_dtype_info *info = tg_dtype_info((enum tg_dtype)t);
        if (info->from_f32 && t != TG_F32)
            measure(TG_F32, x, (enum tg_dtype)t, stored);
        if (info->is_float && t != TG_F32)
            measure((enum tg_dtype)t, stored, TG_F32, x);
    }
    static const enum tg_dtype targets[] = {TG_F16,  TG_F8_E4M3, TG_Q8_0, TG_Q4_0,
                                            TG_Q4_K, TG_Q5_K,    TG_Q6_K};
    tg_dtype_from_f32(TG_BF16, x, stored, ELEMENTS);
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
        measure(TG_BF16, stored, targets[i], other);
    tg_free(x);
    tg_free(stored);
    tg_free(other);
    return 0;
}
