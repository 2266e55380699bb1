/* Gates and scores of a chunk (recur_chunk.h).
 *
 * A gate by channel: rows are cut in halves again and again down to blocks of 16. Between the
 * halves of a part, with m the first row of the lower half,
 *
 *   e^{c_i - c_j} = e^{c_i - c_{m-1}} e^{c_{m-1} - c_j}
 *
 * both factors at most 1, so that scores are products of matrices; level l holds the factors of the
 * parts of 32 2^l rows, one for each row. A row of the lower half reads its factor one row above
 * when c_{i-1} is meant: at row m-1 it is 1. Inside a block the rights are decayed from row to row.
 *
 * One gate channel: products of matrices, times e^{c_i - c_j}. Its part of dc is taken from the
 * scores, each pair D_ij = dM_ij M_ij once:
 *
 *   dc_i += sum_{j < i} D_ij - sum_{l > i} D_li
 *
 * so that in dg_i the pairs on one side of i cancel to the last bit, which x . dx and y . dy,
 * rounded apart, do not. By channel dc_i = x_i . dx_i - y_i . dy_i. */
#include <string.h>

#include "base/mem.h"
#include "linearize/kernels/recur_chunk.h"

enum { BLOCK = TG_RECUR_BLOCK, STRIP = 2 * BLOCK };

size_t tg_recur_chunk_lay(const struct tg_recur *r, size_t chunk, float *base,
                          struct tg_recur_chunk *s)
{
    struct tg_carve c = {base, 0};
    size_t C = chunk, K = r->K, V = r->V, N = r->gate == TG_GATE_CHANNEL ? K : 1, levels = 0;
    s->gated = r->gate != TG_GATE_NONE;
    s->K = K;
    s->V = V;
    s->N = N;
    s->queries = r->queries ? r->queries : 1;
    s->lefts = s->queries + (r->rule != TG_RULE_OUTER);
    s->rights = r->rule == TG_RULE_GENERAL ? 2 : 1;
    s->lag = r->rule == TG_RULE_GENERAL;
    for (size_t half = BLOCK; half < C; half *= 2)
        levels++;
    s->c = (double *)(void *)tg_carve(&c, 2 * (C + 1) * N);
    s->dc = (double *)(void *)tg_carve(&c, 2 * C * N);
    s->before = tg_carve(&c, (C + 1) * N);
    s->after = tg_carve(&c, C * N);
    s->decay = tg_carve(&c, N == 1 ? C * C : C * K);
    s->level = tg_carve(&c, N == 1 ? 0 : levels * C * K);
    float **of_left[] = {&s->left, &s->X, &s->dleft}, **of_right[] = {&s->right, &s->Y, &s->dright};
    for (size_t i = 0; i < 3; i++) {
        *of_left[i] = tg_carve(&c, s->lefts * C * K);
        *of_right[i] = tg_carve(&c, s->rights * C * K);
    }
    s->M = tg_carve(&c, s->lefts * s->rights * C * C);
    s->dM = tg_carve(&c, s->lefts * s->rights * C * C);
    s->none = tg_carve(&c, s->lefts * s->rights * C);
    s->values = tg_carve(&c, s->rights * C * V);
    s->dvalues = tg_carve(&c, s->rights * C * V);
    s->E = tg_carve(&c, r->rule == TG_RULE_DELTA ? C * V : 0);
    s->row = tg_carve(&c, C);
    return c.used;
}

void tg_recur_scale(const struct tg_recur_chunk *s, const float *f, const float *x, float *y)
{
    size_t C = s->C, K = s->K;
    if (!s->gated) {
        if (y != x)
            memcpy(y, x, C * K * sizeof *y);
        return;
    }
    if (s->N > 1) {
        s->kern->mul(f, x, y, C * K);
        return;
    }
    if (y != x)
        memcpy(y, x, C * K * sizeof *y);
    for (size_t i = 0; i < C; i++)
        s->kern->scale(f[i], y + i * K, K);
}

void tg_recur_lower_products(const struct tg_recur_chunk *s, size_t n, const float *x, size_t ld,
                             const float *y, float *M)
{
    size_t C = s->C;
    for (size_t j = 0; j < C; j += STRIP)
        s->kern->mm(false, true, C - j, C - j < STRIP ? C - j : STRIP, n, x + j * ld, ld, y + j * n,
                    n, false, M + j * C + j, C);
}

void tg_recur_lower_times(const struct tg_recur_chunk *s, const float *M, size_t n, const float *x,
                          bool add, float *y, size_t ld)
{
    size_t C = s->C;
    for (size_t i = 0, rows; i < C; i += rows) {
        rows = C - i < BLOCK ? C - i : BLOCK;
        s->kern->mm(false, false, rows, n, i + rows, M + i * C, C, x, n, add, y + i * ld, ld);
    }
}

