#include "distill/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "base/mem.h"

static int refused(const struct tg_hidden *h, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_IO, "%s: %s", h->path, strerror(errno));
}

int tg_hidden_open(struct tg_hidden *h, const char *path, size_t rows, size_t width,
                   struct tg_err *err)
{
    *h = (struct tg_hidden){.fd = -1, .cells = rows * width};
    h->path = tg_strdup(path);
    if (!h->path)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory", path);
    h->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return h->fd < 0 ? refused(h, err) : TG_OK;
}

void tg_hidden_close(struct tg_hidden *h)
{
    if (h->fd >= 0)
        close(h->fd);
    tg_free(h->path);
    *h = (struct tg_hidden){.fd = -1};
}

static size_t bytes_of(const struct tg_hidden *h)
{
    return h->cells * sizeof(float);
}

/* Of the sequence's number too, so that a hole of zeros is no record */
static uint32_t checksum(const struct tg_hidden *h, uint64_t n, const float *x)
{
    const uLong crc = crc32_z(crc32_z(0, NULL, 0), (const unsigned char *)&n, sizeof n);
    return (uint32_t)crc32_z(crc, (const unsigned char *)x, bytes_of(h));
}

static off_t place(const struct tg_hidden *h, uint64_t n)
{
    return (off_t)(n * (bytes_of(h) + sizeof(uint32_t)));
}

static bool read_at(int fd, void *to, size_t n, off_t at)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(fd, (char *)to + done, n - done, at + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static bool write_at(int fd, const void *from, size_t n, off_t at)
{
    for (size_t done = 0; done < n;) {
        const ssize_t put = pwrite(fd, (const char *)from + done, n - done, at + (off_t)done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

bool tg_hidden_get(const struct tg_hidden *h, uint64_t n, float *x)
{
    const off_t at = place(h, n);
    uint32_t sum;
    return read_at(h->fd, x, bytes_of(h), at) &&
           read_at(h->fd, &sum, sizeof sum, at + (off_t)bytes_of(h)) && sum == checksum(h, n, x);
}

int tg_hidden_put(const struct tg_hidden *h, uint64_t n, const float *x, struct tg_err *err)
{
    const off_t at = place(h, n);
    const uint32_t sum = checksum(h, n, x);
    return write_at(h->fd, x, bytes_of(h), at) &&
                   write_at(h->fd, &sum, sizeof sum, at + (off_t)bytes_of(h))
               ? TG_OK
               : refused(h, err);
}
