/* Options of a plan's layers: who has them, where the spec holds them, whether a value can be. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "linearize/surgery/surgery_internal.h"

bool tg_schema_has(const struct tg_mixer_schema *schema, unsigned param_flag)
{
    for (size_t i = 0; i < schema->param_count; i++)
        if (schema->params[i].flags & param_flag)
            return true;
    return false;
}

static bool has_dim(const struct tg_mixer_schema *schema, enum tg_dim dim)
{
    for (size_t i = 0; i < schema->param_count; i++)
        for (size_t d = 0; d < 4; d++)
            if (schema->params[i].shape[d] == dim)
                return true;
    return false;
}

static bool has_param(const struct tg_mixer_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->param_count; i++)
        if (strcmp(schema->params[i].name, name) == 0)
            return true;
    return false;
}

static bool has_window(const struct tg_mixer_schema *s)
{
    return s->flags & (TG_MIXER_WINDOW | TG_MIXER_BESIDE);
}
static bool has_sinks(const struct tg_mixer_schema *s)
{
    return tg_schema_has(s, TG_PARAM_IF_SINKS);
}
static bool has_map(const struct tg_mixer_schema *s)
{
    return s->flags & TG_MIXER_FAR;
}
static bool has_gated(const struct tg_mixer_schema *s)
{
    return tg_schema_has(s, TG_PARAM_IF_GATED);
}
static bool has_beside(const struct tg_mixer_schema *s)
{
    return s->flags & TG_MIXER_BESIDE;
}
static bool has_rotary(const struct tg_mixer_schema *s)
{
    return s->flags & TG_MIXER_BESIDE || (s->flags & TG_MIXER_RECURRENT && has_dim(s, TG_DIM_HK));
}
static bool has_out_gate(const struct tg_mixer_schema *s)
{
    return tg_schema_has(s, TG_PARAM_IF_OUT_GATE);
}
static bool has_kv(const struct tg_mixer_schema *s)
{
    return s->flags & TG_MIXER_RECURRENT && has_dim(s, TG_DIM_GK);
}
static bool has_denominator(const struct tg_mixer_schema *s)
{
    return tg_schema_has(s, TG_PARAM_IF_PLAIN_VALUES);
}
static bool has_conv(const struct tg_mixer_schema *s)
{
    return has_dim(s, TG_DIM_TAPS);
}
static bool has_rank(const struct tg_mixer_schema *s)
{
    return has_dim(s, TG_DIM_RANK) || has_dim(s, TG_DIM_KV_RANK);
}
static bool has_groups(const struct tg_mixer_schema *s)
{
    return has_dim(s, TG_DIM_GROUPS) || has_dim(s, TG_DIM_X_B_C);
}
static bool has_bias(const struct tg_mixer_schema *s)
{
    return tg_schema_has(s, TG_PARAM_IF_IN_BIAS);
}
static bool has_latent(const struct tg_mixer_schema *s)
{
    return has_dim(s, TG_DIM_KV_RANK);
}
/* beta, by which the delta rule's eigenvalues become negative */
static bool has_beta(const struct tg_mixer_schema *s)
{
    return has_param(s, "b.weight");
}

static bool has_bound(const struct tg_mixer_schema *s)
{
    return tg_schema_has(s, TG_PARAM_IF_BOUND);
}

/* A layer that the mixer made its own */
static struct tg_layer_spec adopted(const struct tg_mixer_schema *s)
{
    struct tg_layer_spec l = {.mixer = s,
                              .heads = 4,
                              .kv_heads = 2,
                              .head_dim = 16,
                              .rotary_dim = 16,
                              .attn_scale = 0.25,
                              .feature_map = TG_MAP_HEDGEHOG_SOFTMAX};
    if (s->adopt)
        s->adopt(&l);
    return l;
}
/* Sizes that are no dimension of a parameter: a mixer has them if it gives a layer one. */
static bool has_partitions(const struct tg_mixer_schema *s)
{
    return adopted(s).recurrent.partitions > 0;
}
static bool has_active(const struct tg_mixer_schema *s)
{
    return adopted(s).recurrent.active > 0;
}
static bool has_chunk(const struct tg_mixer_schema *s)
{
    return adopted(s).recurrent.chunk > 0;
}

const char *tg_plan_names_map(size_t i)
{
    return i < TG_MAP_COUNT ? tg_feature_map_name((enum tg_feature_map)i) : NULL;
}
const char *tg_plan_names_switch(size_t i)
{
    static const char *const names[] = {"false", "true"};
    return i < 2 ? names[i] : NULL;
}
const char *tg_plan_names_form(size_t i)
{
    return i < TG_WINDOW_FORM_COUNT ? tg_window_form_name((enum tg_window_form)i) : NULL;
}
const char *tg_plan_names_kv(size_t i)
{
    static const char *const names[] = {"shared", "expanded"};
    return i < 2 ? names[i] : NULL;
}

