/* Readers of config.json for decoders: sizes, norms, activation, special tokens, under whatever
 * names the family's config class gives them. */
#include "convert/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const char *key_or(const char *key, const char *standard)
{
    return key ? key : standard;
}

/* A size that must be there, unless the object is a text_config and the class has a default. */
static int get_size(struct tg_json c, const char *key, int64_t hi, int64_t nested, size_t *out,
                    struct tg_err *err)
{
    int64_t value = 0;
    int rc;

    if (nested && !tg_json_key(c, key).node && !strcmp(tg_json_name(c), "text_config")) {
        *out = (size_t)nested;
        return TG_OK;
    }
    if ((rc = tg_json_get_int(c, key, 1, hi, &value, err)) == TG_OK)
        *out = (size_t)value;
    return rc;
}

int tg_config_size_or(struct tg_json c, const char *key, int64_t lo, int64_t hi, size_t *out,
                      struct tg_err *err)
{
    int64_t value = (int64_t)*out;
    const int rc = tg_json_get_int_or(c, key, lo, hi, &value, err);

    if (rc == TG_OK)
        *out = (size_t)value;
    return rc;
}

int tg_config_cap(struct tg_json c, const char *key, double absent, double *out, struct tg_err *err)
{
    *out = tg_json_key(c, key).node ? 0 : absent;
    return tg_json_get_num_or(c, key, 1e-6, 1e9, out, err);
}

int tg_config_refuse(struct tg_json c, const char *key, struct tg_err *err)
{
    bool on = false;
    const int rc = tg_json_get_bool_or(c, key, &on, err);

    if (rc == TG_OK && on)
        return tg_json_fail(c, key, TG_ERR_UNSUPPORTED, err, "true is not supported");
    return rc;
}

bool tg_config_number(struct tg_json v, double *out)
{
    static const struct {
        const char *name;
        double value;
    } names[] = {{"Infinity", INFINITY}, {"-Infinity", -INFINITY}, {"NaN", NAN}};
    const char *name = tg_json_string(tg_json_key(v, "__float__"));

    if (tg_json_is_number(v)) {
        *out = tg_json_number(v);
        return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i].name)) {
            *out = names[i].value;
            return true;
        }
    return false;
}

int tg_config_attention_bias(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err)
{
    const int rc = tg_json_get_bool_or(c, "attention_bias", &l->qkv_bias, err);

    l->o_bias = l->qkv_bias;
    return rc;
}

int tg_config_biases(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err)
{
    const int rc = tg_config_attention_bias(c, l, err);

    return rc ? rc : tg_json_get_bool_or(c, "mlp_bias", &l->mlp_bias, err);
}

int tg_config_activation(struct tg_json c, const struct tg_config_defaults *d,
                         enum tg_activation *out, struct tg_err *err)
{
    static const struct {
        const char *name;
        enum tg_activation act;
    } known[] = {
        {"silu", TG_ACT_SILU},
        {"swish", TG_ACT_SILU},
        {"gelu", TG_ACT_GELU},
        {"gelu_python", TG_ACT_GELU},
        {"gelu_new", TG_ACT_GELU_TANH},
        {"gelu_fast", TG_ACT_GELU_TANH},
        {"gelu_accurate", TG_ACT_GELU_TANH},
        {"gelu_pytorch_tanh", TG_ACT_GELU_TANH},
        {"gelu_python_tanh", TG_ACT_GELU_TANH},
        {"relu", TG_ACT_RELU},
        {"relu2", TG_ACT_RELU2},
    };
    const char *key = key_or(d->keys.activation, "hidden_act");
    const char *name = key_or(d->activation, "silu");
    const int rc = tg_json_get_str_or(c, key, &name, err);

    if (rc != TG_OK)
        return rc;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) {
            *out = known[i].act;
            return TG_OK;
        }
    return tg_json_fail(c, key, TG_ERR_UNSUPPORTED, err,
                        "activation \"%s\" is not supported; known: silu, gelu and its tanh forms, "
                        "relu, relu2",
                        name);
}

