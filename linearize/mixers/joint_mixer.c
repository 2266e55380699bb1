/* Forward, backward and decode of the joint-denominator mixers.
 *
 * Decode keeps a ring of the last `window` keys and values with the gates of those tokens, and the
 * far state. Token p first moves the key p - window, whose slot it takes, into the far state with
 * the decay of the gates passed since; a window of 0 is softmax over everything, whose ring never
 * wraps. Many new tokens at once are run as a forward over [ring, new], starting from the far
 * state. */
#include "linearize/mixers/joint_mixer.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint.h"
#include "linearize/mixers/ring.h"

void tg_mixer_fill(float *data, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        data[i] = value;
}

void tg_mixer_start_fill(const struct tg_mixer *m, const struct tg_mixer_start *starts, size_t rule,
                         float *data, size_t count)
{
    const struct tg_param_rule *r = &m->spec->mixer->params[rule];
    size_t K = m->spec->head_dim, F = m->spec->feature_dim;
    float value = 0;
    for (; starts->name; starts++)
        if (strcmp(starts->name, r->name) == 0)
            value = starts->value;
    tg_mixer_fill(data, count, value);
    for (size_t i = 0; i < count && r->flags & TG_PARAM_IF_MAP; i++)
        data[i] = i / F % K == i % F ? 1 : 0;
}

struct tg_attn tg_mixer_attn(const struct tg_mixer *m)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct tg_attn){.H = s->heads,
                            .G = s->kv_heads,
                            .K = s->head_dim,
                            .V = tg_value_dim(s),
                            .window = s->window,
                            .scale = (float)s->attn_scale,
                            .cap = (float)s->attn_softcap};
}

struct tg_far tg_mixer_far(const struct tg_mixer *m, size_t lag)
{
    const struct tg_layer_spec *s = m->spec;
    return (struct tg_far){.H = s->heads,
                           .G = s->kv_heads,
                           .V = tg_value_dim(s),
                           .map = {s->feature_map, s->head_dim, s->feature_dim},
                           .lag = lag,
                           .wq = tg_mixer_param(m, "map_q.weight"),
                           .wk = tg_mixer_param(m, "map_k.weight")};
}

static struct tg_joint joint_of(const struct tg_mixer *m)
{
    bool from_max = tg_mixer_has(m, "window_logit");
    return (struct tg_joint){.attn = tg_mixer_attn(m),
                             .sinks = tg_mixer_has(m, "sink") ? m->spec->sinks : 0,
                             .sink = tg_mixer_param(m, "sink"),
                             .has_far = m->spec->mixer->flags & TG_MIXER_FAR,
                             .from_max = from_max,
                             .logit = tg_mixer_param(m, from_max ? "window_logit" : "far_logit"),
                             .far = tg_mixer_far(m, m->spec->window)};
}

static bool gated(const struct tg_mixer *m)
{
    return tg_mixer_has(m, "gate.weight");
}

struct kept {
    float *q, *k, *v, *g, *y; /* g NULL without gate */
    float *proj, *joint;
    float *gates; /* of the output */
};

static size_t kept_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       bool keep, float *base, struct kept *k)
{
    struct tg_carve c = {base, 0};
    size_t rows = tg_batch_rows(b), K = j->attn.K, V = j->attn.V;
    memset(k, 0, sizeof *k);
    k->q = tg_carve(&c, rows * j->attn.H * K);
    k->k = tg_carve(&c, rows * j->attn.G * K);
    k->v = tg_carve(&c, rows * j->attn.G * V);
    k->y = tg_carve(&c, rows * j->attn.H * V);
    if (gated(m))
        k->g = tg_carve(&c, rows * j->attn.H);
    k->gates = tg_carve(&c, tg_proj_out_floats(m, b));
    if (keep) {
        k->proj = tg_carve(&c, tg_proj_saved(m, b));
        k->joint = tg_carve(&c, tg_joint_saved(j, b));
    }
    return c.used;
}

size_t tg_joint_mixer_saved(const struct tg_mixer *m, const struct tg_batch *b)
{
    struct tg_joint j = joint_of(m);
    struct kept k;
    return kept_lay(m, &j, b, true, NULL, &k);
}

struct scratch {
    float *kept, *dq, *dk, *dv, *dy, *dg, *proj, *joint;
};

