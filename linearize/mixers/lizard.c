/* Lizard (arXiv 2507.09025): gated linear attention over everything plus a window softmax, each
 * with its own denominator:
 *
 *   yg_t = sum_{j <= t} D_tj phi(q_t).phi(k_j) v_j / sum_{j <= t} D_tj phi(q_t).phi(k_j)
 *   ya_t = sum_{t-j < window} e^{s_tj} v_j / (sum_{t-j < window} e^{s_tj} + sum_m e^{sink_hm})
 *   y_t  = yg_t + alpha_h ya_t,   D_tj the product of sigmoid(gate_l), l = j+1..t
 *
 * yg without rotary, ya with it: that the window keeps the rotary is a reading of the paper, backed
 * by a reproduction.
 *
 * Backward: dnum = dyg / den, dden = -(dyg.yg) / den, dya = alpha dy, dalpha_h = sum_t dy.ya. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/outer.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/lizard.h"
#include "linearize/mixers/ring.h"
#include "linearize/mixers/rows.h"

static struct tg_lizard lizard_of(const struct tg_mixer *m)
{
    struct tg_lizard l = {.all = tg_mixer_far(m, 0), .alpha = tg_mixer_param(m, "alpha")};
    l.window = (struct tg_joint){
        .attn = tg_mixer_attn(m), .sinks = m->spec->sinks, .sink = tg_mixer_param(m, "sink")};
    return l;
}

struct kept {
    float *q, *k, *q0, *k0, *v, *g, *y;
    float *proj, *heads, *gates;
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_lizard *l,
                       const struct tg_batch *b, bool keep, float *base, struct kept *k)
{
    const struct tg_layer_spec *s = m->spec;
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), HK = s->heads * s->head_dim, GK = s->kv_heads * s->head_dim;
    size_t V = tg_value_dim(s);
    k->q = tg_carve(&c, rows * HK);
    k->k = tg_carve(&c, rows * GK);
    k->q0 = tg_carve(&c, rows * HK);
    k->k0 = tg_carve(&c, rows * GK);
    k->v = tg_carve(&c, rows * s->kv_heads * V);
    k->g = tg_carve(&c, rows * s->heads);
    k->y = tg_carve(&c, rows * s->heads * V);
    k->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    k->proj = keep ? tg_carve(&c, tg_proj_saved(m, b)) : NULL;
    k->heads = keep ? tg_carve(&c, tg_lizard_saved(l, b)) : NULL;
    return c.used;
}

static size_t saved_floats(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct tg_lizard l = lizard_of(m);
    struct kept k;
    return kept_lay(m, &l, b, true, NULL, &k);
}

struct scratch {
    float *kept, *heads;
    float *dq, *dk, *dq0, *dk0, *dv, *dg, *dy, *proj;
};

static size_t work_lay(const struct tg_mixer *m, const struct tg_lizard *l,
                       const struct tg_batch *b, int threads, bool backward, float *base,
                       struct scratch *s)
{
    const struct tg_layer_spec *spec = m->spec;
    struct tg_carve c = {base, 0};
    struct kept k;
    size_t rows = tg_batch_rows(b), HK = spec->heads * spec->head_dim;
    size_t GK = spec->kv_heads * spec->head_dim, V = tg_value_dim(spec);
    memset(s, 0, sizeof *s);
    s->heads = tg_carve(&c, tg_lizard_work(l, b, threads, backward));
    if (!backward) {
        s->kept = tg_carve(&c, kept_lay(m, l, b, false, NULL, &k));
        return c.used;
    }
    s->dq = tg_carve(&c, rows * HK);
    s->dk = tg_carve(&c, rows * GK);
    s->dq0 = tg_carve(&c, rows * HK);
    s->dk0 = tg_carve(&c, rows * GK);
    s->dv = tg_carve(&c, rows * spec->kv_heads * V);
    s->dg = tg_carve(&c, rows * spec->heads);
    s->dy = tg_carve(&c, rows * spec->heads * V);
    s->proj = tg_carve(&c, tg_proj_work(m, b));
    return c.used;
}

static size_t work_floats(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward)
{
    struct tg_lizard l = lizard_of(m);
    struct scratch s;
    return work_lay(m, &l, b, threads, backward, NULL, &s);
}

/* x -> q0, k0, their rotated copies, v and gates */
static void heads_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const float *x, const struct kept *k)
{
    const struct tg_layer_spec *s = m->spec;
    size_t rows = tg_batch_rows(b);
    tg_proj_fwd(ctx, m, b, x, k->q0, k->k0, k->v, k->proj);
    memcpy(k->q, k->q0, rows * s->heads * s->head_dim * sizeof *k->q);
    memcpy(k->k, k->k0, rows * s->kv_heads * s->head_dim * sizeof *k->k);
    tg_proj_rotate(ctx, m, b, k->q, k->k, 1);
    tg_gate_fwd(ctx, m, rows, x, k->g);
}

