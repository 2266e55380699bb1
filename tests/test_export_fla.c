/* Models of flash-linear-attention: hybrids written as such and read back, what does not fit, and
 * configs as its classes read them. What fla itself computes of them: tests/interop/check_fla.py.
 */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/export_bench.h"
#include "tests/small_model.h"
#include "tests/scratch.h"
#include "tests/specs.h"

static const double EXACT = 1e-5; /* of float32 */

static const char llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":97,\"hidden_size\":64,\"intermediate_size\":80,"
    "\"num_hidden_layers\":4,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05,\"rope_theta\":500000.0,"
    "\"bos_token_id\":1,\"eos_token_id\":[2,3],\"tie_word_embeddings\":false}";

static char *edited(const char *const *edits)
{
    return tg_bench_config(llama, edits);
}

/* A teacher, what becomes of it, and whether bf16 holds the export as exactly as the hybrid */
static const struct way {
    const char *mixer, *keep;
    const char *edits[9];
    bool scaled; /* values by what is no power of two */
} ways[] = {
    {"gated_deltanet,rotary=false", "every:2", {NULL}, false},
    {"gated_deltanet,rotary=false,conv=3,negative_eigenvalues=true",
     "1",
     {"tie_word_embeddings", "true", "num_key_value_heads", "1", NULL},
     false},
    {"gated_deltanet,rotary=false", "none", {"hidden_size", "40", "head_dim", "16", NULL}, false},
    {"kda,rotary=false", "0,3", {"bos_token_id", "null", "eos_token_id", "null", NULL}, false},
    {"kda,rotary=false,conv=2", "none", {"head_dim", "24", NULL}, false},
    {"deltanet,rotary=false", "2", {"vocab_size", "101", "num_key_value_heads", "4", NULL}, false},
    {"deltanet,rotary=false,negative_eigenvalues=true", "none", {"head_dim", "20", NULL}, false},
    {"gla,rotary=false", "every:4", {NULL}, false},
    {"gla,rotary=false,kv=shared", "3", {"tie_word_embeddings", "true", NULL}, false},
    {"gla,rotary=false,kv=shared", "none", {"hidden_size", "40", "head_dim", "10", NULL}, false},
    {"hgrn2,rotary=false,lower_bound=false", "every:2", {NULL}, false},
    {"hgrn2,lower_bound=false", "1", {"rms_norm_eps", "1e-06", NULL}, true},
    {"retnet", "0", {"rope_theta", "10000.0", NULL}, false},
    {"retnet", "none", {"rope_theta", "10000.0", "head_dim", "22", NULL}, false},
    {"linear,rotary=false,normalise=false,feature_map=elu1", "every:2", {NULL}, false},
    {"linear,rotary=false,normalise=false,feature_map=relu,kv=shared", "2", {NULL}, false},
    {"linear,rotary=false,normalise=false,feature_map=identity",
     "none",
     {"head_dim", "12", NULL},
     true},
};

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char *config = edited(ways[i].edits);
        struct tg_model *m = tg_bench_hybrid(config, ways[i].mixer, ways[i].keep, 7 + i);
        const double exact = tg_bench_export(m, "fla", TG_F32);
        const double rounded = tg_bench_export_rounded(m, "fla", TG_BF16);

        if (!(exact < EXACT))
            fail_msg("%s: float32 is off by %g", ways[i].mixer, exact);
        if (!(rounded < (ways[i].scaled ? 0.02 : EXACT)))
            fail_msg("%s: bf16 adds %g", ways[i].mixer, rounded);
        tg_model_free(m);
        tg_free(config);
    }
}

#define FRAME                                                                                      \
    "\"vocab_size\":96,\"hidden_size\":48,\"intermediate_size\":80,\"num_hidden_layers\":4,"       \
    "\"norm_eps\":1e-05,"
