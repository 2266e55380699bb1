/* GGUF models against the HF checkpoints that they were made of by tests/ref/make_gguf_models.py:
 * the same spec and the same parameters, bit for bit, so the same logits. */
#include "tests/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/checkpoint.h"
#include "convert/native.h"
#include "formats/format.h"
#include "tests/gguf_edit.h"
#include "tests/scratch.h"

#define MODELS TG_GGUF_MODELS
#define FAMILIES "tests/data/families/"

static struct tg_err err;

static struct tg_checkpoint *open_ok(const char *path)
{
    struct tg_checkpoint *c;
    if (tg_checkpoint_open(&c, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return c;
}

static void spec_text(const struct tg_model_spec *spec, struct tg_strbuf *text)
{
    tg_strbuf_init(text, 1 << 20);
    tg_native_config(text, spec, TG_F32, &(struct tg_native_meta){"", "", 0, "", ""});
    assert_false(text->failed);
}

static void assert_same_model(const struct tg_checkpoint *a, const struct tg_checkpoint *b)
{
    const struct tg_param_list *p = tg_checkpoint_params(a), *q = tg_checkpoint_params(b);
    struct tg_strbuf x, y;
    spec_text(tg_checkpoint_spec(a), &x);
    spec_text(tg_checkpoint_spec(b), &y);
    assert_string_equal(x.text, y.text);
    tg_strbuf_release(&x);
    tg_strbuf_release(&y);
    assert_int_equal(p->count, q->count);
    for (size_t i = 0; i < p->count; i++) {
        float *u = tg_alloc_floats(p->items[i].count), *v = tg_alloc_floats(q->items[i].count);
        assert_string_equal(p->items[i].name, q->items[i].name);
        assert_int_equal(tg_checkpoint_read(a, i, u, &err), TG_OK);
        assert_int_equal(tg_checkpoint_read(b, i, v, &err), TG_OK);
        if (memcmp(u, v, p->items[i].count * sizeof *u) != 0)
            fail_msg("%s: %s differs", tg_checkpoint_path(a), p->items[i].name);
        tg_free(u);
        tg_free(v);
    }
}

static const char *const families[] = {"llama__rope3_untied_bias", "qwen2__headdim", "qwen3",
                                       "gpt2"};
enum { COUNT = sizeof families / sizeof *families };

static void test_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        char path[128];
        struct tg_model_spec spec;
        struct tg_strbuf x, y;
        snprintf(path, sizeof path, MODELS "%s.gguf", families[i]);
        struct tg_checkpoint *a = open_ok(path);
        assert_int_equal(tg_config_read(path, &spec, &err), TG_OK);
        spec_text(&spec, &x);
        spec_text(tg_checkpoint_spec(a), &y);
        assert_string_equal(x.text, y.text);
        tg_strbuf_release(&x);
        tg_strbuf_release(&y);
        tg_spec_release(&spec);
        snprintf(path, sizeof path, FAMILIES "%s", families[i]);
        struct tg_checkpoint *b = open_ok(path);
        assert_same_model(a, b);
        tg_checkpoint_close(a);
        tg_checkpoint_close(b);
    }
}

#define LLAMA "llama__rope3_untied_bias"

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct tg_gguf_edit e;
        const char *why;
    } rows[] = {
        {{"qwen3", {"general.architecture", TG_KV_TEXT("mamba")}, NULL, NULL},
         "general.architecture is 'mamba', which is not read; known: llama, qwen2, qwen3, qwen35, "
         "qwen35moe, granitehybrid, gpt2"},
        {{"qwen3", {"general.architecture", TG_KV_NONE}, NULL, NULL},
         "'general.architecture' is missing"},
        {{"qwen3", {"general.architecture", TG_KV_U32(3)}, NULL, NULL},
         "is 3 (U32), must be a STRING"},
        {{"qwen3", {"qwen3.block_count", TG_KV_NONE}, NULL, NULL},
         "'qwen3.block_count' is missing"},
        {{"qwen3", {"qwen3.block_count", TG_KV_U32(0)}, NULL, NULL},
         "'qwen3.block_count' is 0 (U32)"},
        {{"qwen3", {"qwen3.block_count", TG_KV_U32(3)}, NULL, NULL}, "tensor 'blk.2."},
        {{"qwen3", {"qwen3.block_count", TG_KV_U32(1)}, NULL, NULL}, "tensor 'blk.1."},
        {{"qwen3", {"qwen3.embedding_length", TG_KV_U32(64)}, NULL, NULL}, "has shape [16,32]"},
        {{"qwen3", {"qwen3.feed_forward_length", TG_KV_F32(48)}, NULL, NULL},
         "is 48 (F32), must be an i"},
        {{"qwen3", {"qwen3.attention.head_count", TG_KV_U32(3)}, NULL, NULL}, "does not divide"},
        {{"qwen3", {"qwen3.attention.value_length", TG_KV_U32(4)}, NULL, NULL},
         "heads of 8 for keys and 4 for values"},
        {{"qwen3", {"qwen3.attention.layer_norm_rms_epsilon", TG_KV_NONE}, NULL, NULL},
         "is missing"},
        {{"qwen3", {"qwen3.attention.layer_norm_rms_epsilon", TG_KV_F32(0)}, NULL, NULL},
         "is 0 (F32)"},
        {{"qwen3", {"qwen3.rope.dimension_count", TG_KV_U32(4)}, NULL, NULL},
         "'qwen3.rope.dimension_count' is 4, only the head size, 8"},
        {{"qwen3", {"qwen3.rope.scaling.type", TG_KV_TEXT("longrope")}, NULL, NULL},
         "'qwen3.rope.scaling.type' is 'longrope'; supported: none, linear, yarn"},
        {{"qwen3", {"qwen3.rope.scaling.type", TG_KV_TEXT("linear")}, NULL, NULL},
         "'qwen3.rope.scaling.factor' is missing"},
        {{LLAMA, {"llama.rope.scaling.type", TG_KV_TEXT("linear")}, NULL, NULL},
         "is 'linear' beside rope_freqs.weight"},
        {{LLAMA, {"llama.rope.scaling.original_context_length", TG_KV_NONE}, NULL, NULL},
         "tensor 'rope_freqs.weight': element "},
        {{LLAMA, {"llama.rope.freq_base", TG_KV_F32(5000)}, NULL, NULL},
         "tensor 'rope_freqs.weight': element "},
        {{LLAMA, {"llama.expert_count", TG_KV_U32(8)}, NULL, NULL},
         "'llama.expert_count' is 8, only 0 is supported"},
        {{LLAMA, {"llama.attention.sliding_window", TG_KV_U32(4096)}, NULL, NULL},
         "is 4096, only 0"},
        {{LLAMA, {"llama.logit_scale", TG_KV_F32(0.5)}, NULL, NULL}, "is 0.5, only 1"},
        {{LLAMA, {"tokenizer.ggml.eos_token_id", TG_KV_U32(96)}, NULL, NULL}, "eos_token_id"},
        {{LLAMA, {NULL, TG_KV_NONE}, "blk.1.attn_k.bias", NULL},
         "'blk.1.attn_k.bias' [16] is missing"},
        {{LLAMA, {NULL, TG_KV_NONE}, "blk.1.attn_k.bias", "blk.1.extra"},
         "'blk.1.extra' [16] is unknown"},
        {{LLAMA, {NULL, TG_KV_NONE}, "token_embd.weight", NULL},
         "'token_embd.weight' [96,32] is missing"},
        {{"qwen2__headdim", {NULL, TG_KV_NONE}, "blk.0.attn_q.bias", NULL},
         "'blk.0.attn_q.bias' [40] is"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = tg_gguf_edited(&rows[i].e, 0);
        struct tg_checkpoint *c;
        memset(&err, 0, sizeof err);
        if (tg_checkpoint_open(&c, dir, &err) == TG_OK || c || !strstr(err.msg, rows[i].why))
            fail_msg("row %zu: wanted '%s', got '%s'", i, rows[i].why, err.msg);
        tg_free(dir);
    }
}

