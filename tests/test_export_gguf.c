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
    {"qwen35", qwen3, DELTA, "2", {"num_key_value_heads", "1", "vocab_size", "37", NULL}},
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
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_err err = {0};
        struct tg_model *m;
        tg_test_must(tg_model_load(&m, rows[i].path, &ctx, &err), &err);
        assert_below(tg_bench_export(m, rows[i].target, TG_F32), 1e-5, rows[i].path);
        tg_model_free(m);
    }
}

struct fault {
    const char *target, *says;
    void (*make)(struct tg_model_spec *s, struct tg_layer_spec *softmax,
                 struct tg_layer_spec *linear);
};
#define FAULT(name, what)                                                                          \
    static void name(struct tg_model_spec *s, struct tg_layer_spec *l, struct tg_layer_spec *m)    \
    {                                                                                              \
        (void)s, (void)l, (void)m;                                                                 \
        what;                                                                                      \
    }
FAULT(bias, l->qkv_bias = true)
FAULT(window, l->mixer = tg_mixer_schema_find("window"); l->window = 8)
FAULT(ends, s->eos_count = 4)
FAULT(no_softmax, l->mixer = m->mixer)
FAULT(no_linear, m->mixer = l->mixer)
FAULT(llama3, s->ropes[0].kind = TG_ROPE_LLAMA3)
FAULT(longrope, s->ropes[0].kind = TG_ROPE_LONGROPE)
FAULT(linear_conv, m->recurrent.conv = 0)
FAULT(value_size, m->value_dim = 4)
FAULT(proj_bias, m->recurrent.proj_bias = true)
FAULT(out_bias, m->recurrent.out_bias = true)
FAULT(groups, m->recurrent.groups = 2)
FAULT(channels, m->recurrent.inner /= 2)
FAULT(limits, m->recurrent.dt_max = 2)
static void yarn(struct tg_model_spec *s)
{
    s->ropes[0].kind = TG_ROPE_YARN;
    s->ropes[0].factor = 1;
    s->ropes[0].attention_factor = 1;
    s->ropes[0].beta_fast = 32;
    s->ropes[0].beta_slow = 1;
    s->ropes[0].truncate = true;
    s->ropes[0].original_max_positions = 64;
}
FAULT(yarn_attention, yarn(s); s->ropes[0].attention_factor = 1.1)
FAULT(yarn_beta, yarn(s); s->ropes[0].beta_fast = 16)
FAULT(yarn_positions, yarn(s); s->ropes[0].original_max_positions = 64.5)
FAULT(llama3_factor, s->ropes[0].kind = TG_ROPE_LLAMA3; s->ropes[0].low_freq_factor = 1;
      s->ropes[0].high_freq_factor = 4; s->ropes[0].factor = 2.5)

static void test_refused(void **state)
{
    static const struct fault faults[] = {
        {"qwen35", "attention has biases", bias},
        {"qwen35", "neither softmax without a window", window},
        {"qwen35", "4 tokens end a text, a GGUF file names at most 3", ends},
        {"qwen35", "no layer is softmax", no_softmax},
        {"qwen35", "no layer is gated_deltanet", no_linear},
        {"qwen35", "layer 1: llama3 scaling has no place", llama3},
        {"qwen35", "layer 1: its rotary scaling is none of", longrope},
        {"qwen35", "attention_factor of its own", yarn_attention},
        {"qwen35", "other limits than beta_fast 32", yarn_beta},
        {"qwen35", "no whole number", yarn_positions},
        {"qwen35", "without a convolution", linear_conv},
        {"qwen35", "differ in size", value_size},
        {"granitehybrid", "its mixer is window", window},
        {"granitehybrid", "4 tokens end a text", ends},
        {"granitehybrid", "no layer is softmax", no_softmax},
        {"granitehybrid", "no layer is mamba2", no_linear},
        {"granitehybrid", "layer 0: mamba2 has biases in its projections", proj_bias},
        {"granitehybrid", "layer 0: mamba2 has biases in its projections", out_bias},
        {"granitehybrid", "2 groups, and llama.cpp", groups},
        {"granitehybrid", "32 channels, must be twice the width, 64", channels},
        {"granitehybrid", "have limits", limits},
        {"granitehybrid", "whole factor alone", llama3_factor},
    };
    static const struct shape
        delta = {"qwen35", qwen3, DELTA, "1", {"num_hidden_layers", "2", NULL}},
        mamba = {"granitehybrid", tg_llama_config, MAMBA, "1", {"num_hidden_layers", "2", NULL}};
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const bool of_delta = !strcmp(faults[i].target, "qwen35");
        struct tg_model *m = make(of_delta ? &delta : &mamba, 1);
        struct tg_model_spec s;
        struct tg_remarks why = {0};
        struct tg_err err = {0};
        tg_target_find(faults[i].target)->check(&m->spec, &why);
        assert_int_equal(why.count, 0);
        tg_test_must(tg_spec_copy(&s, &m->spec, &err), &err);
        faults[i].make(&s, &s.layers[1], &s.layers[0]);
        tg_bench_refused(&s, faults[i].target, faults[i].says);
        tg_spec_release(&s);
        tg_model_free(m);
    }
}

