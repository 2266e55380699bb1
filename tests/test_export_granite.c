/* Exports as Granite 4 hybrid: the same model read back from the file, biases that only some layers
 * have, and a reason for everything that cannot be said. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"
#include "tests/export_bench.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "tests/specs.h"
#include "tools/groups.h"

#define TARGET "granitemoehybrid"
enum { MOST = 6 };
static const char llama3[] = "{\"rope_type\":\"llama3\",\"rope_theta\":5e5,\"factor\":4,"
                             "\"low_freq_factor\":1,\"high_freq_factor\":4,"
                             "\"original_max_position_embeddings\":32}";
static const char yarn[] = "{\"rope_type\":\"yarn\",\"rope_theta\":5e5,\"factor\":4,"
                           "\"original_max_position_embeddings\":32,\"truncate\":false}";
static const char dynamic[] = "{\"rope_type\":\"dynamic\",\"rope_theta\":5e5,\"factor\":2}";
static const char linear[] = "{\"rope_type\":\"linear\",\"rope_theta\":5e5,\"factor\":2}";
static const char longrope[] = "{\"rope_type\":\"longrope\",\"rope_theta\":5e5,\"factor\":4,"
                               "\"original_max_position_embeddings\":16,"
                               "\"short_factor\":[1,1.5,2,2.5],\"long_factor\":[1,2,3,4]}";
static const char portable[] = "mamba2,groups=1,expand=2,conv=4";

struct model {
    const char *what, *mixer, *keep;
    const char *edits[2 * MOST + 1]; /* of the small Llama config */
};
static const struct model models[] = {
    {"a teacher", NULL, NULL, {NULL}},
    {"grouped heads, tied", portable, "1", {NULL}},
    {"heads alone, untied",
     portable,
     "0",
     {"num_key_value_heads", "4", "tie_word_embeddings", "false", NULL}},
    {"one kv head, odd vocabulary",
     portable,
     "1,2",
     {"num_key_value_heads", "1", "vocab_size", "97", NULL}},
    {"biases", portable, "2", {"model_type", "\"qwen2\"", NULL}},
    {"biases of all", portable, "2", {"attention_bias", "true", NULL}},
    {"no biases of mamba2", "mamba2,groups=1,bias=false", "1", {NULL}},
    {"channels as wide as the model", "mamba2,groups=1", "1", {NULL}},
    {"groups, wide", "mamba2,groups=4,expand=3,conv=3", "0", {NULL}},
    {"no softmax", portable, "none", {NULL}},
    {"llama3", portable, "1", {"rope_scaling", llama3, NULL}},
    {"yarn", portable, "1", {"rope_scaling", yarn, NULL}},
    {"dynamic", portable, "1", {"rope_scaling", dynamic, NULL}},
    {"linear", portable, "1", {"rope_scaling", linear, NULL}},
    {"longrope", portable, "1", {"rope_scaling", longrope, NULL}},
    {"epsilon, ends",
     portable,
     "1",
     {"rms_norm_eps", "1e-6", "eos_token_id", "[2,5]", "bos_token_id", "1", NULL}},
    {"multipliers",
     portable,
     "1",
     {"model_type", "\"granite\"", "embedding_multiplier", "12", "logits_scaling", "7",
      "residual_multiplier", "0.22", "attention_multiplier", "0.3", NULL}},
};
enum { MODELS = sizeof models / sizeof *models };

static struct tg_model *make(const struct model *c, uint64_t seed)
{
    char *config = tg_bench_config(tg_llama_config, c->edits);
    struct tg_model *m = tg_bench_hybrid(config, c->mixer, c->keep, seed);
    tg_free(config);
    return m;
}

static void test_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        struct tg_model *m = make(&models[i], 7 + i);
        assert_below(tg_bench_export(m, TARGET, TG_F32), 1e-5, models[i].what);
        assert_below(tg_bench_export_rounded(m, TARGET, TG_BF16), 1e-5, models[i].what);
        tg_model_free(m);
    }
}

