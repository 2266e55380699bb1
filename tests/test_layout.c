/* Layouts: every function of layout.h against the place of each element worked out plainly, each
 * stored element taken once; and the fixtures' parameters against their stored tensors. */
#include "tests/check.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/checkpoint.h"

/* Sizes of which none divides another where it need not */
enum { D = 7, H = 6, G = 2, K = 5, V = 3, ROT = 4, M = 9, E = 4, HEADS_GROUP = H / G };

static const struct tg_layer_spec layer = {
    .heads = H, .kv_heads = G, .head_dim = K, .value_dim = V, .rotary_dim = ROT};
/* the groups of Falcon have values of the keys' size */
static const struct tg_layer_spec square = {
    .heads = H, .kv_heads = G, .head_dim = K, .rotary_dim = ROT};

/* Where element c of row r of a parameter stands in the stored tensor; c is 0 of a bias. */
typedef size_t (*place_fn)(size_t r, size_t c, size_t columns);

static size_t at_same(size_t r, size_t c, size_t n)
{
    return r * n + c;
}
static size_t at_transposed(size_t r, size_t c, size_t n)
{
    (void)n;
    return c * M + r;
}
static size_t at_k(size_t r, size_t c, size_t n)
{
    return (H * K + r) * n + c;
}
static size_t at_v(size_t r, size_t c, size_t n)
{
    return (H * K + G * K + r) * n + c;
}
enum { ALL = H * K + G * K + G * V };
static size_t at_q_column(size_t r, size_t c, size_t n)
{
    (void)n;
    return c * ALL + r;
}
static size_t at_k_column(size_t r, size_t c, size_t n)
{
    (void)n;
    return c * ALL + H * K + r;
}
static size_t at_v_column(size_t r, size_t c, size_t n)
{
    (void)n;
    return c * ALL + H * K + G * K + r;
}
static size_t at_group(size_t group, size_t head, size_t r, size_t c, size_t n)
{
    return ((group * (HEADS_GROUP + 2) + head) * K + r % K) * n + c;
}
static size_t at_group_q(size_t r, size_t c, size_t n)
{
    return at_group(r / K / HEADS_GROUP, r / K % HEADS_GROUP, r, c, n);
}
static size_t at_group_k(size_t r, size_t c, size_t n)
{
    return at_group(r / K, HEADS_GROUP, r, c, n);
}
static size_t at_group_v(size_t r, size_t c, size_t n)
{
    return at_group(r / K, HEADS_GROUP + 1, r, c, n);
}
static size_t at_second_half(size_t r, size_t c, size_t n)
{
    return (M + r) * n + c;
}
/* j of the rotated rows: pair j % (ROT / 2), its first or second */
static size_t unpaired(size_t j)
{
    return j < ROT / 2 ? 2 * j : 2 * (j - ROT / 2) + 1;
}
static size_t at_pairs(size_t r, size_t c, size_t n)
{
    return (r / K * K + (r % K < ROT ? unpaired(r % K) : r % K)) * n + c;
}
static size_t at_pairs_of_norm(size_t r, size_t c, size_t n)
{
    (void)n;
    return at_pairs(r * K + c, 0, 1);
}
static size_t at_pairs_tail(size_t r, size_t c, size_t n)
{
    const size_t in = r % K, first = K - ROT;
    return (r / K * K + (in < first ? in : first + unpaired(in - first))) * n + c;
}
/* kv_a: M rows, of which the last ROT are rotated */
static size_t at_pairs_end(size_t r, size_t c, size_t n)
{
    return (r < M - ROT ? r : M - ROT + unpaired(r - (M - ROT))) * n + c;
}
/* experts' rows are E M, of D elements each */
static size_t at_experts_first(size_t r, size_t c, size_t n)
{
    return (r / M * 2 * M + r % M) * n + c;
}
static size_t at_experts_second(size_t r, size_t c, size_t n)
{
    return at_experts_first(r, c, n) + M * n;
}
static size_t at_gated_q(size_t r, size_t c, size_t n)
{
    return (r / K * 2 * K + r % K) * n + c;
}
static size_t at_gated_gate(size_t r, size_t c, size_t n)
{
    return (r / K * 2 * K + K + r % K) * n + c;
}

