#include "convert/export.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/export_about.h"
#include "convert/export_stored.h"
#include "convert/gguf_model.h"
#include "convert/native.h"
#include "formats/format.h"
#include "formats/gguf_vocab_write.h"

enum { MAX_CONFIG = 1 << 26 };

static int read_checkpoint(const struct tg_export_source *s, size_t i, float *dst,
                           struct tg_err *err)
{
    return tg_checkpoint_read(s->from, i, dst, err);
}

struct tg_export_source tg_export_from_checkpoint(const struct tg_checkpoint *c)
{
    return (struct tg_export_source){.spec = tg_checkpoint_spec(c),
                                     .params = tg_checkpoint_params(c),
                                     .read = read_checkpoint,
                                     .from = c};
}

static int read_block(const struct tg_export_source *s, size_t i, float *dst, struct tg_err *err)
{
    const struct tg_block *b = s->from;
    const struct tg_param *p = &b->params->items[i];

    (void)err;
    memcpy(dst, b->data + p->offset, p->count * sizeof *dst);
    return TG_OK;
}

struct tg_export_source tg_export_from_block(const struct tg_model_spec *spec,
                                             const struct tg_block *block)
{
    return (struct tg_export_source){
        .spec = spec, .params = block->params, .read = read_block, .from = block};
}

bool tg_export_has(const struct tg_export *x, const char *name)
{
    return tg_params_find(x->in->params, name) != NULL;
}

int tg_export_read(const struct tg_export *x, const char *name, float *dst, size_t count,
                   struct tg_err *err)
{
    const struct tg_param *p = tg_params_find(x->in->params, name);

    if (!p || p->count != count)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: the model has %zu elements of parameter '%s', not %zu", x->target->name,
                       p ? p->count : 0, name, count);
    return x->in->read(x->in, (size_t)(p - x->in->params->items), dst, err);
}

int tg_export_same(const struct tg_export *x, const struct tg_param *p, float *dst,
                   struct tg_err *err)
{
    return tg_export_read(x, p->name, dst, p->count, err);
}

/* A line that begins with the key differs: the text of both, without the indent */
static const char *difference(const char *a, const char *b, char *buf, size_t size)
{
    size_t layers = 0;

    while (*a && *b) {
        const size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");
        layers += strstr(a, "\"mixer\":") == a + strspn(a, " ");
        if (n != m || memcmp(a, b, n)) {
            const size_t s = strspn(a, " "), t = strspn(b, " ");
            const int u = (int)(n - s) - (n && a[n - 1] == ','),
                      v = (int)(m - t) - (m && b[m - 1] == ',');
            if (layers)
                snprintf(buf, size, "layer %zu: %.*s against %.*s", layers - 1, u, a + s, v, b + t);
            else
                snprintf(buf, size, "%.*s against %.*s", u, a + s, v, b + t);
            return buf;
        }
        a += n + (a[n] == '\n');
        b += m + (b[m] == '\n');
    }
    return *a || *b ? "their numbers of layers" : NULL;
}

/* The spec in the words of a native config, which has all of it */
static void describe(const struct tg_model_spec *spec, struct tg_strbuf *to)
{
    const struct tg_native_meta meta = {"", "", 0, "", ""};
    struct tg_model_spec s = *spec;

    snprintf(s.family, sizeof s.family, "any");
    snprintf(s.base_family, sizeof s.base_family, "any");
    tg_strbuf_init(to, MAX_CONFIG);
    tg_native_config(to, &s, TG_F32, &meta);
}

const char *tg_export_difference(const struct tg_model_spec *a, const struct tg_model_spec *b,
                                 char *buf, size_t size)
{
    struct tg_strbuf x, y;
    const char *d;

    describe(a, &x);
    describe(b, &y);
    d = x.failed || y.failed ? "out of memory" : difference(x.text, y.text, buf, size);
    tg_strbuf_release(&x);
    tg_strbuf_release(&y);
    return d;
}

static int read_dtype(struct tg_export *x, const char *dtype, struct tg_err *err)
{
    if (x->target->gguf) {
        x->mix = tg_gguf_mix_find(dtype);
        x->dtype = x->mix ? x->mix->dtype : TG_F32;
        return x->mix ? TG_OK
                      : tg_fail(err, TG_ERR_VALUE, "dtype: a GGUF model is not written as '%s'",
                                dtype);
    }
    if (tg_dtype_parse_short(dtype, &x->dtype) &&
        (x->dtype == TG_F32 || x->dtype == TG_BF16 || x->dtype == TG_F16))
        return TG_OK;
    return tg_fail(err, TG_ERR_VALUE, "dtype: %s is written as f32, bf16 or f16, not %s",
                   x->target->name, dtype);
}

