#include "convert/repack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pipeline.h"
#include "convert/names.h"
#include "convert/scaled.h"
#include "formats/format.h"
#include "formats/gguf.h"

enum {
    PIECE = 1 << 20, /* elements of one item: whole blocks of every type */
    STEP = 1 << 12,  /* elements converted at a time, so that they stay in the cache */
};

/* Elements [first, first + count) of row `row`. */
struct item {
    size_t row, first, count;
};

struct slot {
    unsigned char *space, *out; /* as stored, as written; owned */
    const void *bytes;          /* what is written: out, or the mapping itself */
    size_t n;
};

struct tg_repack {
    struct tg_repack_options options;
    const struct tg_tensors *in;
    struct tg_repack_row *rows;
    size_t count;
    /* while writing */
    struct tg_tensor_writer *w;
    struct item *items;
    size_t item_count, item_cap;
    struct slot *slots;
    float *scratch; /* [threads, STEP] */
    const struct tg_progress *progress;
    uint64_t done, total;
};

static bool any_like(const char *const *patterns, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (tg_name_like(patterns[i], name))
            return true;
    return false;
}

/* What engines read in float32 when the large matrices are quantised: vectors, norms, decays, short
 * convolutions, routers. */
static bool stays_f32(const struct tg_tensor *t)
{
    static const char *const names[] = {
        "*norm*",  "*A_log",         "*dt_bias",      "*conv1d*",
        "*.sinks", "*router.weight", "*.gate.weight", "*ffn_gate_inp*.weight",
        "*ssm_a"};
    return t->rank <= 1 || any_like(names, sizeof names / sizeof *names, t->name);
}

/* The nearest type that a row of this length fits into */
static enum tg_dtype fit_block(const struct tg_tensor *t, enum tg_dtype dtype, const char **why)
{
    const size_t row = t->rank ? (size_t)t->shape[t->rank - 1] : 1;
    if (row % tg_dtype_info(dtype)->block == 0)
        return dtype;
    *why = "its rows are no whole number of blocks";
    return row % tg_dtype_info(TG_Q8_0)->block == 0 ? TG_Q8_0 : TG_F16;
}

static enum tg_dtype target_of(const struct tg_repack *r, const struct tg_tensor *t,
                               const char **why)
{
    const enum tg_dtype dtype = r->options.dtype;
    const bool blocks = tg_dtype_info(dtype)->block >= 32;
    *why = NULL;
    if (r->options.keep)
        return t->dtype;
    if (!tg_dtype_info(t->dtype)->is_float) {
        *why = "not a floating type";
        return t->dtype;
    }
    if ((blocks || !r->options.to->index) && dtype != TG_F32 && stays_f32(t)) {
        *why = "engines read it in float32";
        return TG_F32;
    }
    return blocks ? fit_block(t, dtype, why) : dtype;
}

/* Weights whose scales lie in tensors of their own mean nothing by themselves: another dtype would
 * lose the scales without a word. */
static int refuse_scaled(const struct tg_tensor *t, struct tg_err *err)
{
    static const struct tg_scaling any = {.fp8 = true, .mxfp4 = true};
    if (!tg_scaling_takes(&any, t->name) && !tg_name_quantised(t->name))
        return TG_OK;
    return tg_fail(
        err, TG_ERR_UNSUPPORTED,
        "%s: tensor '%s' belongs to weights that are quantised with scales of their own; "
        "only --dtype keep converts such files",
        t->file, t->name);
}

static int plan_row(const struct tg_repack *r, const struct tg_tensor *t, struct tg_repack_row *row,
                    struct tg_err *err)
{
    size_t elements;
    *row = (struct tg_repack_row){.tensor = t};
    const int rc = r->options.keep ? TG_OK : refuse_scaled(t, err);
    if (rc != TG_OK)
        return rc;
    row->dtype = target_of(r, t, &row->why);
    const struct tg_dtype_info *to = tg_dtype_info(row->dtype);
    if (!r->options.to->holds(row->dtype))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s files do not hold %s%s",
                       t->file, t->name, r->options.to->name, to->name,
                       r->options.keep ? "; --dtype converts it" : "");
    if (row->dtype != t->dtype && !to->from_f32)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %s cannot be made from %s",
                       t->file, t->name, to->name, tg_dtype_info(t->dtype)->name);
    if (!tg_tensor_measure(row->dtype, t->rank, t->shape, &elements, &row->bytes))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "%s: tensor '%s': %zu elements do not fill %s",
                       t->file, t->name, t->elements, to->name);
    return TG_OK;
}

