/* Projections, q/k norms, rotary, output projection and gate of attention-like mixers; see
 * attn_proj.h. */
#include "linearize/mixers/attn_proj.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/far.h"

enum { BLOCK = 64 }; /* rows of one item; fixed, so sums do not depend on the number of threads */

static size_t rule_of(const struct tg_mixer *m, const char *name)
{
    const struct tg_mixer_schema *s = m->spec->mixer;
    for (size_t i = 0; i < s->param_count; i++)
        if (strcmp(s->params[i].name, name) == 0 && tg_param_rule_applies(&s->params[i], m->spec))
            return i;
    return SIZE_MAX;
}

bool tg_mixer_has(const struct tg_mixer *m, const char *name)
{
    return rule_of(m, name) != SIZE_MAX;
}

const float *tg_mixer_param(const struct tg_mixer *m, const char *name)
{
    size_t i = rule_of(m, name);
    return i == SIZE_MAX ? NULL : m->param[i];
}

float *tg_mixer_grad(const struct tg_mixer *m, const struct tg_mixer_grads *d, const char *name)
{
    size_t i = rule_of(m, name);
    return i == SIZE_MAX ? NULL : d->param[i];
}

struct kept {
    float *q, *k;   /* [rows,H,K], [rows,G,K] before the norm */
    float *rq, *rk; /* [rows,H], [rows,G] the norms' factors */
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct kept *k)
{
    const struct tg_layer_spec *s = m->spec;
    struct tg_carve c = {base, 0};
    size_t rows = s->qk_norm ? tg_batch_rows(b) : 0;
    k->q = tg_carve(&c, rows * s->heads * s->head_dim);
    k->k = tg_carve(&c, rows * s->kv_heads * s->head_dim);
    k->rq = tg_carve(&c, rows * s->heads);
    k->rk = tg_carve(&c, rows * s->kv_heads);
    return c.used;
}

size_t tg_proj_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(m, b, NULL, &k);
}

static size_t blocks_of(size_t rows)
{
    return (rows + BLOCK - 1) / BLOCK;
}

/* Per block of rows: gradient of both norm weights, and one vector */
size_t tg_proj_work(const struct tg_mixer *m, const struct tg_batch *b)
{
    return m->spec->qk_norm ? blocks_of(tg_batch_rows(b)) * 3 * m->spec->head_dim : 0;
}

/* One pass over the head vectors of q or of k */
struct pass {
    const struct tg_ctx *ctx;
    const struct tg_mixer *m;
    const struct tg_batch *b;
    size_t rows, heads;
    float *x;       /* [rows,heads,K] in place */
    const float *w; /* norm weight [K] */
    float *raw, *r; /* kept by the norm; NULL: not */
    float *parts;   /* norm backward: [blocks][3,K] */
    size_t part;    /* 0 q, 1 k */
    float sign;
};

static void span(const struct pass *p, size_t item, size_t *from, size_t *to)
{
    *from = item * BLOCK;
    *to = *from + BLOCK < p->rows ? *from + BLOCK : p->rows;
}

static void norm_item(void *ud, size_t item, int worker)
{
    const struct pass *p = ud;
    size_t from, to, K = p->m->spec->head_dim;
    (void)worker;
    span(p, item, &from, &to);
    for (size_t i = from * p->heads; i < to * p->heads; i++) {
        float *x = p->x + i * K;
        if (p->raw)
            memcpy(p->raw + i * K, x, K * sizeof *x);
        float r = p->ctx->k->rmsnorm_fwd(x, p->w, p->m->norm_eps, x, K);
        if (p->r)
            p->r[i] = r;
    }
}

static void norm_bwd_item(void *ud, size_t item, int worker)
{
    const struct pass *p = ud;
    size_t from, to, K = p->m->spec->head_dim;
    float *dw = p->parts + (item * 3 + p->part) * K, *dy = p->parts + (item * 3 + 2) * K;
    (void)worker;
    span(p, item, &from, &to);
    memset(dw, 0, K * sizeof *dw);
    for (size_t i = from * p->heads; i < to * p->heads; i++) {
        float *x = p->x + i * K;
        memcpy(dy, x, K * sizeof *x);
        memset(x, 0, K * sizeof *x);
        p->ctx->k->rmsnorm_bwd(p->raw + i * K, p->w, p->r[i], dy, x, dw, K);
    }
}

static void rotate_item(void *ud, size_t item, int worker)
{
    const struct pass *p = ud;
    const struct tg_layer_spec *s = p->m->spec;
    size_t from, to, i = 0, half = s->rotary_dim / 2;
    (void)worker;
    span(p, item, &from, &to);
    for (size_t row = from; row < to; row++) {
        while (p->b->begin[i + 1] <= row)
            i++;
        size_t pos = tg_batch_past(p->b, i) + row - p->b->begin[i];
        for (size_t h = 0; h < p->heads; h++)
            p->ctx->k->rope(p->x + (row * p->heads + h) * s->head_dim, p->m->rope_cos + pos * half,
                            p->m->rope_sin + pos * half, p->sign, s->rotary_dim);
    }
}

static struct pass pass_of(const struct tg_ctx *ctx, const struct tg_mixer *m,
                           const struct tg_batch *b, size_t heads, float *x)
{
    return (struct pass){
        .ctx = ctx, .m = m, .b = b, .rows = tg_batch_rows(b), .heads = heads, .x = x};
}

