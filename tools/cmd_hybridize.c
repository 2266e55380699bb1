/* tegu hybridize: the main job, as one resumable run: rank, plan, linearize, distill, write,
 * validate what was written, report.
 *
 * Each step leaves a file in OUT.run, written by rename and kept only as long as the settings that
 * it came from are the same; OUT itself appears last. So the same command goes on after any
 * interruption. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "distill/rank.h"
#include "distill/sample.h"
#include "tools/eval/validate.h"
#include "tools/groups.h"
#include "tools/output.h"
#include "tools/plan_view.h"
#include "tools/recipe.h"
#include "tools/report/report.h"
#include "tools/run_dir.h"
#include "tools/settings_json.h"
#include "tools/subject.h"

struct settings {
    const char *recipe;
    struct tg_texts stages;
    struct tg_plan_flags plan;
    struct tg_rank_flags rank;
    struct tg_data_flags data;
    struct tg_run_flags run;
    struct tg_validation validation;
    struct tg_validation_data vdata;
    struct tg_export_flags export;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "recipe", TG_OPT_TEXT, AT(recipe), NULL, "R.json",
     "settings from a file; options given here override it", 0, 0, NULL, false},
    {0, "stage", TG_OPT_TEXTS, AT(stages), NULL, "STAGE",
     "training stages in order, each KIND:K=V,K=V: align:tokens=1M kl:tokens=3M,lr=1e-4; without "
     "any: align:tokens=1M kl:tokens=3M",
     0, 0, NULL, false},
    {0},
};
#undef AT

static const struct tg_run_files run_files[] = {
    {"machine", ""},
    {"teacher", ""},
    {"seed", ""},
    {"data", "sampled.safetensors sampled.safetensors.part"},
    {"rank", "rank.json"},
    {"plan", "plan.json"},
    {"stages", "state log.jsonl report.json report.html"},
    {NULL, NULL},
};

struct job {
    struct tg_tool *t;
    struct settings *set;
    const char *teacher_path, *out;
    struct tg_recipe recipe;
    struct tg_plan_request ask;
    struct tg_subject teacher;
    struct tg_run_dir dir;
    char *plan_path, *rank_path, *sample_path, *log_path, *json_path, *html_path;
    struct tg_data *data;
    struct tg_plan plan;
    struct tg_model *student;
    struct tg_ids validation;
    struct tg_report report;
};

static void note_time(struct job *j, const char *step, double began)
{
    size_t n = j->report.step_count;
    if (n == sizeof j->report.steps / sizeof j->report.steps[0])
        return;
    snprintf(j->report.steps[n].name, sizeof j->report.steps[n].name, "%s", step);
    j->report.steps[n].seconds = tg_now() - began;
    j->report.step_count++;
}

/* Everything that can be known to be wrong before any work. */
static int check_settings(struct job *j, struct tg_err *err)
{
    struct tg_results names = {0};
    int status = tg_recipe_stages(&j->recipe, &j->set->stages, err);
    if (status == TG_OK)
        status = tg_plan_flags_read(&j->set->plan, &j->ask, err);
    if (status == TG_OK)
        status = tg_validate_names(&j->set->validation, true, &names, err);
    if (status == TG_OK)
        status = tg_checks_prepare(&j->set->validation.fail_if, &names, err);
    tg_results_release(&names);
    if (status == TG_OK && j->set->vdata.length == 0)
        j->set->vdata.length = j->set->data.length;
    return status;
}

/* A plan that cannot be is refused before the ranking is made: tried on a ranking of equal layers.
 */
