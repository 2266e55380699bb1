/* Softmax attention whose keys and values come from one latent c of each token, R = kv_rank floats:
 *
 *   c_t = A x_t,   k_t = rot(norm_k(Bk c_t + bk)),   v_t = Bv c_t + bv
 *   y_t = sum_{j <= t} e^{s_tj} v_j / (sum_{j <= t} e^{s_tj} + sum_m e^{sink_m}),  s = scale q.k
 *
 * with limits, norms, rotary, sinks and output gate as in the softmax layer. Decode keeps the
 * latents alone and makes the keys of a block of tokens anew at every step: the rotary stands
 * between Bk and the query, so Bk cannot move to the other side as in mla.c, whose rotated key is
 * stored apart. Values are made too where many tokens at once read them; for few, Bv moves behind
 * the sum, whose weights add up to 1:   sum_j p_j v_j = Bv (sum_j p_j c_j) + bv
 *
 * Source: the joint compression of DeepSeek-V2 (arXiv 2405.04434), without its decoupled rotary
 * key, so that a trained layer can be taken over; its factors from a truncated singular value
 * decomposition, as in TransMLA (arXiv 2502.07864) and MHA2MLA (arXiv 2502.14837):
 *
 *   [Wk; Wv] ~ sum_{i < R} u_i s_i v_i^T,   row i of A = sqrt(s_i) v_i,   column i of B = sqrt(s_i)
 * u_i */
#include "linearize/mixers/latent.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/lapack.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

enum { BLOCK = 256 }; /* tokens whose keys and values decode makes at a time */

static struct tg_kv_input from_latent(const struct tg_mixer *m, const float *c)
{
    return (struct tg_kv_input){
        .x = c, .n = m->spec->kv_rank, .k = "k_up.weight", .v = "v_up.weight"};
}

struct kept {
    float *c, *q, *k, *v, *y; /* [rows,R], [rows,H,K], [rows,G,K], [rows,G,V], [rows,H,V] */
    float *gates, *proj, *joint;
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       bool keep, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    const size_t rows = tg_batch_rows(b);
    memset(k, 0, sizeof *k);
    k->c = tg_carve(&c, rows * m->spec->kv_rank);
    k->q = tg_carve(&c, rows * j->attn.H * j->attn.K);
    k->k = tg_carve(&c, rows * j->attn.G * j->attn.K);
    k->v = tg_carve(&c, rows * j->attn.G * j->attn.V);
    k->y = tg_carve(&c, rows * j->attn.H * j->attn.V);
    k->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    if (keep) {
        k->proj = tg_carve(&c, tg_proj_saved(m, b));
        k->joint = tg_carve(&c, tg_joint_saved(j, b));
    }
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct kept k;
    return kept_lay(m, &j, b, true, NULL, &k);
}

struct scratch {
    float *kept, *dc, *dq, *dk, *dv, *dy, *proj, *joint;
};

static size_t work_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       int threads, bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    const size_t rows = tg_batch_rows(b);
    memset(s, 0, sizeof *s);
    s->joint = tg_carve(&c, tg_joint_work(j, b, threads, backward));
    if (!backward) {
        s->kept = tg_carve(&c, kept_lay(m, j, b, false, NULL, &k));
        return c.used;
    }
    s->dc = tg_carve(&c, rows * m->spec->kv_rank);
    s->dq = tg_carve(&c, rows * j->attn.H * j->attn.K);
    s->dk = tg_carve(&c, rows * j->attn.G * j->attn.K);
    s->dv = tg_carve(&c, rows * j->attn.G * j->attn.V);
    s->dy = tg_carve(&c, rows * j->attn.H * j->attn.V);
    s->proj = tg_carve(&c, tg_proj_work(m, b));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    return work_lay(m, &j, b, threads, backward, NULL, &s);
}

static void latents(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const float *x, float *c)
{
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "latent.weight"), NULL, c, tg_batch_rows(b),
                  m->spec->kv_rank, m->width);
}

static void forward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const float *x, float *y, float *saved, float *work)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    struct kept k;
    work_lay(m, &j, b, ctx->threads, false, work, &s);
    kept_lay(m, &j, b, saved != NULL, saved ? saved : s.kept, &k);
    const struct tg_kv_input from = from_latent(m, k.c);
    latents(ctx, m, b, x, k.c);
    tg_proj_q_fwd(ctx, m, b, x, k.q, k.proj);
    tg_proj_kv_fwd(ctx, m, b, &from, k.k, k.v, k.proj);
    tg_proj_rotate(ctx, m, b, k.q, k.k, 1);
    tg_joint_fwd(ctx, &j, b, k.q, k.k, k.v, NULL, k.y, NULL, k.joint, s.joint);
    tg_proj_out_fwd(ctx, m, b, x, k.y, y, k.gates);
}

