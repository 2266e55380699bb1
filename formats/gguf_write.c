/* Writing GGUF version 3: the header from the plan, the keys of options->kv in their order, then
 * those of options->meta; each tensor's data padded to general.alignment. In a set of parts the
 * first has all keys, the others only what says which part they are and how they are padded. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "formats/gguf_file.h"

enum { KEY_MAX = 65535, PARTS_MAX = 65535 };

static const char alignment_key[] = "general.alignment";

bool tg_gguf_holds(enum tg_dtype t)
{
    return tg_ggml_type_of(t) >= 0;
}

int tg_gguf_accepts(const struct tg_tensor_plan *p, const char *path, struct tg_err *err)
{
    const struct tg_dtype_info *info = tg_dtype_info(p->dtype);
    const int64_t row = p->rank ? p->shape[p->rank - 1] : 1;
    if (strlen(p->name) >= TG_GGUF_NAME_SIZE)
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': GGUF names have at most %d bytes", path,
                       p->name, TG_GGUF_NAME_SIZE - 1);
    if (p->rank > TG_GGUF_MAX_DIMS)
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': %d dimensions, GGUF holds at most %d",
                       path, p->name, p->rank, TG_GGUF_MAX_DIMS);
    for (int d = 0; d < p->rank; d++)
        if (p->shape[d] == 0)
            return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': GGUF holds no empty tensor", path,
                           p->name);
    if (row % info->block)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: tensor '%s': rows of %" PRId64 " are no whole number of blocks of %u "
                       "(%s)",
                       path, p->name, row, info->block, info->name);
    return TG_OK;
}

static void put_number(struct tg_strbuf *s, uint64_t x, size_t size)
{
    char bytes[8];
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(unsigned char)(x >> (8 * i));
    tg_strbuf_add(s, bytes, size);
}

static void put_string(struct tg_strbuf *s, const char *text, size_t len)
{
    put_number(s, len, 8);
    tg_strbuf_add(s, text, len);
}

/* Bits of a scalar that is no string; false when its type cannot hold it. */
static bool scalar_bits(const struct tg_gguf_value *v, uint64_t *bits)
{
    const struct tg_gguf_type_info *info = tg_gguf_type_info(v->type);
    const unsigned width = (unsigned)(8 * info->size);
    if (v->type == TG_GGUF_F32) {
        const float x = (float)v->f;
        uint32_t u;
        memcpy(&u, &x, sizeof u);
        *bits = u;
        return true;
    }
    switch (info->kind) {
    case TG_GGUF_FLOAT:
        memcpy(bits, &v->f, sizeof *bits);
        return true;
    case TG_GGUF_TRUTH:
        *bits = v->b;
        return true;
    case TG_GGUF_SIGNED:
        *bits = (uint64_t)v->i;
        return width == 64 ||
               (v->i >= -((int64_t)1 << (width - 1)) && v->i < (int64_t)1 << (width - 1));
    default:
        *bits = v->u;
        return width == 64 || v->u >> width == 0;
    }
}

static int fail_key(const struct tg_format_out *f, const char *key, const char *what,
                    struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE, "%s: metadata key '%s' %s", f->path, key, what);
}

static int put_array(const struct tg_format_out *f, struct tg_strbuf *s, const char *key,
                     const struct tg_gguf_array *a, struct tg_err *err)
{
    const struct tg_gguf_type_info *info = tg_gguf_type_info((uint32_t)a->type);
    if (!info || a->type == TG_GGUF_ARRAY || a->count > TG_GGUF_MAX_COUNT)
        return fail_key(f, key, "is an array of an unknown type or of too many elements", err);
    put_number(s, a->type, 4);
    put_number(s, a->count, 8);
    if (a->type != TG_GGUF_STRING) {
        tg_strbuf_add(s, a->data, a->count * info->size);
        return TG_OK;
    }
    const struct tg_gguf_string *list = a->data;
    for (size_t i = 0; i < a->count; i++) {
        if (list[i].len > TG_GGUF_MAX_COUNT)
            return fail_key(f, key, "holds a string of more than 1 GiB", err);
        put_string(s, list[i].text, list[i].len);
    }
    return TG_OK;
}

static int put_kv(const struct tg_format_out *f, struct tg_strbuf *s, const struct tg_gguf_kv *kv,
                  struct tg_err *err)
{
    const struct tg_gguf_value *v = &kv->value;
    const struct tg_gguf_type_info *info = tg_gguf_type_info((uint32_t)v->type);
    uint64_t bits;
    if (!info)
        return fail_key(f, kv->key, "has an unknown type", err);
    put_string(s, kv->key, strlen(kv->key));
    put_number(s, v->type, 4);
    if (v->type == TG_GGUF_ARRAY)
        return put_array(f, s, kv->key, &v->array, err);
    if (v->type == TG_GGUF_STRING) {
        if (v->s.len > TG_GGUF_MAX_COUNT)
            return fail_key(f, kv->key, "is a string of more than 1 GiB", err);
        put_string(s, v->s.text, v->s.len);
        return TG_OK;
    }
    if (!scalar_bits(v, &bits))
        return fail_key(f, kv->key, "does not fit its type", err);
    put_number(s, bits, info->size);
    return TG_OK;
}

/* Keys of the caller: i-th of options->kv followed by options->meta */
static struct tg_gguf_kv key_at(const struct tg_write_options *o, size_t i)
{
    if (i < o->kvs)
        return o->kv[i];
    const struct tg_meta *m = &o->meta[i - o->kvs];
    return (struct tg_gguf_kv){m->key, tg_gguf_text(m->value, strlen(m->value))};
}

