/* flash-linear-attention (GLAConfig, DeltaNetConfig, GatedDeltaNetConfig, KDAConfig, HGRN2Config,
 * RetNetConfig, LinearAttentionConfig): a Llama decoder whose layers all have one linear mixer, but
 * for those that `attn` gives softmax attention. Read is what the mixers' rows compute exactly. */
#include "convert/families/fla.h"

#include <math.h>
#include <string.h>

#include "convert/config_recurrent.h"
#include "convert/names.h"

/* A key of the config, the values that are read and what an absent one stands for, as JSON */
struct demand {
    const char *key, *value, *other, *absent;
};
enum { DEMANDS = 6 };

/* What a config class takes for absent keys */
struct kind {
    const char *type, *mixer;
    size_t heads, head_dim; /* head_dim 0: hidden_size times expand_k, over the heads */
    double expand_k, expand_v;
    size_t ratio;                    /* of the mlp, where it has no size */
    bool shared, beta, rotary, gate; /* num_kv_heads; conv_size; turned; a bias of kda's gate */
    size_t rank;
    struct demand demands[DEMANDS];
};
#define IS_TRUE(key)                                                                               \
    {                                                                                              \
        key, "true", NULL, "true"                                                                  \
    }
#define IS_FALSE(key)                                                                              \
    {                                                                                              \
        key, "false", NULL, "false"                                                                \
    }
#define IS_NULL(key)                                                                               \
    {                                                                                              \
        key, "null", NULL, "null"                                                                  \
    }
static const struct kind kinds[] = {
    {.type = "gla",
     .mixer = "gla",
     .heads = 4,
     .expand_k = 0.5,
     .expand_v = 1,
     .ratio = 4,
     .shared = true,
     .rank = TG_FLA_GLA_RANK,
     .demands = {IS_TRUE("use_output_gate"), IS_NULL("feature_map"), IS_NULL("clamp_min"),
                 IS_TRUE("elementwise_affine"), IS_FALSE("use_short_conv")}},
    {.type = "delta_net",
     .mixer = "deltanet",
     .heads = 16,
     .expand_k = 1,
     .expand_v = 1,
     .ratio = 4,
     .beta = true,
     .demands = {IS_FALSE("use_gate"),
                 IS_TRUE("use_short_conv"),
                 IS_TRUE("use_beta"),
                 {"qk_norm", "\"l2\"", NULL, "\"l2\""},
                 {"qk_activation", "\"silu\"", NULL, "\"silu\""}}},
    {.type = "gated_deltanet",
     .mixer = "gated_deltanet",
     .heads = 6,
     .head_dim = 256,
     .expand_v = 2,
     .ratio = 4,
     .beta = true,
     .demands = {IS_TRUE("use_gate"),
                 IS_TRUE("use_short_conv"),
                 {"output_gate_activation", "\"swish\"", "\"silu\"", "\"swish\""}}},
    {.type = "kda",
     .mixer = "kda",
     .heads = 16,
     .head_dim = 128,
     .expand_v = 1,
     .ratio = 4,
     .beta = true,
     .gate = true,
     .demands = {IS_TRUE("use_short_conv"), IS_FALSE("safe_gate"), IS_NULL("lower_bound")}},
    {.type = "hgrn2",
     .mixer = "hgrn2",
     .ratio = 4,
     .demands = {{"use_lower_bound", "false", NULL, "true"},
                 IS_FALSE("use_short_conv"),
                 IS_TRUE("elementwise_affine")}},
    {.type = "retnet",
     .mixer = "retnet",
     .heads = 8,
     .expand_k = 1,
     .expand_v = 2,
     .ratio = 2,
     .rotary = true,
     .demands = {IS_TRUE("use_output_gate"), IS_NULL("feature_map"),
                 IS_TRUE("elementwise_affine")}},
    {.type = "linear_attn",
     .mixer = "linear",
     .heads = 4,
     .expand_k = 1,
     .expand_v = 1,
     .ratio = 4,
     .shared = true,
     .demands = {IS_FALSE("norm_q"), IS_FALSE("norm_k"), IS_FALSE("norm_feature_map"),
                 IS_TRUE("elementwise_affine")}},
};
#undef IS_NULL
#undef IS_FALSE
#undef IS_TRUE
static const char *const types[] = {"gla",   "delta_net", "gated_deltanet", "kda",
                                    "hgrn2", "retnet",    "linear_attn",    NULL};

