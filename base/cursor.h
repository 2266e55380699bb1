/* Bounded reads over (ptr,len): the only way to parse bytes of a file. Little endian. After a read
 * past the end `failed` stays set and every further read gives zero, so callers check once per
 * record. */
#ifndef TG_BASE_CURSOR_H
#define TG_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tg_cursor {
    const uint8_t *data;
    size_t len, at;
    bool failed;
};

struct tg_cursor tg_cursor_over(const void *data, size_t len);
const uint8_t *tg_cursor_bytes(struct tg_cursor *c, size_t n); /* NULL when fewer than n are left */
uint8_t tg_cursor_u8(struct tg_cursor *c);
uint16_t tg_cursor_u16(struct tg_cursor *c);
uint32_t tg_cursor_u32(struct tg_cursor *c);
uint64_t tg_cursor_u64(struct tg_cursor *c);

#endif
