#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/tensors.h"
#include "tests/zip_build.h"

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

/* Piece by piece, and single elements. */
static void same_tensor(const struct tg_tensor *a, const struct tg_tensor *b)
{
    enum { PIECE = 1 << 13 };
    static unsigned char x[PIECE * 8], y[PIECE * 8];
    const size_t size = a->elements ? a->bytes / a->elements : 0;
    assert_string_equal(a->name, b->name);
    assert_true(a->dtype == b->dtype && a->rank == b->rank && a->elements == b->elements);
    assert_memory_equal(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
    for (size_t at = 0; at < a->elements; at += PIECE) {
        const size_t n = a->elements - at < PIECE ? a->elements - at : PIECE;
        assert_int_equal(tg_tensor_read_raw(a, at, n, x, &err), TG_OK);
        assert_int_equal(tg_tensor_read_raw(b, at, n, y, &err), TG_OK);
        if (memcmp(x, y, n * size))
            fail_msg("'%s' differs in elements [%zu, %zu)", a->name, at, at + n);
        for (size_t i = 0; i < n; i += 1 + a->elements / 1000) {
            const void *view;
            assert_int_equal(tg_tensor_view(b, at + i, 1, y, &view, &err), TG_OK);
            assert_memory_equal(view, x + i * size, size);
        }
    }
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

/* Cut anywhere, a file is refused; in a block of its own, so that a read past the end is seen. */
static void test_cut(void **state)
{
    (void)state;
    for (int i = 0; i < FIXTURES; i++) {
        char path[128];
        struct tg_map m;
        snprintf(path, sizeof path, "tests/data/torchbin/%s", fixtures[i]);
        assert_int_equal(tg_map_open(&m, path, &err), TG_OK);
        for (size_t n = 0; n < m.size; n++) {
            struct tg_tensors *t = NULL;
            unsigned char *cut = tg_alloc(n);
            memcpy(cut, m.data, n);
            memset(&err, 0, sizeof err);
            int rc = tg_tensors_over(&t, &tg_format_torch, cut, n, "cut", &err);
            if ((rc != TG_ERR_FORMAT && rc != TG_ERR_UNSUPPORTED) || t ||
                strncmp(err.msg, "cut: ", 5))
                fail_msg("%s, %zu bytes: %d %s", fixtures[i], n, rc, err.msg);
            tg_free(cut);
        }
        tg_map_close(&m);
    }
}

/* Each byte of a legacy file's pickles changed: an error or tensors that can be read. */
static void test_legacy_bytes(void **state)
{
    (void)state;
    struct tg_map m;
    size_t refused = 0, zeros = 0;
    assert_int_equal(tg_map_open(&m, "tests/data/torchbin/legacy.bin", &err), TG_OK);
    unsigned char *own = tg_alloc(m.size);
    memcpy(own, m.data, m.size);
    for (size_t at = 0; at < m.size; at++)
        for (int bit = 0; bit < 8; bit++) {
            struct tg_tensors *t;
            own[at] ^= (unsigned char)(1 << bit);
            int rc = tg_tensors_over(&t, &tg_format_torch, own, m.size, "bit", &err);
            refused += rc != TG_OK;
            for (size_t i = 0; rc == TG_OK && i < tg_tensors_count(t); i++) {
                const struct tg_tensor *x = tg_tensors_at(t, i);
                unsigned char *got = tg_alloc(x->bytes);
                assert_int_equal(tg_tensor_read_raw(x, 0, x->elements, got, &err), TG_OK);
                for (size_t k = 0; k < x->bytes; k++)
                    zeros += got[k] == 0;
                tg_free(got);
            }
            tg_tensors_close(t);
            own[at] ^= (unsigned char)(1 << bit);
        }
    assert_true(refused > 8 * 1000 && zeros > 0);
    tg_free(own);
    tg_map_close(&m);
}

/* pickles by hand, in an archive with storages "0" of 24 bytes (stored) and "1" (deflated) */

#define TEXT1(c) "X\1\0\0\0" c
#define ID(class, key, n) "(X\7\0\0\0storagec" class "\n" TEXT1(key) "X\3\0\0\0cpuK" n "tQ"
#define HOOKS "\211ccollections\nOrderedDict\n)R"
#define V2(class, key, n, offset, size, stride)                                                    \
    "ctorch._utils\n_rebuild_tensor_v2\n(" ID(class, key, n) offset size stride HOOKS "tR"
#define F6(offset, size, stride) V2("torch\nFloatStorage", "0", "\6", offset, size, stride)
#define T1(a) "K" a "\205"
#define T2(a, b) "K" a "K" b "\206"
#define PLAIN F6("K\0", T2("\2", "\3"), T2("\3", "\1"))
#define DICT(key, value) "}" TEXT1(key) value "s"

struct bytes {
    const char *p;
    size_t n;
};
#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof literal - 1                                                                \
    }

static const float six[] = {1, 2, 3, 4, 5, 6};
static unsigned char archive[1 << 20];

static int over_parts(const struct zip_part *parts, size_t count, struct tg_tensors **t)
{
    struct zip_bytes z = {archive, 0};
    zip_build(&z, parts, count, false);
    memset(&err, 0, sizeof err);
    return tg_tensors_over(t, &tg_format_torch, z.p, z.n, "x.bin", &err);
}

static int over(const void *pickle, size_t n, struct tg_tensors **t)
{
    const struct zip_part parts[] = {
        {.name = "a/data.pkl", .data = pickle, .size = n},
        {.name = "a/data/0", .data = six, .size = sizeof six},
        {.name = "a/data/1", .data = six, .size = sizeof six, .deflate = true},
    };
    return over_parts(parts, 3, t);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        struct bytes pickle;
        const char *names[4]; /* sorted */
    } rows[] = {
        {BYTES("\200\2}."), {NULL}},
        {BYTES("\200\2" DICT("a", PLAIN) "."), {"a"}},
        {BYTES("\200\2" DICT("a", DICT("b", PLAIN)) "."), {"a.b"}},
        {BYTES("\200\2}" TEXT1("a") "](" PLAIN PLAIN "es."), {"a.0", "a.1"}},
        {BYTES("\200\2}(" TEXT1("a") PLAIN "q\0K\7h\0J\377\377\377\377h\0u."), {"-1", "7", "a"}},
        {BYTES("\200\2}" TEXT1("a") PLAIN PLAIN "\206s."), {"a.0", "a.1"}},
        /* beside the wrapper's dictionary nothing else, or something else, holds a tensor */
        {BYTES("\200\2}(X\5\0\0\0model" DICT("a", PLAIN) TEXT1("e") "K\3u."), {"a"}},
        {BYTES("\200\2}(X\12\0\0\0state_dict" DICT("a", PLAIN) "u."), {"a"}},
        {BYTES("\200\2}(X\6\0\0\0module" DICT("a", DICT("b", PLAIN)) "u."), {"a.b"}},
        {BYTES("\200\2}(X\5\0\0\0model" DICT("a", PLAIN) TEXT1("e") PLAIN "u."), {"e", "model.a"}},
        {BYTES("\200\2}(" TEXT1("e") PLAIN "X\5\0\0\0model" DICT("a", PLAIN) "u."),
         {"e", "model.a"}},
        {BYTES("\200\2}(X\5\0\0\0model" PLAIN "u."), {"model"}},
        {BYTES("\200\2}(X\5\0\0\0other" DICT("a", PLAIN) "u."), {"other.a"}},
        /* Python 2's OrderedDict, and what is no tensor */
        {BYTES("\200\2ccollections\nOrderedDict\n](]"
               "(" TEXT1("a") PLAIN "ee\205R."),
         {"a"}},
        {BYTES("\200\2}(" TEXT1("a") PLAIN TEXT1("b") "c__builtin__\nset\n](K\1e\205R" TEXT1("c") "ctorch\ndevice\nX\3\0\0\0cpu\205R" TEXT1(
             "d") "G\77\360\0\0\0\0\0\0" TEXT1("e") "ctorch\nfloat32\n" TEXT1("f") "\212\11\0\0\0\0"
                                                                                   "\0\0\0\0"
                                                                                   "\1" TEXT1(
                                                                                       "g") "\217u"
                                                                                            "."),
         {"a"}},
        /* a parameter, and a tensor with attributes */
        {BYTES("\200\2" DICT("a", "ctorch._utils\n_rebuild_parameter\n(" PLAIN HOOKS "tR") "."),
         {"a"}},
        {BYTES("\200\2" DICT("a", "ctorch._tensor\n_rebuild_from_type_v2\n("
                                  "ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(" ID(
                                      "torch\nFloatStorage", "0", "\6") "K\0" T1("\6") T1("\1")
                                      HOOKS "t}tR") "."),
         {"a"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t;
        float got[6];
        size_t n = 0;
        if (over(rows[i].pickle.p, rows[i].pickle.n, &t) != TG_OK)
            fail_msg("row %zu: %s", i, err.msg);
        while (n < 4 && rows[i].names[n])
            n++;
        assert_int_equal(tg_tensors_count(t), n);
        for (size_t k = 0; k < n; k++) {
            assert_string_equal(tg_tensors_at(t, k)->name, rows[i].names[k]);
            assert_int_equal(tg_tensor_read_f32(tg_tensors_at(t, k), got, &err), TG_OK);
            assert_memory_equal(got, six, sizeof six);
        }
        tg_tensors_close(t);
    }
}

static void test_views(void **state)
{
    (void)state;
    static const struct {
        struct bytes pickle;
        int rank;
        int64_t shape[3];
        float want[12];
        size_t count;
        bool in_place;
    } rows[] = {
#define ROW(offset, size, stride) BYTES("\200\2" DICT("a", F6(offset, size, stride)) ".")
#define DEFLATED(offset, size, stride)                                                             \
    BYTES("\200\2" DICT("a", V2("torch\nFloatStorage", "1", "\6", offset, size, stride)) ".")
        {ROW("K\0", T2("\2", "\3"), T2("\3", "\1")), 2, {2, 3}, {1, 2, 3, 4, 5, 6}, 6, true},
        {ROW("K\0", T2("\3", "\2"), T2("\1", "\3")), 2, {3, 2}, {1, 4, 2, 5, 3, 6}, 6, false},
        {ROW("K\1", T2("\2", "\2"), T2("\3", "\1")), 2, {2, 2}, {2, 3, 5, 6}, 4, false},
        {ROW("K\2", T1("\4"), T1("\1")), 1, {4}, {3, 4, 5, 6}, 4, true},
        {ROW("K\5", ")", ")"), 0, {0}, {6}, 1, true},
        {ROW("K\1", T2("\1", "\4"), T2("\77", "\1")), 2, {1, 4}, {2, 3, 4, 5}, 4, true},
        {ROW("K\1", T2("\4", "\1"), T2("\1", "\0")), 2, {4, 1}, {2, 3, 4, 5}, 4, true},
        {ROW("K\4", T2("\3", "\2"), T2("\0", "\1")), 2, {3, 2}, {5, 6, 5, 6, 5, 6}, 6, false},
        {ROW("K\0", T2("\4", "\3"), T2("\1", "\1")),
         2,
         {4, 3},
         {1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6},
         12,
         false},
        {ROW("K\0", "K\2K\1K\3\207", "K\1K\11K\2\207"), 3, {2, 1, 3}, {1, 3, 5, 2, 4, 6}, 6, false},
        {ROW("K\0", "ctorch\nSize\n" T1("\6") "\205R", T1("\1")),
         1,
         {6},
         {1, 2, 3, 4, 5, 6},
         6,
         true},
        {ROW("K\77", T2("\0", "\3"), T2("\3", "\1")), 2, {0, 3}, {0}, 0, true},
        {DEFLATED("K\0", T2("\2", "\3"), T2("\3", "\1")), 2, {2, 3}, {1, 2, 3, 4, 5, 6}, 6, false},
        {DEFLATED("K\1", T2("\2", "\2"), T2("\1", "\3")), 2, {2, 2}, {2, 5, 3, 6}, 4, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t;
        float got[12], one;
        if (over(rows[i].pickle.p, rows[i].pickle.n, &t) != TG_OK)
            fail_msg("row %zu: %s", i, err.msg);
        const struct tg_tensor *x = tg_tensors_find(t, "a");
        assert_true(x->rank == rows[i].rank && x->elements == rows[i].count);
        assert_memory_equal(x->shape, rows[i].shape, (size_t)x->rank * sizeof *x->shape);
        assert_int_equal(x->data != NULL, rows[i].in_place);
        for (size_t first = 0; first <= x->elements; first++)
            for (size_t n = 0; first + n <= x->elements; n++) {
                assert_int_equal(tg_tensor_read_raw(x, first, n, got, &err), TG_OK);
                if (memcmp(got, rows[i].want + first, n * sizeof one))
                    fail_msg("row %zu: elements [%zu, %zu)", i, first, first + n);
            }
        assert_int_equal(tg_tensor_read_raw(x, x->elements, 1, &one, &err), TG_ERR_VALUE);
        tg_tensors_close(t);
    }
}

#define LONG(bytes) "\212\10" bytes
/* 2^62: four of them wrap around */
#define QUARTER "\0\0\0\0\0\0\0\100"
#define BIG "\377\377\377\377\377\377\377\177"
#define ROW_A(value, code, why)                                                                    \
    {                                                                                              \
        BYTES("\200\2" DICT("a", value) "."), code, why                                            \
    }

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct bytes pickle;
        int code;
        const char *why;
    } rows[] = {
        /* the machine */
        {BYTES(""), TG_ERR_FORMAT, "byte 0: ends before its STOP"},
        {BYTES("\200"), TG_ERR_FORMAT, "ends inside an opcode"},
        {BYTES("\200\6}."), TG_ERR_FORMAT, "protocol above 5"},
        {BYTES("\200\2."), TG_ERR_FORMAT, "more or less than one object"},
        {BYTES("\200\2}}."), TG_ERR_FORMAT, "more or less than one object"},
        {BYTES("\200\2}(."), TG_ERR_FORMAT, "more or less than one object"},
        {BYTES("\200\2}.x"), TG_ERR_FORMAT, "1 bytes after the end"},
        {BYTES("\200\2cos\nsystem\nX\2\0\0\0ls\205R."), TG_ERR_UNSUPPORTED, "global 'os.system'"},
        {BYTES("\200\2c__builtin__\neval\n."), TG_ERR_UNSUPPORTED, "global 'builtins.eval'"},
        {BYTES("\200\2cnumpy.core.multiarray\nscalar\n."), TG_ERR_UNSUPPORTED,
         "'numpy.core.multiarray.scalar'"},
        {BYTES("\200\2cos\33[2J\nsystem\n."), TG_ERR_UNSUPPORTED, "'os?[2J.system'"},
        {BYTES("\200\2cos\nsystem"), TG_ERR_FORMAT, "a global's name ends after"},
        {BYTES("\200\2ios\nsystem\n."), TG_ERR_UNSUPPORTED, "opcode 0x69"},
        {BYTES("\200\4\214\2os\224."), TG_ERR_UNSUPPORTED, "opcode 0x8C"},
        {BYTES("\200\2X\377\377\377\377abc."), TG_ERR_FORMAT, "a string ends after"},
        {BYTES("\200\2X\1\0\0\0\377."), TG_ERR_FORMAT, "not UTF-8"},
        {BYTES("\200\2\212\377\1\2."), TG_ERR_FORMAT, "an integer ends after"},
        {BYTES("\200\2t."), TG_ERR_FORMAT, "no mark"},
        {BYTES("\200\2\206."), TG_ERR_FORMAT, "too few objects"},
        {BYTES("\200\2}(\205."), TG_ERR_FORMAT, "too few objects"},
        {BYTES("\200\2}R."), TG_ERR_FORMAT, "too few objects"},
        {BYTES("\200\2})R."), TG_ERR_FORMAT, "a call of what is no global"},
        {BYTES("\200\2ctorch\nSize\n]R."), TG_ERR_FORMAT, "without a tuple"},
        {BYTES("\200\2}K\1a."), TG_ERR_FORMAT, "what is no list"},
        {BYTES("\200\2]K\1K\1s."), TG_ERR_FORMAT, "what is no dictionary"},
        {BYTES("\200\2}(K\1u."), TG_ERR_FORMAT, "a key without a value"},
        {BYTES("\200\2K\1}b."), TG_ERR_FORMAT, "state is given to what has none"},
        {BYTES("\200\2K\1Q."), TG_ERR_FORMAT, "persistent id is not a tuple"},
        {BYTES("\200\2}h\0."), TG_ERR_FORMAT, "memo 0 holds nothing"},
        {BYTES("\200\2}j\377\377\377\377."), TG_ERR_FORMAT, "memo 4294967295 holds nothing"},
        {BYTES("\200\2}r\377\377\377\377."), TG_ERR_FORMAT, "memo 4294967295 is beyond"},
        {BYTES("\200\2ccollections\nOrderedDict\nK\1\205R."), TG_ERR_FORMAT, "list of pairs"},
        {BYTES("\200\2ccollections\nOrderedDict\n]]a\205R."), TG_ERR_FORMAT, "list of pairs"},
        /* the objects */
        {BYTES("\200\2K\1."), TG_ERR_UNSUPPORTED, "one object of type int"},
        {BYTES("\200\2" PLAIN "."), TG_ERR_UNSUPPORTED,
         "one object of type torch._utils._rebuild_tensor_v2"},
        {BYTES("\200\2}q\0" TEXT1("a") "h\0s."), TG_ERR_FORMAT, "contain themselves"},
        {BYTES("\200\2}" TEXT1("a") "]q\0h\0as."), TG_ERR_FORMAT, "contain themselves"},
        {BYTES("\200\2}" TEXT1("a") "]q\0(h\0h\0es."), TG_ERR_FORMAT, "contain themselves"},
        {BYTES("\200\2}" TEXT1("\0") PLAIN "s."), TG_ERR_UNSUPPORTED, "hold a NUL"},
        {BYTES("\200\2}N" PLAIN "s."), TG_ERR_UNSUPPORTED, "neither str nor int"},
        {BYTES("\200\2}(" TEXT1("a") PLAIN TEXT1("a") PLAIN "u."), TG_ERR_FORMAT, "'a' is in"},
        /* tensors */
        ROW_A("ctorch._utils\n_rebuild_sparse_tensor\n)R", TG_ERR_UNSUPPORTED,
              "'a': torch._utils._rebuild_sparse_tensor makes a tensor that is not"),
        ROW_A("ctorch._utils\n_rebuild_qtensor\n)R", TG_ERR_UNSUPPORTED, "_rebuild_qtensor"),
        ROW_A("ctorch.nn.parameter\nParameter\n)\201", TG_ERR_UNSUPPORTED, "parameter.Parameter"),
        ROW_A("ctorch._utils\n_rebuild_tensor_v2\n)R", TG_ERR_FORMAT, "number of arguments"),
        ROW_A("ctorch._utils\n_rebuild_tensor_v2\n(K\1K\1K\1K\1K\1K\1tR", TG_ERR_FORMAT,
              "storage or offset is of the wrong type"),
        ROW_A("ctorch._utils\n_rebuild_parameter\n)R", TG_ERR_FORMAT, "what is no tensor"),
        ROW_A("ctorch._tensor\n_rebuild_from_type_v2\n)R", TG_ERR_UNSUPPORTED, "from_type_v2"),
        ROW_A(PLAIN "}b", TG_ERR_UNSUPPORTED, "state is set on it"),
        ROW_A(F6("J\377\377\377\377", T1("\1"), T1("\1")), TG_ERR_FORMAT, "wrong type"),
        ROW_A(F6("K\0", "K\1", T1("\1")), TG_ERR_FORMAT, "is no tuple"),
        ROW_A(F6("K\0", "J\377\377\377\377\205", T1("\1")), TG_ERR_FORMAT, "from 0 on"),
        ROW_A(F6("K\0", "N\205", T1("\1")), TG_ERR_FORMAT, "from 0 on"),
        ROW_A(F6("K\0", T1("\1"), T2("\1", "\1")), TG_ERR_FORMAT, "differ in length"),
        ROW_A(F6("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", T1("\1")), TG_ERR_UNSUPPORTED,
              "9 dimensions"),
        ROW_A(F6("K\0", T1("\7"), T1("\1")), TG_ERR_FORMAT, "'a': [7] from element 0 on does not"),
        ROW_A(F6("K\1", T1("\6"), T1("\1")), TG_ERR_FORMAT, "does not lie in its storage '0' of 6"),
        ROW_A(F6("K\6", T1("\1"), T1("\1")), TG_ERR_FORMAT, "does not lie"),
        ROW_A(F6("K\6", ")", ")"), TG_ERR_FORMAT, "does not lie"),
        ROW_A(F6("K\0", T2("\2", "\2"), T2("\5", "\1")), TG_ERR_FORMAT, "does not lie"),
        ROW_A(F6(LONG(BIG), T1("\2"), T1("\1")), TG_ERR_FORMAT, "does not lie"),
        ROW_A(F6("K\0", T1("\3"), LONG(BIG) "\205"), TG_ERR_FORMAT, "does not lie"),
        ROW_A(F6("K\0", T1("\5"), LONG(QUARTER) "\205"), TG_ERR_FORMAT, "does not lie"),
        ROW_A(F6("K\0", T2("\3", "\3"), LONG(QUARTER) LONG(QUARTER) "\206"), TG_ERR_FORMAT,
              "does not lie"),
        ROW_A(F6("K\0", LONG(BIG) "\205", T1("\1")), TG_ERR_FORMAT, "size overflows"),
        ROW_A(F6("K\0", "J\0\0\0\100\205", T1("\0")), TG_ERR_UNSUPPORTED, "repeats its storage"),
        ROW_A("ctorch._utils\n_rebuild_tensor_v2\n(" ID("torch\nFloatStorage", "0", "\6") "K\0" T1(
                  "\6") T1("\1") HOOKS "}X\4\0\0\0conj\210stR",
              TG_ERR_UNSUPPORTED, "conjugated"),
        ROW_A("ctorch._utils\n_rebuild_tensor_v3\n(" ID("torch.storage\nUntypedStorage", "0",
                                                        "\30") "K\0" T1("\6") T1("\1") HOOKS
              "ctorch\nbits16\ntR",
              TG_ERR_UNSUPPORTED, "'a': dtype torch.bits16"),
        ROW_A("ctorch._utils\n_rebuild_tensor_v3\n(" ID("torch.storage\nUntypedStorage", "0",
                                                        "\30") "K\0" T1("\7") T1("\1") HOOKS
              "ctorch\nuint32\ntR",
              TG_ERR_FORMAT, "does not lie in its storage '0' of 6"),
        /* storages */
        ROW_A(V2("torch\nQInt8Storage", "0", "\6", "K\0", T1("\1"), T1("\1")), TG_ERR_UNSUPPORTED,
              "storage '0': class torch.QInt8Storage"),
        ROW_A(V2("torch\nComplexDoubleStorage", "0", "\6", "K\0", T1("\1"), T1("\1")),
              TG_ERR_UNSUPPORTED, "torch.ComplexDoubleStorage"),
        ROW_A(V2("torch\nSize", "0", "\6", "K\0", T1("\1"), T1("\1")), TG_ERR_UNSUPPORTED,
              "class torch.Size"),
        ROW_A(V2("torch\nFloatStorage", "2", "\6", "K\0", T1("\1"), T1("\1")), TG_ERR_FORMAT,
              "no entry 'a/data/2'"),
        ROW_A(V2("torch\nFloatStorage", "0", "\7", "K\0", T1("\1"), T1("\1")), TG_ERR_FORMAT,
              "entry 'a/data/0' has 24 bytes, the storage of 7 elements needs 28"),
        ROW_A(V2("torch\nFloatStorage", "0", "\5", "K\0", T1("\1"), T1("\1")), TG_ERR_FORMAT,
              "needs 20"),
        ROW_A("](" PLAIN V2("torch\nIntStorage", "0", "\6", "K\0", T1("\1"), T1("\1")) "e",
              TG_ERR_FORMAT, "two classes"),
        ROW_A("(X\6\0\0\0moduletQ", TG_ERR_FORMAT, "is not ('storage', class"),
        ROW_A("(X\7\0\0\0storageK\1K\1K\1K\1tQ", TG_ERR_FORMAT, "of the wrong type"),
        ROW_A("(X\7\0\0\0storagectorch\nDoubleStorage\n" TEXT1("0") "K\1" LONG(BIG) "tQ",
              TG_ERR_FORMAT, "bytes overflow"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t = (void *)1;
        int rc = over(rows[i].pickle.p, rows[i].pickle.n, &t);
        if (rc != rows[i].code || t || !strstr(err.msg, rows[i].why) ||
            (strncmp(err.msg, "x.bin: ", 7) && !strstr(err.msg, " in x.bin")))
            fail_msg("row %zu, '%s': %d %s", i, rows[i].why, rc, err.msg);
    }
}

/* Pickles that grow: nested deeper than the limit, shared so that they unfold to 2^60 items, one
 * list made a dictionary again and again, a long name or string used often. */
static void test_bombs(void **state)
{
    (void)state;
    enum { N = 60000 };
    static char pickle[20 * N];
    struct tg_tensors *t;
    size_t n = 0;
#define ADD(literal) (memcpy(pickle + n, literal, sizeof literal - 1), n += sizeof literal - 1)
    ADD("\200\2}X\1\0\0\0a");
    for (int i = 0; i < N; i++)
        ADD("]");
    for (int i = 1; i < N; i++)
        ADD("a");
    ADD("s.");
    assert_int_equal(over(pickle, n, &t), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "nested deeper than 64"));

    n = 0;
    ADD("\200\2}X\1\0\0\0a]q\0");
    for (int i = 0; i < 60; i++)
        ADD("h\0\206q\0"); /* (x, x), but for the first */
    ADD("s.");
    assert_int_equal(over(pickle, n, &t), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "shared so often"));

    n = 0;
    ADD("\200\2}X\1\0\0\0a](");
    for (int i = 0; i < N / 10; i++)
        ADD("NN\206");
    ADD("eq\0K\1\206s");
    for (int i = 0; i < N / 10; i++)
        ADD("Nccollections\nOrderedDict\nh\0\205Rs");
    ADD(".");
    assert_int_equal(over(pickle, n, &t), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "the containers hold more items"));

    n = 0;
    ADD("\200\2}X\1\0\0\0vX\0\20\0\0"); /* 4096 bytes */
    memset(pickle + n, 'v', 4096);
    n += 4096;
    ADD("q\0s");
    for (int i = 0; i < 256; i++) {
        ADD("X\3\0\0\0");
        snprintf(pickle + n, 4, "%03d", i);
        n += 3;
        ADD("h\0s");
    }
    ADD(".");
    assert_int_equal(over(pickle, n, &t), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "its strings have"));

    n = 0;
    ADD("\200\2}X\1\4\0\0"); /* 1025 bytes */
    memset(pickle + n, 'k', 1025);
    n += 1025;
    ADD(PLAIN "s.");
    assert_int_equal(over(pickle, n, &t), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "longer than 1024 bytes"));
}

