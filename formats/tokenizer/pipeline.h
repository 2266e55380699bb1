/* Inside of the tokenizers: the model, the whole tokenizer with its stages, and the scratch memory
 * of one call. */
#ifndef TG_FORMATS_PIPELINE_H
#define TG_FORMATS_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "formats/tokenizer/stages.h"
#include "formats/tokenizer/strmap.h"
#include "formats/tokenizer/tokenizer.h"

enum { TG_MAX_STEPS = 16, TG_MAX_ID = 1 << 24 };

/* A token as it is decoded; text lies in the pool. !used: a hole in the ids. special: left out when
 * specials are. */
struct tg_token {
    uint32_t off, len;
    bool used, special;
};

struct tg_encoder;

/* ---- model ---- */
struct tg_token_model {
    const char *name;
    bool (*claims)(struct tg_json root); /* is this row meant by the file? */
    int (*load)(struct tg_tokenizer *t, struct tg_json model, struct tg_err *err);
    int (*encode)(struct tg_encoder *e, const char *word, size_t len); /* appends to e->ids */
    void (*release)(void *state);
    void (*scratch_release)(void *scratch);
};
#define TG_TOKENIZER(name) extern const struct tg_token_model tg_token_model_##name;
#include "formats/tokenizer/tokenizers.def"
#undef TG_TOKENIZER

/* ---- the whole ---- */
struct tg_tokenizer {
    char *name; /* of the file, for messages */
    struct tg_text pool;
    struct tg_token *tokens; /* by id */
    size_t vocab, tokens_cap, vocab_limit;
    struct tg_strmap by_name;
    uint8_t *classes; /* of characters: see chars.h */
    struct tg_normalizer normalizers[TG_MAX_STEPS];
    size_t normalizer_count;
    struct tg_pretok steps[TG_MAX_STEPS];
    size_t step_count;
    bool byte_level; /* the pre-tokenizer ends in ByteLevel */
    struct tg_added *added;
    size_t added_count, added_cap;
    struct tg_matcher raw, normalized;
    const struct tg_token_model *model;
    void *model_state;
    struct tg_ids before, after; /* ids of the post-processor */
    struct tg_decoder decoders[TG_MAX_STEPS];
    size_t decoder_count;
    bool decodes; /* there is a decoder; without one, spaces stand between tokens */
};
struct tg_tokenizer *tg_tokenizer_new(const char *name, size_t vocab_limit, struct tg_err *err);
int tg_tokenizer_done(struct tg_tokenizer **out, struct tg_tokenizer *t, int rc);
/* Registers a token; an id twice, or out of range, is an error. */
int tg_token_add(struct tg_tokenizer *t, const char *s, size_t len, int64_t id, struct tg_err *err);
/* The byte that a token like "<0x0A>" stands for, or -1. */
int tg_byte_of_token(const char *s, size_t n);
/* Length of the character at s[0..n), n > 0; 0: not UTF-8. */
size_t tg_char_length(const char *s, size_t n);
/* Ids of the tokens "<0x00>" to "<0xFF>", -1: none. */
void tg_byte_tokens(const struct tg_tokenizer *t, int32_t byte_id[256]);

struct tg_encoder {
    const struct tg_tokenizer *t;
    struct tg_ids *ids; /* borrowed */
    struct tg_err *err;
    struct tg_text normal;
    struct tg_text prefixed[TG_MAX_STEPS];
    struct tg_regex_run regex_run;
    void *model_scratch;
    size_t text_len; /* of the whole call: caches are sized by it */
};
int tg_ids_append(struct tg_encoder *e, const int32_t *ids, size_t n);

/* Error: FILE: key: 'value' is not supported */
int tg_unsupported(const struct tg_tokenizer *t, struct tg_err *err, const char *key,
                   const char *value);
/* Error if `key` of o is there and neither null nor false nor "" nor 0. */
int tg_refuse_set(const struct tg_tokenizer *t, struct tg_json o, const char *key,
                  struct tg_err *err);
const char *tg_type_of(struct tg_json o); /* its "type", or "" */

#endif
