/* From hidden states to logits and back:
 *
 *   z = embed_out x, or x        l = logit_scale (head z + bias)        logits = c tanh(l / c)
 *
 * The factor E of head and embed_out is between 1 and any size, and nothing is allocated here: z is
 * made in tiles that fit on the stack, whose products add up in a fixed order. Models with
 * embed_out or a soft-cap are few; the others take one product over all rows. */
#include <string.h>

#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/row_ops.h"

enum { TILE_ROWS = 32, TILE_COLUMNS = 128 };

struct head {
    const struct tg_model *m;
    const float *w, *bias, *out; /* head [N,E], bias [N], embed_out [E,D] or NULL */
    size_t N, D, E;
    float scale, cap;
};

static struct head head_of(const struct tg_model *m)
{
    const struct tg_model_index *at = m->index;
    struct head h = {.m = m,
                     .w = tg_model_weight(m, at->head),
                     .bias = tg_model_weight(m, at->head_bias),
                     .out = tg_model_weight(m, at->embed_out),
                     .N = m->spec.vocab,
                     .D = m->spec.width,
                     .scale = (float)tg_factor(m->spec.logit_scale),
                     .cap = (float)m->spec.logit_softcap};
    h.E = h.out ? m->spec.embed_dim : h.D;
    return h;
}

static size_t at_most(size_t n, size_t limit)
{
    return n < limit ? n : limit;
}

/* l of `rows` rows and the tokens [first, first + count), one row of which is `stride` apart */
static void uncapped(const struct head *h, const struct tg_ctx *ctx, const float *x, size_t rows,
                     size_t first, size_t count, float *l, size_t stride)
{
    const float *w = h->w + first * h->E;
    float z[TILE_ROWS * TILE_COLUMNS];
    if (!h->out)
        tg_gemm(ctx, false, true, rows, count, h->D, h->scale, x, h->D, w, h->E, 0, l, stride);
    for (size_t r = 0; h->out && r < rows; r += TILE_ROWS)
        for (size_t e = 0; e < h->E; e += TILE_COLUMNS) {
            size_t some = at_most(rows - r, TILE_ROWS), part = at_most(h->E - e, TILE_COLUMNS);
            tg_gemm(ctx, false, true, some, part, h->D, 1, x + r * h->D, h->D, h->out + e * h->D,
                    h->D, 0, z, part);
            tg_gemm(ctx, false, true, some, count, part, h->scale, z, part, w + e, h->E, e > 0,
                    l + r * stride, stride);
        }
    for (size_t r = 0; h->bias && r < rows; r++)
        ctx->k->axpy(h->scale, h->bias + first, l + r * stride, count);
}

struct cap_job {
    const struct head *h;
    const float *x;
    float *l;
    size_t rows;
};

static void cap_row(void *ud, size_t row, int worker)
{
    const struct cap_job *j = ud;
    (void)worker;
    j->h->m->ctx.k->softcap_fwd(j->h->cap, j->l + row * j->h->N, j->h->N);
}

void tg_model_logits(const struct tg_model *m, const float *hidden, size_t rows, float *logits)
{
    struct head h = head_of(m);
    struct cap_job j = {&h, hidden, logits, rows};
    uncapped(&h, &m->ctx, hidden, rows, 0, h.N, logits, h.N);
    if (h.cap != 0)
        tg_parallel(m->ctx.threads, rows, cap_row, &j);
}

/* dlogits of a tile of tokens becomes dl: what the caps let through, of logits made again */
static void uncap_tile(void *ud, size_t tile, int worker)
{
    const struct cap_job *j = ud;
    struct tg_ctx alone = j->h->m->ctx;
    size_t N = j->h->N, first = tile * TILE_COLUMNS, count = at_most(N - first, TILE_COLUMNS);
    float l[TILE_ROWS * TILE_COLUMNS];
    (void)worker;
    alone.threads = 1;
    for (size_t r = 0; r < j->rows; r += TILE_ROWS) {
        size_t some = at_most(j->rows - r, TILE_ROWS);
        uncapped(j->h, &alone, j->x + r * j->h->D, some, first, count, l, count);
        for (size_t i = 0; i < some; i++)
            alone.k->softcap_bwd(j->h->cap, l + i * count, j->l + (r + i) * N + first, count);
    }
}

/* Through head and embed_out by tiles of E */
static void factored_backward(const struct head *h, const float *x, const float *dl, size_t rows,
                              float *dx, float *dhead, float *dout)
{
    const struct tg_ctx *ctx = &h->m->ctx;
    size_t N = h->N, D = h->D, E = h->E;
    float z[TILE_ROWS * TILE_COLUMNS];
    for (size_t r = 0; r < rows; r += TILE_ROWS)
        for (size_t e = 0; e < E; e += TILE_COLUMNS) {
            size_t some = at_most(rows - r, TILE_ROWS), part = at_most(E - e, TILE_COLUMNS);
            const float *out = h->out + e * D, *xr = x + r * D, *dlr = dl + r * N;
            if (dhead) {
                tg_gemm(ctx, false, true, some, part, D, 1, xr, D, out, D, 0, z, part);
                tg_gemm(ctx, true, false, N, part, some, 1, dlr, N, z, part, 1, dhead + e, E);
            }
            tg_gemm(ctx, false, false, some, part, N, 1, dlr, N, h->w + e, E, 0, z, part);
            if (dout)
                tg_gemm(ctx, true, false, part, D, some, 1, z, part, xr, D, 1, dout + e * D, D);
            tg_gemm(ctx, false, false, some, D, part, 1, z, part, out, D, e > 0, dx + r * D, D);
        }
}

void tg_model_logits_backward(const struct tg_model *m, const float *hidden, float *dlogits,
                              size_t rows, float *dhidden, float *grads, const bool *wanted)
{
    const struct tg_model_index *at = m->index;
    struct head h = head_of(m);
    struct cap_job j = {&h, hidden, dlogits, rows};
    float *dhead = tg_model_gradient(m, grads, wanted, at->head);
    float *dbias = tg_model_gradient(m, grads, wanted, at->head_bias);
    if (h.cap != 0)
        tg_parallel(m->ctx.threads, (h.N + TILE_COLUMNS - 1) / TILE_COLUMNS, uncap_tile, &j);
    tg_rows_scale(&m->ctx, h.scale, dlogits, rows, h.N);
    if (!h.out) {
        tg_linear_bwd(&m->ctx, hidden, h.w, dlogits, dhidden, 0, dhead, dbias, rows, h.N, h.D);
        return;
    }
    tg_linear_bwd(&m->ctx, hidden, h.w, dlogits, NULL, 0, NULL, dbias, rows, h.N, h.E);
    factored_backward(&h, hidden, dlogits, rows, dhidden, dhead,
                      tg_model_gradient(m, grads, wanted, at->embed_out));
}
