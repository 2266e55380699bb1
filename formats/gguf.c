/* GGUF, versions 2 and 3, little-endian: magic, version, counts, metadata, tensor infos, padding to
 * general.alignment, data. What ggml's own reader refuses is refused here, and text that is not
 * UTF-8 in keys and names. Shapes are reported with the fastest dimension last, as in HF. */
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "formats/gguf_file.h"

/* A file that is being parsed */
struct reader {
    const char *file;
    struct tg_cursor c;
    struct tg_gguf_file *g;
    struct tg_err *err;
};

/* The least that one takes in a file, which bounds what their counts may make us allocate */
enum { KV_MIN = 8 + 1 + 4 + 1, TENSOR_MIN = 8 + 4 + 4 + 8, STRING_MIN = 8 };

static int fail_memory(const struct reader *r)
{
    return tg_fail(r->err, TG_ERR_NOMEM, "%s: out of memory", r->file);
}

static int fail_end(const struct reader *r, const char *what)
{
    return tg_fail(r->err, TG_ERR_FORMAT, "%s: the file ends inside %s (%zu bytes)", r->file, what,
                   r->c.len);
}

/* A count of things that take at least `least` bytes each; `what` for messages */
static int read_count(struct reader *r, size_t least, const char *what, size_t *count)
{
    const uint64_t n = tg_cursor_u64(&r->c);
    if (r->c.failed)
        return fail_end(r, "its header");
    if (n > (r->c.len - r->c.at) / least)
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: %" PRId64 " %s do not fit into its %zu bytes",
                       r->file, (int64_t)n, what, r->c.len);
    *count = (size_t)n;
    return TG_OK;
}

static int read_string(struct reader *r, const char *what, struct tg_gguf_string *s)
{
    const uint64_t n = tg_cursor_u64(&r->c);
    if (!r->c.failed && n > TG_GGUF_MAX_COUNT)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: %s has a string of %" PRIu64 " bytes, above the limit of %d", r->file,
                       what, n, TG_GGUF_MAX_COUNT);
    s->len = (size_t)n;
    s->text = (const char *)tg_cursor_bytes(&r->c, (size_t)n);
    return r->c.failed ? fail_end(r, what) : TG_OK;
}

static bool is_text(const struct tg_gguf_string *s)
{
    return tg_utf8_check(s->text, s->len) == s->len && !memchr(s->text, '\0', s->len);
}

static int read_strings(struct reader *r, const char *key, struct tg_gguf_array *a)
{
    struct tg_gguf_string *list = tg_alloc_array(a->count, sizeof *list);
    int rc = list ? TG_OK : fail_memory(r);
    a->data = list; /* freed with the key's value */
    for (size_t i = 0; i < a->count && rc == TG_OK; i++)
        rc = read_string(r, key, &list[i]);
    return rc;
}

static int read_array(struct reader *r, const char *key, struct tg_gguf_array *a)
{
    const uint32_t type = tg_cursor_u32(&r->c);
    const uint64_t n = tg_cursor_u64(&r->c);
    const struct tg_gguf_type_info *info = tg_gguf_type_info(type);
    if (r->c.failed)
        return fail_end(r, key);
    if (type == TG_GGUF_ARRAY)
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: key '%s' is an array of arrays", r->file, key);
    if (!info)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: key '%s' is an array of the unknown type %" PRIu32, r->file, key, type);
    const size_t least = info->size ? info->size : STRING_MIN;
    if (n > TG_GGUF_MAX_COUNT || n > (r->c.len - r->c.at) / least)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: key '%s' has %" PRIu64 " elements, more than the file (%zu bytes) or "
                       "the limit of %d allows",
                       r->file, key, n, r->c.len, TG_GGUF_MAX_COUNT);
    a->type = (enum tg_gguf_type)type;
    a->count = (size_t)n;
    if (type == TG_GGUF_STRING)
        return read_strings(r, key, a);
    a->data = tg_cursor_bytes(&r->c, a->count * info->size);
    return TG_OK;
}

