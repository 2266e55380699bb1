/* Latent attention (DeepSeek-V2, arXiv 2405.04434; layers of DeepSeek-V3 and Kimi Linear): keys and
 * values come from one small latent c of each token and a rotated key r that all heads share.
 *
 *   q_h = Wq_h x, or Wqb_h norm(Wqa x);      [c | r] = Wa x,  c' = norm(c);      [k_h | v_h] = Wb_h
 * c' s_tj = scale (q_h^nope . k_hj + rot(q_h^rope) . rot(r_j)),   y_h = sum_j softmax(s_tj) v_hj
 *
 * P = rotary_dim are the last of K; R = kv_rank. Decode keeps [c' | rot(r)] alone, R + P floats a
 * token for all heads, and moves Wb to the other side of the products:
 *
 *   q_h^nope . k_hj = (Wk_h^T q_h^nope) . c'_j,    y_h = Wv_h (sum_j p_j c'_j) */
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/attn.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/qk_norm.h"
#include "linearize/mixers/rows.h"

struct sizes {
    size_t rows, D, H, K, V, Q, R, P, N; /* N = K - P; Q = q_rank */
};

static struct sizes sizes_of(const struct tg_mixer *m, const struct tg_batch *b)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct sizes){.rows = tg_batch_rows(b),
                          .D = m->width,
                          .H = s->heads,
                          .K = s->head_dim,
                          .V = tg_value_dim(s),
                          .Q = s->q_rank,
                          .R = s->kv_rank,
                          .P = s->rotary_dim,
                          .N = s->head_dim - s->rotary_dim};
}

static struct tg_qk_norm_job latent_norm(const struct tg_ctx *ctx, const struct tg_mixer *m,
                                         size_t rows, size_t n, const char *weight)
{
    return (struct tg_qk_norm_job){
        .ctx = ctx,
        .rows = rows,
        .vectors = 1,
        .n = n,
        .norm = {.eps = (float)m->spec->latent_eps, .w = tg_mixer_param(m, weight)},
        .weights = n};
}

/* Kept from forward for backward */
struct kept {
    float *qa_raw, *qa, *qa_stats; /* [rows,Q] before and after the norm */
    float *c_raw, *c, *c_stats;    /* [rows,R] likewise */
    float *q, *k, *v;              /* [rows,H,K] rotated, [rows,H,K], [rows,H,V] */
    float *y, *lse;
};

static size_t kept_lay(const struct sizes *z, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    k->qa_raw = tg_carve(&c, z->rows * z->Q);
    k->qa = tg_carve(&c, z->rows * z->Q);
    k->qa_stats = tg_carve(&c, 2 * z->rows);
    k->c_raw = tg_carve(&c, z->rows * z->R);
    k->c = tg_carve(&c, z->rows * z->R);
    k->c_stats = tg_carve(&c, 2 * z->rows);
    k->q = tg_carve(&c, z->rows * z->H * z->K);
    k->k = tg_carve(&c, z->rows * z->H * z->K);
    k->v = tg_carve(&c, z->rows * z->H * z->V);
    k->y = tg_carve(&c, z->rows * z->H * z->V);
    k->lse = tg_carve(&c, z->rows * z->H);
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct sizes z = sizes_of(m, b);
    struct kept k;
    return kept_lay(&z, NULL, &k);
}

