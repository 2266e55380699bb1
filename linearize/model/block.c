/* One residual block, forward and backward. How its branches join the residual stream is the row of
 * tg_residual_info (convert/spec.h has the equations); with s a branch's scale and f a branch,
 *
 *   plain        h += s f(x)                 x = norm(h), or h where the kind has no norm before
 *   norm after   h += s norm_out(f(x))
 *   after        h = norm_out(h + s f(x))
 *   normed       h = skip x + s f(x)
 *   parallel     both x are of the h that came into the layer
 *
 * Backward: the residual passes dh through, so each branch adds its part to the same array; but
 * what `after` norms is the sum, so dh goes through that norm first, and what `normed` passes
 * through is x. */
#include <assert.h>
#include <string.h>

#include "linearize/kernels/gemm.h"
#include "linearize/model/mlp.h"
#include "linearize/model/model_internal.h"
#include "linearize/model/moe.h"
#include "linearize/model/row_ops.h"
#include "linearize/model/run.h"

size_t tg_block_work_floats(const struct tg_model *m, size_t rows, bool backward)
{
    size_t most = 0;
    for (size_t l = 0; l < m->spec.layer_count; l++) {
        size_t need = tg_moe_work_floats(&m->spec, l, rows, m->ctx.threads, backward);
        most = need > most ? need : most;
    }
    return most;
}

static bool has_mlp(const struct tg_layer_spec *l)
{
    return l->mlp_kind != TG_MLP_NONE;
}

static struct tg_mlp dense_mlp(const struct tg_model *m, size_t layer)
{
    const struct tg_mlp_index *at = &m->index->layers[layer].mlp;
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    return (struct tg_mlp){.act = l->activation,
                           .gate = tg_model_weight(m, at->gate),
                           .up = tg_model_weight(m, at->up),
                           .down = tg_model_weight(m, at->down),
                           .gate_bias = tg_model_weight(m, at->gate_bias),
                           .up_bias = tg_model_weight(m, at->up_bias),
                           .down_bias = tg_model_weight(m, at->down_bias),
                           .M = l->mlp_dim,
                           .D = m->spec.width,
                           .gate_scale = (float)tg_factor(l->gate_scale)};
}

/* norm(h) in x, or h itself */
static const float *branch_input(const struct tg_model *m, bool normed, struct tg_norm_index at,
                                 const float *h, float *x, float *stats, size_t rows)
{
    if (!normed)
        return h;
    struct tg_norm norm = tg_model_norm(m, at);
    tg_rows_norm(&m->ctx, &norm, h, x, stats, rows, m->spec.width);
    return x;
}

static void norm_in_place(const struct tg_model *m, struct tg_norm_index at, float *h, float *keep,
                          size_t rows)
{
    struct tg_norm norm = tg_model_norm(m, at);
    if (keep)
        tg_rows_copy(&m->ctx, h, keep, rows, m->spec.width);
    tg_rows_norm(&m->ctx, &norm, h, h, NULL, rows, m->spec.width);
}

/* What the branch is added to */
static void residual(const struct tg_model *m, const struct tg_residual_info *kind, const float *x,
                     double skip, float *h, size_t rows)
{
    if (!kind->normed)
        return;
    tg_rows_copy(&m->ctx, x, h, rows, m->spec.width);
    tg_rows_scale(&m->ctx, (float)tg_factor(skip), h, rows, m->spec.width);
}

const float *tg_block_enter(const struct tg_model *m, size_t layer, const float *h, size_t rows,
                            float *x)
{
    const struct tg_residual_info *kind = tg_residual_info(m->spec.layers[layer].residual);
    return branch_input(m, kind->norm_in, m->index->layers[layer].norm_in, h, x, NULL, rows);
}

