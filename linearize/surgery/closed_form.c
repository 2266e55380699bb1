/* Output gains by least squares. Of one layer, x [rows,D] is the teacher's normalised input and
 * y [rows,D] its mixer's output; the student's mixer gives on the same x
 *
 *   f(x) = bias + sum_h y_h,   y_h = z_h O_h^T,   z [rows,H,K] before o,  O_h [D,K] o's columns of
 * h
 *
 * The gains minimise |y - bias - sum_h g_h y_h|^2 + sum_h r_h (g_h - 1)^2. With d = g - 1 and the
 * residual e = y - f(x) these are H equations in double:
 *
 *   (A + diag r) d = b,   A_hi = <y_h, y_i>,   b_h = <y_h, e>,   r_h = 1e-8 A_hh
 *
 * Written in d, a student that is exact has b = 0 to rounding and keeps its gains; the ridge draws
 * towards 1 and shares out what heads with equal outputs cannot tell apart. Gains stay in
 * [0.1, 10]: those beyond are set to the limit and the others solved again. The way from 1 to the
 * result is then cut where the error |e|^2 - 2 d.b + d.A d is least, so that it never grows. g_h is
 * folded into O_h.
 *
 * Source: "Taylor-Calibrate" (arXiv 2606.16429) sets g_h = <teacher_h, student_h> / |student_h|^2
 * clamped to the same range, head by head. Here the heads are solved jointly on the layer's output,
 * which is what the next layer sees and needs no view into the teacher's heads.
 *
 * z is had from any mixer without a second contract: its forward with an o that picks columns. */
#include "linearize/surgery/closed_form.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "linearize/kernels/lapack.h"

enum { ROW_BLOCK = 32, LANES = 8 };
static const double RIDGE = 1e-8, LOWEST = 0.1, HIGHEST = 10;

/* Sums over rows: one block [H,H] A (upper triangle), [H] b, |e|^2, |y|^2 */
struct sums {
    double *gram, *side, *error, *power;
};
static size_t sums_size(size_t heads)
{
    return heads * heads + heads + 2;
}
static struct sums sums_at(double *base, size_t heads)
{
    double *side = base + heads * heads;
    return (struct sums){base, side, side + heads, side + heads + 1};
}

struct tg_gain_fit {
    struct tg_model *student; /* borrowed */
    double **layers;          /* [layer_count][sums_size]; NULL: not fitted */
    size_t layer_count;
    float *pick;     /* [D,HK] */
    float *part, *z; /* [rows,D], [rows,HK] */
    float *work;     /* of the largest mixer */
    float *heads;    /* [threads][H,ROW_BLOCK,D] */
    double *rest;    /* [threads][ROW_BLOCK,D] */
    double *blocks;  /* [blocks of rows][sums_size] */
    size_t work_floats, most_heads, most_hk, rows;
};

void tg_gain_fit_free(struct tg_gain_fit *f)
{
    if (!f)
        return;
    for (size_t l = 0; f->layers && l < f->layer_count; l++)
        tg_free(f->layers[l]);
    tg_free(f->layers);
    tg_free(f->pick);
    tg_free(f->part);
    tg_free(f->z);
    tg_free(f->work);
    tg_free(f->heads);
    tg_free(f->rest);
    tg_free(f->blocks);
    tg_free(f);
}

static float *weight_of(const struct tg_model *m, size_t layer, const char *local)
{
    char name[64];
    snprintf(name, sizeof name, "layers.%zu.mixer.%s", layer, local);
    return tg_model_param(m, name);
}

