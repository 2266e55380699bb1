/* Zip archives in memory for tests and fuzz targets, with the forms that writers in circulation
 * use. */
#ifndef TG_TESTS_ZIP_BUILD_H
#define TG_TESTS_ZIP_BUILD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

struct zip_part {
    const char *name;
    const void *data;
    size_t size;
    bool deflate;
    bool descriptor; /* sizes and CRC after the data, 0 before */
    bool wide;       /* zip64 extra fields, and a descriptor of 8-byte sizes */
};

struct zip_bytes {
    unsigned char *p; /* the caller's, large enough */
    size_t n;
};

static inline void zip_put(struct zip_bytes *z, size_t width, uint64_t v)
{
    for (size_t i = 0; i < width; i++)
        z->p[z->n++] = (unsigned char)(v >> (8 * i));
}

static inline void zip_add(struct zip_bytes *z, const void *bytes, size_t n)
{
    if (n)
        memcpy(z->p + z->n, bytes, n);
    z->n += n;
}

struct zip_place {
    size_t at, packed;
    uint32_t crc;
};

static inline size_t zip_deflate(const struct zip_part *e, unsigned char *dst)
{
    z_stream s = {0};
    const size_t room = e->size + 64;
    deflateInit2(&s, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    s.next_in = (unsigned char *)e->data;
    s.avail_in = (unsigned)e->size;
    s.next_out = dst;
    s.avail_out = (unsigned)room;
    deflate(&s, Z_FINISH);
    deflateEnd(&s);
    return room - s.avail_out;
}

/* Version, flags, method, time, CRC and sizes: what local and central headers share. */
static inline void zip_head(struct zip_bytes *z, const struct zip_part *e, uint32_t crc,
                            size_t packed, size_t size)
{
    zip_put(z, 2, e->wide ? 45 : 20);
    zip_put(z, 2, 1 << 11 | (e->descriptor ? 1 << 3 : 0));
    zip_put(z, 2, e->deflate ? 8 : 0);
    zip_put(z, 4, 0);
    zip_put(z, 4, crc);
    zip_put(z, 4, e->wide ? UINT32_MAX : packed);
    zip_put(z, 4, e->wide ? UINT32_MAX : size);
    zip_put(z, 2, strlen(e->name));
}

static inline void zip_local(struct zip_bytes *z, const struct zip_part *e, struct zip_place *to)
{
    const bool later = e->descriptor;
    to->at = z->n;
    to->crc = (uint32_t)crc32_z(0, e->size ? e->data : (const void *)"", e->size);
    zip_put(z, 4, 0x04034B50);
    const size_t head = z->n, name = strlen(e->name), extra = e->wide ? 20 : 0;
    z->n += 26 + name + extra;
    unsigned char *data = z->p + z->n;
    to->packed = e->deflate ? zip_deflate(e, data) : e->size;
    if (!e->deflate && e->size)
        memcpy(data, e->data, e->size);
    struct zip_bytes h = {z->p + head, 0};
    zip_head(&h, e, later ? 0 : to->crc, later ? 0 : to->packed, later ? 0 : e->size);
    zip_put(&h, 2, extra);
    zip_add(&h, e->name, name);
    if (e->wide) {
        zip_put(&h, 4, 1 | 16 << 16);
        zip_put(&h, 8, e->size);
        zip_put(&h, 8, to->packed);
    }
    z->n += to->packed;
    if (later) {
        zip_put(z, 4, 0x08074B50);
        zip_put(z, 4, to->crc);
        zip_put(z, e->wide ? 8 : 4, to->packed);
        zip_put(z, e->wide ? 8 : 4, e->size);
    }
}

static inline void zip_central(struct zip_bytes *z, const struct zip_part *e,
                               const struct zip_place *at)
{
    zip_put(z, 4, 0x02014B50);
    zip_put(z, 2, 45);
    zip_head(z, e, at->crc, at->packed, e->size);
    zip_put(z, 2, e->wide ? 28 : 0);
    zip_put(z, 8, 0);
    zip_put(z, 2, 0);
    zip_put(z, 4, e->wide ? UINT32_MAX : at->at);
    zip_add(z, e->name, strlen(e->name));
    if (e->wide) {
        zip_put(z, 4, 1 | 24 << 16);
        zip_put(z, 8, e->size);
        zip_put(z, 8, at->packed);
        zip_put(z, 8, at->at);
    }
}

/* The archive of count parts (32 at most) in z; `wide`: with zip64 end records, whose twins in the
 * end record say "see there". */
static inline void zip_build(struct zip_bytes *z, const struct zip_part *parts, size_t count,
                             bool wide)
{
    struct zip_place places[32];
    for (size_t i = 0; i < count; i++)
        zip_local(z, &parts[i], &places[i]);
    const size_t at = z->n;
    for (size_t i = 0; i < count; i++)
        zip_central(z, &parts[i], &places[i]);
    const size_t end = z->n;
    if (wide) {
        zip_put(z, 4, 0x06064B50);
        zip_put(z, 8, 44);
        zip_put(z, 4, 45 | 45 << 16);
        zip_put(z, 8, 0);
        zip_put(z, 8, count);
        zip_put(z, 8, count);
        zip_put(z, 8, end - at);
        zip_put(z, 8, at);
        zip_put(z, 4, 0x07064B50);
        zip_put(z, 4, 0);
        zip_put(z, 8, end);
        zip_put(z, 4, 1);
    }
    zip_put(z, 4, 0x06054B50);
    zip_put(z, 4, 0);
    zip_put(z, 2, wide ? UINT16_MAX : count);
    zip_put(z, 2, wide ? UINT16_MAX : count);
    zip_put(z, 4, wide ? UINT32_MAX : end - at);
    zip_put(z, 4, wide ? UINT32_MAX : at);
    zip_put(z, 2, 0);
}

#endif