int tg_export_begin(struct tg_export *x, const struct tg_target *target,
                    const struct tg_export_source *in, const char *dtype, const char *tokenizer_dir,
                    struct tg_err *err)
{
    int rc;

    *x = (struct tg_export){.target = target, .in = in, .tokenizer_dir = tokenizer_dir};
    if ((rc = read_dtype(x, dtype, err)) || (rc = tg_spec_copy(&x->spec, in->spec, err)) ||
        (rc = target->adapt(x, err)) || (rc = tg_spec_check(&x->spec, target->name, err)) ||
        (rc = tg_params_of(&x->spec, &x->params, err)))
        tg_export_end(x);
    return rc;
}

void tg_export_end(struct tg_export *x)
{
    tg_params_release(&x->params);
    tg_spec_release(&x->spec);
    tg_remarks_release(&x->notes);
    *x = (struct tg_export){0};
}

int tg_export_param(const struct tg_export *x, size_t i, float *dst, struct tg_err *err)
{
    const struct tg_param *p = &x->params.items[i];

    return (x->target->fill ? x->target->fill : tg_export_same)(x, p, dst, err);
}

/* What would be infinite or NaN in the file */
static int check_values(const struct tg_tensor_plan *t, const float *data, size_t count,
                        const char *path, struct tg_err *err)
{
    const size_t at = tg_f32_beyond(data, count, tg_dtype_largest(t->dtype));

    if (at == count)
        return TG_OK;
    return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' is %g at element %zu, which %s cannot hold",
                   path, t->name, data[at], at, tg_dtype_info(t->dtype)->name);
}

static int write_tensors(const struct tg_export *x, const struct tg_stored_plan *plan,
                         const char *path, const struct tg_write_options *options,
                         const struct tg_progress *progress, struct tg_err *err)
{
    struct tg_fill_cache cache = {0};
    struct tg_tensor_writer *w = NULL;
    size_t t, done = 0;
    int rc = tg_tensor_writer_open(&w, path, plan->tensors, plan->count, options, err);

    while (rc == TG_OK && (t = tg_tensor_writer_next(w)) < plan->count) {
        const size_t n = tg_stored_elements(&plan->tensors[t]);
        float *data;
        if (tg_progress_tell(progress, "export", done++, plan->count, "tensors", NULL))
            rc = tg_fail(err, TG_ERR_INTERRUPTED, "%s: interrupted", path);
        else
            rc = tg_stored_build(plan, x, &cache, t, &data, err);
        if (rc)
            break;
        if (!(rc = check_values(&plan->tensors[t], data, n, path, err)))
            rc = tg_tensor_writer_put_f32(w, data, err);
        tg_free(data);
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, err);
    tg_tensor_writer_close(w);
    tg_fill_cache_release(&cache);
    return rc;
}

/* config.json, which must be read as the adapted spec */
static int make_config(const struct tg_export *x, struct tg_strbuf *text, struct tg_err *err)
{
    struct tg_model_spec back;
    struct tg_json_out j;
    char buf[512];
    int rc;

    tg_jout_init(&j, text, 2);
    tg_jout_object(&j, NULL);
    x->target->config(x, &j);
    tg_jout_end_object(&j);
    tg_strbuf_puts(text, "\n");
    if (text->failed)
        return tg_fail(err, TG_ERR_NOMEM, "config.json: out of memory");
    if ((rc = tg_config_parse(text->text, text->len, "config.json", &back, err)))
        return rc;
    const char *d = tg_export_difference(&x->spec, &back, buf, sizeof buf);
    tg_spec_release(&back);
    return d ? tg_fail(err, TG_ERR_MISMATCH, "%s: config.json would be read as another model: %s",
                       x->target->name, d)
             : TG_OK;
}

static int write_directory(const struct tg_export *x, const struct tg_stored_plan *plan,
                           const char *path, uint64_t max_shard, const struct tg_progress *progress,
                           struct tg_err *err)
{
    const struct tg_write_options options = {.max_shard = max_shard};
    char *file = tg_path_join(path, "config.json");
    struct tg_strbuf text;
    int rc;

    tg_strbuf_init(&text, MAX_CONFIG);
    rc = file ? make_config(x, &text, err) : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    if (rc == TG_OK)
        rc = write_tensors(x, plan, path, &options, progress, err);
    if (rc == TG_OK)
        rc = tg_file_write(file, text.text, text.len, err);
    tg_strbuf_release(&text);
    tg_free(file);
    return rc;
}

