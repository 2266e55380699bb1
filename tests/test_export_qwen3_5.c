/* Exports to qwen3_5 and qwen3_5_moe: what fits, what is exact, and how norms become 1 + w. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "convert/targets/qwen3_5.h"
#include "linearize/surgery/surgery.h"
#include "tests/export_bench.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "tests/specs.h"

static const char *const dense =
    "{\"model_type\": \"qwen3\", \"vocab_size\": 53, \"hidden_size\": 32, \"intermediate_size\": "
    "40, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"head_dim\": 8, \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-6, \"rope_theta\": "
    "10000, \"tie_word_embeddings\": true, \"eos_token_id\": 3}";
static const char *const sparse =
    "{\"model_type\": \"qwen3_moe\", \"vocab_size\": 53, \"hidden_size\": 32, "
    "\"intermediate_size\": 40, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 8, \"max_position_embeddings\": 128, "
    "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 12, "
    "\"norm_topk_prob\": true, \"bos_token_id\": 1}";
static const char linear[] = "gated_deltanet,rotary=false,conv=4,kv=expanded";

enum { EDITS = 10 };
static const struct {
    const char *edits[EDITS], *mixer, *keep;
} SHAPES[] = {
    {{NULL}, linear, "every:4"},
    {{NULL}, linear, "every:2"},
    {{NULL}, linear, "0,1"},
    {{NULL}, NULL, NULL},
    {{"num_key_value_heads", "4", "tie_word_embeddings", "false"}, linear, "3"},
    {{"num_key_value_heads", "1", "vocab_size", "37"}, linear, "1,3"},
    {{"hidden_size", "48", "num_attention_heads", "6", "head_dim", "16"}, linear, "every:2"},
    {{"head_dim", "10", "rms_norm_eps", "1e-5"}, "gated_deltanet,rotary=false,conv=3", "1,3"},
    {{"rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 2}"}, linear, "1,3"},
    {{"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4, "
                      "\"original_max_position_embeddings\": 16}"},
     linear,
     "1,3"},
    {{"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
                      "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 16}"},
     linear,
     "1,3"},
};

static struct tg_model *shape_of(size_t i, const char *text)
{
    char *config = tg_bench_config(text, SHAPES[i].edits);
    struct tg_model *m = tg_bench_hybrid(config, SHAPES[i].mixer, SHAPES[i].keep, 5 + i);

    tg_free(config);
    return m;
}

static void test_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        struct tg_model *m = shape_of(i, dense), *e = shape_of(i, sparse);
        assert_below(tg_bench_export(m, "qwen3_5", TG_F32), 1e-5, "qwen3_5");
        assert_below(tg_bench_export(e, "qwen3_5_moe", TG_F32), 1e-5, "qwen3_5_moe");
        tg_model_free(m);
        tg_model_free(e);
    }
}

static float *param(const struct tg_model *m, const char *name, size_t *count)
{
    const struct tg_param *p = tg_params_find(&m->params, name);

    if (!p)
        fail_msg("no parameter '%s'", name);
    *count = p->count;
    return m->data + p->offset;
}

/* Norms over the width from 0.01 to 300, some negative, some zero; those of q and k as `qk` says */
static void strain_norms(struct tg_model *m, double qk)
{
    static const float strange[] = {0.01F, 300, -0.3F, 0, 0.4F, -7, 1, 0.2F, 64, -0.02F};
    const size_t n = sizeof strange / sizeof *strange;

    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_rng rng = tg_rng_make(77, i);
        const bool wide = strstr(p->name, "norm_in") || strstr(p->name, "norm_mlp") ||
                          strstr(p->name, "norm_out");
        for (size_t e = 0; e < p->count; e++) {
            float *w = &m->data[p->offset + e];
            if (wide)
                *w = e < n ? strange[e] : (float)(0.1 + 3 * tg_rng_uniform(&rng));
            else if (strstr(p->name, "q_norm") || strstr(p->name, "k_norm"))
                *w = (float)(qk + 2 * tg_rng_uniform(&rng));
        }
    }
}

