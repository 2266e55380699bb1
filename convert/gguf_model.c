/* GGUF metadata in the words of config.json. Sources: the keys that llama.cpp's converter writes
 * and its loader reads for these architectures. */
#include "convert/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf.h"

static const char rope_freqs[] = "rope_freqs.weight";

struct arch {
    const char *name;              /* general.architecture, and model_type in HF */
    const struct tg_family *names; /* of the tensors */
    bool decoder;                  /* speaks as Llama does; else as GPT-2 */
};
static const struct arch archs[] = {
    {"llama", &tg_gguf_llama, true},
    {"qwen2", &tg_gguf_qwen, true},
    {"qwen3", &tg_gguf_qwen, true},
    {"gpt2", &tg_gguf_gpt2, false},
};
enum { ARCHS = sizeof archs / sizeof *archs, KEY_SIZE = 96 };

struct reading {
    const struct tg_tensors *t;
    const struct arch *arch;
    struct tg_json_out out;
    int64_t width, heads, head_dim;
    double theta;
};

static const char *file_of(const struct reading *r)
{
    return tg_tensors_file(r->t, 0);
}

static const struct tg_gguf_value *find(const struct reading *r, const char *suffix,
                                        char key[KEY_SIZE])
{
    snprintf(key, KEY_SIZE, "%s.%s", r->arch->name, suffix);
    return tg_gguf_find(r->t, key);
}

static int get_size(const struct reading *r, const char *suffix, int64_t *out, struct tg_err *err)
{
    char key[KEY_SIZE];
    find(r, suffix, key);
    return tg_gguf_get_int(r->t, key, 1, INT32_MAX, out, err);
}

/* *out keeps its value when the key is absent. */
static int get_size_or(const struct reading *r, const char *suffix, int64_t *out,
                       struct tg_err *err)
{
    char key[KEY_SIZE];
    return find(r, suffix, key) ? get_size(r, suffix, out, err) : TG_OK;
}

/* The shortest decimal number that is this float32, which is what config.json has: 1e-06 */
static double decimal(double x)
{
    char text[32];
    double d = x;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        d = strtod(text, NULL);
        if ((float)d == (float)x)
            break;
    }
    return d;
}

static int get_float(const struct reading *r, const char *suffix, double min, double max,
                     double *out, struct tg_err *err)
{
    char key[KEY_SIZE];
    find(r, suffix, key);
    const int rc = tg_gguf_get_float(r->t, key, min, max, out, err);
    if (rc == TG_OK)
        *out = decimal(*out);
    return rc;
}

static int get_float_or(const struct reading *r, const char *suffix, double min, double max,
                        double *out, struct tg_err *err)
{
    char key[KEY_SIZE];
    return find(r, suffix, key) ? get_float(r, suffix, min, max, out, err) : TG_OK;
}

/* Keys that change the arithmetic unless they have one of these values */
static const struct {
    const char *suffix;
    double plain, also;
} neutral[] = {
    {"expert_count", 0, 0},           {"attention.sliding_window", 0, 0},
    {"attention.causal", 1, 1},       {"attention.max_alibi_bias", 0, 0},
    {"attention.clamp_kqv", 0, 0},    {"attention.scale", 0, 0},
    {"attn_logit_softcapping", 0, 0}, {"final_logit_softcapping", 0, 0},
    {"use_parallel_residual", 0, 0},  {"embedding_scale", 1, 0},
    {"residual_scale", 1, 0},         {"logit_scale", 1, 0},
    {"rope.scale_linear", 1, 1},      {"rope.scaling.attn_factor", 1, 1},
};

