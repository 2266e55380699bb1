/* Checks of a model spec, its tables of names, and the sizes of its states. */
#include "convert/spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/config.h"
#include "convert/recurrent.h"

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
        "default", "llama3", "linear", "dynamic", "yarn", "longrope",
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

static int check_rope(const struct tg_rope *r, const char *where, struct tg_err *err)
{
    if (!(r->theta >= 1 && r->theta <= 1e15))
        return tg_fail(err, TG_ERR_VALUE, "%s: rope theta is %g, must be 1 to 1e15", where,
                       r->theta);
    if (r->kind == TG_ROPE_DEFAULT)
        return TG_OK;
    if (r->kind != TG_ROPE_LLAMA3)
        return tg_fail(err, TG_ERR_VALUE, "%s: unknown rope kind %d", where, (int)r->kind);
    if (!(r->factor >= 1 && r->factor <= 1e6 && r->low_freq_factor > 0 &&
          r->high_freq_factor > r->low_freq_factor && r->high_freq_factor <= 1e6 &&
          r->original_max_positions >= 1 && r->original_max_positions <= 1e12))
        return tg_fail(err, TG_ERR_VALUE,
                       "%s: llama3 rope has factor %g, low_freq_factor %g, high_freq_factor %g, "
                       "original_max_position_embeddings %g; needed: factor 1 to 1e6, 0 < low < "
                       "high <= 1e6, positions 1 to 1e12",
                       where, r->factor, r->low_freq_factor, r->high_freq_factor,
                       r->original_max_positions);
    return TG_OK;
}

/* Does the mixer have attention's heads? */
static bool attends(const struct tg_mixer_schema *mixer)
{
    for (size_t i = 0; i < mixer->param_count; i++)
        if (mixer->params[i].shape[0] == TG_DIM_HK)
            return true;
    return false;
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
    } else if (l->window)
        return tg_fail(err, TG_ERR_VALUE, "%s: window is %zu, but mixer %s has none", where,
                       l->window, l->mixer->name);
    if (flags & TG_MIXER_FAR) {
        if ((unsigned)l->feature_map >= TG_MAP_COUNT)
            return tg_fail(err, TG_ERR_VALUE, "%s: unknown feature map %d", where,
                           (int)l->feature_map);
        if (tg_feature_map_has_weights(l->feature_map) &&
            (rc = check_size(where, "feature_dim", l->feature_dim, 1, TG_MAX_HEAD_DIM, err)))
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

static int check_heads(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    int rc;

    if ((rc = check_size(where, "heads", l->heads, 1, TG_MAX_HEADS, err)) ||
        (rc = check_size(where, "kv_heads", l->kv_heads, 1, l->heads, err)) ||
        (rc = check_size(where, "head_dim", l->head_dim, 1, TG_MAX_HEAD_DIM, err)) ||
        (rc = check_size(where, "rotary_dim", l->rotary_dim, 0, l->head_dim, err)))
        return rc;
    if (l->heads % l->kv_heads)
        return tg_fail(err, TG_ERR_VALUE, "%s: kv_heads %zu does not divide heads %zu", where,
                       l->kv_heads, l->heads);
    if (l->rotary_dim % 2)
        return tg_fail(err, TG_ERR_VALUE, "%s: rotary_dim %zu is not even", where, l->rotary_dim);
    if (!(l->attn_scale > 0 && l->attn_scale <= 1e6))
        return tg_fail(err, TG_ERR_VALUE, "%s: attn_scale is %g, must be above 0 and at most 1e6",
                       where, l->attn_scale);
    return TG_OK;
}

static int check_layer(const struct tg_layer_spec *l, const char *where, struct tg_err *err)
{
    int rc;

    if (!l->mixer)
        return tg_fail(err, TG_ERR_VALUE, "%s: no mixer", where);
    if ((attends(l->mixer) && (rc = check_heads(l, where, err))) ||
        (rc = check_size(where, "mlp_dim", l->mlp_dim, 1, TG_MAX_MLP, err)))
        return rc;
    if (l->activation != TG_ACT_SILU)
        return tg_fail(err, TG_ERR_VALUE, "%s: unknown activation %d", where, (int)l->activation);
    return check_mixer(l, where, err);
}

int tg_spec_check(const struct tg_model_spec *spec, const char *where, struct tg_err *err)
{
    const uint64_t most = (uint64_t)1 << 60; /* one layer's state stays below 2^56 */
    uint64_t state = 0;
    int rc;

    if ((rc = check_size(where, "vocabulary", spec->vocab, 1, TG_MAX_VOCAB, err)) ||
        (rc = check_size(where, "width", spec->width, 1, TG_MAX_WIDTH, err)) ||
        (rc = check_size(where, "number of layers", spec->layer_count, 1, TG_MAX_LAYERS, err)) ||
        (rc = check_rope(&spec->ropes[0], where, err)))
        return rc;
    if (!(spec->norm.eps > 0 && spec->norm.eps <= 1))
        return tg_fail(err, TG_ERR_VALUE, "%s: norm epsilon is %g, must be above 0 and at most 1",
                       where, spec->norm.eps);
    if (spec->eos_count > sizeof spec->eos_ids / sizeof *spec->eos_ids)
        return tg_fail(err, TG_ERR_VALUE, "%s: %zu end tokens, at most %zu", where, spec->eos_count,
                       sizeof spec->eos_ids / sizeof *spec->eos_ids);
    for (size_t i = 0; i < spec->layer_count; i++) {
        char at[512];
        snprintf(at, sizeof at, "%s: layer %zu", where, i);
        if ((rc = check_layer(&spec->layers[i], at, err)))
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
