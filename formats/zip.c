#include "formats/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "base/utf8.h"

enum {
    END_SIZE = 22,
    CENTRAL_SIZE = 46,
    LOCAL_SIZE = 30,
    LOCATOR_SIZE = 20,
    END64_SIZE = 56,
    NAME_MAX_BYTES = 4096,
    DEFLATE_GAIN = 1032, /* 258 bytes for two bits, at best */
    FLAG_DESCRIPTOR = 1 << 3,
    FLAGS_KNOWN = 1 << 1 | 1 << 2 | FLAG_DESCRIPTOR | 1 << 11, /* deflate levels, UTF-8 names */
};
static const uint32_t sig_local = 0x04034B50, sig_central = 0x02014B50, sig_end = 0x06054B50,
                      sig_end64 = 0x06064B50, sig_locator = 0x07064B50, sig_descriptor = 0x08074B50;
static const uint32_t none32 = UINT32_MAX; /* "see the zip64 extra field" */

/* The fields that central and local headers share. */
struct header {
    uint16_t flags, method, name_len, extra_len, comment_len, disk;
    uint32_t crc;
    uint64_t packed, size, local;
    const uint8_t *name, *extra;
};

static int fail(const struct tg_zip *z, struct tg_err *err, const char *what, uint64_t value,
                uint64_t limit)
{
    return tg_fail(err, TG_ERR_FORMAT, "%s: zip: %s (%llu, expected %llu)", z->path, what,
                   (unsigned long long)value, (unsigned long long)limit);
}

static int fail_entry(const struct tg_zip *z, const char *name, struct tg_err *err,
                      const char *what, uint64_t value, uint64_t limit)
{
    return tg_fail(err, TG_ERR_FORMAT, "%s: entry '%s': %s (%llu, expected %llu)", z->path, name,
                   what, (unsigned long long)value, (unsigned long long)limit);
}

static int fail_memory(const struct tg_zip *z, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", z->path);
}

static struct tg_cursor cursor_at(const struct tg_zip *z, uint64_t at)
{
    struct tg_cursor c = tg_cursor_over(z->bytes, z->len);
    c.at = at <= z->len ? (size_t)at : z->len;
    return c;
}

/* The end record is the last thing in the file, before a comment that it measures. */
static int find_end(const struct tg_zip *z, size_t *end, struct tg_err *err)
{
    const size_t most = UINT16_MAX + END_SIZE;
    for (size_t back = END_SIZE; back <= z->len && back <= most; back++) {
        struct tg_cursor c = cursor_at(z, z->len - back);
        if (tg_cursor_u32(&c) != sig_end)
            continue;
        c.at += 16;
        if (tg_cursor_u16(&c) == back - END_SIZE) {
            *end = z->len - back;
            return TG_OK;
        }
    }
    return tg_fail(err, TG_ERR_FORMAT,
                   "%s: zip: no end record in the last bytes of the file (cut off?)", z->path);
}

struct directory {
    uint64_t count, size, at, end; /* end: where the records after it begin */
};

/* A field of the end record is its zip64 twin's value, or says that it could not hold it. */
static bool agrees(uint64_t small, uint64_t none, uint64_t large)
{
    return small == large || small == none;
}

static int read_end64(const struct tg_zip *z, size_t locator, struct directory *d,
                      struct tg_err *err)
{
    struct tg_cursor c = cursor_at(z, locator + 4);
    const uint32_t disk = tg_cursor_u32(&c);
    const uint64_t at = tg_cursor_u64(&c);
    const uint32_t disks = tg_cursor_u32(&c);
    if (disk != 0 || disks != 1)
        return fail(z, err, "the archive has several disks", disks, 1);
    if (at > locator || locator - at < END64_SIZE)
        return fail(z, err, "the zip64 end record is not where its locator says", at,
                    locator - END64_SIZE);
    c = cursor_at(z, at);
    const uint32_t sig = tg_cursor_u32(&c);
    const uint64_t size = tg_cursor_u64(&c);
    if (sig != sig_end64 || size != locator - at - 12)
        return fail(z, err, "the zip64 end record does not end at its locator", size,
                    locator - at - 12);
    c.at += 4; /* versions */
    const uint32_t this_disk = tg_cursor_u32(&c), first_disk = tg_cursor_u32(&c);
    const uint64_t here = tg_cursor_u64(&c), count = tg_cursor_u64(&c), bytes = tg_cursor_u64(&c),
                   begin = tg_cursor_u64(&c);
    if (this_disk != 0 || first_disk != 0 || here != count)
        return fail(z, err, "the archive has several disks", here, count);
    if (!agrees(d->count, UINT16_MAX, count))
        return fail(z, err, "the two counts of entries differ", d->count, count);
    if (!agrees(d->size, none32, bytes))
        return fail(z, err, "the two sizes of the directory differ", d->size, bytes);
    if (!agrees(d->at, none32, begin))
        return fail(z, err, "the two offsets of the directory differ", d->at, begin);
    *d = (struct directory){count, bytes, begin, at};
    return TG_OK;
}

