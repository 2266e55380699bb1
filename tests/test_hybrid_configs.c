/* Configs of hybrids: which layers recur and with what sizes, by every key that says so, and what
 * is refused. Edits of the fixtures' own configs. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/specs.h"

enum { EDITS = 4 };
struct edit {
    const char *key, *value; /* value NULL: removed */
};

/* The config of fixture `name` with some keys changed; caller frees with tg_free. */
static char *config(const char *name, const struct edit *edits)
{
    char path[256], *text = NULL;
    struct tg_err err = {0};
    size_t size;

    snprintf(path, sizeof path, "tests/data/families/%s/config.json", name);
    if (tg_file_read(path, 1 << 20, &text, &size, &err) != TG_OK)
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < EDITS && edits[i].key; i++) {
        char *next = tg_json_with(text, edits[i].key, edits[i].value);
        assert_non_null(next);
        tg_free(text);
        text = next;
    }
    return text;
}

static const struct bad {
    const char *family;
    struct edit edits[EDITS];
    int code;
    const char *fragment;
} bad[] = {
    {"bamba", {{"attn_layer_indices", "[2]"}}, TG_ERR_VALUE, "must be a layer's number, 0 to 1"},
    {"bamba", {{"attn_layer_indices", "[0.5]"}}, TG_ERR_VALUE, "must be a layer's number"},
    {"bamba", {{"attn_layer_indices", "1"}}, TG_ERR_VALUE, "must be an array"},
    {"bamba", {{"mamba_d_head", "7"}}, TG_ERR_VALUE, "mamba_d_head: 8 heads of 7 are not 64"},
    {"bamba", {{"mamba_n_groups", "3"}}, TG_ERR_VALUE, "groups do not divide"},
    {"bamba", {{"mamba_d_conv", "33"}}, TG_ERR_VALUE, "mamba_d_conv: 33 is not in"},
    {"bamba", {{"time_step_limit", "[2,1]"}}, TG_ERR_VALUE, "time_step_limit: 2 to 1"},
    {"bamba", {{"time_step_limit", "[0]"}}, TG_ERR_VALUE, "must be an array of 2 numbers"},
    {"bamba", {{"time_step_limit", "[0,\"x\"]"}}, TG_ERR_VALUE, "must be a number"},
    {"mamba2", {{"head_dim", "9"}}, TG_ERR_VALUE, "head_dim: 8 heads of 9 are not 64 channels"},
    {"mamba2", {{"hidden_act", "\"relu\""}}, TG_ERR_UNSUPPORTED, "only silu"},
    {"falcon_h1", {{"ssm_multipliers", "[1,1]"}}, TG_ERR_VALUE, "must be an array of 5 numbers"},
    {"falcon_h1",
     {{"attention_bias", "true"}, {"attention_in_multiplier", "0.5"}},
     TG_ERR_UNSUPPORTED,
     "0.5 with attention_bias"},
    {"granitemoehybrid", {{"layer_types", "[\"mamba\"]"}}, TG_ERR_VALUE, "it has 1"},
    {"granitemoehybrid",
     {{"num_local_experts", "4"}, {"num_experts_per_tok", "0"}},
     TG_ERR_VALUE,
     "num_experts_per_tok: 0 is not in"},
    {"granitemoehybrid",
     {{"layer_types", "[\"mamba\",\"rwkv\"]"}},
     TG_ERR_UNSUPPORTED,
     "layer type \"rwkv\" is not supported; known: linear_attention, full_attention"},
    {"jamba", {{"attn_layer_offset", "2"}}, TG_ERR_VALUE, "2 is not below attn_layer_period, 2"},
    {"jamba", {{"mamba_dt_rank", "0"}}, TG_ERR_VALUE, "mamba_dt_rank: 0 is not in"},
    {"lfm2", {{"conv_L_cache", "0"}}, TG_ERR_VALUE, "conv_L_cache: 0 is not in"},
    {"recurrent_gemma", {{"block_types", "[\"x\"]"}}, TG_ERR_UNSUPPORTED, "block type \"x\""},
    {"recurrent_gemma", {{"block_types", "[]"}}, TG_ERR_VALUE, "must be an array of names"},
    {"recurrent_gemma", {{"lru_width", "33"}}, TG_ERR_VALUE, "groups do not divide the inner"},
    {"recurrent_gemma", {{"intermediate_size", "49"}}, TG_ERR_VALUE, "49 is not even"},
    {"recurrent_gemma", {{"hidden_activation", "\"gelu\""}}, TG_ERR_UNSUPPORTED, "tanh form"},
    {"minimax", {{"layer_types", "[3,4]"}}, TG_ERR_UNSUPPORTED, "layer type \"\""},
    {"qwen3_next", {{"linear_num_key_heads", "3"}}, TG_ERR_VALUE, "3 does not divide"},
    {"qwen3_5_text", {{"linear_conv_kernel_dim", "40"}}, TG_ERR_VALUE, "40 is not in [1, 32]"},
    {"kimi_linear", {{"mla_use_nope", "false"}}, TG_ERR_UNSUPPORTED, "mla_use_nope: false"},
    {"kimi_linear", {{"linear_attn_config", "3"}}, TG_ERR_VALUE, "must be an object"},
    {"kimi_linear",
     {{"layer_types", NULL}, {"linear_attn_config", "{\"kda_layers\":[0]}"}},
     TG_ERR_VALUE,
     "must be a layer's number, 1 to 2"},
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *text = config(bad[i].family, bad[i].edits);
        struct tg_model_spec spec;
        struct tg_err err = {0};

        if (tg_parse_config(text, &spec, &err) != bad[i].code || !strstr(err.msg, bad[i].fragment))
            fail_msg("%s, %s: %s", bad[i].family, bad[i].edits[0].key, err.msg);
        tg_free(text);
    }
}