static void test_strange_norms(void **state)
{
    static const enum tg_dtype types[] = {TG_F32, TG_BF16, TG_F16};
    (void)state;
    for (size_t i = 0; i < 6; i++)
        for (size_t t = 0; t < 3; t++) {
            struct tg_model *m = shape_of(i, dense), *e = shape_of(i, sparse);
            strain_norms(m, 0.5);
            strain_norms(e, 0.5);
            assert_below(tg_bench_export_rounded(m, "qwen3_5", types[t]), 1e-5, "qwen3_5");
            assert_below(tg_bench_export_rounded(e, "qwen3_5_moe", types[t]), 1e-5, "qwen3_5_moe");
            tg_model_free(m);
            tg_model_free(e);
        }
}

/* What is written of a model for bf16, before rounding, and the notes about it */
struct written {
    struct tg_export x;
    struct tg_block block;
    struct tg_export_source in;
};
static void begin(struct written *w, const struct tg_model *m)
{
    struct tg_err err = {0};

    w->block = (struct tg_block){&m->params, m->data};
    w->in = tg_export_from_block(&m->spec, &w->block);
    tg_test_must(tg_export_begin(&w->x, tg_target_find("qwen3_5"), &w->in, "bf16", NULL, &err),
                 &err);
}

/* Caller frees */
static float *value(const struct written *w, const char *name, size_t *count)
{
    const struct tg_param *p = tg_params_find(&w->x.params, name);
    struct tg_err err = {0};

    if (!p)
        fail_msg("no parameter '%s' is written", name);
    float *data = tg_alloc_floats(p->count);
    tg_test_must(tg_export_param(&w->x, (size_t)(p - w->x.params.items), data, &err), &err);
    *count = p->count;
    return data;
}

/* Norms that bf16(w - 1) holds leave the rest of the model as it is. */
static void test_nothing_needless(void **state)
{
    static const char *const same[] = {"embed.weight", "layers.0.mixer.q.weight",
                                       "layers.1.mixer.k.weight", "layers.0.mlp.gate.weight"};
    struct tg_model *m = shape_of(1, dense);
    struct written w;
    size_t n, count;
    (void)state;
    for (size_t i = 0; i < m->params.count; i++)
        for (size_t e = 0; strstr(m->params.items[i].name, "norm") && e < m->params.items[i].count;
             e++)
            m->data[m->params.items[i].offset + e] = e % 2 ? 0.5F : 256;
    begin(&w, m);
    assert_true(w.x.spec.tied_head);
    assert_int_equal(w.x.notes.count, 0);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        float *data = value(&w, same[i], &n);
        assert_memory_equal(data, param(m, same[i], &count), n * sizeof *data);
        tg_free(data);
    }
    float *norm = value(&w, "layers.2.norm_in.weight", &n);
    assert_true(norm[0] == 255 && norm[1] == -0.5F);
    tg_free(norm);
    tg_export_end(&w.x);
    tg_model_free(m);
}

/* The column of a weight that does not fit takes its power of two, and no other does. */
static void test_columns(void **state)
{
    static const struct {
        const char *norm, *linear;
    } pairs[] = {
        {"layers.0.norm_in.weight", "layers.0.mixer.a.weight"},
        {"layers.1.norm_in.weight", "layers.1.mixer.v.weight"},
        {"layers.1.norm_mlp.weight", "layers.1.mlp.up.weight"},
        {"norm_out.weight", "head.weight"},
    };
    struct tg_model *m = shape_of(1, dense);
    struct written w;
    size_t n, count, D;
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        float *norm = param(m, pairs[i].norm, &D);
        for (size_t e = 0; e < D; e++)
            norm[e] = e == 3 ? -99.0F / 256 : e == 5 ? 209.0F / 2048 : 1;
    }
    begin(&w, m);
    assert_false(w.x.spec.tied_head);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const bool head = !strcmp(pairs[i].linear, "head.weight");
        float *norm = value(&w, pairs[i].norm, &n), *to = value(&w, pairs[i].linear, &count);
        const float *from = param(m, head ? "embed.weight" : pairs[i].linear, &n);
        assert_true(norm[3] == 35.0F / 64 && norm[5] == 81.0F / 128 && norm[0] == 0);
        for (size_t e = 0; e < count; e++)
            assert_true(to[e] == from[e] * (e % D == 3 ? -0.25F : e % D == 5 ? 0.0625F : 1));
        tg_free(norm);
        tg_free(to);
    }
    tg_export_end(&w.x);
    tg_model_free(m);
}

