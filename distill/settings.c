/* Settings of stages: filling in what is not said, and reading them from "kl:tokens=3M,lr=1e-4" and
 * from JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/strbuf.h"
#include "distill/stage.h"

/* What a stage's row does not say. */
static const struct tg_stage_settings common = {.warmup = 0.03,
                                                .clip = 1,
                                                .beta1 = 0.9,
                                                .beta2 = 0.95,
                                                .eps = 1e-8,
                                                .micro = 2,
                                                .temperature = 1};

enum kind { COUNT64, COUNT, NUMBER, TRAIN, PRECISION };
static const struct setting {
    const char *key;
    enum kind kind;
    size_t offset;
    double lo, hi;
} settings[] = {
#define AT(field) offsetof(struct tg_stage_settings, field)
    {"tokens", COUNT64, AT(tokens), 1, 1e15},
    {"train", TRAIN, AT(train), 0, 0},
    {"lr", NUMBER, AT(lr), 0, 10},
    {"lr_new", NUMBER, AT(lr_new), 0, 10},
    {"lr_end", NUMBER, AT(lr_end), 0, 1},
    {"warmup", NUMBER, AT(warmup), 0, 1},
    {"clip", NUMBER, AT(clip), 0, 1e9},
    {"beta1", NUMBER, AT(beta1), 0, 0.99999},
    {"beta2", NUMBER, AT(beta2), 0, 0.99999},
    {"eps", NUMBER, AT(eps), 1e-30, 1},
    {"decay", NUMBER, AT(decay), 0, 100},
    {"batch", COUNT, AT(batch), 1, 65536},
    {"micro", COUNT, AT(micro), 1, 65536},
    {"temperature", NUMBER, AT(temperature), 0.01, 100},
    {"ce_share", NUMBER, AT(ce_share), 0, 1},
    {"precision", PRECISION, AT(precision), 0, 0},
#undef AT
};
enum { SETTINGS = sizeof settings / sizeof *settings, LORA_MAX = 4096 };

static const char *const precisions[] = {
    [TG_PREC_F32] = "float32", [TG_PREC_BF16X2] = "bf16x2", [TG_PREC_BF16] = "bf16"};
enum { PRECISIONS = sizeof precisions / sizeof *precisions };

static bool is_number(const struct setting *f)
{
    return f->kind == COUNT64 || f->kind == COUNT || f->kind == NUMBER;
}

static int unknown_kind(const char *kind, struct tg_err *err)
{
    struct tg_strbuf names;
    tg_strbuf_init(&names, 1024);
    for (size_t i = 0; tg_stages[i]; i++)
        tg_strbuf_printf(&names, "%s%s", i ? ", " : "", tg_stages[i]->name);
    int status = tg_fail(err, TG_ERR_VALUE, "stage '%s' is unknown (%s)", kind,
                         names.text ? names.text : "");
    tg_strbuf_release(&names);
    return status;
}

static double get(const struct tg_stage_settings *s, const struct setting *f)
{
    const char *at = (const char *)s + f->offset;
    if (f->kind == COUNT64)
        return (double)*(const uint64_t *)(const void *)at;
    if (f->kind == COUNT)
        return (double)*(const size_t *)(const void *)at;
    return *(const double *)(const void *)at;
}
static void set(struct tg_stage_settings *s, const struct setting *f, double value)
{
    char *at = (char *)s + f->offset;
    if (f->kind == COUNT64)
        *(uint64_t *)(void *)at = (uint64_t)value;
    else if (f->kind == COUNT)
        *(size_t *)(void *)at = (size_t)value;
    else
        *(double *)(void *)at = value;
}

static void fill(struct tg_stage_settings *s, const struct tg_stage_settings *from)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *f = &settings[i];
        if (is_number(f) && !(get(s, f) > 0))
            set(s, f, get(from, f));
    }
    if (s->train == TG_TRAIN_DEFAULT)
        s->train = from->train;
}

int tg_stage_defaults(struct tg_stage_settings *s, struct tg_err *err)
{
    const struct tg_stage *stage = tg_stage_find(s->kind);
    if (s->complete)
        return TG_OK;
    if (!stage)
        return unknown_kind(s->kind, err);
    fill(s, &stage->defaults);
    fill(s, &common);
    if (s->train == TG_TRAIN_LORA && s->lora_rank == 0)
        s->lora_rank = 8;
    s->complete = true;
    return TG_OK;
}

static int set_number(struct tg_stage_settings *s, const struct setting *f, double value,
                      const char *where, struct tg_err *err)
{
    if (!(value >= f->lo && value <= f->hi))
        return tg_fail(err, TG_ERR_VALUE, "%s: %s = %g must be in [%g, %g]", where, f->key, value,
                       f->lo, f->hi);
    set(s, f, value);
    return TG_OK;
}

/* "all", "mixers", "lora:8" */
static int set_train(struct tg_stage_settings *s, const char *value, const char *where,
                     struct tg_err *err)
{
    s->lora_rank = 0;
    if (strcmp(value, "mixers") == 0) {
        s->train = TG_TRAIN_MIXERS;
    } else if (strcmp(value, "all") == 0) {
        s->train = TG_TRAIN_ALL;
    } else if (strncmp(value, "lora:", 5) == 0) {
        char *end;
        unsigned long rank = strtoul(value + 5, &end, 10);
        if (value[5] < '0' || value[5] > '9' || *end || rank < 1 || rank > LORA_MAX)
            return tg_fail(err, TG_ERR_VALUE, "%s: train = '%s': the rank must be in [1, %d]",
                           where, value, LORA_MAX);
        s->train = TG_TRAIN_LORA;
        s->lora_rank = rank;
    } else {
        return tg_fail(err, TG_ERR_VALUE, "%s: train = '%s' must be mixers, all or lora:RANK",
                       where, value);
    }
    return TG_OK;
}

