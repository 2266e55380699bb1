/* Checks of a model spec, its tables of names, and the sizes of its states. */
#include "convert/spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/config.h"
#include "convert/recurrent.h"

const char *tg_window_form_name(enum tg_window_form f)
{
    static const char *const names[TG_WINDOW_FORM_COUNT] = {"parallel", "series", "joint"};
    return (unsigned)f < TG_WINDOW_FORM_COUNT ? names[f] : "?";
}

const struct tg_residual_info *tg_residual_info(enum tg_residual r)
{
    static const struct tg_residual_info rows[TG_RESIDUAL_COUNT] = {
        [TG_RESIDUAL_PRE] = {"pre", true, false, true, false, false, false, false},
        [TG_RESIDUAL_POST] = {"post", false, true, false, true, false, false, false},
        [TG_RESIDUAL_SANDWICH] = {"sandwich", true, true, true, true, false, false, false},
        [TG_RESIDUAL_PARALLEL] = {"parallel", true, false, true, false, true, false, false},
        [TG_RESIDUAL_SHARED] = {"shared", true, false, false, false, true, false, false},
        [TG_RESIDUAL_AFTER] = {"after", false, true, false, true, false, true, false},
        [TG_RESIDUAL_NORMED] = {"normed", true, false, true, false, false, false, true},
    };
    return &rows[r];
}

const char *tg_activation_name(enum tg_activation a)
{
    static const char *const names[TG_ACT_COUNT] = {
        "silu", "gelu", "gelu_tanh", "relu", "relu2", "clamped_glu",
    };
    return names[a];
}

const char *tg_rope_kind_name(enum tg_rope_kind k)
{
    static const char *const names[TG_ROPE_COUNT] = {
        "default", "llama3", "linear", "dynamic", "yarn", "longrope", "none",
    };
    return names[k];
}

int tg_spec_copy(struct tg_model_spec *to, const struct tg_model_spec *from, struct tg_err *err)
{
    struct tg_layer_spec *layers = tg_alloc_array(from->layer_count, sizeof *layers);

    if (!layers)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a spec of %zu layers", from->layer_count);
    if (from->layer_count)
        memcpy(layers, from->layers, from->layer_count * sizeof *layers);
    *to = *from;
    to->layers = layers;
    return TG_OK;
}

void tg_spec_release(struct tg_model_spec *spec)
{
    tg_free(spec->layers);
    spec->layers = NULL;
    spec->layer_count = 0;
}

static int check_size(const char *where, const char *what, size_t value, size_t lo, size_t hi,
                      struct tg_err *err)
{
    if (value >= lo && value <= hi)
        return TG_OK;
    return tg_fail(err, TG_ERR_VALUE, "%s: %s is %zu, must be %zu to %zu", where, what, value, lo,
                   hi);
}

static int check_number(const char *where, const char *what, double value, double lo, double hi,
                        struct tg_err *err)
{
    if (value >= lo && value <= hi)
        return TG_OK;
    return tg_fail(err, TG_ERR_VALUE, "%s: %s is %g, must be %g to %g", where, what, value, lo, hi);
}

static int check_enum(const char *where, const char *what, unsigned value, unsigned count,
                      struct tg_err *err)
{
    if (value < count)
        return TG_OK;
    return tg_fail(err, TG_ERR_VALUE, "%s: unknown %s %d", where, what, (int)value);
}

static int check_factors(const struct tg_rope *r, size_t rotary_dim, const char *where,
                         struct tg_err *err)
{
    int rc = TG_OK;

    if (r->factor_count > TG_MAX_ROPE_FACTORS || r->factor_count != rotary_dim / 2)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: longrope has %zu factors, but %zu pairs are rotated (at most %d)",
                       where, r->factor_count, rotary_dim / 2, TG_MAX_ROPE_FACTORS);
    for (size_t i = 0; i < r->factor_count && rc == TG_OK; i++)
        if (!(rc = check_number(where, "a short_factor", r->short_factor[i], 1e-6, 1e9, err)))
            rc = check_number(where, "a long_factor", r->long_factor[i], 1e-6, 1e9, err);
    return rc;
}

/* A rope that a layer turns by rotary_dim with */
static int check_rope(const struct tg_rope *r, size_t rotary_dim, const char *where,
                      struct tg_err *err)
{
    const bool length = r->kind != TG_ROPE_LINEAR,
               scales = r->kind == TG_ROPE_YARN || r->kind == TG_ROPE_LONGROPE;
    int rc;

