/* Exports as GGUF hybrids: the same model read back from the file, the keys that llama.cpp wants,
 * and a reason for what the file cannot hold. */
#include "tests/check.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/gguf.h"
#include "tests/export_bench.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "tests/specs.h"

#define DELTA "gated_deltanet,rotary=false,conv=4,kv=expanded"
#define MAMBA "mamba2,groups=1,expand=2,bias=false,conv=4"
#define SCALED(kind, more) "{\"rope_type\":\"" kind "\",\"rope_theta\":500000,\"factor\":4" more "}"
#define ORIGINAL ",\"original_max_position_embeddings\":32"
#define LLAMA3 SCALED("llama3", ",\"low_freq_factor\":1,\"high_freq_factor\":4" ORIGINAL)

static const char qwen3[] =
    "{\"model_type\": \"qwen3\", \"vocab_size\": 53, \"hidden_size\": 32, \"intermediate_size\": "
    "40, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"head_dim\": 8, \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-6, \"rope_theta\": "
    "10000, \"tie_word_embeddings\": true, \"eos_token_id\": 3}";
static const char qwen3_moe[] =
    "{\"model_type\": \"qwen3_moe\", \"vocab_size\": 53, \"hidden_size\": 32, "
    "\"intermediate_size\": 40, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 8, \"max_position_embeddings\": 128, "
    "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 12, "
    "\"norm_topk_prob\": true, \"bos_token_id\": 1}";

enum { EDITS = 11 };
static const struct shape {
    const char *target, *config, *mixer, *keep;
    const char *edits[EDITS];
} SHAPES[] = {
    {"qwen35", qwen3, DELTA, "every:2", {NULL}},
    {"qwen35", qwen3, DELTA, "0,3", {"tie_word_embeddings", "false", NULL}},
    {"qwen35", qwen3, NULL, NULL, {"num_key_value_heads", "1", "vocab_size", "37", NULL}},
    {"qwen35",
     qwen3,
     DELTA,
     "3",
     {"head_dim", "10", "rms_norm_eps", "1.5e-5", "rope_theta", "1234567.8", NULL}},
    {"qwen35", qwen3, DELTA, "1", {"rope_scaling", SCALED("linear", ""), NULL}},
    {"qwen35", qwen3, DELTA, "1", {"rope_scaling", SCALED("yarn", ORIGINAL), NULL}},
    {"qwen35moe", qwen3_moe, DELTA, "every:2", {NULL}},
    {"qwen35moe",
     qwen3_moe,
     DELTA,
     "0,3",
     {"num_experts", "5", "eos_token_id", "[3,1,7]", "head_dim", "16", NULL}},
    {"granitehybrid", tg_llama_config, MAMBA, "1", {NULL}},
    {"granitehybrid",
     tg_llama_config,
     MAMBA,
     "0",
     {"num_key_value_heads", "4", "tie_word_embeddings", "false", "rms_norm_eps", "3e-6", NULL}},
    {"granitehybrid",
     tg_llama_config,
     MAMBA,
     "1,2",
     {"num_key_value_heads", "1", "attention_bias", "true", NULL}},
    {"granitehybrid", tg_llama_config, MAMBA, "1", {"rope_scaling", LLAMA3, NULL}},
    {"granitehybrid",
     tg_llama_config,
     MAMBA,
     "1",
     {"rope_scaling", SCALED("yarn", ORIGINAL), NULL}},
    {"granitehybrid", tg_llama_config, MAMBA, "1", {"rope_scaling", SCALED("linear", ""), NULL}},
    {"granitehybrid",
     tg_llama_config,
     MAMBA,
     "1",
     {"model_type", "\"granite\"", "embedding_multiplier", "12", "logits_scaling", "7",
      "residual_multiplier", "0.22", "attention_multiplier", "0.0078125", NULL}},
};
enum { COUNT = sizeof SHAPES / sizeof *SHAPES };

static struct tg_model *make(const struct shape *s, uint64_t seed)
{
    char *config = tg_bench_config(s->config, s->edits);
    struct tg_model *m = tg_bench_hybrid(config, s->mixer, s->keep, seed);

    tg_free(config);
    return m;
}

static void test_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        char what[64];
        struct tg_model *m = make(&SHAPES[i], 11 + i);
        snprintf(what, sizeof what, "%s, row %zu", SHAPES[i].target, i);
        assert_below(tg_bench_export(m, SHAPES[i].target, TG_F32), 1e-5, what);
        assert_below(tg_bench_export_rounded(m, SHAPES[i].target, TG_BF16), 1e-5, what);
        tg_model_free(m);
    }
}

/* Checkpoints of these families, and GGUF files of them: value heads in groups, norms as 1 + w */
static void test_families(void **state)
{
    static const struct {
        const char *path, *target;
    } rows[] = {
        {"tests/data/families/qwen3_5_text", "qwen35"},
        {"tests/data/gguf/models/qwen3_5_text.gguf", "qwen35"},
        {"tests/data/families/granitemoehybrid", "granitehybrid"},
        {"tests/data/gguf/models/granitemoehybrid.gguf", "granitehybrid"},
    };
    const struct tg_ctx ctx = {tg_kernels_select(TG_CPU_ALL), 1};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_err err = {0};
        struct tg_model *m;
        tg_test_must(tg_model_load(&m, rows[i].path, &ctx, &err), &err);
        assert_below(tg_bench_export(m, rows[i].target, TG_F32), 1e-5, rows[i].path);
        tg_model_free(m);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test_teardown(test_families, tg_scratch_remove),
    };
    if (!tg_scratch_make("export-gguf"))
        return 1;
    return tg_run_tests("export_gguf", tests, sizeof tests / sizeof *tests);
}
