/* Text and token corpora: plain text, .jsonl ({"text": ...} a line), each also .gz; .npy and
 * .safetensors of token ids. A part may be asked for: F@0:85%, F@85%:100% (percent of its tokens),
 * F@0:100000 (tokens). */
#ifndef TG_FORMATS_CORPUS_H
#define TG_FORMATS_CORPUS_H

#include <stddef.h>

#include "base/status.h"
#include "formats/tokenizer/tokenizer.h"

/* Where a part begins and ends: a share of the tokens, 0..1, or a token's number. */
struct tg_corpus_spec {
    char *path;        /* owned */
    double begin, end; /* end = INFINITY: to the end */
    bool begin_share, end_share;
};
int tg_corpus_spec_parse(const char *arg, struct tg_corpus_spec *spec, struct tg_err *err);
void tg_corpus_spec_release(struct tg_corpus_spec *spec);

/* Whole text of a file, decompressed if its first bytes say gzip; CRC checked; at most `max` bytes;
 * must be UTF-8. Caller frees. Empty text is an error. Documents of a .jsonl follow each other with
 * nothing between them. */
int tg_text_read(const char *path, size_t max, char **text, size_t *len, struct tg_err *err);

/* Token ids of the part of one file that the spec names, appended. Plain text is encoded as one
 * string without special tokens (a line "<|endoftext|>" becomes that token if the tokenizer has
 * it); each .jsonl document likewise. ids at or above vocab_limit are an error. tok may be NULL for
 * token files. */
int tg_corpus_read(const struct tg_corpus_spec *spec, const struct tg_tokenizer *tok,
                   size_t vocab_limit, struct tg_ids *ids, struct tg_err *err);

#endif
