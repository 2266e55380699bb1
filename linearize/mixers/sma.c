/* Sparse modular activation (Ren et al. 2023, arXiv 2306.11197): a router picks tokens, the picked
 * ones attend to the last `window` picked ones, and a linear path serves all.
 *
 *   r_t = w . x_t + b,  p_t = sigmoid(r_t / tau),  tau = e^temperature;  picked: p_t > 1/2
 *   o_t = softmax attention of t over the last `window` picked j <= t, positions those of the text
 *   e_t = a e_{t-1} + (1 - a) v_t,  a = sigmoid(decay)                        (ema.h)
 *   y_t = p_t o_t [picked] + skip e_t,  out = Wo y
 *
 * Picked rows are made dense, run through the window (joint.h) and put back: cost and memory are
 * those of the picked tokens. r > 0 picks, so the choice does not depend on tau; the router's
 * gradient is that of p alone. Each r is one dot product: forward and decode choose alike. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/ema.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/rows.h"

static struct tg_ema ema_of(const struct tg_mixer *m)
{
    return (struct tg_ema){m->spec->heads, m->spec->kv_heads, tg_value_dim(m->spec),
                           tg_mixer_param(m, "decay")};
}

/* The picked rows of a batch, as a batch of their own */
struct picked {
    size_t *row, *begin, *past; /* [rows] ascending, [B+1], [B] */
    struct tg_batch b;
};

static size_t *carve_sizes(struct tg_carve *c, size_t count)
{
    return (size_t *)(void *)tg_carve(c, count * (sizeof(size_t) / sizeof(float)));
}

static void picked_lay(struct tg_carve *c, const struct tg_batch *b, struct picked *p)
{
    p->row = carve_sizes(c, tg_batch_rows(b));
    p->begin = carve_sizes(c, b->count + 1);
    p->past = carve_sizes(c, b->count);
}

static void pick(const struct tg_batch *b, const float *r, struct picked *p)
{
    size_t n = 0;
    for (size_t i = 0; i < b->count; i++) {
        p->begin[i] = n;
        for (size_t t = b->begin[i]; t < b->begin[i + 1]; t++)
            if (r[t] > 0)
                p->row[n++] = t;
    }
    p->begin[b->count] = n;
    p->b = (struct tg_batch){b->count, p->begin, NULL};
}

/* q, k, v and the output of the picked rows; of all rows: values, router logits, averages, y */
struct kept {
    float *q, *k, *v, *o;
    float *values, *r, *e, *y;
    float *proj, *joint, *gates;
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       bool keep, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    const size_t rows = tg_batch_rows(b), H = j->attn.H, G = j->attn.G, V = j->attn.V;
    memset(k, 0, sizeof *k);
    k->q = tg_carve(&c, rows * H * j->attn.K);
    k->k = tg_carve(&c, rows * G * j->attn.K);
    k->v = tg_carve(&c, rows * G * V);
    k->o = tg_carve(&c, rows * H * V);
    k->values = tg_carve(&c, rows * G * V);
    k->r = tg_carve(&c, rows);
    k->e = tg_carve(&c, rows * H * V);
    k->y = tg_carve(&c, rows * H * V);
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

/* Beside `kept`: projections of all rows, or their gradients */
struct scratch {
    struct picked picked;
    float *kept, *q, *k;
    float *dq, *dk, *dv, *dy, *de, *dr, *own_q, *own_k, *own_v, *own_o, *proj;
    float *ema, *joint;
};

static void forward_lay(const struct tg_mixer *m, const struct tg_joint *j,
                        const struct tg_batch *b, struct tg_carve *c, struct scratch *s)
{
    const struct tg_ema ema = ema_of(m);
    const size_t rows = tg_batch_rows(b);
    struct kept k;
    picked_lay(c, b, &s->picked);
    s->kept = tg_carve(c, kept_lay(m, j, b, false, NULL, &k));
    s->q = tg_carve(c, rows * j->attn.H * j->attn.K);
    s->k = tg_carve(c, rows * j->attn.G * j->attn.K);
    s->ema = tg_carve(c, tg_ema_work(&ema, b, false));
}

static size_t work_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       int threads, bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    const struct tg_ema ema = ema_of(m);
    const size_t rows = tg_batch_rows(b), q = rows * j->attn.H * j->attn.K;
    const size_t k = rows * j->attn.G * j->attn.K, v = rows * j->attn.G * j->attn.V;
    const size_t y = rows * j->attn.H * j->attn.V;
    memset(s, 0, sizeof *s);
    if (!backward) {
        forward_lay(m, j, b, &c, s);
        s->joint = tg_carve(&c, tg_joint_work(j, b, threads, false));
        return c.used;
    }
    picked_lay(&c, b, &s->picked);
    s->dq = tg_carve(&c, q);
    s->dk = tg_carve(&c, k);
    s->dv = tg_carve(&c, v);
    s->dy = tg_carve(&c, y);
    s->de = tg_carve(&c, y);
    s->dr = tg_carve(&c, rows);
    s->own_q = tg_carve(&c, q);
    s->own_k = tg_carve(&c, k);
    s->own_v = tg_carve(&c, v);
    s->own_o = tg_carve(&c, y);
    s->proj = tg_carve(&c, tg_proj_work(m, b));
    s->ema = tg_carve(&c, tg_ema_work(&ema, b, true));
    s->joint = tg_carve(&c, tg_joint_work(j, b, threads, true));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    return work_lay(m, &j, b, threads, backward, NULL, &s);
}

