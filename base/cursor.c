#include "base/cursor.h"

struct tg_cursor tg_cursor_over(const void *data, size_t len)
{
    return (struct tg_cursor){.data = data, .len = len};
}

const uint8_t *tg_cursor_bytes(struct tg_cursor *c, size_t n)
{
    if (c->failed || n > c->len - c->at) {
        c->failed = true;
        return NULL;
    }
    const uint8_t *p = c->data + c->at;
    c->at += n;
    return p;
}

static uint64_t little(struct tg_cursor *c, size_t n)
{
    const uint8_t *p = tg_cursor_bytes(c, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t tg_cursor_u8(struct tg_cursor *c)
{
    return (uint8_t)little(c, 1);
}

uint16_t tg_cursor_u16(struct tg_cursor *c)
{
    return (uint16_t)little(c, 2);
}

uint32_t tg_cursor_u32(struct tg_cursor *c)
{
    return (uint32_t)little(c, 4);
}

uint64_t tg_cursor_u64(struct tg_cursor *c)
{
    return little(c, 8);
}
