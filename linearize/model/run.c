#include "linearize/model/run.h"

#include "base/mem.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/moe.h"
#include "linearize/model/row_ops.h"

int tg_run_create(struct tg_run **r, struct tg_err *err)
{
    *r = tg_alloc(sizeof **r);
    return *r ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for a run");
}

void tg_run_free(struct tg_run *r)
{
    if (!r)
        return;
    tg_free(r->block);
    tg_free(r->saved);
    tg_ropes_release(&r->ropes);
    tg_free(r);
}

static size_t work_floats(const struct tg_model *m, const struct tg_batch *b, bool backward)
{
    size_t most = tg_block_work_floats(m, tg_batch_rows(b), backward);
    for (size_t l = 0; l < m->spec.layer_count; l++) {
        const struct tg_mixer_ops *ops = tg_model_mixer_ops(m, l);
        struct tg_mixer mixer;
        tg_model_mixer(m, l, m->data, NULL, &mixer);
        for (int way = 0; way <= (int)backward; way++) {
            size_t need = ops->work_floats(&mixer, b, m->ctx.threads, way);
            most = need > most ? need : most;
        }
    }
    return most;
}

/* Backward through a plain layer needs no scratch beside x and y. */
static bool is_plain(const struct tg_layer_spec *l)
{
    const struct tg_residual_info *kind = tg_residual_info(l->residual);
    return !kind->norm_mixer_out && !kind->norm_mlp_out && !kind->parallel &&
           tg_factor(l->mixer_scale) == 1 && tg_factor(l->mlp_scale) == 1 &&
           tg_factor(l->down_scale) == 1;
}

static void lay_out_saved(struct tg_saved_layer *s, const struct tg_model *m, size_t layer,
                          const struct tg_batch *b, struct tg_carve *c)
{
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    const struct tg_residual_info *kind = tg_residual_info(l->residual);
    size_t rows = tg_batch_rows(b), cells = rows * m->spec.width;
    struct tg_mixer mixer;
    tg_model_mixer(m, layer, m->data, NULL, &mixer);
    *s = (struct tg_saved_layer){0};
    s->h_in = tg_carve(c, cells);
    if (!kind->parallel)
        s->h_mid = tg_carve(c, cells);
    if (kind->norm_mixer_out)
        s->mixer_out = tg_carve(c, cells);
    if (kind->norm_mlp_out)
        s->mlp_out = tg_carve(c, cells);
    s->mixer = tg_carve(c, tg_model_mixer_ops(m, layer)->saved_floats(&mixer, b));
    s->gate = tg_carve(c, rows * l->mlp_dim);
    s->up = tg_carve(c, l->mlp_kind == TG_MLP_GATED ? rows * l->mlp_dim : 0);
    s->moe = tg_carve(c, tg_moe_saved_floats(&m->spec, layer, rows));
}

/* Lays everything over `base`, or measures with base NULL. */
static size_t lay_out(struct tg_run *r, const struct tg_model *m, const struct tg_batch *b,
                      bool backward, size_t work, float *base)
{
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), D = m->spec.width, widest = tg_model_widest_mlp(m);
    bool plain = true;
    r->x = tg_carve(&c, rows * D);
    r->y = tg_carve(&c, rows * D);
    r->p = tg_carve(&c, rows * widest);
    r->q = tg_carve(&c, rows * widest);
    r->work = tg_carve(&c, work);
    if (!backward)
        return c.used;
    r->stats = tg_carve(&c, 2 * rows);
    r->partial = tg_carve(&c, 2 * tg_row_blocks(rows) * D);
    r->h_last = tg_carve(&c, rows * D);
    for (size_t l = 0; l < m->spec.layer_count; l++) {
        lay_out_saved(&r->saved[l], m, l, b, &c);
        plain = plain && is_plain(&m->spec.layers[l]);
    }
    r->dy = tg_carve(&c, plain ? 0 : rows * D);
    r->dx = tg_carve(&c, plain ? 0 : rows * D);
    r->token = tg_carve(&c, rows * m->spec.embed_dim);
    r->dtoken = tg_carve(&c, rows * m->spec.embed_dim);
    return c.used;
}

const struct tg_ropes *tg_run_ropes(const struct tg_run *r)
{
    return &r->ropes;
}

int tg_run_fit(struct tg_run *r, const struct tg_model *m, const struct tg_batch *b, bool backward,
               struct tg_err *err)
{
    size_t layers = backward ? m->spec.layer_count : 0, longest = 0;
    int status;
    for (size_t i = 0; i < b->count; i++) {
        longest = b->begin[i + 1] - b->begin[i] > longest ? b->begin[i + 1] - b->begin[i] : longest;
        status = tg_model_check_length(m, i, b->begin[i + 1] - b->begin[i], err);
        if (status)
            return status;
        if (b->begin[i + 1] - b->begin[i] > m->rope_positions)
            return tg_fail(err, TG_ERR_VALUE,
                           "sequence %zu has %zu tokens, rotary tables were reserved for %zu", i,
                           b->begin[i + 1] - b->begin[i], m->rope_positions);
    }
    if ((status = tg_ropes_fit(&r->ropes, &m->spec, true, longest, err)))
        return status;
    if (!tg_grow(&r->saved, &r->saved_cap, layers, sizeof *r->saved))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a run of %zu layers", layers);
    r->saved_count = layers;
    r->rows = tg_batch_rows(b);
    size_t work = work_floats(m, b, backward);
    size_t need = lay_out(r, m, b, backward, work, NULL);
    if (need > r->block_floats || !r->block) {
        tg_free(r->block);
        r->block_floats = 0;
        r->block = tg_alloc_floats(need);
        if (!r->block) {
            r->rows = 0;
            return tg_fail(err, TG_ERR_NOMEM, "no memory for a batch of %zu tokens (%zu MiB)",
                           tg_batch_rows(b), need >> 18);
        }
        r->block_floats = need;
    }
    lay_out(r, m, b, backward, work, r->block);
    return TG_OK;
}