/* Configs of fla that no hybrid of ours has: attention of several kinds, values of another size */
static const char *const configs[] = {
    "{\"model_type\":\"gla\"," FRAME "\"num_heads\":4,\"num_kv_heads\":2,\"expand_k\":0.5,"
    "\"attn\":[{\"layers\":[1],\"num_heads\":4,\"num_kv_heads\":2,\"qkv_bias\":true,"
    "\"window_size\":7},{\"layers\":[3,2],\"num_heads\":6,\"rope_theta\":50000}]}",
    "{\"model_type\":\"delta_net\"," FRAME "\"num_heads\":4,\"expand_k\":0.5,\"expand_v\":1.5}",
    "{\"model_type\":\"gated_deltanet\"," FRAME
    "\"head_dim\":10,\"num_heads\":2,\"num_v_heads\":4,\"expand_v\":1.6,"
    "\"attn\":{\"layers\":[0],\"num_heads\":4,\"qkv_bias\":true}}",
    "{\"model_type\":\"kda\"," FRAME
    "\"head_dim\":8,\"num_heads\":3,\"num_v_heads\":6,\"expand_v\":2,\"attn\":null}",
    "{\"model_type\":\"hgrn2\"," FRAME "\"expand_ratio\":12,\"use_lower_bound\":false,"
    "\"attn\":{\"layers\":[2],\"num_heads\":3,\"num_kv_heads\":1}}",
    "{\"model_type\":\"retnet\"," FRAME "\"num_heads\":4,"
    "\"attn\":{\"layers\":[1,2],\"num_heads\":4,\"rope_theta\":20000}}",
    "{\"model_type\":\"linear_attn\"," FRAME
    "\"num_heads\":6,\"num_kv_heads\":3,\"feature_map\":\"relu\",\"expand_v\":2}",
};
enum { CONFIGS = sizeof configs / sizeof *configs };

static void test_own_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONFIGS; i++) {
        struct tg_model *m = tg_bench_hybrid(configs[i], NULL, NULL, 40 + i);
        const double exact = tg_bench_export(m, "fla", TG_F32);

        tg_check_native(&m->spec, configs[i]);
        if (!(exact < 1e-12))
            fail_msg("%s: off by %g", configs[i], exact);
        tg_model_free(m);
    }
}

/* Without sizes: what the classes take */
static void test_defaults(void **state)
{
    static const struct {
        const char *type, *more, *mixer;
        size_t heads, head_dim, value_dim, mlp_dim, conv;
        double eps;
    } all[] = {
        {"gla", "", "gla", 4, 256, 512, 5632, 0, 1e-6},
        {"delta_net", "", "deltanet", 16, 128, 128, 5632, 4, 1e-6},
        {"gated_deltanet", "", "gated_deltanet", 6, 256, 512, 5632, 4, 1e-6},
        {"kda", "", "kda", 16, 128, 128, 5632, 4, 1e-6},
        {"hgrn2", ",\"use_lower_bound\":false", "hgrn2", 16, 128, 128, 5632, 0, 1e-5},
        {"retnet", "", "retnet", 8, 256, 512, 2816, 0, 1e-6},
        {"linear_attn", ",\"feature_map\":\"elu\"", "linear", 4, 512, 512, 5632, 0, 512e-6},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char text[256];
        struct tg_model_spec s;
        snprintf(text, sizeof text,
                 "{\"model_type\":\"%s\",\"vocab_size\":32000,\"hidden_size\":2048,"
                 "\"num_hidden_layers\":2%s}",
                 all[i].type, all[i].more);
        tg_must_parse(text, &s);
        const struct tg_layer_spec *l = &s.layers[1];
        assert_string_equal(l->mixer->name, all[i].mixer);
        assert_int_equal(l->heads, all[i].heads);
        assert_int_equal(l->kv_heads, all[i].heads);
        assert_int_equal(l->head_dim, all[i].head_dim);
        assert_int_equal(l->value_dim, all[i].value_dim);
        assert_int_equal(l->mlp_dim, all[i].mlp_dim);
        assert_int_equal(l->recurrent.conv, all[i].conv);
        assert_true(fabs(l->recurrent.norm_eps / all[i].eps - 1) < 1e-12);
        assert_int_equal(l->rotary_dim, i == 5 ? 256 : 0);
        assert_int_equal(s.max_positions, 2048);
        assert_int_equal(s.bos_id, 1);
        assert_int_equal(s.eos_ids[0], 2);
        assert_false(s.tied_head);
        tg_spec_release(&s);
    }
}