static int read_value(struct reader *r, const char *key, struct tg_gguf_value *v)
{
    const uint32_t type = tg_cursor_u32(&r->c);
    if (r->c.failed)
        return fail_end(r, key);
    if (!tg_gguf_type_info(type))
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: key '%s' has the unknown type %" PRIu32, r->file,
                       key, type);
    v->type = (enum tg_gguf_type)type;
    if (type == TG_GGUF_ARRAY)
        return read_array(r, key, &v->array);
    if (type == TG_GGUF_STRING) {
        struct tg_gguf_string s;
        int rc = read_string(r, key, &s);
        if (rc != TG_OK)
            return rc;
        char *own = tg_alloc(s.len + 1); /* all of it, a NUL inside too */
        if (!own)
            return fail_memory(r);
        memcpy(own, s.text, s.len);
        v->s = (struct tg_gguf_string){own, s.len};
        return TG_OK;
    }
    *v = tg_gguf_scalar(&r->c, v->type);
    return r->c.failed ? fail_end(r, key) : TG_OK;
}

static int read_kv(struct reader *r)
{
    struct tg_gguf_string key;
    int rc = read_string(r, "a metadata key", &key);
    if (rc != TG_OK)
        return rc;
    if (!key.len || !is_text(&key))
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: metadata key %zu is %s", r->file, r->g->kvs,
                       key.len ? "not UTF-8 without NUL" : "empty");
    struct tg_gguf_kv *kv = &r->g->kv[r->g->kvs++];
    char *own = tg_strndup(key.text, key.len);
    kv->key = own;
    return own ? read_value(r, own, &kv->value) : fail_memory(r);
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const struct tg_gguf_kv *const *)a)->key,
                  (*(const struct tg_gguf_kv *const *)b)->key);
}

static int sort_keys(struct reader *r)
{
    struct tg_gguf_file *g = r->g;
    for (size_t i = 0; i < g->kvs; i++)
        g->sorted[i] = &g->kv[i];
    if (g->kvs > 1)
        qsort(g->sorted, g->kvs, sizeof *g->sorted, by_key);
    for (size_t i = 1; i < g->kvs; i++)
        if (!strcmp(g->sorted[i - 1]->key, g->sorted[i]->key))
            return tg_fail(r->err, TG_ERR_FORMAT, "%s: metadata key '%s' stands twice", r->file,
                           g->sorted[i]->key);
    return TG_OK;
}

static int read_alignment(struct reader *r)
{
    const struct tg_gguf_value *v = tg_gguf_file_find(r->g, "general.alignment");
    r->g->alignment = TG_GGUF_ALIGNMENT;
    if (!v)
        return TG_OK;
    if (v->type != TG_GGUF_U32)
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: general.alignment has type %s, must be U32",
                       r->file, tg_gguf_type_name(v->type));
    if (!v->u || v->u & (v->u - 1))
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: general.alignment is %" PRIu64 ", must be a power of two", r->file,
                       v->u);
    r->g->alignment = (size_t)v->u;
    return TG_OK;
}

static int read_type(struct reader *r, struct tg_tensor *t)
{
    const uint32_t id = tg_cursor_u32(&r->c);
    const struct tg_ggml_type *type = tg_ggml_type(id);
    if (r->c.failed)
        return fail_end(r, "a tensor's entry");
    if (!type)
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: tensor '%s' has the unknown type %" PRIu32,
                       r->file, t->name, id);
    if (type->removed)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: tensor '%s' has type %s (%" PRIu32 "), which was removed from GGUF",
                       r->file, t->name, type->name, id);
    if (type->dtype < 0)
        return tg_fail(r->err, TG_ERR_UNSUPPORTED,
                       "%s: tensor '%s' has type %s (%" PRIu32 "), which Tegu does not read",
                       r->file, t->name, type->name, id);
    t->dtype = (enum tg_dtype)type->dtype;
    return TG_OK;
}

