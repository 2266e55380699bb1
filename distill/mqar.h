/* Multi-query associative recall from scratch (Arora et al. 2023, Zoology, arXiv:2312.04927;
 * numbers of the generator as in its code): what a mixer can recall when it is trained for nothing
 * else.
 *
 * An example of T tokens begins with K pairs k1 v1 k2 v2 ..., keys in [1, N/2), values in [N/2, N),
 * each drawn without replacement. Every key is asked once, 2K + 2i tokens into the text, i in
 * [0, (T - 2K) / 2) drawn without replacement with weight a (i + 1)^(a-1), a = 0.01: mostly soon
 * after the pairs, with a long tail. The answer is expected at the question and does not follow it.
 * All other tokens are uniform over the vocabulary without the example's keys and values, which in
 * a small one would contradict the pairs. */
#ifndef TG_DISTILL_MQAR_H
#define TG_DISTILL_MQAR_H

#include "base/progress.h"
#include "linearize/model/model.h"

struct tg_mqar {
    size_t vocab, length, pairs;
    size_t *order; /* owned scratch */
    struct tg_mqar_slot {
        double key;
        size_t at;
    } * slots;
    bool *used;
};
int tg_mqar_init(struct tg_mqar *q, size_t vocab, size_t length, size_t pairs, struct tg_err *err);
void tg_mqar_release(struct tg_mqar *q);
/* The stream of examples for a use, from the user's seed: no example of one is in another but by
 * chance. */
enum tg_mqar_use { TG_MQAR_TRAIN, TG_MQAR_CHECK, TG_MQAR_TEST };
uint64_t tg_mqar_seed(uint64_t seed, enum tg_mqar_use use);
/* Example `index` of `seed` with q->pairs or fewer pairs, a pure function: ids [length], labels
 * [length]: the value where a key is asked, -1 elsewhere. */
void tg_mqar_make(struct tg_mqar *q, uint64_t seed, uint64_t index, size_t pairs, int32_t *ids,
                  int32_t *labels);
/* Pairs of training's examples at `step` of `steps`: fewest, 2 fewest, 4 fewest ... below q->pairs
 * for an equal part of the first half each, then q->pairs; fewest in [1, q->pairs], step < steps */
size_t tg_mqar_pairs_at(const struct tg_mqar *q, size_t fewest, uint64_t step, uint64_t steps);

struct tg_mqar_settings {
    uint64_t steps;   /* at most; the learning rate falls to 0 over them */
    size_t batch;     /* examples a step */
    size_t fewest;    /* pairs at the start, tg_mqar_pairs_at; 0: the most from the start */
    double lr, decay; /* AdamW */
    double enough;    /* training ends early once this accuracy is seen; above 1: never */
    size_t examples;  /* of the test */
    uint64_t seed;
};
struct tg_mqar_result {
    uint64_t steps;  /* done */
    double loss;     /* of the last step, in nats */
    double accuracy; /* share of the test's questions whose value is the most likely token */
};
/* Trains all parameters of m on fresh examples of q by cross-entropy at the questions, then tests
 * it on others. `name` is the progress line's. Same bits for any number of threads. */
int tg_mqar_train(struct tg_model *m, struct tg_mqar *q, const struct tg_mqar_settings *set,
                  const char *name, struct tg_mqar_result *out, const struct tg_progress *progress,
                  struct tg_err *err);

#endif