int tg_repack_plan(struct tg_repack **out, const struct tg_tensors *in,
                   const struct tg_repack_options *options, struct tg_err *err)
{
    struct tg_repack *r = tg_alloc(sizeof *r);
    int rc = TG_OK;
    *out = NULL;
    if (r)
        r->rows = tg_alloc_array(tg_tensors_count(in) + 1, sizeof *r->rows);
    if (!r || !r->rows) {
        tg_free(r);
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a plan of %zu tensors",
                       tg_tensors_count(in));
    }
    r->in = in;
    r->options = *options;
    if (!r->options.to)
        r->options.to = tg_tensors_format(in);
    if (!r->options.to->begin)
        rc = tg_fail(err, TG_ERR_UNSUPPORTED, "%s files are only read", r->options.to->name);
    for (size_t i = 0; i < tg_tensors_count(in) && rc == TG_OK; i++) {
        const struct tg_tensor *t = tg_tensors_at(in, i);
        if (options->onlys && !any_like(options->only, options->onlys, t->name))
            continue;
        if (any_like(options->exclude, options->excludes, t->name))
            continue;
        rc = plan_row(r, t, &r->rows[r->count], err);
        r->count++;
    }
    if (rc == TG_OK && !r->count)
        rc = tg_fail(err, TG_ERR_VALUE, "%s: no tensor is left by --only and --exclude",
                     tg_tensors_file_count(in) ? tg_tensors_file(in, 0) : "input");
    if (rc != TG_OK) {
        tg_repack_free(r);
        return rc;
    }
    *out = r;
    return TG_OK;
}

void tg_repack_free(struct tg_repack *r)
{
    if (!r)
        return;
    tg_free(r->rows);
    tg_free(r);
}

size_t tg_repack_count(const struct tg_repack *r)
{
    return r->count;
}

const struct tg_repack_row *tg_repack_row(const struct tg_repack *r, size_t i)
{
    return &r->rows[i];
}

/* ---- writing ---- */

static int fail_value(const struct tg_repack_row *row, size_t element, float value,
                      struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' is %g at element %zu, which %s cannot hold",
                   row->tensor->file, row->tensor->name, (double)value, element,
                   tg_dtype_info(row->dtype)->name);
}

/* Quantised types hold no NaN and no infinity; the others hold what they are given. */
static int check_values(const struct tg_repack_row *row, size_t first, const float *x, size_t n,
                        struct tg_err *err)
{
    const bool blocks = tg_dtype_info(row->dtype)->block > 1;
    const float largest = tg_dtype_largest(row->dtype);
    int bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= !(fabsf(x[i]) <= largest);
    for (size_t i = 0; bad && i < n; i++)
        if ((isfinite(x[i]) && fabsf(x[i]) > largest) || (blocks && !isfinite(x[i])))
            return fail_value(row, first + i, x[i], err);
    return TG_OK;
}

static int convert(struct tg_repack *r, const struct item *it, const unsigned char *from,
                   unsigned char *to, int worker, struct tg_err *err)
{
    const struct tg_repack_row *row = &r->rows[it->row];
    const struct tg_dtype_info *a = tg_dtype_info(row->tensor->dtype),
                               *b = tg_dtype_info(row->dtype);
    float *x = r->scratch + (size_t)worker * STEP;
    for (size_t at = 0; at < it->count; at += STEP) {
        const size_t n = it->count - at < STEP ? it->count - at : STEP;
        tg_dtype_to_f32(row->tensor->dtype, from + at / a->block * a->block_bytes, x, n);
        const int rc = check_values(row, it->first + at, x, n, err);
        if (rc != TG_OK)
            return rc;
        tg_dtype_from_f32(row->dtype, x, to + at / b->block * b->block_bytes, n);
    }
    return TG_OK;
}

static int make(void *ud, size_t item, size_t slot, int worker, struct tg_err *err)
{
    struct tg_repack *r = ud;
    const struct item *it = &r->items[item];
    const struct tg_repack_row *row = &r->rows[it->row];
    struct slot *s = &r->slots[slot];
    const void *stored;
    tg_dtype_bytes(row->dtype, it->count, &s->n);
    tg_tensors_fetch(r->in, row->tensor, it->first, it->count);
    int rc = tg_tensor_view(row->tensor, it->first, it->count, s->space, &stored, err);
    if (rc != TG_OK || row->dtype == row->tensor->dtype) {
        s->bytes = stored;
        return rc;
    }
    s->bytes = s->out;
    return convert(r, it, stored, s->out, worker, err);
}