static size_t work_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_batch *b,
                       int threads, bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct kept k;
    size_t rows = tg_batch_rows(b), K = j->attn.K, V = j->attn.V;
    memset(s, 0, sizeof *s);
    s->joint = tg_carve(&c, tg_joint_work(j, b, threads, backward));
    if (!backward) {
        s->kept = tg_carve(&c, kept_lay(m, j, b, false, NULL, &k));
        return c.used;
    }
    s->dq = tg_carve(&c, rows * j->attn.H * K);
    s->dk = tg_carve(&c, rows * j->attn.G * K);
    s->dv = tg_carve(&c, rows * j->attn.G * V);
    s->dy = tg_carve(&c, rows * j->attn.H * V);
    s->dg = tg_carve(&c, rows * j->attn.H);
    s->proj = tg_carve(&c, tg_proj_work(m, b));
    return c.used;
}

size_t tg_joint_mixer_work(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                           bool backward)
{
    struct tg_joint j = joint_of(m);
    struct scratch s;
    return work_lay(m, &j, b, threads, backward, NULL, &s);
}

/* x -> rotated q, k, v and gates */
static void heads_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                      const float *x, const struct kept *k)
{
    tg_proj_fwd(ctx, m, b, x, k->q, k->k, k->v, k->proj);
    tg_proj_rotate(ctx, m, b, k->q, k->k, 1);
    if (k->g)
        tg_gate_fwd(ctx, m, tg_batch_rows(b), x, k->g);
}

void tg_joint_mixer_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, float *y, float *saved,
                        float *work)
{
    struct tg_joint j = joint_of(m);
    struct scratch s;
    struct kept k;
    work_lay(m, &j, b, ctx->threads, false, work, &s);
    kept_lay(m, &j, b, saved != NULL, saved ? saved : s.kept, &k);
    heads_fwd(ctx, m, b, x, &k);
    tg_joint_fwd(ctx, &j, b, k.q, k.k, k.v, k.g, k.y, NULL, k.joint, s.joint);
    tg_proj_out_fwd(ctx, m, b, x, k.y, y, k.gates);
}

void tg_joint_mixer_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                        const struct tg_batch *b, const float *x, const float *dy,
                        const float *saved, float *dx, const struct tg_mixer_grads *d, float *work)
{
    struct tg_joint j = joint_of(m);
    struct scratch s;
    struct kept k;
    size_t rows = tg_batch_rows(b), K = j.attn.K, V = j.attn.V;
    work_lay(m, &j, b, ctx->threads, true, work, &s);
    kept_lay(m, &j, b, true, (float *)(uintptr_t)saved, &k);
    struct tg_joint_grads grads = {
        .logit = tg_mixer_grad(m, d, j.from_max ? "window_logit" : "far_logit"),
        .sink = tg_mixer_grad(m, d, "sink"),
        .wq = tg_mixer_grad(m, d, "map_q.weight"),
        .wk = tg_mixer_grad(m, d, "map_k.weight")};
    tg_proj_out_bwd(ctx, m, b, k.y, dy, s.dy, d, k.gates);
    memset(s.dq, 0, rows * j.attn.H * K * sizeof *s.dq);
    memset(s.dk, 0, rows * j.attn.G * K * sizeof *s.dk);
    memset(s.dv, 0, rows * j.attn.G * V * sizeof *s.dv);
    memset(s.dg, 0, rows * j.attn.H * sizeof *s.dg);
    tg_joint_bwd(ctx, &j, b, k.q, k.k, k.v, k.g, k.y, k.joint, s.dy, s.dq, s.dk, s.dv,
                 k.g ? s.dg : NULL, &grads, s.joint);
    tg_proj_rotate(ctx, m, b, s.dq, s.dk, -1);
    tg_proj_bwd(ctx, m, b, x, k.proj, s.dq, s.dk, s.dv, dx, d, s.proj);
    tg_proj_out_gate_bwd(ctx, m, b, x, k.gates, dx, d);
    if (k.g)
        tg_gate_bwd(ctx, m, rows, x, k.g, s.dg, dx, d);
}

/* State of a sequence: ring, gates [H][slots] of its tokens, far state */
struct store {
    struct tg_ring ring;
    size_t gates; /* floats; 0 without gate */
};

