#include "linearize/kernels/lapack.h"

#include <limits.h>
#include <math.h>

#include <lapacke.h>

#include "linearize/kernels/gemm.h"

int tg_lapack_solve_spd(size_t n, double *a, const double *ridge, double *x, struct tg_err *err)
{
    if (n > INT_MAX / 2)
        return tg_fail(err, TG_ERR_VALUE, "a system of %zu equations is larger than LAPACK's %d", n,
                       INT_MAX / 2);
    if (n == 0)
        return TG_OK;
    tg_gemm_init();
    for (size_t i = 0; ridge && i < n; i++)
        a[i * n + i] += ridge[i];
    /* The upper triangle by rows is the lower one by columns: no copy is made. */
    lapack_int order = (lapack_int)n;
    lapack_int info = LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'L', order, a, order);
    if (info == 0)
        info = LAPACKE_dpotrs_work(LAPACK_COL_MAJOR, 'L', order, 1, a, order, x, order);
    for (size_t i = 0; info == 0 && i < n; i++)
        if (!isfinite(x[i]))
            info = (lapack_int)i + 1;
    if (info != 0)
        return tg_fail(err, TG_ERR_VALUE,
                       "a system of %zu equations is not positive definite (LAPACK stopped at %ld)",
                       n, (long)info);
    return TG_OK;
}
