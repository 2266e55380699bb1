/* tegu sweep: the same budget for each mixer and each choice of layers that keep their softmax: one
 * run of hybridize each, one table, one picture.
 *
 * OUT/sweep.run holds the settings, the sampled text and the ranking that all share, OUT/NAME.run
 * a run, OUT/NAME its hybrid, OUT/sweep.jsonl a line for each that is finished. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/hybrid_run.h"
#include "tools/output.h"
#include "tools/settings_json.h"
#include "tools/sweep.h"
#include "tools/sweep_choices.h"

struct settings {
    const char *out;
    struct tg_texts mixers, keeps;
    int64_t tokens;
    struct tg_counts baselines;
    bool teacher_cache;
    struct tg_hybrid_settings run;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "mixers", TG_OPT_WORDS, AT(mixers), NULL, "LIST",
     "mixers to try, with options after colons: gated_window,lolcats:window=32:sinks=2", 0, 0, NULL,
     true},
    {0, "keep", TG_OPT_TEXTS, AT(keeps), "auto:2", "LIST",
     "layers that keep their softmax, one choice or several: ratio:3,ratio:7,1,last is three", 0, 0,
     NULL, false},
    {0, "tokens", TG_OPT_COUNT, AT(tokens), "0", "N",
     "budget of each run: a quarter for stage align, the rest for kl, as hybridize does", 0, 1e12,
     NULL, false},
    {0, "stage", TG_OPT_TEXTS, AT(run.stages), NULL, "STAGE",
     "instead of --tokens: training stages in order, each KIND:K=V,K=V", 0, 0, NULL, false},
    {'o', "out", TG_OPT_TEXT, AT(out), "sweep", "DIR", "folder of the runs and of what they found",
     0, 0, NULL, false},
    {0, "baselines", TG_OPT_COUNTS, AT(baselines), "64,128", "W,W",
     "untrained windows in place of the changed layers, measured beside the runs; 0: none", 0,
     1 << 24, NULL, false},
    {0, "teacher-cache", TG_OPT_FLAG, AT(teacher_cache), NULL, NULL,
     "keep the teacher's hidden states of stage kl in DIR/sweep.run/hidden (4 bytes times width a "
     "token), so that it reads that text once for all runs",
     0, 0, NULL, false},
    {0, "windows", TG_OPT_COUNT, AT(run.validation.windows), "0", "N",
     "only the first N windows of the validation text; 0: all of it", 0, 1e9, NULL, false},
    {0, "items", TG_OPT_COUNT, AT(run.validation.items), "50", "N",
     "items of each recall task and size", 1, 1e6, NULL, false},
    {0, "recall", TG_OPT_WORDS, AT(run.validation.recall),
     "needle:256,needle:1024,kv:8,kv:32,mqar:8,mqar:32", "LIST",
     "recall tasks and sizes: needle (tokens of text), kv (lines), mqar (pairs), copy (words)", 0,
     0, NULL, false},
    {0},
};
#undef AT

static const struct tg_run_files shared_files[] = {
    {"machine", ""},       {"teacher", ""},
    {"seed", ""},          {"data", "sampled.safetensors"},
    {"rank", "rank.json"}, {"stages", "hidden"},
    {"validation", ""},    {NULL, NULL},
};

struct job {
    struct tg_tool *t;
    struct settings *set;
    struct tg_hybrid_base base;
    struct tg_sweep_choices choices;
    char stages[2][48];
    const char *stage_texts[2];
    bool made_out;
    struct tg_run_dir dir;
    char *lines_path, *rank_path, *sample_path, *hidden_path;
    struct tg_sweep found;
};

/* The budget as hybridize would split it: one part align, three parts kl. */
static int split_tokens(struct job *j, struct tg_err *err)
{
    struct settings *set = j->set;
    if ((set->run.stages.count > 0) == (set->tokens > 0))
        return tg_usage(err, "the budget is --tokens N or else --stage STAGE");
    if (set->tokens == 0)
        return TG_OK;
    if (set->tokens < 4)
        return tg_usage(err, "option --tokens: %lld is fewer than 4", (long long)set->tokens);
    long long align = (long long)set->tokens / 4;
    snprintf(j->stages[0], sizeof j->stages[0], "align:tokens=%lld", align);
    snprintf(j->stages[1], sizeof j->stages[1], "kl:tokens=%lld", (long long)set->tokens - align);
    j->stage_texts[0] = j->stages[0];
    j->stage_texts[1] = j->stages[1];
    set->run.stages = (struct tg_texts){.items = j->stage_texts, .count = 2};
    return TG_OK;
}

