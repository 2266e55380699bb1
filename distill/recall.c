/* Generated recall tasks.
 *
 * needle and kv are the pass key and the register of the long-context literature (Mohtashami and
 * Jaggi 2023, arXiv:2305.16300; the prompts are spelled out in recall.h); mqar is multi-query
 * associative recall (Arora et al. 2023, arXiv:2312.04927): keys and values drawn without
 * replacement from disjoint halves of a set of tokens, here the plain words of the text so that a
 * pretrained model knows every one (mqar.h has the task for models without a tokenizer); copy is
 * the repetition of a list. Every answer is determined by its prompt. */
#include "distill/recall.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "distill/keys.h"

enum {
    ITEM_STREAM = 0x6974656d, /* keeps evaluation items apart from training text */
    NEEDLE_PARTS = 60,        /* tokens of a needle item that are not text */
    MQAR_SHOWN = 3,           /* questions answered in the prompt, so that the task is clear */
};

static const char *const task_names[TG_RECALL_TASKS] = {"needle", "kv", "mqar", "copy"};

const char *tg_recall_name(enum tg_recall_task t)
{
    return task_names[t];
}

int tg_recall_parse(const char *name, enum tg_recall_task *out, struct tg_err *err)
{
    for (size_t t = 0; t < TG_RECALL_TASKS; t++)
        if (strcmp(name, task_names[t]) == 0) {
            *out = (enum tg_recall_task)t;
            return TG_OK;
        }
    return tg_fail(err, TG_ERR_VALUE, "recall task '%s' is unknown (needle, kv, mqar, copy)", name);
}

void tg_recall_item_release(struct tg_recall_item *item)
{
    tg_ids_release(&item->prompt);
    tg_ids_release(&item->answer);
}

static int put_text(const struct tg_recall_source *s, const char *text, struct tg_ids *ids,
                    struct tg_err *err)
{
    return tg_tokenizer_encode(s->tok, text, strlen(text), false, ids, err);
}
static int put_buf(const struct tg_recall_source *s, struct tg_strbuf *b, struct tg_ids *ids,
                   struct tg_err *err)
{
    if (b->failed)
        return tg_fail(err, TG_ERR_NOMEM, "recall: no memory for a prompt of %zu bytes", b->len);
    int status = tg_tokenizer_encode(s->tok, b->text, b->len, false, ids, err);
    tg_strbuf_clear(b);
    return status;
}
static int put_ids(const int32_t *from, size_t n, struct tg_ids *ids, struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; i < n && status == TG_OK; i++)
        status = tg_ids_push(ids, from[i], err);
    return status;
}

/* n different numbers below `limit`, in random order; caller frees. */
static size_t *draw_distinct(struct tg_rng *rng, size_t n, size_t limit)
{
    size_t *all = tg_alloc_array(limit, sizeof *all);
    if (all)
        tg_rng_distinct(rng, all, n, limit);
    return all;
}
/* Whole number in [lo, hi], small ones as likely as large ones by factor */
static size_t draw_size(struct tg_rng *rng, size_t lo, size_t hi)
{
    if (hi <= lo)
        return lo;
    double u = tg_rng_uniform(rng), x = (double)lo * exp(u * log((double)(hi + 1) / (double)lo));
    size_t n = (size_t)x;
    return n < lo ? lo : n > hi ? hi : n;
}

/* Where n ids of prose begin */
static size_t draw_text(const struct tg_recall_source *s, struct tg_rng *rng, size_t n)
{
    return (size_t)tg_rng_below(rng, s->prose_count - n + 1);
}

static int put_statement(const struct tg_recall_source *s, unsigned key, struct tg_ids *ids,
                         struct tg_err *err)
{
    char text[96];
    snprintf(text, sizeof text, "\nThe pass key is %05u. Remember it. %05u is the pass key.\n", key,
             key);
    return put_text(s, text, ids, err);
}
static const char needle_question[] = "\nWhat is the pass key? The pass key is";

static unsigned draw_key(struct tg_rng *rng)
{
    return 10000 + (unsigned)tg_rng_below(rng, 90000);
}

static int make_needle(const struct tg_recall_source *s, size_t size, struct tg_rng *rng,
                       struct tg_recall_item *item, struct tg_err *err)
{
    if (size <= NEEDLE_PARTS || size - NEEDLE_PARTS > s->prose_count)
        return tg_fail(
            err, TG_ERR_VALUE,
            "needle: size %zu must be above %d and the text have as much prose, not %zu tokens",
            size, NEEDLE_PARTS, s->prose_count);
    size_t n = size - NEEDLE_PARTS, at = draw_text(s, rng, n);
    size_t cut = (size_t)tg_rng_below(rng, n + 1);
    unsigned key = draw_key(rng);
    char answer[16];
    snprintf(answer, sizeof answer, " %05u.", key);
    int status = put_ids(s->prose + at, cut, &item->prompt, err);
    if (status == TG_OK)
        status = put_statement(s, key, &item->prompt, err);
    if (status == TG_OK)
        status = put_ids(s->prose + at + cut, n - cut, &item->prompt, err);
    if (status == TG_OK)
        status = put_text(s, needle_question, &item->prompt, err);
    return status == TG_OK ? put_text(s, answer, &item->answer, err) : status;
}

