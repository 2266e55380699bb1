/* The generic decoder built from a spec: forward, backward, decode.
 *
 *   h = embed_scale e[id], through embed_in if there is one, + p[position offset + position]
 *   each layer: mixer and mlp joined to h as its residual kind says (convert/spec.h)
 *   logits = c tanh(l / c),  l = logit_scale (head embed_out norm_out(h) + bias) */
#ifndef TG_LINEARIZE_MODEL_H
#define TG_LINEARIZE_MODEL_H

#include <stdint.h>

#include "base/progress.h"
#include "convert/checkpoint.h"
#include "convert/params.h"
#include "linearize/mixers/mixer.h"
#include "linearize/model/ropes.h"

struct tg_model {
    struct tg_model_spec spec;   /* owned copy */
    struct tg_param_list params; /* owned */
    float *data;                 /* parameters, params.floats; owned */
    struct tg_ropes
        ropes; /* of texts as long as the ropes were made for; grown by tg_model_reserve */
    size_t rope_positions;
    struct tg_ctx ctx;
    struct tg_model_index *index; /* private: where each layer's parameters are; owned */
};

/* Zeroed parameters */
int tg_model_create(struct tg_model **m, const struct tg_model_spec *spec, const struct tg_ctx *ctx,
                    struct tg_err *err);
int tg_model_load(struct tg_model **m, const char *path, const struct tg_ctx *ctx,
                  struct tg_err *err);
int tg_model_from_checkpoint(struct tg_model **m, const struct tg_checkpoint *c,
                             const struct tg_ctx *ctx, struct tg_err *err);
void tg_model_free(struct tg_model *m);
/* A start from nothing for a model whose mixers are softmax or window: weights normal (0, size),
 * norms the identity, biases 0. Other mixers get theirs from such a model by surgery. */
void tg_model_random(struct tg_model *m, double size, uint64_t seed);
/* Rotary tables for positions below n. Call before running sequences longer than what was reserved
 * (1 << 12 at the start); not thread-safe against running. */
int tg_model_reserve(struct tg_model *m, size_t positions, struct tg_err *err);
/* NULL if the model has none of that name */
float *tg_model_param(const struct tg_model *m, const char *name);
/* The mixer of layer l over parameter block `data` (m->data, or another block of the same layout).
 * `ropes`: tables for the length of the texts that are run (tg_run_ropes; a cache has its own),
 * where rotary frequencies depend on it; without them (NULL) such a layer is good for its sizes
 * alone. */
void tg_model_mixer(const struct tg_model *m, size_t l, const float *data,
                    const struct tg_ropes *ropes, struct tg_mixer *out);

/* A run's memory: activations kept for backward and scratch, sized for a batch; reusable for any
 * batch whose sequences are no larger in number, rows and shape cost (tg_run_fit grows it when
 * not). */
struct tg_run;
int tg_run_create(struct tg_run **r, struct tg_err *err);
void tg_run_free(struct tg_run *r);
const struct tg_ropes *tg_run_ropes(const struct tg_run *r);
int tg_run_fit(struct tg_run *r, const struct tg_model *m, const struct tg_batch *b, bool backward,
               struct tg_err *err);

/* Called after each mixer: x [rows,D] its input, y [rows,D] its output, before it is scaled, normed
 * or added. x is h through norm_in, or h itself where the residual kind has no norm before the
 * mixer; either way y is a function of x and the mixer's parameters alone. May be NULL. */
typedef void (*tg_mixer_hook)(void *ud, size_t layer, const float *x, const float *y);
struct tg_hooks {
    tg_mixer_hook mixer;
    void (*hidden)(
        void *ud, size_t index,
        const float *h); /* h [rows,D] before layer index; index = layers: after norm_out */
    void *ud;
};

/* All of these need tg_run_fit before; none fails. h is [rows,D]. */
void tg_model_embed(const struct tg_model *m, const int32_t *ids, const struct tg_batch *b,
                    float *h);
/* One block in place. keep: save for tg_layer_backward. */
void tg_layer_forward(const struct tg_model *m, struct tg_run *r, size_t layer,
                      const struct tg_batch *b, float *h, bool keep, const struct tg_hooks *hooks);
/* What follows the last block: h -> norm_out(h) in place, nothing where the model has none. */
void tg_model_final_norm(const struct tg_model *m, float *h, size_t rows);
/* ids [rows] -> hidden [rows,D] after the final norm. keep: save for backward. */
void tg_model_forward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                      const struct tg_batch *b, float *hidden, bool keep,
                      const struct tg_hooks *hooks);
/* One block after tg_layer_forward with keep: dh [rows,D] comes in as the gradient of its output
 * and leaves as that of its input. grads and wanted as in tg_model_backward. */
void tg_layer_backward(const struct tg_model *m, struct tg_run *r, size_t layer,
                       const struct tg_batch *b, float *dh, float *grads, const bool *wanted);
/* dhidden [rows,D] is overwritten; grads (layout of params) accumulate, the embedding's too
 * (scatter in row order). `wanted` [params]: NULL = all; parameters with false get no gradient
 * (their GEMM is skipped). */
void tg_model_backward(const struct tg_model *m, struct tg_run *r, const int32_t *ids,
                       const struct tg_batch *b, float *dhidden, float *grads, const bool *wanted);
/* hidden [rows,D] -> logits [rows,N] */
void tg_model_logits(const struct tg_model *m, const float *hidden, size_t rows, float *logits);
/* dlogits [rows,N] -> dhidden [rows,D] (written); gradients of head (or the tied embedding), its
 * bias and embed_out accumulated where wanted. dlogits is overwritten. */
void tg_model_logits_backward(const struct tg_model *m, const float *hidden, float *dlogits,
                              size_t rows, float *dhidden, float *grads, const bool *wanted);

/* Decode cache: a state per layer and sequence. Zeroed = empty. */
struct tg_cache;
int tg_cache_create(struct tg_cache **c, const struct tg_model *m, size_t sequences,
                    size_t capacity, struct tg_err *err);
void tg_cache_free(struct tg_cache *c);
void tg_cache_reset(struct tg_cache *c, size_t sequence);
size_t tg_cache_length(const struct tg_cache *c, size_t sequence); /* tokens in it */
size_t tg_cache_bytes(const struct tg_cache *c);                   /* memory held, all sequences */
/* Snapshot of one sequence: tg_cache_snapshot_bytes, then a copy out and in (to the same or another
 * sequence or cache of the same model and capacity). Self-describing enough that a wrong model or
 * capacity is refused. */
size_t tg_cache_snapshot_bytes(const struct tg_cache *c);
void tg_cache_snapshot(const struct tg_cache *c, size_t sequence, void *out);
int tg_cache_restore(struct tg_cache *c, size_t sequence, const void *in, size_t bytes,
                     struct tg_err *err);
/* Several new tokens for each sequence (begin as in a batch; sequences may get none): hidden
 * [rows,D] after the final norm. Fails when a sequence would pass the capacity or memory is short.
 */
int tg_model_step(struct tg_model *m, struct tg_cache *c, const int32_t *ids, const size_t *begin,
                  float *hidden, const struct tg_hooks *hooks, struct tg_err *err);

#endif
