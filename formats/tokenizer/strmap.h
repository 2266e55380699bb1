/* Byte strings -> ids: open addressing over strings that live in one pool. */
#ifndef TG_FORMATS_STRMAP_H
#define TG_FORMATS_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing byte string, without a terminator. */
struct tg_text {
    char *data; /* owned; tg_text_release */
    size_t len, cap;
};
bool tg_text_add(struct tg_text *t, const char *bytes, size_t n); /* false: no memory */
void tg_text_release(struct tg_text *t);

uint32_t tg_hash_bytes(const char *s, size_t n);

struct tg_strmap_slot {
    uint32_t hash, off, len;
    int32_t id; /* -1: free */
};
struct tg_strmap {
    struct tg_strmap_slot *slots; /* owned */
    size_t mask, used;
};
/* Room for `expected` strings without growing; it grows beyond them. false: no memory. */
bool tg_strmap_init(struct tg_strmap *m, size_t expected);
void tg_strmap_release(struct tg_strmap *m);
/* The id of s, or -1. */
int32_t tg_strmap_find(const struct tg_strmap *m, const char *pool, const char *s, size_t n);
/* Adds pool[off..off+len) -> id; the caller knows that it is not there. false: no memory. */
bool tg_strmap_add(struct tg_strmap *m, const char *pool, uint32_t off, uint32_t len, int32_t id);

#endif
