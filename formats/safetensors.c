/* safetensors: u64 header length, JSON header, data. Everything that the format's reference
 * implementation refuses is refused here, and duplicate keys too (the format forbids them). Offsets
 * count from the end of the header. */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "formats/format.h"

enum { HEADER_MAX = 100000000 };

/* Where the header stands in the file. */
static int header_of(struct tg_cursor *c, const char *file, const uint8_t **text, size_t *text_len,
                     struct tg_err *err)
{
    if (c->len < 8)
        return tg_fail(err, TG_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", file,
                       c->len);
    uint64_t n = tg_cursor_u64(c);
    if (n > HEADER_MAX)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: header length %llu is above the limit of %d (not a safetensors file?)",
                       file, (unsigned long long)n, HEADER_MAX);
    if (n > c->len - c->at)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: header length %llu is larger than the file (%zu bytes)", file,
                       (unsigned long long)n, c->len);
    *text_len = (size_t)n;
    *text = tg_cursor_bytes(c, (size_t)n);
    return TG_OK;
}

static int fail_tensor(const struct tg_tensor *t, struct tg_err *err, const char *what)
{
    return tg_fail(err, TG_ERR_FORMAT, "%s: tensor '%s': %s", t->file, t->name, what);
}

static int parse_shape(struct tg_json v, struct tg_tensor *t, struct tg_err *err)
{
    if (!tg_json_is_array(v))
        return fail_tensor(t, err, v.node ? "shape is not an array" : "shape is missing");
    size_t rank = tg_json_count(v);
    if (rank > TG_MAX_RANK)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: tensor '%s': %zu dimensions, at most %d are supported", t->file,
                       t->name, rank, TG_MAX_RANK);
    for (struct tg_json c = tg_json_first(v); c.node; c = tg_json_next(c)) {
        double d = tg_json_number(c);
        if (!tg_json_is_number(c) || !(d >= 0 && d < 0x1p53) || d != (double)(int64_t)d)
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: tensor '%s': shape[%d] is not a size in [0, 2^53)", t->file,
                           t->name, t->rank);
        t->shape[t->rank++] = (int64_t)d;
    }
    return TG_OK;
}

static int parse_offsets(struct tg_json v, const struct tg_tensor *t, uint64_t at[2],
                         struct tg_err *err)
{
    if (!tg_json_is_array(v) || tg_json_count(v) != 2)
        return fail_tensor(
            t, err, v.node ? "data_offsets is not an array of two" : "data_offsets is missing");
    int i = 0;
    for (struct tg_json c = tg_json_first(v); c.node; c = tg_json_next(c)) {
        double d = tg_json_number(c);
        if (!tg_json_is_number(c) || !(d >= 0 && d < 0x1p53) || d != (double)(int64_t)d)
            return fail_tensor(t, err, "data_offsets are not integers in [0, 2^53)");
        at[i++] = (uint64_t)d;
    }
    return TG_OK;
}

/* One entry of the header; the data lies in data[0..size). */
static int parse_tensor(struct tg_json entry, struct tg_tensor *t, const uint8_t *data, size_t size,
                        struct tg_err *err)
{
    uint64_t at[2];
    if (!tg_json_is_object(entry))
        return fail_tensor(t, err, "its entry is not an object");
    struct tg_json dtype = tg_json_key(entry, "dtype");
    if (!tg_json_is_string(dtype))
        return fail_tensor(t, err, dtype.node ? "dtype is not a string" : "dtype is missing");
    if (!tg_dtype_parse(tg_json_string(dtype), &t->dtype))
        return tg_fail(err, TG_ERR_FORMAT, "%s: tensor '%s': unknown dtype '%s'", t->file, t->name,
                       tg_json_string(dtype));
    int rc = parse_shape(tg_json_key(entry, "shape"), t, err);
    if (rc == TG_OK)
        rc = parse_offsets(tg_json_key(entry, "data_offsets"), t, at, err);
    if (rc != TG_OK)
        return rc;
    if (!tg_tensor_measure(t->dtype, t->rank, t->shape, &t->elements, &t->bytes)) {
        char shape[200];
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: tensor '%s': %s %s overflows or does not fill whole bytes", t->file,
                       t->name, tg_dtype_info(t->dtype)->name,
                       tg_shape_text(t->shape, t->rank, shape, sizeof shape));
    }
    if (at[0] > at[1] || at[1] > size)
        return tg_fail(
            err, TG_ERR_FORMAT,
            "%s: tensor '%s': data_offsets [%llu, %llu] do not lie in the file's %zu bytes of data",
            t->file, t->name, (unsigned long long)at[0], (unsigned long long)at[1], size);
    if (at[1] - at[0] != t->bytes)
        return tg_fail(
            err, TG_ERR_FORMAT,
            "%s: tensor '%s': data_offsets [%llu, %llu] hold %llu bytes, dtype and shape need %zu",
            t->file, t->name, (unsigned long long)at[0], (unsigned long long)at[1],
            (unsigned long long)(at[1] - at[0]), t->bytes);
    t->data = data + at[0];
    return TG_OK;
}

