/* What a validation or a whole run found: as a table, as JSON, as one HTML page that needs nothing
 * else. */
#ifndef TG_TOOLS_REPORT_H
#define TG_TOOLS_REPORT_H

#include "tools/command.h"
#include "tools/eval/validate.h"

struct tg_report {
    const char *title, *command;             /* borrowed, as all strings here */
    const char *student_path, *teacher_path; /* teacher NULL: none */
    struct tg_results results;   /* "untrained." paths: the same of the untrained window student */
    struct tg_verdict *verdicts; /* owned, [verdict_count] */
    size_t verdict_count, failed;
    const char *log_path;                     /* log.jsonl of the training; NULL: none */
    const char *settings;                     /* JSON text of the run's settings; NULL: none */
    const struct tg_model_spec *student_spec; /* NULL: no table of layers */
    struct {
        char name[24];
        double seconds;
    } steps[8];
    size_t step_count;
};
/* Judges the results by --fail-if; unknown names are errors */
int tg_report_judge(struct tg_report *r, const struct tg_texts *fail_if, struct tg_err *err);
/* Copies results under "untrained." */
int tg_report_add_untrained(struct tg_report *r, const struct tg_results *untrained,
                            struct tg_err *err);
bool tg_report_has_untrained(const struct tg_report *r);
void tg_report_release(struct tg_report *r);

void tg_report_print(const struct tg_report *r, const struct tg_tool *t);
int tg_report_print_json(const struct tg_report *r, const struct tg_tool *t, struct tg_err *err);
int tg_report_save_json(const struct tg_report *r, const struct tg_tool *t, const char *path,
                        struct tg_err *err);
int tg_report_save_html(const struct tg_report *r, const struct tg_tool *t, const char *path,
                        struct tg_err *err);

/* Rows of the side-by-side table, in order; false at the end. Cells are "-" where there is nothing.
 */
struct tg_report_row {
    char label[64], teacher[40], untrained[40], student[40];
};
bool tg_report_row_at(const struct tg_report *r, size_t i, struct tg_report_row *row);

#endif
