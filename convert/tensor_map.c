#include "convert/tensor_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/names.h"

/* Canonical name -> index in params, by bisection over sorted names. */
struct by_name {
    const char *name;
    size_t index;
};

/* A source and the parameter that it belongs to; HEAD: a stored head that is tied. */
struct part {
    size_t param;
    struct tg_source s;
};
static const size_t HEAD = SIZE_MAX;

struct mapper {
    const struct tg_family *family;
    bool wrapped;
    const struct tg_scaling *scaling;
    const struct tg_model_spec *spec;
    const struct tg_param_list *params;
    const struct tg_tensors *tensors;
    const char *path;
    struct by_name *names;
    size_t embed;
    struct part *parts;
    size_t count, cap;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct by_name *)a)->name, ((const struct by_name *)b)->name);
}

static bool find_param(const struct mapper *m, const char *name, size_t *index)
{
    const struct by_name key = {name, 0};
    const struct by_name *hit =
        bsearch(&key, m->names, m->params->count, sizeof *m->names, compare_names);

    if (hit)
        *index = hit->index;
    return hit != NULL;
}

static bool droppable(const struct mapper *m, const char *name)
{
    const char *inner = m->wrapped ? tg_name_inner(name) : name;
    const char *const *p;

    for (p = m->family->droppable; *p; p++)
        if (tg_name_like(*p, inner) || tg_name_beyond(*p, inner, m->spec->layer_count))
            return true;
    for (p = tg_wrapper_droppable; m->wrapped && *p; p++)
        if (tg_name_like(*p, name))
            return true;
    return false;
}

static int check_shape(const struct tg_tensor *t, const struct tg_stored *w,
                       const struct tg_layout *l, struct tg_err *err)
{
    char found[128], expected[128];

    if (!w->scales && !tg_dtype_info(t->dtype)->is_float)
        return tg_fail(err, TG_ERR_FORMAT,
                       "%s: tensor '%s' has dtype %s, but a weight must be a floating type",
                       t->file, t->name, tg_dtype_info(t->dtype)->name);
    if (w->rank == l->rank && !memcmp(w->shape, l->shape, (size_t)l->rank * sizeof *l->shape))
        return TG_OK;
    return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' has shape %s, config.json asks for %s",
                   t->file, t->name, tg_shape_text(w->shape, w->rank, found, sizeof found),
                   tg_shape_text(l->shape, l->rank, expected, sizeof expected));
}

/* Does every loop stay inside tensor and parameter? */
static bool layout_fits(const struct tg_layout *l, size_t stored, size_t param)
{
    for (int i = 0; i < l->pieces; i++) {
        const struct tg_piece *p = &l->piece[i];
        size_t from = p->from, to = p->to;
        bool empty = false;
        for (int k = 0; k < p->loops; k++) {
            empty = empty || !p->loop[k].count;
            from += (p->loop[k].count - 1) * p->loop[k].from;
            to += (p->loop[k].count - 1) * p->loop[k].to;
        }
        if (!empty && (from >= stored || to >= param))
            return false;
    }
    return true;
}

static int refuse_unknown(const struct mapper *m, const struct tg_tensor *t, struct tg_err *err)
{
    char shape[128];

    return tg_fail(err, TG_ERR_MISMATCH,
                   "%s: tensor '%s' %s is unknown: a %s model with this config.json has no such "
                   "parameter",
                   t->file, t->name, tg_shape_text(t->shape, t->rank, shape, sizeof shape),
                   m->family->name);
}

static int add_part(struct mapper *m, size_t param, const struct tg_source *s, struct tg_err *err)
{
    if (!tg_grow(&m->parts, &m->cap, m->count + 1, sizeof *m->parts))
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", m->path);
    m->parts[m->count++] = (struct part){param, *s};
    return TG_OK;
}

