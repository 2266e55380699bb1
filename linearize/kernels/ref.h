/* Every kernel again in double, straight from its definition: quadratic, one thread, never
 * optimised. What the float kernels are tested against; themselves tested by central differences.
 * Arguments as in kernels.h, gemm.h and attn.h. */
#ifndef TG_LINEARIZE_REF_H
#define TG_LINEARIZE_REF_H

#include <stdbool.h>

#include "linearize/kernels/attn.h"

void tg_gemm_ref(bool ta, bool tb, size_t m, size_t n, size_t k, double alpha, const double *a,
                 size_t lda, const double *b, size_t ldb, double beta, double *c, size_t ldc);

double tg_rmsnorm_fwd_ref(const double *x, const double *w, double eps, double *y, size_t n);
void tg_rmsnorm_bwd_ref(const double *x, const double *w, double r, const double *dy, double *dx,
                        double *dw, size_t n);
void tg_silu_mul_fwd_ref(const double *a, const double *b, double *y, size_t n);
void tg_silu_mul_bwd_ref(const double *a, const double *b, const double *dy, double *da, double *db,
                         size_t n);
void tg_rope_ref(double *x, const double *cos, const double *sin, double sign, size_t n);
/* grad [n]: dKL/dstudent (weight 1), not in place */
double tg_kl_row_ref(const double *teacher, const double *student, double inv_temp, double *grad,
                     size_t n);
double tg_ce_row_ref(const double *x, int32_t target, double *grad, size_t n);
void tg_adamw_ref(double *p, const double *g, double *m, double *v, double gscale, double lr,
                  double b1, double b2, double eps, double decay, double c1, double c2, size_t n);

/* max_out may be NULL */
void tg_attn_fwd_ref(const struct tg_attn *a, const struct tg_batch *batch, const double *q,
                     const double *k, const double *v, double *o, double *lse, double *max_out);
void tg_attn_bwd_ref(const struct tg_attn *a, const struct tg_batch *batch, const double *q,
                     const double *k, const double *v, const double *dy, const double *total,
                     const double *delta, double *dq, double *dk, double *dv);

#endif