static int check_plans(struct job *j, struct tg_err *err)
{
    for (size_t i = 0; i < j->choices.count; i++) {
        int status = tg_hybrid_check_plan(&j->base, &j->choices.items[i].ask.options, err);
        if (status) {
            tg_err_prefix(err, "%s, --keep %s", j->choices.items[i].mixer,
                          j->choices.items[i].keep);
            return status;
        }
    }
    return TG_OK;
}

static int prepare(struct job *j, struct tg_err *err)
{
    static const char *suite[] = {"ppl", "kl", "recall"};
    j->set->run.validation.suite = (struct tg_texts){.items = suite, .count = 3};
    int status = split_tokens(j, err);
    if (status == TG_OK)
        status = tg_hybrid_check(&j->base, err);
    if (status == TG_OK)
        status = tg_sweep_choices_read(&j->choices, &j->set->mixers, &j->set->keeps, err);
    if (status == TG_OK)
        status = tg_output_apart(j->set->out, j->base.teacher_path, err);
    if (status == TG_OK)
        status = tg_subject_open(j->t, j->base.teacher_path, TG_SUBJECT_TOKENIZER | TG_SUBJECT_HASH,
                                 &j->base.teacher, err);
    return status == TG_OK ? check_plans(j, err) : status;
}

static int write_settings(struct job *j, struct tg_strbuf *text, struct tg_err *err)
{
    const struct tg_hybrid_settings *set = &j->set->run;
    struct tg_json_out out;
    tg_jout_init(&out, text, 2);
    tg_jout_object(&out, NULL);
    int status = tg_hybrid_write_base(&j->base, &out, err);
    tg_settings_stages(&out, &j->base.recipe);
    tg_jout_object(&out, "validation");
    tg_jout_array(&out, "data");
    for (size_t i = 0; i < set->vdata.files.count; i++)
        tg_jout_str(&out, NULL, set->vdata.files.items[i]);
    tg_jout_end_array(&out);
    tg_jout_int(&out, "length", set->vdata.length);
    tg_jout_int(&out, "windows", set->validation.windows);
    tg_jout_int(&out, "items", set->validation.items);
    tg_jout_array(&out, "recall");
    for (size_t i = 0; i < set->validation.recall.count; i++)
        tg_jout_str(&out, NULL, set->validation.recall.items[i]);
    tg_jout_end_array(&out);
    tg_jout_str(&out, "dtype", set->export.dtype);
    tg_jout_end_object(&out);
    tg_jout_end_object(&out);
    tg_strbuf_puts(text, "\n");
    if (status == TG_OK && text->failed)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for the settings");
    return status;
}

static int open_sweep(struct job *j, struct tg_err *err)
{
    struct tg_strbuf text;
    char *inside = tg_path_join(j->set->out, "sweep");
    tg_strbuf_init(&text, 1 << 24);
    j->made_out = !tg_path_exists(j->set->out);
    int status = write_settings(j, &text, err);
    if (status == TG_OK && !inside)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK)
        status = tg_run_dir_open(&j->dir, inside, text.text, shared_files, j->t->set.force, err);
    tg_strbuf_release(&text);
    tg_free(inside);
    if (status)
        return status;
    j->lines_path = tg_path_join(j->set->out, "sweep.jsonl");
    j->rank_path = tg_run_dir_file(&j->dir, "rank.json");
    j->sample_path = tg_run_dir_file(&j->dir, "sampled.safetensors");
    j->hidden_path = tg_run_dir_file(&j->dir, "hidden");
    if (!j->lines_path || !j->rank_path || !j->sample_path || !j->hidden_path)
        return tg_fail(err, TG_ERR_NOMEM, "no memory");
    j->base.hidden_dir = j->set->teacher_cache ? j->hidden_path : NULL;
    if (!j->dir.resumed) { /* lines of other settings */
        unlink(j->lines_path);
        return TG_OK;
    }
    tg_note(j->t, "going on with the sweep in %s", j->set->out);
    return tg_sweep_load(&j->found, j->lines_path, err);
}

