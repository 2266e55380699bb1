/* The rows of mixers.def as structs, the feature maps' names, and what each row keeps while it
 * decodes (for reports: what linearize really allocates is its own business). */
#include "convert/mixers.h"

#include <string.h>

#include "convert/config_recurrent.h"
#include "convert/spec.h"

static const char *const map_names[TG_MAP_COUNT] = {
    [TG_MAP_HEDGEHOG_SOFTMAX] = "hedgehog_softmax",
    [TG_MAP_HEDGEHOG_EXP] = "hedgehog_exp",
    [TG_MAP_RELU] = "relu",
    [TG_MAP_ELU1] = "elu1",
    [TG_MAP_IDENTITY] = "identity",
    [TG_MAP_TAYLOR] = "taylor",
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
    return m == TG_MAP_HEDGEHOG_SOFTMAX || m == TG_MAP_HEDGEHOG_EXP || m == TG_MAP_TAYLOR;
}

size_t tg_map_count(enum tg_feature_map m, size_t K, size_t F)
{
    if (m == TG_MAP_TAYLOR)
        return 1 + F + F * (F + 1) / 2;
    return tg_feature_map_has_weights(m) ? 2 * F : K;
}

size_t tg_feature_dim_limit(enum tg_feature_map m)
{
    return m == TG_MAP_TAYLOR ? TG_MAX_TAYLOR : TG_MAX_HEAD_DIM;
}

/* A Taylor map's features grow with the square of F: BASED projects to 16. */
size_t tg_feature_dim_default(enum tg_feature_map m, size_t head_dim)
{
    return m == TG_MAP_TAYLOR && head_dim > 16 ? 16 : head_dim;
}