struct part {
    tg_layout_fn fn;
    place_fn place;
    int rank;
    int64_t shape[4];
};
/* One stored tensor and all that it holds */
static const struct fused {
    const char *name;
    const struct tg_layer_spec *layer;
    int rank;
    int64_t stored[4];
    struct part parts[3];
} cases[] = {
    {"same", &layer, 2, {M, D}, .parts = {{tg_layout_same, at_same, 2, {M, D}}}},
    {"squeeze", &layer, 3, {M, 1, D}, .parts = {{tg_layout_squeeze, at_same, 2, {M, D}}}},
    {"squeeze", &layer, 1, {H}, .parts = {{tg_layout_squeeze, at_same, 2, {H, 1}}}},
    {"transpose", &layer, 2, {D, M}, .parts = {{tg_layout_transpose, at_transposed, 2, {M, D}}}},
    {"qkv",
     &layer,
     2,
     {ALL, D},
     .parts = {{tg_layout_qkv_q, at_same, 2, {H * K, D}},
               {tg_layout_qkv_k, at_k, 2, {G * K, D}},
               {tg_layout_qkv_v, at_v, 2, {G * V, D}}}},
    {"qkv bias",
     &layer,
     1,
     {ALL},
     .parts = {{tg_layout_qkv_q, at_same, 1, {H * K}},
               {tg_layout_qkv_k, at_k, 1, {G * K}},
               {tg_layout_qkv_v, at_v, 1, {G * V}}}},
    {"qkv transposed",
     &layer,
     2,
     {D, ALL},
     .parts = {{tg_layout_qkv_transposed_q, at_q_column, 2, {H * K, D}},
               {tg_layout_qkv_transposed_k, at_k_column, 2, {G * K, D}},
               {tg_layout_qkv_transposed_v, at_v_column, 2, {G * V, D}}}},
    {"qkv groups",
     &square,
     2,
     {(H + 2 * G) * K, D},
     .parts = {{tg_layout_qkv_groups_q, at_group_q, 2, {H * K, D}},
               {tg_layout_qkv_groups_k, at_group_k, 2, {G * K, D}},
               {tg_layout_qkv_groups_v, at_group_v, 2, {G * K, D}}}},
    {"qkv groups bias",
     &square,
     1,
     {(H + 2 * G) * K},
     .parts = {{tg_layout_qkv_groups_q, at_group_q, 1, {H * K}},
               {tg_layout_qkv_groups_k, at_group_k, 1, {G * K}},
               {tg_layout_qkv_groups_v, at_group_v, 1, {G * K}}}},
    {"halves",
     &layer,
     2,
     {2 * M, D},
     .parts = {{tg_layout_half_first, at_same, 2, {M, D}},
               {tg_layout_half_second, at_second_half, 2, {M, D}}}},
    {"halves bias",
     &layer,
     1,
     {2 * M},
     .parts = {{tg_layout_half_first, at_same, 1, {M}},
               {tg_layout_half_second, at_second_half, 1, {M}}}},
    {"pairs", &layer, 2, {H * K, D}, .parts = {{tg_layout_pairs, at_pairs, 2, {H * K, D}}}},
    {"pairs, k", &layer, 2, {G * K, D}, .parts = {{tg_layout_pairs, at_pairs, 2, {G * K, D}}}},
    {"pairs bias", &layer, 1, {H * K}, .parts = {{tg_layout_pairs, at_pairs, 1, {H * K}}}},
    {"pairs norm", &layer, 1, {K}, .parts = {{tg_layout_pairs, at_pairs, 1, {K}}}},
    {"pairs norms", &layer, 2, {H, K}, .parts = {{tg_layout_pairs, at_pairs_of_norm, 2, {H, K}}}},
    {"pairs at the end of heads",
     &layer,
     2,
     {H * K, D},
     .parts = {{tg_layout_pairs_tail, at_pairs_tail, 2, {H * K, D}}}},
    {"pairs at the end",
     &layer,
     2,
     {M, D},
     .parts = {{tg_layout_pairs_tail, at_pairs_end, 2, {M, D}}}},
    {"pairs at the end of a bias",
     &layer,
     1,
     {M},
     .parts = {{tg_layout_pairs_tail, at_pairs_end, 1, {M}}}},
    {"pairs apart", &layer, 2, {H * K, D}, .parts = {{tg_layout_pairs, at_same, 2, {H * K, D}}}},
    {"pairs apart at the end",
     &layer,
     2,
     {M, D},
     .parts = {{tg_layout_pairs_tail, at_same, 2, {M, D}}}},
    {"experts",
     &layer,
     3,
     {E, 2 * M, D},
     .parts = {{tg_layout_experts_first, at_experts_first, 3, {E, M, D}},
               {tg_layout_experts_second, at_experts_second, 3, {E, M, D}}}},
    {"experts bias",
     &layer,
     2,
     {E, 2 * M},
     .parts = {{tg_layout_experts_first, at_experts_first, 2, {E, M}},
               {tg_layout_experts_second, at_experts_second, 2, {E, M}}}},
    {"gated",
     &square,
     2,
     {2 * H * K, D},
     .parts = {{tg_layout_gated_q, at_gated_q, 2, {H * K, D}},
               {tg_layout_gated_gate, at_gated_gate, 2, {H * K, D}}}},
    {"gated bias",
     &square,
     1,
     {2 * H * K},
     .parts = {{tg_layout_gated_q, at_gated_q, 1, {H * K}},
               {tg_layout_gated_gate, at_gated_gate, 1, {H * K}}}},
};

