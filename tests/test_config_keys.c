/* What single keys of a config come to: native configs field by field, ropes, and each family's own
 * keys as version 4 of transformers wrote them. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "convert/checkpoint.h"
#include "tests/specs.h"

/* A layer in which every field has a value of its own */
static struct tg_layer_spec full_layer(void)
{
    return (struct tg_layer_spec){
        .mixer = tg_mixer_schema_find("softmax"),
        .heads = 6,
        .kv_heads = 3,
        .head_dim = 8,
        .value_dim = 5,
        .rotary_dim = 4,
        .rope = 1,
        .sinks = 2,
        .feature_dim = 7,
        .feature_map = TG_MAP_ELU1,
        .gated = true,
        .qkv_bias = true,
        .o_bias = true,
        .qk_norm = TG_QK_WIDE,
        .qk_norm_bias = true,
        .attn_scale = 0.3,
        .attn_softcap = 50,
        .qkv_clip = 8,
        .output_gate = true,
        .recurrent = {.v_heads = 1,
                      .v_dim = 2,
                      3,
                      4,
                      5,
                      6,
                      7,
                      8,
                      9,
                      10,
                      .no_bound = true,
                      .conv_bias = true,
                      .proj_bias = true,
                      .out_bias = true,
                      .norm = true,
                      .norm_before_gate = true,
                      .negative_eigenvalues = true,
                      .dt_min = 0.001,
                      .dt_max = 0.1,
                      .norm_eps = 1e-3,
                      .scales = {1, 2, 3, 4, 5, 6, 7, 0.5},
                      .in_scale = 1.5,
                      .out_scale = -2,
                      .beside_scale = 0.7},
        .residual = TG_RESIDUAL_NORMED,
        .mixer_scale = 1.1,
        .mlp_scale = 1.2,
        .mixer_skip = 1.3,
        .mlp_skip = 1.4,
        .mlp_kind = TG_MLP_PLAIN,
        .mlp_dim = 9,
        .activation = TG_ACT_RELU2,
        .mlp_bias = true,
        .gate_scale = 1.5,
        .down_scale = 1.6,
    };
}

static const struct tg_rope ropes[] = {
    {.kind = TG_ROPE_DEFAULT, .theta = 1e4},
    {.kind = TG_ROPE_LLAMA3,
     .theta = 1e5,
     .factor = 8,
     .low_freq_factor = 1,
     .high_freq_factor = 4,
     .original_max_positions = 64},
    {.kind = TG_ROPE_LINEAR, .theta = 2e4, .factor = 2.5},
    {.kind = TG_ROPE_DYNAMIC, .theta = 3e4, .factor = 3, .original_max_positions = 128},
    {.kind = TG_ROPE_YARN,
     .theta = 4e4,
     .factor = 4,
     .original_max_positions = 256,
     .beta_fast = 30,
     .beta_slow = 2,
     .attention_factor = 1.25},
    {.kind = TG_ROPE_YARN,
     .theta = 4e4,
     .factor = 4,
     .original_max_positions = 256,
     .beta_fast = 32,
     .beta_slow = 1,
     .truncate = true,
     .attention_factor = 1.25},
    {.kind = TG_ROPE_LONGROPE,
     .theta = 5e4,
     .factor = 6,
     .original_max_positions = 512,
     .attention_factor = 1.5,
     .factor_count = 2,
     .short_factor = {1, 1.5},
     .long_factor = {2, 3.25}},
};

