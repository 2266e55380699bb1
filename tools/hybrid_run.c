/* One resumable run of the main job, and what several of them share. */
#include "tools/hybrid_run.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "convert/target.h"
#include "distill/calibrate.h"
#include "distill/rank.h"
#include "distill/sample.h"
#include "tools/eval/validate.h"
#include "tools/output.h"
#include "tools/plan_view.h"
#include "tools/settings_json.h"

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

static void note_time(struct tg_report *r, const char *step, double began)
{
    if (!r || r->step_count == sizeof r->steps / sizeof r->steps[0])
        return;
    size_t n = r->step_count++;
    snprintf(r->steps[n].name, sizeof r->steps[n].name, "%s", step);
    r->steps[n].seconds = tg_now() - began;
}

int tg_hybrid_check(struct tg_hybrid_base *b, struct tg_err *err)
{
    struct tg_results names = {0};
    int status = tg_recipe_stages(&b->recipe, &b->set->stages, err);
    if (status == TG_OK)
        status = tg_validate_names(&b->set->validation, true, &names, err);
    if (status == TG_OK)
        status = tg_checks_prepare(&b->set->validation.fail_if, &names, err);
    tg_results_release(&names);
    if (status == TG_OK && b->set->vdata.length == 0)
        b->set->vdata.length = b->set->data.length;
    return status == TG_OK ? TG_OK : TG_EXIT_USAGE;
}

int tg_hybrid_check_plan(const struct tg_hybrid_base *b, const struct tg_plan_options *o,
                         struct tg_err *err)
{
    const struct tg_model_spec *teacher = &b->teacher.model->spec;
    struct tg_plan plan = {0};
    struct tg_model_spec spec = {0};
    struct tg_rank equal = {.rows = tg_alloc_array(teacher->layer_count, sizeof *equal.rows),
                            .count = teacher->layer_count};
    if (!equal.rows)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a ranking");
    for (size_t l = 0; l < equal.count; l++)
        equal.rows[l].layer = l;
    int status = tg_plan_make(&plan, teacher, o, &equal, err);
    if (status == TG_OK)
        status = tg_surgery_spec(teacher, &plan, &spec, err);
    /* which layers auto keeps is not known yet */
    if (status == TG_OK && (!o->keep || strncmp(o->keep, "auto", 4) != 0))
        status = tg_plan_check_for(&plan, b->set->export.arch, teacher, err);
    tg_spec_release(&spec);
    tg_plan_release(&plan);
    tg_rank_release(&equal);
    return status;
}

int tg_hybrid_write_base(const struct tg_hybrid_base *b, struct tg_json_out *out,
                         struct tg_err *err)
{
    const struct tg_hybrid_settings *set = b->set;
    tg_settings_machine(out, b->t);
    tg_jout_object(out, "teacher");
    tg_jout_str(out, "sha256", b->teacher.hash);
    tg_jout_end_object(out);
    tg_jout_int(out, "seed", b->t->set.seed);
    int status = tg_settings_data(out, &set->data, set->vdata.files.count == 0, err);
    tg_jout_object(out, "rank");
    tg_jout_int(out, "window", set->rank.window);
    tg_jout_int(out, "tokens", set->rank.tokens);
    tg_jout_int(out, "items", set->rank.items);
    tg_jout_int(out, "pairs", set->rank.pairs);
    tg_jout_end_object(out);
    return status;
}

static int write_settings(struct tg_hybrid_run *r, struct tg_strbuf *text, struct tg_err *err)
{
    struct tg_json_out out;
    tg_jout_init(&out, text, 2);
    tg_jout_object(&out, NULL);
    int status = tg_hybrid_write_base(r->base, &out, err);
    tg_jout_object(&out, "plan");
    tg_plan_flags_write_json(r->plan_flags, &out);
    if (tg_target_find(r->base->set->export.arch)) /* plans for it */
        tg_jout_str(&out, "for", r->base->set->export.arch);
    tg_jout_end_object(&out);
    tg_settings_stages(&out, &r->base->recipe);
    tg_jout_end_object(&out);
    tg_strbuf_puts(text, "\n");
    if (status == TG_OK && text->failed)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for the settings");
    return status;
}

