#include "convert/recurrent.h"

#include <string.h>

#include "convert/config.h"

size_t tg_recurrent_size(enum tg_dim d, const struct tg_recurrent_spec *r)
{
    const size_t bc = 2 * r->groups * r->state;

    switch (d) {
    case TG_DIM_V_HEADS:
        return r->v_heads;
    case TG_DIM_TAPS:
        return r->conv;
    case TG_DIM_KV_TAPS:
        return r->inner_conv;
    case TG_DIM_RANK:
        return r->rank;
    case TG_DIM_STATE:
        return r->state;
    case TG_DIM_INNER:
        return r->inner;
    case TG_DIM_INNER_2:
        return 2 * r->inner;
    case TG_DIM_INNER_3:
        return 3 * r->inner;
    case TG_DIM_X_B_C:
        return r->inner + bc;
    case TG_DIM_Z_XBC_DT:
        return 2 * r->inner + bc + r->v_heads;
    case TG_DIM_DT_B_C:
        return r->rank + 2 * r->state;
    case TG_DIM_GROUPS:
        return r->groups;
    case TG_DIM_GROUP_SIZE:
        return r->groups ? r->inner / r->groups : 0;
    case TG_DIM_PARTITIONS:
        return r->partitions;
    default:
        return 0;
    }
}

/* The fields a size is made of: one that is missing makes it 0 or leaves a part out. */
static bool needs(const struct tg_mixer_schema *mixer, enum tg_dim first, enum tg_dim last)
{
    for (size_t i = 0; i < mixer->param_count; i++)
        for (size_t d = 0; d < 4; d++)
            if (mixer->params[i].shape[d] >= first && mixer->params[i].shape[d] <= last)
                return true;
    return false;
}

static bool has(const struct tg_mixer_schema *mixer, enum tg_dim d)
{
    return needs(mixer, d, d);
}

static bool optional_taps(const struct tg_mixer_schema *mixer)
{
    for (size_t i = 0; i < mixer->param_count; i++)
        if (mixer->params[i].flags & TG_PARAM_IF_TAPS)
            return true;
    return false;
}

/* HGRN2's keys are its decays: a state has its own. */
static bool forgets(const struct tg_mixer_schema *mixer)
{
    for (size_t i = 0; i < mixer->param_count; i++)
        if (!strcmp(mixer->params[i].name, "lower_bound"))
            return mixer->params[i].shape[0] == TG_DIM_GATES;
    return false;
}

/* RWKV-7's states read, overwrite and add by keys of their own. */
static bool own_keys(const struct tg_mixer_schema *mixer)
{
    for (size_t i = 0; i < mixer->param_count; i++)
        if (!strcmp(mixer->params[i].name, "k_k"))
            return true;
    return false;
}

static int check_sizes(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    const struct tg_recurrent_spec *r = &l->recurrent;
    const struct tg_mixer_schema *m = l->mixer;
    const bool space = has(m, TG_DIM_X_B_C);
    const bool grouped = space || has(m, TG_DIM_GROUPS), parted = has(m, TG_DIM_PARTITIONS);
    const struct {
        const char *name;
        size_t value, most;
        bool needed;
    } sizes[] = {
        {"value heads", r->v_heads, TG_MAX_HEADS, space},
        {"value size", r->v_dim, TG_MAX_HEAD_DIM, space},
        {"convolution taps", r->conv, 32, has(m, TG_DIM_TAPS) && !optional_taps(m)},
        {"inner convolution taps", r->inner_conv, 32, has(m, TG_DIM_KV_TAPS)},
        {"state size", r->state, TG_MAX_HEAD_DIM, space || has(m, TG_DIM_STATE)},
        {"groups", r->groups, TG_MAX_HEADS, grouped},
        {"inner size", r->inner, TG_MAX_MLP, space || needs(m, TG_DIM_INNER, TG_DIM_INNER_3)},
        {"rank", r->rank, TG_MAX_WIDTH, has(m, TG_DIM_RANK)},
        {"norm groups", r->norm_groups, TG_MAX_HEADS, false},
        {"partitions", r->partitions, TG_MAX_PARTITIONS, parted},
        {"active partitions", r->active, r->partitions, parted},
        {"chunk", r->chunk, TG_MAX_WINDOW, m->flags & TG_MIXER_CHUNKED},
    };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value > sizes[i].most || (sizes[i].needed && !sizes[i].value))
            return tg_fail(err, TG_ERR_VALUE, "%s: %s of mixer %s: %zu, must be %d to %zu", where,
                           sizes[i].name, m->name, sizes[i].value, sizes[i].needed, sizes[i].most);
    if (space && r->inner != r->v_heads * r->v_dim)
        return tg_fail(err, TG_ERR_VALUE, "%s: %zu heads of %zu are not the inner size %zu", where,
                       r->v_heads, r->v_dim, r->inner);
    return TG_OK;
}

/* q, k and v multiplied channel by channel */
static int check_channels(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    if (!needs(l->mixer, TG_DIM_CHANNELS, TG_DIM_CHANNELS_3))
        return TG_OK;
    if (tg_value_dim(l) != l->head_dim)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: value_dim is %zu, but mixer %s multiplies values by keys, channel by "
                       "channel: it must be head_dim, %zu",
                       where, tg_value_dim(l), l->mixer->name, l->head_dim);
    if (l->kv_heads != l->heads)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: kv_heads is %zu, but mixer %s multiplies queries by keys, channel by "
                       "channel: it must be heads, %zu",
                       where, l->kv_heads, l->mixer->name, l->heads);
    return TG_OK;
}

int tg_recurrent_check(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    const struct tg_recurrent_spec *r = &l->recurrent;
    const struct {
        const char *what;
        size_t whole, part;
    } splits[] = {
        {"groups do not divide the inner size", r->inner, r->groups},
        {"groups do not divide the heads", r->v_heads, r->groups},
        {"norm groups do not divide the inner size", r->inner, r->norm_groups},
    };
    int rc;

    if ((rc = check_sizes(l, where, err)) || (rc = check_channels(l, where, err)))
        return rc;
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++)
        if (splits[i].whole && splits[i].part && splits[i].whole % splits[i].part)
            return tg_fail(err, TG_ERR_VALUE, "%s: %s: %zu, %zu", where, splits[i].what,
                           splits[i].part, splits[i].whole);
    if (tg_value_heads(l) > l->kv_heads && forgets(l->mixer))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: value heads %zu, kv_heads %zu: mixer %s has one value for each key",
                       where, tg_value_heads(l), l->kv_heads, l->mixer->name);
    if ((l->kv_heads != l->heads || tg_value_heads(l) != l->heads) && own_keys(l->mixer))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: kv_heads %zu, value heads %zu: mixer %s has a key and a value for each "
                       "query head, both must be heads, %zu",
                       where, l->kv_heads, tg_value_heads(l), l->mixer->name, l->heads);
    if (!(r->norm_eps >= 0 && r->norm_eps <= 1))
        return tg_fail(err, TG_ERR_VALUE, "%s: inner norm epsilon is %g, must be 0 to 1", where,
                       r->norm_eps);
    return TG_OK;
}