static void backward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *dy, const float *saved, float *dx,
                     const struct tg_mixer_grads *d, float *work)
{
    const struct tg_joint j = tg_mixer_joint(m);
    const struct tg_joint_grads grads = {.sink = tg_mixer_grad(m, d, "sink")};
    const size_t rows = tg_batch_rows(b);
    struct scratch s;
    struct kept k;
    work_lay(m, &j, b, ctx->threads, true, work, &s);
    kept_lay(m, &j, b, true, (float *)(uintptr_t)saved, &k);
    const struct tg_kv_input from = from_latent(m, k.c);
    tg_proj_out_bwd(ctx, m, b, k.y, dy, s.dy, d, k.gates);
    memset(s.dq, 0, rows * j.attn.H * j.attn.K * sizeof *s.dq);
    memset(s.dk, 0, rows * j.attn.G * j.attn.K * sizeof *s.dk);
    memset(s.dv, 0, rows * j.attn.G * j.attn.V * sizeof *s.dv);
    tg_joint_bwd(ctx, &j, b, k.q, k.k, k.v, NULL, k.y, k.joint, s.dy, s.dq, s.dk, s.dv, NULL,
                 &grads, s.joint);
    tg_proj_rotate(ctx, m, b, s.dq, s.dk, -1);
    tg_proj_from_bwd(ctx, m, b, x, &from, k.proj, s.dq, s.dk, s.dv, dx, s.dc, d, s.proj);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "latent.weight"), s.dc, dx, 1,
                  tg_mixer_grad(m, d, "latent.weight"), NULL, rows, m->spec->kv_rank, m->width);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
}

/* State: the latents [capacity,R] */
static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    return capacity * m->spec->kv_rank;
}

struct step_scratch {
    float *c, *q, *y, *lse, *gates; /* of the new tokens; lse [rows,H] */
    float *k, *v;                   /* [BLOCK,G,K], [BLOCK,G,V] */
    float *z;                       /* [n,H,R] sums of latents, of a sequence with few new tokens */
    float *worker;                  /* [threads][scores BLOCK, sum max(V,R)] */
    size_t per_worker;
};

/* So many new tokens of a sequence at most are few: they need less arithmetic by sums of latents */
static size_t few(const struct tg_mixer *m, const struct tg_joint *j)
{
    return m->spec->qkv_clip > 0 ? 0 : j->attn.G * j->attn.V / j->attn.H;
}

static size_t step_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       size_t capacity, int threads, float *base, struct step_scratch *s)
{
    struct tg_carve c = {base, 0};
    const size_t rows = tg_batch_rows(b), block = capacity < BLOCK ? capacity : BLOCK;
    const size_t R = m->spec->kv_rank, most = few(m, j), sum = R > j->attn.V ? R : j->attn.V;
    s->c = tg_carve(&c, rows * R);
    s->q = tg_carve(&c, rows * j->attn.H * j->attn.K);
    s->y = tg_carve(&c, rows * j->attn.H * j->attn.V);
    s->lse = tg_carve(&c, rows * j->attn.H);
    s->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    s->k = tg_carve(&c, block * j->attn.G * j->attn.K);
    s->v = tg_carve(&c, block * j->attn.G * j->attn.V);
    s->z = tg_carve(&c, (rows < most ? rows : most) * j->attn.H * R);
    s->per_worker = (block + sum + 15) & ~(size_t)15;
    s->worker = tg_carve(&c, (size_t)threads * s->per_worker);
    return c.used;
}

static size_t step_work_floats(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                               int threads)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct step_scratch s;
    return step_lay(m, &j, b, capacity, threads, NULL, &s);
}

/* The new tokens of one sequence against one block of its tokens */
struct block_job {
    const struct tg_kernels *kern;
    const struct tg_attn *a;
    const struct step_scratch *s;
    const float *q, *k; /* [n,H,K], [count,G,K] */
    /* What is summed: values, or latents that all heads share; of key i and group g at
     * v[i * stride + g * apart], n_v floats */
    const float *v;
    size_t stride, apart, n_v;
    float *sum, *lse;          /* [n,H,n_v], [n,H] */
    size_t past, first, count; /* tokens before the new ones; of the block */
};