/* Of a number or a truth; NaN of anything else */
static double number_of(const struct tg_gguf_value *v)
{
    switch (v->type) {
    case TG_GGUF_BOOL:
        return v->b;
    case TG_GGUF_F32:
    case TG_GGUF_F64:
        return v->f;
    case TG_GGUF_I8:
    case TG_GGUF_I16:
    case TG_GGUF_I32:
    case TG_GGUF_I64:
        return (double)v->i;
    case TG_GGUF_STRING:
    case TG_GGUF_ARRAY:
        return NAN;
    default:
        return (double)v->u;
    }
}

static int check_neutral(const struct reading *r, struct tg_err *err)
{
    char key[KEY_SIZE];
    for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++) {
        const struct tg_gguf_value *v = find(r, neutral[i].suffix, key);
        const double x = v ? number_of(v) : neutral[i].plain;
        if (x != neutral[i].plain && x != neutral[i].also)
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: metadata key '%s' is %g, only %g is supported", file_of(r), key, x,
                           neutral[i].plain);
    }
    return TG_OK;
}

/* The divisors of llama3 scaling, as rope_freqs.weight holds them: with wavelength l of pair i, s =
 * clamp((original / l - low) / (high - low), 0, 1), the divisor is 1 / ((1 - s) / factor + s). */
struct llama3 {
    double factor, low, high, original;
};

static double llama3_share(const struct llama3 *p, double theta, size_t i, size_t pairs)
{
    const double wave = 6.283185307179586 * pow(theta, (double)i / (double)pairs);
    const double s = (p->original / wave - p->low) / (p->high - p->low);
    return s < 0 ? 0 : s > 1 ? 1 : s;
}

/* Fits the factor to the last pair, the slowest, and demands that all others agree. */
static int fit_llama3(const struct reading *r, const float *freqs, size_t pairs, struct llama3 *p,
                      struct tg_err *err)
{
    const double last = llama3_share(p, r->theta, pairs - 1, pairs);
    p->factor = last < 1 ? (1 - last) / (1 / (double)freqs[pairs - 1] - last) : 1;
    if (fabs(p->factor - nearbyint(p->factor)) < 1e-3)
        p->factor = nearbyint(p->factor);
    for (size_t i = 0; i < pairs; i++) {
        const double s = llama3_share(p, r->theta, i, pairs);
        const double want = 1 / ((1 - s) / p->factor + s);
        if (!(fabs(freqs[i] - want) <= 1e-5 * want))
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: tensor '%s': element %zu is %g; only llama3 scaling with "
                           "low_freq_factor %g, high_freq_factor %g and %g original positions is "
                           "supported, which has %g there",
                           file_of(r), rope_freqs, i, freqs[i], p->low, p->high, p->original, want);
    }
    return TG_OK;
}

static int put_llama3(struct reading *r, const struct tg_tensor *t, struct tg_err *err)
{
    const size_t pairs = (size_t)r->head_dim / 2;
    struct llama3 p = {.low = 1, .high = 4, .original = 8192};
    int64_t original = 8192;
    int rc = get_size_or(r, "rope.scaling.original_context_length", &original, err);
    if (rc != TG_OK)
        return rc;
    if (t->rank != 1 || t->elements != pairs || t->dtype != TG_F32 || pairs < 1)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' is not F32 [%zu]", file_of(r),
                       rope_freqs, pairs);
    float *freqs = tg_alloc_floats(pairs);
    if (!freqs)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", file_of(r));
    p.original = (double)original;
    rc = tg_tensor_read_f32(t, freqs, err);
    if (rc == TG_OK)
        rc = fit_llama3(r, freqs, pairs, &p, err);
    tg_free(freqs);
    if (rc != TG_OK)
        return rc;
    tg_jout_str(&r->out, "rope_type", "llama3");
    tg_jout_num(&r->out, "factor", p.factor);
    tg_jout_num(&r->out, "low_freq_factor", p.low);
    tg_jout_num(&r->out, "high_freq_factor", p.high);
    tg_jout_num(&r->out, "original_max_position_embeddings", p.original);
    return TG_OK;
}

