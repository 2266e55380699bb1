/* Training data. The order of the windows of an epoch is a keyed permutation (a Feistel network
 * over the next power of four, walked until it lands inside), so that sequence n costs the same
 * whatever n is and nothing but (seed, stream, n) has to be remembered to go on. */
#include "distill/data.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "distill/keys.h"

enum { RECALL_STREAM = 0x72656361, ORDER_STREAM = 0x6f726465, SHIFT_STREAM = 0x73686966 };

/* Item i of a keyed permutation of [0, n). */
static uint64_t permute(uint64_t key, uint64_t i, uint64_t n)
{
    unsigned half = 1;
    while (half < 32 && (1ULL << (2 * half)) < n)
        half++;
    uint64_t mask = (1ULL << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (tg_key(key, round, right) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

static int append(int32_t **to, size_t *count, const int32_t *from, size_t n, struct tg_err *err)
{
    size_t cap = *count;
    if (!tg_grow(to, &cap, *count + n, sizeof **to))
        return tg_fail(err, TG_ERR_NOMEM, "data: no memory for %zu tokens", *count + n);
    if (n)
        memcpy(*to + *count, from, n * sizeof **to);
    *count += n;
    return TG_OK;
}

static int read_file(struct tg_data *d, const char *arg, const struct tg_tokenizer *tok,
                     size_t vocab, struct tg_err *err)
{
    struct tg_corpus_spec part = {0};
    struct tg_ids ids = {0};
    int status = tg_corpus_spec_parse(arg, &part, err);
    if (status == TG_OK)
        status = tg_corpus_read(&part, tok, vocab, &ids, err);
    size_t keep = ids.count - (size_t)((double)ids.count * d->set.held_out);
    if (status == TG_OK)
        status = append(&d->train, &d->train_count, ids.data, keep, err);
    if (status == TG_OK)
        status = append(&d->held, &d->held_count, ids.data + keep, ids.count - keep, err);
    tg_ids_release(&ids);
    tg_corpus_spec_release(&part);
    return status;
}

static int check_settings(const struct tg_data_settings *s, const struct tg_tokenizer *tok,
                          struct tg_err *err)
{
    if (s->file_count == 0)
        return tg_fail(err, TG_ERR_VALUE, "data: no files");
    if (s->length < 2 || s->length > 1u << 24)
        return tg_fail(err, TG_ERR_VALUE, "data.length = %zu must be in [2, %u]", s->length,
                       1u << 24);
    if (!(s->recall_mix >= 0 && s->recall_mix <= 1))
        return tg_fail(err, TG_ERR_VALUE, "data.recall_mix = %g must be in [0, 1]", s->recall_mix);
    if (!(s->held_out >= 0 && s->held_out < 1))
        return tg_fail(err, TG_ERR_VALUE, "data.held_out = %g must be in [0, 1)", s->held_out);
    if (s->recall_mix > 0 && !tok)
        return tg_fail(err, TG_ERR_VALUE, "data.recall_mix = %g needs a tokenizer", s->recall_mix);
    return TG_OK;
}

int tg_data_open(struct tg_data **out, const struct tg_data_settings *s,
                 const struct tg_tokenizer *tok, size_t vocab, struct tg_err *err)
{
    *out = NULL;
    int status = check_settings(s, tok, err);
    if (status != TG_OK)
        return status;
    struct tg_data *d = tg_alloc(sizeof *d);
    if (!d)
        return tg_fail(err, TG_ERR_NOMEM, "data: no memory");
    d->set = *s;
    for (size_t i = 0; i < s->file_count && status == TG_OK; i++)
        status = read_file(d, s->files[i], tok, vocab, err);
    if (status == TG_OK && d->train_count < s->length)
        status = tg_fail(err, TG_ERR_VALUE,
                         "data: %zu tokens of training text are fewer than one sequence of %zu",
                         d->train_count, s->length);
    if (status == TG_OK && tok)
        status = tg_recall_source_init(&d->recall, tok, d->train, d->train_count, err);
    if (status == TG_OK)
        *out = d;
    else
        tg_data_close(d);
    return status;
}

void tg_data_close(struct tg_data *d)
{
    if (!d)
        return;
    tg_recall_source_release(&d->recall);
    tg_free(d->train);
    tg_free(d->held);
    tg_free(d);
}

int tg_data_sequence(const struct tg_data *d, uint64_t stream, uint64_t n, int32_t *ids,
                     struct tg_err *err)
{
    const struct tg_data_settings *s = &d->set;
    /* Recall text is spread evenly: sequence n is one where the running share passes a whole
     * number. */
    uint64_t before = (uint64_t)floor((double)n * s->recall_mix);
    if ((uint64_t)floor((double)(n + 1) * s->recall_mix) > before) {
        struct tg_rng rng = tg_rng_make(tg_key(s->seed, RECALL_STREAM, stream), n);
        return tg_recall_fill(&d->recall, &rng, ids, s->length, err);
    }
    uint64_t text = n - before, windows = d->train_count / s->length;
    uint64_t epoch = text / windows;
    uint64_t order = tg_key(tg_key(s->seed, ORDER_STREAM, stream), epoch, 0);
    struct tg_rng shift = tg_rng_make(tg_key(s->seed, SHIFT_STREAM, stream), epoch);
    uint64_t from = tg_rng_below(&shift, d->train_count - windows * s->length + 1);
    uint64_t window = permute(order, text % windows, windows);
    memcpy(ids, d->train + from + window * s->length, s->length * sizeof *ids);
    return TG_OK;
}