/* containers */

static void expect(int rc, struct tg_tensors *t, int code, const char *why)
{
    if (rc != code || (rc != TG_OK && t) || (rc != TG_OK && !strstr(err.msg, why)))
        fail_msg("wanted '%s': %d %s", why, rc, err.msg);
    if (rc == TG_OK)
        tg_tensors_close(t);
}

static void test_archives(void **state)
{
    (void)state;
    static const char one[] = "\200\2" DICT("a", PLAIN) ".";
    static const char both[] = "\200\2}(" TEXT1("a") PLAIN TEXT1("b")
        V2("torch\nFloatStorage", "1", "\6", "K\0", T1("\6"), T1("\1")) "u.";
    const struct zip_part pickle = {.name = "a/data.pkl", .data = one, .size = sizeof one - 1},
                          data = {.name = "a/data/0", .data = six, .size = sizeof six};
    static const struct {
        struct zip_part more;
        int code;
        const char *why;
    } rows[] = {
        {{.name = "a/version", .data = "3\n", .size = 2}, TG_OK, ""},
        {{.name = "a/byteorder", .data = "little", .size = 6}, TG_OK, ""},
        {{.name = "a/byteorder", .data = "little", .size = 6, .deflate = true}, TG_OK, ""},
        {{.name = "a/byteorder", .data = "big", .size = 3},
         TG_ERR_UNSUPPORTED,
         "entry 'a/byteorder': byte order 'big' is not supported"},
        {{.name = "a/byteorder", .data = "middle", .size = 6}, TG_ERR_FORMAT, "'middle'"},
        {{.name = "a/byteorder", .data = "little little", .size = 13}, TG_ERR_FORMAT, "13 bytes"},
        {{.name = "a/constants.pkl", .data = "", .size = 0}, TG_ERR_UNSUPPORTED, "TorchScript"},
        {{.name = "b/data.pkl", .data = "", .size = 0}, TG_ERR_FORMAT, "both 'a/data.pkl' and"},
        {{.name = "a/b/data.pkl", .data = "", .size = 0}, TG_OK, ""},
    };
    struct tg_tensors *t;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct zip_part parts[] = {pickle, data, rows[i].more};
        int rc = over_parts(parts, 3, &t);
        expect(rc, t, rows[i].code, rows[i].why);
    }
    int rc = over_parts(&data, 1, &t);
    expect(rc, t, TG_ERR_FORMAT, "no entry '<name>/data.pkl'");
    struct zip_part parts[] = {pickle, data, {0}};
    parts[0].deflate = true;
    rc = over_parts(parts, 2, &t);
    expect(rc, t, TG_OK, "");

    /* A wrong CRC is found when the file is opened, or when a deflated entry is read. */
    parts[0] = (struct zip_part){.name = "a/data.pkl", .data = both, .size = sizeof both - 1};
    parts[2] =
        (struct zip_part){.name = "a/data/1", .data = six, .size = sizeof six, .deflate = true};
    struct zip_bytes z = {archive, 0};
    zip_build(&z, parts, 3, false);
    unsigned char *stored = memmem(z.p, z.n, six, sizeof six);
    stored[5] ^= 1;
    rc = tg_tensors_over(&t, &tg_format_torch, z.p, z.n, "x.bin", &err);
    expect(rc, t, TG_ERR_FORMAT, "entry 'a/data/0': its 24 bytes have CRC");
    stored[5] ^= 1;
    unsigned char *local = memmem(z.p, z.n, "a/data/1", 8);
    local[-16] ^= 1;
    unsigned char *central = memmem(local + 8, (size_t)(z.p + z.n - local - 8), "a/data/1", 8);
    central[-30] ^= 1;
    float got[6];
    assert_int_equal(tg_tensors_over(&t, &tg_format_torch, z.p, z.n, "x.bin", &err), TG_OK);
    assert_int_equal(tg_tensor_read_f32(tg_tensors_find(t, "a"), got, &err), TG_OK);
    assert_int_equal(tg_tensor_read_f32(tg_tensors_find(t, "b"), got, &err), TG_ERR_FORMAT);
    assert_non_null(strstr(err.msg, "entry 'a/data/1': its 24 bytes have CRC"));
    tg_tensors_close(t);
}

