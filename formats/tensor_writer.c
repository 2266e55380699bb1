/* Streaming safetensors writer: headers are computed from the plan, so data passes through once and
 * is never held. Files keep their temporary names until the whole plan has arrived. */
#include "formats/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "formats/safetensors.h"

enum { CHUNK = 1 << 15 }; /* elements converted at a time */

struct item {
    size_t plan;  /* index in the caller's plan */
    size_t shard; /* file that holds it */
    struct tg_tensor_plan t;
    size_t elements, bytes;
};

struct shard {
    char *path;
    struct tg_out *out;
    bool committed;
};

struct tg_tensor_writer {
    struct item *items; /* in the order of writing; names are owned */
    size_t count, next;
    struct shard *shards;
    size_t shard_count, open; /* open: shards begun */
    char *index;              /* path of the index, NULL for one file */
    char *path;               /* as the caller gave it; owned */
    struct tg_meta *meta;     /* owned copies */
    size_t metas;
    unsigned char *chunk;
    bool failed;
};

static int fail_memory(const char *path, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
}

static int copy_item(struct tg_tensor_writer *w, const struct tg_tensor_plan *p, struct tg_err *err)
{
    struct item *it = &w->items[w->count];
    char shape[200];
    if (p->rank < 0 || p->rank > TG_MAX_RANK)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: tensor '%s': %d dimensions, at most %d are supported", w->path, p->name,
                       p->rank, TG_MAX_RANK);
    if (tg_utf8_check(p->name, strlen(p->name)) != strlen(p->name) ||
        strcmp(p->name, "__metadata__") == 0)
        return tg_fail(err, TG_ERR_VALUE, "%s: '%s' cannot be the name of a tensor", w->path,
                       p->name);
    if (!tg_tensor_measure(p->dtype, p->rank, p->shape, &it->elements, &it->bytes))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: tensor '%s': %s %s overflows or does not fill whole bytes", w->path,
                       p->name, tg_dtype_info(p->dtype)->name,
                       tg_shape_text(p->shape, p->rank, shape, sizeof shape));
    it->t = *p;
    it->t.name = tg_strdup(p->name);
    if (!it->t.name)
        return fail_memory(w->path, err);
    it->plan = w->count++;
    return TG_OK;
}

static int item_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct item *const *)a)->t.name,
                  (*(const struct item *const *)b)->t.name);
}

static int check_unique(const struct tg_tensor_writer *w, struct tg_err *err)
{
    int rc = TG_OK;
    const struct item **sorted = tg_alloc_array(w->count, sizeof *sorted);
    if (!sorted)
        return fail_memory(w->path, err);
    for (size_t i = 0; i < w->count; i++)
        sorted[i] = &w->items[i];
    if (w->count > 1)
        qsort(sorted, w->count, sizeof *sorted, item_by_name);
    for (size_t i = 1; i < w->count && rc == TG_OK; i++) {
        if (strcmp(sorted[i - 1]->t.name, sorted[i]->t.name) == 0)
            rc = tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' stands twice in the plan", w->path,
                         sorted[i]->t.name);
    }
    tg_free(sorted);
    return rc;
}

/* Alignment of a type: its size if that is whole bytes, else 1. */
static unsigned alignment(enum tg_dtype t)
{
    unsigned bits = tg_dtype_info(t)->bits;
    return bits % 8 == 0 ? bits / 8 : 1;
}

static int item_by_place(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    unsigned p = alignment(x->t.dtype), q = alignment(y->t.dtype);
    if (p != q)
        return p > q ? -1 : 1;
    return (x->plan > y->plan) - (x->plan < y->plan);
}

/* Fills shards in plan order up to the limit; a tensor larger than it gets a shard of its own. */
static void assign_shards(struct tg_tensor_writer *w, uint64_t max_shard)
{
    uint64_t used = 0;
    w->shard_count = 1;
    for (size_t i = 0; i < w->count; i++) {
        uint64_t bytes = w->items[i].bytes;
        if (max_shard > 0 && used > 0 && (bytes > max_shard || used > max_shard - bytes)) {
            w->shard_count++;
            used = 0;
        }
        w->items[i].shard = w->shard_count - 1;
        used += bytes;
    }
    if (w->count > 1)
        qsort(w->items, w->count, sizeof *w->items, item_by_place);
}

static int name_shards(struct tg_tensor_writer *w, bool single, struct tg_err *err)
{
    w->shards = tg_alloc_array(w->shard_count, sizeof *w->shards);
    if (!w->shards)
        return fail_memory(w->path, err);
    for (size_t i = 0; i < w->shard_count; i++) {
        char name[64] = "model.safetensors";
        if (w->shard_count > 1)
            snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, w->shard_count);
        w->shards[i].path = single ? tg_strdup(w->path) : tg_path_join(w->path, name);
        if (!w->shards[i].path)
            return fail_memory(w->path, err);
    }
    if (w->shard_count > 1 && !(w->index = tg_path_join(w->path, "model.safetensors.index.json")))
        return fail_memory(w->path, err);
    return TG_OK;
}

