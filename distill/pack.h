/* Several sequences packed for one forward, with the questions to be scored in them: recall items
 * and text windows look alike to what evaluates them. Internal to distill. */
#ifndef TG_DISTILL_PACK_H
#define TG_DISTILL_PACK_H

#include "distill/recall.h"
#include "linearize/model/model.h"

struct tg_pack {
    int32_t *ids;  /* owned [rows] */
    size_t *begin; /* owned [count + 1] */
    size_t count, rows, longest;
    size_t rows_cap, count_cap;
    /* answer token i must be the greedy choice of row `row`; `item` is the number of its sequence
     */
    struct tg_pack_answer {
        size_t row, item;
        int32_t id;
    } * answers; /* owned */
    size_t answer_count, answer_cap;
};
int tg_pack_init(struct tg_pack *p, struct tg_err *err);
void tg_pack_release(struct tg_pack *p);
void tg_pack_clear(struct tg_pack *p);
struct tg_batch tg_pack_batch(const struct tg_pack *p);
int tg_pack_add(struct tg_pack *p, const int32_t *ids, size_t n, struct tg_err *err);
/* prompt and answer, with the answer's tokens as questions */
int tg_pack_add_item(struct tg_pack *p, const struct tg_recall_item *item, struct tg_err *err);

/* Rows of logits held at a time: about 16 MiB of them, whatever the vocabulary. */
size_t tg_head_chunk(size_t vocab);

/* Number of sequences of the pack whose every answer token is the greedy choice. hidden [rows,D]
 * after the final norm. */
int tg_pack_score(const struct tg_model *m, const struct tg_pack *p, const float *hidden,
                  size_t *right, struct tg_err *err);

#endif
