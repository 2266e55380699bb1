/* The frame of linear mixers; equations in linear_mixer.h. */
#include "linearize/mixers/linear_mixer.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/linear_parts.h"

static bool joint(const struct tg_mixer *m)
{
    return m->spec->window && m->spec->window_form == TG_WINDOW_JOINT;
}

/* What the frame keeps, in the order in which it is made. An array that a layer does not need is
 * the one that it would be made from. */
struct kept {
    float *q0, *k0, *v0, *proj; /* projections; what their norms were of */
    float *qw, *kw, *w, *joint; /* the window's rotated heads and output */
    float *q1, *k1, *v1;        /* activated, rotated */
    float *q, *k, *v;           /* unit or features; values with a column of ones */
    float *rq, *rk;             /* of the unit vectors */
    float *low_z, *z;
    float *o, *l, *r, *y; /* recurrence; l; factor of its norm; l + alpha w */
    float *out_gates, *states;
    struct tg_linear_gate_values gates;
    struct tg_sse_kept sse;
};

static size_t kept_lay(const struct tg_linear_parts *p, const struct tg_mixer *m,
                       const struct tg_batch *b, bool backward, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t R = p->rows, HK = p->H * p->K, GK = p->G * p->K, OV = p->out * p->V;
    memset(k, 0, sizeof *k);
    k->q0 = tg_carve(&c, R * HK);
    k->k0 = tg_carve(&c, R * GK);
    k->v0 = tg_carve(&c, R * p->S * p->V);
    k->proj = backward ? tg_carve(&c, tg_proj_saved(m, b)) : NULL;
    if (p->has_window) {
        k->qw = tg_carve(&c, R * HK);
        k->kw = tg_carve(&c, R * GK);
        k->w = tg_carve(&c, R * OV);
        k->joint = backward ? tg_carve(&c, tg_joint_saved(&p->window.joint, b)) : NULL;
    }
    k->q1 = p->own_qk ? tg_carve(&c, R * HK) : k->q0;
    k->k1 = p->own_qk ? tg_carve(&c, R * GK) : k->k0;
    k->v1 = p->activated_v ? tg_carve(&c, R * p->S * p->V) : p->series ? k->w : k->v0;
    k->q = p->own_features ? tg_carve(&c, R * p->H * p->features) : k->q1;
    k->k = p->own_features ? tg_carve(&c, R * p->key_heads * p->features) : k->k1;
    k->v = p->own_values ? tg_carve(&c, R * p->states * p->Vx) : k->v1;
    k->rq = p->recipe->unit ? tg_carve(&c, R * p->H) : NULL;
    k->rk = p->recipe->unit ? tg_carve(&c, R * p->G) : NULL;
    k->low_z = p->low_z ? tg_carve(&c, R * m->spec->recurrent.rank) : NULL;
    k->z = p->recipe->z ? tg_carve(&c, R * OV) : NULL;
    k->o = tg_carve(&c, R * p->out * p->Vx);
    k->l = p->ones || p->norm.n ? tg_carve(&c, R * OV) : k->o;
    k->r = p->norm.n ? tg_carve(&c, R * p->norm.groups) : NULL;
    k->y = p->has_window ? tg_carve(&c, R * OV) : k->l;
    k->out_gates = tg_carve(&c, tg_proj_out_floats(m, b));
    if (p->sse.N)
        tg_carve(&c, tg_sse_lay(p, b, backward, base ? base + c.used : NULL, &k->sse));
    else
        k->states = backward ? tg_carve(&c, tg_recur_saved(&p->recur, b)) : NULL;
    float *gates = base ? base + c.used : NULL;
    return c.used + tg_linear_gates_lay(&p->gates, R, gates, &k->gates);
}

size_t tg_linear_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct tg_linear_parts p;
    struct kept k;
    if (joint(m))
        return tg_joint_mixer_saved(m, b);
    tg_linear_parts_of(m, b, &p);
    return kept_lay(&p, m, b, true, NULL, &k);
}

/* Gradients on their way down; q0 .. v0 also of the window's heads */
struct down {
    float *y, *l, *o, *z, *w; /* [rows,OV]; o [rows,out,Vx] */
    float *q, *k, *v;         /* at the recurrence */
    float *q1, *k1, *v1;
    float *q0, *k0, *v0;
    float *qw, *kw, *vw;
    float *g, *beta, *low;
    float *gates, *norm, *proj, *recur, *joint, *sse;
};

