/* Unigram models that do not come from a tokenizer.json. */
#ifndef TG_FORMATS_UNIGRAM_H
#define TG_FORMATS_UNIGRAM_H

#include <stdbool.h>

#include "formats/tokenizer/char_bpe.h"
#include "formats/tokenizer/pipeline.h"

/* Makes the model of t, whose tokens are registered, as SentencePiece computes it: in float32, and
 * a piece that is found whole (user defined) earns 0.1 for each byte after the first. scores and
 * roles as in char_bpe.h; min_score: the lowest of the normal pieces. */
int tg_unigram_from_scores(struct tg_tokenizer *t, const float *scores, const uint8_t *roles,
                           float min_score, bool byte_fallback, int32_t unk, struct tg_err *err);

#endif
