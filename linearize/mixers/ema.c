/* Exponential moving averages; equations in ema.h. */
#include "linearize/mixers/ema.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"

struct scratch {
    float *keep, *take; /* [H,V] a and 1 - a */
    double *parts;      /* [B][H,V] of ddecay */
};

static size_t work_lay(const struct tg_ema *a, const struct tg_batch *b, bool backward, float *base,
                       struct scratch *s)
{
    struct tg_carve c = {base, 0};
    size_t n = a->H * a->V;
    s->keep = tg_carve(&c, n);
    s->take = tg_carve(&c, n);
    s->parts = (double *)(void *)tg_carve(&c, backward ? 2 * b->count * n : 0);
    return c.used;
}

size_t tg_ema_work(const struct tg_ema *a, const struct tg_batch *b, bool backward)
{
    struct scratch s;
    return work_lay(a, b, backward, NULL, &s);
}

struct job {
    const struct tg_ema *a;
    const struct tg_batch *b;
    const float *v, *e;
    float *out, *de, *dv;
    struct tg_states states;
    struct scratch s;
};

static void open_job(struct job *j, bool backward, float *work)
{
    work_lay(j->a, j->b, backward, work, &j->s);
    for (size_t i = 0; i < j->a->H * j->a->V; i++) {
        j->s.keep[i] = 1 / (1 + expf(-j->a->decay[i]));
        j->s.take[i] = 1 / (1 + expf(j->a->decay[i]));
    }
}

/* An item is a sequence and a query head */
static void fwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    size_t H = j->a->H, G = j->a->G, V = j->a->V, i = item / H, h = item % H;
    const float *keep = j->s.keep + h * V, *take = j->s.take + h * V;
    float *state = tg_state_at(j->states, i);
    const float *last = state ? state + h * V : NULL;
    (void)worker;
    for (size_t t = j->b->begin[i]; t < j->b->begin[i + 1]; t++) {
        const float *v = j->v + (t * G + h / (H / G)) * V;
        float *e = j->out + (t * H + h) * V;
        for (size_t c = 0; c < V; c++)
            e[c] = (last ? keep[c] * last[c] : 0) + take[c] * v[c];
        last = e;
    }
    if (state && last != state + h * V)
        memcpy(state + h * V, last, V * sizeof *state);
}

void tg_ema_fwd(const struct tg_ctx *ctx, const struct tg_ema *a, const struct tg_batch *b,
                const float *v, float *e, struct tg_states states, float *work)
{
    struct job j = {.a = a, .b = b, .v = v, .out = e, .states = states};
    open_job(&j, false, work);
    tg_parallel(ctx->threads, b->count * a->H, fwd_item, &j);
}

static void bwd_head(const struct job *j, size_t i, size_t h)
{
    size_t H = j->a->H, G = j->a->G, V = j->a->V, first = j->b->begin[i];
    const float *keep = j->s.keep + h * V, *take = j->s.take + h * V, *later = NULL;
    double *part = j->s.parts + (i * H + h) * V;
    memset(part, 0, V * sizeof *part);
    for (size_t t = j->b->begin[i + 1]; t-- > first;) {
        size_t at = (t * H + h) * V, value = (t * G + h / (H / G)) * V;
        const float *v = j->v + value, *last = t > first ? j->e + at - H * V : NULL;
        float *d = j->de + at, *dv = j->dv + value;
        for (size_t c = 0; c < V; c++) {
            d[c] += later ? keep[c] * later[c] : 0;
            dv[c] += take[c] * d[c];
            part[c] += (double)d[c] * (double)((last ? last[c] : 0) - v[c]);
        }
        later = d;
    }
    for (size_t c = 0; c < V; c++)
        part[c] *= (double)keep[c] * (double)take[c];
}

/* An item is a sequence and a kv head: its query heads add to the same dv, in order. */
static void bwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    size_t G = j->a->G, per = j->a->H / G, group = item % G;
    (void)worker;
    for (size_t h = group * per; h < (group + 1) * per; h++)
        bwd_head(j, item / G, h);
}

void tg_ema_bwd(const struct tg_ctx *ctx, const struct tg_ema *a, const struct tg_batch *b,
                const float *v, const float *e, float *de, float *dv, float *ddecay, float *work)
{
    size_t n = a->H * a->V;
    struct job j = {.a = a, .b = b, .v = v, .e = e, .de = de, .dv = dv};
    open_job(&j, true, work);
    tg_parallel(ctx->threads, b->count * a->G, bwd_item, &j);
    for (size_t c = 0; ddecay && c < n; c++) {
        double sum = 0;
        for (size_t i = 0; i < b->count; i++)
            sum += j.s.parts[i * n + c];
        ddecay[c] += (float)sum;
    }
}