static int check_plan(struct job *j, struct tg_err *err)
{
    size_t layers = j->teacher.model->spec.layer_count;
    struct tg_plan plan = {0};
    struct tg_model_spec spec = {0};
    struct tg_rank equal = {.rows = tg_alloc_array(layers, sizeof *equal.rows), .count = layers};
    if (!equal.rows)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a ranking");
    for (size_t l = 0; l < layers; l++)
        equal.rows[l].layer = l;
    int status = tg_plan_make(&plan, &j->teacher.model->spec, &j->ask.options, &equal, err);
    if (status == TG_OK)
        status = tg_surgery_spec(&j->teacher.model->spec, &plan, &spec, err);
    tg_spec_release(&spec);
    tg_plan_release(&plan);
    tg_rank_release(&equal);
    return status;
}

static int write_settings(struct job *j, struct tg_strbuf *text, struct tg_err *err)
{
    const struct settings *set = j->set;
    struct tg_json_out out;
    tg_jout_init(&out, text, 2);
    tg_jout_object(&out, NULL);
    tg_settings_machine(&out, j->t);
    tg_jout_object(&out, "teacher");
    tg_jout_str(&out, "sha256", j->teacher.hash);
    tg_jout_end_object(&out);
    tg_jout_int(&out, "seed", j->t->set.seed);
    int status = tg_settings_data(&out, &set->data, set->vdata.files.count == 0, err);
    tg_jout_object(&out, "rank");
    tg_jout_int(&out, "window", set->rank.window);
    tg_jout_int(&out, "tokens", set->rank.tokens);
    tg_jout_int(&out, "items", set->rank.items);
    tg_jout_int(&out, "pairs", set->rank.pairs);
    tg_jout_end_object(&out);
    tg_jout_object(&out, "plan");
    tg_plan_flags_write_json(&set->plan, &out);
    tg_jout_end_object(&out);
    tg_settings_stages(&out, &j->recipe);
    tg_jout_end_object(&out);
    tg_strbuf_puts(text, "\n");
    if (status == TG_OK && text->failed)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for the settings");
    return status;
}

static int open_run(struct job *j, struct tg_err *err)
{
    static const struct {
        const char *name;
        size_t at;
    } files[] = {
        {"plan.json", offsetof(struct job, plan_path)},
        {"rank.json", offsetof(struct job, rank_path)},
        {"log.jsonl", offsetof(struct job, log_path)},
        {"sampled.safetensors", offsetof(struct job, sample_path)},
        {"report.json", offsetof(struct job, json_path)},
        {"report.html", offsetof(struct job, html_path)},
    };
    struct tg_strbuf text;
    tg_strbuf_init(&text, 1 << 24);
    int status = write_settings(j, &text, err);
    if (status == TG_OK)
        status = tg_run_dir_open(&j->dir, j->out, text.text, run_files, j->t->set.force, err);
    tg_strbuf_release(&text);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && status == TG_OK; i++) {
        char **path = (char **)(void *)((char *)j + files[i].at);
        *path = tg_run_dir_file(&j->dir, files[i].name);
        if (!*path)
            status = tg_fail(err, TG_ERR_NOMEM, "no memory");
    }
    if (status == TG_OK && j->dir.resumed)
        tg_note(j->t, "going on with the run in %s", j->dir.path);
    return status;
}

/* Without --data the teacher writes its own calibration text. */
static int sample_data(struct job *j, struct tg_err *err)
{
    double began = tg_now();
    if (tg_path_exists(j->sample_path))
        return TG_OK;
    tg_note(j->t, "no --data: sampling %lld tokens from the teacher",
            (long long)j->set->data.sample_tokens);
    struct tg_sample_settings ss = tg_sample_defaults();
    ss.tokens = (size_t)j->set->data.sample_tokens;
    ss.length = (size_t)j->set->data.length;
    ss.seed = (uint64_t)j->t->set.seed;
    int status = tg_sample_text(j->teacher.model, &ss, j->sample_path, &j->t->progress, err);
    note_time(j, "sample", began);
    return status;
}

