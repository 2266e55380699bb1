/* Golden operations: test_ops [DIR] (default tests/data/ops) runs our float32 code on every
 * DIR/NAME.safetensors whose name it knows and compares `out` and every `grad.*`. Names that it
 * does not know are listed and not counted. */
#include "tests/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "tests/check.h"

static const struct tg_op_row *find_row(const char *name)
{
    const struct tg_op_row *const tables[] = {tg_ops_dense, tg_ops_mixers, tg_ops_recur,
                                              tg_ops_recurrent};
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
            bool ok = run_file(path, row, (struct tg_ctx){.k = *k, .threads = 2});
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