/* One inflated entry is kept: those of another storage are not taken for it. */
static void test_deflated(void **state)
{
    (void)state;
    static const float other[] = {7, 8, 9, 10, 11, 12};
    static const char both[] = "\200\2}(" TEXT1("a") PLAIN TEXT1("b")
        V2("torch\nFloatStorage", "1", "\6", "K\0", T1("\6"), T1("\1")) "u.";
    const struct zip_part parts[] = {
        {.name = "a/data.pkl", .data = both, .size = sizeof both - 1, .deflate = true},
        {.name = "a/data/0", .data = six, .size = sizeof six, .deflate = true},
        {.name = "a/data/1", .data = other, .size = sizeof other, .deflate = true}};
    struct tg_tensors *t;
    float got[6];
    assert_int_equal(over_parts(parts, 3, &t), TG_OK);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(tg_tensor_read_f32(tg_tensors_at(t, (size_t)i % 2), got, &err), TG_OK);
        assert_memory_equal(got, i % 2 ? other : six, sizeof six);
    }
    tg_tensors_close(t);
}

#define MAGIC "\200\2\212\12\154\374\234\106\371\40\152\250\120\31."
#define VERSION "\200\2M\351\3."
#define SYSTEM "\200\2}X\15\0\0\0little_endian\210s."
#define LEGACY_ID(key, view)                                                                       \
    "(X\7\0\0\0storagectorch\nByteStorage\n" TEXT1(key) "X\3\0\0\0cpuK\3" view "tQ"
