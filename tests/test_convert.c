/* Mixer schemas, specs, configs of every family in both spellings, and tensor names. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/checkpoint.h"
#include "convert/names.h"
#include "formats/tensors.h"
#include "tests/specs.h"

static const char llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":96,\"hidden_size\":32,\"intermediate_size\":48,"
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"eos_token_id\":"
    "2,\"hidden_act\":\"silu\",\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,"
    "\"tie_word_embeddings\":true,\"rope_theta\":5e5}";

/* The base config with another family, then one key changed; caller frees. */
static char *config_with(const char *family, const char *key, const char *value)
{
    char type[64];
    char *base, *made;

    snprintf(type, sizeof type, "\"%s\"", family);
    base = tg_json_with(llama, "model_type", type);
    made = key ? tg_json_with(base, key, value) : tg_strdup(base);
    tg_free(base);
    assert_non_null(made);
    return made;
}

static int parse(const char *text, struct tg_model_spec *spec, struct tg_err *err)
{
    return tg_config_parse(text, strlen(text), "dir/config.json", spec, err);
}

static void must_parse(const char *text, struct tg_model_spec *spec)
{
    struct tg_err err = {0};

    if (parse(text, spec, &err) != TG_OK)
        fail_msg("%s: %s", text, err.msg);
}

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
    {"llama", "hidden_act", "\"gelu\"", TG_ERR_UNSUPPORTED, "activation \"gelu\""},
    {"llama", "hidden_act", "3", TG_ERR_VALUE, "hidden_act: is a number"},
    {"llama", "rope_theta", "0", TG_ERR_VALUE, "rope_theta: 0 is not in"},
    {"llama", "rope_theta", "-1", TG_ERR_VALUE, "rope_theta: -1 is not in"},
    {"llama", "rope_theta", "1e40", TG_ERR_VALUE, "rope_theta: 1e+40 is not in"},
    {"llama", "rope_scaling", "7", TG_ERR_VALUE, "rope_scaling: must be an object"},
    {"llama", "rope_scaling", "{\"type\":\"linear\",\"factor\":2}", TG_ERR_UNSUPPORTED,
     "rope_scaling.type: rotary scaling \"linear\""},
    {"llama", "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":2}", TG_ERR_UNSUPPORTED,
     "rope_parameters.rope_type: rotary scaling \"yarn\""},
    {"llama", "rope_parameters", "{\"rope_type\":5}", TG_ERR_VALUE, "rope_type: is a number"},
    {"llama", "rope_parameters", "{\"full_attention\":{\"rope_theta\":1e4}}", TG_ERR_UNSUPPORTED,
     "each kind of layer"},
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
    {"tegu", NULL, NULL, TG_ERR_VALUE, "tegu: must be an object"},
    {"tegu", "tegu", "{\"format\":2}", TG_ERR_UNSUPPORTED, "tegu.format: 2 was written by a newer"},
    {"tegu", "tegu", "{\"format\":1}", TG_ERR_VALUE, "rope_parameters: is missing"},
};

static void test_bad_configs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_configs / sizeof *bad_configs; i++) {
        const struct bad *b = &bad_configs[i];
        char *text = config_with(b->family, b->key, b->value);
        struct tg_model_spec spec;
        struct tg_err err = {0};
        const int rc = parse(text, &spec, &err);
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
        assert_int_equal(parse(texts[i], &spec, &err), TG_ERR_VALUE);
        assert_non_null(strstr(err.msg, "must be a JSON object"));
    }
    assert_int_equal(parse("{", &spec, &err), TG_ERR_FORMAT);
}