int tg_hybrid_open(struct tg_hybrid_run *r, struct tg_err *err)
{
    static const struct {
        const char *name;
        size_t at;
    } files[] = {
        {"plan.json", offsetof(struct tg_hybrid_run, plan_path)},
        {"rank.json", offsetof(struct tg_hybrid_run, own_rank_path)},
        {"log.jsonl", offsetof(struct tg_hybrid_run, log_path)},
        {"sampled.safetensors", offsetof(struct tg_hybrid_run, sample_path)},
        {"report.json", offsetof(struct tg_hybrid_run, json_path)},
        {"report.html", offsetof(struct tg_hybrid_run, html_path)},
    };
    struct tg_strbuf text;
    r->dir.lock = -1;
    tg_strbuf_init(&text, 1 << 24);
    int status = write_settings(r, &text, err);
    if (status == TG_OK)
        status = tg_run_dir_open(&r->dir, r->out, text.text, run_files, r->base->t->set.force, err);
    tg_strbuf_release(&text);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && status == TG_OK; i++) {
        char **path = (char **)(void *)((char *)r + files[i].at);
        *path = tg_run_dir_file(&r->dir, files[i].name);
        if (!*path)
            status = tg_fail(err, TG_ERR_NOMEM, "no memory");
    }
    if (status == TG_OK && r->dir.resumed)
        tg_note(r->base->t, "going on with the run in %s", r->dir.path);
    return status;
}

/* Without --data the teacher writes its own calibration text. */
static int sample_data(struct tg_hybrid_base *b, const char *path, struct tg_err *err)
{
    double began = tg_now();
    if (tg_path_exists(path))
        return TG_OK;
    tg_note(b->t, "no --data: sampling %lld tokens from the teacher",
            (long long)b->set->data.sample_tokens);
    struct tg_sample_settings ss = tg_sample_defaults();
    ss.tokens = (size_t)b->set->data.sample_tokens;
    ss.length = (size_t)b->set->data.length;
    ss.seed = (uint64_t)b->t->set.seed;
    int status = tg_sample_text(b->teacher.model, &ss, path, &b->t->progress, err);
    note_time(b->times, "sample", began);
    return status;
}

int tg_hybrid_open_data(struct tg_hybrid_base *b, const char *sample_path, struct tg_err *err)
{
    struct tg_hybrid_settings *set = b->set;
    size_t vocab = b->teacher.model->spec.vocab;
    char *sampled[1] = {(char *)(void *)sample_path};
    int status = set->data.files.count ? TG_OK : sample_data(b, sample_path, err);
    struct tg_data_settings ds = {
        .files = set->data.files.count ? (char **)(void *)set->data.files.items : sampled,
        .file_count = set->data.files.count ? set->data.files.count : 1,
        .length = (size_t)set->data.length,
        .recall_mix = set->data.recall_mix,
        .held_out = set->vdata.files.count ? 0 : 0.05,
        .seed = (uint64_t)b->t->set.seed,
    };
    if (status == TG_OK)
        status = tg_data_open(&b->data, &ds, b->teacher.tok, vocab, err);
    if (status == TG_OK && set->vdata.files.count)
        status = tg_texts_read(&set->vdata.files, b->teacher.tok, vocab, &b->validation, err);
    for (size_t i = 0; status == TG_OK && !set->vdata.files.count && i < b->data->held_count; i++)
        status = tg_ids_push(&b->validation, b->data->held[i], err);
    if (status == TG_OK && b->validation.count < 2)
        status = tg_fail(err, TG_ERR_VALUE,
                         "validation text: %zu tokens; give more --data or --validate-data",
                         b->validation.count);
    return status;
}

int tg_hybrid_rank(struct tg_hybrid_base *b, const char *path, struct tg_rank *rank,
                   struct tg_err *err)
{
    if (tg_path_exists(path))
        return tg_rank_load(rank, path, err);
    double began = tg_now();
    tg_note(b->t, "ranking the layers");
    struct tg_rank_settings rs = {
        .window = (size_t)b->set->rank.window,
        .tokens = (size_t)b->set->rank.tokens,
        .length = (size_t)b->set->data.length,
        .items = (size_t)b->set->rank.items,
        .pairs = (size_t)b->set->rank.pairs,
        .seed = (uint64_t)b->t->set.seed,
    };
    int status = tg_rank_layers(b->teacher.model, &b->data->recall, b->data->train,
                                b->data->train_count, &rs, rank, &b->t->progress, err);
    if (status == TG_OK)
        status = tg_rank_save(rank, path, err);
    note_time(b->times, "rank", began);
    return status;
}