static size_t product(int rank, const int64_t *shape)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)shape[i];
    return n;
}

static struct tg_param param_of(int rank, const int64_t *shape)
{
    struct tg_param p = {.rank = rank, .count = product(rank, shape)};
    memcpy(p.shape, shape, sizeof p.shape);
    return p;
}

/* Copies one part out and back; marks the stored elements that it takes. */
static void check_part(const struct fused *f, const struct part *part, const float *stored,
                       float *again, unsigned *taken)
{
    const struct tg_param p = param_of(part->rank, part->shape);
    /* pairs that stay where they are lie apart already */
    const bool pairs = part->fn == tg_layout_pairs || part->fn == tg_layout_pairs_tail;
    const struct tg_model_spec spec = {.pairs_apart = pairs && part->place == at_same};
    const struct tg_layout_ask ask = {
        .spec = &spec, .layer = f->layer, .param = &p, .stored_rank = f->rank, .stored = f->stored};
    /* an expert's bias [E,M] counts as E M rows of one */
    const size_t columns =
        part->rank > 1 && part->place != at_experts_first && part->place != at_experts_second
            ? (size_t)part->shape[part->rank - 1]
        : part->rank == 3 ? (size_t)part->shape[2]
                          : 1;
    float *out = malloc(p.count * sizeof *out);
    struct tg_layout l = {0};

    part->fn(&ask, &l);
    if (l.rank != f->rank || memcmp(l.shape, f->stored, (size_t)l.rank * sizeof *l.shape) != 0)
        fail_msg("%s: asks for another shape", f->name);
    assert_int_equal(tg_layout_count(&l), p.count);
    for (size_t i = 0; i < p.count; i++)
        out[i] = -1;
    tg_layout_copy(&l, stored, out);
    for (size_t i = 0; i < p.count; i++) {
        const size_t want = part->place(i / columns, i % columns, columns);
        if (out[i] != (float)want)
            fail_msg("%s: element %zu comes from %g, not %zu", f->name, i, out[i], want);
        taken[want]++;
    }
    tg_layout_copy_back(&l, out, again);
    free(out);
}