/* linear and yarn, in the words of HF */
static int put_scaling(struct reading *r, const char *type, struct tg_err *err)
{
    static const struct {
        const char *suffix, *config;
    } yarn[] = {
        {"rope.scaling.yarn_beta_fast", "beta_fast"},
        {"rope.scaling.yarn_beta_slow", "beta_slow"},
    };
    double factor = 1;
    int64_t original = 0;
    int rc = get_float(r, "rope.scaling.factor", 1, 1e6, &factor, err);
    if (rc == TG_OK)
        rc = get_size_or(r, "rope.scaling.original_context_length", &original, err);
    if (rc != TG_OK)
        return rc;
    tg_jout_str(&r->out, "rope_type", type);
    tg_jout_num(&r->out, "factor", factor);
    if (!strcmp(type, "linear"))
        return TG_OK;
    if (original)
        tg_jout_int(&r->out, "original_max_position_embeddings", original);
    for (size_t i = 0; i < 2; i++) {
        double beta = 0;
        rc = get_float_or(r, yarn[i].suffix, 1e-6, 1e6, &beta, err);
        if (rc != TG_OK)
            return rc;
        if (beta != 0)
            tg_jout_num(&r->out, yarn[i].config, beta);
    }
    return TG_OK;
}

static int put_rope(struct reading *r, struct tg_err *err)
{
    const struct tg_tensor *freqs = tg_tensors_find(r->t, rope_freqs);
    const char *type = "none";
    char key[KEY_SIZE];
    int64_t rotary = r->head_dim;
    int rc = TG_OK;

    r->theta = 10000;
    if ((rc = get_float_or(r, "rope.freq_base", 1, 1e15, &r->theta, err)) ||
        (rc = get_size_or(r, "rope.dimension_count", &rotary, err)))
        return rc;
    if (rotary != r->head_dim)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: metadata key '%s.rope.dimension_count' is %lld, only the head size, "
                       "%lld, is supported",
                       file_of(r), r->arch->name, (long long)rotary, (long long)r->head_dim);
    if (find(r, "rope.scaling.type", key) && (rc = tg_gguf_get_string(r->t, key, &type, err)))
        return rc;
    const bool none = !strcmp(type, "none");
    if ((!none && strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0) || (!none && freqs))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: metadata key '%s.rope.scaling.type' is '%s'%s; supported: none, "
                       "linear, yarn, and %s alone",
                       file_of(r), r->arch->name, type, freqs ? " beside rope_freqs.weight" : "",
                       rope_freqs);
    tg_jout_object(&r->out, "rope_parameters");
    tg_jout_num(&r->out, "rope_theta", r->theta);
    if (freqs)
        rc = put_llama3(r, freqs, err);
    else if (none)
        tg_jout_str(&r->out, "rope_type", "default");
    else
        rc = put_scaling(r, type, err);
    tg_jout_end_object(&r->out);
    return rc;
}

/* Token ids; null where there is none, so that no default of the family steps in. */
static int put_specials(struct reading *r, struct tg_err *err)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    const char *const begin = "tokenizer.ggml.bos_token_id";
    int64_t id[2], bos;
    size_t count = 0;
    int rc = TG_OK;
    for (size_t i = 0; i < 2 && rc == TG_OK; i++)
        if (tg_gguf_find(r->t, ends[i]) &&
            !(rc = tg_gguf_get_int(r->t, ends[i], 0, INT32_MAX, &id[count], err)) &&
            (!count || id[1] != id[0]))
            count++;
    if (rc == TG_OK && tg_gguf_find(r->t, begin)) {
        rc = tg_gguf_get_int(r->t, begin, 0, INT32_MAX, &bos, err);
        if (rc == TG_OK)
            tg_jout_int(&r->out, "bos_token_id", bos);
    } else
        tg_jout_null(&r->out, "bos_token_id");
    tg_jout_array(&r->out, "eos_token_id");
    for (size_t i = 0; i < count; i++)
        tg_jout_int(&r->out, NULL, id[i]);
    tg_jout_end_array(&r->out);
    return rc;
}

