/* Named tensors over one file or a sharded directory. */
#include "formats/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "formats/format.h"

const struct tg_format *const tg_formats[] = {
#define TG_FORMAT(name) &tg_format_##name,
#include "formats/formats.def"
#undef TG_FORMAT
    NULL};

struct file {
    char *path;
    struct tg_map map;
    struct tg_format_file part;
};

struct tg_tensors {
    const struct tg_format *format; /* of all files */
    struct file *files;
    size_t file_count;
    struct tg_tensor_list list; /* sorted by name */
};

const struct tg_format *tg_format_find(const char *name)
{
    for (size_t i = 0; tg_formats[i]; i++)
        if (!strcmp(tg_formats[i]->name, name))
            return tg_formats[i];
    return NULL;
}

const struct tg_format *tg_tensors_format(const struct tg_tensors *t)
{
    return t->format;
}

const struct tg_format_file *tg_tensors_part(const struct tg_tensors *t, size_t i)
{
    return &t->files[i].part;
}

bool tg_tensor_measure(enum tg_dtype dtype, int rank, const int64_t *shape, size_t *elements,
                       size_t *bytes)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || (uint64_t)shape[i] > SIZE_MAX || !tg_mul_size(&n, n, (size_t)shape[i]))
            return false;
    }
    *elements = n;
    return tg_dtype_bytes(dtype, n, bytes);
}

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

static bool ends_with(const char *path, const char *ext)
{
    const size_t n = strlen(path), m = strlen(ext);
    return n >= m && !strcmp(path + n - m, ext);
}

/* By content; what no format claims goes to the one that its name means, whose reader says what is
 * wrong. */
static const struct tg_format *format_of(const char *path, const void *bytes, size_t len)
{
    for (size_t i = 0; tg_formats[i]; i++)
        if (tg_formats[i]->probe(bytes, len))
            return tg_formats[i];
    for (size_t i = 0; tg_formats[i]; i++)
        if (ends_with(path, tg_formats[i]->ext))
            return tg_formats[i];
    return tg_formats[0];
}

static int parse_file(struct tg_tensors *t, struct file *f, const void *bytes, size_t len,
                      struct tg_err *err)
{
    if (!t->format)
        t->format = format_of(f->path, bytes, len);
    f->part = (struct tg_format_file){.path = f->path, .bytes = bytes, .len = len};
    return t->format->parse(&f->part, &t->list, err);
}

/* Maps and parses one more file; takes path. */
static int add_file(struct tg_tensors *t, char *path, struct tg_err *err)
{
    struct file *f = &t->files[t->file_count++];
    f->path = path;
    int rc = tg_map_open(&f->map, path, err);
    return rc == TG_OK ? parse_file(t, f, f->map.data, f->map.size, err) : rc;
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

/* The file that was opened first goes where its path stands; the others are in order. */
static void put_in_order(struct tg_tensors *t, char *const *paths)
{
    const struct file opened = t->files[0];
    size_t i = 0;
    for (; i + 1 < t->file_count && strcmp(paths[i], opened.path) != 0; i++)
        t->files[i] = t->files[i + 1];
    t->files[i] = opened;
}

/* The other files of a set whose first file has been parsed; that one is files[0]. */
static int open_siblings(struct tg_tensors *t, struct tg_err *err)
{
    char **paths = NULL;
    size_t count = 0;
    int rc =
        t->format->siblings ? t->format->siblings(&t->files[0].part, &paths, &count, err) : TG_OK;
    if (rc == TG_OK && count > 1) {
        size_t cap = 1;
        if (!tg_grow(&t->files, &cap, count, sizeof *t->files))
            rc = fail_memory(t->files[0].path, err);
        for (size_t i = 0; i < count && rc == TG_OK; i++) {
            if (!strcmp(paths[i], t->files[0].path))
                continue;
            char *own = tg_strdup(paths[i]);
            rc = own ? add_file(t, own, err) : fail_memory(paths[i], err);
        }
        if (rc == TG_OK)
            put_in_order(t, paths);
    }
    tg_names_free(paths, count);
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
    if (rc == TG_OK)
        rc = open_siblings(*t, err);
    if (rc == TG_OK)
        rc = sort_names(*t, err);
    if (rc == TG_OK && (*t)->format->check_set)
        rc = (*t)->format->check_set(*t, err);
    return rc;
}

/* Files of a directory that has no known name: those with this ending, but for a tokenizer's. *path
 * is the first by name, if there is one. */
static int find_by_ending(const char *dir, const char *ext, char **path, size_t *found,
                          struct tg_err *err)
{
    char **names = NULL;
    size_t count = 0;
    int rc = tg_dir_list(dir, &names, &count, err);
    *found = 0;
    for (size_t i = 0; i < count && rc == TG_OK; i++) {
        if (!ends_with(names[i], ext) || !strncmp(names[i], "tokenizer.", 10))
            continue;
        if (!(*found)++ && !(*path = tg_path_join(dir, names[i])))
            rc = fail_memory(dir, err);
    }
    tg_names_free(names, count);
    return rc;
}

/* *t stays NULL when the directory holds no file of this format. */
static int open_as(struct tg_tensors **t, const struct tg_format *format, const char *dir,
                   struct tg_err *err)
{
    char *single = tg_path_join(dir, format->single), *index = NULL;
    size_t found = 0;
    int rc = TG_OK;
    if (!single || (format->index && !(index = tg_path_join(dir, format->index))))
        rc = fail_memory(dir, err);
    else if (!tg_path_exists(single) && !format->index) {
        tg_free(single);
        single = NULL;
        rc = find_by_ending(dir, format->ext, &single, &found, err);
    }
    if (rc == TG_OK && single && tg_path_exists(single)) {
        rc = open_single(t, single, err);
        if (rc == TG_OK && found > (*t)->file_count)
            rc = tg_fail(err, TG_ERR_VALUE,
                         "%s: holds %zu %s files, which are not the parts of one set: name one",
                         dir, found, format->ext);
    } else if (rc == TG_OK && index && tg_path_exists(index))
        rc = open_index(t, dir, index, err);
    tg_free(single);
    tg_free(index);
    return rc;
}

static int fail_nothing(const char *dir, struct tg_err *err)
{
    char known[256] = "";
    size_t used = 0;
    for (size_t i = 0; tg_formats[i] && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s%s%s", i ? ", " : "",
                                 tg_formats[i]->single, tg_formats[i]->index ? ", " : "",
                                 tg_formats[i]->index ? tg_formats[i]->index : "");
    return tg_fail(err, TG_ERR_IO, "%s: holds none of %s", dir, known);
}

int tg_tensors_open(struct tg_tensors **t, const char *path, struct tg_err *err)
{
    *t = NULL;
    int rc = TG_OK;
    if (!tg_path_is_dir(path)) {
        rc = open_single(t, path, err);
    } else {
        for (size_t i = 0; tg_formats[i] && rc == TG_OK && !*t; i++)
            rc = open_as(t, tg_formats[i], path, err);
        if (rc == TG_OK && !*t)
            rc = fail_nothing(path, err);
    }
    if (rc != TG_OK) {
        tg_tensors_close(*t);
        *t = NULL;
    }
    return rc;
}

int tg_tensors_over(struct tg_tensors **t, const struct tg_format *format, const void *bytes,
                    size_t len, const char *name, struct tg_err *err)
{
    int rc = tensors_make(t, 1, name, err);
    if (rc != TG_OK)
        return rc;
    (*t)->format = format;
    struct file *f = &(*t)->files[(*t)->file_count++];
    f->path = tg_strdup(name);
    rc = f->path ? parse_file(*t, f, bytes, len, err) : fail_memory(name, err);
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
        if (t->format && t->files[i].part.path)
            t->format->release(&t->files[i].part);
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
    return t->file_count ? t->format->meta(&t->files[0].part, key) : NULL;
}

static const void *bytes_at(const struct tg_tensor *t, size_t first)
{
    const struct tg_dtype_info *info = tg_dtype_info(t->dtype);
    return (const char *)t->data + first / info->block * info->block_bytes;
}

int tg_tensor_read_raw(const struct tg_tensor *t, size_t first, size_t count, void *dst,
                       struct tg_err *err)
{
    size_t bytes;
    if (first > t->elements || count > t->elements - first ||
        first % tg_dtype_info(t->dtype)->block || !tg_dtype_bytes(t->dtype, count, &bytes))
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': no elements [%zu, %zu) of %zu", t->file,
                       t->name, first, first + count, t->elements);
    if (!t->data && t->elements)
        return t->make(t, first, count, dst, err);
    if (bytes)
        memcpy(dst, bytes_at(t, first), bytes);
    return TG_OK;
}