static int read_dims(struct reader *r, struct tg_tensor *t)
{
    const uint32_t n = tg_cursor_u32(&r->c);
    if (!r->c.failed && n > TG_GGUF_MAX_DIMS)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: tensor '%s' has %" PRIu32 " dimensions, at most %d are allowed",
                       r->file, t->name, n, TG_GGUF_MAX_DIMS);
    t->rank = (int)n;
    for (int d = t->rank - 1; d >= 0; d--) {
        t->shape[d] = (int64_t)tg_cursor_u64(&r->c);
        if (t->shape[d] < 0)
            return tg_fail(r->err, TG_ERR_FORMAT, "%s: tensor '%s': ne[%d] is %" PRId64, r->file,
                           t->name, t->rank - 1 - d, t->shape[d]);
    }
    return r->c.failed ? fail_end(r, "a tensor's entry") : TG_OK;
}

static int measure(struct reader *r, struct tg_tensor *t)
{
    const struct tg_dtype_info *info = tg_dtype_info(t->dtype);
    const int64_t row = t->rank ? t->shape[t->rank - 1] : 1;
    char shape[120];
    if (row % info->block)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: tensor '%s': rows of %" PRId64 " are no whole number of blocks of %u "
                       "(%s)",
                       r->file, t->name, row, info->block, info->name);
    if (!tg_tensor_measure(t->dtype, t->rank, t->shape, &t->elements, &t->bytes) ||
        t->elements > INT64_MAX || t->bytes > INT64_MAX)
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: tensor '%s': %s %s overflows", r->file, t->name,
                       info->name, tg_shape_text(t->shape, t->rank, shape, sizeof shape));
    return TG_OK;
}

/* The tensor's entry; *sum is the padded size of all before it, where its data must begin. */
static int read_tensor(struct reader *r, char name[TG_GGUF_NAME_SIZE], struct tg_tensor *t,
                       size_t *sum)
{
    struct tg_gguf_string s;
    int rc = read_string(r, "a tensor's name", &s);
    if (rc != TG_OK)
        return rc;
    if (s.len >= TG_GGUF_NAME_SIZE)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: a tensor's name has %zu bytes, at most %d are allowed: '%.40s...'",
                       r->file, s.len, TG_GGUF_NAME_SIZE - 1, s.text);
    if (!is_text(&s))
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: a tensor's name is not UTF-8 without NUL",
                       r->file);
    memcpy(name, s.text, s.len);
    *t = (struct tg_tensor){.name = name, .file = r->file};
    if ((rc = read_dims(r, t)) != TG_OK || (rc = read_type(r, t)) != TG_OK ||
        (rc = measure(r, t)) != TG_OK)
        return rc;
    const uint64_t offset = tg_cursor_u64(&r->c);
    if (r->c.failed)
        return fail_end(r, "a tensor's entry");
    if (offset != *sum)
        return tg_fail(r->err, TG_ERR_FORMAT,
                       "%s: tensor '%s': its data begin at offset %" PRIu64
                       ", those before it end at %zu",
                       r->file, name, offset, *sum);
    t->source = (const void *)(uintptr_t)offset; /* until the begin of the data is known */
    const size_t pad = -t->bytes & (r->g->alignment - 1);
    if (!tg_add_size(sum, *sum, t->bytes) || !tg_add_size(sum, *sum, pad))
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: tensor '%s': the sizes of data overflow",
                       r->file, name);
    return TG_OK;
}

/* Turns offsets into places in the file, once the header has been read. */
static int place(struct reader *r, struct tg_tensor *items, size_t count)
{
    const size_t begin = r->c.at + (-r->c.at & (r->g->alignment - 1));
    for (size_t i = 0; i < count; i++) {
        struct tg_tensor *t = &items[i];
        const size_t offset = (size_t)(uintptr_t)t->source;
        t->source = NULL;
        if (begin > r->c.len || offset > r->c.len - begin || t->bytes > r->c.len - begin - offset)
            return tg_fail(r->err, TG_ERR_FORMAT,
                           "%s: tensor '%s': %zu bytes at offset %zu of the data, which begin at "
                           "%zu, do not lie in the file's %zu bytes",
                           r->file, t->name, t->bytes, offset, begin, r->c.len);
        t->data = r->c.data + begin + offset;
    }
    return TG_OK;
}