/* Said by the metadata, counted in the tokenizer, or else the rows of the embedding */
static int put_vocab(struct reading *r, struct tg_err *err)
{
    const struct tg_gguf_value *tokens = tg_gguf_find(r->t, "tokenizer.ggml.tokens");
    const struct tg_tensor *embed = tg_tensors_find(r->t, "token_embd.weight");
    int64_t vocab = tokens && tokens->type == TG_GGUF_ARRAY && tokens->array.count
                        ? (int64_t)tokens->array.count
                    : embed && embed->rank == 2 ? embed->shape[0]
                                                : 0;
    const int rc = get_size_or(r, "vocab_size", &vocab, err);
    tg_jout_int(&r->out, "vocab_size", vocab);
    return rc;
}

/* heads, kv heads and the head size, which the values share */
static int read_heads(struct reading *r, int64_t *kv_heads, struct tg_err *err)
{
    int64_t value_dim;
    int rc;
    if ((rc = get_size(r, "embedding_length", &r->width, err)) ||
        (rc = get_size(r, "attention.head_count", &r->heads, err)))
        return rc;
    *kv_heads = r->heads;
    r->head_dim = r->width / r->heads;
    if ((rc = get_size_or(r, "attention.head_count_kv", kv_heads, err)) ||
        (rc = get_size_or(r, "attention.key_length", &r->head_dim, err)))
        return rc;
    value_dim = r->head_dim;
    if ((rc = get_size_or(r, "attention.value_length", &value_dim, err)))
        return rc;
    if (value_dim != r->head_dim)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: heads of %lld for keys and %lld for values (%s.attention.*_length) are "
                       "not supported",
                       file_of(r), (long long)r->head_dim, (long long)value_dim, r->arch->name);
    return TG_OK;
}

/* Is there such a tensor in the first layer? */
static bool has(const struct reading *r, const char *name)
{
    return tg_tensors_find(r->t, name) != NULL;
}

struct sizes {
    int64_t layers, mlp, positions, kv_heads;
    double eps;
};

static int read_sizes(struct reading *r, const char *eps_key, struct sizes *z, struct tg_err *err)
{
    int rc;
    if ((rc = get_size(r, "block_count", &z->layers, err)) ||
        (rc = get_size(r, "feed_forward_length", &z->mlp, err)) ||
        (rc = get_size(r, "context_length", &z->positions, err)) ||
        (rc = get_float(r, eps_key, 1e-30, 1, &z->eps, err)))
        return rc;
    return read_heads(r, &z->kv_heads, err);
}

static int put_decoder(struct reading *r, struct tg_err *err)
{
    struct sizes z;
    const int rc = read_sizes(r, "attention.layer_norm_rms_epsilon", &z, err);
    if (rc)
        return rc;
    tg_jout_int(&r->out, "hidden_size", r->width);
    tg_jout_int(&r->out, "intermediate_size", z.mlp);
    tg_jout_int(&r->out, "num_hidden_layers", z.layers);
    tg_jout_int(&r->out, "num_attention_heads", r->heads);
    tg_jout_int(&r->out, "num_key_value_heads", z.kv_heads);
    tg_jout_int(&r->out, "head_dim", r->head_dim);
    tg_jout_int(&r->out, "max_position_embeddings", z.positions);
    tg_jout_num(&r->out, "rms_norm_eps", z.eps);
    tg_jout_str(&r->out, "hidden_act", "silu");
    tg_jout_bool(&r->out, "attention_bias", has(r, "blk.0.attn_output.bias"));
    tg_jout_bool(&r->out, "mlp_bias", has(r, "blk.0.ffn_down.bias"));
    return put_rope(r, err);
}