/* Layers with experts are the other row's. */
static void test_rows(void **state)
{
    struct tg_model *m = make(&SHAPES[0], 1), *e = make(&SHAPES[6], 1);
    (void)state;
    tg_bench_refused(&m->spec, "qwen35moe", "layer 0: its mlp is dense");
    tg_bench_refused(&e->spec, "qwen35", "layer 0: its mlp is experts");
    tg_model_free(m);
    tg_model_free(e);
}

/* The last export of this program */
static struct tg_tensors *written(void)
{
    char *path = tg_scratch_path("export.gguf");
    struct tg_tensors *t;
    struct tg_err err = {0};

    tg_test_must(tg_tensors_open(&t, path, &err), &err);
    tg_free(path);
    return t;
}

/* A key's type, and of an array its elements' and number; TYPE_COUNT: it must not be there */
struct key {
    const char *name;
    enum tg_gguf_type type, of;
    size_t count;
};
static void expect_keys(const struct tg_tensors *t, const struct key *keys)
{
    for (; keys->name; keys++) {
        const struct tg_gguf_value *v = tg_gguf_find(t, keys->name);
        const enum tg_gguf_type type = v ? v->type : TG_GGUF_TYPE_COUNT;
        if (type != keys->type ||
            (type == TG_GGUF_ARRAY && (v->array.type != keys->of || v->array.count != keys->count)))
            fail_msg("key '%s' has type %s", keys->name, v ? tg_gguf_type_name(type) : "none");
    }
}

#define SIZE(name)                                                                                 \
    {                                                                                              \
        name, TG_GGUF_U32, 0, 0                                                                    \
    }
#define NUMBER(name)                                                                               \
    {                                                                                              \
        name, TG_GGUF_F32, 0, 0                                                                    \
    }
#define ABSENT(name)                                                                               \
    {                                                                                              \
        name, TG_GGUF_TYPE_COUNT, 0, 0                                                             \
    }

/* The loader takes a size that is no U32 for a fault, and wants these. */
static void test_keys(void **state)
{
    static const struct key of_qwen[] = {
        {"general.architecture", TG_GGUF_STRING, 0, 0},
        SIZE("qwen35.block_count"),
        SIZE("qwen35.context_length"),
        SIZE("qwen35.embedding_length"),
        SIZE("qwen35.feed_forward_length"),
        SIZE("qwen35.attention.head_count"),
        SIZE("qwen35.attention.head_count_kv"),
        SIZE("qwen35.attention.key_length"),
        SIZE("qwen35.attention.value_length"),
        NUMBER("qwen35.attention.layer_norm_rms_epsilon"),
        SIZE("qwen35.rope.dimension_count"),
        NUMBER("qwen35.rope.freq_base"),
        {"qwen35.rope.dimension_sections", TG_GGUF_ARRAY, TG_GGUF_I32, 4},
        {"qwen35.attention.recurrent_layers", TG_GGUF_ARRAY, TG_GGUF_BOOL, 4},
        SIZE("qwen35.full_attention_interval"),
        SIZE("qwen35.ssm.conv_kernel"),
        SIZE("qwen35.ssm.inner_size"),
        SIZE("qwen35.ssm.state_size"),
        SIZE("qwen35.ssm.time_step_rank"),
        SIZE("qwen35.ssm.group_count"),
        ABSENT("qwen35.rope.scaling.type"),
        ABSENT("qwen35.expert_count"),
        {NULL, 0, 0, 0}};
    static const struct key of_granite[] = {
        {"granitehybrid.attention.head_count_kv", TG_GGUF_ARRAY, TG_GGUF_I32, 3},
        {"granitehybrid.rope.scaling.finetuned", TG_GGUF_BOOL, 0, 0},
        SIZE("granitehybrid.rope.scaling.original_context_length"),
        ABSENT("granitehybrid.rope.scaling.type"),
        SIZE("granitehybrid.ssm.inner_size"),
        ABSENT("granitehybrid.attention.scale"),
        ABSENT("granitehybrid.embedding_scale"),
        ABSENT("granitehybrid.residual_scale"),
        ABSENT("granitehybrid.logit_scale"),
        {NULL, 0, 0, 0}};
    static const struct key of_scaled[] = {NUMBER("granitehybrid.attention.scale"),
                                           NUMBER("granitehybrid.embedding_scale"),
                                           NUMBER("granitehybrid.residual_scale"),
                                           NUMBER("granitehybrid.logit_scale"),
                                           {NULL, 0, 0, 0}};
    static const struct {
        size_t shape;
        const struct key *keys;
    } rows[] = {{0, of_qwen}, {11, of_granite}, {COUNT - 1, of_scaled}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model *m = make(&SHAPES[rows[i].shape], 1);
        tg_bench_export(m, SHAPES[rows[i].shape].target, TG_F32);
        struct tg_tensors *t = written();
        expect_keys(t, rows[i].keys);
        tg_tensors_close(t);
        tg_model_free(m);
    }
}

