/* Every residual kind, norm, mlp, router, factor and kind of attention of a spec on small random
 * models: against the double reference, both ways of running, gradients of every tensor, threads.
 */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "linearize/model/model.h"
#include "tests/ref_model.h"
#include "tests/small_model.h"

/* the same sums in another order, in float32 */
static const double TOLERANCE = 1e-5;
/* a float32 gradient against central differences of the double reference */
static const double GRADIENT_TOLERANCE = 1e-5;
enum { D = 24, N = 50, LAYERS = 2, T = 26, LONG = 71 };
static const size_t ONE[] = {0, T}, RAGGED[] = {0, 40, 41, 41, LONG};

/* What differs from the plain spec */
struct row {
    const char *name;
    struct tg_model_spec model;
    struct tg_layer_spec layer;
};
#define LAYER_NORM .norm = {.kind = TG_NORM_LAYER, .bias = true}
static const struct row ROWS[] = {
    {"pre", {.width = D}, {0}},
    {"post", {.width = D}, {.residual = TG_RESIDUAL_POST}},
    {"sandwich", {.norm.plus_one = true}, {.residual = TG_RESIDUAL_SANDWICH}},
    {"parallel",
     {LAYER_NORM, .head_bias = true},
     {.residual = TG_RESIDUAL_PARALLEL,
      .mlp_kind = TG_MLP_PLAIN,
      .activation = TG_ACT_GELU,
      .mlp_bias = true}},
    {"shared",
     {.norm.kind = TG_NORM_LAYER, .tied_head = true, .logit_scale = 0.3},
     {.residual = TG_RESIDUAL_SHARED, .activation = TG_ACT_RELU}},
    {"after",
     {LAYER_NORM, .no_norm_out = true, .embed_dim = 10, .tied_head = true, .learned_positions = 90,
      .position_offset = 2},
     {.residual = TG_RESIDUAL_AFTER,
      .mlp_kind = TG_MLP_PLAIN,
      .activation = TG_ACT_RELU,
      .mlp_bias = true}},
    {"normed",
     {.width = D},
     {.residual = TG_RESIDUAL_NORMED,
      .mixer_skip = 1.3,
      .mlp_skip = 0.8,
      .mixer_scale = 0.7,
      .mlp_scale = 1.2,
      .activation = TG_ACT_GELU_TANH}},
    {"pre scaled",
     {.embed_scale = 5, .logit_scale = 0.5, .logit_softcap = 2},
     {.mixer_scale = 0.6, .mlp_scale = 0.4, .gate_scale = 1.7, .down_scale = 0.5}},
    {"post scaled",
     {.norm.kind = TG_NORM_LAYER, .norm.plus_one = true, .norm.bias = true, .head_bias = true},
     {.residual = TG_RESIDUAL_POST, .mixer_scale = 0.6, .mlp_scale = 0.4, .down_scale = 0.5}},
    {"after scaled",
     {.width = D},
     {.residual = TG_RESIDUAL_AFTER, .mixer_scale = 0.6, .mlp_scale = 0.4, .down_scale = 0.5}},
    {"parallel scaled",
     {.norm.bare = true, .embed_dim = 40, .logit_softcap = 1, .head_bias = true},
     {.residual = TG_RESIDUAL_PARALLEL, .mixer_scale = 0.6, .mlp_scale = 0.4, .down_scale = 0.5}},
    {"bare layer norm", {.norm.kind = TG_NORM_LAYER, .norm.bare = true}, {0}},
    {"squared relu",
     {.norm.kind = TG_NORM_LAYER, .norm.plus_one = true, .norm.bias = true},
     {.mlp_kind = TG_MLP_PLAIN, .activation = TG_ACT_RELU2}},
    {"clamped glu",
     {.width = D},
     {.activation = TG_ACT_CLAMPED_GLU, .mlp_bias = true, .gate_scale = 9}},
    {"no mlp", {.width = D}, {.mlp_kind = TG_MLP_NONE}},
    {"no mlp, shared", {LAYER_NORM}, {.mlp_kind = TG_MLP_NONE, .residual = TG_RESIDUAL_SHARED}},
    {"softmax, then top", {.width = D}, {.moe = {.experts = 5, .per_token = 2, .mlp_dim = 12}}},
    {"softmax, then top, renormalised",
     {.width = D},
     {.residual = TG_RESIDUAL_POST,
      .moe = {.experts = 7,
              .per_token = 3,
              .mlp_dim = 12,
              .renormalise = true,
              .scale = 1.5,
              .shared_dim = 14,
              .shared_gate = true}}},
    {"top, then softmax",
     {.width = D},
     {.activation = TG_ACT_CLAMPED_GLU,
      .moe = {.experts = 6,
              .per_token = 2,
              .mlp_dim = 12,
              .router = TG_ROUTER_TOP_SOFTMAX,
              .router_bias = true,
              .expert_bias = true}}},
    {"sigmoid with groups",
     {.width = D},
     {.mlp_scale = 0.7,
      .down_scale = 1.4,
      .moe = {.experts = 8,
              .per_token = 2,
              .mlp_dim = 12,
              .router = TG_ROUTER_SIGMOID,
              .renormalise = true,
              .correction = true,
              .scale = 2.5,
              .groups = 4,
              .groups_kept = 2,
              .shared_dim = 8}}},
    {"sigmoid",
     {.width = D},
     {.residual = TG_RESIDUAL_NORMED,
      .mlp_skip = 1.1,
      .activation = TG_ACT_GELU,
      .moe = {.experts = 5,
              .per_token = 2,
              .mlp_dim = 12,
              .router = TG_ROUTER_SIGMOID,
              .correction = true,
              .expert_bias = true,
              .shared_dim = 20,
              .shared_gate = true}}},
    {"plain experts, parallel",
     {.width = D},
     {.residual = TG_RESIDUAL_PARALLEL,
      .mlp_kind = TG_MLP_PLAIN,
      .activation = TG_ACT_RELU2,
      .moe = {.experts = 4, .per_token = 4, .mlp_dim = 12, .shared_dim = 8}}},
    {"one expert, shared norm",
     {LAYER_NORM},
     {.residual = TG_RESIDUAL_SHARED,
      .moe = {.experts = 3, .per_token = 1, .mlp_dim = 12, .shared_dim = 8, .shared_gate = true}}},
    {"q and k norms of each head", {LAYER_NORM}, {.qk_norm = TG_QK_EACH, .qk_norm_bias = true}},
    {"q and k norms of a head", {.norm.plus_one = true}, {.qk_norm = TG_QK_HEAD}},
    {"q and k norms of all heads", {.width = D}, {.qk_norm = TG_QK_WIDE, .qkv_clip = 0.8}},
    {"limited q, k and v", {.width = D}, {.qkv_clip = 0.5, .qkv_bias = true, .o_bias = true}},
    {"capped scores", {.width = D}, {.attn_softcap = 0.7, .value_dim = 4}},
    {"capped scores in a window, sinks",
     {.width = D},
     {.attn_softcap = 0.7, .value_dim = 9, .window = 5, .sinks = 1}},
    {"softmax with sinks", {.width = D}, {.sinks = 2, .value_dim = 10}},
    {"output gate", {.width = D}, {.output_gate = true, .value_dim = 4, .qkv_bias = true}},
    {"output gate of a window",
     {.width = D},
     {.output_gate = true, .window = 7, .sinks = 1, .qk_norm = TG_QK_HEAD}},
    {"no rotary", {.width = D}, {.heads = 3, .kv_heads = 1, .head_dim = 5, .value_dim = 7}},
    {"part rotary, yarn",
     {.ropes = {{.kind = TG_ROPE_YARN,
                 .factor = 4,
                 .original_max_positions = 16,
                 .beta_fast = 32,
                 .beta_slow = 1,
                 .attention_factor = 1.2}}},
     {.heads = 4, .kv_heads = 4, .head_dim = 10, .rotary_dim = 6}},
    {"latent attention",
     {.width = D},
     {.heads = 3,
      .kv_heads = 3,
      .head_dim = 10,
      .value_dim = 7,
      .rotary_dim = 4,
      .q_rank = 11,
      .kv_rank = 9,
      .latent_eps = 1e-6,
      .qkv_bias = true,
      .o_bias = true}},
    {"latent attention, straight q",
     {.width = D},
     {.heads = 2,
      .kv_heads = 2,
      .head_dim = 6,
      .value_dim = 8,
      .rotary_dim = 2,
      .kv_rank = 5,
      .latent_eps = 1e-6}},
    {"latent attention without rotary",
     {.width = D},
     {.heads = 2, .kv_heads = 2, .head_dim = 6, .value_dim = 8, .kv_rank = 5, .latent_eps = 1e-6}},
};
enum { ROW_COUNT = sizeof ROWS / sizeof *ROWS };