static int check_demand(struct tg_json c, const struct demand *d, struct tg_err *err)
{
    const struct tg_json v = tg_json_key(c, d->key);
    char text[64];
    const char *is = v.node ? tg_json_text(v, text, sizeof text) : d->absent;

    if (!strcmp(is, d->value) || (d->other && !strcmp(is, d->other)))
        return TG_OK;
    return tg_json_fail(c, d->key, TG_ERR_UNSUPPORTED, err, "%s%s is not supported, only %s is",
                        v.node ? "" : "absent, which stands for ", is, d->value);
}

/* `key` times hidden_size channels over the heads */
static int share(struct tg_json c, const char *key, double expand, size_t width, size_t heads,
                 size_t *out, struct tg_err *err)
{
    const int rc = tg_json_get_num_or(c, key, 1e-6, 1024, &expand, err);
    const double exact = (double)width * expand, whole = round(exact);

    if (rc != TG_OK)
        return rc;
    if (whole < 1 || whole > (double)heads * TG_MAX_HEAD_DIM || fmod(whole, (double)heads) != 0 ||
        fabs(whole - exact) > 1e-9 * whole)
        return tg_json_fail(c, key, TG_ERR_VALUE, err,
                            "%g times hidden_size, %zu, is no multiple of %zu heads of at most %d",
                            expand, width, heads, TG_MAX_HEAD_DIM);
    *out = (size_t)whole / heads;
    return TG_OK;
}

/* heads, kv_heads, value_heads, head_dim, value_dim by the keys of most types */
static int read_sizes(struct tg_json c, const struct kind *k, size_t width, struct tg_layer_spec *l,
                      struct tg_err *err)
{
    int rc;

    l->heads = k->heads;
    if ((rc = tg_config_size_or(c, "num_heads", 1, TG_MAX_HEADS, &l->heads, err)))
        return rc;
    l->kv_heads = l->heads;
    if ((rc = tg_config_size_or(c, "num_kv_heads", 1, TG_MAX_HEADS, &l->kv_heads, err)))
        return rc;
    if (l->heads % l->kv_heads)
        return tg_json_fail(c, "num_kv_heads", TG_ERR_VALUE, err,
                            "%zu does not divide num_heads, "
                            "%zu",
                            l->kv_heads, l->heads);
    if (!k->shared && l->kv_heads != l->heads) /* of retnet: a decay for each query head */
        return tg_json_fail(c, "num_kv_heads", TG_ERR_UNSUPPORTED, err,
                            "%zu is not supported, only num_heads, %zu, is", l->kv_heads, l->heads);
    l->value_heads = l->kv_heads;
    if ((rc = share(c, "expand_k", k->expand_k, width, l->heads, &l->head_dim, err)))
        return rc;
    return share(c, "expand_v", k->expand_v, width, l->heads, &l->value_dim, err);
}

/* The same where a head's size is a key */
static int read_head_sizes(struct tg_json c, const struct kind *k, struct tg_layer_spec *l,
                           struct tg_err *err)
{
    double expand = k->expand_v;
    int rc;