static size_t rule_of(const struct tg_mixer_schema *s, const char *name)
{
    size_t i = 0;
    while (i < s->param_count && strcmp(s->params[i].name, name) != 0)
        i++;
    return i;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static int layer_create(struct tg_gain_fit *f, size_t l, const struct tg_batch *largest,
                        struct tg_err *err)
{
    struct tg_mixer m;
    tg_model_mixer(f->student, l, f->student->data, NULL, &m);
    if (!weight_of(f->student, l, "o.weight"))
        return tg_fail(err, TG_ERR_UNSUPPORTED, "layer %zu: mixer %s has no output projection", l,
                       m.spec->mixer->name);
    f->layers[l] = tg_alloc_array(sums_size(m.spec->heads), sizeof **f->layers);
    if (!f->layers[l])
        return tg_fail(err, TG_ERR_NOMEM, "layer %zu: no memory for the gains of %zu heads", l,
                       m.spec->heads);
    size_t work =
        tg_mixer_find(m.spec->mixer)->work_floats(&m, largest, f->student->ctx.threads, false);
    f->work_floats = larger(f->work_floats, work);
    f->most_heads = larger(f->most_heads, m.spec->heads);
    f->most_hk = larger(f->most_hk, m.spec->heads * m.spec->head_dim);
    return TG_OK;
}

static size_t blocks_of(size_t rows)
{
    return (rows + ROW_BLOCK - 1) / ROW_BLOCK;
}

int tg_gain_fit_create(struct tg_gain_fit **out, struct tg_model *student, const bool *layers,
                       const struct tg_batch *largest, struct tg_err *err)
{
    size_t D = student->spec.width, threads = (size_t)student->ctx.threads;
    struct tg_gain_fit *f = *out = tg_alloc(sizeof *f);
    if (f) {
        f->student = student;
        f->rows = tg_batch_rows(largest);
        f->layer_count = student->spec.layer_count;
        f->layers = tg_alloc_array(f->layer_count, sizeof *f->layers);
    }
    int status = f && f->layers ? TG_OK : TG_ERR_NOMEM;
    for (size_t l = 0; !status && l < f->layer_count; l++)
        if (layers[l])
            status = layer_create(f, l, largest, err);
    if (!status) {
        f->pick = tg_alloc_floats(D * f->most_hk);
        f->part = tg_alloc_floats(f->rows * D);
        f->z = tg_alloc_floats(f->rows * f->most_hk);
        f->work = tg_alloc_floats(f->work_floats);
        f->heads = tg_alloc_floats(threads * f->most_heads * ROW_BLOCK * D);
        f->rest = tg_alloc_array(threads * ROW_BLOCK * D, sizeof *f->rest);
        f->blocks = tg_alloc_array(blocks_of(f->rows) * sums_size(f->most_heads), sizeof(double));
        if (!f->pick || !f->part || !f->z || !f->work || !f->heads || !f->rest || !f->blocks)
            status = TG_ERR_NOMEM;
    }
    if (status == TG_ERR_NOMEM)
        tg_fail(err, status, "closed form: no memory for %zu tokens at a time",
                tg_batch_rows(largest));
    if (status) {
        tg_gain_fit_free(f);
        *out = NULL;
    }
    return status;
}

/* z [rows,HK]: the mixer's forward gives D columns of it at a time. */
static void before_output(struct tg_gain_fit *f, struct tg_mixer m, const struct tg_batch *b,
                          const float *x)
{
    const struct tg_mixer_ops *ops = tg_mixer_find(m.spec->mixer);
    struct tg_layer_spec spec = *m.spec;
    size_t rows = tg_batch_rows(b), D = m.width, HK = spec.heads * spec.head_dim;
    m.param[rule_of(spec.mixer, "o.weight")] = f->pick;
    m.param[rule_of(spec.mixer, "o.bias")] = NULL;
    spec.o_bias = false;
    m.spec = &spec;
    for (size_t from = 0; from < HK; from += D) {
        size_t n = HK - from < D ? HK - from : D;
        memset(f->pick, 0, D * HK * sizeof *f->pick);
        for (size_t i = 0; i < n; i++)
            f->pick[i * HK + from + i] = 1;
        ops->forward(&f->student->ctx, &m, b, x, f->part, NULL, f->work);
        for (size_t r = 0; r < rows; r++)
            memcpy(f->z + r * HK + from, f->part + r * D, n * sizeof *f->z);
    }
}

struct add {
    struct tg_gain_fit *f;
    const float *o, *bias, *y; /* [D,HK], [D] or NULL, [rows,D] */
    size_t rows, H, K, D;
};

static double add_lanes(const double *sum)
{
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}
static double dot_ff(const float *a, const float *b, size_t n)
{
    double sum[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            sum[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++)
        sum[0] += (double)a[i] * (double)b[i];
    return add_lanes(sum);
}
static double dot_fd(const float *a, const double *b, size_t n)
{
    double sum[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            sum[j] += (double)a[i + j] * b[i + j];
    for (; i < n; i++)
        sum[0] += (double)a[i] * b[i];
    return add_lanes(sum);
}

static void add_block(void *ud, size_t block, int worker)
{
    const struct add *a = ud;
    struct tg_gain_fit *f = a->f;
    size_t H = a->H, K = a->K, D = a->D, HK = H * K, from = block * ROW_BLOCK;
    size_t n = a->rows - from < ROW_BLOCK ? a->rows - from : ROW_BLOCK, cells = n * D;
    float *heads = f->heads + (size_t)worker * f->most_heads * ROW_BLOCK * D;
    double *rest = f->rest + (size_t)worker * ROW_BLOCK * D;
    struct sums s = sums_at(f->blocks + block * sums_size(H), H);
    const float *y = a->y + from * D;

    for (size_t i = 0; i < cells; i++)
        rest[i] = (double)y[i] - (a->bias ? (double)a->bias[i % D] : 0);
    for (size_t h = 0; h < H; h++) {
        float *yh = heads + h * cells;
        tg_gemm1(false, true, n, D, K, 1, f->z + from * HK + h * K, HK, a->o + h * K, HK, 0, yh, D);
        for (size_t i = 0; i < cells; i++)
            rest[i] -= (double)yh[i];
    }
    for (size_t h = 0; h < H; h++) {
        for (size_t i = h; i < H; i++)
            s.gram[h * H + i] = dot_ff(heads + h * cells, heads + i * cells, cells);
        s.side[h] = dot_fd(heads + h * cells, rest, cells);
    }
    *s.error = 0;
    for (size_t i = 0; i < cells; i++)
        *s.error += rest[i] * rest[i];
    *s.power = dot_ff(y, y, cells);
}

void tg_gain_fit_add(struct tg_gain_fit *f, size_t layer, const struct tg_batch *b,
                     const struct tg_ropes *ropes, const float *x, const float *y)
{
    assert(layer < f->layer_count && tg_batch_rows(b) <= f->rows);
    if (!f->layers[layer])
        return;
    struct tg_mixer m;
    tg_model_mixer(f->student, layer, f->student->data, ropes, &m);
    before_output(f, m, b, x);
    struct add a = {.f = f,
                    .o = weight_of(f->student, layer, "o.weight"),
                    .bias = m.spec->o_bias ? weight_of(f->student, layer, "o.bias") : NULL,
                    .y = y,
                    .rows = tg_batch_rows(b),
                    .H = m.spec->heads,
                    .K = m.spec->head_dim,
                    .D = m.width};
    size_t blocks = blocks_of(a.rows), size = sums_size(a.H);
    tg_parallel(f->student->ctx.threads, blocks, add_block, &a);
    for (size_t block = 0; block < blocks; block++)
        for (size_t i = 0; i < size; i++)
            if (i >= a.H * a.H || i % a.H >= i / a.H)
                f->layers[layer][i] += f->blocks[block * size + i];
}

static double gram(const struct sums *s, size_t H, size_t h, size_t i)
{
    return s->gram[h < i ? h * H + i : i * H + h];
}

/* Scratch of a solution: each [H], `a` [H,H] */
struct solution {
    double *d, *a, *ridge, *x;
    size_t *free; /* heads that are not at a limit */
};

static void solution_release(struct solution *u)
{
    tg_free(u->d);
    tg_free(u->a);
    tg_free(u->ridge);
    tg_free(u->x);
    tg_free(u->free);
}
static int solution_init(struct solution *u, size_t H, struct tg_err *err)
{
    u->d = tg_alloc_array(H, sizeof *u->d);
    u->a = tg_alloc_array(H * H, sizeof *u->a);
    u->ridge = tg_alloc_array(H, sizeof *u->ridge);
    u->x = tg_alloc_array(H, sizeof *u->x);
    u->free = tg_alloc_array(H, sizeof *u->free);
    if (u->d && u->a && u->ridge && u->x && u->free)
        return TG_OK;
    return tg_fail(err, TG_ERR_NOMEM, "closed form: no memory for %zu equations", H);
}

/* x: d of the n free heads, given that of the others */
static int solve_free(const struct sums *s, size_t H, struct solution *u, size_t n,
                      struct tg_err *err)
{
    for (size_t r = 0; r < n; r++)
        u->d[u->free[r]] = 0;
    for (size_t r = 0; r < n; r++) {
        size_t h = u->free[r];
        u->x[r] = s->side[h];
        u->ridge[r] = RIDGE * gram(s, H, h, h);
        for (size_t c = 0; c < n; c++)
            u->a[r * n + c] = gram(s, H, h, u->free[c]);
        for (size_t i = 0; i < H; i++)
            u->x[r] -= gram(s, H, h, i) * u->d[i];
    }
    return tg_lapack_solve_spd(n, u->a, u->ridge, u->x, err);
}

/* d within the range: heads beyond it go to the limit, until none does. A head without output
 * keeps d = 0. */
static int solve_range(const struct sums *s, size_t H, struct solution *u, struct tg_err *err)
{
    size_t n = 0, before;
    int status = TG_OK;
    for (size_t h = 0; h < H; h++)
        if (gram(s, H, h, h) > 0)
            u->free[n++] = h;
    do {
        before = n;
        status = solve_free(s, H, u, n, err);
        n = 0;
        for (size_t r = 0; r < before && status == TG_OK; r++) {
            size_t h = u->free[r];
            bool low = u->x[r]<LOWEST - 1, high = u->x[r]> HIGHEST - 1;
            u->d[h] = low ? LOWEST - 1 : high ? HIGHEST - 1 : u->x[r];
            if (!low && !high)
                u->free[n++] = h;
        }
    } while (status == TG_OK && n < before);
    return status;
}

/* Shortens d to where the error is least on the way; returns the error |e|^2 there. */
static double shorten(const struct sums *s, size_t H, double *d)
{
    double down = 0, curve = 0;
    for (size_t h = 0; h < H; h++) {
        down += d[h] * s->side[h];
        for (size_t i = 0; i < H; i++)
            curve += d[h] * gram(s, H, h, i) * d[i];
    }
    double share = curve > 0 ? down / curve : 0;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    for (size_t h = 0; h < H; h++)
        d[h] *= share;
    double left = *s->error - 2 * share * down + share * share * curve;
    return left > 0 ? left : 0;
}

static void fold(float *o, size_t D, size_t H, size_t K, const double *d)
{
    for (size_t r = 0; r < D; r++)
        for (size_t i = 0; i < H * K; i++)
            o[r * H * K + i] = (float)((double)o[r * H * K + i] * (1 + d[i / K]));
}

int tg_gain_fit_apply(struct tg_gain_fit *f, size_t layer, struct tg_gain_result *out,
                      struct tg_err *err)
{
    assert(layer < f->layer_count && f->layers[layer]);
    const struct tg_layer_spec *spec = &f->student->spec.layers[layer];
    size_t H = spec->heads;
    struct sums s = sums_at(f->layers[layer], H);
    if (!(*s.power > 0) || !isfinite(*s.power) || !isfinite(*s.error))
        return tg_fail(err, TG_ERR_VALUE,
                       "layer %zu: no gains can be had from outputs with sum of squares %g and "
                       "error %g",
                       layer, *s.power, *s.error);
    struct solution u = {0};
    int status = solution_init(&u, H, err);
    if (status == TG_OK)
        status = solve_range(&s, H, &u, err);
    if (status == TG_OK) {
        double left = shorten(&s, H, u.d);
        *out = (struct tg_gain_result){.before = sqrt(*s.error / *s.power),
                                       .after = sqrt(left / *s.power),
                                       .lowest = INFINITY,
                                       .highest = -INFINITY};
        for (size_t h = 0; h < H; h++) {
            out->lowest = fmin(out->lowest, 1 + u.d[h]);
            out->highest = fmax(out->highest, 1 + u.d[h]);
            out->at_limit += u.d[h] <= LOWEST - 1 || u.d[h] >= HIGHEST - 1;
        }
        fold(weight_of(f->student, layer, "o.weight"), f->student->spec.width, H, spec->head_dim,
             u.d);
        memset(f->layers[layer], 0, sums_size(H) * sizeof **f->layers);
    } else {
        tg_err_prefix(err, "layer %zu", layer);
    }
    solution_release(&u);
    return status;
}
