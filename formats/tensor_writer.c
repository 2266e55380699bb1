/* Streaming writer of any format: a plan of all tensors is checked and cut into files, each begun
 * by the format's row, so data passes through once and is never held. Files keep their temporary
 * names until the whole plan has arrived. */
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
#include "formats/format.h"

enum { CHUNK = 1 << 15 }; /* elements converted at a time */

const struct tg_write_options tg_write_single = {.single = true};

struct item {
    size_t plan;  /* index in the caller's plan */
    size_t shard; /* file that holds it */
    struct tg_tensor_plan t;
    size_t elements, bytes;
};

struct shard {
    char *path;
    struct tg_format_out f;
    size_t first; /* its items: [first, first + f.count) */
    bool committed;
};

struct tg_tensor_writer {
    const struct tg_format *format;
    struct tg_write_options options;
    struct item *items;                  /* in the order of writing; names are owned */
    const struct tg_tensor_plan **plans; /* [count] of items, for the format */
    size_t count, next;
    size_t arrived; /* bytes of the next item */
    struct shard *shards;
    size_t shard_count, open; /* open: shards begun */
    char *index;              /* path of the index, NULL for one file or a format without */
    char *path;               /* as the caller gave it; owned */
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
    if (!w->format->holds(p->dtype))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s files do not hold %s", w->path,
                       p->name, w->format->name, tg_dtype_info(p->dtype)->name);
    if (!tg_tensor_measure(p->dtype, p->rank, p->shape, &it->elements, &it->bytes))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: tensor '%s': %s %s overflows or does not fill whole bytes", w->path,
                       p->name, tg_dtype_info(p->dtype)->name,
                       tg_shape_text(p->shape, p->rank, shape, sizeof shape));
    int rc = w->format->accepts ? w->format->accepts(p, w->path, err) : TG_OK;
    if (rc != TG_OK)
        return rc;
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

/* Merge sort by shard, then the format's order; equal ones stay as they are. */
static bool comes_after(const struct tg_format *f, const struct item *a, const struct item *b)
{
    if (a->shard != b->shard)
        return a->shard > b->shard;
    return f->order && f->order(&a->t, &b->t) > 0;
}

static void sort_items(const struct tg_format *f, struct item *items, size_t n, struct item *space)
{
    if (n < 2)
        return;
    const size_t half = n / 2;
    sort_items(f, items, half, space);
    sort_items(f, items + half, n - half, space);
    memcpy(space, items, half * sizeof *items);
    for (size_t a = 0, b = half, to = 0; a < half; to++)
        items[to] = b < n && comes_after(f, &space[a], &items[b]) ? items[b++] : space[a++];
}

/* Fills shards in plan order up to the limit; a tensor larger than it gets a shard of its own. */
static int assign_shards(struct tg_tensor_writer *w, uint64_t max_shard, struct tg_err *err)
{
    struct item *space = tg_alloc_array(w->count / 2 + 1, sizeof *space);
    uint64_t used = 0;
    if (!space)
        return fail_memory(w->path, err);
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
    sort_items(w->format, w->items, w->count, space);
    tg_free(space);
    return TG_OK;
}

/* The row's pattern is a literal of ours that takes two size_t. */
static void shard_name(const struct tg_format *f, size_t i, size_t n, char *buf, size_t size)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(buf, size, f->shard, i, n);
#pragma GCC diagnostic pop
}

static int name_shards(struct tg_tensor_writer *w, struct tg_err *err)
{
    const struct tg_format *f = w->format;
    w->shards = tg_alloc_array(w->shard_count, sizeof *w->shards);
    w->plans = tg_alloc_array(w->count, sizeof *w->plans);
    if (!w->shards || !w->plans)
        return fail_memory(w->path, err);
    for (size_t i = 0, at = 0; i < w->shard_count; i++) {
        struct shard *s = &w->shards[i];
        char name[128];
        if (w->shard_count > 1)
            shard_name(f, i + 1, w->shard_count, name, sizeof name);
        else
            snprintf(name, sizeof name, "%s", f->single);
        s->path = w->options.single ? tg_strdup(w->path) : tg_path_join(w->path, name);
        if (!s->path)
            return fail_memory(w->path, err);
        s->first = at;
        while (at < w->count && w->items[at].shard == i) {
            w->plans[at] = &w->items[at].t;
            at++;
        }
        s->f = (struct tg_format_out){.path = s->path,
                                      .tensors = w->plans + s->first,
                                      .count = at - s->first,
                                      .part = i,
                                      .parts = w->shard_count,
                                      .total = w->count,
                                      .options = &w->options};
    }
    if (w->shard_count > 1 && f->index && !(w->index = tg_path_join(w->path, f->index)))
        return fail_memory(w->path, err);
    return TG_OK;
}

