/* Plans: what the user's words mean for each layer, and whether a layer can become that. */
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "linearize/surgery/surgery_internal.h"

int tg_plan_mixer(const char *name, const char *where, const struct tg_mixer_schema **out,
                  struct tg_err *err)
{
    const struct tg_mixer_schema *found = tg_mixer_schema_find(name);
    if (found && found->flags & TG_MIXER_PLAN) {
        *out = found;
        return TG_OK;
    }
    struct tg_strbuf list;
    tg_strbuf_init(&list, 4096);
    for (size_t i = 0; tg_mixer_schemas[i]; i++)
        if (tg_mixer_schemas[i]->flags & TG_MIXER_PLAN)
            tg_strbuf_printf(&list, "%s%s", list.len ? ", " : "", tg_mixer_schemas[i]->name);
    int status =
        tg_fail(err, TG_ERR_VALUE, "%s: mixer '%.64s' cannot replace softmax; there are %s", where,
                name, list.text ? list.text : "others");
    tg_strbuf_release(&list);
    return status;
}

int tg_plan_init(struct tg_plan *p, size_t layers, struct tg_err *err)
{
    p->count = layers;
    p->layers = tg_alloc_array(layers, sizeof *p->layers);
    return p->layers ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
}

void tg_plan_release(struct tg_plan *p)
{
    tg_free(p->layers);
    *p = (struct tg_plan){0};
}

int tg_plan_check(const struct tg_plan *p, const struct tg_model_spec *teacher, const char *where,
                  struct tg_err *err)
{
    if (p->count != teacher->layer_count)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: plan of %zu layers for a model of %zu", where,
                       p->count, teacher->layer_count);
    for (size_t l = 0; l < p->count; l++) {
        int status = p->layers[l].mixer
                         ? tg_plan_check_layer(&p->layers[l], &teacher->layers[l], l, where, err)
                         : TG_OK;
        if (status)
            return status;
    }
    return TG_OK;
}

/* A positive number of sinks takes the gated form of a mixer that has one. */
static void settle_gated(struct tg_plan_layer *to)
{
    const struct tg_maybe *sinks = &to->set[TG_PLAN_SINKS];
    if (!to->set[TG_PLAN_GATED].given && sinks->given && sinks->value > 0 &&
        tg_schema_has(to->mixer, TG_PARAM_IF_GATED))
        to->set[TG_PLAN_GATED] = tg_given(1);
}

static void add_given(struct tg_plan_layer *to, const struct tg_maybe set[TG_PLAN_KEYS])
{
    for (int k = 0; k < TG_PLAN_KEYS; k++)
        if (set[k].given)
            to->set[k] = set[k];
    settle_gated(to);
}

static int replacement(const struct tg_plan_options *o, struct tg_plan_layer *to,
                       struct tg_err *err)
{
    double map = 0;
    int status = tg_plan_mixer(o->mixer ? o->mixer : "gated_window", "plan", &to->mixer, err);
    if (!status && o->feature_map)
        status = tg_plan_choose(TG_PLAN_FEATURE_MAP, o->feature_map, "feature_map", &map, err);
    if (status)
        return status;
    tg_plan_defaults(to);
    if (o->window)
        to->set[TG_PLAN_WINDOW] = tg_given((double)o->window);
    if (o->sinks > 0 || (o->sinks == 0 && to->set[TG_PLAN_SINKS].given))
        to->set[TG_PLAN_SINKS] = tg_given((double)o->sinks);
    if (o->feature_map)
        to->set[TG_PLAN_FEATURE_MAP] = tg_given(map);
    if (o->feature_dim)
        to->set[TG_PLAN_FEATURE_DIM] = tg_given((double)o->feature_dim);
    add_given(to, o->set);
    return TG_OK;
}

/* What layers would become, before any is kept by the options' keep: p->layers [layers] */
static int spread(struct tg_plan *p, const struct tg_plan_options *o, bool *chosen, size_t layers,
                  struct tg_err *err)
{
    struct tg_plan_layer to = {0};
    int status = replacement(o, &to, err);
    for (size_t l = 0; l < layers; l++)
        p->layers[l] = to;
    for (size_t i = 0; i < o->override_count && !status; i++) {
        const struct tg_plan_override *other = &o->overrides[i];
        struct tg_plan_layer its = {.mixer = other->to.mixer};
        if (its.mixer) {
            tg_plan_defaults(&its);
            add_given(&its, other->to.set);
        }
        memset(chosen, 0, layers * sizeof *chosen);
        status = tg_plan_pick("layer", other->layers, NULL, NULL, chosen, layers, err);
        for (size_t l = 0; l < layers && !status; l++)
            if (chosen[l])
                p->layers[l] = its;
    }
    return status;
}

/* A window layer of the teacher changes only to what costs less: a smaller window, a state. */
static bool worth_changing(const struct tg_plan_layer *to, const struct tg_layer_spec *from)
{
    bool small = from->mixer->flags & TG_MIXER_TEACHER && from->window > 0;
    const struct tg_maybe *window = &to->set[TG_PLAN_WINDOW];
    if (!to->mixer || !small)
        return to->mixer != NULL;
    return to->mixer->flags & TG_MIXER_LINEAR &&
           (double)from->window > (window->given ? window->value : 0);
}

/* An override that changes no layer is a mistake: its layers are kept, or overridden themselves. */
static int check_overrides(const struct tg_plan *p, const struct tg_plan_options *o, bool *chosen,
                           struct tg_err *err)
{
    for (size_t i = 0; i < o->override_count; i++) {
        const struct tg_plan_override *other = &o->overrides[i];
        bool used = !other->to.mixer;
        memset(chosen, 0, p->count * sizeof *chosen);
        int status = tg_plan_pick("layer", other->layers, NULL, NULL, chosen, p->count, err);
        for (size_t l = 0; l < p->count && !status; l++)
            used = used || (chosen[l] && p->layers[l].mixer == other->to.mixer);
        if (!status && !used)
            status = tg_fail(err, TG_ERR_VALUE,
                             "layer: %s: '%s' is given to none of these layers: they are kept, or "
                             "a later --layer names them",
                             other->layers, other->to.mixer->name);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_plan_make(struct tg_plan *p, const struct tg_model_spec *teacher,
                 const struct tg_plan_options *o, const struct tg_rank *rank, struct tg_err *err)
{
    size_t layers = teacher->layer_count;
    bool *can_change = NULL, *chosen = NULL;
    *p = (struct tg_plan){0};
    int status = tg_plan_init(p, layers, err);
    if (status)
        return status;
    can_change = tg_alloc_array(layers, sizeof *can_change);
    chosen = tg_alloc_array(layers, sizeof *chosen);
    if (!can_change || !chosen)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
    if (!status)
        status = spread(p, o, chosen, layers, err);
    for (size_t l = 0; l < layers && !status; l++) {
        can_change[l] = worth_changing(&p->layers[l], &teacher->layers[l]);
        chosen[l] = false;
    }
    if (!status)
        status = tg_plan_pick("keep", o->keep ? o->keep : "auto:2", rank, can_change, chosen,
                              layers, err);
    for (size_t l = 0; l < layers && !status; l++)
        if (!can_change[l] || chosen[l])
            p->layers[l] = (struct tg_plan_layer){0};
    if (!status)
        status = check_overrides(p, o, chosen, err);
    if (!status)
        status = tg_plan_check(p, teacher, "plan", err);
    tg_free(can_change);
    tg_free(chosen);
    if (status)
        tg_plan_release(p);
    return status;
}