static size_t alignment_of(const struct tg_write_options *o)
{
    for (size_t i = 0; i < o->kvs; i++)
        if (!strcmp(o->kv[i].key, alignment_key))
            return (size_t)o->kv[i].value.u;
    return TG_GGUF_ALIGNMENT;
}

static int check_key(const struct tg_format_out *f, const struct tg_gguf_kv *kv, struct tg_err *err)
{
    const size_t len = strlen(kv->key);
    if (!len || len > KEY_MAX || tg_utf8_check(kv->key, len) != len)
        return fail_key(f, kv->key, "is empty, too long or not UTF-8", err);
    if (!strncmp(kv->key, "split.", 6))
        return fail_key(f, kv->key, "is the writer's own", err);
    if (strcmp(kv->key, alignment_key) != 0)
        return TG_OK;
    const uint64_t a = kv->value.u;
    if (kv->value.type != TG_GGUF_U32 || a == 0 || a > (uint64_t)1 << 31 || a & (a - 1))
        return fail_key(f, kv->key, "must be a U32 and a power of two", err);
    return TG_OK;
}

static int check_keys(const struct tg_format_out *f, struct tg_err *err)
{
    const struct tg_write_options *o = f->options;
    int rc = TG_OK;
    for (size_t i = 0; i < o->kvs + o->metas && rc == TG_OK; i++) {
        const struct tg_gguf_kv kv = key_at(o, i);
        rc = check_key(f, &kv, err);
        for (size_t k = 0; k < i && rc == TG_OK; k++)
            if (!strcmp(key_at(o, k).key, kv.key))
                rc = fail_key(f, kv.key, "stands twice", err);
    }
    return rc;
}

/* The keys of this part and how many they are */
static int put_keys(const struct tg_format_out *f, struct tg_strbuf *s, size_t *count,
                    struct tg_err *err)
{
    const struct tg_write_options *o = f->options;
    const struct tg_gguf_kv split[] = {
        {"split.no", {.type = TG_GGUF_U16, .u = f->part}},
        {"split.count", {.type = TG_GGUF_U16, .u = f->parts}},
        {"split.tensors.count", {.type = TG_GGUF_I32, .i = (int64_t)f->total}},
    };
    int rc = TG_OK;
    *count = 0;
    for (size_t i = 0; i < o->kvs + o->metas && rc == TG_OK; i++) {
        const struct tg_gguf_kv kv = key_at(o, i);
        if (f->part > 0 && strcmp(kv.key, alignment_key) != 0)
            continue;
        rc = put_kv(f, s, &kv, err);
        ++*count;
    }
    for (size_t i = 0; i < 3 && f->parts > 1 && rc == TG_OK; i++) {
        rc = put_kv(f, s, &split[i], err);
        ++*count;
    }
    return rc;
}

static void put_tensors(const struct tg_format_out *f, struct tg_strbuf *s)
{
    const size_t align = alignment_of(f->options);
    uint64_t at = 0;
    for (size_t i = 0; i < f->count; i++) {
        const struct tg_tensor_plan *t = f->tensors[i];
        size_t elements, bytes = 0;
        tg_tensor_measure(t->dtype, t->rank, t->shape, &elements, &bytes);
        put_string(s, t->name, strlen(t->name));
        put_number(s, (uint64_t)t->rank, 4);
        for (int d = t->rank - 1; d >= 0; d--)
            put_number(s, (uint64_t)t->shape[d], 8);
        put_number(s, (uint64_t)tg_ggml_type_of(t->dtype), 4);
        put_number(s, at, 8);
        at += bytes + (-bytes & (align - 1));
    }
}

static int put_zeros(struct tg_format_out *f, size_t n, struct tg_err *err)
{
    static const char zeros[4096];
    int rc = TG_OK;
    for (size_t piece; n > 0 && rc == TG_OK; n -= piece) {
        piece = n < sizeof zeros ? n : sizeof zeros;
        rc = tg_out_write(f->out, zeros, piece, err);
    }
    return rc;
}

int tg_gguf_begin(struct tg_format_out *f, struct tg_err *err)
{
    struct tg_strbuf keys, head;
    size_t count;
    int rc = check_keys(f, err);
    if (rc == TG_OK && f->parts > PARTS_MAX)
        rc = tg_fail(err, TG_ERR_VALUE, "%s: %zu parts, at most %d are allowed", f->path, f->parts,
                     PARTS_MAX);
    if (rc != TG_OK)
        return rc;
    tg_strbuf_init(&keys, SIZE_MAX / 2);
    tg_strbuf_init(&head, SIZE_MAX / 2);
    rc = put_keys(f, &keys, &count, err);
    tg_strbuf_puts(&head, "GGUF");
    put_number(&head, TG_GGUF_VERSION, 4);
    put_number(&head, f->count, 8);
    put_number(&head, count, 8);
    tg_strbuf_add(&head, keys.text, keys.len);
    put_tensors(f, &head);
    if (rc == TG_OK && (keys.failed || head.failed))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", f->path);
    if (rc == TG_OK)
        rc = tg_out_write(f->out, head.text, head.len, err);
    if (rc == TG_OK)
        rc = put_zeros(f, -head.len & (alignment_of(f->options) - 1), err);
    tg_strbuf_release(&keys);
    tg_strbuf_release(&head);
    return rc;
}

int tg_gguf_after(struct tg_format_out *f, size_t i, struct tg_err *err)
{
    const struct tg_tensor_plan *t = f->tensors[i];
    size_t elements, bytes = 0;
    tg_tensor_measure(t->dtype, t->rank, t->shape, &elements, &bytes);
    return put_zeros(f, -bytes & (alignment_of(f->options) - 1), err);
}
