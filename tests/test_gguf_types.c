/* Types of tensors in GGUF files, against llama.cpp's rules worked out by hand. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf_types.h"

static struct tg_err err;

struct plan {
    struct tg_tensor_plan tensors[512];
    char names[512][64];
    size_t count;
};

static void add(struct plan *p, const char *name, int64_t rows, int64_t columns)
{
    const size_t i = p->count++;
    assert_true(i < 512);
    snprintf(p->names[i], sizeof p->names[i], "%s", name);
    p->tensors[i] = (struct tg_tensor_plan){.name = p->names[i], .dtype = TG_C64};
    p->tensors[i].rank = rows ? 2 : 1;
    p->tensors[i].shape[0] = rows ? rows : columns;
    p->tensors[i].shape[1] = rows ? columns : 0;
}

static void add_layer(struct plan *p, int layer, const char *part, int64_t rows, int64_t columns)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s", layer, part);
    add(p, name, rows, columns);
}

static enum tg_dtype type_of(const struct plan *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->names[i], name))
            return p->tensors[i].dtype;
    fail_msg("no tensor '%s'", name);
    return TG_DTYPE_COUNT;
}

static void expect(const struct plan *p, const char *name, enum tg_dtype want)
{
    const enum tg_dtype got = type_of(p, name);
    if (got != want)
        fail_msg("%s is %s, not %s", name, tg_dtype_info(got)->name, tg_dtype_info(want)->name);
}

static void expect_layer(const struct plan *p, int layer, const char *part, enum tg_dtype want)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s", layer, part);
    expect(p, name, want);
}

static void apply(struct plan *p, const char *mix)
{
    const struct tg_gguf_mix *m = tg_gguf_mix_find(mix);
    assert_non_null(m);
    tg_gguf_mix_apply(m, p->tensors, p->count);
}

/* A plain decoder, in an order of tensors that is not that of the layers */
static struct plan *decoder(int layers, bool tied)
{
    struct plan *p = tg_alloc(sizeof *p);
    add(p, "token_embd.weight", 1000, 512);
    if (!tied)
        add(p, "output.weight", 1000, 512);
    add(p, "output_norm.weight", 0, 512);
    add(p, "rope_freqs.weight", 0, 32);
    for (int i = layers - 1; i >= 0; i--) {
        add_layer(p, i, "attn_norm.weight", 0, 512);
        add_layer(p, i, "attn_q.weight", 512, 512);
        add_layer(p, i, "attn_q.bias", 0, 512);
        add_layer(p, i, "attn_k.weight", 256, 512);
        add_layer(p, i, "attn_v.weight", 256, 512);
        add_layer(p, i, "attn_output.weight", 512, 512);
        add_layer(p, i, "attn_q_norm.weight", 0, 64);
        add_layer(p, i, "ffn_gate.weight", 1024, 512);
        add_layer(p, i, "ffn_up.weight", 1024, 512);
        add_layer(p, i, "ffn_down.weight", 512, 1024);
    }
    return p;
}

/* Layers of 28 whose attn_v and ffn_down get more bits */
static const int more28[] = {0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27};
static bool more_of_28(int layer)
{
    for (size_t i = 0; i < sizeof more28 / sizeof *more28; i++)
        if (more28[i] == layer)
            return true;
    return false;
}

static void test_mixtures(void **state)
{
    static const struct {
        const char *mix;
        enum tg_dtype dtype, more, head;
    } rows[] = {
        {"f32", TG_F32, TG_F32, TG_F32},       {"f16", TG_F16, TG_F16, TG_F16},
        {"bf16", TG_BF16, TG_BF16, TG_BF16},   {"q8_0", TG_Q8_0, TG_Q8_0, TG_Q8_0},
        {"q4_k_m", TG_Q4_K, TG_Q6_K, TG_Q6_K}, {"q5_k_m", TG_Q5_K, TG_Q6_K, TG_Q6_K},
        {"q6_k", TG_Q6_K, TG_Q6_K, TG_Q6_K},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int tied = 0; tied < 2; tied++) {
            struct plan *p = decoder(28, tied);
            apply(p, rows[i].mix);
            expect(p, "token_embd.weight", tied ? rows[i].head : rows[i].dtype);
            if (!tied)
                expect(p, "output.weight", rows[i].head);
            expect(p, "output_norm.weight", TG_F32);
            expect(p, "rope_freqs.weight", TG_F32);
            for (int layer = 0; layer < 28; layer++) {
                const enum tg_dtype more = more_of_28(layer) ? rows[i].more : rows[i].dtype;
                expect_layer(p, layer, "attn_norm.weight", TG_F32);
                expect_layer(p, layer, "attn_q_norm.weight", TG_F32);
                expect_layer(p, layer, "attn_q.bias", TG_F32);
                expect_layer(p, layer, "attn_q.weight", rows[i].dtype);
                expect_layer(p, layer, "attn_k.weight", rows[i].dtype);
                expect_layer(p, layer, "attn_output.weight", rows[i].dtype);
                expect_layer(p, layer, "ffn_gate.weight", rows[i].dtype);
                expect_layer(p, layer, "ffn_up.weight", rows[i].dtype);
                expect_layer(p, layer, "attn_v.weight", more);
                expect_layer(p, layer, "ffn_down.weight", more);
            }
            tg_free(p);
        }
}

