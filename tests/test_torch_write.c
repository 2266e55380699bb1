#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/tensors.h"
#include "tests/scratch.h"

static struct tg_err err;

static const enum tg_dtype held[] = {
    TG_F32,         TG_F16,         TG_BF16, TG_F64, TG_F8_E4M3, TG_F8_E5M2, TG_F8_E8M0,
    TG_F8_E4M3FNUZ, TG_BOOL,        TG_U8,   TG_I8,  TG_U16,     TG_I16,     TG_U32,
    TG_I32,         TG_F8_E5M2FNUZ, TG_U64,  TG_I64, TG_C64};
enum { HELD = sizeof held / sizeof *held, PLANNED = HELD + 3 };

static void make_plan(struct tg_tensor_plan *plan, char names[PLANNED][16])
{
    for (int i = 0; i < PLANNED; i++) {
        snprintf(names[i], 16, "t.%02d\n\"\303\251", i);
        plan[i] = (struct tg_tensor_plan){names[i], TG_F32, 2, {4, 60 * (i + 1)}};
        if (i < HELD)
            plan[i].dtype = held[i];
    }
    plan[PLANNED - 1].rank = 0;
    plan[PLANNED - 2].shape[0] = 0;
}

static void fill(unsigned char *p, size_t n, size_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)(seed * 31 + i * 7);
}

enum { LARGEST = 4 * 60 * PLANNED * 8 };

static int write_all(const char *path, bool single, uint64_t max_shard)
{
    struct tg_tensor_plan plan[PLANNED];
    char names[PLANNED][16];
    struct tg_tensor_writer *w;
    struct tg_meta meta = {"note", "a \"b\" \303\251"};
    static unsigned char data[LARGEST];
    make_plan(plan, names);
    struct tg_write_options options = {.format = &tg_format_torch,
                                       .single = single,
                                       .max_shard = max_shard,
                                       .meta = &meta,
                                       .metas = 1};
    int rc = tg_tensor_writer_open(&w, path, plan, PLANNED, &options, &err);
    for (size_t i, n = 0; rc == TG_OK && (i = tg_tensor_writer_next(w)) < PLANNED;) {
        size_t elements, bytes;
        assert_true(
            tg_tensor_measure(plan[i].dtype, plan[i].rank, plan[i].shape, &elements, &bytes));
        fill(data, bytes, i);
        rc = tg_tensor_writer_put_piece(w, data, 0, &err); /* pieces of any size, 0 too */
        for (size_t at = 0; at < bytes && rc == TG_OK; at += n) {
            n = bytes - at < 1001 ? bytes - at : 1001;
            rc = tg_tensor_writer_put_piece(w, data + at, n, &err);
        }
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, &err);
    tg_tensor_writer_close(w);
    return rc;
}

