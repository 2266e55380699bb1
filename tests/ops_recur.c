/* Golden operations of the recurrent mixers: the recurrences with every gate kind, what is
 * computed around them (L2 norm, gates of Mamba-2 and HGRN2), short convolution, gated norm. */
#include "tests/ops.h"

#include <math.h>
#include <string.h>

#include "linearize/kernels/conv.h"
#include "linearize/kernels/gnorm.h"
#include "linearize/kernels/recur.h"
#include "linearize/kernels/scan.h"

/* One recurrence with its inputs and gradients, [B,T] rows */
struct run {
    struct tg_recur r;
    struct tg_batch b;
    size_t rows, states;
    float *q, *k, *v, *g, *beta, *read, *write, *dout;
    float *o, *start, *end, *dstart;
    struct tg_recur_grads d;
};

static size_t gate_size(const struct run *x)
{
    return x->rows * x->r.H * (x->r.gate == TG_GATE_CHANNEL ? x->r.K : 1);
}

/* Forward from the file's start state, backward from a gradient of `out` alone */
static void compute(struct tg_op *op, struct run *x)
{
    size_t B = x->b.count, each = tg_recur_state(&x->r);
    float *starts[16], *grads[16];
    if (B > 16) {
        tg_op_fail(op, "%zu sequences", B);
        return;
    }
    for (size_t i = 0; i < B; i++) {
        starts[i] = x->end + i * each;
        grads[i] = x->dstart + i * each;
    }
    memcpy(x->end, x->start, x->states * sizeof *x->end);
    float *saved = tg_op_floats(op, tg_recur_saved(&x->r, &x->b));
    float *work = tg_op_floats(op, tg_recur_work(&x->r, op->ctx.threads));
    struct tg_recur_in in = {x->q, x->k, x->v, x->g, x->beta, x->read, x->write};
    tg_recur_fwd(&op->ctx, &x->r, &x->b, &in, x->o, (struct tg_states){starts, 0}, saved, work);
    tg_recur_bwd(&op->ctx, &x->r, &x->b, &in, saved, x->dout, &x->d, (struct tg_states){grads, 0},
                 work);
}

static void allocate(struct tg_op *op, struct run *x)
{
    const struct tg_recur *r = &x->r;
    x->states = x->b.count * tg_recur_state(r);
    x->dout = tg_op_load(op, "grad_out");
    x->o = tg_op_floats(op, x->rows * r->H * r->V);
    x->end = tg_op_floats(op, x->states);
    x->dstart = tg_op_floats(op, x->states);
    x->d.q = tg_op_floats(op, x->rows * r->G * r->K);
    x->d.k = tg_op_floats(op, x->rows * r->G * r->K);
    x->d.v = tg_op_floats(op, x->rows * r->H * r->V);
    x->d.beta = tg_op_floats(op, x->rows * r->H);
    x->d.a = tg_op_floats(op, x->read ? x->rows * r->H * r->K : 0);
    x->d.b = tg_op_floats(op, x->read ? x->rows * r->H * r->K : 0);
    x->d.g = r->gate >= TG_GATE_SCALAR ? tg_op_floats(op, gate_size(x)) : NULL;
}

/* Sizes, q, v and start state of a file with in.q [B,T,H,K] and in.v [B,T,H,V] */
static struct run open_run(struct tg_op *op, enum tg_gate gate, enum tg_rule rule)
{
    struct run x = {.r = {.H = tg_op_dim(op, "in.v", 2),
                          .G = tg_op_dim(op, "in.q", 2),
                          .K = tg_op_dim(op, "in.q", 3),
                          .V = tg_op_dim(op, "in.v", 3),
                          .chunk = 16,
                          .gate = gate,
                          .rule = rule,
                          .scale = (float)tg_op_number(op, "scale")}};
    x.b = tg_op_batch(op, tg_op_dim(op, "in.q", 0), tg_op_dim(op, "in.q", 1));
    x.rows = tg_batch_rows(&x.b);
    x.q = tg_op_load(op, "in.q");
    x.v = tg_op_load(op, "in.v");
    x.start = tg_op_load(op, "in.initial_state");
    allocate(op, &x);
    return x;
}

static void check(struct tg_op *op, const struct run *x)
{
    const struct tg_recur *r = &x->r;
    tg_op_check(op, "out", x->o, x->rows * r->H * r->V);
    tg_op_check(op, "final_state", x->end, x->states);
    tg_op_check(op, "grad.initial_state", x->dstart, x->states);
    tg_op_check(op, "grad.q", x->d.q, x->rows * r->G * r->K);
    tg_op_check(op, "grad.v", x->d.v, x->rows * r->H * r->V);
}

