/* UTF-8 decoding and validation (RFC 3629: no surrogates, no overlong forms). */
#ifndef TG_BASE_UTF8_H
#define TG_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes one code point at s[0..n); returns its length 1..4, or 0 if invalid or cut. */
size_t tg_utf8_decode(const char *s, size_t n, uint32_t *cp);
size_t tg_utf8_encode(uint32_t cp, char out[4]); /* length 1..4 */
/* Offset of the first byte that is not valid UTF-8, or n. */
size_t tg_utf8_check(const char *s, size_t n);

#endif
