/* Projections, rotary, output projection and gates of attention-like mixers; see attn_proj.h. */
#include "linearize/mixers/attn_proj.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/far.h"
#include "linearize/mixers/qk_norm.h"

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

/* What backward needs: projections before norms, or limited */
struct kept {
    float *q, *k, *v;         /* [rows,H,K], [rows,G,K], [rows,G,V] */
    float *stats_q, *stats_k; /* of the norms */
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_batch *b, float *base,
                       struct kept *k)
{
    const struct tg_layer_spec *s = m->spec;
    struct tg_carve c = {base, 0};
    const bool norm = s->qk_norm, clip = s->qkv_clip > 0;
    const size_t rows = tg_batch_rows(b), raw = norm || clip ? rows : 0;
    k->q = tg_carve(&c, raw * s->heads * s->head_dim);
    k->k = tg_carve(&c, raw * s->kv_heads * s->head_dim);
    k->v = tg_carve(&c, clip ? rows * tg_value_heads(s) * tg_value_dim(s) : 0);
    k->stats_q = tg_carve(&c, norm ? rows * s->heads * 2 : 0);
    k->stats_k = tg_carve(&c, norm ? rows * s->kv_heads * 2 : 0);
    return c.used;
}

size_t tg_proj_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct kept k;
    return kept_lay(m, b, NULL, &k);
}

static struct tg_qk_norm_job q_norm(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows)
{
    return tg_qk_norm_of(ctx, m, rows, m->spec->heads, "q_norm.weight", "q_norm.bias");
}

static struct tg_qk_norm_job k_norm(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows)
{
    return tg_qk_norm_of(ctx, m, rows, m->spec->kv_heads, "k_norm.weight", "k_norm.bias");
}

size_t tg_proj_work(const struct tg_mixer *m, const struct tg_batch *b)
{
    if (!m->spec->qk_norm)
        return 0;
    const struct tg_qk_norm_job q = q_norm(NULL, m, tg_batch_rows(b));
    return tg_qk_norm_work(&q); /* H >= G: no less than k's */
}

/* Rotation of the head vectors of q or of k */
struct pass {
    const struct tg_ctx *ctx;
    const struct tg_mixer *m;
    const struct tg_batch *b;
    size_t rows, heads;
    float *x; /* [rows,heads,K] in place */
    float sign;
};

static void rotate_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const struct tg_layer_spec *s = p->m->spec;
    size_t i = 0, half = s->rotary_dim / 2;
    (void)worker;
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
    if (q)
        tg_parallel_rows(ctx->threads, p.rows, rotate_rows, &p);
    p.heads = m->spec->kv_heads;
    p.x = k;
    if (k)
        tg_parallel_rows(ctx->threads, p.rows, rotate_rows, &p);
}

static void limit(float *x, size_t n, float most)
{
    for (size_t i = 0; i < n; i++)
        x[i] = fminf(fmaxf(x[i], -most), most);
}

/* What was limited has no slope. */
static void limit_bwd(const float *x, float *dx, size_t n, float most)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = fabsf(x[i]) < most ? dx[i] : 0;
}

static struct tg_kv_input straight(const struct tg_mixer *m, const float *x)
{
    return (struct tg_kv_input){.x = x, .n = m->width, .k = "k.weight", .v = "v.weight"};
}

/* One projection of x [rows,n_in], limited; what it is then is kept where `keep` is not NULL */
static void project(const struct tg_ctx *ctx, const struct tg_mixer *m, const float *x, size_t n_in,
                    const float *w, const float *bias, float *y, size_t rows, size_t n, float *keep)
{
    tg_linear_fwd(ctx, x, w, bias, y, rows, n, n_in);
    if (m->spec->qkv_clip > 0)
        limit(y, rows * n, (float)m->spec->qkv_clip);
    if (keep)
        memcpy(keep, y, rows * n * sizeof *y);
}

void tg_proj_q_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                   const float *x, float *q, float *saved)
{
    const struct tg_layer_spec *s = m->spec;
    const size_t rows = tg_batch_rows(b);
    const bool raw = saved && (s->qkv_clip > 0 || s->qk_norm);
    struct kept kept = {0};
    if (saved)
        kept_lay(m, b, saved, &kept);
    project(ctx, m, x, m->width, tg_mixer_param(m, "q.weight"), tg_mixer_param(m, "q.bias"), q,
            rows, s->heads * s->head_dim, raw ? kept.q : NULL);
    const struct tg_qk_norm_job norm = q_norm(ctx, m, rows);
    if (s->qk_norm)
        tg_qk_norm_fwd(&norm, q, kept.stats_q);
}

void tg_proj_kv_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const struct tg_kv_input *from, float *k, float *v, float *saved)
{
    const struct tg_layer_spec *s = m->spec;
    const size_t rows = tg_batch_rows(b);
    const bool clip = s->qkv_clip > 0, raw = saved && (clip || s->qk_norm);
    struct kept kept = {0};
    if (saved)
        kept_lay(m, b, saved, &kept);
    project(ctx, m, from->x, from->n, tg_mixer_param(m, from->k), tg_mixer_param(m, "k.bias"), k,
            rows, s->kv_heads * s->head_dim, raw ? kept.k : NULL);
    if (v)
        project(ctx, m, from->x, from->n, tg_mixer_param(m, from->v), tg_mixer_param(m, "v.bias"),
                v, rows, tg_value_heads(s) * tg_value_dim(s), saved && clip ? kept.v : NULL);
    const struct tg_qk_norm_job norm = k_norm(ctx, m, rows);
    if (s->qk_norm)
        tg_qk_norm_fwd(&norm, k, kept.stats_k);
}

