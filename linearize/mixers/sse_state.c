/* States of which a token uses few; equations in sse.h. */
#include "linearize/mixers/sse.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/mixers/attn_proj.h"
#include "linearize/mixers/linear_parts.h"

struct tg_sse tg_sse_of(const struct tg_mixer *m, enum tg_linear_gate kind)
{
    const struct tg_recurrent_spec *r = &m->spec->recurrent;
    struct tg_sse s = {.N = r->partitions, .active = r->active, .shared = !r->no_shared};
    s.gates = tg_linear_gates_of(m, kind, false);
    s.gates.shared = true;
    return s;
}

size_t tg_sse_states(const struct tg_sse *s)
{
    return s->N ? s->N + s->shared : 1;
}

/* Floats that the recurrence keeps of n tokens of one sequence */
static size_t states_of(const struct tg_linear_parts *p, size_t n)
{
    const size_t begin[2] = {0, n};
    return tg_recur_saved(&p->recur, &(struct tg_batch){1, begin, NULL});
}

/* At most: each state but one may begin a chunk that it does not fill */
static size_t most_states(const struct tg_linear_parts *p, const struct tg_batch *b)
{
    size_t sum = 0;
    for (size_t i = 0; i < b->count; i++) {
        const size_t n = b->begin[i + 1] - b->begin[i], gathered = n * p->sse.active;
        const size_t used = gathered < p->sse.N ? gathered : p->sse.N;
        sum += states_of(p, gathered) + used * states_of(p, 1);
        sum += p->sse.shared ? states_of(p, n) : 0;
    }
    return sum;
}

size_t tg_sse_lay(const struct tg_linear_parts *p, const struct tg_batch *b, bool backward,
                  float *base, struct tg_sse_kept *k)
{
    struct tg_carve c = {base, 0};
    const size_t R = p->rows, HK = p->H * p->K, GK = p->G * p->K;
    const bool shared = p->sse.shared, unit = p->recipe->unit;
    *k = (struct tg_sse_kept){0};
    k->e = tg_carve(&c, R * p->sse.N);
    if (shared) {
        k->low_q = tg_carve(&c, R * p->V);
        k->low_k = tg_carve(&c, R * p->V);
        k->q1 = tg_carve(&c, R * HK);
        k->k1 = tg_carve(&c, R * GK);
        k->q = unit ? tg_carve(&c, R * HK) : k->q1;
        k->k = unit ? tg_carve(&c, R * GK) : k->k1;
        k->rq = tg_carve(&c, unit ? R * p->H : 0);
        k->rk = tg_carve(&c, unit ? R * p->G : 0);
    }
    k->states = backward ? tg_carve(&c, most_states(p, b)) : NULL;
    float *gates = base ? base + c.used : NULL;
    return c.used + (shared ? tg_linear_gates_lay(&p->sse.gates, R, gates, &k->gates) : 0);
}

/* Where the rows of tokens are gathered: state after state of each sequence, the shared one last */
struct places {
    size_t per, count;    /* rows of a token, of all */
    size_t *token, *part; /* [count] what a row is of; part N: the shared state */
    size_t *slot;         /* [rows,per] the rows of a token, part after part */
    size_t *begin;        /* [B states + 1] */
    float **state;        /* [B states]; NULL: from zeros */
    uint64_t *chosen;     /* [rows] a bit for each part */
    struct tg_batch b;    /* a sequence for each state of each */
};

/* Gathered rows, or their gradients */
struct heads {
    float *q, *k, *v, *g, *beta, *o;
};

static void *carve_words(struct tg_carve *c, size_t count)
{
    return tg_carve(c, count * (sizeof(uint64_t) / sizeof(float)));
}

static void places_lay(const struct tg_linear_parts *p, const struct tg_batch *b,
                       struct tg_carve *c, struct places *w)
{
    const size_t states = b->count * tg_sse_states(&p->sse);
    w->per = p->sse.active + p->sse.shared;
    w->count = p->rows * w->per;
    w->token = carve_words(c, w->count);
    w->part = carve_words(c, w->count);
    w->slot = carve_words(c, w->count);
    w->begin = carve_words(c, states + 1);
    w->state = carve_words(c, states);
    w->chosen = carve_words(c, p->rows);
    w->b = (struct tg_batch){states, w->begin, NULL};
}