/* One query head of one new token: its sum so far takes in the block's keys. */
static void block_item(void *ud, size_t item, int worker)
{
    const struct block_job *w = ud;
    const struct tg_attn *a = w->a;
    const size_t t = item / a->H, group = item % a->H / (a->H / a->G), seen = w->past + t + 1;
    if (seen <= w->first)
        return;
    float *scores = w->s->worker + (size_t)worker * w->s->per_worker, *o = scores + w->count;
    float *sum = w->sum + item * w->n_v, *lse = w->lse + item;
    const size_t count = seen - w->first < w->count ? seen - w->first : w->count;
    const float own = tg_attn_row(w->kern, w->q + item * a->K, w->k + group * a->K, a->G * a->K,
                                  w->v + group * w->apart, w->stride, count, a->K, w->n_v, a->scale,
                                  a->cap, scores, o, NULL);
    const float most = fmaxf(*lse, own), both = most + logf(expf(*lse - most) + expf(own - most));
    w->kern->scale(expf(*lse - both), sum, w->n_v);
    w->kern->axpy(expf(own - both), o, sum, w->n_v);
    *lse = both;
}

/* Sums of latents [n,H,R] -> y [n,H,V] */
static void values_of_sums(const struct tg_kernels *kern, const struct tg_mixer *m,
                           const struct tg_attn *a, const float *z, size_t n, float *y)
{
    const size_t R = m->spec->kv_rank;
    const float *up = tg_mixer_param(m, "v_up.weight"), *bias = tg_mixer_param(m, "v.bias");
    for (size_t i = 0; i < n * a->H; i++) {
        const size_t group = i % a->H / (a->H / a->G);
        kern->dots(z + i * R, up + group * a->V * R, R, a->V, R, y + i * a->V);
        if (bias)
            kern->axpy(1, bias + group * a->V, y + i * a->V, a->V);
    }
}

/* New tokens [row, row + n) of the sequence whose latents are `state`: attention block by block */
static void attend(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_joint *j,
                   const struct step_scratch *s, const float *state, size_t row, size_t past,
                   size_t n)
{
    const struct tg_attn *a = &j->attn;
    const size_t H = a->H, V = a->V, R = m->spec->kv_rank;
    const bool by_sums = n <= few(m, j);
    float *y = s->y + row * H * V, *lse = s->lse + row * H;
    struct block_job w = {.kern = ctx->k,
                          .a = a,
                          .s = s,
                          .q = s->q + row * H * a->K,
                          .k = s->k,
                          .v = s->v,
                          .stride = by_sums ? R : a->G * V,
                          .apart = by_sums ? 0 : V,
                          .n_v = by_sums ? R : V,
                          .sum = by_sums ? s->z : y,
                          .lse = lse,
                          .past = past};
    memset(w.sum, 0, n * H * w.n_v * sizeof *y);
    for (size_t i = 0; i < n * H; i++)
        lse[i] = -INFINITY;
    for (w.first = 0; n && w.first < past + n; w.first += BLOCK) {
        const size_t left = past + n - w.first;
        w.count = left < BLOCK ? left : BLOCK;
        const size_t begin[] = {0, w.count};
        const struct tg_batch b = {.count = 1, .begin = begin, .past = &w.first};
        const struct tg_kv_input from = from_latent(m, state + w.first * R);
        tg_proj_kv_fwd(ctx, m, &b, &from, s->k, by_sums ? NULL : s->v, NULL);
        tg_proj_rotate(ctx, m, &b, NULL, s->k, 1);
        if (by_sums)
            w.v = from.x;
        tg_parallel(ctx->threads, n * H, block_item, &w);
    }
    if (by_sums)
        values_of_sums(ctx->k, m, a, s->z, n, y);
    for (size_t i = 0; j->sinks && i < n * H; i++)
        tg_joint_row(j, i % H, lse[i], 0, NULL, 0, y + i * V);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    const struct tg_joint j = tg_mixer_joint(m);
    const size_t R = m->spec->kv_rank;
    struct step_scratch s;
    step_lay(m, &j, b, capacity, ctx->threads, work, &s);
    latents(ctx, m, b, x, s.c);
    tg_proj_q_fwd(ctx, m, b, x, s.q, NULL);
    tg_proj_rotate(ctx, m, b, s.q, NULL, 1);
    for (size_t i = 0; i < b->count; i++) {
        const size_t row = b->begin[i], n = b->begin[i + 1] - row, past = tg_batch_past(b, i);
        memcpy(states[i] + past * R, s.c + row * R, n * R * sizeof *s.c);
        attend(ctx, m, &j, &s, states[i], row, past, n);
    }
    tg_proj_out_fwd(ctx, m, b, x, s.y, y, s.gates);
}

