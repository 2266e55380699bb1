/* Rows of a sweep: sweep.jsonl, the table. */
#include "tools/sweep.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/table.h"

enum { MAX_LINES = 1 << 28 };

static int read_text(struct tg_json v, const char *key, char *to, size_t size, struct tg_err *err)
{
    const char *text = "";
    int status = tg_json_get_str(v, key, &text, err);
    snprintf(to, size, "%s", text);
    return status;
}

static int read_row(struct tg_sweep_row *row, struct tg_json v, struct tg_err *err)
{
    int64_t layers = 0, kept = 0;
    int status = read_text(v, "run", row->name, sizeof row->name, err);
    if (status == TG_OK)
        status = read_text(v, "mixer", row->mixer, sizeof row->mixer, err);
    if (status == TG_OK)
        status = read_text(v, "keep", row->keep, sizeof row->keep, err);
    if (status == TG_OK)
        status = tg_json_get_int(v, "layers", 1, 1 << 20, &layers, err);
    if (status == TG_OK)
        status = tg_json_get_int(v, "kept", 0, layers, &kept, err);
    if (status == TG_OK)
        status = tg_json_get_bool_or(v, "trained", &row->trained, err);
    if (status == TG_OK)
        status = tg_json_get_num_or(v, "seconds", 0, 1e12, &row->seconds, err);
    row->layers = (size_t)layers;
    row->kept = (size_t)kept;
    return status == TG_OK ? tg_results_read_json(&row->results, tg_json_key(v, "results"), err)
                           : status;
}

static int read_lines(struct tg_sweep *s, const char *path, const char *text, size_t len,
                      struct tg_err *err)
{
    int status = TG_OK;
    for (size_t at = 0; at < len && status == TG_OK;) {
        size_t n = strcspn(text + at, "\n");
        struct tg_json_doc *doc = NULL;
        struct tg_sweep_row row = {.name = ""};
        if (n > 0 && tg_json_parse(&doc, text + at, n, path, 0, NULL) == TG_OK) {
            status = read_row(&row, tg_json_root(doc), err);
            if (status == TG_OK)
                status = tg_sweep_put(s, &row, err);
        }
        tg_results_release(&row.results);
        tg_json_free(doc);
        at += n + 1;
    }
    return status;
}

int tg_sweep_load(struct tg_sweep *s, const char *path, struct tg_err *err)
{
    char *text = NULL;
    size_t len = 0;
    if (!tg_path_exists(path))
        return TG_OK;
    int status = tg_file_read(path, MAX_LINES, &text, &len, err);
    if (status == TG_OK)
        status = read_lines(s, path, text, len, err);
    tg_free(text);
    return status;
}

static void write_row(const struct tg_sweep_row *row, struct tg_json_out *out)
{
    tg_jout_object(out, NULL);
    tg_jout_str(out, "run", row->name);
    tg_jout_str(out, "mixer", row->mixer);
    tg_jout_str(out, "keep", row->keep);
    tg_jout_int(out, "layers", (int64_t)row->layers);
    tg_jout_int(out, "kept", (int64_t)row->kept);
    tg_jout_bool(out, "trained", row->trained);
    tg_jout_num(out, "seconds", row->seconds);
    tg_jout_object(out, "results");
    tg_results_write_json(&row->results, out);
    tg_jout_end_object(out);
    tg_jout_end_object(out);
}

void tg_sweep_write_json(const struct tg_sweep *s, struct tg_json_out *out, const char *key)
{
    tg_jout_array(out, key);
    for (size_t i = 0; i < s->count; i++)
        write_row(&s->rows[i], out);
    tg_jout_end_array(out);
}

int tg_sweep_save(const struct tg_sweep *s, const char *path, struct tg_err *err)
{
    struct tg_strbuf text;
    tg_strbuf_init(&text, MAX_LINES);
    for (size_t i = 0; i < s->count; i++) {
        struct tg_json_out out;
        tg_jout_init(&out, &text, 0);
        write_row(&s->rows[i], &out);
        tg_strbuf_puts(&text, "\n");
    }
    int status = text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory for its lines", path)
                             : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    return status;
}

const struct tg_sweep_row *tg_sweep_find(const struct tg_sweep *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->rows[i].name, name) == 0)
            return &s->rows[i];
    return NULL;
}