/* Each field of the spec survives, and each kind of rope. */
static void test_native_fields(void **state)
{
    struct tg_layer_spec layers[] = {full_layer(), full_layer(), full_layer()};
    struct tg_model_spec spec = {.base_family = "x",
                                 .vocab = 11,
                                 .width = 20,
                                 .norm = {TG_NORM_LAYER, 1e-4, .plus_one = true, .bias = true},
                                 .tied_head = true,
                                 .head_bias = true,
                                 .embed_scale = 3,
                                 .logit_scale = 0.25,
                                 .logit_softcap = 30,
                                 .embed_dim = 10,
                                 .learned_positions = 40,
                                 .position_offset = 2,
                                 .max_positions = 38,
                                 .bos_id = 3,
                                 .eos_ids = {4, 5},
                                 .eos_count = 2,
                                 .layer_count = 3,
                                 .layers = layers};
    (void)state;
    layers[1].mlp_kind = TG_MLP_GATED;
    layers[1].mlp_dim = 0;
    layers[1].moe = (struct tg_moe_spec){
        8, 2, 5, TG_ROUTER_SIGMOID, true, true, true, true, 2.5, 4, 2, 6, true};
    layers[2].mixer = tg_mixer_schema_find("mla");
    layers[2].sinks = 0;
    layers[2].kv_heads = 6;
    layers[2].q_rank = 12;
    layers[2].kv_rank = 10;
    layers[2].latent_eps = 1e-6;
    layers[2].activation = TG_ACT_GELU_TANH;
    for (size_t i = 0; i < sizeof ropes / sizeof *ropes; i++) {
        spec.ropes[0] = ropes[(i + 1) % (sizeof ropes / sizeof *ropes)];
        spec.ropes[1] = ropes[i];
        tg_check_native(&spec, "all fields");
    }
    spec.norm = (struct tg_norm_spec){TG_NORM_RMS, 1e-4, .bare = true};
    spec.no_norm_out = true;
    for (size_t i = 0; i < 3; i++)
        layers[i].rotary_dim = 0;
    spec.ropes[0] = spec.ropes[1] = (struct tg_rope){0};
    layers[2].residual = TG_RESIDUAL_AFTER;
    tg_check_native(&spec, "no rotary");
}

/* Format 1: qk_norm was a truth value, newer keys are not there. */
static void test_native_format_1(void **state)
{
    static const char text[] =
        "{\"model_type\":\"tegu\",\"base_family\":\"qwen3\",\"vocab_size\":96,\"hidden_size\":32,"
        "\"num_hidden_layers\":1,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-6,"
        "\"tie_word_embeddings\":true,\"rope_parameters\":{\"rope_type\":\"default\","
        "\"rope_theta\":10000},\"bos_token_id\":null,\"eos_token_id\":[0],\"layers\":[{\"mixer\":"
        "\"window\",\"heads\":4,\"kv_heads\":2,\"head_dim\":8,\"rotary_dim\":8,\"window\":16,"
        "\"sinks\":0,\"feature_map\":\"relu\",\"feature_dim\":0,\"gated\":false,\"qkv_bias\":false,"
        "\"o_bias\":true,\"qk_norm\":true,\"attn_scale\":0.5,\"mlp_dim\":48,\"hidden_act\":"
        "\"silu\",\"mlp_bias\":false}],\"tegu\":{\"format\":1}}";
    struct tg_model_spec spec;

    (void)state;
    tg_must_parse(text, &spec);
    assert_int_equal(spec.layers[0].qk_norm, TG_QK_HEAD);
    assert_true(spec.layers[0].o_bias && !spec.layers[0].qkv_bias);
    assert_int_equal(spec.layers[0].window, 16);
    assert_int_equal(spec.layers[0].residual, TG_RESIDUAL_PRE);
    assert_int_equal(spec.layers[0].activation, TG_ACT_SILU);
    tg_check_native(&spec, "format 1");
    tg_spec_release(&spec);
}

