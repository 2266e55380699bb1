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
#include "linearize/mixers/beside.h"
#include "linearize/mixers/joint.h"
#include "linearize/mixers/joint_mixer.h"
#include "linearize/mixers/lizard.h"
#include "linearize/mixers/rows.h"

static struct tg_lizard lizard_of(const struct tg_mixer *m)
{
    struct tg_beside window;
    tg_beside_of(m, &window);
    return (struct tg_lizard){
        .window = window.joint, .all = tg_mixer_far(m, 0), .alpha = tg_mixer_param(m, "alpha")};
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
static size_t state_floats(const struct tg_mixer *m, size_t capacity)
{
    struct tg_lizard l = lizard_of(m);
    struct tg_beside w;
    (void)capacity;
    tg_beside_of(m, &w);
    return tg_beside_state(&w) + tg_far_state(&l.all);
}

/* The linear branch of a sequence's many new tokens, at most TG_STEP_PIECE at a time */
struct piece {
    size_t begin[2];
    float *num, *den, *all;
};

static size_t piece_lay(const struct tg_lizard *l, size_t n, int threads, float *base,
                        struct piece *p)
{
    struct tg_carve c = {base, 0};
    *p = (struct piece){.begin = {0, n}};
    struct tg_batch b = {1, p->begin, NULL};
    p->num = tg_carve(&c, n * l->all.H * l->all.V);
    p->den = tg_carve(&c, n * l->all.H);
    p->all = tg_carve(&c, tg_far_work(&l->all, &b, threads, false));
    return c.used;
}

struct step_scratch {
    struct kept kept;
    float *ya, *window; /* [rows,H,V]; of the window */
    float *worker;      /* [threads][num, features] */
    size_t per_worker;
    float *piece;
};

static size_t step_lay(const struct tg_mixer *m, const struct tg_lizard *l,
                       const struct tg_beside *window, const struct tg_batch *b, int threads,
                       float *base, struct step_scratch *s)
{
    struct tg_carve c = {base, 0};
    struct piece p;
    size_t most = 0;
    for (size_t i = 0; i < b->count; i++)
        most = b->begin[i + 1] - b->begin[i] > most ? b->begin[i + 1] - b->begin[i] : most;
    most = most < TG_STEP_PIECE ? most : TG_STEP_PIECE;
    float *kept = tg_carve(&c, kept_lay(m, l, b, false, NULL, &s->kept));
    kept_lay(m, l, b, false, kept, &s->kept);
    s->ya = tg_carve(&c, tg_batch_rows(b) * l->all.H * l->all.V);
    s->window = tg_carve(&c, tg_beside_step_work(window, b, threads));
    s->per_worker = l->all.V + 2 * tg_map_features(&l->all.map);
    s->worker = tg_carve(&c, s->per_worker * (size_t)threads);
    s->piece = most < TG_STEP_ROWS_MIN ? NULL : tg_carve(&c, piece_lay(l, most, threads, NULL, &p));
    return c.used;
}

static size_t step_work_floats(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                               int threads)
{
    struct tg_lizard l = lizard_of(m);
    struct tg_beside w;
    struct step_scratch s;
    (void)capacity;
    tg_beside_of(m, &w);
    return step_lay(m, &l, &w, b, threads, NULL, &s);
}

struct step_job {
    const struct tg_ctx *ctx;
    const struct tg_lizard *l;
    const struct tg_batch *b;
    struct tg_states linear;
    const struct step_scratch *s;
};

/* Few new tokens of a sequence; an item is a sequence and a kv head */
static void token_item(void *ud, size_t item, int worker)
{
    const struct step_job *w = ud;
    const struct tg_lizard *l = w->l;
    const struct kept *k = &w->s->kept;
    size_t H = l->all.H, G = l->all.G, K = l->all.map.K, V = l->all.V, per = H / G;
    size_t i = item / G, group = item % G, b0 = w->b->begin[i], n = w->b->begin[i + 1] - b0;
    float *num = w->s->worker + (size_t)worker * w->s->per_worker, *features = num + V;
    for (size_t row = b0; row < b0 + n && n < TG_STEP_ROWS_MIN; row++)
        for (size_t h = group * per; h < (group + 1) * per; h++) {
            size_t rh = row * H + h, kv = row * G + group;
            float den =
                tg_far_step(w->ctx->k, &l->all, h, k->q0 + rh * K, k->k0 + kv * K, k->v + kv * V, 0,
                            k->g[rh], tg_state_at(w->linear, i), num, features);
            tg_lizard_row(l, h, w->s->ya + rh * V, num, den, k->y + rh * V);
        }
}

/* n new tokens of sequence i from row `row` on */
static void step_piece(const struct step_job *w, size_t i, size_t row, size_t n)
{
    const struct tg_lizard *l = w->l;
    const struct kept *k = &w->s->kept;
    size_t H = l->all.H, G = l->all.G, K = l->all.map.K, V = l->all.V;
    float *linear = tg_state_at(w->linear, i);
    struct piece p;
    piece_lay(l, n, w->ctx->threads, w->s->piece, &p);
    struct tg_batch b = {1, p.begin, NULL};
    tg_far_fwd(w->ctx, &l->all, &b, k->q0 + row * H * K, k->k0 + row * G * K, k->v + row * G * V,
               k->g + row * H, p.num, p.den, &linear, NULL, p.all);
    for (size_t h = 0; h < n * H; h++)
        tg_lizard_row(l, h % H, w->s->ya + (row * H + h) * V, p.num + h * V, p.den[h],
                      k->y + (row * H + h) * V);
}

static void step(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work)
{
    struct tg_lizard l = lizard_of(m);
    struct tg_beside window;
    struct step_scratch s;
    (void)capacity;
    tg_beside_of(m, &window);
    step_lay(m, &l, &window, b, ctx->threads, work, &s);
    struct step_job w = {ctx, &l, b, {states, tg_beside_state(&window)}, &s};
    heads_fwd(ctx, m, b, x, &s.kept);
    tg_beside_step(ctx, &window, b, s.kept.q, s.kept.k, s.kept.v, (struct tg_states){states, 0},
                   s.ya, s.window);
    tg_parallel(ctx->threads, b->count * l.all.G, token_item, &w);
    for (size_t i = 0; i < b->count; i++) {
        size_t n = b->begin[i + 1] - b->begin[i];
        for (size_t t = 0; t < n && n >= TG_STEP_ROWS_MIN; t += TG_STEP_PIECE)
            step_piece(&w, i, b->begin[i] + t, n - t < TG_STEP_PIECE ? n - t : TG_STEP_PIECE);
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
