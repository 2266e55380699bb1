/* Generation: prompts through the cache in pieces, then one token of every unfinished sequence per
 * step. */
#include "linearize/model/generate.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"

enum { PREFILL_ROWS = 2048 }; /* tokens of all sequences in one step of the prompt */

struct candidate {
    float p;
    int32_t id;
};

struct generation {
    struct tg_model *m;
    const struct tg_sampling *sampling;
    struct tg_cache *cache;
    size_t sequences, vocab, width, rows; /* rows: most in one step */
    size_t *begin, *active;               /* [sequences+1], [sequences]: those of this step */
    int32_t *ids, *next;                  /* [rows], [sequences] */
    float *hidden, *last, *logits;        /* [rows,D], [sequences,D], [sequences,N] */
    struct tg_rng *rng;                   /* [sequences] */
    struct candidate *sorted;             /* [sequences,N] if top_k or top_p is in force */
    size_t active_count;
};

static bool is_cut(const struct tg_sampling *s)
{
    return s->temperature > 0 && (s->top_k > 0 || s->top_p < 1);
}

static int check(const struct tg_model *m, const size_t *prompt_len, size_t sequences, size_t count,
                 const struct tg_sampling *s, struct tg_err *err)
{
    if (!(s->temperature >= 0) || s->temperature > 1e6)
        return tg_fail(err, TG_ERR_VALUE, "temperature %g is not in [0, 1e6]", s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return tg_fail(err, TG_ERR_VALUE, "top_p %g is not in (0, 1]", s->top_p);
    for (size_t i = 0; i < sequences; i++)
        if (prompt_len[i] == 0)
            return tg_fail(err, TG_ERR_VALUE, "prompt %zu is empty", i);
    if (count > (size_t)1 << 40 || m->spec.vocab > INT32_MAX)
        return tg_fail(err, TG_ERR_VALUE, "%zu tokens are too many", count);
    return TG_OK;
}

static void generation_release(struct generation *g)
{
    tg_cache_free(g->cache);
    tg_free(g->begin);
    tg_free(g->active);
    tg_free(g->ids);
    tg_free(g->next);
    tg_free(g->hidden);
    tg_free(g->last);
    tg_free(g->logits);
    tg_free(g->rng);
    tg_free(g->sorted);
}

static float *floats(size_t rows, size_t n)
{
    size_t cells;
    return tg_mul_size(&cells, rows, n) ? tg_alloc_floats(cells) : NULL;
}

static int generation_init(struct generation *g, size_t capacity, struct tg_err *err)
{
    size_t B = g->sequences, cells = 0;
    g->rows = B > PREFILL_ROWS ? B : PREFILL_ROWS;
    g->begin = tg_alloc_array(B + 1, sizeof *g->begin);
    g->active = tg_alloc_array(B, sizeof *g->active);
    g->ids = tg_alloc_array(g->rows, sizeof *g->ids);
    g->next = tg_alloc_array(B, sizeof *g->next);
    g->hidden = floats(g->rows, g->width);
    g->last = floats(B, g->width);
    g->logits = floats(B, g->vocab);
    g->rng = tg_alloc_array(B, sizeof *g->rng);
    bool cut = is_cut(g->sampling) && tg_mul_size(&cells, B, g->vocab);
    if (cut)
        g->sorted = tg_alloc_array(cells, sizeof *g->sorted);
    if (!g->begin || !g->active || !g->ids || !g->next || !g->hidden || !g->last || !g->logits ||
        !g->rng || (is_cut(g->sampling) && !g->sorted))
        return tg_fail(err, TG_ERR_NOMEM, "no memory to generate %zu sequences", B);
    for (size_t i = 0; i < B; i++)
        g->rng[i] = tg_rng_make(g->sampling->seed, i);
    return tg_cache_create(&g->cache, g->m, B, capacity, err);
}

/* All prompts in pieces of equal length; last [sequences,D] gets the hidden state after each
 * prompt. */
static int prefill(struct generation *g, const int32_t *const *prompts, const size_t *prompt_len,
                   struct tg_err *err)
{
    size_t piece = g->rows / g->sequences, left = 1;
    for (size_t at = 0; left; at += piece) {
        left = 0;
        for (size_t i = 0; i < g->sequences; i++) {
            size_t todo = prompt_len[i] > at ? prompt_len[i] - at : 0;
            size_t now = todo < piece ? todo : piece;
            g->begin[i + 1] = g->begin[i] + now;
            if (now)
                memcpy(g->ids + g->begin[i], prompts[i] + at, now * sizeof *g->ids);
            left += todo - now;
        }
        int status = tg_model_step(g->m, g->cache, g->ids, g->begin, g->hidden, NULL, err);
        if (status)
            return status;
        for (size_t i = 0; i < g->sequences; i++)
            if (g->begin[i + 1] > g->begin[i])
                memcpy(g->last + i * g->width, g->hidden + (g->begin[i + 1] - 1) * g->width,
                       g->width * sizeof(float));
    }
    return TG_OK;
}

static int by_probability(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p < y->p ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The likeliest top_k, of those the fewest that reach top_p of their sum; then one of them. p [n]
 * are not normalised. */
static int32_t draw_cut(const struct tg_sampling *s, const float *p, size_t n, double u,
                        struct candidate *sorted)
{
    for (size_t i = 0; i < n; i++)
        sorted[i] = (struct candidate){p[i], (int32_t)i};
    qsort(sorted, n, sizeof *sorted, by_probability);
    size_t kept = s->top_k && s->top_k < n ? s->top_k : n;
    double total = 0, mass = 0;
    for (size_t i = 0; i < kept; i++)
        total += sorted[i].p;
    size_t last = 0;
    for (size_t i = 0; i < kept && (i == 0 || mass < s->top_p * total); i++) {
        mass += sorted[i].p;
        last = i;
    }
    double below = 0;
    for (size_t i = 0; i < last; i++) {
        below += sorted[i].p;
        if (u * mass < below)
            return sorted[i].id;
    }
    return sorted[last].id;
}

static int32_t draw(const float *p, size_t n, double total, double u)
{
    double below = 0;
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] > 0)
            last = i;
        below += p[i];
        if (u * total < below)
            return (int32_t)i;
    }
    return (int32_t)last;
}