static size_t down_lay(const struct tg_linear_parts *p, const struct tg_mixer *m,
                       const struct tg_batch *b, int threads, float *base, struct down *d)
{
    struct tg_carve c = {base, 0};
    size_t R = p->rows, HK = p->H * p->K, GK = p->G * p->K, OV = p->out * p->V;
    size_t SV = p->S * p->V, gated = p->has_window ? R : 0;
    d->y = tg_carve(&c, R * OV);
    d->l = tg_carve(&c, R * OV);
    d->o = tg_carve(&c, R * p->out * p->Vx);
    d->z = p->recipe->z ? tg_carve(&c, R * OV) : NULL;
    d->w = tg_carve(&c, gated * OV);
    d->q = tg_carve(&c, R * p->H * p->features);
    d->k = tg_carve(&c, R * p->key_heads * p->features);
    d->v = tg_carve(&c, R * p->states * p->Vx);
    d->q1 = p->own_features ? tg_carve(&c, R * HK) : d->q;
    d->k1 = p->own_features ? tg_carve(&c, R * GK) : d->k;
    d->v1 = p->own_values ? tg_carve(&c, R * SV) : d->v;
    d->q0 = p->activated_q ? tg_carve(&c, R * HK) : d->q1;
    d->k0 = p->activated_k ? tg_carve(&c, R * GK) : d->k1;
    d->v0 = p->activated_v ? tg_carve(&c, R * SV) : d->v1;
    d->qw = tg_carve(&c, gated * HK);
    d->kw = tg_carve(&c, gated * GK);
    d->vw = tg_carve(&c, gated * p->G * p->V);
    d->g = tg_carve(&c, p->gates.N * p->gates.each * R);
    d->beta = tg_carve(&c, p->gates.N * R);
    d->low = tg_carve(&c, p->low_z ? R * m->spec->recurrent.rank : 0);
    d->gates = tg_carve(&c, tg_linear_gates_scratch(&p->gates, R));
    d->norm = tg_carve(&c, p->norm.n ? tg_gnorm_work(&p->norm, R) : 0);
    d->proj = tg_carve(&c, tg_proj_work(m, b));
    d->recur = tg_carve(&c, p->sse.N ? 0 : tg_recur_work(&p->recur, threads));
    d->sse = tg_carve(&c, p->sse.N ? tg_sse_bwd_work(p, b, threads) : 0);
    d->joint = tg_carve(&c, p->has_window ? tg_joint_work(&p->window.joint, b, threads, true) : 0);
    return c.used;
}

/* Scratch of forward and step: the recurrence and the window, one after the other */
static size_t run_work(const struct tg_linear_parts *p, const struct tg_batch *b, int threads,
                       bool step)
{
    size_t window = 0,
           recur = p->sse.N ? tg_sse_work(p, b, threads) : tg_recur_work(&p->recur, threads);
    if (p->has_window)
        window = step ? tg_beside_step_work(&p->window, b, threads)
                      : tg_joint_work(&p->window.joint, b, threads, false);
    return recur > window ? recur : window;
}

size_t tg_linear_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                            bool backward)
{
    struct tg_linear_parts p;
    struct kept k;
    struct down d;
    if (joint(m))
        return tg_joint_mixer_work(m, b, threads, backward);
    tg_linear_parts_of(m, b, &p);
    return backward ? down_lay(&p, m, b, threads, NULL, &d)
                    : kept_lay(&p, m, b, false, NULL, &k) + run_work(&p, b, threads, false);
}

size_t tg_linear_mixer_step_work(const struct tg_mixer *m, const struct tg_batch *b,
                                 size_t capacity, int threads)
{
    struct tg_linear_parts p;
    struct kept k;
    if (joint(m))
        return tg_joint_mixer_step_work(m, b, capacity, threads);
    tg_linear_parts_of(m, b, &p);
    return kept_lay(&p, m, b, false, NULL, &k) + run_work(&p, b, threads, true);
}

/* Where the parts of a sequence's state begin */
struct store {
    size_t conv_q, conv_k, conv_v, recur, ring, end;
};