static void set_qk(struct tg_model *m, float q, float k)
{
    size_t n;
    float *a = param(m, "layers.1.mixer.q_norm.weight", &n);
    float *b = param(m, "layers.1.mixer.k_norm.weight", &n);

    for (size_t i = 0; i < n; i++) {
        a[i] = q;
        b[i] = k;
    }
}

static void expect_note(const struct written *w, const char *text)
{
    bool found = false;

    for (size_t i = 0; i < w->x.notes.count; i++)
        found = found || strstr(w->x.notes.lines[i], text);
    if (!found)
        fail_msg("no note of %zu has '%s'", w->x.notes.count, text);
}

/* q and k norms share powers of two, rotary pair by rotary pair; what is left over is said. */
static void test_qk_norms(void **state)
{
    const float odd =
        139.0F / 512; /* less 1 it lies between two bf16, twice as large it does not */
    struct tg_model *m = shape_of(1, dense);
    struct written w;
    size_t n;
    float *q, *a;
    (void)state;
    strain_norms(m, 0.5);
    a = param(m, "layers.1.mixer.q_norm.weight", &n);
    set_qk(m, 3, 5);
    a[1] = a[1 + n / 2] = odd;
    begin(&w, m);
    q = value(&w, "layers.1.mixer.q_norm.weight", &n);
    assert_true(q[1] == 2 * odd - 1 && q[1 + n / 2] == q[1] && q[0] == 2);
    tg_free(q);
    q = value(&w, "layers.1.mixer.k_norm.weight", &n);
    assert_true(q[1] == 1.5F && q[1 + n / 2] == 1.5F && q[2] == 4);
    tg_free(q);
    for (size_t i = 0; i < w.x.notes.count; i++)
        assert_null(strstr(w.x.notes.lines[i], "q and k norms"));
    tg_export_end(&w.x);
    assert_below(tg_bench_export_rounded(m, "qwen3_5", TG_BF16), 1e-5, "shared powers of two");

    set_qk(m, odd, odd);
    begin(&w, m);
    expect_note(&w, "layer 1: 16 of 16 weights");
    expect_note(&w, "the smallest is 0.27");
    tg_export_end(&w.x);
    assert_true(tg_bench_export_rounded(m, "qwen3_5", TG_BF16) > 1e-5);

    /* a factor that would make nothing of a weight is none */
    set_qk(m, 0x1p-126F, 0.75F);
    begin(&w, m);
    q = value(&w, "layers.1.mixer.k_norm.weight", &n);
    assert_true(q[2] == -0.25F);
    tg_free(q);
    tg_export_end(&w.x);
    set_qk(m, odd, odd);
    assert_below(tg_bench_export(m, "qwen3_5", TG_F32), 1e-5, "float32 has no loss");
    tg_model_free(m);
}