static void test_activations(void **state)
{
    static const struct {
        const char *name;
        enum tg_activation act;
    } rows[] = {
        {"\"silu\"", TG_ACT_SILU},
        {"\"swish\"", TG_ACT_SILU},
        {"\"gelu\"", TG_ACT_GELU},
        {"\"gelu_python\"", TG_ACT_GELU},
        {"\"gelu_new\"", TG_ACT_GELU_TANH},
        {"\"gelu_fast\"", TG_ACT_GELU_TANH},
        {"\"gelu_accurate\"", TG_ACT_GELU_TANH},
        {"\"gelu_pytorch_tanh\"", TG_ACT_GELU_TANH},
        {"\"gelu_python_tanh\"", TG_ACT_GELU_TANH},
        {"\"relu\"", TG_ACT_RELU},
        {"\"relu2\"", TG_ACT_RELU2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model_spec spec = tg_spec_with("llama", "hidden_act", rows[i].name);
        assert_int_equal(spec.layers[2].activation, rows[i].act);
        tg_spec_release(&spec);
    }
}

/* Rope objects in the llama config: what comes of them */
static void test_ropes(void **state)
{
    static const struct {
        const char *key, *value;
        enum tg_rope_kind kind;
        double theta, factor, original, attention;
    } rows[] = {
        {"rope_scaling", "null", TG_ROPE_DEFAULT, 5e5, 0, 0, 0},
        {"rope_scaling", "{}", TG_ROPE_DEFAULT, 5e5, 0, 0, 0},
        {"rope_scaling", "{\"type\":\"linear\",\"factor\":2}", TG_ROPE_LINEAR, 5e5, 2, 0, 0},
        {"rope_parameters", "{\"rope_type\":\"linear\",\"factor\":2,\"rope_theta\":7e3}",
         TG_ROPE_LINEAR, 7e3, 2, 0, 0},
        {"rope_scaling",
         "{\"rope_type\":\"dynamic\",\"factor\":3,\"original_max_position_embeddings\":9}",
         TG_ROPE_DYNAMIC, 5e5, 3, 256, 0},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4}", TG_ROPE_YARN, 5e5, 4, 256,
         1.1386294361119891},
        {"rope_scaling", "{\"type\":\"yarn\",\"original_max_position_embeddings\":64}",
         TG_ROPE_YARN, 5e5, 4, 64, 1.1386294361119891},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":1}", TG_ROPE_YARN, 5e5, 1, 256, 1},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"attention_factor\":0.7}", TG_ROPE_YARN,
         5e5, 4, 256, 0.7},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":1}",
         TG_ROPE_YARN, 5e5, 4, 256, 1},
        {"rope_scaling", "{\"type\":\"yarn\",\"factor\":4,\"mscale\":2,\"mscale_all_dim\":1}",
         TG_ROPE_YARN, 5e5, 4, 256, 1.2772588722239782 / 1.1386294361119891},
        {"rope_scaling",
         "{\"type\":\"su\",\"original_max_position_embeddings\":64,\"short_factor\":[1,1,1,1],"
         "\"long_factor\":[1,2,3,4]}",
         TG_ROPE_LONGROPE, 5e5, 4, 64, 1.1547005383792515}, /* (1 + ln 4 / ln 64)^1/2 */
        {"rope_scaling",
         "{\"type\":\"longrope\",\"factor\":8,\"original_max_position_embeddings\":64,"
         "\"short_factor\":[1,1,1,1],\"long_factor\":[1,2,3,4],\"attention_factor\":1.5}",
         TG_ROPE_LONGROPE, 5e5, 8, 64, 1.5},
        {"rope_scaling", /* Phi-3's other name for it */
         "{\"type\":\"yarn\",\"original_max_position_embeddings\":256,\"short_factor\":[1,1,1,1],"
         "\"long_factor\":[1,2,3,4]}",
         TG_ROPE_LONGROPE, 5e5, 1, 256, 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model_spec spec = tg_spec_with("llama", rows[i].key, rows[i].value);
        const struct tg_rope *r = &spec.ropes[0];
        assert_int_equal(r->kind, rows[i].kind);
        assert_true(r->theta == rows[i].theta && r->factor == rows[i].factor);
        assert_true(r->original_max_positions == rows[i].original);
        if (!(fabs(r->attention_factor - rows[i].attention) < 1e-15))
            fail_msg("%s: attention_factor %.17g", rows[i].value, r->attention_factor);
        if (r->kind == TG_ROPE_YARN)
            assert_true(r->beta_fast == 32 && r->beta_slow == 1 && r->truncate);
        if (r->kind == TG_ROPE_LONGROPE)
            assert_true(r->factor_count == 4 && r->short_factor[3] == 1 && r->long_factor[3] == 4);
        assert_true(spec.ropes[1].theta == 0);
        tg_spec_release(&spec);
    }
}

