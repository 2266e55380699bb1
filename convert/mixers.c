/* The rows of mixers.def as structs, the feature maps' names, and what each row keeps while it
 * decodes (for reports: what linearize really allocates is its own business). */
#include "convert/mixers.h"

#include <string.h>

#include "convert/spec.h"

static const char *const map_names[TG_MAP_COUNT] = {
    [TG_MAP_HEDGEHOG_SOFTMAX] = "hedgehog_softmax",
    [TG_MAP_HEDGEHOG_EXP] = "hedgehog_exp",
    [TG_MAP_RELU] = "relu",
    [TG_MAP_ELU1] = "elu1",
    [TG_MAP_IDENTITY] = "identity",
};

const char *tg_feature_map_name(enum tg_feature_map m)
{
    return (unsigned)m < TG_MAP_COUNT ? map_names[m] : "?";
}

bool tg_feature_map_parse(const char *name, enum tg_feature_map *out)
{
    for (int m = 0; m < TG_MAP_COUNT; m++)
        if (!strcmp(name, map_names[m])) {
            *out = (enum tg_feature_map)m;
            return true;
        }
    return false;
}

bool tg_feature_map_has_weights(enum tg_feature_map m)
{
    return m == TG_MAP_HEDGEHOG_SOFTMAX || m == TG_MAP_HEDGEHOG_EXP;
}

size_t tg_feature_count(const struct tg_layer_spec *l)
{
    return tg_feature_map_has_weights(l->feature_map) ? 2 * l->feature_dim : l->head_dim;
}

/* keys [G,K] and values [G,V] of one token */
static size_t kv_pair(const struct tg_layer_spec *l)
{
    return l->kv_heads * (l->head_dim + tg_value_dim(l));
}

static size_t kv_all(const struct tg_layer_spec *l)
{
    return kv_pair(l);
}

/* the latent of keys and values, and the rotated key that all heads share */
static size_t kv_latent(const struct tg_layer_spec *l)
{
    return l->kv_rank + l->rotary_dim;
}

/* the latent alone: keys and values are made from it again */
static size_t kv_compressed(const struct tg_layer_spec *l)
{
    return l->kv_rank;
}

static size_t kv_none(const struct tg_layer_spec *l)
{
    (void)l;
    return 0;
}

static size_t state_none(const struct tg_layer_spec *l)
{
    (void)l;
    return 0;
}

static size_t state_ring(const struct tg_layer_spec *l)
{
    return kv_pair(l) * l->window;
}

/* per query head a sum of phi(k) v^T and one of phi(k) */
static size_t linear_state(const struct tg_layer_spec *l)
{
    return l->heads * tg_feature_count(l) * (tg_value_dim(l) + 1);
}

/* A key enters the linear state when it leaves the window, with the gates passed since: one gate
 * per head and ring slot is remembered. */
static size_t state_gated_far(const struct tg_layer_spec *l)
{
    return state_ring(l) + linear_state(l) + l->heads * l->window;
}

static size_t state_lolcats(const struct tg_layer_spec *l)
{
    return l->gated ? state_gated_far(l) : state_ring(l) + linear_state(l);
}

/* Every key enters at once. */
static size_t state_gated_all(const struct tg_layer_spec *l)
{
    return state_ring(l) + linear_state(l);
}

/* the convolution's last inputs, then a state [K,V] for each value head */
static size_t state_delta(const struct tg_layer_spec *l)
{
    const struct tg_recurrent_spec *r = &l->recurrent;
    const size_t channels = 2 * r->k_heads * r->k_dim + r->v_heads * r->v_dim;
    return (r->conv - 1) * channels + r->v_heads * r->k_dim * r->v_dim;
}

static size_t state_heads(const struct tg_layer_spec *l)
{
    return l->recurrent.v_heads * l->recurrent.k_dim * l->recurrent.v_dim;
}

static size_t state_mamba2(const struct tg_layer_spec *l)
{
    const struct tg_recurrent_spec *r = &l->recurrent;
    return (r->conv - 1) * (r->inner + 2 * r->groups * r->state) + r->inner * r->state;
}

static size_t state_mamba1(const struct tg_layer_spec *l)
{
    return (l->recurrent.conv - 1 + l->recurrent.state) * l->recurrent.inner;
}

static size_t state_conv(const struct tg_layer_spec *l)
{
    return (l->recurrent.conv - 1) * l->recurrent.inner;
}

static size_t state_rglru(const struct tg_layer_spec *l)
{
    return l->recurrent.conv * l->recurrent.inner;
}

/* Half of what keys and values take, in eights */
static void adopt_latent(struct tg_layer_spec *l)
{
    const size_t all = kv_pair(l), half = (all / 2 + 7) / 8 * 8;
    l->kv_rank = half < all ? half : all;
}

#define TG_MIXER(name, summary, flags, window, sinks, adopt, kv, state, ...)                       \
    static const struct tg_param_rule rules_##name[] = {__VA_ARGS__};
#include "convert/mixers.def"
#undef TG_MIXER

#define TG_MIXER(name, summary, flags, window, sinks, adopt, kv, state, ...)                       \
    static const struct tg_mixer_schema schema_##name = {                                          \
        #name,  summary, flags, rules_##name, sizeof rules_##name / sizeof *rules_##name,          \
        window, sinks,   adopt, kv,           state};
#include "convert/mixers.def"
#undef TG_MIXER

const struct tg_mixer_schema *const tg_mixer_schemas[] = {
#define TG_MIXER(name, ...) &schema_##name,
#include "convert/mixers.def"
#undef TG_MIXER
    NULL};

const struct tg_mixer_schema *tg_mixer_schema_find(const char *name)
{
    for (size_t i = 0; tg_mixer_schemas[i]; i++)
        if (!strcmp(tg_mixer_schemas[i]->name, name))
            return tg_mixer_schemas[i];
    return NULL;
}

bool tg_param_rule_applies(const struct tg_param_rule *r, const struct tg_layer_spec *l)
{
    const unsigned missing =
        (l->qkv_bias ? 0 : TG_PARAM_IF_QKV_BIAS) | (l->o_bias ? 0 : TG_PARAM_IF_O_BIAS) |
        (l->qk_norm ? 0 : TG_PARAM_IF_QK_NORM) | (l->sinks ? 0 : TG_PARAM_IF_SINKS) |
        (tg_feature_map_has_weights(l->feature_map) ? 0 : TG_PARAM_IF_MAP) |
        (l->gated ? 0 : TG_PARAM_IF_GATED) | (l->output_gate ? 0 : TG_PARAM_IF_OUT_GATE) |
        (l->qk_norm_bias ? 0 : TG_PARAM_IF_QK_NORM_BIAS) |
        (l->q_rank ? TG_PARAM_UNLESS_Q_RANK : TG_PARAM_IF_Q_RANK) |
        (l->recurrent.conv_bias ? 0 : TG_PARAM_IF_CONV_BIAS) |
        (l->recurrent.proj_bias ? 0 : TG_PARAM_IF_IN_BIAS) |
        (l->recurrent.out_bias ? 0 : TG_PARAM_IF_OUT_BIAS) |
        (l->recurrent.norm ? 0 : TG_PARAM_IF_INNER_NORM);
    return !(r->flags & missing);
}