static void forward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const float *x, float *y, float *saved, float *work)
{
    struct tg_lizard l = lizard_of(m);
    struct scratch s;
    struct kept k;
    work_lay(m, &l, b, ctx->threads, false, work, &s);
    kept_lay(m, &l, b, saved != NULL, saved ? saved : s.kept, &k);
    heads_fwd(ctx, m, b, x, &k);
    struct tg_lizard_heads heads = {k.q, k.k, k.q0, k.k0, k.v, k.g};
    tg_lizard_fwd(ctx, &l, b, &heads, k.y, NULL, k.heads, s.heads);
    tg_proj_out_fwd(ctx, m, b, x, k.y, y, k.gates);
}

static void backward(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *dy, const float *saved, float *dx,
                     const struct tg_mixer_grads *d, float *work)
{
    struct tg_lizard l = lizard_of(m);
    struct scratch s;
    struct kept k;
    work_lay(m, &l, b, ctx->threads, true, work, &s);
    kept_lay(m, &l, b, true, (float *)(uintptr_t)saved, &k);
    size_t rows = tg_batch_rows(b), HK = m->spec->heads * m->spec->head_dim;
    size_t GK = m->spec->kv_heads * m->spec->head_dim;
    tg_proj_out_bwd(ctx, m, b, k.y, dy, s.dy, d, k.gates);
    memset(s.dq, 0, (size_t)((char *)s.dy - (char *)s.dq)); /* dq .. dg lie one after another */
    struct tg_lizard_heads heads = {k.q, k.k, k.q0, k.k0, k.v, k.g};
    struct tg_lizard_grads grads = {.q = s.dq,
                                    .k = s.dk,
                                    .q0 = s.dq0,
                                    .k0 = s.dk0,
                                    .v = s.dv,
                                    .g = s.dg,
                                    .alpha = tg_mixer_grad(m, d, "alpha"),
                                    .sink = tg_mixer_grad(m, d, "sink"),
                                    .wq = tg_mixer_grad(m, d, "map_q.weight"),
                                    .wk = tg_mixer_grad(m, d, "map_k.weight")};
    tg_lizard_bwd(ctx, &l, b, &heads, k.heads, s.dy, &grads, s.heads);
    tg_proj_rotate(ctx, m, b, s.dq, s.dk, -1);
    ctx->k->axpy(1, s.dq0, s.dq, rows * HK);
    ctx->k->axpy(1, s.dk0, s.dk, rows * GK);
    tg_proj_bwd(ctx, m, b, x, k.proj, s.dq, s.dk, s.dv, dx, d, s.proj);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
    tg_gate_bwd(ctx, m, rows, x, k.g, s.dg, dx, d);
}

/* State of a sequence: ring of rotated keys and values, then the linear state */
static struct tg_ring ring_of(const struct tg_mixer *m)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct tg_ring){s->kv_heads, s->head_dim, tg_value_dim(s), s->window};
}

static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct tg_lizard l = lizard_of(m);
    struct tg_ring r = ring_of(m);
    (void)capacity;
    return tg_ring_floats(&r) + tg_far_state(&l.all);
}

/* Many new tokens: the window over [ring, new], the linear branch over the new ones from its state
 */