static int open_data(struct job *j, struct tg_err *err)
{
    struct settings *set = j->set;
    size_t vocab = j->teacher.model->spec.vocab;
    char *sampled[1] = {j->sample_path};
    int status = set->data.files.count ? TG_OK : sample_data(j, err);
    struct tg_data_settings ds = {
        .files = set->data.files.count ? (char **)(void *)set->data.files.items : sampled,
        .file_count = set->data.files.count ? set->data.files.count : 1,
        .length = (size_t)set->data.length,
        .recall_mix = set->data.recall_mix,
        .held_out = set->vdata.files.count ? 0 : 0.05,
        .seed = (uint64_t)j->t->set.seed,
    };
    if (status == TG_OK)
        status = tg_data_open(&j->data, &ds, j->teacher.tok, vocab, err);
    if (status == TG_OK && set->vdata.files.count)
        status = tg_texts_read(&set->vdata.files, j->teacher.tok, vocab, &j->validation, err);
    for (size_t i = 0; status == TG_OK && !set->vdata.files.count && i < j->data->held_count; i++)
        status = tg_ids_push(&j->validation, j->data->held[i], err);
    if (status == TG_OK && j->validation.count < 2)
        status = tg_fail(err, TG_ERR_VALUE,
                         "validation text: %zu tokens; give more --data or --validate-data",
                         j->validation.count);
    return status;
}

static int rank_step(struct job *j, struct tg_rank *rank, struct tg_err *err)
{
    if (tg_path_exists(j->rank_path))
        return tg_rank_load(rank, j->rank_path, err);
    double began = tg_now();
    tg_note(j->t, "ranking the layers");
    struct tg_rank_settings rs = {
        .window = (size_t)j->set->rank.window,
        .tokens = (size_t)j->set->rank.tokens,
        .length = (size_t)j->set->data.length,
        .items = (size_t)j->set->rank.items,
        .pairs = (size_t)j->set->rank.pairs,
        .seed = (uint64_t)j->t->set.seed,
    };
    int status = tg_rank_layers(j->teacher.model, &j->data->recall, j->data->train,
                                j->data->train_count, &rs, rank, &j->t->progress, err);
    if (status == TG_OK)
        status = tg_rank_save(rank, j->rank_path, err);
    note_time(j, "rank", began);
    return status;
}

static int plan_step(struct job *j, struct tg_err *err)
{
    const struct tg_model_spec *spec = &j->teacher.model->spec;
    char kept[256];
    int status = TG_OK;
    if (tg_path_exists(j->plan_path)) {
        status = tg_plan_load(&j->plan, j->plan_path, spec, err);
    } else {
        struct tg_rank rank = {0};
        bool needs_rank = strncmp(j->ask.options.keep, "auto", 4) == 0;
        if (needs_rank)
            status = rank_step(j, &rank, err);
        if (status == TG_OK)
            status = tg_plan_make(&j->plan, spec, &j->ask.options, needs_rank ? &rank : NULL, err);
        if (status == TG_OK)
            status = tg_plan_save(&j->plan, j->plan_path, err);
        tg_rank_release(&rank);
    }
    if (status == TG_OK)
        tg_note(j->t, "softmax stays in layers: %s", tg_plan_kept(&j->plan, kept, sizeof kept));
    return status;
}

static int train_step(struct job *j, struct tg_err *err)
{
    double began = tg_now();
    int status = tg_surgery_apply(j->teacher.model, &j->plan, &j->student, err);
    struct tg_train_job train = {
        .teacher = j->teacher.model,
        .student = j->student,
        .data = j->data,
        .stages = j->recipe.stages,
        .stage_count = j->recipe.stage_count,
        .seed = (uint64_t)j->t->set.seed,
        .run_dir = j->dir.path,
        .fingerprint = j->dir.settings,
        .save_every = j->set->run.save_every,
        .progress = &j->t->progress,
    };
    if (status == TG_OK)
        status = tg_train(&train, err);
    note_time(j, "distill", began);
    return status;
}