static struct store store_of(const struct tg_mixer *m, const struct tg_joint *j, size_t capacity)
{
    size_t slots = j->attn.window ? j->attn.window : capacity;
    return (struct store){{j->attn.G, j->attn.K, j->attn.V, slots},
                          gated(m) ? j->attn.H * slots : 0};
}

static float *state_gates(const struct store *s, float *state)
{
    return state + tg_ring_floats(&s->ring);
}

static float *state_far(const struct store *s, float *state)
{
    return state_gates(s, state) + s->gates;
}

size_t tg_joint_mixer_state(const struct tg_mixer *m, size_t capacity)
{
    struct tg_joint j = joint_of(m);
    struct store s = store_of(m, &j, capacity);
    return tg_ring_floats(&s.ring) + s.gates + (j.has_far ? tg_far_state(&j.far) : 0);
}

/* Rows of one forward over [ring, new] */
struct piece {
    float *q, *k, *v, *g, *y, *work;
    size_t begin[2];
};

static size_t piece_lay(const struct tg_joint *j, size_t rows, int threads, float *base,
                        struct piece *p)
{
    struct tg_carve c = {base, 0};
    p->begin[0] = 0;
    p->begin[1] = rows;
    struct tg_batch b = {1, p->begin, NULL};
    p->q = tg_carve(&c, rows * j->attn.H * j->attn.K);
    p->k = tg_carve(&c, rows * j->attn.G * j->attn.K);
    p->v = tg_carve(&c, rows * j->attn.G * j->attn.V);
    p->y = tg_carve(&c, rows * j->attn.H * j->attn.V);
    p->g = tg_carve(&c, rows * j->attn.H);
    p->work = tg_carve(&c, tg_joint_work(j, &b, threads, false));
    return c.used;
}

static size_t most_new(const struct tg_batch *b)
{
    size_t most = 0;
    for (size_t i = 0; i < b->count; i++)
        most = b->begin[i + 1] - b->begin[i] > most ? b->begin[i + 1] - b->begin[i] : most;
    return most;
}

struct step_scratch {
    struct kept kept;
    float *worker; /* [threads][per_worker] */
    size_t per_worker;
    float *piece;
};

static size_t step_lay(const struct tg_mixer *m, const struct tg_joint *j, const struct tg_ring *r,
                       const struct tg_batch *b, int threads, float *base, struct step_scratch *s)
{
    struct tg_carve c = {base, 0};
    size_t n = most_new(b), block = n < TG_STEP_ROWS_MIN ? 1 : TG_STEP_ROWS_MIN;
    size_t per = j->attn.H / j->attn.G;
    float *kept = tg_carve(&c, kept_lay(m, j, b, false, NULL, &s->kept));
    kept_lay(m, j, b, false, kept, &s->kept);
    s->per_worker = (j->attn.window ? r->slots : r->slots * block) + 2 * block;
    s->per_worker += per * (j->attn.V + 1) + (j->has_far ? 2 * tg_map_features(&j->far.map) : 0);
    s->worker = tg_carve(&c, s->per_worker * (size_t)threads);
    s->piece = NULL;
    if (j->attn.window && n >= TG_STEP_ROWS_MIN) {
        struct piece p;
        size_t rows = r->slots + (n < TG_STEP_PIECE ? n : TG_STEP_PIECE);
        s->piece = tg_carve(&c, piece_lay(j, rows, threads, NULL, &p));
    }
    return c.used;
}

size_t tg_joint_mixer_step_work(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                                int threads)
{
    struct tg_joint j = joint_of(m);
    struct store store = store_of(m, &j, capacity);
    struct step_scratch s;
    return step_lay(m, &j, &store.ring, b, threads, NULL, &s);
}

struct step_job {
    const struct tg_ctx *ctx;
    const struct tg_joint *j;
    const struct store *store;
    const struct tg_batch *b;
    float *const *states;
    const struct step_scratch *s;
    size_t sequence; /* of block_item */
};

/* Sum of the gates passed when token p takes the slot of token p - slots */
static float gates_passed(const struct tg_ring *r, const float *gates, size_t slot, float now)
{
    double sum = (double)now;
    for (size_t i = 0; i < r->slots; i++)
        sum += i == slot ? 0 : (double)gates[i];
    return (float)sum;
}

