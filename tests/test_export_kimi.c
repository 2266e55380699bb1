/* Exports as Kimi Linear: the family's own checkpoints again, hybrids without softmax, and a reason
 * for everything that cannot be said. */
#include <string.h>

#include "base/mem.h"
#include "tests/check.h"
#include "tests/export_bench.h"
#include "tests/scratch.h"
#include "tests/small_model.h"
#include "tests/specs.h"

#define TARGET "kimi_linear"
static const char planned[] = "kda,rotary=false,conv=4";

static struct tg_model *load(const char *name)
{
    const struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = 1};
    struct tg_model *m;
    struct tg_err err = {0};

    tg_test_must(tg_model_load(&m, name, &ctx, &err), &err);
    return m;
}

/* Latent attention, dense mlps and experts */
static void test_again(void **state)
{
    static const char *const names[] = {"tests/data/families/kimi_linear",
                                        "tests/data/families/kimi_linear__moe"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tg_model *m = load(names[i]);
        assert_below(tg_bench_export(m, TARGET, TG_F32), 1e-5, names[i]);
        assert_below(tg_bench_export_rounded(m, TARGET, TG_BF16), 1e-5, names[i]);
        tg_model_free(m);
    }
}

/* Experts whose numbers are not the class's own */
static void test_experts(void **state)
{
    struct tg_model *m = load("tests/data/families/kimi_linear__moe");
    struct tg_moe_spec *moe = &m->spec.layers[0].moe;
    (void)state;
    moe->scale = 1;
    moe->renormalise = false;
    moe->per_token = 1;
    moe->groups_kept = 2;
    assert_below(tg_bench_export(m, TARGET, TG_F32), 1e-5, "experts");
    tg_model_free(m);
}

