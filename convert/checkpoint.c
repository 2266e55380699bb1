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
#include "convert/family.h"
#include "convert/names.h"

const struct tg_family *const tg_families[] = {
#define TG_FAMILY(name) &tg_family_##name,
#include "convert/families.def"
#undef TG_FAMILY
    NULL};

struct tg_checkpoint {
    char *path;
    const struct tg_family *family;
    struct tg_model_spec spec;
    struct tg_param_list params;
    struct tg_tensors *tensors;
    const struct tg_tensor **source; /* [params.count], borrowed from tensors */
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

/* The text model's part of the config, its family and the spec. */
static int read_config(struct tg_json root, const char *name, const struct tg_family **family,
                       struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_json inner = tg_json_key(root, "text_config");
    struct tg_json c = root;
    const char *type = "";
    int rc;

    if (!tg_json_is_object(root))
        return tg_fail(err, TG_ERR_VALUE, "%s: a config must be a JSON object", name);
    if ((rc = tg_config_unquantised(root, err)))
        return rc;
    if (tg_json_has(inner)) {
        if (!tg_json_is_object(inner))
            return tg_json_fail(root, "text_config", TG_ERR_VALUE, err, "must be an object");
        c = inner;
        if ((rc = tg_config_unquantised(c, err)))
            return rc;
    }
    if ((rc = tg_json_get_str(c, "model_type", &type, err)))
        return rc;
    if (!(*family = family_of(type)))
        return refuse_type(c, type, err);
    snprintf(spec->family, sizeof spec->family, "%s", (*family)->name);
    snprintf(spec->base_family, sizeof spec->base_family, "%s", (*family)->name);
    if ((rc = (*family)->read_config(c, spec, err)))
        return rc;
    return tg_spec_check(spec, name, err);
}

static int parse_config(struct tg_json_doc *doc, const char *name, const struct tg_family **family,
                        struct tg_model_spec *spec, struct tg_err *err)
{
    int rc;

    *spec = (struct tg_model_spec){0};
    if ((rc = read_config(tg_json_root(doc), name, family, spec, err)))
        tg_spec_release(spec);
    tg_json_free(doc);
    return rc;
}

int tg_config_parse(const char *json, size_t len, const char *name, struct tg_model_spec *spec,
                    struct tg_err *err)
{
    const struct tg_family *family;
    struct tg_json_doc *doc;
    const int rc = tg_json_parse(&doc, json, len, name, TG_JSON_INFINITY, err);

    return rc == TG_OK ? parse_config(doc, name, &family, spec, err) : rc;
}

static int load_config(const char *path, const struct tg_family **family,
                       struct tg_model_spec *spec, struct tg_err *err)
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
        rc = parse_config(doc, file, family, spec, err);
    tg_free(file);
    return rc;
}

int tg_config_read(const char *path, struct tg_model_spec *spec, struct tg_err *err)
{
    const struct tg_family *family;

    return load_config(path, &family, spec, err);
}

/* Canonical name -> index in params, by bisection over sorted names. */
struct by_name {
    const char *name;
    size_t index;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct by_name *)a)->name, ((const struct by_name *)b)->name);
}

static bool find_param(const struct by_name *sorted, size_t count, const char *name, size_t *index)
{
    const struct by_name key = {name, 0};
    const struct by_name *hit = bsearch(&key, sorted, count, sizeof *sorted, compare_names);

    if (hit)
        *index = hit->index;
    return hit != NULL;
}

static bool droppable(const struct tg_family *f, const char *name)
{
    for (size_t i = 0; f->droppable[i]; i++)
        if (tg_name_like(f->droppable[i], name))
            return true;
    return false;
}

static int check_shape(const struct tg_tensor *t, const struct tg_param *p, struct tg_err *err)
{
    char found[128], expected[128];

    if (!tg_dtype_info(t->dtype)->is_float)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: tensor '%s' has dtype %s, but a weight must be a floating type",
                       t->file, t->name, tg_dtype_info(t->dtype)->name);
    if (t->rank == p->rank && !memcmp(t->shape, p->shape, (size_t)p->rank * sizeof *p->shape))
        return TG_OK;
    return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' has shape %s, config.json asks for %s",
                   t->file, t->name, tg_shape_text(t->shape, t->rank, found, sizeof found),
                   tg_shape_text(p->shape, p->rank, expected, sizeof expected));
}

/* A tied head that is stored all the same: equal to the embedding, element for element? */
static int check_tied(const struct tg_tensor *head, const struct tg_tensor *embed,
                      struct tg_err *err)
{
    enum { PIECE = 1024 }; /* whole blocks of every type */
    const struct tg_dtype_info *h = tg_dtype_info(head->dtype), *e = tg_dtype_info(embed->dtype);
    float a[PIECE], b[PIECE];

    if (head->dtype == embed->dtype && !memcmp(head->data, embed->data, head->bytes))
        return TG_OK;
    for (size_t at = 0; at < head->elements; at += PIECE) {
        const size_t n = head->elements - at < PIECE ? head->elements - at : PIECE;
        tg_dtype_to_f32(head->dtype, (const char *)head->data + at / h->block * h->block_bytes, a,
                        n);
        tg_dtype_to_f32(embed->dtype, (const char *)embed->data + at / e->block * e->block_bytes, b,
                        n);
        for (size_t i = 0; i < n; i++)
            if (!(a[i] == b[i]))
                return tg_fail(
                    err, TG_ERR_MISMATCH,
                    "%s: tensor '%s' differs from the embedding '%s' at element %zu (%g, "
                    "%g), but config.json says tie_word_embeddings",
                    head->file, head->name, embed->name, at + i, a[i], b[i]);
    }
    return TG_OK;
}

