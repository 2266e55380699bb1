#include "distill/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static int refused(const struct tg_log *l, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_IO, "%s: %s", l->path, strerror(errno));
}

int tg_log_open(struct tg_log *l, const char *run_dir, unsigned long long bytes, struct tg_err *err)
{
    *l = (struct tg_log){.fd = -1, .path = tg_path_join(run_dir, "log.jsonl")};
    struct stat st;
    if (!l->path)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory", run_dir);
    l->fd = open(l->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (l->fd < 0 || fstat(l->fd, &st) != 0)
        return refused(l, err);
    if ((unsigned long long)st.st_size < bytes) /* the system lost the end of it in a crash */
        bytes = (unsigned long long)st.st_size;
    if (ftruncate(l->fd, (off_t)bytes) != 0 || lseek(l->fd, 0, SEEK_END) < 0)
        return refused(l, err);
    l->bytes = bytes;
    return TG_OK;
}

void tg_log_close(struct tg_log *l)
{
    if (l->fd >= 0)
        close(l->fd);
    tg_free(l->path);
    *l = (struct tg_log){.fd = -1};
}

int tg_log_write(struct tg_log *l, const struct tg_strbuf *line, struct tg_err *err)
{
    if (line->failed)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory for a line", l->path);
    for (size_t at = 0; at < line->len;) {
        ssize_t n = write(l->fd, line->text + at, line->len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return refused(l, err);
        at += (size_t)n;
    }
    l->bytes += line->len;
    return TG_OK;
}
