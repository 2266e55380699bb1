/* Inside linearize/model only: where each layer's parameters are, and the pieces that forward,
 * backward and decode share. */
#ifndef TG_LINEARIZE_MODEL_INTERNAL_H
#define TG_LINEARIZE_MODEL_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "linearize/model/model.h"

#define TG_NO_PARAM SIZE_MAX

/* Positions in params.items; TG_NO_PARAM where the model has none */
struct tg_norm_index {
    size_t w, b;
};
struct tg_mlp_index {
    size_t gate, up, down, gate_bias, up_bias, down_bias;
};
struct tg_layer_index {
    struct tg_norm_index norm_in, norm_mixer_out, norm_mlp, norm_mlp_out;
    size_t mixer[TG_MIXER_MAX_PARAMS]; /* by rule */
    struct tg_mlp_index mlp, experts, shared;
    size_t router, router_bias, correction, shared_gate;
};
struct tg_model_index {
    size_t embed, pos, embed_in, embed_out;
    struct tg_norm_index norm_out;
    size_t head, head_bias; /* head: the embedding when tied */
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
size_t tg_model_widest_mlp(const struct tg_model *m); /* of dense ones */
struct tg_norm tg_model_norm(const struct tg_model *m, struct tg_norm_index at);
/* Where the gradient of parameter `index` goes; NULL when it is not wanted */
static inline float *tg_model_gradient(const struct tg_model *m, float *grads, const bool *wanted,
                                       size_t index)
{
    return index != TG_NO_PARAM && (!wanted || wanted[index]) ? tg_model_at(m, grads, index) : NULL;
}
/* The longest sequence that learned positions allow; SIZE_MAX without them. Otherwise an error. */
int tg_model_check_length(const struct tg_model *m, size_t sequence, size_t length,
                          struct tg_err *err);

/* The two halves of a layer around its mixer, for forward and decode alike. Enter gives the mixer's
 * input: the normalised h in space->x, or h itself. Leave adds the mixer's output space->y to h and
 * runs the mlp. keep: NULL, or what is saved for backward. */
struct tg_block_space {
    float *x, *y; /* [rows,D] */
    float *a, *b; /* [rows,M], M of the widest dense mlp */
    float *work;  /* tg_block_work_floats */
};
struct tg_saved_layer;
size_t tg_block_work_floats(const struct tg_model *m, size_t rows,
                            bool backward); /* of any layer */
const float *tg_block_enter(const struct tg_model *m, size_t layer, const float *h, size_t rows,
                            float *x);
void tg_block_leave(const struct tg_model *m, size_t layer, float *h, size_t rows, const float *x,
                    const struct tg_block_space *space, const struct tg_saved_layer *keep);

#endif