/* What may be left out or be said otherwise without another model coming of it; in parts, too */
static void test_accepted(void **state)
{
    (void)state;
    static const struct {
        struct tg_gguf_edit e;
        uint64_t max_shard;
    } rows[] = {
        {{LLAMA, {NULL, TG_KV_NONE}, NULL, NULL}, 0},
        {{LLAMA, {NULL, TG_KV_NONE}, NULL, NULL}, 20000},
        {{LLAMA, {"llama.attention.key_length", TG_KV_NONE}, NULL, NULL}, 0},
        {{LLAMA, {"llama.attention.value_length", TG_KV_NONE}, NULL, NULL}, 0},
        {{LLAMA, {"llama.rope.dimension_count", TG_KV_NONE}, NULL, NULL}, 0},
        {{LLAMA, {"llama.rope.freq_base", TG_KV_NONE}, NULL, NULL}, 0},
        {{LLAMA, {"llama.rope.scaling.type", TG_KV_TEXT("none")}, NULL, NULL}, 0},
        {{LLAMA, {"llama.vocab_size", TG_KV_NONE}, NULL, NULL}, 0},
        {{LLAMA, {"llama.expert_count", TG_KV_U32(0)}, NULL, NULL}, 0},
        {{"qwen3", {"qwen3.attention.head_count_kv", {.type = TG_GGUF_I64, .i = 2}}, NULL, NULL},
         1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[128], *dir = tg_gguf_edited(&rows[i].e, rows[i].max_shard), hex[65];
        snprintf(path, sizeof path, FAMILIES "%s", rows[i].e.model);
        struct tg_checkpoint *a = open_ok(dir), *b = open_ok(path);
        assert_same_model(a, b);
        assert_int_equal(tg_tensors_file_count(tg_checkpoint_tensors(a)) > 1,
                         rows[i].max_shard > 0);
        assert_int_equal(tg_checkpoint_hash(a, hex, &err), TG_OK);
        tg_checkpoint_close(a);
        tg_checkpoint_close(b);
        tg_free(dir);
    }
}

/* A head that is stored is no tied one. */
static void test_stored_head(void **state)
{
    (void)state;
    const struct tg_gguf_edit e = {
        "qwen3", {NULL, TG_KV_NONE}, "output_norm.weight", "output.weight"};
    char *dir = tg_gguf_edited(&e, 0);
    struct tg_checkpoint *c;
    assert_int_not_equal(tg_checkpoint_open(&c, dir, &err), TG_OK);
    assert_non_null(strstr(err.msg, "tensor 'output.weight' has shape [32]"));
    tg_free(dir);
}

static void test_torture(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        struct tg_checkpoint *c;
        tg_mem_fail_after(n);
        int rc = tg_checkpoint_open(&c, MODELS LLAMA ".gguf", &err);
        tg_mem_fail_after(0);
        tg_checkpoint_close(c);
        if (rc == TG_OK) {
            assert_true(n > 30);
            break;
        }
        assert_null(c);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_stored_head),
        cmocka_unit_test_setup_teardown(test_torture, NULL, tg_scratch_remove),
    };
    if (!tg_scratch_make("gguf-model"))
        return 1;
    return tg_run_tests("gguf_model", tests, sizeof tests / sizeof *tests);
}
