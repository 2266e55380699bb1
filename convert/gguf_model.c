/* GGUF metadata in the words of config.json. Sources: the keys that llama.cpp's converter writes
 * and its loader reads for these architectures. */
#include "convert/gguf_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "formats/format.h"
#include "formats/gguf.h"

static int put_decoder(struct tg_reading *r, struct tg_err *err);
static int put_gpt2(struct tg_reading *r, struct tg_err *err);
static const char *const qwen35moe_own[] = {"expert_count", NULL};
static const char *const granite_own[] = {"expert_count",   "attention.scale", "embedding_scale",
                                          "residual_scale", "logit_scale",     NULL};
static const struct tg_gguf_arch archs[] = {
    {"llama", "llama", &tg_gguf_llama, put_decoder, NULL, NULL},
    {"qwen2", "qwen2", &tg_gguf_qwen, put_decoder, NULL, NULL},
    {"qwen3", "qwen3", &tg_gguf_qwen, put_decoder, NULL, NULL},
    {"qwen35", "qwen3_5_text", &tg_gguf_qwen35, tg_reading_put_qwen35, tg_gguf_amend_qwen35, NULL},
    {"qwen35moe", "qwen3_5_moe_text", &tg_gguf_qwen35, tg_reading_put_qwen35, tg_gguf_amend_qwen35,
     qwen35moe_own},
    {"granitehybrid", "granitemoehybrid", &tg_gguf_granitehybrid, tg_reading_put_granite,
     tg_gguf_amend_granite, granite_own},
    {"gpt2", "gpt2", &tg_gguf_gpt2, put_gpt2, NULL, NULL},
};
enum { ARCHS = sizeof archs / sizeof *archs };

const char *tg_reading_file(const struct tg_reading *r)
{
    return tg_tensors_file(r->t, 0);
}

const struct tg_gguf_value *tg_reading_find(const struct tg_reading *r, const char *suffix,
                                            char key[TG_READING_KEY])
{
    snprintf(key, TG_READING_KEY, "%s.%s", r->arch->name, suffix);
    return tg_gguf_find(r->t, key);
}

int tg_reading_size(const struct tg_reading *r, const char *suffix, int64_t *out,
                    struct tg_err *err)
{
    char key[TG_READING_KEY];
    tg_reading_find(r, suffix, key);
    return tg_gguf_get_int(r->t, key, 1, INT32_MAX, out, err);
}

int tg_reading_size_or(const struct tg_reading *r, const char *suffix, int64_t *out,
                       struct tg_err *err)
{
    char key[TG_READING_KEY];
    return tg_reading_find(r, suffix, key) ? tg_reading_size(r, suffix, out, err) : TG_OK;
}

double tg_gguf_decimal(double x)
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

int tg_reading_float(const struct tg_reading *r, const char *suffix, double min, double max,
                     double *out, struct tg_err *err)
{
    char key[TG_READING_KEY];
    tg_reading_find(r, suffix, key);
    const int rc = tg_gguf_get_float(r->t, key, min, max, out, err);
    if (rc == TG_OK)
        *out = tg_gguf_decimal(*out);
    return rc;
}

int tg_reading_float_or(const struct tg_reading *r, const char *suffix, double min, double max,
                        double *out, struct tg_err *err)
{
    char key[TG_READING_KEY];
    return tg_reading_find(r, suffix, key) ? tg_reading_float(r, suffix, min, max, out, err)
                                           : TG_OK;
}

/* Keys that change the arithmetic unless they have one of these values */
static const struct {
    const char *suffix;
    double plain, also;
} neutral[] = {
    {"expert_count", 0, 0},           {"attention.sliding_window", 0, 0},
    {"expert_weights_scale", 0, 1},   {"expert_group_count", 0, 1},
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

static bool is_own(const struct tg_gguf_arch *arch, const char *suffix)
{
    for (const char *const *own = arch->own; own && *own; own++)
        if (!strcmp(*own, suffix))
            return true;
    return false;
}

static int check_neutral(const struct tg_reading *r, struct tg_err *err)
{
    char key[TG_READING_KEY];
    for (size_t i = 0; i < sizeof neutral / sizeof *neutral; i++) {
        if (is_own(r->arch, neutral[i].suffix))
            continue;
        const struct tg_gguf_value *v = tg_reading_find(r, neutral[i].suffix, key);
        const double x = v ? number_of(v) : neutral[i].plain;
        if (x != neutral[i].plain && x != neutral[i].also)
            return tg_fail(err, TG_ERR_UNSUPPORTED,
                           "%s: metadata key '%s' is %g, only %g is supported", tg_reading_file(r),
                           key, x, neutral[i].plain);
    }
    return TG_OK;
}

const char tg_gguf_bos_key[] = "tokenizer.ggml.bos_token_id";
const char *const tg_gguf_eos_keys[TG_GGUF_EOS_KEYS] = {
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};

/* Is ids[count] one of those before it? */
static bool is_said(const int64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == ids[count])
            return true;
    return false;
}