static void fill(struct tg_model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        struct tg_rng rng = tg_rng_make(seed, i);
        bool norm = strstr(p->name, "norm") && strstr(p->name, "weight");
        double size = p->rank >= 2 ? 1 / sqrt((double)p->shape[p->rank - 1]) : 0.2;
        double middle = norm && !m->spec.norm.plus_one ? 1 : 0;
        for (size_t j = 0; j < p->count; j++)
            m->data[p->offset + j] = (float)(middle + size * tg_rng_normal(&rng));
    }
}

static struct tg_model *model_of(const struct row *row, int threads)
{
    struct tg_layer_spec layers[LAYERS];
    struct tg_model_spec spec = row->model;
    struct tg_ctx ctx = {.k = tg_kernels_select(TG_CPU_ALL), .threads = threads};
    struct tg_err err = {0};
    struct tg_model *m;
    spec.vocab = N;
    spec.width = D;
    spec.norm.eps = 1e-5;
    spec.ropes[0].theta = 10000;
    spec.bos_id = -1;
    spec.layer_count = LAYERS;
    spec.layers = layers;
    snprintf(spec.family, sizeof spec.family, "llama");
    snprintf(spec.base_family, sizeof spec.base_family, "llama");
    for (size_t l = 0; l < LAYERS; l++) {
        layers[l] = row->layer;
        layers[l].mixer = tg_mixer_schema_find(row->layer.kv_rank  ? "mla"
                                               : row->layer.window ? "window"
                                                                   : "softmax");
        if (!layers[l].heads) {
            layers[l].heads = 4;
            layers[l].kv_heads = 2;
            layers[l].head_dim = layers[l].rotary_dim = 6;
        }
        layers[l].attn_scale = 0.4;
        if (!row->layer.moe.experts && row->layer.mlp_kind != TG_MLP_NONE)
            layers[l].mlp_dim = 20;
    }
    tg_test_must(tg_model_create(&m, &spec, &ctx, &err), &err);
    fill(m, 5);
    return m;
}

