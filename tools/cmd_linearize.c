/* tegu linearize: surgery. The hybrid with inherited weights, before any training. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "distill/calibrate.h"
#include "linearize/surgery/surgery.h"
#include "tools/groups.h"
#include "tools/output.h"
#include "tools/plan_view.h"
#include "tools/subject.h"
#include "tools/table.h"

struct settings {
    struct tg_plan_flags flags;
    const char *plan, *rank, *dtype;
    struct tg_texts files;
    int64_t tokens, length, max_shard;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "plan", TG_OPT_TEXT, AT(plan), NULL, "F",
     "what becomes of each layer, by tegu plan; without it the plan's own options say so", 0, 0,
     NULL, false},
    {0, "rank", TG_OPT_TEXT, AT(rank), NULL, "F", "ranking by tegu rank, for --keep auto:N", 0, 0,
     NULL, false},
    {0, "data", TG_OPT_TEXTS, AT(files), NULL, "FILE",
     "closed-form start: fit each head's output gain to the teacher on this text (or token ids); "
     "a part of it: F@0:85%",
     0, 0, NULL, false},
    {0, "tokens", TG_OPT_COUNT, AT(tokens), "32k", "N", "tokens of --data that are used", 1, 1e12,
     NULL, false},
    {0, "length", TG_OPT_COUNT, AT(length), "1024", "T", "tokens of a sequence", 1, 1 << 24, NULL,
     false},
    {0, "dtype", TG_OPT_CHOICE, AT(dtype), "bf16", "T", "weights as", 0, 0, tg_choice_weight_dtype,
     false},
    {0, "max-shard-size", TG_OPT_BYTES, AT(max_shard), "5G", "S",
     "weights in files of at most S bytes", 0, 9e15, NULL, false},
    {0},
};
#undef AT

/* What --data is for: the teacher's attention measured, and what the closed form did to each layer.
 * Empty without it. */
struct fits {
    struct tg_ids ids;
    struct tg_lookback look;
    bool *changed; /* [layers], owned; NULL: not done */
    struct tg_gain_result *results;
    size_t layers;
};
static void fits_release(struct fits *f)
{
    tg_ids_release(&f->ids);
    tg_lookback_release(&f->look);
    tg_free(f->changed);
    tg_free(f->results);
}

static int measure(struct tg_tool *t, const struct settings *set, const struct tg_subject *teacher,
                   struct fits *f, struct tg_err *err)
{
    int status = tg_texts_read(&set->files, teacher->tok, teacher->model->spec.vocab, &f->ids, err);
    if (status == TG_OK)
        status =
            tg_calibrate_lookback(teacher->model, f->ids.data, f->ids.count, (size_t)set->length,
                                  TG_LOOKBACK_WINDOWS, &f->look, &t->progress, err);
    return status;
}

/* Gains scale columns of o; a state-space layer has none, and its first values are the measured
 * ones already. */
static bool takes_gains(const struct tg_mixer_schema *mixer)
{
    for (size_t i = 0; mixer && i < mixer->param_count; i++)
        if (strcmp(mixer->params[i].name, "o.weight") == 0)
            return true;
    return false;
}

static int fit(struct tg_tool *t, const struct settings *set, const struct tg_plan *plan,
               const struct tg_subject *teacher, struct tg_model *student, struct fits *f,
               struct tg_err *err)
{
    f->layers = plan->count;
    f->changed = tg_alloc_array(f->layers, sizeof *f->changed);
    f->results = tg_alloc_array(f->layers, sizeof *f->results);
    if (!f->changed || !f->results)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for %zu layers", f->layers);
    bool any = false;
    for (size_t l = 0; l < f->layers; l++)
        any |= f->changed[l] = takes_gains(plan->layers[l].mixer);
    if (!any) {
        tg_free(f->changed);
        f->changed = NULL;
        return TG_OK;
    }
    return tg_calibrate_gains(teacher->model, student, f->changed, f->ids.data, f->ids.count,
                              (size_t)set->length, (size_t)set->tokens, f->results, &t->progress,
                              err);
}

static void fits_print(const struct tg_tool *t, const struct fits *f)
{
    if (!f->changed)
        return;
    struct tg_table table;
    printf("\nclosed form: relative error of each changed layer, gains of its heads\n");
    tg_table_init(&table, "layer|error before|after|lowest gain|highest|at a limit");
    for (size_t l = 0; l < f->layers; l++) {
        const struct tg_gain_result *r = &f->results[l];
        if (f->changed[l])
            tg_table_row(&table, "%zu|%.4f|%.4f|%.3f|%.3f|%zu", l, r->before, r->after, r->lowest,
                         r->highest, r->at_limit);
    }
    tg_table_print(&table, stdout, t->color);
    tg_table_release(&table);
}