static int plan_step(struct tg_hybrid_run *r, struct tg_err *err)
{
    const struct tg_model_spec *spec = &r->base->teacher.model->spec;
    char kept[256];
    int status = TG_OK;
    if (tg_path_exists(r->plan_path)) {
        status = tg_plan_load(&r->plan, r->plan_path, spec, err);
    } else {
        struct tg_rank rank = {0};
        bool needs_rank = strncmp(r->options->keep, "auto", 4) == 0;
        if (needs_rank)
            status =
                tg_hybrid_rank(r->base, r->rank_path ? r->rank_path : r->own_rank_path, &rank, err);
        if (status == TG_OK)
            status = tg_plan_make(&r->plan, spec, r->options, needs_rank ? &rank : NULL, err);
        if (status == TG_OK)
            status = tg_plan_check_for(&r->plan, r->base->set->export.arch, spec, err);
        if (status == TG_OK)
            status = tg_plan_save(&r->plan, r->plan_path, err);
        tg_rank_release(&rank);
    }
    if (status == TG_OK)
        tg_note(r->base->t, "softmax stays in layers: %s",
                tg_plan_kept(&r->plan, kept, sizeof kept));
    return status;
}

/* Outputs of layers that are not a mean of values have no natural size: their heads get gains by
 * least squares. */
static int fit_gains(struct tg_hybrid_run *r, struct tg_err *err)
{
    const struct tg_hybrid_base *b = r->base;
    const size_t layers = r->plan.count;
    bool *fitted = tg_alloc_array(layers, sizeof *fitted), any = false;
    struct tg_gain_result *results = tg_alloc_array(layers, sizeof *results);
    int status = fitted && results ? TG_OK : tg_fail(err, TG_ERR_NOMEM, "no memory for gains");
    for (size_t l = 0; l < layers && !status; l++) {
        fitted[l] = r->plan.layers[l].mixer && r->plan.layers[l].mixer->flags & TG_MIXER_BESIDE;
        any = any || fitted[l];
    }
    if (!status && any)
        status = tg_calibrate_gains(b->teacher.model, r->student, fitted, b->data->train,
                                    b->data->train_count, (size_t)b->set->data.length,
                                    TG_LOOKBACK_WINDOWS * (size_t)b->set->data.length, results,
                                    &b->t->progress, err);
    tg_free(fitted);
    tg_free(results);
    return status;
}

/* Surgery, from the teacher's attention on a few windows of the training text: the same in every
 * run, so a run that goes on starts from the same student. */
static int make_student(struct tg_hybrid_run *r, struct tg_err *err)
{
    struct tg_hybrid_base *b = r->base;
    int status = TG_OK;
    if (!b->looked)
        status = tg_calibrate_lookback(b->teacher.model, b->data->train, b->data->train_count,
                                       (size_t)b->set->data.length, TG_LOOKBACK_WINDOWS, &b->look,
                                       &b->t->progress, err);
    b->looked = status == TG_OK;
    if (status == TG_OK)
        status = tg_surgery_apply(b->teacher.model, &r->plan, &b->look, &r->student, err);
    return status == TG_OK ? fit_gains(r, err) : status;
}

static int train_step(struct tg_hybrid_run *r, struct tg_err *err)
{
    const struct tg_hybrid_base *b = r->base;
    double began = tg_now();
    int status = make_student(r, err);
    struct tg_train_job train = {
        .teacher = b->teacher.model,
        .student = r->student,
        .data = b->data,
        .stages = b->recipe.stages,
        .stage_count = b->recipe.stage_count,
        .seed = (uint64_t)b->t->set.seed,
        .run_dir = r->dir.path,
        .fingerprint = r->dir.settings,
        .save_every = b->set->run.save_every,
        .progress = &b->t->progress,
        .hidden_dir = b->hidden_dir,
    };
    tg_recipe_note_precision(&b->recipe, b->t);
    if (status == TG_OK)
        status = tg_train(&train, err);
    note_time(&r->report, "distill", began);
    return status;
}

int tg_hybrid_validate(const struct tg_hybrid_base *b, struct tg_model *student, bool teacher_known,
                       struct tg_results *results, struct tg_err *err)
{
    struct tg_validate_input in = {
        .teacher = b->teacher.model,
        .student = student,
        .tok = b->teacher.tok,
        .ids = b->validation.data,
        .count = b->validation.count,
        .length = (size_t)b->set->vdata.length,
        .set = &b->set->validation,
        .seed = (uint64_t)b->t->set.seed,
        .teacher_known = teacher_known,
        .progress = &b->t->progress,
    };
    return tg_validate_run(&in, results, err);
}

