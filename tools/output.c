#include "tools/output.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/export.h"

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

static int write_native(const struct tg_tool *t, const struct tg_checkpoint_job *job,
                        const char *dir, struct tg_err *err)
{
    enum tg_dtype dtype = TG_BF16;
    struct tg_native_meta meta = {
        .command = t->command_line,
        .version = TG_VERSION,
        .seed = (uint64_t)t->set.seed,
        .teacher_hash = job->teacher_hash,
        .teacher_name = job->teacher_name,
    };
    if (!tg_dtype_parse_short(job->dtype, &dtype))
        return tg_fail(err, TG_ERR_VALUE, "dtype: '%s' is not one of bf16, f16, f32", job->dtype);
    return tg_native_write(dir, &job->model->spec, job->model->data, dtype,
                           (uint64_t)job->max_shard, job->tokenizer_dir, &meta, err);
}

static int write_export(struct tg_tool *t, const struct tg_checkpoint_job *job,
                        const struct tg_target *target, const char *dir,
                        const struct tg_remarks *why, struct tg_err *err)
{
    const struct tg_block block = {&job->model->params, job->model->data};
    const struct tg_export_job x = {
        .source = tg_export_from_block(&job->model->spec, &block),
        .dir = job->tokenizer_dir,
        .arch = job->arch,
        .dtype = job->dtype,
        .max_shard = job->max_shard,
    };
    struct tg_export_result result;
    int status = tg_export_make(t, &x, target, dir, &result, err);
    if (status == TG_OK)
        tg_export_tell(t, &result, why);
    tg_export_result_release(&result);
    return status;
}

int tg_checkpoint_stage(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        char **tmp, struct tg_err *err)
{
    const struct tg_target *target = NULL;
    struct tg_remarks why = {0};
    *tmp = NULL;
    int status =
        job->arch ? tg_export_choose(job->arch, false, false, &job->model->spec, &target, &why, err)
                  : TG_OK;
    if (status == TG_OK)
        status = tg_dir_begin(path, t->set.force, tmp, err);
    if (status == TG_OK)
        status = target ? write_export(t, job, target, *tmp, &why, err)
                        : write_native(t, job, *tmp, err);
    tg_remarks_release(&why);
    if (status && *tmp) {
        tg_dir_remove(*tmp, NULL);
        tg_free(*tmp);
        *tmp = NULL;
    }
    return status;
}

int tg_checkpoint_write(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        struct tg_err *err)
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
