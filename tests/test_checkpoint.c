/* Checkpoints: the map of tensors is a bijection, values are finite, and a native hybrid reads back
 * as it was written. */
#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "convert/checkpoint.h"
#include "tests/specs.h"

static char scratch[64];

static int make_scratch(void)
{
    snprintf(scratch, sizeof scratch, "/tmp/test_checkpoint.XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static int drop_scratch(void)
{
    return tg_dir_remove(scratch, NULL);
}

static struct tg_checkpoint *must_open(const char *path)
{
    struct tg_checkpoint *c;
    struct tg_err err = {0};

    if (tg_checkpoint_open(&c, path, &err) != TG_OK)
        fail_msg("%s", err.msg);
    return c;
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = tg_path_join(dir, name);

    assert_int_equal(tg_file_write(path, text, strlen(text), NULL), TG_OK);
    tg_free(path);
}

/* Caller frees *text. */
static void read_text(const char *dir, const char *name, char **text, size_t *len)
{
    char *path = tg_path_join(dir, name);
    struct tg_err err = {0};

    if (tg_file_read(path, 1 << 24, text, len, &err) != TG_OK)
        fail_msg("%s", err.msg);
    tg_free(path);
}

/* One change to a fixture. */
struct edit {
    const char *fixture;
    enum { NONE, REMOVE, ADD, RENAME, RESHAPE, RETYPE, POISON } kind;
    const char *name, *other; /* RENAME: the new name; ADD: a copy of `name` under this name */
    enum tg_dtype dtype;      /* RETYPE */
    float value;              /* POISON: element 3 becomes this; ADD: it grows by this */
    const char *key, *json;   /* a key of the config, or NULL */
    int code;                 /* of opening, or of reading for POISON */
    const char *fragments[3]; /* of the message */
};

enum { MAX_TENSORS = 64 };

static void plan_tensor(struct tg_tensor_plan *p, const struct tg_tensor *t, const char *name)
{
    *p = (struct tg_tensor_plan){.name = name, .dtype = t->dtype, .rank = t->rank};
    memcpy(p->shape, t->shape, sizeof t->shape);
}

/* Writes the fixture with its change into `dir`. */
static void write_variant(const char *dir, const struct edit *e)
{
    struct tg_tensor_plan plan[MAX_TENSORS];
    const struct tg_tensor *from[MAX_TENSORS];
    struct tg_tensor_writer *w;
    struct tg_tensors *t;
    char path[256], *text, *config;
    size_t n = 0, len, next;
    float *data = tg_alloc_floats(1 << 16);

    snprintf(path, sizeof path, "tests/data/families/%s", e->fixture);
    read_text(path, "config.json", &text, &len);
    config = e->key ? tg_json_with(text, e->key, e->json) : tg_strdup(text);
    assert_int_equal(tg_dir_remove(dir, NULL), TG_OK);
    assert_int_equal(tg_dir_make(dir, NULL), TG_OK);
    write_text(dir, "config.json", config);
    tg_free(text);
    tg_free(config);

    assert_int_equal(tg_tensors_open(&t, path, NULL), TG_OK);
    for (size_t i = 0; i < tg_tensors_count(t); i++) {
        const struct tg_tensor *s = tg_tensors_at(t, i);
        const bool hit = e->name && !strcmp(s->name, e->name);
        if (hit && e->kind == REMOVE)
            continue;
        from[n] = s;
        plan_tensor(&plan[n], s, hit && e->kind == RENAME ? e->other : s->name);
        if (hit && e->kind == RESHAPE) { /* the same elements, the wrong way round */
            plan[n].shape[0] = s->shape[1];
            plan[n].shape[1] = s->shape[0];
        }
        if (hit && e->kind == RETYPE)
            plan[n].dtype = e->dtype;
        n++;
        if (hit && e->kind == ADD) {
            from[n] = s;
            plan_tensor(&plan[n++], s, e->other);
        }
    }
    assert_int_equal(tg_tensor_writer_open(&w, dir, plan, n, NULL, NULL), TG_OK);
    while ((next = tg_tensor_writer_next(w)) < n) {
        const struct tg_tensor *s = from[next];
        assert_true(s->elements < 1 << 16);
        assert_int_equal(tg_tensor_read_f32(s, data, NULL), TG_OK);
        if (e->kind == POISON && !strcmp(plan[next].name, e->name))
            data[3] = e->value;
        if (e->kind == ADD && !strcmp(plan[next].name, e->other))
            data[3] += e->value;
        if (tg_dtype_info(plan[next].dtype)->is_float)
            assert_int_equal(tg_tensor_writer_put_f32(w, data, NULL), TG_OK);
        else
            assert_int_equal(tg_tensor_writer_put_raw(w, data, NULL), TG_OK);
    }
    assert_int_equal(tg_tensor_writer_finish(w, NULL), TG_OK);
    tg_tensor_writer_close(w);
    tg_tensors_close(t);
    tg_free(data);
}

static int open_and_read(const char *dir, struct tg_err *err)
{
    struct tg_checkpoint *c;
    float *data = tg_alloc_floats(1 << 16);
    int rc = tg_checkpoint_open(&c, dir, err);

    if (rc == TG_OK)
        for (size_t i = 0; i < tg_checkpoint_params(c)->count && rc == TG_OK; i++)
            rc = tg_checkpoint_read(c, i, data, err);
    tg_checkpoint_close(c);
    tg_free(data);
    return rc;
}

#define L0 "model.layers.0."
#define UP L0 "mlp.up_proj.weight"

static const struct edit edits[] = {
    {.fixture = "llama"},
    {.fixture = "qwen3__sw"},
    {.fixture = "llama",
     .kind = REMOVE,
     .name = UP,
     .code = TG_ERR_MISMATCH,
     .fragments = {UP, "[48,32]", "is missing"}},
    {.fixture = "mistral",
     .kind = REMOVE,
     .name = "lm_head.weight",
     .code = TG_ERR_MISMATCH,
     .fragments = {"lm_head.weight", "[96,32]", "is missing"}},
    {.fixture = "qwen2",
     .kind = REMOVE,
     .name = L0 "self_attn.k_proj.bias",
     .code = TG_ERR_MISMATCH,
     .fragments = {L0 "self_attn.k_proj.bias", "[16]", "is missing"}},
    {.fixture = "llama",
     .kind = RENAME,
     .name = UP,
     .other = L0 "mlp.upward_proj.weight",
     .code = TG_ERR_MISMATCH,
     .fragments = {L0 "mlp.upward_proj.weight", "[48,32]", "is unknown"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = UP,
     .other = "model.layers.2.mlp.up_proj.weight",
     .code = TG_ERR_MISMATCH,
     .fragments = {"model.layers.2.mlp.up_proj.weight", "is unknown"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = "model.norm.weight",
     .other = L0 "self_attn.q_proj.bias",
     .code = TG_ERR_MISMATCH,
     .fragments = {L0 "self_attn.q_proj.bias", "[32]", "is unknown"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = "model.norm.weight",
     .other = "norm.weight",
     .code = TG_ERR_MISMATCH,
     .fragments = {"'model.norm.weight'", "'norm.weight'", "are both"}},
    {.fixture = "llama", .kind = RENAME, .name = "model.norm.weight", .other = "norm.weight"},
    {.fixture = "llama",
     .kind = RESHAPE,
     .name = UP,
     .code = TG_ERR_MISMATCH,
     .fragments = {UP, "has shape [32,48]", "asks for [48,32]"}},
    {.fixture = "llama",
     .kind = RETYPE,
     .name = UP,
     .dtype = TG_I32,
     .code = TG_ERR_FORMAT,
     .fragments = {UP, "dtype I32", "floating"}},
    {.fixture = "llama", .kind = RETYPE, .name = UP, .dtype = TG_BF16},
    {.fixture = "llama", .kind = RETYPE, .name = UP, .dtype = TG_F64},
    {.fixture = "llama",
     .kind = ADD,
     .name = UP,
     .other = L0 "mlp.up_proj.qweight",
     .code = TG_ERR_UNSUPPORTED,
     .fragments = {L0 "mlp.up_proj.qweight", "GPTQ or AWQ"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = UP,
     .other = L0 "mlp.up_proj.SCB",
     .code = TG_ERR_UNSUPPORTED,
     .fragments = {"SCB", "bitsandbytes"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = UP,
     .other = L0 "mlp.up_proj.weight_scale_inv",
     .code = TG_ERR_UNSUPPORTED,
     .fragments = {"weight_scale_inv", "fp8"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = "model.norm.weight",
     .other = L0 "self_attn.rotary_emb.inv_freq"},
    {.fixture = "llama",
     .kind = ADD,
     .name = "model.embed_tokens.weight",
     .other = "lm_head.weight"},
    {.fixture = "llama",
     .kind = ADD,
     .name = "model.embed_tokens.weight",
     .other = "lm_head.weight",
     .value = 1,
     .code = TG_ERR_MISMATCH,
     .fragments = {"lm_head.weight", "differs from the embedding", "element 3"}},
    {.fixture = "llama",
     .kind = ADD,
     .name = "model.norm.weight",
     .other = "lm_head.weight",
     .code = TG_ERR_MISMATCH,
     .fragments = {"lm_head.weight", "has shape [32]", "[96,32]"}},
    {.fixture = "llama",
     .kind = POISON,
     .name = UP,
     .value = NAN,
     .code = TG_ERR_VALUE,
     .fragments = {UP, "NaN", "element 3"}},
    {.fixture = "llama",
     .kind = POISON,
     .name = "model.embed_tokens.weight",
     .value = -INFINITY,
     .code = TG_ERR_VALUE,
     .fragments = {"model.embed_tokens.weight", "infinity", "element 3"}},
    {.fixture = "llama",
     .key = "num_hidden_layers",
     .json = "1",
     .code = TG_ERR_MISMATCH,
     .fragments = {"model.layers.1.", "is unknown"}},
    {.fixture = "llama",
     .key = "num_hidden_layers",
     .json = "3",
     .code = TG_ERR_MISMATCH,
     .fragments = {"model.layers.2.", "is missing"}},
    {.fixture = "llama",
     .key = "hidden_size",
     .json = "64",
     .code = TG_ERR_MISMATCH,
     .fragments = {"model.embed_tokens.weight", "[96,32]", "[96,64]"}},
    {.fixture = "llama",
     .key = "quantization_config",
     .json = "{\"quant_method\":\"awq\"}",
     .code = TG_ERR_UNSUPPORTED,
     .fragments = {"config.json", "awq"}},
};

static void test_bijection(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        const struct edit *e = &edits[i];
        struct tg_err err = {0};
        char dir[128];
        int rc;

        snprintf(dir, sizeof dir, "%s/variant", scratch);
        write_variant(dir, e);
        rc = open_and_read(dir, &err);
        if (rc != e->code)
            fail_msg("edit %zu: got %d (%s), wanted %d", i, rc, err.msg, e->code);
        for (size_t f = 0; f < 3 && e->fragments[f]; f++)
            if (!strstr(err.msg, e->fragments[f]) || !strstr(err.msg, dir))
                fail_msg("edit %zu: %s\nwanted ...%s...", i, err.msg, e->fragments[f]);
    }
}

static void test_no_model(void **state)
{
    struct tg_checkpoint *c;
    struct tg_err err = {0};
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/nothing", scratch);
    assert_int_equal(tg_checkpoint_open(&c, path, &err), TG_ERR_IO);
    assert_non_null(strstr(err.msg, "no such file or directory"));
    write_text(scratch, "file", "x");
    snprintf(path, sizeof path, "%s/file", scratch);
    assert_int_equal(tg_checkpoint_open(&c, path, &err), TG_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "not a directory"));
    snprintf(path, sizeof path, "%s/empty", scratch);
    assert_int_equal(tg_dir_make(path, NULL), TG_OK);
    assert_int_equal(tg_checkpoint_open(&c, path, &err), TG_ERR_IO);
    assert_non_null(strstr(err.msg, "config.json"));
}

/* Each stored tensor of every fixture is the source of one parameter, with its values. */
static void test_fixtures(void **state)
{
    static const char *const names[] = {
        "llama", "llama__rope3_untied_bias", "llama__headdim", "mistral",        "mistral__headdim",
        "qwen2", "qwen2__headdim",           "qwen3",          "qwen3__headdim", "qwen3__sw"};

    (void)state;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        const struct tg_param_list *list;
        struct tg_checkpoint *c;
        char path[128];

        snprintf(path, sizeof path, "tests/data/families/%s", names[n]);
        c = must_open(path);
        assert_string_equal(tg_checkpoint_path(c), path);
        list = tg_checkpoint_params(c);
        assert_int_equal(list->count, tg_tensors_count(tg_checkpoint_tensors(c)));
        for (size_t i = 0; i < list->count; i++) {
            size_t sources;
            const struct tg_tensor *t = tg_checkpoint_sources(c, i, &sources)->tensor;
            float *data = tg_alloc_floats(list->items[i].count);
            assert_int_equal(sources, 1);
            assert_int_equal(t->elements, list->items[i].count);
            assert_int_equal(t->dtype, TG_F32);
            assert_int_equal(tg_checkpoint_read(c, i, data, NULL), TG_OK);
            assert_memory_equal(data, t->data, t->bytes);
            tg_free(data);
        }
        tg_checkpoint_close(c);
    }
}

static void test_hash(void **state)
{
    static const char *const files[] = {"config.json", "tokenizer.json",
                                        "model-00001-of-00002.safetensors",
                                        "model-00002-of-00002.safetensors"};
    struct tg_checkpoint *c = must_open("examples/teacher-8m");
    char want[65], got[65], *all = NULL;
    size_t len = 0, cap = 0;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        size_t n;
        char *text;

        read_text("examples/teacher-8m", files[i], &text, &n);
        assert_true(tg_grow(&all, &cap, len + n, 1));
        memcpy(all + len, text, n);
        len += n;
        tg_free(text);
    }
    tg_sha256(all, len, want);
    assert_int_equal(tg_checkpoint_hash(c, got, NULL), TG_OK);
    assert_string_equal(got, want);
    tg_free(all);
    tg_checkpoint_close(c);
}

static void test_out_of_memory(void **state)
{
    struct tg_checkpoint *c;
    struct tg_err err = {0};
    long n = 0;
    int rc;

    (void)state;
    do {
        tg_mem_fail_after(++n);
        rc = tg_checkpoint_open(&c, "tests/data/families/qwen2", &err);
        tg_mem_fail_after(0);
        assert_true(rc == TG_OK || (rc == TG_ERR_NOMEM && !c));
    } while (rc != TG_OK);
    assert_true(n > 5);
    tg_checkpoint_close(c);
}

/* A hybrid of qwen3 shape with every mixer, fields all different from what they could default to */
static struct tg_model_spec hybrid(void)
{
    static const struct {
        const char *mixer;
        size_t window, sinks, features;
        enum tg_feature_map map;
        bool gated;
    } rows[] = {
        {"softmax", 0, 0, 0, TG_MAP_HEDGEHOG_SOFTMAX, false},
        {"window", 5, 0, 0, TG_MAP_HEDGEHOG_SOFTMAX, false},
        {"window", 1000000007, 3, 0, TG_MAP_HEDGEHOG_SOFTMAX, false},
        {"gated_window", 128, 1, 6, TG_MAP_HEDGEHOG_SOFTMAX, false},
        {"gated_window", 9, 0, 0, TG_MAP_RELU, false},
        {"lolcats", 64, 0, 7, TG_MAP_HEDGEHOG_EXP, false},
        {"lolcats", 64, 4, 7, TG_MAP_HEDGEHOG_EXP, true},
        {"lizard", 17, 4, 8, TG_MAP_IDENTITY, false},
        {"lizard", 17, 0, 8, TG_MAP_ELU1, false},
    };
    enum { LAYERS = sizeof rows / sizeof *rows };
    struct tg_model_spec s = {.family = "qwen3",
                              .base_family = "qwen3",
                              .vocab = 37,
                              .width = 20,
                              .norm.eps = 1.0 / 3e5,
                              .tied_head = false,
                              .max_positions = 777,
                              .bos_id = 5,
                              .eos_ids = {1, 36},
                              .eos_count = 2,
                              .ropes = {{TG_ROPE_LLAMA3, 500000.1, 8, 1.1, 4.3, 8192}},
                              .layer_count = LAYERS};

    s.layers = tg_alloc_array(LAYERS, sizeof *s.layers);
    for (size_t i = 0; i < LAYERS; i++)
        s.layers[i] = (struct tg_layer_spec){.mixer = tg_mixer_schema_find(rows[i].mixer),
                                             .heads = 4,
                                             .kv_heads = i % 2 ? 2 : 1,
                                             .head_dim = 6,
                                             .rotary_dim = i == 3 ? 0 : 6,
                                             .window = rows[i].window,
                                             .sinks = rows[i].sinks,
                                             .feature_dim = rows[i].features,
                                             .feature_map = rows[i].map,
                                             .gated = rows[i].gated,
                                             .qkv_bias = i % 3 == 0,
                                             .o_bias = i % 3 == 1,
                                             .qk_norm = i % 4 == 2,
                                             .attn_scale = 0.1 + (double)i / 3,
                                             .mlp_dim = 9 + i,
                                             .mlp_bias = i % 5 == 0};
    return s;
}

static float *random_params(const struct tg_param_list *list)
{
    float *data = tg_alloc_floats(list->floats);
    struct tg_rng r = tg_rng_make(3, 7);

    for (size_t i = 0; i < list->floats; i++)
        data[i] = (float)tg_rng_normal(&r);
    return data;
}

static const struct tg_native_meta meta = {"tegu hybridize \"A\" B", "9.8.7", 18446744073709551615u,
                                           "00ff", "some-teacher"};

static void check_native(enum tg_dtype dtype, uint64_t max_shard, size_t files)
{
    struct tg_model_spec spec = hybrid();
    struct tg_param_list list;
    struct tg_checkpoint *c;
    struct tg_err err = {0};
    float *data, *back;
    char dir[128];

    assert_int_equal(tg_params_of(&spec, &list, &err), TG_OK);
    data = random_params(&list);
    back = tg_alloc_floats(list.floats);
    snprintf(dir, sizeof dir, "%s/native-%d-%d", scratch, (int)dtype, (int)max_shard);
    assert_int_equal(tg_dir_make(dir, NULL), TG_OK);
    if (tg_native_write(dir, &spec, data, dtype, max_shard, "examples/teacher-8m", &meta, &err))
        fail_msg("%s", err.msg);

    c = must_open(dir);
    assert_null(tg_spec_difference(&spec, tg_checkpoint_spec(c)));
    assert_string_equal(tg_checkpoint_spec(c)->family, "tegu");
    assert_int_equal(tg_tensors_file_count(tg_checkpoint_tensors(c)), files);
    assert_null(tg_tensors_meta(tg_checkpoint_tensors(c), "tegu.command"));
    assert_string_equal(tg_tensors_meta(tg_checkpoint_tensors(c), "tegu.seed"),
                        "18446744073709551615");
    assert_string_equal(tg_tensors_meta(tg_checkpoint_tensors(c), "tegu.teacher_hash"), "00ff");
    for (size_t i = 0; i < list.count; i++) {
        const size_t n = list.items[i].count;
        float *want = tg_alloc_floats(n);
        uint16_t *half = tg_alloc_array(n, sizeof(float));

        assert_string_equal(list.items[i].name, tg_checkpoint_params(c)->items[i].name);
        size_t sources;
        assert_int_equal(tg_checkpoint_sources(c, i, &sources)->tensor->dtype, dtype);
        assert_int_equal(tg_checkpoint_read(c, i, back, &err), TG_OK);
        tg_dtype_from_f32(dtype, data + list.items[i].offset, half, n);
        tg_dtype_to_f32(dtype, half, want, n);
        assert_memory_equal(back, want, n * sizeof *want);
        tg_free(want);
        tg_free(half);
    }
    tg_checkpoint_close(c);
    tg_free(data);
    tg_free(back);
    tg_params_release(&list);
    tg_spec_release(&spec);
}

static void test_native_round_trip(void **state)
{
    static const char *const same[] = {"tokenizer.json", "tokenizer_config.json",
                                       "generation_config.json"};
    char dir[128];

    (void)state;
    check_native(TG_F32, 0, 1);
    check_native(TG_BF16, 0, 1);
    check_native(TG_F16, 0, 1);
    check_native(TG_BF16, 20000, 3);
    snprintf(dir, sizeof dir, "%s/native-%d-0", scratch, (int)TG_BF16);
    for (size_t i = 0; i < 3; i++) {
        size_t n, m;
        char *a, *b;

        read_text("examples/teacher-8m", same[i], &a, &n);
        read_text(dir, same[i], &b, &m);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        tg_free(a);
        tg_free(b);
    }
    snprintf(dir, sizeof dir, "%s/native-%d-0/merges.txt", scratch, (int)TG_BF16);
    assert_false(tg_path_exists(dir));
}

/* A value that the dtype cannot hold is refused by the parameter's name. */
static void test_native_values(void **state)
{
    static const struct {
        float value;
        enum tg_dtype dtype;
        int code;
    } rows[] = {
        {NAN, TG_F32, TG_ERR_VALUE},   {INFINITY, TG_BF16, TG_ERR_VALUE},
        {65519, TG_F16, TG_OK},        {-65520, TG_F16, TG_ERR_VALUE},
        {3.3895e38f, TG_BF16, TG_OK},  {3.4e38f, TG_BF16, TG_ERR_VALUE},
        {-3.4e38f, TG_F32, TG_OK},     {1, TG_F64, TG_ERR_VALUE},
        {1, TG_F8_E4M3, TG_ERR_VALUE},
    };
    struct tg_model_spec spec = hybrid();
    struct tg_param_list list;
    size_t at;
    float *data;

    (void)state;
    assert_int_equal(tg_params_of(&spec, &list, NULL), TG_OK);
    data = random_params(&list);
    at = tg_params_find(&list, "layers.3.mixer.far_logit")->offset + 2;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct tg_err err = {0};
        char dir[128];

        snprintf(dir, sizeof dir, "%s/values-%zu", scratch, i);
        assert_int_equal(tg_dir_make(dir, NULL), TG_OK);
        data[at] = rows[i].value;
        assert_int_equal(
            tg_native_write(dir, &spec, data, rows[i].dtype, 0, "examples/teacher-8m", &meta, &err),
            rows[i].code);
        if (rows[i].code && rows[i].value != 1)
            assert_non_null(strstr(err.msg, "layers.3.mixer.far_logit"));
        if (!rows[i].code)
            tg_checkpoint_close(must_open(dir));
    }
    tg_free(data);
    tg_params_release(&list);
    tg_spec_release(&spec);
}

/* Every key of a written layer is needed, unknown ones are named, wrong types refused. */
static void test_native_config(void **state)
{
    char dir[128], *text;
    struct tg_json_doc *doc;
    struct tg_json layer;
    struct tg_model_spec spec;
    struct tg_err err;
    size_t len, keys = 0;

    (void)state;
    snprintf(dir, sizeof dir, "%s/native-%d-0", scratch, (int)TG_F32);
    read_text(dir, "config.json", &text, &len);
    assert_int_equal(tg_json_parse(&doc, text, len, "c", 0, NULL), TG_OK);
    layer = tg_json_first(tg_json_key(tg_json_root(doc), "layers"));
    for (struct tg_json k = tg_json_first(layer); k.node; k = tg_json_next(k), keys++) {
        const char *name = tg_json_name(k), *const values[] = {NULL, "null", "[]"};
        char pattern[64], *head = strstr(text, "\"layers\""), *at, *end;

        snprintf(pattern, sizeof pattern, "\"%s\": ", name);
        at = strstr(head, pattern);
        assert_non_null(at);
        end = at + strcspn(at, "\n");
        for (size_t v = 0; v < 3; v++) { /* mlp_bias is the last key: no comma after it */
            char bad[1 << 14], where[80];
            const int n = values[v]
                              ? snprintf(bad, sizeof bad, "%.*s%s%s%s%s", (int)(at - text), text,
                                         pattern, values[v], end[-1] == ',' ? "," : "", end)
                              : snprintf(bad, sizeof bad, "%.*s\"other\": 1%s%s", (int)(at - text),
                                         text, end[-1] == ',' ? "," : "", end);
            assert_true(n > 0 && (size_t)n < sizeof bad);
            err = (struct tg_err){0};
            assert_int_equal(tg_config_parse(bad, (size_t)n, "c", &spec, &err), TG_ERR_VALUE);
            snprintf(where, sizeof where, "layers[0].%s", values[v] ? name : "other");
            if (!strstr(err.msg, where))
                fail_msg("%s\nwanted ...%s...", err.msg, where);
        }
    }
    assert_int_equal(keys, 17);
    tg_json_free(doc);
    tg_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bijection),     cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_fixtures),      cmocka_unit_test(test_hash),
        cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_native_round_trip),
        cmocka_unit_test(test_native_values), cmocka_unit_test(test_native_config),
    };
    int rc;

    if (make_scratch())
        return 1;
    rc = tg_run_tests("checkpoint", tests, sizeof tests / sizeof *tests);
    return drop_scratch() ? 1 : rc;
}
