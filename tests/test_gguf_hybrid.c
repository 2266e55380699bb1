/* GGUF hybrids that tests/ref/make_gguf_models.py made of HF checkpoints: the same spec but for
 * what a GGUF file says otherwise, and the logits of transformers. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/checkpoint.h"
#include "convert/export.h"
#include "linearize/model/model.h"
#include "tests/gguf_edit.h"
#include "tests/scratch.h"
#include "tests/small_model.h"

#define FAMILIES "tests/data/families/"
#define QWEN "qwen3_5_text"
#define EXPERTS "qwen3_5_moe_text__experts"
#define NOPE "granitemoehybrid"
#define ROPE "granitemoehybrid__rope"

/* float32 sums in another order than PyTorch's, as in test_families; a wrong operation is off by
 * 1e-3 and more */
static const double TOLERANCE = 1e-5;
static struct tg_err err;

static const char *const models[] = {QWEN, EXPERTS, NOPE, ROPE};
enum { MODELS = sizeof models / sizeof *models };

/* Of the model at path against family's golden ones */
static double logits_error(const char *path, const char *family)
{
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    char file[128];
    struct tg_tensors *golden;
    struct tg_model *m;
    struct tg_run *r;
    snprintf(file, sizeof file, FAMILIES "%s/golden.safetensors", family);
    tg_test_must(tg_tensors_open(&golden, file, &err), &err);
    tg_test_must(tg_model_load(&m, path, &ctx, &err), &err);
    const struct tg_tensor *ids = tg_tensors_find(golden, "input_ids"),
                           *logits = tg_tensors_find(golden, "logits");
    assert_true(ids && logits && ids->shape[0] == 2);
    const size_t n = ids->elements, count = logits->elements, begin[] = {0, n / 2, n};
    const struct tg_batch b = {.count = 2, .begin = begin};
    float *want = tg_alloc_floats(count), *got = tg_alloc_floats(count);
    float *h = tg_alloc_floats(n * m->spec.width);
    int64_t *wide = tg_alloc_array(n, sizeof *wide);
    int32_t *tokens = tg_alloc_array(n, sizeof *tokens);
    tg_test_must(tg_tensor_read_i64(ids, wide, &err), &err);
    tg_test_must(tg_tensor_read_f32(logits, want, &err), &err);
    for (size_t i = 0; i < n; i++)
        tokens[i] = (int32_t)wide[i];
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, m, &b, false, &err), &err);
    tg_model_forward(m, r, tokens, &b, h, false, NULL);
    tg_model_logits(m, h, n, got);
    const double e = tg_rel_error_f(got, want, count);
    tg_run_free(r);
    tg_model_free(m);
    tg_tensors_close(golden);
    tg_free(want);
    tg_free(got);
    tg_free(wide);
    tg_free(h);
    tg_free(tokens);
    return e;
}

static void test_logits(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        char path[128];
        snprintf(path, sizeof path, TG_GGUF_MODELS "%s.gguf", models[i]);
        assert_below(logits_error(path, models[i]), TOLERANCE, models[i]);
    }
}

/* Norms have their 1 in the file, scales and epsilon are the decimal numbers of the config. */
static void test_spec(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        char path[128], buf[256];
        struct tg_model_spec gguf, hf;
        snprintf(path, sizeof path, TG_GGUF_MODELS "%s.gguf", models[i]);
        tg_test_must(tg_config_read(path, &gguf, &err), &err);
        snprintf(path, sizeof path, FAMILIES "%s", models[i]);
        tg_test_must(tg_config_read(path, &hf, &err), &err);
        assert_int_equal(hf.norm.plus_one, i < 2);
        assert_false(gguf.norm.plus_one);
        assert_string_equal(gguf.family, hf.family);
        hf.norm.plus_one = false;
        const char *d = tg_export_difference(&gguf, &hf, buf, sizeof buf);
        if (d)
            fail_msg("%s: %s", models[i], d);
        tg_spec_release(&gguf);
        tg_spec_release(&hf);
    }
}

/* Moving values about is exact. */
static void test_params(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct tg_checkpoint *a, *b;
        char path[128];
        snprintf(path, sizeof path, TG_GGUF_MODELS "%s.gguf", models[i]);
        tg_test_must(tg_checkpoint_open(&a, path, &err), &err);
        snprintf(path, sizeof path, FAMILIES "%s", models[i]);
        tg_test_must(tg_checkpoint_open(&b, path, &err), &err);
        const struct tg_param_list *p = tg_checkpoint_params(a), *q = tg_checkpoint_params(b);
        assert_int_equal(p->count, q->count);
        for (size_t k = 0; k < p->count; k++) {
            const char *name = p->items[k].name;
            const size_t n = p->items[k].count;
            const bool mixer_norm = strstr(name, "mixer.norm.") != NULL;
            const float one = i < 2 && !mixer_norm && strstr(name, "norm") ? 1 : 0;
            float *x = tg_alloc_floats(n), *y = tg_alloc_floats(n);
            assert_string_equal(name, q->items[k].name);
            tg_test_must(tg_checkpoint_read(a, k, x, &err), &err);
            tg_test_must(tg_checkpoint_read(b, k, y, &err), &err);
            for (size_t e = 0; e < n; e++)
                y[e] += one;
            if (strstr(name, "A_log"))
                assert_below(tg_rel_error_f(x, y, n), 1e-6, name); /* -exp and back */
            else if (memcmp(x, y, n * sizeof *x) != 0)
                fail_msg("%s: %s differs", models[i], name);
            tg_free(x);
            tg_free(y);
        }
        tg_checkpoint_close(a);
        tg_checkpoint_close(b);
    }
}