/* The llama config's keys with others before them; the last of equal keys would be an error. */
static struct tg_model_spec with_keys(const char *family, const char *keys)
{
    struct tg_json_doc *doc;
    struct tg_model_spec spec;
    char *text = tg_config_with(family, NULL, NULL);

    assert_int_equal(tg_json_parse(&doc, keys, strlen(keys), "keys", TG_JSON_INFINITY, NULL),
                     TG_OK);
    for (struct tg_json c = tg_json_first(tg_json_root(doc)); c.node; c = tg_json_next(c)) {
        char value[512], *next;
        tg_json_text(c, value, sizeof value);
        next = tg_json_with(text, tg_json_name(c), value);
        tg_free(text);
        text = next;
    }
    tg_must_parse(text, &spec);
    tg_json_free(doc);
    tg_free(text);
    return spec;
}

/* What a family's keys of version 4 do to the second of three layers (and the first and last where
 * layers differ) */
static void test_gemma_configs(void **state)
{
    struct tg_model_spec s =
        with_keys("gemma2", "{\"head_dim\":16,\"final_logit_softcapping\":null}");
    const struct tg_layer_spec *l = s.layers;

    (void)state;
    assert_true(s.embed_scale == sqrt(32) && s.norm.plus_one && s.logit_softcap == 0);
    assert_true(l[1].attn_softcap == 50 && l[1].attn_scale == 1.0 / 16);
    assert_int_equal(l[1].residual, TG_RESIDUAL_SANDWICH);
    assert_int_equal(l[1].activation, TG_ACT_GELU_TANH);
    assert_true(l[0].window == 4096 && l[1].window == 0 && l[2].window == 4096);
    tg_spec_release(&s);

    s = with_keys("gemma3_text",
                  "{\"head_dim\":16,\"sliding_window_pattern\":2,\"sliding_window\":9,"
                  "\"rope_scaling\":{\"factor\":8,\"rope_type\":\"linear\"},"
                  "\"rope_theta\":1e6}");
    l = s.layers;
    assert_true(l[0].window == 9 && l[1].window == 0 && l[2].window == 9);
    assert_true(l[0].rope == 1 && l[1].rope == 0 && l[2].rope == 1);
    assert_true(s.ropes[0].theta == 1e6 && s.ropes[0].kind == TG_ROPE_LINEAR);
    assert_true(s.ropes[1].theta == 1e4 && s.ropes[1].kind == TG_ROPE_DEFAULT);
    assert_true(l[0].qk_norm == TG_QK_HEAD && l[0].attn_softcap == 0 && s.logit_softcap == 0);
    tg_spec_release(&s);

    s = with_keys("gemma", "{\"head_dim\":16,\"hidden_act\":\"gelu\",\"hidden_activation\":"
                           "\"gelu_pytorch_tanh\"}");
    assert_int_equal(s.layers[0].activation, TG_ACT_GELU_TANH);
    tg_spec_release(&s);
}

