/* A tokenizer as the metadata of a GGUF file: tokenizer.ggml.* and tokenizer.chat_template. What
 * such a file cannot say is refused by name; docs/formats/gguf.md lists it. */
#ifndef TG_FORMATS_GGUF_VOCAB_WRITE_H
#define TG_FORMATS_GGUF_VOCAB_WRITE_H

#include "formats/gguf_list.h"

/* Tokens at which a model begins and ends a text, as its config says */
struct tg_vocab_ends {
    int32_t bos;        /* -1: none */
    const int32_t *eos; /* the first three become eos, eot and eom */
    size_t eos_count;
};
enum { TG_GGUF_MAX_ENDS = 3 };

/* Appends the keys of the tokenizer in `dir`: a directory with tokenizer.json, tokenizer.model or
 * tokenizer.gguf (in this order; the last is copied), tokenizer_config.json,
 * special_tokens_map.json, config.json, chat_template.jinja; or a GGUF file, whose keys are
 * copied. The list of tokens is filled up to `vocab`, the model's, with unused ones. A model that
 * has no tokenizer gets keys that say so. `ends`: NULL: what the files say. */
int tg_gguf_vocab_of(const char *dir, size_t vocab, const struct tg_vocab_ends *ends,
                     struct tg_gguf_list *keys, struct tg_err *err);
/* Those keys: no tokenizer, and the ends (NULL: none) */
void tg_gguf_vocab_none(const struct tg_vocab_ends *ends, struct tg_gguf_list *keys);

#endif
