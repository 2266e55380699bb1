/* Native hybrids (docs/formats/native.md): the config describes every layer in full, by one table
 * that both reads and writes; tensors have their canonical names. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/config.h"
#include "convert/family.h"
#include "convert/native.h"

enum kind { SIZE, FLAG, NUMBER, NUMBERS, MIXER, CHOICE };

/* A field of a layer or of the model; what is not `always` there is written if it is not zero. */
struct field {
    const char *key;
    enum kind kind;
    size_t offset;
    bool always;
    double least, most;
    const char *(*name)(int value); /* CHOICE: of values below `count` */
    int count;                      /* NUMBERS: of the array */
};

static const char *activation_name(int a)
{
    return tg_activation_name((enum tg_activation)a);
}

static const char *map_name(int m)
{
    return tg_feature_map_name((enum tg_feature_map)m);
}

static const char *window_form_name(int f)
{
    return tg_window_form_name((enum tg_window_form)f);
}

static const char *residual_name(int r)
{
    return tg_residual_info((enum tg_residual)r)->name;
}

static const char *qk_norm_name(int n)
{
    static const char *const names[] = {"none", "head", "each", "wide"};
    return names[n];
}

static const char *mlp_kind_name(int k)
{
    static const char *const names[] = {"gated", "plain", "none"};
    return names[k];
}

static const char *router_name(int r)
{
    static const char *const names[] = {"softmax_top", "top_softmax", "sigmoid"};
    return names[r];
}

static const char *norm_name(int k)
{
    static const char *const names[] = {"rms", "layer"};
    return names[k];
}

