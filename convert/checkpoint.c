/* Opening a model: config.json to a spec through its family's row, then the map from stored tensors
 * to parameters, which must be a bijection. */
#include "convert/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "convert/config.h"
#include "convert/families.h"
#include "convert/gguf_model.h"
#include "convert/names.h"
#include "convert/scaled.h"
#include "convert/tensor_map.h"

const struct tg_family *const tg_families[] = {
#define TG_FAMILY(name) &tg_family_##name,
#include "convert/families.def"
#undef TG_FAMILY
    NULL};

struct tg_checkpoint {
    char *path;
    const struct tg_family *family;
    bool wrapped;
    struct tg_scaling scaling;
    struct tg_model_spec spec;
    struct tg_param_list params;
    struct tg_tensors *tensors;
    struct tg_tensor_map map;
};

static const struct tg_family *family_of(const char *type)
{
    for (size_t i = 0; tg_families[i]; i++)
        for (size_t t = 0; tg_families[i]->types[t]; t++)
            if (!strcmp(tg_families[i]->types[t], type))
                return tg_families[i];
    return NULL;
}

static int refuse_type(struct tg_json c, const char *type, struct tg_err *err)
{
    struct tg_strbuf known;
    int rc;

    tg_strbuf_init(&known, 512);
    for (size_t i = 0; tg_families[i]; i++)
        tg_strbuf_printf(&known, "%s%s", i ? ", " : "", tg_families[i]->name);
    rc = tg_json_fail(c, "model_type", TG_ERR_UNSUPPORTED, err,
                      "\"%s\" is not a family that is read; known: %s", type, known.text);
    tg_strbuf_release(&known);
    return rc;
}

/* What a config is read as. */
struct reading {
    const struct tg_family *family;
    bool wrapped; /* it has a text_config, the text model's part */
    struct tg_scaling scaling;
    struct tg_model_spec *spec;
};

/* The text model's object, of which a wrapper may say some things beside it */
static int text_part(struct tg_json root, struct tg_json *c, bool *wrapped, struct tg_err *err)
{
    const struct tg_json inner = tg_json_key(root, "text_config");

    *c = root;
    if (!(*wrapped = tg_json_has(inner)))
        return TG_OK;
    if (!tg_json_is_object(inner))
        return tg_json_fail(root, "text_config", TG_ERR_VALUE, err, "must be an object");
    *c = inner;
    return TG_OK;
}

static int read_config(struct tg_json root, const char *name, struct reading *r, struct tg_err *err)
{
    const char *tied = "tie_word_embeddings", *type = "";
    struct tg_model_spec *spec = r->spec;
    struct tg_json c;
    int rc;

    if (!tg_json_is_object(root))
        return tg_fail(err, TG_ERR_VALUE, "%s: a config must be a JSON object", name);
    if ((rc = tg_scaling_read(root, &r->scaling, err)) ||
        (rc = text_part(root, &c, &r->wrapped, err)) ||
        (rc = tg_scaling_read(c, &r->scaling, err)) ||
        (rc = tg_json_get_str(c, "model_type", &type, err)))
        return rc;
    if (!(r->family = family_of(type)))
        return refuse_type(c, type, err);
    snprintf(spec->family, sizeof spec->family, "%s", r->family->name);
    snprintf(spec->base_family, sizeof spec->base_family, "%s", r->family->name);
    if ((rc = r->family->read_config(c, spec, err)))
        return rc;
    if (!tg_json_has(tg_json_key(c, tied)) &&
        (rc = tg_json_get_bool_or(root, tied, &spec->tied_head, err)))
        return rc;
    return tg_spec_check(spec, name, err);
}

static int parse_config(struct tg_json_doc *doc, const char *name, struct reading *r,
                        struct tg_err *err)
{
    int rc;

    *r->spec = (struct tg_model_spec){0};
    if ((rc = read_config(tg_json_root(doc), name, r, err)))
        tg_spec_release(r->spec);
    tg_json_free(doc);
    return rc;
}

int tg_config_parse(const char *json, size_t len, const char *name, struct tg_model_spec *spec,
                    struct tg_err *err)
{
    struct reading r = {.spec = spec};
    struct tg_json_doc *doc;
    const int rc = tg_json_parse(&doc, json, len, name, TG_JSON_INFINITY, err);

    return rc == TG_OK ? parse_config(doc, name, &r, err) : rc;
}