static int copy_meta(struct tg_tensor_writer *w, const struct tg_meta *meta, size_t metas,
                     struct tg_err *err)
{
    w->meta = tg_alloc_array(metas + 1, sizeof *w->meta);
    bool ok = w->meta != NULL, has_format = false;
    for (size_t i = 0; ok && i < metas; i++) {
        has_format = has_format || strcmp(meta[i].key, "format") == 0;
        w->meta[w->metas].key = tg_strdup(meta[i].key);
        w->meta[w->metas].value = tg_strdup(meta[i].value);
        ok = w->meta[w->metas].key && w->meta[w->metas].value;
        w->metas++;
    }
    if (ok && !has_format) {
        w->meta[w->metas].key = tg_strdup("format");
        w->meta[w->metas].value = tg_strdup("pt"); /* transformers refuses a file without it */
        ok = w->meta[w->metas].key && w->meta[w->metas].value;
        w->metas++;
    }
    return ok ? TG_OK : fail_memory(w->path, err);
}

static void put_entry(struct tg_json_out *j, const struct item *it, uint64_t at)
{
    tg_jout_object(j, it->t.name);
    tg_jout_str(j, "dtype", tg_dtype_info(it->t.dtype)->name);
    tg_jout_array(j, "shape");
    for (int d = 0; d < it->t.rank; d++)
        tg_jout_int(j, NULL, it->t.shape[d]);
    tg_jout_end_array(j);
    tg_jout_array(j, "data_offsets");
    tg_jout_int(j, NULL, (int64_t)at);
    tg_jout_int(j, NULL, (int64_t)(at + it->bytes));
    tg_jout_end_array(j);
    tg_jout_end_object(j);
}

/* Opens the next shard and writes its header; its items begin at w->next. */
static int begin_shard(struct tg_tensor_writer *w, struct tg_err *err)
{
    struct shard *s = &w->shards[w->open];
    struct tg_strbuf text;
    struct tg_json_out j;
    uint64_t at = 0;
    int rc = tg_out_open(&s->out, s->path, err);
    if (rc != TG_OK)
        return rc;
    tg_strbuf_init(&text, TG_SAFETENSORS_HEADER_MAX);
    tg_jout_init(&j, &text, 0);
    tg_jout_object(&j, NULL);
    tg_jout_object(&j, "__metadata__");
    for (size_t i = 0; i < w->metas; i++)
        tg_jout_str(&j, w->meta[i].key, w->meta[i].value);
    tg_jout_end_object(&j);
    for (size_t i = w->next; i < w->count && w->items[i].shard == w->open; i++) {
        put_entry(&j, &w->items[i], at);
        at += w->items[i].bytes;
    }
    tg_jout_end_object(&j);
    while (!text.failed && text.len % 8 != 0)
        tg_strbuf_puts(&text, " ");
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)text.len >> (8 * i));
    if (text.failed)
        rc = tg_fail(err, TG_ERR_VALUE,
                     "%s: the header would be larger than %d bytes, or memory is exhausted",
                     s->path, TG_SAFETENSORS_HEADER_MAX);
    else if ((rc = tg_out_write(s->out, length, 8, err)) == TG_OK)
        rc = tg_out_write(s->out, text.text, text.len, err);
    tg_strbuf_release(&text);
    w->open++;
    return rc;
}

/* Begins shards until that of the next item is open; at the end of the plan, all of them (the only
 * one, if the plan is empty). */
static int advance(struct tg_tensor_writer *w, struct tg_err *err)
{
    while (w->open < w->shard_count &&
           (w->next == w->count || w->items[w->next].shard >= w->open)) {
        int rc = begin_shard(w, err);
        if (rc != TG_OK)
            return rc;
    }
    return TG_OK;
}

int tg_tensor_writer_open(struct tg_tensor_writer **out, const char *path, bool single,
                          const struct tg_tensor_plan *plan, size_t count, uint64_t max_shard,
                          const struct tg_meta *meta, size_t metas, struct tg_err *err)
{
    struct tg_tensor_writer *w = tg_alloc(sizeof *w);
    *out = NULL;
    if (!w)
        return fail_memory(path, err);
    w->path = tg_strdup(path);
    w->items = tg_alloc_array(count, sizeof *w->items);
    w->chunk = tg_alloc(CHUNK * sizeof(double)); /* the widest type */
    int rc = w->path && w->items && w->chunk ? TG_OK : fail_memory(path, err);
    for (size_t i = 0; i < count && rc == TG_OK; i++)
        rc = copy_item(w, &plan[i], err);
    if (rc == TG_OK)
        rc = check_unique(w, err);
    if (rc == TG_OK)
        rc = copy_meta(w, meta, metas, err);
    if (rc == TG_OK) {
        assign_shards(w, single ? 0 : max_shard);
        rc = name_shards(w, single, err);
    }
    if (rc == TG_OK)
        rc = advance(w, err);
    if (rc != TG_OK) {
        tg_tensor_writer_close(w);
        return rc;
    }
    *out = w;
    return TG_OK;
}

