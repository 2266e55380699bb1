/* Readers of config.json for decoders of the llama shape, in the spelling of transformers 4
 * (rope_theta, rope_scaling) and 5 (rope_parameters). */
#include "convert/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static int get_size(struct tg_json c, const char *key, int64_t hi, size_t *out, struct tg_err *err)
{
    int64_t value = 0;
    const int rc = tg_json_get_int(c, key, 1, hi, &value, err);

    if (rc == TG_OK)
        *out = (size_t)value;
    return rc;
}

int tg_config_unquantised(struct tg_json c, struct tg_err *err)
{
    static const char *const keys[] = {"quantization_config", "compression_config"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct tg_json q = tg_json_key(c, keys[i]);
        const char *method = tg_json_string(tg_json_key(q, "quant_method"));

        if (!tg_json_has(q))
            continue;
        if (!*method) /* written before transformers 4.35 */
            method = tg_json_has(tg_json_key(q, "load_in_4bit")) ||
                             tg_json_has(tg_json_key(q, "load_in_8bit"))
                         ? "bitsandbytes"
                         : "an unnamed method";
        return tg_json_fail(c, keys[i], TG_ERR_UNSUPPORTED, err,
                            "the checkpoint is quantised with %s; only unquantised weights are "
                            "read: use the original checkpoint",
                            method);
    }
    return TG_OK;
}

int tg_config_activation(struct tg_json c, enum tg_activation *out, struct tg_err *err)
{
    const char *name = "silu";
    const int rc = tg_json_get_str_or(c, "hidden_act", &name, err);

    if (rc != TG_OK)
        return rc;
    if (strcmp(name, "silu") != 0 && strcmp(name, "swish") != 0) /* two names of one function */
        return tg_json_fail(c, "hidden_act", TG_ERR_UNSUPPORTED, err,
                            "activation \"%s\" is not supported; known: silu", name);
    *out = TG_ACT_SILU;
    return TG_OK;
}

/* A key that must be 1 if it is there: other values change the arithmetic. */
static int refuse_partial_rotary(struct tg_json c, struct tg_err *err)
{
    double share = 1;
    const int rc = tg_json_get_num_or(c, "partial_rotary_factor", 0, 1, &share, err);

    if (rc == TG_OK && share != 1)
        return tg_json_fail(c, "partial_rotary_factor", TG_ERR_UNSUPPORTED, err,
                            "%g is not supported in this family; known: 1", share);
    return rc;
}

static int read_rope_kind(struct tg_json from, enum tg_rope_kind *kind, struct tg_err *err)
{
    const char *key = tg_json_has(tg_json_key(from, "rope_type")) ? "rope_type" : "type";
    const char *name = "default";
    const int rc = tg_json_get_str_or(from, key, &name, err);

    if (rc != TG_OK)
        return rc;
    if (!strcmp(name, "default"))
        *kind = TG_ROPE_DEFAULT;
    else if (!strcmp(name, "llama3"))
        *kind = TG_ROPE_LLAMA3;
    else
        return tg_json_fail(from, key, TG_ERR_UNSUPPORTED, err,
                            "rotary scaling \"%s\" is not supported; known: default, llama3", name);
    return TG_OK;
}

static int read_llama3(struct tg_json from, struct tg_rope *r, struct tg_err *err)
{
    int rc;

    if ((rc = tg_json_get_num(from, "factor", 1, 1e6, &r->factor, err)) ||
        (rc = tg_json_get_num(from, "low_freq_factor", 1e-6, 1e6, &r->low_freq_factor, err)) ||
        (rc = tg_json_get_num(from, "high_freq_factor", 1e-6, 1e6, &r->high_freq_factor, err)) ||
        (rc = tg_json_get_num(from, "original_max_position_embeddings", 1, 1e12,
                              &r->original_max_positions, err)))
        return rc;
    if (r->high_freq_factor <= r->low_freq_factor)
        return tg_json_fail(from, "high_freq_factor", TG_ERR_VALUE, err,
                            "%g must be larger than low_freq_factor, %g", r->high_freq_factor,
                            r->low_freq_factor);
    return TG_OK;
}