/* Of a head that is rotated in part the other rows stand alone. */
static void test_qk_norms_in_part(void **state)
{
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    const float odd = 139.0F / 512;
    struct tg_model_spec spec;
    struct tg_model *m;
    struct written w;
    struct tg_err err = {0};
    size_t n;
    (void)state;
    tg_must_parse(dense, &spec);
    for (size_t i = 0; i < spec.layer_count; i++)
        spec.layers[i].rotary_dim = 4;
    tg_test_must(tg_surgery_random(&spec, NULL, &ctx, 0.15, 4, &m, &err), &err);
    strain_norms(m, 0.5);
    set_qk(m, 3, 5);
    float *q = param(m, "layers.1.mixer.q_norm.weight", &n);
    q[1] = q[3] = q[6] = odd;
    begin(&w, m);
    q = value(&w, "layers.1.mixer.q_norm.weight", &n);
    for (size_t i = 0; i < n; i++)
        assert_true(q[i] == (i == 1 || i == 3 || i == 6 ? 2 * odd - 1 : 2));
    tg_free(q);
    tg_export_end(&w.x);
    assert_below(tg_bench_export_rounded(m, "qwen3_5", TG_BF16), 1e-5, "rotary in part");
    tg_model_free(m);
    tg_spec_release(&spec);
}

/* Values that bf16 does not hold: no worse than bf16 makes them anyway */
static void test_rounded_norms(void **state)
{
    struct tg_model *m = shape_of(1, dense);
    struct written w;
    struct tg_rng rng = tg_rng_make(3, 3);
    size_t n, count;
    float *norm = param(m, "layers.0.norm_in.weight", &n);
    (void)state;
    for (size_t i = 0; i < n; i++)
        norm[i] = (float)(exp(tg_rng_uniform(&rng) * 12 - 6) * (i % 3 ? 1 : -1));
    begin(&w, m);
    float *d = value(&w, "layers.0.norm_in.weight", &n);
    float *q = value(&w, "layers.0.mixer.q.weight", &count);
    const float *from = param(m, "layers.0.mixer.q.weight", &count);
    for (size_t i = 0; i < n; i++) {
        uint16_t raw;
        float back;
        tg_dtype_from_f32(TG_BF16, &d[i], &raw, 1);
        tg_dtype_to_f32(TG_BF16, &raw, &back, 1);
        const double whole = (1.0 + back) * (q[i] / from[i]);
        assert_true(fabs(whole - norm[i]) <= fabs(norm[i]) / 256);
    }
    tg_free(d);
    tg_free(q);
    tg_export_end(&w.x);
    tg_model_free(m);
}

static void test_teachers(void **state)
{
    static const struct {
        const char *family, *target;
    } rows[] = {
        {"qwen3", "qwen3_5"},         {"qwen3__headdim", "qwen3_5"},
        {"qwen3_moe", "qwen3_5_moe"}, {"qwen3_5_text", "qwen3_5"},
        {"qwen3_next", "qwen3_5"},    {"qwen3_next__moe", "qwen3_5_moe"},
    };
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *path = tg_path_join("tests/data/families", rows[i].family);
        struct tg_model *m;
        struct tg_err err = {0};
        tg_test_must(tg_model_load(&m, path, &ctx, &err), &err);
        assert_below(tg_bench_export(m, rows[i].target, TG_F32), 1e-5, rows[i].family);
        assert_below(tg_bench_export_rounded(m, rows[i].target, TG_BF16), 1e-5, rows[i].family);
        tg_model_free(m);
        tg_free(path);
    }
}

/* Routers and shared experts that are the same by other words */
static void test_experts(void **state)
{
    struct tg_model *m = tg_bench_hybrid(sparse, linear, "1,3", 9);
    (void)state;
    for (size_t i = 0; i < m->spec.layer_count; i++) {
        m->spec.layers[i].moe.router = TG_ROUTER_TOP_SOFTMAX;
        m->spec.layers[i].moe.renormalise = false;
    }
    assert_below(tg_bench_export(m, "qwen3_5_moe", TG_F32), 1e-5, "softmax over the taken");
    tg_model_free(m);

    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    struct tg_model_spec spec;
    struct tg_err err = {0};
    tg_must_parse(sparse, &spec);
    for (int gate = 0; gate < 2; gate++) {
        for (size_t i = 0; i < spec.layer_count; i++) {
            spec.layers[i].moe.shared_dim = 20;
            spec.layers[i].moe.shared_gate = gate;
        }
        tg_test_must(tg_surgery_random(&spec, NULL, &ctx, 0.15, 4, &m, &err), &err);
        strain_norms(m, 0.5);
        assert_below(tg_bench_export_rounded(m, "qwen3_5_moe", TG_BF16), 1e-5,
                     gate ? "a gated shared expert" : "a shared expert without a gate");
        tg_model_free(m);
    }
    tg_spec_release(&spec);
}

