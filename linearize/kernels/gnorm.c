/* Gated norms; equations in gnorm.h. Backward, m = w f (norm first) or w (gate first), c = sum(dy m
 * u):
 *
 *   du = r (dy m - u r^2 c / d)
 *   norm first: dx = du, dz = dy u r w f'(z), dw = dy u r f(z)
 *   gate first: dx = du f(z), dz = du x f'(z), dw = dy u r */
#include "linearize/kernels/gnorm.h"

#include <math.h>
#include <string.h>

#include "base/pool.h"

enum { BLOCK = 64 }; /* rows of one item; fixed, so sums do not depend on the number of threads */

struct job {
    const struct tg_gnorm *g;
    size_t rows;
    const float *x, *z, *w, *r, *dy;
    float *y, *keep;
    float *dx, *dz, *partial;
};

struct value {
    float f, slope; /* f(z), f'(z) */
};

static inline struct value gate_of(enum tg_gate_fn kind, const float *z, size_t i)
{
    if (kind == TG_GATE_FN_NONE)
        return (struct value){1, 0};
    float s = 1 / (1 + expf(-z[i]));
    if (kind == TG_GATE_FN_SIGMOID)
        return (struct value){s, s * (1 - s)};
    return (struct value){z[i] * s, s * (1 + z[i] * (1 - s))};
}

static size_t ld_x(const struct tg_gnorm *g)
{
    return g->ld_x ? g->ld_x : g->groups * g->n;
}

static size_t ld_z(const struct tg_gnorm *g)
{
    return g->ld_z ? g->ld_z : g->groups * g->n;
}

static size_t weights_of(const struct tg_gnorm *g)
{
    return g->shared ? g->n : g->groups * g->n;
}

static float factor(const struct tg_gnorm *g, double squares)
{
    double d = g->l2 ? 1 : (double)g->n;
    return (float)(1 / sqrt(squares / d + (double)g->eps));
}

static void fwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_gnorm *g = j->g;
    size_t from = item * BLOCK, to = from + BLOCK < j->rows ? from + BLOCK : j->rows;
    (void)worker;
    for (size_t i = from * g->groups; i < to * g->groups; i++) {
        size_t row = i / g->groups, at = i % g->groups * g->n;
        const float *x = j->x + row * ld_x(g) + at, *z = j->z ? j->z + row * ld_z(g) + at : NULL;
        const float *w = j->w ? j->w + (g->shared ? 0 : at) : NULL;
        float *y = j->y + row * ld_x(g) + at;
        double squares = 0;
        for (size_t c = 0; c < g->n; c++) {
            double u = (double)x[c];
            if (g->gate_first)
                u *= (double)gate_of(g->gate, z, c).f;
            squares += u * u;
        }
        float r = factor(g, squares);
        if (j->keep)
            j->keep[i] = r;
        for (size_t c = 0; c < g->n; c++)
            y[c] = x[c] * r * (w ? w[c] : 1) * gate_of(g->gate, z, c).f;
    }
}

static size_t blocks_of(size_t rows)
{
    return (rows + BLOCK - 1) / BLOCK;
}

void tg_gnorm_fwd(const struct tg_ctx *ctx, const struct tg_gnorm *g, size_t rows, const float *x,
                  const float *z, const float *w, float *y, float *r)
{
    struct job j = {.g = g, .rows = rows, .x = x, .z = z, .w = w, .y = y, .keep = r};
    tg_parallel(ctx->threads, blocks_of(rows), fwd_item, &j);
}

/* One vector; dw [n] is accumulated unless NULL */
static void vector_bwd(const struct tg_gnorm *g, const float *x, const float *z, const float *w,
                       float r, const float *dy, float *dx, float *dz, float *dw)
{
    double sum = 0;
    for (size_t c = 0; c < g->n; c++)
        sum += (double)dy[c] * (double)(w ? w[c] : 1) * (double)gate_of(g->gate, z, c).f *
               (double)x[c]; /* the same product in both orders */
    float pull = (float)(sum * (double)r * (double)r / (g->l2 ? 1 : (double)g->n));
    for (size_t c = 0; c < g->n; c++) {
        struct value v = gate_of(g->gate, z, c);
        float weight = w ? w[c] : 1, d = dy[c], from = x[c];
        if (dw)
            dw[c] += d * from * r * v.f;
        if (g->gate_first) {
            float du = r * (d * weight - from * v.f * pull);
            dx[c] = du * v.f;
            if (dz)
                dz[c] = du * from * v.slope;
        } else {
            dx[c] = r * (d * weight * v.f - from * pull);
            if (dz)
                dz[c] = d * from * r * weight * v.slope;
        }
    }
}

static void bwd_item(void *ud, size_t item, int worker)
{
    const struct job *j = ud;
    const struct tg_gnorm *g = j->g;
    size_t from = item * BLOCK, to = from + BLOCK < j->rows ? from + BLOCK : j->rows;
    float *partial = j->partial ? j->partial + item * weights_of(g) : NULL;
    (void)worker;
    if (partial)
        memset(partial, 0, weights_of(g) * sizeof *partial);
    for (size_t i = from * g->groups; i < to * g->groups; i++) {
        size_t row = i / g->groups, at = i % g->groups * g->n, shared = g->shared ? 0 : at;
        size_t x = row * ld_x(g) + at, z = row * ld_z(g) + at;
        vector_bwd(g, j->x + x, j->z ? j->z + z : NULL, j->w ? j->w + shared : NULL, j->r[i],
                   j->dy + x, j->dx + x, j->dz ? j->dz + z : NULL,
                   partial ? partial + shared : NULL);
    }
}

size_t tg_gnorm_work(const struct tg_gnorm *g, size_t rows)
{
    return blocks_of(rows) * weights_of(g);
}

void tg_gnorm_bwd(const struct tg_ctx *ctx, const struct tg_gnorm *g, size_t rows, const float *x,
                  const float *z, const float *w, const float *r, const float *dy, float *dx,
                  float *dz, float *dw, float *work)
{
    struct job j = {.g = g,
                    .rows = rows,
                    .x = x,
                    .z = z,
                    .w = w,
                    .r = r,
                    .dy = dy,
                    .dx = dx,
                    .dz = dz,
                    .partial = dw ? work : NULL};
    tg_parallel(ctx->threads, blocks_of(rows), bwd_item, &j);
    for (size_t b = 0; dw && b < blocks_of(rows); b++)
        ctx->k->axpy(1, work + b * weights_of(g), dw, weights_of(g));
}

static double gate_ref(enum tg_gate_fn kind, const double *z, size_t i)
{
    if (kind == TG_GATE_FN_NONE)
        return 1;
    return (kind == TG_GATE_FN_SILU ? z[i] : 1) / (1 + exp(-z[i]));
}

void tg_gnorm_ref(const struct tg_gnorm *g, size_t rows, const double *x, const double *z,
                  const double *w, double *y)
{
    for (size_t i = 0; i < rows * g->groups; i++) {
        size_t at = i * g->n, first = g->shared ? 0 : i % g->groups * g->n;
        double sum = 0;
        for (size_t c = at; c < at + g->n; c++) {
            double u = x[c] * (g->gate_first ? gate_ref(g->gate, z, c) : 1);
            sum += u * u;
        }
        double r = 1 / sqrt(sum / (g->l2 ? 1 : (double)g->n) + (double)g->eps);
        for (size_t c = 0; c < g->n; c++)
            y[at + c] = x[at + c] * r * (w ? w[first + c] : 1) * gate_ref(g->gate, z, at + c);
    }
}
