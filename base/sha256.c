/* SHA-256 (FIPS 180-4). */
#include "base/sha256.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t ror(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static inline void round_step(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e,
                              uint32_t f, uint32_t g, uint32_t *h, uint32_t key)
{
    uint32_t t = *h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + (g ^ (e & (f ^ g))) + key;
    *d += t;
    *h = t + (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) | (c & (a | b)));
}

static void compress(uint32_t h[8], const uint8_t *p)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
               (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) +
               (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i += 8) {
        /* Instead of moving the eight words each round, their names move; after eight rounds they
         * are back. */
        round_step(s[0], s[1], s[2], &s[3], s[4], s[5], s[6], &s[7], round_constants[i] + w[i]);
        round_step(s[7], s[0], s[1], &s[2], s[3], s[4], s[5], &s[6],
                   round_constants[i + 1] + w[i + 1]);
        round_step(s[6], s[7], s[0], &s[1], s[2], s[3], s[4], &s[5],
                   round_constants[i + 2] + w[i + 2]);
        round_step(s[5], s[6], s[7], &s[0], s[1], s[2], s[3], &s[4],
                   round_constants[i + 3] + w[i + 3]);
        round_step(s[4], s[5], s[6], &s[7], s[0], s[1], s[2], &s[3],
                   round_constants[i + 4] + w[i + 4]);
        round_step(s[3], s[4], s[5], &s[6], s[7], s[0], s[1], &s[2],
                   round_constants[i + 5] + w[i + 5]);
        round_step(s[2], s[3], s[4], &s[5], s[6], s[7], s[0], &s[1],
                   round_constants[i + 6] + w[i + 6]);
        round_step(s[1], s[2], s[3], &s[4], s[5], s[6], s[7], &s[0],
                   round_constants[i + 7] + w[i + 7]);
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

void tg_sha256_begin(struct tg_sha256 *c)
{
    *c = (struct tg_sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                  0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void tg_sha256_add(struct tg_sha256 *c, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    c->total += n;
    while (n > 0) {
        if (c->used == 0 && n >= 64) {
            compress(c->h, p);
            p += 64;
            n -= 64;
            continue;
        }
        size_t take = 64 - c->used < n ? 64 - c->used : n;
        memcpy(c->block + c->used, p, take);
        p += take;
        n -= take;
        c->used += take;
        if (c->used == 64) {
            compress(c->h, c->block);
            c->used = 0;
        }
    }
}

void tg_sha256_end(struct tg_sha256 *c, char hex[65])
{
    uint64_t bits = c->total * 8;
    uint8_t tail[72] = {0x80};
    size_t pad = (c->used < 56 ? 56 : 120) - c->used;
    for (int i = 0; i < 8; i++)
        tail[pad + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    tg_sha256_add(c, tail, pad + 8);
    for (int i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08x", (unsigned)c->h[i]);
}

void tg_sha256(const void *bytes, size_t n, char hex[65])
{
    struct tg_sha256 c;
    tg_sha256_begin(&c);
    tg_sha256_add(&c, bytes, n);
    tg_sha256_end(&c, hex);
}

static int add_file(struct tg_sha256 *c, const char *path, struct tg_err *err)
{
    struct tg_map m;
    int rc = tg_map_open(&m, path, err);
    if (rc != TG_OK)
        return rc;
    tg_sha256_add(c, m.data, m.size);
    tg_map_close(&m);
    return TG_OK;
}

int tg_sha256_files(const char *const *paths, size_t count, char hex[65], struct tg_err *err)
{
    struct tg_sha256 c;
    int rc = TG_OK;
    tg_sha256_begin(&c);
    for (size_t i = 0; i < count && rc == TG_OK; i++)
        rc = add_file(&c, paths[i], err);
    if (rc == TG_OK)
        tg_sha256_end(&c, hex);
    return rc;
}

int tg_sha256_file(const char *path, char hex[65], struct tg_err *err)
{
    return tg_sha256_files(&path, 1, hex, err);
}
