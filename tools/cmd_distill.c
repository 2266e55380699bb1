/* tegu distill: training stages over a hybrid, resumable in OUT.run. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "distill/stage.h"
#include "tools/groups.h"
#include "tools/output.h"
#include "tools/recipe.h"
#include "tools/run_dir.h"
#include "tools/settings_json.h"
#include "tools/subject.h"

struct settings {
    const char *teacher, *recipe;
    struct tg_texts stages;
    struct tg_data_flags data;
    struct tg_run_flags run;
    struct tg_export_flags export;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "teacher", TG_OPT_TEXT, AT(teacher), NULL, "T",
     "the model to match; only ce stages go without", 0, 0, NULL, false},
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
    {"machine", ""}, {"teacher", ""}, {"student", ""},
    {"seed", ""},    {"data", ""},    {"stages", "state log.jsonl"},
    {NULL, NULL},
};

struct job {
    struct tg_tool *t;
    struct settings *set;
    struct tg_recipe recipe;
    struct tg_subject teacher, student;
    struct tg_run_dir dir;
    struct tg_data *data;
};

static bool wants_teacher(const struct tg_recipe *r)
{
    for (size_t i = 0; i < r->stage_count; i++)
        for (size_t k = 0; tg_stages[k]; k++)
            if (strcmp(tg_stages[k]->name, r->stages[i].kind) == 0 && tg_stages[k]->needs_teacher)
                return true;
    return false;
}

static int open_run(struct job *j, struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out out;
    tg_strbuf_init(&text, 1 << 24);
    tg_jout_init(&out, &text, 2);
    tg_jout_object(&out, NULL);
    tg_settings_machine(&out, j->t);
    tg_jout_str(&out, "teacher", j->teacher.hash);
    tg_jout_str(&out, "student", j->student.hash);
    tg_jout_int(&out, "seed", j->t->set.seed);
    int status = tg_settings_data(&out, &j->set->data, true, err);
    tg_settings_stages(&out, &j->recipe);
    tg_jout_end_object(&out);
    tg_strbuf_puts(&text, "\n");
    if (status == TG_OK && text.failed)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for the settings");
    if (status == TG_OK)
        status =
            tg_run_dir_open(&j->dir, j->t->args[1], text.text, run_files, j->t->set.force, err);
    tg_strbuf_release(&text);
    if (status == TG_OK && j->dir.resumed)
        tg_note(j->t, "going on with the run in %s", j->dir.path);
    return status;
}

static int train(struct job *j, struct tg_err *err)
{
    struct tg_data_settings ds = {
        .files = (char **)(void *)j->set->data.files.items,
        .file_count = j->set->data.files.count,
        .length = (size_t)j->set->data.length,
        .recall_mix = j->set->data.recall_mix,
        .held_out = 0.05,
        .seed = (uint64_t)j->t->set.seed,
    };
    int status = tg_data_open(&j->data, &ds, j->student.tok, j->student.model->spec.vocab, err);
    struct tg_train_job job = {
        .teacher = j->teacher.model,
        .student = j->student.model,
        .data = j->data,
        .stages = j->recipe.stages,
        .stage_count = j->recipe.stage_count,
        .seed = (uint64_t)j->t->set.seed,
        .run_dir = j->dir.path,
        .fingerprint = j->dir.settings,
        .save_every = j->set->run.save_every,
        .progress = &j->t->progress,
    };
    tg_recipe_note_precision(&j->recipe, j->t);
    if (status == TG_OK)
        status = tg_train(&job, err);
    return status;
}

static int write_out(struct job *j, struct tg_err *err)
{
    const char *student = j->t->args[0], *out = j->t->args[1];
    bool taught = j->set->teacher != NULL;
    struct tg_checkpoint_job job = {
        .model = j->student.model,
        .arch = j->set->export.arch,
        .dtype = j->set->export.dtype,
        .max_shard = j->set->export.max_shard,
        .tokenizer_dir = student,
        .teacher_hash = taught ? j->teacher.hash : j->student.hash,
        .teacher_name = tg_path_base(taught ? j->set->teacher : student),
        .made_from = student,
        .same_teacher = !taught,
        .settings = j->dir.settings,
    };
    int status = tg_checkpoint_write(j->t, &job, out, err);
    if (status == TG_OK && j->t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *o = tg_print_json_begin(&doc);
        tg_jout_str(o, "out", out);
        tg_jout_str(o, "run", j->dir.path);
        tg_settings_stages(o, &j->recipe);
        return tg_print_json_end(&doc, err);
    }
    if (status == TG_OK)
        tg_note(j->t, "%s: the trained hybrid; %s/log.jsonl: its training", out, j->dir.path);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    struct job j = {.t = t, .set = settings, .dir = {.lock = -1}};
    struct settings *set = settings;
    int status = set->recipe
                     ? tg_recipe_load(&j.recipe, set->recipe, (struct tg_parse *)t->parse, err)
                     : TG_OK;
    if (status == TG_OK && !set->teacher)
        set->teacher = j.recipe.teacher;
    if (status == TG_OK && tg_recipe_stages(&j.recipe, &set->stages, err) != TG_OK)
        status = TG_EXIT_USAGE;
    if (status == TG_OK && set->data.files.count == 0)
        status = tg_usage(err, "option '--data FILE' is required (or data.files in a recipe)");
    if (status == TG_OK && !set->teacher && wants_teacher(&j.recipe))
        status = tg_usage(err, "option '--teacher T' is required by these stages");
    if (status == TG_OK)
        status = tg_output_check(t, t->args[1], err);
    if (status == TG_OK)
        status = tg_output_apart(t->args[1], t->args[0], err);
    if (status == TG_OK && set->teacher)
        status = tg_output_apart(t->args[1], set->teacher, err);
    if (status == TG_OK)
        status =
            tg_subject_open(t, t->args[0], TG_SUBJECT_TOKENIZER | TG_SUBJECT_HASH, &j.student, err);
    if (status == TG_OK && set->teacher)
        status = tg_subject_open(t, set->teacher, TG_SUBJECT_HASH, &j.teacher, err);
    if (status == TG_OK && set->teacher)
        status = tg_subjects_match(&j.teacher, set->teacher, &j.student, t->args[0], err);
    if (status == TG_OK)
        status = open_run(&j, err);
    if (status == TG_OK)
        status = train(&j, err);
    if (status == TG_OK)
        status = write_out(&j, err);
    if (status == TG_ERR_INTERRUPTED)
        tg_fail(err, TG_ERR_INTERRUPTED, "stopped; the same command goes on from here (%s)",
                j.dir.path);
    else if (status < 0 && !j.data)
        tg_run_dir_forget(&j.dir);
    tg_data_close(j.data);
    tg_run_dir_close(&j.dir);
    tg_subject_close(&j.teacher);
    tg_subject_close(&j.student);
    tg_recipe_release(&j.recipe);
    return status;
}

const struct tg_command tg_cmd_distill = {
    .name = "distill",
    .args = "STUDENT OUT",
    .min_args = 2,
    .max_args = 2,
    .details =
        "Trains STUDENT and writes it to OUT. The run lives in OUT.run: interrupted at any moment, "
        "the same command goes on\n"
        "and ends with the same weights; with other settings it refuses, and --force begins again.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0},
               {tg_data_options, offsetof(struct settings, data)},
               {tg_run_options, offsetof(struct settings, run)},
               {tg_export_options, offsetof(struct settings, export)}},
    .run = run,
};