static void check_all(const char *path)
{
    struct tg_tensor_plan plan[PLANNED];
    char names[PLANNED][16];
    struct tg_tensors *t;
    static unsigned char data[LARGEST];
    make_plan(plan, names);
    if (tg_tensors_open(&t, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    assert_int_equal(tg_tensors_count(t), PLANNED);
    for (size_t i = 0; i < PLANNED; i++) {
        const struct tg_tensor *x = tg_tensors_find(t, names[i]);
        assert_non_null(x);
        assert_true(x->dtype == plan[i].dtype && x->rank == plan[i].rank);
        assert_memory_equal(x->shape, plan[i].shape, (size_t)x->rank * sizeof *x->shape);
        fill(data, x->bytes, i);
        assert_non_null(x->data);
        assert_memory_equal(x->data, data, x->bytes);
        assert_true(!x->elements || (uintptr_t)x->data % 64 == 0);
    }
    assert_string_equal(tg_tensors_meta(t, "note"), "a \"b\" \303\251");
    assert_null(tg_tensors_meta(t, "other"));
    tg_tensors_close(t);
}

static void test_written(void **state)
{
    (void)state;
    static const uint64_t limits[] = {0, 1, 4000, 20000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        char *dir = tg_scratch_dir("round"), *single = tg_path_join(dir, "pytorch_model.bin"),
             *index = tg_path_join(dir, "pytorch_model.bin.index.json");
        if (write_all(dir, false, limits[i]) != TG_OK)
            fail_msg("%s", err.msg);
        check_all(dir);
        assert_int_equal(tg_path_exists(single), limits[i] == 0);
        assert_int_equal(tg_path_exists(index), limits[i] != 0);
        tg_free(single);
        tg_free(index);
        tg_free(dir);
    }
    /* the same bytes, whatever the file is called */
    char *dir = tg_scratch_dir("same"), *a = tg_path_join(dir, "a.bin"),
         *b = tg_path_join(dir, "b.pth");
    char one[65], two[65];
    assert_int_equal(write_all(a, true, 0), TG_OK);
    assert_int_equal(write_all(b, true, 0), TG_OK);
    assert_int_equal(tg_sha256_file(a, one, &err), TG_OK);
    assert_int_equal(tg_sha256_file(b, two, &err), TG_OK);
    assert_string_equal(one, two);
    check_all(b);
    tg_free(a);
    tg_free(b);
    tg_free(dir);
}

/* What PyTorch has no type for is refused before anything is written; so is metadata that no pickle
 * can hold. */
static void test_not_held(void **state)
{
    (void)state;
    char *dir = tg_scratch_dir("refused");
    struct tg_tensor_writer *w;
    struct tg_meta meta = {"k", "\377"};
    struct tg_write_options options = {.format = &tg_format_torch};
    for (int d = 0; d < TG_DTYPE_COUNT; d++) {
        bool known = false;
        for (int i = 0; i < HELD; i++)
            known = known || held[i] == (enum tg_dtype)d;
        assert_int_equal(tg_format_torch.holds((enum tg_dtype)d), known);
    }
    struct tg_tensor_plan plan = {"a", TG_F4, 1, {2}};
    assert_int_equal(tg_tensor_writer_open(&w, dir, &plan, 1, &options, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "'a': torch files do not hold F4"));
    options.meta = &meta;
    options.metas = 1;
    plan.dtype = TG_F32;
    assert_int_equal(tg_tensor_writer_open(&w, dir, &plan, 1, &options, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "metadata 'k' is not UTF-8"));
    assert_int_equal(tg_files_in(dir), 0);
    tg_free(dir);
}

/* memory exhausted at each allocation: an error, no leak (seen under AddressSanitizer), no file
 * left */
static void test_torture(void **state)
{
    (void)state;
    char *out = tg_scratch_dir("torture");
    for (long n = 1;; n++) {
        tg_mem_fail_after(n);
        int rc = write_all(out, false, 20000);
        tg_mem_fail_after(0);
        if (rc == TG_OK) {
            assert_true(n > 100);
            break;
        }
        if (tg_files_in(out) != 0)
            fail_msg("allocation %ld: %d files left after: %s", n, (int)tg_files_in(out), err.msg);
    }
    tg_free(out);
}

/* For tests/interop/check_torch.py: the tensors of any set as torch files of at most `max` bytes.
 */
static int copy_set(const char *from, const char *to, uint64_t max)
{
    struct tg_tensors *t;
    struct tg_tensor_writer *w = NULL;
    const struct tg_write_options options = {.format = &tg_format_torch, .max_shard = max};
    int rc = tg_tensors_open(&t, from, &err);
    const size_t count = rc == TG_OK ? tg_tensors_count(t) : 0;
    struct tg_tensor_plan *plan = tg_alloc_array(count, sizeof *plan);
    for (size_t i = 0; i < count; i++) {
        const struct tg_tensor *x = tg_tensors_at(t, i);
        plan[i] = (struct tg_tensor_plan){.name = x->name, .dtype = x->dtype, .rank = x->rank};
        memcpy(plan[i].shape, x->shape, sizeof x->shape);
    }
    if (rc == TG_OK)
        rc = tg_tensor_writer_open(&w, to, plan, count, &options, &err);
    for (size_t i; rc == TG_OK && (i = tg_tensor_writer_next(w)) < count;)
        rc = tg_tensor_writer_put_raw(w, tg_tensors_at(t, i)->data, &err);
    if (rc == TG_OK)
        rc = tg_tensor_writer_finish(w, &err);
    if (rc != TG_OK)
        print_error("%s\n", err.msg);
    tg_tensor_writer_close(w);
    tg_tensors_close(t);
    tg_free(plan);
    return rc == TG_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "--copy"))
        return copy_set(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written),
        cmocka_unit_test(test_not_held),
        cmocka_unit_test_setup_teardown(test_torture, NULL, tg_scratch_remove),
    };
    if (!tg_scratch_make("torch"))
        return 1;
    return tg_run_tests("torch_write", tests, sizeof tests / sizeof *tests);
}