static int begin_shard(struct tg_tensor_writer *w, struct tg_err *err)
{
    struct shard *s = &w->shards[w->open++];
    int rc = tg_out_open(&s->f.out, s->path, err);
    return rc == TG_OK ? w->format->begin(&s->f, err) : rc;
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

int tg_tensor_writer_open(struct tg_tensor_writer **out, const char *path,
                          const struct tg_tensor_plan *plan, size_t count,
                          const struct tg_write_options *options, struct tg_err *err)
{
    struct tg_tensor_writer *w = tg_alloc(sizeof *w);
    *out = NULL;
    if (!w)
        return fail_memory(path, err);
    w->options = options ? *options : (struct tg_write_options){0};
    w->format = w->options.format ? w->options.format : &tg_format_safetensors;
    w->path = tg_strdup(path);
    w->items = tg_alloc_array(count, sizeof *w->items);
    w->chunk = tg_alloc(CHUNK * sizeof(double)); /* the widest type */
    int rc = w->path && w->items && w->chunk ? TG_OK : fail_memory(path, err);
    if (rc == TG_OK && !w->format->begin)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "%s: %s files are only read", path, w->format->name);
    for (size_t i = 0; i < count && rc == TG_OK; i++)
        rc = copy_item(w, &plan[i], err);
    if (rc == TG_OK)
        rc = check_unique(w, err);
    if (rc == TG_OK)
        rc = assign_shards(w, w->options.single ? 0 : w->options.max_shard, err);
    if (rc == TG_OK)
        rc = name_shards(w, err);
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

size_t tg_tensor_writer_at(const struct tg_tensor_writer *w, size_t i)
{
    return w->items[i].plan;
}

/* The item to be written now, NULL with an error when all are written. */
static const struct item *current(const struct tg_tensor_writer *w, struct tg_err *err)
{
    if (w->next < w->count)
        return &w->items[w->next];
    tg_fail(err, TG_ERR_VALUE, "%s: more tensors than planned", w->path);
    return NULL;
}

static int piece(struct tg_tensor_writer *w, const struct item *it, const void *data, size_t n,
                 struct tg_err *err)
{
    const struct tg_format *format = w->format;
    struct shard *s = &w->shards[it->shard];
    int rc = TG_OK;
    if (w->arrived == 0 && format->before)
        rc = format->before(&s->f, w->next - s->first, err);
    if (rc == TG_OK && n)
        rc = format->write ? format->write(&s->f, data, n, err)
                           : tg_out_write(s->f.out, data, n, err);
    w->arrived += n;
    return rc;
}

static int item_done(struct tg_tensor_writer *w, int rc, struct tg_err *err)
{
    if (rc == TG_OK && w->format->after) {
        struct shard *s = &w->shards[w->items[w->next].shard];
        rc = w->format->after(&s->f, w->next - s->first, err);
    }
    if (rc == TG_OK) {
        w->next++;
        w->arrived = 0;
        if (w->next < w->count)
            rc = advance(w, err);
    }
    w->failed = w->failed || rc != TG_OK;
    return rc;
}

int tg_tensor_writer_put_f32(struct tg_tensor_writer *w, const float *data, struct tg_err *err)
{
    const struct item *it = current(w, err);
    if (!it)
        return TG_ERR_VALUE;
    const struct tg_dtype_info *info = tg_dtype_info(it->t.dtype);
    if (!info->from_f32)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': float32 cannot be written as %s",
                       w->path, it->t.name, info->name);
    int rc = it->elements ? TG_OK : piece(w, it, NULL, 0, err);
    for (size_t at = 0; at < it->elements && rc == TG_OK; at += CHUNK) {
        size_t n = it->elements - at < CHUNK ? it->elements - at : CHUNK;
        tg_dtype_from_f32(it->t.dtype, data + at, w->chunk, n);
        rc = piece(w, it, w->chunk, n / info->block * info->block_bytes, err);
    }
    return item_done(w, rc, err);
}

int tg_tensor_writer_put_raw(struct tg_tensor_writer *w, const void *data, struct tg_err *err)
{
    const struct item *it = current(w, err);
    return it ? item_done(w, piece(w, it, data, it->bytes, err), err) : TG_ERR_VALUE;
}

int tg_tensor_writer_put_piece(struct tg_tensor_writer *w, const void *data, size_t n,
                               struct tg_err *err)
{
    const struct item *it = current(w, err);
    if (!it)
        return TG_ERR_VALUE;
    if (n > it->bytes - w->arrived)
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' has %zu bytes, more were put", w->path,
                       it->t.name, it->bytes);
    if (n == 0 && it->bytes) /* else the row would begin the tensor twice */
        return TG_OK;
    int rc = piece(w, it, data, n, err);
    if (rc != TG_OK || w->arrived == it->bytes)
        return item_done(w, rc, err);
    return TG_OK;
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
        struct tg_format_out *f = &w->shards[i].f;
        int rc = w->format->end ? w->format->end(f, err) : TG_OK;
        if (rc == TG_OK)
            rc = tg_out_commit(f->out, err);
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
        if (w->format->close)
            w->format->close(&w->shards[i].f);
        tg_out_close(w->shards[i].f.out);
        if (w->failed && w->shards[i].committed)
            unlink(w->shards[i].path); /* a set of shards without its index is nobody's */
        tg_free(w->shards[i].path);
    }
    for (size_t i = 0; w->items && i < w->count; i++)
        tg_free((char *)w->items[i].t.name);
    tg_free(w->shards);
    tg_free(w->items);
    tg_free(w->plans);
    tg_free(w->index);
    tg_free(w->path);
    tg_free(w->chunk);
    tg_free(w);
}