    l->heads = k->heads;
    l->head_dim = k->head_dim;
    if ((rc = tg_config_size_or(c, "num_heads", 1, TG_MAX_HEADS, &l->heads, err)) ||
        (rc = tg_config_size_or(c, "head_dim", 1, TG_MAX_HEAD_DIM, &l->head_dim, err)) ||
        (rc = tg_json_get_num_or(c, "expand_v", 1e-6, 1024, &expand, err)))
        return rc;
    l->kv_heads = l->value_heads = l->heads;
    if ((rc = tg_config_size_or(c, "num_v_heads", 1, TG_MAX_HEADS, &l->value_heads, err)))
        return rc;
    if (l->value_heads % l->heads)
        return tg_json_fail(c, "num_v_heads", TG_ERR_VALUE, err,
                            "%zu is not a multiple of num_heads, %zu", l->value_heads, l->heads);
    const double size = floor((double)l->head_dim * expand);
    if (!(size >= 1 && size <= TG_MAX_HEAD_DIM))
        return tg_json_fail(c, "expand_v", TG_ERR_VALUE, err,
                            "%g gives values of size %g, must be 1 to %d", expand, size,
                            TG_MAX_HEAD_DIM);
    l->value_dim = (size_t)size;
    return TG_OK;
}

/* HGRN2: expand_ratio, or without it num_heads */
static int read_expand_ratio(struct tg_json c, size_t width, struct tg_layer_spec *l,
                             struct tg_err *err)
{
    const bool by_heads =
        tg_json_key(c, "expand_ratio").node && !tg_json_has(tg_json_key(c, "expand_ratio"));
    const char *key = by_heads ? "num_heads" : "expand_ratio";
    size_t part = by_heads ? 0 : 128;
    int rc;

    if ((rc = tg_config_size_or(c, key, 1, TG_MAX_HEAD_DIM, &part, err)))
        return rc;
    if (!part || width % part || width / part > TG_MAX_HEADS)
        return tg_json_fail(c, key, TG_ERR_VALUE, err,
                            "%zu does not divide hidden_size, %zu, into heads", part, width);
    l->heads = by_heads ? part : width / part;
    l->kv_heads = l->value_heads = l->heads;
    l->head_dim = l->value_dim = width / l->heads;
    return TG_OK;
}

static int read_map(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err)
{
    static const struct {
        const char *name;
        enum tg_feature_map map;
    } maps[] = {{"elu", TG_MAP_ELU1}, {"relu", TG_MAP_RELU}, {"identity", TG_MAP_IDENTITY}};
    const char *name = "elementwise_product";
    const int rc = tg_json_get_str_or(c, "feature_map", &name, err);

    if (rc != TG_OK)
        return rc;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
        if (!strcmp(name, maps[i].name)) {
            l->feature_map = maps[i].map;
            l->plain_values = true;
            return TG_OK;
        }
    return tg_json_fail(c, "feature_map", TG_ERR_UNSUPPORTED, err,
                        "\"%s\" is not supported; known: elu, relu, identity", name);
}

/* The mixer of layers that attn does not name */
static int read_linear(struct tg_json c, const struct kind *k, const struct tg_model_spec *spec,
                       struct tg_layer_spec *l, struct tg_err *err)
{
    struct tg_recurrent_spec *r = &l->recurrent;
    const size_t width = spec->width;
    int rc;

