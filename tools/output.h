/* What commands write: hybrid checkpoints, by way of a temporary directory. */
#ifndef TG_TOOLS_OUTPUT_H
#define TG_TOOLS_OUTPUT_H

#include "base/json.h"
#include "linearize/model/model.h"
#include "tools/export.h"
#include "tools/record.h"

/* An existing PATH without --force is TG_ERR_EXISTS. */
int tg_output_check(const struct tg_tool *t, const char *path, struct tg_err *err);

/* OUT must not be the input itself, which --force would replace. */
int tg_output_apart(const char *path, const char *input, struct tg_err *err);

struct tg_checkpoint_job {
    const struct tg_model *model;
    const char *arch;          /* as tg_choice_arch; NULL: native */
    const char *dtype;         /* as tg_choice_weight_dtype */
    int64_t max_shard;         /* bytes; 0: one file */
    const char *tokenizer_dir; /* whose tokenizer files are copied */
    const char *teacher_hash, *teacher_name;
    const char *made_from; /* the model whose record goes on: a hybrid, or the teacher */
    const char *settings;  /* an object of JSON, for the record; NULL: none */
    bool same_teacher;     /* the record keeps that which it names */
    bool converted;        /* the weights are made_from's: its results stay true of them */
};
/* A model written into a temporary directory beside its path */
struct tg_staged {
    char *tmp;                      /* owned; NULL: nothing is there */
    struct tg_export_result result; /* owned; of a native one empty */
};
/* Writes the hybrid, and proves what is not native. The caller releases what was staged, which
 * removes it unless it was committed. */
int tg_checkpoint_stage(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        struct tg_staged *staged, struct tg_err *err);
/* Its record and its card; report: what was measured of it, NULL: nothing */
int tg_checkpoint_describe(struct tg_tool *t, const struct tg_checkpoint_job *job,
                           const struct tg_staged *staged, const char *path,
                           const struct tg_report *report, struct tg_err *err);
/* The staged model appears at `path`. */
int tg_checkpoint_commit(struct tg_staged *staged, const char *path, struct tg_err *err);
void tg_staged_release(struct tg_staged *staged);
/* All of it in one */
int tg_checkpoint_write(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        struct tg_err *err);

#endif