static int check_metadata(struct tg_json meta, const char *file, struct tg_err *err)
{
    if (!tg_json_is_object(meta))
        return tg_fail(err, TG_ERR_FORMAT, "%s: __metadata__ is not an object", file);
    for (struct tg_json c = tg_json_first(meta); c.node; c = tg_json_next(c)) {
        if (!tg_json_is_string(c))
            return tg_fail(err, TG_ERR_FORMAT,
                           "%s: __metadata__: the value of '%s' is not a string", file,
                           tg_json_name(c));
    }
    return TG_OK;
}

/* By place, empty ones first, so that an empty tensor may stand between two others. */
static int by_place(const void *a, const void *b)
{
    const struct tg_tensor *x = a, *y = b;
    const char *p = x->data, *q = y->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The tensors fill the data without holes or overlaps. */
static int check_places(struct tg_tensor *t, size_t count, const char *file, const uint8_t *data,
                        size_t size, struct tg_err *err)
{
    size_t end = 0;
    if (count > 1)
        qsort(t, count, sizeof *t, by_place);
    for (size_t i = 0; i < count; i++) {
        size_t begin = (size_t)((const uint8_t *)t[i].data - data);
        if (begin != end)
            return tg_fail(
                err, TG_ERR_FORMAT,
                "%s: tensor '%s': %s: data begins at offset %zu, the data before it ends at %zu",
                file, t[i].name, begin < end ? "overlap" : "gap", begin, end);
        end = begin + t[i].bytes;
    }
    if (end != size)
        return tg_fail(err, TG_ERR_FORMAT, "%s: %zu bytes of data, but the tensors end at %zu",
                       file, size, end);
    return TG_OK;
}

/* state: the header's JSON document, from which names are borrowed */
static int parse(struct tg_format_file *f, struct tg_tensor_list *list, struct tg_err *err)
{
    const char *file = f->path;
    struct tg_cursor c = tg_cursor_over(f->bytes, f->len);
    struct tg_json_doc *header = NULL;
    const uint8_t *text = NULL;
    size_t text_len = 0, begun = list->count;
    int rc = header_of(&c, file, &text, &text_len, err);
    if (rc == TG_OK)
        rc = tg_json_parse(&header, (const char *)text, text_len, file, 0, err);
    f->state = header;
    if (rc != TG_OK)
        return rc;
    struct tg_json root = tg_json_root(header);
    if (!tg_json_is_object(root))
        return tg_fail(err, TG_ERR_FORMAT, "%s: the header is not a JSON object", file);
    const uint8_t *data = text + text_len;
    size_t size = f->len - 8 - text_len;
    if (!tg_grow(&list->items, &list->cap, begun + tg_json_count(root), sizeof *list->items))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", file);
    for (struct tg_json e = tg_json_first(root); e.node; e = tg_json_next(e)) {
        if (strcmp(tg_json_name(e), "__metadata__") == 0) {
            rc = check_metadata(e, file, err);
        } else {
            struct tg_tensor *t = &list->items[list->count];
            *t = (struct tg_tensor){.name = tg_json_name(e), .file = file};
            rc = parse_tensor(e, t, data, size, err);
            list->count++;
        }
        if (rc != TG_OK)
            return rc;
    }
    struct tg_tensor *first = list->count > begun ? list->items + begun : NULL;
    return check_places(first, list->count - begun, file, data, size, err);
}

/* A header length that fits the file and a '{' behind it, which may be led by blanks */
static bool probe(const void *bytes, size_t len)
{
    struct tg_cursor c = tg_cursor_over(bytes, len);
    uint64_t n = tg_cursor_u64(&c);
    if (c.failed || n < 2 || n > len - 8)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char at = ((const char *)bytes)[8 + i];
        if (!strchr(" \t\r\n", at) || !at)
            return at == '{';
    }
    return false;
}