static void test_window_configs(void **state)
{
    struct tg_model_spec s =
        with_keys("exaone4", "{\"sliding_window\":9,\"sliding_window_pattern\":2}");
    const struct tg_layer_spec *l = s.layers;

    (void)state;
    assert_true(l[0].window == 9 && l[1].window == 0 && l[2].window == 9);
    assert_true(l[0].rotary_dim == 8 && l[1].rotary_dim == 0);
    tg_spec_release(&s);
    s = with_keys("exaone4", "{\"sliding_window\":null}");
    assert_true(s.layers[0].window == 0 && s.layers[2].rotary_dim == 8);
    tg_spec_release(&s);
    s = with_keys("exaone4", "{\"sliding_window_pattern\":\"LLG\"}");
    assert_true(s.layers[1].window == 4096 && s.layers[2].window == 0);
    tg_spec_release(&s);

    s = with_keys("smollm3", "{\"no_rope_layer_interval\":2,\"use_sliding_window\":true,"
                             "\"sliding_window\":5}");
    l = s.layers;
    assert_true(l[0].rotary_dim == 8 && l[1].rotary_dim == 0 && l[2].rotary_dim == 8);
    assert_true(l[0].window == 0 && l[1].window == 5);
    tg_spec_release(&s);

    s = with_keys("olmo3", "{\"sliding_window\":7,\"rope_scaling\":{\"rope_type\":\"yarn\","
                           "\"factor\":2},\"layer_types\":[\"sliding_attention\","
                           "\"full_attention\",\"sliding_attention\"]}");
    l = s.layers;
    assert_true(l[0].window == 7 && l[1].window == 0 && l[0].rope == 1 && l[1].rope == 0);
    assert_true(s.ropes[0].kind == TG_ROPE_YARN && s.ropes[1].kind == TG_ROPE_DEFAULT);
    assert_true(s.ropes[1].theta == 5e5 && l[1].qk_norm == TG_QK_WIDE);
    tg_spec_release(&s);
    for (int i = 0; i < 3; i++) {
        static const char *const families[] = {"mixtral", "phi3", "starcoder2"};
        s = with_keys(families[i], "{\"sliding_window\":6}");
        assert_true(s.layers[0].window == 6 && s.layers[2].window == 6);
        tg_spec_release(&s);
        s = with_keys(families[i], "{}");
        assert_true(s.layers[0].window == 0);
        tg_spec_release(&s);
    }
}

static void test_block_configs(void **state)
{
    struct tg_model_spec s = with_keys("stablelm", "{\"num_key_value_heads\":4}");

    (void)state;
    assert_true(s.layers[0].rotary_dim == 2 && s.layers[0].residual == TG_RESIDUAL_PRE);
    tg_spec_release(&s);
    s = with_keys("stablelm", "{\"use_parallel_residual\":true,\"qk_layernorm\":true,"
                              "\"use_qkv_bias\":true,\"partial_rotary_factor\":0.5}");
    assert_true(s.layers[0].residual == TG_RESIDUAL_SHARED && s.layers[0].qk_norm == TG_QK_EACH);
    assert_true(s.layers[0].qkv_bias && !s.layers[0].o_bias && s.layers[0].rotary_dim == 4);
    assert_true(s.norm.kind == TG_NORM_LAYER && s.norm.bias && s.norm.eps == 1e-5);
    tg_spec_release(&s);

    s = with_keys("gpt_neox", "{\"rotary_pct\":0.5,\"rotary_emb_base\":2e4,\"hidden_act\":"
                              "\"gelu_fast\",\"use_parallel_residual\":false}");
    assert_true(s.layers[0].rotary_dim == 4 && s.ropes[0].theta == 2e4);
    assert_true(s.layers[0].residual == TG_RESIDUAL_PRE && s.layers[0].kv_heads == 4);
    assert_int_equal(s.layers[0].activation, TG_ACT_GELU_TANH);
    tg_spec_release(&s);

    s = with_keys("falcon", "{\"new_decoder_architecture\":true,\"num_kv_heads\":2,\"bias\":true}");
    assert_true(s.layers[0].kv_heads == 2 && s.layers[0].residual == TG_RESIDUAL_PARALLEL);
    assert_true(s.layers[0].mlp_dim == 128 && s.layers[0].qkv_bias && s.layers[0].mlp_bias);
    tg_spec_release(&s);
    s = with_keys("falcon", "{\"new_decoder_architecture\":true,\"num_kv_heads\":2,"
                            "\"num_ln_in_parallel_attn\":1}");
    assert_int_equal(s.layers[0].residual, TG_RESIDUAL_SHARED);
    tg_spec_release(&s);
    s = with_keys("falcon", "{\"multi_query\":false,\"parallel_attn\":false}");
    assert_true(s.layers[0].kv_heads == 4 && s.layers[0].residual == TG_RESIDUAL_PRE);
    tg_spec_release(&s);

    s = with_keys("opt", "{\"ffn_dim\":48,\"do_layer_norm_before\":false,"
                         "\"word_embed_proj_dim\":16}");
    assert_true(s.layers[0].residual == TG_RESIDUAL_AFTER && s.no_norm_out && s.embed_dim == 16);
    assert_true(s.learned_positions == 258 && s.position_offset == 2);
    assert_true(s.layers[0].rotary_dim == 0 && s.layers[0].activation == TG_ACT_RELU);
    tg_spec_release(&s);

    s = with_keys("granite", "{\"residual_multiplier\":0.25,\"attention_multiplier\":0.125,"
                             "\"embedding_multiplier\":12,\"logits_scaling\":8}");
    assert_true(s.layers[0].mixer_scale == 0.25 && s.layers[0].mlp_scale == 0.25);
    assert_true(s.layers[0].attn_scale == 0.125 && s.embed_scale == 12 && s.logit_scale == 0.125);
    tg_spec_release(&s);

    s = with_keys("gpt2", "{\"n_embd\":32,\"n_layer\":3,\"n_head\":4,\"n_inner\":null,"
                          "\"scale_attn_by_inverse_layer_idx\":true}");
    assert_true(s.layers[2].attn_scale == 1 / sqrt(8) / 3 && s.layers[0].mlp_dim == 128);
    assert_true(s.learned_positions == 1024 && s.tied_head && s.layers[0].rotary_dim == 0);
    tg_spec_release(&s);

    s = with_keys("nemotron", "{}");
    assert_true(s.norm.plus_one && s.norm.bias && s.layers[0].activation == TG_ACT_SILU);
    assert_true(s.layers[0].rotary_dim == 4 && s.layers[0].mlp_kind == TG_MLP_PLAIN);
    tg_spec_release(&s);
    s = with_keys("olmo", "{\"clip_qkv\":8}");
    assert_true(s.norm.bare && s.norm.kind == TG_NORM_LAYER && s.layers[0].qkv_clip == 8);
    tg_spec_release(&s);
    s = with_keys("cohere", "{\"use_qk_norm\":true,\"logit_scale\":0.5}");
    assert_true(s.layers[0].qk_norm == TG_QK_EACH && s.logit_scale == 0.5 && !s.norm.bias);
    tg_spec_release(&s);
}

