#include "convert/config_recurrent.h"

#include <math.h>
#include <string.h>

void tg_layer_recur(struct tg_layer_spec *l, const char *mixer, const struct tg_recurrent_spec *r)
{
    l->mixer = tg_mixer_schema_find(mixer);
    l->recurrent = *r;
    l->heads = l->kv_heads = l->value_heads = l->head_dim = l->value_dim = 0;
    l->window = l->rotary_dim = l->rope = l->sinks = l->q_rank = l->kv_rank = 0;
    l->qkv_bias = l->o_bias = l->qk_norm_bias = l->output_gate = false;
    l->qk_norm = TG_QK_NONE;
    l->attn_scale = l->attn_softcap = l->qkv_clip = l->latent_eps = 0;
}

void tg_layer_linear(struct tg_layer_spec *l, const char *mixer, const struct tg_layer_spec *from)
{
    tg_layer_recur(l, mixer, &from->recurrent);
    l->heads = l->kv_heads = from->kv_heads;
    l->value_heads = from->value_heads;
    l->head_dim = from->head_dim;
    l->value_dim = from->value_dim;
    l->attn_scale = from->attn_scale;
}

int tg_config_kinds(struct tg_json c, const char *key, const char *const names[4], size_t period,
                    size_t layer_count, bool *recurs, struct tg_err *err)
{
    const struct tg_json types = tg_json_key(c, key);
    size_t i = 0;

    if (!tg_json_has(types)) {
        for (i = 0; i < layer_count; i++)
            recurs[i] = !period || (i + 1) % period;
        return TG_OK;
    }
    if (!tg_json_is_array(types) || tg_json_count(types) != layer_count)
        return tg_json_fail(c, key, TG_ERR_VALUE, err,
                            "must be an array of num_hidden_layers = %zu names; it has %zu",
                            layer_count, tg_json_count(types));
    for (struct tg_json t = tg_json_first(types); t.node; t = tg_json_next(t), i++) {
        const char *name = tg_json_string(t);
        int kind = 0;

        while (kind < 4 && (!names[kind] || strcmp(name, names[kind]) != 0))
            kind++;
        if (kind == 4)
            return tg_json_fail(t, "", TG_ERR_UNSUPPORTED, err,
                                "layer type \"%s\" is not supported; known: %s, %s", name, names[0],
                                names[2]);
        recurs[i] = kind < 2;
    }
    return TG_OK;
}

int tg_config_listed(struct tg_json c, const char *key, size_t first, size_t layer_count, bool *in,
                     struct tg_err *err)
{
    const struct tg_json list = tg_json_key(c, key);

    memset(in, 0, layer_count * sizeof *in);
    if (!tg_json_has(list))
        return TG_OK;
    if (!tg_json_is_array(list))
        return tg_json_fail(c, key, TG_ERR_VALUE, err, "must be an array or null");
    for (struct tg_json v = tg_json_first(list); v.node; v = tg_json_next(v)) {
        const double d = tg_json_number(v);
        if (!tg_json_is_number(v) || !(d >= (double)first && d < (double)(first + layer_count)) ||
            d != floor(d))
            return tg_json_fail(v, "", TG_ERR_VALUE, err, "must be a layer's number, %zu to %zu",
                                first, first + layer_count - 1);
        in[(size_t)d - first] = true;
    }
    return TG_OK;
}

int tg_config_deltanet(struct tg_json c, struct tg_layer_spec *l, struct tg_err *err)
{
    const struct {
        const char *key;
        size_t *to;
        int64_t most;
    } sizes[] = {
        {"linear_num_key_heads", &l->kv_heads, TG_MAX_HEADS},
        {"linear_num_value_heads", &l->value_heads, TG_MAX_HEADS},
        {"linear_key_head_dim", &l->head_dim, TG_MAX_HEAD_DIM},
        {"linear_value_head_dim", &l->value_dim, TG_MAX_HEAD_DIM},
        {"linear_conv_kernel_dim", &l->recurrent.conv, 32},
    };
    int rc;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if ((rc = tg_config_size_or(c, sizes[i].key, 1, sizes[i].most, sizes[i].to, err)))
            return rc;
    if (l->value_heads % l->kv_heads)
        return tg_json_fail(c, "linear_num_key_heads", TG_ERR_VALUE, err,
                            "%zu does not divide linear_num_value_heads, %zu", l->kv_heads,
                            l->value_heads);
    l->attn_scale = 1 / sqrt((double)l->head_dim);
    return TG_OK;
}

