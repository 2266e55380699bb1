/* The writer's half of the torch row: an archive like those of torch.save, with one storage for
 * each tensor. The pickle comes first, so the plan is all it needs; data pass through once. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "formats/torch.h"
#include "formats/zip.h"

/* The folder in the archive, as torch.save calls it when it has no file name, so that bytes do not
 * depend on the path. */
#define ROOT "archive/"

struct state {
    struct tg_zip_out zip;
};

static void put_op(struct tg_strbuf *s, char op)
{
    tg_strbuf_add(s, &op, 1);
}

static void put_little(struct tg_strbuf *s, char op, size_t width, uint64_t v)
{
    char bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (char)(v >> (8 * i) & 0xFF);
    put_op(s, op);
    tg_strbuf_add(s, bytes, width);
}

static void put_text(struct tg_strbuf *s, const char *text)
{
    put_little(s, 'X', 4, strlen(text));
    tg_strbuf_puts(s, text);
}

/* BININT1, BININT, or LONG1 of 8 bytes */
static void put_int(struct tg_strbuf *s, uint64_t v)
{
    if (v < 256) {
        put_little(s, 'K', 1, v);
    } else if (v <= INT32_MAX) {
        put_little(s, 'J', 4, v);
    } else {
        put_op(s, '\x8A');
        put_little(s, '\x08', 8, v);
    }
}

static void put_global(struct tg_strbuf *s, const char *module, const char *name)
{
    put_op(s, 'c');
    tg_strbuf_puts(s, module);
    put_op(s, '\n');
    tg_strbuf_puts(s, name);
    put_op(s, '\n');
}

static void put_ordered_dict(struct tg_strbuf *s)
{
    put_global(s, "collections", "OrderedDict");
    tg_strbuf_puts(s, ")R");
}

static size_t bytes_of(const struct tg_tensor_plan *t)
{
    size_t elements, bytes = 0;
    tg_tensor_measure(t->dtype, t->rank, t->shape, &elements, &bytes); /* the plan was checked */
    return bytes;
}

/* The strides of a tensor without elements count its sizes as 1 at least, as PyTorch has them. */
static void put_shape(struct tg_strbuf *s, const struct tg_tensor_plan *t)
{
    uint64_t stride[TG_MAX_RANK], step = 1;
    for (int i = t->rank; i-- > 0;) {
        stride[i] = step;
        step *= t->shape[i] > 0 ? (uint64_t)t->shape[i] : 1;
    }
    put_op(s, '(');
    for (int i = 0; i < t->rank; i++)
        put_int(s, (uint64_t)t->shape[i]);
    tg_strbuf_puts(s, "t(");
    for (int i = 0; i < t->rank; i++)
        put_int(s, stride[i]);
    put_op(s, 't');
}

/* name, _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()), SETITEM; types without
 * a storage class by _rebuild_tensor_v3 with their dtype. */