struct piece {
    size_t begin[2], begin_new[2];
    float *q, *k, *v, *ya, *num, *den, *window, *all;
};

static size_t piece_lay(const struct tg_lizard *l, size_t held, size_t n, int threads, float *base,
                        struct piece *p)
{
    struct tg_carve c = {base, 0};
    size_t rows = held + n, H = l->all.H, G = l->all.G, K = l->all.map.K, V = l->all.V;
    *p = (struct piece){.begin = {0, rows}, .begin_new = {0, n}};
    struct tg_batch both = {1, p->begin, NULL}, new = {1, p->begin_new, NULL};
    p->q = tg_carve(&c, rows * H * K);
    p->k = tg_carve(&c, rows * G * K);
    p->v = tg_carve(&c, rows * G * V);
    p->ya = tg_carve(&c, rows * H * V);
    p->num = tg_carve(&c, n * H * V);
    p->den = tg_carve(&c, n * H);
    p->window = tg_carve(&c, tg_joint_work(&l->window, &both, threads, false));
    p->all = tg_carve(&c, tg_far_work(&l->all, &new, threads, false));
    return c.used;
}

struct step_scratch {
    struct kept kept;
    float *worker;
    size_t per_worker;
    float *piece;
};

static size_t step_lay(const struct tg_mixer *m, const struct tg_lizard *l,
                       const struct tg_batch *b, int threads, float *base, struct step_scratch *s)
{
    struct tg_carve c = {base, 0};
    struct piece p;
    size_t most = 0;
    for (size_t i = 0; i < b->count; i++)
        most = b->begin[i + 1] - b->begin[i] > most ? b->begin[i + 1] - b->begin[i] : most;
    most = most < TG_STEP_PIECE ? most : TG_STEP_PIECE;
    float *kept = tg_carve(&c, kept_lay(m, l, b, false, NULL, &s->kept));
    kept_lay(m, l, b, false, kept, &s->kept);
    s->per_worker = m->spec->window + 2 * l->all.V + 2 * tg_map_features(&l->all.map);
    s->worker = tg_carve(&c, s->per_worker * (size_t)threads);
    s->piece = most < TG_STEP_ROWS_MIN
                   ? NULL
                   : tg_carve(&c, piece_lay(l, m->spec->window, most, threads, NULL, &p));
    return c.used;
}

static size_t step_work_floats(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                               int threads)
{
    struct tg_lizard l = lizard_of(m);
    struct step_scratch s;
    (void)capacity;
    return step_lay(m, &l, b, threads, NULL, &s);
}

struct step_job {
    const struct tg_ctx *ctx;
    const struct tg_lizard *l;
    const struct tg_ring *ring;
    const struct tg_batch *b;
    float *const *states;
    const struct step_scratch *s;
};

static void step_token(const struct step_job *w, float *state, size_t group, size_t p, size_t row,
                       float *scratch)
{
    const struct tg_lizard *l = w->l;
    const struct tg_ring *r = w->ring;
    const struct kept *k = &w->s->kept;
    size_t H = l->all.H, G = l->all.G, K = r->K, V = r->V, per = H / G;
    float *scores = scratch, *ya = scores + r->slots, *num = ya + V, *features = num + V;
    const float *v = k->v + (row * G + group) * V;
    tg_ring_put(r, state, group, p, k->k + (row * G + group) * K, v);
    for (size_t h = group * per; h < (group + 1) * per; h++) {
        size_t rh = row * H + h;
        float lse = tg_attn_row(w->ctx->k, k->q + rh * K, tg_ring_key(r, state, group, 0), K,
                                tg_ring_value(r, state, group, 0), V, tg_ring_count(r, p + 1), K, V,
                                l->window.attn.scale, l->window.attn.cap, scores, ya, NULL);
        tg_joint_row(&l->window, h, lse, 0, NULL, 0, ya);
        float den =
            tg_far_step(w->ctx->k, &l->all, h, k->q0 + rh * K, k->k0 + (row * G + group) * K, v, 0,
                        k->g[rh], state + tg_ring_floats(r), num, features);
        tg_lizard_row(l, h, ya, num, den, k->y + rh * V);
    }
}

