/* Paths and directories, the second half of file.h. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static int fail_dir(struct tg_err *err, const char *path, const char *what)
{
    return tg_fail(err, errno == ENOMEM ? TG_ERR_NOMEM : TG_ERR_IO, "%s: cannot %s: %s", path, what,
                   strerror(errno));
}

char *tg_path_join(const char *dir, const char *name)
{
    size_t d = strlen(dir), n = strlen(name);
    char *path = tg_alloc(d + n + 2);
    if (!path)
        return NULL;
    memcpy(path, dir, d);
    if (d > 0 && dir[d - 1] != '/')
        path[d++] = '/';
    memcpy(path + d, name, n);
    return path;
}

const char *tg_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool tg_path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool tg_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int tg_dir_make(const char *path, struct tg_err *err)
{
    char *part = tg_strdup(path);
    if (!part)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    int rc = TG_OK;
    for (char *p = part; rc == TG_OK && *p;) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char kept = *p;
        *p = '\0';
        if (*part && mkdir(part, 0777) != 0 && (errno != EEXIST || !tg_path_is_dir(part)))
            rc = fail_dir(err, part, "make the directory");
        *p = kept;
    }
    tg_free(part);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

int tg_dir_remove(const char *path, struct tg_err *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return fail_dir(err, path, "remove");
    return TG_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int tg_dir_list(const char *path, char ***names, size_t *count, struct tg_err *err)
{
    DIR *dir = opendir(path);
    *names = NULL;
    *count = 0;
    if (!dir)
        return fail_dir(err, path, "list");
    char **list = NULL;
    size_t n = 0, cap = 0;
    int rc = TG_OK;
    for (;;) {
        struct stat st;
        errno = 0;
        struct dirent *e = readdir(dir);
        if (!e) {
            if (errno != 0)
                rc = fail_dir(err, path, "list");
            break;
        }
        if (fstatat(dirfd(dir), e->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode))
            continue;
        if (!tg_grow(&list, &cap, n + 1, sizeof *list) || !(list[n] = tg_strdup(e->d_name))) {
            rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
            break;
        }
        n++;
    }
    closedir(dir);
    if (rc != TG_OK) {
        tg_names_free(list, n);
        return rc;
    }
    if (n > 0)
        qsort(list, n, sizeof *list, by_name);
    *names = list;
    *count = n;
    return TG_OK;
}

void tg_names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        tg_free(names[i]);
    tg_free(names);
}

/* PATH without slashes at its end, then `suffix`. */
static char *with_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *p = tg_alloc(n + strlen(suffix) + 1); /* zeroed: its end is there */
    if (p) {
        memcpy(p, path, n);
        memcpy(p + n, suffix, strlen(suffix));
    }
    return p;
}

int tg_dir_begin(const char *path, bool force, char **tmp, struct tg_err *err)
{
    *tmp = NULL;
    char *bare = with_suffix(path, ""), *name = with_suffix(path, ".tmp");
    int rc = TG_OK;
    if (!bare || !name)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    else if (!force && tg_path_exists(bare))
        rc = tg_fail(err, TG_ERR_EXISTS, "%s: exists already", bare);
    else if ((rc = tg_dir_remove(name, err)) == TG_OK)
        rc = tg_dir_make(name, err);
    tg_free(bare);
    if (rc != TG_OK)
        tg_free(name);
    else
        *tmp = name;
    return rc;
}

static int sync_dir(const char *path, struct tg_err *err)
{
    int rc = TG_OK, fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) /* EINVAL: the file system cannot */
        rc = fail_dir(err, path, "sync");
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Puts tmp in the place of path. The old content ends up in `old`, or in tmp itself where the
 * system can exchange names (then there is no moment without a PATH). *left says which of the two
 * has to be removed, NULL for none. */
static int swap_in(const char *tmp, const char *path, const char *old, const char **left,
                   struct tg_err *err)
{
    *left = NULL;
    if (!tg_path_exists(path)) {
        if (rename(tmp, path) != 0)
            return fail_dir(err, path, "write");
        return TG_OK;
    }
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        *left = tmp;
        return TG_OK;
    }
    int rc = tg_dir_remove(old, err);
    if (rc != TG_OK)
        return rc;
    if (rename(path, old) != 0)
        return fail_dir(err, path, "replace");
    if (rename(tmp, path) != 0) {
        rc = fail_dir(err, path, "replace");
        (void)!rename(old, path);
        return rc;
    }
    *left = old;
    return TG_OK;
}

int tg_dir_commit(const char *tmp, const char *path, struct tg_err *err)
{
    char *bare = with_suffix(path, ""), *old = with_suffix(path, ".old");
    const char *left = NULL;
    int rc;
    if (!bare || !old)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    else if ((rc = sync_dir(tmp, err)) == TG_OK)
        rc = swap_in(tmp, bare, old, &left, err);
    if (rc == TG_OK) {
        char *slash = strrchr(bare, '/');
        if (slash)
            slash[slash == bare] = '\0';
        rc = sync_dir(slash ? bare : ".", err);
    }
    if (rc == TG_OK && left)
        rc = tg_dir_remove(left, err);
    tg_free(bare);
    tg_free(old);
    return rc;
}