static void release(struct tg_format_file *f)
{
    tg_json_free(f->state);
    f->state = NULL;
}

static const char *meta(const struct tg_format_file *f, const char *key)
{
    struct tg_json v = tg_json_key(tg_json_key(tg_json_root(f->state), "__metadata__"), key);
    return tg_json_is_string(v) ? tg_json_string(v) : NULL;
}

static bool holds(enum tg_dtype t)
{
    return tg_dtype_info(t)->block <= 4; /* all but the quantised types of GGUF */
}

/* Alignment of a type: its size if that is whole bytes, else 1. */
static unsigned alignment(enum tg_dtype t)
{
    const struct tg_dtype_info *info = tg_dtype_info(t);
    return info->block == 1 ? info->block_bytes : 1;
}

static int order(const struct tg_tensor_plan *a, const struct tg_tensor_plan *b)
{
    return (int)alignment(b->dtype) - (int)alignment(a->dtype);
}

static void put_entry(struct tg_json_out *j, const struct tg_tensor_plan *t, uint64_t *at)
{
    size_t elements, bytes = 0;
    tg_tensor_measure(t->dtype, t->rank, t->shape, &elements, &bytes);
    tg_jout_object(j, t->name);
    tg_jout_str(j, "dtype", tg_dtype_info(t->dtype)->name);
    tg_jout_array(j, "shape");
    for (int d = 0; d < t->rank; d++)
        tg_jout_int(j, NULL, t->shape[d]);
    tg_jout_end_array(j);
    tg_jout_array(j, "data_offsets");
    tg_jout_int(j, NULL, (int64_t)*at);
    tg_jout_int(j, NULL, (int64_t)(*at += bytes));
    tg_jout_end_array(j);
    tg_jout_end_object(j);
}

static void put_metadata(struct tg_json_out *j, const struct tg_write_options *o)
{
    bool has_format = false;
    tg_jout_object(j, "__metadata__");
    for (size_t i = 0; i < o->metas; i++) {
        has_format = has_format || !strcmp(o->meta[i].key, "format");
        tg_jout_str(j, o->meta[i].key, o->meta[i].value);
    }
    if (!has_format)
        tg_jout_str(j, "format", "pt"); /* transformers refuses a file without it */
    tg_jout_end_object(j);
}

static int begin(struct tg_format_out *f, struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out j;
    uint64_t at = 0;
    int rc;
    tg_strbuf_init(&text, HEADER_MAX);
    tg_jout_init(&j, &text, 0);
    tg_jout_object(&j, NULL);
    put_metadata(&j, f->options);
    for (size_t i = 0; i < f->count; i++)
        put_entry(&j, f->tensors[i], &at);
    tg_jout_end_object(&j);
    while (!text.failed && text.len % 8 != 0)
        tg_strbuf_puts(&text, " ");
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)text.len >> (8 * i));
    if (text.failed)
        rc = tg_fail(err, TG_ERR_VALUE,
                     "%s: the header would be larger than %d bytes, or memory is exhausted",
                     f->path, HEADER_MAX);
    else if ((rc = tg_out_write(f->out, length, 8, err)) == TG_OK)
        rc = tg_out_write(f->out, text.text, text.len, err);
    tg_strbuf_release(&text);
    return rc;
}

const struct tg_format tg_format_safetensors = {
    .name = "safetensors",
    .ext = ".safetensors",
    .single = "model.safetensors",
    .shard = "model-%05zu-of-%05zu.safetensors",
    .index = "model.safetensors.index.json",
    .probe = probe,
    .parse = parse,
    .release = release,
    .meta = meta,
    .holds = holds,
    .order = order,
    .begin = begin,
};
