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
        for (p->rank = 0; p->rank < 4 && rule->shape[p->rank] != TG_DIM_END; p->rank++)
            p->shape[p->rank] = (int64_t)dim_size(rule->shape[p->rank], spec, l);
    }
}

static void add_mlp(struct builder *b, size_t width, const struct tg_layer_spec *l)
{
    const struct {
        const char *weight, *bias;
        size_t rows, columns;
    } parts[] = {
        {"mlp.gate.weight", "mlp.gate.bias", l->mlp_dim, width},
        {"mlp.up.weight", "mlp.up.bias", l->mlp_dim, width},
        {"mlp.down.weight", "mlp.down.bias", width, l->mlp_dim},
    };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        add(b, parts[i].weight, parts[i].rows, parts[i].columns);
        if (l->mlp_bias)
            add(b, parts[i].bias, parts[i].rows, 0);
    }
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
    size_t most = 3, bytes;
    struct builder b = {list, -1};
    int rc;

    if ((rc = tg_spec_check(spec, spec->family[0] ? spec->family : "model", err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        most += 8 + spec->layers[i].mixer->param_count;
    *list = (struct tg_param_list){0};
    if (!(list->items = tg_alloc_array(most, sizeof *list->items)))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a table of %zu parameters", most);

    add(&b, "embed.weight", spec->vocab, spec->width);
    for (size_t i = 0; i < spec->layer_count; i++) {
        b.layer = (int)i;
        add(&b, "norm_in.weight", spec->width, 0);
        add_mixer(&b, spec, &spec->layers[i]);
        add(&b, "norm_mlp.weight", spec->width, 0);
        add_mlp(&b, spec->width, &spec->layers[i]);
    }
    b.layer = -1;
    add(&b, "norm_out.weight", spec->width, 0);
    if (!spec->tied_head)
        add(&b, "head.weight", spec->vocab, spec->width);
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