/* [Wk; Wv] of a softmax layer in double, [G (K + V), D]; NULL without memory. To be freed. */
static double *stacked(const struct tg_mixer *from, size_t *rows)
{
    const struct tg_layer_spec *s = from->spec;
    const size_t k = s->kv_heads * s->head_dim * from->width,
                 v = s->kv_heads * tg_value_dim(s) * from->width;
    const float *wk = tg_mixer_param(from, "k.weight"), *wv = tg_mixer_param(from, "v.weight");
    double *w = tg_alloc_array(k + v, sizeof *w);
    *rows = (k + v) / from->width;
    for (size_t i = 0; w && i < k + v; i++)
        w[i] = (double)(i < k ? wk[i] : wv[i - k]);
    return w;
}

int tg_latent_rank(const struct tg_mixer *from, double error, size_t *rank, struct tg_err *err)
{
    size_t rows;
    double *w = stacked(from, &rows), all = 0, lost = 0;
    const size_t least = rows < from->width ? rows : from->width;
    double *s = tg_alloc_array(least, sizeof *s);
    int status = w && s ? tg_lapack_svd(rows, from->width, w, s, NULL, err)
                        : tg_fail(err, TG_ERR_NOMEM, "no memory for weights of %zu by %zu", rows,
                                  from->width);
    for (size_t i = 0; i < least && status == TG_OK; i++)
        all += s[i] * s[i];
    for (*rank = least; *rank > 1 && status == TG_OK; --*rank) {
        lost += s[*rank - 1] * s[*rank - 1];
        if (lost > error * error * all)
            break;
    }
    tg_free(w);
    tg_free(s);
    return status;
}

/* Rows sqrt(s_i) v_i; of a latent that is wider than the weights' rank, the rest are 0. */
static int first_latent(const struct tg_mixer *from, size_t R, float *data)
{
    size_t rows;
    const size_t D = from->width;
    double *w = stacked(from, &rows);
    const size_t least = rows < D ? rows : D;
    double *s = tg_alloc_array(least, sizeof *s), *vt = tg_alloc_array(least * D, sizeof *vt);
    int status = w && s && vt ? tg_lapack_svd(rows, D, w, s, vt, NULL) : TG_ERR_NOMEM;
    for (size_t i = 0; i < R * D && status == TG_OK; i++)
        data[i] = i / D < least ? (float)(sqrt(s[i / D]) * vt[i]) : 0;
    tg_free(w);
    tg_free(s);
    tg_free(vt);
    return status;
}

/* up [n,R] from W [n,D] and the rows a_i of A, which are orthogonal: column i is W a_i / |a_i|^2,
 * since |a_i|^2 = s_i. */
static void first_up(const float *w, const float *a, size_t n, size_t R, size_t D, float *up)
{
    for (size_t i = 0; i < R; i++) {
        double size = 0;
        for (size_t d = 0; d < D; d++)
            size += (double)a[i * D + d] * (double)a[i * D + d];
        for (size_t r = 0; r < n; r++) {
            double sum = 0;
            for (size_t d = 0; d < D && size > 0; d++)
                sum += (double)w[r * D + d] * (double)a[i * D + d];
            up[r * R + i] = size > 0 ? (float)(sum / size) : 0;
        }
    }
}

static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    const char *name = m->spec->mixer->params[rule].name;
    const size_t R = m->spec->kv_rank;
    if (strcmp(name, "latent.weight") == 0) {
        if (first_latent(o->from, R, data) != TG_OK)
            tg_mixer_fill(data, count, NAN);
    } else if (strcmp(name, "sink") == 0) {
        tg_mixer_fill(data, count, -4);
    } else {
        first_up(tg_mixer_param(o->from, name[0] == 'k' ? "k.weight" : "v.weight"),
                 tg_mixer_param(m, "latent.weight"), count / R, R, m->width, data);
    }
}

const struct tg_mixer_ops tg_mixer_latent = {
    .name = "latent",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = forward,
    .backward = backward,
    .state_floats = state_floats,
    .step_work_floats = step_work_floats,
    .step = step,
    .inherit = inherit,
};