static void test_refused_configs(void **state)
{
    static const struct {
        size_t config;
        const char *key, *value;
        int code;
        const char *fragment;
    } bad[] = {
        {0, "feature_map", "\"relu\"", TG_ERR_UNSUPPORTED,
         "feature_map: \"relu\" is not supported"},
        {0, "clamp_min", "-1", TG_ERR_UNSUPPORTED, "clamp_min: -1 is not supported, only null is"},
        {0, "use_output_gate", "false", TG_ERR_UNSUPPORTED, "only true is"},
        {0, "use_short_conv", "true", TG_ERR_UNSUPPORTED, "use_short_conv: true"},
        {0, "elementwise_affine", "null", TG_ERR_UNSUPPORTED, "elementwise_affine: null"},
        {0, "hidden_act", "\"powlu\"", TG_ERR_UNSUPPORTED, "hidden_act: \"powlu\""},
        {0, "attnres_block_size", "2", TG_ERR_UNSUPPORTED, "attnres_block_size: 2"},
        {0, "num_kv_heads", "3", TG_ERR_VALUE, "num_kv_heads: 3 does not divide num_heads, 4"},
        {0, "expand_k", "0.51", TG_ERR_VALUE, "expand_k: 0.51 times hidden_size, 48"},
        {0, "expand_v", "0", TG_ERR_VALUE, "expand_v: 0 is not in"},
        {1, "use_gate", "true", TG_ERR_UNSUPPORTED, "use_gate: true"},
        {1, "use_beta", "false", TG_ERR_UNSUPPORTED, "use_beta: false"},
        {1, "use_short_conv", "false", TG_ERR_UNSUPPORTED, "use_short_conv: false"},
        {1, "qk_norm", "\"sum\"", TG_ERR_UNSUPPORTED, "qk_norm: \"sum\""},
        {1, "qk_activation", "\"elu\"", TG_ERR_UNSUPPORTED, "qk_activation: \"elu\""},
        {1, "conv_size", "33", TG_ERR_VALUE, "conv_size: 33 is not in [1, 32]"},
        {2, "use_gate", "false", TG_ERR_UNSUPPORTED, "use_gate: false"},
        {2, "output_gate_activation", "\"sigmoid\"", TG_ERR_UNSUPPORTED, "\"sigmoid\""},
        {2, "num_v_heads", "3", TG_ERR_VALUE, "num_v_heads: 3 is not a multiple of num_heads, 2"},
        {2, "expand_v", "0.01", TG_ERR_VALUE, "expand_v: 0.01 gives values of size 0"},
        {3, "safe_gate", "true", TG_ERR_UNSUPPORTED, "safe_gate: true"},
        {3, "lower_bound", "-5", TG_ERR_UNSUPPORTED, "lower_bound: -5"},
        {4, "use_lower_bound", NULL, TG_ERR_UNSUPPORTED, "absent, which stands for true"},
        {4, "expand_ratio", "7", TG_ERR_VALUE, "expand_ratio: 7 does not divide hidden_size, 48"},
        {4, "expand_ratio", "null", TG_ERR_VALUE, "num_heads: 0 does not divide"},
        {5, "num_kv_heads", "2", TG_ERR_UNSUPPORTED, "num_kv_heads: 2 is not supported"},
        {5, "expand_k", "0.25", TG_ERR_VALUE, "heads of size 3 cannot be rotated"},
        {6, "feature_map", "\"hedgehog\"", TG_ERR_UNSUPPORTED, "feature_map: \"hedgehog\""},
        {6, "feature_map", NULL, TG_ERR_UNSUPPORTED, "\"elementwise_product\" is not supported"},
        {6, "norm_q", "true", TG_ERR_UNSUPPORTED, "norm_q: true"},
        {6, "norm_k", "true", TG_ERR_UNSUPPORTED, "norm_k: true"},
        {6, "norm_feature_map", "true", TG_ERR_UNSUPPORTED, "norm_feature_map: true"},
        {0, "attn", "3", TG_ERR_VALUE, "must be an object or null"},
        {0, "attn", "[null]", TG_ERR_VALUE, "must be an object or null"},
        {0, "attn", "{\"layers\":[0]}", TG_ERR_VALUE, "attn.num_heads: is missing"},
        {0, "attn", "{\"num_heads\":4}", TG_ERR_VALUE, "attn.layers: is missing"},
        {0, "attn", "{\"layers\":[4],\"num_heads\":4}", TG_ERR_VALUE, "0 to 3"},
        {0, "attn", "{\"layers\":[0,0],\"num_heads\":4}", TG_ERR_VALUE, "a layer is named twice"},
        {0, "attn", "[{\"layers\":[1],\"num_heads\":4},{\"layers\":[0,1],\"num_heads\":4}]",
         TG_ERR_VALUE, "attn[1].layers: layer 1 is named twice"},
        {0, "attn", "{\"layers\":[0],\"num_heads\":5}", TG_ERR_VALUE, "num_heads: 5 does not"},
        {0, "attn", "{\"layers\":[0],\"num_heads\":4,\"num_kv_heads\":3}", TG_ERR_VALUE,
         "num_kv_heads: 3 does not divide"},
        {0, "attn", "{\"layers\":[0],\"num_heads\":4,\"window_size\":0}", TG_ERR_VALUE,
         "window_size: 0 is not in"},
        {0, "attn",
         "[{\"layers\":[0],\"num_heads\":4,\"rope_theta\":1},"
         "{\"layers\":[1],\"num_heads\":4,\"rope_theta\":2},"
         "{\"layers\":[2],\"num_heads\":4,\"rope_theta\":3}]",
         TG_ERR_UNSUPPORTED, "rope_theta 3 of layer 2: more than 2 different ones"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *text = tg_json_with(configs[bad[i].config], bad[i].key, bad[i].value);
        struct tg_model_spec spec;
        struct tg_err err = {0};

        if (tg_parse_config(text, &spec, &err) != bad[i].code || !strstr(err.msg, bad[i].fragment))
            fail_msg("%s %s: %s", bad[i].key, bad[i].value, err.msg);
        tg_free(text);
    }
}

static void refused(const char *mixer, const char *keep, const char *const *edits, const char *why)
{
    char *config = edited(edits);
    struct tg_model *m = tg_bench_hybrid(config, mixer, keep, 3);

    tg_bench_refused(&m->spec, "fla", why);
    tg_model_free(m);
    tg_free(config);
}

static void test_refused_hybrids(void **state)
{
    static const struct {
        const char *mixer, *keep, *edits[7], *why;
    } all[] = {
        {NULL, NULL, {NULL}, "no layer is changed"},
        {"gated_window", "1", {NULL}, "layer 0: fla's hybrids have no mixer gated_window"},
        {"gated_deltanet", "1", {NULL}, "layer 0: its linear branch is rotated"},
        {"gated_deltanet,rotary=false,conv=0", "1", {NULL}, "layer 2: it has no convolution"},
        {"gated_deltanet,rotary=false,window=8", "1", {NULL}, "a window beside the linear branch"},
        {"gated_deltanet,rotary=false,kv=shared", "1", {NULL}, "its heads share keys and values"},
        {"gated_deltanet,rotary=false,output_gate=true", "1", {NULL}, "has an output gate"},
        {"gated_deltanet,rotary=false",
         "1",
         {"attention_bias", "true", NULL},
         "layer 0: its projections have biases"},
        {"gated_deltanet,rotary=false",
         "1",
         {"attention_bias", "true", NULL},
         "layer 1: its output projection has a bias"},
        {"gated_deltanet,rotary=false", "1", {"mlp_bias", "true", NULL}, "layer 3: its mlp is not"},
        {"gated_deltanet,rotary=false",
         "1",
         {"hidden_act", "\"gelu\"", NULL},
         "layer 3: its mlp is not"},
        {"gated_deltanet,rotary=false",
         "1",
         {"head_dim", "24", NULL},
         "layer 1: its heads together have not the size of the width"},
        {"gated_deltanet,rotary=false",
         "1",
         {"rope_scaling", "{\"rope_type\":\"linear\",\"factor\":2.0}", NULL},
         "layer 1: its rotary positions are scaled"},
        {"gated_deltanet,rotary=false",
         "1",
         {"model_type", "\"qwen3\"", "head_dim", "16", NULL},
         "layer 1: its q and k have norms"},
        {"gla,rotary=false",
         "none",
         {"model_type", "\"qwen3\"", "head_dim", "16", NULL},
         "layer 0: its q and k have norms, fla's linear layers"},
        {"gla,rotary=false,rank=8", "1", {NULL}, "the rank of its gate is not 16"},
        {"kda,rotary=false,rank=8", "1", {NULL}, "the rank of its gates is not the size"},
        {"hgrn2", "1", {NULL}, "lower bounds of their own"},
        {"hgrn2,lower_bound=false", "none", {"head_dim", "8", NULL}, "the size of the width"},
        {"retnet", "1", {NULL}, "layer 0: it is not rotated whole by a theta of 10000"},
        {"retnet,rotary=false", "1", {"rope_theta", "10000.0", NULL}, "not rotated whole"},
        {"retnet,kv=shared", "1", {"rope_theta", "10000.0", NULL}, "share keys and values"},
        {"linear,rotary=false,normalise=false", "1", {NULL}, "its feature map has weights"},
        {"linear,rotary=false,feature_map=relu", "1", {NULL}, "divides by a sum of weights"},
        {"gla,rotary=false",
         "1",
         {"model_type", "\"granite\"", "logits_scaling", "4.0", NULL},
         "embeddings or logits are scaled"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        refused(all[i].mixer, all[i].keep, all[i].edits, all[i].why);
}

/* Layers that no plan makes: fields of a spec, one wrong */
static void test_refused_specs(void **state)
{
    struct tg_model *m = tg_bench_hybrid(configs[2], NULL, NULL, 5);
    struct tg_model_spec s;
    struct tg_err err = {0};
#define WRONG(change, text)                                                                        \
    do {                                                                                           \
        tg_test_must(tg_spec_copy(&s, &m->spec, &err), &err);                                      \
        change;                                                                                    \
        tg_bench_refused(&s, "fla", text);                                                         \
        tg_spec_release(&s);                                                                       \
    } while (0)
    (void)state;
    WRONG(s.norm.kind = TG_NORM_LAYER, "not RMS norms");
    WRONG(s.norm.plus_one = true, "not RMS norms");
    WRONG(s.no_norm_out = true, "no norm before the head");
    WRONG(s.head_bias = true, "its head has a bias");
    WRONG(s.embed_scale = 2, "scaled");
    WRONG(s.logit_softcap = 30, "capped");
    WRONG(s.embed_dim = 8, "size of their own");
    WRONG(s.learned_positions = 64, "positions are learned");
    WRONG(s.layers[1].residual = TG_RESIDUAL_PARALLEL, "layer 1: its branches do not join");
    WRONG(s.layers[1].mixer_scale = 0.5, "layer 1: its branches do not join");
    WRONG(s.layers[2].mlp_dim = 96, "layer 2: its mlp has another size");
    WRONG(s.layers[2].moe.experts = 4, "layer 2: its mlp has experts");
    WRONG(s.layers[0].attn_scale = 1, "layer 0: its scores have another scale");
    WRONG(s.layers[0].attn_softcap = 50, "layer 0: its scores are capped");
    WRONG(s.layers[0].rotary_dim = 6, "layer 0: not all of a head is rotated");
    WRONG(s.layers[0].value_dim = 6, "layer 0: values have another size");
    WRONG(s.layers[0].sinks = 1, "layer 0: it has sinks");
    WRONG(s.layers[1].qkv_clip = 8, "layer 1: its q, k and v are limited");
    WRONG(s.layers[1].recurrent.norm_eps = 1e-3, "layer 1: the norm of its output has an own");
    WRONG(s.layers[3].recurrent.conv = 3, "layer 3: its mixer or sizes are not those of layer 1");
    WRONG(s.layers[3].value_heads = 2, "layer 3: its mixer or sizes are not those of layer 1");
    WRONG(s.layers[3].mixer = tg_mixer_schema_find("gla"), "layer 3: its mixer or sizes");
#undef WRONG
    tg_model_free(m);
}

static void test_plans(void **state)
{
    static const struct {
        const char *mixer, *edits[5], *fault; /* NULL: the plan fits */
    } all[] = {
        {NULL, {NULL}, NULL},
        {"gated_deltanet", {NULL}, NULL},
        {"kda", {NULL}, NULL},
        {"deltanet", {NULL}, NULL},
        {"gla", {NULL}, NULL},
        {"hgrn2", {NULL}, NULL},
        {"retnet", {"rope_theta", "10000.0", NULL}, NULL},
        {"linear", {NULL}, NULL},
        {"retnet", {NULL}, "fla: no plan with retnet fits: layer 0: it is not rotated whole"},
        {"hgrn2", {"head_dim", "8", NULL}, "fla: no plan with hgrn2 fits: layer 0: its heads"},
        {"gla", {"attention_bias", "true", NULL}, "no plan with gla fits: layer 0"},
        {"gla", {"model_type", "\"qwen3\"", NULL}, "layer 0: its q and k have norms"},
        {"window", {NULL}, "fla: no mixer 'window' in its hybrids"},
    };
    const struct tg_target *t = tg_target_find("fla");
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char *config = edited(all[i].edits), text[128];
        struct tg_model_spec teacher;
        struct tg_err err = {0};
        tg_must_parse(config, &teacher);
        const int rc = t->plan(&teacher, all[i].mixer, text, sizeof text, &err);
        if (all[i].fault ? !rc || !strstr(err.msg, all[i].fault) : rc)
            fail_msg("%s: %d %s", all[i].mixer, rc, err.msg);
        if (!all[i].fault) {
            struct tg_model *m = tg_bench_hybrid(config, text, t->keep, 11 + i);
            const double exact = tg_bench_export(m, "fla", TG_F32);
            if (!(exact < EXACT))
                fail_msg("%s: off by %g", text, exact);
            tg_model_free(m);
        }
        tg_spec_release(&teacher);
        tg_free(config);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_own_models),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused_configs),
        cmocka_unit_test(test_refused_hybrids),
        cmocka_unit_test(test_refused_specs),
        cmocka_unit_test_teardown(test_plans, tg_scratch_remove),
    };
    if (!tg_scratch_make("export_fla"))
        return 1;
    return tg_run_tests("export fla", tests, sizeof tests / sizeof *tests);
}