static int load_config(const char *path, struct reading *r, struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    char *file;
    int rc;

    if (!tg_path_exists(path))
        return tg_fail(err, TG_ERR_IO, "%s: no such file or directory", path);
    if (!tg_path_is_dir(path))
        return tg_fail(err, TG_ERR_UNSUPPORTED,
                       "%s: not a directory; a model is a directory with config.json and its "
                       "weights",
                       path);
    if (!(file = tg_path_join(path, "config.json")))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    rc = tg_json_load(&doc, file, TG_JSON_INFINITY, err);
    if (rc == TG_OK)
        rc = parse_config(doc, file, r, err);
    tg_free(file);
    return rc;
}

/* A GGUF file: its metadata are the config; *names maps its tensors. */
static int load_gguf(const char *path, struct tg_tensors **tensors, const struct tg_family **names,
                     struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_gguf_arch *arch;
    struct tg_strbuf json;
    int rc;

    tg_strbuf_init(&json, 1 << 20);
    if (!(rc = tg_tensors_open(tensors, path, err)) &&
        !(rc = tg_gguf_config(*tensors, &json, &arch, err)) &&
        !(rc = tg_config_parse(json.text, json.len, tg_tensors_file(*tensors, 0), spec, err))) {
        *names = tg_gguf_names(arch);
        tg_gguf_amend(arch, spec);
    }
    tg_strbuf_release(&json);
    return rc;
}

/* From either; the tensors of a GGUF model are open then. */
static int load(const char *path, struct reading *r, struct tg_tensors **tensors,
                struct tg_err *err)
{
    bool gguf;
    const int rc = tg_gguf_is_model(path, &gguf, err);

    if (rc != TG_OK)
        return rc;
    return gguf ? load_gguf(path, tensors, &r->family, r->spec, err) : load_config(path, r, err);
}

int tg_config_read(const char *path, struct tg_model_spec *spec, struct tg_err *err)
{
    struct reading r = {.spec = spec};
    struct tg_tensors *tensors = NULL;
    const int rc = load(path, &r, &tensors, err);

    tg_tensors_close(tensors);
    return rc;
}

static int map_tensors(struct tg_checkpoint *c, struct tg_err *err)
{
    for (size_t i = 0; i < tg_tensors_count(c->tensors); i++) {
        const struct tg_tensor *t = tg_tensors_at(c->tensors, i);
        const char *method = tg_name_quantised(t->name);
        if (method && !tg_scaling_takes(&c->scaling, t->name))
            return tg_fail(
                err, TG_ERR_UNSUPPORTED,
                "%s: tensor '%s' belongs to weights quantised with %s, which config.json "
                "does not name or which are not read: use the original checkpoint",
                t->file, t->name, method);
    }
    return tg_tensor_map_make(&c->map, c->family, c->wrapped, &c->scaling, &c->spec, &c->params,
                              c->tensors, c->path, err);
}

static int open_parts(struct tg_checkpoint *c, const char *path, struct tg_err *err)
{
    struct reading r = {.spec = &c->spec};
    int rc;

    if (!(c->path = tg_strdup(path)))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    rc = load(path, &r, &c->tensors, err);
    c->family = r.family;
    c->wrapped = r.wrapped;
    c->scaling = r.scaling;
    if (rc || (rc = tg_params_of(&c->spec, &c->params, err)) ||
        (!c->tensors && (rc = tg_tensors_open(&c->tensors, path, err))))
        return rc;
    return map_tensors(c, err);
}