int tg_hybrid_untrained(const struct tg_hybrid_base *b, const struct tg_plan *plan, size_t window,
                        struct tg_model **model, struct tg_err *err)
{
    struct tg_plan plain = {.count = plan->count};
    struct tg_model_spec spec = {0};
    plain.layers = tg_alloc_array(plain.count, sizeof *plain.layers);
    if (!plain.layers)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
    int status = tg_surgery_spec(&b->teacher.model->spec, plan, &spec, err);
    for (size_t l = 0; l < plain.count && status == TG_OK; l++) {
        size_t size = window ? window : spec.layers[l].window;
        if (!plan->layers[l].mixer)
            continue;
        plain.layers[l].mixer = tg_mixer_schema_find("window");
        if (size)
            plain.layers[l].set[TG_PLAN_WINDOW] = tg_given((double)size);
    }
    if (status == TG_OK)
        status = tg_surgery_apply(b->teacher.model, &plain, NULL, model, err);
    tg_spec_release(&spec);
    tg_plan_release(&plain);
    return status;
}

/* The same layers with nothing but a window, untrained: what training had to make good. */
static int validate_untrained(struct tg_hybrid_run *r, struct tg_err *err)
{
    struct tg_model *model = NULL;
    struct tg_results results = {0};
    int status = tg_hybrid_untrained(r->base, &r->plan, 0, &model, err);
    if (status == TG_OK)
        status = tg_hybrid_validate(r->base, model, true, &results, err);
    if (status == TG_OK)
        status = tg_report_add_untrained(&r->report, &results, err);
    tg_results_release(&results);
    tg_model_free(model);
    return status;
}

/* Validates the checkpoint in `tmp` as it was written, then the untrained student. */
static int validate_step(struct tg_hybrid_run *r, const char *tmp, struct tg_model **written,
                         struct tg_err *err)
{
    double began = tg_now();
    int status = tg_model_load(written, tmp, &r->base->t->ctx, err);
    if (status == TG_OK)
        status = tg_hybrid_validate(r->base, *written, r->among_others, &r->report.results, err);
    if (status == TG_OK && !r->among_others)
        status = validate_untrained(r, err);
    if (status == TG_OK)
        status = tg_report_judge(&r->report, &r->base->set->validation.fail_if, err);
    note_time(&r->report, "validate", began);
    return status;
}

static int save_report(struct tg_hybrid_run *r, const struct tg_model_spec *written,
                       struct tg_err *err)
{
    r->report.student_spec = written;
    r->report.settings = r->dir.settings;
    r->report.log_path = r->log_path;
    int status = tg_report_save_json(&r->report, r->base->t, r->json_path, err);
    if (status == TG_OK)
        status = tg_report_save_html(&r->report, r->base->t, r->html_path, err);
    r->report.student_spec = NULL;
    return status;
}

static int write_step(struct tg_hybrid_run *r, struct tg_err *err)
{
    const struct tg_hybrid_base *b = r->base;
    struct tg_staged staged;
    struct tg_model *written = NULL;
    struct tg_checkpoint_job out = {
        .model = r->student,
        .arch = b->set->export.arch,
        .dtype = b->set->export.dtype,
        .max_shard = b->set->export.max_shard,
        .tokenizer_dir = b->teacher_path,
        .teacher_hash = b->teacher.hash,
        .teacher_name = tg_path_base(b->teacher_path),
        .made_from = b->teacher_path,
        .settings = r->dir.settings,
    };
    int status = tg_checkpoint_stage(b->t, &out, r->out, &staged, err);
    if (status)
        return status;
    status = validate_step(r, staged.tmp, &written, err);
    if (status == TG_OK)
        status = save_report(r, &written->spec, err);
    if (status == TG_OK)
        status = tg_checkpoint_describe(b->t, &out, &staged, r->out, &r->report, err);
    if (status == TG_OK)
        status = tg_checkpoint_commit(&staged, r->out, err);
    tg_staged_release(&staged);
    tg_model_free(written);
    return status;
}

int tg_hybrid_make(struct tg_hybrid_run *r, struct tg_err *err)
{
    r->report.title = "From Transformer to hybrid";
    r->report.command = r->base->t->command_line;
    r->report.student_path = r->out;
    r->report.teacher_path = r->base->teacher_path;
    int status = plan_step(r, err);
    if (status == TG_OK)
        status = train_step(r, err);
    return status == TG_OK ? write_step(r, err) : status;
}

void tg_hybrid_close(struct tg_hybrid_run *r)
{
    tg_report_release(&r->report);
    tg_model_free(r->student);
    tg_plan_release(&r->plan);
    tg_free(r->plan_path);
    tg_free(r->own_rank_path);
    tg_free(r->sample_path);
    tg_free(r->log_path);
    tg_free(r->json_path);
    tg_free(r->html_path);
    tg_run_dir_close(&r->dir);
}

void tg_hybrid_release(struct tg_hybrid_base *b)
{
    tg_lookback_release(&b->look);
    tg_ids_release(&b->validation);
    tg_data_close(b->data);
    tg_subject_close(&b->teacher);
    tg_recipe_release(&b->recipe);
}