int tg_config_qwen_hybrid(struct tg_json c, struct tg_model_spec *spec, struct tg_err *err)
{
    static const char *const kinds[4] = {"linear_attention", NULL, "full_attention", NULL};
    struct tg_layer_spec l = {.kv_heads = 16,
                              .value_heads = 32,
                              .head_dim = 128,
                              .value_dim = 128,
                              .recurrent = {.conv = 4, .norm_eps = spec->norm.eps}};
    bool recurs[TG_MAX_LAYERS];
    size_t period = 4;
    int rc;

    if ((rc = tg_config_deltanet(c, &l, err)) ||
        (rc = tg_config_size_or(c, "full_attention_interval", 1, TG_MAX_LAYERS, &period, err)) ||
        (rc = tg_config_kinds(c, "layer_types", kinds, period, spec->layer_count, recurs, err)))
        return rc;
    for (size_t i = 0; i < spec->layer_count; i++)
        if (recurs[i])
            tg_layer_linear(&spec->layers[i], "gated_deltanet", &l);
    return TG_OK;
}

int tg_config_numbers(struct tg_json c, const char *key, size_t count, double *out,
                      struct tg_err *err)
{
    const struct tg_json list = tg_json_key(c, key);
    size_t i = 0;

    if (!tg_json_has(list))
        return TG_OK;
    if (!tg_json_is_array(list) || tg_json_count(list) != count)
        return tg_json_fail(c, key, TG_ERR_VALUE, err, "must be an array of %zu numbers", count);
    for (struct tg_json v = tg_json_first(list); v.node; v = tg_json_next(v), i++)
        if (!tg_config_number(v, &out[i]) || isnan(out[i]))
            return tg_json_fail(v, "", TG_ERR_VALUE, err, "must be a number");
    return TG_OK;
}

int tg_config_limits(struct tg_json c, const char *key, double *low, double *high,
                     struct tg_err *err)
{
    double limits[2] = {0, INFINITY};
    const int rc = tg_config_numbers(c, key, 2, limits, err);

    if (rc)
        return rc;
    if (!(limits[0] >= 0 && limits[0] < limits[1] && limits[0] <= 1e6))
        return tg_json_fail(c, key, TG_ERR_VALUE, err,
                            "%g to %g: the first must be 0 to 1e6 and below the second", limits[0],
                            limits[1]);
    *low = limits[0];
    *high = limits[1] <= 1e9 ? limits[1] : 0;
    return TG_OK;
}

/* "auto" or absent: inner / heads */
static int read_head_dim(struct tg_json c, struct tg_recurrent_spec *r, struct tg_err *err)
{
    const char *key = "mamba_d_head";
    const struct tg_json v = tg_json_key(c, key);
    int rc = TG_OK;

    r->v_dim = r->inner / r->v_heads;
    if (strcmp(tg_json_string(v), "auto") != 0)
        rc = tg_config_size_or(c, key, 1, TG_MAX_HEAD_DIM, &r->v_dim, err);
    if (rc == TG_OK && r->v_dim * r->v_heads != r->inner)
        return tg_json_fail(c, key, TG_ERR_VALUE, err, "%zu heads of %zu are not %zu channels",
                            r->v_heads, r->v_dim, r->inner);
    return rc;
}

int tg_config_mamba2(struct tg_json c, size_t width, struct tg_recurrent_spec *r,
                     struct tg_err *err)
{
    size_t expand = 2;
    int rc;