static void test_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct fused *f = &cases[i];
        const size_t n = product(f->rank, f->stored);
        float *stored = malloc(n * sizeof *stored), *again = calloc(n, sizeof *again);
        unsigned *taken = calloc(n, sizeof *taken);
        for (size_t e = 0; e < n; e++)
            stored[e] = (float)e;
        for (int p = 0; p < 3 && f->parts[p].fn; p++)
            check_part(f, &f->parts[p], stored, again, taken);
        for (size_t e = 0; e < n; e++)
            if (taken[e] != 1 || again[e] != stored[e])
                fail_msg("%s: stored element %zu is taken %u times", f->name, e, taken[e]);
        free(stored);
        free(again);
        free(taken);
    }
}

static void test_one_expert(void **state)
{
    const int64_t shape[4] = {E, M, D}, stored[4] = {M, D};
    const struct tg_param p = param_of(3, shape);
    float one[M * D], all[E * M * D], back[M * D];

    (void)state;
    for (size_t i = 0; i < M * D; i++)
        one[i] = (float)(i + 1);
    for (size_t e = 0; e < E; e++) {
        const struct tg_layout_ask ask = {
            .layer = &layer, .param = &p, .expert = e, .stored_rank = 2, .stored = stored};
        struct tg_layout l = {0};
        memset(all, 0, sizeof all);
        tg_layout_expert(&ask, &l);
        assert_int_equal(l.rank, 2);
        assert_memory_equal(l.shape, stored, 2 * sizeof *stored);
        tg_layout_copy(&l, one, all);
        for (size_t i = 0; i < E * M * D; i++)
            assert_true(all[i] == (i / (M * D) == e ? one[i % (M * D)] : 0));
        tg_layout_copy_back(&l, all, back);
        assert_memory_equal(back, one, sizeof one);
    }
}

static float *read_tensor(const struct tg_tensor *t)
{
    struct tg_err err = {0};
    float *x = malloc(t->elements * sizeof *x);
    if (tg_tensor_read_f32(t, x, &err))
        fail_msg("%s", err.msg);
    return x;
}

static struct tg_checkpoint *must_open(const char *path)
{
    struct tg_checkpoint *c;
    struct tg_err err = {0};
    if (tg_checkpoint_open(&c, path, &err))
        fail_msg("%s", err.msg);
    return c;
}

static float *read_param(const struct tg_checkpoint *c, size_t i)
{
    struct tg_err err = {0};
    float *x = malloc(tg_checkpoint_params(c)->items[i].count * sizeof *x);
    if (tg_checkpoint_read(c, i, x, &err))
        fail_msg("%s", err.msg);
    return x;
}

static int compare_floats(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Is it part of a parameter? What a family drops is not. */
static bool is_used(const struct tg_checkpoint *c, const struct tg_tensor *t)
{
    for (size_t i = 0; i < tg_checkpoint_params(c)->count; i++) {
        size_t count;
        const struct tg_source *s = tg_checkpoint_sources(c, i, &count);
        for (size_t k = 0; k < count; k++)
            if (s[k].tensor == t)
                return true;
    }
    return false;
}

/* All values of a checkpoint but for their signs, in order of size: the same before and after. */
static void check_values(const char *path)
{
    struct tg_checkpoint *c = must_open(path);
    const struct tg_param_list *params = tg_checkpoint_params(c);
    const struct tg_tensors *tensors = tg_checkpoint_tensors(c);
    size_t stored = 0, read = 0;

    for (size_t i = 0; i < tg_tensors_count(tensors); i++)
        stored += tg_tensors_at(tensors, i)->elements;
    float *a = malloc(stored * sizeof *a), *b = malloc(stored * sizeof *b);
    stored = 0;
    for (size_t i = 0; i < tg_tensors_count(tensors); i++) {
        const struct tg_tensor *t = tg_tensors_at(tensors, i);
        if (!is_used(c, t))
            continue;
        float *x = read_tensor(t);
        memcpy(a + stored, x, t->elements * sizeof *x);
        stored += t->elements;
        free(x);
    }
    for (size_t i = 0; i < params->count; i++) {
        float *x = read_param(c, i);
        assert_true(read + params->items[i].count <= stored);
        memcpy(b + read, x, params->items[i].count * sizeof *x);
        read += params->items[i].count;
        free(x);
    }
    if (read != stored)
        fail_msg("%s: %zu values stored, %zu read", path, stored, read);
    for (size_t i = 0; i < stored; i++) {
        a[i] = fabsf(a[i]);
        b[i] = fabsf(b[i]);
    }
    qsort(a, stored, sizeof *a, compare_floats);
    qsort(b, read, sizeof *b, compare_floats);
    if (memcmp(a, b, stored * sizeof *a) != 0)
        fail_msg("%s: other values are read than stored", path);
    free(a);
    free(b);
    tg_checkpoint_close(c);
}

static void test_fixtures_whole(void **state)
{
    DIR *d = opendir("tests/data/families");
    size_t found = 0;

    (void)state;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char *path = tg_path_join("tests/data/families", e->d_name);
        if (e->d_name[0] != '.') {
            check_values(path);
            found++;
        }
        tg_free(path);
    }
    closedir(d);
    assert_true(found >= 62);
}