#define LEGACY(key, view)                                                                          \
    "\200\2" DICT("a", "ctorch._utils\n_rebuild_tensor\n(" LEGACY_ID(key, view) "K\0" T1("\3")     \
                           T1("\1") "tR") "."
#define KEYS "\200\2](" TEXT1("0") "e."
#define DATA "\3\0\0\0\0\0\0\0xyz"

static void test_legacy(void **state)
{
    (void)state;
    static const struct {
        struct bytes file;
        int code;
        const char *why;
    } rows[] = {
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") KEYS DATA), TG_OK, ""},
        {BYTES(MAGIC VERSION "\200\2}." LEGACY("0", "N") KEYS DATA), TG_OK, ""},
        {BYTES("\200\2}."), TG_ERR_FORMAT, "without PyTorch's magic number"},
        {BYTES(MAGIC "\200\2M\352\3." SYSTEM LEGACY("0", "N") KEYS DATA), TG_ERR_UNSUPPORTED,
         "protocol version is not 1001"},
        {BYTES(MAGIC VERSION "\200\2}X\15\0\0\0little_endian\211s." LEGACY("0", "N") KEYS DATA),
         TG_ERR_UNSUPPORTED, "byte order 'big'"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "K\1") KEYS DATA), TG_ERR_UNSUPPORTED,
         "views of storages"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "") KEYS DATA), TG_ERR_FORMAT, "is not ('storage'"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("1", "N") KEYS DATA), TG_ERR_FORMAT,
         "'0' belongs to no tensor"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") "\200\2]."), TG_ERR_FORMAT,
         "storage '0' has no data"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") "\200\2](" TEXT1("0")
                   TEXT1("0") "e." DATA DATA),
         TG_ERR_FORMAT, "'0' stands twice"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") "\200\2](K\1e." DATA), TG_ERR_FORMAT,
         "is no string"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") "\200\2}." DATA), TG_ERR_FORMAT, "no list"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") KEYS "\4\0\0\0\0\0\0\0wxyz"), TG_ERR_FORMAT,
         "has 4 elements, its tensors say 3"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") KEYS "\3\0\0\0\0\0\0\0xy"), TG_ERR_FORMAT,
         "ends after the file's"},
        {BYTES(MAGIC VERSION SYSTEM LEGACY("0", "N") KEYS DATA "z"), TG_ERR_FORMAT,
         "1 bytes after the last storage"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_tensors *t = NULL;
        int rc =
            tg_tensors_over(&t, &tg_format_torch, rows[i].file.p, rows[i].file.n, "x.bin", &err);
        if (rc == TG_OK)
            assert_memory_equal(tg_tensors_find(t, "a")->data, "xyz", 3);
        expect(rc, t, rows[i].code, rows[i].why);
    }
}