static void leave_mixer(const struct tg_model *m, size_t layer, float *h, size_t rows,
                        const float *x, float *y, float *keep)
{
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    const struct tg_residual_info *kind = tg_residual_info(l->residual);
    struct tg_norm_index out = m->index->layers[layer].norm_mixer_out;
    residual(m, kind, x, l->mixer_skip, h, rows);
    if (kind->norm_mixer_out && !kind->after)
        norm_in_place(m, out, y, keep, rows);
    tg_rows_add(&m->ctx, (float)tg_factor(l->mixer_scale), y, h, rows, m->spec.width);
    if (kind->after)
        norm_in_place(m, out, h, keep, rows);
}

static void add_mlp(const struct tg_model *m, size_t layer, float *h, size_t rows, const float *x,
                    const struct tg_block_space *space, const struct tg_saved_layer *keep)
{
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    const struct tg_residual_info *kind = tg_residual_info(l->residual);
    struct tg_norm_index out = m->index->layers[layer].norm_mlp_out;
    float scale = (float)tg_factor(l->mlp_scale), down = (float)tg_factor(l->down_scale);
    bool straight = !kind->norm_mlp_out || kind->after; /* no norm between branch and residual */
    float *sum = keep ? keep->mlp_out : NULL;
    if (l->moe.experts) {
        tg_moe_forward(m, layer, x, space->y, rows, keep ? keep->moe : NULL, space->work);
        tg_rows_scale(&m->ctx, down, space->y, rows, m->spec.width);
        residual(m, kind, x, l->mlp_skip, h, rows);
    } else {
        struct tg_mlp mlp = dense_mlp(m, layer);
        tg_mlp_hidden(&m->ctx, &mlp, x, keep ? keep->gate : space->a, keep ? keep->up : space->b,
                      space->a, rows);
        residual(m, kind, x, l->mlp_skip, h, rows);
        tg_mlp_down(&m->ctx, &mlp, straight ? scale * down : down, space->a, straight ? 1 : 0,
                    straight ? h : space->y, rows);
    }
    if (!straight)
        norm_in_place(m, out, space->y, sum, rows);
    if (!straight || l->moe.experts)
        tg_rows_add(&m->ctx, scale, space->y, h, rows, m->spec.width);
    if (kind->after)
        norm_in_place(m, out, h, sum, rows);
}

void tg_block_leave(const struct tg_model *m, size_t layer, float *h, size_t rows, const float *x,
                    const struct tg_block_space *space, const struct tg_saved_layer *keep)
{
    const struct tg_layer_index *at = &m->index->layers[layer];
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    const struct tg_residual_info *kind = tg_residual_info(l->residual);
    if (kind->parallel && kind->norm_mlp)
        x = branch_input(m, true, at->norm_mlp, h, space->x, NULL, rows);
    leave_mixer(m, layer, h, rows, x, space->y, keep ? keep->mixer_out : NULL);
    if (!has_mlp(l))
        return;
    if (!kind->parallel) {
        if (keep)
            tg_rows_copy(&m->ctx, h, keep->h_mid, rows, m->spec.width);
        x = branch_input(m, kind->norm_mlp, at->norm_mlp, h, space->x, NULL, rows);
    }
    add_mlp(m, layer, h, rows, x, space, keep);
}

void tg_layer_forward(const struct tg_model *m, struct tg_run *r, size_t layer,
                      const struct tg_batch *b, float *h, bool keep, const struct tg_hooks *hooks)
{
    size_t rows = tg_batch_rows(b);
    assert(rows <= r->rows && (!keep || layer < r->saved_count));
    const struct tg_saved_layer *s = keep ? &r->saved[layer] : NULL;
    struct tg_block_space space = {r->x, r->y, r->p, r->q, r->work};
    struct tg_mixer mixer;
    tg_model_mixer(m, layer, m->data, &r->ropes, &mixer);
    if (keep)
        tg_rows_copy(&m->ctx, h, s->h_in, rows, m->spec.width);
    const float *x = tg_block_enter(m, layer, h, rows, r->x);
    tg_model_mixer_ops(m, layer)->forward(&m->ctx, &mixer, b, x, r->y, keep ? s->mixer : NULL,
                                          r->work);
    if (hooks && hooks->mixer)
        hooks->mixer(hooks->ud, layer, x, r->y);
    tg_block_leave(m, layer, h, rows, x, &space, s);
}