    if ((rc = tg_config_size_or(c, "mamba_expand", 1, 1024, &expand, err)) ||
        (rc = tg_config_size_or(c, "mamba_n_heads", 1, TG_MAX_HEADS, &r->v_heads, err)) ||
        (rc = tg_config_size_or(c, "mamba_n_groups", 1, TG_MAX_HEADS, &r->groups, err)) ||
        (rc = tg_config_size_or(c, "mamba_d_state", 1, TG_MAX_HEAD_DIM, &r->state, err)) ||
        (rc = tg_config_size_or(c, "mamba_d_conv", 1, 32, &r->conv, err)) ||
        (rc = tg_json_get_bool_or(c, "mamba_conv_bias", &r->conv_bias, err)) ||
        (rc = tg_json_get_bool_or(c, "mamba_proj_bias", &r->proj_bias, err)) ||
        (rc = tg_config_limits(c, "time_step_limit", &r->dt_min, &r->dt_max, err)))
        return rc;
    if (!r->inner)
        r->inner = expand * width;
    r->out_bias = r->proj_bias;
    return read_head_dim(c, r, err);
}

void tg_layout_blocks(const struct tg_layout_ask *ask, struct tg_layout *out, size_t G,
                      size_t block, size_t first, size_t rows, size_t to)
{
    const size_t D = (size_t)ask->param->shape[1];
    struct tg_piece *p = &out->piece[out->pieces++];

    out->rank = 2;
    out->shape[0] = (int64_t)(G * block);
    out->shape[1] = (int64_t)D;
    *p = (struct tg_piece){.from = first * D, .to = to * D, .loops = 2};
    p->loop[0].count = G;
    p->loop[0].from = block * D;
    p->loop[0].to = rows * D;
    p->loop[1].count = rows * D;
    p->loop[1].from = p->loop[1].to = 1;
}

static void part(const struct tg_layout_ask *ask, struct tg_layout *out, int which)
{
    const size_t keys = ask->layer->kv_heads * ask->layer->head_dim;
    const size_t all = tg_joined_rows(ask->layer), third = (all + 2) / 3;
    const size_t own[4] = {0, keys, 2 * keys, all}, cut[4] = {0, third, 2 * third, all};
    const size_t width = (size_t)ask->param->shape[1];
    const bool conv = ask->stored_rank == 3;
    const size_t stored = ask->stored_rank > 0 ? (size_t)ask->stored[0] : 0;
    const size_t *at =
        conv && stored == cut[which + 1] - cut[which] && stored != own[which + 1] - own[which]
            ? cut
            : own;
    struct tg_piece *p = &out->piece[out->pieces++];

    out->rank = conv ? 3 : 2;
    out->shape[0] = (int64_t)(at[which + 1] - at[which]);
    out->shape[1] = conv ? 1 : (int64_t)width;
    out->shape[2] = conv ? (int64_t)width : 0;
    *p = (struct tg_piece){.to = at[which] * width, .loops = 1};
    p->loop[0].count = (at[which + 1] - at[which]) * width;
    p->loop[0].from = p->loop[0].to = 1;
}

void tg_layout_part_q(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    part(ask, out, 0);
}

void tg_layout_part_k(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    part(ask, out, 1);
}

void tg_layout_part_v(const struct tg_layout_ask *ask, struct tg_layout *out)
{
    part(ask, out, 2);
}

int tg_config_qwen_moe(struct tg_json c, struct tg_moe_spec *m, struct tg_err *err)
{
    int rc;

    m->mlp_dim = m->shared_dim = 512;
    m->renormalise = m->shared_gate = true;
    if ((rc = tg_config_size_or(c, "num_experts", 0, TG_MAX_EXPERTS, &m->experts, err)) ||
        (rc = tg_config_size_or(c, "num_experts_per_tok", 1, TG_MAX_EXPERTS, &m->per_token, err)) ||
        (rc = tg_config_size_or(c, "moe_intermediate_size", 1, TG_MAX_MLP, &m->mlp_dim, err)) ||
        (rc = tg_config_size_or(c, "shared_expert_intermediate_size", 1, TG_MAX_MLP, &m->shared_dim,
                                err)))
        return rc;
    return tg_json_get_bool_or(c, "norm_topk_prob", &m->renormalise, err);
}