/* Register with its first `asked` questions answered; when `item` is not NULL one more is asked. */
static int put_register(const struct tg_recall_source *s, size_t n, size_t asked,
                        struct tg_rng *rng, struct tg_ids *ids, struct tg_recall_item *item,
                        struct tg_err *err)
{
    if (n < 1 || n > s->name_count)
        return tg_fail(err, TG_ERR_VALUE, "kv: size %zu must be in [1, %zu], the names there are",
                       n, s->name_count);
    struct tg_strbuf b;
    tg_strbuf_init(&b, 1 << 24);
    size_t *who = draw_distinct(rng, n, s->name_count);
    unsigned *number = tg_alloc_array(n, sizeof *number);
    int status = TG_OK;
    if (!who || !number) {
        status = tg_fail(err, TG_ERR_NOMEM, "kv: no memory for %zu names", n);
        goto out;
    }
    tg_strbuf_puts(&b, "Register of names and numbers.\n");
    for (size_t i = 0; i < n; i++) {
        number[i] = (unsigned)tg_rng_below(rng, 10000);
        tg_strbuf_printf(&b, "%s: %04u\n", s->names[who[i]], number[i]);
    }
    tg_strbuf_puts(&b, "Questions.\n");
    for (size_t i = 0; i < asked; i++) {
        size_t q = (size_t)tg_rng_below(rng, n);
        tg_strbuf_printf(&b, "%s: %04u\n", s->names[who[q]], number[q]);
    }
    if (item) {
        size_t q = (size_t)tg_rng_below(rng, n);
        tg_strbuf_printf(&b, "%s:", s->names[who[q]]);
        status = put_buf(s, &b, ids, err);
        tg_strbuf_printf(&b, " %04u\n", number[q]);
        ids = &item->answer;
    }
    if (status == TG_OK)
        status = put_buf(s, &b, ids, err);
out:
    tg_free(number);
    tg_free(who);
    tg_strbuf_release(&b);
    return status;
}

/* n pairs, then `asked` questions with their answers; when `item` is not NULL one more is asked. */
static int put_pairs(const struct tg_recall_source *s, size_t n, size_t asked, struct tg_rng *rng,
                     struct tg_ids *ids, struct tg_recall_item *item, struct tg_err *err)
{
    if (n < 1 || 2 * n > s->word_count)
        return tg_fail(err, TG_ERR_VALUE,
                       "mqar: size %zu must be in [1, %zu], half of the words there are", n,
                       s->word_count / 2);
    size_t *word = draw_distinct(rng, 2 * n, s->word_count);
    if (!word)
        return tg_fail(err, TG_ERR_NOMEM, "mqar: no memory for %zu pairs", n);
    int status = TG_OK;
    size_t last = n + asked;
    for (size_t i = 0; i <= last && status == TG_OK; i++) {
        if (i == last && !item)
            break;
        size_t pair = i < n ? i : (size_t)tg_rng_below(rng, n);
        status = tg_ids_push(ids, s->words[word[2 * pair]], err);
        if (status == TG_OK)
            status =
                tg_ids_push(i == last ? &item->answer : ids, s->words[word[2 * pair + 1]], err);
    }
    tg_free(word);
    return status;
}

static int put_copy(const struct tg_recall_source *s, size_t n, struct tg_rng *rng,
                    struct tg_ids *prompt, struct tg_ids *answer, struct tg_err *err)
{
    if (n < 1 || n > s->name_count)
        return tg_fail(err, TG_ERR_VALUE, "copy: size %zu must be in [1, %zu], the names there are",
                       n, s->name_count);
    size_t *who = draw_distinct(rng, n, s->name_count);
    if (!who)
        return tg_fail(err, TG_ERR_NOMEM, "copy: no memory for %zu words", n);
    struct tg_strbuf b;
    tg_strbuf_init(&b, 1 << 24);
    tg_strbuf_puts(&b, "Copy:");
    for (size_t i = 0; i < n; i++)
        tg_strbuf_printf(&b, " %s", s->names[who[i]]);
    tg_strbuf_puts(&b, "\nAgain:");
    int status = put_buf(s, &b, prompt, err);
    for (size_t i = 0; i < n; i++)
        tg_strbuf_printf(&b, " %s", s->names[who[i]]);
    tg_strbuf_puts(&b, "\n");
    if (status == TG_OK)
        status = put_buf(s, &b, answer, err);
    tg_strbuf_release(&b);
    tg_free(who);
    return status;
}