static int put_gpt2(struct reading *r, struct tg_err *err)
{
    struct sizes z;
    const int rc = read_sizes(r, "attention.layer_norm_epsilon", &z, err);
    if (rc)
        return rc;
    if (z.kv_heads != r->heads || r->head_dim * r->heads != r->width)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: %lld heads of %lld, %lld for keys, and a width of %lld: not a GPT-2",
                       file_of(r), (long long)r->heads, (long long)r->head_dim,
                       (long long)z.kv_heads, (long long)r->width);
    tg_jout_int(&r->out, "n_embd", r->width);
    tg_jout_int(&r->out, "n_inner", z.mlp);
    tg_jout_int(&r->out, "n_layer", z.layers);
    tg_jout_int(&r->out, "n_head", r->heads);
    tg_jout_int(&r->out, "n_positions", z.positions);
    tg_jout_num(&r->out, "layer_norm_epsilon", z.eps);
    tg_jout_str(&r->out, "activation_function", "gelu_new");
    return TG_OK;
}

static int find_arch(struct reading *r, struct tg_err *err)
{
    const char *name;
    char known[128] = "";
    size_t used = 0;
    const int rc = tg_gguf_get_string(r->t, "general.architecture", &name, err);
    if (rc != TG_OK)
        return rc;
    for (size_t i = 0; i < ARCHS; i++) {
        if (!strcmp(archs[i].name, name)) {
            r->arch = &archs[i];
            return TG_OK;
        }
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "",
                                 archs[i].name);
    }
    return tg_fail(err, TG_ERR_UNSUPPORTED,
                   "%s: general.architecture is '%s', which is not read; known: %s", file_of(r),
                   name, known);
}

int tg_gguf_config(const struct tg_tensors *t, struct tg_strbuf *json,
                   const struct tg_family **names, struct tg_err *err)
{
    struct reading r = {.t = t};
    int rc;
    if (tg_tensors_format(t) != &tg_format_gguf)
        return tg_fail(err, TG_ERR_FORMAT, "%s: is no GGUF file, and there is no config.json",
                       file_of(&r));
    if ((rc = find_arch(&r, err)) || (rc = check_neutral(&r, err)))
        return rc;
    *names = r.arch->names;
    tg_jout_init(&r.out, json, 0);
    tg_jout_object(&r.out, NULL);
    tg_jout_str(&r.out, "model_type", r.arch->name);
    tg_jout_bool(&r.out, "tie_word_embeddings", !has(&r, "output.weight"));
    rc = put_vocab(&r, err);
    if (rc == TG_OK)
        rc = put_specials(&r, err);
    if (rc == TG_OK)
        rc = r.arch->decoder ? put_decoder(&r, err) : put_gpt2(&r, err);
    tg_jout_end_object(&r.out);
    if (rc == TG_OK && json->failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", file_of(&r));
    return rc;
}

static bool is_called_gguf(const char *path)
{
    const size_t n = strlen(path), m = strlen(tg_format_gguf.ext);
    return n > m && !strcmp(path + n - m, tg_format_gguf.ext);
}

int tg_gguf_is_model(const char *path, bool *yes, struct tg_err *err)
{
    char **names = NULL, *config;
    struct tg_map map = {0};
    size_t count = 0;
    int rc = TG_OK;
    *yes = false;
    if (!tg_path_is_dir(path)) {
        if (tg_path_exists(path) && !(*yes = is_called_gguf(path)) &&
            !(rc = tg_map_open(&map, path, err)))
            *yes = tg_format_gguf.probe(map.data, map.size);
        tg_map_close(&map);
        return rc;
    }
    if (!(config = tg_path_join(path, "config.json")))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    if (!tg_path_exists(config) && !(rc = tg_dir_list(path, &names, &count, err)))
        for (size_t i = 0; i < count && !*yes; i++)
            *yes = is_called_gguf(names[i]);
    tg_names_free(names, count);
    tg_free(config);
    return rc;
}
