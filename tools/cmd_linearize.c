/* tegu linearize: surgery. The hybrid with inherited weights, before any training. */
#include <stdio.h>

#include "base/file.h"
#include "linearize/surgery/surgery.h"
#include "tools/groups.h"
#include "tools/output.h"
#include "tools/plan_view.h"
#include "tools/subject.h"

struct settings {
    const char *plan, *dtype;
    int64_t max_shard;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "plan", TG_OPT_TEXT, AT(plan), NULL, "F", "what becomes of each layer, by tegu plan", 0, 0,
     NULL, true},
    {0, "dtype", TG_OPT_CHOICE, AT(dtype), "bf16", "T", "weights as", 0, 0, tg_choice_weight_dtype,
     false},
    {0, "max-shard-size", TG_OPT_BYTES, AT(max_shard), "5G", "S",
     "weights in files of at most S bytes", 0, 9e15, NULL, false},
    {0},
};
#undef AT

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    const char *teacher_path = t->args[0], *out_path = t->args[1];
    struct tg_subject teacher = {0};
    struct tg_plan plan = {0};
    struct tg_model *student = NULL;
    int status = tg_output_check(t, out_path, err);
    if (status == TG_OK)
        status = tg_output_apart(out_path, teacher_path, err);
    if (status == TG_OK)
        status = tg_subject_open(t, teacher_path, TG_SUBJECT_HASH, &teacher, err);
    if (status == TG_OK)
        status = tg_plan_load(&plan, set->plan, &teacher.model->spec, err);
    if (status == TG_OK)
        status = tg_surgery_apply(teacher.model, &plan, &student, err);
    if (status == TG_OK) {
        struct tg_checkpoint_job job = {
            .model = student,
            .dtype = set->dtype,
            .max_shard = set->max_shard,
            .tokenizer_dir = teacher_path,
            .teacher_hash = teacher.hash,
            .teacher_name = tg_path_base(teacher_path),
        };
        status = tg_checkpoint_write(t, &job, out_path, err);
    }
    if (status == TG_OK && t->set.json) {
        struct tg_json_doc_out doc;
        struct tg_json_out *out = tg_print_json_begin(&doc);
        tg_jout_str(out, "out", out_path);
        tg_jout_int(out, "params", (int64_t)tg_spec_param_count(&student->spec));
        tg_jout_int(out, "kv_bytes_per_token",
                    (int64_t)tg_spec_kv_bytes_per_token(&student->spec, 2));
        tg_jout_int(out, "state_bytes", (int64_t)tg_spec_state_bytes(&student->spec));
        status = tg_print_json_end(&doc, err);
    } else if (status == TG_OK) {
        tg_plan_print(t, &teacher.model->spec, &student->spec);
    }
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
               "from the softmax layers is.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