/* The spec of a hybrid that fits, layers 0 and 2 linear, to be spoilt; released by the check */
static struct tg_model_spec good(const char *text)
{
    struct tg_model *m = tg_bench_hybrid(text, linear, "1,3", 1);
    struct tg_remarks none = {0};
    struct tg_model_spec s;
    struct tg_err err = {0};

    tg_test_must(tg_spec_copy(&s, &m->spec, &err), &err);
    tg_target_find(text == dense ? "qwen3_5" : "qwen3_5_moe")->check(&s, &none);
    assert_int_equal(none.count, 0);
    tg_model_free(m);
    return s;
}

#define REFUSED(text, change, why)                                                                 \
    do {                                                                                           \
        struct tg_model_spec s = good(text);                                                       \
        struct tg_layer_spec *lin = &s.layers[2], *soft = &s.layers[3];                            \
        (void)lin;                                                                                 \
        (void)soft;                                                                                \
        change;                                                                                    \
        tg_bench_refused(&s, (text) == dense ? "qwen3_5" : "qwen3_5_moe", why);                    \
        tg_spec_release(&s);                                                                       \
    } while (0)

static void test_refused_models(void **state)
{
    (void)state;
    REFUSED(dense, s.norm.kind = TG_NORM_LAYER, "norms are RMS norms");
    REFUSED(dense, s.norm.bias = true, "norms are RMS norms");
    REFUSED(dense, s.norm.bare = true, "norms are RMS norms");
    REFUSED(dense, s.no_norm_out = true, "a norm before the head");
    REFUSED(dense, s.head_bias = true, "the head has no bias");
    REFUSED(dense, s.embed_scale = 2, "embeddings are not scaled");
    REFUSED(dense, s.logit_scale = 2, "logits are not scaled");
    REFUSED(dense, s.logit_softcap = 30, "logits are not scaled or capped");
    REFUSED(dense, s.embed_dim = 16, "the model's width");
    REFUSED(dense, s.learned_positions = 64, "positions are not learned");
    REFUSED(dense, soft->residual = TG_RESIDUAL_POST, "layer 3: norms do not stand before");
    REFUSED(dense, soft->mixer_scale = 0.5, "layer 3: its branches are scaled");
    REFUSED(dense, soft->mlp_scale = 0.5, "layer 3: its branches are scaled");
    REFUSED(dense, soft->mlp_kind = TG_MLP_PLAIN, "layer 3: the mlp is not a gated one");
    REFUSED(dense, soft->activation = TG_ACT_GELU, "layer 3: the mlp is not a gated one");
    REFUSED(dense, soft->gate_scale = 2, "layer 3: parts of the mlp are scaled");
    REFUSED(dense, soft->down_scale = 2, "layer 3: parts of the mlp are scaled");
    REFUSED(dense, lin->mlp_bias = true, "layer 2: the mlp has biases");
    REFUSED(dense, lin->mlp_dim = 44, "layer 2: the mlp has another size");
    REFUSED(dense, lin->moe.experts = 4, "layer 2: its mlp is experts");
    REFUSED(dense, tg_spec_release(&s); s = good(sparse), "layer 0: its mlp is experts");
}