static struct store store_of(const struct tg_linear_parts *p)
{
    struct store s = {0};
    bool conv = p->conv_q.taps > 0;
    s.conv_k = conv ? tg_conv_state(&p->conv_q) : 0;
    s.conv_v = s.conv_k + (conv ? tg_conv_state(&p->conv_k) : 0);
    s.recur = s.conv_v + (conv ? tg_conv_state(&p->conv_v) : 0);
    s.ring = s.recur + tg_sse_states(&p->sse) * tg_recur_state(&p->recur);
    s.end = s.ring + tg_beside_state(&p->window);
    return s;
}

size_t tg_linear_mixer_state(const struct tg_mixer *m, size_t capacity)
{
    struct tg_linear_parts p;
    if (joint(m))
        return tg_joint_mixer_state(m, capacity);
    tg_linear_parts_of(m, NULL, &p);
    return store_of(&p).end;
}

static const float *taps_of(const struct tg_linear_parts *p, const float *w, size_t channels)
{
    return w ? w + channels * p->conv_q.taps : NULL;
}

/* The window's output, before the linear branch turns q0 and k0 in place */
static void window_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                       const struct tg_linear_parts *p, const struct tg_batch *b,
                       struct tg_states states, const struct kept *k, float *work)
{
    memcpy(k->qw, k->q0, p->rows * p->H * p->K * sizeof *k->qw);
    memcpy(k->kw, k->k0, p->rows * p->G * p->K * sizeof *k->kw);
    tg_proj_rotate(ctx, m, b, k->qw, k->kw, 1);
    if (states.of)
        tg_beside_step(ctx, &p->window, b, k->qw, k->kw, k->v0, states, k->w, work);
    else
        tg_joint_fwd(ctx, &p->window.joint, b, k->qw, k->kw, k->v0, NULL, k->w, NULL, k->joint,
                     work);
}

/* q0, k0, v0 -> q1, k1, v1 */
static void activate(const struct tg_ctx *ctx, const struct tg_mixer *m,
                     const struct tg_linear_parts *p, const struct tg_batch *b,
                     float *const *states, const struct kept *k)
{
    const float *w = tg_mixer_param(m, "conv.weight"), *values = p->series ? k->w : k->v0;
    const size_t HK = p->H * p->K, GK = p->G * p->K;
    const struct store s = store_of(p);
    if (p->activated_q)
        tg_linear_activate(ctx, p, b, &p->conv_q, w, k->q0, k->q1,
                           (struct tg_states){states, s.conv_q});
    else if (p->own_qk)
        memcpy(k->q1, k->q0, p->rows * HK * sizeof *k->q1);
    if (p->activated_k)
        tg_linear_activate(ctx, p, b, &p->conv_k, taps_of(p, w, HK), k->k0, k->k1,
                           (struct tg_states){states, s.conv_k});
    else if (p->own_qk)
        memcpy(k->k1, k->k0, p->rows * GK * sizeof *k->k1);
    if (p->activated_v)
        tg_linear_activate(ctx, p, b, &p->conv_v, taps_of(p, w, HK + GK), values, k->v1,
                           (struct tg_states){states, s.conv_v});
}

/* q1, k1, v1 -> q, k, v */
static void features(const struct tg_ctx *ctx, const struct tg_mixer *m,
                     const struct tg_linear_parts *p, const struct kept *k)
{
    if (p->recipe->unit) {
        tg_gnorm_fwd(ctx, &p->unit_q, p->rows, k->q1, NULL, NULL, k->q, k->rq);
        tg_gnorm_fwd(ctx, &p->unit_k, p->rows, k->k1, NULL, NULL, k->k, k->rk);
    }
    if (p->recipe->map)
        tg_linear_features(ctx, p, m, k->q1, k->k1, k->q, k->k);
    if (p->own_values)
        tg_linear_values(ctx, p, k->v1, k->v);
}

static void gate_out(const struct tg_ctx *ctx, const struct tg_mixer *m,
                     const struct tg_linear_parts *p, const float *x, const struct kept *k)
{
    const size_t OV = p->out * p->V, rank = m->spec->recurrent.rank;
    if (p->low_z) {
        tg_linear_fwd(ctx, x, tg_mixer_param(m, "g_a.weight"), NULL, k->low_z, p->rows, rank,
                      m->width);
        tg_linear_fwd(ctx, k->low_z, tg_mixer_param(m, "g_b.weight"), tg_mixer_param(m, "g_b.bias"),
                      k->z, p->rows, OV, rank);
    } else if (p->recipe->z)
        tg_linear_fwd(ctx, x, tg_mixer_param(m, "z.weight"), NULL, k->z, p->rows, OV, m->width);
}