void tg_recur_lower_t_times(const struct tg_recur_chunk *s, const float *M, size_t n,
                            const float *x, size_t ld, bool add, float *y)
{
    size_t C = s->C;
    for (size_t i = 0, rows; i < C; i += rows) {
        rows = C - i < BLOCK ? C - i : BLOCK;
        s->kern->mm(true, false, rows, n, C - i, M + i * C + i, C, x + i * ld, ld, add, y + i * n,
                    n);
    }
}

/* y = e^{+-(c_i - c_at)}, rows from..to-1, all exponents <= 0 */
static void exponentials(const struct tg_recur_chunk *s, size_t from, size_t to, size_t at,
                         bool minus, float *y)
{
    size_t N = s->N;
    const double *c = s->c + N, *ref = s->c + at * N; /* at: row + 1 */
    if (N > 1) {
        s->kern->exp_from(c + from * N, ref, minus, to - from, N, y);
        return;
    }
    for (size_t i = from; i < to; i++)
        y[i - from] = (float)(minus ? *ref - c[i] : c[i] - *ref);
    s->kern->exp(y, y, to - from);
}

/* The lower half of part `start` of `level` begins at *mid and ends at *end; false: no such part */
static bool part(const struct tg_recur_chunk *s, size_t half, size_t start, size_t *mid,
                 size_t *end)
{
    *mid = start + half;
    *end = *mid + half < s->C ? *mid + half : s->C;
    return *mid < s->C;
}

void tg_recur_gates(struct tg_recur_chunk *s, const float *g, size_t ld)
{
    size_t C = s->C, N = s->N, K = s->K, mid, end;
    for (size_t d = 0; d < N; d++)
        s->c[d] = 0;
    if (!s->gated)
        return;
    for (size_t i = 0; i < C; i++)
        s->kern->add_d(s->c + i * N, g + i * ld, s->c + (i + 1) * N, N);
    for (size_t d = 0; d < N; d++)
        s->before[d] = 1;
    exponentials(s, 0, C, 0, false, s->before + N);
    exponentials(s, 0, C, C, true, s->after);
    if (N == 1) {
        for (size_t i = 0; i < C; i++)
            exponentials(s, 0, i + 1, i + 1, true, s->decay + i * C);
        return;
    }
    for (size_t i = 0; i < C; i++)
        s->kern->exp(g + i * ld, s->decay + i * K, K);
    float *level = s->level;
    for (size_t half = BLOCK; half < C; half *= 2, level += C * K)
        for (size_t start = 0; part(s, half, start, &mid, &end); start += 2 * half) {
            exponentials(s, start, mid, mid, true, level + start * K);
            exponentials(s, mid, end, mid, false, level + mid * K);
        }
}

/* Where left l's factors of a row stand, counted from the row */
static size_t lag_of(const struct tg_recur_chunk *s, size_t l)
{
    return l < s->queries ? 0 : s->lag;
}

/* X and Y: the lefts of the lower half and the rights of the upper, times their factors */
static void factored(const struct tg_recur_chunk *s, const float *level, size_t start, size_t mid,
                     size_t end)
{
    size_t K = s->K, size = s->C * K;
    for (size_t r = 0; r < s->rights; r++)
        s->kern->mul(level + start * K, s->right + r * size + start * K,
                     s->Y + r * size + start * K, (mid - start) * K);
    for (size_t l = 0; l < s->lefts; l++)
        s->kern->mul(level + (mid - lag_of(s, l)) * K, s->left + l * size + mid * K,
                     s->X + l * size + mid * K, (end - mid) * K);
}

/* Scores inside the block that begins at row `from` */
static void block_scores(const struct tg_recur_chunk *s, size_t r, size_t from, size_t to)
{
    size_t C = s->C, K = s->K, reader = s->queries;
    float *y = s->Y + r * C * K; /* rights as row i sees them */
    memcpy(y + from * K, s->right + r * C * K + from * K, (to - from) * K * sizeof *y);
    for (size_t i = from; i < to; i++) {
        for (size_t pass = 0; pass < 2; pass++) {
            if (pass == 1)
                s->kern->mul_rows(s->decay + i * K, y + from * K, K, i - from, K);
            for (size_t l = 0; l < s->lefts; l++)
                if (lag_of(s, l) == 1 - pass)
                    s->kern->dots(tg_recur_left(s, s->left, l) + i * K, y + from * K, K,
                                  i - from + (l < reader), K,
                                  tg_recur_scores_of(s, s->M, l, r) + i * C + from);
        }
    }
}