static struct tg_model *open_row(void **state, int threads)
{
    return model_of(*state, threads);
}

static float *floats(size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

static struct tg_run *fitted(const struct tg_model *m, const struct tg_batch *b, bool backward)
{
    struct tg_err err = {0};
    struct tg_run *r;
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, m, b, backward, &err), &err);
    return r;
}

static float *forward(const struct tg_model *m, const int32_t *ids, const struct tg_batch *b,
                      bool keep)
{
    struct tg_run *r = fitted(m, b, keep);
    float *hidden = floats(tg_batch_rows(b) * D);
    tg_model_forward(m, r, ids, b, hidden, keep, NULL);
    tg_run_free(r);
    return hidden;
}

/* Gradient of the mean cross-entropy of the next token over one sequence, or over all rows of a
 * batch as if it were one */
static float *gradient(const struct tg_model *m, const int32_t *ids, const struct tg_batch *b,
                       double *loss)
{
    size_t rows = tg_batch_rows(b);
    struct tg_run *r = fitted(m, b, true);
    float *hidden = floats(rows * D), *dhidden = floats(rows * D), *logits = floats(rows * N);
    float *grads = calloc(m->params.floats, sizeof *grads);
    *loss = 0;
    tg_model_forward(m, r, ids, b, hidden, true, NULL);
    tg_model_logits(m, hidden, rows, logits);
    memset(logits + (rows - 1) * N, 0, N * sizeof *logits);
    for (size_t t = 0; t + 1 < rows; t++)
        *loss += m->ctx.k->ce_row(logits + t * N, ids[t + 1], 1.0f / (float)(rows - 1), N) /
                 (double)(rows - 1);
    tg_model_logits_backward(m, hidden, logits, rows, dhidden, grads, NULL);
    tg_model_backward(m, r, ids, b, dhidden, grads, NULL);
    tg_run_free(r);
    free(hidden);
    free(dhidden);
    free(logits);
    return grads;
}

