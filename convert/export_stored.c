#include "convert/export_stored.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "convert/export.h"
#include "convert/names.h"

size_t tg_stored_elements(const struct tg_tensor_plan *t)
{
    size_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    return n;
}

static const struct tg_name_rule *rules_of(const struct tg_export *x)
{
    return x->target->names_of ? x->target->names_of(&x->spec) : x->target->names;
}

/* The tensor of this name, made if it is new; its shape must be the layout's. */
static int find_tensor(struct tg_stored_plan *plan, const char *name, const struct tg_layout *l,
                       size_t *at, struct tg_err *err)
{
    char a[128], b[128];
    size_t i = plan->count;

    /* parts of one tensor are near each other: parameters of one layer */
    while (i > 0 && strcmp(plan->tensors[i - 1].name, name) != 0)
        i--;
    if (i > 0) {
        const struct tg_tensor_plan *t = &plan->tensors[i - 1];
        *at = i - 1;
        if (t->rank == l->rank && !memcmp(t->shape, l->shape, (size_t)l->rank * sizeof *l->shape))
            return TG_OK;
        return tg_fail(err, TG_ERR_MISMATCH, "tensor '%s' has two shapes, %s and %s", name,
                       tg_shape_text(t->shape, t->rank, a, sizeof a),
                       tg_shape_text(l->shape, l->rank, b, sizeof b));
    }
    char *copy = tg_grow(&plan->tensors, &plan->cap, plan->count + 1, sizeof *plan->tensors)
                     ? tg_strdup(name)
                     : NULL;
    if (!copy)
        return tg_fail(err, TG_ERR_NOMEM, "tensor '%s': out of memory", name);
    struct tg_tensor_plan *t = &plan->tensors[plan->count];
    *t = (struct tg_tensor_plan){.name = copy, .rank = l->rank};
    memcpy(t->shape, l->shape, sizeof l->shape);
    *at = plan->count++;
    return TG_OK;
}

/* One rule for one parameter: a part, or one of each expert */
static int apply_rule(struct tg_stored_plan *plan, const struct tg_export *x, size_t param,
                      const struct tg_name_rule *rule, size_t *elements, struct tg_err *err)
{
    const struct tg_param *p = &x->params.items[param];
    const size_t experts = strstr(rule->source, "{e}") ? (size_t)p->shape[0] : 1;
    char name[TG_NAME_SIZE];
    int rc;

    for (size_t e = 0; e < experts; e++) {
        struct tg_stored_part part = {.param = param, .expert = e};
        if (!tg_name_source(rule, p->name, e, name, sizeof name))
            return TG_OK;
        const struct tg_layout_ask ask = {.spec = &x->spec,
                                          .layer = p->layer < 0 ? NULL : &x->spec.layers[p->layer],
                                          .param = p,
                                          .expert = e};
        (rule->layout ? rule->layout : tg_layout_same)(&ask, &part.layout);
        if (!part.layout.pieces)
            return TG_OK;
        if ((rc = find_tensor(plan, name, &part.layout, &part.tensor, err)))
            return rc;
        if (!tg_grow(&plan->parts, &plan->part_cap, plan->part_count + 1, sizeof *plan->parts))
            return tg_fail(err, TG_ERR_NOMEM, "tensor '%s': out of memory", name);
        plan->parts[plan->part_count++] = part;
        *elements += tg_layout_count(&part.layout);
    }
    return TG_OK;
}

static int by_tensor(const void *a, const void *b)
{
    const struct tg_stored_part *p = a, *q = b;

    if (p->tensor != q->tensor)
        return p->tensor < q->tensor ? -1 : 1;
    return (p->param > q->param) - (p->param < q->param);
}

static int sort_parts(struct tg_stored_plan *plan, struct tg_err *err)
{
    size_t at = 0;

    if (plan->part_count > 1)
        qsort(plan->parts, plan->part_count, sizeof *plan->parts, by_tensor);
    if (!(plan->first = tg_alloc_array(plan->count + 1, sizeof *plan->first)))
        return tg_fail(err, TG_ERR_NOMEM, "out of memory");
    for (size_t t = 0; t < plan->count; t++) {
        size_t elements = 0;
        plan->first[t] = at;
        for (; at < plan->part_count && plan->parts[at].tensor == t; at++)
            elements += tg_layout_count(&plan->parts[at].layout);
        if (elements != tg_stored_elements(&plan->tensors[t]))
            return tg_fail(err, TG_ERR_MISMATCH,
                           "tensor '%s': parameters give %zu of its %zu elements",
                           plan->tensors[t].name, elements, tg_stored_elements(&plan->tensors[t]));
    }
    plan->first[plan->count] = at;
    return TG_OK;
}

