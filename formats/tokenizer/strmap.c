#include "formats/tokenizer/strmap.h"

#include <string.h>

#include "base/mem.h"

bool tg_text_add(struct tg_text *t, const char *bytes, size_t n)
{
    size_t need;
    if (!tg_add_size(&need, t->len, n) || !tg_grow(&t->data, &t->cap, need, 1))
        return false;
    if (n)
        memcpy(t->data + t->len, bytes, n);
    t->len = need;
    return true;
}

void tg_text_release(struct tg_text *t)
{
    tg_free(t->data);
    *t = (struct tg_text){0};
}

/* Eight bytes at a time through a multiply and a fold (the scheme of wyhash, with one lane). */
uint32_t tg_hash_bytes(const char *s, size_t n)
{
    const uint64_t k = 0x9E3779B97F4A7C15u;
    uint64_t h = n * k, w;
    for (; n >= 8; n -= 8, s += 8) {
        memcpy(&w, s, 8);
        h = (h ^ w) * k;
        h ^= h >> 29;
    }
    w = 0;
    for (size_t i = 0; i < n; i++)
        w |= (uint64_t)(unsigned char)s[i] << (8 * i);
    h = (h ^ w) * k;
    h ^= h >> 32;
    return (uint32_t)(h * k >> 32);
}

bool tg_strmap_init(struct tg_strmap *m, size_t expected)
{
    size_t size = 16;
    while (size * 2 < expected * 3)
        size *= 2;
    *m = (struct tg_strmap){.slots = tg_alloc_array(size, sizeof *m->slots), .mask = size - 1};
    if (!m->slots)
        return false;
    for (size_t i = 0; i < size; i++)
        m->slots[i].id = -1;
    return true;
}

void tg_strmap_release(struct tg_strmap *m)
{
    tg_free(m->slots);
    *m = (struct tg_strmap){0};
}

int32_t tg_strmap_find(const struct tg_strmap *m, const char *pool, const char *s, size_t n)
{
    if (!m->slots)
        return -1;
    uint32_t hash = tg_hash_bytes(s, n);
    for (size_t i = hash & m->mask; m->slots[i].id >= 0; i = (i + 1) & m->mask) {
        const struct tg_strmap_slot *e = &m->slots[i];
        if (e->hash == hash && e->len == n && memcmp(pool + e->off, s, n) == 0)
            return e->id;
    }
    return -1;
}

static void place(struct tg_strmap *m, struct tg_strmap_slot e)
{
    size_t i = e.hash & m->mask;
    while (m->slots[i].id >= 0)
        i = (i + 1) & m->mask;
    m->slots[i] = e;
    m->used++;
}

bool tg_strmap_add(struct tg_strmap *m, const char *pool, uint32_t off, uint32_t len, int32_t id)
{
    if ((m->used + 1) * 3 > (m->mask + 1) * 2) {
        struct tg_strmap bigger;
        if (!tg_strmap_init(&bigger, (m->mask + 1) * 4 / 3))
            return false;
        for (size_t i = 0; i <= m->mask; i++)
            if (m->slots[i].id >= 0)
                place(&bigger, m->slots[i]);
        tg_strmap_release(m);
        *m = bigger;
    }
    place(m, (struct tg_strmap_slot){tg_hash_bytes(pool + off, len), off, len, id});
    return true;
}