/* -1 stands for none. */
static int token_id(struct tg_json v, struct tg_json c, const char *key, size_t vocab, int32_t *out,
                    struct tg_err *err)
{
    const double d = tg_json_number(v);
    char text[32] = "another type";

    if (tg_json_is_number(v))
        snprintf(text, sizeof text, "%g", d);
    if (!tg_json_is_number(v) || !(d >= -1 && d < (double)vocab) || d != floor(d))
        return tg_json_fail(c, key, TG_ERR_VALUE, err,
                            "a token id must be an integer from -1 to vocab_size - 1 = %zu; found "
                            "%s",
                            vocab - 1, text);
    *out = (int32_t)d;
    return TG_OK;
}

static int read_specials(struct tg_json c, const struct tg_config_defaults *d,
                         struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json bos = tg_json_key(c, "bos_token_id"), eos = tg_json_key(c, "eos_token_id");
    const size_t most = sizeof spec->eos_ids / sizeof *spec->eos_ids;
    const struct tg_json one = tg_json_is_array(eos) ? tg_json_first(eos) : eos;
    int32_t id = -1;
    int rc;

    spec->bos_id = bos.node || d->bos_id >= (int64_t)spec->vocab ? -1 : d->bos_id;
    if (tg_json_has(bos) &&
        (rc = token_id(bos, c, "bos_token_id", spec->vocab, &spec->bos_id, err)))
        return rc;
    if (!eos.node && d->eos_id >= 0 && d->eos_id < (int64_t)spec->vocab)
        spec->eos_ids[spec->eos_count++] = d->eos_id;
    if (!tg_json_has(eos))
        return TG_OK;
    for (struct tg_json v = one; v.node; v = tg_json_next(v)) {
        if ((rc = token_id(v, c, "eos_token_id", spec->vocab, &id, err)))
            return rc;
        if (id >= 0 && spec->eos_count == most)
            return tg_json_fail(c, "eos_token_id", TG_ERR_UNSUPPORTED, err,
                                "more than %zu end tokens", most);
        if (id >= 0)
            spec->eos_ids[spec->eos_count++] = id;
        if (!tg_json_is_array(eos))
            break;
    }
    return TG_OK;
}

int tg_config_model(struct tg_json c, const struct tg_config_defaults *d,
                    struct tg_model_spec *spec, struct tg_err *err)
{
    const char *eps = key_or(d->keys.eps, "rms_norm_eps");
    int64_t positions = d->max_positions;
    int rc;

    spec->norm = d->norm;
    if (!(spec->norm.eps > 0))
        spec->norm.eps = 1e-6;
    spec->tied_head = d->tied;
    if ((rc = get_size(c, "vocab_size", TG_MAX_VOCAB, d->sizes.vocab, &spec->vocab, err)) ||
        (rc = get_size(c, key_or(d->keys.width, "hidden_size"), TG_MAX_WIDTH, d->sizes.width,
                       &spec->width, err)) ||
        (*eps && (rc = tg_json_get_num_or(c, eps, 1e-30, 1, &spec->norm.eps, err))) ||
        (rc = tg_json_get_bool_or(c, "tie_word_embeddings", &spec->tied_head, err)) ||
        (rc = tg_json_get_int_or(c, key_or(d->keys.positions, "max_position_embeddings"), 1,
                                 (int64_t)1 << 40, &positions, err)))
        return rc;
    spec->max_positions = (size_t)positions;
    return read_specials(c, d, spec, err);
}

int tg_config_heads(struct tg_json c, const struct tg_config_defaults *d, size_t width,
                    struct tg_layer_spec *l, struct tg_err *err)
{
    const char *heads_key = key_or(d->keys.heads, "num_attention_heads");
    const char *kv_key = key_or(d->keys.kv_heads, "num_key_value_heads");
    int64_t kv_heads, head_dim = d->head_dim;
    int rc;

