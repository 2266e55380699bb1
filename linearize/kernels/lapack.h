/* The one door to LAPACK, by way of LAPACKE's work level (the caller's memory, no printing, no
 * settings from the environment). Double, for the small systems of closed forms; OpenBLAS runs it
 * on one thread, so a result does not depend on the number of threads. */
#ifndef TG_LINEARIZE_LAPACK_H
#define TG_LINEARIZE_LAPACK_H

#include <stddef.h>

#include "base/status.h"

/* Solves (A + diag(ridge)) x = b for a symmetric positive definite A by Cholesky factorisation.
 * a [n,n] row-major, of which only the upper triangle is read; it is overwritten by the factor.
 * ridge [n] or NULL for none; x [n] holds b on entry. A matrix that is not positive definite to
 * rounding is TG_ERR_VALUE, and x is then undefined. */
int tg_lapack_solve_spd(size_t n, double *a, const double *ridge, double *x, struct tg_err *err);

/* Singular values s [min(m,n)], largest first, and where vt is not NULL the right singular vectors
 * as rows vt [min(m,n),n] of a [m,n] row-major, which is overwritten. Needs memory as large as a
 * again. TG_ERR_NOMEM, or TG_ERR_VALUE where a is not finite or the iteration does not end; s and
 * vt are then undefined. */
int tg_lapack_svd(size_t m, size_t n, double *a, double *s, double *vt, struct tg_err *err);

#endif