/* What backward needs at hand */
struct back {
    const struct tg_model *m;
    struct tg_run *r;
    size_t layer, rows, width;
    const struct tg_layer_spec *l;
    const struct tg_residual_info *kind;
    const struct tg_layer_index *at;
    const struct tg_saved_layer *s;
    float *dh, *grads;
    const bool *wanted;
};

static float *gradient(const struct back *k, size_t index)
{
    return tg_model_gradient(k->m, k->grads, k->wanted, index);
}

/* to += gradient through a norm of h; stats as of its forward */
static void through_norm(const struct back *k, struct tg_norm_index at, const float *h,
                         const float *dy, float *to)
{
    struct tg_norm norm = tg_model_norm(k->m, at);
    tg_rows_norm_bwd(&k->m->ctx, &norm, h, k->r->stats, dy, to, gradient(k, at.w),
                     gradient(k, at.b), k->r->partial, k->rows, k->width);
}

/* From dh to the gradient of a branch's output, which is `inner` times what was normed or added;
 * out: the norm behind the branch, of `normed`. Uses x and y. */
static const float *branch_gradient(const struct back *k, bool has_out, struct tg_norm_index out,
                                    const float *normed, float scale, float inner)
{
    struct tg_run *r = k->r;
    const struct tg_ctx *ctx = &k->m->ctx;
    size_t floats = k->rows * k->width;
    if (has_out) {
        branch_input(k->m, true, out, normed, r->x, r->stats, k->rows);
        memset(r->dy, 0, floats * sizeof *r->dy);
        tg_rows_copy(ctx, k->dh, r->y, k->rows, k->width);
        if (!k->kind->after)
            tg_rows_scale(ctx, scale, r->y, k->rows, k->width);
        through_norm(k, out, normed, r->y, r->dy);
        if (k->kind->after) {
            tg_rows_copy(ctx, r->dy, k->dh, k->rows, k->width);
            inner *= scale;
        }
    } else {
        inner *= scale;
        if (inner == 1)
            return k->dh;
        tg_rows_copy(ctx, k->dh, r->dy, k->rows, k->width);
    }
    tg_rows_scale(ctx, inner, r->dy, k->rows, k->width);
    return r->dy;
}

/* dh of the residual becomes dh of h, from which x came: by norm `at`, or as it is. dx is that of x
 * and may be overwritten. */
static void join_input(const struct back *k, bool has_norm, struct tg_norm_index at, const float *h,
                       float *dx, double skip)
{
    const struct tg_ctx *ctx = &k->m->ctx;
    if (k->kind->normed) {
        tg_rows_add(ctx, (float)tg_factor(skip), k->dh, dx, k->rows, k->width);
        memset(k->dh, 0, k->rows * k->width * sizeof *dx);
    }
    if (has_norm)
        through_norm(k, at, h, dx, k->dh);
    else
        tg_rows_add(ctx, 1, dx, k->dh, k->rows, k->width);
}