static double *in_double(const struct tg_model *m)
{
    double *data = malloc(m->params.floats * sizeof *data);
    for (size_t i = 0; i < m->params.floats; i++)
        data[i] = m->data[i];
    return data;
}

static void test_reference(void **state)
{
    struct tg_model *m = open_row(state, 1);
    struct tg_batch b = {.count = 1, .begin = ONE};
    int32_t ids[T];
    double *data = in_double(m), *want = malloc(T * N * sizeof *want);
    float *got = floats(T * N);
    tg_test_ids(ids, T, N, 1);
    tg_ref_loss(&m->spec, &m->params, data, ids, T, want);
    for (const struct tg_kernels *const *k = tg_kernels_runnable(); *k; k++) {
        m->ctx.k = *k;
        float *hidden = forward(m, ids, &b, false);
        tg_model_logits(m, hidden, T, got);
        assert_below(tg_rel_error_fd(got, want, T * N), TOLERANCE, (*k)->name);
        free(hidden);
    }
    free(data);
    free(want);
    free(got);
    tg_model_free(m);
}

/* Each tensor along its own gradient, where the loss must change at the rate |g|, and along a
 * random direction, where missing parts show */
static void test_gradients(void **state)
{
    const double step = 1e-5;
    struct tg_model *m = open_row(state, 1);
    struct tg_batch b = {.count = 1, .begin = ONE};
    int32_t ids[T];
    double *data = in_double(m), loss, want;
    tg_test_ids(ids, T, N, 1);
    float *grads = gradient(m, ids, &b, &loss);
    want = tg_ref_loss(&m->spec, &m->params, data, ids, T, NULL);
    assert_below(fabs(loss - want) / want, 1e-6, "loss");
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        const float *g = grads + p->offset;
        double *at = data + p->offset, norm = 0;
        struct tg_rng rng = tg_rng_make(3, i);
        for (size_t j = 0; j < p->count; j++)
            norm += (double)g[j] * g[j];
        norm = sqrt(norm);
        if (strstr(p->name, "correction")) {
            assert_true(norm == 0);
            continue;
        }
        if (norm < 1e-5)
            fail_msg("%s has a gradient of %g: the test sees nothing", p->name, norm);
        for (int way = 0; way < 2; way++) {
            double *u = malloc(p->count * sizeof *u), size = 0, slope = 0, value[2];
            for (size_t j = 0; j < p->count; j++) {
                u[j] = way ? tg_rng_normal(&rng) : g[j];
                size += u[j] * u[j];
            }
            for (size_t j = 0; j < p->count; j++) {
                u[j] /= sqrt(size);
                slope += u[j] * g[j];
            }
            for (int side = 0; side < 2; side++) {
                for (size_t j = 0; j < p->count; j++)
                    at[j] = m->data[p->offset + j] + (side ? -step : step) * u[j];
                value[side] = tg_ref_loss(&m->spec, &m->params, data, ids, T, NULL);
            }
            for (size_t j = 0; j < p->count; j++)
                at[j] = m->data[p->offset + j];
            assert_below(fabs((value[0] - value[1]) / (2 * step) - slope) / norm,
                         GRADIENT_TOLERANCE, p->name);
            free(u);
        }
    }
    free(grads);
    free(data);
    tg_model_free(m);
}

