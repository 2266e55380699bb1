/* The student: the teacher's spec with the plan's layers changed, and its weights inherited. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/mixers/latent.h"
#include "linearize/surgery/surgery_internal.h"

int tg_surgery_spec(const struct tg_model_spec *teacher, const struct tg_plan *p,
                    struct tg_model_spec *student, struct tg_err *err)
{
    int status = tg_plan_check(p, teacher, "plan", err);
    if (!status)
        status = tg_spec_copy(student, teacher, err);
    if (status)
        return status;
    snprintf(student->family, sizeof student->family, "tegu");
    snprintf(student->base_family, sizeof student->base_family, "%s", teacher->base_family);
    for (size_t l = 0; l < p->count; l++)
        if (p->layers[l].mixer)
            tg_plan_layer_spec(&p->layers[l], teacher->width, &teacher->layers[l],
                               &student->layers[l]);
    status = tg_spec_check(student, "plan", err);
    if (status)
        tg_spec_release(student);
    return status;
}

/* The teacher's parameter of the same name and shape; NULL if it has none. */
static const struct tg_param *same_in(const struct tg_model *teacher, const struct tg_param *p)
{
    const struct tg_param *t = tg_params_find(&teacher->params, p->name);
    if (!t || t->rank != p->rank)
        return NULL;
    for (int i = 0; i < p->rank; i++)
        if (t->shape[i] != p->shape[i])
            return NULL;
    return t;
}

static size_t rule_of(const struct tg_mixer_schema *schema, const char *local)
{
    size_t rule = 0;
    while (rule < schema->param_count && strcmp(schema->params[rule].name, local) != 0)
        rule++;
    return rule;
}

static bool by_kv_head(const struct tg_layer_spec *l, const struct tg_param *p)
{
    const enum tg_dim rows = l->mixer->params[rule_of(l->mixer, p->local)].shape[0];
    return rows == TG_DIM_GK || rows == TG_DIM_GV || rows == TG_DIM_K_NORM;
}

/* A parameter of keys or values of a student with several kv heads for each of the teacher's:
 * copied head by head, head h from h / (H' / G), which serves the same query heads. A norm over all
 * heads as one row stays exact: each head counts equally often, so its mean is the teacher's. */
static bool repeat_heads(const struct tg_model *teacher, struct tg_model *s,
                         const struct tg_param *p)
{
    const struct tg_param *t = tg_params_find(&teacher->params, p->name);
    if (!t || !p->is_mixer)
        return false;
    const struct tg_layer_spec *to = &s->spec.layers[p->layer],
                               *from = &teacher->spec.layers[p->layer];
    const size_t G = from->kv_heads, n = t->count / G, times = to->kv_heads / G;
    if (!by_kv_head(to, p) || !by_kv_head(from, t) || t->rank != p->rank ||
        t->shape[1] != p->shape[1] || to->kv_heads % G || p->count != to->kv_heads * n)
        return false;
    for (size_t h = 0; h < to->kv_heads; h++)
        memcpy(s->data + p->offset + h * n, teacher->data + t->offset + h / times * n,
               n * sizeof *s->data);
    return true;
}

/* An output gate that the teacher has not begins open: sigmoid(4), by its bias if it has one, else
 * by the inputs' constant; without statistics it begins at 1/2. */
static void open_gate(const struct tg_param *p, const struct tg_attention_stats *stats, bool biased,
                      float *data)
{
    const bool bias = strcmp(p->local, "out_gate.bias") == 0;
    const size_t D = p->rank == 2 ? (size_t)p->shape[1] : 1;
    for (size_t i = 0; i < p->count; i++)
        data[i] = bias ? 4 : stats && !biased ? 4 * stats->constant[i % D] : 0;
}