/* y = l + alpha w, alpha [out] */
static void add_window(const struct tg_linear_parts *p, const float *alpha, const struct kept *k)
{
    const size_t V = p->V;
    for (size_t i = 0; i < p->rows * p->out; i++)
        for (size_t c = 0; c < V; c++)
            k->y[i * V + c] = k->l[i * V + c] + alpha[i % p->out] * k->w[i * V + c];
}

static void run(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                const struct tg_linear_parts *p, const float *x, float *const *states, float *y,
                const struct kept *k, float *work)
{
    const struct store s = store_of(p);
    const struct tg_recur_in in = {
        .q = k->q, .k = k->k, .v = k->v, .g = k->gates.g, .beta = k->gates.beta};
    tg_proj_fwd(ctx, m, b, x, k->q0, k->k0, k->v0, k->proj);
    if (p->has_window)
        window_fwd(ctx, m, p, b, (struct tg_states){states, s.ring}, k, work);
    activate(ctx, m, p, b, states, k);
    tg_linear_gates_fwd(ctx, &p->gates, m, p->rows, x, k->k0, k->k1, &k->gates);
    if (p->rotary)
        tg_proj_rotate(ctx, m, b, k->q1, k->k1, 1);
    features(ctx, m, p, k);
    if (p->sse.N)
        tg_sse_fwd(ctx, m, p, b, x, &in, k->q1, k->k1, k->o, (struct tg_states){states, s.recur},
                   &k->sse, work);
    else
        tg_recur_fwd(ctx, &p->recur, b, &in, k->o, (struct tg_states){states, s.recur}, k->states,
                     work);
    gate_out(ctx, m, p, x, k);
    if (p->ones)
        tg_linear_divide(ctx, p, k->o, k->l);
    else if (p->norm.n)
        tg_gnorm_fwd(ctx, &p->norm, p->rows, k->o, k->z, tg_mixer_param(m, "norm.weight"), k->l,
                     k->r);
    if (p->has_window)
        add_window(p, tg_mixer_param(m, "alpha"), k);
    tg_proj_out_fwd(ctx, m, b, x, k->y, y, k->out_gates);
}

void tg_linear_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, const float *x, float *y, float *saved,
                         float *work)
{
    struct tg_linear_parts p;
    struct kept k;
    if (joint(m)) {
        tg_joint_mixer_fwd(ctx, m, b, x, y, saved, work);
        return;
    }
    tg_linear_parts_of(m, b, &p);
    size_t used = kept_lay(&p, m, b, saved, saved ? saved : work, &k);
    run(ctx, m, b, &p, x, NULL, y, &k, saved ? work : work + used);
}

void tg_linear_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                          const struct tg_batch *b, size_t capacity, const float *x,
                          float *const *states, float *y, float *work)
{
    struct tg_linear_parts p;
    struct kept k;
    if (joint(m)) {
        tg_joint_mixer_step(ctx, m, b, capacity, x, states, y, work);
        return;
    }
    tg_linear_parts_of(m, b, &p);
    size_t used = kept_lay(&p, m, b, false, work, &k);
    run(ctx, m, b, &p, x, states, y, &k, work + used);
}

/* dy -> dl, dw, dalpha */
static void add_window_bwd(const struct tg_linear_parts *p, const float *alpha,
                           const struct kept *k, const struct down *d, float *dalpha)
{
    const size_t V = p->V;
    for (size_t h = 0; h < p->out; h++) {
        double sum = 0;
        for (size_t i = h; i < p->rows * p->out; i += p->out)
            for (size_t c = 0; c < V; c++) {
                d->w[i * V + c] = alpha[h] * d->y[i * V + c];
                sum += (double)d->y[i * V + c] * (double)k->w[i * V + c];
            }
        if (dalpha)
            dalpha[h] += (float)sum;
    }
    memcpy(d->l, d->y, p->rows * p->out * V * sizeof *d->l);
}

