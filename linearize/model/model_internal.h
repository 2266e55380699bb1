/* Inside linearize/model only: where each layer's parameters are, and the pieces that forward,
 * backward and decode share. */
#ifndef TG_LINEARIZE_MODEL_INTERNAL_H
#define TG_LINEARIZE_MODEL_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "linearize/model/model.h"

#define TG_NO_PARAM SIZE_MAX

/* Positions in params.items; TG_NO_PARAM where the model has none */
struct tg_layer_index {
    size_t norm_in, norm_mlp;
    size_t mixer[TG_MIXER_MAX_PARAMS]; /* by rule */
    size_t gate, up, down, gate_bias, up_bias, down_bias;
};
struct tg_model_index {
    size_t embed, norm_out, head; /* head: the embedding when tied */
    struct tg_layer_index *layers;
};

/* Parameter `index` in a block of the model's layout; NULL for TG_NO_PARAM or a NULL block */
static inline float *tg_model_at(const struct tg_model *m, float *block, size_t index)
{
    return block && index != TG_NO_PARAM ? block + m->params.items[index].offset : NULL;
}
static inline const float *tg_model_weight(const struct tg_model *m, size_t index)
{
    return tg_model_at(m, m->data, index);
}
static inline const struct tg_mixer_ops *tg_model_mixer_ops(const struct tg_model *m, size_t l)
{
    return tg_mixer_find(m->spec.layers[l].mixer);
}
size_t tg_model_widest_mlp(const struct tg_model *m);

/* h [rows,D] += down(silu(gate x) * up x), x = rms(h) * norm_mlp. x [rows,D], r [rows], a, b
 * [rows,M] are written; p [rows,M] gets silu(a) * b and may be a. */
void tg_block_mlp(const struct tg_model *m, size_t layer, float *h, size_t rows, float *x, float *r,
                  float *a, float *b, float *p);

/* Rotary tables [positions, n/2], rows [from, to) of them, equal to transformers' float32 values to
 * the last place or two: the inverse frequencies and the angles are rounded to float32 as there,
 * cosine and sine are then taken in double. n is the rotary size. */
void tg_rope_frequencies(const struct tg_rope *rope, size_t n, float *inv_freq);
void tg_rope_table(const float *inv_freq, size_t n, size_t from, size_t to, float *cosines,
                   float *sines);

#endif