static const struct field layer_fields[] = {
#define AT(member) offsetof(struct tg_layer_spec, member)
#define FACTOR(key, member)                                                                        \
    {                                                                                              \
        key, NUMBER, AT(member), false, -1e6, 1e6, NULL, 0                                         \
    }
#define LIMIT(key, member)                                                                         \
    {                                                                                              \
        key, NUMBER, AT(member), false, 0, 1e9, NULL, 0                                            \
    }
#define COUNT(key, member, most)                                                                   \
    {                                                                                              \
        key, SIZE, AT(member), false, 0, most, NULL, 0                                             \
    }
#define TRUTH(key, member)                                                                         \
    {                                                                                              \
        key, FLAG, AT(member), false, 0, 0, NULL, 0                                                \
    }
    {"mixer", MIXER, AT(mixer), true, 0, 0, NULL, 0},
    {"heads", SIZE, AT(heads), true, 0, TG_MAX_HEADS, NULL, 0},
    {"kv_heads", SIZE, AT(kv_heads), true, 0, TG_MAX_HEADS, NULL, 0},
    {"head_dim", SIZE, AT(head_dim), true, 0, TG_MAX_HEAD_DIM, NULL, 0},
    COUNT("value_dim", value_dim, TG_MAX_HEAD_DIM),
    COUNT("value_heads", value_heads, TG_MAX_HEADS),
    {"window_form", CHOICE, AT(window_form), false, 0, 0, window_form_name, TG_WINDOW_FORM_COUNT},
    TRUTH("linear_plain", linear_plain),
    TRUTH("plain_values", plain_values),
    {"rotary_dim", SIZE, AT(rotary_dim), true, 0, TG_MAX_HEAD_DIM, NULL, 0},
    COUNT("rope", rope, TG_MAX_ROPES - 1),
    {"window", SIZE, AT(window), true, 0, TG_MAX_WINDOW, NULL, 0},
    {"sinks", SIZE, AT(sinks), true, 0, TG_MAX_SINKS, NULL, 0},
    {"feature_map", CHOICE, AT(feature_map), true, 0, 0, map_name, TG_MAP_COUNT},
    {"feature_dim", SIZE, AT(feature_dim), true, 0, TG_MAX_HEAD_DIM, NULL, 0},
    {"gated", FLAG, AT(gated), true, 0, 0, NULL, 0},
    {"qkv_bias", FLAG, AT(qkv_bias), true, 0, 0, NULL, 0},
    {"o_bias", FLAG, AT(o_bias), true, 0, 0, NULL, 0},
    {"qk_norm", CHOICE, AT(qk_norm), true, 0, 0, qk_norm_name, TG_QK_WIDE + 1},
    TRUTH("qk_norm_bias", qk_norm_bias),
    {"attn_scale", NUMBER, AT(attn_scale), true, 0, 1e6, NULL, 0},
    LIMIT("attn_softcap", attn_softcap),
    LIMIT("qkv_clip", qkv_clip),
    TRUTH("output_gate", output_gate),
    COUNT("q_rank", q_rank, TG_MAX_WIDTH),
    COUNT("kv_rank", kv_rank, TG_MAX_WIDTH),
    LIMIT("latent_eps", latent_eps),
    COUNT("recurrent_v_heads", recurrent.v_heads, TG_MAX_HEADS),
    COUNT("recurrent_v_dim", recurrent.v_dim, TG_MAX_HEAD_DIM),
    COUNT("recurrent_conv", recurrent.conv, TG_MAX_HEAD_DIM),
    COUNT("recurrent_inner_conv", recurrent.inner_conv, TG_MAX_HEAD_DIM),
    COUNT("recurrent_state", recurrent.state, TG_MAX_HEAD_DIM),
    COUNT("recurrent_groups", recurrent.groups, TG_MAX_HEADS),
    COUNT("recurrent_inner", recurrent.inner, TG_MAX_MLP),
    COUNT("recurrent_rank", recurrent.rank, TG_MAX_WIDTH),
    COUNT("recurrent_partitions", recurrent.partitions, TG_MAX_HEADS),
    COUNT("recurrent_active", recurrent.active, TG_MAX_HEADS),
    COUNT("recurrent_chunk", recurrent.chunk, TG_MAX_WINDOW),
    COUNT("recurrent_norm_groups", recurrent.norm_groups, TG_MAX_HEADS),
    TRUTH("recurrent_no_shared", recurrent.no_shared),
    TRUTH("recurrent_no_bound", recurrent.no_bound),
    TRUTH("recurrent_conv_bias", recurrent.conv_bias),
    TRUTH("recurrent_proj_bias", recurrent.proj_bias),
    TRUTH("recurrent_out_bias", recurrent.out_bias),
    TRUTH("recurrent_norm", recurrent.norm),
    TRUTH("recurrent_norm_before_gate", recurrent.norm_before_gate),
    TRUTH("recurrent_negative_eigenvalues", recurrent.negative_eigenvalues),
    LIMIT("recurrent_dt_min", recurrent.dt_min),
    LIMIT("recurrent_dt_max", recurrent.dt_max),
    LIMIT("recurrent_norm_eps", recurrent.norm_eps),
    {"recurrent_scales", NUMBERS, AT(recurrent.scales), false, -1e6, 1e6, NULL, 8},
    FACTOR("recurrent_in_scale", recurrent.in_scale),
    FACTOR("recurrent_out_scale", recurrent.out_scale),
    FACTOR("recurrent_beside_scale", recurrent.beside_scale),
    {"residual", CHOICE, AT(residual), false, 0, 0, residual_name, TG_RESIDUAL_COUNT},
    FACTOR("mixer_scale", mixer_scale),
    FACTOR("mlp_scale", mlp_scale),
    FACTOR("mixer_skip", mixer_skip),
    FACTOR("mlp_skip", mlp_skip),
    {"mlp_kind", CHOICE, AT(mlp_kind), false, 0, 0, mlp_kind_name, TG_MLP_NONE + 1},
    {"mlp_dim", SIZE, AT(mlp_dim), true, 0, TG_MAX_MLP, NULL, 0},
    {"hidden_act", CHOICE, AT(activation), true, 0, 0, activation_name, TG_ACT_COUNT},
    {"mlp_bias", FLAG, AT(mlp_bias), true, 0, 0, NULL, 0},
    FACTOR("gate_scale", gate_scale),
    FACTOR("down_scale", down_scale),
    COUNT("experts", moe.experts, TG_MAX_EXPERTS),
    COUNT("experts_per_token", moe.per_token, TG_MAX_EXPERTS),
    COUNT("expert_mlp_dim", moe.mlp_dim, TG_MAX_MLP),
    {"router", CHOICE, AT(moe.router), false, 0, 0, router_name, TG_ROUTER_SIGMOID + 1},
    TRUTH("router_renormalise", moe.renormalise),
    TRUTH("router_bias", moe.router_bias),
    TRUTH("router_correction", moe.correction),
    TRUTH("expert_bias", moe.expert_bias),
    FACTOR("expert_scale", moe.scale),
    COUNT("expert_groups", moe.groups, TG_MAX_EXPERTS),
    COUNT("expert_groups_kept", moe.groups_kept, TG_MAX_EXPERTS),
    COUNT("shared_expert_mlp_dim", moe.shared_dim, TG_MAX_MLP),
    TRUTH("shared_expert_gate", moe.shared_gate),
#undef AT
};