static void expect_tensor(const struct tg_tensors *t, const char *name, enum tg_dtype dtype,
                          int rank, int64_t rows, int64_t columns)
{
    const struct tg_tensor *x = tg_tensors_find(t, name);

    if (!x || x->dtype != dtype || x->rank != rank || x->shape[0] != rows ||
        (rank > 1 && x->shape[1] != columns))
        fail_msg("tensor '%s' is not there, or has another type or shape (%lld, %lld)", name,
                 x ? (long long)x->shape[0] : -1, x ? (long long)x->shape[1] : -1);
}

/* What must stay float32 beside matrices of another type, and shapes that the engine wants */
static void test_tensors(void **state)
{
    struct tg_model *m = make(&SHAPES[0], 1);
    struct tg_tensors *t;
    (void)state;
    tg_bench_export(m, "qwen35", TG_BF16);
    t = written();
    expect_tensor(t, "blk.0.attn_qkv.weight", TG_BF16, 2, 96, 32);
    expect_tensor(t, "blk.0.ssm_conv1d.weight", TG_F32, 2, 96, 4);
    expect_tensor(t, "blk.0.ssm_a", TG_F32, 1, 4, 0);
    expect_tensor(t, "blk.0.ssm_dt.bias", TG_F32, 1, 4, 0);
    expect_tensor(t, "blk.1.attn_q.weight", TG_BF16, 2, 64, 32);
    expect_tensor(t, "blk.1.post_attention_norm.weight", TG_F32, 1, 32, 0);
    assert_null(tg_tensors_find(t, "output.weight"));
    tg_tensors_close(t);
    tg_model_free(m);
    m = make(&SHAPES[11], 1);
    tg_bench_export(m, "granitehybrid", TG_BF16);
    t = written();
    expect_tensor(t, "blk.0.ssm_a", TG_F32, 2, 8, 1);
    expect_tensor(t, "blk.0.ssm_d", TG_F32, 2, 8, 1);
    expect_tensor(t, "blk.0.ssm_norm.weight", TG_F32, 2, 1, 64);
    expect_tensor(t, "blk.0.ssm_in.weight", TG_BF16, 2, 152, 32);
    expect_tensor(t, "blk.0.ssm_conv1d.bias", TG_F32, 1, 80, 0);
    expect_tensor(t, "rope_freqs.weight", TG_F32, 1, 4, 0);
    tg_tensors_close(t);
    tg_model_free(m);
}

/* Norms far from 1, zero and below, keep every bit in a file of bfloat16. */
static void test_norms(void **state)
{
    static const float strange[] = {0.01F, 300, -0.3F, 0, 0.123456F, -7, 1, 1e-6F};
    struct tg_model *m = make(&SHAPES[0], 1);
    float *w = m->data + tg_params_find(&m->params, "layers.1.mixer.q_norm.weight")->offset, got[8];
    (void)state;
    memcpy(w, strange, sizeof strange);
    tg_bench_export(m, "qwen35", TG_BF16);
    struct tg_tensors *t = written();
    struct tg_err err = {0};
    const struct tg_tensor *x = tg_tensors_find(t, "blk.1.attn_q_norm.weight");
    assert_non_null(x);
    tg_test_must(tg_tensor_read_f32(x, got, &err), &err);
    assert_memory_equal(got, strange, sizeof got);
    tg_tensors_close(t);
    tg_model_free(m);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test_teardown(test_norms, tg_scratch_remove),
    };
    if (!tg_scratch_make("export-gguf"))
        return 1;
    return tg_run_tests("export_gguf", tests, sizeof tests / sizeof *tests);
}