const struct tg_plan_option tg_plan_rows[TG_PLAN_KEYS] = {
#define SIZE(field) TG_STORE_SIZE, offsetof(struct tg_layer_spec, field)
#define TRUTH(field) TG_STORE_TRUTH, offsetof(struct tg_layer_spec, field)
#define UNTRUTH(field) TG_STORE_UNTRUTH, offsetof(struct tg_layer_spec, field)
#define IN_ROW(store) store, 0
#define REAL(store) store, 0
#define TG_PLAN_OPTION(id, name, flag, choice, lo, hi, has, store, meta, help)                     \
    {name, choice, lo, hi, has, store},
#include "linearize/surgery/options.def"
#undef TG_PLAN_OPTION
};

const char *tg_plan_value_text(enum tg_plan_key key, double value, char *buf, size_t size)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    if (row->choice)
        snprintf(buf, size, "%s", row->choice((size_t)value));
    else
        snprintf(buf, size, "%.15g", value);
    return buf;
}

int tg_plan_choose(enum tg_plan_key key, const char *name, const char *where, double *value,
                   struct tg_err *err)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    struct tg_strbuf list;
    tg_strbuf_init(&list, 1024);
    for (size_t i = 0; row->choice(i); i++) {
        if (strcmp(row->choice(i), name) == 0) {
            *value = (double)i;
            tg_strbuf_release(&list);
            return TG_OK;
        }
        tg_strbuf_printf(&list, "%s%s", i ? ", " : "", row->choice(i));
    }
    int status = tg_fail(err, TG_ERR_VALUE, "%s: '%.64s' is unknown; there are %s", where, name,
                         list.text ? list.text : "others");
    tg_strbuf_release(&list);
    return status;
}

double tg_plan_value_in(enum tg_plan_key key, size_t width, const struct tg_layer_spec *l)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    const void *field = (const char *)l + row->at;
    switch (row->store) {
    case TG_STORE_SIZE:
        return (double)*(const size_t *)field;
    case TG_STORE_TRUTH:
        return *(const bool *)field;
    case TG_STORE_UNTRUTH:
        return !*(const bool *)field;
    case TG_STORE_MAP:
        return l->feature_map;
    case TG_STORE_FORM:
        return l->window_form;
    case TG_STORE_FEATURES:
        return (double)l->feature_dim;
    case TG_STORE_KV:
        return l->kv_heads == l->heads;
    case TG_STORE_EXPAND:
        return (double)l->recurrent.inner / (double)width;
    case TG_STORE_BIAS:
        return l->recurrent.proj_bias;
    case TG_STORE_ERROR:
        return NAN;
    default:
        return (double)(has_dim(l->mixer, TG_DIM_KV_RANK) ? l->kv_rank : l->recurrent.rank);
    }
}

static void put(enum tg_plan_key key, double value, size_t width, const struct tg_layer_spec *from,
                struct tg_layer_spec *l)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    void *field = (char *)l + row->at;
    switch (row->store) {
    case TG_STORE_SIZE:
        *(size_t *)field = (size_t)value;
        break;
    case TG_STORE_TRUTH:
        *(bool *)field = value != 0;
        break;
    case TG_STORE_UNTRUTH:
        *(bool *)field = value == 0;
        break;
    case TG_STORE_MAP:
        l->feature_map = (enum tg_feature_map)value;
        break;
    case TG_STORE_FORM:
        l->window_form = (enum tg_window_form)value;
        break;
    case TG_STORE_FEATURES:
        l->feature_dim = (size_t)value;
        break;
    case TG_STORE_KV:
        l->kv_heads = value != 0 ? from->heads : from->kv_heads;
        break;
    case TG_STORE_RANK:
        *(has_dim(l->mixer, TG_DIM_KV_RANK) ? &l->kv_rank : &l->recurrent.rank) = (size_t)value;
        break;
    case TG_STORE_EXPAND:
        l->recurrent.inner = (size_t)value * width;
        break;
    case TG_STORE_BIAS:
        l->recurrent.proj_bias = l->recurrent.out_bias = value != 0;
        break;
    case TG_STORE_ERROR:
        break;
    }
}

static void put_given(const struct tg_plan_layer *p, size_t width, const struct tg_layer_spec *from,
                      struct tg_layer_spec *l)
{
    for (int k = 0; k < TG_PLAN_KEYS; k++)
        if (p->set[k].given)
            put((enum tg_plan_key)k, p->set[k].value, width, from, l);
    if (!has_map(p->mixer) || !tg_feature_map_has_weights(l->feature_map))
        l->feature_dim = 0;
    else if (l->feature_dim == 0 ||
             (p->set[TG_PLAN_FEATURE_MAP].given && !p->set[TG_PLAN_FEATURE_DIM].given))
        l->feature_dim = tg_feature_dim_default(l->feature_map, l->head_dim);
}

/* What is given is put twice: sizes that the mixer derives from others must see it, and those that
 * it sets must give way. */
