/* A directory of a test program's own under /tmp. Failures fail the running test. */
#ifndef TG_TESTS_SCRATCH_H
#define TG_TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

bool tg_scratch_make(const char *name);    /* once, before the tests; false if it cannot be made */
char *tg_scratch_path(const char *name);   /* of something in it; caller frees with tg_free */
char *tg_scratch_dir(const char *name);    /* the same, as an empty directory */
int tg_scratch_remove(void **state);       /* teardown of the last test */
size_t tg_files_in(const char *directory); /* how many regular files */

#endif