static void plain(struct tg_op *op, enum tg_gate gate)
{
    struct run x = open_run(op, gate, TG_RULE_OUTER);
    x.k = tg_op_load(op, "in.k");
    if (gate >= TG_GATE_SCALAR)
        x.g = tg_op_load(op, "in.g");
    if (gate == TG_GATE_CONSTANT) {
        x.g = tg_op_floats(op, x.r.H);
        for (size_t h = 0; h < x.r.H; h++) /* RetNet's decays */
            x.g[h] = log1pf(-exp2f(-5 - (float)h));
    }
    if (op->failed)
        return;
    compute(op, &x);
    check(op, &x);
    tg_op_check(op, "grad.k", x.d.k, x.rows * x.r.G * x.r.K);
    if (x.d.g)
        tg_op_check(op, "grad.g", x.d.g, gate_size(&x));
}

static void retention(struct tg_op *op)
{
    plain(op, TG_GATE_CONSTANT);
}

static void gla(struct tg_op *op)
{
    plain(op, TG_GATE_CHANNEL);
}

/* f = sigmoid(in.f), e^g = f, k = 1 - f */
static void hgrn2(struct tg_op *op)
{
    struct run x = open_run(op, TG_GATE_CHANNEL, TG_RULE_OUTER);
    float *f = tg_op_load(op, "in.f");
    if (op->failed)
        return;
    size_t n = gate_size(&x);
    x.k = tg_op_floats(op, n);
    x.g = tg_op_floats(op, n);
    for (size_t i = 0; i < n; i++) {
        x.k[i] = 1 / (1 + expf(f[i]));
        x.g[i] = -log1pf(expf(-f[i]));
    }
    compute(op, &x);
    check(op, &x);
    for (size_t i = 0; i < n; i++)
        f[i] = x.k[i] * (x.d.g[i] - expf(x.g[i]) * x.d.k[i]);
    tg_op_check(op, "grad.f", f, n);
}

/* q and k over their L2 norms, beta = sigmoid(in.beta) */
static void delta(struct tg_op *op, enum tg_gate gate)
{
    struct run x = open_run(op, gate, TG_RULE_DELTA);
    float *raw_q = x.q, *raw_k = tg_op_load(op, "in.k");
    x.beta = tg_op_load(op, "in.beta");
    x.g = gate ? tg_op_load(op, "in.g") : NULL;
    if (op->failed)
        return;
    struct tg_gnorm norm = {.groups = x.r.G, .n = x.r.K, .l2 = true, .eps = 1e-6F};
    float *rq = tg_op_floats(op, x.rows * x.r.G), *rk = tg_op_floats(op, x.rows * x.r.G);
    size_t n = x.rows * x.r.G * x.r.K;
    x.q = tg_op_floats(op, n);
    x.k = tg_op_floats(op, n);
    tg_gnorm_fwd(&op->ctx, &norm, x.rows, raw_q, NULL, NULL, x.q, rq);
    tg_gnorm_fwd(&op->ctx, &norm, x.rows, raw_k, NULL, NULL, x.k, rk);
    for (size_t i = 0; i < x.rows * x.r.H; i++)
        x.beta[i] = 1 / (1 + expf(-x.beta[i]));
    compute(op, &x);
    tg_gnorm_bwd(&op->ctx, &norm, x.rows, raw_q, NULL, NULL, rq, x.d.q, x.d.q, NULL, NULL, NULL);
    tg_gnorm_bwd(&op->ctx, &norm, x.rows, raw_k, NULL, NULL, rk, x.d.k, x.d.k, NULL, NULL, NULL);
    for (size_t i = 0; i < x.rows * x.r.H; i++)
        x.d.beta[i] *= x.beta[i] * (1 - x.beta[i]);
    check(op, &x);
    tg_op_check(op, "grad.k", x.d.k, n);
    tg_op_check(op, "grad.beta", x.d.beta, x.rows * x.r.H);
    if (gate)
        tg_op_check(op, "grad.g", x.d.g, gate_size(&x));
}

static void delta_rule(struct tg_op *op)
{
    delta(op, TG_GATE_NONE);
}

static void gated_delta_rule(struct tg_op *op)
{
    delta(op, TG_GATE_SCALAR);
}

static void kda(struct tg_op *op)
{
    delta(op, TG_GATE_CHANNEL);
}

