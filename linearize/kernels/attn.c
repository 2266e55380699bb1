/* Tiles of 64 queries x 64 keys, each sequence's counted from its first row (online softmax:
 * Milakov and Gimelshein, arXiv:1805.02867; the tiled backward: FlashAttention, arXiv:2205.14135).
 * Tiles wholly outside the window are skipped, so the cost is O(T window); a tile's scores live on
 * the stack, so memory is O(T).
 *
 * Forward, per query row, over key tiles in order, m the largest score so far:
 *   m' = max(m, max s),  l = l e^{m - m'} + sum e^{s - m'},  o = o e^{m - m'} + e^{s - m'} V
 *
 * Backward per tile: P = e^{S - total}, dP = dY V^T, dS = scale P (dP - delta);
 *   dV += P^T dY,  dK += dS^T Q (tiles in the order of head, query tile),  dQ += dS K (key tiles in
 *   order)
 * either in one pass over (sequence, kv head), or, when that would leave threads idle, in two that
 * compute S, P and dS twice: dQ over query tiles, dK and dV over key tiles. Both add the same terms
 * in the same order, so the result does not depend on which one runs. */
#include "linearize/kernels/attn.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/pool.h"
#include "linearize/kernels/gemm.h"

enum { TILE = 64 };

struct job {
    const struct tg_ctx *ctx;
    const struct tg_attn *a;
    const struct tg_batch *batch;
    const float *q, *k, *v, *dy, *total, *delta;
    float *o, *lse, *max_out, *dq, *dk, *dv;
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t length(const struct job *j, size_t b)
{
    return j->batch->begin[b + 1] - j->batch->begin[b];
}

static size_t tiles(size_t rows)
{
    return (rows + TILE - 1) / TILE;
}

/* A number for each (sequence, tile): increasing, not every one in use. */
static size_t first_id(const struct job *j, size_t b)
{
    return j->batch->begin[b] / TILE + b;
}

/* false: nothing has that number */
static bool find_tile(const struct job *j, size_t id, size_t *sequence, size_t *tile)
{
    size_t low = 0, high = j->batch->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (first_id(j, middle) <= id)
            low = middle;
        else
            high = middle;
    }
    *sequence = low;
    *tile = id - first_id(j, low);
    return *tile < tiles(length(j, low));
}

/* Queries [t0, t0 + nq) and keys [j0, j0 + nk) of one sequence that begins at row `base`. */
struct tile {
    size_t base, t0, nq, j0, nk;
};

/* The keys of the tile that row i may see: [*low, *high), empty if equal. */
static void visible(const struct tg_attn *a, const struct tile *t, size_t i, size_t *low,
                    size_t *high)
{
    size_t now = t->t0 + i;
    size_t first = a->window && now + 1 > a->window ? now + 1 - a->window : 0;
    *high = now + 1 > t->j0 ? smaller(now + 1 - t->j0, t->nk) : 0;
    *low = first > t->j0 ? smaller(first - t->j0, *high) : 0;
}

static size_t first_key_tile(const struct tg_attn *a, size_t query_tile)
{
    size_t t0 = query_tile * TILE;
    return a->window && t0 + 1 > a->window ? (t0 + 1 - a->window) / TILE : 0;
}

/* one after the last query tile that sees key tile kt */
static size_t end_query_tile(const struct tg_attn *a, size_t kt, size_t rows)
{
    size_t last_key = kt * TILE + TILE - 1;
    if (!a->window || a->window >= rows)
        return tiles(rows);
    return smaller(tiles(rows), (last_key + a->window - 1) / TILE + 1);
}

static void scores(const struct job *j, const struct tile *t, size_t h, float *s)
{
    const struct tg_attn *a = j->a;
    size_t g = h / (a->H / a->G);
    tg_scores(j->ctx->k, t->nq, t->nk, a->K, a->scale, j->q + ((t->base + t->t0) * a->H + h) * a->K,
              a->H * a->K, j->k + ((t->base + t->j0) * a->G + g) * a->K, a->G * a->K, s, TILE);
    for (size_t i = 0; a->cap > 0 && i < t->nq; i++)
        j->ctx->k->softcap_fwd(a->cap, s + i * TILE, t->nk);
}

static void keep_only(float *row, size_t low, size_t high, size_t n)
{
    memset(row, 0, low * sizeof *row);
    memset(row + high, 0, (n - high) * sizeof *row);
}