/* transformers: what stands inside the rope object goes before the key beside it. */
static int read_rope(struct tg_json c, struct tg_rope *r, struct tg_err *err)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    struct tg_json from = {0};
    int rc;

    r->theta = 10000;
    if ((rc = tg_json_get_num_or(c, "rope_theta", 1, 1e15, &r->theta, err)) ||
        (rc = refuse_partial_rotary(c, err)))
        return rc;
    for (size_t i = 0; i < 2 && !from.node; i++) {
        const struct tg_json v = tg_json_key(c, keys[i]);
        if (tg_json_has(v) && !tg_json_is_object(v))
            return tg_json_fail(c, keys[i], TG_ERR_VALUE, err, "must be an object or null");
        if (tg_json_has(v))
            from = v;
    }
    if (!from.node)
        return TG_OK;
    if (tg_json_is_object(tg_json_first(from)))
        return tg_json_fail(from, "", TG_ERR_UNSUPPORTED, err,
                            "rotary settings for each kind of layer are not supported");
    if ((rc = tg_json_get_num_or(from, "rope_theta", 1, 1e15, &r->theta, err)) ||
        (rc = refuse_partial_rotary(from, err)) || (rc = read_rope_kind(from, &r->kind, err)))
        return rc;
    return r->kind == TG_ROPE_LLAMA3 ? read_llama3(from, r, err) : TG_OK;
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
    int64_t positions = d->max_positions;
    int rc;

    spec->norm.eps = 1e-6;
    if ((rc = get_size(c, "vocab_size", TG_MAX_VOCAB, &spec->vocab, err)) ||
        (rc = get_size(c, "hidden_size", TG_MAX_WIDTH, &spec->width, err)) ||
        (rc = tg_json_get_num_or(c, "rms_norm_eps", 1e-30, 1, &spec->norm.eps, err)) ||
        (rc = tg_json_get_bool_or(c, "tie_word_embeddings", &spec->tied_head, err)) ||
        (rc = tg_json_get_int_or(c, "max_position_embeddings", 1, (int64_t)1 << 40, &positions,
                                 err)))
        return rc;
    spec->max_positions = (size_t)positions;
    if ((rc = read_rope(c, &spec->ropes[0], err)))
        return rc;
    return read_specials(c, d, spec, err);
}

/* num_key_value_heads and head_dim, which have defaults that depend on other keys */
static int read_head_sizes(struct tg_json c, const struct tg_config_defaults *d, size_t width,
                           struct tg_layer_spec *l, struct tg_err *err)
{
    const bool said = tg_json_key(c, "num_key_value_heads").node != NULL;
    int64_t kv_heads = said || !d->kv_heads ? (int64_t)l->heads : d->kv_heads;
    int64_t head_dim = d->head_dim;
    int rc;

    if ((rc = tg_json_get_int_or(c, "num_key_value_heads", 1, TG_MAX_HEADS, &kv_heads, err)) ||
        (rc = tg_json_get_int_or(c, "head_dim", 1, TG_MAX_HEAD_DIM, &head_dim, err)))
        return rc;
    if ((int64_t)l->heads % kv_heads)
        return tg_json_fail(c, "num_key_value_heads", TG_ERR_VALUE, err,
                            "%lld does not divide num_attention_heads, %zu", (long long)kv_heads,
                            l->heads);
    if (!head_dim && width % l->heads)
        return tg_json_fail(c, "hidden_size", TG_ERR_VALUE, err,
                            "%zu is not a multiple of num_attention_heads, %zu, and there is no "
                            "head_dim",
                            width, l->heads);
    l->kv_heads = (size_t)kv_heads;
    l->head_dim = head_dim ? (size_t)head_dim : width / l->heads;
    if (l->head_dim % 2 || l->head_dim > TG_MAX_HEAD_DIM)
        return tg_json_fail(c, "head_dim", TG_ERR_VALUE, err,
                            "a head size of %zu cannot be rotated: must be even and at most %d",
                            l->head_dim, TG_MAX_HEAD_DIM);
    return TG_OK;
}