static void heads_lay(const struct tg_linear_parts *p, const struct places *w, struct tg_carve *c,
                      struct heads *h)
{
    h->q = tg_carve(c, w->count * p->H * p->K);
    h->k = tg_carve(c, w->count * p->G * p->K);
    h->v = tg_carve(c, w->count * p->S * p->V);
    h->g = tg_carve(c, w->count * p->gates.N * p->gates.each);
    h->beta = p->gates.beta ? tg_carve(c, w->count * p->gates.N) : NULL;
    h->o = tg_carve(c, w->count * p->out * p->V);
}

struct scratch {
    struct places at;
    struct heads in, d;               /* o of `in` in backward: its gradient */
    float *de, *q, *k, *q1, *k1, *dg; /* gradients of a token's: by state; q', k'; g_s */
    float *low, *gates, *recur;
};

static size_t lay(const struct tg_linear_parts *p, const struct tg_batch *b, int threads,
                  bool backward, float *base, struct scratch *s)
{
    struct tg_carve c = {base, 0};
    const size_t R = p->rows, HK = p->H * p->K, GK = p->G * p->K;
    const size_t shared = p->sse.shared ? R : 0;
    *s = (struct scratch){0};
    places_lay(p, b, &c, &s->at);
    heads_lay(p, &s->at, &c, &s->in);
    s->recur = tg_carve(&c, tg_recur_work(&p->recur, threads));
    if (!backward)
        return c.used;
    heads_lay(p, &s->at, &c, &s->d);
    s->de = tg_carve(&c, R * p->sse.N);
    s->q = tg_carve(&c, shared * HK);
    s->k = tg_carve(&c, shared * GK);
    s->q1 = p->recipe->unit ? tg_carve(&c, shared * HK) : s->q;
    s->k1 = p->recipe->unit ? tg_carve(&c, shared * GK) : s->k;
    s->dg = tg_carve(&c, shared * p->gates.N * p->gates.each);
    s->low = tg_carve(&c, shared * p->V);
    s->gates = tg_carve(&c, tg_linear_gates_scratch(&p->sse.gates, shared));
    return c.used;
}

size_t tg_sse_work(const struct tg_linear_parts *p, const struct tg_batch *b, int threads)
{
    struct scratch s;
    return lay(p, b, threads, false, NULL, &s);
}

size_t tg_sse_bwd_work(const struct tg_linear_parts *p, const struct tg_batch *b, int threads)
{
    struct scratch s;
    return lay(p, b, threads, true, NULL, &s);
}

/* A block of tokens or of gathered rows */
struct pass {
    const struct tg_ctx *ctx;
    const struct tg_linear_parts *p;
    const struct tg_sse_kept *kept;
    struct scratch *s;
    const struct tg_recur_in *in;
    const float *x, *w, *d_o;
    float *o;
    const struct tg_recur_grads *to;
    size_t width;
};

/* e, each row by itself so that forward and decode choose alike */
static void weigh_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_kernels *kern = j->ctx->k;
    const size_t N = j->p->sse.N;
    (void)worker;
    for (size_t t = from; t < to; t++) {
        float *e = j->kept->e + t * N;
        kern->dots(j->x + t * j->width, j->w, j->width, N, j->width, e);
        kern->scale(1 / kern->exp_shift_sum(e, kern->max(e, N), N), e, N);
    }
}

/* The `active` largest, of equal ones the first */
static uint64_t choose(const float *e, size_t N, size_t active)
{
    uint64_t chosen = 0;
    for (size_t n = 0; n < active; n++) {
        size_t best = N;
        for (size_t i = 0; i < N; i++)
            if (!(chosen >> i & 1) && (best == N || e[i] > e[best]))
                best = i;
        chosen |= (uint64_t)1 << best;
    }
    return chosen;
}

static void choose_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_sse *s = &j->p->sse;
    (void)worker;
    for (size_t t = from; t < to; t++)
        j->s->at.chosen[t] = choose(j->kept->e + t * s->N, s->N, s->active);
}

static size_t bits_below(uint64_t bits, size_t i)
{
    size_t n = 0;
    for (size_t j = 0; j < i; j++)
        n += bits >> j & 1;
    return n;
}