static const int32_t kv_both[] = {2, 2}, kv_zero[] = {2, 0}, kv_other[] = {3, 2}, none[] = {0, 0},
                     sections[] = {1, 0, 0, 0}, short_sections[] = {0, 2, 0, 0},
                     three[] = {1, 0, 0};
static const uint32_t kinds[] = {1, 0};
static const bool reversed[] = {false, true}, longer[] = {true, false, false};
#define LIST(t, x)                                                                                 \
    {                                                                                              \
        .type = TG_GGUF_ARRAY, .array = { TG_GGUF_##t, sizeof(x) / sizeof *(x), x }                \
    }
#define TRUTH(x)                                                                                   \
    {                                                                                              \
        .type = TG_GGUF_BOOL, .b = (x)                                                             \
    }

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct tg_gguf_edit e;
        const char *why;
    } rows[] = {
        {{QWEN, {"qwen35.block_count", TG_KV_U32(4097)}, NULL, NULL}, "block_count' is 4097"},
        {{QWEN, {"qwen35.nextn_predict_layers", TG_KV_U32(2)}, NULL, NULL}, "is 2 (U32)"},
        {{QWEN, {"qwen35.attention.recurrent_layers", LIST(BOOL, longer)}, NULL, NULL},
         "has 3 elements of type BOOL, must have 2"},
        {{QWEN, {"qwen35.attention.recurrent_layers", LIST(BOOL, reversed)}, NULL, NULL},
         "tensor 'blk.0."},
        {{QWEN, {"qwen35.full_attention_interval", TG_KV_U32(0)}, NULL, NULL}, "interval' is 0"},
        {{QWEN, {"qwen35.attention.head_count_kv", LIST(I32, kv_zero)}, NULL, NULL},
         "head_count_kv' is 0 in layer 1; layers with attention must have some"},
        {{QWEN, {"qwen35.ssm.inner_size", TG_KV_U32(30)}, NULL, NULL},
         "'qwen35.ssm.inner_size' is 30, no multiple of ssm.time_step_rank, 4"},
        {{QWEN, {"qwen35.ssm.group_count", TG_KV_U32(3)}, NULL, NULL}, "3 does not divide"},
        {{QWEN, {"qwen35.ssm.state_size", TG_KV_NONE}, NULL, NULL}, "state_size' is missing"},
        {{QWEN, {"qwen35.rope.dimension_sections", LIST(I32, short_sections)}, NULL, NULL},
         "pair 0 is in none"},
        {{QWEN, {"qwen35.rope.dimension_sections", LIST(I32, three)}, NULL, NULL}, "4 sizes"},
        {{QWEN, {"qwen35.rope.dimension_sections", LIST(I32, none)}, NULL, NULL}, "4 sizes"},
        {{QWEN, {"qwen35.rope.dimension_count", TG_KV_U32(8)}, NULL, NULL}, "pair 3 is in none"},
        {{EXPERTS, {"qwen35moe.rope.dimension_count", TG_KV_U32(10)}, NULL, NULL},
         "is 10, only what is at most the head size, 8"},
        {{QWEN, {"qwen35.expert_count", TG_KV_U32(4)}, NULL, NULL}, "is 4, only 0"},
        {{QWEN, {"qwen35.attention.scale", TG_KV_F32(2)}, NULL, NULL}, "is 2, only 0"},
        {{QWEN, {NULL, TG_KV_NONE}, "blk.1.attn_q_norm.weight", "blk.1.attn_q.bias"},
         "'blk.1.attn_q.bias' [8] is unknown"},
        {{QWEN, {NULL, TG_KV_NONE}, "blk.1.attn_q.weight", "blk.1.attn_qkv.weight"},
         "'blk.1.attn_qkv.weight' [64,32] is unknown"},
        {{QWEN, {NULL, TG_KV_NONE}, "blk.0.attn_qkv.weight", "blk.0.attn_q.weight"},
         "'blk.0.attn_q.weight' [64,32] is unknown"},
        {{EXPERTS, {"qwen35moe.expert_count", TG_KV_U32(4)}, NULL, NULL}, "has shape [5,"},
        {{EXPERTS, {"qwen35moe.expert_weights_scale", TG_KV_F32(2)}, NULL, NULL}, "is 2, only 0"},
        {{EXPERTS, {"qwen35moe.expert_used_count", TG_KV_NONE}, NULL, NULL}, "is missing"},
        {{NOPE, {"granitehybrid.attention.head_count_kv", LIST(I32, kv_both)}, NULL, NULL},
         "tensor 'blk.0.ssm_"},
        {{NOPE, {"granitehybrid.ssm.inner_size", TG_KV_U32(72)}, NULL, NULL},
         "is 72, no multiple of embedding_length, 32"},
        {{NOPE, {"granitehybrid.rope.scaling.finetuned", TG_KV_U32(1)}, NULL, NULL},
         "is 1 (U32), must be a BOOL"},
        {{NOPE, {NULL, TG_KV_NONE}, "blk.0.ssm_conv1d.bias", NULL},
         "'blk.0.ssm_conv1d.bias' [96] is missing"},
        {{NOPE, {NULL, TG_KV_NONE}, "blk.0.ssm_a", "blk.0.ssm_a.weight"},
         "'blk.0.ssm_a.weight' [8,1] is unknown"},
        {{ROPE, {"granitehybrid.attention.head_count_kv", LIST(I32, kv_other)}, NULL, NULL},
         "head_count_kv' is 2 in layer 1; layers with attention must have the same number"},
        {{ROPE, {"granitehybrid.rope.scaling.original_context_length", TG_KV_NONE}, NULL, NULL},
         "tensor 'rope_freqs.weight': element "},
        {{ROPE, {NULL, TG_KV_NONE}, "blk.0.attn_k.bias", NULL}, "'blk.0.attn_k.bias' [16] is miss"},
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

/* Said otherwise, or not at all, the same model */
static void test_accepted(void **state)
{
    (void)state;
    static const struct tg_gguf_edit rows[] = {
        {QWEN, {"qwen35.attention.recurrent_layers", TG_KV_NONE}, NULL, NULL},
        {QWEN, {"qwen35.attention.recurrent_layers", LIST(U32, kinds)}, NULL, NULL},
        {QWEN, {"qwen35.attention.head_count_kv", LIST(I32, kv_both)}, NULL, NULL},
        {QWEN, {"qwen35.rope.dimension_sections", LIST(I32, sections)}, NULL, NULL},
        {QWEN, {"qwen35.rope.dimension_sections", TG_KV_NONE}, NULL, NULL},
        {QWEN, {"qwen35.nextn_predict_layers", TG_KV_U32(0)}, NULL, NULL},
        {EXPERTS, {"qwen35moe.expert_weights_scale", TG_KV_F32(1)}, NULL, NULL},
        {NOPE, {"granitehybrid.logit_scale", TG_KV_F32(0)}, NULL, NULL},
        {NOPE, {"granitehybrid.residual_scale", TG_KV_NONE}, NULL, NULL},
        {ROPE, {"granitehybrid.rope.scaling.finetuned", TG_KV_NONE}, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = tg_gguf_edited(&rows[i], 0);
        assert_below(logits_error(dir, rows[i].model), TOLERANCE, rows[i].kv.key);
        tg_free(dir);
    }
}

/* Without attention.scale the engine takes that of the head size; the norm goes over groups. */
static void test_amended(void **state)
{
    (void)state;
    struct tg_model_spec spec;
    const struct tg_gguf_edit scale = {
        NOPE, {"granitehybrid.attention.scale", TG_KV_NONE}, NULL, NULL};
    const struct tg_gguf_edit groups = {
        NOPE, {"granitehybrid.ssm.group_count", TG_KV_U32(4)}, NULL, NULL};
    char *dir = tg_gguf_edited(&scale, 0);
    tg_test_must(tg_config_read(dir, &spec, &err), &err);
    assert_true(spec.layers[1].attn_scale == 1 / sqrt(8.0));
    assert_int_equal(spec.layers[0].recurrent.norm_groups, 0);
    tg_spec_release(&spec);
    tg_free(dir);
    dir = tg_gguf_edited(&groups, 0);
    tg_test_must(tg_config_read(dir, &spec, &err), &err);
    assert_int_equal(spec.layers[0].recurrent.norm_groups, 4);
    tg_spec_release(&spec);
    tg_free(dir);
}

static void test_torture(void **state)
{
    (void)state;
    static const char *const files[] = {TG_GGUF_MODELS EXPERTS ".gguf",
                                        TG_GGUF_MODELS ROPE ".gguf"};
    for (size_t i = 0; i < 2; i++)
        for (long n = 1;; n++) {
            struct tg_checkpoint *c;
            tg_mem_fail_after(n);
            const int rc = tg_checkpoint_open(&c, files[i], &err);
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
        cmocka_unit_test(test_logits),
        cmocka_unit_test(test_spec),
        cmocka_unit_test(test_params),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_amended),
        cmocka_unit_test_setup_teardown(test_torture, NULL, tg_scratch_remove),
    };
    if (!tg_scratch_make("gguf-hybrid"))
        return 1;
    return tg_run_tests("gguf_hybrid", tests, sizeof tests / sizeof *tests);
}
