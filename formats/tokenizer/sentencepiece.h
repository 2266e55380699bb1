/* SentencePiece models (tokenizer.model): how they treat text around the pieces. */
#ifndef TG_FORMATS_SENTENCEPIECE_H
#define TG_FORMATS_SENTENCEPIECE_H

#include "formats/tokenizer/pipeline.h"

enum tg_piece_type {
    TG_PIECE_NORMAL = 1,
    TG_PIECE_UNKNOWN,
    TG_PIECE_CONTROL,
    TG_PIECE_USER,
    TG_PIECE_UNUSED,
    TG_PIECE_BYTE,
};

/* Of the normalizer_spec and trainer_spec. */
struct tg_sentencepiece_spec {
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_as_suffix;
    struct tg_trie user; /* owned; pieces that the normalizer leaves alone */
    uint8_t *types;      /* owned; by id, 0: a hole */
    float *scores;       /* owned; by id */
    struct tg_text unk_surface;
    int32_t bos, eos; /* -1: none */
};
void tg_sentencepiece_spec_free(struct tg_sentencepiece_spec *spec);

int tg_sentencepiece_normalize(const struct tg_normalizer *n, struct tg_normal_work *w);
int tg_sentencepiece_decode(const struct tg_tokenizer *t, const struct tg_decoder *d,
                            struct tg_pieces *p, struct tg_err *err);

/* Fills t, which has its name and nothing else. */
int tg_sentencepiece_build(struct tg_tokenizer *t, const void *bytes, size_t len,
                           struct tg_err *err);
/* Whether ids stand around a text is not in the model, but in the tokenizer_config.json beside it
 * (add_bos_token, add_eos_token, else the habit of its tokenizer_class). `dir` holds the model. */
int tg_sentencepiece_surround(struct tg_tokenizer *t, const char *dir, struct tg_err *err);

#endif
