#include "tools/output.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"

int tg_output_check(const struct tg_tool *t, const char *path, struct tg_err *err)
{
    if (tg_path_exists(path) && !t->set.force)
        return tg_fail(err, TG_ERR_EXISTS, "%s: exists; --force replaces it", path);
    return TG_OK;
}

int tg_output_apart(const char *path, const char *input, struct tg_err *err)
{
    struct stat a, b;
    if (stat(path, &a) == 0 && stat(input, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return tg_fail(err, TG_ERR_EXISTS, "%s: is the input itself; write to another place", path);
    return TG_OK;
}

int tg_checkpoint_stage(const struct tg_tool *t, const struct tg_checkpoint_job *job,
                        const char *path, char **tmp, struct tg_err *err)
{
    enum tg_dtype dtype = TG_BF16;
    *tmp = NULL;
    if (!tg_dtype_parse_short(job->dtype, &dtype))
        return tg_fail(err, TG_ERR_VALUE, "dtype: '%s' is not one of bf16, f16, f32", job->dtype);
    struct tg_native_meta meta = {
        .command = t->command_line,
        .version = TG_VERSION,
        .seed = (uint64_t)t->set.seed,
        .teacher_hash = job->teacher_hash,
        .teacher_name = job->teacher_name,
    };
    int status = tg_dir_begin(path, t->set.force, tmp, err);
    if (status == TG_OK)
        status = tg_native_write(*tmp, &job->model->spec, job->model->data, dtype,
                                 (uint64_t)job->max_shard, job->tokenizer_dir, &meta, err);
    if (status && *tmp) {
        tg_dir_remove(*tmp, NULL);
        tg_free(*tmp);
        *tmp = NULL;
    }
    return status;
}

int tg_checkpoint_write(const struct tg_tool *t, const struct tg_checkpoint_job *job,
                        const char *path, struct tg_err *err)
{
    char *tmp = NULL;
    int status = tg_checkpoint_stage(t, job, path, &tmp, err);
    if (status == TG_OK) {
        status = tg_dir_commit(tmp, path, err);
        if (status)
            tg_dir_remove(tmp, NULL);
    }
    tg_free(tmp);
    return status;
}