/* Mixers of the first layers, one letter each: s softmax, w window, m mla, r recurrent */
static const struct kinds {
    const char *family;
    struct edit edits[EDITS];
    const char *layers;
} kinds[] = {
    {"qwen3_next", {{"layer_types", NULL}, {"num_hidden_layers", "5"}}, "rrrsr"},
    {"qwen3_next",
     {{"layer_types", NULL}, {"num_hidden_layers", "4"}, {"full_attention_interval", "2"}},
     "rsrs"},
    {"qwen3_5_text", {{"layer_types", "[\"full_attention\",\"linear_attention\"]"}}, "sr"},
    {"olmo_hybrid", {{"layer_types", NULL}, {"num_hidden_layers", "3"}}, "rrs"},
    {"olmo_hybrid", {{"layer_types", NULL}, {"num_hidden_layers", "5"}}, "rrrsr"},
    {"kimi_linear", {{"layer_types", NULL}}, "rm"},
    {"kimi_linear",
     {{"layer_types", NULL},
      {"linear_attn_config", NULL},
      {"num_hidden_layers", "6"},
      {"mlp_layer_types", NULL}},
     "rrrrmr"},
    {"minimax", {{"layer_types", NULL}, {"num_hidden_layers", "3"}}, "srs"},
    {"minimax", {{"sliding_window", "7"}}, "rw"},
    {"bamba", {{"attn_layer_indices", NULL}}, "rr"},
    {"bamba", {{"attn_layer_indices", "[0,1]"}}, "ss"},
    {"granitemoehybrid", {{"layer_types", NULL}}, "rr"},
    {"granitemoehybrid",
     {{"num_experts_per_tok", "0"}},
     "rs"}, /* as published dense ones have it */
    {"granitemoehybrid", {{"layer_types", "[\"attention\",\"mamba\"]"}}, "sr"},
    {"falcon_h1", {{NULL, NULL}}, "rr"},
    {"lfm2", {{"layer_types", NULL}, {"full_attn_idxs", "[0]"}}, "sr"},
    {"lfm2", {{"layer_types", NULL}, {"full_attn_idxs", NULL}}, "ss"},
    {"jamba",
     {{"attn_layer_period", NULL}, {"attn_layer_offset", NULL}, {"num_hidden_layers", "6"}},
     "rrrrsr"},
    {"recurrent_gemma", {{"num_hidden_layers", "5"}}, "rwrwr"},
    {"recurrent_gemma", {{"block_types", NULL}, {"num_hidden_layers", "4"}}, "rrwr"},
};

static void test_kinds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char *text = config(kinds[i].family, kinds[i].edits), got[16] = "";
        struct tg_model_spec spec;

        tg_must_parse(text, &spec);
        assert_true(spec.layer_count < sizeof got);
        for (size_t l = 0; l < spec.layer_count; l++) {
            const struct tg_mixer_schema *m = spec.layers[l].mixer;
            got[l] = m->flags & TG_MIXER_RECURRENT ? 'r' : *m->name;
        }
        assert_string_equal(got, kinds[i].layers);
        tg_check_native(&spec, kinds[i].family);
        tg_spec_release(&spec);
        tg_free(text);
    }
}

static struct tg_model_spec spec_of(const char *family, const struct edit *edits)
{
    char *text = config(family, edits);
    struct tg_model_spec spec;

    tg_must_parse(text, &spec);
    tg_free(text);
    return spec;
}

#define SPEC(family, ...) spec_of(family, (const struct edit[EDITS]){__VA_ARGS__})
#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-12)