/* Token by token and in pieces that differ among sequences */
static void test_steps(void **state)
{
    static const size_t pieces[] = {5, 1, 0, 17, 2, 3};
    struct tg_model *m = open_row(state, 1);
    struct tg_batch b = {.count = 4, .begin = RAGGED};
    struct tg_err err = {0};
    int32_t ids[LONG];
    tg_test_ids(ids, LONG, N, 1);
    float *want = forward(m, ids, &b, false), *got = floats(LONG * D), *now = floats(LONG * D);
    for (int way = 0; way < 2; way++) {
        struct tg_cache *c;
        size_t done[4] = {0}, begin[5] = {0};
        tg_test_must(tg_cache_create(&c, m, 4, LONG, &err), &err);
        size_t rows = 0;
        for (size_t i = 0; i < LONG * D; i++)
            got[i] = NAN;
        for (size_t step = 0; rows < LONG; step++) {
            int32_t some[LONG];
            for (size_t i = 0; i < 4; i++) {
                size_t left = RAGGED[i + 1] - RAGGED[i] - done[i];
                size_t take = way ? pieces[(step + i) % 6] : 1;
                take = take < left ? take : left;
                memcpy(some + begin[i], ids + RAGGED[i] + done[i], take * sizeof *some);
                begin[i + 1] = begin[i] + take;
            }
            tg_test_must(tg_model_step(m, c, some, begin, now, NULL, &err), &err);
            rows += begin[4];
            for (size_t i = 0; i < 4; i++) {
                memcpy(got + (RAGGED[i] + done[i]) * D, now + begin[i] * D,
                       (begin[i + 1] - begin[i]) * D * sizeof *got);
                done[i] += begin[i + 1] - begin[i];
            }
        }
        assert_below(tg_rel_error_f(got, want, LONG * D), TOLERANCE, way ? "pieces" : "tokens");
        tg_cache_free(c);
    }
    free(want);
    free(got);
    free(now);
    tg_model_free(m);
}

/* The same bits for any number of threads, and whether or not backward will follow */
static void test_threads(void **state)
{
    struct tg_batch b = {.count = 4, .begin = RAGGED};
    int32_t ids[LONG];
    float *hidden[3], *kept[3], *grads[3], *logits[3];
    size_t size = 0;
    tg_test_ids(ids, LONG, N, 1);
    for (int k = 0; k < 3; k++) {
        struct tg_model *m = open_row(state, k + 1);
        double loss;
        hidden[k] = forward(m, ids, &b, false);
        kept[k] = forward(m, ids, &b, true);
        grads[k] = gradient(m, ids, &b, &loss);
        logits[k] = floats(LONG * N);
        tg_model_logits(m, hidden[k], LONG, logits[k]);
        size = m->params.floats * sizeof(float);
        tg_model_free(m);
    }
    for (int k = 0; k < 3; k++) {
        assert_memory_equal(hidden[k], hidden[0], LONG * D * sizeof(float));
        assert_memory_equal(kept[k], hidden[0], LONG * D * sizeof(float));
        assert_memory_equal(logits[k], logits[0], LONG * N * sizeof(float));
        assert_memory_equal(grads[k], grads[0], size);
    }
    for (int k = 0; k < 3; k++)
        free(hidden[k]), free(kept[k]), free(grads[k]), free(logits[k]);
}

/* Only what is wanted gets a gradient, and it is the one that it gets among all. */
static void test_wanted(void **state)
{
    struct tg_model *m = open_row(state, 1);
    struct tg_batch b = {.count = 1, .begin = ONE};
    int32_t ids[T];
    double loss;
    tg_test_ids(ids, T, N, 1);
    float *all = gradient(m, ids, &b, &loss), *hidden = floats(T * D);
    bool *wanted = calloc(m->params.count, sizeof *wanted);
    for (size_t third = 0; third < 3; third++) {
        struct tg_run *r = fitted(m, &b, true);
        float *some = calloc(m->params.floats, sizeof *some), *dhidden = floats(T * D);
        float *logits = floats(T * N);
        for (size_t i = 0; i < m->params.count; i++)
            wanted[i] = i % 3 == third;
        tg_model_forward(m, r, ids, &b, hidden, true, NULL);
        tg_model_logits(m, hidden, T, logits);
        memset(logits + (T - 1) * N, 0, N * sizeof *logits);
        for (size_t t = 0; t + 1 < T; t++)
            m->ctx.k->ce_row(logits + t * N, ids[t + 1], 1.0f / (T - 1), N);
        tg_model_logits_backward(m, hidden, logits, T, dhidden, some, wanted);
        tg_model_backward(m, r, ids, &b, dhidden, some, wanted);
        for (size_t i = 0; i < m->params.count; i++) {
            const struct tg_param *p = &m->params.items[i];
            bool tied = m->spec.tied_head && strcmp(p->name, "embed.weight") == 0;
            for (size_t j = p->offset; j < p->offset + p->count && !tied; j++)
                assert_true(some[j] == (wanted[i] ? all[j] : 0));
        }
        free(some), free(dhidden), free(logits);
        tg_run_free(r);
    }
    free(all), free(hidden), free(wanted);
    tg_model_free(m);
}

