/* Which layers a user's words mean: lists, patterns, and those that a ranking finds to matter. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "linearize/surgery/surgery_internal.h"

/* A decimal number at *s, which moves past it; false if there is none or it is above 2^31. */
static bool take_number(const char **s, size_t *out)
{
    if (**s < '0' || **s > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(*s, &end, 10);
    *s = end;
    *out = (size_t)v;
    return errno == 0 && v <= (unsigned long long)1 << 31;
}

/* What is asked for, and the layers it is asked of */
struct pick {
    const char *what, *words;
    const struct tg_rank *rank;
    const bool *can_change;
    bool *chosen; /* [layers] */
    size_t layers;
};

static int bad_words(const struct pick *p, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE,
                   "%s: '%.64s' is not none, a list as 1,4 or 0-2,middle,last, every:K, ratio:R or "
                   "auto:N",
                   p->what, p->words);
}

/* A layer's number, or a word for one */
static bool take_layer(const struct pick *p, const char **s, size_t *out)
{
    const struct {
        const char *name;
        size_t layer;
    } words[] = {{"first", 0}, {"middle", p->layers / 2}, {"last", p->layers - 1}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i].name);
        if (strncmp(*s, words[i].name, n) == 0) {
            *s += n;
            *out = words[i].layer;
            return true;
        }
    }
    return take_number(s, out);
}

static int pick_list(const struct pick *p, struct tg_err *err)
{
    for (const char *s = p->words;; s++) {
        size_t first, last;
        if (!take_layer(p, &s, &first))
            return bad_words(p, err);
        last = first;
        if (*s == '-' && (s++, !take_layer(p, &s, &last) || last < first))
            return bad_words(p, err);
        if (last >= p->layers)
            return tg_fail(err, TG_ERR_VALUE,
                           "%s: there is no layer %zu, the model has %zu (0 to %zu)", p->what, last,
                           p->layers, p->layers - 1);
        for (size_t l = first; l <= last; l++)
            p->chosen[l] = true;
        if (*s == '\0')
            return TG_OK;
        if (*s != ',')
            return bad_words(p, err);
    }
}

static int pick_every(const struct pick *p, const char *number, struct tg_err *err)
{
    size_t every;
    if (!take_number(&number, &every) || *number)
        return bad_words(p, err);
    if (every < 2 || every > p->layers)
        return tg_fail(err, TG_ERR_VALUE, "%s: every:%zu is not in [2, %zu layers]", p->what, every,
                       p->layers);
    for (size_t l = every - 1; l < p->layers; l += every)
        p->chosen[l] = true;
    return TG_OK;
}

static size_t candidates(const struct pick *p)
{
    size_t count = 0;
    for (size_t l = 0; l < p->layers; l++)
        count += !p->can_change || p->can_change[l];
    return count;
}

/* Of the layers that can change, R do for each that is kept, which is the last of the R + 1. */
static int pick_ratio(const struct pick *p, const char *number, struct tg_err *err)
{
    size_t ratio, seen = 0;
    const size_t all = candidates(p);
    if (!take_number(&number, &ratio) || *number)
        return bad_words(p, err);
    if (ratio < 1)
        return tg_fail(err, TG_ERR_VALUE, "%s: ratio:%zu is not 1 or more", p->what, ratio);
    if (all <= ratio)
        return tg_fail(err, TG_ERR_VALUE, "%s: ratio:%zu keeps none of %zu layers", p->what, ratio,
                       all);
    for (size_t l = 0; l < p->layers; l++)
        if (!p->can_change || p->can_change[l])
            p->chosen[l] = ++seen % (ratio + 1) == 0;
    return TG_OK;
}

/* Recall is a share of right answers over a few dozen items: differences under this step are noise
 * and KL decides. */
static const double RECALL_STEP = 0.02;

/* Negative if a loss of (recall_a, kl_a) is smaller than (recall_b, kl_b) */
static int compare_loss(double recall_a, double kl_a, double recall_b, double kl_b)
{
    double a = floor(recall_a / RECALL_STEP + 0.5), b = floor(recall_b / RECALL_STEP + 0.5);
    if (a != b)
        return a < b ? -1 : 1;
    return (kl_a > kl_b) - (kl_a < kl_b);
}

static size_t keep_best_pair(const struct tg_rank *rank, const bool *can_change, bool *kept)
{
    size_t best = rank->pairs;
    for (size_t i = 0; i < rank->pairs; i++) {
        bool usable = can_change[rank->pair_a[i]] && can_change[rank->pair_b[i]];
        if (usable && (best == rank->pairs ||
                       compare_loss(rank->pair_recall_lost[i], rank->pair_kl[i],
                                    rank->pair_recall_lost[best], rank->pair_kl[best]) < 0))
            best = i;
    }
    if (best == rank->pairs)
        return 0;
    kept[rank->pair_a[best]] = kept[rank->pair_b[best]] = true;
    return 2;
}

/* The layer that is not yet chosen whose loss hurts most */
static size_t worst_left(const struct pick *p)
{
    size_t worst = p->layers;
    for (size_t l = 0; l < p->layers; l++) {
        const struct tg_rank_row *row = &p->rank->rows[l], *top = &p->rank->rows[worst % p->layers];
        if (p->can_change[l] && !p->chosen[l] &&
            (worst == p->layers ||
             compare_loss(row->recall_lost, row->kl, top->recall_lost, top->kl) > 0))
            worst = l;
    }
    return worst;
}

static int pick_auto(const struct pick *p, const char *number, struct tg_err *err)
{
    size_t want;
    if (!p->can_change || !take_number(&number, &want) || *number)
        return bad_words(p, err);
    if (want > candidates(p))
        return tg_fail(err, TG_ERR_VALUE, "%s: auto:%zu keeps more than the %zu layers there are",
                       p->what, want, candidates(p));
    if (want == 0)
        return TG_OK;
    if (!p->rank)
        return tg_fail(err, TG_ERR_VALUE, "%s: %s needs a ranking of the layers", p->what,
                       p->words);
    if (p->rank->count != p->layers)
        return tg_fail(err, TG_ERR_MISMATCH, "%s: the ranking has %zu layers, the model has %zu",
                       p->what, p->rank->count, p->layers);
    size_t have = want >= 2 ? keep_best_pair(p->rank, p->can_change, p->chosen) : 0;
    for (; have < want; have++)
        p->chosen[worst_left(p)] = true;
    return TG_OK;
}

int tg_plan_pick(const char *what, const char *words, const struct tg_rank *rank,
                 const bool *can_change, bool *chosen, size_t layers, struct tg_err *err)
{
    const struct pick p = {what, words, rank, can_change, chosen, layers};
    if (strcmp(words, "none") == 0)
        return TG_OK;
    if (strncmp(words, "every:", 6) == 0)
        return pick_every(&p, words + 6, err);
    if (strncmp(words, "ratio:", 6) == 0)
        return pick_ratio(&p, words + 6, err);
    if (strncmp(words, "auto:", 5) == 0)
        return pick_auto(&p, words + 5, err);
    return pick_list(&p, err);
}