/* The numbers of one model out of a validation beside its teacher */
static int own_results(const struct tg_results *from, struct tg_results *to, struct tg_err *err)
{
    int status = TG_OK;
    for (size_t i = 0; i < from->count && status == TG_OK; i++) {
        const char *path = from->items[i].path;
        size_t n = strlen(path);
        if (strncmp(path, "teacher.", 8) == 0 || strncmp(path, "buckets.", 8) == 0)
            continue;
        if (strncmp(path, "student.", 8) == 0)
            status = tg_results_put(to, from->items[i].value, err, "%s", path + 8);
        else if (n > 8 && strcmp(path + n - 8, ".student") == 0)
            status = tg_results_put(to, from->items[i].value, err, "%.*s", (int)(n - 8), path);
        else
            status = tg_results_put(to, from->items[i].value, err, "%s", path);
    }
    return status;
}

static int add_line(struct job *j, struct tg_sweep_row *row, const struct tg_results *results,
                    struct tg_err *err)
{
    int status = own_results(results, &row->results, err);
    if (status == TG_OK)
        status = tg_sweep_put(&j->found, row, err);
    tg_results_release(&row->results);
    return status == TG_OK ? tg_sweep_save(&j->found, j->lines_path, err) : status;
}

static size_t count_kept(const struct tg_plan *plan)
{
    size_t kept = 0;
    for (size_t l = 0; l < plan->count; l++)
        kept += plan->layers[l].mixer == NULL;
    return kept;
}

/* An untrained model, the teacher itself or windows in its place */
static int measure(struct job *j, struct tg_model *model, struct tg_sweep_row *row,
                   struct tg_err *err)
{
    struct tg_results results = {0};
    double began = tg_now();
    int status = tg_hybrid_validate(&j->base, model, true, &results, err);
    row->seconds = tg_now() - began;
    if (status == TG_OK)
        status = add_line(j, row, &results, err);
    tg_results_release(&results);
    return status;
}

static int measure_teacher(struct job *j, struct tg_err *err)
{
    const size_t layers = j->base.teacher.model->spec.layer_count;
    struct tg_sweep_row row = {
        .name = "teacher", .mixer = "teacher", .keep = "all", .layers = layers, .kept = layers};
    if (tg_sweep_find(&j->found, row.name))
        return TG_OK;
    tg_note(j->t, "measuring the teacher");
    return measure(j, j->base.teacher.model, &row, err);
}

static int plan_window(struct job *j, const char *keep, size_t window, struct tg_plan *plan,
                       struct tg_err *err)
{
    const struct tg_plan_options o = {
        .mixer = "window", .keep = keep, .window = window, .sinks = -1};
    struct tg_rank rank = {0};
    bool needs_rank = strncmp(keep, "auto", 4) == 0;
    int status = needs_rank ? tg_hybrid_rank(&j->base, j->rank_path, &rank, err) : TG_OK;
    if (status == TG_OK)
        status =
            tg_plan_make(plan, &j->base.teacher.model->spec, &o, needs_rank ? &rank : NULL, err);
    tg_rank_release(&rank);
    return status;
}

static int measure_window(struct job *j, const char *keep, size_t window, struct tg_err *err)
{
    struct tg_sweep_row row = {.layers = j->base.teacher.model->spec.layer_count};
    struct tg_plan plan = {0};
    struct tg_model *model = NULL;
    snprintf(row.mixer, sizeof row.mixer, "window:window=%zu", window);
    snprintf(row.keep, sizeof row.keep, "%s", keep);
    tg_sweep_name(row.mixer, keep, ".untrained", row.name, sizeof row.name);
    if (window == 0 || tg_sweep_find(&j->found, row.name))
        return TG_OK;
    tg_note(j->t, "measuring an untrained window of %zu, keep %s", window, keep);
    int status = plan_window(j, keep, window, &plan, err);
    row.kept = count_kept(&plan);
    if (status == TG_OK)
        status = tg_surgery_apply(j->base.teacher.model, &plan, NULL, &model, err);
    if (status == TG_OK)
        status = measure(j, model, &row, err);
    tg_model_free(model);
    tg_plan_release(&plan);
    return status;
}

static int make_run(struct job *j, size_t i, struct tg_err *err)
{
    struct tg_sweep_choice *c = &j->choices.items[i];
    struct tg_sweep_row row = {.trained = true};
    char *out = tg_path_join(j->set->out, c->name);
    struct tg_hybrid_run r = {.base = &j->base,
                              .out = out,
                              .plan_flags = &c->flags,
                              .options = &c->ask.options,
                              .rank_path = j->rank_path,
                              .among_others = true};
    bool done = tg_sweep_find(&j->found, c->name) != NULL;
    tg_note(j->t, "run %zu of %zu: %s, keep %s%s", i + 1, j->choices.count, c->mixer, c->keep,
            done ? ": done" : "");
    if (done || !out) {
        tg_free(out);
        return done ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory");
    }
    double began = tg_now();
    int status = tg_hybrid_open(&r, err);
    if (status == TG_OK)
        status = tg_hybrid_make(&r, err);
    row.seconds = tg_now() - began;
    row.layers = r.plan.count;
    row.kept = count_kept(&r.plan);
    snprintf(row.name, sizeof row.name, "%s", c->name);
    snprintf(row.mixer, sizeof row.mixer, "%s", c->mixer);
    snprintf(row.keep, sizeof row.keep, "%s", c->keep);
    if (status == TG_OK)
        status = add_line(j, &row, &r.report.results, err);
    tg_hybrid_close(&r);
    tg_free(out);
    return status;
}