/* A text longer than learned positions allow is refused, in both ways of running. */
static void test_positions_end(void **state)
{
    static const struct row row = {
        "positions", {.learned_positions = 8, .position_offset = 2}, {0}};
    struct tg_model *m = model_of(&row, 1);
    struct tg_err err = {0};
    struct tg_run *r;
    struct tg_cache *c;
    size_t fits[] = {0, 6}, longer[] = {0, 7}, one[] = {0, 1};
    struct tg_batch a = {.count = 1, .begin = fits}, b = {.count = 1, .begin = longer};
    int32_t ids[7] = {0};
    float h[7 * D];
    (void)state;
    tg_test_must(tg_run_create(&r, &err), &err);
    tg_test_must(tg_run_fit(r, m, &a, true, &err), &err);
    assert_int_equal(tg_run_fit(r, m, &b, false, &err), TG_ERR_VALUE);
    assert_non_null(strstr(err.msg, "learned positions for 6"));
    tg_test_must(tg_cache_create(&c, m, 1, 20, &err), &err);
    tg_test_must(tg_model_step(m, c, ids, fits, h, NULL, &err), &err);
    assert_int_equal(tg_model_step(m, c, ids, one, h, NULL, &err), TG_ERR_VALUE);
    assert_int_equal(tg_cache_length(c, 0), 6);
    tg_cache_free(c);
    tg_run_free(r);
    tg_model_free(m);
}

struct seen {
    const float *h;
    size_t layer, calls;
    const struct tg_model *m;
};

static void see_hidden(void *ud, size_t index, const float *h)
{
    struct seen *s = ud;
    s->h = h;
    s->layer = index;
}

/* For POST the mixer's input is h itself; for the others its norm. */
static void see_mixer(void *ud, size_t layer, const float *x, const float *y)
{
    struct seen *s = ud;
    bool same = memcmp(x, s->h, T * D * sizeof *x) == 0;
    assert_int_equal(layer, s->layer);
    assert_int_equal(same, !tg_residual_info(s->m->spec.layers[layer].residual)->norm_in);
    assert_ptr_not_equal(x, y);
    s->calls++;
}

static void test_hooks(void **state)
{
    struct tg_model *m = open_row(state, 1);
    struct tg_batch b = {.count = 1, .begin = ONE};
    struct tg_run *r = fitted(m, &b, false);
    struct seen s = {.m = m};
    struct tg_hooks hooks = {see_mixer, see_hidden, &s};
    int32_t ids[T];
    float *hidden = floats(T * D);
    tg_test_ids(ids, T, N, 1);
    tg_model_forward(m, r, ids, &b, hidden, false, &hooks);
    assert_int_equal(s.calls, LAYERS);
    free(hidden);
    tg_run_free(r);
    tg_model_free(m);
}

static const struct {
    const char *name;
    CMUnitTestFunction run;
} CHECKS[] = {
    {"reference", test_reference}, {"gradients", test_gradients}, {"steps", test_steps},
    {"threads", test_threads},     {"wanted", test_wanted},       {"hooks", test_hooks},
};
enum { CHECK_COUNT = sizeof CHECKS / sizeof *CHECKS };

int main(void)
{
    static struct CMUnitTest tests[ROW_COUNT * CHECK_COUNT + 1];
    static char names[ROW_COUNT * CHECK_COUNT][80];
    size_t n = 0;
    for (size_t i = 0; i < ROW_COUNT; i++)
        for (size_t k = 0; k < CHECK_COUNT; k++, n++) {
            snprintf(names[n], sizeof names[n], "%s: %s", ROWS[i].name, CHECKS[k].name);
            tests[n] = (struct CMUnitTest){names[n], CHECKS[k].run, NULL, NULL, (void *)&ROWS[i]};
        }
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_positions_end);
    return tg_run_tests("blocks", tests, n);
}