/* dl -> do, dz */
static void norm_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                     const struct tg_linear_parts *p, const struct kept *k, const struct down *d,
                     const struct tg_mixer_grads *grads)
{
    if (p->ones)
        tg_linear_divide_bwd(ctx, p, k->o, k->l, d->l, d->o);
    else if (p->norm.n)
        tg_gnorm_bwd(ctx, &p->norm, p->rows, k->o, k->z, tg_mixer_param(m, "norm.weight"), k->r,
                     d->l, d->o, d->z, tg_mixer_grad(m, grads, "norm.weight"), d->norm);
    else
        memcpy(d->o, d->l, p->rows * p->out * p->V * sizeof *d->o);
}

/* do -> dq1, dk1, dv1, dg, dbeta */
static void recurrence_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                           const struct tg_linear_parts *p, const struct tg_batch *b,
                           const struct kept *k, const struct down *d,
                           const struct tg_mixer_grads *grads)
{
    const struct tg_recur_in in = {
        .q = k->q, .k = k->k, .v = k->v, .g = k->gates.g, .beta = k->gates.beta};
    const bool open = p->recur.gate == TG_GATE_SCALAR || p->recur.gate == TG_GATE_CHANNEL;
    const struct tg_recur_grads to = {.q = d->q,
                                      .k = d->k,
                                      .v = d->v,
                                      .g = open ? d->g : NULL,
                                      .beta = k->gates.beta ? d->beta : NULL};
    memset(d->q, 0, p->rows * p->H * p->features * sizeof *d->q);
    memset(d->k, 0, p->rows * p->key_heads * p->features * sizeof *d->k);
    memset(d->v, 0, p->rows * p->states * p->Vx * sizeof *d->v);
    memset(d->g, 0, p->rows * p->gates.N * p->gates.each * sizeof *d->g);
    memset(d->beta, 0, p->rows * p->gates.N * sizeof *d->beta);
    if (p->sse.N)
        tg_sse_bwd(ctx, p, b, &in, &k->sse, d->o, &to, d->sse);
    else
        tg_recur_bwd(ctx, &p->recur, b, &in, k->states, d->o, &to, (struct tg_states){0}, d->recur);
    if (p->recipe->unit) {
        tg_gnorm_bwd(ctx, &p->unit_q, p->rows, k->q1, NULL, NULL, k->rq, d->q, d->q1, NULL, NULL,
                     NULL);
        tg_gnorm_bwd(ctx, &p->unit_k, p->rows, k->k1, NULL, NULL, k->rk, d->k, d->k1, NULL, NULL,
                     NULL);
    }
    if (p->recipe->map)
        tg_linear_features_bwd(ctx, p, m, k->q1, k->k1, k->q, k->k, d->q, d->k, d->q1, d->k1,
                               grads);
    if (p->sse.N)
        tg_sse_heads_bwd(ctx, p, b, &k->sse, d->q1, d->k1, d->sse);
    if (p->own_values)
        tg_linear_values_bwd(ctx, p, d->v, d->v1);
}

/* dq1, dk1, dv1 -> dq0, dk0, dv0 */
static void activate_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_linear_parts *p, const struct tg_batch *b,
                         const struct kept *k, const struct down *d,
                         const struct tg_mixer_grads *grads)
{
    const float *w = tg_mixer_param(m, "conv.weight"), *values = p->series ? k->w : k->v0;
    float *dw = tg_mixer_grad(m, grads, "conv.weight");
    const size_t HK = p->H * p->K, GK = p->G * p->K, taps = p->conv_q.taps;
    if (p->activated_q)
        tg_linear_activate_bwd(ctx, p, b, &p->conv_q, w, k->q0, d->q1, d->q0, dw);
    if (p->activated_k)
        tg_linear_activate_bwd(ctx, p, b, &p->conv_k, taps_of(p, w, HK), k->k0, d->k1, d->k0,
                               dw ? dw + HK * taps : NULL);
    if (p->activated_v)
        tg_linear_activate_bwd(ctx, p, b, &p->conv_v, taps_of(p, w, HK + GK), values, d->v1, d->v0,
                               dw ? dw + (HK + GK) * taps : NULL);
}

/* The window's gradients are added to dq0, dk0, dv0; in series dv0 is a gradient of the window's
 * output and comes back through it. */
