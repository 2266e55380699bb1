/* The one place where names, shapes, order and offsets of a model's parameters are decided. */
#include "convert/params.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/recurrent.h"

static size_t dim_size(enum tg_dim d, const struct tg_model_spec *spec,
                       const struct tg_layer_spec *l)
{
    switch (d) {
    case TG_DIM_D:
        return spec->width;
    case TG_DIM_HK:
        return l->heads * l->head_dim;
    case TG_DIM_GK:
        return l->kv_heads * l->head_dim;
    case TG_DIM_H:
        return l->heads;
    case TG_DIM_K:
        return l->head_dim;
    case TG_DIM_F:
        return l->feature_dim;
    case TG_DIM_SINKS:
        return l->sinks;
    case TG_DIM_HV:
        return tg_out_heads(l) * tg_value_dim(l);
    case TG_DIM_GV:
        return tg_value_heads(l) * tg_value_dim(l);
    case TG_DIM_S:
        return tg_value_heads(l);
    case TG_DIM_V:
        return tg_value_dim(l);
    case TG_DIM_GATES:
        return tg_value_heads(l) * l->head_dim;
    case TG_DIM_QKV:
        return tg_joined_rows(l);
    case TG_DIM_1:
        return 1;
    case TG_DIM_Q_RANK:
        return l->q_rank;
    case TG_DIM_KV_RANK:
        return l->kv_rank;
    case TG_DIM_KV_DOWN:
        return l->kv_rank + l->rotary_dim;
    case TG_DIM_KV_UP:
        return l->heads * (l->head_dim - l->rotary_dim + tg_value_dim(l));
    case TG_DIM_CHANNELS:
        return l->heads * l->head_dim;
    case TG_DIM_CHANNELS_3:
        return 3 * l->heads * l->head_dim;
    case TG_DIM_Q_NORM:
    case TG_DIM_K_NORM: /* set_norm_shape's */
    case TG_DIM_END:
        return 0;
    default:
        return tg_recurrent_size(d, &l->recurrent);
    }
}

/* Appends parameters to a list that was allocated large enough. */
struct builder {
    struct tg_param_list *list;
    int layer;
};

static struct tg_param *add(struct builder *b, const char *name, size_t rows, size_t columns)
{
    struct tg_param *p = &b->list->items[b->list->count++];

    *p = (struct tg_param){.layer = b->layer};
    if (b->layer < 0)
        snprintf(p->name, sizeof p->name, "%s", name);
    else
        snprintf(p->name, sizeof p->name, "layers.%d.%s", b->layer, name);
    p->rank = columns ? 2 : 1;
    p->shape[0] = (int64_t)rows;
    p->shape[1] = (int64_t)columns;
    return p;
}

static void add_norm(struct builder *b, const struct tg_model_spec *spec, const char *name,
                     bool present)
{
    char full[32];

    if (!present || spec->norm.bare)
        return;
    snprintf(full, sizeof full, "%s.weight", name);
    add(b, full, spec->width, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    if (spec->norm.bias)
        add(b, full, spec->width, 0);
}

/* [K] for every head, [heads,K], or [heads K] */
static void set_norm_shape(struct tg_param *p, const struct tg_layer_spec *l, size_t heads)
{
    p->rank = l->qk_norm == TG_QK_EACH ? 2 : 1;
    p->shape[0] = (int64_t)(l->qk_norm == TG_QK_EACH   ? heads
                            : l->qk_norm == TG_QK_WIDE ? heads * l->head_dim
                                                       : l->head_dim);
    p->shape[1] = p->rank == 2 ? (int64_t)l->head_dim : 0;
}

static void add_mixer(struct builder *b, const struct tg_model_spec *spec,
                      const struct tg_layer_spec *l)
{
    for (size_t i = 0; i < l->mixer->param_count; i++) {
        const struct tg_param_rule *rule = &l->mixer->params[i];
        struct tg_param *p;
        char name[64];

        if (!tg_param_rule_applies(rule, l))
            continue;
        snprintf(name, sizeof name, "mixer.%s", rule->name);
        p = add(b, name, 0, 0);
        p->local = rule->name;
        p->is_mixer = true;
        p->is_new = rule->flags & TG_PARAM_NEW;
        if (rule->shape[0] == TG_DIM_Q_NORM || rule->shape[0] == TG_DIM_K_NORM) {
            set_norm_shape(p, l, rule->shape[0] == TG_DIM_Q_NORM ? l->heads : l->kv_heads);
            continue;
        }
        for (p->rank = 0; p->rank < 4 && rule->shape[p->rank] != TG_DIM_END; p->rank++)
            p->shape[p->rank] = (int64_t)dim_size(rule->shape[p->rank], spec, l);
    }
}

/* gate, up and down of one mlp, or with experts of all of them: [E, rows, columns] */
static void add_parts(struct builder *b, const char *prefix, size_t experts, size_t width,
                      size_t mlp_dim, bool gated, bool bias)
{
    const struct {
        const char *name;
        size_t rows, columns;
        bool present;
    } parts[] = {
        {"gate", mlp_dim, width, gated},
        {"up", mlp_dim, width, true},
        {"down", width, mlp_dim, true},
    };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct tg_param *p;
        char name[48];

        if (!parts[i].present)
            continue;
        snprintf(name, sizeof name, "%s.%s.weight", prefix, parts[i].name);
        p = add(b, name, experts ? experts : parts[i].rows,
                experts ? parts[i].rows : parts[i].columns);
        if (experts) {
            p->rank = 3;
            p->shape[2] = (int64_t)parts[i].columns;
        }
        snprintf(name, sizeof name, "%s.%s.bias", prefix, parts[i].name);
        if (bias)
            add(b, name, experts ? experts : parts[i].rows, experts ? parts[i].rows : 0);
    }
}

