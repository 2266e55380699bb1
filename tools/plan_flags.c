/* Options of a plan from the command line: one --layer is LIST=MIXER[,OPTION=VALUE]... */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "convert/export.h"
#include "tools/groups.h"

static int bad_layer(const char *text, const char *what, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE, "layer: '%.160s' is not LIST=MIXER,OPTION=VALUE,...: %s",
                   text, what);
}

/* "window=64", into one of the mixer's options; "name" may be that of plan.json or the flag's. */
static int take_option(const char *text, char *item, struct tg_plan_layer *to, struct tg_err *err)
{
    char *equals = strchr(item, '='), name[64], where[240];
    if (!equals)
        return bad_layer(text, "an option without '='", err);
    *equals = '\0';
    snprintf(name, sizeof name, "%.63s", item);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : *c;
    for (int k = 0; k < TG_PLAN_KEYS; k++)
        if (strcmp(tg_plan_rows[k].name, name) == 0) {
            const struct tg_plan_option *row = &tg_plan_rows[k];
            const struct tg_option o = {.name = row->name,
                                        .type = row->store == TG_STORE_ERROR ? TG_OPT_MAYBE_NUM
                                                                             : TG_OPT_MAYBE,
                                        .lo = row->lo,
                                        .hi = row->hi,
                                        .choice = row->choice};
            snprintf(where, sizeof where, "layer: %.120s: %s", text, name);
            return tg_option_set(&o, &to->set[k], equals + 1, where, err);
        }
    const char *names[TG_PLAN_KEYS];
    for (int k = 0; k < TG_PLAN_KEYS; k++)
        names[k] = tg_plan_rows[k].name;
    const char *near = tg_nearest(name, names, TG_PLAN_KEYS);
    return tg_fail(err, TG_ERR_VALUE,
                   near ? "layer: '%.120s': unknown option '%s': did you mean '%s'?"
                        : "layer: '%.120s': unknown option '%s'",
                   text, name, near);
}

static int take_mixer(const char *text, const char *name, struct tg_plan_layer *to,
                      struct tg_err *err)
{
    if (strcmp(name, "keep") == 0)
        return TG_OK;
    to->mixer = tg_mixer_schema_find(name);
    if (to->mixer && to->mixer->flags & TG_MIXER_PLAN)
        return TG_OK;
    char list[1024] = "keep";
    for (size_t i = 0; tg_choice_mixer(i); i++) {
        strncat(list, ", ", sizeof list - strlen(list) - 1);
        strncat(list, tg_choice_mixer(i), sizeof list - strlen(list) - 1);
    }
    return tg_fail(err, TG_ERR_VALUE, "layer: '%.120s': mixer '%.64s' is not one of %s", text, name,
                   list);
}

/* `body`, what follows LIST= in `text`, or all of it */
static int take_body(const char *text, const char *body, struct tg_plan_layer *to,
                     struct tg_err *err)
{
    char *copy = tg_strdup(body), *rest = copy;
    if (!copy)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the command line");
    int status = take_mixer(text, strsep(&rest, ","), to, err);
    for (char *item; status == TG_OK && (item = strsep(&rest, ","));)
        status = to->mixer ? take_option(text, item, to, err)
                           : bad_layer(text, "a layer that is kept has no options", err);
    tg_free(copy);
    return status;
}

static int take_layer(const char *text, struct tg_plan_override *to, struct tg_err *err)
{
    const char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return bad_layer(text, "no layers before '='", err);
    if ((size_t)(equals - text) >= sizeof to->layers)
        return bad_layer(text, "the list is too long", err);
    snprintf(to->layers, sizeof to->layers, "%.*s", (int)(equals - text), text);
    return take_body(text, equals + 1, &to->to, err);
}

int tg_plan_mixer_read(const char *text, struct tg_plan_layer *to, struct tg_err *err)
{
    memset(to, 0, sizeof *to);
    int status = take_body(text, text, to, err);
    if (status == TG_OK && !to->mixer)
        status = tg_fail(err, TG_ERR_VALUE, "'%s' is no mixer", text);
    return status;
}

int tg_plan_flags_read(const struct tg_plan_flags *f, struct tg_plan_request *r, struct tg_err *err)
{
    memset(r, 0, sizeof *r);
    r->options = (struct tg_plan_options){
        .mixer = f->mixer, .keep = f->keep, .sinks = -1, .overrides = r->overrides};
    memcpy(r->options.set, f->set, sizeof f->set);
    if (f->layers.count > TG_PLAN_MAX_OVERRIDES)
        return tg_fail(err, TG_ERR_VALUE, "layer: %zu times, at most %d", f->layers.count,
                       TG_PLAN_MAX_OVERRIDES);
    r->options.override_count = f->layers.count;
    for (size_t i = 0; i < f->layers.count; i++) {
        int status = take_layer(f->layers.items[i], &r->overrides[i], err);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_plan_request_for(struct tg_plan_request *r, const char *target,
                        const struct tg_model_spec *teacher, const struct tg_parse *given,
                        struct tg_err *err)
{
    const struct tg_target *t = tg_target_find(target);
    const bool mixer = tg_parse_given(given, "mixer");
    struct tg_plan_layer to;
    char text[256];
    if (!t || !t->plan)
        return TG_OK;
    int status = t->plan(teacher, mixer ? r->options.mixer : NULL, text, sizeof text, err);
    if (status == TG_OK)
        status = tg_plan_mixer_read(text, &to, err);
    if (status)
        return status;
    r->options.mixer = to.mixer->name;
    for (int k = 0; k < TG_PLAN_KEYS; k++)
        if (to.set[k].given && !r->options.set[k].given)
            r->options.set[k] = to.set[k];
    if (!t->keep || tg_parse_given(given, "keep"))
        return TG_OK;
    size_t every = 0;
    snprintf(r->keep, sizeof r->keep, "%s", t->keep);
    if (sscanf(t->keep, "every:%zu", &every) == 1 && every > teacher->layer_count)
        snprintf(r->keep, sizeof r->keep, "every:%zu", teacher->layer_count);
    r->options.keep = r->keep;
    return TG_OK;
}

int tg_plan_check_for(const struct tg_plan *p, const char *target,
                      const struct tg_model_spec *teacher, struct tg_err *err)
{
    const struct tg_target *t = tg_target_find(target);
    struct tg_model_spec student;
    struct tg_remarks notes = {0};
    if (!t)
        return TG_OK;
    int status = tg_surgery_spec(teacher, p, &student, err);
    if (status)
        return status;
    status = tg_target_fits(t, &student, false, &notes, err);
    tg_remarks_release(&notes);
    tg_spec_release(&student);
    return status;
}

bool tg_plan_flags_given(const struct tg_parse *p)
{
    for (const struct tg_option *o = tg_plan_flag_options; o->name; o++)
        if (tg_parse_given(p, o->name))
            return true;
    return false;
}

void tg_plan_flags_write_json(const struct tg_plan_flags *f, struct tg_json_out *out)
{
    tg_jout_str(out, "mixer", f->mixer);
    tg_jout_str(out, "keep", f->keep);
    tg_jout_array(out, "layers");
    for (size_t i = 0; i < f->layers.count; i++)
        tg_jout_str(out, NULL, f->layers.items[i]);
    tg_jout_end_array(out);
    for (int k = 0; k < TG_PLAN_KEYS; k++)
        if (f->set[k].given)
            tg_plan_option_write_json((enum tg_plan_key)k, f->set[k].value, out);
}