/* Applies one rule to one tensor; *elements grows by what the rule takes of it. */
static int apply_rule(struct mapper *m, const struct tg_name_rule *rule, const struct tg_tensor *t,
                      const struct tg_stored *w, size_t *elements, bool *known, struct tg_err *err)
{
    struct tg_source s = {.tensor = t, .scales = w->scales};
    char name[TG_NAME_SIZE];
    size_t index = 0, param;
    int rc;

    if (!tg_name_canonical(rule, m->wrapped ? tg_name_inner(t->name) : t->name, name, sizeof name,
                           &s.expert))
        return TG_OK;
    if (find_param(m, name, &index))
        param = index;
    else if (m->spec->tied_head && !strcmp(name, "head.weight")) {
        index = m->embed;
        param = HEAD;
    } else
        return TG_OK;
    const struct tg_param *p = &m->params->items[index];
    if (strstr(rule->source, "{e}") && s.expert >= (size_t)p->shape[0])
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: tensor '%s' is number %zu, but config.json asks for %lld", t->file,
                       t->name, s.expert, (long long)p->shape[0]);
    const struct tg_layout_ask ask = {.spec = m->spec,
                                      .layer = p->layer < 0 ? NULL : &m->spec->layers[p->layer],
                                      .param = p,
                                      .expert = s.expert,
                                      .stored_rank = w->rank,
                                      .stored = w->shape};
    (rule->layout ? rule->layout : tg_layout_same)(&ask, &s.layout);
    if (!s.layout.pieces)
        return TG_OK;
    if ((rc = check_shape(t, w, &s.layout, err)))
        return rc;
    if (!layout_fits(&s.layout, w->elements, p->count))
        return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' does not fit the parameter '%s'",
                       t->file, t->name, p->name);
    *known = true;
    *elements += tg_layout_count(&s.layout);
    return add_part(m, param, &s, err);
}

/* Scales come with their weight; without it they are as unknown as any tensor. */
static int note_scales(const struct mapper *m, const struct tg_tensor *t, struct tg_err *err)
{
    char name[TG_NAME_SIZE];
    const struct tg_tensor *weight;
    struct tg_stored w;

    if (droppable(m, t->name))
        return TG_OK;
    tg_scaling_weight_of(m->scaling, t->name, name, sizeof name);
    if ((weight = tg_tensors_find(m->tensors, name)) &&
        tg_scaling_stored(m->scaling, m->tensors, weight, &w, NULL) == TG_OK && w.scales == t)
        return TG_OK;
    return refuse_unknown(m, t, err);
}

static int place_tensor(struct mapper *m, const struct tg_tensor *t, struct tg_err *err)
{
    struct tg_stored w;
    size_t elements = 0;
    bool known = false;
    int rc;

    if (tg_scaling_is_scales(m->scaling, t->name))
        return note_scales(m, t, err);
    if ((rc = tg_scaling_stored(m->scaling, m->tensors, t, &w, err)))
        return rc;
    for (const struct tg_name_rule *rule = m->family->names; rule->source; rule++)
        if ((rc = apply_rule(m, rule, t, &w, &elements, &known, err)))
            return rc;
    if (!known)
        return droppable(m, t->name) ? TG_OK : refuse_unknown(m, t, err);
    if (elements != w.elements)
        return tg_fail(err, TG_ERR_MISMATCH,
                       "%s: tensor '%s': %zu of its %zu elements belong to parameters of this "
                       "config.json",
                       t->file, t->name, elements, w.elements);
    return TG_OK;
}

static size_t place_of(const struct part *p)
{
    return p->s.layout.pieces ? p->s.layout.piece[0].to : 0;
}

static int by_place(const void *a, const void *b)
{
    const struct part *x = a, *y = b;

    if (x->param != y->param)
        return x->param < y->param ? -1 : 1;
    return (place_of(x) > place_of(y)) - (place_of(x) < place_of(y));
}

/* The tensor that is not there: by the first rule of the family that could fill the parameter */
static int refuse_missing(const struct mapper *m, const struct tg_param *p, const struct part *have,
                          size_t count, struct tg_err *err)
{
    char name[TG_NAME_SIZE], shape[128];
    size_t expert = 0;

    for (size_t i = 0; i < count && have[i].s.expert == expert; i++)
        expert++;
    for (const struct tg_name_rule *rule = m->family->names; rule->source; rule++) {
        if (count && !strstr(rule->source, "{e}"))
            continue;
        if (tg_name_source(rule, p->name, expert, name, sizeof name))
            return tg_fail(err, TG_ERR_MISMATCH, "%s: tensor '%s' %s is missing", m->path, name,
                           tg_shape_text(p->shape, p->rank, shape, sizeof shape));
    }
    return tg_fail(err, TG_ERR_MISMATCH, "%s: parameter '%s' %s is missing", m->path, p->name,
                   tg_shape_text(p->shape, p->rank, shape, sizeof shape));
}

/* The parts of one parameter, sorted by their places in it. */
static int check_param(const struct mapper *m, const struct tg_param *p, const struct part *have,
                       size_t count, struct tg_err *err)
{
    size_t elements = 0;

    for (size_t i = 0; i < count; i++) {
        elements += tg_layout_count(&have[i].s.layout);
        if ((i && place_of(&have[i]) == place_of(&have[i - 1])) || elements > p->count)
            return tg_fail(err, TG_ERR_MISMATCH,
                           "%s: tensors '%s' and '%s' are both the parameter '%s'",
                           have[i].s.tensor->file, have[i ? i - 1 : 0].s.tensor->name,
                           have[i].s.tensor->name, p->name);
    }
    return elements == p->count ? TG_OK : refuse_missing(m, p, have, count, err);
}