int tg_config_decoder(struct tg_json c, const struct tg_config_defaults *d,
                      struct tg_model_spec *spec, struct tg_err *err)
{
    struct tg_layer_spec l = {0};
    size_t layers;
    int rc;

    if ((rc = tg_config_model(c, d, spec, err)) ||
        (rc = get_size(c, "num_hidden_layers", TG_MAX_LAYERS, &layers, err)) ||
        (rc = get_size(c, "num_attention_heads", TG_MAX_HEADS, &l.heads, err)) ||
        (rc = get_size(c, "intermediate_size", TG_MAX_MLP, &l.mlp_dim, err)) ||
        (rc = read_head_sizes(c, d, spec->width, &l, err)) ||
        (rc = tg_config_activation(c, &l.activation, err)))
        return rc;
    l.rotary_dim = l.head_dim;
    l.attn_scale = 1 / sqrt((double)l.head_dim);
    tg_layer_attend(&l, 0);
    if (!(spec->layers = tg_alloc_array(layers, sizeof *spec->layers)))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a spec of %zu layers", layers);
    spec->layer_count = layers;
    for (size_t i = 0; i < layers; i++)
        spec->layers[i] = l;
    return TG_OK;
}

void tg_layer_attend(struct tg_layer_spec *l, size_t window)
{
    l->mixer = tg_mixer_schema_find(window ? "window" : "softmax");
    l->window = window;
}

int tg_config_window(struct tg_json c, int64_t absent, size_t *window, struct tg_err *err)
{
    int64_t value = tg_json_key(c, "sliding_window").node ? 0 : absent;
    const int rc = tg_json_get_int_or(c, "sliding_window", 1, TG_MAX_WINDOW, &value, err);

    if (rc == TG_OK)
        *window = (size_t)value;
    return rc;
}

static int read_layer_types(struct tg_json c, struct tg_json types, size_t window,
                            struct tg_model_spec *spec, struct tg_err *err)
{
    size_t i = 0;

    if (!tg_json_is_array(types) || tg_json_count(types) != spec->layer_count)
        return tg_json_fail(c, "layer_types", TG_ERR_VALUE, err,
                            "must be an array of num_hidden_layers = %zu names; it has %zu",
                            spec->layer_count, tg_json_count(types));
    for (struct tg_json t = tg_json_first(types); t.node; t = tg_json_next(t), i++) {
        const char *name = tg_json_string(t);
        const bool slides = !strcmp(name, "sliding_attention");

        if (!slides && strcmp(name, "full_attention") != 0)
            return tg_json_fail(t, "", TG_ERR_UNSUPPORTED, err,
                                "layer type \"%s\" is not supported; known: full_attention, "
                                "sliding_attention",
                                name);
        if (slides && !window)
            return tg_json_fail(t, "", TG_ERR_VALUE, err,
                                "sliding_attention, but use_sliding_window is not true or "
                                "sliding_window is null");
        tg_layer_attend(&spec->layers[i], slides ? window : 0);
    }
    return TG_OK;
}

int tg_config_qwen_windows(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json types = tg_json_key(c, "layer_types");
    int64_t first = 28;
    bool use = false;
    size_t window;
    int rc;

    if ((rc = tg_json_get_bool_or(c, "use_sliding_window", &use, err)) ||
        (rc = tg_config_window(c, 4096, &window, err)) ||
        (rc = tg_json_get_int_or(c, "max_window_layers", 0, (int64_t)1 << 31, &first, err)))
        return rc;
    if (!use)
        window = 0;
    if (tg_json_has(types))
        return read_layer_types(c, types, window, spec, err);
    for (size_t i = 0; i < spec->layer_count; i++)
        tg_layer_attend(&spec->layers[i], (int64_t)i >= first ? window : 0);
    return TG_OK;
}
