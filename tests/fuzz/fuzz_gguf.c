/* GGUF headers: whatever is accepted can be read completely, metadata too, and nothing lies outside
 * the file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf.h"
#include "tests/fuzz/fuzz.h"

static unsigned sum; /* so that reads are not left out */

static void read_tensor(const struct tg_tensor *t, const uint8_t *data, size_t size)
{
    const uint8_t *p = t->data;
    if (p < data || p > data + size || t->bytes > (size_t)(data + size - p))
        abort();
    for (size_t i = 0; i < t->bytes; i++)
        sum += p[i];
    if (tg_dtype_info(t->dtype)->is_float) {
        float *f = tg_alloc_floats(t->elements);
        if (f && tg_tensor_read_f32(t, f, NULL) != TG_OK)
            abort();
        tg_free(f);
    }
}

static void read_text(const struct tg_gguf_value *v)
{
    for (size_t i = 0; v->type == TG_GGUF_STRING && i < v->s.len; i++)
        sum += (unsigned char)v->s.text[i];
}

static void read_kv(const struct tg_tensors *t, const struct tg_gguf_kv *kv)
{
    const struct tg_gguf_value *v = &kv->value;
    struct tg_gguf_value x;
    int64_t n;
    double d;
    if (tg_gguf_find(t, kv->key) != v)
        abort();
    read_text(v);
    for (size_t i = 0; tg_gguf_element(v, i, &x); i++)
        read_text(&x);
    tg_tensors_meta(t, kv->key);
    if (tg_gguf_get_int(t, kv->key, 0, 9, &n, NULL) == TG_OK && (n < 0 || n > 9))
        abort();
    if (tg_gguf_get_float(t, kv->key, 0, 9, &d, NULL) == TG_OK && !(d >= 0 && d <= 9))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tg_tensors *t;
    struct tg_err err = {0};
    int rc = tg_tensors_over(&t, &tg_format_gguf, data, size, "fuzz", &err);
    if ((rc == TG_OK) != (t != NULL) || (rc != TG_OK && (err.code != rc || !*err.msg)))
        abort();
    for (size_t i = 0; t && i < tg_tensors_count(t); i++) {
        const struct tg_tensor *x = tg_tensors_at(t, i);
        if (tg_tensors_find(t, x->name) != x)
            abort();
        read_tensor(x, data, size);
    }
    for (size_t i = 0; t && i < tg_gguf_count(t); i++)
        read_kv(t, tg_gguf_at(t, i));
    tg_tensors_close(t);
    return 0;
}
