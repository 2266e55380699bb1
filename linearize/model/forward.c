/* The whole decoder: embedding, blocks, final norm, head; and back. */
#include <assert.h>
#include <string.h>

#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/row_ops.h"
#include "linearize/model/run.h"

enum { EMBED_COLUMNS = 64 }; /* columns of the embedding's gradient with one writer */

struct embed_job {
    const struct tg_model *m;
    const struct tg_batch *b;
    const int32_t *ids;
    float *h;
};

/* One sequence */
static void embed_sequence(void *ud, size_t i, int worker)
{
    const struct embed_job *j = ud;
    const struct tg_model *m = j->m;
    const float *table = tg_model_weight(m, m->index->embed);
    const float *in = tg_model_weight(m, m->index->embed_in);
    const float *positions = tg_model_weight(m, m->index->pos);
    size_t D = m->spec.width, E = in ? m->spec.embed_dim : D;
    float scale = (float)tg_factor(m->spec.embed_scale);
    (void)worker;
    for (size_t row = j->b->begin[i]; row < j->b->begin[i + 1]; row++) {
        assert(j->ids[row] >= 0 && (size_t)j->ids[row] < m->spec.vocab);
        const float *from = table + (size_t)j->ids[row] * E;
        float *h = j->h + row * D;
        if (in)
            m->ctx.k->dots(from, in, E, D, E, h);
        else
            memcpy(h, from, D * sizeof *h);
        if (scale != 1)
            m->ctx.k->scale(scale, h, D);
        size_t t = m->spec.position_offset + tg_batch_past(j->b, i) + row - j->b->begin[i];
        if (positions)
            m->ctx.k->axpy(1, positions + t * D, h, D);
    }
}

void tg_model_embed(const struct tg_model *m, const int32_t *ids, const struct tg_batch *b,
                    float *h)
{
    struct embed_job j = {m, b, ids, h};
    tg_parallel(m->ctx.threads, b->count, embed_sequence, &j);
}

void tg_model_final_norm(const struct tg_model *m, float *h, size_t rows)
{
    struct tg_norm norm = tg_model_norm(m, m->index->norm_out);
    if (!m->spec.no_norm_out)
        tg_rows_norm(&m->ctx, &norm, h, h, NULL, rows, m->spec.width);
}

void tg_model_forward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                      const struct tg_batch *b, float *hidden, bool keep,
                      const struct tg_hooks *hooks)
{
    size_t rows = tg_batch_rows(b), layers = m->spec.layer_count;
    tg_model_embed(m, ids, b, hidden);
    for (size_t l = 0; l < layers; l++) {
        if (hooks && hooks->hidden)
            hooks->hidden(hooks->ud, l, hidden);
        tg_layer_forward(m, r, l, b, hidden, keep, hooks);
    }
    if (keep)
        tg_rows_copy(&m->ctx, hidden, r->h_last, rows, m->spec.width);
    tg_model_final_norm(m, hidden, rows);
    if (hooks && hooks->hidden)
        hooks->hidden(hooks->ud, layers, hidden);
}

/* Rows of a table that take part: by token, or by position (ids NULL) */
struct scatter {
    const int32_t *ids;
    const struct tg_batch *b;
    size_t offset, width;
    const float *dh;
    float *dtable;
    float scale;
};

/* Rows in order within a block of columns: the sum for a token that occurs often does not depend on
 * the threads. */
static void scatter_columns(void *ud, size_t block, int worker)
{
    const struct scatter *s = ud;
    (void)worker;
    size_t first = block * EMBED_COLUMNS, end = first + EMBED_COLUMNS;
    end = end < s->width ? end : s->width;
    for (size_t i = 0; i < s->b->count; i++)
        for (size_t row = s->b->begin[i]; row < s->b->begin[i + 1]; row++) {
            size_t at = s->ids ? (size_t)s->ids[row]
                               : s->offset + tg_batch_past(s->b, i) + row - s->b->begin[i];
            const float *from = s->dh + row * s->width;
            float *to = s->dtable + at * s->width;
            for (size_t j = first; j < end; j++)
                to[j] += s->scale * from[j];
        }
}

