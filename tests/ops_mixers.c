/* Golden operations of the linear mixers: the outer-product recurrence, the joint denominator of
 * gated_window and LoLCATs, Lizard's two branches. On q, k, v and gate logits, without projections.
 */
#include "tests/ops.h"

#include <math.h>
#include <string.h>

#include "linearize/kernels/outer.h"
#include "linearize/mixers/joint.h"
#include "linearize/mixers/lizard.h"

struct sizes {
    size_t B, T, H, G, K, V, F, sinks, rows;
};

static struct sizes sizes_of(struct tg_op *op, bool maps, bool sinks)
{
    struct sizes s = {
        .B = tg_op_dim(op, "in.q", 0),
        .T = tg_op_dim(op, "in.q", 1),
        .H = tg_op_dim(op, "in.q", 2),
        .G = tg_op_dim(op, "in.v", 2),
        .K = tg_op_dim(op, "in.q", 3),
        .V = tg_op_dim(op, "in.v", 3),
        .F = maps ? tg_op_dim(op, "in.wq", 2) : 0,
        .sinks = sinks ? tg_op_dim(op, "in.sink", 1) : 0,
    };
    s.rows = s.B * s.T;
    return s;
}

/* out_t = scale q_t S_t; state [B,H,K,V] and z behind each head's S */
static void outer(struct tg_op *op, bool gated)
{
    struct sizes n = sizes_of(op, false, false);
    struct tg_outer o = {.H = n.H, .G = n.G, .K = n.K, .V = n.V, .chunk = 16};
    struct tg_batch b = tg_op_batch(op, n.B, n.T);
    float scale = (float)tg_op_number(op, "scale");
    float *q = tg_op_load(op, "in.q"), *k = tg_op_load(op, "in.k"), *v = tg_op_load(op, "in.v");
    const float *g = gated ? tg_op_load(op, "in.g") : NULL, *dy = tg_op_load(op, "grad_out");
    const float *start = tg_op_load(op, "in.initial_state");
    if (op->failed)
        return;
    size_t heads = n.B * n.H, KV = n.K * n.V, each = KV + n.K;
    float *state = tg_op_floats(op, heads * each), *dstate = tg_op_floats(op, heads * each);
    float *S = tg_op_floats(op, heads * KV), *y = tg_op_floats(op, n.rows * n.H * n.V);
    float *dq = tg_op_floats(op, n.rows * n.H * n.K), *dk = tg_op_floats(op, n.rows * n.H * n.K);
    float *dv = tg_op_floats(op, n.rows * n.G * n.V), *dg = tg_op_floats(op, n.rows * n.H);
    float *saved = tg_op_floats(op, tg_outer_saved(&o, &b));
    float *work = tg_op_floats(op, tg_outer_work(&o, &b, op->ctx.threads));
    for (size_t i = 0; i < heads; i++)
        memcpy(state + i * each, start + i * KV, KV * sizeof *S);
    op->ctx.k->scale(scale, q, n.rows * n.H * n.K);
    tg_outer_fwd(&op->ctx, &o, &b, q, k, v, g, y, NULL, state, saved, work);
    tg_outer_bwd(&op->ctx, &o, &b, q, k, v, g, saved, dy, NULL, dq, dk, dv, dg, dstate, work);
    op->ctx.k->scale(scale, dq, n.rows * n.H * n.K);
    tg_op_check(op, "out", y, n.rows * n.H * n.V);
    for (size_t i = 0; i < heads; i++)
        memcpy(S + i * KV, state + i * each, KV * sizeof *S);
    tg_op_check(op, "final_state", S, heads * KV);
    for (size_t i = 0; i < heads; i++)
        memcpy(S + i * KV, dstate + i * each, KV * sizeof *S);
    tg_op_check(op, "grad.initial_state", S, heads * KV);
    tg_op_check(op, "grad.q", dq, n.rows * n.H * n.K);
    tg_op_check(op, "grad.k", dk, n.rows * n.H * n.K);
    tg_op_check(op, "grad.v", dv, n.rows * n.G * n.V);
    if (gated)
        tg_op_check(op, "grad.g", dg, n.rows * n.H);
}

static void linear_attention(struct tg_op *op)
{
    outer(op, false);
}

static void simple_gla(struct tg_op *op)
{
    outer(op, true);
}

static const float *log_gates(struct tg_op *op, size_t count)
{
    float *g = tg_op_load(op, "in.gate");
    for (size_t i = 0; i < count; i++)
        g[i] = tg_log_sigmoid(g[i]);
    return g;
}

static void gate_logits(const float *g, float *dg, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dg[i] *= -expm1f(g[i]);
}