static void check_windows(const char *family, const char *key, const char *value, const char *key2,
                          const char *value2, size_t w0, size_t w1, size_t w2)
{
    char *one = config_with(family, key, value), *text = tg_json_with(one, key2, value2);
    const size_t want[] = {w0, w1, w2};
    struct tg_model_spec spec;

    must_parse(text, &spec);
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

static struct tg_model_spec spec_with(const char *family, const char *key, const char *value)
{
    char *text = config_with(family, key, value);
    struct tg_model_spec spec;

    must_parse(text, &spec);
    tg_free(text);
    return spec;
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
        struct tg_model_spec spec = spec_with(rows[i].family, rows[i].key, rows[i].value);
        assert_int_equal(spec.layers[0].kv_heads, rows[i].kv_heads);
        assert_int_equal(spec.layers[0].head_dim, rows[i].head_dim);
        assert_int_equal(spec.layers[0].rotary_dim, rows[i].head_dim);
        assert_true(spec.layers[0].attn_scale == 1 / sqrt((double)rows[i].head_dim));
        tg_spec_release(&spec);
    }
    /* kv heads of Mistral are 8 and of Qwen 32 when nothing is said: not divisors of 4 */
    for (int q = 0; q < 3; q++) {
        static const char *const families[] = {"mistral", "qwen2", "qwen3"};
        char *text = config_with(families[q], "num_key_value_heads", NULL);
        struct tg_model_spec spec;
        struct tg_err err = {0};
        assert_int_equal(parse(text, &spec, &err), TG_ERR_VALUE);
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
        struct tg_model_spec spec = spec_with(rows[i].family, rows[i].key, "true");
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
        struct tg_model_spec spec = spec_with(rows[i].family, rows[i].key, rows[i].value);
        assert_int_equal(spec.bos_id, rows[i].bos);
        assert_int_equal(spec.eos_count, rows[i].eos_count);
        for (size_t e = 0; e < rows[i].eos_count; e++)
            assert_int_equal(spec.eos_ids[e], rows[i].eos[e]);
        tg_spec_release(&spec);
    }
}

static void test_nested_text_config(void **state)
{
    struct tg_model_spec plain = spec_with("mistral", "x", NULL), nested;
    char *inner = config_with("mistral", NULL, NULL);
    char *text =
        tg_json_with("{\"model_type\":\"mistral3\",\"vocab_size\":5}", "text_config", inner);

    (void)state;
    must_parse(text, &nested);
    assert_null(tg_spec_difference(&plain, &nested));
    tg_spec_release(&plain);
    tg_spec_release(&nested);
    tg_free(inner);
    tg_free(text);
}

/* The config of a fixture (transformers 5) as version 4 wrote it. */
static char *spelt_as_4(const char *text)
{
    struct tg_json_doc *doc;
    struct tg_json_out j;
    struct tg_strbuf to;
    struct tg_json root, rope;

    assert_int_equal(tg_json_parse(&doc, text, strlen(text), "5", 0, NULL), TG_OK);
    root = tg_json_root(doc);
    rope = tg_json_key(root, "rope_parameters");
    assert_true(tg_json_is_object(rope));
    tg_strbuf_init(&to, 1 << 20);
    tg_jout_init(&j, &to, 1);
    tg_jout_object(&j, NULL);
    for (struct tg_json c = tg_json_first(root); c.node; c = tg_json_next(c)) {
        const char *name = tg_json_name(c);
        if (!strcmp(name, "dtype"))
            tg_jout_copy(&j, "torch_dtype", c);
        else if (strcmp(name, "rope_parameters") != 0 && strcmp(name, "layer_types") != 0)
            tg_jout_copy(&j, name, c);
    }
    tg_jout_copy(&j, "rope_theta", tg_json_key(rope, "rope_theta"));
    if (!strcmp(tg_json_string(tg_json_key(rope, "rope_type")), "default"))
        tg_jout_null(&j, "rope_scaling");
    else {
        tg_jout_object(&j, "rope_scaling");
        for (struct tg_json c = tg_json_first(rope); c.node; c = tg_json_next(c))
            if (strcmp(tg_json_name(c), "rope_theta") != 0)
                tg_jout_copy(&j, !strcmp(tg_json_name(c), "rope_type") ? "type" : tg_json_name(c),
                             c);
        tg_jout_end_object(&j);
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
        struct tg_model_spec five, four;
        struct tg_err err = {0};
        char path[256], *text, *older;
        size_t len;

        snprintf(path, sizeof path, "tests/data/families/%s", fixtures[i].name);
        if (tg_config_read(path, &five, &err))
            fail_msg("%s", err.msg);
        check_fixture(&fixtures[i], &five);
        snprintf(path, sizeof path, "tests/data/families/%s/config.json", fixtures[i].name);
        assert_int_equal(tg_file_read(path, 1 << 20, &text, &len, &err), TG_OK);
        older = spelt_as_4(text);
        must_parse(older, &four);
        if (tg_spec_difference(&five, &four))
            fail_msg("%s: %s differs in the older spelling", path,
                     tg_spec_difference(&five, &four));
        tg_spec_release(&five);
        tg_spec_release(&four);
        tg_free(text);
        tg_free(older);
    }
}

