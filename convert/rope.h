/* Rotary positions as data: which frequencies, as transformers' modeling_rope_utils computes them.
 */
#ifndef TG_CONVERT_ROPE_H
#define TG_CONVERT_ROPE_H

#include <stdbool.h>
#include <stddef.h>

enum tg_rope_kind {
    TG_ROPE_DEFAULT,
    TG_ROPE_LLAMA3,
    TG_ROPE_LINEAR,
    TG_ROPE_DYNAMIC,
    TG_ROPE_YARN,
    TG_ROPE_LONGROPE,
    TG_ROPE_NONE, /* every angle is 0: a latent's shared key without positions (Kimi Linear) */
    TG_ROPE_COUNT
};
enum { TG_MAX_ROPE_FACTORS = 256 };
struct tg_rope {
    enum tg_rope_kind kind;
    double theta;
    double factor;                            /* all kinds but default and longrope */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double original_max_positions;            /* llama3, yarn, longrope, dynamic */
    double beta_fast, beta_slow;              /* yarn */
    bool truncate;                            /* yarn: its limits are rounded to whole indices */
    double attention_factor; /* yarn, longrope: multiplies cosines and sines; all others: 1 */
    /* longrope: divisors of the frequencies, for texts up to original_max_positions and above */
    size_t factor_count; /* rotary_dim / 2 */
    double short_factor[TG_MAX_ROPE_FACTORS], long_factor[TG_MAX_ROPE_FACTORS];
};
const char *tg_rope_kind_name(enum tg_rope_kind k); /* "default", "llama3", ... */
/* Is theta all there is to it? */
static inline bool tg_rope_plain(const struct tg_rope *r)
{
    return r->kind == TG_ROPE_DEFAULT || r->kind == TG_ROPE_NONE;
}
/* Does the table depend on how long the text is (dynamic, longrope)? Then one run or cache uses the
 * frequencies of its longest sequence, or of its capacity. */
static inline bool tg_rope_by_length(const struct tg_rope *r)
{
    return r->kind == TG_ROPE_DYNAMIC || r->kind == TG_ROPE_LONGROPE;
}

#endif