static struct tg_far far_of(struct tg_op *op, const struct sizes *n, size_t lag)
{
    return (struct tg_far){.H = n->H,
                           .G = n->G,
                           .V = n->V,
                           .map = {TG_MAP_HEDGEHOG_SOFTMAX, n->K, n->F},
                           .lag = lag,
                           .chunk = 16,
                           .wq = tg_op_load(op, "in.wq"),
                           .wk = tg_op_load(op, "in.wk")};
}

static struct tg_joint joint_of(struct tg_op *op, const struct sizes *n)
{
    size_t window = (size_t)tg_op_number(op, "window");
    return (struct tg_joint){
        .attn = {n->H, n->G, n->K, n->V, window, (float)tg_op_number(op, "scale")},
        .sinks = n->sinks,
        .sink = n->sinks ? tg_op_load(op, "in.sink") : NULL};
}

static void joint(struct tg_op *op, bool from_max, bool gated, bool sinks)
{
    struct sizes n = sizes_of(op, true, sinks);
    struct tg_batch b = tg_op_batch(op, n.B, n.T);
    struct tg_joint j = joint_of(op, &n);
    j.has_far = true;
    j.from_max = from_max;
    j.logit = tg_op_load(op, from_max ? "in.window_logit" : "in.far_logit");
    j.far = far_of(op, &n, j.attn.window);
    const float *q = tg_op_load(op, "in.q"), *k = tg_op_load(op, "in.k");
    const float *v = tg_op_load(op, "in.v"), *dy = tg_op_load(op, "grad_out");
    const float *g = gated ? log_gates(op, n.rows * n.H) : NULL;
    if (op->failed)
        return;
    float *y = tg_op_floats(op, n.rows * n.H * n.V), *dq = tg_op_floats(op, n.rows * n.H * n.K);
    float *dk = tg_op_floats(op, n.rows * n.G * n.K), *dv = tg_op_floats(op, n.rows * n.G * n.V);
    float *dg = tg_op_floats(op, n.rows * n.H), *saved = tg_op_floats(op, tg_joint_saved(&j, &b));
    struct tg_joint_grads d = {.logit = tg_op_floats(op, n.H),
                               .sink = tg_op_floats(op, n.H * n.sinks),
                               .wq = tg_op_floats(op, n.H * n.K * n.F),
                               .wk = tg_op_floats(op, n.H * n.K * n.F)};
    float *work = tg_op_floats(op, tg_joint_work(&j, &b, op->ctx.threads, false) +
                                       tg_joint_work(&j, &b, op->ctx.threads, true));
    tg_joint_fwd(&op->ctx, &j, &b, q, k, v, g, y, NULL, saved, work);
    tg_joint_bwd(&op->ctx, &j, &b, q, k, v, g, y, saved, dy, dq, dk, dv, gated ? dg : NULL, &d,
                 work);
    tg_op_check(op, "out", y, n.rows * n.H * n.V);
    tg_op_check(op, "grad.q", dq, n.rows * n.H * n.K);
    tg_op_check(op, "grad.k", dk, n.rows * n.G * n.K);
    tg_op_check(op, "grad.v", dv, n.rows * n.G * n.V);
    tg_op_check(op, "grad.wq", d.wq, n.H * n.K * n.F);
    tg_op_check(op, "grad.wk", d.wk, n.H * n.K * n.F);
    tg_op_check(op, from_max ? "grad.window_logit" : "grad.far_logit", d.logit, n.H);
    if (sinks)
        tg_op_check(op, "grad.sink", d.sink, n.H * n.sinks);
    if (gated) {
        gate_logits(g, dg, n.rows * n.H);
        tg_op_check(op, "grad.gate", dg, n.rows * n.H);
    }
}

static void gated_window(struct tg_op *op)
{
    joint(op, false, true, true);
}

static void lolcats(struct tg_op *op)
{
    joint(op, true, false, false);
}

static void gated_lolcats(struct tg_op *op)
{
    joint(op, true, true, true);
}