/* qwen35: attn_qkv counts among attn_v; granitehybrid: a layer without attn_v does not. */
static void test_hybrids(void **state)
{
    struct plan *p = tg_alloc(sizeof *p);
    (void)state;
    for (int i = 0; i < 8; i++) {
        add_layer(p, i, i % 4 == 3 ? "attn_v.weight" : "attn_qkv.weight", 512, 512);
        if (i % 4 == 3)
            continue;
        add_layer(p, i, "attn_gate.weight", 512, 512);
        add_layer(p, i, "ssm_conv1d.weight", 512, 4);
        add_layer(p, i, "ssm_alpha.weight", 16, 512);
        add_layer(p, i, "ssm_beta.weight", 16, 512);
        add_layer(p, i, "ssm_a", 0, 16);
        add_layer(p, i, "ssm_dt.bias", 0, 16);
        add_layer(p, i, "ssm_norm.weight", 0, 64);
        add_layer(p, i, "ssm_out.weight", 512, 512);
    }
    apply(p, "q4_k_m");
    /* 8 of them: 0, then 3 and 6, then 7 */
    for (int i = 0; i < 8; i++)
        expect_layer(p, i, i % 4 == 3 ? "attn_v.weight" : "attn_qkv.weight",
                     i == 0 || i == 3 || i == 6 || i == 7 ? TG_Q6_K : TG_Q4_K);
    expect_layer(p, 2, "attn_gate.weight", TG_Q4_K);
    expect_layer(p, 2, "ssm_conv1d.weight", TG_F32);
    expect_layer(p, 2, "ssm_alpha.weight", TG_Q4_K);
    expect_layer(p, 2, "ssm_beta.weight", TG_Q4_K);
    expect_layer(p, 2, "ssm_a", TG_F32);
    expect_layer(p, 2, "ssm_dt.bias", TG_F32);
    expect_layer(p, 2, "ssm_norm.weight", TG_F32);
    expect_layer(p, 2, "ssm_out.weight", TG_Q4_K);
    apply(p, "bf16");
    expect_layer(p, 2, "ssm_conv1d.weight", TG_F32);
    expect_layer(p, 2, "ssm_alpha.weight", TG_BF16);

    p->count = 0;
    for (int i = 0; i < 32; i++) {
        add_layer(p, i, "ffn_down.weight", 512, 1024);
        add_layer(p, i, "ssm_a", 1, 32);
        add_layer(p, i, "ssm_d", 1, 32);
        add_layer(p, i, "ssm_norm.weight", 1, 1024);
        if (i % 8 == 7)
            add_layer(p, i, "attn_v.weight", 512, 512);
    }
    apply(p, "q4_k_m");
    expect_layer(p, 7, "ssm_a", TG_F32);
    expect_layer(p, 7, "ssm_d", TG_F32);
    expect_layer(p, 7, "ssm_norm.weight", TG_F32);
    /* the 4 that are: 2 and 3 */
    for (int i = 7; i < 32; i += 8)
        expect_layer(p, i, "attn_v.weight", i >= 23 ? TG_Q6_K : TG_Q4_K);
    expect_layer(p, 6, "ffn_down.weight", TG_Q6_K); /* (6 - 4) % 3 == 2 */
    expect_layer(p, 7, "ffn_down.weight", TG_Q4_K);
    tg_free(p);
}