/* Of the model, beside those that tg_config_model reads */
static const struct field model_fields[] = {
#define AT(member) offsetof(struct tg_model_spec, member)
    {"norm_kind", CHOICE, AT(norm.kind), false, 0, 0, norm_name, TG_NORM_LAYER + 1},
    TRUTH("norm_plus_one", norm.plus_one),
    TRUTH("norm_bare", norm.bare),
    TRUTH("norm_bias", norm.bias),
    TRUTH("no_norm_out", no_norm_out),
    TRUTH("head_bias", head_bias),
    FACTOR("embed_scale", embed_scale),
    FACTOR("logit_scale", logit_scale),
    LIMIT("logit_softcap", logit_softcap),
    COUNT("embed_dim", embed_dim, TG_MAX_WIDTH),
    COUNT("learned_positions", learned_positions, TG_MAX_POSITIONS),
    COUNT("position_offset", position_offset, TG_MAX_POSITIONS),
#undef AT
#undef FACTOR
#undef LIMIT
#undef COUNT
#undef TRUTH
};
enum {
    LAYER_FIELDS = sizeof layer_fields / sizeof *layer_fields,
    MODEL_FIELDS = sizeof model_fields / sizeof *model_fields
};

static int read_mixer(struct tg_json o, const struct field *f, void *to, struct tg_err *err)
{
    const struct tg_mixer_schema *schema;
    const char *name = "";
    const int rc = tg_json_get_str(o, f->key, &name, err);

    if (rc != TG_OK)
        return rc;
    if (!(schema = tg_mixer_schema_find(name)))
        return tg_json_fail(o, f->key, TG_ERR_UNSUPPORTED, err, "unknown mixer \"%s\"", name);
    *(const struct tg_mixer_schema **)to = schema;
    return TG_OK;
}

/* Names; format 1 had a truth value for what has become a choice of "none" and others. */
static int read_choice(struct tg_json o, const struct field *f, void *to, struct tg_err *err)
{
    const struct tg_json v = tg_json_key(o, f->key);
    const char *name = "";
    int rc;

    if (tg_json_is_bool(v) && !strcmp(f->name(0), "none")) {
        *(int *)to = tg_json_bool(v);
        return TG_OK;
    }
    if ((rc = tg_json_get_str(o, f->key, &name, err)))
        return rc;
    for (int i = 0; i < f->count; i++)
        if (!strcmp(name, f->name(i))) {
            *(int *)to = i;
            return TG_OK;
        }
    return tg_json_fail(o, f->key, TG_ERR_UNSUPPORTED, err, "unknown value \"%s\"", name);
}