/* Token p of one kv head and its query heads; `row` in the batch. The key that leaves goes to the
 * far state of every head of the group before the new one takes its slot. */
static void step_token(const struct step_job *w, float *state, size_t group, size_t p, size_t row,
                       float *scratch)
{
    const struct tg_joint *j = w->j;
    const struct tg_ring *r = &w->store->ring;
    const struct kept *k = &w->s->kept;
    size_t per = j->attn.H / j->attn.G, H = j->attn.H, K = j->attn.K, V = j->attn.V;
    size_t slot = p % r->slots;
    float *scores = scratch, *num = scores + r->slots, *den = num + per * V, *features = den + per;
    float *gates = state_gates(w->store, state), *key = tg_ring_key(r, state, group, 0);
    float *value = tg_ring_value(r, state, group, 0);
    bool leaves = j->has_far && p >= r->slots;
    for (size_t i = 0; i < per && j->has_far; i++) {
        size_t h = group * per + i;
        float g = k->g ? k->g[row * H + h] : 0, *own = k->g ? gates + h * r->slots : NULL;
        if (leaves)
            den[i] = tg_far_step(w->ctx->k, &j->far, h, k->q + (row * H + h) * K, key + slot * K,
                                 value + slot * V, own ? gates_passed(r, own, slot, g) : 0, g,
                                 state_far(w->store, state), num + i * V, features);
        if (own)
            own[slot] = g;
    }
    tg_ring_put(r, state, group, p, k->k + (row * j->attn.G + group) * K,
                k->v + (row * j->attn.G + group) * V);
    for (size_t i = 0; i < per; i++) {
        size_t h = group * per + i;
        float max, *y = k->y + (row * H + h) * V;
        float lse =
            tg_attn_row(w->ctx->k, k->q + (row * H + h) * K, key, K, value, V,
                        tg_ring_count(r, p + 1), K, V, j->attn.scale, j->attn.cap, scores, y, &max);
        bool far = leaves && den[i] > 0;
        if (far || j->sinks)
            tg_joint_row(j, h, lse, max, far ? num + i * V : NULL, far ? den[i] : 0, y);
    }
}

/* An item is a sequence and a kv head */
static void token_item(void *ud, size_t item, int worker)
{
    const struct step_job *w = ud;
    size_t i = item / w->j->attn.G, group = item % w->j->attn.G;
    size_t past = tg_batch_past(w->b, i), n = w->b->begin[i + 1] - w->b->begin[i];
    if (n >= TG_STEP_ROWS_MIN)
        return;
    for (size_t t = 0; t < n; t++)
        step_token(w, w->states[i], group, past + t, w->b->begin[i] + t,
                   w->s->worker + (size_t)worker * w->s->per_worker);
}

/* An item is a block of rows of one query head, over a cache that has them all */
static void block_item(void *ud, size_t item, int worker)
{
    const struct step_job *w = ud;
    const struct tg_joint *j = w->j;
    const struct kept *k = &w->s->kept;
    size_t i = w->sequence, b0 = w->b->begin[i], n = w->b->begin[i + 1] - b0;
    size_t H = j->attn.H, V = j->attn.V, h = item % H, from = item / H * TG_STEP_ROWS_MIN;
    size_t to = from + TG_STEP_ROWS_MIN < n ? from + TG_STEP_ROWS_MIN : n;
    float *lse = w->s->worker + (size_t)worker * w->s->per_worker;
    float *max = lse + TG_STEP_ROWS_MIN, *y = k->y + (b0 * H + h) * V;
    tg_ring_block(w->ctx->k, &w->store->ring, w->states[i], h / (H / j->attn.G),
                  tg_batch_past(w->b, i), from, to, k->q + (b0 * H + h) * j->attn.K, H * j->attn.K,
                  j->attn.scale, j->attn.cap, y, H * V, lse, max, max + TG_STEP_ROWS_MIN);
    for (size_t t = from; t < to && j->sinks; t++)
        tg_joint_row(j, h, lse[t - from], max[t - from], NULL, 0, y + t * H * V);
}