/* A block of rows: of the batch, or of the picked */
struct pass {
    const struct tg_ctx *ctx;
    const struct tg_mixer *m;
    const struct tg_joint *j;
    const struct kept *kept;
    struct scratch *s;
    const float *x;
    const float *skip;
    float tau;
};

static float probability(float r, float tau)
{
    return 1 / (1 + expf(-r / tau));
}

static void route_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const float *w = tg_mixer_param(p->m, "router.weight"),
                *b = tg_mixer_param(p->m, "router.bias");
    size_t D = p->m->width;
    (void)worker;
    for (size_t t = from; t < to; t++)
        p->kept->r[t] = p->ctx->k->dot(p->x + t * D, w, D) + *b;
}

static void compress_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const struct kept *k = p->kept;
    const size_t q = p->j->attn.H * p->j->attn.K, kk = p->j->attn.G * p->j->attn.K;
    const size_t v = p->j->attn.G * p->j->attn.V;
    (void)worker;
    for (size_t i = from; i < to; i++) {
        const size_t row = p->s->picked.row[i];
        memcpy(k->q + i * q, p->s->q + row * q, q * sizeof *k->q);
        memcpy(k->k + i * kk, p->s->k + row * kk, kk * sizeof *k->k);
        memcpy(k->v + i * v, k->values + row * v, v * sizeof *k->v);
    }
}

static void average_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const size_t n = p->j->attn.H * p->j->attn.V;
    (void)worker;
    for (size_t t = from; t < to; t++)
        for (size_t c = 0; c < n; c++)
            p->kept->y[t * n + c] = p->skip[c] * p->kept->e[t * n + c];
}

static void extract_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const size_t n = p->j->attn.H * p->j->attn.V;
    (void)worker;
    for (size_t i = from; i < to; i++) {
        const size_t row = p->s->picked.row[i];
        p->ctx->k->axpy(probability(p->kept->r[row], p->tau), p->kept->o + i * n,
                        p->kept->y + row * n, n);
    }
}

static struct pass pass_of(const struct tg_ctx *ctx, const struct tg_mixer *m,
                           const struct tg_joint *j, const struct kept *k, struct scratch *s,
                           const float *x)
{
    return (struct pass){.ctx = ctx,
                         .m = m,
                         .j = j,
                         .kept = k,
                         .s = s,
                         .x = x,
                         .skip = tg_mixer_param(m, "skip"),
                         .tau = expf(*tg_mixer_param(m, "temperature"))};
}

/* x -> q, k, v of the picked rows, and the averages of all rows, which go on from `states` */
static void compress(struct pass *p, const struct tg_batch *b, struct tg_states states)
{
    const struct kept *k = p->kept;
    const struct tg_ema ema = ema_of(p->m);
    tg_proj_fwd(p->ctx, p->m, b, p->x, p->s->q, p->s->k, k->values, k->proj);
    tg_proj_rotate(p->ctx, p->m, b, p->s->q, p->s->k, 1);
    tg_parallel_rows(p->ctx->threads, tg_batch_rows(b), route_rows, p);
    pick(b, k->r, &p->s->picked);
    tg_parallel_rows(p->ctx->threads, tg_batch_rows(&p->s->picked.b), compress_rows, p);
    tg_ema_fwd(p->ctx, &ema, b, k->values, k->e, states, p->s->ema);
}

static void extract(struct pass *p, const struct tg_batch *b, float *y)
{
    tg_parallel_rows(p->ctx->threads, tg_batch_rows(b), average_rows, p);
    tg_parallel_rows(p->ctx->threads, tg_batch_rows(&p->s->picked.b), extract_rows, p);
    tg_proj_out_fwd(p->ctx, p->m, b, p->x, p->kept->y, y, p->kept->gates);
}

