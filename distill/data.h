/* Training data: batch n is a pure function of (files, seed, n). */
#ifndef TG_DISTILL_DATA_H
#define TG_DISTILL_DATA_H

#include "distill/recall.h"
#include "formats/corpus.h"

struct tg_data_settings {
    char **files; /* "F", "F@0:85%"; borrowed */
    size_t file_count;
    size_t length;     /* tokens a sequence (default 1024) */
    double recall_mix; /* share of sequences that are generated recall text, 0..1 */
    double held_out;   /* share at the end of each file that is never trained on (0.05), 0 when
                          validation data is given apart */
    uint64_t seed;
};
struct tg_data {
    int32_t *train,
        *held; /* owned: ids of the training and the held-out parts, files one after another */
    size_t train_count, held_count;
    struct tg_recall_source recall;
    struct tg_data_settings set;
};
int tg_data_open(struct tg_data **d, const struct tg_data_settings *s,
                 const struct tg_tokenizer *tok, size_t vocab, struct tg_err *err);
void tg_data_close(struct tg_data *d);
/* Sequence n of a stage (ids [length]): windows of the training part in an order shuffled anew each
 * epoch, or recall text. `stream` tells stages apart. */
int tg_data_sequence(const struct tg_data *d, uint64_t stream, uint64_t n, int32_t *ids,
                     struct tg_err *err);

#endif
