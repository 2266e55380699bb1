/* PyTorch's files: whatever is accepted can be read completely, and nothing lies outside the file.
 * After a first byte 'P' or 'F' the rest is the pickle of an archive whose CRCs are right;
 * otherwise all of it is the file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/format.h"
#include "formats/tensors.h"
#include "tests/fuzz/fuzz.h"
#include "tests/zip_build.h"

enum { READ_MAX = 1 << 20 };

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void read_one(const struct tg_tensor *t, const uint8_t *data, size_t size)
{
    const uint8_t *p = t->data;
    size_t elements, bytes;
    require(tg_tensor_measure(t->dtype, t->rank, t->shape, &elements, &bytes));
    require(elements == t->elements && bytes == t->bytes);
    if (p && t->bytes)
        require(p >= data && p <= data + size && t->bytes <= (size_t)(data + size - p));
    if (t->bytes > READ_MAX)
        return;
    struct tg_err err = {0};
    unsigned char *all = tg_alloc(t->bytes), one[8];
    if (tg_tensor_read_raw(t, 0, t->elements, all, &err) == TG_OK) {
        const size_t width = t->elements ? t->bytes / t->elements : 0;
        for (size_t i = 0; i < t->elements; i += 1 + t->elements / 7) {
            require(tg_tensor_read_raw(t, i, 1, one, NULL) == TG_OK);
            require(!memcmp(one, all + i * width, width));
        }
    } else {
        require(!p && err.code == TG_ERR_FORMAT); /* only deflated entries are checked so late */
    }
    tg_free(all);
}

static void try_file(const uint8_t *data, size_t size)
{
    struct tg_tensors *t;
    struct tg_err err = {0};
    int rc = tg_tensors_over(&t, &tg_format_torch, data, size, "fuzz", &err);
    require((rc == TG_OK) == (t != NULL) && (rc == TG_OK || err.code == rc));
    require(rc != TG_ERR_NOMEM);
    for (size_t i = 0; t && i < tg_tensors_count(t); i++) {
        const struct tg_tensor *x = tg_tensors_at(t, i);
        require(tg_tensors_find(t, x->name) == x);
        read_one(x, data, size);
    }
    if (t)
        tg_tensors_meta(t, "note");
    tg_tensors_close(t);
}

/* Storages as large as the seeds' pickles say: those of tests/data/torchbin, and another set. */
static void try_pickle(const uint8_t *pickle, size_t size, bool other)
{
    enum { COUNT = 10 };
    static const unsigned char all[2][COUNT] = {{140, 24, 18, 72, 9, 3, 240, 4, 0, 16},
                                                {4, 8, 32, 4, 8, 8, 16, 8, 1, 2}};
    const unsigned char *sizes = all[other];
    unsigned char content[240];
    char names[COUNT][16] = {0};
    struct zip_part parts[COUNT + 1] = {{.name = "a/data.pkl", .data = pickle, .size = size}};
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (unsigned char)(i * 7);
    for (int i = 0; i < COUNT; i++) {
        memcpy(names[i], "a/data/", 7);
        names[i][7] = (char)('0' + i);
        parts[i + 1] = (struct zip_part){.name = names[i],
                                         .data = content,
                                         .size = sizes[i],
                                         .deflate = i == 6 || i == 8,
                                         .descriptor = i & 1};
    }
    unsigned char *space = tg_alloc(size + 8192);
    struct zip_bytes z = {space, 0};
    zip_build(&z, parts, COUNT + 1, false);
    unsigned char *file = tg_alloc(z.n); /* exactly as large, so that a read past the end is seen */
    memcpy(file, space, z.n);
    try_file(file, z.n);
    tg_free(space);
    tg_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && (data[0] == 'F' || (data[0] == 'P' && (size < 2 || data[1] != 'K'))))
        try_pickle(data + 1, size - 1, data[0] == 'F');
    else
        try_file(data, size);
    return 0;
}