/* A changed layer's parameter, from the layer that it replaces */
static void make_param(const struct tg_model *teacher, const struct tg_lookback *look,
                       struct tg_model *s, const struct tg_param *p, bool copied)
{
    const size_t l = (size_t)p->layer;
    const struct tg_mixer_schema *schema = s->spec.layers[l].mixer;
    const struct tg_mixer_ops *ops = tg_mixer_find(schema);
    const size_t rule = rule_of(schema, p->local);
    float *data = s->data + p->offset;
    struct tg_mixer mixer, from;
    tg_model_mixer(s, l, s->data, NULL, &mixer);
    tg_model_mixer(teacher, l, teacher->data, NULL, &from);
    const struct tg_origin origin = {.from = &from,
                                     .layer = l,
                                     .layer_count = s->spec.layer_count,
                                     .stats = tg_lookback_of(look, l)};
    if (copied && ops->adjust)
        ops->adjust(&mixer, &origin, rule, data, p->count);
    else if (!copied && !p->is_new)
        open_gate(p, origin.stats, s->spec.layers[l].qkv_bias, data);
    else if (!copied)
        ops->inherit(&mixer, &origin, rule, data, p->count);
}

static bool changed(const struct tg_model *teacher, const struct tg_model *s,
                    const struct tg_param *p)
{
    return p->is_mixer && s->spec.layers[p->layer].mixer != teacher->spec.layers[p->layer].mixer;
}

static int inherit_param(const struct tg_model *teacher, const struct tg_lookback *look,
                         struct tg_model *s, const struct tg_param *p, struct tg_err *err)
{
    const struct tg_param *t = same_in(teacher, p);
    const float *data = s->data + p->offset;
    if (t)
        memcpy(s->data + p->offset, teacher->data + t->offset, p->count * sizeof *s->data);
    const bool copied = t || repeat_heads(teacher, s, p);
    const bool gate = p->is_mixer && strncmp(p->local, "out_gate.", 9) == 0;
    if (!copied && !(p->is_new || gate))
        return tg_fail(err, TG_ERR_MISMATCH, "%s: the teacher has none of this shape", p->name);
    if (!copied || changed(teacher, s, p))
        make_param(teacher, look, s, p, copied);
    for (size_t i = 0; i < p->count; i++)
        if (!isfinite(data[i]))
            return tg_fail(err, TG_ERR_VALUE,
                           "%s: no first values can be had from the teacher's layer: its weights "
                           "are not finite, or memory is short",
                           p->name);
    return TG_OK;
}

/* The plan with the ranks that its errors allow, layers owned by `to` */
static int settle_ranks(const struct tg_model *teacher, const struct tg_plan *p, struct tg_plan *to,
                        struct tg_err *err)
{
    int status = tg_plan_check(p, &teacher->spec, "plan", err);
    if (!status)
        status = tg_plan_init(to, p->count, err);
    for (size_t l = 0; l < p->count && !status; l++) {
        struct tg_maybe *set = to->layers[l].set;
        struct tg_mixer from;
        size_t rank;
        to->layers[l] = p->layers[l];
        if (!set[TG_PLAN_RANK_ERROR].given)
            continue;
        tg_model_mixer(teacher, l, teacher->data, NULL, &from);
        status = tg_latent_rank(&from, set[TG_PLAN_RANK_ERROR].value, &rank, err);
        set[TG_PLAN_RANK_ERROR].given = false;
        set[TG_PLAN_RANK] = tg_given((double)rank);
    }
    return status;
}

int tg_surgery_apply(const struct tg_model *teacher, const struct tg_plan *p,
                     const struct tg_lookback *look, struct tg_model **student, struct tg_err *err)
{
    struct tg_model_spec spec = {0};
    struct tg_model *s = NULL;
    *student = NULL;
    struct tg_plan settled = {0};
    int status = settle_ranks(teacher, p, &settled, err);
    if (!status)
        status = tg_surgery_spec(&teacher->spec, &settled, &spec, err);
    tg_plan_release(&settled);
    if (status)
        return status;
    status = tg_model_create(&s, &spec, &teacher->ctx, err);
    tg_spec_release(&spec);
    if (!status)
        status = tg_model_reserve(s, teacher->rope_positions, err);
    for (size_t i = 0; !status && i < s->params.count; i++)
        status = inherit_param(teacher, look, s, &s->params.items[i], err);
    if (status) {
        tg_model_free(s);
        return status;
    }
    *student = s;
    return TG_OK;
}
