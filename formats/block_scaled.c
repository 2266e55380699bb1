#include "formats/block_scaled.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

static int mismatch(const struct tg_tensor *weight, const struct tg_tensor *scale,
                    const char *expected, struct tg_err *err)
{
    char w[128], s[128];
    return tg_fail(err, TG_ERR_MISMATCH,
                   "%s: scales '%s' have shape %s, weight '%s' of shape %s asks for %s",
                   scale->file, scale->name, tg_shape_text(scale->shape, scale->rank, s, sizeof s),
                   weight->name, tg_shape_text(weight->shape, weight->rank, w, sizeof w), expected);
}

/* The first n sizes of both are the same. */
static bool same_leading(const struct tg_tensor *a, const struct tg_tensor *b, int n)
{
    return a->rank >= n && b->rank >= n &&
           !memcmp(a->shape, b->shape, (size_t)n * sizeof *a->shape);
}

static size_t blocks_of(size_t n, size_t block)
{
    return n / block + (n % block != 0);
}

/* The scales as float32; U8 counts as E8M0. */
static int read_scales(struct tg_block_scaled *s, const struct tg_tensor *scale, struct tg_err *err)
{
    int rc = TG_OK;
    s->scale = tg_alloc_floats(scale->elements);
    if (!s->scale)
        return tg_fail(err, TG_ERR_NOMEM, "%s: no memory for the scales '%s'", scale->file,
                       scale->name);
    if (scale->dtype == TG_U8) {
        struct tg_tensor exponents = *scale;
        exponents.dtype = TG_F8_E8M0;
        rc = tg_tensor_read_f32(&exponents, s->scale, err);
    } else {
        rc = tg_tensor_read_f32(scale, s->scale, err);
    }
    for (size_t i = 0; i < scale->elements && rc == TG_OK; i++)
        if (!isfinite(s->scale[i]))
            rc = tg_fail(err, TG_ERR_VALUE, "%s: scales '%s': element %zu is not finite",
                         scale->file, scale->name, i);
    return rc;
}

/* How many of n elements share a scale when there are `count` of them: `block`, one or all; 0 when
 * it is none of these. */
static size_t shared_by(size_t n, int64_t count, size_t block)
{
    if ((uint64_t)count == blocks_of(n, block))
        return block;
    if ((uint64_t)count == n)
        return 1;
    return count == 1 ? n : 0;
}

static int find_grid(struct tg_block_scaled *s, const struct tg_tensor *scale, size_t block_rows,
                     size_t block_cols, struct tg_err *err)
{
    const struct tg_tensor *weight = s->weight;
    const int lead = weight->rank - 2;
    if (scale->elements == 1) {
        s->one_grid = true;
        s->block_rows = s->rows ? s->rows : 1;
        s->block_cols = s->cols ? s->cols : 1;
    } else if (!same_leading(weight, scale, lead)) {
        return mismatch(weight, scale, "the same leading sizes", err);
    } else if (scale->rank == lead + 1 && (uint64_t)scale->shape[lead] == s->rows) {
        s->block_rows = 1;
        s->block_cols = s->cols ? s->cols : 1;
    } else if (scale->rank == weight->rank) {
        s->block_rows = shared_by(s->rows, scale->shape[lead], block_rows);
        s->block_cols = shared_by(s->cols, scale->shape[lead + 1], block_cols);
    }
    if (!s->block_rows || !s->block_cols)
        return mismatch(weight, scale, "one scale for all, for each row, column or block", err);
    s->grid_rows = blocks_of(s->rows, s->block_rows);
    s->grid_cols = blocks_of(s->cols, s->block_cols);
    return TG_OK;
}

int tg_block_scaled_open(struct tg_block_scaled *s, const struct tg_tensor *weight,
                         const struct tg_tensor *scale, size_t block_rows, size_t block_cols,
                         struct tg_err *err)
{
    const struct tg_dtype_info *info = tg_dtype_info(weight->dtype);
    memset(s, 0, sizeof *s);
    if (!info->is_float || info->block_bytes > info->block || info->block > 4)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: tensor '%s' is %s: scales go with float types of at most 8 bits",
                       weight->file, weight->name, info->name);
    if (weight->rank < 2)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: tensor '%s' with scales has %d dimensions, fewer than 2", weight->file,
                       weight->name, weight->rank);
    if (!block_rows || !block_cols)
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': blocks of %zu x %zu", weight->file,
                       weight->name, block_rows, block_cols);
    s->weight = weight;
    s->dtype = weight->dtype;
    s->rows = (size_t)weight->shape[weight->rank - 2];
    s->cols = (size_t)weight->shape[weight->rank - 1];
    s->matrices = s->rows && s->cols ? weight->elements / s->rows / s->cols : 0;
    int rc = find_grid(s, scale, block_rows, block_cols, err);
    return rc == TG_OK ? read_scales(s, scale, err) : rc;
}