size_t tg_tensor_writer_next(const struct tg_tensor_writer *w)
{
    return w->next < w->count ? w->items[w->next].plan : w->count;
}

/* The item to be written now, NULL with an error when all are written. */
static const struct item *current(const struct tg_tensor_writer *w, struct tg_err *err)
{
    if (w->next < w->count)
        return &w->items[w->next];
    tg_fail(err, TG_ERR_VALUE, "%s: more tensors than planned", w->path);
    return NULL;
}

static int item_done(struct tg_tensor_writer *w, int rc, struct tg_err *err)
{
    if (rc == TG_OK) {
        w->next++;
        if (w->next < w->count)
            rc = advance(w, err);
    }
    w->failed = w->failed || rc != TG_OK;
    return rc;
}

int tg_tensor_writer_put_f32(struct tg_tensor_writer *w, const float *data, struct tg_err *err)
{
    const struct item *it = current(w, err);
    int rc = TG_OK;
    if (!it)
        return TG_ERR_VALUE;
    const struct tg_dtype_info *info = tg_dtype_info(it->t.dtype);
    if (!info->is_float)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': float32 cannot be written as %s",
                       w->path, it->t.name, info->name);
    struct tg_out *o = w->shards[it->shard].out;
    for (size_t at = 0; at < it->elements && rc == TG_OK; at += CHUNK) {
        size_t n = it->elements - at < CHUNK ? it->elements - at : CHUNK;
        tg_dtype_from_f32(it->t.dtype, data + at, w->chunk, n);
        rc = tg_out_write(o, w->chunk, n * (info->bits / 8), err);
    }
    return item_done(w, rc, err);
}

int tg_tensor_writer_put_raw(struct tg_tensor_writer *w, const void *data, struct tg_err *err)
{
    const struct item *it = current(w, err);
    if (!it)
        return TG_ERR_VALUE;
    return item_done(w, tg_out_write(w->shards[it->shard].out, data, it->bytes, err), err);
}

static int write_index(const struct tg_tensor_writer *w, struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out j;
    uint64_t size = 0, parameters = 0;
    for (size_t i = 0; i < w->count; i++) {
        size += w->items[i].bytes;
        parameters += w->items[i].elements;
    }
    tg_strbuf_init(&text, SIZE_MAX / 2);
    tg_jout_init(&j, &text, 2);
    tg_jout_object(&j, NULL);
    tg_jout_object(&j, "metadata");
    tg_jout_int(&j, "total_parameters", (int64_t)parameters);
    tg_jout_int(&j, "total_size", (int64_t)size);
    tg_jout_end_object(&j);
    tg_jout_object(&j, "weight_map");
    for (size_t i = 0; i < w->count; i++)
        tg_jout_str(&j, w->items[i].t.name, tg_path_base(w->shards[w->items[i].shard].path));
    tg_jout_end_object(&j);
    tg_jout_end_object(&j);
    tg_strbuf_puts(&text, "\n");
    int rc = text.failed ? fail_memory(w->index, err)
                         : tg_file_write(w->index, text.text, text.len, err);
    tg_strbuf_release(&text);
    return rc;
}

int tg_tensor_writer_finish(struct tg_tensor_writer *w, struct tg_err *err)
{
    if (w->failed)
        return tg_fail(err, TG_ERR_IO, "%s: writing failed before", w->path);
    if (w->next < w->count)
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' was not written", w->path,
                       w->items[w->next].t.name);
    w->failed = true; /* until all is in place */
    for (size_t i = 0; i < w->shard_count; i++) {
        int rc = tg_out_commit(w->shards[i].out, err);
        if (rc != TG_OK)
            return rc;
        w->shards[i].committed = true;
    }
    int rc = w->index ? write_index(w, err) : TG_OK;
    w->failed = rc != TG_OK;
    return rc;
}

void tg_tensor_writer_close(struct tg_tensor_writer *w)
{
    if (!w)
        return;
    for (size_t i = 0; w->shards && i < w->shard_count; i++) {
        tg_out_close(w->shards[i].out);
        if (w->failed && w->shards[i].committed)
            unlink(w->shards[i].path); /* a set of shards without its index is nobody's */
        tg_free(w->shards[i].path);
    }
    for (size_t i = 0; w->items && i < w->count; i++)
        tg_free((char *)w->items[i].t.name);
    for (size_t i = 0; w->meta && i < w->metas; i++) {
        tg_free((char *)w->meta[i].key);
        tg_free((char *)w->meta[i].value);
    }
    tg_free(w->shards);
    tg_free(w->items);
    tg_free(w->meta);
    tg_free(w->index);
    tg_free(w->path);
    tg_free(w->chunk);
    tg_free(w);
}