static void test_expert_configs(void **state)
{
    struct tg_model_spec s = with_keys(
        "deepseek_v3",
        "{\"first_k_dense_replace\":2,\"n_group\":4,\"topk_group\":2,\"n_routed_experts\":16,"
        "\"num_experts_per_tok\":3,\"n_shared_experts\":2,\"moe_intermediate_size\":10,"
        "\"q_lora_rank\":null,\"kv_lora_rank\":12,\"qk_nope_head_dim\":6,\"qk_rope_head_dim\":4,"
        "\"v_head_dim\":5,\"num_key_value_heads\":4,\"rope_scaling\":{\"type\":\"yarn\","
        "\"factor\":40,\"mscale\":1.0,\"mscale_all_dim\":1.0}}");
    const struct tg_layer_spec *l = s.layers;
    const double m = 0.1 * log(40) + 1;

    (void)state;
    assert_true(l[1].mlp_dim == 48 && !l[1].moe.experts && l[2].mlp_dim == 0);
    assert_true(l[2].moe.experts == 16 && l[2].moe.per_token == 3 && l[2].moe.mlp_dim == 10);
    assert_true(l[2].moe.groups == 4 && l[2].moe.groups_kept == 2 && l[2].moe.shared_dim == 20);
    assert_true(l[2].moe.router == TG_ROUTER_SIGMOID && l[2].moe.correction);
    assert_true(l[2].moe.scale == 2.5 && l[2].moe.renormalise);
    assert_string_equal(l[0].mixer->name, "mla");
    assert_true(l[0].head_dim == 10 && l[0].rotary_dim == 4 && l[0].value_dim == 5);
    assert_true(l[0].q_rank == 0 && l[0].kv_rank == 12 && l[0].latent_eps == 1e-6);
    assert_below(fabs(l[0].attn_scale - m * m / sqrt(10)), 1e-15, "attn_scale");
    assert_true(s.ropes[0].attention_factor == 1);
    tg_spec_release(&s);

    s = with_keys("qwen3_moe", "{\"num_experts\":6,\"num_experts_per_tok\":2,\"head_dim\":8,"
                               "\"num_key_value_heads\":2,\"mlp_only_layers\":[0],"
                               "\"norm_topk_prob\":true}");
    l = s.layers;
    assert_true(!l[0].moe.experts && l[0].mlp_dim == 48 && l[1].moe.experts == 6);
    assert_true(l[1].moe.mlp_dim == 768 && l[1].moe.renormalise && l[1].qk_norm == TG_QK_HEAD);
    assert_int_equal(l[1].moe.router, TG_ROUTER_SOFTMAX_TOP);
    tg_spec_release(&s);
    s = with_keys("qwen3_moe", "{\"decoder_sparse_step\":2,\"num_key_value_heads\":2}");
    assert_true(!s.layers[0].moe.experts && s.layers[1].moe.experts == 128 &&
                !s.layers[2].moe.experts);
    tg_spec_release(&s);

    s = with_keys("gpt_oss", "{\"num_local_experts\":6,\"num_key_value_heads\":2,\"rope_scaling\":{"
                             "\"rope_type\":\"yarn\",\"factor\":32.0,\"truncate\":false,"
                             "\"original_max_position_embeddings\":4096}}");
    l = s.layers;
    assert_true(l[0].window == 128 && l[1].window == 0 && l[0].sinks == 1 && l[1].sinks == 1);
    assert_true(l[0].activation == TG_ACT_CLAMPED_GLU && l[0].moe.mlp_dim == 48);
    assert_true(l[0].moe.router == TG_ROUTER_TOP_SOFTMAX && l[0].moe.router_bias);
    assert_true(l[0].moe.expert_bias && l[0].qkv_bias && l[0].o_bias && l[0].head_dim == 64);
    assert_true(!s.ropes[0].truncate && s.ropes[0].original_max_positions == 4096);
    tg_spec_release(&s);

    s = with_keys("mixtral", "{\"num_key_value_heads\":2}");
    assert_true(s.layers[0].moe.experts == 8 && s.layers[0].moe.per_token == 2 &&
                s.layers[0].moe.mlp_dim == 48 && s.layers[0].moe.renormalise);
    tg_spec_release(&s);
}

