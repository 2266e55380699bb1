/* tegu hybridize: the main job, as one resumable run: rank, plan, linearize, distill, write,
 * validate what was written, report. */
#include "tools/hybrid_run.h"
#include "tools/output.h"

struct settings {
    const char *recipe;
    struct tg_hybrid_settings run;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "recipe", TG_OPT_TEXT, AT(recipe), NULL, "R.json",
     "settings from a file; options given here override it", 0, 0, NULL, false},
    {0, "stage", TG_OPT_TEXTS, AT(run.stages), NULL, "STAGE",
     "training stages in order, each KIND:K=V,K=V: align:tokens=1M kl:tokens=3M,lr=1e-4; without "
     "any: align:tokens=1M kl:tokens=3M",
     0, 0, NULL, false},
    {0},
};
#undef AT

static int find_paths(struct tg_hybrid_base *b, struct tg_hybrid_run *r, struct tg_err *err)
{
    if (b->t->arg_count == 2) {
        b->teacher_path = b->t->args[0];
        r->out = b->t->args[1];
        return TG_OK;
    }
    b->teacher_path = b->recipe.teacher;
    r->out = b->t->args[0];
    return b->teacher_path
               ? TG_OK
               : tg_usage(err,
                          "missing argument: TEACHER OUT (or a recipe that names the teacher)");
}

static int prepare(struct tg_hybrid_base *b, struct tg_hybrid_run *r, struct tg_plan_request *ask,
                   const char *recipe, struct tg_err *err)
{
    int status =
        recipe ? tg_recipe_load(&b->recipe, recipe, (struct tg_parse *)b->t->parse, err) : TG_OK;
    if (status == TG_OK)
        status = find_paths(b, r, err);
    if (status == TG_OK)
        status = tg_hybrid_check(b, err);
    if (status == TG_OK && tg_plan_flags_read(&b->set->plan, ask, err) != TG_OK)
        status = TG_EXIT_USAGE;
    if (status == TG_OK)
        status = tg_output_check(b->t, r->out, err);
    if (status == TG_OK)
        status = tg_output_apart(r->out, b->teacher_path, err);
    if (status == TG_OK)
        status = tg_subject_open(b->t, b->teacher_path, TG_SUBJECT_TOKENIZER | TG_SUBJECT_HASH,
                                 &b->teacher, err);
    if (status == TG_OK)
        status = tg_plan_request_for(ask, b->set->export.arch, &b->teacher.model->spec, b->t->parse,
                                     err);
    return status == TG_OK ? tg_hybrid_check_plan(b, &ask->options, err) : status;
}

static int show(const struct tg_hybrid_run *r, struct tg_tool *t, struct tg_err *err)
{
    int status = TG_OK;
    if (t->set.json)
        status = tg_report_print_json(&r->report, t, err);
    else
        tg_report_print(&r->report, t);
    if (status == TG_OK)
        tg_note(t, "%s: the hybrid; %s: the report", r->out, r->html_path);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    struct settings *set = settings;
    struct tg_plan_request ask;
    struct tg_hybrid_base base = {.t = t, .set = &set->run};
    struct tg_hybrid_run r = {.base = &base, .plan_flags = &set->run.plan, .options = &ask.options};
    base.times = &r.report;
    r.dir.lock = -1;
    int status = prepare(&base, &r, &ask, set->recipe, err);
    if (status == TG_OK)
        status = tg_hybrid_open(&r, err);
    if (status == TG_OK)
        status = tg_hybrid_open_data(&base, r.sample_path, err);
    if (status == TG_OK)
        status = tg_hybrid_make(&r, err);
    if (status == TG_OK)
        status = show(&r, t, err);
    if (status == TG_ERR_INTERRUPTED)
        tg_fail(err, TG_ERR_INTERRUPTED, "stopped; the same command goes on from here (%s)",
                r.dir.path);
    else if (status < 0 && !base.data)
        tg_run_dir_forget(&r.dir);
    if (status == TG_OK && r.report.failed)
        status = TG_EXIT_CHECK;
    tg_hybrid_close(&r);
    tg_hybrid_release(&base);
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
               {tg_plan_flag_options, offsetof(struct settings, run.plan)},
               {tg_data_options, offsetof(struct settings, run.data)},
               {tg_run_options, offsetof(struct settings, run.run)},
               {tg_rank_options, offsetof(struct settings, run.rank)},
               {tg_validation_data_options, offsetof(struct settings, run.vdata)},
               {tg_validation_options, offsetof(struct settings, run.validation)},
               {tg_export_options, offsetof(struct settings, run.export)}},
    .run = run,
};