void tg_plan_layer_spec(const struct tg_plan_layer *p, size_t width,
                        const struct tg_layer_spec *from, struct tg_layer_spec *to)
{
    *to = *from;
    to->mixer = p->mixer;
    to->window = has_window(p->mixer) ? p->mixer->window : 0;
    to->sinks = p->mixer->sinks;
    to->feature_map = TG_MAP_HEDGEHOG_SOFTMAX;
    to->feature_dim = 0;
    to->gated = false;
    put_given(p, width, from, to);
    if (!p->mixer->adopt)
        return;
    p->mixer->adopt(to);
    to->kv_rank = to->kv_rank < width ? to->kv_rank : width; /* adopt does not know D */
    put_given(p, width, from, to);
}

void tg_plan_defaults(struct tg_plan_layer *p)
{
    if (has_window(p->mixer))
        p->set[TG_PLAN_WINDOW] = tg_given((double)p->mixer->window);
    if (has_sinks(p->mixer))
        p->set[TG_PLAN_SINKS] = tg_given((double)p->mixer->sinks);
    if (has_map(p->mixer))
        p->set[TG_PLAN_FEATURE_MAP] = tg_given(adopted(p->mixer).feature_map);
}

static double value_or(const struct tg_plan_layer *p, enum tg_plan_key key, double fallback)
{
    return p->set[key].given ? p->set[key].value : fallback;
}

static bool takes_sinks(const struct tg_plan_layer *p)
{
    const bool gated = value_or(p, TG_PLAN_GATED, 0) != 0;
    for (size_t i = 0; i < p->mixer->param_count; i++) {
        unsigned flags = p->mixer->params[i].flags;
        if (flags & TG_PARAM_IF_SINKS && (gated || !(flags & TG_PARAM_IF_GATED)))
            return true;
    }
    return false;
}

static int check_option(const struct tg_plan_layer *p, enum tg_plan_key key, size_t l,
                        const char *where, struct tg_err *err)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    const double value = p->set[key].value;
    double lo = row->lo, hi = row->hi;
    char text[32];
    tg_plan_value_text(key, value, text, sizeof text);
    if (!row->has(p->mixer))
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: mixer '%s' has no %s (%s was given)",
                       where, l, p->mixer->name, row->name, text);
    if (row->choice)
        return TG_OK;
    const char *why = "";
    if (key == TG_PLAN_WINDOW && p->mixer->flags & TG_MIXER_WINDOW)
        lo = 1;
    if (key == TG_PLAN_SINKS && !takes_sinks(p)) {
        hi = 0;
        why = " that is not gated";
    }
    enum tg_feature_map map =
        (enum tg_feature_map)value_or(p, TG_PLAN_FEATURE_MAP, adopted(p->mixer).feature_map);
    if (key == TG_PLAN_FEATURE_DIM && !tg_feature_map_has_weights(map)) {
        hi = 0;
        why = " with a map without weights";
    }
    if (!(value >= lo && value <= hi))
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: %s %s is not in [%.0f, %.0f] for '%s'%s",
                       where, l, row->name, text, lo, hi, p->mixer->name, why);
    return TG_OK;
}

int tg_plan_check_layer(const struct tg_plan_layer *p, const struct tg_layer_spec *from, size_t l,
                        const char *where, struct tg_err *err)
{
    if (!(from->mixer->flags & TG_MIXER_TEACHER))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu is '%s', only softmax and window layers can be changed",
                       where, l, from->mixer->name);
    if (from->window && !(p->mixer->flags & TG_MIXER_LINEAR))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu sees %zu tokens; '%s' keeps and sees all of them", where, l,
                       from->window, p->mixer->name);
    if (!(p->mixer->flags & TG_MIXER_PLAN))
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: mixer '%s' cannot replace softmax", where,
                       l, p->mixer->name);
    if (from->window && !(p->mixer->flags & TG_MIXER_LINEAR))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu sees %zu tokens; '%s' keeps and sees all of them", where, l,
                       from->window, p->mixer->name);
    if (p->set[TG_PLAN_RANK].given && p->set[TG_PLAN_RANK_ERROR].given)
        return tg_fail(err, TG_ERR_VALUE, "%s: layer %zu: rank and rank_error are both given",
                       where, l);
    for (int k = 0; k < TG_PLAN_KEYS; k++) {
        int status = p->set[k].given ? check_option(p, (enum tg_plan_key)k, l, where, err) : TG_OK;
        if (status)
            return status;
    }
    if (p->set[TG_PLAN_WINDOW_FORM].given &&
        value_or(p, TG_PLAN_WINDOW, (double)p->mixer->window) == 0)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: layer %zu: window_form %s needs a window, '%s' has none here", where, l,
                       tg_plan_names_form((size_t)p->set[TG_PLAN_WINDOW_FORM].value),
                       p->mixer->name);
    return TG_OK;
}