/* A tied head that is stored all the same: equal to the embedding, element for element? */
static int check_tied(const struct tg_tensor *head, const struct tg_tensor *embed,
                      struct tg_err *err)
{
    enum { PIECE = 1 << 14 }; /* whole blocks of every type */
    float *a = tg_alloc_array(PIECE, sizeof *a), *b = tg_alloc_array(PIECE, sizeof *b);
    unsigned char *space = tg_alloc(PIECE * 8);
    const void *view;
    int rc = a && b && space ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", head->file);

    for (size_t at = 0; at < head->elements && rc == TG_OK; at += PIECE) {
        const size_t n = head->elements - at < PIECE ? head->elements - at : PIECE;
        if ((rc = tg_tensor_view(head, at, n, space, &view, err)))
            break;
        tg_dtype_to_f32(head->dtype, view, a, n);
        if ((rc = tg_tensor_view(embed, at, n, space, &view, err)))
            break;
        tg_dtype_to_f32(embed->dtype, view, b, n);
        for (size_t i = 0; i < n && rc == TG_OK; i++)
            if (!(a[i] == b[i]))
                rc = tg_fail(err, TG_ERR_MISMATCH,
                             "%s: tensor '%s' differs from the embedding '%s' at element %zu (%g, "
                             "%g), but config.json says tie_word_embeddings",
                             head->file, head->name, embed->name, at + i, a[i], b[i]);
    }
    tg_free(a);
    tg_free(b);
    tg_free(space);
    return rc;
}

/* Sorted parts to the map; the head's, if it is tied, stand last. */
static int take_parts(struct mapper *m, struct tg_tensor_map *map, struct tg_err *err)
{
    size_t at = 0;
    int rc = TG_OK;

    if (m->count > 1)
        qsort(m->parts, m->count, sizeof *m->parts, by_place);
    for (size_t i = 0; i < m->params->count && rc == TG_OK; i++) {
        const size_t begin = at;
        while (at < m->count && m->parts[at].param == i) {
            map->sources[at] = m->parts[at].s;
            at++;
        }
        map->first[i] = begin;
        map->first[i + 1] = at;
        rc = check_param(m, &m->params->items[i], m->parts ? m->parts + begin : NULL, at - begin,
                         err);
    }
    if (rc == TG_OK && at + 1 < m->count)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: tensors '%s' and '%s' are both the head", m->path,
                       m->parts[at].s.tensor->name, m->parts[at + 1].s.tensor->name);
    if (rc == TG_OK && at < m->count)
        rc = check_tied(m->parts[at].s.tensor, map->sources[map->first[m->embed]].tensor, err);
    return rc;
}

int tg_tensor_map_make(struct tg_tensor_map *map, const struct tg_family *family, bool wrapped,
                       const struct tg_scaling *scaling, const struct tg_model_spec *spec,
                       const struct tg_param_list *params, const struct tg_tensors *tensors,
                       const char *path, struct tg_err *err)
{
    struct mapper m = {.family = family,
                       .wrapped = wrapped,
                       .scaling = scaling,
                       .spec = spec,
                       .params = params,
                       .tensors = tensors,
                       .path = path};
    int rc = TG_OK;

    *map = (struct tg_tensor_map){0};
    m.names = tg_alloc_array(params->count, sizeof *m.names);
    map->first = tg_alloc_array(params->count + 1, sizeof *map->first);
    if (!m.names || !map->first)
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    else {
        for (size_t i = 0; i < params->count; i++)
            m.names[i] = (struct by_name){params->items[i].name, i};
        qsort(m.names, params->count, sizeof *m.names, compare_names);
        find_param(&m, "embed.weight", &m.embed);
    }
    for (size_t i = 0; i < tg_tensors_count(tensors) && rc == TG_OK; i++)
        rc = place_tensor(&m, tg_tensors_at(tensors, i), err);
    if (rc == TG_OK && !(map->sources = tg_alloc_array(m.count + 1, sizeof *map->sources)))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", path);
    if (rc == TG_OK)
        rc = take_parts(&m, map, err);
    tg_free(m.names);
    tg_free(m.parts);
    if (rc != TG_OK)
        tg_tensor_map_release(map);
    return rc;
}

void tg_tensor_map_release(struct tg_tensor_map *map)
{
    tg_free(map->sources);
    tg_free(map->first);
    *map = (struct tg_tensor_map){0};
}