/* Element (expert, row, column) of a parameter and its index in the stored tensor, worked out from
 * the fixtures' sizes (width 32, 4 heads of 8, 2 kv heads) and transformers' forward passes. */
static const struct {
    const char *family, *param;
    size_t expert, row, column;
    const char *stored;
    size_t index;
} spots[] = {
    {"gpt2", "layers.1.mixer.q.weight", 0, 5, 3, "transformer.h.1.attn.c_attn.weight", 3 * 96 + 5},
    {"gpt2", "layers.1.mixer.k.weight", 0, 5, 3, "transformer.h.1.attn.c_attn.weight", 3 * 96 + 37},
    {"gpt2", "layers.1.mixer.v.weight", 0, 5, 3, "transformer.h.1.attn.c_attn.weight", 3 * 96 + 69},
    {"gpt2", "layers.1.mixer.v.bias", 0, 5, 0, "transformer.h.1.attn.c_attn.bias", 69},
    {"gpt2", "layers.1.mlp.up.weight", 0, 100, 3, "transformer.h.1.mlp.c_fc.weight", 3 * 128 + 100},
    {"gpt2", "layers.1.mlp.down.weight", 0, 3, 100, "transformer.h.1.mlp.c_proj.weight",
     100 * 32 + 3},
    {"gpt_neox", "layers.0.mixer.q.weight", 0, 21, 7,
     "gpt_neox.layers.0.attention.query_key_value.weight", 53 * 32 + 7},
    {"gpt_neox", "layers.0.mixer.k.weight", 0, 21, 7,
     "gpt_neox.layers.0.attention.query_key_value.weight", 61 * 32 + 7},
    {"gpt_neox", "layers.0.mixer.v.bias", 0, 21, 0,
     "gpt_neox.layers.0.attention.query_key_value.bias", 69},
    {"falcon", "layers.0.mixer.q.weight", 0, 21, 7,
     "transformer.h.0.self_attention.query_key_value.weight", 21 * 32 + 7},
    {"falcon", "layers.0.mixer.k.weight", 0, 5, 7,
     "transformer.h.0.self_attention.query_key_value.weight", 37 * 32 + 7},
    {"falcon", "layers.0.mixer.v.weight", 0, 5, 7,
     "transformer.h.0.self_attention.query_key_value.weight", 45 * 32 + 7},
    {"phi3", "layers.1.mixer.v.weight", 0, 3, 9, "model.layers.1.self_attn.qkv_proj.weight",
     51 * 32 + 9},
    {"phi3", "layers.1.mlp.up.weight", 0, 10, 9, "model.layers.1.mlp.gate_up_proj.weight",
     58 * 32 + 9},
    {"glm4", "layers.1.mixer.q.weight", 0, 9, 4, "model.layers.1.self_attn.q_proj.weight",
     10 * 32 + 4},
    {"glm4", "layers.1.mixer.q.weight", 0, 10, 4, "model.layers.1.self_attn.q_proj.weight",
     9 * 32 + 4},
    {"glm4", "layers.1.mixer.k.bias", 0, 13, 0, "model.layers.1.self_attn.k_proj.bias", 13},
    {"cohere", "layers.1.mixer.k.weight", 0, 9, 4, "model.layers.1.self_attn.k_proj.weight",
     10 * 32 + 4},
    {"cohere", "layers.1.mixer.k.weight", 0, 12, 4, "model.layers.1.self_attn.k_proj.weight",
     9 * 32 + 4},
    {"cohere", "layers.1.mixer.v.weight", 0, 9, 4, "model.layers.1.self_attn.v_proj.weight",
     9 * 32 + 4},
    {"helium", "layers.1.mixer.q.weight", 0, 29, 4, "model.layers.1.self_attn.q_proj.weight",
     27 * 32 + 4},
    {"gpt_oss", "layers.1.moe.gate.weight", 2, 10, 5, "model.layers.1.mlp.experts.gate_up_proj",
     (2 * 32 + 5) * 96 + 20},
    {"gpt_oss", "layers.1.moe.up.weight", 2, 10, 5, "model.layers.1.mlp.experts.gate_up_proj",
     (2 * 32 + 5) * 96 + 21},
    {"gpt_oss", "layers.1.moe.up.bias", 0, 3, 10, "model.layers.1.mlp.experts.gate_up_proj_bias",
     3 * 96 + 21},
    {"gpt_oss", "layers.1.moe.down.weight", 1, 3, 40, "model.layers.1.mlp.experts.down_proj",
     (48 + 40) * 32 + 3},
    {"gpt_oss", "layers.1.mixer.sink", 0, 3, 0, "model.layers.1.self_attn.sinks", 3},
    {"deepseek_v3", "layers.1.mixer.q_b.weight", 0, 33, 7,
     "model.layers.1.self_attn.q_b_proj.weight", 34 * 16 + 7},
    {"deepseek_v3", "layers.1.mixer.q_b.weight", 0, 31, 7,
     "model.layers.1.self_attn.q_b_proj.weight", 31 * 16 + 7},
    {"deepseek_v3", "layers.1.mixer.kv_a.weight", 0, 18, 7,
     "model.layers.1.self_attn.kv_a_proj_with_mqa.weight", 17 * 32 + 7},
    {"deepseek_v3", "layers.1.moe.up.weight", 3, 4, 9,
     "model.layers.1.mlp.experts.3.up_proj.weight", 4 * 32 + 9},
    {"mixtral", "layers.1.moe.gate.weight", 2, 4, 9,
     "model.layers.1.block_sparse_moe.experts.2.w1.weight", 4 * 32 + 9},
    {"mixtral", "layers.1.moe.down.weight", 3, 4, 9,
     "model.layers.1.block_sparse_moe.experts.3.w2.weight", 4 * 48 + 9},
    {"mixtral", "layers.1.moe.up.weight", 1, 4, 9,
     "model.layers.1.block_sparse_moe.experts.1.w3.weight", 4 * 32 + 9},
    {"qwen3_moe", "layers.0.moe.down.weight", 1, 4, 9,
     "model.layers.0.mlp.experts.1.down_proj.weight", 4 * 24 + 9},
};