static const struct {
    const char *mixer;
    size_t window, sinks, feature_dim;
    enum tg_feature_map map;
    bool gated, bias, qk_norm;
    const char *extra; /* parameters beyond q, k, v, o with shapes, D = 20, H = 4, G = 2, K = 6 */
    size_t kv, state;  /* floats */
} mixer_cases[] = {
    {"softmax", 0, 0, 0, 0, 0, 0, 0, "", 24, 0},
    {"softmax", 0, 0, 0, 0, 0, 1, 1,
     "q.bias[24] k.bias[12] v.bias[12] o.bias[20] q_norm.weight[6] k_norm.weight[6] ", 24, 0},
    {"window", 5, 0, 0, 0, 0, 0, 0, "", 0, 120},
    {"window", 5, 3, 0, 0, 0, 0, 0, "sink[4,3] ", 0, 120},
    {"gated_window", 5, 1, 7, TG_MAP_HEDGEHOG_SOFTMAX, 0, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] gate.weight[4,20] gate.bias[4] far_logit[4] "
     "sink[4,1] ",
     0, 120 + 4 * 14 * 7 + 20},
    {"gated_window", 5, 0, 0, TG_MAP_ELU1, 0, 0, 0, "gate.weight[4,20] gate.bias[4] far_logit[4] ",
     0, 120 + 4 * 6 * 7 + 20},
    {"lolcats", 5, 0, 7, TG_MAP_HEDGEHOG_EXP, 0, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] window_logit[4] ", 0, 120 + 4 * 14 * 7},
    {"lolcats", 5, 4, 7, TG_MAP_HEDGEHOG_EXP, 1, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] window_logit[4] gate.weight[4,20] gate.bias[4] "
     "sink[4,4] ",
     0, 120 + 4 * 14 * 7 + 20},
    {"lizard", 5, 4, 6, TG_MAP_HEDGEHOG_SOFTMAX, 0, 0, 1,
     "q_norm.weight[6] k_norm.weight[6] map_q.weight[4,6,6] map_k.weight[4,6,6] gate.weight[4,20] "
     "gate.bias[4] alpha[4] sink[4,4] ",
     0, 120 + 4 * 12 * 7},
};