static void fits_write_json(const struct fits *f, struct tg_json_out *out)
{
    if (!f->changed)
        return;
    tg_jout_array(out, "closed_form");
    for (size_t l = 0; l < f->layers; l++) {
        const struct tg_gain_result *r = &f->results[l];
        if (!f->changed[l])
            continue;
        tg_jout_object(out, NULL);
        tg_jout_int(out, "layer", (int64_t)l);
        tg_jout_num(out, "before", r->before);
        tg_jout_num(out, "after", r->after);
        tg_jout_num(out, "lowest_gain", r->lowest);
        tg_jout_num(out, "highest_gain", r->highest);
        tg_jout_int(out, "at_limit", (int64_t)r->at_limit);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
}

static int show(const struct tg_tool *t, const char *out_path, const struct tg_model *teacher,
                const struct tg_model *student, const struct fits *f, struct tg_err *err)
{
    if (!t->set.json) {
        tg_plan_print(t, &teacher->spec, &student->spec);
        fits_print(t, f);
        return TG_OK;
    }
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_jout_str(out, "out", out_path);
    tg_jout_int(out, "params", (int64_t)tg_spec_param_count(&student->spec));
    tg_jout_int(out, "kv_bytes_per_token", (int64_t)tg_spec_kv_bytes_per_token(&student->spec, 2));
    tg_jout_int(out, "state_bytes", (int64_t)tg_spec_state_bytes(&student->spec));
    fits_write_json(f, out);
    return tg_print_json_end(&doc, err);
}

static int make_plan(const struct settings *set, const struct tg_model_spec *teacher,
                     struct tg_plan *plan, struct tg_err *err)
{
    struct tg_plan_request ask;
    struct tg_rank rank = {0};
    if (set->plan)
        return tg_plan_load(plan, set->plan, teacher, err);
    int status = tg_plan_flags_read(&set->flags, &ask, err);
    if (status == TG_OK && set->rank)
        status = tg_rank_load(&rank, set->rank, err);
    if (status == TG_OK)
        status = tg_plan_make(plan, teacher, &ask.options, set->rank ? &rank : NULL, err);
    tg_rank_release(&rank);
    return status;
}

/* The hybrid, with its options as settings of the record */
static int write_out(struct tg_tool *t, const struct settings *set,
                     const struct tg_subject *teacher, const struct tg_model *student,
                     struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out out;
    tg_strbuf_init(&text, 1 << 20);
    tg_jout_init(&out, &text, 0);
    tg_jout_object(&out, NULL);
    tg_parse_write_json(t->parse, &out, "options");
    tg_jout_end_object(&out);
    const struct tg_checkpoint_job job = {
        .model = student,
        .dtype = set->dtype,
        .max_shard = set->max_shard,
        .tokenizer_dir = t->args[0],
        .teacher_hash = teacher->hash,
        .teacher_name = tg_path_base(t->args[0]),
        .made_from = t->args[0],
        .settings = text.text,
    };
    int status = text.failed ? tg_fail(err, TG_ERR_NOMEM, "no memory for the settings")
                             : tg_checkpoint_write(t, &job, t->args[1], err);
    tg_strbuf_release(&text);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    const char *teacher_path = t->args[0], *out_path = t->args[1];
    struct tg_subject teacher = {0};
    struct tg_plan plan = {0};
    struct fits fits = {0};
    struct tg_model *student = NULL;
    if (set->files.count == 0 &&
        (tg_parse_given(t->parse, "tokens") || tg_parse_given(t->parse, "length")))
        return tg_usage(err, "options --tokens and --length are for --data FILE");
    if (set->plan && (set->rank || tg_plan_flags_given(t->parse)))
        return tg_usage(err, "option --plan says all: options of a plan do not stand beside it");
    unsigned flags = TG_SUBJECT_HASH | (set->files.count ? TG_SUBJECT_TOKENIZER_IF_ANY : 0);
    int status = tg_output_check(t, out_path, err);
    if (status == TG_OK)
        status = tg_output_apart(out_path, teacher_path, err);
    if (status == TG_OK)
        status = tg_subject_open(t, teacher_path, flags, &teacher, err);
    if (status == TG_OK)
        status = make_plan(set, &teacher.model->spec, &plan, err);
    if (status == TG_OK && set->files.count)
        status = measure(t, set, &teacher, &fits, err);
    if (status == TG_OK)
        status = tg_surgery_apply(teacher.model, &plan, &fits.look, &student, err);
    if (status == TG_OK && set->files.count)
        status = fit(t, set, &plan, &teacher, student, &fits, err);
    if (status == TG_OK)
        status = write_out(t, set, &teacher, student, err);
    if (status == TG_OK)
        status = show(t, out_path, teacher.model, student, &fits, err);
    fits_release(&fits);
    tg_model_free(student);
    tg_plan_release(&plan);
    tg_subject_close(&teacher);
    return status;
}

const struct tg_command tg_cmd_linearize = {
    .name = "linearize",
    .args = "TEACHER OUT",
    .min_args = 2,
    .max_args = 2,
    .details = "Writes the untrained hybrid to OUT, a native checkpoint. What can be inherited "
               "from the softmax layers is. With "
               "--data the mixers also learn how far back each head of the teacher looks, and each "
               "head's output is then scaled by the gain that fits the teacher's activations "
               "best.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}, {tg_plan_flag_options, offsetof(struct settings, flags)}},
    .run = run,
};