/* A file of this architecture is written again as it was. */
static void test_again(void **state)
{
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    struct tg_model *m;
    struct tg_err err = {0};
    (void)state;
    tg_test_must(tg_model_load(&m, "tests/data/families/granitemoehybrid", &ctx, &err), &err);
    assert_below(tg_bench_export(m, TARGET, TG_F32), 1e-5, "the family's own");
    tg_model_free(m);
}

/* Layers with a bias and layers without: what is missing is zero. */
static void test_some_biases(void **state)
{
    struct tg_model *m = make(&models[4], 3);
    struct tg_export_source in;
    struct tg_export x;
    struct tg_err err = {0};
    const struct tg_block block = {&m->params, m->data};
    float o[32], q[32];
    (void)state;
    in = tg_export_from_block(&m->spec, &block);
    tg_test_must(tg_export_begin(&x, tg_target_find(TARGET), &in, "f32", NULL, &err), &err);
    const struct tg_param *p = tg_params_find(&x.params, "layers.2.mixer.o.bias");
    assert_non_null(p);
    assert_null(tg_params_find(&m->params, p->name));
    o[5] = 1;
    tg_test_must(tg_export_param(&x, (size_t)(p - x.params.items), o, &err), &err);
    for (size_t i = 0; i < 32; i++)
        assert_true(o[i] == 0);
    p = tg_params_find(&x.params, "layers.2.mixer.q.bias");
    tg_test_must(tg_export_param(&x, (size_t)(p - x.params.items), q, &err), &err);
    assert_memory_equal(q, tg_model_param(m, p->name), sizeof q);
    /* a parameter that is no bias is never made up */
    struct tg_param lost = *p;
    snprintf(lost.name, sizeof lost.name, "layers.2.mixer.none.weight");
    assert_int_equal(tg_target_find(TARGET)->fill(&x, &lost, q, &err), TG_ERR_MISMATCH);
    tg_export_end(&x);
    tg_model_free(m);
}

/* Layer 1 of three is softmax, the others mamba2. */
struct fault {
    const char *says;
    void (*make)(struct tg_model_spec *s, struct tg_layer_spec *softmax,
                 struct tg_layer_spec *mamba);
};
#define FAULT(name, what)                                                                          \
    static void name(struct tg_model_spec *s, struct tg_layer_spec *l, struct tg_layer_spec *m)    \
    {                                                                                              \
        (void)s, (void)l, (void)m;                                                                 \
        what;                                                                                      \
    }
FAULT(layer_norm, s->norm.kind = TG_NORM_LAYER)
FAULT(plus_one, s->norm.plus_one = true)
FAULT(bare, s->norm.bare = true)
FAULT(norm_bias, s->norm.bias = true)
FAULT(no_norm_out, s->no_norm_out = true)
FAULT(head_bias, s->head_bias = true)
FAULT(capped, s->logit_softcap = 30)
FAULT(embed_dim, s->embed_dim = 8)
FAULT(learned, s->learned_positions = 64)
FAULT(embed_scale, s->embed_scale = 1e7)
FAULT(no_divisor, s->logit_scale = 1e-300)
FAULT(logit_scale, s->logit_scale = 1e-7)
FAULT(residual, s->layers[0].residual = TG_RESIDUAL_POST)
FAULT(experts, s->layers[0].moe.experts = 4)
FAULT(plain_mlp, s->layers[0].mlp_kind = TG_MLP_PLAIN)
FAULT(gelu, s->layers[0].activation = TG_ACT_GELU)
FAULT(mlp_dim, s->layers[2].mlp_dim = 40)
FAULT(mlp_bias, s->layers[0].mlp_bias = true)
FAULT(mlp_scaled, s->layers[0].down_scale = 2)
FAULT(branches, l->mlp_scale = 0.5)
FAULT(branch_limit, (s->layers[0].mixer_scale = s->layers[0].mlp_scale = 1e7))
FAULT(window_row, l->mixer = tg_mixer_schema_find("window"))
FAULT(other_mixer, m->mixer = tg_mixer_schema_find("gla"))
FAULT(window, l->window = 8)
FAULT(qk_norm, l->qk_norm = TG_QK_HEAD)
FAULT(sinks, l->sinks = 1)
FAULT(softcap, l->attn_softcap = 50)
FAULT(clip, l->qkv_clip = 8)
FAULT(gate, l->output_gate = true)
FAULT(value_dim, l->value_dim = 16)
FAULT(value_heads, l->value_heads = 4)
FAULT(head_dim, l->head_dim = l->rotary_dim = 16)
FAULT(other_heads, s->layers[0] = *l; s->layers[0].kv_heads = 4; s->layers[0].heads = 4)
FAULT(other_queries, s->layers[0] = *l; s->layers[0].heads = 8;
      s->layers[0].head_dim = s->layers[0].rotary_dim = 4)