/* out = C S + D x with k = B, q = C, v = dt x */
static void mamba2(struct tg_op *op)
{
    struct run x = {.r = {.H = tg_op_dim(op, "in.x", 2),
                          .G = 1,
                          .K = tg_op_dim(op, "in.B", 2),
                          .V = tg_op_dim(op, "in.x", 3),
                          .gate = TG_GATE_SCALAR,
                          .scale = 1}};
    x.b = tg_op_batch(op, tg_op_dim(op, "in.x", 0), tg_op_dim(op, "in.x", 1));
    x.rows = tg_batch_rows(&x.b);
    x.q = tg_op_load(op, "in.C");
    x.k = tg_op_load(op, "in.B");
    float *in = tg_op_load(op, "in.x"), *raw = tg_op_load(op, "in.dt");
    const float *bias = tg_op_load(op, "in.dt_bias"), *A_log = tg_op_load(op, "in.A_log");
    const float *skip = tg_op_load(op, "in.D");
    if (op->failed)
        return;
    size_t H = x.r.H, V = x.r.V, n = x.rows * H * V;
    struct tg_decay decay = {.H = H, .n = 1, .high = INFINITY};
    x.start = tg_op_floats(op, x.b.count * tg_recur_state(&x.r));
    allocate(op, &x);
    x.g = tg_op_floats(op, x.rows * H);
    x.v = tg_op_floats(op, n);
    float *dt = tg_op_floats(op, x.rows * H), *ddt = tg_op_floats(op, x.rows * H);
    float *dbias = tg_op_floats(op, H), *dA = tg_op_floats(op, H), *dskip = tg_op_floats(op, H);
    tg_decay_fwd(&op->ctx, &decay, x.rows, raw, bias, A_log, dt, x.g);
    for (size_t i = 0; i < n; i++)
        x.v[i] = dt[i / V] * in[i];
    compute(op, &x);
    for (size_t i = 0; i < n; i++) {
        x.o[i] += skip[i / V % H] * in[i];
        dskip[i / V % H] += x.dout[i] * in[i];
        ddt[i / V] += x.d.v[i] * in[i];
        in[i] = x.d.v[i] * dt[i / V] + x.dout[i] * skip[i / V % H];
    }
    tg_decay_bwd(&op->ctx, &decay, x.rows, raw, bias, A_log, x.d.g, ddt, dt, dbias, dA);
    tg_op_check(op, "out", x.o, n);
    tg_op_check(op, "final_state", x.end, x.states);
    tg_op_check(op, "grad.C", x.d.q, x.rows * x.r.K);
    tg_op_check(op, "grad.B", x.d.k, x.rows * x.r.K);
    tg_op_check(op, "grad.x", in, n);
    tg_op_check(op, "grad.dt", dt, x.rows * H);
    tg_op_check(op, "grad.dt_bias", dbias, H);
    tg_op_check(op, "grad.A_log", dA, H);
    tg_op_check(op, "grad.D", dskip, H);
}

/* q = r, log gate w */
static void rwkv7(struct tg_op *op)
{
    struct run x = {.r = {.H = tg_op_dim(op, "in.v", 2),
                          .G = tg_op_dim(op, "in.r", 2),
                          .K = tg_op_dim(op, "in.r", 3),
                          .V = tg_op_dim(op, "in.v", 3),
                          .gate = TG_GATE_CHANNEL,
                          .rule = TG_RULE_GENERAL,
                          .scale = 1}};
    x.b = tg_op_batch(op, tg_op_dim(op, "in.r", 0), tg_op_dim(op, "in.r", 1));
    x.rows = tg_batch_rows(&x.b);
    x.q = tg_op_load(op, "in.r");
    x.k = tg_op_load(op, "in.k");
    x.v = tg_op_load(op, "in.v");
    x.g = tg_op_load(op, "in.w");
    x.read = tg_op_load(op, "in.a");
    x.write = tg_op_load(op, "in.b");
    x.start = tg_op_load(op, "in.initial_state");
    if (op->failed)
        return;
    allocate(op, &x);
    compute(op, &x);
    size_t n = gate_size(&x);
    tg_op_check(op, "out", x.o, x.rows * x.r.H * x.r.V);
    tg_op_check(op, "final_state", x.end, x.states);
    tg_op_check(op, "grad.initial_state", x.dstart, x.states);
    tg_op_check(op, "grad.r", x.d.q, n);
    tg_op_check(op, "grad.k", x.d.k, n);
    tg_op_check(op, "grad.v", x.d.v, x.rows * x.r.H * x.r.V);
    tg_op_check(op, "grad.w", x.d.g, n);
    tg_op_check(op, "grad.a", x.d.a, n);
    tg_op_check(op, "grad.b", x.d.b, n);
}

