/* The report as one HTML page: styles and pictures inside, nothing fetched. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/report/report.h"
#include "tools/report/svg.h"

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n"
    ":root{color-scheme:light "
    "dark;--fg:#1e293b;--soft:#64748b;--line:#e2e8f0;--bg:#fff;--card:#f8fafc}\n"
    "@media(prefers-color-scheme:dark){:root{--fg:#e2e8f0;--soft:#94a3b8;--line:#334155;--bg:#"
    "0f172a;--card:#1e293b}}\n"
    "body{font:16px/1.55 "
    "system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:860px;margin:2.5rem "
    "auto;padding:0 "
    "1.2rem}\nh1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem}\n"
    "table{border-collapse:collapse;width:100%}th,td{padding:.35rem .7rem;border-bottom:1px solid "
    "var(--line);text-align:right}\n"
    "th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}td:last-"
    "child{font-weight:600}\n"
    "code,pre{font:13px/1.5 "
    "ui-monospace,monospace;background:var(--card);border-radius:6px}code{padding:.1rem .3rem}\n"
    "pre{padding:.8rem 1rem;overflow-x:auto;white-space:pre-wrap}figure{margin:1.2rem "
    "0}figcaption{font-weight:600}\n"
    "svg{width:100%;height:auto}svg text{font:11px "
    "system-ui,sans-serif;fill:var(--soft)}.grid{stroke:var(--line)}\n"
    ".badge{display:inline-block;padding:.15rem "
    ".7rem;border-radius:99px;color:#fff;font-weight:600}.ok{background:#059669}\n"
    ".bad{background:#dc2626}.soft{color:var(--soft)}\n</style>\n";

static void element(struct tg_strbuf *s, const char *tag, const char *text)
{
    tg_strbuf_printf(s, "<%s>", tag);
    tg_html_text(s, text);
    tg_strbuf_printf(s, "</%s>", tag);
}

static void side_by_side(struct tg_strbuf *s, const struct tg_report *r)
{
    struct tg_report_row row;
    bool middle = false;
    for (size_t i = 0; tg_report_row_at(r, i, &row); i++)
        middle = middle || strcmp(row.untrained, "-") != 0;
    tg_strbuf_puts(s, "<h2>Side by side</h2>\n<table><tr><th></th>");
    if (r->teacher_path)
        tg_strbuf_puts(s, "<th>teacher</th>");
    if (middle)
        tg_strbuf_puts(s, "<th>untrained window</th>");
    tg_strbuf_puts(s, r->teacher_path ? "<th>hybrid</th></tr>\n" : "<th>model</th></tr>\n");
    for (size_t i = 0; tg_report_row_at(r, i, &row); i++) {
        tg_strbuf_puts(s, "<tr>");
        element(s, "td", row.label);
        if (r->teacher_path)
            element(s, "td", row.teacher);
        if (middle)
            element(s, "td", row.untrained);
        element(s, "td", row.student);
        tg_strbuf_puts(s, "</tr>\n");
    }
    tg_strbuf_puts(s, "</table>\n");
}

static void checks(struct tg_strbuf *s, const struct tg_report *r)
{
    if (!r->verdict_count)
        return;
    tg_strbuf_puts(s, "<h2>Checks</h2>\n<table><tr><th>fail "
                      "if</th><th>result</th><th>value</th><th></th></tr>\n");
    for (size_t i = 0; i < r->verdict_count; i++) {
        const struct tg_verdict *v = &r->verdicts[i];
        char value[40];
        snprintf(value, sizeof value, "%.6g", v->value);
        tg_strbuf_puts(s, "<tr>");
        element(s, "td", v->text);
        element(s, "td", v->path);
        element(s, "td", value);
        tg_strbuf_printf(s, "<td><span class=\"badge %s\">%s</span></td></tr>\n",
                         v->failed ? "bad" : "ok", v->failed ? "failed" : "ok");
    }
    tg_strbuf_puts(s, "</table>\n");
}

static void layers(struct tg_strbuf *s, const struct tg_report *r)
{
    if (!r->student_spec)
        return;
    tg_strbuf_puts(s, "<h2>Layers</h2>\n<table><tr><th>layer</th><th>mixer</th><th>window</"
                      "th><th>sinks</th><th>features</th></tr>\n");
    for (size_t l = 0; l < r->student_spec->layer_count; l++) {
        const struct tg_layer_spec *y = &r->student_spec->layers[l];
        bool far = y->mixer->flags & TG_MIXER_FAR;
        tg_strbuf_printf(s, "<tr><td>%zu</td><td>%s</td><td>%zu</td><td>%zu</td><td>%s</td></tr>\n",
                         l, y->mixer->name, y->window, y->sinks,
                         far ? tg_feature_map_name(y->feature_map) : "");
    }
    tg_strbuf_puts(s, "</table>\n");
}

enum { BUCKET_POINTS = TG_EVAL_BUCKETS };

/* KL by position, of hybrid and untrained student: the x of a bucket is its first position (at
 * least 1, the axis is a logarithm) */