FAULT(other_scale, s->layers[0] = *l; l->attn_scale = 0.5)
FAULT(scale_limit, l->attn_scale = 1e7)
FAULT(part_rotary, l->rotary_dim = 4)
FAULT(some_rotary, s->layers[0] = *l; l->rotary_dim = 0)
FAULT(two_ropes, s->layers[0] = *l; l->rope = 1)
FAULT(no_rope, s->ropes[0].kind = TG_ROPE_NONE)
FAULT(far_dynamic, s->ropes[0].kind = TG_ROPE_DYNAMIC; s->ropes[0].original_max_positions = 64)
FAULT(no_norm, m->recurrent.norm = false)
FAULT(norm_first, m->recurrent.norm_before_gate = true)
FAULT(norm_groups, m->recurrent.norm_groups = 2)
FAULT(norm_eps, m->recurrent.norm_eps = 1e-3)
FAULT(scaled, m->recurrent.scales[2] = 2)
FAULT(scaled_out, m->recurrent.out_scale = 2)
FAULT(other_sizes, s->layers[2].recurrent.state = 16)
FAULT(narrow, s->layers[0].recurrent.inner = s->layers[2].recurrent.inner = 40)
#undef FAULT

static const struct fault faults[] = {
    {"norms are LayerNorm", layer_norm},
    {"factor of norms is 1 + weight", plus_one},
    {"norms have no weights", bare},
    {"norms have biases", norm_bias},
    {"no norm before the head", no_norm_out},
    {"the head has a bias", head_bias},
    {"logits are capped", capped},
    {"embeddings have another size", embed_dim},
    {"positions are learned", learned},
    {"the factor of embeddings is 1e+07", embed_scale},
    {"the divisor of logits is 1e+300", no_divisor},
    {"the divisor of logits is 1e+07", logit_scale},
    {"layer 0: its residual is \"post\"", residual},
    {"layer 0: it has experts", experts},
    {"layer 0: its mlp is not gated", plain_mlp},
    {"layer 0: its activation is gelu", gelu},
    {"layer 2: its mlp has size 40, that of layer 0 48", mlp_dim},
    {"layer 0: its mlp has biases", mlp_bias},
    {"layer 0: its mlp has factors", mlp_scaled},
    {"layer 1: the factors of its branches are 1 and 0.5", branches},
    {"layer 0: the factor of its branches is 1e+07", branch_limit},
    {"layer 1: its mixer is window", window_row},
    {"layer 0: its mixer is gla", other_mixer},
    {"layer 1: it sees a window", window},
    {"layer 1: it has norms of q and k", qk_norm},
    {"layer 1: it has sinks", sinks},
    {"layer 1: its scores are capped", softcap},
    {"layer 1: its q, k and v are clipped", clip},
    {"layer 1: it has an output gate", gate},
    {"layer 1: its values have another size", value_dim},
    {"layer 1: it has more value than key heads", value_heads},
    {"layer 1: 4 heads of 16 are not the width, 32", head_dim},
    {"layer 1: 4 and 2 heads, another kept layer has 4 and 4", other_heads},
    {"layer 1: 4 and 2 heads, another kept layer has 8 and 2", other_queries},
    {"layer 1: scores are scaled by 0.5", other_scale},
    {"the factor of scores is 1e+07", scale_limit},
    {"layer 1: rotary positions turn 4 of 8 of a head", part_rotary},
    {"layer 1: its rotary positions are not those of the first kept layer", some_rotary},
    {"layer 1: its rotary positions are not those of the first kept layer", two_ropes},
    {"layer 1: its rotary positions are not those of the first kept layer", no_rope},
    {"layer 1: dynamic rotary positions begin at 64", far_dynamic},
    {"layer 0: it has no norm before its output projection", no_norm},
    {"layer 0: its norm comes before the gate", norm_first},
    {"layer 0: its norm has 2 groups", norm_groups},
    {"layer 0: its norm's epsilon is 0.001", norm_eps},
    {"layer 0: its projections have factors", scaled},
    {"layer 0: its projections have factors", scaled_out},
    {"layer 2: its sizes are not those of the first mamba2 layer", other_sizes},
    {"mamba2 layers have 40 channels, must be a whole multiple of the width, 32", narrow},
};

