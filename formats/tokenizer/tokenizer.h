/* Tokenizers: text <-> token ids, exactly as HF tokenizers does with a tokenizer.json and
 * SentencePiece with a tokenizer.model. */
#ifndef TG_FORMATS_TOKENIZER_H
#define TG_FORMATS_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tg_tokenizer;

struct tg_ids {
    int32_t *data; /* owned; tg_ids_release */
    size_t count, cap;
};
int tg_ids_push(struct tg_ids *ids, int32_t id, struct tg_err *err);
void tg_ids_release(struct tg_ids *ids);

/* PATH is a tokenizer.json, a SentencePiece model, or a directory holding a tokenizer.json or else
 * a tokenizer.model. Whatever the file asks for and Tegu cannot do is TG_ERR_UNSUPPORTED naming it.
 * `vocab_limit` (0: none): ids at or above it are an error that names the token. Immutable once
 * loaded: any number of threads may encode and decode with it. */
int tg_tokenizer_load(struct tg_tokenizer **t, const char *path, size_t vocab_limit,
                      struct tg_err *err);
int tg_tokenizer_parse(struct tg_tokenizer **t, const char *json, size_t len, const char *name,
                       size_t vocab_limit, struct tg_err *err);
/* The same of a SentencePiece model (protobuf). */
int tg_tokenizer_parse_model(struct tg_tokenizer **t, const void *bytes, size_t len,
                             const char *name, size_t vocab_limit, struct tg_err *err);
void tg_tokenizer_free(struct tg_tokenizer *t);

/* A vocabulary as a GGUF file has it (tokenizer.ggml.*). Texts need no NUL behind them. */
struct tg_vocab_parts {
    const char *model; /* "gpt2": byte-level BPE; "llama": BPE by scores */
    const char *pre;   /* tokenizer.ggml.pre, which names the split pattern of "gpt2"; or NULL */
    size_t count;
    const char *const *tokens;
    const size_t *token_lens;
    const float *scores; /* [count], or NULL; "llama" needs them */
    const int32_t
        *types; /* [count], or NULL; 1 normal 2 unknown 3 control 4 user 5 unused 6 byte */
    size_t merge_count;
    const char *const *merges; /* "a b" */
    const size_t *merge_lens;
    int64_t bos, eos, unk;                  /* -1: none */
    int add_bos, add_eos, add_space_prefix; /* -1: not said */
};
/* Nothing of *p is needed afterwards. `name` is what messages call the file. */
int tg_tokenizer_from_parts(struct tg_tokenizer **t, const struct tg_vocab_parts *p,
                            const char *name, size_t vocab_limit, struct tg_err *err);

/* Appends the ids of text[0..len) to *ids. Added tokens in the text are recognised as HF does.
 * `specials`: run the post-processor's template (BOS and the like). Text that is not UTF-8 is an
 * error with the byte offset. Linear time. */
int tg_tokenizer_encode(const struct tg_tokenizer *t, const char *text, size_t len, bool specials,
                        struct tg_ids *ids, struct tg_err *err);
/* Text of ids (caller frees with tg_free, NUL-terminated, *len excludes it). Invalid UTF-8
 * sequences of byte-level tokens become U+FFFD as in HF. skip_specials: leave special added tokens
 * out. An unknown id is an error. */
int tg_tokenizer_decode(const struct tg_tokenizer *t, const int32_t *ids, size_t count,
                        bool skip_specials, char **text, size_t *len, struct tg_err *err);

size_t tg_tokenizer_vocab(const struct tg_tokenizer *t);                    /* largest id + 1 */
int32_t tg_tokenizer_id(const struct tg_tokenizer *t, const char *content); /* -1 if not a token */
const char *tg_tokenizer_kind(const struct tg_tokenizer *t);                /* "byte-level BPE" */

#endif
