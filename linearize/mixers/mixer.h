/* The contract of a mixer: it gets the normalised hidden states of a packed batch and writes the
 * residual branch. Its parameters are those of its schema (convert/mixers.def), addressed by the
 * rule's position. */
#ifndef TG_LINEARIZE_MIXER_H
#define TG_LINEARIZE_MIXER_H

#include <stdbool.h>
#include <stddef.h>

#include "convert/spec.h"
#include "linearize/kernels/batch.h"
#include "linearize/kernels/kernels.h"

enum { TG_MIXER_MAX_PARAMS = 40 };

/* A mixer's view of its layer. Pointers to absent parameters (rules that do not apply) are NULL. */
struct tg_mixer {
    const struct tg_layer_spec *spec;
    size_t width;                    /* D */
    float norm_eps;                  /* of the q/k norms */
    const struct tg_norm_spec *norm; /* the model's, which q/k norms follow; NULL: plain RMS */
    const float *rope_cos,
        *rope_sin; /* [positions, rotary_dim/2], owned by the model; NULL without rotary */
    const float *param[TG_MIXER_MAX_PARAMS]; /* by rule index */
    size_t chunk; /* tokens of a chunk of the recurrences; 0: the kernels' own */
};
/* Where gradients go; same order; NULL entries are not wanted. */
struct tg_mixer_grads {
    float *param[TG_MIXER_MAX_PARAMS];
};

/* What a teacher's layer does on calibration text, per query head [H] (surgery/lookback.h) */
struct tg_attention_stats {
    const double *distance; /* mean of sum_j p_tj (t - j): how far back it looks, in tokens */
    const double *entropy;  /* mean of -sum_j p_tj log p_tj, in nats */
    const double *output;   /* RMS of sum_j p_tj v_j */
    /* [D], of the layer's inputs x: their mean, and c with c . x near 1 by least squares */
    const float *mean, *constant;
};
/* What a new layer is made from */
struct tg_origin {
    const struct tg_mixer *from; /* the softmax or window layer, with its weights */
    size_t layer, layer_count;
    const struct tg_attention_stats *stats; /* NULL: not measured */
};

/* A row. All sizes in floats. */
struct tg_mixer_ops {
    const char *name;
    const struct tg_linear_recipe *recipe; /* of rows of the linear frame (linear_mixer.h) */
    /* kept from forward for backward, and scratch of forward / backward, for this batch */
    size_t (*saved_floats)(const struct tg_mixer *m, const struct tg_batch *b);
    size_t (*work_floats)(const struct tg_mixer *m, const struct tg_batch *b, int threads,
                          bool backward);
    /* x [rows,D] -> y [rows,D], every sequence from an empty state. saved NULL: no backward will
     * follow. */
    void (*forward)(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                    const float *x, float *y, float *saved, float *work);
    /* dy [rows,D] -> dx [rows,D] (written), parameter gradients accumulated */
    void (*backward)(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                     const float *x, const float *dy, const float *saved, float *dx,
                     const struct tg_mixer_grads *dp, float *work);
    /* Decode: one or several new tokens of each sequence, continuing states[i] (b->past[i] tokens
     * in it). A state holds state_floats for `capacity` tokens in all; zeroed memory is the empty
     * state. Rows whose mixer state is constant ignore capacity. */
    size_t (*state_floats)(const struct tg_mixer *m, size_t capacity);
    /* scratch of step; NULL: as much as forward's */
    size_t (*step_work_floats)(const struct tg_mixer *m, const struct tg_batch *b, size_t capacity,
                               int threads);
    void (*step)(const struct tg_ctx *ctx, const struct tg_mixer *m, const struct tg_batch *b,
                 size_t capacity, const float *x, float *const *states, float *y, float *work);
    /* Initial value of parameter `rule` of the new layer, given the softmax (or window) layer that
     * it replaces; data [count]. Called for what the caller did not copy: parameters of the same
     * name and shape, and k, v and their norms with kv heads repeated. In the order of the rules:
     * m has the values of those before. Values that are not finite mean that there are none (no
     * memory, bad weights), and the caller fails. NULL: no plan gives it. */
    void (*inherit)(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                    size_t count);
    /* Changes what the caller copied from the teacher, where the new mixer needs it another way.
     * NULL: nothing to do. */
    void (*adjust)(const struct tg_mixer *m, const struct tg_origin *o, size_t rule, float *data,
                   size_t count);
};
extern const struct tg_mixer_ops
    *const tg_mixers[]; /* same order as tg_mixer_schemas, NULL-terminated */
const struct tg_mixer_ops *tg_mixer_find(const struct tg_mixer_schema *schema);
/* What ops->step needs */
size_t tg_mixer_step_work(const struct tg_mixer_ops *ops, const struct tg_mixer *m,
                          const struct tg_batch *b, size_t capacity, int threads);

#endif