void tg_proj_rotate(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    float *q, float *k, float sign)
{
    if (!m->spec->rotary_dim)
        return;
    struct pass p = pass_of(ctx, m, b, m->spec->heads, q);
    p.sign = sign;
    tg_parallel(ctx->threads, blocks_of(p.rows), rotate_item, &p);
    p.heads = m->spec->kv_heads;
    p.x = k;
    tg_parallel(ctx->threads, blocks_of(p.rows), rotate_item, &p);
}

void tg_proj_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 const float *x, float *q, float *k, float *v, float *saved)
{
    const struct tg_layer_spec *s = m->spec;
    size_t rows = tg_batch_rows(b), HK = s->heads * s->head_dim, GK = s->kv_heads * s->head_dim;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "q.weight"), tg_mixer_param(m, "q.bias"), q, rows, HK,
                  m->width);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "k.weight"), tg_mixer_param(m, "k.bias"), k, rows, GK,
                  m->width);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "v.weight"), tg_mixer_param(m, "v.bias"), v, rows, GK,
                  m->width);
    if (!s->qk_norm)
        return;
    struct kept kept = {0};
    if (saved)
        kept_lay(m, b, saved, &kept);
    struct pass p = pass_of(ctx, m, b, s->heads, q);
    p.w = tg_mixer_param(m, "q_norm.weight");
    p.raw = kept.q;
    p.r = kept.rq;
    tg_parallel(ctx->threads, blocks_of(rows), norm_item, &p);
    p.heads = s->kv_heads;
    p.x = k;
    p.w = tg_mixer_param(m, "k_norm.weight");
    p.raw = kept.k;
    p.r = kept.rk;
    tg_parallel(ctx->threads, blocks_of(rows), norm_item, &p);
}

static void norms_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const float *saved, float *dq, float *dk, const struct tg_mixer_grads *d,
                      float *work)
{
    size_t K = m->spec->head_dim, rows = tg_batch_rows(b);
    struct kept kept;
    kept_lay(m, b, (float *)(uintptr_t)saved, &kept);
    struct pass p = pass_of(ctx, m, b, m->spec->heads, dq);
    p.w = tg_mixer_param(m, "q_norm.weight");
    p.raw = kept.q;
    p.r = kept.rq;
    p.parts = work;
    tg_parallel(ctx->threads, blocks_of(rows), norm_bwd_item, &p);
    p.heads = m->spec->kv_heads;
    p.x = dk;
    p.w = tg_mixer_param(m, "k_norm.weight");
    p.raw = kept.k;
    p.r = kept.rk;
    p.part = 1;
    tg_parallel(ctx->threads, blocks_of(rows), norm_bwd_item, &p);
    float *to[2] = {tg_mixer_grad(m, d, "q_norm.weight"), tg_mixer_grad(m, d, "k_norm.weight")};
    for (size_t block = 0; block < blocks_of(rows); block++)
        for (size_t part = 0; part < 2; part++)
            if (to[part])
                ctx->k->axpy(1, work + (block * 3 + part) * K, to[part], K);
}

void tg_proj_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 const float *x, const float *saved, float *dq, float *dk, const float *dv,
                 float *dx, const struct tg_mixer_grads *d, float *work)
{
    const struct tg_layer_spec *s = m->spec;
    size_t rows = tg_batch_rows(b), HK = s->heads * s->head_dim, GK = s->kv_heads * s->head_dim;
    if (s->qk_norm)
        norms_bwd(ctx, m, b, saved, dq, dk, d, work);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "q.weight"), dq, dx, 0, tg_mixer_grad(m, d, "q.weight"),
                  tg_mixer_grad(m, d, "q.bias"), rows, HK, m->width);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "k.weight"), dk, dx, 1, tg_mixer_grad(m, d, "k.weight"),
                  tg_mixer_grad(m, d, "k.bias"), rows, GK, m->width);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "v.weight"), dv, dx, 1, tg_mixer_grad(m, d, "v.weight"),
                  tg_mixer_grad(m, d, "v.bias"), rows, GK, m->width);
}

void tg_proj_out_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *y, float *out)
{
    tg_linear_fwd(ctx, y, tg_mixer_param(m, "o.weight"), tg_mixer_param(m, "o.bias"), out,
                  tg_batch_rows(b), m->width, m->spec->heads * m->spec->head_dim);
}

void tg_proj_out_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *y, const float *dout, float *dy, const struct tg_mixer_grads *d)
{
    tg_linear_bwd(ctx, y, tg_mixer_param(m, "o.weight"), dout, dy, 0,
                  tg_mixer_grad(m, d, "o.weight"), tg_mixer_grad(m, d, "o.bias"), tg_batch_rows(b),
                  m->width, m->spec->heads * m->spec->head_dim);
}

void tg_gate_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows, const float *x,
                 float *g)
{
    size_t n = m->spec->heads;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "gate.weight"), tg_mixer_param(m, "gate.bias"), g, rows,
                  n, m->width);
    for (size_t i = 0; i < rows * n; i++)
        g[i] = tg_log_sigmoid(g[i]);
}

void tg_gate_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows, const float *x,
                 const float *g, float *dg, float *dx, const struct tg_mixer_grads *d)
{
    size_t n = m->spec->heads;
    for (size_t i = 0; i < rows * n; i++)
        dg[i] *= -expm1f(g[i]);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "gate.weight"), dg, dx, 1,
                  tg_mixer_grad(m, d, "gate.weight"), tg_mixer_grad(m, d, "gate.bias"), rows, n,
                  m->width);
}