static void short_conv_silu(struct tg_op *op)
{
    struct tg_conv c = {
        .D = tg_op_dim(op, "in.x", 2), .taps = tg_op_dim(op, "in.w", 1), .silu = true};
    struct tg_batch b = tg_op_batch(op, tg_op_dim(op, "in.x", 0), tg_op_dim(op, "in.x", 1));
    size_t rows = tg_batch_rows(&b);
    const float *x = tg_op_load(op, "in.x"), *w = tg_op_load(op, "in.w");
    float *dy = tg_op_load(op, "grad_out");
    if (op->failed)
        return;
    float *y = tg_op_floats(op, rows * c.D), *dx = tg_op_floats(op, rows * c.D);
    float *dw = tg_op_floats(op, c.D * c.taps);
    tg_conv_fwd(&op->ctx, &c, &b, x, w, NULL, y, (struct tg_states){0});
    tg_conv_bwd(&op->ctx, &c, &b, x, w, NULL, dy, dx, dw, NULL);
    tg_op_check(op, "out", y, rows * c.D);
    tg_op_check(op, "grad.x", dx, rows * c.D);
    tg_op_check(op, "grad.w", dw, c.D * c.taps);
}

static void gated_rmsnorm(struct tg_op *op)
{
    struct tg_gnorm g = {.groups = tg_op_dim(op, "in.x", 2),
                         .n = tg_op_dim(op, "in.x", 3),
                         .shared = true,
                         .gate = TG_GATE_FN_SILU,
                         .eps = (float)tg_op_number(op, "eps")};
    size_t rows = tg_op_dim(op, "in.x", 0) * tg_op_dim(op, "in.x", 1), n = rows * g.groups * g.n;
    const float *x = tg_op_load(op, "in.x"), *z = tg_op_load(op, "in.z");
    const float *w = tg_op_load(op, "in.w"), *dy = tg_op_load(op, "grad_out");
    if (op->failed)
        return;
    float *y = tg_op_floats(op, n), *r = tg_op_floats(op, rows * g.groups);
    float *dx = tg_op_floats(op, n), *dz = tg_op_floats(op, n), *dw = tg_op_floats(op, g.n);
    tg_gnorm_fwd(&op->ctx, &g, rows, x, z, w, y, r);
    tg_gnorm_bwd(&op->ctx, &g, rows, x, z, w, r, dy, dx, dz, dw,
                 tg_op_floats(op, tg_gnorm_work(&g, rows)));
    tg_op_check(op, "out", y, n);
    tg_op_check(op, "grad.x", dx, n);
    tg_op_check(op, "grad.z", dz, n);
    tg_op_check(op, "grad.w", dw, g.n);
}

/* h_t = f h_{t-1} + (1 - f) i, f = sigmoid(in.f) */
static void hgrn(struct tg_op *op)
{
    size_t B = tg_op_dim(op, "in.f", 0), T = tg_op_dim(op, "in.f", 1), D = tg_op_dim(op, "in.f", 2);
    struct tg_batch b = tg_op_batch(op, B, T);
    float *f = tg_op_load(op, "in.f"), *in = tg_op_load(op, "in.i");
    float *end = tg_op_load(op, "in.initial_state"), *start = tg_op_load(op, "in.initial_state");
    float *dh = tg_op_load(op, "grad_out"), *ends[16], *starts[16], *grads[16];
    if (op->failed || B > 16)
        return;
    float *u = tg_op_floats(op, B * T * D), *h = tg_op_floats(op, B * T * D);
    float *da = tg_op_floats(op, B * T * D), *dstart = tg_op_floats(op, B * D);
    for (size_t i = 0; i < B; i++) {
        ends[i] = end + i * D;
        starts[i] = start + i * D;
        grads[i] = dstart + i * D;
    }
    for (size_t i = 0; i < B * T * D; i++) {
        f[i] = 1 / (1 + expf(-f[i]));
        u[i] = (1 - f[i]) * in[i];
    }
    tg_lru_fwd(&op->ctx, D, &b, f, u, h, (struct tg_states){ends, 0});
    tg_lru_bwd(&op->ctx, D, &b, f, h, (struct tg_states){starts, 0}, dh, da,
               (struct tg_states){grads, 0});
    for (size_t i = 0; i < B * T * D; i++) {
        da[i] = (da[i] - dh[i] * in[i]) * f[i] * (1 - f[i]);
        dh[i] *= 1 - f[i];
    }
    tg_op_check(op, "out", h, B * T * D);
    tg_op_check(op, "final_state", end, B * D);
    tg_op_check(op, "grad.f", da, B * T * D);
    tg_op_check(op, "grad.i", dh, B * T * D);
    tg_op_check(op, "grad.initial_state", dstart, B * D);
}

const struct tg_op_row tg_ops_recur[] = {
    {"retention", retention},
    {"gla", gla},
    {"hgrn2", hgrn2},
    {"delta_rule", delta_rule},
    {"gated_delta_rule", gated_delta_rule},
    {"kda", kda},
    {"rwkv7", rwkv7},
    {"mamba2", mamba2},
    {"short_conv_silu", short_conv_silu},
    {"gated_rmsnorm", gated_rmsnorm},
    {"hgrn", hgrn},
    {NULL, NULL},
};