/* Rows that are no whole number of blocks */
static void test_fallback(void **state)
{
    static const struct {
        const char *mix, *name;
        int64_t row;
        enum tg_dtype want;
    } rows[] = {
        {"q4_k_m", "blk.1.ffn_up.weight", 352, TG_Q5_0},
        {"q5_k_m", "blk.1.ffn_up.weight", 352, TG_Q5_1},
        {"q6_k", "blk.1.ffn_up.weight", 352, TG_Q8_0},
        {"q8_0", "blk.1.ffn_up.weight", 352, TG_Q8_0},
        {"q8_0", "blk.1.ffn_up.weight", 48, TG_F16},
        {"q4_k_m", "blk.1.ffn_up.weight", 48, TG_F16},
        {"f16", "blk.1.ffn_up.weight", 3, TG_F16},
        {"bf16", "blk.1.ffn_up.weight", 3, TG_BF16},
        {"f32", "blk.1.ffn_up.weight", 3, TG_F32},
        {"q4_k_m", "token_embd.weight", 352, TG_Q8_0},
        {"q4_k_m", "output.weight", 352, TG_Q8_0},
        {"q4_k_m", "output.weight", 48, TG_F16},
        {"q8_0", "output.weight", 48, TG_F16},
        {"q4_k_m", "blk.0.attn_v.weight", 96, TG_Q8_0},
        {"q4_k_m", "blk.1.ffn_gate_inp.weight", 256, TG_F32},
        {"q4_k_m", "position_embd.weight", 256, TG_F32},
        {"q4_k_m", "blk.1.ffn_up.bias", 256, TG_F32},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct plan *p = tg_alloc(sizeof *p);
        add(p, rows[i].name, 8, rows[i].row);
        apply(p, rows[i].mix);
        expect(p, rows[i].name, rows[i].want);
        tg_free(p);
    }
}

static int64_t int_of(const struct tg_tensors *t, const char *key)
{
    int64_t x = -1;
    return tg_gguf_find(t, key) && tg_gguf_get_int(t, key, 0, 1 << 20, &x, &err) != TG_OK ? -2 : x;
}

/* Every mixture is written and read; the numbers are those of llama.cpp. FOLDER: files for another
 * reader are left there. */
static const char *folder;
static void test_files(void **state)
{
    static const int numbers[] = {0, 1, 32, 7, 15, 17, 18};
    char dir[] = "/tmp/tegu-gguf-types-XXXXXX";
    size_t i = 0;
    (void)state;
    assert_non_null(folder ? folder : mkdtemp(dir));
    for (const struct tg_gguf_mix *m = tg_gguf_mixes; m->name; m++, i++) {
        struct tg_gguf_list keys = {0};
        struct tg_tensor_writer *w;
        struct tg_tensors *t;
        struct plan *p = decoder(8, i % 2);
        char path[256];
        snprintf(path, sizeof path, "%s/%s.gguf", folder ? folder : dir, m->name);
        tg_gguf_put_text(&keys, "general.architecture", "llama");
        tg_gguf_mix_keys(m, &keys);
        apply(p, m->name);
        const struct tg_write_options o = {
            .format = &tg_format_gguf, .single = true, .kv = keys.items, .kvs = keys.count};
        if (tg_tensor_writer_open(&w, path, p->tensors, p->count, &o, &err) != TG_OK)
            fail_msg("%s", err.msg);
        float *data = tg_alloc_array(1024 * 512, sizeof *data);
        for (size_t k; (k = tg_tensor_writer_next(w)) < p->count;) {
            for (size_t e = 0; e < 1024 * 512; e++)
                data[e] = (float)((e * 7 + k) % 61) / 64 - 0.5f;
            if (tg_tensor_writer_put_f32(w, data, &err) != TG_OK)
                fail_msg("%s", err.msg);
        }
        tg_free(data);
        assert_int_equal(tg_tensor_writer_finish(w, &err), TG_OK);
        tg_tensor_writer_close(w);
        assert_int_equal(tg_tensors_open(&t, path, &err), TG_OK);
        for (size_t k = 0; k < p->count; k++)
            assert_int_equal(tg_tensors_find(t, p->names[k])->dtype, p->tensors[k].dtype);
        assert_int_equal(int_of(t, "general.file_type"), numbers[i]);
        assert_int_equal(int_of(t, "general.alignment"), 32);
        assert_int_equal(int_of(t, "general.quantization_version"), m->name[0] == 'q' ? 2 : -1);
        tg_tensors_close(t);
        tg_gguf_list_release(&keys);
        tg_free(p);
    }
    assert_int_equal(i, 7);
    if (!folder)
        assert_int_equal(tg_dir_remove(dir, &err), TG_OK);
}

static void test_names(void **state)
{
    (void)state;
    assert_null(tg_gguf_mix_find("q4_k"));
    assert_null(tg_gguf_mix_find(""));
    for (const struct tg_gguf_mix *m = tg_gguf_mixes; m->name; m++)
        assert_ptr_equal(tg_gguf_mix_find(m->name), m);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixtures), cmocka_unit_test(test_hybrids),
        cmocka_unit_test(test_fallback), cmocka_unit_test(test_files),
        cmocka_unit_test(test_names),
    };
    folder = argc > 1 ? argv[1] : NULL;
    return tg_run_tests("gguf_types", tests, sizeof tests / sizeof *tests);
}