static int read_numbers(struct tg_json o, const struct field *f, double *to, struct tg_err *err)
{
    const struct tg_json list = tg_json_key(o, f->key);
    size_t n = 0;

    if (!tg_json_is_array(list) || tg_json_count(list) != (size_t)f->count)
        return tg_json_fail(o, f->key, TG_ERR_VALUE, err, "must be an array of %d numbers",
                            f->count);
    for (struct tg_json v = tg_json_first(list); v.node; v = tg_json_next(v)) {
        if (!tg_json_is_number(v) ||
            !(tg_json_number(v) >= f->least && tg_json_number(v) <= f->most))
            return tg_json_fail(v, "", TG_ERR_VALUE, err, "must be a number from %g to %g",
                                f->least, f->most);
        to[n++] = tg_json_number(v);
    }
    return TG_OK;
}

static int read_field(struct tg_json o, const struct field *f, void *base, struct tg_err *err)
{
    void *to = (char *)base + f->offset;

    if (!tg_json_has(tg_json_key(o, f->key)))
        return f->always ? tg_json_fail(o, f->key, TG_ERR_VALUE, err, "is missing") : TG_OK;
    switch (f->kind) {
    case SIZE:
        return tg_config_size_or(o, f->key, (int64_t)f->least, (int64_t)f->most, to, err);
    case FLAG:
        return tg_json_get_bool_or(o, f->key, to, err);
    case NUMBER:
        return tg_json_get_num(o, f->key, f->least, f->most, to, err);
    case NUMBERS:
        return read_numbers(o, f, to, err);
    case MIXER:
        return read_mixer(o, f, to, err);
    case CHOICE:
        break;
    }
    return read_choice(o, f, to, err);
}

static int read_layer(struct tg_json o, struct tg_layer_spec *l, struct tg_err *err)
{
    const char *known[LAYER_FIELDS + 1] = {NULL};
    int rc;

    if (!tg_json_is_object(o))
        return tg_json_fail(o, "", TG_ERR_VALUE, err, "a layer must be an object");
    for (size_t i = 0; i < LAYER_FIELDS; i++)
        known[i] = layer_fields[i].key;
    if ((rc = tg_json_only_keys(o, known, err)))
        return rc;
    for (size_t i = 0; i < LAYER_FIELDS; i++)
        if ((rc = read_field(o, &layer_fields[i], l, err)))
            return rc;
    return TG_OK;
}

static int read_layers(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json layers = tg_json_key(c, "layers");
    const size_t count = tg_json_count(layers);
    int64_t said = 0;
    size_t i = 0;
    int rc;

    if ((rc = tg_json_get_int(c, "num_hidden_layers", 1, TG_MAX_LAYERS, &said, err)))
        return rc;
    if (!tg_json_is_array(layers) || count != (size_t)said)
        return tg_json_fail(c, "layers", TG_ERR_VALUE, err,
                            "must be an array of num_hidden_layers = %lld objects; it has %zu",
                            (long long)said, count);
    if (!(spec->layers = tg_alloc_array(count, sizeof *spec->layers)))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a spec of %zu layers", count);
    spec->layer_count = count;
    for (struct tg_json v = tg_json_first(layers); v.node; v = tg_json_next(v))
        if ((rc = read_layer(v, &spec->layers[i++], err)))
            return rc;
    return TG_OK;
}

