#include "tools/report/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "linearize/kernels/gemm.h"
#include "tools/table.h"

int tg_report_judge(struct tg_report *r, const struct tg_texts *fail_if, struct tg_err *err)
{
    tg_free(r->verdicts);
    r->verdict_count = fail_if->count;
    r->verdicts = tg_alloc_array(fail_if->count + 1, sizeof *r->verdicts);
    if (!r->verdicts)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for checks");
    return tg_checks_judge(fail_if, &r->results, r->verdicts, &r->failed, err);
}

int tg_report_add_untrained(struct tg_report *r, const struct tg_results *untrained,
                            struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; i < untrained->count && status == TG_OK; i++)
        if (strncmp(untrained->items[i].path, "teacher.", 8) != 0)
            status = tg_results_put(&r->results, untrained->items[i].value, err, "untrained.%s",
                                    untrained->items[i].path);
    return status;
}

void tg_report_release(struct tg_report *r)
{
    tg_results_release(&r->results);
    tg_free(r->verdicts);
    memset(r, 0, sizeof *r);
}

enum form { FORM_NUMBER, FORM_SHARE, FORM_COUNT, FORM_BYTES };
/* Rows besides those of recall, which are as many as there are sizes */
static const struct {
    const char *label, *teacher, *student;
    enum form form;
} fixed_rows[] = {
    {"perplexity", "teacher.ppl", "student.ppl", FORM_NUMBER},
    {"KL to the teacher", NULL, "kl", FORM_NUMBER},
    {"same top token", NULL, "top1", FORM_SHARE},
    {"greedy continuation agrees", NULL, "generation_agreement", FORM_SHARE},
    {"parameters", "teacher.params", "params", FORM_COUNT},
    {"KV cache per token (bf16)", "teacher.kv_bytes_per_token", "kv_bytes_per_token", FORM_BYTES},
    {"constant state", "teacher.state_bytes", "state_bytes", FORM_BYTES},
};
enum { ROWS_BEFORE_RECALL = 3 };

static void cell(const struct tg_report *r, const char *prefix, const char *path, enum form form,
                 char out[40])
{
    char full[120];
    snprintf(full, sizeof full, "%s%s", prefix, path ? path : "");
    double v = path ? tg_results_get(&r->results, full) : NAN;
    if (isnan(v) && !tg_results_find(&r->results, full))
        snprintf(out, 40, "-");
    else if (form == FORM_SHARE)
        snprintf(out, 40, "%.3f", v);
    else if (form == FORM_COUNT)
        tg_thousands(v, out, 40);
    else if (form == FORM_BYTES)
        tg_bytes_text(v, out, 40);
    else
        tg_number_text(v, out, 40);
}

static bool fixed_row(const struct tg_report *r, size_t i, struct tg_report_row *row)
{
    snprintf(row->label, sizeof row->label, "%s", fixed_rows[i].label);
    cell(r, "", fixed_rows[i].teacher, fixed_rows[i].form, row->teacher);
    cell(r, "untrained.", fixed_rows[i].student, fixed_rows[i].form, row->untrained);
    cell(r, "", fixed_rows[i].student, fixed_rows[i].form, row->student);
    return tg_results_find(&r->results, fixed_rows[i].student) != NULL;
}

/* The i-th recall size, found by its ".student" path */
static bool recall_row(const struct tg_report *r, size_t i, struct tg_report_row *row)
{
    for (size_t k = 0; k < r->results.count; k++) {
        const char *path = r->results.items[k].path;
        size_t n = strlen(path);
        if (strncmp(path, "recall.", 7) != 0 || n < 8 || strcmp(path + n - 8, ".student") != 0 ||
            i--)
            continue;
        char teacher[96], name[64];
        snprintf(teacher, sizeof teacher, "%.*s.teacher", (int)(n - 8), path);
        snprintf(name, sizeof name, "%.*s", (int)(n - 15), path + 7);
        for (char *dot = name; *dot; dot++)
            *dot = *dot == '.' ? ' ' : *dot;
        snprintf(row->label, sizeof row->label, "recall: %.48s", name);
        cell(r, "", teacher, FORM_SHARE, row->teacher);
        cell(r, "untrained.", path, FORM_SHARE, row->untrained);
        cell(r, "", path, FORM_SHARE, row->student);
        return true;
    }
    return false;
}