static void test_fixtures_spots(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof spots / sizeof *spots; i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/data/families/%s", spots[i].family);
        struct tg_checkpoint *c = must_open(path);
        const struct tg_param_list *params = tg_checkpoint_params(c);
        const struct tg_param *p = tg_params_find(params, spots[i].param);
        const struct tg_tensor *t = tg_tensors_find(tg_checkpoint_tensors(c), spots[i].stored);
        if (!p || !t)
            fail_msg("%s: no %s", path, p ? spots[i].stored : spots[i].param);
        const size_t columns = p->rank > 1 ? (size_t)p->shape[p->rank - 1] : 1,
                     rows = p->rank > 2 ? (size_t)p->shape[1] : 0;
        float *got = read_param(c, (size_t)(p - params->items)), *want = read_tensor(t);
        const size_t at = (spots[i].expert * rows + spots[i].row) * columns + spots[i].column;
        assert_true(at < p->count && spots[i].index < t->elements);
        if (got[at] != want[spots[i].index])
            fail_msg("%s: %s [%zu] is %g, not %g", path, p->name, at, got[at],
                     want[spots[i].index]);
        free(got);
        free(want);
        tg_checkpoint_close(c);
    }
}

/* Weights with scales are those of the same checkpoint in float32, bit for bit. */
static void test_quantised(void **state)
{
    static const char *const kinds[] = {"fp8", "mxfp4"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char path[64], plain[64];
        size_t scaled = 0, count;
        snprintf(path, sizeof path, "tests/data/quantised/%s", kinds[i]);
        snprintf(plain, sizeof plain, "tests/data/quantised/%s_f32", kinds[i]);
        struct tg_checkpoint *a = must_open(path), *b = must_open(plain);
        const struct tg_param_list *params = tg_checkpoint_params(a);
        assert_int_equal(params->count, tg_checkpoint_params(b)->count);
        for (size_t p = 0; p < params->count; p++) {
            float *x = read_param(a, p), *y = read_param(b, p);
            assert_string_equal(params->items[p].name, tg_checkpoint_params(b)->items[p].name);
            if (memcmp(x, y, params->items[p].count * sizeof *x) != 0)
                fail_msg("%s: %s differs", path, params->items[p].name);
            scaled += tg_checkpoint_sources(a, p, &count)->scales != NULL;
            assert_null(tg_checkpoint_sources(b, p, &count)->scales);
            free(x);
            free(y);
        }
        assert_true(scaled >= 6);
        tg_checkpoint_close(a);
        tg_checkpoint_close(b);
    }
}