    if ((rc = check_enum(where, "rope kind", r->kind, TG_ROPE_COUNT, err)) ||
        (rc = check_number(where, "rope theta", r->theta, 1, 1e15, err)) || tg_rope_plain(r))
        return rc;
    if ((r->kind != TG_ROPE_LONGROPE &&
         (rc = check_number(where, "rope factor", r->factor, 1, 1e6, err))) ||
        (length && (rc = check_number(where, "rope original_max_position_embeddings",
                                      r->original_max_positions, 1, 1e15, err))) ||
        (scales &&
         (rc = check_number(where, "rope attention_factor", r->attention_factor, 1e-6, 1e6, err))))
        return rc;
    if (r->kind == TG_ROPE_LLAMA3 &&
        !(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor &&
          r->high_freq_factor <= 1e6))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: llama3 rope has low_freq_factor %g, high_freq_factor %g; needed: 0 < "
                       "low < high <= 1e6",
                       where, r->low_freq_factor, r->high_freq_factor);
    if (r->kind == TG_ROPE_YARN &&
        !(r->beta_slow > 0 && r->beta_fast >= r->beta_slow && r->beta_fast <= 1e6))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: yarn rope has beta_slow %g, beta_fast %g; needed: 0 < slow <= fast <= "
                       "1e6",
                       where, r->beta_slow, r->beta_fast);
    return r->kind == TG_ROPE_LONGROPE ? check_factors(r, rotary_dim, where, err) : TG_OK;
}

/* A linear mixer's window and values, as its row can have them */
static int check_beside(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    const bool map = l->mixer->flags & TG_MIXER_FAR;
    const char *why = NULL;

    if (l->window && l->window_form == TG_WINDOW_JOINT && (!map || l->plain_values))
        why = "a joint window needs a linear branch with a denominator";
    else if (l->window && l->window_form == TG_WINDOW_JOINT && l->linear_plain && l->rotary_dim)
        why = "a joint window and its linear branch have the same rotary";
    else if (l->window && l->window_form == TG_WINDOW_SERIES && l->kv_heads != l->heads)
        why = "a window in series gives a value for each query head: kv heads must be expanded";
    else if (l->window && tg_value_heads(l) != l->kv_heads)
        why = "a window needs as many value heads as keys";
    else if (map && l->feature_map == TG_MAP_IDENTITY && !l->plain_values)
        why = "identity features may be negative and give no denominator: normalise must be false";
    else if (l->plain_values && !map)
        why = "it has no denominator to leave out";
    else if (!l->window && l->sinks)
        why = "sinks belong to a window";
    return why ? tg_fail(err, TG_ERR_VALUE, "%s: mixer %s: %s", where, l->mixer->name, why) : TG_OK;
}

static int check_mixer(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    const unsigned flags = l->mixer->flags;
    bool has_sinks = false;
    int rc;

    if (flags & TG_MIXER_RECURRENT && (rc = tg_recurrent_check(l, where, err)))
        return rc;
    if (flags & TG_MIXER_WINDOW) {
        if ((rc = check_size(where, "window", l->window, 1, TG_MAX_WINDOW, err)))
            return rc;
    } else if (flags & TG_MIXER_BESIDE) {
        if ((rc = check_size(where, "window", l->window, 0, TG_MAX_WINDOW, err)) ||
            (rc = check_enum(where, "window form", l->window_form, TG_WINDOW_FORM_COUNT, err)) ||
            (rc = check_beside(l, where, err)))
            return rc;
    } else if (l->window)
        return tg_fail(err, TG_ERR_VALUE, "%s: window is %zu, but mixer %s has none", where,
                       l->window, l->mixer->name);
    if (flags & TG_MIXER_FAR) {
        if ((unsigned)l->feature_map >= TG_MAP_COUNT)
            return tg_fail(err, TG_ERR_VALUE, "%s: unknown feature map %d", where,
                           (int)l->feature_map);
        if (tg_feature_map_has_weights(l->feature_map) &&
            (rc = check_size(where, "feature_dim", l->feature_dim, 1,
                             tg_feature_dim_limit(l->feature_map), err)))
            return rc;
    }
    if ((rc = check_size(where, "sinks", l->sinks, 0, TG_MAX_SINKS, err)))
        return rc;
    for (size_t i = 0; i < l->mixer->param_count; i++)
        has_sinks |= (l->mixer->params[i].flags & TG_PARAM_IF_SINKS) &&
                     tg_param_rule_applies(&l->mixer->params[i], l);
    if (l->sinks && !has_sinks)
        return tg_fail(err, TG_ERR_VALUE, "%s: sinks is %zu, but mixer %s%s has none", where,
                       l->sinks, l->mixer->name, l->gated ? "" : " (not gated)");
    return TG_OK;
}

