/* The one door to BLAS. OpenBLAS runs single-threaded inside our own threads, on row blocks that
 * depend on the shape alone, so a result does not depend on the number of threads. Row-major. */
#ifndef TG_LINEARIZE_GEMM_H
#define TG_LINEARIZE_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "linearize/kernels/kernels.h"

/* Must be called once before any other call (sets OpenBLAS to one thread); cheap, idempotent. */
void tg_gemm_init(void);
const char *tg_gemm_core(void); /* OpenBLAS core in use: "Cooperlake" */
/* OpenBLAS takes a processor that is newer than itself for an old one (Prescott), at a fifth of the
 * speed. The core to name in OPENBLAS_CORETYPE before the program starts; NULL: it has a good one.
 */
const char *tg_gemm_better_core(void);

/* C[m,n] = alpha op(A) op(B) + beta C; op(A) is [m,k], op(B) is [k,n]; ta: A is stored [k,m]; tb: B
 * is stored [n,k]. lda, ldb, ldc are row strides of the stored matrices. beta 0 never reads C. The
 * parallel form splits the rows of C, or for short C its columns, and takes large products at
 * ctx->precision where the processor has a unit for it. */
void tg_gemm(const struct tg_ctx *ctx, bool ta, bool tb, size_t m, size_t n, size_t k, float alpha,
             const float *a, size_t lda, const float *b, size_t ldb, float beta, float *c,
             size_t ldc);
void tg_gemm1(bool ta, bool tb, size_t m, size_t n, size_t k, float alpha, const float *a,
              size_t lda, const float *b, size_t ldb, float beta, float *c,
              size_t ldc); /* on the calling thread */

/* C[m,n] = alpha A[m,k] B[n,k]^T on the calling thread, for matrices that fit a cache: the scores
 * of a tile of queries and keys */
void tg_scores(const struct tg_kernels *kern, size_t m, size_t n, size_t k, float alpha,
               const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc);

/* y[rows,n] = x[rows,k] W[n,k]^T (+ bias[n]); bias may be NULL */
void tg_linear_fwd(const struct tg_ctx *ctx, const float *x, const float *w, const float *bias,
                   float *y, size_t rows, size_t n, size_t k);
/* dx[rows,k] = beta dx + dy W;  dw[n,k] += dy^T x;  dbias[n] += column sums of dy. Each of dx, dw,
 * dbias may be NULL. */
void tg_linear_bwd(const struct tg_ctx *ctx, const float *x, const float *w, const float *dy,
                   float *dx, float beta, float *dw, float *dbias, size_t rows, size_t n, size_t k);

#endif