struct scratch {
    float *kept, *low, *up;                  /* low [rows,R+P], up [rows,H,N+V] */
    float *dq, *dk, *dv, *dy, *delta, *dlow; /* backward; dlow [rows, max(Q,R)] */
    float *norm;
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t work_lay(const struct tg_mixer *m, const struct sizes *z, bool backward, float *base,
                       struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    memset(s, 0, sizeof *s);
    s->low = tg_carve(&c, z->rows * (z->R + z->P));
    s->up = tg_carve(&c, z->rows * z->H * (z->N + z->V));
    if (!backward) {
        s->kept = tg_carve(&c, kept_lay(z, NULL, &k));
        return c.used;
    }
    const struct tg_qk_norm_job a = latent_norm(NULL, m, z->rows, larger(z->Q, z->R), "");
    s->dq = tg_carve(&c, z->rows * z->H * z->K);
    s->dk = tg_carve(&c, z->rows * z->H * z->K);
    s->dv = tg_carve(&c, z->rows * z->H * z->V);
    s->dy = tg_carve(&c, z->rows * z->H * z->V);
    s->delta = tg_carve(&c, z->rows * z->H);
    s->dlow = tg_carve(&c, z->rows * larger(z->Q, z->R));
    s->norm = tg_carve(&c, tg_qk_norm_work(&a));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct sizes z = sizes_of(m, b);
    struct scratch s;
    (void)threads;
    return work_lay(m, &z, backward, NULL, &s);
}

/* The vectors x[row * ld + h * each], h < heads, of P entries: turned in place */
static void rotate(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   float *x, size_t ld, size_t heads, size_t each, float sign)
{
    const size_t P = m->spec->rotary_dim;
    for (size_t i = 0; P && i < b->count; i++)
        for (size_t row = b->begin[i]; row < b->begin[i + 1]; row++) {
            const size_t at = (tg_batch_past(b, i) + row - b->begin[i]) * (P / 2);
            for (size_t h = 0; h < heads; h++)
                ctx->k->rope(x + row * ld + h * each, m->rope_cos + at, m->rope_sin + at, sign, P);
        }
}

/* x -> rotated q, normalised latents, and low whose last P of each row are the rotated key */
static void latents(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const struct sizes *z, const float *x, const struct kept *k, float *low,
                    bool keep)
{
    const size_t rows = z->rows, R = z->R;
    if (z->Q) {
        const struct tg_qk_norm_job norm = latent_norm(ctx, m, rows, z->Q, "q_a_norm.weight");
        tg_linear_fwd(ctx, x, tg_mixer_param(m, "q_a.weight"), tg_mixer_param(m, "q_a.bias"), k->qa,
                      rows, z->Q, z->D);
        if (keep)
            memcpy(k->qa_raw, k->qa, rows * z->Q * sizeof *x);
        tg_qk_norm_fwd(&norm, k->qa, k->qa_stats);
        tg_linear_fwd(ctx, k->qa, tg_mixer_param(m, "q_b.weight"), NULL, k->q, rows, z->H * z->K,
                      z->Q);
    } else
        tg_linear_fwd(ctx, x, tg_mixer_param(m, "q.weight"), NULL, k->q, rows, z->H * z->K, z->D);
    rotate(ctx, m, b, k->q + z->N, z->H * z->K, z->H, z->K, 1);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "kv_a.weight"), tg_mixer_param(m, "kv_a.bias"), low,
                  rows, R + z->P, z->D);
    for (size_t row = 0; row < rows; row++)
        memcpy(k->c + row * R, low + row * (R + z->P), R * sizeof *x);
    if (keep)
        memcpy(k->c_raw, k->c, rows * R * sizeof *x);
    const struct tg_qk_norm_job norm = latent_norm(ctx, m, rows, R, "kv_a_norm.weight");
    tg_qk_norm_fwd(&norm, k->c, k->c_stats);
    rotate(ctx, m, b, low + R, R + z->P, 1, 0, 1);
}

static struct tg_attn attn_of(const struct tg_mixer *m, const struct sizes *z)
{
    return (struct tg_attn){.H = z->H,
                            .G = z->H,
                            .K = z->K,
                            .V = z->V,
                            .scale = (float)m->spec->attn_scale,
                            .cap = (float)m->spec->attn_softcap};
}

static void forward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const float *x, float *y, float *saved, float *work)
{
    const struct sizes z = sizes_of(m, b);
    const struct tg_attn attn = attn_of(m, &z);
    const size_t U = z.N + z.V;
    struct scratch s;
    struct kept k;
    work_lay(m, &z, false, work, &s);
    kept_lay(&z, saved ? saved : s.kept, &k);
    latents(ctx, m, b, &z, x, &k, s.low, saved != NULL);
    tg_linear_fwd(ctx, k.c, tg_mixer_param(m, "kv_b.weight"), NULL, s.up, z.rows, z.H * U, z.R);
    for (size_t i = 0; i < z.rows * z.H; i++) {
        const float *up = s.up + i * U, *r = s.low + i / z.H * (z.R + z.P) + z.R;
        memcpy(k.k + i * z.K, up, z.N * sizeof *up);
        memcpy(k.k + i * z.K + z.N, r, z.P * sizeof *up);
        memcpy(k.v + i * z.V, up + z.N, z.V * sizeof *up);
    }
    tg_attn_fwd(ctx, &attn, b, k.q, k.k, k.v, k.y, k.lse, NULL);
    tg_linear_fwd(ctx, k.y, tg_mixer_param(m, "o.weight"), tg_mixer_param(m, "o.bias"), y, z.rows,
                  z.D, z.H * z.V);
}