static void place(const struct tg_linear_parts *p, const struct tg_batch *b,
                  struct tg_states states, struct places *w)
{
    const size_t N = p->sse.N, all = tg_sse_states(&p->sse), size = tg_recur_state(&p->recur);
    size_t n = 0;
    for (size_t i = 0; i < b->count; i++)
        for (size_t part = 0; part < all; part++) {
            w->begin[i * all + part] = n;
            w->state[i * all + part] = states.of ? tg_state_at(states, i) + part * size : NULL;
            for (size_t t = b->begin[i]; t < b->begin[i + 1]; t++) {
                if (part < N && !(w->chosen[t] >> part & 1))
                    continue;
                const size_t nth = part < N ? bits_below(w->chosen[t], part) : p->sse.active;
                w->slot[t * w->per + nth] = n;
                w->token[n] = t;
                w->part[n++] = part;
            }
        }
    w->begin[b->count * all] = n;
}

static void copy(const struct pass *j, float f, const float *x, size_t from, float *y, size_t to,
                 size_t n)
{
    memcpy(y + to * n, x + from * n, n * sizeof *y);
    if (f != 1)
        j->ctx->k->scale(f, y + to * n, n);
}

static void gather_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct tg_linear_parts *p = j->p;
    const struct heads *h = &j->s->in;
    const size_t N = p->sse.N, gates = p->gates.N;
    (void)worker;
    for (size_t r = from; r < to; r++) {
        const size_t t = j->s->at.token[r], part = j->s->at.part[r];
        const bool own = part < N && p->sse.shared; /* of the sparse states */
        const float e = part < N ? j->kept->e[t * N + part] : 1;
        copy(j, e, own ? j->kept->q : j->in->q, t, h->q, r, p->H * p->K);
        copy(j, e, own ? j->kept->k : j->in->k, t, h->k, r, p->G * p->K);
        copy(j, 1, j->in->v, t, h->v, r, p->S * p->V);
        copy(j, 1, part < N ? j->in->g : j->kept->gates.g, t, h->g, r, gates * p->gates.each);
        if (h->beta)
            copy(j, 1, j->in->beta, t, h->beta, r, gates);
        if (j->d_o)
            copy(j, 1, j->d_o, t, h->o, r, p->out * p->V);
    }
}

/* o of a token: the sum of its rows */
static void scatter_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct places *w = &j->s->at;
    const size_t n = j->p->out * j->p->V;
    (void)worker;
    for (size_t t = from; t < to; t++) {
        const size_t *slot = w->slot + t * w->per;
        memcpy(j->o + t * n, j->s->in.o + slot[0] * n, n * sizeof *j->o);
        for (size_t i = 1; i < w->per; i++)
            j->ctx->k->axpy(1, j->s->in.o + slot[i] * n, j->o + t * n, n);
    }
}

static struct tg_recur_in rows_of(const struct heads *h)
{
    return (struct tg_recur_in){.q = h->q, .k = h->k, .v = h->v, .g = h->g, .beta = h->beta};
}

/* x, q1, k1 -> q', k' and the shared state's gates */
static void own_heads(const struct tg_ctx *ctx, const struct tg_mixer *m,
                      const struct tg_linear_parts *p, const struct tg_batch *b, const float *x,
                      const float *q1, const float *k1, const struct tg_sse_kept *k)
{
    const size_t R = p->rows, D = m->width, V = p->V, HK = p->H * p->K, GK = p->G * p->K;
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "q2_a.weight"), NULL, k->low_q, R, V, D);
    tg_linear_fwd(ctx, x, tg_mixer_param(m, "k2_a.weight"), NULL, k->low_k, R, V, D);
    tg_linear_fwd(ctx, k->low_q, tg_mixer_param(m, "q2_b.weight"), NULL, k->q1, R, HK, V);
    tg_linear_fwd(ctx, k->low_k, tg_mixer_param(m, "k2_b.weight"), NULL, k->k1, R, GK, V);
    if (p->rotary)
        tg_proj_rotate(ctx, m, b, k->q1, k->k1, 1);
    ctx->k->axpy(1, q1, k->q1, R * HK);
    ctx->k->axpy(1, k1, k->k1, R * GK);
    if (p->recipe->unit) {
        tg_gnorm_fwd(ctx, &p->unit_q, R, k->q1, NULL, NULL, k->q, k->rq);
        tg_gnorm_fwd(ctx, &p->unit_k, R, k->k1, NULL, NULL, k->k, k->rk);
    }
    tg_linear_gates_fwd(ctx, &p->sse.gates, m, R, x, NULL, NULL, &k->gates);
}