/* null: no layer is rotated with it */
static int read_rope(struct tg_json c, const char *key, struct tg_rope *r, struct tg_err *err)
{
    const struct tg_json from = tg_json_key(c, key), nothing = {0};
    double share = 1;
    int rc;

    if (!tg_json_has(from))
        return TG_OK;
    if (!tg_json_is_object(from))
        return tg_json_fail(c, key, TG_ERR_VALUE, err, "must be an object or null");
    r->theta = 10000;
    if ((rc = tg_config_rope(from, nothing, 1, r, &share, err)))
        return rc;
    if (r->kind == TG_ROPE_DYNAMIC)
        return tg_json_get_num(from, "original_max_position_embeddings", 1, 1e15,
                               &r->original_max_positions, err);
    return TG_OK;
}

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    /* optional in HF configs, always written here */
    static const char *const required[] = {"rope_parameters", "rms_norm_eps", "tie_word_embeddings",
                                           "max_position_embeddings"};
    static const struct tg_config_defaults defaults = {.bos_id = -1, .eos_id = -1};
    const char *ropes[TG_MAX_ROPES] = {"rope_parameters", "rope_parameters_1"};
    const struct tg_json about = tg_json_key(c, "tegu");
    const char *base = "";
    int64_t format = 0;
    int rc;

    if (!tg_json_is_object(about))
        return tg_json_fail(c, "tegu", TG_ERR_VALUE, err, "must be an object");
    if ((rc = tg_json_get_int(about, "format", 1, 1 << 20, &format, err)))
        return rc;
    if (format > TG_NATIVE_FORMAT)
        return tg_json_fail(about, "format", TG_ERR_UNSUPPORTED, err,
                            "%lld was written by a newer version; this one reads up to %d",
                            (long long)format, TG_NATIVE_FORMAT);
    for (size_t i = 0; i < sizeof required / sizeof *required; i++)
        if (!tg_json_key(c, required[i]).node)
            return tg_json_fail(c, required[i], TG_ERR_VALUE, err, "is missing");
    if ((rc = tg_config_model(c, &defaults, spec, err)) ||
        (rc = tg_json_get_str(c, "base_family", &base, err)))
        return rc;
    if (!*base || strlen(base) >= sizeof spec->base_family)
        return tg_json_fail(c, "base_family", TG_ERR_VALUE, err, "must have 1 to %zu characters",
                            sizeof spec->base_family - 1);
    snprintf(spec->base_family, sizeof spec->base_family, "%s", base);
    for (size_t i = 0; i < MODEL_FIELDS; i++)
        if ((rc = read_field(c, &model_fields[i], spec, err)))
            return rc;
    for (size_t i = 0; i < TG_MAX_ROPES; i++)
        if ((rc = read_rope(c, ropes[i], &spec->ropes[i], err)))
            return rc;
    return read_layers(c, spec, err);
}

static bool is_zero(const struct field *f, const void *from)
{
    static const char zeros[8 * sizeof(double)];
    const size_t sizes[] = {
        [SIZE] = sizeof(size_t),   [FLAG] = sizeof(bool),
        [NUMBER] = sizeof(double), [NUMBERS] = (size_t)f->count * sizeof(double),
        [MIXER] = sizeof(void *),  [CHOICE] = sizeof(int)};
    return !memcmp(from, zeros, sizes[f->kind]);
}

static void write_fields(struct tg_json_out *j, const struct field *fields, size_t count,
                         const void *base)
{
    for (size_t i = 0; i < count; i++) {
        const struct field *f = &fields[i];
        const void *from = (const char *)base + f->offset;

        if (!f->always && is_zero(f, from))
            continue;
        switch (f->kind) {
        case SIZE:
            tg_jout_int(j, f->key, (int64_t) * (const size_t *)from);
            break;
        case FLAG:
            tg_jout_bool(j, f->key, *(const bool *)from);
            break;
        case NUMBER:
            tg_jout_num(j, f->key, *(const double *)from);
            break;
        case NUMBERS:
            tg_jout_array(j, f->key);
            for (int n = 0; n < f->count; n++)
                tg_jout_num(j, NULL, ((const double *)from)[n]);
            tg_jout_end_array(j);
            break;
        case MIXER:
            tg_jout_str(j, f->key, (*(const struct tg_mixer_schema *const *)from)->name);
            break;
        case CHOICE:
            tg_jout_str(j, f->key, f->name(*(const int *)from));
            break;
        }
    }
}

static void write_layer(struct tg_json_out *j, const struct tg_layer_spec *l)
{
    tg_jout_object(j, NULL);
    write_fields(j, layer_fields, LAYER_FIELDS, l);
    tg_jout_end_object(j);
}

static void write_rope(struct tg_json_out *j, const char *key, const struct tg_rope *r)
{
    if (!(r->theta > 0)) {
        tg_jout_null(j, key);
        return;
    }
    tg_jout_object(j, key);
    tg_config_rope_write(r, j);
    tg_jout_end_object(j);
}