static void scatter_rows(const struct tg_ctx *ctx, const struct scatter *s)
{
    struct scatter copy = *s;
    if (s->dtable)
        tg_parallel(ctx->threads, (s->width + EMBED_COLUMNS - 1) / EMBED_COLUMNS, scatter_columns,
                    &copy);
}

/* dh [rows,D] of the first layer's input */
static void embed_backward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                           const struct tg_batch *b, const float *dh, float *grads,
                           const bool *wanted)
{
    const struct tg_model_index *at = m->index;
    size_t rows = tg_batch_rows(b), D = m->spec.width, E = m->spec.embed_dim;
    struct scatter s = {NULL, b, m->spec.position_offset, D, dh, NULL, 1};
    s.dtable = tg_model_gradient(m, grads, wanted, at->pos);
    scatter_rows(&m->ctx, &s);
    s.ids = ids;
    s.dtable = tg_model_gradient(m, grads, wanted, at->embed);
    s.scale = (float)tg_factor(m->spec.embed_scale);
    if (at->embed_in != TG_NO_PARAM) {
        const float *table = tg_model_weight(m, at->embed);
        for (size_t i = 0; i < rows; i++) {
            memcpy(r->token + i * E, table + (size_t)ids[i] * E, E * sizeof *r->token);
            m->ctx.k->scale(s.scale, r->token + i * E, E);
        }
        tg_linear_bwd(&m->ctx, r->token, tg_model_weight(m, at->embed_in), dh, r->dtoken, 0,
                      tg_model_gradient(m, grads, wanted, at->embed_in), NULL, rows, D, E);
        s.dh = r->dtoken;
        s.width = E;
    }
    scatter_rows(&m->ctx, &s);
}

/* The lowest layer with a wanted parameter; nothing below it needs a gradient. layer_count if there
 * is none. */
static size_t lowest_wanted(const struct tg_model *m, const bool *wanted)
{
    size_t lowest = m->spec.layer_count;
    for (size_t i = 0; i < m->params.count; i++) {
        const struct tg_param *p = &m->params.items[i];
        if ((!wanted || wanted[i]) && p->layer >= 0 && (size_t)p->layer < lowest)
            lowest = (size_t)p->layer;
    }
    return lowest;
}

static bool is_wanted(const bool *wanted, size_t index)
{
    return index != TG_NO_PARAM && (!wanted || wanted[index]);
}

void tg_model_backward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                       const struct tg_batch *b, float *dhidden, float *grads, const bool *wanted)
{
    const struct tg_model_index *at = m->index;
    size_t rows = tg_batch_rows(b), D = m->spec.width;
    bool embed = is_wanted(wanted, at->embed) || is_wanted(wanted, at->pos) ||
                 is_wanted(wanted, at->embed_in);
    size_t lowest = embed ? 0 : lowest_wanted(m, wanted);
    struct tg_norm norm = tg_model_norm(m, at->norm_out);

    if (!m->spec.no_norm_out) {
        tg_rows_norm(&m->ctx, &norm, r->h_last, r->y, r->stats, rows, D);
        tg_rows_copy(&m->ctx, dhidden, r->x, rows, D);
        memset(dhidden, 0, rows * D * sizeof *dhidden);
        tg_rows_norm_bwd(&m->ctx, &norm, r->h_last, r->stats, r->x, dhidden,
                         tg_model_gradient(m, grads, wanted, at->norm_out.w),
                         tg_model_gradient(m, grads, wanted, at->norm_out.b), r->partial, rows, D);
    }
    for (size_t l = m->spec.layer_count; l-- > lowest;)
        tg_layer_backward(m, r, l, b, dhidden, grads, wanted);
    if (embed)
        embed_backward(m, r, ids, b, dhidden, grads, wanted);
}
