/* Private to what writes the vocabulary of a GGUF file: one under way. */
#ifndef TG_FORMATS_GGUF_VOCAB_FILE_H
#define TG_FORMATS_GGUF_VOCAB_FILE_H

#include "base/json.h"
#include "formats/gguf_vocab_write.h"
#include "formats/tokenizer/pipeline.h"

/* tokenizer.ggml.token_type */
enum tg_gguf_token {
    TG_GGUF_NORMAL = 1,
    TG_GGUF_UNKNOWN,
    TG_GGUF_CONTROL,
    TG_GGUF_USER,
    TG_GGUF_UNUSED,
    TG_GGUF_BYTE,
};

struct tg_vocab_out {
    const char *dir;
    size_t vocab; /* of the model */
    const struct tg_tokenizer *t;
    struct tg_json root; /* tokenizer.json; absent: t is a SentencePiece model */
    struct tg_gguf_list *keys;
    int32_t *types; /* [vocab] */
    float *scores;  /* [vocab]; of kind "llama" */
    int32_t unk;    /* -1: none */
    const char *pre;
    bool llama, space_prefix;
};

/* Fills pre or scores, types and space_prefix of a kind of tokenizer, or says why a GGUF file
 * cannot hold it: gguf_vocab_bytes.c, gguf_vocab_scores.c */
int tg_vocab_out_bytes(struct tg_vocab_out *o, struct tg_err *err);
int tg_vocab_out_scores(struct tg_vocab_out *o, struct tg_err *err);

/* Error: FILE: what, "which a GGUF file cannot hold" */
int tg_vocab_out_refuse(const struct tg_vocab_out *o, struct tg_err *err, const char *what,
                        const char *value);
/* Types of the tokens that tokenizer.json adds; flags that change what a text becomes are refused.
 */
int tg_vocab_out_added(struct tg_vocab_out *o, struct tg_err *err);

/* Ids around a text, and tokenizer.chat_template, of the files beside the tokenizer:
 * gguf_vocab_ends.c */
int tg_vocab_out_ends(struct tg_vocab_out *o, const struct tg_vocab_ends *ends, struct tg_err *err);
int tg_vocab_out_template(struct tg_vocab_out *o, struct tg_err *err);

#endif
