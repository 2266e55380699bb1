#include "linearize/model/model.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/model/model_internal.h"

enum { FIRST_POSITIONS = 1 << 12 };

static size_t index_of(const struct tg_param_list *list, const char *name)
{
    const struct tg_param *p = tg_params_find(list, name);
    return p ? (size_t)(p - list->items) : TG_NO_PARAM;
}

static size_t layer_index_of(const struct tg_param_list *list, size_t layer, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "layers.%zu.%s", layer, name);
    return index_of(list, full);
}

static struct tg_norm_index norm_index(const struct tg_param_list *list, size_t layer,
                                       const char *name)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    if (layer == TG_NO_PARAM)
        return (struct tg_norm_index){index_of(list, weight), index_of(list, bias)};
    return (struct tg_norm_index){layer_index_of(list, layer, weight),
                                  layer_index_of(list, layer, bias)};
}

/* prefix: "mlp", "moe", "moe.shared" */
static struct tg_mlp_index mlp_index(const struct tg_param_list *list, size_t layer,
                                     const char *prefix)
{
    struct tg_norm_index parts[3];
    static const char *const names[] = {"gate", "up", "down"};
    for (size_t i = 0; i < 3; i++) {
        char name[40];
        snprintf(name, sizeof name, "%s.%s", prefix, names[i]);
        parts[i] = norm_index(list, layer, name);
    }
    return (struct tg_mlp_index){parts[0].w, parts[1].w, parts[2].w,
                                 parts[0].b, parts[1].b, parts[2].b};
}

static int index_layer(struct tg_model *m, size_t l, struct tg_err *err)
{
    const struct tg_mixer_schema *schema = m->spec.layers[l].mixer;
    const struct tg_param_list *list = &m->params;
    if (!tg_mixer_find(schema) || schema->param_count > TG_MIXER_MAX_PARAMS)
        return tg_fail(err, TG_ERR_UNSUPPORTED, "layer %zu: mixer '%s' cannot be computed", l,
                       schema->name);
    m->index->layers[l] = (struct tg_layer_index){
        .norm_in = norm_index(list, l, "norm_in"),
        .norm_mixer_out = norm_index(list, l, "norm_mixer_out"),
        .norm_mlp = norm_index(list, l, "norm_mlp"),
        .norm_mlp_out = norm_index(list, l, "norm_mlp_out"),
        .mlp = mlp_index(list, l, "mlp"),
        .experts = mlp_index(list, l, "moe"),
        .shared = mlp_index(list, l, "moe.shared"),
        .router = layer_index_of(list, l, "moe.router.weight"),
        .router_bias = layer_index_of(list, l, "moe.router.bias"),
        .correction = layer_index_of(list, l, "moe.correction"),
        .shared_gate = layer_index_of(list, l, "moe.shared_gate.weight"),
    };
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++) {
        char name[64] = "";
        if (i < schema->param_count)
            snprintf(name, sizeof name, "mixer.%s", schema->params[i].name);
        m->index->layers[l].mixer[i] = *name ? layer_index_of(list, l, name) : TG_NO_PARAM;
    }
    return TG_OK;
}

static int build_index(struct tg_model *m, struct tg_err *err)
{
    m->index = tg_alloc(sizeof *m->index);
    if (!m->index)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the model");
    m->index->layers = tg_alloc_array(m->spec.layer_count, sizeof *m->index->layers);
    if (!m->index->layers)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the model");
    m->index->embed = index_of(&m->params, "embed.weight");
    m->index->pos = index_of(&m->params, "pos.weight");
    m->index->embed_in = index_of(&m->params, "embed_in.weight");
    m->index->embed_out = index_of(&m->params, "embed_out.weight");
    m->index->norm_out = norm_index(&m->params, TG_NO_PARAM, "norm_out");
    m->index->head_bias = index_of(&m->params, "head.bias");
    m->index->head = m->spec.tied_head ? m->index->embed : index_of(&m->params, "head.weight");
    int status = TG_OK;
    for (size_t l = 0; l < m->spec.layer_count && !status; l++)
        status = index_layer(m, l, err);
    return status;
}

int tg_model_reserve(struct tg_model *m, size_t positions, struct tg_err *err)
{
    if (positions <= m->rope_positions)
        return TG_OK;
    size_t want = m->rope_positions * 2 > positions ? m->rope_positions * 2 : positions;
    int status = tg_ropes_fit(&m->ropes, &m->spec, false, want, err);
    if (!status)
        m->rope_positions = want;
    return status;
}