/* dx [rows,D] of the mlp's input, which is made again in r->x */
static void mlp_backward(const struct back *k, float *dx)
{
    const struct tg_model *m = k->m;
    struct tg_run *r = k->r;
    const struct tg_mlp_index *at = &k->at->mlp;
    const float *dy =
        branch_gradient(k, k->kind->norm_mlp_out, k->at->norm_mlp_out, k->s->mlp_out,
                        (float)tg_factor(k->l->mlp_scale), (float)tg_factor(k->l->down_scale));
    bool shared = k->kind->parallel && !k->kind->norm_mlp;
    const float *x =
        branch_input(m, k->kind->norm_mlp || shared, shared ? k->at->norm_in : k->at->norm_mlp,
                     k->kind->parallel ? k->s->h_in : k->s->h_mid, r->x, r->stats, k->rows);
    if (k->l->moe.experts) {
        tg_moe_backward(m, k->layer, x, dy, k->s->moe, dx, k->grads, k->wanted, r->work, k->rows);
        return;
    }
    struct tg_mlp mlp = dense_mlp(m, k->layer);
    struct tg_mlp_grads to = {gradient(k, at->gate),    gradient(k, at->up),
                              gradient(k, at->down),    gradient(k, at->gate_bias),
                              gradient(k, at->up_bias), gradient(k, at->down_bias)};
    tg_mlp_bwd(&m->ctx, &mlp, &to, x, k->s->gate, k->s->up, dy, 0, dx, r->p, r->q, k->rows);
}

static void mixer_backward(const struct back *k, const struct tg_batch *b, float *dx)
{
    struct tg_mixer mixer;
    struct tg_mixer_grads to;
    const float *dy = branch_gradient(k, k->kind->norm_mixer_out, k->at->norm_mixer_out,
                                      k->s->mixer_out, (float)tg_factor(k->l->mixer_scale), 1);
    tg_model_mixer(k->m, k->layer, k->m->data, &k->r->ropes, &mixer);
    for (size_t i = 0; i < TG_MIXER_MAX_PARAMS; i++)
        to.param[i] = gradient(k, k->at->mixer[i]);
    const float *x = branch_input(k->m, k->kind->norm_in, k->at->norm_in, k->s->h_in, k->r->x,
                                  k->r->stats, k->rows);
    tg_model_mixer_ops(k->m, k->layer)
        ->backward(&k->m->ctx, &mixer, b, x, dy, k->s->mixer, dx, &to, k->r->work);
}

/* Both branches read dh as it came in, so what they give is added when both are done. */
static void parallel_backward(const struct back *k, const struct tg_batch *b)
{
    struct tg_run *r = k->r;
    mixer_backward(k, b, r->dx);
    if (has_mlp(k->l)) {
        mlp_backward(k, r->y);
        if (k->kind->norm_mlp) {
            join_input(k, true, k->at->norm_mlp, k->s->h_in, r->y, 0);
            branch_input(k->m, true, k->at->norm_in, k->s->h_in, r->x, r->stats, k->rows);
        } else {
            tg_rows_add(&k->m->ctx, 1, r->y, r->dx, k->rows, k->width);
        }
    }
    join_input(k, k->kind->norm_in, k->at->norm_in, k->s->h_in, r->dx, 0);
}

void tg_layer_backward(const struct tg_model *m, struct tg_run *r, size_t layer,
                       const struct tg_batch *b, float *dh, float *grads, const bool *wanted)
{
    const struct tg_layer_spec *l = &m->spec.layers[layer];
    struct back k = {.m = m,
                     .r = r,
                     .layer = layer,
                     .rows = tg_batch_rows(b),
                     .width = m->spec.width,
                     .l = l,
                     .kind = tg_residual_info(l->residual),
                     .at = &m->index->layers[layer],
                     .s = &r->saved[layer],
                     .dh = dh,
                     .grads = grads,
                     .wanted = wanted};
    assert(k.rows <= r->rows && layer < r->saved_count);
    if (k.kind->parallel) {
        parallel_backward(&k, b);
        return;
    }
    if (has_mlp(l)) {
        mlp_backward(&k, r->y);
        join_input(&k, k.kind->norm_mlp, k.at->norm_mlp, k.s->h_mid, r->y, l->mlp_skip);
    }
    mixer_backward(&k, b, r->y);
    join_input(&k, k.kind->norm_in, k.at->norm_in, k.s->h_in, r->y, l->mixer_skip);
}
