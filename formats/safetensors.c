/* safetensors: u64 header length, JSON header, data. Everything that the format's reference
 * implementation refuses is refused here, and duplicate keys too (the format forbids them). Offsets
 * count from the end of the header. */
#include "formats/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"

bool tg_tensor_measure(enum tg_dtype dtype, int rank, const int64_t *shape, size_t *elements,
                       size_t *bytes)
{
    size_t n = 1, bits;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || (uint64_t)shape[i] > SIZE_MAX || !tg_mul_size(&n, n, (size_t)shape[i]))
            return false;
    }
    if (!tg_mul_size(&bits, n, tg_dtype_info(dtype)->bits) || bits % 8 != 0)
        return false;
    *elements = n;
    *bytes = bits / 8;
    return true;
}

/* Where the header stands in the file. */
static int header_of(struct tg_cursor *c, const char *file, const uint8_t **text, size_t *text_len,
                     struct tg_err *err)
{
    if (c->len < 8)
        return tg_fail(err, TG_ERR_FORMAT, "%s: %zu bytes are too few for a safetensors file", file,
                       c->len);
    uint64_t n = tg_cursor_u64(c);
    if (n > TG_SAFETENSORS_HEADER_MAX)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: header length %llu is above the limit of %d (not a safetensors file?)",
                       file, (unsigned long long)n, TG_SAFETENSORS_HEADER_MAX);
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

int tg_safetensors_parse(const void *bytes, size_t len, const char *file,
                         struct tg_tensor_list *list, struct tg_json_doc **header,
                         struct tg_err *err)
{
    struct tg_cursor c = tg_cursor_over(bytes, len);
    const uint8_t *text = NULL;
    size_t text_len = 0, begun = list->count;
    *header = NULL;
    int rc = header_of(&c, file, &text, &text_len, err);
    if (rc == TG_OK)
        rc = tg_json_parse(header, (const char *)text, text_len, file, 0, err);
    if (rc != TG_OK)
        return rc;
    struct tg_json root = tg_json_root(*header);
    if (!tg_json_is_object(root))
        return tg_fail(err, TG_ERR_FORMAT, "%s: the header is not a JSON object", file);
    const uint8_t *data = text + text_len;
    size_t size = len - 8 - text_len;
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
