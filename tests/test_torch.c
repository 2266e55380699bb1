#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/tensors.h"

static char scratch[64];
static struct tg_err err;

/* fixtures: files of torch.save, and what they hold */

static const char *const fixtures[] = {"mixed.bin", "legacy.bin", "nested.pt", "ordered.bin"};
enum { FIXTURES = sizeof fixtures / sizeof *fixtures };

static struct tg_tensors *open_data(const char *name)
{
    char path[128];
    struct tg_tensors *t;
    snprintf(path, sizeof path, "tests/data/torchbin/%s", name);
    if (tg_tensors_open(&t, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return t;
}

static void same_tensor(const struct tg_tensor *a, const struct tg_tensor *b)
{
    unsigned char *x = tg_alloc(a->bytes), *y = tg_alloc(a->bytes), one[8];
    assert_string_equal(a->name, b->name);
    assert_true(a->dtype == b->dtype && a->rank == b->rank && a->elements == b->elements);
    assert_memory_equal(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
    assert_int_equal(tg_tensor_read_raw(a, 0, a->elements, x, &err), TG_OK);
    assert_int_equal(tg_tensor_read_raw(b, 0, b->elements, y, &err), TG_OK);
    if (memcmp(x, y, a->bytes))
        fail_msg("'%s' differs", a->name);
    const size_t size = a->elements ? a->bytes / a->elements : 0;
    for (size_t i = 0; i < a->elements; i++) { /* and each element by itself */
        const void *view;
        assert_int_equal(tg_tensor_view(b, i, 1, one, &view, &err), TG_OK);
        assert_memory_equal(view, x + i * size, size);
    }
    tg_free(x);
    tg_free(y);
}

static void same_tensors(const struct tg_tensors *a, const struct tg_tensors *b)
{
    assert_int_equal(tg_tensors_count(a), tg_tensors_count(b));
    for (size_t i = 0; i < tg_tensors_count(a); i++)
        same_tensor(tg_tensors_at(a, i), tg_tensors_at(b, i));
}

static void test_fixtures(void **state)
{
    (void)state;
    struct tg_tensors *want = open_data("expected.safetensors");
    for (int i = 0; i < FIXTURES; i++) {
        struct tg_tensors *t = open_data(fixtures[i]);
        assert_string_equal(tg_tensors_format(t)->name, "torch");
        same_tensors(want, t);
        assert_null(tg_tensors_find(t, "view.t")->data); /* strided */
        assert_ptr_equal(tg_tensors_find(t, "shared.a")->data,
                         tg_tensors_find(t, "shared.b")->data);
        tg_tensors_close(t);
    }
    tg_tensors_close(want);
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fixtures, NULL, remove_scratch),
    };
    snprintf(scratch, sizeof scratch, "/tmp/tegu-torch-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    return tg_run_tests("torch", tests, sizeof tests / sizeof *tests);
}