/* Factors that 0 lets stand for 1, and limits that 0 turns off */
static int check_factor(const char *where, const char *what, double value, struct tg_err *err)
{
    if (value == 0)
        return TG_OK;
    return check_number(where, what, value, -1e6, 1e6, err);
}

static int check_limit(const char *where, const char *what, double value, struct tg_err *err)
{
    if (value == 0)
        return TG_OK;
    return check_number(where, what, value, 1e-6, 1e9, err);
}

static int check_moe(const struct tg_moe_spec *m, const char *where, struct tg_err *err)
{
    int rc;

    if ((rc = check_size(where, "experts", m->experts, 1, TG_MAX_EXPERTS, err)) ||
        (rc = check_size(where, "experts per token", m->per_token, 1, m->experts, err)) ||
        (rc = check_size(where, "mlp_dim of an expert", m->mlp_dim, 1, TG_MAX_MLP, err)) ||
        (rc = check_enum(where, "router", m->router, TG_ROUTER_SIGMOID + 1, err)) ||
        (rc = check_factor(where, "scale of the experts", m->scale, err)) ||
        (rc = check_size(where, "mlp_dim of the shared expert", m->shared_dim, 0, TG_MAX_MLP, err)))
        return rc;
    if (m->shared_gate && !m->shared_dim)
        return tg_fail(err, TG_ERR_VALUE, "%s: a shared expert's gate without a shared expert",
                       where);
    if (m->router != TG_ROUTER_SIGMOID && (m->correction || m->groups > 1))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: correction and groups belong to the sigmoid router alone", where);
    if (!m->groups)
        return m->groups_kept ? tg_fail(err, TG_ERR_VALUE, "%s: groups kept without groups", where)
                              : TG_OK;
    if (m->experts % m->groups)
        return tg_fail(err, TG_ERR_VALUE, "%s: %zu groups do not divide %zu experts", where,
                       m->groups, m->experts);
    if ((rc = check_size(where, "groups kept", m->groups_kept, 1, m->groups, err)))
        return rc;
    if (m->groups > 1 && m->experts / m->groups < 2)
        return tg_fail(err, TG_ERR_VALUE, "%s: %zu groups of %zu experts have less than 2 each",
                       where, m->groups, m->experts);
    if (m->per_token > m->experts / m->groups * m->groups_kept)
        return tg_fail(err, TG_ERR_VALUE, "%s: %zu experts per token, but the groups kept have %zu",
                       where, m->per_token, m->experts / m->groups * m->groups_kept);
    return TG_OK;
}

static int check_mlp(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    int rc;

    if ((rc = check_enum(where, "mlp kind", l->mlp_kind, TG_MLP_NONE + 1, err)) ||
        (rc = check_enum(where, "activation", l->activation, TG_ACT_COUNT, err)) ||
        (rc = check_factor(where, "gate_scale", l->gate_scale, err)) ||
        (rc = check_factor(where, "down_scale", l->down_scale, err)))
        return rc;
    if (l->activation == TG_ACT_CLAMPED_GLU && l->mlp_kind != TG_MLP_GATED)
        return tg_fail(err, TG_ERR_VALUE, "%s: clamped_glu needs a gated mlp", where);
    if (l->moe.experts && l->mlp_kind == TG_MLP_NONE)
        return tg_fail(err, TG_ERR_VALUE, "%s: experts in a layer without mlp", where);
    if (l->moe.experts || l->mlp_kind == TG_MLP_NONE) {
        if ((rc = check_size(where, "mlp_dim", l->mlp_dim, 0, 0, err)))
            return rc;
        return l->moe.experts ? check_moe(&l->moe, where, err) : TG_OK;
    }
    return check_size(where, "mlp_dim", l->mlp_dim, 1, TG_MAX_MLP, err);
}

