/* Named tensors over one file or a sharded directory. */
#include "formats/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "formats/safetensors.h"

static const char *const single_name = "model.safetensors";
static const char *const index_name = "model.safetensors.index.json";

struct file {
    char *path;
    struct tg_map map;
    struct tg_json_doc *header;
};

struct tg_tensors {
    struct file *files;
    size_t file_count;
    struct tg_tensor_list list; /* sorted by name */
};

static int fail_memory(const char *path, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
}

static int tensors_make(struct tg_tensors **t, size_t files, const char *path, struct tg_err *err)
{
    *t = tg_alloc(sizeof **t);
    if (*t && ((*t)->files = tg_alloc_array(files, sizeof *(*t)->files)))
        return TG_OK;
    tg_free(*t);
    *t = NULL;
    return fail_memory(path, err);
}

/* Maps and parses one more file; takes path. */
static int add_file(struct tg_tensors *t, char *path, struct tg_err *err)
{
    struct file *f = &t->files[t->file_count++];
    f->path = path;
    int rc = tg_map_open(&f->map, path, err);
    if (rc != TG_OK)
        return rc;
    return tg_safetensors_parse(f->map.data, f->map.size, f->path, &t->list, &f->header, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tg_tensor *)a)->name, ((const struct tg_tensor *)b)->name);
}

static int sort_names(struct tg_tensors *t, struct tg_err *err)
{
    struct tg_tensor *items = t->list.items;
    if (t->list.count > 1)
        qsort(items, t->list.count, sizeof *items, by_name);
    for (size_t i = 1; i < t->list.count; i++) {
        if (strcmp(items[i - 1].name, items[i].name) == 0)
            return tg_fail(err, TG_ERR_FORMAT, "tensor '%s' is in %s and in %s", items[i].name,
                           items[i - 1].file, items[i].file);
    }
    return TG_OK;
}

/* One row of an index's weight_map, borrowed from its document. */
struct row {
    const char *name, *file;
};

static int row_by_name(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

static int row_by_file(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->file, ((const struct row *)b)->file);
}

static int read_rows(struct tg_json map, const char *path, struct row **rows, size_t *count,
                     struct tg_err *err)
{
    if (!tg_json_is_object(map) || tg_json_count(map) == 0)
        return tg_fail(err, TG_ERR_FORMAT, "%s: weight_map is missing, empty or not an object",
                       path);
    *rows = tg_alloc_array(tg_json_count(map), sizeof **rows);
    if (!*rows)
        return fail_memory(path, err);
    for (struct tg_json c = tg_json_first(map); c.node; c = tg_json_next(c)) {
        struct row r = {tg_json_name(c), tg_json_string(c)};
        if (!tg_json_is_string(c) || !*r.file || strchr(r.file, '/'))
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: weight_map: the shard of tensor '%s' is not a file name", path,
                           r.name);
        (*rows)[(*count)++] = r;
    }
    return TG_OK;
}

/* Both lists are sorted by name: walk them together. */
static int compare_index(const struct tg_tensors *t, const struct row *rows, size_t count,
                         const char *path, struct tg_err *err)
{
    size_t i = 0, j = 0;
    while (i < t->list.count || j < count) {
        const struct tg_tensor *have = i < t->list.count ? &t->list.items[i] : NULL;
        const struct row *want = j < count ? &rows[j] : NULL;
        int order = !have ? 1 : !want ? -1 : strcmp(have->name, want->name);
        if (order > 0)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: tensor '%s' should be in %s, but no shard holds it", path,
                           want->name, want->file);
        if (order < 0)
            return tg_fail(err, TG_ERR_FORMAT, "%s: tensor '%s' in %s is not in the index", path,
                           have->name, have->file);
        if (strcmp(tg_path_base(have->file), want->file) != 0)
            return tg_fail(err, TG_ERR_FORMAT, "%s: tensor '%s' should be in %s, but is in %s",
                           path, want->name, want->file, have->file);
        i++;
        j++;
    }
    return TG_OK;
}

/* Opens each shard that the rows name, once. */
static int open_shards(struct tg_tensors *t, const char *dir, const char *index, struct row *rows,
                       size_t count, struct tg_err *err)
{
    qsort(rows, count, sizeof *rows, row_by_file);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(rows[i - 1].file, rows[i].file) == 0)
            continue;
        char *shard = tg_path_join(dir, rows[i].file);
        if (!shard)
            return fail_memory(index, err);
        bool there = tg_path_exists(shard);
        int rc = add_file(t, shard, err);
        if (rc != TG_OK && !there)
            tg_err_prefix(err, "%s: missing shard", index);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

static int open_index(struct tg_tensors **t, const char *dir, const char *path, struct tg_err *err)
{
    struct tg_json_doc *doc;
    struct row *rows = NULL;
    size_t count = 0;
    int rc = tg_json_load(&doc, path, 0, err);
    if (rc != TG_OK)
        return rc;
    rc = read_rows(tg_json_key(tg_json_root(doc), "weight_map"), path, &rows, &count, err);
    if (rc == TG_OK)
        rc = tensors_make(t, count, path, err);
    if (rc == TG_OK)
        rc = open_shards(*t, dir, path, rows, count, err);
    if (rc == TG_OK)
        rc = sort_names(*t, err);
    if (rc == TG_OK) {
        qsort(rows, count, sizeof *rows, row_by_name);
        rc = compare_index(*t, rows, count, path, err);
    }
    tg_free(rows);
    tg_json_free(doc);
    return rc;
}

