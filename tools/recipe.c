#include "tools/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "tools/command.h"
#include "tools/groups.h"

enum { MAX_RECIPE = 1 << 20 };

/* The one table of keys: section, key, option. */
static const struct key {
    const char *section, *key;
    const struct tg_option *group;
    const char *option;
} keys[] = {
    {"plan", "mixer", tg_plan_flag_options, "mixer"},
    {"plan", "keep", tg_plan_flag_options, "keep"},
    {"plan", "layers", tg_plan_flag_options, "layer"},
#define TG_PLAN_OPTION(id, name, flag, ...) {"plan", name, tg_plan_flag_options, flag},
#include "linearize/surgery/options.def"
#undef TG_PLAN_OPTION
    {"rank", "window", tg_rank_options, "rank-window"},
    {"rank", "tokens", tg_rank_options, "rank-tokens"},
    {"rank", "items", tg_rank_options, "rank-items"},
    {"rank", "pairs", tg_rank_options, "rank-pairs"},
    {"data", "files", tg_data_options, "data"},
    {"data", "length", tg_data_options, "length"},
    {"data", "recall_mix", tg_data_options, "recall-mix"},
    {"data", "sample_tokens", tg_data_options, "sample-tokens"},
    {"validate", "suite", tg_validation_options, "suite"},
    {"validate", "windows", tg_validation_options, "windows"},
    {"validate", "items", tg_validation_options, "items"},
    {"validate", "recall", tg_validation_options, "recall"},
    {"validate", "prompts", tg_validation_options, "prompts"},
    {"validate", "continuation", tg_validation_options, "continuation"},
    {"validate", "fail_if", tg_validation_options, "fail-if"},
    {"validate", "data", tg_validation_data_options, "validate-data"},
    {"validate", "length", tg_validation_data_options, "validate-length"},
    {"export", "arch", tg_export_options, "arch"},
    {"export", "dtype", tg_export_options, "dtype"},
    {"export", "max_shard_size", tg_export_options, "max-shard-size"},
    {"", "seed", tg_common_options, "seed"},
};
enum { KEYS = sizeof keys / sizeof keys[0] };
static const char *const sections[] = {"plan", "rank", "data", "validate", "export", NULL};

static const struct tg_option *option_of(const struct key *k)
{
    for (const struct tg_option *o = k->group; o->name; o++)
        if (strcmp(o->name, k->option) == 0)
            return o;
    return NULL;
}

static int wrong_type(const char *where, const char *wanted, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_VALUE, "%s: must be %s", where, wanted);
}

static int set_list(const struct tg_option *o, void *target, struct tg_json v, const char *where,
                    struct tg_err *err)
{
    if (!tg_json_is_array(v))
        return wrong_type(where, "a list of strings", err);
    struct tg_strbuf joined;
    int status = TG_OK;
    tg_strbuf_init(&joined, MAX_RECIPE);
    for (struct tg_json c = tg_json_first(v); c.node && status == TG_OK; c = tg_json_next(c)) {
        const char *text = tg_json_string(c);
        if (!tg_json_is_string(c) || !*text)
            status = wrong_type(where, "a list of strings that are not empty", err);
        else if (o->type == TG_OPT_TEXTS)
            status = tg_option_set(o, target, text, where, err);
        else
            tg_strbuf_printf(&joined, "%s%s", joined.len ? "," : "", text);
    }
    if (status == TG_OK && o->type == TG_OPT_WORDS)
        status = joined.failed ? tg_fail(err, TG_ERR_NOMEM, "%s: no memory", where)
                               : tg_option_set(o, target, joined.text, where, err);
    tg_strbuf_release(&joined);
    return status;
}

static int set_value(const struct tg_option *o, void *target, struct tg_json v, const char *where,
                     struct tg_err *err)
{
    char text[40];
    double d = tg_json_number(v);
    switch (o->type) {
    case TG_OPT_TEXTS:
    case TG_OPT_WORDS:
        return set_list(o, target, v, where, err);
    case TG_OPT_TEXT:
    case TG_OPT_CHOICE:
        if (!tg_json_is_string(v))
            return wrong_type(where, "a string", err);
        return tg_option_set(o, target, tg_json_string(v), where, err);
    case TG_OPT_NUM:
    case TG_OPT_MAYBE_NUM:
        if (!tg_json_is_number(v))
            return wrong_type(where, "a number", err);
        break;
    case TG_OPT_MAYBE:
        if (tg_json_is_bool(v))
            return tg_option_set(o, target, tg_plan_names_switch(tg_json_bool(v)), where, err);
        if (o->choice && (o->choice == tg_plan_names_switch || !tg_json_is_string(v)))
            return wrong_type(
                where, o->choice == tg_plan_names_switch ? "true or false" : "a string", err);
        /* fall through */
    default:
        if (tg_json_is_string(v) && o->type != TG_OPT_INT)
            return tg_option_set(o, target, tg_json_string(v), where, err);
        if (!tg_json_is_number(v))
            return wrong_type(where,
                              o->type == TG_OPT_INT ? "a whole number"
                                                    : "a whole number or such as \"300k\"",
                              err);
    }
    snprintf(text, sizeof text, d == floor(d) && fabs(d) < 1e15 ? "%.0f" : "%.17g", d);
    return tg_option_set(o, target, text, where, err);
}

/* The value is checked even where the command line overrides it, or the command has no such option.
 */
