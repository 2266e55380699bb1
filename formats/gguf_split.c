/* GGUF files in parts: NAME-00001-of-0000N.gguf. Each part says in split.no (from 0), split.count
 * and split.tensors.count (in all parts) what it is; the metadata are in the first. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/gguf_file.h"

enum { MAX_PARTS = 99999, SUFFIX = sizeof "-00001-of-00002.gguf" - 1 };

static int split_key(const struct tg_format_file *f, const char *key, int64_t min, int64_t max,
                     int64_t *out, struct tg_err *err)
{
    const struct tg_gguf_value *v = tg_gguf_file_find(f->state, key);
    if (!v)
        return tg_fail(err, TG_ERR_FORMAT, "%s: metadata key '%s' is missing", f->path, key);
    if (!tg_gguf_as_int(v, out) || *out < min || *out > max)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: metadata key '%s' is no integer in [%" PRId64 ", %" PRId64 "]", f->path,
                       key, min, max);
    return TG_OK;
}

static void suffix_of(char buf[SUFFIX + 1], int64_t no, int64_t count)
{
    snprintf(buf, SUFFIX + 1, "-%05d-of-%05d.gguf", (int)(no + 1), (int)count);
}

static int part_path(const struct tg_format_file *f, int64_t i, int64_t count, char **path,
                     struct tg_err *err)
{
    char *p = tg_strdup(f->path);
    if (!p)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", f->path);
    suffix_of(p + strlen(p) - SUFFIX, i, count);
    *path = p;
    if (!tg_path_exists(p))
        return tg_fail(err, TG_ERR_IO, "%s: one of %" PRId64 " parts, but %s is missing", f->path,
                       count, p);
    return TG_OK;
}

int tg_gguf_siblings(const struct tg_format_file *f, char ***paths, size_t *count,
                     struct tg_err *err)
{
    int64_t parts, no;
    char suffix[SUFFIX + 1];
    *paths = NULL;
    *count = 0;
    if (!tg_gguf_file_find(f->state, "split.count"))
        return TG_OK;
    int rc = split_key(f, "split.count", 0, MAX_PARTS, &parts, err);
    if (rc != TG_OK || parts < 2)
        return rc;
    if ((rc = split_key(f, "split.no", 0, parts - 1, &no, err)) != TG_OK)
        return rc;
    suffix_of(suffix, no, parts);
    const size_t len = strlen(f->path);
    if (len <= SUFFIX || strcmp(f->path + len - SUFFIX, suffix) != 0)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: part %" PRId64 " of %" PRId64 ", so its name must end in %s", f->path,
                       no + 1, parts, suffix);
    *paths = tg_alloc_array((size_t)parts, sizeof **paths);
    if (!*paths)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", f->path);
    for (; *count < (size_t)parts && rc == TG_OK; ++*count)
        rc = part_path(f, (int64_t)*count, parts, &(*paths)[*count], err);
    return rc;
}

int tg_gguf_check_set(const struct tg_tensors *t, struct tg_err *err)
{
    const size_t parts = tg_tensors_file_count(t);
    for (size_t i = 0; i < parts && parts > 1; i++) {
        const struct tg_format_file *f = tg_tensors_part(t, i);
        int64_t no, count, tensors;
        int rc = split_key(f, "split.no", 0, MAX_PARTS, &no, err);
        if (rc == TG_OK)
            rc = split_key(f, "split.count", 0, MAX_PARTS, &count, err);
        if (rc == TG_OK)
            rc = split_key(f, "split.tensors.count", 0, INT32_MAX, &tensors, err);
        if (rc != TG_OK)
            return rc;
        if (no != (int64_t)i || count != (int64_t)parts)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: its metadata call it part %" PRId64 " of %" PRId64
                           ", its name part %zu of %zu",
                           f->path, no + 1, count, i + 1, parts);
        if (tensors != (int64_t)tg_tensors_count(t))
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: split.tensors.count is %" PRId64 ", but its %zu parts hold %zu",
                           f->path, tensors, parts, tg_tensors_count(t));
    }
    return TG_OK;
}