void tg_proj_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 const float *x, float *q, float *k, float *v, float *saved)
{
    const struct tg_kv_input from = straight(m, x);
    tg_proj_q_fwd(ctx, m, b, x, q, saved);
    tg_proj_kv_fwd(ctx, m, b, &from, k, v, saved);
}

/* Back through norms and limits */
static void raw_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct kept *kept,
                    float *dq, float *dk, float *dv, size_t rows, const struct tg_mixer_grads *d,
                    float *work)
{
    const struct tg_layer_spec *s = m->spec;
    const float most = (float)s->qkv_clip;
    if (s->qk_norm) {
        const struct tg_qk_norm_job nq = q_norm(ctx, m, rows), nk = k_norm(ctx, m, rows);
        tg_qk_norm_bwd(&nq, kept->q, kept->stats_q, dq, tg_mixer_grad(m, d, "q_norm.weight"),
                       tg_mixer_grad(m, d, "q_norm.bias"), work);
        tg_qk_norm_bwd(&nk, kept->k, kept->stats_k, dk, tg_mixer_grad(m, d, "k_norm.weight"),
                       tg_mixer_grad(m, d, "k_norm.bias"), work);
    }
    if (most > 0) {
        limit_bwd(kept->q, dq, rows * s->heads * s->head_dim, most);
        limit_bwd(kept->k, dk, rows * s->kv_heads * s->head_dim, most);
        limit_bwd(kept->v, dv, rows * tg_value_heads(s) * tg_value_dim(s), most);
    }
}

void tg_proj_from_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const float *x, const struct tg_kv_input *from, const float *saved, float *dq,
                      float *dk, float *dv, float *dx, float *dfrom, const struct tg_mixer_grads *d,
                      float *work)
{
    const struct tg_layer_spec *s = m->spec;
    size_t rows = tg_batch_rows(b), HK = s->heads * s->head_dim, GK = s->kv_heads * s->head_dim;
    struct kept kept = {0};
    kept_lay(m, b, (float *)(uintptr_t)saved, &kept);
    raw_bwd(ctx, m, &kept, dq, dk, dv, rows, d, work);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "q.weight"), dq, dx, 0, tg_mixer_grad(m, d, "q.weight"),
                  tg_mixer_grad(m, d, "q.bias"), rows, HK, m->width);
    tg_linear_bwd(ctx, from->x, tg_mixer_param(m, from->k), dk, dfrom, dfrom == dx,
                  tg_mixer_grad(m, d, from->k), tg_mixer_grad(m, d, "k.bias"), rows, GK, from->n);
    tg_linear_bwd(ctx, from->x, tg_mixer_param(m, from->v), dv, dfrom, 1,
                  tg_mixer_grad(m, d, from->v), tg_mixer_grad(m, d, "v.bias"), rows,
                  tg_value_heads(s) * tg_value_dim(s), from->n);
}

void tg_proj_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 const float *x, const float *saved, float *dq, float *dk, float *dv, float *dx,
                 const struct tg_mixer_grads *d, float *work)
{
    const struct tg_kv_input from = straight(m, x);
    tg_proj_from_bwd(ctx, m, b, x, &from, saved, dq, dk, dv, dx, dx, d, work);
}

static size_t out_width(const struct tg_mixer *m)
{
    return tg_out_heads(m->spec) * tg_value_dim(m->spec);
}

size_t tg_proj_out_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    return m->spec->output_gate ? 2 * tg_batch_rows(b) * out_width(m) : 0;
}

void tg_proj_out_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *y, float *out, float *gates)
{
    const size_t rows = tg_batch_rows(b), n = out_width(m);
    if (m->spec->output_gate) {
        float *gate = gates, *gated = gates + rows * n;
        tg_linear_fwd(ctx, x, tg_mixer_param(m, "out_gate.weight"),
                      tg_mixer_param(m, "out_gate.bias"), gate, rows, n, m->width);
        ctx->k->sigmoid(gate, gate, rows * n);
        ctx->k->mul(gate, y, gated, rows * n);
        y = gated;
    }
    tg_linear_fwd(ctx, y, tg_mixer_param(m, "o.weight"), tg_mixer_param(m, "o.bias"), out, rows,
                  m->width, n);
}

void tg_proj_out_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *y, const float *dout, float *dy, const struct tg_mixer_grads *d,
                     float *gates)
{
    const size_t rows = tg_batch_rows(b), n = out_width(m);
    float *gate = gates, *gated = gates + rows * n;
    const bool has_gate = m->spec->output_gate;
    tg_linear_bwd(ctx, has_gate ? gated : y, tg_mixer_param(m, "o.weight"), dout, dy, 0,
                  tg_mixer_grad(m, d, "o.weight"), tg_mixer_grad(m, d, "o.bias"), rows, m->width,
                  n);
    for (size_t i = 0; has_gate && i < rows * n; i++) {
        gated[i] = dy[i] * y[i] * gate[i] * (1 - gate[i]); /* gradient of the gate's logit */
        dy[i] *= gate[i];
    }
}

void tg_proj_out_gate_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                          const struct tg_batch *b, const float *x, const float *gates, float *dx,
                          const struct tg_mixer_grads *d)
{
    const size_t rows = tg_batch_rows(b), n = out_width(m);
    if (m->spec->output_gate)
        tg_linear_bwd(ctx, x, tg_mixer_param(m, "out_gate.weight"), gates + rows * n, dx, 1,
                      tg_mixer_grad(m, d, "out_gate.weight"), tg_mixer_grad(m, d, "out_gate.bias"),
                      rows, n, m->width);
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