/* Gradients of k [rows,H,K] and v -> of the latent's projection low [rows,R+P] */
static void keys_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const struct sizes *z, const struct kept *k, const struct scratch *s,
                     const struct tg_mixer_grads *d)
{
    const size_t U = z->N + z->V, L = z->R + z->P;
    memset(s->low, 0, z->rows * L * sizeof *s->low);
    for (size_t i = 0; i < z->rows * z->H; i++) {
        float *up = s->up + i * U, *r = s->low + i / z->H * L + z->R;
        const float *dk = s->dk + i * z->K;
        memcpy(up, dk, z->N * sizeof *up);
        memcpy(up + z->N, s->dv + i * z->V, z->V * sizeof *up);
        for (size_t p = 0; p < z->P; p++)
            r[p] += dk[z->N + p];
    }
    rotate(ctx, m, b, s->low + z->R, L, 1, 0, -1);
    tg_linear_bwd(ctx, k->c, tg_mixer_param(m, "kv_b.weight"), s->up, s->dlow, 0,
                  tg_mixer_grad(m, d, "kv_b.weight"), NULL, z->rows, z->H * U, z->R);
    const struct tg_qk_norm_job norm = latent_norm(ctx, m, z->rows, z->R, "kv_a_norm.weight");
    tg_qk_norm_bwd(&norm, k->c_raw, k->c_stats, s->dlow, tg_mixer_grad(m, d, "kv_a_norm.weight"),
                   NULL, s->norm);
    for (size_t row = 0; row < z->rows; row++)
        memcpy(s->low + row * L, s->dlow + row * z->R, z->R * sizeof *s->low);
}

/* Gradient of q -> added to dx */
static void queries_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct sizes *z,
                        const float *x, const struct kept *k, const struct scratch *s, float *dx,
                        const struct tg_mixer_grads *d)
{
    if (!z->Q) {
        tg_linear_bwd(ctx, x, tg_mixer_param(m, "q.weight"), s->dq, dx, 1,
                      tg_mixer_grad(m, d, "q.weight"), NULL, z->rows, z->H * z->K, z->D);
        return;
    }
    const struct tg_qk_norm_job norm = latent_norm(ctx, m, z->rows, z->Q, "q_a_norm.weight");
    tg_linear_bwd(ctx, k->qa, tg_mixer_param(m, "q_b.weight"), s->dq, s->dlow, 0,
                  tg_mixer_grad(m, d, "q_b.weight"), NULL, z->rows, z->H * z->K, z->Q);
    tg_qk_norm_bwd(&norm, k->qa_raw, k->qa_stats, s->dlow, tg_mixer_grad(m, d, "q_a_norm.weight"),
                   NULL, s->norm);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "q_a.weight"), s->dlow, dx, 1,
                  tg_mixer_grad(m, d, "q_a.weight"), tg_mixer_grad(m, d, "q_a.bias"), z->rows, z->Q,
                  z->D);
}

static void backward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *dy, const float *saved, float *dx,
                     const struct tg_mixer_grads *d, float *work)
{
    const struct sizes z = sizes_of(m, b);
    const struct tg_attn attn = attn_of(m, &z);
    struct scratch s;
    struct kept k;
    work_lay(m, &z, true, work, &s);
    kept_lay(&z, (float *)(uintptr_t)saved, &k);
    tg_linear_bwd(ctx, k.y, tg_mixer_param(m, "o.weight"), dy, s.dy, 0,
                  tg_mixer_grad(m, d, "o.weight"), tg_mixer_grad(m, d, "o.bias"), z.rows, z.D,
                  z.H * z.V);
    for (size_t i = 0; i < z.rows * z.H; i++)
        s.delta[i] = ctx->k->dot(s.dy + i * z.V, k.y + i * z.V, z.V);
    memset(s.dq, 0, z.rows * z.H * z.K * sizeof *s.dq);
    memset(s.dk, 0, z.rows * z.H * z.K * sizeof *s.dk);
    memset(s.dv, 0, z.rows * z.H * z.V * sizeof *s.dv);
    tg_attn_bwd(ctx, &attn, b, k.q, k.k, k.v, s.dy, k.lse, s.delta, s.dq, s.dk, s.dv);
    rotate(ctx, m, b, s.dq + z.N, z.H * z.K, z.H, z.K, -1);
    keys_bwd(ctx, m, b, &z, &k, &s, d);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "kv_a.weight"), s.low, dx, 0,
                  tg_mixer_grad(m, d, "kv_a.weight"), tg_mixer_grad(m, d, "kv_a.bias"), z.rows,
                  z.R + z.P, z.D);
    queries_bwd(ctx, m, &z, x, &k, &s, dx, d);
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    return capacity * (m->spec->kv_rank + m->spec->rotary_dim);
}

