/* Test helpers over cmocka: scale-free comparison and a closing count. */
#ifndef TG_TESTS_CHECK_H
#define TG_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* RMS(got - want) / RMS(want) in double; RMS(got) if want is all zero. NaN or infinity anywhere
 * gives a value that is not < tol. */
double tg_rel_error_f(const float *got, const float *want, size_t n);
double tg_rel_error_d(const double *got, const double *want, size_t n);
double tg_rel_error_fd(const float *got, const double *want, size_t n);

/* Fails unless err < tol; `what` names it */
#define assert_below(err, tol, what) tg_assert_below((err), (tol), (what), __FILE__, __LINE__)
void tg_assert_below(double err, double tol, const char *what, const char *file, int line);

/* Runs cmocka tests (array on the heap or static), prints "N passed, N failed" as the last line;
 * returns the exit status. */
int tg_run_tests(const char *group, const struct CMUnitTest *tests, size_t count);

#endif
