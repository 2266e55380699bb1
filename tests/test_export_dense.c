/* Exports to llama.cpp's plain decoders: what fits, and that it comes back the same. */
#include "tests/check.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/checkpoint.h"
#include "convert/export.h"
#include "formats/gguf.h"
#include "formats/gguf_vocab.h"
#include "tests/export_bench.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "tests/specs.h"

#define SCALED(kind, more) "{\"rope_type\":\"" kind "\",\"factor\":4" more "}"
#define ORIGINAL ",\"original_max_position_embeddings\":32"
#define LLAMA3 SCALED("llama3", ",\"low_freq_factor\":1,\"high_freq_factor\":4" ORIGINAL)

static const struct {
    const char *target;
    const char *edits[12];
} shapes[] = {
    {"llama", {NULL}},
    {"llama",
     {"num_key_value_heads", "1", "vocab_size", "37", "tie_word_embeddings", "true", NULL}},
    {"llama", {"attention_bias", "true", "mlp_bias", "true", NULL}},
    {"llama", {"head_dim", "10", "rms_norm_eps", "1.5e-5", "rope_theta", "1234567.89123", NULL}},
    {"llama", {"rope_scaling", LLAMA3, NULL}},
    {"llama", {"rope_scaling", SCALED("linear", ""), NULL}},
    {"llama", {"rope_scaling", SCALED("yarn", ORIGINAL), NULL}},
    {"llama", {"model_type", "\"mistral\"", "sliding_window", "null", NULL}},
    {"llama", {"bos_token_id", "5", "eos_token_id", "[3,1,7]", NULL}},
    {"llama", {"bos_token_id", "null", "eos_token_id", "null", NULL}},
    {"qwen2", {"model_type", "\"qwen2\"", NULL}},
    {"qwen2",
     {"model_type", "\"qwen2\"", "rope_scaling", SCALED("yarn", ORIGINAL), "num_key_value_heads",
      "4", NULL}},
    {"qwen3", {"model_type", "\"qwen3\"", "head_dim", "16", NULL}},
    {"qwen3",
     {"model_type", "\"qwen3\"", "head_dim", "24", "tie_word_embeddings", "true", "rope_scaling",
      SCALED("linear", ""), NULL}},
};

static void test_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char what[64];
        char *config = tg_bench_config(tg_llama_config, shapes[i].edits);
        struct tg_model *m = tg_bench_hybrid(config, NULL, NULL, 40 + i);
        snprintf(what, sizeof what, "%s, row %zu", shapes[i].target, i);
        assert_below(tg_bench_export(m, shapes[i].target, TG_F32), 1e-5, what);
        assert_below(tg_bench_export_rounded(m, shapes[i].target, TG_BF16), 1e-5, what);
        tg_model_free(m);
        tg_free(config);
    }
}

static const struct {
    const char *target;
    const char *edits[12];
    const char *why;
} misfits[] = {
    {"llama", {"model_type", "\"qwen2\"", NULL}, "q, k and v have biases and o has none"},
    {"llama", {"model_type", "\"qwen3\"", NULL}, "q and k have norms (qwen3"},
    {"llama", {"hidden_act", "\"gelu\"", NULL}, "\"hidden_act\": \"gelu\" has no place"},
    {"llama", {"rope_scaling", SCALED("dynamic", ""), NULL}, "none of default, linear"},
    {"llama",
     {"rope_scaling", SCALED("yarn", ORIGINAL ",\"beta_fast\":16"), NULL},
     "other limits than beta_fast 32"},
    {"llama",
     {"rope_scaling", SCALED("llama3", ",\"low_freq_factor\":1,\"high_freq_factor\":8" ORIGINAL),
      NULL},
     "high_freq_factor 4"},
    {"llama",
     {"model_type", "\"mistral\"", "sliding_window", "8", NULL},
     "layer 0: \"mixer\": \"window\" has no place"},
    {"llama", {"model_type", "\"gemma\"", "head_dim", "8", NULL}, "\"norm_plus_one\": true has no"},
    {"llama",
     {"model_type", "\"granite\"", "residual_multiplier", "0.5", "attention_multiplier",
      "0.35355339059327379", NULL},
     "\"mixer_scale\": 0.5"},
    {"llama",
     {"model_type", "\"granite\"", "attention_multiplier", "0.5", NULL},
     "\"attn_scale\": 0.5"},
    {"llama", {"eos_token_id", "[3,1,7,9]", NULL}, "4 tokens end a text"},
    {"qwen2", {NULL}, "not q, k and v alone have biases"},
    {"qwen2", {"model_type", "\"qwen2\"", "head_dim", "16", NULL}, "heads of 16 are not the width"},
    {"qwen2", {"model_type", "\"qwen2\"", "rope_scaling", LLAMA3, NULL}, "no place"},
    {"qwen3", {NULL}, "no norms of each head"},
    {"qwen3", {"model_type", "\"qwen3\"", "attention_bias", "true", NULL}, "it has biases"},
    {"qwen3", {"model_type", "\"qwen3\"", "rope_scaling", LLAMA3, NULL}, "no place"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof misfits / sizeof *misfits; i++) {
        struct tg_model_spec spec;
        char *config = tg_bench_config(tg_llama_config, misfits[i].edits);
        tg_must_parse(config, &spec);
        tg_bench_refused(&spec, misfits[i].target, misfits[i].why);
        tg_spec_release(&spec);
        tg_free(config);
    }
}