int tg_recall_make(const struct tg_recall_source *s, enum tg_recall_task task, size_t size,
                   uint64_t seed, uint64_t index, struct tg_recall_item *item, struct tg_err *err)
{
    *item = (struct tg_recall_item){0};
    uint64_t key = tg_key(tg_key(seed, ITEM_STREAM, (uint64_t)task), size, 0);
    struct tg_rng rng = tg_rng_make(key, index);
    int status = TG_OK;
    switch (task) {
    case TG_RECALL_NEEDLE:
        status = make_needle(s, size, &rng, item, err);
        break;
    case TG_RECALL_KV:
        status = put_register(s, size, 0, &rng, &item->prompt, item, err);
        break;
    case TG_RECALL_MQAR:
        status = put_pairs(s, size, MQAR_SHOWN, &rng, &item->prompt, item, err);
        break;
    case TG_RECALL_COPY:
        status = put_copy(s, size, &rng, &item->prompt, &item->answer, err);
        break;
    case TG_RECALL_TASKS:
        status = tg_fail(err, TG_ERR_VALUE, "recall: no such task");
    }
    if (status != TG_OK)
        tg_recall_item_release(item);
    return status;
}

/* A pass key in text with one to three questions: the last at the end, others in between. */
static int fill_needle(const struct tg_recall_source *s, size_t n, struct tg_rng *rng,
                       struct tg_ids *ids, struct tg_err *err)
{
    size_t at = draw_text(s, rng, n), from = (size_t)tg_rng_below(rng, n + 1);
    size_t questions = 1 + (size_t)tg_rng_below(rng, 3);
    unsigned key = draw_key(rng);
    char answer[16];
    snprintf(answer, sizeof answer, " %05u.\n", key);
    int status = put_ids(s->prose + at, from, ids, err);
    if (status == TG_OK)
        status = put_statement(s, key, ids, err);
    for (size_t q = 0; q < questions && status == TG_OK; q++) {
        size_t to = q + 1 == questions ? n : from + (size_t)tg_rng_below(rng, n - from + 1);
        status = put_ids(s->prose + at + from, to - from, ids, err);
        if (status == TG_OK)
            status = put_text(s, needle_question, ids, err);
        if (status == TG_OK)
            status = put_text(s, answer, ids, err);
        from = to;
    }
    return status;
}

static int fill_one(const struct tg_recall_source *s, size_t room, struct tg_rng *rng,
                    struct tg_ids *ids, struct tg_err *err)
{
    /* tokens that one name, pair or copied word takes, about */
    enum { LINE = 9, PAIR = 4, COPIED = 6 };
    size_t pick = (size_t)tg_rng_below(rng, 6), n;
    size_t longest = room > 2 * NEEDLE_PARTS ? room - 2 * NEEDLE_PARTS : 0;
    if (longest > s->prose_count)
        longest = s->prose_count;
    if (pick < 2 && longest >= 32)
        return fill_needle(s, draw_size(rng, 32, longest), rng, ids, err);
    if (pick == 4 && s->word_count >= 16) {
        n = draw_size(rng, 4, room / PAIR > s->word_count / 2 ? s->word_count / 2 : room / PAIR);
        return put_pairs(s, n, n, rng, ids, NULL, err);
    }
    size_t most = s->name_count;
    if (pick == 5) {
        n = draw_size(rng, 4, room / COPIED < most ? room / COPIED : most);
        return put_copy(s, n, rng, ids, ids, err);
    }
    n = draw_size(rng, 4, room / (2 * LINE) < most ? room / (2 * LINE) : most);
    return put_register(s, n, n / 2 + 1 + (size_t)tg_rng_below(rng, n), rng, ids, NULL, err);
}

int tg_recall_fill(const struct tg_recall_source *s, struct tg_rng *rng, int32_t *ids,
                   size_t length, struct tg_err *err)
{
    struct tg_ids made = {0};
    int32_t end = tg_tokenizer_id(s->tok, "<|endoftext|>");
    int status = TG_OK;
    while (made.count < length && status == TG_OK) {
        status = fill_one(s, length - made.count, rng, &made, err);
        if (status == TG_OK)
            status = put_text(s, "\n", &made, err);
        if (status == TG_OK && end >= 0)
            status = tg_ids_push(&made, end, err);
        if (status == TG_OK && end >= 0)
            status = put_text(s, "\n", &made, err);
    }
    if (status == TG_OK)
        memcpy(ids, made.data, length * sizeof *ids);
    tg_ids_release(&made);
    return status;
}