int tg_mxfp4_open(struct tg_block_scaled *s, const struct tg_tensor *blocks,
                  const struct tg_tensor *scales, struct tg_err *err)
{
    memset(s, 0, sizeof *s);
    if (blocks->dtype != TG_U8 || scales->dtype != TG_U8)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: '%s' is %s and '%s' %s: MXFP4 is stored as U8",
                       blocks->file, blocks->name, tg_dtype_info(blocks->dtype)->name, scales->name,
                       tg_dtype_info(scales->dtype)->name);
    if (blocks->rank < 3 || blocks->shape[blocks->rank - 1] != 16 ||
        scales->rank != blocks->rank - 1 || !same_leading(blocks, scales, scales->rank))
        return mismatch(blocks, scales, "[.., rows, groups, 16] and [.., rows, groups]", err);
    s->weight = blocks;
    s->dtype = TG_F4;
    s->rows = (size_t)blocks->shape[blocks->rank - 3];
    s->cols = (size_t)blocks->shape[blocks->rank - 2] * 32;
    s->matrices = blocks->elements ? blocks->elements * 2 / s->rows / s->cols : 0;
    s->block_rows = 1;
    s->block_cols = 32;
    s->grid_rows = s->rows;
    s->grid_cols = s->cols / 32;
    return read_scales(s, scales, err);
}

/* Multiplies elements [first, first + count) by their scales, a run of one block's row at a time.
 */
static void apply_scales(const struct tg_block_scaled *s, size_t first, size_t count, float *x)
{
    const size_t grid = s->one_grid ? 0 : s->grid_rows * s->grid_cols;
    for (size_t done = 0; done < count;) {
        const size_t at = first + done, col = at % s->cols, row = at / s->cols % s->rows,
                     matrix = at / s->cols / s->rows, block = col / s->block_cols;
        size_t run = s->block_cols - col % s->block_cols;
        run = run < s->cols - col ? run : s->cols - col;
        run = run < count - done ? run : count - done;
        const float scale = s->scale[matrix * grid + row / s->block_rows * s->grid_cols + block];
        for (size_t i = 0; i < run; i++)
            x[done + i] *= scale;
        done += run;
    }
}

int tg_block_scaled_read(const struct tg_block_scaled *s, size_t first, size_t count, float *dst,
                         struct tg_err *err)
{
    enum { PIECE = 4096 }; /* elements of at most a byte each, whole blocks */
    const struct tg_dtype_info *in = tg_dtype_info(s->dtype),
                               *stored = tg_dtype_info(s->weight->dtype);
    const size_t all = s->matrices * s->rows * s->cols;
    unsigned char space[PIECE];
    if (first > all || count > all - first || first % in->block || count % in->block)
        return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s': no elements [%zu, %zu) of %zu",
                       s->weight->file, s->weight->name, first, first + count, all);
    for (size_t at = 0; at < count; at += PIECE) {
        const size_t n = count - at < PIECE ? count - at : PIECE;
        const void *view;
        /* the same bytes counted in elements of the type that the file names */
        const size_t from = (first + at) / in->block * in->block_bytes / stored->block_bytes *
                            stored->block,
                     span = n / in->block * in->block_bytes / stored->block_bytes * stored->block;
        const int rc = tg_tensor_view(s->weight, from, span, space, &view, err);
        if (rc != TG_OK)
            return rc;
        tg_dtype_to_f32(s->dtype, view, dst + at, n);
        apply_scales(s, first + at, n, dst + at);
    }
    return TG_OK;
}

void tg_block_scaled_close(struct tg_block_scaled *s)
{
    tg_free(s->scale);
    memset(s, 0, sizeof *s);
}
