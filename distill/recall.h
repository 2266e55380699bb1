/* Generated recall tasks: text whose answer stands far back. Used to train (recall_mix), to rank
 * layers and to validate. Item i of (task, size, seed) is a pure function. */
#ifndef TG_DISTILL_RECALL_H
#define TG_DISTILL_RECALL_H

#include "base/rng.h"
#include "formats/tokenizer/tokenizer.h"

enum tg_recall_task {
    TG_RECALL_NEEDLE,
    TG_RECALL_KV,
    TG_RECALL_MQAR,
    TG_RECALL_COPY,
    TG_RECALL_TASKS
};
const char *tg_recall_name(enum tg_recall_task t); /* "needle", "kv", "mqar", "copy" */
int tg_recall_parse(const char *name, enum tg_recall_task *out, struct tg_err *err);

/* Words and text that the tasks draw from: capitalised words by frequency and the ids of real text.
 */
struct tg_recall_source {
    const struct tg_tokenizer *tok; /* borrowed */
    const int32_t *text;            /* borrowed: ids of real text */
    size_t text_count;
    char **names; /* owned: common capitalised words, distinct, most frequent first */
    size_t name_count;
    int32_t *words; /* owned: distinct ids of the text that are plain words, most frequent first */
    size_t word_count;
    int32_t *prose; /* owned: the text without special tokens and without stretches of numbers or
                       other pass keys, among which a needle would not be the one of its kind */
    size_t prose_count;
};
int tg_recall_source_init(struct tg_recall_source *s, const struct tg_tokenizer *tok,
                          const int32_t *text, size_t count, struct tg_err *err);
void tg_recall_source_release(struct tg_recall_source *s);

/* prompt and answer ids. needle: size = tokens of text (its prose), "\nThe pass key is 23339.
 * Remember it. 23339 is the pass key.\n" at a random token position of size-60 ids of text, then
 * "\nWhat is the pass key? The pass key is", answer " 23339."; kv: "Register of names and
 * numbers.\n", size lines "NAME: 1234\n", "Questions.\n", "NAME:", answer " 1234\n"; mqar: size
 * pairs of single tokens "key value" repeated, then keys asked; copy: words, then again. */
struct tg_recall_item {
    struct tg_ids prompt, answer; /* owned */
};
int tg_recall_make(const struct tg_recall_source *s, enum tg_recall_task task, size_t size,
                   uint64_t seed, uint64_t index, struct tg_recall_item *item, struct tg_err *err);
void tg_recall_item_release(struct tg_recall_item *item);
/* Fills ids[0..length) with recall text for training: items of random tasks and sizes, several
 * questions each, one after another. */
int tg_recall_fill(const struct tg_recall_source *s, struct tg_rng *rng, int32_t *ids,
                   size_t length, struct tg_err *err);

#endif