static void add_experts(struct builder *b, size_t width, const struct tg_layer_spec *l)
{
    const struct tg_moe_spec *m = &l->moe;
    const bool gated = l->mlp_kind == TG_MLP_GATED;

    add(b, "moe.router.weight", m->experts, width);
    if (m->router_bias)
        add(b, "moe.router.bias", m->experts, 0);
    if (m->correction)
        add(b, "moe.correction", m->experts, 0);
    add_parts(b, "moe", m->experts, width, m->mlp_dim, gated, m->expert_bias);
    if (m->shared_dim)
        add_parts(b, "moe.shared", 0, width, m->shared_dim, gated, false);
    if (m->shared_gate)
        add(b, "moe.shared_gate.weight", 1, width);
}

static void add_layer(struct builder *b, const struct tg_model_spec *spec,
                      const struct tg_layer_spec *l)
{
    const struct tg_residual_info *r = tg_residual_info(l->residual);
    const bool mlp = l->mlp_kind != TG_MLP_NONE;

    add_norm(b, spec, "norm_in", r->norm_in);
    add_mixer(b, spec, l);
    add_norm(b, spec, "norm_mixer_out", r->norm_mixer_out);
    add_norm(b, spec, "norm_mlp", r->norm_mlp && mlp);
    if (l->moe.experts)
        add_experts(b, spec->width, l);
    else if (mlp)
        add_parts(b, "mlp", 0, spec->width, l->mlp_dim, l->mlp_kind == TG_MLP_GATED, l->mlp_bias);
    add_norm(b, spec, "norm_mlp_out", r->norm_mlp_out && mlp);
}

static void place(struct tg_param_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        struct tg_param *p = &list->items[i];
        p->count = 1;
        for (int d = 0; d < p->rank; d++)
            p->count *= (size_t)p->shape[d];
        p->decays = p->rank >= 2;
        p->offset = list->floats;
        list->floats += (p->count + 15) & ~(size_t)15;
    }
}

int tg_params_of(const struct tg_model_spec *spec, struct tg_param_list *list, struct tg_err *err)
{
    const size_t embed = spec->embed_dim ? spec->embed_dim : spec->width;
    size_t most = 8, bytes;
    struct builder b = {list, -1};
    int rc;

    if ((rc = tg_spec_check(spec, spec->family[0] ? spec->family : "model", err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        most += 24 + spec->layers[i].mixer->param_count;
    *list = (struct tg_param_list){0};
    if (!(list->items = tg_alloc_array(most, sizeof *list->items)))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a table of %zu parameters", most);

    add(&b, "embed.weight", spec->vocab, embed);
    if (spec->learned_positions)
        add(&b, "pos.weight", spec->learned_positions, spec->width);
    if (spec->embed_dim)
        add(&b, "embed_in.weight", spec->width, embed);
    for (size_t i = 0; i < spec->layer_count; i++) {
        b.layer = (int)i;
        add_layer(&b, spec, &spec->layers[i]);
    }
    b.layer = -1;
    add_norm(&b, spec, "norm_out", !spec->no_norm_out);
    if (spec->embed_dim)
        add(&b, "embed_out.weight", embed, spec->width);
    if (!spec->tied_head)
        add(&b, "head.weight", spec->vocab, embed);
    if (spec->head_bias)
        add(&b, "head.bias", spec->vocab, 0);
    place(list);
    if (!tg_mul_size(&bytes, list->floats, sizeof(float))) {
        tg_params_release(list);
        return tg_fail(err, TG_ERR_VALUE, "%s: more parameters than memory has addresses",
                       spec->family);
    }
    return TG_OK;
}

void tg_params_release(struct tg_param_list *list)
{
    tg_free(list->items);
    *list = (struct tg_param_list){0};
}

const struct tg_param *tg_params_find(const struct tg_param_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].name, name))
            return &list->items[i];
    return NULL;
}

size_t tg_spec_param_count(const struct tg_model_spec *spec)
{
    struct tg_param_list list;
    size_t count = 0;

    if (tg_params_of(spec, &list, NULL) != TG_OK)
        return 0;
    for (size_t i = 0; i < list.count; i++)
        count += list.items[i].count;
    tg_params_release(&list);
    return count;
}