static void test_refused(void **state)
{
    struct tg_model *m = make(&models[1], 5);
    struct tg_remarks none = {0};
    (void)state;
    tg_target_find(TARGET)->check(&m->spec, &none);
    assert_int_equal(none.count, 0);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct tg_model_spec bad;
        struct tg_err err = {0};
        tg_test_must(tg_spec_copy(&bad, &m->spec, &err), &err);
        faults[i].make(&bad, &bad.layers[1], &bad.layers[0]);
        tg_bench_refused(&bad, TARGET, faults[i].says);
        tg_spec_release(&bad);
    }
    tg_model_free(m);
}

static void test_pitfalls(void **state)
{
    struct tg_model *m = make(&models[8], 5), *plain = make(&models[1], 5);
    struct tg_model *teacher = make(&models[0], 1), *bare = make(&models[9], 1);
    struct tg_remarks none = {0};
    (void)state;
    tg_bench_pitfall(&m->spec, TARGET, "4 groups");
    tg_bench_pitfall(&bare->spec, TARGET, "no layer is softmax");
    plain->spec.layers[0].recurrent.dt_max = 0.1;
    plain->spec.layers[2].recurrent.dt_max = 0.1;
    tg_bench_pitfall(&plain->spec, TARGET, "have limits");
    assert_below(tg_bench_export(plain, TARGET, TG_F32), 1e-5, "an upper limit");
    plain->spec.layers[0].recurrent.dt_min = plain->spec.layers[2].recurrent.dt_min = 0.01;
    plain->spec.layers[0].recurrent.dt_max = plain->spec.layers[2].recurrent.dt_max = 0;
    tg_bench_pitfall(&plain->spec, TARGET, "have limits");
    assert_below(tg_bench_export(plain, TARGET, TG_F32), 1e-5, "a lower limit");
    tg_target_find(TARGET)->pitfalls(&teacher->spec, &none);
    assert_int_equal(none.count, 0);
    tg_model_free(teacher);
    tg_model_free(bare);
    tg_model_free(m);
    tg_model_free(plain);
}

/* What the target says of a plan makes a hybrid that fits and has no pitfalls. */
static void test_plan(void **state)
{
    const struct tg_target *t = tg_target_find(TARGET);
    struct tg_err err = {0};
    struct tg_remarks none = {0};
    char text[128] = "";
    (void)state;
    struct tg_model_spec spec = tg_spec_with("qwen2", NULL, NULL);
    tg_test_must(t->plan(&spec, NULL, text, sizeof text, &err), &err);
    struct tg_model *m =
        make(&(struct model){"planned", text, "1", {"model_type", "\"qwen2\"", NULL}}, 2);
    t->check(&m->spec, &none);
    t->pitfalls(&m->spec, &none);
    assert_int_equal(none.count, 0);
    assert_int_equal(m->spec.layers[0].recurrent.inner, 64);
    tg_test_must(t->plan(&spec, "mamba2", text, sizeof text, &err), &err);
    assert_int_equal(t->plan(&spec, "gla", text, sizeof text, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "must be mamba2"));
    spec.layers[1].qk_norm = TG_QK_HEAD;
    assert_int_equal(t->plan(&spec, NULL, text, sizeof text, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "layer 1: it has norms of q and k"));
    tg_spec_release(&spec);
    tg_model_free(m);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),        cmocka_unit_test(test_again),
        cmocka_unit_test(test_some_biases), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_pitfalls),    cmocka_unit_test_teardown(test_plan, tg_scratch_remove),
    };
    if (!tg_scratch_make("export_granite"))
        return 1;
    return tg_run_tests("export_granite", tests, sizeof tests / sizeof *tests);
}