static int read_end(const struct tg_zip *z, struct directory *d, struct tg_err *err)
{
    size_t end = 0;
    int rc = find_end(z, &end, err);
    if (rc != TG_OK)
        return rc;
    struct tg_cursor c = cursor_at(z, end + 4);
    const uint16_t disk = tg_cursor_u16(&c), first_disk = tg_cursor_u16(&c),
                   here = tg_cursor_u16(&c);
    d->count = tg_cursor_u16(&c);
    d->size = tg_cursor_u32(&c);
    d->at = tg_cursor_u32(&c);
    d->end = end;
    if (disk != 0 || first_disk != 0 || here != d->count)
        return fail(z, err, "the archive has several disks", here, d->count);
    if (end >= LOCATOR_SIZE) {
        struct tg_cursor before = cursor_at(z, end - LOCATOR_SIZE);
        if (tg_cursor_u32(&before) == sig_locator)
            rc = read_end64(z, end - LOCATOR_SIZE, d, err);
    }
    if (rc != TG_OK)
        return rc;
    if (d->size > d->end || d->at != d->end - d->size)
        return fail(z, err, "the directory does not end at its end record", d->at,
                    d->size > d->end ? 0 : d->end - d->size);
    if (d->count > d->size / CENTRAL_SIZE)
        return fail(z, err, "the directory is too small for its entries", d->count,
                    d->size / CENTRAL_SIZE);
    return TG_OK;
}

/* Values of the zip64 extra field for those that say so, in their fixed order. */
static int read_extra(const struct tg_zip *z, struct header *h, bool central, const char *name,
                      struct tg_err *err)
{
    struct tg_cursor c = tg_cursor_over(h->extra, h->extra_len);
    const bool want = h->size == none32 || h->packed == none32 ||
                      (central && (h->local == none32 || h->disk == UINT16_MAX));
    bool found = false;
    while (!c.failed && c.at < c.len) {
        const uint16_t id = tg_cursor_u16(&c), n = tg_cursor_u16(&c);
        const uint8_t *data = tg_cursor_bytes(&c, n);
        if (!data || id != 1)
            continue;
        if (found)
            return fail_entry(z, name, err, "two zip64 extra fields", 2, 1);
        found = true;
        struct tg_cursor v = tg_cursor_over(data, n);
        if (h->size == none32)
            h->size = tg_cursor_u64(&v);
        if (h->packed == none32)
            h->packed = tg_cursor_u64(&v);
        if (central && h->local == none32)
            h->local = tg_cursor_u64(&v);
        if (central && h->disk == UINT16_MAX)
            h->disk = (uint16_t)(tg_cursor_u32(&v) != 0);
        if (v.failed)
            return fail_entry(z, name, err, "the zip64 extra field is too short", n, 8);
    }
    if (c.failed)
        return fail_entry(z, name, err, "the extra field does not hold its parts", h->extra_len, 0);
    if (want && !found)
        return fail_entry(z, name, err, "the zip64 extra field is missing", 0, 1);
    return TG_OK;
}

static int fail_unsupported(const struct tg_zip *z, const char *name, struct tg_err *err,
                            const char *what, unsigned value)
{
    return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: entry '%s': %s %u is not supported", z->path, name,
                   what, value);
}

/* Relative, UTF-8, and stays below the folder that it is put in. */
static bool is_name(const char *s, size_t n)
{
    if (n == 0 || s[0] == '/' || memchr(s, '\0', n) || memchr(s, '\\', n) ||
        tg_utf8_check(s, n) != n)
        return false;
    for (size_t at = 0; at < n;) {
        const char *slash = memchr(s + at, '/', n - at);
        const size_t part = slash ? (size_t)(slash - s) - at : n - at;
        if (part == 2 && !memcmp(s + at, "..", 2))
            return false;
        at += part + 1;
    }
    return true;
}

