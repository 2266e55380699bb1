/* What the rows of ops_*.c share: reading inputs, comparing results. */
#include "tests/ops.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"

void tg_op_fail(struct tg_op *op, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("    %s: ", op->name);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    op->failed++;
}

static void *keep(struct tg_op *op, void *p)
{
    enum { LIMIT = sizeof op->blocks / sizeof *op->blocks };
    if (!p || op->block_count == LIMIT) {
        fprintf(stderr, "%s: out of memory\n", op->name);
        exit(1);
    }
    op->blocks[op->block_count++] = p;
    return p;
}

float *tg_op_floats(struct tg_op *op, size_t count)
{
    return keep(op, tg_alloc_array(count + 1, sizeof(float)));
}

const struct tg_tensor *tg_op_tensor(struct tg_op *op, const char *name)
{
    const struct tg_tensor *t = tg_tensors_find(op->file, name);
    if (!t)
        tg_op_fail(op, "no tensor '%s'", name);
    return t;
}

size_t tg_op_dim(struct tg_op *op, const char *name, int axis)
{
    const struct tg_tensor *t = tg_op_tensor(op, name);
    if (!t)
        return 0;
    if (axis >= t->rank) {
        tg_op_fail(op, "'%s' has no axis %d", name, axis);
        return 0;
    }
    return (size_t)t->shape[axis];
}

float *tg_op_load(struct tg_op *op, const char *name)
{
    const struct tg_tensor *t = tg_op_tensor(op, name);
    float *data = tg_op_floats(op, t ? t->elements : 1);
    struct tg_err err;
    if (t && tg_tensor_read_f32(t, data, &err) != TG_OK)
        tg_op_fail(op, "%s", err.msg);
    return data;
}

int64_t *tg_op_load_int(struct tg_op *op, const char *name)
{
    const struct tg_tensor *t = tg_op_tensor(op, name);
    int64_t *data = keep(op, tg_alloc_array(t ? t->elements + 1 : 1, sizeof *data));
    struct tg_err err;
    if (t && tg_tensor_read_i64(t, data, &err) != TG_OK)
        tg_op_fail(op, "%s", err.msg);
    return data;
}

double tg_op_number(struct tg_op *op, const char *key)
{
    const char *text = tg_tensors_meta(op->file, key);
    char *end = NULL;
    double x = text ? strtod(text, &end) : 0;
    if (!text || end == text || *end)
        tg_op_fail(op, "metadata '%s' is %s, not a number", key, text ? text : "missing");
    return x;
}

struct tg_batch tg_op_batch(struct tg_op *op, size_t B, size_t T)
{
    size_t *begin = keep(op, tg_alloc_array(B + 1, sizeof *begin));
    for (size_t b = 0; b <= B; b++)
        begin[b] = b * T;
    return (struct tg_batch){.count = B, .begin = begin};
}

void tg_op_check(struct tg_op *op, const char *name, const float *got, size_t count)
{
    const struct tg_tensor *t = tg_op_tensor(op, name);
    if (!t)
        return;
    op->compared++;
    if (t->elements != count || t->dtype != TG_F64) {
        tg_op_fail(op, "'%s' is not %zu float64 values", name, count);
        return;
    }
    double *want = keep(op, tg_alloc_array(count + 1, sizeof *want));
    memcpy(want, t->data, count * sizeof *want);
    double err = tg_rel_error_fd(got, want, count);
    if (!(err < TG_OP_TOLERANCE))
        tg_op_fail(op, "'%s': error %.3g is not below %.3g", name, err, TG_OP_TOLERANCE);
    if (getenv("TG_TEST_VERBOSE"))
        printf("    %-24s %-20s %.2g\n", op->name, name, err);
}
