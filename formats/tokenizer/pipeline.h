/* Inside of the tokenizers: the stages that a tokenizer.json names (normalizer, pre-tokenizer,
 * model, post-processor, decoder), each a small table of supported kinds, and the scratch memory of
 * one call. */
#ifndef TG_FORMATS_PIPELINE_H
#define TG_FORMATS_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "formats/tokenizer/chars.h"
#include "formats/tokenizer/regex.h"
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

/* ---- normalizer ---- */
struct tg_normalizer {
    int options; /* of utf8proc */
};
int tg_normalizer_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);
/* The normalised text replaces *out. */
int tg_normalizer_run(const struct tg_tokenizer *t, const char *text, size_t len,
                      struct tg_text *out, struct tg_err *err);

/* ---- pre-tokenizer ---- */
enum tg_behavior {
    TG_SPLIT_REMOVED,
    TG_SPLIT_ISOLATED,
    TG_SPLIT_PREVIOUS,
    TG_SPLIT_NEXT,
    TG_SPLIT_CONTIGUOUS,
};
struct tg_pretok {
    /* Hands each piece of text to tg_pieces_emit(e, step + 1, ...). */
    int (*run)(struct tg_encoder *e, size_t step, const char *text, size_t len);
    struct tg_regex *regex; /* owned */
    tg_scan_fn scan;        /* the same pattern by hand, or NULL */
    enum tg_behavior behavior;
    bool invert;
};
int tg_pretok_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);
int tg_pieces_emit(struct tg_encoder *e, size_t step, const char *text, size_t len);

/* ---- added tokens ---- */
struct tg_added {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
/* A trie over bytes: node 0 is the root; children form a list. */
struct tg_trie_node {
    uint32_t child, sibling; /* 0: none */
    int32_t added;           /* index into t->added of the token that ends here, or -1 */
    unsigned char byte;
};
struct tg_matcher {
    struct tg_trie_node *nodes; /* owned; NULL: no patterns */
    size_t count, cap;
    uint32_t first[256]; /* child of the root by byte; 0: none */
};
int tg_added_load(struct tg_tokenizer *t, struct tg_json list, struct tg_err *err);
int tg_added_index(struct tg_tokenizer *t, struct tg_err *err); /* after the normalizer is known */
/* Cuts text at added tokens: `piece` gets the parts between (id -1) and the tokens (len 0). */
typedef int (*tg_piece_fn)(struct tg_encoder *e, const char *text, size_t len, int32_t id);
int tg_added_split(struct tg_encoder *e, const struct tg_matcher *m, const char *text, size_t len,
                   tg_piece_fn piece);

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

/* ---- post-processor: ids around the text ---- */
int tg_post_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);

/* ---- decoder ---- */
struct tg_pieces {
    struct tg_text text;
    size_t *ends; /* owned */
    size_t count, cap;
};
typedef int (*tg_decoder_fn)(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err);
int tg_decoder_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);
int tg_decoder_run(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err);
bool tg_pieces_add(struct tg_pieces *p, const char *s, size_t n);
void tg_pieces_release(struct tg_pieces *p);

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
    tg_decoder_fn decoders[TG_MAX_STEPS];
    size_t decoder_count;
};
/* Registers a token; an id twice, or out of range, is an error. */
int tg_token_add(struct tg_tokenizer *t, const char *s, int64_t id, struct tg_err *err);

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

/* Error: FILE: key: 'value' is not supported */
int tg_unsupported(const struct tg_tokenizer *t, struct tg_err *err, const char *key,
                   const char *value);
/* Error if `key` of o is there and neither null nor false nor "" nor 0. */
int tg_refuse_set(const struct tg_tokenizer *t, struct tg_json o, const char *key,
                  struct tg_err *err);
const char *tg_type_of(struct tg_json o); /* its "type", or "" */

#endif
