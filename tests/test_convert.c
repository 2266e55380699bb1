/* Mixer schemas, parameter tables, what a spec promises, and tensor names. */
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

static const struct {
    const char *mixer;
    size_t window, sinks, feature_dim;
    enum tg_feature_map map;
    bool gated, bias;
    enum tg_qk_norm qk_norm;
    const char *extra; /* parameters beyond q, k, v, o with shapes, D = 20, H = 4, G = 2, K = 6 */
    size_t kv, state;  /* floats */
    size_t value_dim;
    bool output_gate;
} mixer_cases[] = {
    {"softmax", 0, 0, 0, 0, 0, 0, TG_QK_NONE, "", 24, 0, 0, 0},
    {"softmax", 0, 0, 0, 0, 0, 1, TG_QK_HEAD,
     "q.bias[24] k.bias[12] v.bias[12] o.bias[20] q_norm.weight[6] k_norm.weight[6] ", 24, 0, 0, 0},
    {"softmax", 0, 0, 0, 0, 0, 0, TG_QK_EACH,
     "q_norm.weight[4,6] q_norm.bias[4,6] k_norm.weight[2,6] k_norm.bias[2,6] ", 24, 0, 0, 0},
    {"softmax", 0, 0, 0, 0, 0, 0, TG_QK_WIDE, "q_norm.weight[24] k_norm.weight[12] ", 24, 0, 0, 0},
    {"softmax", 0, 2, 0, 0, 0, 0, TG_QK_NONE, "out_gate.weight[20,20] sink[4,2] ", 22, 0, 5, 1},
    {"softmax", 0, 0, 0, 0, 0, 1, TG_QK_NONE,
     "q.bias[24] k.bias[12] v.bias[12] o.bias[20] out_gate.weight[24,20] out_gate.bias[24] ", 24, 0,
     0, 1},
    {"window", 5, 0, 0, 0, 0, 0, 0, "", 0, 120, 0, 0},
    {"window", 5, 3, 0, 0, 0, 0, 0, "sink[4,3] ", 0, 120, 0, 0},
    {"gated_window", 5, 1, 7, TG_MAP_HEDGEHOG_SOFTMAX, 0, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] gate.weight[4,20] gate.bias[4] far_logit[4] "
     "sink[4,1] ",
     0, 120 + 4 * 14 * 7 + 20, 0, 0},
    {"gated_window", 5, 0, 0, TG_MAP_ELU1, 0, 0, 0, "gate.weight[4,20] gate.bias[4] far_logit[4] ",
     0, 120 + 4 * 6 * 7 + 20, 0, 0},
    {"gated_window", 5, 0, 7, TG_MAP_TAYLOR, 0, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] gate.weight[4,20] gate.bias[4] far_logit[4] ", 0,
     120 + 4 * 36 * 7 + 20, 0, 0},
    {"lolcats", 5, 0, 7, TG_MAP_HEDGEHOG_EXP, 0, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] window_logit[4] ", 0, 120 + 4 * 14 * 7, 0, 0},
    {"lolcats", 5, 4, 7, TG_MAP_HEDGEHOG_EXP, 1, 0, 0,
     "map_q.weight[4,6,7] map_k.weight[4,6,7] window_logit[4] gate.weight[4,20] gate.bias[4] "
     "sink[4,4] ",
     0, 120 + 4 * 14 * 7 + 20, 0, 0},
    {"lizard", 5, 4, 6, TG_MAP_HEDGEHOG_SOFTMAX, 0, 0, 1,
     "q_norm.weight[6] k_norm.weight[6] map_q.weight[4,6,6] map_k.weight[4,6,6] gate.weight[4,20] "
     "gate.bias[4] alpha[4] sink[4,4] ",
     0, 120 + 4 * 12 * 7, 0, 0},
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
                                  .qk_norm_bias = mixer_cases[c].qk_norm == TG_QK_EACH,
                                  .value_dim = mixer_cases[c].value_dim,
                                  .output_gate = mixer_cases[c].output_gate,
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
            const bool teachers =
                own || (p->is_mixer && (strstr(p->local, "_norm") || strstr(p->local, "out_gate") ||
                                        !mixer_cases[c].window));
            const bool basic = own && !strcmp(p->local + 1, ".weight");
            assert_int_equal(p->offset, floats);
            assert_int_equal(p->decays, p->rank >= 2);
            floats += (p->count + 15) / 16 * 16;
            shared += basic;
            if (p->is_mixer && !basic)
                at += (size_t)snprintf(extra + at, sizeof extra - at, "%s%s ", p->local,
                                       tg_shape_text(p->shape, p->rank, shape, sizeof shape));
            if (p->is_mixer)
                assert_int_equal(p->is_new, !teachers);
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
    struct tg_model_spec spec = tg_spec_with("qwen2", "tie_word_embeddings", "false");
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
    struct tg_model_spec good = tg_spec_with("llama", "x", NULL), bad;
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
    l->sinks = 1; /* as a teacher's may be */
    assert_int_equal(tg_spec_check(&good, "m", NULL), TG_OK);
    l->mixer = tg_mixer_schema_find("lolcats");
    l->window = 4;
    assert_int_equal(tg_spec_check(&good, "m", &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "sinks is 1, but mixer lolcats (not gated) has none"));
    tg_spec_release(&good);
}

