/* Configs of every family in both spellings of transformers, absent keys, bad values. */
#include "tests/check.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/checkpoint.h"
#include "convert/native.h"
#include "tests/specs.h"

static const struct bad {
    const char *family, *key, *value; /* value NULL: the key is removed */
    int code;
    const char *fragment;
} bad_configs[] = {
    {"llama", "model_type", NULL, TG_ERR_VALUE, "model_type: is missing"},
    {"llama", "model_type", "7", TG_ERR_VALUE, "model_type: is a number, expected a string"},
    {"gpt_bigcode", NULL, NULL, TG_ERR_UNSUPPORTED, "\"gpt_bigcode\" is not a family"},
    {"llama", "vocab_size", NULL, TG_ERR_VALUE, "vocab_size: is missing"},
    {"llama", "vocab_size", "null", TG_ERR_VALUE, "vocab_size: is null"},
    {"llama", "vocab_size", "0", TG_ERR_VALUE, "vocab_size: 0 is not in [1, 16777216]"},
    {"llama", "vocab_size", "-96", TG_ERR_VALUE, "vocab_size: -96 is not in"},
    {"llama", "vocab_size", "1e300", TG_ERR_VALUE, "vocab_size: 1.0000000000000001e+300"},
    {"llama", "vocab_size", "NaN", TG_ERR_VALUE, "vocab_size: nan"},
    {"llama", "vocab_size", "Infinity", TG_ERR_VALUE, "vocab_size: inf"},
    {"llama", "vocab_size", "\"96\"", TG_ERR_VALUE, "vocab_size: is a string"},
    {"llama", "vocab_size", "96.5", TG_ERR_VALUE, "vocab_size: 96.5 is not an integer"},
    {"llama", "hidden_size", NULL, TG_ERR_VALUE, "hidden_size: is missing"},
    {"llama", "hidden_size", "1099511627776", TG_ERR_VALUE, "hidden_size: 1099511627776 is not in"},
    {"llama", "hidden_size", "33", TG_ERR_VALUE, "hidden_size: 33 is not a multiple"},
    {"llama", "hidden_size", "[32]", TG_ERR_VALUE, "hidden_size: is an array"},
    {"llama", "intermediate_size", NULL, TG_ERR_VALUE, "intermediate_size: is missing"},
    {"llama", "intermediate_size", "-1", TG_ERR_VALUE, "intermediate_size: -1 is not in"},
    {"llama", "num_hidden_layers", NULL, TG_ERR_VALUE, "num_hidden_layers: is missing"},
    {"llama", "num_hidden_layers", "0", TG_ERR_VALUE, "num_hidden_layers: 0 is not in [1, 4096]"},
    {"llama", "num_hidden_layers", "true", TG_ERR_VALUE, "num_hidden_layers: is true or false"},
    {"llama", "num_attention_heads", NULL, TG_ERR_VALUE, "num_attention_heads: is missing"},
    {"llama", "num_attention_heads", "0", TG_ERR_VALUE, "num_attention_heads: 0 is not in"},
    {"llama", "num_key_value_heads", "3", TG_ERR_VALUE, "num_key_value_heads: 3 does not divide"},
    {"llama", "num_key_value_heads", "8", TG_ERR_VALUE, "num_key_value_heads: 8 does not divide"},
    {"llama", "num_key_value_heads", "0", TG_ERR_VALUE, "num_key_value_heads: 0 is not in"},
    {"llama", "head_dim", "7", TG_ERR_VALUE, "head_dim: a head size of 7 cannot be rotated"},
    {"llama", "head_dim", "0", TG_ERR_VALUE, "head_dim: 0 is not in [1, 4096]"},
    {"llama", "head_dim", "65536", TG_ERR_VALUE, "head_dim: 65536 is not in"},
    {"llama", "rms_norm_eps", "0", TG_ERR_VALUE, "rms_norm_eps: 0 is not in"},
    {"llama", "rms_norm_eps", "-1e-6", TG_ERR_VALUE, "rms_norm_eps: -1e-06 is not in"},
    {"llama", "rms_norm_eps", "NaN", TG_ERR_VALUE, "rms_norm_eps: nan is not in"},
    {"llama", "rms_norm_eps", "\"1e-6\"", TG_ERR_VALUE, "rms_norm_eps: is a string"},
    {"llama", "tie_word_embeddings", "1", TG_ERR_VALUE, "tie_word_embeddings: is a number"},
    {"llama", "attention_bias", "\"no\"", TG_ERR_VALUE, "attention_bias: is a string"},
    {"llama", "mlp_bias", "0", TG_ERR_VALUE, "mlp_bias: is a number"},
    {"llama", "max_position_embeddings", "-1", TG_ERR_VALUE, "max_position_embeddings: -1"},
    {"llama", "max_position_embeddings", "0", TG_ERR_VALUE, "max_position_embeddings: 0"},
    {"llama", "hidden_act", "\"quick_gelu\"", TG_ERR_UNSUPPORTED, "activation \"quick_gelu\""},
    {"llama", "hidden_act", "\"gelu_10\"", TG_ERR_UNSUPPORTED, "activation \"gelu_10\""},
    {"llama", "hidden_act", "3", TG_ERR_VALUE, "hidden_act: is a number"},
    {"llama", "rope_theta", "0", TG_ERR_VALUE, "rope_theta: 0 is not in"},
    {"llama", "rope_theta", "-1", TG_ERR_VALUE, "rope_theta: -1 is not in"},
    {"llama", "rope_theta", "1e40", TG_ERR_VALUE, "rope_theta: 1e+40 is not in"},
    {"llama", "rope_scaling", "7", TG_ERR_VALUE, "rope_scaling: must be an object"},
    {"llama", "rope_scaling", "{\"type\":\"proportional\",\"factor\":2}", TG_ERR_UNSUPPORTED,
     "rope_scaling.type: rotary scaling \"proportional\""},
    {"llama", "rope_scaling", "{\"type\":\"linear\"}", TG_ERR_VALUE, "factor: is missing"},
    {"llama", "rope_scaling", "{\"type\":\"linear\",\"factor\":0.5}", TG_ERR_VALUE,
     "factor: 0.5 is not in"},
    {"llama", "rope_scaling", "{\"type\":\"dynamic\"}", TG_ERR_VALUE, "factor: is missing"},
    {"llama", "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":-2}", TG_ERR_VALUE,
     "rope_parameters.factor: -2 is not in"},
    {"llama", "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":2,\"beta_slow\":40}",
     TG_ERR_VALUE, "beta_fast: 32 is below beta_slow, 40"},
    {"llama", "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":1}",
     TG_ERR_VALUE, "truncate: is a number"},
    {"llama", "rope_parameters",
     "{\"rope_type\":\"yarn\",\"original_max_position_embeddings\":512}", TG_ERR_VALUE,
     "rope_parameters.factor: is missing"},
    {"llama", "rope_scaling", "{\"type\":\"longrope\"}", TG_ERR_VALUE, "short_factor: is missing"},
    {"llama", "rope_scaling", "{\"type\":\"su\",\"short_factor\":[1,1,1,1]}", TG_ERR_VALUE,
     "long_factor: is missing"},
    {"llama", "rope_scaling", "{\"type\":\"su\",\"short_factor\":[1,1],\"long_factor\":[1]}",
     TG_ERR_VALUE, "long_factor: has 1 numbers, but short_factor has 2"},
    {"llama", "rope_scaling", "{\"type\":\"su\",\"short_factor\":[1,1],\"long_factor\":[1,1]}",
     TG_ERR_VALUE, "longrope has 2 factors, but 4 pairs"},
    {"llama", "rope_scaling", "{\"type\":\"su\",\"short_factor\":[1,0],\"long_factor\":[1,1]}",
     TG_ERR_VALUE, "short_factor[1]: must be a number"},
    {"llama", "rope_scaling", "{\"type\":\"su\",\"short_factor\":[\"1\"],\"long_factor\":[1]}",
     TG_ERR_VALUE, "short_factor[0]: must be a number"},
    {"llama", "rope_scaling", "{\"type\":\"su\",\"short_factor\":3,\"long_factor\":[1]}",
     TG_ERR_VALUE, "short_factor: must be an array"},
    {"llama", "rope_parameters", "{\"full_attention\":{},\"sliding_attention\":3}", TG_ERR_VALUE,
     "rope_parameters.sliding_attention: must be an object"},
    {"gpt_neox", "rope_parameters",
     "{\"full_attention\":{},\"sliding_attention\":{\"partial_rotary_factor\":0.5}}",
     TG_ERR_UNSUPPORTED, "0.5 differs from the 0.25"},
    {"llama", "rope_parameters", "{\"rope_type\":5}", TG_ERR_VALUE, "rope_type: is a number"},
    {"llama", "rope_parameters", "{\"rope_theta\":-3}", TG_ERR_VALUE, "rope_theta: -3 is not in"},
    {"llama", "rope_parameters", "{\"rope_type\":\"llama3\",\"factor\":8}", TG_ERR_VALUE,
     "low_freq_factor: is missing"},
    {"llama", "rope_parameters",
     "{\"rope_type\":\"llama3\",\"factor\":0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     TG_ERR_VALUE, "factor: 0 is not in"},
    {"llama", "rope_parameters",
     "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
     "\"original_max_position_embeddings\":64}",
     TG_ERR_VALUE, "high_freq_factor: 4 must be larger"},
    {"llama", "partial_rotary_factor", "0.5", TG_ERR_UNSUPPORTED, "partial_rotary_factor: 0.5"},
    {"llama", "bos_token_id", "96", TG_ERR_VALUE, "bos_token_id: a token id must be"},
    {"llama", "eos_token_id", "[1,\"2\"]", TG_ERR_VALUE, "eos_token_id: a token id must be"},
    {"llama", "eos_token_id", "[1,2,3,4,5,6,7,8,9]", TG_ERR_UNSUPPORTED, "more than 8 end tokens"},
    {"llama", "eos_token_id", "1.5", TG_ERR_VALUE, "found 1.5"},
    {"llama", "quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4}", TG_ERR_UNSUPPORTED,
     "quantised with gptq"},
    {"llama", "quantization_config", "{\"quant_method\":\"awq\"}", TG_ERR_UNSUPPORTED,
     "quantised with awq"},
    {"llama", "quantization_config", "{\"load_in_8bit\":true}", TG_ERR_UNSUPPORTED,
     "quantised with bitsandbytes"},
    {"llama", "quantization_config", "{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}",
     TG_ERR_VALUE, "weight_block_size: must be an array of two numbers"},
    {"llama", "quantization_config", "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,0]}",
     TG_ERR_VALUE, "weight_block_size[1]: must be an integer from 1"},
    {"llama", "quantization_config", "{\"quant_method\":\"fp8\"}", TG_ERR_UNSUPPORTED,
     "quantised with fp8"},
    {"llama", "compression_config", "{\"quant_method\":\"compressed-tensors\"}", TG_ERR_UNSUPPORTED,
     "quantised with compressed-tensors"},
    {"llama", "text_config", "[]", TG_ERR_VALUE, "text_config: must be an object"},
    {"llama", "text_config", "{}", TG_ERR_VALUE, "text_config.model_type: is missing"},
    {"mistral", "sliding_window", "0", TG_ERR_VALUE, "sliding_window: 0 is not in"},
    {"mistral", "sliding_window", "-4", TG_ERR_VALUE, "sliding_window: -4 is not in"},
    {"qwen2", "use_sliding_window", "1", TG_ERR_VALUE, "use_sliding_window: is a number"},
    {"qwen2", "layer_types", "[\"full_attention\"]", TG_ERR_VALUE, "layer_types: must be an array"},
    {"qwen2", "layer_types", "[\"full_attention\",\"full_attention\",\"linear_attention\"]",
     TG_ERR_UNSUPPORTED, "layer_types[2]: layer type \"linear_attention\""},
    {"qwen3", "layer_types", "[\"full_attention\",\"sliding_attention\",\"full_attention\"]",
     TG_ERR_VALUE, "layer_types[1]: sliding_attention, but"},
    {"qwen3", "max_window_layers", "-1", TG_ERR_VALUE, "max_window_layers: -1 is not in"},
    {"ministral", "sliding_window", "0", TG_ERR_VALUE, "sliding_window: 0 is not in"},
    {"qwen3_moe", "num_experts", "0", TG_ERR_VALUE, "num_experts: 0 is not in [1, 4096]"},
    {"qwen3_moe", "num_experts", "4", TG_ERR_VALUE, "experts per token is 8, must be 1 to 4"},
    {"qwen3_moe", "num_experts_per_tok", "\"2\"", TG_ERR_VALUE, "num_experts_per_tok: is a string"},
    {"qwen3_moe", "moe_intermediate_size", "-1", TG_ERR_VALUE, "moe_intermediate_size: -1"},
    {"qwen3_moe", "decoder_sparse_step", "0", TG_ERR_VALUE, "decoder_sparse_step: 0 is not in"},
    {"qwen3_moe", "mlp_only_layers", "1", TG_ERR_VALUE, "mlp_only_layers: must be an array"},
    {"mixtral", "num_local_experts", "1", TG_ERR_VALUE, "experts per token is 2, must be 1 to 1"},
    {"gemma", "use_bidirectional_attention", "true", TG_ERR_UNSUPPORTED,
     "use_bidirectional_attention: true is not supported"},
    {"gemma2", "query_pre_attn_scalar", "0", TG_ERR_VALUE, "query_pre_attn_scalar: 0 is not in"},
    {"gemma2", "attn_logit_softcapping", "-5", TG_ERR_VALUE, "attn_logit_softcapping: -5"},
    {"gemma2", "final_logit_softcapping", "0", TG_ERR_VALUE, "final_logit_softcapping: 0 is not"},
    {"gemma2", "sliding_window", "-1", TG_ERR_VALUE, "sliding_window: -1 is not in"},
    {"gemma2", "hidden_activation", "\"mish\"", TG_ERR_UNSUPPORTED,
     "hidden_activation: activation \"mish\""},
    {"gemma3_text", "sliding_window_pattern", "0", TG_ERR_VALUE, "sliding_window_pattern: 0"},
    {"gemma3_text", "rope_local_base_freq", "0.5", TG_ERR_VALUE, "rope_local_base_freq: 0.5"},
    {"olmo", "clip_qkv", "-8", TG_ERR_VALUE, "clip_qkv: -8 is not in"},
    {"olmo3", "layer_types", "[\"full_attention\",\"chunked_attention\",\"full_attention\"]",
     TG_ERR_UNSUPPORTED, "layer_types[1]: layer type \"chunked_attention\""},
    {"gpt2", "n_embd", NULL, TG_ERR_VALUE, "n_embd: is missing"},
    {"gpt2", "add_cross_attention", "true", TG_ERR_UNSUPPORTED, "add_cross_attention: true"},
    {"gpt_neox", "rotary_pct", "1.5", TG_ERR_VALUE, "rotary_pct: 1.5 is not in"},
    {"gpt_neox", "rotary_pct", "0", TG_ERR_VALUE, "rotary_pct: 0 of a head size of 8"},
    {"gpt_neox", "rotary_pct", "0.4", TG_ERR_VALUE, "3 is not even"},
    {"stablelm", "partial_rotary_factor", "true", TG_ERR_VALUE, "partial_rotary_factor: is true"},
    {"phi3", "sliding_window", "1.5", TG_ERR_VALUE, "sliding_window: 1.5"},
    {"starcoder2", "norm_epsilon", "2", TG_ERR_VALUE, "norm_epsilon: 2 is not in"},
    {"cohere", "logit_scale", "0", TG_ERR_VALUE, "logit_scale: 0 is not in"},
    {"granite", "logits_scaling", "0", TG_ERR_VALUE, "logits_scaling: 0 is not in"},
    {"granite", "residual_multiplier", "\"1\"", TG_ERR_VALUE, "residual_multiplier: is a string"},
    {"smollm3", "no_rope_layers", "[1,1]", TG_ERR_VALUE, "no_rope_layers: must be an array of"},
    {"smollm3", "no_rope_layers", "[1,2,1]", TG_ERR_VALUE, "no_rope_layers[1]: must be 0 or 1"},
    {"smollm3", "no_rope_layer_interval", "0", TG_ERR_VALUE, "no_rope_layer_interval: 0"},
    {"gpt_oss", "num_local_experts", "4", TG_ERR_VALUE, "rope_parameters: is missing"},
    {"exaone4", "sliding_window_pattern", "-1", TG_ERR_VALUE, "sliding_window_pattern: -1"},
    {"helium", "attention_bias", "1", TG_ERR_VALUE, "attention_bias: is a number"},
    {"falcon", "alibi", "true", TG_ERR_UNSUPPORTED, "alibi: true is not supported"},
    {"falcon", "num_ln_in_parallel_attn", "2", TG_ERR_UNSUPPORTED, "num_ln_in_parallel_attn: 2"},
    {"falcon", "num_ln_in_parallel_attn", "3", TG_ERR_VALUE, "num_ln_in_parallel_attn: 3"},
    {"opt", "ffn_dim", NULL, TG_ERR_VALUE, "ffn_dim: is missing"},
    {"deepseek_v3", "kv_lora_rank", "0", TG_ERR_VALUE, "kv_lora_rank: 0 is not in"},
    {"deepseek_v3", "qk_rope_head_dim", "3", TG_ERR_VALUE, "qk_rope_head_dim: 3 is not even"},
    {"tegu", NULL, NULL, TG_ERR_VALUE, "tegu: must be an object"},
    {"tegu", "tegu", "{\"format\":3}", TG_ERR_UNSUPPORTED, "tegu.format: 3 was written by a newer"},
    {"tegu", "tegu", "{\"format\":1}", TG_ERR_VALUE, "rope_parameters: is missing"},
};

