/* Streaming conversion, the conveyor below it, and what is in tensors. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/pipeline.h"
#include "base/rng.h"
#include "convert/repack.h"
#include "formats/content.h"
#include "formats/format.h"

static char scratch[] = "/tmp/tegu-repack-XXXXXX";
static struct tg_err err;

static char *path_of(const char *name)
{
    return tg_path_join(scratch, name);
}

static int make_scratch(void **state)
{
    (void)state;
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

/* conveyor */

enum { SLOTS = 3 };
struct belt {
    size_t slot[SLOTS], next, bad;
    bool fail_use;
};

static int belt_make(void *ud, size_t item, size_t slot, int worker, struct tg_err *e)
{
    struct belt *b = ud;
    assert_true(slot < SLOTS && worker >= 0 && worker < 4);
    if (item == b->bad && !b->fail_use)
        return tg_fail(e, TG_ERR_VALUE, "item %zu is bad", item);
    b->slot[slot] = item * item;
    return TG_OK;
}

static int belt_use(void *ud, size_t item, size_t slot, struct tg_err *e)
{
    struct belt *b = ud;
    assert_int_equal(item, b->next++);
    assert_int_equal(b->slot[slot], item * item);
    if (item == b->bad && b->fail_use)
        return tg_fail(e, TG_ERR_IO, "item %zu cannot be used", item);
    return TG_OK;
}

static void test_pipeline(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++)
        for (size_t items = 0; items < 40; items += 13) {
            struct belt b = {.bad = SIZE_MAX};
            struct tg_pipeline p = {items, threads, SLOTS, belt_make, belt_use, &b};
            assert_int_equal(tg_pipeline_run(&p, &err), TG_OK);
            assert_int_equal(b.next, items);
        }
    for (int threads = 1; threads <= 4; threads++) {
        struct belt b = {.bad = 17};
        struct tg_pipeline p = {100, threads, SLOTS, belt_make, belt_use, &b};
        assert_int_equal(tg_pipeline_run(&p, &err), TG_ERR_VALUE);
        assert_string_equal(err.msg, "item 17 is bad");
        assert_int_equal(b.next, 17);
        b = (struct belt){.bad = 5, .fail_use = true};
        assert_int_equal(tg_pipeline_run(&p, &err), TG_ERR_IO);
        assert_string_equal(err.msg, "item 5 cannot be used");
        assert_int_equal(b.next, 6);
    }
}

/* conversion */

enum { LARGE = (1 << 20) + 4099, TENSORS = 5 };

/* A file of a large matrix, a norm, integers, nothing at all and a scalar */
static char *make_input(const char *name)
{
    const struct tg_tensor_plan plan[TENSORS] = {
        {"a.weight", TG_F32, 2, {LARGE, 1}},
        {"norm.weight", TG_F32, 1, {7}},
        {"ids", TG_I64, 1, {3}},
        {"empty", TG_F32, 2, {0, 4}},
        {"scalar", TG_F32, 0, {0}},
    };
    static const int64_t ids[3] = {-1, 2, 1LL << 40};
    float *x = tg_alloc_floats(LARGE);
    struct tg_tensor_writer *w;
    char *path = path_of(name);
    struct tg_rng rng = tg_rng_make(7, 0);
    for (size_t i = 0; i < LARGE; i++)
        x[i] = (float)tg_rng_normal(&rng);
    x[3] = NAN;
    x[LARGE - 1] = -INFINITY;
    x[5] = 0;
    assert_int_equal(tg_tensor_writer_open(&w, path, plan, TENSORS, &tg_write_single, &err), TG_OK);
    for (size_t i; (i = tg_tensor_writer_next(w)) < TENSORS;)
        assert_int_equal(i == 2 ? tg_tensor_writer_put_raw(w, ids, &err)
                                : tg_tensor_writer_put_f32(w, x + 6 * (i > 0), &err),
                         TG_OK);
    assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
    tg_tensor_writer_close(w);
    tg_free(x);
    return path;
}

static int repack(const char *in, const char *out, const struct tg_repack_options *o)
{
    struct tg_tensors *t = NULL;
    struct tg_repack *r = NULL;
    int rc = tg_tensors_open(&t, in, &err);
    if (rc == TG_OK)
        rc = tg_repack_plan(&r, t, o, &err);
    if (rc == TG_OK)
        rc = tg_repack_write(r, out, NULL, &err);
    tg_repack_free(r);
    tg_tensors_close(t);
    return rc;
}

