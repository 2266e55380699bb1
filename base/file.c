/* Files (directories: dir.c). Outputs are written beside their final name, synced, then renamed, so
 * that a reader never sees half of one and a failure leaves nothing behind. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static int fail_io(struct tg_err *err, const char *path, const char *what)
{
    int code = errno == EEXIST ? TG_ERR_EXISTS : errno == ENOMEM ? TG_ERR_NOMEM : TG_ERR_IO;
    return tg_fail(err, code, "%s: cannot %s: %s", path, what, strerror(errno));
}

static int fail_memory(struct tg_err *err, const char *path)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
}

/* Opens a regular file for reading and gives its size. */
static int open_regular(const char *path, int *fd, size_t *size, struct tg_err *err)
{
    struct stat st;
    *fd = open(path,
               O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO without a writer must not hang us */
    if (*fd < 0)
        return fail_io(err, path, "open");
    int rc = TG_OK;
    if (fstat(*fd, &st) != 0)
        rc = fail_io(err, path, "stat");
    else if (!S_ISREG(st.st_mode))
        rc = tg_fail(err, TG_ERR_IO, "%s: not a regular file", path);
    if (rc != TG_OK) {
        close(*fd);
        return rc;
    }
    *size = (size_t)st.st_size;
    return TG_OK;
}

int tg_map_open(struct tg_map *m, const char *path, struct tg_err *err)
{
    int fd;
    *m = (struct tg_map){0};
    int rc = open_regular(path, &fd, &m->size, err);
    if (rc != TG_OK)
        return rc;
    if (m->size > 0) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = fail_io(err, path, "map");
        else
            m->data = p;
    }
    close(fd);
    if (rc != TG_OK)
        m->size = 0;
    return rc;
}

void tg_map_close(struct tg_map *m)
{
    if (m->data)
        munmap((void *)m->data, m->size);
    *m = (struct tg_map){0};
}

/* Pages are whole: fetched ones reach out, forgotten ones stay inside, but for the first, which
 * earlier bytes shared. */
static void advise(const void *from, size_t n, bool round_up, int advice)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)from / page * page;
    uintptr_t end = (uintptr_t)from + n;
    end = (round_up ? end + page - 1 : end) / page * page;
    if (end > at)
        (void)madvise((void *)at, end - at, advice);
}

void tg_map_fetch(const void *from, size_t n)
{
#ifdef MADV_POPULATE_READ
    advise(from, n, true, MADV_POPULATE_READ);
#else
    advise(from, n, true, MADV_WILLNEED);
#endif
}

void tg_map_forget(const void *from, size_t n)
{
    advise(from, n, false, MADV_DONTNEED);
}