static void test_mixer_parameters(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof mixer_cases / sizeof *mixer_cases; c++) {
        struct tg_layer_spec l = {.mixer = tg_mixer_schema_find(mixer_cases[c].mixer),
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 6,
                                  .rotary_dim = 6,
                                  .window = mixer_cases[c].window,
                                  .sinks = mixer_cases[c].sinks,
                                  .feature_dim = mixer_cases[c].feature_dim,
                                  .feature_map = mixer_cases[c].map,
                                  .gated = mixer_cases[c].gated,
                                  .qkv_bias = mixer_cases[c].bias,
                                  .o_bias = mixer_cases[c].bias,
                                  .qk_norm = mixer_cases[c].qk_norm,
                                  .attn_scale = 0.4,
                                  .mlp_dim = 9};
        struct tg_model_spec spec = {.vocab = 11,
                                     .width = 20,
                                     .norm.eps = 1e-6,
                                     .tied_head = true,
                                     .ropes = {{.theta = 1e4}},
                                     .layer_count = 1,
                                     .layers = &l};
        struct tg_param_list list;
        struct tg_err err = {0};
        char extra[512] = "", shape[64];
        size_t shared = 0, at = 0, floats = 0;

        if (tg_params_of(&spec, &list, &err))
            fail_msg("%s", err.msg);
        for (size_t i = 0; i < list.count; i++) {
            const struct tg_param *p = &list.items[i];
            const bool own = p->is_mixer && strchr("qkvo", p->local[0]) && p->local[1] == '.';
            const bool basic = own && !strcmp(p->local + 1, ".weight");
            assert_int_equal(p->offset, floats);
            assert_int_equal(p->decays, p->rank >= 2);
            floats += (p->count + 15) / 16 * 16;
            shared += basic;
            if (p->is_mixer && !basic)
                at += (size_t)snprintf(extra + at, sizeof extra - at, "%s%s ", p->local,
                                       tg_shape_text(p->shape, p->rank, shape, sizeof shape));
            if (p->is_mixer)
                assert_int_equal(p->is_new, !own && !strstr(p->local, "_norm"));
        }
        assert_int_equal(list.floats, floats);
        assert_int_equal(shared, 4);
        assert_string_equal(extra, mixer_cases[c].extra);
        assert_int_equal(tg_spec_kv_bytes_per_token(&spec, 2), mixer_cases[c].kv * 2);
        assert_int_equal(tg_spec_state_bytes(&spec), mixer_cases[c].state * 4);
        tg_params_release(&list);
    }
}

static void test_parameter_table(void **state)
{
    static const char *const want[] = {
        "embed.weight",
        "layers.0.norm_in.weight",
        "layers.0.mixer.q.weight",
        "layers.0.mixer.q.bias",
        "layers.0.mixer.k.weight",
        "layers.0.mixer.k.bias",
        "layers.0.mixer.v.weight",
        "layers.0.mixer.v.bias",
        "layers.0.mixer.o.weight",
        "layers.0.norm_mlp.weight",
        "layers.0.mlp.gate.weight",
        "layers.0.mlp.up.weight",
        "layers.0.mlp.down.weight",
        "norm_out.weight",
        "head.weight",
    };
    struct tg_model_spec spec = spec_with("qwen2", "tie_word_embeddings", "false");
    struct tg_param_list list;

    (void)state;
    spec.layer_count = 1;
    assert_int_equal(tg_params_of(&spec, &list, NULL), TG_OK);
    assert_int_equal(list.count, sizeof want / sizeof *want);
    for (size_t i = 0; i < list.count; i++) {
        assert_string_equal(list.items[i].name, want[i]);
        assert_ptr_equal(tg_params_find(&list, want[i]), &list.items[i]);
    }
    assert_null(tg_params_find(&list, "layers.1.norm_in.weight"));
    /* 2 * 96 * 32 (embed, head) + 3 * 32 (norms) + 2 * 32 * 32 (q, o) + 2 * 16 * 32 (k, v)
     * + 32 + 16 + 16 (biases) + 3 * 48 * 32 (mlp) */
    assert_int_equal(tg_spec_param_count(&spec), 6144 + 96 + 2048 + 1024 + 64 + 4608);
    tg_params_release(&list);
    tg_spec_release(&spec);
}