static void forward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const float *x, float *y, float *saved, float *work)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    struct kept k;
    work_lay(m, &j, b, ctx->threads, false, work, &s);
    kept_lay(m, &j, b, saved != NULL, saved ? saved : s.kept, &k);
    struct pass p = pass_of(ctx, m, &j, &k, &s, x);
    compress(&p, b, (struct tg_states){NULL, 0});
    tg_joint_fwd(ctx, &j, &s.picked.b, k.q, k.k, k.v, NULL, k.o, NULL, k.joint, s.joint);
    extract(&p, b, y);
}

/* de of all rows */
static void average_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const size_t n = p->j->attn.H * p->j->attn.V;
    (void)worker;
    for (size_t t = from; t < to; t++)
        for (size_t c = 0; c < n; c++)
            p->s->de[t * n + c] = p->skip[c] * p->s->dy[t * n + c];
}

/* The picked rows' gradients of o and of r */
static void extract_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const size_t n = p->j->attn.H * p->j->attn.V;
    (void)worker;
    for (size_t i = from; i < to; i++) {
        const size_t row = p->s->picked.row[i];
        const float *dy = p->s->dy + row * n, r = p->kept->r[row];
        const float on = probability(r, p->tau), off = probability(-r, p->tau);
        for (size_t c = 0; c < n; c++)
            p->s->own_o[i * n + c] = on * dy[c];
        p->s->dr[row] = p->ctx->k->dot(dy, p->kept->o + i * n, n) * on * off / p->tau;
    }
}

/* The picked rows' gradients of q, k, v, put back */
static void compress_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *p = ud;
    const struct scratch *s = p->s;
    const size_t q = p->j->attn.H * p->j->attn.K, kk = p->j->attn.G * p->j->attn.K;
    const size_t v = p->j->attn.G * p->j->attn.V;
    (void)worker;
    for (size_t i = from; i < to; i++) {
        const size_t row = s->picked.row[i];
        memcpy(s->dq + row * q, s->own_q + i * q, q * sizeof *s->dq);
        memcpy(s->dk + row * kk, s->own_k + i * kk, kk * sizeof *s->dk);
        p->ctx->k->axpy(1, s->own_v + i * v, s->dv + row * v, v);
    }
}

/* Gradients of skip, [H,V], and of the temperature: z = r / tau falls by z with it. */
static void small_params_bwd(const struct pass *p, size_t rows, const struct tg_mixer_grads *d)
{
    const size_t n = p->j->attn.H * p->j->attn.V;
    float *dskip = tg_mixer_grad(p->m, d, "skip"), *dtau = tg_mixer_grad(p->m, d, "temperature");
    double sum = 0;
    for (size_t t = 0; dskip && t < rows; t++)
        for (size_t c = 0; c < n; c++)
            dskip[c] += p->s->dy[t * n + c] * p->kept->e[t * n + c];
    for (size_t t = 0; t < rows; t++)
        sum -= (double)p->s->dr[t] * (double)p->kept->r[t];
    if (dtau)
        *dtau += (float)sum;
}

static void backward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *dy, const float *saved, float *dx,
                     const struct tg_mixer_grads *d, float *work)
{
    const struct tg_joint j = tg_mixer_joint(m);
    const struct tg_ema ema = ema_of(m);
    const size_t rows = tg_batch_rows(b), H = j.attn.H, G = j.attn.G, K = j.attn.K, V = j.attn.V;
    struct scratch s;
    struct kept k;
    work_lay(m, &j, b, ctx->threads, true, work, &s);
    kept_lay(m, &j, b, true, (float *)(uintptr_t)saved, &k);
    struct pass p = pass_of(ctx, m, &j, &k, &s, x);
    pick(b, k.r, &s.picked);
    const size_t own = tg_batch_rows(&s.picked.b);

    tg_proj_out_bwd(ctx, m, b, k.y, dy, s.dy, d, k.gates);
    memset(s.dr, 0, rows * sizeof *s.dr);
    tg_parallel_rows(ctx->threads, rows, average_bwd_rows, &p);
    tg_parallel_rows(ctx->threads, own, extract_bwd_rows, &p);
    small_params_bwd(&p, rows, d);

    memset(s.own_q, 0, own * H * K * sizeof *s.own_q);
    memset(s.own_k, 0, own * G * K * sizeof *s.own_k);
    memset(s.own_v, 0, own * G * V * sizeof *s.own_v);
    const struct tg_joint_grads grads = {.sink = tg_mixer_grad(m, d, "sink")};
    tg_joint_bwd(ctx, &j, &s.picked.b, k.q, k.k, k.v, NULL, k.o, k.joint, s.own_o, s.own_q, s.own_k,
                 s.own_v, NULL, &grads, s.joint);
    memset(s.dq, 0, rows * H * K * sizeof *s.dq);
    memset(s.dk, 0, rows * G * K * sizeof *s.dk);
    memset(s.dv, 0, rows * G * V * sizeof *s.dv);
    tg_parallel_rows(ctx->threads, own, compress_bwd_rows, &p);
    tg_ema_bwd(ctx, &ema, b, k.values, k.e, s.de, s.dv, tg_mixer_grad(m, d, "decay"), s.ema);

    tg_proj_rotate(ctx, m, b, s.dq, s.dk, -1);
    tg_proj_bwd(ctx, m, b, x, k.proj, s.dq, s.dk, s.dv, dx, d, s.proj);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "router.weight"), s.dr, dx, 1,
                  tg_mixer_grad(m, d, "router.weight"), tg_mixer_grad(m, d, "router.bias"), rows, 1,
                  m->width);
}