static void kl_by_position(struct tg_strbuf *s, const struct tg_report *r)
{
    static const char *const prefixes[2] = {"buckets.", "untrained.buckets."};
    double x[2][BUCKET_POINTS], y[2][BUCKET_POINTS];
    struct tg_chart c = {.title = "KL to the teacher by position",
                         .x_label = "position in the text",
                         .y_label = "KL",
                         .log_x = true};
    for (size_t p = 0; p < 2; p++) {
        size_t n = 0, len = strlen(prefixes[p]);
        for (size_t i = 0; i < r->results.count && n < BUCKET_POINTS; i++) {
            const char *path = r->results.items[i].path;
            size_t end = strlen(path);
            if (strncmp(path, prefixes[p], len) != 0 || end < 3 ||
                strcmp(path + end - 3, ".kl") != 0)
                continue;
            x[p][n] = fmax(1, strtod(path + len, NULL));
            y[p][n++] = r->results.items[i].value;
        }
        if (n == 0)
            continue;
        size_t k = c.series_count++;
        c.series[k].name = p ? "untrained window" : "hybrid";
        c.series[k].x = x[p];
        c.series[k].y = y[p];
        c.series[k].count = n;
    }
    if (c.series_count)
        tg_svg_chart(s, &c);
}

struct curve {
    char name[24];
    double *x, *y;
    size_t count, cap_x, cap_y;
};

static bool curve_add(struct curve *c, double x, double y)
{
    if (!tg_grow(&c->x, &c->cap_x, c->count + 1, sizeof *c->x) ||
        !tg_grow(&c->y, &c->cap_y, c->count + 1, sizeof *c->y))
        return false;
    c->x[c->count] = x;
    c->y[c->count++] = y;
    return true;
}

/* One curve per stage from the training log. A line that does not parse (a run killed while
 * writing) is skipped. */
static size_t read_log(const char *path, struct curve *curves)
{
    char *text = NULL;
    size_t len = 0, count = 0;
    if (!path || tg_file_read(path, (size_t)1 << 30, &text, &len, NULL) != TG_OK)
        return 0;
    for (size_t at = 0; at < len;) {
        size_t n = strcspn(text + at, "\n");
        struct tg_json_doc *doc = NULL;
        if (n > 0 && tg_json_parse(&doc, text + at, n, path, 0, NULL) == TG_OK) {
            struct tg_json v = tg_json_root(doc);
            struct tg_json loss = tg_json_key(v, "loss"), tokens = tg_json_key(v, "tokens");
            const char *stage = tg_json_string(tg_json_key(v, "stage"));
            if (tg_json_is_number(loss) && tg_json_is_number(tokens)) {
                size_t k = 0;
                while (k < count && strcmp(curves[k].name, stage) != 0)
                    k++;
                if (k == count && count < TG_CHART_SERIES)
                    snprintf(curves[count++].name, sizeof curves[0].name, "%.23s", stage);
                if (k < count)
                    curve_add(&curves[k], tg_json_number(tokens), tg_json_number(loss));
            }
        }
        tg_json_free(doc);
        at += n + 1;
    }
    tg_free(text);
    return count;
}