/* A copy of a quantised fixture in which one name is another of the same length, opened */
static int open_renamed(const char *kind, const char *from, const char *to, struct tg_err *err)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char dir[] = "/tmp/test_layout.XXXXXX", path[128];
    struct tg_checkpoint *c;
    int rc;

    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        char *data;
        size_t size, found = 0;
        snprintf(path, sizeof path, "tests/data/quantised/%s/%s", kind, files[i]);
        assert_int_equal(tg_file_read(path, 1 << 20, &data, &size, NULL), TG_OK);
        for (size_t at = 0; i && at + strlen(from) <= size && !found; at++)
            if (!memcmp(data + at, from, strlen(from))) {
                memcpy(data + at, to, strlen(to));
                found++;
            }
        assert_int_equal(found, i);
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        assert_int_equal(tg_file_write(path, data, size, NULL), TG_OK);
        tg_free(data);
    }
    rc = tg_checkpoint_open(&c, dir, err);
    tg_checkpoint_close(c);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        remove(path);
    }
    remove(dir);
    return rc;
}

static void test_scales_apart(void **state)
{
    static const struct {
        const char *kind, *from, *to, *fragment;
    } rows[] = {
        {"fp8", "o_proj.weight_scale_inv", "o_proj.weight_scale_xxx", "has no scales"},
        {"fp8", "1.self_attn.o_proj.weight\"", "1.self_attn.o_xxxx.weight\"",
         "o_proj.weight_scale_inv' [3,2] is unknown"},
        {"mxfp4", "down_proj_scales", "down_proj_scalex", "has no scales"},
        {"mxfp4", "down_proj_blocks", "down_proj_blockx",
         "down_proj_blockx' [2,32,2,16] is unknown"},
        {"mxfp4", "down_proj_blocks", "down_xxxx_blocks", "down_proj_scales' [2,32,2] is unknown"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_err err = {0};
        const int rc = open_renamed(rows[i].kind, rows[i].from, rows[i].to, &err);
        if (rc == TG_OK || !strstr(err.msg, rows[i].fragment))
            fail_msg("%s -> %s: %d: %s", rows[i].from, rows[i].to, rc, err.msg);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),         cmocka_unit_test(test_one_expert),
        cmocka_unit_test(test_fixtures_whole), cmocka_unit_test(test_fixtures_spots),
        cmocka_unit_test(test_quantised),      cmocka_unit_test(test_scales_apart),
    };
    return tg_run_tests("layouts", tests, sizeof tests / sizeof *tests);
}