static void test_factors(void **state)
{
    (void)state;
    struct tg_model_spec s =
        SPEC("falcon_h1", {"key_multiplier", "0.5"}, {"attention_in_multiplier", "3"},
             {"attention_out_multiplier", "0.25"}, {"ssm_multipliers", "[1,2,3,4,5]"});
    NEAR(s.layers[0].attn_scale, 0.5 * 9 / sqrt(8));
    NEAR(s.layers[0].recurrent.beside_scale, 0.75);
    NEAR(s.layers[1].recurrent.scales[4], 5);
    tg_spec_release(&s);
    s = SPEC("falcon_h1", {"mlp_multipliers", "[0.5,2]"}, {"lm_head_multiplier", "0.1"},
             {"embedding_multiplier", "7"}, {"ssm_out_multiplier", "0.3"});
    NEAR(s.layers[0].gate_scale, 0.5);
    NEAR(s.layers[0].down_scale, 2);
    NEAR(s.logit_scale, 0.1);
    NEAR(s.embed_scale, 7);
    NEAR(s.layers[0].recurrent.out_scale, 0.3);
    tg_spec_release(&s);
    s = SPEC("granitemoehybrid", {"logits_scaling", "8"}, {"residual_multiplier", "0.22"},
             {"embedding_multiplier", "12"}, {"attention_multiplier", "0.015625"});
    NEAR(s.logit_scale, 0.125);
    NEAR(s.layers[0].mixer_scale, 0.22);
    NEAR(s.layers[0].mlp_scale, 0.22);
    NEAR(s.layers[1].attn_scale, 0.015625);
    tg_spec_release(&s);
    s = SPEC("minimax", {"linear_attn_alpha_factor", "3.5"}, {"full_attn_beta_factor", "0.5"},
             {"mlp_alpha_factor", "2"});
    NEAR(s.layers[0].mixer_skip, 3.5);
    NEAR(s.layers[1].mixer_skip, 1);
    NEAR(s.layers[1].mixer_scale, 0.5);
    NEAR(s.layers[0].mlp_skip, 2);
    NEAR(s.layers[0].recurrent.scales[0], 1 + 1e-5);
    tg_spec_release(&s);
}

static void test_sizes(void **state)
{
    (void)state;
    struct tg_model_spec s =
        SPEC("lfm2", {"block_auto_adjust_ff_dim", "true"}, {"intermediate_size", "100"},
             {"block_multiple_of", "32"}, {"block_ffn_dim_multiplier", "1.5"});
    assert_int_equal(s.layers[0].mlp_dim, 128); /* 2/3 of 100 is 66, times 1.5 is 99 */
    tg_spec_release(&s);
    s = SPEC("granitemoehybrid", {"num_local_experts", "4"});
    assert_int_equal(s.layers[0].moe.experts, 4);
    assert_int_equal(s.layers[0].moe.mlp_dim, 48);
    assert_int_equal(s.layers[0].moe.router, TG_ROUTER_TOP_SOFTMAX);
    assert_int_equal(s.layers[1].rotary_dim, 0);
    tg_spec_release(&s);
    s = SPEC("granitemoehybrid", {"position_embedding_type", "\"rope\""});
    assert_int_equal(s.layers[1].rotary_dim, 8);
    tg_spec_release(&s);
    s = SPEC("jamba", {"num_experts", "4"}, {"expert_layer_period", "2"},
             {"mamba_dt_rank", "\"auto\""});
    assert_int_equal(s.layers[0].moe.experts, 0);
    assert_int_equal(s.layers[1].moe.experts, 4);
    assert_int_equal(s.layers[0].recurrent.rank, 2);
    tg_spec_release(&s);
    s = SPEC("olmo_hybrid", {"linear_key_head_dim", NULL}, {"linear_value_head_dim", NULL},
             {"linear_num_key_heads", NULL}, {"rope_parameters", NULL});
    assert_int_equal(s.layers[0].heads, 4);
    assert_int_equal(s.layers[0].kv_heads, 4);
    assert_int_equal(s.layers[0].value_heads, 4);
    assert_int_equal(s.layers[0].head_dim, 6);
    assert_int_equal(s.layers[0].value_dim, 12);
    NEAR(s.layers[0].attn_scale, 1 / sqrt(6));
    assert_int_equal(s.layers[1].rotary_dim, 0);
    assert_int_equal(s.layers[0].residual, TG_RESIDUAL_PRE);
    assert_int_equal(s.layers[1].residual, TG_RESIDUAL_POST);
    tg_spec_release(&s);
    s = SPEC("kimi_linear", {"mlp_layer_types", NULL}, {"num_shared_experts", "2"},
             {"routed_scaling_factor", "3"});
    assert_int_equal(s.layers[0].moe.experts, 0);
    assert_int_equal(s.layers[1].moe.shared_dim, 48);
    NEAR(s.layers[1].moe.scale, 3);
    tg_spec_release(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_factors),
        cmocka_unit_test(test_sizes),
    };
    return tg_run_tests("hybrid configs", tests, sizeof tests / sizeof *tests);
}