static int show(struct job *j, struct tg_err *err)
{
    char *md = tg_path_join(j->set->out, "sweep.md"), *svg = tg_path_join(j->set->out, "sweep.svg");
    int status =
        md && svg ? tg_sweep_save_md(&j->found, md, err) : tg_fail(err, TG_ERR_NOMEM, "no memory");
    if (status == TG_OK)
        status = tg_sweep_save_svg(&j->found, svg, err);
    if (status == TG_OK && j->t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *out = tg_print_json_begin(&doc);
        tg_sweep_write_json(&j->found, out, "runs");
        status = tg_print_json_end(&doc, err);
    } else if (status == TG_OK) {
        tg_sweep_print(&j->found, j->t);
    }
    if (status == TG_OK)
        tg_note(j->t, "%s: the table; %s: the picture", md, svg);
    tg_free(md);
    tg_free(svg);
    return status;
}

static int work(struct job *j, struct tg_err *err)
{
    int status = tg_hybrid_open_data(&j->base, j->sample_path, err);
    if (status == TG_OK)
        status = measure_teacher(j, err);
    for (size_t k = 0; k < j->choices.keep_count; k++)
        for (size_t w = 0; w < j->set->baselines.count && status == TG_OK; w++)
            status =
                measure_window(j, j->choices.keeps[k], (size_t)j->set->baselines.items[w], err);
    for (size_t i = 0; i < j->choices.count && status == TG_OK; i++)
        status = make_run(j, i, err);
    return status == TG_OK ? show(j, err) : status;
}

static void release(struct job *j)
{
    tg_sweep_release(&j->found);
    tg_free(j->lines_path);
    tg_free(j->rank_path);
    tg_free(j->sample_path);
    tg_free(j->hidden_path);
    tg_sweep_choices_release(&j->choices);
    tg_run_dir_close(&j->dir);
    tg_hybrid_release(&j->base);
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    struct job j = {.t = t, .set = settings, .dir = {.lock = -1}};
    j.base = (struct tg_hybrid_base){.t = t, .set = &j.set->run, .teacher_path = t->args[0]};
    int status = prepare(&j, err);
    if (status == TG_OK)
        status = open_sweep(&j, err);
    if (status == TG_OK)
        status = work(&j, err);
    if (status == TG_ERR_INTERRUPTED)
        tg_fail(err, TG_ERR_INTERRUPTED, "stopped; the same command goes on from here (%s)",
                j.set->out);
    else if (status < 0 && !j.base.data && j.dir.made) {
        tg_run_dir_forget(&j.dir);
        if (j.made_out)
            tg_dir_remove(j.set->out, NULL);
    }
    if (j.set->run.stages.items == j.stage_texts) /* not the command line's own */
        j.set->run.stages = (struct tg_texts){0};
    release(&j);
    return status;
}

const struct tg_command tg_cmd_sweep = {
    .name = "sweep",
    .args = "TEACHER",
    .min_args = 1,
    .max_args = 1,
    .details = "For each mixer and each choice of --keep one run of hybridize with the same "
               "budget, in DIR/MIXER.KEEP, validated the\n"
               "same way: perplexity, KL to the teacher, recall. The ranking is made once. Each "
               "finished run is a line of\n"
               "DIR/sweep.jsonl; all of them are the table printed and in DIR/sweep.md, and the "
               "picture DIR/sweep.svg. Interrupted at\n"
               "any moment, the same command goes on, also with more mixers or more choices; with "
               "other settings it refuses, and\n"
               "--force begins again.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0},
               {tg_data_options, offsetof(struct settings, run.data)},
               {tg_run_options, offsetof(struct settings, run.run)},
               {tg_rank_options, offsetof(struct settings, run.rank)},
               {tg_validation_data_options, offsetof(struct settings, run.vdata)},
               {tg_export_options, offsetof(struct settings, run.export)}},
    .run = run,
};