    for (const struct demand *d = k->demands; d < k->demands + DEMANDS && d->key; d++)
        if ((rc = check_demand(c, d, err)))
            return rc;
    rc = k->head_dim   ? read_head_sizes(c, k, l, err)
         : k->expand_k ? read_sizes(c, k, width, l, err)
                       : read_expand_ratio(c, width, l, err);
    if (rc)
        return rc;
    const bool map = tg_mixer_schema_find(k->mixer)->flags & TG_MIXER_FAR;
    l->attn_scale = 1 / sqrt((double)l->head_dim);
    r->norm_eps = spec->norm.eps;
    r->rank = k->gate ? l->value_dim : k->rank;
    r->proj_bias = k->gate;
    r->conv = k->beta ? 4 : 0;
    if (!k->expand_k && !k->head_dim) {
        r->no_bound = true;
        r->norm_eps = TG_FLA_HGRN2_EPS;
    }
    if (map && (rc = read_map(c, l, err)))
        return rc;
    if (map) /* the recurrence is scaled by K^-1/2, which the norm after it undoes but for eps */
        r->norm_eps *= (double)l->head_dim;
    if (k->rotary && (l->head_dim % 2 || l->head_dim > TG_FLA_RETNET_MOST))
        return tg_json_fail(c, "expand_k", TG_ERR_VALUE, err,
                            "heads of size %zu cannot be rotated: must be even and at most %d",
                            l->head_dim, TG_FLA_RETNET_MOST);
    if (!k->beta)
        return TG_OK;
    if ((rc = tg_config_size_or(c, "conv_size", 1, 32, &r->conv, err)))
        return rc;
    return tg_json_get_bool_or(c, "allow_neg_eigval", &r->negative_eigenvalues, err);
}

static int read_mlp(struct tg_json c, const struct kind *k, size_t width, size_t *out,
                    struct tg_err *err)
{
    static const struct demand swish = {"hidden_act", "\"swish\"", NULL, "\"swish\""};
    size_t ratio = k->ratio;
    int rc;

    if ((rc = check_demand(c, &swish, err)) ||
        (rc = tg_config_size_or(c, "hidden_ratio", 1, 1024, &ratio, err)))
        return rc;
    if (tg_json_key(c, "hidden_ratio").node && !tg_json_has(tg_json_key(c, "hidden_ratio")))
        ratio = 4;
    *out = (width * ratio * 2 / 3 + 255) / 256 * 256;
    return tg_config_size_or(c, "intermediate_size", 1, TG_MAX_MLP, out, err);
}

/* One object of attn: its layers are softmax attention. theta [layers] is theirs. */
static int read_attention(struct tg_json o, struct tg_model_spec *spec, double *theta,
                          struct tg_err *err)
{
    struct tg_layer_spec l = {.kv_heads = 0};
    double base = 10000;
    bool in[TG_MAX_LAYERS];
    size_t named = 0;
    int rc;

    if (!tg_json_is_object(o))
        return tg_json_fail(o, "", TG_ERR_VALUE, err, "must be an object or null");
    if (!tg_json_has(tg_json_key(o, "layers")) || !tg_json_has(tg_json_key(o, "num_heads")))
        return tg_json_fail(o, tg_json_has(tg_json_key(o, "layers")) ? "num_heads" : "layers",
                            TG_ERR_VALUE, err, "is missing");
    if ((rc = tg_config_listed(o, "layers", 0, spec->layer_count, in, err)) ||
        (rc = tg_config_size_or(o, "num_heads", 1, TG_MAX_HEADS, &l.heads, err)))
        return rc;
    l.kv_heads = l.heads;
    if ((rc = tg_config_size_or(o, "num_kv_heads", 1, TG_MAX_HEADS, &l.kv_heads, err)) ||
        (rc = tg_json_get_bool_or(o, "qkv_bias", &l.qkv_bias, err)) ||
        (rc = tg_config_size_or(o, "window_size", 1, TG_MAX_WINDOW, &l.window, err)) ||
        (rc = tg_json_get_num_or(o, "rope_theta", 1, 1e15, &base, err)))
        return rc;
    if (l.heads % l.kv_heads)
        return tg_json_fail(o, "num_kv_heads", TG_ERR_VALUE, err,
                            "%zu does not divide num_heads, "
                            "%zu",
                            l.kv_heads, l.heads);
    l.head_dim = l.rotary_dim = spec->width / l.heads;
    if (spec->width % l.heads || l.head_dim % 2 || l.head_dim > TG_MAX_HEAD_DIM)
        return tg_json_fail(o, "num_heads", TG_ERR_VALUE, err,
                            "%zu does not divide hidden_size, %zu, into heads of even size, at "
                            "most %d",
                            l.heads, spec->width, TG_MAX_HEAD_DIM);
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *to = &spec->layers[i];
        if (!in[i])
            continue;
        if (to->mixer)
            return tg_json_fail(o, "layers", TG_ERR_VALUE, err, "layer %zu is named twice", i);
        named++;
        l.mlp_dim = to->mlp_dim;
        l.attn_scale = 1 / sqrt((double)l.head_dim);
        tg_layer_attend(&l, l.window);
        *to = l;
        theta[i] = base;
    }
    return named == tg_json_count(tg_json_key(o, "layers"))
               ? TG_OK
               : tg_json_fail(o, "layers", TG_ERR_VALUE, err, "a layer is named twice");
}

