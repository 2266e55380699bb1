/* ZIP archives in memory (PKWARE APPNOTE 6.3): stored and deflated entries, zip64, data
 * descriptors. The central directory is the truth, and everything that says the same thing twice
 * must agree. */
#ifndef TG_FORMATS_ZIP_H
#define TG_FORMATS_ZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/file.h"
#include "base/status.h"

struct tg_zip_entry {
    const char *name;    /* a relative path, UTF-8, without ".."; owned by the archive */
    size_t size, packed; /* bytes of the content, and in the file */
    uint32_t crc;        /* of the content */
    bool deflated;
    const uint8_t *data;  /* [packed] in the file */
    uint64_t header, end; /* what it takes of the file: local header, data, descriptor */
};

struct tg_zip {
    const char *path; /* for messages; borrowed */
    const uint8_t *bytes;
    size_t len;
    struct tg_zip_entry *entries; /* [count], sorted by name */
    size_t count;
    char *names;
    uint64_t directory, directory_end; /* where the central directory lies */
};

/* Reads the central directory and checks every local header against it. bytes outlive the archive.
 * Refused: entries that overlap or lie outside, names that are absolute, climb or stand twice,
 * encryption, other methods than stored and deflated, several disks, sizes that cannot be true
 * (deflate gains less than 1032 to 1), numbers that disagree. Whatever comes back, z is to be
 * released. Contents are not looked at. TG_ERR_FORMAT, TG_ERR_UNSUPPORTED, TG_ERR_NOMEM. */
int tg_zip_read(struct tg_zip *z, const void *bytes, size_t len, const char *path,
                struct tg_err *err);
void tg_zip_release(struct tg_zip *z);
const struct tg_zip_entry *tg_zip_find(const struct tg_zip *z, const char *name); /* or NULL */
/* Checks a stored entry's CRC: then e->data is its content. */
int tg_zip_check(const struct tg_zip *z, const struct tg_zip_entry *e, struct tg_err *err);
/* Content of any entry into dst[e->size], CRC checked. */
int tg_zip_extract(const struct tg_zip *z, const struct tg_zip_entry *e, void *dst,
                   struct tg_err *err);

/* Writing: stored entries whose sizes are known before their data, each followed by a data
 * descriptor with its CRC, so that nothing is written twice and data are never held. zip64 where
 * sizes or offsets need it. Contents begin at multiples of 64 bytes. No times: the same contents
 * give the same bytes. */
struct tg_zip_record;
struct tg_zip_out {
    struct tg_out *out; /* borrowed */
    const char *path;   /* for messages; borrowed */
    struct tg_zip_record *records;
    size_t count, cap;
    uint64_t at; /* bytes written */
};
int tg_zip_begin(struct tg_zip_out *z, const char *name, uint64_t size, struct tg_err *err);
int tg_zip_write(struct tg_zip_out *z, const void *bytes, size_t n, struct tg_err *err);
int tg_zip_end(struct tg_zip_out *z, struct tg_err *err);    /* of the entry */
int tg_zip_finish(struct tg_zip_out *z, struct tg_err *err); /* central directory */
void tg_zip_out_release(struct tg_zip_out *z);               /* not the output */

#endif