static int read_header(struct reader *r, size_t *tensors, size_t *kvs)
{
    const uint8_t *magic = tg_cursor_bytes(&r->c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0)
        return tg_fail(r->err, TG_ERR_FORMAT, "%s: does not begin with \"GGUF\"", r->file);
    const uint32_t version = tg_cursor_u32(&r->c);
    if (r->c.failed)
        return fail_end(r, "its header");
    if (version && !(version & 0xFFFF))
        return tg_fail(r->err, TG_ERR_UNSUPPORTED,
                       "%s: version 0x%08" PRIx32 ": a big-endian file, only little-endian ones "
                       "are read",
                       r->file, version);
    if (version < 2 || version > TG_GGUF_VERSION)
        return tg_fail(r->err, TG_ERR_UNSUPPORTED,
                       "%s: GGUF version %" PRIu32 ", only 2 and 3 are read", r->file, version);
    int rc = read_count(r, TENSOR_MIN, "tensors", tensors);
    return rc == TG_OK ? read_count(r, KV_MIN, "metadata keys", kvs) : rc;
}

static int read_all(struct reader *r, struct tg_tensor_list *list)
{
    const size_t begun = list->count;
    size_t tensors = 0, kvs = 0, sum = 0;
    int rc = read_header(r, &tensors, &kvs);
    if (rc != TG_OK)
        return rc;
    r->g->kv = tg_alloc_array(kvs, sizeof *r->g->kv);
    r->g->sorted = tg_alloc_array(kvs, sizeof *r->g->sorted);
    r->g->names = tg_alloc_array(tensors, sizeof *r->g->names);
    if (!r->g->kv || !r->g->sorted || !r->g->names ||
        !tg_grow(&list->items, &list->cap, begun + tensors, sizeof *list->items))
        return fail_memory(r);
    for (size_t i = 0; i < kvs && rc == TG_OK; i++)
        rc = read_kv(r);
    if (rc == TG_OK)
        rc = sort_keys(r);
    if (rc == TG_OK)
        rc = read_alignment(r);
    for (size_t i = 0; i < tensors && rc == TG_OK; i++)
        rc = read_tensor(r, r->g->names[i], &list->items[list->count++], &sum);
    return rc == TG_OK && tensors ? place(r, list->items + begun, tensors) : rc;
}

static int parse(struct tg_format_file *f, struct tg_tensor_list *list, struct tg_err *err)
{
    struct reader r = {.file = f->path,
                       .c = tg_cursor_over(f->bytes, f->len),
                       .g = tg_alloc(sizeof *r.g),
                       .err = err};
    f->state = r.g;
    return r.g ? read_all(&r, list) : fail_memory(&r);
}

static void release(struct tg_format_file *f)
{
    struct tg_gguf_file *g = f->state;
    for (size_t i = 0; g && i < g->kvs; i++) {
        const struct tg_gguf_value *v = &g->kv[i].value;
        if (v->type == TG_GGUF_STRING)
            tg_free((char *)v->s.text);
        if (v->type == TG_GGUF_ARRAY && v->array.type == TG_GGUF_STRING)
            tg_free((void *)v->array.data);
        tg_free((char *)g->kv[i].key);
    }
    if (g) {
        tg_free(g->kv);
        tg_free(g->sorted);
        tg_free(g->names);
    }
    tg_free(g);
    f->state = NULL;
}

static bool probe(const void *bytes, size_t len)
{
    return len >= 4 && !memcmp(bytes, "GGUF", 4);
}

/* One that would be cut at a NUL is none. */
static const char *meta(const struct tg_format_file *f, const char *key)
{
    const struct tg_gguf_value *v = tg_gguf_file_find(f->state, key);
    return v && v->type == TG_GGUF_STRING && !memchr(v->s.text, '\0', v->s.len) ? v->s.text : NULL;
}

const struct tg_format tg_format_gguf = {
    .name = "gguf",
    .ext = ".gguf",
    .single = "model.gguf",
    .shard = "model-%05zu-of-%05zu.gguf",
    .probe = probe,
    .parse = parse,
    .release = release,
    .meta = meta,
    .siblings = tg_gguf_siblings,
    .check_set = tg_gguf_check_set,
    .holds = tg_gguf_holds,
    .accepts = tg_gguf_accepts,
    .begin = tg_gguf_begin,
    .after = tg_gguf_after,
};
