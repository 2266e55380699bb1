/* One chunk of one state of recur.h: its arrays, and the scores between its rows.
 *
 * Rows are read by lefts and written by rights, all dense [C,K] copies. Lefts: the query heads,
 * scaled, and, for rules that read the state to write it, one more, the reader: -k of the delta
 * rule, a of the general one. Rights: k, and for the general rule b. Each right has values [C,V]:
 * u of recur.h's update k u^T, and what a has read for b.
 *
 *   c_i = sum of g up to row i (a number or K of them), c_{-1} = 0
 *   M^{lr}_ij = sum_d x_id y_jd e^{c_id - c_jd}      left x, right y; j <= i for queries, else j <
 * i
 *
 * with c_{i-1} in place of c_i for a, which reads the state before the row's decay. */
#ifndef TG_LINEARIZE_RECUR_CHUNK_H
#define TG_LINEARIZE_RECUR_CHUNK_H

#include "linearize/kernels/recur_head.h"

enum { TG_RECUR_BLOCK = 16 };

struct tg_recur_chunk {
    const struct tg_kernels *kern;
    bool gated;
    size_t C, K, V, N;                    /* rows of this chunk; N gate channels: 1 or K */
    size_t lefts, queries, rights;        /* the reader comes after the queries */
    size_t lag;                           /* rows by which the reader's c is behind: 1 for a */
    double *c, *dc;                       /* [C+1,N], row 0 of c is c_{-1}; [C,N] */
    float *before, *after;                /* [C+1,N] e^{c_{i-1}}; [C,N] e^{c_C - c_i} */
    float *decay;                         /* N = 1: [C,C] e^{c_i - c_j}; else [C,K] e^{g_i} */
    float *level;                         /* N > 1: [levels,C,K], see recur_scores.c */
    float *left, *right;                  /* [lefts,C,K], [rights,C,K] */
    float *M;                             /* [lefts,rights,C,C], zeros above the diagonal */
    float *values, *E;                    /* [rights,C,V]; [C,V] v of the delta rule before beta */
    float *X, *Y;                         /* [lefts,C,K], [rights,C,K] scratch */
    float *row;                           /* [C] */
    float *dleft, *dright, *dM, *dvalues; /* as the above; dM is zero on the diagonal */
    float *none; /* [lefts,rights,C] gradients of the scores without a gate */
};

static inline bool tg_recur_reads(const struct tg_recur_chunk *s)
{
    return s->lefts > s->queries;
}
static inline float *tg_recur_left(const struct tg_recur_chunk *s, float *of, size_t l)
{
    return of + l * s->C * s->K;
}
static inline float *tg_recur_scores_of(const struct tg_recur_chunk *s, float *M, size_t l,
                                        size_t r)
{
    return M + (l * s->rights + r) * s->C * s->C;
}

/* Lays the arrays for chunks of at most `chunk` rows. Returns the floats used. */
size_t tg_recur_chunk_lay(const struct tg_recur *r, size_t chunk, float *base,
                          struct tg_recur_chunk *s);
/* y_i = f_i . x_i, f_i one number or K */
void tg_recur_scale(const struct tg_recur_chunk *s, const float *f, const float *x, float *y);

/* With M [C,C] zero above its diagonal: what lies on and below it of x y^T, rows of x ld apart; y
 * (+)= M x, rows of y ld apart; y (+)= M^T x. The other factors [C,n] are dense. */
void tg_recur_lower_products(const struct tg_recur_chunk *s, size_t n, const float *x, size_t ld,
                             const float *y, float *M);
void tg_recur_lower_times(const struct tg_recur_chunk *s, const float *M, size_t n, const float *x,
                          bool add, float *y, size_t ld);
void tg_recur_lower_t_times(const struct tg_recur_chunk *s, const float *M, size_t n,
                            const float *x, size_t ld, bool add, float *y);

/* c and its exponentials from gates g, rows ld apart (NULL: none) */
void tg_recur_gates(struct tg_recur_chunk *s, const float *g, size_t ld);
/* All M from left and right */
void tg_recur_scores(const struct tg_recur_chunk *s);
/* Scores whose exponent is zero whatever the gates (the diagonal of queries, the one below it of a)
 * go from dM to `none`. */
void tg_recur_take_none(const struct tg_recur_chunk *s);
/* dM to dleft and dright (added); dM is overwritten. dc of what goes through dleft and dright so
 * far and through dM, when wanted. */
void tg_recur_scores_bwd(const struct tg_recur_chunk *s, bool gates);

#endif