static int set_precision(struct tg_stage_settings *s, const char *value, const char *where,
                         struct tg_err *err)
{
    for (size_t i = 0; i < PRECISIONS; i++)
        if (strcmp(value, precisions[i]) == 0) {
            s->precision = (enum tg_precision)i;
            return TG_OK;
        }
    return tg_fail(err, TG_ERR_VALUE, "%s: precision = '%s' must be float32, bf16x2 or bf16", where,
                   value);
}

/* A name, or a number with an optional k, M or G of thousands */
static int set_text(struct tg_stage_settings *s, const struct setting *f, const char *value,
                    const char *where, struct tg_err *err)
{
    if (f->kind == TRAIN)
        return set_train(s, value, where, err);
    if (f->kind == PRECISION)
        return set_precision(s, value, where, err);
    char *end;
    double x = strtod(value, &end);
    if (f->kind != NUMBER && end != value && *end && !end[1]) {
        static const char units[] = "kKmMgG";
        const char *unit = strchr(units, *end);
        if (unit) {
            for (size_t thousands = 0; thousands <= (size_t)(unit - units) / 2; thousands++)
                x *= 1e3;
            end++;
        }
    }
    if (end == value || *end || !isfinite(x))
        return tg_fail(err, TG_ERR_VALUE, "%s: %s = '%s' is not a number", where, f->key, value);
    if (f->kind != NUMBER && x != floor(x))
        return tg_fail(err, TG_ERR_VALUE, "%s: %s = '%s' is not a whole number", where, f->key,
                       value);
    return set_number(s, f, x, where, err);
}

static int begin_kind(struct tg_stage_settings *s, const char *kind, struct tg_err *err)
{
    if (!tg_stage_find(kind))
        return unknown_kind(kind, err);
    *s = (struct tg_stage_settings){0};
    snprintf(s->kind, sizeof s->kind, "%s", kind);
    return tg_stage_defaults(s, err);
}

int tg_stage_parse_arg(const char *arg, struct tg_stage_settings *s, struct tg_err *err)
{
    char text[256];
    if (strlen(arg) >= sizeof text)
        return tg_fail(err, TG_ERR_VALUE, "--stage '%.32s...' is longer than %zu characters", arg,
                       sizeof text - 1);
    memcpy(text, arg, strlen(arg) + 1);
    char *rest = strchr(text, ':');
    if (rest)
        *rest++ = '\0';
    int status = begin_kind(s, text, err);
    while (rest && *rest && status == TG_OK) {
        char *next = strchr(rest, ','), *value;
        if (next)
            *next++ = '\0';
        value = strchr(rest, '=');
        if (!value)
            return tg_fail(err, TG_ERR_VALUE, "--stage %s: '%s' must be KEY=VALUE", arg, rest);
        *value++ = '\0';
        size_t i = 0;
        while (i < SETTINGS && strcmp(settings[i].key, rest) != 0)
            i++;
        if (i == SETTINGS)
            return tg_fail(err, TG_ERR_VALUE, "--stage %s: unknown setting '%s'", arg, rest);
        char where[300];
        snprintf(where, sizeof where, "--stage %s", arg);
        status = set_text(s, &settings[i], value, where, err);
        rest = next;
    }
    return status;
}

int tg_stage_parse_json(struct tg_json v, struct tg_stage_settings *s, struct tg_err *err)
{
    const char *known[SETTINGS + 2] = {"kind"}, *kind = NULL;
    char where[256];
    for (size_t i = 0; i < SETTINGS; i++)
        known[i + 1] = settings[i].key;
    int status = tg_json_only_keys(v, known, err);
    if (status == TG_OK)
        status = tg_json_get_str(v, "kind", &kind, err);
    if (status == TG_OK)
        status = begin_kind(s, kind, err);
    tg_json_path(v, where, sizeof where);
    for (size_t i = 0; i < SETTINGS && status == TG_OK; i++) {
        const struct setting *f = &settings[i];
        struct tg_json child = tg_json_key(v, f->key);
        if (!tg_json_has(child))
            continue;
        if (tg_json_is_string(child) && f->kind != NUMBER)
            status = set_text(s, f, tg_json_string(child), where, err);
        else if (!tg_json_is_number(child) || !is_number(f))
            status = tg_fail(err, TG_ERR_VALUE, "%s.%s must be a %s", where, f->key,
                             is_number(f) ? "number" : "string");
        else if (f->kind != NUMBER && tg_json_number(child) != floor(tg_json_number(child)))
            status = tg_fail(err, TG_ERR_VALUE, "%s.%s = %g is not a whole number", where, f->key,
                             tg_json_number(child));
        else
            status = set_number(s, f, tg_json_number(child), where, err);
    }
    return status;
}

void tg_stage_write_json(const struct tg_stage_settings *s, struct tg_json_out *out,
                         const char *key)
{
    tg_jout_object(out, key);
    tg_jout_str(out, "kind", s->kind);
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *f = &settings[i];
        char train[32];
        snprintf(train, sizeof train, "lora:%zu", s->lora_rank);
        if (f->kind == NUMBER)
            tg_jout_num(out, f->key, get(s, f));
        else if (is_number(f))
            tg_jout_int(out, f->key, (int64_t)get(s, f));
        else if (f->kind == PRECISION)
            tg_jout_str(out, f->key, precisions[s->precision]);
        else if (s->train == TG_TRAIN_LORA)
            tg_jout_str(out, f->key, train);
        else
            tg_jout_str(out, f->key, s->train == TG_TRAIN_ALL ? "all" : "mixers");
    }
    tg_jout_end_object(out);
}
