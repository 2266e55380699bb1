/* One pre-norm residual block, forward and backward:
 *
 *   m = h + mixer(rms(h) * norm_in)
 *   h' = m + down(silu(gate x) * up x),   x = rms(m) * norm_mlp
 *
 * Backward: the residual passes dh through unchanged, so each branch adds its part to the same
 * array. */
#include <assert.h>
#include <string.h>

#include "linearize/kernels/gemm.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/row_ops.h"
#include "linearize/model/run.h"

void tg_block_mlp(const struct tg_model *m, size_t layer, float *h, size_t rows, float *x, float *r,
                  float *a, float *b, float *p)
{
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_ctx *ctx = &m->ctx;
    size_t D = m->spec.width, M = m->spec.layers[layer].mlp_dim;
    const float *bias = tg_model_weight(m, at->down_bias);
    tg_rows_rmsnorm(ctx, h, tg_model_weight(m, at->norm_mlp), (float)m->spec.norm.eps, x, r, rows,
                    D);
    tg_linear_fwd(ctx, x, tg_model_weight(m, at->gate), tg_model_weight(m, at->gate_bias), a, rows,
                  M, D);
    tg_linear_fwd(ctx, x, tg_model_weight(m, at->up), tg_model_weight(m, at->up_bias), b, rows, M,
                  D);
    tg_rows_silu_mul(ctx, a, b, p, rows, M);
    tg_gemm(ctx, false, true, rows, D, M, 1, p, M, tg_model_weight(m, at->down), M, 1, h, D);
    if (bias)
        tg_rows_add_bias(ctx, bias, h, rows, D);
}

void tg_layer_forward(const struct tg_model *m, struct tg_run *r, size_t layer,
                      const struct tg_batch *b, float *h, bool keep, const struct tg_hooks *hooks)
{
    const struct tg_layer_index *at = &m->index->layers[layer];
    size_t rows = tg_batch_rows(b), D = m->spec.width;
    assert(rows <= r->rows && (!keep || layer < r->saved_count));
    struct tg_saved_layer *s = keep ? &r->saved[layer] : NULL;
    struct tg_mixer mixer;
    tg_model_mixer(m, layer, m->data, &mixer);

    if (keep)
        tg_rows_copy(&m->ctx, h, s->h_in, rows, D);
    tg_rows_rmsnorm(&m->ctx, h, tg_model_weight(m, at->norm_in), (float)m->spec.norm.eps, r->x,
                    keep ? s->r_in : NULL, rows, D);
    tg_model_mixer_ops(m, layer)->forward(&m->ctx, &mixer, b, r->x, r->y, keep ? s->mixer : NULL,
                                          r->work);
    if (hooks && hooks->mixer)
        hooks->mixer(hooks->ud, layer, r->x, r->y);
    tg_rows_add(&m->ctx, r->y, h, rows, D);

    if (keep)
        tg_rows_copy(&m->ctx, h, s->h_mid, rows, D);
    tg_block_mlp(m, layer, h, rows, r->x, keep ? s->r_mid : r->r, keep ? s->gate : r->p,
                 keep ? s->up : r->q, r->p);
}

/* Where the gradient of parameter `index` goes; NULL when it is not wanted */
static float *gradient(const struct tg_model *m, float *grads, const bool *wanted, size_t index)
{
    return index != TG_NO_PARAM && (!wanted || wanted[index]) ? tg_model_at(m, grads, index) : NULL;
}

static void mlp_backward(const struct tg_model *m, struct tg_run *r, size_t layer, size_t rows,
                         float *dh, float *grads, const bool *wanted)
{
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_saved_layer *s = &r->saved[layer];
    const struct tg_ctx *ctx = &m->ctx;
    const float *norm = tg_model_weight(m, at->norm_mlp);
    size_t D = m->spec.width, M = m->spec.layers[layer].mlp_dim;

    tg_rows_silu_mul(ctx, s->gate, s->up, r->p, rows, M);
    tg_linear_bwd(ctx, r->p, tg_model_weight(m, at->down), dh, r->q, 0,
                  gradient(m, grads, wanted, at->down), gradient(m, grads, wanted, at->down_bias),
                  rows, D, M);
    tg_rows_silu_mul_bwd(ctx, s->gate, s->up, r->q, r->q, r->p, rows, M);

    tg_rows_rmsnorm(ctx, s->h_mid, norm, (float)m->spec.norm.eps, r->x, NULL, rows, D);
    tg_linear_bwd(ctx, r->x, tg_model_weight(m, at->gate), r->q, r->y, 0,
                  gradient(m, grads, wanted, at->gate), gradient(m, grads, wanted, at->gate_bias),
                  rows, M, D);
    tg_linear_bwd(ctx, r->x, tg_model_weight(m, at->up), r->p, r->y, 1,
                  gradient(m, grads, wanted, at->up), gradient(m, grads, wanted, at->up_bias), rows,
                  M, D);
    tg_rows_rmsnorm_bwd(ctx, s->h_mid, norm, s->r_mid, r->y, dh,
                        gradient(m, grads, wanted, at->norm_mlp), r->partial, rows, D);
}

void tg_layer_backward(const struct tg_model *m, struct tg_run *r, size_t layer,
                       const struct tg_batch *b, float *dh, float *grads, const bool *wanted)
{
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_saved_layer *s = &r->saved[layer];
    const float *norm = tg_model_weight(m, at->norm_in);
    size_t rows = tg_batch_rows(b), D = m->spec.width;
    assert(rows <= r->rows && layer < r->saved_count);
    mlp_backward(m, r, layer, rows, dh, grads, wanted);

    struct tg_mixer mixer;
    struct tg_mixer_grads to;
    tg_model_mixer(m, layer, m->data, &mixer);
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        to.param[i] = gradient(m, grads, wanted, at->mixer[i]);
    tg_rows_rmsnorm(&m->ctx, s->h_in, norm, (float)m->spec.norm.eps, r->x, NULL, rows, D);
    tg_model_mixer_ops(m, layer)->backward(&m->ctx, &mixer, b, r->x, dh, s->mixer, r->y, &to,
                                           r->work);
    tg_rows_rmsnorm_bwd(&m->ctx, s->h_in, norm, s->r_in, r->y, dh,
                        gradient(m, grads, wanted, at->norm_in), r->partial, rows, D);
}