bool tg_report_row_at(const struct tg_report *r, size_t i, struct tg_report_row *row)
{
    enum { FIXED = sizeof fixed_rows / sizeof fixed_rows[0] };
    size_t recalls = 0;
    while (recall_row(r, recalls, row))
        recalls++;
    for (size_t k = 0; k < FIXED + recalls; k++) {
        bool there = k >= ROWS_BEFORE_RECALL && k < ROWS_BEFORE_RECALL + recalls
                         ? recall_row(r, k - ROWS_BEFORE_RECALL, row)
                         : fixed_row(r, k < ROWS_BEFORE_RECALL ? k : k - recalls, row);
        if (there && i-- == 0)
            return true;
    }
    return false;
}

bool tg_report_has_untrained(const struct tg_report *r)
{
    for (size_t i = 0; i < r->results.count; i++)
        if (strncmp(r->results.items[i].path, "untrained.", 10) == 0)
            return true;
    return false;
}

void tg_report_print(const struct tg_report *r, const struct tg_tool *t)
{
    struct tg_table table;
    struct tg_report_row row;
    bool middle = tg_report_has_untrained(r);
    tg_table_init(&table, !r->teacher_path ? "|model"
                          : middle         ? "|teacher|untrained window|hybrid"
                                           : "|teacher|student");
    for (size_t i = 0; tg_report_row_at(r, i, &row); i++) {
        if (!r->teacher_path)
            tg_table_row(&table, "%s|%s", row.label, row.student);
        else if (middle)
            tg_table_row(&table, "%s|%s|%s|%s", row.label, row.teacher, row.untrained, row.student);
        else
            tg_table_row(&table, "%s|%s|%s", row.label, row.teacher, row.student);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    for (size_t i = 0; i < r->verdict_count; i++) {
        const struct tg_verdict *v = &r->verdicts[i];
        const char *on = !t->color ? "" : v->failed ? "\033[31m" : "\033[32m";
        printf("%s%s%s  fail if %s: %s is %.6g\n", on, v->failed ? "FAILED" : "ok    ",
               t->color ? "\033[0m" : "", v->text, v->path, v->value);
    }
}

static int write_json(const struct tg_report *r, const struct tg_tool *t, struct tg_json_out *out,
                      struct tg_err *err)
{
    tg_results_write_json(&r->results, out);
    tg_verdicts_write_json(r->verdicts, r->verdict_count, out, "checks");
    tg_jout_bool(out, "passed", r->failed == 0);
    tg_jout_object(out, "run");
    tg_jout_str(out, "version", TG_VERSION);
    tg_jout_str(out, "command", r->command);
    tg_jout_str(out, "student", r->student_path);
    if (r->teacher_path)
        tg_jout_str(out, "teacher", r->teacher_path);
    tg_jout_int(out, "seed", t->set.seed);
    tg_jout_int(out, "threads", t->ctx.threads);
    tg_jout_str(out, "kernels", t->ctx.k->name);
    tg_jout_str(out, "blas_core", tg_gemm_core());
    if (r->step_count) {
        tg_jout_object(out, "seconds");
        for (size_t i = 0; i < r->step_count; i++)
            tg_jout_num(out, r->steps[i].name, r->steps[i].seconds);
        tg_jout_end_object(out);
    }
    int status = TG_OK;
    if (r->settings) {
        struct tg_json_doc *doc = NULL;
        status = tg_json_parse(&doc, r->settings, strlen(r->settings), "settings", 0, err);
        if (status == TG_OK)
            tg_jout_copy(out, "settings", tg_json_root(doc));
        tg_json_free(doc);
    } else {
        tg_parse_write_json(t->parse, out, "settings");
    }
    tg_jout_end_object(out);
    return status;
}

int tg_report_print_json(const struct tg_report *r, const struct tg_tool *t, struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    int status = write_json(r, t, out, err);
    if (status) {
        tg_strbuf_release(&doc.text);
        return status;
    }
    return tg_print_json_end(&doc, err);
}

int tg_report_save_json(const struct tg_report *r, const struct tg_tool *t, const char *path,
                        struct tg_err *err)
{
    struct tg_strbuf s;
    struct tg_json_out out;
    tg_strbuf_init(&s, 1 << 28);
    tg_jout_init(&out, &s, 2);
    tg_jout_object(&out, NULL);
    int status = write_json(r, t, &out, err);
    tg_jout_end_object(&out);
    tg_strbuf_puts(&s, "\n");
    if (status == TG_OK)
        status = s.failed ? tg_fail(err, TG_ERR_NOMEM, "no memory for the report")
                          : tg_file_write(path, s.text, s.len, err);
    tg_strbuf_release(&s);
    return status;
}