int tg_checkpoint_open(struct tg_checkpoint **out, const char *path, struct tg_err *err)
{
    struct tg_checkpoint *c = tg_alloc(sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    if ((rc = open_parts(c, path, err))) {
        tg_checkpoint_close(c);
        return rc;
    }
    *out = c;
    return TG_OK;
}

void tg_checkpoint_close(struct tg_checkpoint *c)
{
    if (!c)
        return;
    tg_tensor_map_release(&c->map);
    tg_tensors_close(c->tensors);
    tg_params_release(&c->params);
    tg_spec_release(&c->spec);
    tg_free(c->path);
    tg_free(c);
}

const struct tg_model_spec *tg_checkpoint_spec(const struct tg_checkpoint *c)
{
    return &c->spec;
}

const struct tg_param_list *tg_checkpoint_params(const struct tg_checkpoint *c)
{
    return &c->params;
}

const struct tg_tensors *tg_checkpoint_tensors(const struct tg_checkpoint *c)
{
    return c->tensors;
}

const char *tg_checkpoint_path(const struct tg_checkpoint *c)
{
    return c->path;
}

const struct tg_source *tg_checkpoint_sources(const struct tg_checkpoint *c, size_t i,
                                              size_t *count)
{
    *count = c->map.first[i + 1] - c->map.first[i];
    return c->map.sources + c->map.first[i];
}

/* Elements [first, first + count) of a stored tensor as float32 */
static int read_range(const struct tg_tensor *t, size_t first, size_t count, float *dst,
                      struct tg_err *err)
{
    enum { PIECE = 1 << 14 };
    unsigned char space[PIECE / 4 * 8];
    const size_t most = PIECE / 4;
    int rc = TG_OK;

    for (size_t at = 0; at < count && rc == TG_OK; at += most) {
        const size_t n = count - at < most ? count - at : most;
        const void *view;
        if ((rc = tg_tensor_view(t, first + at, n, space, &view, err)) == TG_OK)
            tg_dtype_to_f32(t->dtype, view, dst + at, n);
    }
    return rc;
}

/* One run of elements is read where it goes; anything else through the whole tensor. */
static int read_source(const struct tg_scaling *scaling, const struct tg_source *s, float *dst,
                       struct tg_err *err)
{
    const struct tg_layout *l = &s->layout;
    const struct tg_piece *p = &l->piece[0];
    const struct tg_tensor *t = s->tensor;
    size_t elements = 1;
    float *whole;
    int rc;

    if (!s->scales && !l->neg_exp && !l->negative && l->pieces == 1 && p->loops == 1 &&
        p->loop[0].from == 1 && p->loop[0].to == 1) {
        if (p->loop[0].count == t->elements)
            return tg_tensor_read_f32(t, dst + p->to, err);
        if (tg_dtype_info(t->dtype)->block == 1)
            return read_range(t, p->from, p->loop[0].count, dst + p->to, err);
    }
    for (int d = 0; d < l->rank; d++) /* two in a byte for mxfp4 */
        elements *= (size_t)l->shape[d];
    if (!(whole = tg_alloc_floats(elements)))
        return tg_fail(err, TG_ERR_NOMEM, "%s: tensor '%s': out of memory", t->file, t->name);
    rc = s->scales ? tg_scaling_read_f32(scaling, t, s->scales, whole, err)
                   : tg_tensor_read_f32(t, whole, err);
    if (rc == TG_OK)
        tg_layout_copy(l, whole, dst);
    tg_free(whole);
    return rc;
}

int tg_checkpoint_read(const struct tg_checkpoint *c, size_t i, float *dst, struct tg_err *err)
{
    size_t count;
    const struct tg_source *s = tg_checkpoint_sources(c, i, &count);
    int rc = TG_OK;

    for (size_t k = 0; k < count && rc == TG_OK; k++)
        rc = read_source(&c->scaling, &s[k], dst, err);
    for (size_t e = 0; rc == TG_OK && e < c->params.items[i].count; e++)
        if (!isfinite(dst[e]))
            return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' has %s at element %zu%s%s",
                           s->tensor->file, s->tensor->name, isnan(dst[e]) ? "NaN" : "an infinity",
                           e, count > 1 ? " of all that make " : "",
                           count > 1 ? c->params.items[i].name : "");
    return rc;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int tg_checkpoint_hash(const struct tg_checkpoint *c, char hex[65], struct tg_err *err)
{
    const size_t shards = tg_tensors_file_count(c->tensors);
    const char **files = tg_alloc_array(shards + 2, sizeof *files);
    char *config = tg_path_join(c->path, "config.json"),
         *tokenizer = tg_path_join(c->path, "tokenizer.json");
    size_t n = 0;
    int rc;

    if (!files || !config || !tokenizer)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", c->path);
    else {
        if (tg_path_exists(config)) /* a GGUF model has none */
            files[n++] = config;
        if (tg_path_exists(tokenizer))
            files[n++] = tokenizer;
        for (size_t i = 0; i < shards; i++)
            files[n + i] = tg_tensors_file(c->tensors, i);
        qsort(files + n, shards, sizeof *files, compare_strings);
        rc = tg_sha256_files(files, n + shards, hex, err);
    }
    tg_free(files);
    tg_free(config);
    tg_free(tokenizer);
    return rc;
}
