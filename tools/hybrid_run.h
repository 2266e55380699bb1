/* The main job as a library of tools: what runs from one teacher share, and one resumable run of
 * plan, linearize, distill, write, validate and report. hybridize makes one, sweep one for each
 * choice.
 *
 * Each step leaves a file in OUT.run, written by rename and kept only as long as the settings that
 * it came from are the same; OUT itself appears last. So the same command goes on after any
 * interruption. */
#ifndef TG_TOOLS_HYBRID_RUN_H
#define TG_TOOLS_HYBRID_RUN_H

#include "distill/data.h"
#include "tools/groups.h"
#include "tools/recipe.h"
#include "tools/report/report.h"
#include "tools/run_dir.h"
#include "tools/subject.h"

struct tg_hybrid_settings {
    struct tg_texts stages;
    struct tg_plan_flags plan;
    struct tg_rank_flags rank;
    struct tg_data_flags data;
    struct tg_run_flags run;
    struct tg_validation validation;
    struct tg_validation_data vdata;
    struct tg_export_flags export;
};

/* What all runs of a command share. The caller sets the first block, then in order: check, open the
 * teacher (tg_subject_open), open the data. */
struct tg_hybrid_base {
    struct tg_tool *t;
    struct tg_hybrid_settings *set;
    const char *teacher_path;
    const char *hidden_dir;  /* of tg_train_job */
    struct tg_report *times; /* where sampling and ranking note theirs; NULL: nowhere */

    struct tg_recipe recipe; /* its stages are those of all runs */
    struct tg_subject teacher;
    struct tg_data *data;
    struct tg_ids validation;
    struct tg_lookback look; /* of the training text, measured for the first student */
    bool looked;
};
/* Everything that can be known to be wrong before any work: usage errors. */
int tg_hybrid_check(struct tg_hybrid_base *b, struct tg_err *err);
/* Training and validation text; without --data the teacher's own, sampled into sample_path unless
 * it is there. */
int tg_hybrid_open_data(struct tg_hybrid_base *b, const char *sample_path, struct tg_err *err);
/* The ranking at `path`, made if it is not there */
int tg_hybrid_rank(struct tg_hybrid_base *b, const char *path, struct tg_rank *rank,
                   struct tg_err *err);
/* A plan that cannot be is refused before the ranking is made: tried on a ranking of equal layers.
 */
int tg_hybrid_check_plan(const struct tg_hybrid_base *b, const struct tg_plan_options *o,
                         struct tg_err *err);
/* Groups machine, teacher, seed, data and rank of a run's settings, into the object that is open */
int tg_hybrid_write_base(const struct tg_hybrid_base *b, struct tg_json_out *out,
                         struct tg_err *err);
/* A checkpoint's validation as --validation says; `teacher` false: without the teacher's numbers */
int tg_hybrid_validate(const struct tg_hybrid_base *b, struct tg_model *student, bool teacher_known,
                       struct tg_results *results, struct tg_err *err);
/* The plan's layers with nothing but a window instead; window 0: each layer's own */
int tg_hybrid_untrained(const struct tg_hybrid_base *b, const struct tg_plan *plan, size_t window,
                        struct tg_model **model, struct tg_err *err);
void tg_hybrid_release(struct tg_hybrid_base *b);

/* One run. The caller sets the first block. */
struct tg_hybrid_run {
    struct tg_hybrid_base *base;
    const char *out;
    const struct tg_plan_flags *plan_flags; /* written into run.json */
    const struct tg_plan_options *options;  /* the same, read */
    const char *rank_path;                  /* NULL: rank.json in the run's directory */
    bool among_others; /* the teacher and the untrained window are measured elsewhere */

    struct tg_run_dir dir;
    char *plan_path, *own_rank_path, *sample_path, *log_path, *json_path, *html_path;
    struct tg_plan plan;
    struct tg_model *student;
    struct tg_report report;
};
/* Opens OUT.run: settings other than those it was begun with are refused. */
int tg_hybrid_open(struct tg_hybrid_run *r, struct tg_err *err);
/* Plan, training, checkpoint, validation, report: r->report holds the results. */
int tg_hybrid_make(struct tg_hybrid_run *r, struct tg_err *err);
void tg_hybrid_close(struct tg_hybrid_run *r);

#endif