static void test_repack(void **state)
{
    static const enum tg_dtype to[] = {TG_BF16, TG_F16, TG_F32, TG_F64};
    char *in = make_input("in.safetensors"), *out = path_of("out.safetensors");
    struct tg_tensors *a, *b;
    (void)state;
    assert_int_equal(tg_tensors_open(&a, in, &err), TG_OK);
    for (size_t k = 0; k < sizeof to / sizeof *to; k++)
        for (int threads = 1; threads <= 3; threads++) {
            const struct tg_repack_options o = {.dtype = to[k], .single = true, .threads = threads};
            assert_int_equal(repack(in, out, &o), TG_OK);
            assert_int_equal(tg_tensors_open(&b, out, &err), TG_OK);
            assert_int_equal(tg_tensors_count(b), TENSORS);
            for (size_t i = 0; i < TENSORS; i++) {
                const struct tg_tensor *x = tg_tensors_at(a, i), *y = tg_tensors_at(b, i);
                unsigned char *want = tg_alloc(x->elements * 8 + 1);
                assert_int_equal(y->dtype, x->dtype == TG_I64 ? TG_I64 : to[k]);
                assert_int_equal(x->elements, y->elements);
                if (x->dtype == TG_I64)
                    memcpy(want, x->data, x->bytes);
                else
                    tg_dtype_from_f32(to[k], x->data, want, x->elements);
                assert_memory_equal(y->data, want, y->bytes);
                tg_free(want);
            }
            tg_tensors_close(b);
        }
    tg_tensors_close(a);
    tg_free(in);
    tg_free(out);
}

/* What fails says which tensor and element, and leaves no file; memory exhausted at each call too.
 */
static void test_repack_fails(void **state)
{
    char *in = make_input("bad.safetensors"), *out = path_of("never.safetensors");
    struct tg_repack_options o = {.dtype = TG_F8_E4M3, .single = true, .threads = 2};
    long n = 1;
    (void)state;
    assert_int_equal(repack(in, out, &o), TG_OK); /* what is not finite is kept */
    assert_int_equal(unlink(out), 0);
    o.dtype = TG_Q8_0; /* rows of one element are no blocks, vectors stay: nothing is quantised */
    assert_int_equal(repack(in, out, &o), TG_OK);
    assert_int_equal(unlink(out), 0);
    o.to = &tg_format_safetensors;
    o.keep = true;
    o.only = (const char *const[]){"nothing"};
    o.onlys = 1;
    assert_int_equal(repack(in, out, &o), TG_ERR_VALUE);
    o.onlys = 0;
    o.keep = false;
    o.dtype = TG_BF16;
    for (;; n++) {
        tg_mem_fail_after(n);
        const int rc = repack(in, out, &o);
        tg_mem_fail_after(0);
        if (rc == TG_OK)
            break;
        assert_false(tg_path_exists(out));
    }
    assert_true(n > 10);
    tg_free(in);
    tg_free(out);
}

static void content_of(const char *path, unsigned flags, struct tg_content *c, char hex[65])
{
    struct tg_tensors *t;
    assert_int_equal(tg_tensors_open(&t, path, &err), TG_OK);
    assert_int_equal(tg_content_read(t, flags, 2, c, NULL, &err), TG_OK);
    tg_content_hash(t, c, hex);
    tg_tensors_close(t);
}

static void test_content(void **state)
{
    char *in = make_input("content.safetensors"), *dir = path_of("sharded");
    const struct tg_repack_options o = {.keep = true, .max_shard = 1 << 20, .threads = 2};
    struct tg_content c[TENSORS], d[TENSORS];
    char one[65], two[65];
    (void)state;
    assert_int_equal(tg_dir_make(dir, &err), TG_OK);
    assert_int_equal(repack(in, dir, &o), TG_OK);
    content_of(in, TG_CONTENT_HASH | TG_CONTENT_VALUES, c, one);
    content_of(dir, TG_CONTENT_HASH, d, two);
    assert_string_equal(one, two);
    assert_int_equal(c[0].nans, 1); /* a.weight is first by name */
    assert_int_equal(c[0].infinities, 1);
    assert_int_equal(c[0].zeros, 1);
    assert_int_equal(c[0].first_bad, 3);
    for (size_t i = 0; i < TENSORS; i++)
        assert_string_equal(c[i].hash, d[i].hash);
    /* one bit of one element */
    FILE *f = fopen(in, "r+b");
    assert_true(f && fseek(f, -1, SEEK_END) == 0 && fputc(1, f) != EOF && fclose(f) == 0);
    content_of(in, TG_CONTENT_HASH, c, one);
    assert_string_not_equal(one, two);
    tg_free(in);
    tg_free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline),
        cmocka_unit_test(test_repack),
        cmocka_unit_test(test_repack_fails),
        cmocka_unit_test(test_content),
    };
    make_scratch(NULL);
    int status = tg_run_tests("repack", tests, sizeof tests / sizeof *tests);
    remove_scratch(NULL);
    return status;
}