/* A hybrid layer in the middle */
static void test_hybrid(void **state)
{
    struct tg_model *m = tg_bench_hybrid(tg_llama_config, "gated_deltanet", "0,2", 7);
    (void)state;
    tg_bench_refused(&m->spec, "llama", "layer 1: \"mixer\": \"gated_deltanet\" has no place");
    tg_model_free(m);
}

/* ---- files that the gguf package made ---- */

static bool same_value(const struct tg_gguf_value *a, const struct tg_gguf_value *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == TG_GGUF_STRING)
        return !strcmp(a->s.text, b->s.text);
    return a->type == TG_GGUF_F32 ? a->f == b->f : a->u == b->u;
}

/* Each tensor with its bytes, and each key that both have; what the other has alone is in `own`. */
static void same_file(const char *path, const char *reference)
{
    static const char *const own[] = {"general.name", "general.file_type", "general.alignment",
                                      "general.quantization_version"};
    struct tg_tensors *t, *u;
    struct tg_err err = {0};
    tg_test_must(tg_tensors_open(&t, path, &err), &err);
    tg_test_must(tg_tensors_open(&u, reference, &err), &err);
    assert_int_equal(tg_tensors_count(t), tg_tensors_count(u));
    for (size_t i = 0; i < tg_tensors_count(u); i++) {
        const struct tg_tensor *b = tg_tensors_at(u, i), *a = tg_tensors_find(t, b->name);
        if (!a || a->dtype != b->dtype || a->rank != b->rank || a->bytes != b->bytes)
            fail_msg("%s: %s is not there, or of another shape", reference, b->name);
        if (strcmp(a->name, "rope_freqs.weight") != 0) /* of another library's pow */
            assert_memory_equal(a->data, b->data, a->bytes);
    }
    for (size_t i = 0; i < tg_gguf_count(u); i++) {
        const struct tg_gguf_kv *kv = tg_gguf_at(u, i);
        const struct tg_gguf_value *v = tg_gguf_find(t, kv->key);
        bool alone = !strncmp(kv->key, "tokenizer.", 10);
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            alone = alone || !strcmp(kv->key, own[k]);
        if (!alone && (!v || !same_value(v, &kv->value)))
            fail_msg("%s: key '%s' is %s", reference, kv->key, v ? "another" : "missing");
    }
    tg_tensors_close(t);
    tg_tensors_close(u);
}

static void test_reference(void **state)
{
    static const char *const rows[][2] = {{"llama", "llama__rope3_untied_bias"},
                                          {"qwen3", "qwen3"}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char from[128], reference[128];
        char *path = tg_scratch_path("reference.gguf");
        struct tg_err err = {0};
        struct tg_checkpoint *c;
        struct tg_export x;
        snprintf(from, sizeof from, "tests/data/families/%s", rows[i][1]);
        snprintf(reference, sizeof reference, "tests/data/gguf/models/%s.gguf", rows[i][1]);
        tg_test_must(tg_checkpoint_open(&c, from, &err), &err);
        const struct tg_export_source in = tg_export_from_checkpoint(c);
        tg_test_must(tg_export_begin(&x, tg_target_find(rows[i][0]), &in, "f32", NULL, &err), &err);
        tg_test_must(tg_export_write(&x, path, 0, NULL, &err), &err);
        tg_test_must(tg_export_verify(&x, path, &err), &err);
        same_file(path, reference);
        tg_export_end(&x);
        tg_checkpoint_close(c);
        tg_free(path);
    }
}

