#include "tools/output.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/card.h"

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
                        const struct tg_target *target, struct tg_staged *staged,
                        struct tg_err *err)
{
    const struct tg_block block = {&job->model->params, job->model->data};
    const struct tg_export_job x = {
        .source = tg_export_from_block(&job->model->spec, &block),
        .dir = job->tokenizer_dir,
        .arch = job->arch,
        .dtype = job->dtype,
        .max_shard = job->max_shard,
    };
    return tg_export_make(t, &x, target, staged->tmp, &staged->result, err);
}

int tg_checkpoint_stage(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        struct tg_staged *staged, struct tg_err *err)
{
    const struct tg_target *target = NULL;
    struct tg_remarks why = {0};
    *staged = (struct tg_staged){0};
    int status =
        job->arch ? tg_export_choose(job->arch, false, false, &job->model->spec, &target, &why, err)
                  : TG_OK;
    if (status == TG_OK)
        status = tg_dir_begin(path, t->set.force, &staged->tmp, err);
    if (status == TG_OK)
        status = target ? write_export(t, job, target, staged, err)
                        : write_native(t, job, staged->tmp, err);
    if (status == TG_OK && job->arch)
        tg_export_tell(t, &staged->result, &why);
    tg_remarks_release(&why);
    if (status)
        tg_staged_release(staged);
    return status;
}

/* The record of the model that it was made from goes on. */
static int make_record(const struct tg_tool *t, const struct tg_checkpoint_job *job,
                       const struct tg_report *report, const char *arch, struct tg_record *r,
                       struct tg_err *err)
{
    const struct tg_record_step step = {
        .teacher_name = job->same_teacher ? NULL : job->teacher_name,
        .teacher_hash = job->teacher_hash,
        .settings = job->settings,
    };
    int status = tg_record_open(r, job->made_from, err);
    if (status == TG_OK && !job->converted)
        status = tg_record_step(r, t, &step, err);
    if (status == TG_OK && report)
        status = tg_record_results(r, report, arch, job->dtype, err);
    return status;
}

int tg_checkpoint_describe(struct tg_tool *t, const struct tg_checkpoint_job *job,
                           const struct tg_staged *staged, const char *path,
                           const struct tg_report *report, struct tg_err *err)
{
    const struct tg_target *target = staged->result.target;
    struct tg_record record = {0};
    const struct tg_card card = {
        .path = path,
        .dtype = job->dtype,
        .record = &record,
        .spec = target ? &staged->result.spec : &job->model->spec,
        .result = target ? &staged->result : NULL,
    };
    int status = make_record(t, job, report, target ? target->name : "tegu", &record, err);
    if (status == TG_OK)
        status = tg_record_save(&record, staged->tmp, err);
    if (status == TG_OK)
        status = tg_card_write(staged->tmp, &card, err);
    tg_record_close(&record);
    return status;
}

int tg_checkpoint_commit(struct tg_staged *staged, const char *path, struct tg_err *err)
{
    int status = tg_dir_commit(staged->tmp, path, err);
    if (status == TG_OK) {
        tg_free(staged->tmp);
        staged->tmp = NULL;
    }
    return status;
}

void tg_staged_release(struct tg_staged *staged)
{
    if (staged->tmp)
        tg_dir_remove(staged->tmp, NULL);
    tg_free(staged->tmp);
    tg_export_result_release(&staged->result);
    *staged = (struct tg_staged){0};
}

int tg_checkpoint_write(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        struct tg_err *err)
{
    struct tg_staged staged;
    int status = tg_checkpoint_stage(t, job, path, &staged, err);
    if (status)
        return status;
    status = tg_checkpoint_describe(t, job, &staged, path, NULL, err);
    if (status == TG_OK)
        status = tg_checkpoint_commit(&staged, path, err);
    tg_staged_release(&staged);
    return status;
}
