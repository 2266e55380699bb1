/* The joint denominator; equations in joint.h. Backward, total = log Z, delta = dy.y:
 *
 *   window: tg_attn_bwd with (total, delta);   w = e^{c - total}
 *   dnum = w dy,  dden = -w delta,  dc = w (dy.num - delta den)
 *   dsink_m = doff_m = -e^{sink_m + off - total} delta
 *   dlogit_h = sum_t dc,  or where off = max - log sigmoid(logit):
 *   dlogit_h = -sigmoid(-logit) sum_t (dc + sum_m doff_m) */
#include "linearize/mixers/joint.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"

struct kept {
    float *total, *max; /* [rows,H] */
    float *num, *den;   /* [rows,H,V], [rows,H] */
    float *far;
};

static size_t kept_lay(const struct tg_joint *j, const struct tg_batch *b, bool keep, float *base,
                       struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), H = j->attn.H;
    memset(k, 0, sizeof *k);
    k->total = tg_carve(&c, rows * H);
    if (j->from_max)
        k->max = tg_carve(&c, rows * H);
    if (j->has_far) {
        k->num = tg_carve(&c, rows * H * j->attn.V);
        k->den = tg_carve(&c, rows * H);
        k->far = keep ? tg_carve(&c, tg_far_saved(&j->far, b)) : NULL;
    }
    return c.used;
}

size_t tg_joint_saved(const struct tg_joint *j, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(j, b, true, NULL, &k);
}

/* Exponents of a row's parts */
static float row_offset(const struct tg_joint *j, size_t h, float max)
{
    return j->from_max ? max - tg_log_sigmoid(j->logit[h]) : 0;
}

static float far_exponent(const struct tg_joint *j, size_t h, float off)
{
    return j->from_max ? off : j->logit[h];
}

/* e^{x}, x a far exponent less the total: at most 1/den, and finite for a den that is barely there
 */
static float far_weight(float x)
{
    return expf(x < 85 ? x : 85);
}

float tg_joint_row(const struct tg_joint *j, size_t h, float lse, float max, const float *num,
                   float den, float *y)
{
    float off = row_offset(j, h, max), c = num ? far_exponent(j, h, off) : 0, top = lse;
    const float *sink = j->sink ? j->sink + h * j->sinks : NULL;
    if (num && den > 0)
        top = fmaxf(top, c + logf(den));
    for (size_t m = 0; m < j->sinks; m++)
        top = fmaxf(top, sink[m] + off);
    float sum = expf(lse - top);
    if (num && den > 0)
        sum += expf(c + logf(den) - top);
    for (size_t m = 0; m < j->sinks; m++)
        sum += expf(sink[m] + off - top);
    float total = top + logf(sum), near = expf(lse - total), far = num ? far_weight(c - total) : 0;
    for (size_t i = 0; i < j->attn.V; i++)
        y[i] = near * y[i] + (num ? far * num[i] : 0);
    return total;
}

struct job {
    const struct tg_joint *j;
    const struct tg_ctx *ctx;
    size_t rows;
    struct kept kept;
    float *y;
    const float *out, *dy;
    float *delta, *dnum, *dden;
    double *parts; /* [blocks][H, 1 + sinks]: logit, sinks */
};

static void fwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct job *w = ud;
    const struct kept *k = &w->kept;
    size_t H = w->j->attn.H, V = w->j->attn.V;
    (void)worker;
    for (size_t i = from * H; i < to * H; i++) {
        float den = k->num ? k->den[i] : 0;
        const float *num = k->num && den > 0 ? k->num + i * V : NULL;
        k->total[i] =
            tg_joint_row(w->j, i % H, k->total[i], k->max ? k->max[i] : 0, num, den, w->y + i * V);
    }
}

/* Every block a sequence of its own, for the softmax inside it */
struct blocks {
    size_t *begin;
    struct tg_batch b;
};

static size_t blocks_in(const struct tg_batch *b, size_t block)
{
    size_t count = 0;
    for (size_t i = 0; i < b->count; i++)
        count += (b->begin[i + 1] - b->begin[i] + block - 1) / block;
    return count;
}

static const struct tg_batch *near_batch(const struct tg_joint *j, const struct tg_batch *b,
                                         struct blocks *k)
{
    if (!j->block)
        return b;
    k->b = (struct tg_batch){0, k->begin, NULL};
    for (size_t i = 0; i < b->count; i++)
        for (size_t t = b->begin[i]; t < b->begin[i + 1]; t += j->block)
            k->begin[k->b.count++] = t;
    k->begin[k->b.count] = tg_batch_rows(b);
    return &k->b;
}

struct scratch {
    struct blocks blocks;
    float *delta, *dnum, *dden;
    double *parts;
    float *far;
    float *kept;
};

