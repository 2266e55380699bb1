/* The alphabet of byte-level tokenizers (GPT-2): each byte has a visible character. */
#ifndef TG_FORMATS_BYTE_LEVEL_H
#define TG_FORMATS_BYTE_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

/* '!'..'~', U+00A1..U+00AC and U+00AE..U+00FF stand for themselves; the other 68 bytes, in order,
 * for U+0100 and on. */
static inline bool tg_byte_is_itself(unsigned byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
}

/* The byte of a character, or -1. Bytes without a character of their own: 0..0x20, 0x7F..0xA0,
 * 0xAD. */
static inline int tg_byte_of_char(uint32_t c)
{
    if (c < 0x100)
        return tg_byte_is_itself(c) ? (int)c : -1;
    if (c < 0x121)
        return (int)(c - 0x100);
    if (c < 0x143)
        return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

#endif