int tg_tensor_view(const struct tg_tensor *t, size_t first, size_t count, void *space,
                   const void **view, struct tg_err *err)
{
    *view = t->data ? bytes_at(t, first) : space;
    return t->data ? TG_OK : tg_tensor_read_raw(t, first, count, space, err);
}

/* The bytes of a range of elements, if they lie in a mapping of ours */
static bool mapped_range(const struct tg_tensors *t, const struct tg_tensor *x, size_t first,
                         size_t count, const uint8_t **from, size_t *n)
{
    if (!x->data || !tg_dtype_bytes(x->dtype, count, n))
        return false;
    *from = bytes_at(x, first);
    for (size_t i = 0; i < t->file_count; i++) {
        const struct tg_map *m = &t->files[i].map;
        if (m->data && *from >= m->data && *from < m->data + m->size)
            return true;
    }
    return false;
}

void tg_tensors_fetch(const struct tg_tensors *t, const struct tg_tensor *x, size_t first,
                      size_t count)
{
    const uint8_t *from;
    size_t n;
    if (mapped_range(t, x, first, count, &from, &n))
        tg_map_fetch(from, n);
}

void tg_tensors_forget(const struct tg_tensors *t, const struct tg_tensor *x, size_t first,
                       size_t count)
{
    const uint8_t *from;
    size_t n;
    if (mapped_range(t, x, first, count, &from, &n))
        tg_map_forget(from, n);
}

int tg_tensor_read_f32(const struct tg_tensor *t, float *dst, struct tg_err *err)
{
    const struct tg_dtype_info *info = tg_dtype_info(t->dtype);
    if (!info->is_float)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s cannot be read as float32",
                       t->file, t->name, info->name);
    if (t->data || !t->elements) {
        tg_dtype_to_f32(t->dtype, t->data, dst, t->elements);
        return TG_OK;
    }
    enum { PIECE = 1 << 14 }; /* a multiple of every block, 8 bytes at most each */
    unsigned char *space = tg_alloc(PIECE * 8);
    int rc = space ? TG_OK : fail_memory(t->file, err);
    for (size_t at = 0; at < t->elements && rc == TG_OK; at += PIECE) {
        const size_t n = t->elements - at < PIECE ? t->elements - at : PIECE;
        if ((rc = tg_tensor_read_raw(t, at, n, space, err)) == TG_OK)
            tg_dtype_to_f32(t->dtype, space, dst + at, n);
    }
    tg_free(space);
    return rc;
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
    const size_t size = info->block_bytes;
    for (size_t i = 0; i < t->elements; i++) {
        unsigned char space[8];
        const void *view;
        int rc = tg_tensor_view(t, i, 1, space, &view, err);
        if (rc != TG_OK)
            return rc;
        uint64_t v = integer_at(view, size, is_signed);
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