void tg_sse_fwd(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_linear_parts *p,
                const struct tg_batch *b, const float *x, const struct tg_recur_in *in,
                const float *q1, const float *k1, float *o, struct tg_states states,
                const struct tg_sse_kept *k, float *work)
{
    struct scratch s;
    lay(p, b, ctx->threads, false, work, &s);
    struct pass j = {.ctx = ctx,
                     .p = p,
                     .kept = k,
                     .s = &s,
                     .in = in,
                     .x = x,
                     .w = tg_mixer_param(m, "partition.weight"),
                     .o = o,
                     .width = m->width};
    if (p->sse.shared)
        own_heads(ctx, m, p, b, x, q1, k1, k);
    tg_parallel_rows(ctx->threads, p->rows, weigh_rows, &j);
    tg_parallel_rows(ctx->threads, p->rows, choose_rows, &j);
    place(p, b, states, &s.at);
    tg_parallel_rows(ctx->threads, s.at.count, gather_rows, &j);
    const struct tg_recur_in rows = rows_of(&s.in);
    const struct tg_states each = {states.of ? s.at.state : NULL, 0};
    tg_recur_fwd(ctx, &p->recur, &s.at.b, &rows, s.in.o, each, k->states, s.recur);
    tg_parallel_rows(ctx->threads, p->rows, scatter_rows, &j);
}

/* Gradients of one row r of token t, added to where they are from */
static void add_row(const struct pass *j, size_t t, size_t r)
{
    const struct tg_linear_parts *p = j->p;
    const struct tg_kernels *kern = j->ctx->k;
    const struct scratch *s = j->s;
    const size_t N = p->sse.N, part = s->at.part[r], HK = p->H * p->K, GK = p->G * p->K;
    const size_t SV = p->S * p->V, gates = p->gates.N * p->gates.each;
    const bool own = part < N && p->sse.shared;
    const float e = part < N ? j->kept->e[t * N + part] : 1;
    const float *dq = s->d.q + r * HK, *dk = s->d.k + r * GK;
    if (part < N)
        s->de[t * N + part] = kern->dot(dq, (own ? j->kept->q : j->in->q) + t * HK, HK) +
                              kern->dot(dk, (own ? j->kept->k : j->in->k) + t * GK, GK);
    kern->axpy(e, dq, (own ? s->q : j->to->q) + t * HK, HK);
    kern->axpy(e, dk, (own ? s->k : j->to->k) + t * GK, GK);
    kern->axpy(1, s->d.v + r * SV, j->to->v + t * SV, SV);
    kern->axpy(1, s->d.g + r * gates, (part < N ? j->to->g : s->dg) + t * gates, gates);
    if (s->d.beta)
        kern->axpy(1, s->d.beta + r * p->gates.N, j->to->beta + t * p->gates.N, p->gates.N);
}

/* Of a token: what its rows give, and the gradient of its logits of e in place of e's */
static void scatter_bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct pass *j = ud;
    const struct places *w = &j->s->at;
    const size_t N = j->p->sse.N;
    (void)worker;
    for (size_t t = from; t < to; t++) {
        const float *e = j->kept->e + t * N;
        float *de = j->s->de + t * N;
        for (size_t i = 0; i < w->per; i++)
            add_row(j, t, w->slot[t * w->per + i]);
        float mean = 0;
        for (size_t i = 0; i < N; i++)
            mean += e[i] * de[i];
        for (size_t i = 0; i < N; i++)
            de[i] = e[i] * (de[i] - mean);
    }
}

static void clear(float *x, size_t n)
{
    if (x)
        memset(x, 0, n * sizeof *x);
}