/* Many new tokens of sequence i of a layer without window */
static void step_growing(const struct step_job *w, size_t i)
{
    const struct tg_joint *j = w->j;
    const struct kept *k = &w->s->kept;
    size_t b0 = w->b->begin[i], n = w->b->begin[i + 1] - b0;
    struct step_job job = *w;
    tg_ring_put_rows(&w->store->ring, w->states[i], tg_batch_past(w->b, i), n,
                     k->k + b0 * j->attn.G * j->attn.K, k->v + b0 * j->attn.G * j->attn.V);
    job.sequence = i;
    tg_parallel(w->ctx->threads, (n + TG_STEP_ROWS_MIN - 1) / TG_STEP_ROWS_MIN * j->attn.H,
                block_item, &job);
}

/* [rows,H] gates of the ring's tokens, oldest first; then n new ones from g (NULL: zeros) */
static void take_gates(const struct tg_ring *r, const float *gates, size_t H, size_t past,
                       float *to)
{
    size_t count = tg_ring_count(r, past);
    for (size_t t = 0; t < count; t++)
        for (size_t h = 0; h < H; h++)
            to[t * H + h] = gates[h * r->slots + (past - count + t) % r->slots];
}

/* n new tokens from row `row` on, `past` before them: a forward over [ring, new] of which the new
 * rows count. A key of the ring leaves the window exactly where it would have, so the far state
 * goes on. */
static void step_piece(const struct step_job *w, size_t i, size_t past, size_t row, size_t n)
{
    const struct tg_joint *j = w->j;
    const struct tg_ring *r = &w->store->ring;
    const struct kept *k = &w->s->kept;
    size_t H = j->attn.H, G = j->attn.G, K = j->attn.K, V = j->attn.V;
    size_t held = tg_ring_count(r, past);
    float *state = w->states[i], *gates = state_gates(w->store, state),
          *far = state_far(w->store, state);
    struct piece p;
    piece_lay(j, held + n, w->ctx->threads, w->s->piece, &p);
    struct tg_batch b = {1, p.begin, NULL};
    tg_ring_take(r, state, past, p.k, p.v);
    memset(p.q, 0, held * H * K * sizeof *p.q);
    memcpy(p.q + held * H * K, k->q + row * H * K, n * H * K * sizeof *p.q);
    memcpy(p.k + held * G * K, k->k + row * G * K, n * G * K * sizeof *p.k);
    memcpy(p.v + held * G * V, k->v + row * G * V, n * G * V * sizeof *p.v);
    if (k->g) {
        take_gates(r, gates, H, past, p.g);
        memcpy(p.g + held * H, k->g + row * H, n * H * sizeof *p.g);
        for (size_t t = n > r->slots ? n - r->slots : 0; t < n; t++)
            for (size_t h = 0; h < H; h++)
                gates[h * r->slots + (past + t) % r->slots] = k->g[(row + t) * H + h];
    }
    tg_joint_fwd(w->ctx, j, &b, p.q, p.k, p.v, k->g ? p.g : NULL, p.y, &far, NULL, p.work);
    memcpy(k->y + row * H * V, p.y + held * H * V, n * H * V * sizeof *p.y);
    tg_ring_put_rows(r, state, past, n, k->k + row * G * K, k->v + row * G * V);
}

void tg_joint_mixer_step(const struct tg_ctx *ctx, const struct tg_mixer *m,
                         const struct tg_batch *b, size_t capacity, const float *x,
                         float *const *states, float *y, float *work)
{
    struct tg_joint j = joint_of(m);
    struct store store = store_of(m, &j, capacity);
    struct step_scratch s;
    step_lay(m, &j, &store.ring, b, ctx->threads, work, &s);
    struct step_job w = {.ctx = ctx, .j = &j, .store = &store, .b = b, .states = states, .s = &s};
    heads_fwd(ctx, m, b, x, &s.kept);
    tg_parallel(ctx->threads, b->count * j.attn.G, token_item, &w);
    for (size_t i = 0; i < b->count; i++) {
        size_t n = b->begin[i + 1] - b->begin[i], past = tg_batch_past(b, i);
        if (n < TG_STEP_ROWS_MIN)
            continue;
        if (!j.attn.window) {
            step_growing(&w, i);
            continue;
        }
        for (size_t t = 0; t < n; t += TG_STEP_PIECE)
            step_piece(&w, i, past + t, b->begin[i] + t,
                       n - t < TG_STEP_PIECE ? n - t : TG_STEP_PIECE);
    }
    tg_proj_out_fwd(ctx, m, b, x, s.kept.y, y, s.kept.gates);
}