int tg_model_create(struct tg_model **out, const struct tg_model_spec *spec,
                    const struct tg_ctx *ctx, struct tg_err *err)
{
    *out = NULL;
    tg_gemm_init();
    struct tg_model *m = tg_alloc(sizeof *m);
    if (!m)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the model");
    m->ctx = *ctx;
    int status = tg_spec_check(spec, "model", err);
    if (!status)
        status = tg_spec_copy(&m->spec, spec, err);
    if (!status)
        status = tg_params_of(&m->spec, &m->params, err);
    if (!status)
        status = build_index(m, err);
    if (!status)
        status = tg_model_reserve(m, FIRST_POSITIONS, err);
    if (!status) {
        m->data = tg_alloc_array(m->params.floats, sizeof *m->data);
        if (!m->data)
            status = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu parameters", m->params.floats);
    }
    if (status) {
        tg_model_free(m);
        return status;
    }
    *out = m;
    return TG_OK;
}

int tg_model_from_checkpoint(struct tg_model **out, const struct tg_checkpoint *c,
                             const struct tg_ctx *ctx, struct tg_err *err)
{
    struct tg_model *m;
    int status = tg_model_create(&m, tg_checkpoint_spec(c), ctx, err);
    if (status) {
        *out = NULL;
        return status;
    }
    for (size_t i = 0; i < m->params.count && !status; i++)
        status = tg_checkpoint_read(c, i, m->data + m->params.items[i].offset, err);
    if (status) {
        tg_model_free(m);
        m = NULL;
    }
    *out = m;
    return status;
}

int tg_model_load(struct tg_model **m, const char *path, const struct tg_ctx *ctx,
                  struct tg_err *err)
{
    struct tg_checkpoint *c;
    *m = NULL;
    int status = tg_checkpoint_open(&c, path, err);
    if (status)
        return status;
    status = tg_model_from_checkpoint(m, c, ctx, err);
    tg_checkpoint_close(c);
    return status;
}

void tg_model_free(struct tg_model *m)
{
    if (!m)
        return;
    if (m->index)
        tg_free(m->index->layers);
    tg_free(m->index);
    tg_ropes_release(&m->ropes);
    tg_free(m->data);
    tg_params_release(&m->params);
    tg_spec_release(&m->spec);
    tg_free(m);
}

float *tg_model_param(const struct tg_model *m, const char *name)
{
    const struct tg_param *p = tg_params_find(&m->params, name);
    return p ? m->data + p->offset : NULL;
}

void tg_model_mixer(const struct tg_model *m, size_t l, const float *data,
                    const struct tg_ropes *ropes, struct tg_mixer *out)
{
    const struct tg_layer_spec *spec = &m->spec.layers[l];
    const struct tg_rope_table *t = ropes ? tg_ropes_find(ropes, spec) : NULL;
    if (!t)
        t = tg_ropes_find(&m->ropes, spec);
    *out = (struct tg_mixer){.spec = spec,
                             .width = m->spec.width,
                             .norm = &m->spec.norm,
                             .norm_eps = (float)m->spec.norm.eps,
                             .rope_cos = t ? t->cosine : NULL,
                             .rope_sin = t ? t->sine : NULL};
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++) {
        size_t at = m->index->layers[l].mixer[i];
        out->param[i] = at == TG_NO_PARAM ? NULL : data + m->params.items[at].offset;
    }
}

size_t tg_model_widest_mlp(const struct tg_model *m)
{
    size_t widest = 0;
    for (size_t l = 0; l < m->spec.layer_count; l++)
        if (m->spec.layers[l].mlp_dim > widest)
            widest = m->spec.layers[l].mlp_dim;
    return widest;
}

struct tg_norm tg_model_norm(const struct tg_model *m, struct tg_norm_index at)
{
    const struct tg_norm_spec *spec = &m->spec.norm;
    return (struct tg_norm){.layer = spec->kind == TG_NORM_LAYER,
                            .plus_one = spec->plus_one,
                            .eps = (float)spec->eps,
                            .w = tg_model_weight(m, at.w),
                            .b = tg_model_weight(m, at.b)};
}

int tg_model_check_length(const struct tg_model *m, size_t sequence, size_t length,
                          struct tg_err *err)
{
    size_t rows = m->spec.learned_positions, offset = m->spec.position_offset;
    size_t most = rows == 0 ? SIZE_MAX : rows > offset ? rows - offset : 0;
    if (length <= most)
        return TG_OK;
    return tg_fail(err, TG_ERR_VALUE,
                   "sequence %zu would have %zu tokens, the model has learned positions for %zu",
                   sequence, length, most);
}