static size_t work_lay(const struct tg_joint *j, const struct tg_batch *b, int threads,
                       bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    size_t rows = tg_batch_rows(b), H = j->attn.H, V = j->attn.V;
    memset(s, 0, sizeof *s);
    if (j->block)
        s->blocks.begin = (size_t *)(void *)tg_carve(&c, (blocks_in(b, j->block) + 1) *
                                                             (sizeof(size_t) / sizeof(float)));
    if (backward) {
        s->delta = tg_carve(&c, rows * H);
        s->parts = (double *)(void *)tg_carve(&c, 2 * tg_blocks_of_rows(rows) * H * (1 + j->sinks));
        s->dnum = tg_carve(&c, j->has_far ? rows * H * V : 0);
        s->dden = tg_carve(&c, j->has_far ? rows * H : 0);
    } else {
        s->kept = tg_carve(&c, kept_lay(j, b, false, NULL, &k));
    }
    if (j->has_far)
        s->far = tg_carve(&c, tg_far_work(&j->far, b, threads, backward));
    return c.used;
}

size_t tg_joint_work(const struct tg_joint *j, const struct tg_batch *b, int threads, bool backward)
{
    struct scratch s;
    return work_lay(j, b, threads, backward, NULL, &s);
}

void tg_joint_fwd(const struct tg_ctx *ctx, const struct tg_joint *j, const struct tg_batch *b,
                  const float *q, const float *k, const float *v, const float *g, float *y,
                  float *const *states, float *saved, float *work)
{
    struct scratch s;
    work_lay(j, b, ctx->threads, false, work, &s);
    struct job w = {.j = j, .ctx = ctx, .rows = tg_batch_rows(b), .y = y};
    kept_lay(j, b, saved != NULL, saved ? saved : s.kept, &w.kept);
    tg_attn_fwd(ctx, &j->attn, near_batch(j, b, &s.blocks), q, k, v, y, w.kept.total, w.kept.max);
    if (j->has_far)
        tg_far_fwd(ctx, &j->far, b, q, k, v, g, w.kept.num, w.kept.den, states, w.kept.far, s.far);
    if (j->has_far || j->sinks)
        tg_parallel_rows(ctx->threads, w.rows, fwd_rows, &w);
}

/* delta, and with a far branch or sinks their gradients, of one block of rows */
static void bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct job *w = ud;
    const struct tg_joint *j = w->j;
    const struct kept *k = &w->kept;
    size_t H = j->attn.H, V = j->attn.V, each = 1 + j->sinks;
    double *parts = w->parts + from / TG_BLOCK_ROWS * H * each;
    (void)worker;
    memset(parts, 0, H * each * sizeof *parts);
    for (size_t i = from * H; i < to * H; i++) {
        size_t h = i % H;
        const float *dy = w->dy + i * V;
        float delta = w->ctx->k->dot(dy, w->out + i * V, V), total = k->total[i];
        float off = row_offset(j, h, k->max ? k->max[i] : 0);
        double *part = parts + h * each;
        w->delta[i] = delta;
        if (k->num) {
            float x = k->den[i] > 0 ? far_weight(far_exponent(j, h, off) - total) : 0;
            w->dden[i] = -x * delta;
            for (size_t c = 0; c < V; c++)
                w->dnum[i * V + c] = x * dy[c];
            part[0] += (double)x * ((double)w->ctx->k->dot(dy, k->num + i * V, V) -
                                    (double)delta * (double)k->den[i]);
        }
        for (size_t m = 0; m < j->sinks; m++) {
            double d = -(double)expf(j->sink[h * j->sinks + m] + off - total) * (double)delta;
            part[1 + m] += d;
            part[0] += j->from_max ? d : 0;
        }
    }
}

static void add_parts(const struct job *w, const struct tg_joint_grads *d)
{
    const struct tg_joint *j = w->j;
    size_t H = j->attn.H, each = 1 + j->sinks;
    for (size_t i = 0; i < H * each; i++) {
        size_t h = i / each, m = i % each;
        double sum = 0;
        for (size_t block = 0; block < tg_blocks_of_rows(w->rows); block++)
            sum += w->parts[block * H * each + i];
        if (m && d->sink)
            d->sink[h * j->sinks + m - 1] += (float)sum;
        else if (!m && d->logit && j->logit)
            d->logit[h] +=
                (float)(j->from_max ? -sum * (double)expf(tg_log_sigmoid(-j->logit[h])) : sum);
    }
}

void tg_joint_bwd(const struct tg_ctx *ctx, const struct tg_joint *j, const struct tg_batch *b,
                  const float *q, const float *k, const float *v, const float *g, const float *y,
                  const float *saved, const float *dy, float *dq, float *dk, float *dv, float *dg,
                  const struct tg_joint_grads *d, float *work)
{
    struct scratch s;
    work_lay(j, b, ctx->threads, true, work, &s);
    struct job w = {.j = j,
                    .ctx = ctx,
                    .rows = tg_batch_rows(b),
                    .out = y,
                    .dy = dy,
                    .delta = s.delta,
                    .dnum = s.dnum,
                    .dden = s.dden,
                    .parts = s.parts};
    kept_lay(j, b, true, (float *)(uintptr_t)saved, &w.kept);
    tg_parallel_rows(ctx->threads, w.rows, bwd_rows, &w);
    add_parts(&w, d);
    tg_attn_bwd(ctx, &j->attn, near_batch(j, b, &s.blocks), q, k, v, dy, w.kept.total, s.delta, dq,
                dk, dv);
    if (j->has_far)
        tg_far_bwd(ctx, &j->far, b, q, k, v, g, w.kept.far, s.dnum, s.dden, dq, dk, dv, dg, d->wq,
                   d->wk, s.far);
}