static void write_specials(struct tg_json_out *j, const struct tg_model_spec *spec)
{
    if (spec->bos_id < 0)
        tg_jout_null(j, "bos_token_id");
    else
        tg_jout_int(j, "bos_token_id", spec->bos_id);
    tg_jout_array(j, "eos_token_id");
    for (size_t i = 0; i < spec->eos_count; i++)
        tg_jout_int(j, NULL, spec->eos_ids[i]);
    tg_jout_end_array(j);
}

static void write_about(struct tg_json_out *j, const struct tg_native_meta *meta)
{
    char seed[24];

    snprintf(seed, sizeof seed, "%llu", (unsigned long long)meta->seed);
    tg_jout_object(j, "tegu");
    tg_jout_int(j, "format", TG_NATIVE_FORMAT);
    tg_jout_str(j, "version", meta->version);
    tg_jout_str(j, "command", meta->command);
    tg_jout_str(j, "seed", seed); /* a JSON number is exact only below 2^53 */
    tg_jout_str(j, "teacher_name", meta->teacher_name);
    tg_jout_str(j, "teacher_hash", meta->teacher_hash);
    tg_jout_end_object(j);
}

void tg_native_config(struct tg_strbuf *to, const struct tg_model_spec *spec, enum tg_dtype dtype,
                      const struct tg_native_meta *meta)
{
    struct tg_json_out j;

    tg_jout_init(&j, to, 2);
    tg_jout_object(&j, NULL);
    tg_jout_str(&j, "model_type", "tegu");
    tg_jout_array(&j, "architectures");
    tg_jout_str(&j, NULL, "TeguForCausalLM");
    tg_jout_end_array(&j);
    tg_jout_object(&j, "auto_map");
    tg_jout_str(&j, "AutoConfig", "configuration_tegu.TeguConfig");
    tg_jout_str(&j, "AutoModel", "modeling_tegu.TeguModel");
    tg_jout_str(&j, "AutoModelForCausalLM", "modeling_tegu.TeguForCausalLM");
    tg_jout_end_object(&j);
    tg_jout_str(&j, "base_family", spec->base_family[0] ? spec->base_family : spec->family);
    tg_jout_str(&j, "dtype",
                dtype == TG_BF16  ? "bfloat16"
                : dtype == TG_F16 ? "float16"
                                  : "float32");
    tg_jout_int(&j, "vocab_size", (int64_t)spec->vocab);
    tg_jout_int(&j, "hidden_size", (int64_t)spec->width);
    tg_jout_int(&j, "num_hidden_layers", (int64_t)spec->layer_count);
    if (spec->max_positions)
        tg_jout_int(&j, "max_position_embeddings", (int64_t)spec->max_positions);
    else
        tg_jout_null(&j, "max_position_embeddings");
    tg_jout_num(&j, "rms_norm_eps", spec->norm.eps);
    tg_jout_bool(&j, "tie_word_embeddings", spec->tied_head);
    write_fields(&j, model_fields, MODEL_FIELDS, spec);
    write_rope(&j, "rope_parameters", &spec->ropes[0]);
    if (spec->ropes[1].theta > 0)
        write_rope(&j, "rope_parameters_1", &spec->ropes[1]);
    write_specials(&j, spec);
    tg_jout_array(&j, "layers");
    for (size_t i = 0; i < spec->layer_count; i++)
        write_layer(&j, &spec->layers[i]);
    tg_jout_end_array(&j);
    write_about(&j, meta);
    tg_jout_end_object(&j);
    tg_strbuf_puts(to, "\n");
}

static const char *const types[] = {"tegu", NULL};
static const struct tg_name_rule names[] = {{"*", "*", NULL}, {NULL, NULL, NULL}};
static const char *const droppable[] = {NULL};

const struct tg_family tg_family_tegu = {
    .name = "tegu",
    .types = types,
    .names = names,
    .droppable = droppable,
    .read_config = read_config,
};
