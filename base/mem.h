/* Memory: the only place that allocates. Every result is freed with tg_free (NULL allowed). */
#ifndef TG_BASE_MEM_H
#define TG_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

/* false on overflow, *out then untouched */
bool tg_mul_size(size_t *out, size_t a, size_t b);
bool tg_add_size(size_t *out, size_t a, size_t b);

/* n bytes, zeroed, 64-byte aligned; NULL when memory is exhausted (n = 0 gives a valid pointer). */
void *tg_alloc(size_t n);
void *tg_alloc_array(size_t count, size_t size); /* NULL on overflow too */
float *
tg_alloc_floats(size_t count); /* 64-byte aligned, NOT zeroed; filled with NaN in debug builds */
/* Grows *ptr (count elements of `size` bytes, capacity *cap) to hold at least `need`; doubling.
 * false: no memory, *ptr kept. */
bool tg_grow(void *ptr_to_ptr, size_t *cap, size_t need, size_t size);
char *tg_strdup(const char *s);
char *tg_strndup(const char *s, size_t n);
void tg_free(void *p);

/* Test hook: the n-th allocation from now on fails once (0: never). Thread-safe counter. */
void tg_mem_fail_after(long n);

/* Lays several float arrays over one block. With base NULL it only measures, so that one layout
 * function gives both the size and the pointers:
 *
 *   static size_t lay_out(struct dims d, float *base, struct saved *s)
 *       struct tg_carve c = {base, 0};
 *       s->q = tg_carve(&c, d.rows * d.H * d.K);
 *       ...
 *       return c.used; */
struct tg_carve {
    float *base;
    size_t used; /* floats; each array begins at a multiple of 16 (64 bytes) */
};
static inline float *tg_carve(struct tg_carve *c, size_t count)
{
    float *p = c->base ? c->base + c->used : NULL;
    c->used += (count + 15) & ~(size_t)15;
    return p;
}

#endif
