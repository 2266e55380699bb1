/* What a sweep found: its rows, kept in sweep.jsonl, and how people see them. */
#ifndef TG_TOOLS_SWEEP_H
#define TG_TOOLS_SWEEP_H

#include "tools/command.h"
#include "tools/eval/results.h"

/* One line of sweep.jsonl. The teacher's own row has keep "all", an untrained window's one of the
 * sweep's. */
struct tg_sweep_row {
    char name[160];           /* also the run's folder */
    char mixer[96], keep[96]; /* as they were asked for */
    size_t layers, kept;
    bool trained;
    double seconds;
    struct tg_results results; /* ppl, kl, recall.TASK.SIZE, params, ... of this model alone */
};
struct tg_sweep {
    struct tg_sweep_row *rows; /* owned, [count] */
    size_t count, cap;
};

/* Reads lines that are whole (a run killed while writing leaves a piece of one); a file that is not
 * there is empty. */
int tg_sweep_load(struct tg_sweep *s, const char *path, struct tg_err *err);
/* All lines anew, by rename */
int tg_sweep_save(const struct tg_sweep *s, const char *path, struct tg_err *err);
const struct tg_sweep_row *tg_sweep_find(const struct tg_sweep *s, const char *name);
/* Takes the row over, results included; one of the same name is replaced. */
int tg_sweep_put(struct tg_sweep *s, struct tg_sweep_row *row, struct tg_err *err);
void tg_sweep_release(struct tg_sweep *s);
void tg_sweep_write_json(const struct tg_sweep *s, struct tg_json_out *out, const char *key);

/* Mean share of right answers over a task's sizes ("needle"), of all tasks alike with NULL; NaN:
 * none */
double tg_sweep_recall(const struct tg_sweep_row *row, const char *task);
/* One table: on the terminal, as Markdown */
void tg_sweep_print(const struct tg_sweep *s, const struct tg_tool *t);
int tg_sweep_save_md(const struct tg_sweep *s, const char *path, struct tg_err *err);
/* KL and recall against constant state and against changed layers per kept one, as one picture */
int tg_sweep_save_svg(const struct tg_sweep *s, const char *path, struct tg_err *err);

#endif
