#include "linearize/kernels/lapack.h"

#include <limits.h>
#include <math.h>

#include <lapacke.h>

#include "base/mem.h"
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

/* `a` by rows is its transpose by columns, whose left vectors by columns are vt by rows. */
int tg_lapack_svd(size_t m, size_t n, double *a, double *s, double *vt, struct tg_err *err)
{
    const size_t least = m < n ? m : n;
    if (m > INT_MAX / 2 || n > INT_MAX / 2)
        return tg_fail(err, TG_ERR_VALUE, "a matrix of %zu by %zu is larger than LAPACK's %d", m, n,
                       INT_MAX / 2);
    if (least == 0)
        return TG_OK;
    for (size_t i = 0; i < m * n; i++)
        if (!isfinite(a[i]))
            return tg_fail(err, TG_ERR_VALUE, "a matrix of %zu by %zu is not finite", m, n);
    tg_gemm_init();
    const lapack_int rows = (lapack_int)n, columns = (lapack_int)m, k = (lapack_int)least;
    const char job = vt ? 'S' : 'N';
    double size = 0, *left = vt ? tg_alloc_array(least * m, sizeof *left) : NULL;
    lapack_int *whole = tg_alloc_array(least, 8 * sizeof *whole);
    lapack_int info = LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, job, rows, columns, a, rows, s, vt,
                                          rows, left, k, &size, -1, whole);
    double *work = info == 0 ? tg_alloc_array((size_t)size, sizeof *work) : NULL;
    int status = TG_OK;
    if (!whole || !work || (vt && !left))
        status =
            tg_fail(err, TG_ERR_NOMEM, "no memory for the singular values of %zu by %zu", m, n);
    else
        info = LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, job, rows, columns, a, rows, s, vt, rows, left,
                                   k, work, (lapack_int)size, whole);
    if (status == TG_OK && info != 0)
        status = tg_fail(err, TG_ERR_VALUE,
                         "the singular values of %zu by %zu were not found (LAPACK stopped at %ld)",
                         m, n, (long)info);
    tg_free(left);
    tg_free(whole);
    tg_free(work);
    return status;
}
