/* Golden operations: test_ops [DIR] (default tests/data/ops) runs our float32 code on every
 * DIR/NAME.safetensors whose name it knows and compares `out` and every `grad.*`. Names that it
 * does not know are listed and not counted. */
#include "tests/ops.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "linearize/kernels/gemm.h"
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

static const struct tg_op_row *find_row(const char *name)
{
    const struct tg_op_row *const tables[] = {tg_ops_dense, tg_ops_mixers};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const struct tg_op_row *row = tables[i]; row->name; row++)
            if (strcmp(row->name, name) == 0)
                return row;
    return NULL;
}

/* `out` and every gradient: what the row had to compare */
static int expected_comparisons(const struct tg_tensors *file)
{
    int n = 0;
    for (size_t i = 0; i < tg_tensors_count(file); i++) {
        const char *name = tg_tensors_at(file, i)->name;
        n += strcmp(name, "out") == 0 || strncmp(name, "grad.", 5) == 0;
    }
    return n;
}

static bool run_file(const char *path, const struct tg_op_row *row, struct tg_ctx ctx)
{
    struct tg_op op = {.name = row->name, .ctx = ctx};
    struct tg_tensors *file = NULL;
    struct tg_err err;
    if (tg_tensors_open(&file, path, &err) != TG_OK) {
        tg_op_fail(&op, "%s", err.msg);
        return false;
    }
    op.file = file;
    row->run(&op);
    int want = expected_comparisons(file);
    if (!op.failed && (op.compared < want || want == 0))
        tg_op_fail(&op, "%d of %d results compared", op.compared, want);
    for (size_t i = 0; i < op.block_count; i++)
        tg_free(op.blocks[i]);
    tg_tensors_close(file);
    return op.failed == 0;
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "tests/data/ops", *suffix = ".safetensors";
    char **names = NULL;
    size_t count = 0, passed = 0, failed = 0;
    struct tg_err err;
    tg_gemm_init();
    if (tg_dir_list(dir, &names, &count, &err) != TG_OK) {
        printf("%s\n0 passed, 1 failed\n", err.msg);
        return 1;
    }
    for (size_t i = 0; i < count; i++) {
        char stem[128];
        size_t len = strlen(names[i]), cut = strlen(suffix);
        if (len <= cut || len - cut >= sizeof stem || strcmp(names[i] + len - cut, suffix) != 0)
            continue;
        snprintf(stem, sizeof stem, "%.*s", (int)(len - cut), names[i]);
        const struct tg_op_row *row = find_row(stem);
        if (!row) {
            printf("%-20s not known\n", stem);
            continue;
        }
        char *path = tg_path_join(dir, names[i]);
        for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
            bool ok = run_file(path, row, (struct tg_ctx){*k, 2});
            printf("%-20s %-8s %s\n", stem, (*k)->name, ok ? "ok" : "FAILED");
            *(ok ? &passed : &failed) += 1;
        }
        tg_free(path);
    }
    tg_names_free(names, count);
    failed += passed + failed == 0; /* an empty folder shows nothing */
    printf("%zu passed, %zu failed\n", passed, failed);
    return failed != 0;
}
