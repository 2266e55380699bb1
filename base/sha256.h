/* SHA-256 (FIPS 180-4) of bytes that come in pieces. */
#ifndef TG_BASE_SHA256_H
#define TG_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct tg_sha256 {
    uint32_t h[8];
    uint64_t total;
    uint8_t block[64];
    size_t used;
};
void tg_sha256_begin(struct tg_sha256 *c);
void tg_sha256_add(struct tg_sha256 *c, const void *bytes, size_t n);
void tg_sha256_end(struct tg_sha256 *c, char hex[65]); /* 64 hex digits and NUL */

#endif