static bool has_dim(const struct tg_layer_spec *l, enum tg_dim dim)
{
    for (size_t i = 0; i < l->mixer->param_count; i++)
        for (int d = 0; d < 4; d++)
            if (l->mixer->params[i].shape[d] == dim)
                return true;
    return false;
}

static int check_latents(const struct tg_model_spec *spec, const struct tg_layer_spec *l,
                         const char *where, struct tg_err *err)
{
    const size_t made = l->kv_heads * (l->head_dim + tg_value_dim(l));
    int rc;

    if (has_dim(l, TG_DIM_KV_RANK) && !has_dim(l, TG_DIM_KV_UP)) {
        rc = check_size(where, "q_rank", l->q_rank, 0, 0, err);
        return rc ? rc
                  : check_size(where, "kv_rank", l->kv_rank, 1,
                               made < spec->width ? made : spec->width, err);
    }
    if (!l->kv_rank && !l->q_rank)
        return TG_OK;
    if ((rc = check_size(where, "kv_rank", l->kv_rank, 1, TG_MAX_WIDTH, err)) ||
        (rc = check_size(where, "q_rank", l->q_rank, 0, TG_MAX_WIDTH, err)) ||
        (rc = check_size(where, "kv_heads", l->kv_heads, l->heads, l->heads, err)))
        return rc;
    return check_number(where, "latent_eps", l->latent_eps, 1e-30, 1, err);
}

static int check_attention(const struct tg_model_spec *spec, const struct tg_layer_spec *l,
                           const char *where, struct tg_err *err)
{
    int rc;

    if ((rc = check_size(where, "heads", l->heads, 1, TG_MAX_HEADS, err)) ||
        (rc = check_size(where, "kv_heads", l->kv_heads, 1, l->heads, err)) ||
        (rc = check_size(where, "head_dim", l->head_dim, 1, TG_MAX_HEAD_DIM, err)) ||
        (rc = check_size(where, "value_dim", l->value_dim, 0, TG_MAX_HEAD_DIM, err)) ||
        (rc = check_size(where, "rotary_dim", l->rotary_dim, 0, l->head_dim, err)) ||
        (rc = check_size(where, "rope", l->rope, 0, TG_MAX_ROPES - 1, err)) ||
        (rc = check_enum(where, "q/k norm", l->qk_norm, TG_QK_WIDE + 1, err)) ||
        (rc = check_limit(where, "attn_softcap", l->attn_softcap, err)) ||
        (rc = check_limit(where, "qkv_clip", l->qkv_clip, err)) ||
        (rc = check_latents(spec, l, where, err)))
        return rc;
    if ((rc = check_size(where, "value_heads", l->value_heads, 0, TG_MAX_HEADS, err)))
        return rc;
    if (tg_value_heads(l) % l->kv_heads ||
        (tg_value_heads(l) > l->kv_heads &&
         (l->kv_heads != l->heads || !(l->mixer->flags & TG_MIXER_RECURRENT))))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: value_heads %zu with heads %zu and kv_heads %zu: more values than keys "
                       "are for linear mixers without grouped queries, in a multiple",
                       where, l->value_heads, l->heads, l->kv_heads);
    if (l->heads % l->kv_heads)
        return tg_fail(err, TG_ERR_VALUE, "%s: kv_heads %zu does not divide heads %zu", where,
                       l->kv_heads, l->heads);
    if (l->rotary_dim % 2)
        return tg_fail(err, TG_ERR_VALUE, "%s: rotary_dim %zu is not even", where, l->rotary_dim);
    if (!(l->attn_scale > 0 && l->attn_scale <= 1e6))
        return tg_fail(err, TG_ERR_VALUE, "%s: attn_scale is %g, must be above 0 and at most 1e6",
                       where, l->attn_scale);
    if (l->qk_norm_bias && !l->qk_norm)
        return tg_fail(err, TG_ERR_VALUE, "%s: a bias of q/k norms that are not there", where);
    return l->rotary_dim ? check_rope(&spec->ropes[l->rope], l->rotary_dim, where, err) : TG_OK;
}

/* Do the parameters of its mixer have the sizes of a softmax layer's heads? */
static bool has_heads(const struct tg_layer_spec *l)
{
    return has_dim(l, TG_DIM_HK) || has_dim(l, TG_DIM_HV);
}

