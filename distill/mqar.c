#include "distill/mqar.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "distill/keys.h"

enum { STREAM = 0x6d716172 };
static const double gap_power = 0.01;

uint64_t tg_mqar_seed(uint64_t seed, enum tg_mqar_use use)
{
    return tg_key(seed, STREAM, (uint64_t)use);
}

static size_t slot_count(const struct tg_mqar *q, size_t pairs)
{
    return (q->length - 2 * pairs) / 2;
}

int tg_mqar_init(struct tg_mqar *q, size_t vocab, size_t length, size_t pairs, struct tg_err *err)
{
    *q = (struct tg_mqar){.vocab = vocab, .length = length, .pairs = pairs};
    if (pairs < 1 || pairs > length / 4)
        return tg_fail(err, TG_ERR_VALUE,
                       "mqar: %zu pairs must be in [1, %zu], a quarter of the length %zu", pairs,
                       length / 4, length);
    if (vocab > INT32_MAX || pairs + 1 > vocab / 2)
        return tg_fail(err, TG_ERR_VALUE,
                       "mqar: a vocabulary of %zu has no %zu keys below its half, 0 left out",
                       vocab, pairs);
    q->order = tg_alloc_array(vocab, sizeof *q->order);
    /* examples of fewer pairs have more slots */
    q->slots = tg_alloc_array(slot_count(q, 1), sizeof *q->slots);
    q->used = tg_alloc_array(vocab, sizeof *q->used);
    if (q->order && q->slots && q->used)
        return TG_OK;
    tg_mqar_release(q);
    return tg_fail(err, TG_ERR_NOMEM, "mqar: no memory for a vocabulary of %zu", vocab);
}

void tg_mqar_release(struct tg_mqar *q)
{
    tg_free(q->order);
    tg_free(q->slots);
    tg_free(q->used);
    *q = (struct tg_mqar){0};
}

static int by_key(const void *a, const void *b)
{
    const struct tg_mqar_slot *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key)
                            : (x->at > y->at) - (x->at < y->at);
}

/* Drawing one after another by weight without replacement is sorting by exponential variables of
 * these rates (Efraimidis and Spirakis 2006). */
static void draw_slots(struct tg_mqar *q, size_t pairs, struct tg_rng *rng)
{
    size_t n = slot_count(q, pairs);
    for (size_t i = 0; i < n; i++) {
        double weight = gap_power * pow((double)(i + 1), gap_power - 1);
        q->slots[i] = (struct tg_mqar_slot){-log(1 - tg_rng_uniform(rng)) / weight, i};
    }
    qsort(q->slots, n, sizeof *q->slots, by_key);
}

static int32_t draw_free(const struct tg_mqar *q, struct tg_rng *rng)
{
    size_t id;
    do
        id = (size_t)tg_rng_below(rng, q->vocab);
    while (q->used[id]);
    return (int32_t)id;
}

size_t tg_mqar_pairs_at(const struct tg_mqar *q, size_t fewest, uint64_t step, uint64_t steps)
{
    uint64_t parts = 0; /* of the first half */
    for (size_t k = fewest; k < q->pairs; k *= 2)
        parts++;
    const uint64_t part = step * 2 * parts / steps;
    return part >= parts ? q->pairs : fewest << part;
}

void tg_mqar_make(struct tg_mqar *q, uint64_t seed, uint64_t index, size_t pairs, int32_t *ids,
                  int32_t *labels)
{
    assert(pairs >= 1 && pairs <= q->pairs);
    struct tg_rng rng = tg_rng_make(seed, index);
    size_t half = q->vocab / 2;
    for (size_t t = 0; t < q->length; t++)
        ids[t] = labels[t] = -1;
    tg_rng_distinct(&rng, q->order, pairs, half - 1);
    for (size_t i = 0; i < pairs; i++)
        ids[2 * i] = (int32_t)(1 + q->order[i]);
    tg_rng_distinct(&rng, q->order, pairs, q->vocab - half);
    for (size_t i = 0; i < pairs; i++)
        ids[2 * i + 1] = (int32_t)(half + q->order[i]);
    draw_slots(q, pairs, &rng);
    for (size_t i = 0; i < pairs; i++) {
        size_t at = 2 * pairs + 2 * q->slots[i].at;
        ids[at] = ids[2 * i];
        labels[at] = ids[2 * i + 1];
    }
    memset(q->used, 0, q->vocab * sizeof *q->used);
    for (size_t t = 0; t < 2 * pairs; t++)
        q->used[ids[t]] = true;
    for (size_t t = 2 * pairs; t < q->length; t++)
        if (ids[t] < 0)
            ids[t] = draw_free(q, &rng);
}
