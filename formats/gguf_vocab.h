/* The vocabulary that a GGUF file carries: tokenizer.ggml.* */
#ifndef TG_FORMATS_GGUF_VOCAB_H
#define TG_FORMATS_GGUF_VOCAB_H

#include "formats/tensors.h"
#include "formats/tokenizer/tokenizer.h"

bool tg_gguf_has_vocab(const struct tg_tensors *t);
/* The tokenizer of an open set that has one; the set may be closed afterwards. Kinds of models and
 * split patterns are those of tg_tokenizer_from_parts, `vocab_limit` too. */
int tg_gguf_tokenizer(struct tg_tokenizer **tok, const struct tg_tensors *t, size_t vocab_limit,
                      struct tg_err *err);
/* A GGUF file at `path` of this vocabulary alone: tokenizer.* and general.architecture */
int tg_gguf_vocab_write(const struct tg_tensors *t, const char *path, struct tg_err *err);

#endif