static void test_refused_softmax(void **state)
{
    (void)state;
    REFUSED(dense, soft->qk_norm = TG_QK_NONE, "layer 3: softmax without q/k norms");
    REFUSED(dense, soft->qk_norm = TG_QK_WIDE, "layer 3: q/k norms are not one weight");
    REFUSED(dense, soft->qk_norm = TG_QK_EACH, "layer 3: q/k norms are not one weight");
    REFUSED(dense, soft->qk_norm_bias = true, "layer 3: attention has biases");
    REFUSED(dense, soft->qkv_bias = true, "layer 3: attention has biases");
    REFUSED(dense, soft->o_bias = true, "layer 3: attention has biases");
    REFUSED(dense, soft->sinks = 1, "layer 3: softmax has sinks");
    REFUSED(dense, soft->attn_softcap = 50, "layer 3: attention scores are capped");
    REFUSED(dense, soft->qkv_clip = 8, "layer 3: q, k and v are clipped");
    REFUSED(dense, soft->rotary_dim = 0, "layer 3: softmax without rotary");
    REFUSED(dense, s.ropes[0].kind = TG_ROPE_DYNAMIC, "layer 1: its rope is none of");
    REFUSED(dense, s.ropes[0].kind = TG_ROPE_LONGROPE, "layer 1: its rope is none of");
    REFUSED(dense, soft->attn_scale = 0.5, "layer 3: attention scores are not scaled");
    REFUSED(dense, soft->value_dim = 4, "layer 3: values have not the size");
    REFUSED(dense, soft->kv_heads = 4, "layer 3: softmax of other heads");
    REFUSED(dense, soft->heads = 2, "layer 3: softmax of other heads");
    REFUSED(dense, soft->rotary_dim = 4, "layer 3: softmax of other heads");
    REFUSED(dense, soft->mixer = tg_mixer_schema_find("window"),
            "layer 3: the mixer is neither softmax without a window");
    REFUSED(dense, lin->mixer = tg_mixer_schema_find("kda"), "layer 2: the mixer is neither");
    REFUSED(dense, s.layers[1] = s.layers[3] = *lin, "no layer is softmax");
}

static void test_refused_linear(void **state)
{
    (void)state;
    REFUSED(dense, lin->window = 16, "layer 2: gated_deltanet with a window");
    REFUSED(dense, lin->linear_plain = false, "layer 2: rotary in the linear branch");
    REFUSED(dense, lin->qk_norm = TG_QK_HEAD, "layer 2: gated_deltanet with q/k norms");
    REFUSED(dense, lin->o_bias = true, "layer 2: gated_deltanet with biases");
    REFUSED(dense, lin->output_gate = true, "layer 2: gated_deltanet with an output gate");
    REFUSED(dense, lin->qkv_clip = 8, "layer 2: gated_deltanet with clipped");
    REFUSED(dense, lin->recurrent.conv = 0, "layer 2: gated_deltanet without a convolution");
    REFUSED(dense, lin->kv_heads = 2, "layer 2: query heads of gated_deltanet share keys");
    REFUSED(dense, lin->value_dim = 16, "layer 2: keys and values of gated_deltanet differ");
    REFUSED(dense, lin->recurrent.negative_eigenvalues = true, "layer 2: gated_deltanet with neg");
    REFUSED(dense, lin->recurrent.norm_eps = 1e-3, "layer 2: gated_deltanet with another norm");
    REFUSED(dense, lin->recurrent.conv = 3, "layer 2: gated_deltanet of other sizes");
}

static void test_refused_experts(void **state)
{
    (void)state;
    REFUSED(sparse, soft->moe.experts = 0, "layer 3: its mlp is dense");
    REFUSED(sparse, soft->moe.router = TG_ROUTER_SIGMOID, "layer 3: experts are chosen by sigm");
    REFUSED(sparse, soft->moe.renormalise = false, "layer 3: the weights of a token's experts");
    REFUSED(sparse, soft->moe.router_bias = true, "layer 3: router or experts have biases");
    REFUSED(sparse, soft->moe.correction = true, "layer 3: router or experts have biases");
    REFUSED(sparse, soft->moe.expert_bias = true, "layer 3: router or experts have biases");
    REFUSED(sparse, soft->moe.scale = 2, "layer 3: the experts' sum is scaled");
    REFUSED(sparse, soft->moe.per_token = 1, "layer 3: experts of another number");
    REFUSED(sparse, soft->moe.shared_dim = 8, "layer 3: experts of another number");
    REFUSED(sparse, tg_spec_release(&s); s = good(dense), "layer 0: its mlp is dense");
}