/* One key tile of one query tile; m, l [nq]; o with row stride H*V is not read at the first. */
static void fwd_tile(const struct job *j, const struct tile *t, size_t h, bool first, float *m,
                     float *l, float *o)
{
    const struct tg_attn *a = j->a;
    const struct tg_kernels *kern = j->ctx->k;
    size_t g = h / (a->H / a->G);
    float s[TILE * TILE];
    scores(j, t, h, s);
    for (size_t i = 0; i < t->nq; i++) {
        size_t low, high;
        float *row = s + i * TILE;
        visible(a, t, i, &low, &high);
        keep_only(row, low, high, t->nk);
        if (low == high)
            continue;
        float top = kern->max(row + low, high - low);
        if (top > m[i]) {
            if (m[i] != -INFINITY) {
                float shrink = expf(m[i] - top);
                l[i] *= shrink;
                kern->scale(shrink, o + i * a->H * a->V, a->V);
            }
            m[i] = top;
        }
        if (m[i] == -INFINITY) { /* not a number: every score is -inf or NaN */
            l[i] = NAN;
            continue;
        }
        l[i] += kern->exp_shift_sum(row + low, m[i], high - low);
    }
    tg_gemm1(false, false, t->nq, a->V, t->nk, 1, s, TILE,
             j->v + ((t->base + t->j0) * a->G + g) * a->V, a->G * a->V, first ? 0 : 1, o,
             a->H * a->V);
}

static void fwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_attn *a = j->a;
    size_t b, qt, h = item % a->H;
    (void)worker;
    if (!find_tile(j, item / a->H, &b, &qt))
        return;
    size_t rows = length(j, b), first = first_key_tile(a, qt);
    struct tile t = {j->batch->begin[b], qt * TILE, smaller(TILE, rows - qt * TILE), 0, 0};
    float m[TILE], l[TILE];
    for (size_t i = 0; i < TILE; i++)
        m[i] = -INFINITY, l[i] = 0;
    size_t row = (t.base + t.t0) * a->H + h; /* of [rows,H], then every H-th */
    float *o = j->o + row * a->V;
    for (size_t kt = first; kt <= qt; kt++) {
        t.j0 = kt * TILE;
        t.nk = smaller(TILE, rows - t.j0);
        fwd_tile(j, &t, h, kt == first, m, l, o);
    }
    for (size_t i = 0; i < t.nq; i++) {
        j->ctx->k->scale(1 / l[i], o + i * a->H * a->V, a->V);
        j->lse[row + i * a->H] = m[i] + logf(l[i]);
        if (j->max_out)
            j->max_out[row + i * a->H] = m[i];
    }
}

static void check(const struct tg_attn *a, const struct tg_batch *batch)
{
    assert(a->G > 0 && a->H % a->G == 0);
    for (size_t b = 0; b < batch->count; b++)
        assert(tg_batch_past(batch, b) == 0);
    (void)a, (void)batch;
}

void tg_attn_fwd(const struct tg_ctx *ctx, const struct tg_attn *a, const struct tg_batch *batch,
                 const float *q, const float *k, const float *v, float *o, float *lse,
                 float *max_out)
{
    check(a, batch);
    struct job j = {.ctx = ctx, .a = a, .batch = batch, .q = q, .k = k, .v = v};
    j.o = o, j.lse = lse, j.max_out = max_out;
    if (batch->count)
        tg_parallel(ctx->threads, first_id(&j, batch->count) * a->H, fwd_item, &j);
}

/* P into s, dS into ds (each [nq, TILE]), zero where a row may not see. */
static void bwd_scores(const struct job *j, const struct tile *t, size_t h, float *s, float *ds)
{
    const struct tg_attn *a = j->a;
    float slope[TILE];
    size_t g = h / (a->H / a->G), row0 = (t->base + t->t0) * a->H + h;
    scores(j, t, h, s);
    tg_scores(j->ctx->k, t->nq, t->nk, a->V, 1, j->dy + row0 * a->V, a->H * a->V,
              j->v + ((t->base + t->j0) * a->G + g) * a->V, a->G * a->V, ds, TILE);
    for (size_t i = 0; i < t->nq; i++) {
        size_t low, high;
        float *p = s + i * TILE, *d = ds + i * TILE;
        float delta = j->delta[row0 + i * a->H];
        visible(a, t, i, &low, &high);
        keep_only(p, low, high, t->nk);
        keep_only(d, low, high, t->nk);
        for (size_t l = low; a->cap > 0 && l < high; l++)
            slope[l] = 1 - p[l] / a->cap * (p[l] / a->cap);
        j->ctx->k->exp_shift_sum(p + low, j->total[row0 + i * a->H], high - low);
        for (size_t l = low; l < high; l++)
            d[l] = a->scale * p[l] * (d[l] - delta);
        for (size_t l = low; a->cap > 0 && l < high; l++)
            d[l] *= slope[l];
    }
}

static void add_dq(const struct job *j, const struct tile *t, size_t h, const float *ds)
{
    const struct tg_attn *a = j->a;
    size_t g = h / (a->H / a->G);
    tg_gemm1(false, false, t->nq, a->K, t->nk, 1, ds, TILE,
             j->k + ((t->base + t->j0) * a->G + g) * a->K, a->G * a->K, 1,
             j->dq + ((t->base + t->t0) * a->H + h) * a->K, a->H * a->K);
}

