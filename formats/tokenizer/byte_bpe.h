/* Byte-level BPE of a vocabulary without a tokenizer.json. */
#ifndef TG_FORMATS_BYTE_BPE_H
#define TG_FORMATS_BYTE_BPE_H

#include <stdbool.h>

#include "formats/tokenizer/pipeline.h"

/* Makes the model of t, whose tokens are registered. */
int tg_byte_bpe_from_parts(struct tg_tokenizer *t, const struct tg_vocab_parts *p,
                           bool ignore_merges, struct tg_err *err);

#endif