/* Tensors that are no parameters, at the end */
static int add_extras(struct tg_stored_plan *plan, const struct tg_export *x, struct tg_err *err)
{
    struct tg_tensor_plan extra = {0};

    for (size_t i = 0; x->target->extra && x->target->extra(x, i, &extra, NULL); i++) {
        extra.name = tg_grow(&plan->tensors, &plan->cap, plan->count + 1, sizeof *plan->tensors)
                         ? tg_strdup(extra.name)
                         : NULL;
        if (!extra.name)
            return tg_fail(err, TG_ERR_NOMEM, "out of memory");
        plan->tensors[plan->count++] = extra;
    }
    return TG_OK;
}

static int make(struct tg_stored_plan *plan, const struct tg_export *x, struct tg_err *err)
{
    int rc;

    for (size_t i = 0; i < x->params.count; i++) {
        const struct tg_param *p = &x->params.items[i];
        size_t elements = 0;
        for (const struct tg_name_rule *r = rules_of(x); r->source; r++)
            if ((rc = apply_rule(plan, x, i, r, &elements, err)))
                return rc;
        if (elements != p->count)
            return tg_fail(err, TG_ERR_MISMATCH,
                           "%s has a place for %zu of the %zu elements of parameter '%s'",
                           x->target->name, elements, p->count, p->name);
    }
    if ((rc = sort_parts(plan, err)))
        return rc;
    for (size_t t = 0; t < plan->count; t++)
        plan->tensors[t].dtype = x->dtype;
    plan->own = plan->count;
    rc = add_extras(plan, x, err);
    if (rc == TG_OK && x->mix)
        tg_gguf_mix_apply(x->mix, plan->tensors, plan->count);
    return rc;
}

int tg_stored_plan_make(struct tg_stored_plan *plan, const struct tg_export *x, struct tg_err *err)
{
    *plan = (struct tg_stored_plan){0};
    const int rc = make(plan, x, err);
    if (rc)
        tg_stored_plan_release(plan);
    return rc;
}

void tg_stored_plan_release(struct tg_stored_plan *plan)
{
    for (size_t t = 0; t < plan->count; t++)
        tg_free((char *)plan->tensors[t].name);
    tg_free(plan->tensors);
    tg_free(plan->parts);
    tg_free(plan->first);
    *plan = (struct tg_stored_plan){0};
}

void tg_fill_cache_release(struct tg_fill_cache *c)
{
    for (size_t k = 0; k < TG_FILL_KEPT; k++)
        tg_free(c->data[k]);
    *c = (struct tg_fill_cache){0};
}

int tg_fill_cached(struct tg_fill_cache *c, const struct tg_export *x, size_t i, const float **data,
                   struct tg_err *err)
{
    size_t oldest = 0;

    for (size_t k = 0; k < TG_FILL_KEPT; k++) {
        if (c->data[k] && c->param[k] == i) {
            c->used[k] = ++c->clock;
            *data = c->data[k];
            return TG_OK;
        }
        if (c->used[k] < c->used[oldest])
            oldest = k;
    }
    tg_free(c->data[oldest]);
    c->used[oldest] = 0;
    if (!(c->data[oldest] = tg_alloc_floats(x->params.items[i].count)))
        return tg_fail(err, TG_ERR_NOMEM, "parameter '%s': out of memory", x->params.items[i].name);
    const int rc = tg_export_param(x, i, c->data[oldest], err);
    if (rc) {
        tg_free(c->data[oldest]);
        c->data[oldest] = NULL;
        return rc;
    }
    c->param[oldest] = i;
    c->used[oldest] = ++c->clock;
    *data = c->data[oldest];
    return TG_OK;
}

int tg_stored_build(const struct tg_stored_plan *plan, const struct tg_export *x,
                    struct tg_fill_cache *c, size_t t, float **data, struct tg_err *err)
{
    const float *param;
    int rc = TG_OK;

    if (!(*data = tg_alloc_floats(tg_stored_elements(&plan->tensors[t]))))
        return tg_fail(err, TG_ERR_NOMEM, "tensor '%s': out of memory", plan->tensors[t].name);
    if (t >= plan->own) {
        struct tg_tensor_plan same;
        x->target->extra(x, t - plan->own, &same, *data);
        return TG_OK;
    }
    for (size_t k = plan->first[t]; k < plan->first[t + 1] && rc == TG_OK; k++)
        if (!(rc = tg_fill_cached(c, x, plan->parts[k].param, &param, err)))
            tg_layout_copy_back(&plan->parts[k].layout, param, *data);
    if (rc) {
        tg_free(*data);
        *data = NULL;
    }
    return rc;
}