/* One reason once, however many layers have it */
static void test_reasons_once(void **state)
{
    struct tg_model_spec s = good(dense);
    struct tg_remarks why = {0};
    (void)state;
    for (size_t i = 0; i < s.layer_count; i++)
        s.layers[i].mlp_bias = true;
    tg_target_find("qwen3_5")->check(&s, &why);
    assert_int_equal(why.count, 1);
    tg_remarks_release(&why);
    tg_spec_release(&s);
}

static void test_pitfalls(void **state)
{
    static const char *const irregular[] = {"0,3", "1,2", "2", "0", "1"};
    static const char *const regular[] = {"every:4", "every:2", "2,5", "0-5"};
    const char *const six[] = {"num_hidden_layers", "6", NULL};
    (void)state;
    for (size_t t = 0; t < 2; t++) {
        const char *name = t ? "qwen3_5_moe" : "qwen3_5";
        char *config = tg_bench_config(t ? sparse : dense, six);
        for (size_t i = 0; i < sizeof irregular / sizeof *irregular; i++) {
            struct tg_model *m = tg_bench_hybrid(config, linear, irregular[i], 2);
            tg_bench_pitfall(&m->spec, name, "full_attention_interval");
            tg_model_free(m);
        }
        for (size_t i = 0; i < sizeof regular / sizeof *regular; i++) {
            struct tg_model *m = tg_bench_hybrid(config, linear, regular[i], 2);
            struct tg_remarks r = {0};
            tg_target_find(name)->pitfalls(&m->spec, &r);
            assert_int_equal(r.count, 0);
            tg_model_free(m);
        }
        tg_free(config);
    }
}

/* The plan that a target gives makes hybrids that fit it, of gated teachers too. */
static void test_plans(void **state)
{
    static const struct {
        const char *family, *target, *edits[13], *keep;
    } rows[] = {
        {"qwen3", "qwen3_5", {NULL}, "1"},
        {"qwen3_moe", "qwen3_5_moe", {NULL}, "1"},
        {"qwen3_next",
         "qwen3_5",
         {"num_hidden_layers", "3", "mlp_only_layers", "[0,1,2]", "layer_types",
          "[\"full_attention\",\"full_attention\",\"linear_attention\"]", "linear_num_key_heads",
          "4", "linear_conv_kernel_dim", "3"},
         "1,2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct tg_target *t = tg_target_find(rows[i].target);
        char path[128], text[256];
        char *file, *config;
        size_t size;
        struct tg_model_spec spec;
        struct tg_err err = {0};
        snprintf(path, sizeof path, "tests/data/families/%s/config.json", rows[i].family);
        tg_test_must(tg_file_read(path, 1 << 20, &file, &size, &err), &err);
        config = tg_bench_config(file, rows[i].edits);
        tg_free(file);
        tg_must_parse(config, &spec);
        tg_test_must(t->plan(&spec, NULL, text, sizeof text, &err), &err);
        struct tg_model *m = tg_bench_hybrid(config, text, rows[i].keep, 3);
        assert_below(tg_bench_export(m, rows[i].target, TG_F32), 1e-5, rows[i].family);
        assert_int_equal(t->plan(&spec, "kda", text, sizeof text, &err), TG_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.msg, "kda"));
        tg_model_free(m);
        tg_spec_release(&spec);
        tg_free(config);
    }
}

static void test_no_plan(void **state)
{
    struct tg_model_spec llama = tg_spec_with("llama", NULL, NULL), next;
    char text[256], *file;
    size_t size;
    struct tg_err err = {0};
    (void)state;
    assert_int_equal(tg_target_find("qwen3_5")->plan(&llama, NULL, text, sizeof text, &err),
                     TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "softmax without q/k norms"));
    tg_spec_release(&llama);
    tg_test_must(
        tg_file_read("tests/data/families/qwen3_next/config.json", 1 << 20, &file, &size, &err),
        &err);
    tg_must_parse(file, &next);
    assert_int_equal(tg_target_find("qwen3_5")->plan(&next, NULL, text, sizeof text, &err),
                     TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "its linear layers have other heads"));
    tg_spec_release(&next);
    tg_free(file);
}

