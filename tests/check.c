#include "tests/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define REL_ERROR(name, got_t, want_t)                                                             \
    double name(const got_t *got, const want_t *want, size_t n)                                    \
    {                                                                                              \
        double diff = 0, ref = 0, own = 0;                                                         \
        for (size_t i = 0; i < n; i++) {                                                           \
            double d = (double)got[i] - (double)want[i];                                           \
            diff += d * d;                                                                         \
            ref += (double)want[i] * (double)want[i];                                              \
            own += (double)got[i] * (double)got[i];                                                \
        }                                                                                          \
        if (ref == 0)                                                                              \
            return sqrt(own / (double)(n ? n : 1));                                                \
        return sqrt(diff / ref);                                                                   \
    }
REL_ERROR(tg_rel_error_f, float, float)
REL_ERROR(tg_rel_error_d, double, double)
REL_ERROR(tg_rel_error_fd, float, double)

void tg_assert_below(double err, double tol, const char *what, const char *file, int line)
{
    if (err < tol)
        return;
    print_error("%s: error %.3g is not below %.3g\n", what, err, tol);
    _fail(file, line);
}

int tg_run_tests(const char *group, const struct CMUnitTest *tests, size_t count)
{
    cmocka_set_test_filter(getenv("TG_TEST_FILTER"));
    int failed = _cmocka_run_group_tests(group, tests, count, NULL, NULL);
    size_t bad = failed < 0 ? count : (size_t)failed;
    printf("%zu passed, %zu failed\n", count - bad, bad);
    return bad ? 1 : 0;
}