/* Token ids; null where there is none, so that no default of the family steps in. */
static int put_specials(struct tg_reading *r, struct tg_err *err)
{
    int64_t id[TG_GGUF_EOS_KEYS], bos;
    size_t count = 0;
    int rc = TG_OK;
    for (size_t i = 0; i < TG_GGUF_EOS_KEYS && rc == TG_OK; i++)
        if (tg_gguf_find(r->t, tg_gguf_eos_keys[i]) &&
            !(rc = tg_gguf_get_int(r->t, tg_gguf_eos_keys[i], 0, INT32_MAX, &id[count], err)) &&
            !is_said(id, count))
            count++;
    if (rc == TG_OK && tg_gguf_find(r->t, tg_gguf_bos_key)) {
        rc = tg_gguf_get_int(r->t, tg_gguf_bos_key, 0, INT32_MAX, &bos, err);
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
static int put_vocab(struct tg_reading *r, struct tg_err *err)
{
    const struct tg_gguf_value *tokens = tg_gguf_find(r->t, "tokenizer.ggml.tokens");
    const struct tg_tensor *embed = tg_tensors_find(r->t, "token_embd.weight");
    int64_t vocab = tokens && tokens->type == TG_GGUF_ARRAY && tokens->array.count
                        ? (int64_t)tokens->array.count
                    : embed && embed->rank == 2 ? embed->shape[0]
                                                : 0;
    const int rc = tg_reading_size_or(r, "vocab_size", &vocab, err);
    tg_jout_int(&r->out, "vocab_size", vocab);
    return rc;
}

int tg_reading_heads(struct tg_reading *r, struct tg_err *err)
{
    int64_t value_dim;
    int rc;
    if ((rc = tg_reading_size(r, "embedding_length", &r->width, err)) ||
        (rc = tg_reading_size(r, "attention.head_count", &r->heads, err)))
        return rc;
    r->head_dim = r->width / r->heads;
    if ((rc = tg_reading_size_or(r, "attention.key_length", &r->head_dim, err)))
        return rc;
    value_dim = r->head_dim;
    if ((rc = tg_reading_size_or(r, "attention.value_length", &value_dim, err)))
        return rc;
    if (value_dim != r->head_dim)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: heads of %lld for keys and %lld for values (%s.attention.*_length) are "
                       "not supported",
                       tg_reading_file(r), (long long)r->head_dim, (long long)value_dim,
                       r->arch->name);
    return TG_OK;
}

bool tg_reading_has(const struct tg_reading *r, const char *name)
{
    return tg_tensors_find(r->t, name) != NULL;
}

struct sizes {
    int64_t layers, mlp, positions, kv_heads;
    double eps;
};

static int read_sizes(struct tg_reading *r, const char *eps_key, struct sizes *z,
                      struct tg_err *err)
{
    int rc;
    if ((rc = tg_reading_size(r, "block_count", &z->layers, err)) ||
        (rc = tg_reading_size(r, "feed_forward_length", &z->mlp, err)) ||
        (rc = tg_reading_size(r, "context_length", &z->positions, err)) ||
        (rc = tg_reading_float(r, eps_key, 1e-30, 1, &z->eps, err)) ||
        (rc = tg_reading_heads(r, err)))
        return rc;
    z->kv_heads = r->heads;
    return tg_reading_size_or(r, "attention.head_count_kv", &z->kv_heads, err);
}

static int put_decoder(struct tg_reading *r, struct tg_err *err)
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
    tg_jout_bool(&r->out, "attention_bias", tg_reading_has(r, "blk.0.attn_output.bias"));
    tg_jout_bool(&r->out, "mlp_bias", tg_reading_has(r, "blk.0.ffn_down.bias"));
    return tg_reading_rope(r, false, err);
}

static int put_gpt2(struct tg_reading *r, struct tg_err *err)
{
    struct sizes z;
    const int rc = read_sizes(r, "attention.layer_norm_epsilon", &z, err);
    if (rc)
        return rc;
    if (z.kv_heads != r->heads || r->head_dim * r->heads != r->width)
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: %lld heads of %lld, %lld for keys, and a width of %lld: not a GPT-2",
                       tg_reading_file(r), (long long)r->heads, (long long)r->head_dim,
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

static int find_arch(struct tg_reading *r, struct tg_err *err)
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
                   "%s: general.architecture is '%s', which is not read; known: %s",
                   tg_reading_file(r), name, known);
}

int tg_gguf_config(const struct tg_tensors *t, struct tg_strbuf *json,
                   const struct tg_gguf_arch **arch, struct tg_err *err)
{
    struct tg_reading r = {.t = t};
    int rc;
    if (tg_tensors_format(t) != &tg_format_gguf)
        return tg_fail(err, TG_ERR_FORMAT, "%s: is no GGUF file, and there is no config.json",
                       tg_reading_file(&r));
    if ((rc = find_arch(&r, err)) || (rc = check_neutral(&r, err)))
        return rc;
    *arch = r.arch;
    tg_jout_init(&r.out, json, 0);
    tg_jout_object(&r.out, NULL);
    tg_jout_str(&r.out, "model_type", r.arch->type);
    tg_jout_bool(&r.out, "tie_word_embeddings", !tg_reading_has(&r, "output.weight"));
    rc = put_vocab(&r, err);
    if (rc == TG_OK)
        rc = put_specials(&r, err);
    if (rc == TG_OK)
        rc = r.arch->put(&r, err);
    tg_jout_end_object(&r.out);
    if (rc == TG_OK && json->failed)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", tg_reading_file(&r));
    return rc;
}

const struct tg_family *tg_gguf_names(const struct tg_gguf_arch *arch)
{
    return arch->names;
}

void tg_gguf_amend(const struct tg_gguf_arch *arch, struct tg_model_spec *spec)
{
    if (arch->amend)
        arch->amend(spec);
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
