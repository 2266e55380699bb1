/* NumPy's .npy (format versions 1 to 3): magic, version, header length, a Python dict as text,
 * data. Only what token files need: one-dimensional little-endian int32, int64, uint16, uint32. */
#include "formats/npy.h"

#include <stdio.h>
#include <string.h>

#include "base/cursor.h"
#include "formats/format.h"

static const char magic[] = "\x93NUMPY";

bool tg_npy_probe(const void *bytes, size_t len)
{
    return len >= 6 && memcmp(bytes, magic, 6) == 0;
}

/* The text behind 'key': in the dict, NULL if it is not there. */
static const char *value_of(const char *dict, const char *key)
{
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *at = strstr(dict, quoted);
    if (!at)
        return NULL;
    at += strlen(quoted);
    at += strspn(at, " ");
    if (*at++ != ':')
        return NULL;
    return at + strspn(at, " ");
}

static bool parse_dtype(const char *descr, enum tg_dtype *out)
{
    static const struct {
        const char *descr;
        enum tg_dtype t;
    } rows[] = {{"'<i4'", TG_I32}, {"'<i8'", TG_I64}, {"'<u2'", TG_U16}, {"'<u4'", TG_U32}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strncmp(descr, rows[i].descr, 5) == 0) {
            *out = rows[i].t;
            return true;
        }
    }
    return false;
}

/* "(N,)" */
static bool parse_length(const char *shape, int64_t *n)
{
    uint64_t v = 0;
    if (*shape++ != '(' || *shape < '0' || *shape > '9')
        return false;
    for (; *shape >= '0' && *shape <= '9'; shape++) {
        if (v > (uint64_t)INT64_MAX / 10 - 1)
            return false;
        v = v * 10 + (uint64_t)(*shape - '0');
    }
    shape += strspn(shape, " ");
    if (*shape++ != ',')
        return false;
    shape += strspn(shape, " ");
    *n = (int64_t)v;
    return *shape == ')';
}

/* The header's dict as text in dict[size]; the cursor then stands at the data. */
static int read_header(struct tg_cursor *c, const char *file, char *dict, size_t size,
                       struct tg_err *err)
{
    tg_cursor_bytes(c, sizeof magic - 1);
    const uint8_t version = tg_cursor_u8(c);
    tg_cursor_u8(c);
    if (!c->failed && (version < 1 || version > 3))
        return tg_fail(err, TG_ERR_FORMAT, "%s: damaged .npy header: version %d is not 1, 2 or 3",
                       file, version);
    const size_t n = version == 1 ? tg_cursor_u16(c) : tg_cursor_u32(c);
    if (!c->failed && n >= size)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: damaged .npy header: a length of %zu bytes, limit %zu", file, n,
                       size - 1);
    const uint8_t *text = tg_cursor_bytes(c, n);
    if (c->failed)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: damaged .npy header: it ends beyond the file's %zu bytes", file,
                       c->len);
    memcpy(dict, text, n);
    dict[n] = '\0';
    return TG_OK;
}

int tg_npy_parse(const void *bytes, size_t len, const char *file, struct tg_tensor *t,
                 struct tg_err *err)
{
    struct tg_cursor c = tg_cursor_over(bytes, len);
    char dict[1024];
    const int rc = read_header(&c, file, dict, sizeof dict, err);
    if (rc != TG_OK)
        return rc;
    const char *descr = value_of(dict, "descr"), *shape = value_of(dict, "shape");
    if (!descr || !shape)
        return tg_fail(err, TG_ERR_FORMAT, "%s: .npy header without '%s'", file,
                       descr ? "shape" : "descr");
    *t = (struct tg_tensor){.name = "array", .rank = 1, .file = file};
    if (!parse_dtype(descr, &t->dtype))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: .npy of type %.8s; token ids are <i4, <i8, <u2 or <u4", file, descr);
    if (!parse_length(shape, &t->shape[0]))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: .npy of shape %.24s; token ids have one dimension", file, shape);
    if (!tg_tensor_measure(t->dtype, 1, t->shape, &t->elements, &t->bytes) ||
        t->bytes != len - c.at)
        return tg_fail(err, TG_ERR_FORMAT, "%s: .npy of %lld elements, but %zu bytes of data", file,
                       (long long)t->shape[0], len - c.at);
    t->data = (const uint8_t *)bytes + c.at;
    return TG_OK;
}
