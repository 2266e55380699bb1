/* plan.json:
 *
 *   {"mixer": "gated_window",
 *    "layers": [{"layer": 0, "window": 128, "sinks": 1, "feature_map": "hedgehog_softmax"},
 *               {"layer": 1, "mixer": "keep"}]}
 *
 * "mixer" is that of entries without their own (absent: gated_window). Layers that are not listed
 * are kept; so is one whose mixer is "keep". An entry's other keys are the options of
 * options.def. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "linearize/surgery/surgery_internal.h"

static const char *const PLAN_KEYS[] = {"mixer", "layers", NULL};
static const char *const ENTRY_KEYS[] = {"layer", "mixer",
#define TG_PLAN_OPTION(id, name, ...) name,
#include "linearize/surgery/options.def"
#undef TG_PLAN_OPTION
                                         NULL};

/* "FILE: layers[2]" for messages */
static const char *place(struct tg_json v, const char *where, char *buf, size_t size)
{
    char path[128];
    tg_json_path(v, path, sizeof path);
    snprintf(buf, size, "%s%s%s", where, *path ? ": " : "", path);
    return buf;
}

static int read_option(struct tg_json v, const char *here, enum tg_plan_key key,
                       struct tg_plan_layer *to, struct tg_err *err)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    char where[320];
    const char *name = NULL;
    int64_t number = 0;
    bool on = false;
    double value = 0;
    int status;
    if (!tg_json_has(tg_json_key(v, row->name)))
        return TG_OK;
    snprintf(where, sizeof where, "%s.%s", here, row->name);
    if (row->store == TG_STORE_ERROR) {
        status = tg_json_get_num(v, row->name, row->lo, row->hi, &value, err);
    } else if (!row->choice) {
        status = tg_json_get_int(v, row->name, (int64_t)row->lo, (int64_t)row->hi, &number, err);
        value = (double)number;
    } else if (row->choice == tg_plan_names_switch) {
        status = tg_json_get_bool_or(v, row->name, &on, err);
        value = on;
    } else {
        status = tg_json_get_str(v, row->name, &name, err);
        if (!status)
            status = tg_plan_choose(key, name, where, &value, err);
    }
    if (!status)
        to->set[key] = tg_given(value);
    return status;
}

static int read_entry(struct tg_json v, const char *where, const char *mixer, bool *seen,
                      struct tg_plan *p, struct tg_err *err)
{
    static const char *const keep_keys[] = {"layer", "mixer", NULL};
    char here[256];
    int64_t layer = 0;
    place(v, where, here, sizeof here);
    if (!tg_json_is_object(v))
        return tg_fail(err, TG_ERR_VALUE, "%s: is not an object", here);
    int status = tg_json_only_keys(v, ENTRY_KEYS, err);
    if (!status)
        status = tg_json_get_int(v, "layer", INT32_MIN, INT32_MAX, &layer, err);
    if (!status)
        status = tg_json_get_str_or(v, "mixer", &mixer, err);
    if (status)
        return status;
    if (layer < 0 || (size_t)layer >= p->count)
        return tg_fail(err, TG_ERR_VALUE,
                       "%s.layer: there is no layer %" PRId64 ", the model has %zu (0 to %zu)",
                       here, layer, p->count, p->count - 1);
    if (seen[layer])
        return tg_fail(err, TG_ERR_VALUE, "%s.layer: layer %" PRId64 " is listed twice", here,
                       layer);
    seen[layer] = true;
    if (strcmp(mixer, "keep") == 0)
        return tg_json_only_keys(v, keep_keys, err);
    struct tg_plan_layer *to = &p->layers[layer];
    status = tg_plan_mixer(mixer, here, &to->mixer, err);
    if (status)
        return status;
    tg_plan_defaults(to);
    for (int k = 0; k < TG_PLAN_KEYS && !status; k++)
        status = read_option(v, here, (enum tg_plan_key)k, to, err);
    return status;
}