static void put_tensor(struct tg_strbuf *s, const struct tg_tensor_plan *t, size_t i)
{
    bool typed;
    char key[24];
    const char *name = tg_torch_name(t->dtype, &typed);
    const size_t bytes = bytes_of(t);
    put_text(s, t->name);
    put_global(s, "torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
    tg_strbuf_puts(s, "((");
    put_text(s, "storage");
    if (typed)
        put_global(s, "torch", name);
    else
        put_global(s, "torch.storage", "UntypedStorage");
    snprintf(key, sizeof key, "%zu", i);
    put_text(s, key);
    put_text(s, "cpu");
    put_int(s, typed ? bytes / tg_dtype_info(t->dtype)->block_bytes : bytes);
    tg_strbuf_puts(s, "tQ");
    put_int(s, 0);
    put_shape(s, t);
    put_op(s, '\x89');
    put_ordered_dict(s);
    if (!typed)
        put_global(s, "torch", name);
    tg_strbuf_puts(s, "tRs");
}

/* The attribute "metadata" of the dictionary: there it disturbs no load_state_dict. */
static void put_metadata(struct tg_strbuf *s, const struct tg_write_options *o)
{
    put_op(s, '}');
    put_text(s, "metadata");
    put_op(s, '}');
    for (size_t i = 0; i < o->metas; i++) {
        put_text(s, o->meta[i].key);
        put_text(s, o->meta[i].value);
        put_op(s, 's');
    }
    tg_strbuf_puts(s, "sb");
}

static int put_record(struct tg_zip_out *z, const char *name, const char *bytes, size_t n,
                      struct tg_err *err)
{
    int rc = tg_zip_begin(z, name, n, err);
    if (rc == TG_OK)
        rc = tg_zip_write(z, bytes, n, err);
    return rc == TG_OK ? tg_zip_end(z, err) : rc;
}

bool tg_torch_holds(enum tg_dtype t)
{
    bool typed;
    return tg_torch_name(t, &typed) != NULL;
}

/* Pickles hold no other strings. */
static int check_metadata(const struct tg_format_out *f, struct tg_err *err)
{
    const struct tg_write_options *o = f->options;
    for (size_t i = 0; i < o->metas; i++) {
        const char *key = o->meta[i].key, *value = o->meta[i].value;
        if (tg_utf8_check(key, strlen(key)) != strlen(key) ||
            tg_utf8_check(value, strlen(value)) != strlen(value))
            return tg_fail(err, TG_ERR_VALUE, "%s: metadata '%s' is not UTF-8", f->path, key);
    }
    return TG_OK;
}

int tg_torch_begin(struct tg_format_out *f, struct tg_err *err)
{
    int rc = check_metadata(f, err);
    if (rc != TG_OK)
        return rc;
    struct tg_strbuf s;
    struct state *w = tg_alloc(sizeof *w);
    if (!w)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", f->path);
    f->state = w;
    w->zip = (struct tg_zip_out){.out = f->out, .path = f->path};
    tg_strbuf_init(&s, TG_PICKLE_MAX);
    tg_strbuf_puts(&s, "\x80\x02");
    put_ordered_dict(&s);
    for (size_t i = 0; i < f->count; i++)
        put_tensor(&s, f->tensors[i], i);
    if (f->options->metas)
        put_metadata(&s, f->options);
    put_op(&s, '.');
    rc = s.failed ? tg_fail(err, TG_ERR_VALUE,
                            "%s: the pickle of %zu tensors would be larger than %d bytes, or "
                            "memory is exhausted",
                            f->path, f->count, TG_PICKLE_MAX)
                  : put_record(&w->zip, ROOT "data.pkl", s.text, s.len, err);
    tg_strbuf_release(&s);
    return rc == TG_OK ? put_record(&w->zip, ROOT "byteorder", "little", 6, err) : rc;
}

int tg_torch_before(struct tg_format_out *f, size_t i, struct tg_err *err)
{
    struct state *w = f->state;
    char name[48];
    snprintf(name, sizeof name, ROOT "data/%zu", i);
    return tg_zip_begin(&w->zip, name, bytes_of(f->tensors[i]), err);
}

int tg_torch_write(struct tg_format_out *f, const void *bytes, size_t n, struct tg_err *err)
{
    struct state *w = f->state;
    return tg_zip_write(&w->zip, bytes, n, err);
}

int tg_torch_after(struct tg_format_out *f, size_t i, struct tg_err *err)
{
    struct state *w = f->state;
    (void)i;
    return tg_zip_end(&w->zip, err);
}

int tg_torch_end(struct tg_format_out *f, struct tg_err *err)
{
    struct state *w = f->state;
    int rc = put_record(&w->zip, ROOT "version", "3\n", 2, err);
    return rc == TG_OK ? tg_zip_finish(&w->zip, err) : rc;
}

void tg_torch_close(struct tg_format_out *f)
{
    struct state *w = f->state;
    if (!w)
        return;
    tg_zip_out_release(&w->zip);
    tg_free(w);
    f->state = NULL;
}