/* Sizes that are in range one by one, and whose sum would wrap */
static void test_state_too_large(void **state)
{
    char *wide = tg_config_with("mistral", "num_hidden_layers", "64");
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
    assert_int_equal(tg_parse_config(wide, &spec, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "floats of state"));
    tg_free(wide);
}

static void test_registry(void **state)
{
    static const struct {
        const char *name;
        size_t window, sinks;
    } want[] = {{"softmax", 0, 0},  {"window", 128, 0}, {"gated_window", 128, 1},
                {"lolcats", 64, 0}, {"lizard", 128, 4}, {"gated_deltanet", 0, 0}};
    enum tg_feature_map map;

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct tg_mixer_schema *row = tg_mixer_schema_find(want[i].name);
        assert_non_null(row);
        assert_int_equal(row->window, want[i].window);
        assert_int_equal(row->sinks, want[i].sinks);
    }
    for (size_t i = 0; tg_mixer_schemas[i]; i++)
        assert_ptr_equal(tg_mixer_schema_find(tg_mixer_schemas[i]->name), tg_mixer_schemas[i]);
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

/* `{i}` and `{e}` filled in, brackets and a final '*' left out */
static void fill_pattern(const char *pattern, char *out)
{
    for (; *pattern; pattern++) {
        if (!strncmp(pattern, "{i}", 3) || !strncmp(pattern, "{e}", 3)) {
            *out++ = pattern[1] == 'i' ? '3' : '7';
            pattern += 2;
        } else if (*pattern == '*')
            *out++ = 'x';
        else if (*pattern != '[' && *pattern != ']')
            *out++ = *pattern;
    }
    *out = '\0';
}

/* Every rule of every family leads to its parameter and back, also from the bare decoder's name. */
static void test_rules_there_and_back(void **state)
{
    (void)state;
    for (size_t f = 0; tg_families[f]; f++)
        for (const struct tg_name_rule *r = tg_families[f]->names; r->source; r++) {
            char source[TG_NAME_SIZE], canonical[TG_NAME_SIZE], out[TG_NAME_SIZE];
            size_t expert = 99;
            fill_pattern(r->source, source);
            fill_pattern(r->canonical, canonical);
            assert_true(tg_name_canonical(r, source, out, sizeof out, &expert));
            assert_string_equal(out, canonical);
            assert_int_equal(expert, strstr(r->source, "{e}") ? 7 : 0);
            assert_true(tg_name_source(r, canonical, 7, out, sizeof out));
            assert_string_equal(out, source);
            if (r->source[0] == '[') {
                fill_pattern(strchr(r->source, ']') + 1, source);
                assert_true(tg_name_canonical(r, source, out, sizeof out, &expert));
                assert_string_equal(out, canonical);
            }
            assert_true(strstr(r->canonical, "{e}") == NULL);
        }
}

static void test_inner_names(void **state)
{
    (void)state;
    assert_string_equal(tg_name_inner("model.language_model.layers.0.a"), "layers.0.a");
    assert_string_equal(tg_name_inner("language_model.model.norm.weight"), "model.norm.weight");
    assert_string_equal(tg_name_inner("language_model.lm_head.weight"), "lm_head.weight");
    assert_string_equal(tg_name_inner("lm_head.weight"), "lm_head.weight");
    assert_string_equal(tg_name_inner("model.layers.0.a"), "model.layers.0.a");
    assert_true(tg_name_beyond("model.layers.{+}.*", "model.layers.61.eh_proj.weight", 61));
    assert_true(tg_name_beyond("model.layers.{+}.*", "model.layers.62.a", 61));
    assert_false(tg_name_beyond("model.layers.{+}.*", "model.layers.60.eh_proj.weight", 61));
    assert_false(tg_name_beyond("model.layers.{+}.*", "model.layers.x.a", 61));
    assert_false(tg_name_beyond("model.layers.{+}.*", "model.layers.061.a", 61));
    assert_false(tg_name_beyond("model.layers.{+}.*", "layers.61.a", 61));
    assert_false(tg_name_beyond("*.bias", "a.bias", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixer_parameters),
        cmocka_unit_test(test_parameter_table),
        cmocka_unit_test(test_spec_check),
        cmocka_unit_test(test_state_too_large),
        cmocka_unit_test(test_registry),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_rules_there_and_back),
        cmocka_unit_test(test_inner_names),
    };
    return tg_run_tests("convert", tests, sizeof tests / sizeof *tests);
}
