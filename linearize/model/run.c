#include "linearize/model/run.h"

#include "base/mem.h"
#include "linearize/model/model_internal.h"
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
    tg_free(r);
}

static size_t mixer_work(const struct tg_model *m, const struct tg_batch *b, bool backward)
{
    size_t most = 0;
    for (size_t l = 0; l < m->spec.layer_count; l++) {
        const struct tg_mixer_ops *ops = tg_model_mixer_ops(m, l);
        struct tg_mixer mixer;
        tg_model_mixer(m, l, m->data, &mixer);
        for (int way = 0; way <= (int)backward; way++) {
            size_t need = ops->work_floats(&mixer, b, m->ctx.threads, way);
            most = need > most ? need : most;
        }
    }
    return most;
}

/* Lays everything over `base`, or measures with base NULL. */
static size_t lay_out(struct tg_run *r, const struct tg_model *m, const struct tg_batch *b,
                      bool backward, size_t work, float *base)
{
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), D = m->spec.width, widest = tg_model_widest_mlp(m);
    r->x = tg_carve(&c, rows * D);
    r->y = tg_carve(&c, rows * D);
    r->p = tg_carve(&c, rows * widest);
    r->q = tg_carve(&c, rows * widest);
    r->r = tg_carve(&c, rows);
    r->work = tg_carve(&c, work);
    if (!backward)
        return c.used;
    r->partial = tg_carve(&c, tg_row_blocks(rows) * D);
    r->h_last = tg_carve(&c, rows * D);
    r->r_last = tg_carve(&c, rows);
    for (size_t l = 0; l < m->spec.layer_count; l++) {
        struct tg_saved_layer *s = &r->saved[l];
        struct tg_mixer mixer;
        tg_model_mixer(m, l, m->data, &mixer);
        s->h_in = tg_carve(&c, rows * D);
        s->r_in = tg_carve(&c, rows);
        s->h_mid = tg_carve(&c, rows * D);
        s->r_mid = tg_carve(&c, rows);
        s->mixer = tg_carve(&c, tg_model_mixer_ops(m, l)->saved_floats(&mixer, b));
        s->gate = tg_carve(&c, rows * m->spec.layers[l].mlp_dim);
        s->up = tg_carve(&c, rows * m->spec.layers[l].mlp_dim);
    }
    return c.used;
}

int tg_run_fit(struct tg_run *r, const struct tg_model *m, const struct tg_batch *b, bool backward,
               struct tg_err *err)
{
    size_t layers = backward ? m->spec.layer_count : 0;
    for (size_t i = 0; i < b->count; i++)
        if (b->begin[i + 1] - b->begin[i] > m->rope_positions)
            return tg_fail(err, TG_ERR_VALUE,
                           "sequence %zu has %zu tokens, rotary tables were reserved for %zu", i,
                           b->begin[i + 1] - b->begin[i], m->rope_positions);
    if (!tg_grow(&r->saved, &r->saved_cap, layers, sizeof *r->saved))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a run of %zu layers", layers);
    r->saved_count = layers;
    r->rows = tg_batch_rows(b);
    size_t work = mixer_work(m, b, backward);
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
