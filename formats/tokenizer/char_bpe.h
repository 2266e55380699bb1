/* BPE over characters driven by scores, as SentencePiece and GGUF files of kind "llama" have it. */
#ifndef TG_FORMATS_CHAR_BPE_H
#define TG_FORMATS_CHAR_BPE_H

#include <stdbool.h>

#include "formats/tokenizer/pipeline.h"

/* What a token may do. */
enum tg_piece_role {
    TG_PIECE_MERGES, /* part or result of a merge */
    TG_PIECE_WHOLE,  /* found in the text as it stands, never merged */
    TG_PIECE_APART,  /* never found in a text */
};

/* Makes the model of t, whose tokens are registered; t->tokens[i] has scores[i] and roles[i] (both
 * t->vocab long, needed only during the call). Two neighbours merge if their texts joined are a
 * piece that merges; the highest score first, of equal ones the leftmost. What is left without a
 * token becomes its bytes if byte_fallback, otherwise a run of them one `unk`. unk < 0 without byte
 * tokens: an error when a text needs it. */
int tg_char_bpe_from_scores(struct tg_tokenizer *t, const float *scores, const uint8_t *roles,
                            bool byte_fallback, int32_t unk, struct tg_err *err);

#endif
