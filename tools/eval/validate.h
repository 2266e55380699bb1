/* Runs suites over a student and its teacher, and judges the result. */
#ifndef TG_TOOLS_VALIDATE_H
#define TG_TOOLS_VALIDATE_H

#include "tools/eval/suite.h"
#include "tools/groups.h"

struct tg_validate_input {
    struct tg_model *teacher, *student; /* teacher NULL: the student alone */
    const struct tg_tokenizer *tok;     /* NULL: none */
    const int32_t *ids;                 /* validation text */
    size_t count, length;
    const struct tg_validation *set;
    uint64_t seed;
    bool teacher_known;
    const struct tg_progress *progress;
};
/* The paths that a validation with these settings will have (values NaN), without position buckets:
 * to check --fail-if before long work. Also checks the settings themselves. */
int tg_validate_names(const struct tg_validation *set, bool with_teacher, struct tg_results *r,
                      struct tg_err *err);
int tg_validate_run(const struct tg_validate_input *in, struct tg_results *r, struct tg_err *err);

/* Every --fail-if must parse and name one result */
int tg_checks_prepare(const struct tg_texts *fail_if, const struct tg_results *names,
                      struct tg_err *err);
/* What one --fail-if came to */
struct tg_verdict {
    const char *text, *path; /* borrowed */
    double value;
    bool failed;
};
/* Judges all; verdicts [fail_if->count]; *failed: how many hold as conditions of failure */
int tg_checks_judge(const struct tg_texts *fail_if, const struct tg_results *r,
                    struct tg_verdict *verdicts, size_t *failed, struct tg_err *err);
void tg_verdicts_write_json(const struct tg_verdict *v, size_t count, struct tg_json_out *out,
                            const char *key);

#endif