/* Which rope turns a layer, numbered as they come */
static int place_ropes(struct tg_json c, struct tg_model_spec *spec, const double *theta,
                       struct tg_err *err)
{
    for (size_t i = 0; i < spec->layer_count; i++) {
        size_t r = 0;
        if (!(theta[i] > 0))
            continue;
        while (r < TG_MAX_ROPES && spec->ropes[r].theta > 0 && spec->ropes[r].theta != theta[i])
            r++;
        if (r == TG_MAX_ROPES)
            return tg_json_fail(c, "attn", TG_ERR_UNSUPPORTED, err,
                                "rope_theta %g of layer %zu: more than %d different ones", theta[i],
                                i, TG_MAX_ROPES);
        spec->ropes[r].theta = theta[i];
        spec->layers[i].rope = r;
    }
    return TG_OK;
}

static int read_layers(struct tg_json c, const struct kind *k, struct tg_model_spec *spec,
                       struct tg_err *err)
{
    const struct tg_json attn = tg_json_key(c, "attn");
    const bool list = tg_json_is_array(attn);
    double theta[TG_MAX_LAYERS] = {0};
    struct tg_layer_spec linear = {0};
    int rc;

    if ((rc = read_linear(c, k, spec, &linear, err)))
        return rc;
    if (!list && tg_json_has(attn) && (rc = read_attention(attn, spec, theta, err)))
        return rc;
    for (struct tg_json o = tg_json_first(attn); list && o.node; o = tg_json_next(o))
        if ((rc = read_attention(o, spec, theta, err)))
            return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        struct tg_layer_spec *l = &spec->layers[i];
        if (l->mixer)
            continue;
        tg_layer_linear(l, k->mixer, &linear);
        l->heads = linear.heads;
        l->feature_map = linear.feature_map;
        l->plain_values = linear.plain_values;
        l->rotary_dim = k->rotary ? l->head_dim : 0;
        theta[i] = k->rotary ? TG_FLA_RETNET_THETA : 0;
    }
    return place_ropes(c, spec, theta, err);
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const struct demand plain = {"attnres_block_size", "null", NULL, "null"};
    const struct tg_config_defaults d = {
        .max_positions = 2048, .bos_id = 1, .eos_id = 2, .keys.eps = "norm_eps"};
    const struct kind *k = kinds;
    struct tg_layer_spec l = {0};
    const char *type;
    int rc;

    if ((rc = tg_json_get_str(c, "model_type", &type, err)) ||
        (rc = tg_config_model(c, &d, spec, err)) || (rc = check_demand(c, &plain, err)))
        return rc;
    while (strcmp(k->type, type) != 0)
        k++;
    if ((rc = read_mlp(c, k, spec->width, &l.mlp_dim, err)) ||
        (rc = tg_config_layers(c, &d, &l, spec, err)))
        return rc;
    return read_layers(c, k, spec, err);
}

static const char *const droppable[] = {"*rotary.inv_freq", NULL};

const struct tg_family tg_family_fla = {
    .name = "fla",
    .types = types,
    .names = tg_fla_names,
    .droppable = droppable,
    .read_config = read_config,
};
