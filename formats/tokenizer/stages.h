/* The stages that a tokenizer.json names around its model, each a small table of supported kinds.
 */
#ifndef TG_FORMATS_STAGES_H
#define TG_FORMATS_STAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/status.h"
#include "formats/tokenizer/chars.h"
#include "formats/tokenizer/regex.h"
#include "formats/tokenizer/replace.h"
#include "formats/tokenizer/strmap.h"
#include "formats/tokenizer/trie.h"

struct tg_tokenizer;
struct tg_encoder;
struct tg_charsmap;
struct tg_sentencepiece_spec;

/* ---- normalizer ---- */
/* One normalizer at work: text[0..len) to what is appended to *out. `origin` says how many bytes at
 * the beginning of the text stand for the first character of the whole text, for Metaspace's
 * prepend_scheme "first"; the normalizer sets it for *out. */
struct tg_normal_work {
    const struct tg_tokenizer *t;
    struct tg_regex_run *regex_run;
    const char *text;
    size_t len, origin;
    bool whole; /* the text is the beginning of the whole text */
    struct tg_text *out;
    struct tg_err *err;
};
struct tg_normalizer {
    int (*run)(const struct tg_normalizer *n, struct tg_normal_work *w);
    int options;                        /* of utf8proc */
    bool left, right;                   /* Strip */
    char *prepend;                      /* owned */
    struct tg_replace replace;          /* owned */
    struct tg_charsmap *map;            /* owned; Precompiled, SentencePiece */
    struct tg_sentencepiece_spec *spec; /* owned; SentencePiece */
};
int tg_normalizer_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);
/* A further normalizer, zeroed. */
int tg_normalizer_new(struct tg_tokenizer *t, struct tg_normalizer **n, struct tg_err *err);
int tg_normalizer_set_prepend(struct tg_tokenizer *t, struct tg_normalizer *n, const char *s,
                              struct tg_err *err);
int tg_normalizer_set_replace(struct tg_tokenizer *t, struct tg_normalizer *n, const char *literal,
                              const char *content, struct tg_err *err);
/* The normalised text replaces *out; *origin as above, in and out. */
int tg_normalizer_run(const struct tg_tokenizer *t, struct tg_regex_run *run, const char *text,
                      size_t len, size_t *origin, struct tg_text *out, struct tg_err *err);
void tg_normalizer_release(struct tg_normalizer *n);

/* ---- pre-tokenizer ---- */
/* A part of the text; origin as in tg_normal_work. */
struct tg_piece {
    const char *text;
    size_t len, origin;
};
static inline struct tg_piece tg_piece_part(struct tg_piece p, size_t begin, size_t end)
{
    size_t origin = p.origin > begin ? p.origin - begin : 0;
    return (struct tg_piece){p.text + begin, end - begin, origin};
}
enum tg_behavior {
    TG_SPLIT_REMOVED,
    TG_SPLIT_ISOLATED,
    TG_SPLIT_PREVIOUS,
    TG_SPLIT_NEXT,
    TG_SPLIT_CONTIGUOUS,
};
enum tg_prepend { TG_PREPEND_ALWAYS, TG_PREPEND_FIRST, TG_PREPEND_NEVER };
struct tg_pretok {
    /* Hands each piece of text to tg_pieces_emit(e, step + 1, ...). */
    int (*run)(struct tg_encoder *e, size_t step, struct tg_piece p);
    struct tg_regex *regex; /* owned */
    tg_scan_fn scan;        /* the same pattern by hand, or NULL */
    enum tg_behavior behavior;
    bool invert;
    /* The pattern is one character: of these classes, or this one. */
    bool by_char;
    unsigned classes;
    uint32_t delimiter; /* UINT32_MAX: none */
    /* Metaspace */
    char replacement[5];
    enum tg_prepend prepend;
    bool split;
};
int tg_pretok_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);
/* A step that cuts at a pattern (Split). */
int tg_pretok_add_split(struct tg_tokenizer *t, const char *pattern, bool literal,
                        enum tg_behavior behavior, bool invert, struct tg_err *err);
/* The one character that the string `key` of o is: its text and code point. */
int tg_char_of(struct tg_json o, const char *key, char to[5], uint32_t *c, struct tg_err *err);
/* prepend_scheme, and add_prefix_space before it, of a Metaspace. */
int tg_prepend_scheme(struct tg_json o, enum tg_prepend *to, struct tg_err *err);
/* What stands behind step `step - 1`: the next step, or the model. */
int tg_pieces_emit(struct tg_encoder *e, size_t step, struct tg_piece p);

/* ---- added tokens ---- */
struct tg_added {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
/* Added tokens by their text; values are indices into t->added. */
struct tg_matcher {
    struct tg_trie trie; /* owned */
    bool first[256];     /* a token begins with this byte */
};
int tg_added_load(struct tg_tokenizer *t, struct tg_json list, struct tg_err *err);
/* A token of the vocabulary is found in texts. */
int tg_added_push(struct tg_tokenizer *t, struct tg_added a, struct tg_err *err);
int tg_added_index(struct tg_tokenizer *t, struct tg_err *err); /* after the normalizer is known */
/* Cuts text at added tokens: `piece` gets the parts between (id -1) and the tokens (len 0). */
typedef int (*tg_piece_fn)(struct tg_encoder *e, struct tg_piece p, int32_t id);
int tg_added_split(struct tg_encoder *e, const struct tg_matcher *m, struct tg_piece whole,
                   tg_piece_fn piece);
/* \w of Rust's regex. */
bool tg_char_is_word(uint32_t c);

/* ---- post-processor: ids around the text ---- */
int tg_post_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);

/* ---- decoder ---- */
struct tg_pieces {
    struct tg_text text;
    size_t *ends; /* owned */
    size_t count, cap;
};
struct tg_decoder {
    int (*run)(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
               struct tg_err *err);
    struct tg_replace replace;                /* owned */
    char content[5];                          /* Strip, Metaspace: a character */
    size_t start, stop;                       /* Strip */
    bool drop_first;                          /* Metaspace */
    const struct tg_sentencepiece_spec *spec; /* borrowed from the normalizer */
};
int tg_decoder_load(struct tg_tokenizer *t, struct tg_json o, struct tg_err *err);
int tg_decoder_new(struct tg_tokenizer *t, struct tg_decoder **d, struct tg_err *err);
int tg_decoder_run(const struct tg_tokenizer *t, struct tg_pieces *p, struct tg_err *err);
int tg_decode_replace(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                      struct tg_err *err);
int tg_decode_bytes(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                    struct tg_err *err);
int tg_decode_byte_level(const struct tg_tokenizer *t, const struct tg_decoder *d,
                         struct tg_pieces *p, struct tg_err *err);
int tg_decode_fuse(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                   struct tg_err *err);
int tg_decode_strip(const struct tg_tokenizer *t, const struct tg_decoder *d, struct tg_pieces *p,
                    struct tg_err *err);
bool tg_pieces_add(struct tg_pieces *p, const char *s, size_t n);
void tg_pieces_release(struct tg_pieces *p);

#endif
