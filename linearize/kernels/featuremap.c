/* Feature maps and their gradients; equations in featuremap.h.
 *
 * Gradient of softmax features p = softmax(u), r = softmax(-u), u = xW:
 *   du = p (dp - p.dp) - r (dr - r.dr);    a feature at the floor gets none.
 * Of exp features:  du = p dp - r dr.
 * Of Taylor features, Phi the symmetric matrix of the pairs' gradients, sqrt 2 times those of the
 * squares on its diagonal:  du = dphi_1 / F^{1/4} + Phi u / sqrt F.
 * Then dx += du W^T, dW += x^T du. */
#include "linearize/kernels/featuremap.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "linearize/kernels/gemm.h"

static const float floor_of_softmax = 1e-12f;

size_t tg_map_features(const struct tg_map *m)
{
    return tg_map_count(m->kind, m->K, m->F);
}

/* Rows worked on at a time: the features that a product writes are still in a cache when they are
 * read */
static size_t strip_of(const struct tg_map *m, size_t rows)
{
    enum { STRIP_FLOATS = 1 << 15, LEAST = 16 };
    size_t strip = STRIP_FLOATS / tg_map_features(m);
    strip = strip > LEAST ? strip : LEAST;
    return rows < strip ? rows : strip;
}

/* u [F] in place of y's first half; y [2F] */
static void exp_row(const struct tg_kernels *kern, size_t F, bool softmax, float *y)
{
    float *neg = y + F;
    for (size_t f = 0; f < F; f++)
        neg[f] = -y[f];
    float top = kern->max(y, F), bottom = kern->max(neg, F);
    if (!softmax)
        top = bottom = top > bottom ? top : bottom;
    float sum = kern->exp_shift_sum(y, top, F), neg_sum = kern->exp_shift_sum(neg, bottom, F);
    if (!softmax)
        return;
    kern->scale(1 / sum, y, F);
    kern->scale(1 / neg_sum, neg, F);
    for (size_t f = 0; f < 2 * F; f++)
        y[f] = y[f] < floor_of_softmax ? floor_of_softmax : y[f];
}

/* u [F] at the start of y becomes its features */
static void taylor_row(size_t F, float *y)
{
    float u[TG_MAX_TAYLOR], root = sqrtf((float)F), *pair = y + 1 + F;
    memcpy(u, y, F * sizeof *u);
    y[0] = 1;
    for (size_t i = 0; i < F; i++) {
        y[1 + i] = u[i] / sqrtf(root);
        for (size_t j = i + 1; j < F; j++)
            *pair++ = u[i] * u[j] / root;
    }
    for (size_t i = 0; i < F; i++)
        *pair++ = u[i] * u[i] / (sqrtf(2) * root);
}

/* dy becomes du [F] in its first places */
static void taylor_row_bwd(const struct tg_kernels *kern, size_t F, const float *y, float *dy)
{
    float u[TG_MAX_TAYLOR], du[TG_MAX_TAYLOR], root = sqrtf((float)F);
    const float *pair = dy + 1 + F, *square = pair + F * (F - 1) / 2;
    for (size_t i = 0; i < F; i++) {
        u[i] = y[1 + i] * sqrtf(root);
        du[i] = dy[1 + i] / sqrtf(root) + sqrtf(2) * square[i] * u[i] / root;
    }
    for (size_t i = 0; i < F; pair += F - ++i) {
        du[i] += kern->dot(pair, u + i + 1, F - i - 1) / root;
        kern->axpy(u[i] / root, pair, du + i + 1, F - i - 1);
    }
    memcpy(dy, du, F * sizeof *dy);
}

static float plain(enum tg_feature_map kind, float x)
{
    if (kind == TG_MAP_RELU)
        return x < 0 ? 0 : x;
    if (kind == TG_MAP_ELU1)
        return x > 0 ? x + 1 : expf(x);
    return x;
}

/* Derivative, from the output */
static float plain_slope(enum tg_feature_map kind, float y)
{
    if (kind == TG_MAP_RELU)
        return y > 0 ? 1 : 0;
    if (kind == TG_MAP_ELU1)
        return y > 1 ? 1 : y;
    return 1;
}

void tg_map_fwd(const struct tg_kernels *kern, const struct tg_map *m, size_t n, const float *x,
                size_t ld_x, const float *w, float *y, size_t ld_y)
{
    if (!tg_feature_map_has_weights(m->kind)) {
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < m->K; i++)
                y[r * ld_y + i] = plain(m->kind, x[r * ld_x + i]);
        return;
    }
    assert(m->F <= tg_feature_dim_limit(m->kind));
    for (size_t at = 0, rows; at < n; at += rows, x += rows * ld_x, y += rows * ld_y) {
        rows = strip_of(m, n - at);
        tg_gemm1(false, false, rows, m->F, m->K, 1, x, ld_x, w, m->F, 0, y, ld_y);
        for (size_t r = 0; r < rows; r++)
            if (m->kind == TG_MAP_TAYLOR)
                taylor_row(m->F, y + r * ld_y);
            else
                exp_row(kern, m->F, m->kind == TG_MAP_HEDGEHOG_SOFTMAX, y + r * ld_y);
    }
}

/* dy [2F] -> du [F] in its first half */
static void exp_row_bwd(const struct tg_kernels *kern, size_t F, bool softmax, const float *y,
                        float *dy)
{
    float mean = softmax ? kern->dot(y, dy, F) : 0;
    float neg_mean = softmax ? kern->dot(y + F, dy + F, F) : 0;
    float least = softmax ? floor_of_softmax : -1;
    for (size_t f = 0; f < F; f++) {
        float p = y[f] > least ? y[f] : 0, r = y[F + f] > least ? y[F + f] : 0;
        dy[f] = p * (dy[f] - mean) - r * (dy[F + f] - neg_mean);
    }
}

void tg_map_bwd(const struct tg_kernels *kern, const struct tg_map *m, size_t n, const float *x,
                size_t ld_x, const float *w, const float *y, float *dy, size_t ld_y, float *dx,
                float *dw)
{
    if (!tg_feature_map_has_weights(m->kind)) {
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < m->K; i++)
                dx[r * ld_x + i] += plain_slope(m->kind, y[r * ld_y + i]) * dy[r * ld_y + i];
        return;
    }
    for (size_t at = 0, rows; at < n; at += rows) {
        rows = strip_of(m, n - at);
        const float *xs = x + at * ld_x;
        float *du = dy + at * ld_y;
        for (size_t r = 0; r < rows; r++)
            if (m->kind == TG_MAP_TAYLOR)
                taylor_row_bwd(kern, m->F, y + (at + r) * ld_y, du + r * ld_y);
            else
                exp_row_bwd(kern, m->F, m->kind == TG_MAP_HEDGEHOG_SOFTMAX, y + (at + r) * ld_y,
                            du + r * ld_y);
        tg_gemm1(false, true, rows, m->K, m->F, 1, du, ld_y, w, m->F, 1, dx + at * ld_x, ld_x);
        if (dw)
            tg_gemm1(true, false, m->K, m->F, rows, 1, xs, ld_x, du, ld_y, 1, dw, m->F);
    }
}
