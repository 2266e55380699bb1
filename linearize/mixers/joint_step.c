/* Decode; states and how they move in joint_step.h. */
#include "linearize/mixers/joint_step.h"

#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/mixers/ring.h"

/* State of a sequence: ring, gates [H][slots] of its tokens, far state */
struct store {
    struct tg_ring ring;
    size_t gates; /* floats; 0 without gate */
};

/* Does the ring keep a part of the text alone? */
static bool bounded(const struct tg_joint *j)
{
    return j->attn.window || j->block;
}

static struct store store_of(const struct tg_joint *j, bool gated, size_t capacity)
{
    size_t slots = j->block ? j->block : j->attn.window ? j->attn.window : capacity;
    return (struct store){{j->attn.G, j->attn.K, j->attn.V, slots}, gated ? j->attn.H * slots : 0};
}

static float *state_gates(const struct store *s, float *state)
{
    return state + tg_ring_floats(&s->ring);
}

static float *state_far(const struct store *s, float *state)
{
    return state_gates(s, state) + s->gates;
}

size_t tg_joint_state(const struct tg_joint *j, bool gated, size_t capacity)
{
    struct store s = store_of(j, gated, capacity);
    return tg_ring_floats(&s.ring) + s.gates + (j->has_far ? tg_far_state(&j->far) : 0);
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

struct scratch {
    float *worker; /* [threads][per_worker] */
    size_t per_worker;
    float *piece;
};

static size_t work_lay(const struct tg_joint *j, const struct tg_batch *b, size_t capacity,
                       int threads, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    const struct store store = store_of(j, false, capacity);
    size_t n = most_new(b), block = n < TG_STEP_ROWS_MIN ? 1 : TG_STEP_ROWS_MIN;
    size_t per = j->attn.H / j->attn.G, slots = store.ring.slots;
    s->per_worker = (bounded(j) ? slots : slots * block) + 2 * block;
    s->per_worker += per * (j->attn.V + 1) + (j->has_far ? 2 * tg_map_features(&j->far.map) : 0);
    s->worker = tg_carve(&c, s->per_worker * (size_t)threads);
    s->piece = NULL;
    if (bounded(j) && n >= TG_STEP_ROWS_MIN) {
        struct piece p;
        size_t rows = slots + (n < TG_STEP_PIECE ? n : TG_STEP_PIECE);
        s->piece = tg_carve(&c, piece_lay(j, rows, threads, NULL, &p));
    }
    return c.used;
}

size_t tg_joint_step_work(const struct tg_joint *j, const struct tg_batch *b, size_t capacity,
                          int threads)
{
    struct scratch s;
    return work_lay(j, b, capacity, threads, NULL, &s);
}

struct step_job {
    const struct tg_ctx *ctx;
    const struct tg_joint *j;
    struct store store;
    const struct tg_batch *b;
    const float *q, *k, *v, *g;
    float *const *states;
    float *y;
    struct scratch s;
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
    const struct tg_ring *r = &w->store.ring;
    size_t per = j->attn.H / j->attn.G, H = j->attn.H, K = j->attn.K, V = j->attn.V;
    size_t slot = p % r->slots;
    float *scores = scratch, *num = scores + r->slots, *den = num + per * V, *features = den + per;
    float *gates = state_gates(&w->store, state), *key = tg_ring_key(r, state, group, 0);
    float *value = tg_ring_value(r, state, group, 0);
    bool leaves = j->has_far && p >= r->slots;
    for (size_t i = 0; i < per && j->has_far; i++) {
        size_t h = group * per + i;
        float g = w->g ? w->g[row * H + h] : 0, *own = w->g ? gates + h * r->slots : NULL;
        if (leaves)
            den[i] = tg_far_step(w->ctx->k, &j->far, h, w->q + (row * H + h) * K, key + slot * K,
                                 value + slot * V, own ? gates_passed(r, own, slot, g) : 0, g,
                                 state_far(&w->store, state), num + i * V, features);
        if (own)
            own[slot] = g;
    }
    tg_ring_put(r, state, group, p, w->k + (row * j->attn.G + group) * K,
                w->v + (row * j->attn.G + group) * V);
    for (size_t i = 0; i < per; i++) {
        size_t h = group * per + i;
        float max, *y = w->y + (row * H + h) * V;
        float lse =
            tg_attn_row(w->ctx->k, w->q + (row * H + h) * K, key, K, value, V,
                        tg_ring_count(r, p + 1), K, V, j->attn.scale, j->attn.cap, scores, y, &max);
        bool far = leaves && den[i] > 0;
        if (far || j->sinks)
            tg_joint_row(j, h, lse, max, far ? num + i * V : NULL, far ? den[i] : 0, y);
    }
}

/* Sum of the gates since the block of token p began */
static float gates_in_block(const float *gates, size_t slot)
{
    double sum = 0;
    for (size_t i = 0; i <= slot; i++)
        sum += (double)gates[i];
    return (float)sum;
}

/* The same in blocks: slot after slot, then the whole ring into the far state */
static void block_token(const struct step_job *w, float *state, size_t group, size_t p, size_t row,
                        float *scratch)
{
    const struct tg_joint *j = w->j;
    const struct tg_ring *r = &w->store.ring;
    size_t per = j->attn.H / j->attn.G, H = j->attn.H, K = j->attn.K, V = j->attn.V;
    size_t slot = p % r->slots;
    float *scores = scratch, *num = scores + r->slots, *features = num + V;
    float *key = tg_ring_key(r, state, group, 0), *value = tg_ring_value(r, state, group, 0);
    tg_ring_put(r, state, group, p, w->k + (row * j->attn.G + group) * K,
                w->v + (row * j->attn.G + group) * V);
    for (size_t h = group * per; h < (group + 1) * per; h++) {
        const float *q = w->q + (row * H + h) * K;
        float max, den = 0, *y = w->y + (row * H + h) * V, *far = state_far(&w->store, state);
        float *gates = w->g ? state_gates(&w->store, state) + h * r->slots : NULL;
        if (gates)
            gates[slot] = w->g[row * H + h];
        if (p >= r->slots)
            den = tg_far_read(w->ctx->k, &j->far, h, q, gates ? gates_in_block(gates, slot) : 0,
                              far, num, features);
        float lse = tg_attn_row(w->ctx->k, q, key, K, value, V, slot + 1, K, V, j->attn.scale,
                                j->attn.cap, scores, y, &max);
        if (den > 0 || j->sinks)
            tg_joint_row(j, h, lse, max, den > 0 ? num : NULL, den > 0 ? den : 0, y);
        if (slot + 1 == r->slots)
            tg_far_enter(w->ctx->k, &j->far, h, key, value, gates, far, features);
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
        (w->j->block ? block_token : step_token)(w, w->states[i], group, past + t,
                                                 w->b->begin[i] + t,
                                                 w->s.worker + (size_t)worker * w->s.per_worker);
}

/* An item is a block of rows of one query head, over a cache that has them all */
static void block_item(void *ud, size_t item, int worker)
{
    const struct step_job *w = ud;
    const struct tg_joint *j = w->j;
    size_t i = w->sequence, b0 = w->b->begin[i], n = w->b->begin[i + 1] - b0;
    size_t H = j->attn.H, V = j->attn.V, h = item % H, from = item / H * TG_STEP_ROWS_MIN;
    size_t to = from + TG_STEP_ROWS_MIN < n ? from + TG_STEP_ROWS_MIN : n;
    float *lse = w->s.worker + (size_t)worker * w->s.per_worker;
    float *max = lse + TG_STEP_ROWS_MIN, *y = w->y + (b0 * H + h) * V;
    tg_ring_block(w->ctx->k, &w->store.ring, w->states[i], h / (H / j->attn.G),
                  tg_batch_past(w->b, i), from, to, w->q + (b0 * H + h) * j->attn.K, H * j->attn.K,
                  j->attn.scale, j->attn.cap, y, H * V, lse, max, max + TG_STEP_ROWS_MIN);
    for (size_t t = from; t < to && j->sinks; t++)
        tg_joint_row(j, h, lse[t - from], max[t - from], NULL, 0, y + t * H * V);
}

/* Many new tokens of sequence i of a layer without window */
static void step_growing(const struct step_job *w, size_t i)
{
    const struct tg_joint *j = w->j;
    size_t b0 = w->b->begin[i], n = w->b->begin[i + 1] - b0;
    struct step_job job = *w;
    tg_ring_put_rows(&w->store.ring, w->states[i], tg_batch_past(w->b, i), n,
                     w->k + b0 * j->attn.G * j->attn.K, w->v + b0 * j->attn.G * j->attn.V);
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

/* n new tokens from row `row` on, `past` before them (in blocks: before them in their block): a
 * forward over [ring, new] of which the new rows count. A key of the ring leaves the window exactly
 * where it would have, so the far state goes on. */
static void step_piece(const struct step_job *w, size_t i, size_t past, size_t row, size_t n)
{
    const struct tg_joint *j = w->j;
    const struct tg_ring *r = &w->store.ring;
    size_t H = j->attn.H, G = j->attn.G, K = j->attn.K, V = j->attn.V;
    size_t held = tg_ring_count(r, past);
    float *state = w->states[i], *gates = state_gates(&w->store, state),
          *far = state_far(&w->store, state);
    struct piece p;
    piece_lay(j, held + n, w->ctx->threads, w->s.piece, &p);
    struct tg_batch b = {1, p.begin, NULL};
    tg_ring_take(r, state, past, p.k, p.v);
    memset(p.q, 0, held * H * K * sizeof *p.q);
    memcpy(p.q + held * H * K, w->q + row * H * K, n * H * K * sizeof *p.q);
    memcpy(p.k + held * G * K, w->k + row * G * K, n * G * K * sizeof *p.k);
    memcpy(p.v + held * G * V, w->v + row * G * V, n * G * V * sizeof *p.v);
    if (w->g) {
        take_gates(r, gates, H, past, p.g);
        memcpy(p.g + held * H, w->g + row * H, n * H * sizeof *p.g);
        for (size_t t = n > r->slots ? n - r->slots : 0; t < n; t++)
            for (size_t h = 0; h < H; h++)
                gates[h * r->slots + (past + t) % r->slots] = w->g[(row + t) * H + h];
    }
    tg_joint_fwd(w->ctx, j, &b, p.q, p.k, p.v, w->g ? p.g : NULL, p.y, &far, NULL, p.work);
    memcpy(w->y + row * H * V, p.y + held * H * V, n * H * V * sizeof *p.y);
    tg_ring_put_rows(r, state, past, n, w->k + row * G * K, w->v + row * G * V);
}

void tg_joint_step(const struct tg_ctx *ctx, const struct tg_joint *j, const struct tg_batch *b,
                   size_t capacity, const float *q, const float *k, const float *v, const float *g,
                   float *const *states, float *y, float *work)
{
    struct step_job w = {.ctx = ctx,
                         .j = j,
                         .store = store_of(j, g != NULL, capacity),
                         .b = b,
                         .q = q,
                         .k = k,
                         .v = v,
                         .g = g,
                         .states = states,
                         .y = y};
    work_lay(j, b, capacity, ctx->threads, work, &w.s);
    tg_parallel(ctx->threads, b->count * j->attn.G, token_item, &w);
    for (size_t i = 0; i < b->count; i++) {
        size_t n = b->begin[i + 1] - b->begin[i], past = tg_batch_past(b, i);
        if (n < TG_STEP_ROWS_MIN)
            continue;
        if (!bounded(j)) {
            step_growing(&w, i);
            continue;
        }
        for (size_t t = 0; t < n; t += TG_STEP_PIECE)
            step_piece(&w, i, j->block ? (past + t) % j->block : past + t, b->begin[i] + t,
                       n - t < TG_STEP_PIECE ? n - t : TG_STEP_PIECE);
    }
}