static int read_central(const struct tg_zip *z, struct tg_cursor *c, struct header *h, char *name,
                        struct tg_err *err)
{
    const uint64_t at = c->at;
    const uint32_t sig = tg_cursor_u32(c);
    c->at += 4; /* versions */
    h->flags = tg_cursor_u16(c);
    h->method = tg_cursor_u16(c);
    tg_cursor_u32(c); /* time */
    h->crc = tg_cursor_u32(c);
    h->packed = tg_cursor_u32(c);
    h->size = tg_cursor_u32(c);
    h->name_len = tg_cursor_u16(c);
    h->extra_len = tg_cursor_u16(c);
    h->comment_len = tg_cursor_u16(c);
    h->disk = tg_cursor_u16(c);
    tg_cursor_bytes(c, 6); /* attributes */
    h->local = tg_cursor_u32(c);
    h->name = tg_cursor_bytes(c, h->name_len);
    h->extra = tg_cursor_bytes(c, h->extra_len);
    tg_cursor_bytes(c, h->comment_len);
    if (c->failed || sig != sig_central)
        return fail(z, err, "the directory has no whole entry at this offset", at,
                    z->directory_end);
    if (h->name_len > NAME_MAX_BYTES)
        return fail(z, err, "an entry's name is too long", h->name_len, NAME_MAX_BYTES);
    if (!is_name((const char *)h->name, h->name_len))
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: zip: the entry at offset %llu has a name that is empty, absolute, "
                       "climbs by '..' or is not UTF-8",
                       z->path, (unsigned long long)at);
    memcpy(name, h->name, h->name_len);
    name[h->name_len] = '\0';
    return TG_OK;
}

static int check_central(const struct tg_zip *z, const struct header *h, const char *name,
                         struct tg_err *err)
{
    if (h->flags & 1)
        return fail_unsupported(z, name, err, "encryption: general purpose flags", h->flags);
    if (h->flags & ~FLAGS_KNOWN)
        return fail_unsupported(z, name, err, "general purpose flags", h->flags);
    if (h->method != 0 && h->method != 8)
        return fail_unsupported(z, name, err, "compression method", h->method);
    if (h->disk != 0)
        return fail_entry(z, name, err, "lies on another disk", h->disk, 0);
    if (h->method == 0 && h->size != h->packed)
        return fail_entry(z, name, err, "is stored, but its two sizes differ", h->packed, h->size);
    if (h->method == 8 && h->size / DEFLATE_GAIN + (h->size % DEFLATE_GAIN != 0) > h->packed)
        return fail_entry(z, name, err, "is larger than deflate can make of its bytes", h->size,
                          h->packed > UINT64_MAX / DEFLATE_GAIN ? UINT64_MAX
                                                                : h->packed * DEFLATE_GAIN);
    if (h->local > z->directory)
        return fail_entry(z, name, err, "its local header lies outside", h->local, z->directory);
    return TG_OK;
}

/* A field that a data descriptor repeats may be left 0 in the local header. */
static bool repeats(uint64_t local, uint64_t central, bool later)
{
    return local == central || (later && local == 0);
}

static int check_local(const struct tg_zip *z, const struct header *h, const char *name,
                       struct tg_cursor *c, struct tg_err *err)
{
    struct header l = {0};
    const uint32_t sig = tg_cursor_u32(c);
    tg_cursor_u16(c); /* version */
    l.flags = tg_cursor_u16(c);
    l.method = tg_cursor_u16(c);
    tg_cursor_u32(c); /* time */
    l.crc = tg_cursor_u32(c);
    l.packed = tg_cursor_u32(c);
    l.size = tg_cursor_u32(c);
    l.name_len = tg_cursor_u16(c);
    l.extra_len = tg_cursor_u16(c);
    l.name = tg_cursor_bytes(c, l.name_len);
    l.extra = tg_cursor_bytes(c, l.extra_len);
    if (c->failed || sig != sig_local)
        return fail_entry(z, name, err, "no whole local header at its offset", h->local,
                          z->directory);
    if (l.name_len != h->name_len || memcmp(l.name, h->name, l.name_len) != 0)
        return fail_entry(z, name, err, "the local header has another name", l.name_len,
                          h->name_len);
    int rc = read_extra(z, &l, false, name, err);
    if (rc != TG_OK)
        return rc;
    const bool later = h->flags & FLAG_DESCRIPTOR;
    if (l.flags != h->flags)
        return fail_entry(z, name, err, "the local header has other flags", l.flags, h->flags);
    if (l.method != h->method)
        return fail_entry(z, name, err, "the local header has another method", l.method, h->method);
    if (!repeats(l.crc, h->crc, later))
        return fail_entry(z, name, err, "the local header has another CRC", l.crc, h->crc);
    if (!repeats(l.size, h->size, later) || !repeats(l.packed, h->packed, later))
        return fail_entry(z, name, err, "the local header has another size", l.size, h->size);
    return TG_OK;
}