static int refuse_unknown(const struct tg_checkpoint *c, const struct tg_tensor *t,
                          struct tg_err *err)
{
    char shape[128];

    return tg_fail(err, TG_ERR_MISMATCH,
                   "%s: tensor '%s' %s is unknown: a %s model with this config.json has no such "
                   "parameter",
                   t->file, t->name, tg_shape_text(t->shape, t->rank, shape, sizeof shape),
                   c->family->name);
}

/* Finds the parameter of one stored tensor. */
static int place_tensor(struct tg_checkpoint *c, const struct by_name *sorted,
                        const struct tg_tensor *t, const struct tg_tensor **head,
                        struct tg_err *err)
{
    const struct tg_tensor **slot;
    char name[TG_NAME_SIZE];
    size_t index = 0;
    int rc;

    if (!tg_name_canonical(c->family->names, t->name, name, sizeof name))
        return droppable(c->family, t->name) ? TG_OK : refuse_unknown(c, t, err);
    if (find_param(sorted, c->params.count, name, &index))
        slot = &c->source[index];
    else if (c->spec.tied_head && !strcmp(name, "head.weight")) {
        if (!find_param(sorted, c->params.count, "embed.weight", &index))
            return refuse_unknown(c, t, err);
        slot = head;
    } else
        return droppable(c->family, t->name) ? TG_OK : refuse_unknown(c, t, err);
    if (*slot)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: tensors '%s' and '%s' are both the parameter '%s'", t->file,
                       (*slot)->name, t->name, name);
    if ((rc = check_shape(t, &c->params.items[index], err)))
        return rc;
    *slot = t;
    return TG_OK;
}

static int check_missing(const struct tg_checkpoint *c, struct tg_err *err)
{
    for (size_t i = 0; i < c->params.count; i++) {
        const struct tg_param *p = &c->params.items[i];
        char name[TG_NAME_SIZE], shape[128];

        if (c->source[i])
            continue;
        if (!tg_name_source(c->family->names, p->name, name, sizeof name))
            snprintf(name, sizeof name, "%s", p->name);
        return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' %s is missing", c->path, name,
                       tg_shape_text(p->shape, p->rank, shape, sizeof shape));
    }
    return TG_OK;
}

static int map_tensors(struct tg_checkpoint *c, struct tg_err *err)
{
    const size_t count = tg_tensors_count(c->tensors);
    struct by_name *sorted = tg_alloc_array(c->params.count, sizeof *sorted);
    const struct tg_tensor *head = NULL;
    int rc = TG_OK;

    c->source = tg_alloc_array(c->params.count, sizeof *c->source);
    if (!sorted || !c->source)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", c->path);
    for (size_t i = 0; i < count && rc == TG_OK; i++) {
        const struct tg_tensor *t = tg_tensors_at(c->tensors, i);
        const char *method = tg_name_quantised(t->name);
        if (method)
            rc = tg_fail(err, TG_ERR_UNSUPPORTED,
                         "%s: tensor '%s' belongs to weights quantised with %s; only unquantised "
                         "weights are read: use the original checkpoint",
                         t->file, t->name, method);
    }
    if (rc == TG_OK) {
        for (size_t i = 0; i < c->params.count; i++)
            sorted[i] = (struct by_name){c->params.items[i].name, i};
        qsort(sorted, c->params.count, sizeof *sorted, compare_names);
    }
    for (size_t i = 0; i < count && rc == TG_OK; i++)
        rc = place_tensor(c, sorted, tg_tensors_at(c->tensors, i), &head, err);
    if (rc == TG_OK)
        rc = check_missing(c, err);
    if (rc == TG_OK && head)
        rc = check_tied(head, c->source[0], err); /* the table begins with the embedding */
    tg_free(sorted);
    return rc;
}

int tg_checkpoint_open(struct tg_checkpoint **out, const char *path, struct tg_err *err)
{
    struct tg_checkpoint *c = tg_alloc(sizeof *c);
    int rc;

    *out = NULL;
    if (!c || !(c->path = tg_strdup(path)))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    else if (!(rc = load_config(path, &c->family, &c->spec, err)) &&
             !(rc = tg_params_of(&c->spec, &c->params, err)) &&
             !(rc = tg_tensors_open(&c->tensors, path, err)))
        rc = map_tensors(c, err);
    if (rc != TG_OK) {
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
    tg_free(c->source);
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

const struct tg_tensor *tg_checkpoint_source(const struct tg_checkpoint *c, size_t i)
{
    return c->source[i];
}

int tg_checkpoint_read(const struct tg_checkpoint *c, size_t i, float *dst, struct tg_err *err)
{
    const struct tg_tensor *t = c->source[i];
    const int rc = tg_tensor_read_f32(t, dst, err);

    for (size_t e = 0; rc == TG_OK && e < t->elements; e++)
        if (!isfinite(dst[e]))
            return tg_fail(err, TG_ERR_VALUE, "%s: tensor '%s' has %s at element %zu", t->file,
                           t->name, isnan(dst[e]) ? "NaN" : "an infinity", e);
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