static int apply(const struct key *k, struct tg_json v, const char *name, struct tg_parse *p,
                 struct tg_err *err)
{
    union {
        struct tg_texts texts;
        struct tg_counts counts;
        struct tg_maybe maybe;
        int64_t number;
        double real;
        const char *text;
        bool flag;
    } scratch;
    memset(&scratch, 0, sizeof scratch);
    char where[600];
    const struct tg_option *o = option_of(k);
    long slot = p ? tg_parse_find(p, k->option) : -1;
    bool use = slot >= 0 && p->slot[slot].option == o && !p->slot[slot].given;
    void *target = use ? p->slot[slot].target : &scratch;
    snprintf(where, sizeof where, "%s: %s%s%s", name, k->section, k->section[0] ? "." : "", k->key);
    int status = set_value(o, target, v, where, err);
    if (!use && (o->type == TG_OPT_TEXTS || o->type == TG_OPT_WORDS)) {
        tg_free(scratch.texts.items);
        tg_free(scratch.texts.copy);
    }
    return status;
}

static int read_section(struct tg_json root, const char *section, const char *name,
                        struct tg_parse *p, struct tg_err *err)
{
    struct tg_json object = section[0] ? tg_json_key(root, section) : root;
    if (!tg_json_has(object))
        return TG_OK;
    if (!tg_json_is_object(object))
        return tg_fail(err, TG_ERR_VALUE, "%s: %s: must be an object", name, section);
    const char *known[KEYS + 12];
    size_t n = 0;
    for (size_t i = 0; i < KEYS; i++)
        if (strcmp(keys[i].section, section) == 0)
            known[n++] = keys[i].key;
    if (!section[0]) {
        known[n++] = "teacher";
        known[n++] = "stages";
        for (size_t i = 0; sections[i]; i++)
            known[n++] = sections[i];
    }
    known[n] = NULL;
    int status = tg_json_only_keys(object, known, err);
    for (size_t i = 0; i < KEYS && status == TG_OK; i++) {
        struct tg_json v = strcmp(keys[i].section, section) == 0 ? tg_json_key(object, keys[i].key)
                                                                 : (struct tg_json){0};
        if (tg_json_has(v))
            status = apply(&keys[i], v, name, p, err);
    }
    return status;
}

static int read_stages(struct tg_recipe *r, struct tg_json root, const char *name,
                       struct tg_err *err)
{
    struct tg_json list = tg_json_key(root, "stages");
    if (!tg_json_has(list))
        return TG_OK;
    if (!tg_json_is_array(list))
        return tg_fail(err, TG_ERR_VALUE, "%s: stages: must be a list of objects", name);
    for (struct tg_json c = tg_json_first(list); c.node; c = tg_json_next(c)) {
        if (r->stage_count == TG_MAX_STAGES)
            return tg_fail(err, TG_ERR_VALUE, "%s: stages: more than %d", name, TG_MAX_STAGES);
        int status = tg_stage_parse_json(c, &r->stages[r->stage_count], err);
        if (status && err && strncmp(err->msg, name, strlen(name)) != 0)
            tg_err_prefix(err, "%s: stages[%zu]", name, r->stage_count);
        if (status)
            return status;
        r->stage_count++;
    }
    return TG_OK;
}

int tg_recipe_parse(struct tg_recipe *r, const char *text, size_t len, const char *name,
                    struct tg_parse *p, struct tg_err *err)
{
    memset(r, 0, sizeof *r);
    int status = tg_json_parse(&r->doc, text, len, name, 0, err);
    if (status)
        return status;
    struct tg_json root = tg_json_root(r->doc);
    if (!tg_json_is_object(root))
        status = tg_fail(err, TG_ERR_VALUE, "%s: a recipe is a JSON object", name);
    if (status == TG_OK)
        status = tg_json_get_str_or(root, "teacher", &r->teacher, err);
    if (status == TG_OK)
        status = read_section(root, "", name, p, err);
    for (size_t i = 0; sections[i] && status == TG_OK; i++)
        status = read_section(root, sections[i], name, p, err);
    if (status == TG_OK)
        status = read_stages(r, root, name, err);
    return status;
}

int tg_recipe_load(struct tg_recipe *r, const char *path, struct tg_parse *p, struct tg_err *err)
{
    char *text = NULL;
    size_t len = 0;
    memset(r, 0, sizeof *r);
    int status = tg_file_read(path, MAX_RECIPE, &text, &len, err);
    if (status == TG_OK)
        status = tg_recipe_parse(r, text, len, path, p, err);
    tg_free(text);
    return status;
}

void tg_recipe_release(struct tg_recipe *r)
{
    tg_json_free(r->doc);
    memset(r, 0, sizeof *r);
}

int tg_recipe_stages(struct tg_recipe *r, const struct tg_texts *args, struct tg_err *err)
{
    static const char *const usual[] = {"align:tokens=1M", "kl:tokens=3M"};
    const char *const *texts = args->count ? args->items : usual;
    size_t count = args->count ? args->count : sizeof usual / sizeof usual[0];
    if (args->count == 0 && r->stage_count > 0)
        count = 0;
    else
        r->stage_count = 0;
    if (count > TG_MAX_STAGES)
        return tg_fail(err, TG_ERR_VALUE, "more than %d stages", TG_MAX_STAGES);
    for (size_t i = 0; i < count; i++) {
        int status = tg_stage_parse_arg(texts[i], &r->stages[i], err);
        if (status)
            return status;
        r->stage_count++;
    }
    for (size_t i = 0; i < r->stage_count; i++) {
        int status = tg_stage_defaults(&r->stages[i], err);
        if (status)
            return status;
    }
    return TG_OK;
}

void tg_recipe_note_precision(const struct tg_recipe *r, struct tg_tool *t)
{
    for (size_t i = 0; i < r->stage_count; i++)
        if (r->stages[i].precision != TG_PREC_F32 && !t->ctx.k->product)
            tg_note(t,
                    "stage '%s': this processor has no unit for products of bfloat16 (AMX): they "
                    "are taken in float32",
                    r->stages[i].kind);
}