static void test_bad_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_configs / sizeof *bad_configs; i++) {
        const struct bad *b = &bad_configs[i];
        char *text = tg_config_with(b->family, b->key, b->value);
        struct tg_model_spec spec;
        struct tg_err err = {0};
        const int rc = tg_parse_config(text, &spec, &err);
        if (rc != b->code || !strstr(err.msg, b->fragment) ||
            strncmp(err.msg, "dir/config.json: ", 17) != 0)
            fail_msg("%s\ngave %d: %s\nwanted %d: ...%s...", text, rc, err.msg, b->code,
                     b->fragment);
        tg_free(text);
    }
}

static void test_not_an_object(void **state)
{
    static const char *const texts[] = {"[]", "3", "\"llama\"", "null"};
    struct tg_model_spec spec;
    struct tg_err err;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        err = (struct tg_err){0};
        assert_int_equal(tg_parse_config(texts[i], &spec, &err), TG_ERR_VALUE);
        assert_non_null(strstr(err.msg, "must be a JSON object"));
    }
    assert_int_equal(tg_parse_config("{", &spec, &err), TG_ERR_FORMAT);
}

static void check_windows(const char *family, const char *key, const char *value, const char *key2,
                          const char *value2, size_t w0, size_t w1, size_t w2)
{
    char *one = tg_config_with(family, key, value), *text = tg_json_with(one, key2, value2);
    const size_t want[] = {w0, w1, w2};
    struct tg_model_spec spec;

    tg_must_parse(text, &spec);
    for (size_t i = 0; i < 3; i++) {
        if (spec.layers[i].window != want[i])
            fail_msg("%s: layer %zu has window %zu, not %zu", text, i, spec.layers[i].window,
                     want[i]);
        assert_string_equal(spec.layers[i].mixer->name, want[i] ? "window" : "softmax");
        assert_int_equal(spec.layers[i].sinks, 0);
    }
    tg_spec_release(&spec);
    tg_free(one);
    tg_free(text);
}