/* Each promise broken once. */
static void test_spec_check(void **state)
{
    static const struct {
        size_t offset, value;
        const char *fragment;
    } rows[] = {
#define AT(field) offsetof(struct tg_layer_spec, field)
        {AT(heads), 0, "layer 1: heads is 0"},
        {AT(heads), 5000, "layer 1: heads is 5000"},
        {AT(kv_heads), 3, "kv_heads 3 does not divide heads 4"},
        {AT(kv_heads), 8, "kv_heads is 8, must be 1 to 4"},
        {AT(head_dim), 0, "head_dim is 0"},
        {AT(rotary_dim), 3, "rotary_dim 3 is not even"},
        {AT(rotary_dim), 10, "rotary_dim is 10, must be 0 to 8"},
        {AT(window), 0, "window is 0, must be 1"},
        {AT(sinks), 5000, "sinks is 5000"},
        {AT(feature_dim), 0, "feature_dim is 0"},
        {AT(mlp_dim), 0, "mlp_dim is 0"},
#undef AT
    };
    struct tg_model_spec good = spec_with("llama", "x", NULL), bad;
    struct tg_layer_spec *l = &good.layers[1];
    struct tg_err err;

    (void)state;
    l->mixer = tg_mixer_schema_find("gated_window");
    l->window = 4;
    l->feature_dim = 8;
    assert_int_equal(tg_spec_check(&good, "m", NULL), TG_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(tg_spec_copy(&bad, &good, NULL), TG_OK);
        *(size_t *)((char *)&bad.layers[1] + rows[i].offset) = rows[i].value;
        err = (struct tg_err){0};
        assert_int_equal(tg_spec_check(&bad, "m", &err), TG_ERR_VALUE);
        if (!strstr(err.msg, rows[i].fragment))
            fail_msg("%s\nwanted ...%s...", err.msg, rows[i].fragment);
        tg_spec_release(&bad);
    }
    l->attn_scale = NAN;
    assert_int_equal(tg_spec_check(&good, "m", NULL), TG_ERR_VALUE);
    l->attn_scale = 1;
    l->mixer = tg_mixer_schema_find("softmax");
    assert_int_equal(tg_spec_check(&good, "m", &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "window is 4, but mixer softmax has none"));
    l->window = 0;
    l->sinks = 1;
    assert_int_equal(tg_spec_check(&good, "m", &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "sinks is 1, but mixer softmax"));
    tg_spec_release(&good);
}

/* Sizes that are in range one by one, and whose sum would wrap */
static void test_state_too_large(void **state)
{
    char *wide = config_with("mistral", "num_hidden_layers", "64");
    static const char *const edits[][2] = {{"num_attention_heads", "4096"},
                                           {"num_key_value_heads", "4096"},
                                           {"head_dim", "4096"},
                                           {"sliding_window", "1073741824"}};
    struct tg_model_spec spec;
    struct tg_err err = {0};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        char *next = tg_json_with(wide, edits[i][0], edits[i][1]);
        tg_free(wide);
        wide = next;
    }
    assert_int_equal(parse(wide, &spec, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "floats of state"));
    tg_free(wide);
}

static void test_registry(void **state)
{
    static const char *const want[] = {
        "softmax",   "window", "gated_window",     "lolcats", "lizard",     "gated_deltanet", "kda",
        "lightning", "mamba2", "mamba2_attention", "mamba1",  "short_conv", "rglru"};
    static const size_t windows[13] = {0, 128, 128, 64, 128}, sinks[13] = {0, 0, 1, 0, 4};
    enum tg_feature_map map;

    (void)state;
    for (size_t i = 0; i < 13; i++) {
        assert_string_equal(tg_mixer_schemas[i]->name, want[i]);
        assert_ptr_equal(tg_mixer_schema_find(want[i]), tg_mixer_schemas[i]);
        assert_int_equal(tg_mixer_schemas[i]->window, windows[i]);
        assert_int_equal(tg_mixer_schemas[i]->sinks, sinks[i]);
    }
    assert_null(tg_mixer_schemas[13]);
    assert_null(tg_mixer_schema_find("softmax2"));
    for (int m = 0; m < TG_MAP_COUNT; m++) {
        assert_true(tg_feature_map_parse(tg_feature_map_name((enum tg_feature_map)m), &map));
        assert_int_equal(map, m);
    }
    assert_false(tg_feature_map_parse("hedgehog", &map));
}

/* By the first rule that matches */
static bool canonical_name(const struct tg_name_rule *rules, const char *source, char *out,
                           size_t size)
{
    size_t expert;

    for (; rules->source; rules++)
        if (tg_name_canonical(rules, source, out, size, &expert))
            return true;
    return false;
}