static double number(struct tg_json o, const char *key)
{
    return tg_json_number(tg_json_key(o, key));
}

/* What engines other than ours read of config.json */
static void test_config(void **state)
{
    const char *const edits[] = {"head_dim", "22", NULL};
    char *text = tg_bench_config(dense, edits), *dir = tg_scratch_dir("config");
    struct tg_model *m = tg_bench_hybrid(text, linear, "1,3", 2);
    char *file = tg_path_join(dir, "config.json");
    struct tg_json_doc *doc;
    struct tg_err err = {0};
    struct written w;
    double sum = 0;
    (void)state;
    begin(&w, m);
    tg_test_must(tg_export_write(&w.x, dir, 0, NULL, &err), &err);
    tg_export_end(&w.x);
    tg_test_must(tg_json_load(&doc, file, 0, &err), &err);
    const struct tg_json c = tg_json_root(doc), rope = tg_json_key(c, "rope_parameters");
    assert_true(number(c, "full_attention_interval") == 2 && number(c, "head_dim") == 22);
    assert_true(number(c, "partial_rotary_factor") == 1);
    assert_true(number(rope, "partial_rotary_factor") == 1);
    assert_true(number(c, "rope_theta") == 10000 && number(rope, "rope_theta") == 10000);
    assert_true(tg_json_bool(tg_json_key(rope, "mrope_interleaved")));
    assert_true(tg_json_bool(tg_json_key(c, "attn_output_gate")));
    assert_false(tg_json_has(tg_json_key(c, "num_experts")));
    for (struct tg_json s = tg_json_first(tg_json_key(rope, "mrope_section")); s.node;
         s = tg_json_next(s))
        sum += tg_json_number(s);
    assert_true(sum == 11);
    tg_json_free(doc);
    tg_model_free(m);
    tg_free(file);
    tg_free(dir);
    tg_free(text);
}

/* The share of a head, cut to a whole as readers do, is rotary_dim. Interleaved sections: pair s
 * belongs to dimension s % 3 while s < 3 sections[s % 3], and must belong to one. */
static void test_rotary_numbers(void **state)
{
    (void)state;
    for (size_t K = 2; K <= 512; K++)
        for (size_t r = 2; r <= K; r += 2) {
            const struct tg_layer_spec l = {.head_dim = K, .rotary_dim = r};
            const double share = tg_qwen3_5_rotary_share(&l);
            assert_true((size_t)((double)K * share) == r && share <= 1);
        }
    for (size_t n = 1; n <= 256; n++) {
        int64_t sections[3];
        tg_qwen3_5_sections(n, sections);
        assert_true((size_t)(sections[0] + sections[1] + sections[2]) == n);
        for (size_t s = 0; s < n; s++)
            assert_true((int64_t)s < 3 * sections[s % 3]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_strange_norms),
        cmocka_unit_test(test_nothing_needless),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_qk_norms),
        cmocka_unit_test(test_qk_norms_in_part),
        cmocka_unit_test(test_rounded_norms),
        cmocka_unit_test(test_teachers),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_refused_models),
        cmocka_unit_test(test_refused_softmax),
        cmocka_unit_test(test_refused_linear),
        cmocka_unit_test(test_refused_experts),
        cmocka_unit_test(test_reasons_once),
        cmocka_unit_test(test_pitfalls),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_no_plan),
        cmocka_unit_test(test_rotary_numbers),
        cmocka_unit_test_teardown(test_config, tg_scratch_remove),
    };

    if (!tg_scratch_make("export_qwen3_5"))
        return 1;
    return tg_run_tests("export_qwen3_5", tests, sizeof tests / sizeof *tests);
}