/* CRC and sizes again after the data, with or without a signature, sizes of 4 or 8 bytes. */
static int check_descriptor(const struct tg_zip *z, const struct header *h, const char *name,
                            uint64_t *end, struct tg_err *err)
{
    for (int form = 0; form < 4; form++) {
        struct tg_cursor c = cursor_at(z, *end);
        const bool wide = form & 1, bare = form & 2;
        const uint32_t sig = bare ? sig_descriptor : tg_cursor_u32(&c), crc = tg_cursor_u32(&c);
        const uint64_t packed = wide ? tg_cursor_u64(&c) : tg_cursor_u32(&c),
                       size = wide ? tg_cursor_u64(&c) : tg_cursor_u32(&c);
        if (!c.failed && sig == sig_descriptor && crc == h->crc && packed == h->packed &&
            size == h->size) {
            *end = c.at;
            return TG_OK;
        }
    }
    return fail_entry(z, name, err, "the data descriptor is missing or says something else", *end,
                      h->size);
}

static int read_entry(const struct tg_zip *z, const struct header *h, struct tg_zip_entry *e,
                      struct tg_err *err)
{
    struct tg_cursor c = cursor_at(z, h->local);
    int rc = check_local(z, h, e->name, &c, err);
    if (rc != TG_OK)
        return rc;
    if (c.at > z->directory || h->packed > z->directory - c.at)
        return fail_entry(z, e->name, err, "its data end after the directory begins", h->packed,
                          c.at > z->directory ? 0 : z->directory - c.at);
    e->data = z->bytes + c.at;
    e->header = h->local;
    e->end = c.at + h->packed;
    e->packed = (size_t)h->packed;
    e->size = (size_t)h->size;
    e->crc = h->crc;
    e->deflated = h->method == 8;
    if (h->flags & FLAG_DESCRIPTOR)
        rc = check_descriptor(z, h, e->name, &e->end, err);
    if (rc == TG_OK && e->end > z->directory)
        rc = fail_entry(z, e->name, err, "ends after the directory begins", e->end, z->directory);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tg_zip_entry *)a)->name, ((const struct tg_zip_entry *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const struct tg_zip_entry *x = a, *y = b;
    return (x->header > y->header) - (x->header < y->header);
}

static int check_entries(struct tg_zip *z, struct tg_err *err)
{
    struct tg_zip_entry *e = z->entries;
    if (z->count < 2)
        return TG_OK;
    qsort(e, z->count, sizeof *e, by_place);
    for (size_t i = 1; i < z->count; i++)
        if (e[i].header < e[i - 1].end)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: entry '%s' begins at offset %llu, inside entry '%s', which ends at "
                           "%llu",
                           z->path, e[i].name, (unsigned long long)e[i].header, e[i - 1].name,
                           (unsigned long long)e[i - 1].end);
    qsort(e, z->count, sizeof *e, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (!strcmp(e[i - 1].name, e[i].name))
            return tg_fail(err, TG_ERR_FORMAT, "%s: zip: entry '%s' stands twice", z->path,
                           e[i].name);
    return TG_OK;
}

static int read_directory(struct tg_zip *z, const struct directory *d, struct tg_err *err)
{
    struct tg_cursor c = cursor_at(z, d->at);
    char *name = z->names;
    int rc = TG_OK;
    c.len = (size_t)d->end;
    for (uint64_t i = 0; i < d->count && rc == TG_OK; i++) {
        struct header h = {0};
        struct tg_zip_entry *e = &z->entries[z->count];
        rc = read_central(z, &c, &h, name, err);
        if (rc == TG_OK)
            rc = read_extra(z, &h, true, name, err);
        if (rc == TG_OK)
            rc = check_central(z, &h, name, err);
        e->name = name;
        if (rc == TG_OK)
            rc = read_entry(z, &h, e, err);
        name += h.name_len + 1;
        z->count++;
    }
    if (rc == TG_OK && c.at != d->end)
        rc = fail(z, err, "the directory does not end after its last entry", c.at, d->end);
    return rc == TG_OK ? check_entries(z, err) : rc;
}

int tg_zip_read(struct tg_zip *z, const void *bytes, size_t len, const char *path,
                struct tg_err *err)
{
    struct directory d = {0};
    *z = (struct tg_zip){.path = path, .bytes = bytes, .len = len};
    int rc = read_end(z, &d, err);
    if (rc != TG_OK)
        return rc;
    z->directory = d.at;
    z->directory_end = d.end;
    z->entries = tg_alloc_array((size_t)d.count, sizeof *z->entries);
    z->names = tg_alloc((size_t)d.size); /* more than its names, each with a NUL */
    if (!z->entries || !z->names)
        return fail_memory(z, err);
    return read_directory(z, &d, err);
}

void tg_zip_release(struct tg_zip *z)
{
    tg_free(z->entries);
    tg_free(z->names);
    *z = (struct tg_zip){0};
}

const struct tg_zip_entry *tg_zip_find(const struct tg_zip *z, const char *name)
{
    struct tg_zip_entry key = {.name = name};
    return z->count ? bsearch(&key, z->entries, z->count, sizeof key, by_name) : NULL;
}

static int check_crc(const struct tg_zip *z, const struct tg_zip_entry *e, const void *content,
                     struct tg_err *err)
{
    const uint32_t crc = (uint32_t)crc32_z(0, content, e->size);
    if (crc == e->crc)
        return TG_OK;
    return tg_fail(err, TG_ERR_FORMAT,
                   "%s: entry '%s': its %zu bytes have CRC %08X, the directory says %08X", z->path,
                   e->name, e->size, crc, e->crc);
}

int tg_zip_check(const struct tg_zip *z, const struct tg_zip_entry *e, struct tg_err *err)
{
    return check_crc(z, e, e->data, err);
}

static void *zlib_alloc(void *unused, unsigned count, unsigned size)
{
    (void)unused;
    return tg_alloc_array(count, size);
}

static void zlib_free(void *unused, void *p)
{
    (void)unused;
    tg_free(p);
}

/* zlib counts in 32 bits: give and take in pieces. */
static int inflate_all(z_stream *s, const struct tg_zip_entry *e, unsigned char *dst)
{
    const size_t piece = (size_t)1 << 30;
    size_t in = 0, out = 0;
    int rc = Z_OK;
    while (rc == Z_OK) {
        const size_t give = e->packed - in < piece ? e->packed - in : piece;
        const size_t room = e->size - out < piece ? e->size - out : piece;
        s->next_in = (unsigned char *)e->data + in;
        s->avail_in = (unsigned)give;
        s->next_out = dst + out;
        s->avail_out = (unsigned)room;
        rc = inflate(s, Z_NO_FLUSH);
        in += give - s->avail_in;
        out += room - s->avail_out;
    }
    return rc == Z_STREAM_END && (in != e->packed || out != e->size) ? Z_DATA_ERROR : rc;
}

int tg_zip_extract(const struct tg_zip *z, const struct tg_zip_entry *e, void *dst,
                   struct tg_err *err)
{
    z_stream s = {.zalloc = zlib_alloc, .zfree = zlib_free};
    if (!e->deflated) {
        if (e->size)
            memcpy(dst, e->data, e->size);
        return check_crc(z, e, dst, err);
    }
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
        return fail_memory(z, err);
    const int rc = inflate_all(&s, e, dst);
    inflateEnd(&s);
    if (rc == Z_MEM_ERROR)
        return fail_memory(z, err);
    if (rc != Z_STREAM_END)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: entry '%s': %zu deflated bytes do not make its %zu bytes", z->path,
                       e->name, e->packed, e->size);
    return check_crc(z, e, dst, err);
}