static void test_windows(void **state)
{
    const char *const on = "true", *const types = "[\"sliding_attention\",\"full_attention\","
                                                  "\"sliding_attention\"]";

    (void)state;
    check_windows("llama", "sliding_window", "16", "x", NULL, 0, 0, 0);
    check_windows("mistral", "x", NULL, "x", NULL, 4096, 4096, 4096);
    check_windows("mistral", "sliding_window", "null", "x", NULL, 0, 0, 0);
    check_windows("mistral", "sliding_window", "24", "x", NULL, 24, 24, 24);
    for (int q = 2; q <= 3; q++) {
        const char *family = q == 2 ? "qwen2" : "qwen3";
        check_windows(family, "sliding_window", "16", "x", NULL, 0, 0, 0);
        check_windows(family, "use_sliding_window", on, "x", NULL, 0, 0, 0); /* 28 layers first */
        check_windows(family, "use_sliding_window", on, "max_window_layers", "1", 0, 4096, 4096);
        check_windows(family, "use_sliding_window", on, "layer_types", types, 4096, 0, 4096);
    }
}

static void test_defaults(void **state)
{
    static const struct {
        const char *family, *key, *value;
        size_t kv_heads, head_dim;
    } rows[] = {
        {"llama", "num_key_value_heads", NULL, 4, 8},
        {"llama", "num_key_value_heads", "null", 4, 8},
        {"llama", "head_dim", "null", 2, 8},
        {"llama", "head_dim", "10", 2, 10},
        {"mistral", "head_dim", NULL, 2, 8},
        {"qwen2", "head_dim", "10", 2, 10},
        {"qwen3", "x", NULL, 2, 128},
        {"qwen3", "num_key_value_heads", "null", 4, 128},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model_spec spec = tg_spec_with(rows[i].family, rows[i].key, rows[i].value);
        assert_int_equal(spec.layers[0].kv_heads, rows[i].kv_heads);
        assert_int_equal(spec.layers[0].head_dim, rows[i].head_dim);
        assert_int_equal(spec.layers[0].rotary_dim, rows[i].head_dim);
        assert_true(spec.layers[0].attn_scale == 1 / sqrt((double)rows[i].head_dim));
        tg_spec_release(&spec);
    }
    /* kv heads of Mistral are 8 and of Qwen 32 when nothing is said: not divisors of 4 */
    for (int q = 0; q < 3; q++) {
        static const char *const families[] = {"mistral", "qwen2", "qwen3"};
        char *text = tg_config_with(families[q], "num_key_value_heads", NULL);
        struct tg_model_spec spec;
        struct tg_err err = {0};
        assert_int_equal(tg_parse_config(text, &spec, &err), TG_ERR_VALUE);
        assert_non_null(strstr(err.msg, q ? "32 does not divide" : "8 does not divide"));
        tg_free(text);
    }
}