/* A text_config may leave out what its class has anyway; the wrapper says whether the head is tied.
 */
static void test_wrapper_configs(void **state)
{
    static const char gemma3[] =
        "{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"gemma3_text\",\"hidden_"
        "size\":"
        "2560,\"intermediate_size\":10240,\"num_hidden_layers\":7,\"rope_scaling\":{\"factor\":8.0,"
        "\"rope_type\":\"linear\"},\"sliding_window\":1024},\"vision_config\":{}}";
    static const char llava[] =
        "{\"model_type\":\"llava\",\"tie_word_embeddings\":true,\"text_config\":{\"model_type\":"
        "\"llama\",\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-05,\"vocab_size\":32064}}";
    struct tg_model_spec s;

    (void)state;
    tg_must_parse(gemma3, &s);
    assert_true(s.vocab == 262208 && s.width == 2560 && s.layers[0].heads == 8 && s.tied_head);
    assert_true(s.layers[0].kv_heads == 4 && s.layers[0].head_dim == 256);
    assert_true(s.layers[4].window == 1024 && s.layers[5].window == 0 &&
                s.layers[6].window == 1024);
    tg_spec_release(&s);
    tg_must_parse(llava, &s);
    assert_true(s.width == 4096 && s.layer_count == 32 && s.tied_head && s.vocab == 32064);
    tg_spec_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_native_fields),   cmocka_unit_test(test_native_format_1),
        cmocka_unit_test(test_activations),     cmocka_unit_test(test_ropes),
        cmocka_unit_test(test_gemma_configs),   cmocka_unit_test(test_window_configs),
        cmocka_unit_test(test_block_configs),   cmocka_unit_test(test_expert_configs),
        cmocka_unit_test(test_wrapper_configs),
    };
    return tg_run_tests("config keys", tests, sizeof tests / sizeof *tests);
}