struct step_scratch {
    float *kept, *low;
    float *worker; /* [threads][per_worker]: query [R+P], result [R], scores [capacity] */
    size_t per_worker;
};

static size_t step_lay(const struct sizes *z, size_t capacity, int threads, float *base,
                       struct step_scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    s->low = tg_carve(&c, z->rows * (z->R + z->P));
    s->kept = tg_carve(&c, kept_lay(z, NULL, &k));
    s->per_worker = (2 * z->R + z->P + capacity + 15) & ~(size_t)15;
    s->worker = tg_carve(&c, (size_t)threads * s->per_worker);
    return c.used;
}

static size_t step_work_floats(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                               int threads)
{
    struct sizes z = sizes_of(m, b);
    struct step_scratch s;
    return step_lay(&z, capacity, threads, NULL, &s);
}

struct step_job {
    const struct tg_ctx *ctx;
    const struct tg_mixer *m;
    const struct tg_batch *b;
    const struct sizes *z;
    const struct kept *k;
    const struct step_scratch *s;
    float *const *states;
};

/* One query head of one new token, over the latents of all tokens up to it */
static void step_item(void *ud, size_t item, int worker)
{
    const struct step_job *w = ud;
    const struct sizes *z = w->z;
    const struct tg_kernels *kern = w->ctx->k;
    const size_t row = item / z->H, h = item % z->H, L = z->R + z->P;
    const float *up = tg_mixer_param(w->m, "kv_b.weight") + h * (z->N + z->V) * z->R;
    const float *q = w->k->q + item * z->K;
    float *query = w->s->worker + (size_t)worker * w->s->per_worker, *sum = query + L,
          *scores = sum + z->R;
    size_t i = 0;
    while (w->b->begin[i + 1] <= row)
        i++;
    memset(query, 0, z->R * sizeof *query);
    kern->weighted_sum(q, up, z->R, z->N, z->R, query);
    memcpy(query + z->R, q + z->N, z->P * sizeof *query);
    tg_attn_row(kern, query, w->states[i], L, w->states[i], L,
                tg_batch_past(w->b, i) + row - w->b->begin[i] + 1, L, z->R,
                (float)w->m->spec->attn_scale, (float)w->m->spec->attn_softcap, scores, sum, NULL);
    kern->dots(sum, up + z->N * z->R, z->R, z->V, z->R, w->k->y + item * z->V);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    const struct sizes z = sizes_of(m, b);
    const size_t L = z.R + z.P;
    struct step_scratch s;
    struct kept k;
    step_lay(&z, capacity, ctx->threads, work, &s);
    kept_lay(&z, s.kept, &k);
    latents(ctx, m, b, &z, x, &k, s.low, false);
    for (size_t i = 0; i < b->count; i++)
        for (size_t row = b->begin[i]; row < b->begin[i + 1]; row++) {
            float *to = states[i] + (tg_batch_past(b, i) + row - b->begin[i]) * L;
            memcpy(to, k.c + row * z.R, z.R * sizeof *to);
            memcpy(to + z.R, s.low + row * L + z.R, z.P * sizeof *to);
        }
    struct step_job w = {ctx, m, b, &z, &k, &s, states};
    tg_parallel(ctx->threads, z.rows * z.H, step_item, &w);
    tg_linear_fwd(ctx, k.y, tg_mixer_param(m, "o.weight"), tg_mixer_param(m, "o.bias"), y, z.rows,
                  z.D, z.H * z.V);
}

const struct tg_mixer_ops tg_mixer_mla = {
    .name = "mla",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = forward,
    .backward = backward,
    .state_floats = state_floats,
    .step_work_floats = step_work_floats,
    .step = step,
    .inherit = NULL,
};