/* An item is a sequence and a kv head */
static void token_item(void *ud, size_t item, int worker)
{
    const struct step_job *w = ud;
    size_t i = item / w->l->all.G, group = item % w->l->all.G, b0 = w->b->begin[i];
    size_t past = tg_batch_past(w->b, i), n = w->b->begin[i + 1] - b0;
    for (size_t t = 0; t < n && n < TG_STEP_ROWS_MIN; t++)
        step_token(w, w->states[i], group, past + t, b0 + t,
                   w->s->worker + (size_t)worker * w->s->per_worker);
}

static void step_piece(const struct step_job *w, size_t i, size_t past, size_t row, size_t n)
{
    const struct tg_lizard *l = w->l;
    const struct tg_ring *r = w->ring;
    const struct kept *k = &w->s->kept;
    size_t H = l->all.H, G = l->all.G, K = r->K, V = r->V, held = tg_ring_count(r, past);
    float *state = w->states[i], *linear = state + tg_ring_floats(r);
    struct piece p;
    piece_lay(l, held, n, w->ctx->threads, w->s->piece, &p);
    struct tg_batch both = {1, p.begin, NULL}, new = {1, p.begin_new, NULL};
    tg_ring_take(r, state, past, p.k, p.v);
    memset(p.q, 0, held * H * K * sizeof *p.q);
    memcpy(p.q + held * H * K, k->q + row * H * K, n * H * K * sizeof *p.q);
    memcpy(p.k + held * G * K, k->k + row * G * K, n * G * K * sizeof *p.k);
    memcpy(p.v + held * G * V, k->v + row * G * V, n * G * V * sizeof *p.v);
    tg_joint_fwd(w->ctx, &l->window, &both, p.q, p.k, p.v, NULL, p.ya, NULL, NULL, p.window);
    tg_far_fwd(w->ctx, &l->all, &new, k->q0 + row * H * K, k->k0 + row * G * K, k->v + row * G * V,
               k->g + row * H, p.num, p.den, &linear, NULL, p.all);
    for (size_t h = 0; h < n * H; h++)
        tg_lizard_row(l, h % H, p.ya + (held * H + h) * V, p.num + h * V, p.den[h],
                      k->y + (row * H + h) * V);
    tg_ring_put_rows(r, state, past, n, k->k + row * G * K, k->v + row * G * V);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct tg_lizard l = lizard_of(m);
    struct tg_ring r = ring_of(m);
    struct step_scratch s;
    (void)capacity;
    step_lay(m, &l, b, ctx->threads, work, &s);
    struct step_job w = {ctx, &l, &r, b, states, &s};
    heads_fwd(ctx, m, b, x, &s.kept);
    tg_parallel(ctx->threads, b->count * l.all.G, token_item, &w);
    for (size_t i = 0; i < b->count; i++) {
        size_t n = b->begin[i + 1] - b->begin[i], past = tg_batch_past(b, i);
        for (size_t t = 0; t < n && n >= TG_STEP_ROWS_MIN; t += TG_STEP_PIECE)
            step_piece(&w, i, past + t, b->begin[i] + t,
                       n - t < TG_STEP_PIECE ? n - t : TG_STEP_PIECE);
    }
    tg_proj_out_fwd(ctx, m, b, x, s.kept.y, y, s.kept.gates);
}

/* The paper states none: gates near 0.99, the two branches weighing about the same, sinks at e^0.
 */
static const struct tg_mixer_start starts[] = {
    {"gate.bias", 4.6F},
    {"alpha", 1},
    {NULL, 0},
};

static void inherit(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count)
{
    (void)o;
    tg_mixer_start_fill(m, starts, rule, data, count);
}

const struct tg_mixer_ops tg_mixer_lizard = {
    .name = "lizard",
    .saved_floats = saved_floats,
    .work_floats = work_floats,
    .forward = forward,
    .backward = backward,
    .state_floats = state_floats,
    .step_work_floats = step_work_floats,
    .step = step,
    .inherit = inherit,
};
