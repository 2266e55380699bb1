#include "tools/proof.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

static const double LIMIT = 1e-5;

int tg_proof_logits(const struct tg_model *m, float **logits, size_t *count, struct tg_err *err)
{
    enum { ROWS = TG_PROOF_TEXTS * TG_PROOF_LENGTH };
    const size_t begin[TG_PROOF_TEXTS + 1] = {0, TG_PROOF_LENGTH, ROWS};
    const struct tg_batch b = {.count = TG_PROOF_TEXTS, .begin = begin};
    struct tg_rng rng = tg_rng_make(20, 7);
    struct tg_run *run = NULL;
    int32_t ids[ROWS];
    int rc;

    for (size_t i = 0; i < ROWS; i++)
        ids[i] = (int32_t)tg_rng_below(&rng, m->spec.vocab);
    *count = ROWS * m->spec.vocab;
    *logits = tg_alloc_array(*count, sizeof **logits);
    float *hidden = tg_alloc_floats(ROWS * m->spec.width);
    if (!*logits || !hidden)
        rc = tg_fail(err, TG_ERR_NOMEM, "no memory for logits");
    else if (!(rc = tg_run_create(&run, err)) && !(rc = tg_run_fit(run, m, &b, false, err))) {
        tg_model_forward(m, run, ids, &b, hidden, false, NULL);
        tg_model_logits(m, hidden, ROWS, *logits);
    }
    tg_run_free(run);
    tg_free(hidden);
    if (rc) {
        tg_free(*logits);
        *logits = NULL;
    }
    return rc;
}

double tg_proof_distance(const float *got, const float *want, size_t count)
{
    double diff = 0, size = 0;

    for (size_t i = 0; i < count; i++) {
        const double d = (double)got[i] - want[i];
        diff += d * d;
        size += (double)want[i] * want[i];
    }
    return sqrt(diff / size);
}

int tg_proof_adapted(const struct tg_export *x, const struct tg_ctx *ctx, struct tg_model **m,
                     struct tg_err *err)
{
    int rc = tg_model_create(m, &x->spec, ctx, err);

    for (size_t i = 0; i < x->params.count && rc == TG_OK; i++)
        rc = tg_export_param(x, i, (*m)->data + (*m)->params.items[i].offset, err);
    if (rc) {
        tg_model_free(*m);
        *m = NULL;
    }
    return rc;
}

void tg_proof_round(struct tg_model *m, enum tg_dtype dtype)
{
    enum { PIECE = 1 << 12 };
    float raw[PIECE]; /* the types take four bytes at most */

    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        for (size_t at = 0; at < p->count; at += PIECE) {
            const size_t n = p->count - at < PIECE ? p->count - at : PIECE;
            float *values = m->data + p->offset + at;
            tg_dtype_from_f32(dtype, values, raw, n);
            tg_dtype_to_f32(dtype, raw, values, n);
        }
    }
}

/* Distance of a model's logits from the source's; the model is freed. */
static int measure(struct tg_model *m, const float *want, double *distance, struct tg_err *err)
{
    float *got;
    size_t count;
    const int rc = tg_proof_logits(m, &got, &count, err);

    if (rc == TG_OK)
        *distance = tg_proof_distance(got, want, count);
    tg_free(got);
    tg_model_free(m);
    return rc;
}

/* The source's logits, and how far rounding alone moves them */
static int measure_source(const struct tg_export *x, const struct tg_ctx *ctx, float **want,
                          struct tg_proof *p, struct tg_err *err)
{
    const struct tg_export_source *in = x->in;
    struct tg_model *m = NULL;
    size_t count;
    int rc = tg_model_create(&m, in->spec, ctx, err);

    for (size_t i = 0; i < in->params->count && rc == TG_OK; i++)
        rc = in->read(in, i, m->data + m->params.items[i].offset, err);
    if (rc == TG_OK)
        rc = tg_proof_logits(m, want, &count, err);
    if (rc || tg_dtype_info(x->dtype)->block > 1) {
        tg_model_free(m);
        return rc;
    }
    tg_proof_round(m, x->dtype);
    return measure(m, *want, &p->rounded, err);
}

static int judge(const struct tg_export *x, const char *path, const struct tg_proof *p,
                 struct tg_err *err)
{
    if (!(p->exact < LIMIT))
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: as %s the model's logits are %.3g away from the source's (RMS of the "
                       "difference over RMS), the limit is %g",
                       path, x->target->name, p->exact, LIMIT);
    if (tg_dtype_info(x->dtype)->block == 1 && !(p->written < 2 * p->rounded + LIMIT))
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: read back, its logits are %.3g away from the source's; rounding to %s "
                       "alone explains %.3g",
                       path, p->written, tg_dtype_info(x->dtype)->name, p->rounded);
    return isfinite(p->written)
               ? TG_OK
               : tg_fail(err, TG_ERR_MISMATCH, "%s: read back, its logits are not finite", path);
}

int tg_proof_run(const struct tg_export *x, const char *path, const struct tg_ctx *ctx,
                 struct tg_proof *p, struct tg_err *err)
{
    struct tg_model *m = NULL;
    float *want = NULL;
    int rc = tg_export_verify(x, path, err);

    *p = (struct tg_proof){0};
    if (rc || (rc = measure_source(x, ctx, &want, p, err)))
        return rc;
    if (!(rc = tg_proof_adapted(x, ctx, &m, err)) && !(rc = measure(m, want, &p->exact, err)) &&
        !(rc = tg_model_load(&m, path, ctx, err)))
        rc = measure(m, want, &p->written, err);
    tg_free(want);
    return rc ? rc : judge(x, path, p, err);
}