static int open_single(struct tg_tensors **t, const char *path, struct tg_err *err)
{
    char *own = tg_strdup(path);
    int rc = own ? tensors_make(t, 1, path, err) : fail_memory(path, err);
    if (rc != TG_OK) {
        tg_free(own);
        return rc;
    }
    rc = add_file(*t, own, err);
    return rc == TG_OK ? sort_names(*t, err) : rc;
}

int tg_tensors_open(struct tg_tensors **t, const char *path, struct tg_err *err)
{
    *t = NULL;
    int rc;
    if (!tg_path_is_dir(path)) {
        rc = open_single(t, path, err);
    } else {
        char *single = tg_path_join(path, single_name), *index = tg_path_join(path, index_name);
        if (!single || !index)
            rc = fail_memory(path, err);
        else if (tg_path_exists(single))
            rc = open_single(t, single, err);
        else if (tg_path_exists(index))
            rc = open_index(t, path, index, err);
        else
            rc = tg_fail(err, TG_ERR_IO, "%s: holds neither %s nor %s", path, single_name,
                         index_name);
        tg_free(single);
        tg_free(index);
    }
    if (rc != TG_OK) {
        tg_tensors_close(*t);
        *t = NULL;
    }
    return rc;
}

int tg_tensors_over(struct tg_tensors **t, const void *bytes, size_t len, const char *name,
                    struct tg_err *err)
{
    int rc = tensors_make(t, 1, name, err);
    if (rc != TG_OK)
        return rc;
    struct file *f = &(*t)->files[(*t)->file_count++];
    f->path = tg_strdup(name);
    if (!f->path)
        rc = fail_memory(name, err);
    else
        rc = tg_safetensors_parse(bytes, len, f->path, &(*t)->list, &f->header, err);
    if (rc == TG_OK)
        rc = sort_names(*t, err);
    if (rc != TG_OK) {
        tg_tensors_close(*t);
        *t = NULL;
    }
    return rc;
}

void tg_tensors_close(struct tg_tensors *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->file_count; i++) {
        tg_json_free(t->files[i].header);
        tg_map_close(&t->files[i].map);
        tg_free(t->files[i].path);
    }
    tg_free(t->files);
    tg_free(t->list.items);
    tg_free(t);
}

size_t tg_tensors_count(const struct tg_tensors *t)
{
    return t->list.count;
}

const struct tg_tensor *tg_tensors_at(const struct tg_tensors *t, size_t i)
{
    return &t->list.items[i];
}

const struct tg_tensor *tg_tensors_find(const struct tg_tensors *t, const char *name)
{
    struct tg_tensor key = {.name = name};
    return t->list.count ? bsearch(&key, t->list.items, t->list.count, sizeof key, by_name) : NULL;
}

size_t tg_tensors_file_count(const struct tg_tensors *t)
{
    return t->file_count;
}

const char *tg_tensors_file(const struct tg_tensors *t, size_t i)
{
    return t->files[i].path;
}

const char *tg_tensors_meta(const struct tg_tensors *t, const char *key)
{
    if (t->file_count == 0)
        return NULL;
    struct tg_json v =
        tg_json_key(tg_json_key(tg_json_root(t->files[0].header), "__metadata__"), key);
    return tg_json_is_string(v) ? tg_json_string(v) : NULL;
}

int tg_tensor_read_f32(const struct tg_tensor *t, float *dst, struct tg_err *err)
{
    const struct tg_dtype_info *info = tg_dtype_info(t->dtype);
    if (!info->is_float)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s cannot be read as float32",
                       t->file, t->name, info->name);
    tg_dtype_to_f32(t->dtype, t->data, dst, t->elements);
    return TG_OK;
}

/* Little-endian integer of 1, 2, 4 or 8 bytes, sign-extended if it is signed. */
static uint64_t integer_at(const uint8_t *p, size_t size, bool is_signed)
{
    uint64_t v = 0;
    for (size_t i = 0; i < size; i++)
        v |= (uint64_t)p[i] << (8 * i);
    if (is_signed && size < 8 && v >> (8 * size - 1))
        v |= ~(uint64_t)0 << (8 * size);
    return v;
}

int tg_tensor_read_i64(const struct tg_tensor *t, int64_t *dst, struct tg_err *err)
{
    const struct tg_dtype_info *info = tg_dtype_info(t->dtype);
    bool is_signed = info->name[0] == 'I';
    if (!is_signed && info->name[0] != 'U')
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s is not an integer type",
                       t->file, t->name, info->name);
    size_t size = info->bits / 8;
    for (size_t i = 0; i < t->elements; i++) {
        uint64_t v = integer_at((const uint8_t *)t->data + i * size, size, is_signed);
        if (!is_signed && v > INT64_MAX)
            return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': element %zu is %llu, above int64",
                           t->file, t->name, i, (unsigned long long)v);
        dst[i] = (int64_t)v;
    }
    return TG_OK;
}

const char *tg_shape_text(const int64_t *shape, int rank, char *buf, size_t size)
{
    size_t at = 0;
    if (size == 0)
        return "";
    snprintf(buf, size, "[");
    for (int i = 0; i < rank; i++) {
        at = strlen(buf);
        snprintf(buf + at, size - at, "%s%lld", i ? "," : "", (long long)shape[i]);
    }
    at = strlen(buf);
    snprintf(buf + at, size - at, "]");
    return buf;
}