void tg_sse_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p, const struct tg_batch *b,
                const struct tg_recur_in *in, const struct tg_sse_kept *k, const float *d_o,
                const struct tg_recur_grads *to, float *work)
{
    struct scratch s;
    lay(p, b, ctx->threads, true, work, &s);
    struct pass j = {.ctx = ctx, .p = p, .kept = k, .s = &s, .in = in, .d_o = d_o, .to = to};
    const size_t n = s.at.count, shared = p->sse.shared ? p->rows : 0;
    tg_parallel_rows(ctx->threads, p->rows, choose_rows, &j);
    place(p, b, (struct tg_states){0}, &s.at);
    tg_parallel_rows(ctx->threads, n, gather_rows, &j);
    const struct tg_recur_in rows = rows_of(&s.in);
    const struct tg_recur_grads d = {
        .q = s.d.q, .k = s.d.k, .v = s.d.v, .g = s.d.g, .beta = s.d.beta};
    clear(d.q, n * p->H * p->K);
    clear(d.k, n * p->G * p->K);
    clear(d.v, n * p->S * p->V);
    clear(d.g, n * p->gates.N * p->gates.each);
    clear(d.beta, n * p->gates.N);
    tg_recur_bwd(ctx, &p->recur, &s.at.b, &rows, k->states, s.in.o, &d, (struct tg_states){0},
                 s.recur);
    clear(s.de, p->rows * p->sse.N);
    clear(s.q, shared * p->H * p->K);
    clear(s.k, shared * p->G * p->K);
    clear(s.dg, shared * p->gates.N * p->gates.each);
    tg_parallel_rows(ctx->threads, p->rows, scatter_bwd_rows, &j);
}

void tg_sse_heads_bwd(const struct tg_ctx *ctx, const struct tg_linear_parts *p,
                      const struct tg_batch *b, const struct tg_sse_kept *k, float *dq1, float *dk1,
                      float *work)
{
    struct scratch s;
    if (!p->sse.shared)
        return;
    lay(p, b, ctx->threads, true, work, &s);
    if (p->recipe->unit) {
        tg_gnorm_bwd(ctx, &p->unit_q, p->rows, k->q1, NULL, NULL, k->rq, s.q, s.q1, NULL, NULL,
                     NULL);
        tg_gnorm_bwd(ctx, &p->unit_k, p->rows, k->k1, NULL, NULL, k->rk, s.k, s.k1, NULL, NULL,
                     NULL);
    }
    ctx->k->axpy(1, s.q1, dq1, p->rows * p->H * p->K);
    ctx->k->axpy(1, s.k1, dk1, p->rows * p->G * p->K);
}

/* dy of (x A^T) B^T, which is kept as low */
static void low_rank_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m, size_t rows, size_t n,
                         size_t rank, const char *const names[2], const float *x, const float *low,
                         const float *dy, float *dx, const struct tg_mixer_grads *d, float *dlow)
{
    tg_linear_bwd(ctx, low, tg_mixer_param(m, names[1]), dy, dlow, 0, tg_mixer_grad(m, d, names[1]),
                  NULL, rows, n, rank);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, names[0]), dlow, dx, 1, tg_mixer_grad(m, d, names[0]),
                  NULL, rows, rank, m->width);
}

void tg_sse_params_bwd(const struct tg_ctx *ctx, const struct tg_mixer *m,
                       const struct tg_linear_parts *p, const struct tg_batch *b, const float *x,
                       const struct tg_sse_kept *k, float *dx, const struct tg_mixer_grads *d,
                       float *work)
{
    static const char *const q2[] = {"q2_a.weight", "q2_b.weight"};
    static const char *const k2[] = {"k2_a.weight", "k2_b.weight"};
    struct scratch s;
    lay(p, b, ctx->threads, true, work, &s);
    tg_linear_bwd(ctx, x, tg_mixer_param(m, "partition.weight"), s.de, dx, 1,
                  tg_mixer_grad(m, d, "partition.weight"), NULL, p->rows, p->sse.N, m->width);
    if (!p->sse.shared)
        return;
    if (p->rotary)
        tg_proj_rotate(ctx, m, b, s.q1, s.k1, -1);
    low_rank_bwd(ctx, m, p->rows, p->H * p->K, p->V, q2, x, k->low_q, s.q1, dx, d, s.low);
    low_rank_bwd(ctx, m, p->rows, p->G * p->K, p->V, k2, x, k->low_k, s.k1, dx, d, s.low);
    tg_linear_gates_bwd(ctx, &p->sse.gates, m, p->rows, x, &k->gates, s.dg, NULL, dx, d, s.gates);
}