static int write_gguf(const struct tg_export *x, const struct tg_stored_plan *plan,
                      const char *path, const struct tg_progress *progress, struct tg_err *err)
{
    const struct tg_vocab_ends ends = {x->spec.bos_id, x->spec.eos_ids, x->spec.eos_count};
    struct tg_gguf_list keys = {0};
    int rc = TG_OK;

    x->target->keys(x, &keys);
    tg_gguf_mix_keys(x->mix, &keys);
    if (x->about)
        tg_export_about_keys(x->about, &x->spec, &keys);
    if (x->tokenizer_dir)
        rc = tg_gguf_vocab_of(x->tokenizer_dir, x->spec.vocab, &ends, &keys, err);
    else
        tg_gguf_vocab_none(&ends, &keys);
    if (rc == TG_OK && keys.failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    const struct tg_write_options options = {
        .format = &tg_format_gguf, .single = true, .kv = keys.items, .kvs = keys.count};
    if (rc == TG_OK)
        rc = write_tensors(x, plan, path, &options, progress, err);
    tg_gguf_list_release(&keys);
    return rc;
}

int tg_export_write(const struct tg_export *x, const char *path, uint64_t max_shard,
                    const struct tg_progress *progress, struct tg_err *err)
{
    struct tg_stored_plan plan;
    int rc = tg_stored_plan_make(&plan, x, err);

    if (rc)
        return rc;
    rc = x->target->gguf ? write_gguf(x, &plan, path, progress, err)
                         : write_directory(x, &plan, path, max_shard, progress, err);
    tg_stored_plan_release(&plan);
    return rc;
}

/* What the file should give for parameter i: each of its tensors rounded, and taken apart again */
static int expected(const struct tg_export *x, const struct tg_stored_plan *plan,
                    struct tg_fill_cache *cache, size_t i, float *dst, struct tg_err *err)
{
    int rc = TG_OK;

    for (size_t k = 0; k < plan->part_count && rc == TG_OK; k++) {
        const struct tg_stored_part *part = &plan->parts[k];
        if (part->param != i)
            continue;
        const struct tg_tensor_plan *t = &plan->tensors[part->tensor];
        const size_t n = tg_stored_elements(t);
        size_t bytes;
        float *data;
        if ((rc = tg_stored_build(plan, x, cache, part->tensor, &data, err)))
            break;
        void *raw = tg_dtype_bytes(t->dtype, n, &bytes) ? tg_alloc(bytes) : NULL;
        if (raw) {
            tg_dtype_from_f32(t->dtype, data, raw, n);
            tg_dtype_to_f32(t->dtype, raw, data, n);
            tg_layout_copy(&part->layout, data, dst);
        } else
            rc = tg_fail(err, TG_ERR_NOMEM, "tensor '%s': out of memory", t->name);
        tg_free(raw);
        tg_free(data);
    }
    return rc;
}

static int verify_param(const struct tg_export *x, const struct tg_stored_plan *plan,
                        struct tg_fill_cache *cache, const struct tg_checkpoint *c, size_t i,
                        struct tg_err *err)
{
    const struct tg_param *p = &x->params.items[i];
    const struct tg_param *q = tg_params_find(tg_checkpoint_params(c), p->name);
    const char *path = tg_checkpoint_path(c);

    if (!q || q->count != p->count)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: parameter '%s' did not come back", path, p->name);
    float *want = tg_alloc_floats(p->count), *got = tg_alloc_floats(p->count);
    int rc = want && got ? expected(x, plan, cache, i, want, err)
                         : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    if (rc == TG_OK)
        rc = tg_checkpoint_read(c, (size_t)(q - tg_checkpoint_params(c)->items), got, err);
    for (size_t e = 0; rc == TG_OK && e < p->count; e++)
        if (!(want[e] == got[e]))
            rc = tg_fail(err, TG_ERR_MISMATCH,
                         "%s: parameter '%s' came back as %.9g at element %zu, not as %.9g", path,
                         p->name, got[e], e, want[e]);
    tg_free(want);
    tg_free(got);
    return rc;
}

int tg_export_verify(const struct tg_export *x, const char *path, struct tg_err *err)
{
    struct tg_stored_plan plan;
    struct tg_fill_cache cache = {0};
    struct tg_checkpoint *c = NULL;
    char buf[512];
    const char *d;
    int rc = tg_stored_plan_make(&plan, x, err);

    if (rc)
        return rc;
    if (!(rc = tg_checkpoint_open(&c, path, err)) &&
        (d = tg_export_difference(&x->spec, tg_checkpoint_spec(c), buf, sizeof buf)))
        rc = tg_fail(err, TG_ERR_MISMATCH, "%s: came back as another model: %s", path, d);
    for (size_t i = 0; i < x->params.count && rc == TG_OK; i++)
        rc = verify_param(x, &plan, &cache, c, i, err);
    tg_checkpoint_close(c);
    tg_fill_cache_release(&cache);
    tg_stored_plan_release(&plan);
    return rc;
}