static int parse(struct tg_plan *p, struct tg_json v, const struct tg_model_spec *teacher,
                 const char *where, struct tg_err *err)
{
    char here[256];
    const char *mixer = "gated_window";
    *p = (struct tg_plan){0};
    if (!tg_json_is_object(v))
        return tg_fail(err, TG_ERR_VALUE, "%s: is not an object",
                       place(v, where, here, sizeof here));
    int status = tg_json_only_keys(v, PLAN_KEYS, err);
    if (!status)
        status = tg_json_get_str_or(v, "mixer", &mixer, err);
    if (status)
        return status;
    struct tg_json list = tg_json_key(v, "layers");
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_VALUE, "%s: layers: %s", where,
                       tg_json_has(list) ? "is not an array" : "is missing");
    bool *seen = tg_alloc_array(teacher->layer_count, sizeof *seen);
    status = seen ? tg_plan_init(p, teacher->layer_count, err)
                  : tg_fail(err, TG_ERR_NOMEM, "no memory for a plan");
    for (struct tg_json e = tg_json_first(list); e.node && !status; e = tg_json_next(e))
        status = read_entry(e, where, mixer, seen, p, err);
    if (!status)
        status = tg_plan_check(p, teacher, where, err);
    tg_free(seen);
    if (status)
        tg_plan_release(p);
    return status;
}

int tg_plan_parse(struct tg_plan *p, struct tg_json v, const struct tg_model_spec *teacher,
                  struct tg_err *err)
{
    return parse(p, v, teacher, "plan", err);
}

int tg_plan_load(struct tg_plan *p, const char *path, const struct tg_model_spec *teacher,
                 struct tg_err *err)
{
    struct tg_json_doc *doc = NULL;
    *p = (struct tg_plan){0};
    int status = tg_json_load(&doc, path, 0, err);
    if (status)
        return status;
    status = parse(p, tg_json_root(doc), teacher, path, err);
    tg_json_free(doc);
    return status;
}

void tg_plan_option_write_json(enum tg_plan_key key, double value, struct tg_json_out *out)
{
    const struct tg_plan_option *row = &tg_plan_rows[key];
    if (row->store == TG_STORE_ERROR)
        tg_jout_num(out, row->name, value);
    else if (!row->choice)
        tg_jout_int(out, row->name, (int64_t)value);
    else if (row->choice == tg_plan_names_switch)
        tg_jout_bool(out, row->name, value != 0);
    else
        tg_jout_str(out, row->name, row->choice((size_t)value));
}

void tg_plan_write_json(const struct tg_plan *p, struct tg_json_out *out, const char *key)
{
    tg_jout_object(out, key);
    tg_jout_array(out, "layers");
    for (size_t l = 0; l < p->count; l++) {
        const struct tg_plan_layer *to = &p->layers[l];
        tg_jout_object(out, NULL);
        tg_jout_int(out, "layer", (int64_t)l);
        tg_jout_str(out, "mixer", to->mixer ? to->mixer->name : "keep");
        for (int k = 0; k < TG_PLAN_KEYS; k++)
            if (to->mixer && to->set[k].given)
                tg_plan_option_write_json((enum tg_plan_key)k, to->set[k].value, out);
        tg_jout_end_object(out);
    }
    tg_jout_end_array(out);
    tg_jout_end_object(out);
}

int tg_plan_save(const struct tg_plan *p, const char *path, struct tg_err *err)
{
    struct tg_strbuf text;
    struct tg_json_out out;
    tg_strbuf_init(&text, (size_t)1 << 26);
    tg_jout_init(&out, &text, 2);
    tg_plan_write_json(p, &out, NULL);
    tg_strbuf_puts(&text, "\n");
    int status = text.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory for the plan", path)
                             : tg_file_write(path, text.text, text.len, err);
    tg_strbuf_release(&text);
    return status;
}
