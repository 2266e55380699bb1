/* The whole decoder: embedding, blocks, final norm, head; and back. */
#include <assert.h>
#include <string.h>

#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/row_ops.h"
#include "linearize/model/run.h"

enum { EMBED_COLUMNS = 64 }; /* columns of the embedding's gradient with one writer */

void tg_model_embed(const struct tg_model *m, const int32_t *ids, size_t rows, float *h)
{
    const float *table = tg_model_weight(m, m->index->embed);
    size_t D = m->spec.width;
    for (size_t i = 0; i < rows; i++) {
        assert(ids[i] >= 0 && (size_t)ids[i] < m->spec.vocab);
        memcpy(h + i * D, table + (size_t)ids[i] * D, D * sizeof *h);
    }
}

void tg_model_final_norm(const struct tg_model *m, float *h, size_t rows, float *r)
{
    tg_rows_rmsnorm(&m->ctx, h, tg_model_weight(m, m->index->norm_out), (float)m->spec.norm.eps, h,
                    r, rows, m->spec.width);
}

void tg_model_forward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                      const struct tg_batch *b, float *hidden, bool keep,
                      const struct tg_hooks *hooks)
{
    size_t rows = tg_batch_rows(b), layers = m->spec.layer_count;
    tg_model_embed(m, ids, rows, hidden);
    for (size_t l = 0; l < layers; l++) {
        if (hooks && hooks->hidden)
            hooks->hidden(hooks->ud, l, hidden);
        tg_layer_forward(m, r, l, b, hidden, keep, hooks);
    }
    if (keep)
        tg_rows_copy(&m->ctx, hidden, r->h_last, rows, m->spec.width);
    tg_model_final_norm(m, hidden, rows, keep ? r->r_last : NULL);
    if (hooks && hooks->hidden)
        hooks->hidden(hooks->ud, layers, hidden);
}

struct scatter {
    const int32_t *ids;
    const float *dh;
    float *dtable;
    size_t rows, width;
};

/* Rows in order within a block of columns: the sum for a token that occurs often does not depend on
 * the threads. */
static void scatter_columns(void *ud, size_t block, int worker)
{
    const struct scatter *s = ud;
    (void)worker;
    size_t first = block * EMBED_COLUMNS, end = first + EMBED_COLUMNS;
    end = end < s->width ? end : s->width;
    for (size_t i = 0; i < s->rows; i++) {
        const float *from = s->dh + i * s->width;
        float *to = s->dtable + (size_t)s->ids[i] * s->width;
        for (size_t j = first; j < end; j++)
            to[j] += from[j];
    }
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

void tg_model_backward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                       const struct tg_batch *b, float *dhidden, float *grads, const bool *wanted)
{
    const struct tg_model_index *at = m->index;
    size_t rows = tg_batch_rows(b), D = m->spec.width;
    bool embed = !wanted || wanted[at->embed];
    bool norm_out = !wanted || wanted[at->norm_out];
    size_t lowest = embed ? 0 : lowest_wanted(m, wanted);

    tg_rows_copy(&m->ctx, dhidden, r->x, rows, D);
    memset(dhidden, 0, rows * D * sizeof *dhidden);
    tg_rows_rmsnorm_bwd(&m->ctx, r->h_last, tg_model_weight(m, at->norm_out), r->r_last, r->x,
                        dhidden, norm_out ? tg_model_at(m, grads, at->norm_out) : NULL, r->partial,
                        rows, D);
    for (size_t l = m->spec.layer_count; l-- > lowest;)
        tg_layer_backward(m, r, l, b, dhidden, grads, wanted);
    if (embed) {
        struct scatter s = {ids, dhidden, tg_model_at(m, grads, at->embed), rows, D};
        tg_parallel(m->ctx.threads, (D + EMBED_COLUMNS - 1) / EMBED_COLUMNS, scatter_columns, &s);
    }
}

void tg_model_logits(const struct tg_model *m, const float *hidden, size_t rows, float *logits)
{
    tg_linear_fwd(&m->ctx, hidden, tg_model_weight(m, m->index->head), NULL, logits, rows,
                  m->spec.vocab, m->spec.width);
}

void tg_model_logits_backward(const struct tg_model *m, const float *hidden, const float *dlogits,
                              size_t rows, float *dhidden, float *grads, bool head_wanted)
{
    float *dhead = head_wanted ? tg_model_at(m, grads, m->index->head) : NULL;
    tg_linear_bwd(&m->ctx, hidden, tg_model_weight(m, m->index->head), dlogits, dhidden, 0, dhead,
                  NULL, rows, m->spec.vocab, m->spec.width);
}