static void test_hybrid(void **state)
{
    static const char *const edits[][5] = {
        {NULL},
        {"num_key_value_heads", "4", "tie_word_embeddings", "false", NULL},
        {"rms_norm_eps", "1e-6", "vocab_size", "97", NULL},
        {"head_dim", "12", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *config = tg_bench_config(tg_llama_config, edits[i]);
        struct tg_model *m =
            tg_bench_hybrid(config, i == 1 ? "kda,rotary=false,conv=3" : planned, "none", 7 + i);
        assert_below(tg_bench_export(m, TARGET, TG_F32), 1e-5, "all kda");
        assert_below(tg_bench_export_rounded(m, TARGET, TG_BF16), 1e-5, "all kda, bf16");
        tg_bench_pitfall(&m->spec, TARGET, "no layer is mla");
        tg_model_free(m);
        tg_free(config);
    }
}

/* The head of a tied model is written by itself. */
static void test_head(void **state)
{
    struct tg_model *m = tg_bench_hybrid(tg_llama_config, planned, "none", 3);
    const struct tg_block block = {&m->params, m->data};
    const struct tg_export_source in = tg_export_from_block(&m->spec, &block);
    struct tg_export x;
    struct tg_err err = {0};
    float head[96 * 32];
    (void)state;
    assert_true(m->spec.tied_head);
    tg_test_must(tg_export_begin(&x, tg_target_find(TARGET), &in, "f32", NULL, &err), &err);
    assert_false(x.spec.tied_head);
    const struct tg_param *p = tg_params_find(&x.params, "head.weight");
    assert_non_null(p);
    tg_test_must(tg_export_param(&x, (size_t)(p - x.params.items), head, &err), &err);
    assert_memory_equal(head, tg_model_param(m, "embed.weight"), sizeof head);
    tg_export_end(&x);
    tg_model_free(m);
}

/* A bias of one latent layer alone: the other's is zero. */
static void test_some_biases(void **state)
{
    struct tg_model *m = load("tests/data/families/kimi_linear");
    const struct tg_block block = {&m->params, m->data};
    struct tg_export_source in = tg_export_from_block(&m->spec, &block);
    struct tg_export x;
    struct tg_err err = {0};
    float bias[32];
    (void)state;
    m->spec.layers[1].qkv_bias = true; /* its parameters are the unbiased ones */
    tg_test_must(tg_export_begin(&x, tg_target_find(TARGET), &in, "f32", NULL, &err), &err);
    const struct tg_param *p = tg_params_find(&x.params, "layers.1.mixer.o.bias");
    assert_non_null(p);
    memset(bias, 1, sizeof bias);
    tg_test_must(tg_export_param(&x, (size_t)(p - x.params.items), bias, &err), &err);
    for (size_t i = 0; i < 32; i++)
        assert_true(bias[i] == 0);
    tg_export_end(&x);
    tg_model_free(m);
}

/* Layer 0 is latent attention with experts, layer 1 kda. */
struct fault {
    const char *says;
    void (*make)(struct tg_model_spec *s, struct tg_layer_spec *kda, struct tg_layer_spec *mla);
};
#define FAULT(name, what)                                                                          \
    static void name(struct tg_model_spec *s, struct tg_layer_spec *k, struct tg_layer_spec *m)    \
    {                                                                                              \
        (void)s, (void)k, (void)m;                                                                 \
        what;                                                                                      \
    }
FAULT(norms, s->norm.plus_one = true)
FAULT(factor, s->logit_scale = 0.5)
FAULT(branches, k->mixer_scale = 0.5)
FAULT(residual, k->residual = TG_RESIDUAL_POST)
FAULT(gelu, k->activation = TG_ACT_GELU)
FAULT(softmax, m->mixer = tg_mixer_schema_find("softmax"))
FAULT(window, k->window = 4)
FAULT(rotary, k->rotary_dim = 8)
FAULT(biased, k->qkv_bias = true)
FAULT(shared_keys, k->kv_heads = 2; k->value_heads = 2)
FAULT(no_conv, k->recurrent.conv = 0)
FAULT(rank, k->recurrent.rank = 4)
FAULT(negative, k->recurrent.negative_eigenvalues = true)
FAULT(norm_eps, k->recurrent.norm_eps = 1e-3)
FAULT(sizes, *m = *k; m->recurrent.conv = 4)
FAULT(mla_rotary, s->ropes[0].kind = TG_ROPE_DEFAULT)
FAULT(mla_window, m->window = 4)
FAULT(mla_capped, m->attn_softcap = 30)
FAULT(mla_scale, m->attn_scale = 1)
FAULT(mla_eps, m->latent_eps = 1e-5)
FAULT(mla_sizes, *k = *m; m->kv_rank = 12)
FAULT(router, m->moe.router = TG_ROUTER_SOFTMAX_TOP)
FAULT(expert_bias, m->moe.expert_bias = true)
FAULT(shared_gate, m->moe.shared_gate = true)
FAULT(shared_part, m->moe.shared_dim = 30)
FAULT(other_experts, k->moe = m->moe; m->moe.scale = 1.5)
FAULT(mlp_dim, m->moe.experts = 0; m->mlp_dim = 40)
#undef FAULT

static const struct fault faults[] = {
    {"the factor of norms is 1 + weight", norms},
    {"embeddings or logits have a factor", factor},
    {"layer 1: its branches have factors", branches},
    {"layer 1: its residual is \"post\"", residual},
    {"layer 1: its activation is gelu", gelu},
    {"its mixer is softmax; layers are kda, or latent attention (mla)", softmax},
    {"layer 1: it sees a window", window},
    {"layer 1: it has rotary positions; plan its layers with rotary=false", rotary},
    {"layer 1: its projections have biases", biased},
    {"layer 1: it has fewer keys than queries", shared_keys},
    {"layer 1: it has no short convolution", no_conv},
    {"layer 1: the rank of its gates", rank},
    {"layer 1: its states have negative eigenvalues", negative},
    {"layer 1: its norm has an epsilon of its own", norm_eps},
    {"its sizes are not those of the first kda layer", sizes},
    {"it has rotary positions", mla_rotary},
    {"it sees a window", mla_window},
    {"its scores are capped", mla_capped},
    {"its scores have a scale of their own", mla_scale},
    {"the epsilon of its latents' norms is not 1e-6", mla_eps},
    {"its sizes are not those of the first mla layer", mla_sizes},
    {"its router is not one of sigmoids with a correction", router},
    {"its experts have biases", expert_bias},
    {"its shared expert has a gate", shared_gate},
    {"its shared expert is no whole number of experts", shared_part},
    {"its experts are not those of the first such layer", other_experts},
    {"layer 1: its mlp has size 48, another one 40", mlp_dim},
};

static void test_refused(void **state)
{
    struct tg_model *m = load("tests/data/families/kimi_linear__moe");
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
    tg_bench_pitfall(&m->spec, TARGET, "layer 1: its mlp is dense after one of experts");
    m->spec.layers[1].moe = m->spec.layers[0].moe;
    tg_target_find(TARGET)->pitfalls(&m->spec, &none);
    assert_int_equal(none.count, 0);
    tg_model_free(m);
}

static void test_plan(void **state)
{
    const struct tg_target *t = tg_target_find(TARGET);
    struct tg_model_spec spec = tg_spec_with("llama", NULL, NULL);
    struct tg_err err = {0};
    char text[128] = "";
    (void)state;
    tg_test_must(t->plan(&spec, NULL, text, sizeof text, &err), &err);
    assert_string_equal(text, planned);
    assert_int_equal(t->plan(&spec, "gla", text, sizeof text, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "must be kda"));
    spec.norm.plus_one = true;
    assert_int_equal(t->plan(&spec, NULL, text, sizeof text, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "1 + weight"));
    tg_spec_release(&spec);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_some_biases),
        cmocka_unit_test(test_refused),
        cmocka_unit_test_teardown(test_plan, tg_scratch_remove),
    };
    if (!tg_scratch_make("export_kimi"))
        return 1;
    return tg_run_tests("export_kimi", tests, sizeof tests / sizeof *tests);
}