static int check_layer(const struct tg_model_spec *spec, const struct tg_layer_spec *l,
                       const char *where, struct tg_err *err)
{
    int rc;

    if (!l->mixer)
        return tg_fail(err, TG_ERR_VALUE, "%s: no mixer", where);
    if ((has_heads(l) && (rc = check_attention(spec, l, where, err))) ||
        (rc = check_enum(where, "residual", l->residual, TG_RESIDUAL_COUNT, err)) ||
        (rc = check_factor(where, "mixer_scale", l->mixer_scale, err)) ||
        (rc = check_factor(where, "mlp_scale", l->mlp_scale, err)) ||
        (rc = check_factor(where, "mixer_skip", l->mixer_skip, err)) ||
        (rc = check_factor(where, "mlp_skip", l->mlp_skip, err)) || (rc = check_mlp(l, where, err)))
        return rc;
    return check_mixer(l, where, err);
}

static int check_model(const struct tg_model_spec *spec, const char *where, struct tg_err *err)
{
    int rc;

    if ((rc = check_size(where, "vocabulary", spec->vocab, 1, TG_MAX_VOCAB, err)) ||
        (rc = check_size(where, "width", spec->width, 1, TG_MAX_WIDTH, err)) ||
        (rc = check_size(where, "number of layers", spec->layer_count, 1, TG_MAX_LAYERS, err)) ||
        (rc = check_enum(where, "norm kind", spec->norm.kind, TG_NORM_LAYER + 1, err)) ||
        (rc = check_factor(where, "embed_scale", spec->embed_scale, err)) ||
        (rc = check_factor(where, "logit_scale", spec->logit_scale, err)) ||
        (rc = check_limit(where, "logit_softcap", spec->logit_softcap, err)) ||
        (rc = check_size(where, "embed_dim", spec->embed_dim, 0, TG_MAX_WIDTH, err)) ||
        (rc = check_size(where, "learned positions", spec->learned_positions, 0, TG_MAX_POSITIONS,
                         err)))
        return rc;
    if (spec->position_offset && spec->position_offset >= spec->learned_positions)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: position_offset %zu leaves none of %zu learned positions", where,
                       spec->position_offset, spec->learned_positions);
    if (spec->norm.bare && (spec->norm.bias || spec->norm.plus_one))
        return tg_fail(err, TG_ERR_VALUE, "%s: norms without weights have no bias", where);
    if (!(spec->norm.eps > 0 && spec->norm.eps <= 1))
        return tg_fail(err, TG_ERR_VALUE, "%s: norm epsilon is %g, must be above 0 and at most 1",
                       where, spec->norm.eps);
    if (spec->eos_count > sizeof spec->eos_ids / sizeof *spec->eos_ids)
        return tg_fail(err, TG_ERR_VALUE, "%s: %zu end tokens, at most %zu", where, spec->eos_count,
                       sizeof spec->eos_ids / sizeof *spec->eos_ids);
    return TG_OK;
}

int tg_spec_check(const struct tg_model_spec *spec, const char *where, struct tg_err *err)
{
    const uint64_t most = (uint64_t)1 << 60; /* one layer's state stays below 2^56 */
    uint64_t state = 0;
    int rc;

    if ((rc = check_model(spec, where, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++) {
        char at[512];
        snprintf(at, sizeof at, "%s: layer %zu", where, i);
        if ((rc = check_layer(spec, &spec->layers[i], at, err)))
            return rc;
        state += spec->layers[i].mixer->state_floats(&spec->layers[i]);
        if (state > most)
            return tg_fail(err, TG_ERR_VALUE,
                           "%s: the windows need %llu floats of state, at most 2^60", at,
                           (unsigned long long)state);
    }
    return TG_OK;
}

size_t tg_spec_kv_bytes_per_token(const struct tg_model_spec *spec, size_t element)
{
    size_t floats = 0;

    for (size_t i = 0; i < spec->layer_count; i++)
        floats += spec->layers[i].mixer->kv_floats_per_token(&spec->layers[i]);
    return floats * element;
}

size_t tg_spec_state_bytes(const struct tg_model_spec *spec)
{
    size_t floats = 0;

    for (size_t i = 0; i < spec->layer_count; i++)
        floats += spec->layers[i].mixer->state_floats(&spec->layers[i]);
    return floats * sizeof(float);
}
