#include "tools/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

enum { SHOWN = 160 };

char *tg_run_dir_file(const struct tg_run_dir *d, const char *name)
{
    return tg_path_join(d->path, name);
}

static int say_difference(const struct tg_run_dir *d, struct tg_json before, struct tg_json now,
                          struct tg_err *err)
{
    struct tg_json a, b;
    char path[256], was[SHOWN], is[SHOWN];
    tg_json_equal(before, now, &a, &b);
    return tg_fail(err, TG_ERR_MISMATCH,
                   "%s: this run was begun with other settings: %s was %s and is now %s; --force "
                   "begins again with the new ones",
                   d->path, tg_json_path(b.node ? b : a, path, sizeof path),
                   tg_json_text(a, was, sizeof was), tg_json_text(b, is, sizeof is));
}

static int remove_stale(const struct tg_run_dir *d, const struct tg_run_files *rows,
                        const char *first_group, struct tg_err *err)
{
    bool stale = false;
    for (; rows->group; rows++) {
        stale = stale || strcmp(rows->group, first_group) == 0;
        for (const char *at = rows->files; stale && *at;) {
            char name[64];
            size_t n = strcspn(at, " ");
            snprintf(name, sizeof name, "%.*s", (int)n, at);
            char *path = tg_run_dir_file(d, name);
            int status = path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
            if (status == TG_OK && tg_path_is_dir(path))
                status = tg_dir_remove(path, err);
            else if (status == TG_OK && unlink(path) != 0 && errno != ENOENT)
                status = tg_fail(err, TG_ERR_IO, "%s: %s", path, strerror(errno));
            tg_free(path);
            if (status)
                return status;
            at += n + (at[n] == ' ');
        }
    }
    return TG_OK;
}

/* Compares group by group; returns the first that differs in *group, NULL if all are equal. */
static void changed_group(struct tg_json before, struct tg_json now,
                          const struct tg_run_files *rows, const char **group)
{
    *group = NULL;
    struct tg_json a, b;
    for (; rows->group && !*group; rows++)
        if (!tg_json_equal(tg_json_key(before, rows->group), tg_json_key(now, rows->group), &a, &b))
            *group = rows->group;
}

static int settle(struct tg_run_dir *d, const struct tg_run_files *rows, bool force,
                  struct tg_err *err)
{
    struct tg_json_doc *before = NULL, *now = NULL;
    const char *group = NULL;
    char *path = tg_run_dir_file(d, "run.json");
    int status = path ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK && tg_path_exists(path)) {
        status = tg_json_load(&before, path, 0, err);
        if (status == TG_OK)
            status = tg_json_parse(&now, d->settings, strlen(d->settings), "settings", 0, err);
        if (status == TG_OK)
            changed_group(tg_json_root(before), tg_json_root(now), rows, &group);
        if (status == TG_OK && group && !force)
            status = say_difference(d, tg_json_key(tg_json_root(before), group),
                                    tg_json_key(tg_json_root(now), group), err);
        d->resumed = status == TG_OK && !group;
    } else if (status == TG_OK) {
        group = rows[0].group; /* files without the settings they came from are worth nothing */
    }
    if (status == TG_OK && group)
        status = remove_stale(d, rows, group, err);
    if (status == TG_OK)
        status = tg_file_write(path, d->settings, strlen(d->settings), err);
    tg_json_free(before);
    tg_json_free(now);
    tg_free(path);
    return status;
}

static int take_lock(struct tg_run_dir *d, struct tg_err *err)
{
    char *path = tg_run_dir_file(d, "lock");
    if (!path)
        return tg_fail(err, TG_ERR_NOMEM, "no memory");
    int status = TG_OK;
    d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (d->lock < 0)
        status = tg_fail(err, TG_ERR_IO, "%s: %s", path, strerror(errno));
    else if (flock(d->lock, LOCK_EX | LOCK_NB) != 0)
        status = tg_fail(err, TG_ERR_IO, "%s: another tegu is at work there", d->path);
    tg_free(path);
    return status;
}

int tg_run_dir_open(struct tg_run_dir *d, const char *out, const char *settings,
                    const struct tg_run_files *files, bool force, struct tg_err *err)
{
    memset(d, 0, sizeof *d);
    d->lock = -1;
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/')
        n--;
    d->path = tg_alloc(n + 5);
    d->settings = tg_strdup(settings);
    if (!d->path || !d->settings)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the run directory");
    snprintf(d->path, n + 5, "%.*s.run", (int)n, out);
    d->made = !tg_path_exists(d->path);
    int status = tg_dir_make(d->path, err);
    if (status == TG_OK && (status = take_lock(d, err)) != TG_OK)
        d->made = false; /* of two processes that began at once it is the other's */
    return status ? status : settle(d, files, force, err);
}

void tg_run_dir_forget(struct tg_run_dir *d)
{
    if (d->path && d->made)
        tg_dir_remove(d->path, NULL);
}

void tg_run_dir_close(struct tg_run_dir *d)
{
    if (d->path && d->lock >= 0)
        close(d->lock);
    tg_free(d->path);
    tg_free(d->settings);
    memset(d, 0, sizeof *d);
    d->lock = -1;
}