size_t tg_feature_count(const struct tg_layer_spec *l)
{
    return tg_map_count(l->feature_map, l->head_dim, l->feature_dim);
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

/* Of linear mixers: the convolution's last inputs, the heads' states, and the window's ring. Maps
 * with weights have some for every query head, and a state for each; a denominator is one more
 * value. */
static size_t state_linear(const struct tg_layer_spec *l)
{
    const bool map = l->mixer->flags & TG_MIXER_FAR;
    const bool per_query = map && tg_feature_map_has_weights(l->feature_map);
    const size_t heads = per_query ? l->heads : tg_value_heads(l);
    const size_t keys = map ? tg_feature_count(l) : l->head_dim;
    const size_t values = tg_value_dim(l) + (map && !l->plain_values);

    if (l->window && l->window_form == TG_WINDOW_JOINT)
        return state_ring(l) + linear_state(l);
    return (l->recurrent.conv ? l->recurrent.conv - 1 : 0) * tg_joined_rows(l) +
           heads * keys * values + state_ring(l);
}

/* One state more for each partition but one */
static size_t state_sse(const struct tg_layer_spec *l)
{
    const size_t states = l->recurrent.partitions + !l->recurrent.no_shared;
    return state_linear(l) + (states - 1) * tg_value_heads(l) * l->head_dim * tg_value_dim(l);
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

/* A key and a value for every query head, turned as the teacher's */
static void adopt_rotary(struct tg_layer_spec *l)
{
    l->kv_heads = l->heads;
}

/* The same without positions: the teacher's rotary serves the window alone, if any */
static void adopt_plain(struct tg_layer_spec *l)
{
    adopt_rotary(l);
    l->linear_plain = true;
}

/* Means of values: a window's mean beside another would count twice */
static void adopt_linear(struct tg_layer_spec *l)
{
    adopt_rotary(l);
    if (l->window)
        l->window_form = TG_WINDOW_JOINT;
}

static void adopt_based(struct tg_layer_spec *l)
{
    adopt_linear(l);
    l->feature_map = TG_MAP_TAYLOR;
    l->feature_dim = l->head_dim < 16 ? l->head_dim : 16;
}

static void adopt_gla(struct tg_layer_spec *l)
{
    adopt_rotary(l);
    l->recurrent.rank = 16;
}

/* Unit vectors need no norm before: its weights go into the projections. */
static void adopt_delta(struct tg_layer_spec *l)
{
    adopt_rotary(l);
    l->recurrent.conv = 4;
    if (!l->window) {
        l->qk_norm = TG_QK_NONE;
        l->qk_norm_bias = false;
    }
}

static void adopt_kda(struct tg_layer_spec *l)
{
    adopt_delta(l);
    l->recurrent.rank = l->head_dim;
}

/* Its keys are what a state reads and overwrites by: every head has its own. norm_eps is the
 * paper's code's, of heads of any size. */
static void adopt_rwkv7(struct tg_layer_spec *l)
{
    adopt_rotary(l);
    l->recurrent.rank = l->head_dim;
    l->recurrent.norm_eps = 64e-5;
}

static size_t state_rwkv7(const struct tg_layer_spec *l)
{
    return l->heads * l->head_dim * tg_value_dim(l);
}

static void partition(struct tg_layer_spec *l)
{
    l->recurrent.partitions = 4;
    l->recurrent.active = 1;
}

static void adopt_sse(struct tg_layer_spec *l)
{
    adopt_gla(l);
    partition(l);
}

static void adopt_sse_deltanet(struct tg_layer_spec *l)
{
    adopt_delta(l);
    partition(l);
}

/* Half of what keys and values take, in eights */
static void adopt_latent(struct tg_layer_spec *l)
{
    const size_t all = kv_pair(l), half = (all / 2 + 7) / 8 * 8;
    l->kv_rank = half < all ? half : all;
}

static size_t state_hgrn(const struct tg_layer_spec *l)
{
    return l->heads * tg_value_dim(l);
}

/* the last inputs of the convolutions of q, k and v */
static size_t state_hyena_x(const struct tg_layer_spec *l)
{
    return 3 * (l->recurrent.conv - 1) * l->heads * l->head_dim;
}

/* of that of k v */
static size_t state_hyena_y(const struct tg_layer_spec *l)
{
    return (l->recurrent.inner_conv - 1) * l->heads * l->head_dim;
}

static size_t state_hyena_se(const struct tg_layer_spec *l)
{
    return state_hyena_x(l) + state_hyena_y(l);
}

/* Rows without scores or positions: every head has its own k and v */
static void adopt_elementwise(struct tg_layer_spec *l)
{
    l->kv_heads = l->heads;
    l->rotary_dim = 0;
    l->attn_softcap = 0;
}

/* v's projection alone is left, as what enters the recurrence. A new layer's norm divides by little
 * (hgrn.c), which eps must not hide. */
static void adopt_hgrn(struct tg_layer_spec *l)
{
    adopt_elementwise(l);
    l->qk_norm = TG_QK_NONE;
    l->qk_norm_bias = false;
    l->qkv_clip = 0;
    l->recurrent.norm_eps = 1e-10;
}

static void adopt_hyena_x(struct tg_layer_spec *l)
{
    adopt_elementwise(l);
    l->recurrent.conv = 4;
}

static void adopt_hyena_y(struct tg_layer_spec *l)
{
    adopt_elementwise(l);
    l->recurrent.inner_conv = 4;
}

static void adopt_hyena_se(struct tg_layer_spec *l)
{
    adopt_elementwise(l);
    l->recurrent.conv = l->recurrent.inner_conv = 4;
}

static void adopt_chunks(struct tg_layer_spec *l)
{
    l->recurrent.chunk = 128;
}

/* keys and values of the chunk that is read, with the gates of its tokens, and the state of those
 * before it */
static size_t state_chunks(const struct tg_layer_spec *l)
{
    return (kv_pair(l) + l->heads) * l->recurrent.chunk + linear_state(l);
}

/* a ring of active tokens with their number, and an average of each channel */
static size_t state_sparse(const struct tg_layer_spec *l)
{
    return state_ring(l) + l->heads * tg_value_dim(l) + 1;
}

/* Channels of a state are those of a key, heads of x as many as make up the channels that a plan
 * has said, groups the kv heads unless it has said otherwise. Biases: the output gate begins as a
 * constant (mamba2_inherit.c), and checkpoints have them in both projections or in none. The norm
 * has the model's epsilon. */
static void adopt_mamba2(struct tg_layer_spec *l)
{
    const size_t inner = l->recurrent.inner ? l->recurrent.inner : l->heads * tg_value_dim(l);
    const struct tg_recurrent_spec r = {
        .v_heads = inner / tg_value_dim(l),
        .v_dim = tg_value_dim(l),
        .inner = inner,
        .state = l->head_dim,
        .groups = l->recurrent.groups ? l->recurrent.groups : l->kv_heads,
        .conv = 4,
        .conv_bias = true,
        .proj_bias = true,
        .out_bias = true,
        .norm = true,
        .norm_groups = 1,
    };
    tg_layer_recur(l, l->mixer->name, &r);
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
        (l->recurrent.norm ? 0 : TG_PARAM_IF_INNER_NORM) |
        (l->recurrent.conv ? 0 : TG_PARAM_IF_TAPS) |
        (l->window && l->window_form != TG_WINDOW_JOINT ? 0 : TG_PARAM_IF_BESIDE) |
        (l->window && l->window_form == TG_WINDOW_JOINT ? 0 : TG_PARAM_IF_JOINT) |
        (l->plain_values ? 0 : TG_PARAM_IF_PLAIN_VALUES) |
        (l->recurrent.no_shared ? TG_PARAM_IF_SHARED : 0) |
        (l->recurrent.no_bound ? TG_PARAM_IF_BOUND : 0);
    return !(r->flags & missing);
}