static void add_dk_dv(const struct job *j, const struct tile *t, size_t h, const float *p,
                      const float *ds)
{
    const struct tg_attn *a = j->a;
    size_t row = (t->base + t->t0) * a->H + h;
    size_t key = (t->base + t->j0) * a->G + h / (a->H / a->G);
    tg_gemm1(true, false, t->nk, a->V, t->nq, 1, p, TILE, j->dy + row * a->V, a->H * a->V, 1,
             j->dv + key * a->V, a->G * a->V);
    tg_gemm1(true, false, t->nk, a->K, t->nq, 1, ds, TILE, j->q + row * a->K, a->H * a->K, 1,
             j->dk + key * a->K, a->G * a->K);
}

/* All that one key tile of kv head g takes part in; dQ only if wanted. */
static void bwd_key_tile(const struct job *j, size_t b, size_t g, size_t kt, bool with_dq)
{
    const struct tg_attn *a = j->a;
    size_t rows = length(j, b), group = a->H / a->G;
    struct tile t = {j->batch->begin[b], 0, 0, kt * TILE, smaller(TILE, rows - kt * TILE)};
    float p[TILE * TILE], ds[TILE * TILE];
    for (size_t h = g * group; h < (g + 1) * group; h++)
        for (size_t qt = kt; qt < end_query_tile(a, kt, rows); qt++) {
            t.t0 = qt * TILE;
            t.nq = smaller(TILE, rows - t.t0);
            bwd_scores(j, &t, h, p, ds);
            add_dk_dv(j, &t, h, p, ds);
            if (with_dq)
                add_dq(j, &t, h, ds);
        }
}

static void bwd_sequence_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    size_t b = item / j->a->G;
    (void)worker;
    for (size_t kt = 0; kt < tiles(length(j, b)); kt++)
        bwd_key_tile(j, b, item % j->a->G, kt, true);
}

static void bwd_key_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    size_t b, kt;
    (void)worker;
    if (find_tile(j, item / j->a->G, &b, &kt))
        bwd_key_tile(j, b, item % j->a->G, kt, false);
}

static void bwd_query_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_attn *a = j->a;
    size_t b, qt, h = item % a->H;
    (void)worker;
    if (!find_tile(j, item / a->H, &b, &qt))
        return;
    size_t rows = length(j, b);
    struct tile t = {j->batch->begin[b], qt * TILE, smaller(TILE, rows - qt * TILE), 0, 0};
    float p[TILE * TILE], ds[TILE * TILE];
    for (size_t kt = first_key_tile(a, qt); kt <= qt; kt++) {
        t.j0 = kt * TILE;
        t.nk = smaller(TILE, rows - t.j0);
        bwd_scores(j, &t, h, p, ds);
        add_dq(j, &t, h, ds);
    }
}

/* Would (sequence, kv head) items keep the threads busy? Two passes cost about 1.45 of one (7
 * products for 5, and the exponentials twice). */
static bool one_pass(const struct job *j)
{
    size_t items = 0;
    double total = 0, largest = 0, threads = j->ctx->threads;
    for (size_t b = 0; b < j->batch->count; b++) {
        size_t rows = length(j, b), w = j->a->window;
        double cost = (double)rows * (double)(w ? smaller(w, rows) : rows);
        items += rows ? j->a->G : 0;
        total += cost * (double)j->a->G;
        largest = cost > largest ? cost : largest;
    }
    return ceil((double)items / threads) * largest <= 1.45 * total / threads;
}

void tg_attn_bwd(const struct tg_ctx *ctx, const struct tg_attn *a, const struct tg_batch *batch,
                 const float *q, const float *k, const float *v, const float *dy,
                 const float *total, const float *delta, float *dq, float *dk, float *dv)
{
    check(a, batch);
    struct job j = {.ctx = ctx, .a = a, .batch = batch, .q = q, .k = k, .v = v};
    j.dy = dy, j.total = total, j.delta = delta;
    j.dq = dq, j.dk = dk, j.dv = dv;
    if (batch->count == 0)
        return;
    if (ctx->threads == 1 || one_pass(&j)) {
        tg_parallel(ctx->threads, batch->count * a->G, bwd_sequence_item, &j);
    } else {
        size_t ids = first_id(&j, batch->count);
        tg_parallel(ctx->threads, ids * a->G, bwd_key_item, &j);
        tg_parallel(ctx->threads, ids * a->H, bwd_query_item, &j);
    }
}

float tg_attn_row(const struct tg_kernels *kern, const float *q, const float *k, size_t k_stride,
                  const float *v, size_t v_stride, size_t count, size_t K, size_t V, float scale,
                  float cap, float *scores_out, float *o, float *max_out)
{
    memset(o, 0, V * sizeof *o);
    float m = -INFINITY, sum = 0;
    if (count) {
        kern->dots(q, k, k_stride, count, K, scores_out);
        kern->scale(scale, scores_out, count);
        if (cap > 0)
            kern->softcap_fwd(cap, scores_out, count);
        m = kern->max(scores_out, count);
        sum = kern->exp_shift_sum(scores_out, m, count);
        kern->weighted_sum(scores_out, v, v_stride, count, V, o);
        kern->scale(1 / sum, o, V);
    }
    if (max_out)
        *max_out = m;
    return m + logf(sum);
}
