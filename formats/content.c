#include "formats/content.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/sha256.h"

enum {
    PIECE = 1 << 20, /* elements looked at in one go */
    STEP = 1 << 12,  /* of them converted at a time */
};

struct job {
    const struct tg_tensors *t;
    unsigned flags;
    struct tg_content *content;
    const struct tg_progress *progress;
    unsigned char *space; /* [workers, PIECE * 8] for what does not lie in the file as it is */
    float *values;        /* [workers, STEP] */
    atomic_size_t done;
    size_t total;
    atomic_bool failed;
    struct tg_err err; /* of the first that failed; written once */
};

static void look_at(struct tg_content *c, size_t first, const float *x, size_t n)
{
    size_t zeros = 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        zeros += x[i] == 0;
        bad += !(fabsf(x[i]) < INFINITY);
    }
    c->zeros += zeros;
    for (size_t i = 0; bad && i < n; i++) {
        if (isfinite(x[i]))
            continue;
        c->nans += isnan(x[i]);
        c->infinities += !isnan(x[i]);
        if (first + i < c->first_bad)
            c->first_bad = first + i;
    }
}

static void values_of(struct tg_content *c, const struct tg_tensor *t, size_t first,
                      const unsigned char *bytes, size_t n, float *x)
{
    const struct tg_dtype_info *info = tg_dtype_info(t->dtype);
    for (size_t at = 0; at < n; at += STEP) {
        const size_t k = n - at < STEP ? n - at : STEP;
        tg_dtype_to_f32(t->dtype, bytes + at / info->block * info->block_bytes, x, k);
        look_at(c, first + at, x, k);
    }
}

static int read_one(struct job *j, size_t i, int worker, struct tg_err *err)
{
    const struct tg_tensor *t = tg_tensors_at(j->t, i);
    const bool values = (j->flags & TG_CONTENT_VALUES) && tg_dtype_info(t->dtype)->is_float;
    struct tg_content *c = &j->content[i];
    struct tg_sha256 sha;
    char head[256], shape[200];

    *c = (struct tg_content){.first_bad = t->elements};
    tg_sha256_begin(&sha);
    snprintf(head, sizeof head, "%s %s\n", tg_dtype_info(t->dtype)->name,
             tg_shape_text(t->shape, t->rank, shape, sizeof shape));
    tg_sha256_add(&sha, head, strlen(head));
    for (size_t at = 0; at < t->elements; at += PIECE) {
        const size_t n = t->elements - at < PIECE ? t->elements - at : PIECE;
        const void *view;
        size_t bytes = 0;
        int rc = tg_tensor_view(t, at, n, j->space + (size_t)worker * PIECE * 8, &view, err);
        if (rc != TG_OK)
            return rc;
        tg_dtype_bytes(t->dtype, n, &bytes);
        if (j->flags & TG_CONTENT_HASH)
            tg_sha256_add(&sha, view, bytes);
        if (values)
            values_of(c, t, at, view, n, j->values + (size_t)worker * STEP);
        tg_tensors_forget(j->t, t, at, n);
        j->done += bytes;
    }
    if (j->flags & TG_CONTENT_HASH)
        tg_sha256_end(&sha, c->hash);
    return TG_OK;
}

static void read_item(void *ud, size_t item, int worker)
{
    struct job *j = ud;
    struct tg_err err = {0};
    if (j->failed)
        return;
    int rc = read_one(j, item, worker, &err);
    /* the progress callback belongs to the calling thread, which is worker 0 */
    if (rc == TG_OK && worker == 0 &&
        tg_progress_tell(j->progress, "read", j->done, j->total, "bytes", NULL))
        rc = tg_fail(&err, TG_ERR_INTERRUPTED, "stopped");
    if (rc != TG_OK && !atomic_exchange(&j->failed, true))
        j->err = err;
}

int tg_content_read(const struct tg_tensors *t, unsigned flags, int threads,
                    struct tg_content *content, const struct tg_progress *progress,
                    struct tg_err *err)
{
    const size_t workers = threads > 1 ? (size_t)threads : 1;
    struct job j = {.t = t, .flags = flags, .content = content, .progress = progress};
    j.space = tg_alloc(workers * PIECE * 8);
    j.values = tg_alloc_floats(workers * STEP);
    int rc = j.space && j.values ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory to read tensors");
    for (size_t i = 0; i < tg_tensors_count(t); i++)
        j.total += tg_tensors_at(t, i)->bytes;
    if (rc == TG_OK)
        tg_parallel(threads, tg_tensors_count(t), read_item, &j);
    if (rc == TG_OK && j.failed)
        rc = tg_fail(err, j.err.code, "%s", j.err.msg);
    tg_free(j.space);
    tg_free(j.values);
    return rc;
}

void tg_content_hash(const struct tg_tensors *t, const struct tg_content *content, char hex[65])
{
    struct tg_sha256 sha;
    tg_sha256_begin(&sha);
    for (size_t i = 0; i < tg_tensors_count(t); i++) {
        const char *name = tg_tensors_at(t, i)->name;
        tg_sha256_add(&sha, name, strlen(name) + 1);
        tg_sha256_add(&sha, content[i].hash, 65);
    }
    tg_sha256_end(&sha, hex);
}
