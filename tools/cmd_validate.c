/* tegu validate: is this hybrid what its teacher was? Suites side by side, JSON, a page, and an
 * exit status. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/eval/validate.h"
#include "tools/output.h"
#include "tools/report/report.h"
#include "tools/subject.h"

struct settings {
    const char *teacher, *json, *html;
    struct tg_texts files;
    int64_t length;
    struct tg_validation validation;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "data", TG_OPT_TEXTS, AT(files), NULL, "FILE",
     "text to validate on; a part of it: F@85%:100%", 0, 0, NULL, true},
    {0, "teacher", TG_OPT_TEXT, AT(teacher), NULL, "T",
     "the model to compare with; without it only what needs none", 0, 0, NULL, false},
    {0, "length", TG_OPT_COUNT, AT(length), "1024", "T", "tokens of a window of text", 2, 1 << 24,
     NULL, false},
    {0, "json", TG_OPT_TEXT, AT(json), NULL, "F", "write the results there; - is standard output",
     0, 0, NULL, false},
    {0, "html", TG_OPT_TEXT, AT(html), NULL, "F", "write a page with tables and pictures there", 0,
     0, NULL, false},
    {0},
};
#undef AT

/* Without a teacher the suites that need one drop out, unless the user asked for them. */
static void drop_suites(struct tg_texts *suite)
{
    size_t kept = 0;
    for (size_t i = 0; i < suite->count; i++)
        if (!tg_suite_find(suite->items[i])->needs_teacher)
            suite->items[kept++] = suite->items[i];
    suite->count = kept;
}

static int prepare(struct tg_tool *t, struct settings *set, struct tg_err *err)
{
    struct tg_results names = {0};
    if (!set->teacher && !tg_parse_given(t->parse, "suite"))
        drop_suites(&set->validation.suite);
    int status = tg_validate_names(&set->validation, set->teacher != NULL, &names, err);
    if (status == TG_OK)
        status = tg_checks_prepare(&set->validation.fail_if, &names, err);
    tg_results_release(&names);
    if (status)
        return TG_EXIT_USAGE;
    if (set->json && strcmp(set->json, "-") != 0)
        status = tg_output_check(t, set->json, err);
    if (status == TG_OK && set->html)
        status = tg_output_check(t, set->html, err);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    struct settings *set = settings;
    const char *path = t->args[0];
    struct tg_subject teacher = {0}, student = {0};
    struct tg_ids ids = {0};
    struct tg_report report = {.title = "Validation",
                               .command = t->command_line,
                               .student_path = path,
                               .teacher_path = set->teacher};
    int status = prepare(t, set, err);
    if (status == TG_OK)
        status = tg_subject_open(t, path, TG_SUBJECT_TOKENIZER_IF_ANY, &student, err);
    if (status == TG_OK && set->teacher)
        status = tg_subject_open(t, set->teacher, TG_SUBJECT_TOKENIZER_IF_ANY, &teacher, err);
    if (status == TG_OK && set->teacher)
        status = tg_subjects_match(&teacher, set->teacher, &student, path, err);
    const struct tg_tokenizer *tok = student.tok ? student.tok : teacher.tok;
    if (status == TG_OK)
        status = tg_texts_read(&set->files, tok, student.model->spec.vocab, &ids, err);
    if (status == TG_OK) {
        struct tg_validate_input in = {
            .teacher = teacher.model,
            .student = student.model,
            .tok = tok,
            .ids = ids.data,
            .count = ids.count,
            .length = (size_t)set->length,
            .set = &set->validation,
            .seed = (uint64_t)t->set.seed,
            .progress = &t->progress,
        };
        status = tg_validate_run(&in, &report.results, err);
    }
    if (status == TG_OK)
        status = tg_report_judge(&report, &set->validation.fail_if, err);
    if (status == TG_OK && set->json && strcmp(set->json, "-") != 0)
        status = tg_report_save_json(&report, t, set->json, err);
    if (status == TG_OK && set->html)
        status = tg_report_save_html(&report, t, set->html, err);
    if (status == TG_OK && set->json && strcmp(set->json, "-") == 0)
        status = tg_report_print_json(&report, t, err);
    else if (status == TG_OK)
        tg_report_print(&report, t);
    if (status == TG_OK && report.failed)
        status = TG_EXIT_CHECK;
    tg_report_release(&report);
    tg_ids_release(&ids);
    tg_subject_close(&teacher);
    tg_subject_close(&student);
    return status;
}

const struct tg_command tg_cmd_validate = {
    .name = "validate",
    .args = "STUDENT",
    .min_args = 1,
    .max_args = 1,
    .details = "Runs the chosen suites over STUDENT and its teacher on the same text and items and "
               "prints them side by side.\n"
               "Exit status 3 if a --fail-if condition holds; a result that is not a number fails "
               "every condition on it.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}, {tg_validation_options, offsetof(struct settings, validation)}},
    .run = run,
};