static struct tg_validate_input validation_of(const struct job *j, struct tg_model *student)
{
    struct tg_validate_input in = {
        .teacher = j->teacher.model,
        .student = student,
        .tok = j->teacher.tok,
        .ids = j->validation.data,
        .count = j->validation.count,
        .length = (size_t)j->set->vdata.length,
        .set = &j->set->validation,
        .seed = (uint64_t)j->t->set.seed,
        .progress = &j->t->progress,
    };
    return in;
}

/* The same layers with nothing but a window, untrained: what training had to make good. */
static int validate_untrained(struct job *j, struct tg_err *err)
{
    const struct tg_mixer_schema *window = tg_mixer_schema_find("window");
    struct tg_plan plan = {.count = j->plan.count};
    struct tg_model *model = NULL;
    struct tg_results results = {0};
    plan.layers = tg_alloc_array(plan.count, sizeof *plan.layers);
    if (!plan.layers)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
    for (size_t l = 0; l < plan.count; l++)
        if (j->plan.layers[l].mixer) {
            size_t size = j->student->spec.layers[l].window;
            plan.layers[l].mixer = window;
            if (size)
                plan.layers[l].set[TG_PLAN_WINDOW] = tg_given((double)size);
        }
    int status = tg_surgery_apply(j->teacher.model, &plan, &model, err);
    struct tg_validate_input in = validation_of(j, model);
    in.teacher_known = true;
    if (status == TG_OK)
        status = tg_validate_run(&in, &results, err);
    if (status == TG_OK)
        status = tg_report_add_untrained(&j->report, &results, err);
    tg_results_release(&results);
    tg_model_free(model);
    tg_plan_release(&plan);
    return status;
}

/* Validates the checkpoint in `tmp` as it was written, then the untrained student. */
static int validate_step(struct job *j, const char *tmp, struct tg_model **written,
                         struct tg_err *err)
{
    double began = tg_now();
    int status = tg_model_load(written, tmp, &j->t->ctx, err);
    struct tg_validate_input in = validation_of(j, *written);
    if (status == TG_OK)
        status = tg_validate_run(&in, &j->report.results, err);
    if (status == TG_OK)
        status = validate_untrained(j, err);
    if (status == TG_OK)
        status = tg_report_judge(&j->report, &j->set->validation.fail_if, err);
    note_time(j, "validate", began);
    return status;
}

static int finish(struct job *j, struct tg_err *err)
{
    char *tmp = NULL;
    struct tg_model *written = NULL;
    struct tg_checkpoint_job out = {
        .model = j->student,
        .dtype = j->set->export.dtype,
        .max_shard = j->set->export.max_shard,
        .tokenizer_dir = j->teacher_path,
        .teacher_hash = j->teacher.hash,
        .teacher_name = tg_path_base(j->teacher_path),
    };
    int status = tg_checkpoint_stage(j->t, &out, j->out, &tmp, err);
    if (status == TG_OK)
        status = validate_step(j, tmp, &written, err);
    if (status == TG_OK) {
        j->report.student_spec = &written->spec;
        j->report.settings = j->dir.settings;
        j->report.log_path = j->log_path;
        status = tg_report_save_json(&j->report, j->t, j->json_path, err);
    }
    if (status == TG_OK)
        status = tg_report_save_html(&j->report, j->t, j->html_path, err);
    if (status == TG_OK)
        status = tg_dir_commit(tmp, j->out, err);
    if (status && tmp)
        tg_dir_remove(tmp, NULL);
    if (status == TG_OK && j->t->set.json)
        status = tg_report_print_json(&j->report, j->t, err);
    else if (status == TG_OK)
        tg_report_print(&j->report, j->t);
    if (status == TG_OK)
        tg_note(j->t, "%s: the hybrid; %s: the report", j->out, j->html_path);
    j->report.student_spec = NULL;
    tg_model_free(written);
    tg_free(tmp);
    return status;
}