/* ---- the embedded teacher ---- */

/* With its vocabulary, in mixtures of types: every parameter comes back as what was rounded. */
static void test_teacher(void **state)
{
    static const struct {
        const char *dtype;
        int64_t file_type;
        enum tg_dtype up, down;
    } rows[] = {{"bf16", 32, TG_BF16, TG_BF16}, {"q4_k_m", 15, TG_Q4_K, TG_Q8_0}};
    const char *const from = "examples/teacher-8m";
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char *path = tg_scratch_path("teacher.gguf");
        struct tg_err err = {0};
        struct tg_tokenizer *tok;
        struct tg_checkpoint *c;
        struct tg_tensors *t;
        struct tg_export x;
        int64_t type = -1;
        tg_test_must(tg_checkpoint_open(&c, from, &err), &err);
        const struct tg_export_source in = tg_export_from_checkpoint(c);
        tg_test_must(tg_export_begin(&x, tg_target_find("llama"), &in, rows[i].dtype, from, &err),
                     &err);
        tg_test_must(tg_export_write(&x, path, 0, NULL, &err), &err);
        tg_test_must(tg_export_verify(&x, path, &err), &err);
        tg_test_must(tg_tensors_open(&t, path, &err), &err);
        tg_test_must(tg_gguf_get_int(t, "general.file_type", 0, 99, &type, &err), &err);
        assert_int_equal(type, rows[i].file_type);
        assert_int_equal(tg_tensors_find(t, "blk.0.ffn_up.weight")->dtype, rows[i].up);
        assert_int_equal(tg_tensors_find(t, "blk.0.ffn_down.weight")->dtype, rows[i].down);
        assert_int_equal(tg_tensors_find(t, "blk.0.attn_norm.weight")->dtype, TG_F32);
        tg_test_must(tg_gguf_tokenizer(&tok, t, 0, &err), &err);
        assert_int_equal(tg_tokenizer_vocab(tok), 8192);
        tg_tokenizer_free(tok);
        tg_tensors_close(t);
        tg_export_end(&x);
        tg_checkpoint_close(c);
        tg_free(path);
    }
}

/* Which checkpoints fit which of the three, by their specs alone */
static const struct {
    const char *folder, *target;
} fitting[] = {
    {"llama", "llama"},         {"llama__headdim", "llama"},
    {"llama__linear", "llama"}, {"llama__rope3_untied_bias", "llama"},
    {"llama__yarn", "llama"},   {"phi3", "llama"},
    {"helium", "llama"},        {"qwen3__headdim", "qwen3"},
    {"qwen2", "qwen2"},         {"qwen3", "qwen3"},
    {"seed_oss", "qwen2"},
};

static void test_families(void **state)
{
    static const char *const targets[] = {"llama", "qwen2", "qwen3"};
    size_t seen = 0;
    DIR *d = opendir("tests/data/families");
    (void)state;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[320];
        struct tg_model_spec spec;
        struct tg_err err = {0};
        snprintf(path, sizeof path, "tests/data/families/%s", e->d_name);
        if (e->d_name[0] == '.')
            continue;
        tg_test_must(tg_config_read(path, &spec, &err), &err);
        for (size_t t = 0; t < 3; t++, seen++) {
            struct tg_remarks why = {0};
            bool fits = false;
            for (size_t i = 0; i < sizeof fitting / sizeof *fitting; i++)
                fits = fits || (!strcmp(fitting[i].folder, e->d_name) &&
                                !strcmp(fitting[i].target, targets[t]));
            tg_target_find(targets[t])->check(&spec, &why);
            if (fits != (why.count == 0))
                fail_msg("%s as %s: %s", e->d_name, targets[t], why.count ? why.lines[0] : "fits");
            tg_remarks_release(&why);
        }
        tg_spec_release(&spec);
    }
    closedir(d);
    assert_true(seen > 200);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hybrid),

        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_teacher),
        cmocka_unit_test_teardown(test_families, tg_scratch_remove),
    };
    if (!tg_scratch_make("export_dense"))
        return 1;
    return tg_run_tests("export_dense", tests, sizeof tests / sizeof *tests);
}