static void channel_scores(const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, mid, end;
    const float *level = s->level;
    for (size_t half = BLOCK; half < C; half *= 2, level += C * K)
        for (size_t start = 0; part(s, half, start, &mid, &end); start += 2 * half) {
            factored(s, level, start, mid, end);
            for (size_t l = 0; l < s->lefts; l++)
                for (size_t r = 0; r < s->rights; r++)
                    s->kern->mm(false, true, end - mid, half, K,
                                tg_recur_left(s, s->X, l) + mid * K, K,
                                tg_recur_left(s, s->Y, r) + start * K, K, false,
                                tg_recur_scores_of(s, s->M, l, r) + mid * C + start, C);
        }
    for (size_t from = 0; from < C; from += BLOCK)
        for (size_t r = 0; r < s->rights; r++)
            block_scores(s, r, from, from + BLOCK < C ? from + BLOCK : C);
}

/* M or dM times e^{c_i - c_j}, of one gate channel */
static void decay_scores(const struct tg_recur_chunk *s, size_t l, float *M)
{
    size_t C = s->C, lag = lag_of(s, l);
    for (size_t i = lag; s->gated && i < C; i++)
        s->kern->mul(s->decay + (i - lag) * C, M + i * C, M + i * C, i - lag + 1);
}

void tg_recur_scores(const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K;
    if (s->N > 1)
        channel_scores(s);
    for (size_t l = 0; l < s->lefts; l++)
        for (size_t r = 0; r < s->rights; r++) {
            float *M = tg_recur_scores_of(s, s->M, l, r);
            size_t above = l < s->queries; /* the first zero of a row, after its diagonal */
            if (s->N == 1) {
                tg_recur_lower_products(s, K, tg_recur_left(s, s->left, l), K,
                                        tg_recur_left(s, s->right, r), M);
                decay_scores(s, l, M);
            }
            for (size_t i = 0; i < C; i++)
                memset(M + i * C + i + above, 0, (C - i - above) * sizeof *M);
        }
}

void tg_recur_take_none(const struct tg_recur_chunk *s)
{
    size_t C = s->C;
    for (size_t l = 0; l < s->lefts; l++)
        for (size_t r = 0; r < s->rights; r++) {
            float *dM = tg_recur_scores_of(s, s->dM, l, r);
            float *none = s->none + (l * s->rights + r) * C;
            size_t behind = lag_of(s, l);
            for (size_t i = 0; i < C; i++) {
                memset(dM + i * C + i + 1, 0, (C - i - 1) * sizeof *dM);
                none[i] = 0;
                if (i >= behind && (behind || l < s->queries)) {
                    none[i] = dM[i * C + i - behind];
                    dM[i * C + i - behind] = 0;
                }
                if (l >= s->queries)
                    dM[i * C + i] = 0;
            }
        }
}

/* dc += x . dx of lefts and -= y . dy of rights, by channel or summed */
static void gates_from_rows(const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, N = s->N;
    for (size_t side = 0; side < s->lefts + s->rights; side++) {
        bool is_left = side < s->lefts;
        size_t l = is_left ? side : side - s->lefts, lag = is_left ? lag_of(s, l) : 0;
        const float *x = tg_recur_left(s, is_left ? s->left : s->right, l);
        const float *dx = tg_recur_left(s, is_left ? s->dleft : s->dright, l);
        double sign = is_left ? 1 : -1;
        for (size_t i = lag; i < C; i++) {
            double *dc = s->dc + (i - lag) * N;
            if (N > 1)
                s->kern->add_products(sign, x + i * K, dx + i * K, dc, K);
            else
                *dc += sign * s->kern->dot_d(x + i * K, dx + i * K, K);
        }
    }
}

/* dc of a single gate channel through the scores */
static void gates_from_scores(const struct tg_recur_chunk *s)
{
    size_t C = s->C;
    for (size_t l = 0; l < s->lefts; l++)
        for (size_t r = 0; r < s->rights; r++) {
            const float *M = tg_recur_scores_of(s, s->M, l, r);
            const float *dM = tg_recur_scores_of(s, s->dM, l, r);
            for (size_t i = 1; i < C; i++) {
                s->dc[i - lag_of(s, l)] += s->kern->dot_d(dM + i * C, M + i * C, i);
                s->kern->add_products(-1, dM + i * C, M + i * C, s->dc, i);
            }
        }
}

/* dM of the block that begins at row `from` to dleft, the rights being decayed from row to row,
 * then to dright, from the last row back */