/* logits are overwritten by probabilities times a constant */
static void pick(void *ud, size_t item, int worker)
{
    struct generation *g = ud;
    (void)worker;
    size_t i = g->active[item];
    const struct tg_sampling *s = g->sampling;
    const struct tg_kernels *k = g->m->ctx.k;
    float *p = g->logits + item * g->vocab;
    if (s->temperature == 0) {
        g->next[i] = (int32_t)tg_argmax(p, g->vocab);
        return;
    }
    float top = k->max(p, g->vocab);
    double total = 0, u = tg_rng_uniform(&g->rng[i]);
    for (size_t j = 0; j < g->vocab; j++)
        p[j] = (float)((p[j] - top) / s->temperature);
    k->exp(p, p, g->vocab);
    for (size_t j = 0; j < g->vocab; j++)
        total += p[j];
    g->next[i] = g->sorted ? draw_cut(s, p, g->vocab, u, g->sorted + i * g->vocab)
                           : draw(p, g->vocab, total, u);
}

static bool is_eos(const struct tg_model_spec *spec, int32_t id)
{
    for (size_t i = 0; i < spec->eos_count; i++)
        if (spec->eos_ids[i] == id)
            return true;
    return false;
}

/* hidden [active_count,D] of the active sequences in order -> next */
static void choose(struct generation *g, const float *hidden)
{
    tg_model_logits(g->m, hidden, g->active_count, g->logits);
    tg_parallel(g->m->ctx.threads, g->active_count, pick, g);
}

static int decode(struct generation *g, size_t count, bool stop_at_eos, int32_t *out, size_t *made,
                  tg_token_fn on_token, void *ud, struct tg_err *err)
{
    for (size_t i = 0; i < g->sequences; i++)
        g->active[i] = i;
    g->active_count = g->sequences;
    choose(g, g->last);
    for (size_t n = 0; n < count; n++) {
        size_t still = 0, rows = 0;
        for (size_t a = 0; a < g->active_count; a++) {
            size_t i = g->active[a];
            out[i * count + n] = g->next[i];
            made[i] = n + 1;
            if (on_token && on_token(ud, i, g->next[i]))
                return TG_OK;
            if (!(stop_at_eos && is_eos(&g->m->spec, g->next[i])))
                g->active[still++] = i;
        }
        g->active_count = still;
        if (still == 0 || n + 1 == count)
            return TG_OK;
        for (size_t i = 0; i < g->sequences; i++) {
            g->begin[i] = rows;
            if (rows < still && g->active[rows] == i)
                g->ids[rows++] = g->next[i];
        }
        g->begin[g->sequences] = rows;
        int status = tg_model_step(g->m, g->cache, g->ids, g->begin, g->hidden, NULL, err);
        if (status)
            return status;
        choose(g, g->hidden);
    }
    return TG_OK;
}

int tg_generate(struct tg_model *m, const int32_t *const *prompts, const size_t *prompt_len,
                size_t sequences, size_t count, const struct tg_sampling *s, bool stop_at_eos,
                int32_t *out, size_t *made, tg_token_fn on_token, void *ud, struct tg_err *err)
{
    struct generation g = {.m = m, .sampling = s, .sequences = sequences};
    g.vocab = m->spec.vocab;
    g.width = m->spec.width;
    int status = check(m, prompt_len, sequences, count, s, err);
    if (status)
        return status;
    size_t longest = 0;
    for (size_t i = 0; i < sequences; i++) {
        made[i] = 0;
        longest = prompt_len[i] > longest ? prompt_len[i] : longest;
    }
    if (sequences == 0 || count == 0)
        return TG_OK;
    status = generation_init(&g, longest + count, err);
    if (!status)
        status = prefill(&g, prompts, prompt_len, err);
    if (!status)
        status = decode(&g, count, stop_at_eos, out, made, on_token, ud, err);
    generation_release(&g);
    return status;
}
