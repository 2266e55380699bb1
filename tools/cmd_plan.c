/* tegu plan: which layers change, and to what. Reads the config alone. */
#include <stdio.h>

#include "convert/target.h"
#include "linearize/surgery/surgery.h"
#include "tools/groups.h"
#include "tools/output.h"
#include "tools/plan_view.h"

struct settings {
    struct tg_plan_flags plan;
    const char *rank, *target, *out;
};
static const char *choice_target(size_t i)
{
    return tg_targets[i] ? tg_targets[i]->name : NULL;
}
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "rank", TG_OPT_TEXT, AT(rank), NULL, "F", "ranking by tegu rank, for --keep auto:N", 0, 0,
     NULL, false},
    {0, "for", TG_OPT_CHOICE, AT(target), NULL, "TARGET",
     "plan so that tegu convert --arch TARGET will fit: its mixer, sizes and layout where no "
     "option "
     "says otherwise",
     0, 0, choice_target, false},
    {'o', "out", TG_OPT_TEXT, AT(out), NULL, "FILE", "write the plan there", 0, 0, NULL, false},
    {0},
};
#undef AT

static int print_json(const struct tg_plan *p, const struct tg_model_spec *teacher,
                      const struct tg_model_spec *student, struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_plan_write_json(p, out, "plan");
    const struct tg_model_spec *both[2] = {teacher, student};
    for (int i = 0; i < 2; i++) {
        tg_jout_object(out, i ? "student" : "teacher");
        tg_jout_int(out, "params", (int64_t)tg_spec_param_count(both[i]));
        tg_jout_int(out, "kv_bytes_per_token", (int64_t)tg_spec_kv_bytes_per_token(both[i], 2));
        tg_jout_int(out, "state_bytes", (int64_t)tg_spec_state_bytes(both[i]));
        tg_jout_end_object(out);
    }
    return tg_print_json_end(&doc, err);
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_model_spec teacher = {0}, student = {0};
    struct tg_rank rank = {0};
    struct tg_plan plan = {0};
    struct tg_plan_request ask;
    int status = tg_plan_flags_read(&set->plan, &ask, err);
    if (status)
        return TG_EXIT_USAGE;
    if (set->out)
        status = tg_output_check(t, set->out, err);
    if (status == TG_OK)
        status = tg_config_read(t->args[0], &teacher, err);
    if (status == TG_OK && set->target)
        status = tg_plan_request_for(&ask, set->target, &teacher, t->parse, err);
    if (status == TG_OK && set->rank)
        status = tg_rank_load(&rank, set->rank, err);
    if (status == TG_OK)
        status = tg_plan_make(&plan, &teacher, &ask.options, set->rank ? &rank : NULL, err);
    if (status == TG_OK && set->target)
        status = tg_plan_check_for(&plan, set->target, &teacher, err);
    if (status == TG_OK)
        status = tg_surgery_spec(&teacher, &plan, &student, err);
    if (status == TG_OK && set->out)
        status = tg_plan_save(&plan, set->out, err);
    if (status == TG_OK && t->set.json)
        status = print_json(&plan, &teacher, &student, err);
    else if (status == TG_OK)
        tg_plan_print(t, &teacher, &student);
    tg_plan_release(&plan);
    tg_rank_release(&rank);
    tg_spec_release(&teacher);
    tg_spec_release(&student);
    return status;
}

const struct tg_command tg_cmd_plan = {
    .name = "plan",
    .args = "TEACHER",
    .min_args = 1,
    .max_args = 1,
    .details = "Prints what each layer becomes, with parameters, KV bytes per token and state "
               "bytes of teacher and hybrid.",
    .settings_size = sizeof(struct settings),
    .groups = {{tg_plan_flag_options, offsetof(struct settings, plan)}, {options, 0}},
    .run = run,
};