static void block_scores_bwd(const struct tg_recur_chunk *s, size_t r, size_t from, size_t to)
{
    size_t C = s->C, K = s->K;
    float *y = tg_recur_left(s, s->Y, r) + from * K,
          *dy = tg_recur_left(s, s->dright, r) + from * K;
    memcpy(y, tg_recur_left(s, s->right, r) + from * K, (to - from) * K * sizeof *y);
    for (size_t i = from; i < to; i++)
        for (size_t pass = 0; pass < 2; pass++) {
            if (pass == 1)
                s->kern->mul_rows(s->decay + i * K, y, K, i - from, K);
            for (size_t l = 0; l < s->lefts; l++)
                if (lag_of(s, l) == 1 - pass)
                    s->kern->weighted_sum(tg_recur_scores_of(s, s->dM, l, r) + i * C + from, y, K,
                                          i - from, K, tg_recur_left(s, s->dleft, l) + i * K);
        }
    memset(y, 0, (to - from) * K * sizeof *y);
    for (size_t i = to; i-- > from;)
        for (size_t pass = 0; pass < 2; pass++) {
            for (size_t l = 0; l < s->lefts; l++)
                if (lag_of(s, l) == pass)
                    s->kern->add_rows(tg_recur_scores_of(s, s->dM, l, r) + i * C + from,
                                      tg_recur_left(s, s->left, l) + i * K, y, K, i - from, K);
            if (pass == 0)
                s->kern->mul_rows(s->decay + i * K, y, K, i - from, K);
        }
    s->kern->axpy(1, y, dy, (to - from) * K);
}

/* dM between the halves of a part, by the factors that made its scores */
static void part_scores_bwd(const struct tg_recur_chunk *s, const float *level, size_t start,
                            size_t mid, size_t end)
{
    size_t C = s->C, K = s->K, upper = mid - start, lower = end - mid;
    factored(s, level, start, mid, end);
    for (size_t l = 0; l < s->lefts; l++) {
        float *to = tg_recur_left(s, s->X, l) + start * K; /* the upper rows of X are free */
        for (size_t r = 0; r < s->rights; r++)
            s->kern->mm(false, false, lower, K, upper,
                        tg_recur_scores_of(s, s->dM, l, r) + mid * C + start, C,
                        tg_recur_left(s, s->Y, r) + start * K, K, r > 0, to, K);
        s->kern->add_mul(level + (mid - lag_of(s, l)) * K, to,
                         tg_recur_left(s, s->dleft, l) + mid * K, lower * K);
    }
    for (size_t r = 0; r < s->rights; r++) {
        float *to = tg_recur_left(s, s->Y, r) + start * K;
        for (size_t l = 0; l < s->lefts; l++)
            s->kern->mm(true, false, upper, K, lower,
                        tg_recur_scores_of(s, s->dM, l, r) + mid * C + start, C,
                        tg_recur_left(s, s->X, l) + mid * K, K, l > 0, to, K);
        s->kern->add_mul(level + start * K, to, tg_recur_left(s, s->dright, r) + start * K,
                         upper * K);
    }
}

static void channel_scores_bwd(const struct tg_recur_chunk *s)
{
    size_t C = s->C, K = s->K, mid, end;
    const float *level = s->level;
    for (size_t half = BLOCK; half < C; half *= 2, level += C * K)
        for (size_t start = 0; part(s, half, start, &mid, &end); start += 2 * half)
            part_scores_bwd(s, level, start, mid, end);
    for (size_t from = 0; from < C; from += BLOCK)
        for (size_t r = 0; r < s->rights; r++)
            block_scores_bwd(s, r, from, from + BLOCK < C ? from + BLOCK : C);
}

void tg_recur_scores_bwd(const struct tg_recur_chunk *s, bool gates)
{
    size_t K = s->K;
    if (s->N > 1) {
        channel_scores_bwd(s);
        if (gates)
            gates_from_rows(s);
        return;
    }
    if (gates) {
        gates_from_rows(s);
        gates_from_scores(s);
    }
    for (size_t l = 0; l < s->lefts; l++)
        for (size_t r = 0; r < s->rights; r++) {
            float *dM = tg_recur_scores_of(s, s->dM, l, r);
            decay_scores(s, l, dM);
            tg_recur_lower_times(s, dM, K, tg_recur_left(s, s->right, r), true,
                                 tg_recur_left(s, s->dleft, l), K);
            tg_recur_lower_t_times(s, dM, K, tg_recur_left(s, s->left, l), K, true,
                                   tg_recur_left(s, s->dright, r));
        }
}
