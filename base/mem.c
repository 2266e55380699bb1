/* Allocation: 64-byte aligned, overflow-checked, able to fail on request so that tests reach every
 * out-of-memory path. */
#include "base/mem.h"

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

/* Test hook only: allocations left until the one that fails; 0 is off. */
static atomic_long fail_countdown;

void tg_mem_fail_after(long n)
{
    atomic_store(&fail_countdown, n);
}

static bool must_fail(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) <= 0)
        return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

bool tg_mul_size(size_t *out, size_t a, size_t b)
{
    if (a != 0 && b > SIZE_MAX / a)
        return false;
    *out = a * b;
    return true;
}

bool tg_add_size(size_t *out, size_t a, size_t b)
{
    if (b > SIZE_MAX - a)
        return false;
    *out = a + b;
    return true;
}

/* Exactly n bytes, so that a sanitizer's red zone begins right after the last one. */
static void *raw_alloc(size_t n)
{
    void *p = NULL;
    if (must_fail() || n > PTRDIFF_MAX || posix_memalign(&p, ALIGN, n ? n : 1) != 0)
        return NULL;
    return p;
}

void *tg_alloc(size_t n)
{
    void *p = raw_alloc(n);
    if (p)
        memset(p, 0, n);
    return p;
}

void *tg_alloc_array(size_t count, size_t size)
{
    size_t n;
    return tg_mul_size(&n, count, size) ? tg_alloc(n) : NULL;
}

float *tg_alloc_floats(size_t count)
{
    size_t n;
    if (!tg_mul_size(&n, count, sizeof(float)))
        return NULL;
    float *p = raw_alloc(n);
#ifndef NDEBUG
    for (size_t i = 0; p && i < count; i++)
        p[i] = NAN;
#endif
    return p;
}

bool tg_grow(void *ptr_to_ptr, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    size_t want = *cap ? *cap : 16;
    while (want < need) {
        if (!tg_mul_size(&want, want, 2))
            want = need;
    }
    size_t bytes;
    if (!tg_mul_size(&bytes, want, size))
        return false;
    void *old;
    memcpy(&old, ptr_to_ptr, sizeof old);
    void *p = raw_alloc(bytes);
    if (!p)
        return false;
    if (*cap)
        memcpy(p, old, *cap * size);
    memset((char *)p + *cap * size, 0, bytes - *cap * size);
    free(old);
    memcpy(ptr_to_ptr, &p, sizeof p);
    *cap = want;
    return true;
}

char *tg_strndup(const char *s, size_t n)
{
    n = strnlen(s, n);
    if (n == SIZE_MAX)
        return NULL;
    char *p = raw_alloc(n + 1);
    if (!p)
        return NULL;
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *tg_strdup(const char *s)
{
    return tg_strndup(s, strlen(s));
}

void tg_free(void *p)
{
    free(p);
}
