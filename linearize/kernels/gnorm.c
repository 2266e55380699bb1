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

struct job {
    const struct tg_kernels *kern;
    const struct tg_gnorm *g;
    const float *x, *z, *w, *r, *dy;
    float *y, *keep;
    float *dx, *dz, *partial;
};

/* Of some elements at a time */
enum { STRIP = 256 };
struct gates {
    float f[STRIP], slope[STRIP]; /* f(z), f'(z) */
};

static void gates_of(const struct job *j, const float *z, size_t n, struct gates *v)
{
    if (j->g->gate == TG_GATE_FN_NONE) {
        for (size_t c = 0; c < n; c++)
            v->f[c] = 1, v->slope[c] = 0;
        return;
    }
    j->kern->sigmoid(z, v->f, n);
    for (size_t c = 0; c < n; c++) {
        float s = v->f[c];
        bool silu = j->g->gate == TG_GATE_FN_SILU;
        v->f[c] = silu ? z[c] * s : s;
        v->slope[c] = silu ? s * (1 + z[c] * (1 - s)) : s * (1 - s);
    }
}

static size_t strip(size_t n, size_t from)
{
    return n - from < STRIP ? n - from : STRIP;
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

static void fwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct job *j = ud;
    const struct tg_gnorm *g = j->g;
    (void)worker;
    for (size_t i = from * g->groups; i < to * g->groups; i++) {
        size_t row = i / g->groups, at = i % g->groups * g->n;
        const float *x = j->x + row * ld_x(g) + at, *z = j->z ? j->z + row * ld_z(g) + at : NULL;
        const float *w = j->w ? j->w + (g->shared ? 0 : at) : NULL;
        float *y = j->y + row * ld_x(g) + at;
        struct gates v;
        double squares = 0;
        for (size_t first = 0; first < g->n; first += STRIP) {
            const size_t n = strip(g->n, first);
            if (g->gate_first)
                gates_of(j, z + first, n, &v);
            for (size_t c = 0; c < n; c++) {
                double u = (double)x[first + c] * (g->gate_first ? (double)v.f[c] : 1);
                squares += u * u;
            }
        }
        float r = factor(g, squares);
        if (j->keep)
            j->keep[i] = r;
        for (size_t first = 0; first < g->n; first += STRIP) {
            const size_t n = strip(g->n, first);
            gates_of(j, z ? z + first : NULL, n, &v);
            for (size_t c = 0; c < n; c++)
                y[first + c] = x[first + c] * r * (w ? w[first + c] : 1) * v.f[c];
        }
    }
}

void tg_gnorm_fwd(const struct tg_ctx *ctx, const struct tg_gnorm *g, size_t rows, const float *x,
                  const float *z, const float *w, float *y, float *r)
{
    struct job j = {.kern = ctx->k, .g = g, .x = x, .z = z, .w = w, .y = y, .keep = r};
    tg_parallel_rows(ctx->threads, rows, fwd_rows, &j);
}

/* One vector; dw [n] is accumulated unless NULL */
static void vector_bwd(const struct job *j, const float *x, const float *z, const float *w, float r,
                       const float *dy, float *dx, float *dz, float *dw)
{
    const struct tg_gnorm *g = j->g;
    struct gates v;
    double sum = 0;
    for (size_t first = 0; first < g->n; first += STRIP) {
        const size_t n = strip(g->n, first);
        gates_of(j, z ? z + first : NULL, n, &v);
        for (size_t l = 0, c = first; l < n; l++, c++)
            sum += (double)dy[c] * (double)(w ? w[c] : 1) * (double)v.f[l] *
                   (double)x[c]; /* the same product in both orders */
    }
    const float pull = (float)(sum * (double)r * (double)r / (g->l2 ? 1 : (double)g->n));
    for (size_t first = 0; first < g->n; first += STRIP) {
        const size_t n = strip(g->n, first);
        if (g->n > STRIP)
            gates_of(j, z ? z + first : NULL, n, &v);
        for (size_t l = 0, c = first; l < n; l++, c++) {
            float weight = w ? w[c] : 1, d = dy[c], from = x[c], f = v.f[l];
            if (dw)
                dw[c] += d * from * r * f;
            if (g->gate_first) {
                float du = r * (d * weight - from * f * pull);
                dx[c] = du * f;
                if (dz)
                    dz[c] = du * from * v.slope[l];
            } else {
                dx[c] = r * (d * weight * f - from * pull);
                if (dz)
                    dz[c] = d * from * r * weight * v.slope[l];
            }
        }
    }
}

static void bwd_rows(void *ud, size_t from, size_t to, int worker)
{
    const struct job *j = ud;
    const struct tg_gnorm *g = j->g;
    float *partial = j->partial ? j->partial + from / TG_BLOCK_ROWS * weights_of(g) : NULL;
    (void)worker;
    if (partial)
        memset(partial, 0, weights_of(g) * sizeof *partial);
    for (size_t i = from * g->groups; i < to * g->groups; i++) {
        size_t row = i / g->groups, at = i % g->groups * g->n, shared = g->shared ? 0 : at;
        size_t x = row * ld_x(g) + at, z = row * ld_z(g) + at;
        vector_bwd(j, j->x + x, j->z ? j->z + z : NULL, j->w ? j->w + shared : NULL, j->r[i],
                   j->dy + x, j->dx + x, j->dz ? j->dz + z : NULL,
                   partial ? partial + shared : NULL);
    }
}

size_t tg_gnorm_work(const struct tg_gnorm *g, size_t rows)
{
    return tg_blocks_of_rows(rows) * weights_of(g);
}

void tg_gnorm_bwd(const struct tg_ctx *ctx, const struct tg_gnorm *g, size_t rows, const float *x,
                  const float *z, const float *w, const float *r, const float *dy, float *dx,
                  float *dz, float *dw, float *work)
{
    struct job j = {.kern = ctx->k,
                    .g = g,
                    .x = x,
                    .z = z,
                    .w = w,
                    .r = r,
                    .dy = dy,
                    .dx = dx,
                    .dz = dz,
                    .partial = dw ? work : NULL};
    tg_parallel_rows(ctx->threads, rows, bwd_rows, &j);
    for (size_t b = 0; dw && b < tg_blocks_of_rows(rows); b++)
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
