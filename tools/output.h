/* What commands write: hybrid checkpoints, by way of a temporary directory. */
#ifndef TG_TOOLS_OUTPUT_H
#define TG_TOOLS_OUTPUT_H

#include "base/json.h"
#include "linearize/model/model.h"
#include "tools/command.h"

/* An existing PATH without --force is TG_ERR_EXISTS. */
int tg_output_check(const struct tg_tool *t, const char *path, struct tg_err *err);

/* OUT must not be the input itself, which --force would replace. */
int tg_output_apart(const char *path, const char *input, struct tg_err *err);

struct tg_checkpoint_job {
    const struct tg_model *model;
    const char *arch;          /* as tg_choice_export_arch, no GGUF one; NULL: native */
    const char *dtype;         /* as tg_choice_weight_dtype */
    int64_t max_shard;         /* bytes; 0: one file */
    const char *tokenizer_dir; /* whose tokenizer files are copied */
    const char *teacher_hash, *teacher_name;
};
/* Writes the hybrid, and proves what is not native, into a temporary directory beside PATH (*tmp,
 * caller frees); the caller renames it with tg_dir_commit, or removes it. */
int tg_checkpoint_stage(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        char **tmp, struct tg_err *err);
/* The two in one */
int tg_checkpoint_write(struct tg_tool *t, const struct tg_checkpoint_job *job, const char *path,
                        struct tg_err *err);

#endif