/* State: the picked tokens' ring, the averages [H,V], the number of picked tokens */
struct store {
    size_t average, count, floats;
};

static struct store store_of(const struct tg_joint *j, size_t capacity)
{
    const size_t ring = tg_joint_state(j, false, capacity), average = j->attn.H * j->attn.V;
    return (struct store){ring, ring + average, ring + average + 1};
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    const struct tg_joint j = tg_mixer_joint(m);
    return store_of(&j, capacity).floats;
}

static size_t step_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       size_t capacity, int threads, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    memset(s, 0, sizeof *s);
    forward_lay(m, j, b, &c, s);
    s->joint = tg_carve(&c, tg_joint_step_work(j, b, capacity, threads));
    return c.used;
}

static size_t step_work_floats(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                               int threads)
{
    const struct tg_joint j = tg_mixer_joint(m);
    struct scratch s;
    return step_lay(m, &j, b, capacity, threads, NULL, &s);
}

/* The number is kept as bits, and below twice the window, where it has the same slot: it is exact
 * however long the text. */
static size_t picked_before(const float *at)
{
    uint32_t n;
    memcpy(&n, at, sizeof n);
    return n;
}

static void set_picked(float *at, size_t count, size_t window)
{
    const uint32_t n = (uint32_t)(count < 2 * window ? count : window + count % window);
    memcpy(at, &n, sizeof n);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    const struct tg_joint j = tg_mixer_joint(m);
    const struct store at = store_of(&j, capacity);
    struct scratch s;
    struct kept k;
    step_lay(m, &j, b, capacity, ctx->threads, work, &s);
    kept_lay(m, &j, b, false, s.kept, &k);
    struct pass p = pass_of(ctx, m, &j, &k, &s, x);
    struct picked *own = &s.picked;
    compress(&p, b, (struct tg_states){states, at.average});
    for (size_t i = 0; i < b->count; i++)
        own->past[i] = picked_before(states[i] + at.count);
    own->b.past = own->past;
    tg_joint_step(ctx, &j, &own->b, capacity, k.q, k.k, k.v, NULL, states, k.o, s.joint);
    for (size_t i = 0; i < b->count; i++)
        set_picked(states[i] + at.count, own->past[i] + own->begin[i + 1] - own->begin[i],
                   j.attn.window);
    extract(&p, b, y);
}

/* All tokens are picked at first, with sigmoid(3) = 0.953 of the window's output, and the averages
 * are not used: near the window row, with a slope left for the router. An average looks back as far
 * as the teacher's head does, or 16 tokens. */
static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    static const struct tg_mixer_start starts[] = {
        {"router.bias", 3},
        {"sink", -4},
        {NULL, 0},
    };
    const size_t V = tg_value_dim(m->spec);
    tg_mixer_start_fill(m, starts, rule, data, count);
    if (strcmp(m->spec->mixer->params[rule].name, "decay") == 0)
        for (size_t c = 0; c < count; c++)
            data[c] = tg_mixer_decay_logit(o->stats ? o->stats->distance[c / V] : 16);
}

const struct tg_mixer_ops tg_mixer_sma = {
    .name = "sma",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = forward,
    .backward = backward,
    .state_floats = state_floats,
    .step_work_floats = step_work_floats,
    .step = step,
    .inherit = inherit,
};
