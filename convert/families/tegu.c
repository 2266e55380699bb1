/* Native hybrids (docs/formats/native.md): the config describes every layer in full, by one table
 * that both reads and writes; tensors have their canonical names. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/config.h"
#include "convert/family.h"
#include "convert/native.h"

enum kind { SIZE, FLAG, NUMBER, MIXER, MAP, ACTIVATION };

static const struct field {
    const char *key;
    enum kind kind;
    size_t offset; /* in struct tg_layer_spec */
    int64_t least, most;
} fields[] = {
#define AT(member) offsetof(struct tg_layer_spec, member)
    {"mixer", MIXER, AT(mixer), 0, 0},
    {"heads", SIZE, AT(heads), 1, TG_MAX_HEADS},
    {"kv_heads", SIZE, AT(kv_heads), 1, TG_MAX_HEADS},
    {"head_dim", SIZE, AT(head_dim), 1, TG_MAX_HEAD_DIM},
    {"rotary_dim", SIZE, AT(rotary_dim), 0, TG_MAX_HEAD_DIM},
    {"window", SIZE, AT(window), 0, TG_MAX_WINDOW},
    {"sinks", SIZE, AT(sinks), 0, TG_MAX_SINKS},
    {"feature_map", MAP, AT(feature_map), 0, 0},
    {"feature_dim", SIZE, AT(feature_dim), 0, TG_MAX_HEAD_DIM},
    {"gated", FLAG, AT(gated), 0, 0},
    {"qkv_bias", FLAG, AT(qkv_bias), 0, 0},
    {"o_bias", FLAG, AT(o_bias), 0, 0},
    {"qk_norm", FLAG, AT(qk_norm), 0, 0},
    {"attn_scale", NUMBER, AT(attn_scale), 0, 1000000},
    {"mlp_dim", SIZE, AT(mlp_dim), 1, TG_MAX_MLP},
    {"hidden_act", ACTIVATION, AT(activation), 0, 0},
    {"mlp_bias", FLAG, AT(mlp_bias), 0, 0},
#undef AT
};
enum { FIELDS = sizeof fields / sizeof *fields };

static int read_choice(struct tg_json o, const struct field *f, void *to, struct tg_err *err)
{
    const char *name = "";
    const int rc = tg_json_get_str(o, f->key, &name, err);

    if (rc != TG_OK)
        return rc;
    if (f->kind == MIXER) {
        const struct tg_mixer_schema *schema = tg_mixer_schema_find(name);
        if (!schema)
            return tg_json_fail(o, f->key, TG_ERR_UNSUPPORTED, err, "unknown mixer \"%s\"", name);
        *(const struct tg_mixer_schema **)to = schema;
    } else if (!tg_feature_map_parse(name, to))
        return tg_json_fail(o, f->key, TG_ERR_UNSUPPORTED, err, "unknown feature map \"%s\"", name);
    return TG_OK;
}

static int read_field(struct tg_json o, const struct field *f, struct tg_layer_spec *l,
                      struct tg_err *err)
{
    void *to = (char *)l + f->offset;
    int64_t size = 0;
    int rc;

    if (!tg_json_has(tg_json_key(o, f->key)))
        return tg_json_fail(o, f->key, TG_ERR_VALUE, err, "is missing");
    switch (f->kind) {
    case SIZE:
        if ((rc = tg_json_get_int(o, f->key, f->least, f->most, &size, err)))
            return rc;
        *(size_t *)to = (size_t)size;
        return TG_OK;
    case FLAG:
        return tg_json_get_bool_or(o, f->key, to, err);
    case NUMBER:
        return tg_json_get_num(o, f->key, (double)f->least, (double)f->most, to, err);
    case ACTIVATION:
        return tg_config_activation(o, to, err);
    case MIXER:
    case MAP:
        break;
    }
    return read_choice(o, f, to, err);
}

static int read_layer(struct tg_json o, struct tg_layer_spec *l, struct tg_err *err)
{
    const char *known[FIELDS + 1] = {NULL};
    int rc;

    if (!tg_json_is_object(o))
        return tg_json_fail(o, "", TG_ERR_VALUE, err, "a layer must be an object");
    for (size_t i = 0; i < FIELDS; i++)
        known[i] = fields[i].key;
    if ((rc = tg_json_only_keys(o, known, err)))
        return rc;
    for (size_t i = 0; i < FIELDS; i++)
        if ((rc = read_field(o, &fields[i], l, err)))
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

static int read_config(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    /* optional in HF configs, always written here */
    static const char *const required[] = {"rope_parameters", "rms_norm_eps", "tie_word_embeddings",
                                           "max_position_embeddings"};
    static const struct tg_config_defaults defaults = {.bos_id = -1, .eos_id = -1};
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
        if (!tg_json_has(tg_json_key(c, required[i])))
            return tg_json_fail(c, required[i], TG_ERR_VALUE, err, "is missing");
    if ((rc = tg_config_model(c, &defaults, spec, err)) ||
        (rc = tg_json_get_str(c, "base_family", &base, err)))
        return rc;
    if (!*base || strlen(base) >= sizeof spec->base_family)
        return tg_json_fail(c, "base_family", TG_ERR_VALUE, err, "must have 1 to %zu characters",
                            sizeof spec->base_family - 1);
    snprintf(spec->base_family, sizeof spec->base_family, "%s", base);
    return read_layers(c, spec, err);
}

static void write_layer(struct tg_json_out *j, const struct tg_layer_spec *l)
{
    tg_jout_object(j, NULL);
    for (size_t i = 0; i < FIELDS; i++) {
        const struct field *f = &fields[i];
        const void *from = (const char *)l + f->offset;

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
        case MIXER:
            tg_jout_str(j, f->key, l->mixer->name);
            break;
        case MAP:
            tg_jout_str(j, f->key, tg_feature_map_name(l->feature_map));
            break;
        case ACTIVATION:
            tg_jout_str(j, f->key, "silu");
            break;
        }
    }
    tg_jout_end_object(j);
}

static void write_rope(struct tg_json_out *j, const struct tg_rope *r)
{
    tg_jout_object(j, "rope_parameters");
    tg_jout_str(j, "rope_type", r->kind == TG_ROPE_LLAMA3 ? "llama3" : "default");
    tg_jout_num(j, "rope_theta", r->theta);
    if (r->kind == TG_ROPE_LLAMA3) {
        tg_jout_num(j, "factor", r->factor);
        tg_jout_num(j, "low_freq_factor", r->low_freq_factor);
        tg_jout_num(j, "high_freq_factor", r->high_freq_factor);
        tg_jout_num(j, "original_max_position_embeddings", r->original_max_positions);
    }
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
    tg_jout_str(&j, "base_family", spec->base_family[0] ? spec->base_family : spec->family);
    tg_jout_str(&j, "dtype",
                dtype == TG_BF16  ? "bfloat16"
                : dtype == TG_F16 ? "float16"
                                  : "float32");
    tg_jout_int(&j, "vocab_size", (int64_t)spec->vocab);
    tg_jout_int(&j, "hidden_size", (int64_t)spec->width);
    tg_jout_int(&j, "num_hidden_layers", (int64_t)spec->layer_count);
    tg_jout_int(&j, "max_position_embeddings", (int64_t)spec->max_positions);
    tg_jout_num(&j, "rms_norm_eps", spec->norm.eps);
    tg_jout_bool(&j, "tie_word_embeddings", spec->tied_head);
    write_rope(&j, &spec->ropes[0]);
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