static void release(struct job *j)
{
    tg_report_release(&j->report);
    tg_ids_release(&j->validation);
    tg_model_free(j->student);
    tg_plan_release(&j->plan);
    tg_data_close(j->data);
    tg_free(j->plan_path);
    tg_free(j->rank_path);
    tg_free(j->sample_path);
    tg_free(j->log_path);
    tg_free(j->json_path);
    tg_free(j->html_path);
    tg_run_dir_close(&j->dir);
    tg_subject_close(&j->teacher);
    tg_recipe_release(&j->recipe);
}

static int find_paths(struct job *j, struct tg_err *err)
{
    if (j->t->arg_count == 2) {
        j->teacher_path = j->t->args[0];
        j->out = j->t->args[1];
        return TG_OK;
    }
    j->teacher_path = j->recipe.teacher;
    j->out = j->t->args[0];
    return j->teacher_path
               ? TG_OK
               : tg_usage(err,
                          "missing argument: TEACHER OUT (or a recipe that names the teacher)");
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    struct job j = {.t = t, .set = settings, .dir = {.lock = -1}};
    int status = j.set->recipe
                     ? tg_recipe_load(&j.recipe, j.set->recipe, (struct tg_parse *)t->parse, err)
                     : TG_OK;
    if (status == TG_OK)
        status = find_paths(&j, err);
    if (status == TG_OK && check_settings(&j, err) != TG_OK)
        status = TG_EXIT_USAGE;
    j.report.title = "From Transformer to hybrid";
    j.report.command = t->command_line;
    j.report.student_path = j.out;
    j.report.teacher_path = j.teacher_path;
    if (status == TG_OK)
        status = tg_output_check(t, j.out, err);
    if (status == TG_OK)
        status = tg_output_apart(j.out, j.teacher_path, err);
    if (status == TG_OK)
        status = tg_subject_open(t, j.teacher_path, TG_SUBJECT_TOKENIZER | TG_SUBJECT_HASH,
                                 &j.teacher, err);
    if (status == TG_OK)
        status = check_plan(&j, err);
    if (status == TG_OK)
        status = open_run(&j, err);
    if (status == TG_OK)
        status = open_data(&j, err);
    if (status == TG_OK)
        status = plan_step(&j, err);
    if (status == TG_OK)
        status = train_step(&j, err);
    if (status == TG_OK)
        status = finish(&j, err);
    if (status == TG_ERR_INTERRUPTED)
        tg_fail(err, TG_ERR_INTERRUPTED, "stopped; the same command goes on from here (%s)",
                j.dir.path);
    else if (status < 0 && !j.data)
        tg_run_dir_forget(&j.dir);
    if (status == TG_OK && j.report.failed)
        status = TG_EXIT_CHECK;
    release(&j);
    return status;
}

const struct tg_command tg_cmd_hybridize = {
    .name = "hybridize",
    .args = "TEACHER OUT",
    .min_args = 1,
    .max_args = 2,
    .details = "One resumable run in OUT.run: sample text (without --data), rank (for --keep "
               "auto:N), plan, linearize, distill,\n"
               "write, validate what was written, report. OUT appears last. Interrupted at any "
               "moment, the same command goes on;\n"
               "with other settings it refuses, and --force begins again where they differ. If a "
               "--fail-if condition holds, OUT\n"
               "is written all the same, the report says FAILED and the exit status is 3. TEACHER "
               "may stand in the recipe.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0},
               {tg_plan_flag_options, offsetof(struct settings, plan)},
               {tg_data_options, offsetof(struct settings, data)},
               {tg_run_options, offsetof(struct settings, run)},
               {tg_rank_options, offsetof(struct settings, rank)},
               {tg_validation_data_options, offsetof(struct settings, vdata)},
               {tg_validation_options, offsetof(struct settings, validation)},
               {tg_export_options, offsetof(struct settings, export)}},
    .run = run,
};
