#include "tests/scratch.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "tests/check.h"

static char scratch[64];

bool tg_scratch_make(const char *name)
{
    snprintf(scratch, sizeof scratch, "/tmp/tegu-%.32s-XXXXXX", name);
    return mkdtemp(scratch) != NULL;
}

char *tg_scratch_path(const char *name)
{
    assert_true(scratch[0]); /* tg_scratch_make was called */
    char *p = tg_path_join(scratch, name);
    assert_non_null(p);
    return p;
}

char *tg_scratch_dir(const char *name)
{
    char *p = tg_scratch_path(name);
    struct tg_err err = {0};
    if (tg_dir_remove(p, &err) || tg_dir_make(p, &err))
        fail_msg("%s", err.msg);
    return p;
}

int tg_scratch_remove(void **state)
{
    (void)state;
    return tg_dir_remove(scratch, NULL);
}

size_t tg_files_in(const char *directory)
{
    struct tg_err err = {0};
    char **names;
    size_t n;
    if (tg_dir_list(directory, &names, &n, &err))
        fail_msg("%s", err.msg);
    tg_names_free(names, n);
    return n;
}
