#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "formats/zip.h"

enum {
    ALIGN = 64, /* of contents */
    LOCAL_SIZE = 30,
    EXTRA64_SIZE = 20,           /* zip64 extra field of two sizes */
    VERSION = 45,                /* of the format: 4.5 has zip64 */
    FLAGS = 1 << 3 | 1 << 11,    /* data descriptor, UTF-8 names */
    PADDING_ID = 'F' | 'B' << 8, /* the extra field that PyTorch pads with */
    EPOCH = 1 << 5 | 1,          /* the first day that a DOS date can say */
};

struct tg_zip_record {
    char *name;
    uint64_t size, at;
    uint32_t crc;
};

/* Little-endian fields of a header, which is small. */
struct fields {
    unsigned char bytes[128];
    size_t n;
};

static void put(struct fields *f, size_t width, uint64_t v)
{
    for (size_t i = 0; i < width; i++)
        f->bytes[f->n++] = (unsigned char)(v >> (8 * i));
}

static int emit(struct tg_zip_out *z, const void *bytes, size_t n, struct tg_err *err)
{
    z->at += n;
    return tg_out_write(z->out, bytes, n, err);
}

static bool is_wide(uint64_t v)
{
    return v >= UINT32_MAX;
}

static uint32_t narrow(uint64_t v)
{
    return is_wide(v) ? UINT32_MAX : (uint32_t)v;
}

static struct tg_zip_record *last(struct tg_zip_out *z)
{
    return &z->records[z->count - 1];
}

/* Sizes and CRC are 0 here and follow the data; a size that needs zip64 says so at once, because
 * that is what makes the descriptor's fields wide. */
int tg_zip_begin(struct tg_zip_out *z, const char *name, uint64_t size, struct tg_err *err)
{
    static const unsigned char padding[ALIGN];
    struct fields f = {.n = 0};
    const size_t name_len = strlen(name);
    if (!tg_grow(&z->records, &z->cap, z->count + 1, sizeof *z->records))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", z->path);
    struct tg_zip_record *r = &z->records[z->count++];
    *r = (struct tg_zip_record){tg_strdup(name), size, z->at, 0};
    if (!r->name)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", z->path);
    const size_t extra64 = is_wide(size) ? EXTRA64_SIZE : 0;
    const uint64_t begin = z->at + LOCAL_SIZE + name_len + extra64 + 4;
    const size_t pad = (size_t)(-begin & (ALIGN - 1));
    put(&f, 4, 0x04034B50);
    put(&f, 2, extra64 ? VERSION : 0);
    put(&f, 2, FLAGS);
    put(&f, 2, 0); /* stored */
    put(&f, 2, 0);
    put(&f, 2, EPOCH);
    put(&f, 4, 0);
    put(&f, 4, extra64 ? UINT32_MAX : 0);
    put(&f, 4, extra64 ? UINT32_MAX : 0);
    put(&f, 2, name_len);
    put(&f, 2, extra64 + 4 + pad);
    int rc = emit(z, f.bytes, f.n, err);
    if (rc == TG_OK)
        rc = emit(z, name, name_len, err);
    f.n = 0;
    if (extra64) {
        put(&f, 4, 1 | 16 << 16);
        put(&f, 8, size);
        put(&f, 8, size);
    }
    put(&f, 2, PADDING_ID);
    put(&f, 2, pad);
    if (rc == TG_OK)
        rc = emit(z, f.bytes, f.n, err);
    return rc == TG_OK ? emit(z, padding, pad, err) : rc;
}

int tg_zip_write(struct tg_zip_out *z, const void *bytes, size_t n, struct tg_err *err)
{
    last(z)->crc = (uint32_t)crc32_z(last(z)->crc, bytes, n);
    return emit(z, bytes, n, err);
}

int tg_zip_end(struct tg_zip_out *z, struct tg_err *err)
{
    const struct tg_zip_record *r = last(z);
    const size_t width = is_wide(r->size) ? 8 : 4;
    struct fields f = {.n = 0};
    put(&f, 4, 0x08074B50);
    put(&f, 4, r->crc);
    put(&f, width, r->size);
    put(&f, width, r->size);
    return emit(z, f.bytes, f.n, err);
}

static int put_central(struct tg_zip_out *z, const struct tg_zip_record *r, struct tg_err *err)
{
    struct fields f = {.n = 0};
    const size_t extra = (is_wide(r->size) ? 16 : 0) + (is_wide(r->at) ? 8 : 0);
    put(&f, 4, 0x02014B50);
    put(&f, 2, extra ? VERSION : 0);
    put(&f, 2, extra ? VERSION : 0);
    put(&f, 2, FLAGS);
    put(&f, 2, 0);
    put(&f, 2, 0);
    put(&f, 2, EPOCH);
    put(&f, 4, r->crc);
    put(&f, 4, narrow(r->size));
    put(&f, 4, narrow(r->size));
    put(&f, 2, strlen(r->name));
    put(&f, 2, extra ? extra + 4 : 0);
    put(&f, 8, 0); /* comment, disk, attributes */
    put(&f, 2, 0);
    put(&f, 4, narrow(r->at));
    int rc = emit(z, f.bytes, f.n, err);
    if (rc == TG_OK)
        rc = emit(z, r->name, strlen(r->name), err);
    f.n = 0;
    if (extra)
        put(&f, 4, 1 | extra << 16);
    if (is_wide(r->size)) {
        put(&f, 8, r->size);
        put(&f, 8, r->size);
    }
    if (is_wide(r->at))
        put(&f, 8, r->at);
    return rc == TG_OK ? emit(z, f.bytes, f.n, err) : rc;
}

/* The zip64 end record and its locator are always there, as in PyTorch's files. */
int tg_zip_finish(struct tg_zip_out *z, struct tg_err *err)
{
    const uint64_t at = z->at;
    int rc = TG_OK;
    for (size_t i = 0; i < z->count && rc == TG_OK; i++)
        rc = put_central(z, &z->records[i], err);
    if (rc != TG_OK)
        return rc;
    const uint64_t end = z->at, size = end - at;
    const uint64_t few = z->count < UINT16_MAX ? z->count : UINT16_MAX;
    struct fields f = {.n = 0};
    put(&f, 4, 0x06064B50);
    put(&f, 8, 44);
    put(&f, 2, VERSION);
    put(&f, 2, VERSION);
    put(&f, 8, 0); /* disks */
    put(&f, 8, z->count);
    put(&f, 8, z->count);
    put(&f, 8, size);
    put(&f, 8, at);
    put(&f, 4, 0x07064B50);
    put(&f, 4, 0);
    put(&f, 8, end);
    put(&f, 4, 1);
    put(&f, 4, 0x06054B50);
    put(&f, 4, 0);
    put(&f, 2, few);
    put(&f, 2, few);
    put(&f, 4, narrow(size));
    put(&f, 4, narrow(at));
    put(&f, 2, 0);
    return emit(z, f.bytes, f.n, err);
}

void tg_zip_out_release(struct tg_zip_out *z)
{
    for (size_t i = 0; i < z->count; i++)
        tg_free(z->records[i].name);
    tg_free(z->records);
    *z = (struct tg_zip_out){0};
}