/* memory exhausted at each allocation: an error, no leak (seen under AddressSanitizer) */

static int open_and_read(const char *path)
{
    struct tg_tensors *t;
    unsigned char data[4096];
    int rc = tg_tensors_open(&t, path, &err);
    for (size_t i = 0; rc == TG_OK && i < tg_tensors_count(t); i++) {
        const struct tg_tensor *x = tg_tensors_at(t, i);
        assert_true(x->bytes <= sizeof data);
        rc = tg_tensor_read_raw(x, 0, x->elements, data, &err);
    }
    tg_tensors_close(t);
    return rc;
}

static void torture(const char *path)
{
    for (long n = 1;; n++) {
        tg_mem_fail_after(n);
        int rc = open_and_read(path);
        tg_mem_fail_after(0);
        if (rc == TG_OK) {
            assert_true(n > 10);
            return;
        }
        if (rc != TG_ERR_NOMEM || !strstr(err.msg, "out of memory"))
            fail_msg("%s: allocation %ld: %d %s", path, n, rc, err.msg);
    }
}

static void test_torture(void **state)
{
    (void)state;
    char *deflated = tg_path_join(scratch, "deflated.bin");
    static const char pickle[] = "\200\2}(" TEXT1("a") PLAIN TEXT1("b")
        DICT("c", V2("torch\nFloatStorage", "1", "\6", "K\0", T1("\6"), T1("\1"))) TEXT1("d")
            TEXT1("e") "u.";
    const struct zip_part parts[] = {
        {.name = "a/data.pkl", .data = pickle, .size = sizeof pickle - 1, .deflate = true},
        {.name = "a/data/0", .data = six, .size = sizeof six, .deflate = true},
        {.name = "a/data/1", .data = six, .size = sizeof six, .deflate = true}};
    struct zip_bytes z = {archive, 0};
    zip_build(&z, parts, 3, true);
    assert_int_equal(tg_file_write(deflated, z.p, z.n, &err), TG_OK);
    torture(deflated);
    tg_free(deflated);
    for (int i = 0; i < FIXTURES; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/data/torchbin/%s", fixtures[i]);
        torture(path);
    }
}

static int remove_scratch(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

/* For tests/interop/check_torch.py: do two files hold the same tensors? */
static int same_files(const char *a, const char *b)
{
    struct tg_tensors *x = NULL, *y = NULL;
    int rc = tg_tensors_open(&x, a, &err);
    if (rc == TG_OK)
        rc = tg_tensors_open(&y, b, &err);
    if (rc != TG_OK)
        print_error("%s\n", err.msg);
    else
        same_tensors(x, y);
    tg_tensors_close(x);
    tg_tensors_close(y);
    return rc == TG_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "--same"))
        return same_files(argv[2], argv[3]);
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_legacy_bytes),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_archives),
        cmocka_unit_test(test_deflated),
        cmocka_unit_test(test_legacy),
        cmocka_unit_test_setup_teardown(test_torture, NULL, remove_scratch),
    };
    snprintf(scratch, sizeof scratch, "/tmp/tegu-torch-XXXXXX");
    if (!mkdtemp(scratch))
        return 1;
    return tg_run_tests("torch", tests, sizeof tests / sizeof *tests);
}