static void loss_curves(struct tg_strbuf *s, const struct tg_report *r)
{
    struct curve curves[TG_CHART_SERIES];
    memset(curves, 0, sizeof curves);
    size_t n = read_log(r->log_path, curves);
    for (size_t i = 0; i < n; i++) { /* stages have losses of different kinds: a picture each */
        char title[64];
        snprintf(title, sizeof title, "Loss of stage %.23s", curves[i].name);
        struct tg_chart c = {.title = title,
                             .x_label = "tokens",
                             .y_label = "loss",
                             .log_y = true,
                             .series_count = 1};
        c.series[0].name = curves[i].name;
        c.series[0].x = curves[i].x;
        c.series[0].y = curves[i].y;
        c.series[0].count = curves[i].count;
        if (c.series[0].count > 1)
            tg_svg_chart(s, &c);
    }
    for (size_t i = 0; i < TG_CHART_SERIES; i++) {
        tg_free(curves[i].x);
        tg_free(curves[i].y);
    }
}

static void how_made(struct tg_strbuf *s, const struct tg_report *r, const struct tg_tool *t)
{
    tg_strbuf_puts(s, "<h2>How it was made</h2>\n<pre>");
    tg_html_text(s, r->command);
    tg_strbuf_printf(s, "</pre>\n<p class=\"soft\">tegu %s, seed %lld, %d threads, %s kernels",
                     TG_VERSION, (long long)t->set.seed, t->ctx.threads, t->ctx.k->name);
    for (size_t i = 0; i < r->step_count; i++) {
        char time[32];
        tg_strbuf_printf(s, "; %s %s", r->steps[i].name,
                         tg_duration(r->steps[i].seconds, time, sizeof time));
    }
    tg_strbuf_puts(s, "</p>\n");
    if (r->settings) {
        tg_strbuf_puts(s, "<details><summary>Settings</summary><pre>");
        tg_html_text(s, r->settings);
        tg_strbuf_puts(s, "</pre></details>\n");
    }
}

int tg_report_save_html(const struct tg_report *r, const struct tg_tool *t, const char *path,
                        struct tg_err *err)
{
    struct tg_strbuf s;
    tg_strbuf_init(&s, 1 << 28);
    tg_strbuf_puts(&s, head);
    element(&s, "title", r->title);
    tg_strbuf_puts(&s, "</head><body>\n");
    element(&s, "h1", r->title);
    tg_strbuf_puts(&s, "<p><code>");
    tg_html_text(&s, r->student_path);
    tg_strbuf_puts(&s, "</code>");
    if (r->teacher_path) {
        tg_strbuf_puts(&s, " from <code>");
        tg_html_text(&s, r->teacher_path);
        tg_strbuf_puts(&s, "</code>");
    }
    if (r->verdict_count)
        tg_strbuf_printf(&s, " <span class=\"badge %s\">%s</span>", r->failed ? "bad" : "ok",
                         r->failed ? "FAILED" : "passed");
    tg_strbuf_puts(&s, "</p>\n");
    side_by_side(&s, r);
    checks(&s, r);
    kl_by_position(&s, r);
    loss_curves(&s, r);
    layers(&s, r);
    how_made(&s, r, t);
    tg_strbuf_puts(&s, "</body></html>\n");
    int status = s.failed ? tg_fail(err, TG_ERR_NOMEM, "no memory for the report")
                          : tg_file_write(path, s.text, s.len, err);
    tg_strbuf_release(&s);
    return status;
}
