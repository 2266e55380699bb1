/* Few new tokens of a sequence are taken one by one over the ring, many as a forward over [ring,
 * new] of which the new rows count. */
#include "linearize/mixers/beside.h"

#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/joint_mixer.h"

bool tg_beside_of(const struct tg_mixer *m, struct tg_beside *w)
{
    const struct tg_layer_spec *s = m->spec;
    *w = (struct tg_beside){0};
    if (!s->window)
        return false;
    w->joint = (struct tg_joint){
        .attn = tg_mixer_attn(m), .sinks = s->sinks, .sink = tg_mixer_param(m, "sink")};
    w->ring = (struct tg_ring){s->kv_heads, s->head_dim, tg_value_dim(s), s->window};
    return true;
}

/* Rows of one forward over [ring, new] */
struct piece {
    float *q, *k, *v, *y, *work;
    size_t begin[2];
};

static size_t piece_lay(const struct tg_beside *w, size_t rows, int threads, float *base,
                        struct piece *p)
{
    struct tg_carve c = {base, 0};
    size_t H = w->joint.attn.H, G = w->ring.G, K = w->ring.K, V = w->ring.V;
    p->begin[0] = 0;
    p->begin[1] = rows;
    struct tg_batch b = {1, p->begin, NULL};
    p->q = tg_carve(&c, rows * H * K);
    p->k = tg_carve(&c, rows * G * K);
    p->v = tg_carve(&c, rows * G * V);
    p->y = tg_carve(&c, rows * H * V);
    p->work = tg_carve(&c, tg_joint_work(&w->joint, &b, threads, false));
    return c.used;
}

struct scratch {
    float *scores; /* [threads][slots] */
    float *piece;
};

static size_t scratch_lay(const struct tg_beside *w, const struct tg_batch *b, int threads,
                          float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    struct piece p;
    size_t most = 0;
    for (size_t i = 0; i < b->count; i++)
        most = b->begin[i + 1] - b->begin[i] > most ? b->begin[i + 1] - b->begin[i] : most;
    s->scores = tg_carve(&c, w->ring.slots * (size_t)threads);
    s->piece = NULL;
    if (most >= TG_STEP_ROWS_MIN) {
        size_t n = most < TG_STEP_PIECE ? most : TG_STEP_PIECE;
        s->piece = tg_carve(&c, piece_lay(w, w->ring.slots + n, threads, NULL, &p));
    }
    return c.used;
}

size_t tg_beside_step_work(const struct tg_beside *w, const struct tg_batch *b, int threads)
{
    struct scratch s;
    return scratch_lay(w, b, threads, NULL, &s);
}

struct job {
    const struct tg_ctx *ctx;
    const struct tg_beside *w;
    const struct tg_batch *b;
    const float *q, *k, *v;
    struct tg_states states;
    float *y, *scores;
};

/* An item is a sequence and a kv head */
static void token_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_ring *r = &j->w->ring;
    const struct tg_attn *a = &j->w->joint.attn;
    size_t i = item / r->G, group = item % r->G, per = a->H / r->G, b0 = j->b->begin[i];
    size_t past = tg_batch_past(j->b, i), n = j->b->begin[i + 1] - b0;
    float *state = tg_state_at(j->states, i), *scores = j->scores + (size_t)worker * r->slots;
    const float *keys = tg_ring_key(r, state, group, 0),
                *values = tg_ring_value(r, state, group, 0);
    for (size_t t = 0; t < n && n < TG_STEP_ROWS_MIN; t++) {
        size_t row = b0 + t, kv = row * r->G + group;
        tg_ring_put(r, state, group, past + t, j->k + kv * r->K, j->v + kv * r->V);
        for (size_t h = group * per; h < (group + 1) * per; h++) {
            float *y = j->y + (row * a->H + h) * r->V;
            float lse = tg_attn_row(j->ctx->k, j->q + (row * a->H + h) * r->K, keys, r->K, values,
                                    r->V, tg_ring_count(r, past + t + 1), r->K, r->V, a->scale,
                                    a->cap, scores, y, NULL);
            if (j->w->joint.sinks)
                tg_joint_row(&j->w->joint, h, lse, 0, NULL, 0, y);
        }
    }
}

/* n new tokens of sequence i from row `row` on, `past` before them */
static void piece_step(const struct job *j, size_t i, size_t past, size_t row, size_t n,
                       float *base)
{
    const struct tg_ring *r = &j->w->ring;
    size_t HK = j->w->joint.attn.H * r->K, HV = j->w->joint.attn.H * r->V;
    size_t GK = r->G * r->K, GV = r->G * r->V, held = tg_ring_count(r, past);
    float *state = tg_state_at(j->states, i);
    struct piece p;
    piece_lay(j->w, held + n, j->ctx->threads, base, &p);
    struct tg_batch b = {1, p.begin, NULL};
    tg_ring_take(r, state, past, p.k, p.v);
    memset(p.q, 0, held * HK * sizeof *p.q);
    memcpy(p.q + held * HK, j->q + row * HK, n * HK * sizeof *p.q);
    memcpy(p.k + held * GK, j->k + row * GK, n * GK * sizeof *p.k);
    memcpy(p.v + held * GV, j->v + row * GV, n * GV * sizeof *p.v);
    tg_joint_fwd(j->ctx, &j->w->joint, &b, p.q, p.k, p.v, NULL, p.y, NULL, NULL, p.work);
    memcpy(j->y + row * HV, p.y + held * HV, n * HV * sizeof *p.y);
    tg_ring_put_rows(r, state, past, n, j->k + row * GK, j->v + row * GV);
}

void tg_beside_step(const struct tg_ctx *ctx, const struct tg_beside *w, const struct tg_batch *b,
                    const float *q, const float *k, const float *v, struct tg_states states,
                    float *y, float *work)
{
    struct scratch s;
    scratch_lay(w, b, ctx->threads, work, &s);
    struct job j = {ctx, w, b, q, k, v, states, y, s.scores};
    tg_parallel(ctx->threads, b->count * w->ring.G, token_item, &j);
    for (size_t i = 0; i < b->count; i++) {
        size_t n = b->begin[i + 1] - b->begin[i], past = tg_batch_past(b, i);
        for (size_t t = 0; t < n && n >= TG_STEP_ROWS_MIN; t += TG_STEP_PIECE)
            piece_step(&j, i, past + t, b->begin[i] + t,
                       n - t < TG_STEP_PIECE ? n - t : TG_STEP_PIECE, s.piece);
    }
}