static void test_biases_and_norms(void **state)
{
    static const struct {
        const char *family, *key;
        bool qkv, o, mlp, qk_norm;
    } rows[] = {
        {"llama", "x", false, false, false, false},
        {"llama", "attention_bias", true, true, false, false},
        {"llama", "mlp_bias", false, false, true, false},
        {"mistral", "attention_bias", false, false, false, false},
        {"qwen2", "x", true, false, false, false},
        {"qwen2", "attention_bias", true, false, false, false},
        {"qwen3", "x", false, false, false, true},
        {"qwen3", "attention_bias", true, true, false, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model_spec spec = tg_spec_with(rows[i].family, rows[i].key, "true");
        const struct tg_layer_spec *l = &spec.layers[1];
        assert_int_equal(l->qkv_bias, rows[i].qkv);
        assert_int_equal(l->o_bias, rows[i].o);
        assert_int_equal(l->mlp_bias, rows[i].mlp);
        assert_int_equal(l->qk_norm, rows[i].qk_norm);
        tg_spec_release(&spec);
    }
}

static void test_special_tokens(void **state)
{
    static const struct {
        const char *family, *key, *value;
        int32_t bos;
        size_t eos_count;
        int32_t eos[2];
    } rows[] = {
        {"llama", "x", NULL, 1, 1, {2}},
        {"llama", "bos_token_id", "null", -1, 1, {2}},
        {"llama", "bos_token_id", "7", 7, 1, {2}},
        {"llama", "bos_token_id", "-1", -1, 1, {2}},
        {"llama", "eos_token_id", "[5,6]", 1, 2, {5, 6}},
        {"llama", "eos_token_id", "null", 1, 0, {0}},
        {"qwen2", "eos_token_id", NULL, -1, 0, {0}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_model_spec spec = tg_spec_with(rows[i].family, rows[i].key, rows[i].value);
        assert_int_equal(spec.bos_id, rows[i].bos);
        assert_int_equal(spec.eos_count, rows[i].eos_count);
        for (size_t e = 0; e < rows[i].eos_count; e++)
            assert_int_equal(spec.eos_ids[e], rows[i].eos[e]);
        tg_spec_release(&spec);
    }
}

static void test_nested_text_config(void **state)
{
    struct tg_model_spec plain = tg_spec_with("mistral", "x", NULL), nested;
    char *inner = tg_config_with("mistral", NULL, NULL);
    char *text =
        tg_json_with("{\"model_type\":\"mistral3\",\"vocab_size\":5}", "text_config", inner);

    (void)state;
    tg_must_parse(text, &nested);
    assert_null(tg_spec_difference(&plain, &nested));
    tg_spec_release(&plain);
    tg_spec_release(&nested);
    tg_free(inner);
    tg_free(text);
}

/* A rope object of version 5 without what version 4 wrote beside it */
static void write_rope_as_4(struct tg_json_out *j, struct tg_json rope)
{
    if (!strcmp(tg_json_string(tg_json_key(rope, "rope_type")), "default")) {
        tg_jout_null(j, "rope_scaling");
        return;
    }
    tg_jout_object(j, "rope_scaling");
    for (struct tg_json c = tg_json_first(rope); c.node; c = tg_json_next(c)) {
        const char *name = tg_json_name(c);
        if (strcmp(name, "rope_theta") != 0 && strcmp(name, "partial_rotary_factor") != 0)
            tg_jout_copy(j, !strcmp(name, "rope_type") ? "type" : name, c);
    }
    tg_jout_end_object(j);
}

/* Keys that version 4 had under other names, or not at all (NULL) */
static const char *name_in_4(const char *name, bool types)
{
    static const char *const pairs[][2] = {
        {"dtype", "torch_dtype"},
        {"rope_parameters", NULL},
        {"layer_types", NULL},
        {"partial_rotary_factor", NULL},
        {"num_local_experts", "num_experts"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!strcmp(name, pairs[i][0]))
            return types && !strcmp(name, "layer_types") ? name : pairs[i][1];
    return name;
}

/* Version 4 wrote what kinds of layers a hybrid has. */
static bool kept_in_4(struct tg_json c)
{
    bool hybrid = false;

    for (struct tg_json t = tg_json_first(c); t.node; t = tg_json_next(t))
        hybrid = hybrid || (strcmp(tg_json_string(t), "full_attention") != 0 &&
                            strcmp(tg_json_string(t), "sliding_attention") != 0);
    return hybrid && !strcmp(tg_json_name(c), "layer_types");
}

/* The config of a fixture (transformers 5) as version 4 wrote it, its last releases with
 * layer_types.
 */
static char *spelt_as_4(const char *text, bool types)
{
    struct tg_json_doc *doc;
    struct tg_json_out j;
    struct tg_strbuf to;
    struct tg_json root, rope, local, share;
    bool mixtral, neox;

    assert_int_equal(tg_json_parse(&doc, text, strlen(text), "5", 0, NULL), TG_OK);
    root = tg_json_root(doc);
    rope = tg_json_key(root, "rope_parameters");
    local = tg_json_key(rope, "sliding_attention");
    if (tg_json_has(local))
        rope = tg_json_key(rope, "full_attention");
    share = tg_json_key(rope, "partial_rotary_factor");
    neox = !strcmp(tg_json_string(tg_json_key(root, "model_type")), "gpt_neox");
    mixtral = tg_json_has(tg_json_key(root, "router_jitter_noise")) ||
              !strcmp(tg_json_string(tg_json_key(root, "model_type")), "gpt_oss") ||
              !strcmp(tg_json_string(tg_json_key(root, "model_type")), "granitemoehybrid");
    tg_strbuf_init(&to, 1 << 20);
    tg_jout_init(&j, &to, 1);
    tg_jout_object(&j, NULL);
    for (struct tg_json c = tg_json_first(root); c.node; c = tg_json_next(c)) {
        const bool kept = mixtral && !strcmp(tg_json_name(c), "num_local_experts");
        const char *name =
            kept || kept_in_4(c) ? tg_json_name(c) : name_in_4(tg_json_name(c), types);
        if (name)
            tg_jout_copy(&j, name, c);
    }
    if (tg_json_has(rope)) {
        tg_jout_copy(&j, neox ? "rotary_emb_base" : "rope_theta", tg_json_key(rope, "rope_theta"));
        if (tg_json_has(local))
            tg_jout_copy(&j, "rope_local_base_freq", tg_json_key(local, "rope_theta"));
        if (tg_json_has(share))
            tg_jout_copy(&j, neox ? "rotary_pct" : "partial_rotary_factor", share);
        write_rope_as_4(&j, rope);
    }
    tg_jout_end_object(&j);
    tg_json_free(doc);
    return tg_strbuf_take(&to);
}

static const struct fixture {
    const char *name, *family;
    size_t width, heads, kv_heads, head_dim;
    size_t window[2];
    bool qkv_bias, o_bias, mlp_bias, qk_norm, tied;
    enum tg_rope_kind rope;
} fixtures[] = {
    {"llama", "llama", 32, 4, 2, 8, {0, 0}, 0, 0, 0, 0, 1, TG_ROPE_DEFAULT},
    {"llama__rope3_untied_bias", "llama", 32, 4, 2, 8, {0, 0}, 1, 1, 1, 0, 0, TG_ROPE_LLAMA3},
    {"llama__headdim", "llama", 32, 4, 2, 16, {0, 0}, 0, 0, 0, 0, 1, TG_ROPE_DEFAULT},
    {"mistral", "mistral", 32, 4, 2, 8, {24, 24}, 0, 0, 0, 0, 0, TG_ROPE_DEFAULT},
    {"mistral__headdim", "mistral", 32, 4, 1, 12, {10, 10}, 0, 0, 0, 0, 0, TG_ROPE_DEFAULT},
    {"qwen2", "qwen2", 32, 4, 2, 8, {0, 0}, 1, 0, 0, 0, 0, TG_ROPE_DEFAULT},
    {"qwen2__headdim", "qwen2", 24, 4, 2, 10, {0, 0}, 1, 0, 0, 0, 0, TG_ROPE_DEFAULT},
    {"qwen3", "qwen3", 32, 4, 2, 8, {0, 0}, 0, 0, 0, 1, 1, TG_ROPE_DEFAULT},
    {"qwen3__headdim", "qwen3", 48, 6, 3, 16, {0, 0}, 0, 0, 0, 1, 1, TG_ROPE_DEFAULT},
    {"qwen3__sw", "qwen3", 32, 4, 2, 8, {0, 16}, 0, 0, 0, 1, 0, TG_ROPE_DEFAULT},
};

static void check_fixture(const struct fixture *f, const struct tg_model_spec *s)
{
    assert_string_equal(s->family, f->family);
    assert_string_equal(s->base_family, f->family);
    assert_int_equal(s->vocab, 96);
    assert_int_equal(s->width, f->width);
    assert_int_equal(s->layer_count, 2);
    assert_int_equal(s->max_positions, 256);
    assert_int_equal(s->tied_head, f->tied);
    assert_int_equal(s->ropes[0].kind, f->rope);
    assert_true(s->ropes[0].theta == 10000 && s->norm.eps == 1e-6);
    assert_int_equal(s->bos_id, 0);
    assert_true(s->eos_count == 1 && s->eos_ids[0] == 0);
    if (f->rope == TG_ROPE_LLAMA3)
        assert_true(s->ropes[0].factor == 8 && s->ropes[0].low_freq_factor == 1 &&
                    s->ropes[0].high_freq_factor == 4 && s->ropes[0].original_max_positions == 64);
    for (size_t i = 0; i < 2; i++) {
        const struct tg_layer_spec *l = &s->layers[i];
        assert_int_equal(l->heads, f->heads);
        assert_int_equal(l->kv_heads, f->kv_heads);
        assert_int_equal(l->head_dim, f->head_dim);
        assert_int_equal(l->rotary_dim, f->head_dim);
        assert_int_equal(l->mlp_dim, 48);
        assert_int_equal(l->window, f->window[i]);
        assert_string_equal(l->mixer->name, f->window[i] ? "window" : "softmax");
        assert_int_equal(l->qkv_bias, f->qkv_bias);
        assert_int_equal(l->o_bias, f->o_bias);
        assert_int_equal(l->mlp_bias, f->mlp_bias);
        assert_int_equal(l->qk_norm, f->qk_norm);
    }
}

static void test_fixtures(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        struct tg_model_spec spec;
        struct tg_err err = {0};
        char path[256];

        snprintf(path, sizeof path, "tests/data/families/%s", fixtures[i].name);
        if (tg_config_read(path, &spec, &err))
            fail_msg("%s", err.msg);
        check_fixture(&fixtures[i], &spec);
        tg_spec_release(&spec);
    }
}

/* Every fixture: the older spelling means the same, and a native config carries all of it. */
static void test_spellings(void **state)
{
    DIR *d = opendir("tests/data/families");
    size_t found = 0;

    (void)state;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct tg_model_spec five, four;
        struct tg_err err = {0};
        char path[512], *text, *older;
        size_t len;

        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "tests/data/families/%s/config.json", e->d_name);
        if (tg_file_read(path, 1 << 20, &text, &len, &err))
            fail_msg("%s", err.msg);
        tg_must_parse(text, &five);
        older = spelt_as_4(text, strstr(e->d_name, "__") && strcmp(e->d_name, "qwen3__sw") != 0);
        tg_must_parse(older, &four);
        if (tg_spec_difference(&five, &four))
            fail_msg("%s: %s differs in the older spelling: %s", path,
                     tg_spec_difference(&five, &four), older);
        tg_check_native(&five, path);
        tg_spec_release(&five);
        tg_spec_release(&four);
        tg_free(text);
        tg_free(older);
        found++;
    }
    closedir(d);
    assert_true(found >= 62);
}

static void test_out_of_memory(void **state)
{
    char *text = tg_config_with("qwen3", "use_sliding_window", "true");
    struct tg_model_spec spec;
    struct tg_err err = {0};
    long n = 0;
    int rc;

    (void)state;
    do {
        tg_mem_fail_after(++n);
        rc = tg_parse_config(text, &spec, &err);
        tg_mem_fail_after(0);
        assert_true(rc == TG_OK || rc == TG_ERR_NOMEM);
    } while (rc != TG_OK);
    assert_true(n > 2);
    tg_spec_release(&spec);
    tg_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_not_an_object),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_biases_and_norms),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_nested_text_config),
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_out_of_memory),
    };
    return tg_run_tests("family configs", tests, sizeof tests / sizeof *tests);
}
