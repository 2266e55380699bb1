/* Exporting a model as commands do it: the target chosen, weights and what stands beside them
 * written into a temporary place, proved, then renamed. */
#ifndef TG_TOOLS_EXPORT_H
#define TG_TOOLS_EXPORT_H

#include "tools/command.h"
#include "tools/proof.h"
#include "tools/record.h"

struct tg_export_job {
    struct tg_export_source source;
    const char *dir;   /* with the tokenizer and what else goes along; or a GGUF file */
    const char *arch;  /* "auto", "tegu", or a target's name */
    const char *dtype; /* as the user names it */
    bool gguf;         /* the output is a GGUF file */
    bool allow_irregular;
    int64_t max_shard;
    const char *name;               /* of the model: its last path's part */
    const struct tg_record *record; /* for what a GGUF file says of its origin; NULL: nothing */
};
struct tg_export_result {
    const struct tg_target *target; /* NULL: native */
    struct tg_model_spec spec;      /* of what was written; owned; empty if native */
    struct tg_proof proof;
    struct tg_remarks notes; /* owned */
};
/* The target that arch means for this spec; NULL: the native format. With auto, *why (if not NULL)
 * gets why others do not fit. An arch that does not fit is an error that names layer and reason. */
int tg_export_choose(const char *arch, bool gguf, bool allow_irregular,
                     const struct tg_model_spec *spec, const struct tg_target **target,
                     struct tg_remarks *why, struct tg_err *err);
/* The source as the target's model, into `path`: a directory that exists, or a file of GGUF.
 * What is left there after a failure is the caller's to remove. */
int tg_export_make(struct tg_tool *t, const struct tg_export_job *job,
                   const struct tg_target *target, const char *path,
                   struct tg_export_result *result, struct tg_err *err);
void tg_export_result_release(struct tg_export_result *r);
/* Everything that a user should know: target, engines, proof, notes, why not the others */
void tg_export_tell(struct tg_tool *t, const struct tg_export_result *r,
                    const struct tg_remarks *why);
/* Each target's verdict on a model, with its reasons, to standard output (JSON with --json) */
int tg_export_verdicts(const struct tg_tool *t, const struct tg_model_spec *spec,
                       struct tg_err *err);

#endif