static void window_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                       const struct tg_linear_parts *p, const struct tg_batch *b,
                       const struct kept *k, const struct down *d,
                       const struct tg_mixer_grads *grads)
{
    const size_t HK = p->rows * p->H * p->K, GK = p->rows * p->G * p->K, GV = p->rows * p->G * p->V;
    const struct tg_joint_grads to = {.sink = tg_mixer_grad(m, grads, "sink")};
    if (p->series) {
        ctx->k->axpy(1, d->v0, d->w, GV);
        memset(d->v0, 0, GV * sizeof *d->v0);
    }
    memset(d->qw, 0, HK * sizeof *d->qw);
    memset(d->kw, 0, GK * sizeof *d->kw);
    memset(d->vw, 0, GV * sizeof *d->vw);
    tg_joint_bwd(ctx, &p->window.joint, b, k->qw, k->kw, k->v0, NULL, k->w, k->joint, d->w, d->qw,
                 d->kw, d->vw, NULL, &to, d->joint);
    tg_proj_rotate(ctx, m, b, d->qw, d->kw, -1);
    ctx->k->axpy(1, d->qw, d->q0, HK);
    ctx->k->axpy(1, d->kw, d->k0, GK);
    ctx->k->axpy(1, d->vw, d->v0, GV);
}

/* dz -> its projection, dx */
static void gate_out_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_linear_parts *p, const float *x, const struct kept *k,
                         const struct down *d, float *dx, const struct tg_mixer_grads *grads)
{
    const size_t OV = p->out * p->V, rank = m->spec->recurrent.rank;
    if (p->low_z) {
        tg_linear_bwd(ctx, k->low_z, tg_mixer_param(m, "g_b.weight"), d->z, d->low, 0,
                      tg_mixer_grad(m, grads, "g_b.weight"), tg_mixer_grad(m, grads, "g_b.bias"),
                      p->rows, OV, rank);
        tg_linear_bwd(ctx, x, tg_mixer_param(m, "g_a.weight"), d->low, dx, 1,
                      tg_mixer_grad(m, grads, "g_a.weight"), NULL, p->rows, rank, m->width);
    } else if (p->recipe->z)
        tg_linear_bwd(ctx, x, tg_mixer_param(m, "z.weight"), d->z, dx, 1,
                      tg_mixer_grad(m, grads, "z.weight"), NULL, p->rows, OV, m->width);
}

void tg_linear_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, const float *x, const float *dy,
                         const float *saved, float *dx, const struct tg_mixer_grads *grads,
                         float *work)
{
    struct tg_linear_parts p;
    struct kept k;
    struct down d;
    if (joint(m)) {
        tg_joint_mixer_bwd(ctx, m, b, x, dy, saved, dx, grads, work);
        return;
    }
    tg_linear_parts_of(m, b, &p);
    kept_lay(&p, m, b, true, (float *)(uintptr_t)saved, &k);
    down_lay(&p, m, b, ctx->threads, work, &d);
    tg_proj_out_bwd(ctx, m, b, k.y, dy, d.y, grads, k.out_gates);
    if (p.has_window)
        add_window_bwd(&p, tg_mixer_param(m, "alpha"), &k, &d, tg_mixer_grad(m, grads, "alpha"));
    else
        memcpy(d.l, d.y, p.rows * p.out * p.V * sizeof *d.l);
    norm_bwd(ctx, m, &p, &k, &d, grads);
    recurrence_bwd(ctx, m, &p, b, &k, &d, grads);
    if (p.rotary)
        tg_proj_rotate(ctx, m, b, d.q1, d.k1, -1);
    if (p.recipe->gate == TG_LINEAR_FORGET)
        tg_linear_forget_bwd(ctx, &p.gates, m, p.rows, k.k0, d.g, d.k1, grads);
    activate_bwd(ctx, m, &p, b, &k, &d, grads);
    if (p.has_window)
        window_bwd(ctx, m, &p, b, &k, &d, grads);
    tg_proj_bwd(ctx, m, b, x, k.proj, d.q0, d.k0, d.v0, dx, grads, d.proj);
    tg_linear_gates_bwd(ctx, &p.gates, m, p.rows, x, &k.gates, d.g, d.beta, dx, grads, d.gates);
    if (p.sse.N)
        tg_sse_params_bwd(ctx, m, &p, b, x, &k.sse, dx, grads, d.sse);
    gate_out_bwd(ctx, m, &p, x, &k, &d, dx, grads);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.out_gates, dx, grads);
}