int tg_sweep_put(struct tg_sweep *s, struct tg_sweep_row *row, struct tg_err *err)
{
    struct tg_sweep_row *old = (struct tg_sweep_row *)(void *)tg_sweep_find(s, row->name);
    if (!old && !tg_grow(&s->rows, &s->cap, s->count + 1, sizeof *s->rows))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the sweep's rows");
    if (old)
        tg_results_release(&old->results);
    else
        old = &s->rows[s->count++];
    *old = *row;
    row->results = (struct tg_results){0};
    return TG_OK;
}

void tg_sweep_release(struct tg_sweep *s)
{
    for (size_t i = 0; i < s->count; i++)
        tg_results_release(&s->rows[i].results);
    tg_free(s->rows);
    memset(s, 0, sizeof *s);
}

double tg_sweep_recall(const struct tg_sweep_row *row, const char *task)
{
    double sum = 0;
    size_t n = 0;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "recall.%s%s", task ? task : "", task ? "." : "");
    for (size_t i = 0; i < row->results.count; i++) {
        const struct tg_result *r = &row->results.items[i];
        if (strncmp(r->path, prefix, strlen(prefix)) != 0)
            continue;
        sum += r->value;
        n++;
    }
    return n ? sum / (double)n : NAN;
}

enum { COLUMNS = 12 };
static const char *const heads[COLUMNS] = {"mixer", "keep", "kept",   "KV/token", "state", "KL",
                                           "top-1", "ppl",  "recall", "needle",   "kv",    "mqar"};

static void cells_of(const struct tg_sweep_row *row, char cells[COLUMNS][TG_TABLE_CELL])
{
    static const char *const tasks[] = {NULL, "needle", "kv", "mqar"};
    static const char *const numbers[] = {"kl", "top1", "ppl"};
    enum { FIRST_NUMBER = 5, FIRST_TASK = 8 };
    const struct tg_results *r = &row->results;
    snprintf(cells[0], TG_TABLE_CELL, "%.80s%s", row->mixer,
             row->trained || row->kept == row->layers ? "" : ", untrained");
    snprintf(cells[1], TG_TABLE_CELL, "%s", row->keep);
    snprintf(cells[2], TG_TABLE_CELL, "%zu/%zu", row->kept, row->layers);
    tg_bytes_text(tg_results_get(r, "kv_bytes_per_token"), cells[3], TG_TABLE_CELL);
    tg_bytes_text(tg_results_get(r, "state_bytes"), cells[4], TG_TABLE_CELL);
    for (size_t i = 0; i < 3; i++)
        tg_number_text(tg_results_get(r, numbers[i]), cells[FIRST_NUMBER + i], TG_TABLE_CELL);
    for (size_t i = 0; i < 4; i++) {
        double v = tg_sweep_recall(row, tasks[i]);
        snprintf(cells[FIRST_TASK + i], TG_TABLE_CELL, isnan(v) ? "-" : "%.3f", v);
    }
}

void tg_sweep_print(const struct tg_sweep *s, const struct tg_tool *t)
{
    struct tg_table table;
    struct tg_strbuf line;
    tg_strbuf_init(&line, 1 << 16);
    for (size_t c = 0; c < COLUMNS; c++)
        tg_strbuf_printf(&line, "%s%s", c ? "|" : "", heads[c]);
    tg_table_init(&table, line.text);
    for (size_t i = 0; i < s->count; i++) {
        char cells[COLUMNS][TG_TABLE_CELL];
        cells_of(&s->rows[i], cells);
        tg_strbuf_clear(&line);
        for (size_t c = 0; c < COLUMNS; c++)
            tg_strbuf_printf(&line, "%s%s", c ? "|" : "", cells[c]);
        tg_table_row(&table, "%s", line.text);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
    tg_strbuf_release(&line);
}

int tg_sweep_save_md(const struct tg_sweep *s, const char *path, struct tg_err *err)
{
    struct tg_strbuf text;
    tg_strbuf_init(&text, 1 << 24);
    for (size_t c = 0; c < COLUMNS; c++)
        tg_strbuf_printf(&text, "| %s ", heads[c]);
    tg_strbuf_puts(&text, "|\n");
    for (size_t c = 0; c < COLUMNS; c++)
        tg_strbuf_puts(&text, c < 2 ? "|---" : "|---:");
    tg_strbuf_puts(&text, "|\n");
    for (size_t i = 0; i < s->count; i++) {
        char cells[COLUMNS][TG_TABLE_CELL];
        cells_of(&s->rows[i], cells);
        for (size_t c = 0; c < COLUMNS; c++)
            tg_strbuf_printf(&text, "| %s ", cells[c]);
        tg_strbuf_puts(&text, "|\n");
    }
    int status = text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory for the table", path)
                             : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    return status;
}