int tg_file_read(const char *path, size_t max, char **text, size_t *len, struct tg_err *err)
{
    int fd;
    size_t size = 0, got = 0;
    int rc = open_regular(path, &fd, &size, err);
    if (rc != TG_OK)
        return rc;
    char *buf = NULL;
    if (size > max)
        rc = tg_fail(err, TG_ERR_VALUE, "%s: %zu bytes, at most %zu can be read", path, size, max);
    else if (!(buf = tg_alloc(size + 1)))
        rc = fail_memory(err, path);
    while (rc == TG_OK && got < size) {
        ssize_t n = read(fd, buf + got, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = fail_io(err, path, "read");
        else if (n == 0)
            rc = tg_fail(err, TG_ERR_IO, "%s: became shorter while it was read", path);
        else
            got += (size_t)n;
    }
    close(fd);
    if (rc != TG_OK) {
        tg_free(buf);
        return rc;
    }
    *text = buf;
    *len = size;
    return TG_OK;
}

enum { OUT_BUFFER = 1 << 18 };

struct tg_out {
    char *path, *tmp;
    unsigned char *buf;
    size_t used;
    int fd,
        dir; /* dir: the folder around it, opened early because nothing may fail after the rename */
    bool made; /* the temporary exists */
};

static int open_parent(const char *path, int *dir, struct tg_err *err)
{
    const char *slash = strrchr(path, '/');
    char *name = slash ? tg_strndup(path, (size_t)(slash - path) + 1) : tg_strdup(".");
    if (!name)
        return fail_memory(err, path);
    *dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tg_free(name);
    return *dir < 0 ? fail_io(err, path, "write") : TG_OK;
}

int tg_out_open(struct tg_out **o, const char *path, struct tg_err *err)
{
    struct tg_out *w = tg_alloc(sizeof *w);
    struct stat there;
    *o = NULL;
    if (!w)
        return fail_memory(err, path);
    w->fd = w->dir = -1;
    w->path = tg_strdup(path);
    w->tmp = tg_alloc(strlen(path) + 5);
    w->buf = tg_alloc(OUT_BUFFER);
    int rc = TG_OK;
    if (!w->path || !w->tmp || !w->buf) {
        rc = fail_memory(err, path);
    } else if (stat(path, &there) == 0 && !S_ISREG(there.st_mode)) {
        rc = tg_fail(err, TG_ERR_IO, "%s: %s", path, /* the rename would put a file in its place */
                     S_ISDIR(there.st_mode) ? "is a directory" : "is not a regular file");
    } else if ((rc = open_parent(path, &w->dir, err)) == TG_OK) {
        snprintf(w->tmp, strlen(path) + 5, "%s.tmp", path);
        w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (w->fd < 0)
            rc = fail_io(err, path, "write");
    }
    if (rc != TG_OK) {
        tg_out_close(w);
        return rc;
    }
    w->made = true;
    *o = w;
    return TG_OK;
}

static int write_all(struct tg_out *o, const unsigned char *p, size_t n, struct tg_err *err)
{
    while (n > 0) {
        ssize_t put = write(o->fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_io(err, o->path, "write");
        p += put;
        n -= (size_t)put;
    }
    return TG_OK;
}

static int flush(struct tg_out *o, struct tg_err *err)
{
    size_t n = o->used;
    o->used = 0;
    return write_all(o, o->buf, n, err);
}

int tg_out_write(struct tg_out *o, const void *bytes, size_t n, struct tg_err *err)
{
    int rc;
    if (n > OUT_BUFFER - o->used && (rc = flush(o, err)) != TG_OK)
        return rc;
    if (n > OUT_BUFFER)
        return write_all(o, bytes, n, err);
    if (n)
        memcpy(o->buf + o->used, bytes, n);
    o->used += n;
    return TG_OK;
}

int tg_out_commit(struct tg_out *o, struct tg_err *err)
{
    int rc = flush(o, err);
    if (rc != TG_OK)
        return rc;
    if (fsync(o->fd) != 0)
        return fail_io(err, o->path, "write");
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) != 0)
        return fail_io(err, o->path, "write");
    if (rename(o->tmp, o->path) != 0)
        return fail_io(err, o->path, "write");
    o->made = false;
    if (fsync(o->dir) != 0 && errno != EINVAL) /* EINVAL: the file system cannot sync a directory */
        return fail_io(err, o->path, "sync");
    return TG_OK;
}

void tg_out_close(struct tg_out *o)
{
    if (!o)
        return;
    if (o->fd >= 0)
        close(o->fd);
    if (o->dir >= 0)
        close(o->dir);
    if (o->made)
        unlink(o->tmp);
    tg_free(o->path);
    tg_free(o->tmp);
    tg_free(o->buf);
    tg_free(o);
}

int tg_file_write(const char *path, const void *bytes, size_t n, struct tg_err *err)
{
    struct tg_out *o;
    int rc = tg_out_open(&o, path, err);
    if (rc == TG_OK)
        rc = tg_out_write(o, bytes, n, err);
    if (rc == TG_OK)
        rc = tg_out_commit(o, err);
    tg_out_close(o);
    return rc;
}

int tg_file_move(const char *from, const char *to, struct tg_err *err)
{
    if (rename(from, to) == 0)
        return TG_OK;
    return tg_fail(err, TG_ERR_IO, "%s: cannot take the place of %s: %s", from, to,
                   strerror(errno));
}