static int use(void *ud, size_t item, size_t slot, struct tg_err *err)
{
    struct tg_repack *r = ud;
    const struct item *it = &r->items[item];
    const struct slot *s = &r->slots[slot];
    int rc = tg_tensor_writer_put_piece(r->w, s->bytes, s->n, err);
    tg_tensors_forget(r->in, r->rows[it->row].tensor, it->first, it->count);
    r->done += s->n;
    if (rc == TG_OK && tg_progress_tell(r->progress, "convert", r->done, r->total, "bytes", NULL))
        rc = tg_fail(err, TG_ERR_INTERRUPTED, "stopped");
    return rc;
}

static int list_items(struct tg_repack *r, struct tg_err *err)
{
    for (size_t i = 0; i < r->count; i++) {
        const size_t row = tg_tensor_writer_at(r->w, i), n = r->rows[row].tensor->elements;
        for (size_t at = 0; at == 0 || at < n; at += PIECE) {
            if (!tg_grow(&r->items, &r->item_cap, r->item_count + 1, sizeof *r->items))
                return tg_fail(err, TG_ERR_NOMEM, "no memory for a list of pieces");
            r->items[r->item_count++] =
                (struct item){row, at, n - at < PIECE ? n - at : (size_t)PIECE};
        }
        r->total += r->rows[row].bytes;
    }
    return TG_OK;
}

static int run(struct tg_repack *r, struct tg_err *err)
{
    const size_t threads = r->options.threads > 1 ? (size_t)r->options.threads : 1,
                 slots = threads > 1 ? threads + 2 : 1, most = (size_t)PIECE * 8;
    int rc = list_items(r, err);
    r->slots = tg_alloc_array(slots, sizeof *r->slots);
    r->scratch = tg_alloc_floats(threads * STEP);
    bool ok = r->slots && r->scratch;
    for (size_t i = 0; ok && i < slots; i++)
        ok = (r->slots[i].space = tg_alloc(most)) && (r->slots[i].out = tg_alloc(most));
    if (!ok && rc == TG_OK)
        rc = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu pieces of %zu bytes", slots, most);
    const struct tg_pipeline p = {
        .items = r->item_count,
        .threads = (int)threads,
        .slots = slots,
        .make = make,
        .use = use,
        .ud = r,
    };
    if (rc == TG_OK)
        rc = tg_pipeline_run(&p, err);
    for (size_t i = 0; r->slots && i < slots; i++) {
        tg_free(r->slots[i].space);
        tg_free(r->slots[i].out);
    }
    tg_free(r->slots);
    tg_free(r->scratch);
    tg_free(r->items);
    r->slots = NULL;
    r->scratch = NULL;
    r->items = NULL;
    r->item_count = r->item_cap = 0;
    return rc;
}

int tg_repack_write(struct tg_repack *r, const char *path, const struct tg_progress *progress,
                    struct tg_err *err)
{
    struct tg_write_options options = {
        .format = r->options.to, .single = r->options.single, .max_shard = r->options.max_shard};
    struct tg_gguf_kv *kv = NULL; /* from GGUF to GGUF the metadata go along */
    struct tg_tensor_plan *plan = tg_alloc_array(r->count, sizeof *plan);
    if (!plan)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a plan of %zu tensors", r->count);
    for (size_t i = 0; i < r->count; i++) {
        const struct tg_tensor *t = r->rows[i].tensor;
        plan[i] =
            (struct tg_tensor_plan){.name = t->name, .dtype = r->rows[i].dtype, .rank = t->rank};
        memcpy(plan[i].shape, t->shape, sizeof plan[i].shape);
    }
    r->progress = progress;
    r->done = r->total = 0;
    int rc = tg_gguf_keys(r->in, !r->options.keep, &kv, &options.kvs, err);
    options.kv = kv;
    if (rc == TG_OK)
        rc = tg_tensor_writer_open(&r->w, path, plan, r->count, &options, err);
    if (rc == TG_OK)
        rc = run(r, err);
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(r->w, err);
    tg_tensor_writer_close(r->w);
    r->w = NULL;
    tg_free(plan);
    tg_free(kv);
    return rc;
}