/* The file has one q and one k for both branches. */
static void lizard(struct tg_op *op)
{
    struct sizes n = sizes_of(op, true, true);
    struct tg_batch b = tg_op_batch(op, n.B, n.T);
    struct tg_lizard l = {
        .window = joint_of(op, &n), .all = far_of(op, &n, 0), .alpha = tg_op_load(op, "in.alpha")};
    struct tg_lizard_heads x = {.q = tg_op_load(op, "in.q"),
                                .k = tg_op_load(op, "in.k"),
                                .v = tg_op_load(op, "in.v"),
                                .g = log_gates(op, n.rows * n.H)};
    const float *dy = tg_op_load(op, "grad_out");
    x.q0 = x.q;
    x.k0 = x.k;
    if (op->failed)
        return;
    float *y = tg_op_floats(op, n.rows * n.H * n.V);
    float *saved = tg_op_floats(op, tg_lizard_saved(&l, &b));
    float *work = tg_op_floats(op, tg_lizard_work(&l, &b, op->ctx.threads, false) +
                                       tg_lizard_work(&l, &b, op->ctx.threads, true));
    struct tg_lizard_grads d = {.q = tg_op_floats(op, n.rows * n.H * n.K),
                                .k = tg_op_floats(op, n.rows * n.G * n.K),
                                .v = tg_op_floats(op, n.rows * n.G * n.V),
                                .g = tg_op_floats(op, n.rows * n.H),
                                .alpha = tg_op_floats(op, n.H),
                                .sink = tg_op_floats(op, n.H * n.sinks),
                                .wq = tg_op_floats(op, n.H * n.K * n.F),
                                .wk = tg_op_floats(op, n.H * n.K * n.F)};
    d.q0 = d.q;
    d.k0 = d.k;
    tg_lizard_fwd(&op->ctx, &l, &b, &x, y, NULL, saved, work);
    tg_lizard_bwd(&op->ctx, &l, &b, &x, saved, dy, &d, work);
    gate_logits(x.g, d.g, n.rows * n.H);
    tg_op_check(op, "out", y, n.rows * n.H * n.V);
    tg_op_check(op, "grad.q", d.q, n.rows * n.H * n.K);
    tg_op_check(op, "grad.k", d.k, n.rows * n.G * n.K);
    tg_op_check(op, "grad.v", d.v, n.rows * n.G * n.V);
    tg_op_check(op, "grad.gate", d.g, n.rows * n.H);
    tg_op_check(op, "grad.alpha", d.alpha, n.H);
    tg_op_check(op, "grad.sink", d.sink, n.H * n.sinks);
    tg_op_check(op, "grad.wq", d.wq, n.H * n.K * n.F);
    tg_op_check(op, "grad.wk", d.wk, n.H * n.K * n.F);
}

/* No projection: W is the identity. */
static void based_taylor(struct tg_op *op)
{
    struct sizes n = sizes_of(op, false, false);
    struct tg_map map = {TG_MAP_TAYLOR, n.K, n.K};
    size_t F = tg_map_features(&map), heads = n.rows * n.H, count = heads * n.V;
    struct tg_batch b = tg_op_batch(op, n.B, n.T);
    struct tg_outer o = {.H = n.H, .G = n.G, .K = F, .V = n.V};
    const float *x[2] = {tg_op_load(op, "in.q"), tg_op_load(op, "in.k")};
    const float *v = tg_op_load(op, "in.v"), *dy = tg_op_load(op, "grad_out");
    if (op->failed)
        return;
    float *w = tg_op_floats(op, n.K * n.K), *dw = tg_op_floats(op, n.K * n.K), *phi[2], *dphi[2];
    for (size_t i = 0; i < n.K; i++)
        w[i * n.K + i] = 1;
    for (size_t a = 0; a < 2; a++) {
        phi[a] = tg_op_floats(op, heads * F);
        dphi[a] = tg_op_floats(op, heads * F);
        tg_map_fwd(op->ctx.k, &map, heads, x[a], n.K, w, phi[a], F);
    }
    float *y = tg_op_floats(op, count), *den = tg_op_floats(op, heads);
    float *dnum = tg_op_floats(op, count), *dden = tg_op_floats(op, heads);
    float *dv = tg_op_floats(op, n.rows * n.G * n.V);
    float *saved = tg_op_floats(op, tg_outer_saved(&o, &b));
    float *work = tg_op_floats(op, tg_outer_work(&o, &b, op->ctx.threads));
    tg_outer_fwd(&op->ctx, &o, &b, phi[0], phi[1], v, NULL, y, den, NULL, saved, work);
    for (size_t i = 0; i < count; i++) {
        float total = den[i / n.V] + 1e-12F;
        y[i] /= total;
        dnum[i] = dy[i] / total;
        dden[i / n.V] -= dnum[i] * y[i];
    }
    tg_outer_bwd(&op->ctx, &o, &b, phi[0], phi[1], v, NULL, saved, dnum, dden, dphi[0], dphi[1], dv,
                 NULL, NULL, work);
    tg_op_check(op, "out", y, count);
    tg_op_check(op, "grad.v", dv, n.rows * n.G * n.V);
    for (size_t a = 0; a < 2; a++) {
        float *dx = tg_op_floats(op, heads * n.K);
        tg_map_bwd(op->ctx.k, &map, heads, x[a], n.K, w, phi[a], dphi[a], F, dx, dw);
        tg_op_check(op, a ? "grad.k" : "grad.q", dx, heads * n.K);
    }
}

const struct tg_op_row tg_ops_mixers[] = {
    {"linear_attention", linear_attention},
    {"simple_gla", simple_gla},
    {"based_taylor", based_taylor},
    {"gated_window", gated_window},
    {"lolcats", lolcats},
    {"gated_lolcats", gated_lolcats},
    {"lizard", lizard},
    {NULL, NULL},
};