    if ((rc = get_size(c, heads_key, TG_MAX_HEADS, d->sizes.heads, &l->heads, err)))
        return rc;
    kv_heads = tg_json_key(c, kv_key).node || !d->kv_heads ? (int64_t)l->heads : d->kv_heads;
    if ((rc = tg_json_get_int_or(c, kv_key, 1, TG_MAX_HEADS, &kv_heads, err)) ||
        (rc = tg_json_get_int_or(c, "head_dim", 1, TG_MAX_HEAD_DIM, &head_dim, err)))
        return rc;
    if ((int64_t)l->heads % kv_heads)
        return tg_json_fail(c, kv_key, TG_ERR_VALUE, err, "%lld does not divide %s, %zu",
                            (long long)kv_heads, heads_key, l->heads);
    if (!head_dim && width % l->heads)
        return tg_json_fail(c, key_or(d->keys.width, "hidden_size"), TG_ERR_VALUE, err,
                            "%zu is not a multiple of %s, %zu, and there is no head_dim", width,
                            heads_key, l->heads);
    l->kv_heads = (size_t)kv_heads;
    l->head_dim = head_dim ? (size_t)head_dim : width / l->heads;
    if (l->head_dim > TG_MAX_HEAD_DIM)
        return tg_json_fail(c, "head_dim", TG_ERR_VALUE, err,
                            "a head size of %zu is larger than %d", l->head_dim, TG_MAX_HEAD_DIM);
    if (l->attn_scale == 0)
        l->attn_scale = 1 / sqrt((double)l->head_dim);
    return TG_OK;
}

int tg_config_mlp(struct tg_json c, const struct tg_config_defaults *d, size_t width,
                  struct tg_layer_spec *l, struct tg_err *err)
{
    const char *key = key_or(d->keys.mlp_dim, "intermediate_size");

    if (d->mlp_widths && !tg_json_has(tg_json_key(c, key))) {
        l->mlp_dim = d->mlp_widths * width;
        return TG_OK;
    }
    return get_size(c, key, TG_MAX_MLP, d->sizes.mlp_dim, &l->mlp_dim, err);
}

static int set_rotary(struct tg_json c, const struct tg_config_defaults *d, double share,
                      struct tg_layer_spec *l, struct tg_err *err)
{
    l->rotary_dim = (size_t)((double)l->head_dim * share);
    if (share == 1 && l->rotary_dim % 2)
        return tg_json_fail(c, "head_dim", TG_ERR_VALUE, err,
                            "a head size of %zu cannot be rotated: must be even and at most %d",
                            l->head_dim, TG_MAX_HEAD_DIM);
    if (l->rotary_dim % 2 || !l->rotary_dim)
        return tg_json_fail(c, key_or(d->keys.rotary_share, "partial_rotary_factor"), TG_ERR_VALUE,
                            err,
                            "%g of a head size of %zu cannot be rotated: %zu is not even and "
                            "above 0",
                            share, l->head_dim, l->rotary_dim);
    return TG_OK;
}

int tg_config_layers(struct tg_json c, const struct tg_config_defaults *d,
                     const struct tg_layer_spec *l, struct tg_model_spec *spec, struct tg_err *err)
{
    size_t layers;
    int rc;

    if ((rc = get_size(c, key_or(d->keys.layers, "num_hidden_layers"), TG_MAX_LAYERS,
                       d->sizes.layers, &layers, err)))
        return rc;
    if (!(spec->layers = tg_alloc_array(layers, sizeof *spec->layers)))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a spec of %zu layers", layers);
    spec->layer_count = layers;
    for (size_t i = 0; i < layers; i++)
        spec->layers[i] = *l;
    return TG_OK;
}

int tg_config_decoder(struct tg_json c, const struct tg_config_defaults *d,
                      struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_layer_spec l = d->layer;
    double share = 1;
    int rc;

    if ((rc = tg_config_model(c, d, spec, err)) ||
        (!d->no_rotary && (rc = tg_config_ropes(c, d, spec, &share, err))) ||
        (rc = tg_config_heads(c, d, spec->width, &l, err)) ||
        (rc = tg_config_mlp(c, d, spec->width, &l, err)) ||
        (!d->no_rotary && (rc = set_rotary(c, d, share, &l, err))) ||
        (rc = tg_config_activation(c, d, &l.activation, err)))
        return rc;
    tg_layer_attend(&l, 0);
    return tg_config_layers(c, d, &l, spec, err);
}
