#include "tools/eval/validate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

enum { PROMPT_TOKENS = 64 };

static int parse_sizes(const struct tg_validation *set, struct tg_recall_size **sizes,
                       struct tg_err *err)
{
    *sizes = tg_alloc_array(set->recall.count + 1, sizeof **sizes);
    if (!*sizes)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for recall sizes");
    for (size_t i = 0; i < set->recall.count; i++) {
        int status = tg_recall_size_parse(set->recall.items[i], &(*sizes)[i], err);
        if (status)
            return status;
    }
    return TG_OK;
}

/* Suites of the list, in the registry's order, so that the same settings give the same document. */
static bool chosen(const struct tg_validation *set, const struct tg_suite *s)
{
    for (size_t i = 0; i < set->suite.count; i++)
        if (strcmp(set->suite.items[i], s->name) == 0)
            return true;
    return false;
}

static int put_sizes_of(const struct tg_model_spec *student, const struct tg_model_spec *teacher,
                        struct tg_results *r, struct tg_err *err)
{
    const struct tg_model_spec *both[2] = {student, teacher};
    int status = TG_OK;
    for (int i = 0; i < 2 && status == TG_OK; i++) {
        const char *prefix = i ? "teacher." : "";
        const struct tg_model_spec *s = both[i];
        if (!s)
            continue;
        status = tg_results_put(r, (double)tg_spec_param_count(s), err, "%sparams", prefix);
        if (status == TG_OK)
            status = tg_results_put(r, (double)tg_spec_kv_bytes_per_token(s, 2), err,
                                    "%skv_bytes_per_token", prefix);
        if (status == TG_OK)
            status =
                tg_results_put(r, (double)tg_spec_state_bytes(s), err, "%sstate_bytes", prefix);
    }
    return status;
}

int tg_validate_names(const struct tg_validation *set, bool with_teacher, struct tg_results *r,
                      struct tg_err *err)
{
    static const char *const always[] = {
        "params",         "kv_bytes_per_token",         "state_bytes",
        "teacher.params", "teacher.kv_bytes_per_token", "teacher.state_bytes"};
    struct tg_recall_size *sizes = NULL;
    int status = parse_sizes(set, &sizes, err);
    struct tg_suite_job job = {.sizes = sizes, .size_count = set->recall.count};
    for (size_t i = 0; tg_suites[i] && status == TG_OK; i++) {
        if (!chosen(set, tg_suites[i]))
            continue;
        if (tg_suites[i]->needs_teacher && !with_teacher)
            status =
                tg_fail(err, TG_ERR_VALUE,
                        "suite '%s' compares with a teacher: give --teacher, or choose --suite",
                        tg_suites[i]->name);
        else
            status = tg_suites[i]->names(&job, with_teacher, r, err);
    }
    for (size_t i = 0; i < (with_teacher ? 6 : 3) && status == TG_OK; i++)
        status = tg_results_put(r, NAN, err, "%s", always[i]);
    tg_free(sizes);
    return status;
}

int tg_validate_run(const struct tg_validate_input *in, struct tg_results *r, struct tg_err *err)
{
    struct tg_recall_size *sizes = NULL;
    struct tg_recall_source source = {0};
    int status = parse_sizes(in->set, &sizes, err);
    bool recall = false;
    for (size_t i = 0; tg_suites[i]; i++)
        recall = recall || (tg_suites[i]->needs_tokenizer && chosen(in->set, tg_suites[i]));
    if (status == TG_OK && recall && !in->tok)
        status = tg_fail(err, TG_ERR_VALUE,
                         "recall tasks need a tokenizer, and the model has no tokenizer.json");
    if (status == TG_OK && recall)
        status = tg_recall_source_init(&source, in->tok, in->ids, in->count, err);
    struct tg_suite_job job = {
        .teacher = in->teacher,
        .student = in->student,
        .recall = &source,
        .ids = in->ids,
        .count = in->count,
        .length = in->length,
        .windows = (size_t)in->set->windows,
        .sizes = sizes,
        .size_count = in->set->recall.count,
        .items = (size_t)in->set->items,
        .prompts = (size_t)in->set->prompts,
        .prompt_len = PROMPT_TOKENS,
        .continuation = (size_t)in->set->continuation,
        .seed = in->seed,
        .teacher_known = in->teacher_known,
        .progress = in->progress,
    };
    for (size_t i = 0; tg_suites[i] && status == TG_OK; i++)
        if (chosen(in->set, tg_suites[i]))
            status = tg_suites[i]->run(&job, r, err);
    if (status == TG_OK)
        status = put_sizes_of(&in->student->spec, in->teacher ? &in->teacher->spec : NULL, r, err);
    tg_recall_source_release(&source);
    tg_free(sizes);
    return status;
}

int tg_checks_prepare(const struct tg_texts *fail_if, const struct tg_results *names,
                      struct tg_err *err)
{
    for (size_t i = 0; i < fail_if->count; i++) {
        struct tg_check c;
        const struct tg_result *found;
        int status = tg_check_parse(fail_if->items[i], &c, err);
        /* which buckets there are depends on the text */
        if (status == TG_OK && strncmp(c.name, "buckets.", 8) != 0)
            status = tg_check_resolve(&c, names, &found, err);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_checks_judge(const struct tg_texts *fail_if, const struct tg_results *r,
                    struct tg_verdict *verdicts, size_t *failed, struct tg_err *err)
{
    *failed = 0;
    for (size_t i = 0; i < fail_if->count; i++) {
        struct tg_check c;
        const struct tg_result *found;
        int status = tg_check_parse(fail_if->items[i], &c, err);
        if (status == TG_OK)
            status = tg_check_resolve(&c, r, &found, err);
        if (status)
            return status;
        bool fails = tg_check_fails(&c, found->value);
        verdicts[i] = (struct tg_verdict){fail_if->items[i], found->path, found->value, fails};
        *failed += fails;
    }
    return TG_OK;
}

void tg_verdicts_write_json(const struct tg_verdict *v, size_t count, struct tg_json_out *out,
                            const char *key)
{
    tg_jout_array(out, key);
    for (size_t i = 0; i < count; i++) {
        tg_jout_object(out, NULL);
        tg_jout_str(out, "fail_if", v[i].text);
        tg_jout_str(out, "path", v[i].path);
        tg_jout_num(out, "value", v[i].value);
        tg_jout_bool(out, "failed", v[i].failed);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
}
