/* Rotary tables: cosines and sines [positions, n/2] for each rope and rotary size that layers use,
 * equal to transformers' float32 values to the last place or two: the inverse frequencies and the
 * angles are rounded to float32 as there, cosine and sine are then taken in double. */
#ifndef TG_LINEARIZE_ROPES_H
#define TG_LINEARIZE_ROPES_H

#include "convert/spec.h"

/* Frequencies of a rope for a text of `length` tokens; n is the rotary size. */
void tg_rope_frequencies(const struct tg_rope *rope, size_t n, size_t length, float *inv_freq);
/* Rows [from, to); factor multiplies both (the rope's attention_factor). */
void tg_rope_table(const float *inv_freq, float factor, size_t n, size_t from, size_t to,
                   float *cosines, float *sines);

struct tg_rope_table {
    size_t rope, n;   /* which of the model's, rotary size */
    size_t length;    /* that the frequencies are for; the same for all that do not depend on it */
    size_t positions; /* rows */
    float *cosine, *sine; /* owned */
};
struct tg_ropes {
    struct tg_rope_table *tables; /* owned */
    size_t count, cap;
};
/* Tables for `positions` tokens: of the ropes that do not depend on the text's length, or of those
 * that do, for texts of that many tokens. Not thread-safe against use. */
int tg_ropes_fit(struct tg_ropes *r, const struct tg_model_spec *spec, bool by_length,
                 size_t positions, struct tg_err *err);
void tg_ropes_release(struct tg_ropes *r);
/* The table of a layer; NULL if r has none for it */
const struct tg_rope_table *tg_ropes_find(const struct tg_ropes *r, const struct tg_layer_spec *l);

#endif