static bool source_name(const struct tg_name_rule *rules, const char *canonical, char *out,
                        size_t size)
{
    for (; rules->source; rules++)
        if (tg_name_source(rules, canonical, 0, out, size))
            return true;
    return false;
}

static void test_names(void **state)
{
    static const struct {
        const char *source, *canonical; /* NULL: no rule */
    } rows[] = {
        {"model.layers.0.self_attn.q_proj.weight", "layers.0.mixer.q.weight"},
        {"layers.12.mlp.down_proj.bias", "layers.12.mlp.down.bias"},
        {"embed_tokens.weight", "embed.weight"},
        {"norm.weight", "norm_out.weight"},
        {"lm_head.weight", "head.weight"},
        {"model.lm_head.weight", NULL},
        {"model.layers.01.self_attn.q_proj.weight", NULL},
        {"model.layers..self_attn.q_proj.weight", NULL},
        {"model.layers.-1.self_attn.q_proj.weight", NULL},
        {"model.layers.1234567890.self_attn.q_proj.weight", NULL},
        {"model.layers.0.self_attn.q_proj.weight2", NULL},
        {"model.layers.0.self_attn.q_proj", NULL},
        {"model.model.norm.weight", NULL},
        {"", NULL},
    };
    char out[TG_NAME_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(canonical_name(tg_decoder_names, rows[i].source, out, sizeof out),
                         rows[i].canonical != NULL);
        if (rows[i].canonical)
            assert_string_equal(out, rows[i].canonical);
    }
    assert_false(canonical_name(tg_decoder_names, "model.norm.weight", out, 15));
    assert_true(canonical_name(tg_decoder_names, "model.norm.weight", out, 16));
    assert_true(
        tg_name_like("*rotary_emb.inv_freq", "model.layers.3.self_attn.rotary_emb.inv_freq"));
    assert_true(tg_name_like("a*b*c", "axbxbxc"));
    assert_false(tg_name_like("a*b*c", "axbxbx"));
    assert_false(tg_name_like("*.qweight", "model.qweights"));
    assert_string_equal(tg_name_quantised("model.layers.0.mlp.up_proj.qweight"), "GPTQ or AWQ");
    assert_null(tg_name_quantised("model.layers.0.mlp.up_proj.weight"));
}

/* Every parameter of every family has one source name, which leads back to it. */
static void test_names_there_and_back(void **state)
{
    (void)state;
    for (size_t f = 0; tg_families[f]; f++) {
        const char *base = strcmp(tg_families[f]->name, "tegu") ? tg_families[f]->name : "qwen3";
        struct tg_model_spec spec = spec_with(base, "attention_bias", "true");
        struct tg_param_list list;

        assert_int_equal(tg_params_of(&spec, &list, NULL), TG_OK);
        for (size_t i = 0; i < list.count; i++) {
            char source[TG_NAME_SIZE], back[TG_NAME_SIZE];
            assert_true(
                source_name(tg_families[f]->names, list.items[i].name, source, sizeof source));
            assert_true(canonical_name(tg_families[f]->names, source, back, sizeof back));
            assert_string_equal(back, list.items[i].name);
        }
        tg_params_release(&list);
        tg_spec_release(&spec);
    }
}

static void test_out_of_memory(void **state)
{
    char *text = config_with("qwen3", "use_sliding_window", "true");
    struct tg_model_spec spec;
    struct tg_err err = {0};
    long n = 0;
    int rc;

    (void)state;
    do {
        tg_mem_fail_after(++n);
        rc = parse(text, &spec, &err);
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
        cmocka_unit_test(test_mixer_parameters),
        cmocka_unit_test(test_parameter_table),
        cmocka_unit_test(test_spec_check),
        cmocka_unit_test(test_state_too_large),
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_names_there_and_back),
        cmocka_unit_test(test_out_of_memory),
    };
    return tg_run_tests("convert", tests, sizeof tests / sizeof *tests);
}
