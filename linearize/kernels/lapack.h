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

#endif
