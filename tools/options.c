#include "tools/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/near.h"

bool tg_parse_count(const char *text, int base, double *out)
{
    if (!(text[0] >= '0' && text[0] <= '9') && text[0] != '-' && text[0] != '.')
        return false;
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || errno == ERANGE || strpbrk(text, "xXnN")) /* no hexadecimal, inf or nan */
        return false;
    const char *suffixes = "kmg";
    if (*end) {
        const char *s = strchr(suffixes, *end | 32);
        if (!s || end[1])
            return false;
        v *= pow(base, (double)(s - suffixes + 1));
    }
    /* 1.1k is 1100 although 1.1 * 1000 is not exactly */
    double whole = nearbyint(v);
    if (fabs(v - whole) > 1e-6 || fabs(whole) > 9.0e15)
        return false;
    *out = whole;
    return true;
}

const char *tg_nearest(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    size_t limit = strlen(word) / 3 + 1, least = limit + 1;
    for (size_t i = 0; i < count; i++) {
        size_t d = tg_edit_distance(word, words[i]);
        if (d < least) {
            least = d;
            best = words[i];
        }
    }
    return best;
}

static size_t list_choices(const struct tg_option *o, const char **names, size_t max)
{
    size_t n = 0;
    while (o->choice && n < max && o->choice(n)) {
        names[n] = o->choice(n);
        n++;
    }
    return n;
}

static int check_choice(const struct tg_option *o, const char *value, const char *name,
                        struct tg_err *err)
{
    const char *names[TG_CHOICE_MAX];
    size_t n = list_choices(o, names, TG_CHOICE_MAX);
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], value) == 0)
            return TG_OK;
    char list[1024] = "";
    for (size_t i = 0; i < n; i++) {
        strncat(list, i ? ", " : "", sizeof list - strlen(list) - 1);
        strncat(list, names[i], sizeof list - strlen(list) - 1);
    }
    return tg_fail(err, TG_ERR_VALUE, "%s: '%s' is not one of %s", name, value, list);
}

static int set_number(const struct tg_option *o, void *target, const char *value, const char *name,
                      struct tg_err *err)
{
    double v;
    bool ok;
    if (o->type == TG_OPT_NUM || o->type == TG_OPT_MAYBE_NUM) {
        char *end;
        v = strtod(value, &end);
        ok = end != value && !*end && isfinite(v);
    } else {
        ok = tg_parse_count(value, o->type == TG_OPT_BYTES ? 1024 : 1000, &v);
        if (o->type == TG_OPT_INT && ok)
            ok = value[strspn(value, "-0123456789")] == 0;
    }
    if (!ok)
        return tg_fail(err, TG_ERR_VALUE, "%s: '%s' is not a %s", name, value,
                       o->type == TG_OPT_NUM || o->type == TG_OPT_MAYBE_NUM ? "number"
                       : o->type == TG_OPT_INT                              ? "whole number"
                                               : "whole number (suffixes k, M, G are allowed)");
    if ((o->lo != 0 || o->hi != 0) && !(v >= o->lo && v <= o->hi))
        return tg_fail(err, TG_ERR_VALUE, "%s: %s is out of range (%.15g to %.15g)", name, value,
                       o->lo, o->hi);
    if (o->type == TG_OPT_MAYBE_NUM)
        *(struct tg_maybe *)target = tg_given(v);
    else if (o->type == TG_OPT_NUM)
        *(double *)target = v;
    else
        *(int64_t *)target = (int64_t)v;
    return TG_OK;
}

static int add_text(struct tg_texts *t, const char *value, struct tg_err *err)
{
    if (!tg_grow(&t->items, &t->cap, t->count + 1, sizeof *t->items))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the command line");
    t->items[t->count++] = value;
    return TG_OK;
}

static int set_list(const struct tg_option *o, void *target, const char *value, const char *name,
                    struct tg_err *err)
{
    char *copy = tg_strdup(value), *rest = copy;
    if (!copy)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the command line");
    struct tg_texts *words = target;
    struct tg_counts *counts = target;
    if (o->type == TG_OPT_WORDS) {
        tg_free(words->copy);
        words->copy = copy;
        words->count = 0;
    } else {
        counts->count = 0;
    }
    int status = TG_OK;
    for (char *item; status == TG_OK && (item = strsep(&rest, ","));) {
        if (!*item) {
            status = tg_fail(err, TG_ERR_VALUE, "%s: empty item in '%s'", name, value);
        } else if (o->type == TG_OPT_WORDS) {
            status = o->choice ? check_choice(o, item, name, err) : TG_OK;
            if (status == TG_OK)
                status = add_text(words, item, err);
        } else {
            struct tg_option one = *o;
            int64_t v = 0;
            one.type = TG_OPT_COUNT;
            status = set_number(&one, &v, item, name, err);
            if (status == TG_OK &&
                !tg_grow(&counts->items, &counts->cap, counts->count + 1, sizeof *counts->items))
                status = tg_fail(err, TG_ERR_NOMEM, "no memory for the command line");
            if (status == TG_OK)
                counts->items[counts->count++] = v;
        }
    }
    if (o->type == TG_OPT_COUNTS)
        tg_free(copy);
    return status;
}

static int set_maybe(const struct tg_option *o, struct tg_maybe *target, const char *value,
                     const char *name, struct tg_err *err)
{
    struct tg_option count = *o;
    int64_t v = 0;
    count.type = TG_OPT_COUNT;
    int status =
        o->choice ? check_choice(o, value, name, err) : set_number(&count, &v, value, name, err);
    while (status == TG_OK && o->choice && strcmp(o->choice((size_t)v), value) != 0)
        v++;
    if (status == TG_OK)
        *target = tg_given((double)v);
    return status;
}

int tg_option_set(const struct tg_option *o, void *target, const char *value, const char *name,
                  struct tg_err *err)
{
    switch (o->type) {
    case TG_OPT_FLAG:
        *(bool *)target = true;
        return TG_OK;
    case TG_OPT_TEXT:
        *(const char **)target = value;
        return TG_OK;
    case TG_OPT_TEXTS:
        return add_text(target, value, err);
    case TG_OPT_CHOICE: {
        int status = check_choice(o, value, name, err);
        if (status == TG_OK)
            *(const char **)target = value;
        return status;
    }
    case TG_OPT_WORDS:
    case TG_OPT_COUNTS:
        return set_list(o, target, value, name, err);
    case TG_OPT_MAYBE:
        return set_maybe(o, target, value, name, err);
    default:
        return set_number(o, target, value, name, err);
    }
}

static long find_slot(const struct tg_parse *p, const char *name, size_t len, char letter)
{
    for (size_t i = 0; i < p->slots; i++) {
        const struct tg_option *o = p->slot[i].option;
        if (letter ? o->letter == letter : strncmp(o->name, name, len) == 0 && o->name[len] == 0)
            return (long)i;
    }
    return -1;
}

int tg_parse_add(struct tg_parse *p, const struct tg_option *options, void *target,
                 struct tg_err *err)
{
    for (size_t i = 0; options[i].name; i++) {
        const struct tg_option *o = &options[i];
        void *at = (char *)target + o->at;
        if (find_slot(p, o->name, strlen(o->name), 0) >= 0)
            continue;
        if (p->slots == TG_PARSE_MAX)
            return tg_fail(err, TG_ERR_VALUE, "more than %d options", TG_PARSE_MAX);
        if (o->fallback) {
            int status = tg_option_set(o, at, o->fallback, o->name, err);
            if (status)
                return status;
        }
        p->slot[p->slots].option = o;
        p->slot[p->slots].target = at;
        p->slot[p->slots++].given = false;
    }
    return TG_OK;
}

static int unknown_option(const struct tg_parse *p, const char *arg, size_t len, struct tg_err *err)
{
    const char *names[TG_PARSE_MAX];
    char word[64] = "";
    for (size_t i = 0; i < p->slots; i++)
        names[i] = p->slot[i].option->name;
    if (len > 2)
        snprintf(word, sizeof word, "%.*s", (int)(len - 2), arg + 2);
    const char *near = word[0] ? tg_nearest(word, names, p->slots) : NULL;
    return tg_fail(err, TG_ERR_VALUE,
                   near ? "unknown option '%.*s': did you mean '--%s'?" : "unknown option '%.*s'",
                   (int)len, arg, near);
}

static int assign(struct tg_parse *p, size_t i, const char *value, struct tg_err *err)
{
    const struct tg_option *o = p->slot[i].option;
    char name[80];
    snprintf(name, sizeof name, "option --%s", o->name);
    if (o->type == TG_OPT_TEXTS && !p->slot[i].given) /* a default list is replaced */
        ((struct tg_texts *)p->slot[i].target)->count = 0;
    p->slot[i].given = true;
    return tg_option_set(o, p->slot[i].target, value, name, err);
}

int tg_parse_argv(struct tg_parse *p, int argc, char **argv, size_t max_args, struct tg_err *err)
{
    p->args = tg_alloc_array((size_t)argc + 1, sizeof *p->args);
    if (!p->args)
        return tg_fail(err, TG_ERR_NOMEM, "no memory for the command line");
    long list = -1; /* the last TEXTS option */
    bool only_args = false;
    for (int a = 0; a < argc; a++) {
        char *arg = argv[a];
        if (only_args || arg[0] != '-' || !arg[1]) {
            int status = TG_OK;
            if (p->arg_count >= max_args && list >= 0)
                status = assign(p, (size_t)list, arg, err);
            else
                p->args[p->arg_count++] = arg;
            if (status)
                return status;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_args = true;
            continue;
        }
        bool is_long = arg[1] == '-';
        char *equals = is_long ? strchr(arg, '=') : NULL;
        size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
        long at = is_long ? find_slot(p, arg + 2, len - 2, 0) : find_slot(p, "", 0, arg[1]);
        if (at < 0)
            return unknown_option(p, arg, len, err);
        const struct tg_option *o = p->slot[at].option;
        const char *value = "";
        if (o->type == TG_OPT_FLAG) {
            if (equals || (!is_long && arg[2]))
                return tg_fail(err, TG_ERR_VALUE, "option '%.*s' takes no value",
                               is_long ? (int)len : 2, arg);
        } else if (equals) {
            value = equals + 1;
        } else if (!is_long && arg[2]) {
            value = arg + 2;
        } else if (a + 1 < argc) {
            value = argv[++a];
        } else {
            return tg_fail(err, TG_ERR_VALUE, "option '%s' needs a value (%s)", arg, o->meta);
        }
        list = o->type == TG_OPT_TEXTS ? at : -1;
        int status = assign(p, (size_t)at, value, err);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_parse_complete(const struct tg_parse *p, struct tg_err *err)
{
    for (size_t i = 0; i < p->slots; i++)
        if (p->slot[i].option->required && !p->slot[i].given)
            return tg_fail(err, TG_ERR_VALUE, "option '--%s %s' is required",
                           p->slot[i].option->name, p->slot[i].option->meta);
    return TG_OK;
}

long tg_parse_find(const struct tg_parse *p, const char *name)
{
    return find_slot(p, name, strlen(name), 0);
}

bool tg_parse_given(const struct tg_parse *p, const char *name)
{
    long at = tg_parse_find(p, name);
    return at >= 0 && p->slot[at].given;
}

static void write_maybe(const struct tg_option *o, const struct tg_maybe *m,
                        struct tg_json_out *out)
{
    if (!m->given)
        tg_jout_null(out, o->name);
    else if (o->choice)
        tg_jout_str(out, o->name, o->choice((size_t)m->value));
    else if (o->type == TG_OPT_MAYBE_NUM)
        tg_jout_num(out, o->name, m->value);
    else
        tg_jout_int(out, o->name, (int64_t)m->value);
}

void tg_parse_write_json(const struct tg_parse *p, struct tg_json_out *out, const char *key)
{
    tg_jout_object(out, key);
    for (size_t i = 0; i < p->slots; i++) {
        const struct tg_option *o = p->slot[i].option;
        const void *at = p->slot[i].target;
        const struct tg_texts *texts = at;
        const struct tg_counts *counts = at;
        switch (o->type) {
        case TG_OPT_FLAG:
            tg_jout_bool(out, o->name, *(const bool *)at);
            break;
        case TG_OPT_TEXT:
        case TG_OPT_CHOICE:
            if (*(const char *const *)at)
                tg_jout_str(out, o->name, *(const char *const *)at);
            else
                tg_jout_null(out, o->name);
            break;
        case TG_OPT_TEXTS:
        case TG_OPT_WORDS:
            tg_jout_array(out, o->name);
            for (size_t j = 0; j < texts->count; j++)
                tg_jout_str(out, NULL, texts->items[j]);
            tg_jout_end_array(out);
            break;
        case TG_OPT_COUNTS:
            tg_jout_array(out, o->name);
            for (size_t j = 0; j < counts->count; j++)
                tg_jout_int(out, NULL, counts->items[j]);
            tg_jout_end_array(out);
            break;
        case TG_OPT_NUM:
            tg_jout_num(out, o->name, *(const double *)at);
            break;
        case TG_OPT_MAYBE:
        case TG_OPT_MAYBE_NUM:
            write_maybe(o, at, out);
            break;
        default:
            tg_jout_int(out, o->name, *(const int64_t *)at);
        }
    }
    tg_jout_end_object(out);
}

void tg_parse_release(struct tg_parse *p)
{
    for (size_t i = 0; i < p->slots; i++) {
        struct tg_texts *texts = p->slot[i].target;
        struct tg_counts *counts = p->slot[i].target;
        switch (p->slot[i].option->type) {
        case TG_OPT_WORDS:
            tg_free(texts->copy); /* fall through */
        case TG_OPT_TEXTS:
            tg_free(texts->items);
            break;
        case TG_OPT_COUNTS:
            tg_free(counts->items);
            break;
        default:
            break;
        }
    }
    tg_free(p->args);
    memset(p, 0, sizeof *p);
}

/* "--data FILE..." */
static void option_text(const struct tg_option *o, char *buf, size_t size)
{
    const char *repeat = o->type == TG_OPT_TEXTS ? "..." : "";
    if (o->type == TG_OPT_FLAG)
        snprintf(buf, size, "--%s", o->name);
    else
        snprintf(buf, size, "--%s %s%s", o->name, o->meta, repeat);
    if (o->letter == 'n' || o->letter == 'o') { /* these two are better known by their letter */
        if (o->type != TG_OPT_FLAG)
            snprintf(buf, size, "-%c %s%s", o->letter, o->meta, repeat);
    }
}

void tg_options_synopsis(struct tg_strbuf *s, const char *program, const char *args,
                         const struct tg_option_group *groups, size_t count)
{
    enum { WIDTH = 96, INDENT = 8 };
    size_t column;
    tg_strbuf_printf(s, "usage: %s%s%s", program, args[0] ? " " : "", args);
    column = 7 + strlen(program) + 1 + strlen(args);
    for (size_t pass = 0; pass < 2; pass++) /* the required ones first */
        for (size_t g = 0; g < count; g++)
            for (size_t i = 0; groups[g].options[i].name; i++) {
                const struct tg_option *o = &groups[g].options[i];
                char text[128];
                if (o->required != (pass == 0))
                    continue;
                option_text(o, text, sizeof text);
                size_t n = strlen(text) + (o->required ? 1 : 3);
                if (column + n > WIDTH) {
                    tg_strbuf_printf(s, "\n%*s", INDENT - 1, "");
                    column = INDENT - 1;
                }
                tg_strbuf_printf(s, o->required ? " %s" : " [%s]", text);
                column += n;
            }
    tg_strbuf_puts(s, "\n");
}

/* Help text from column `at` on, wrapped at words. */
static void wrapped(struct tg_strbuf *s, const char *text, size_t at, size_t width)
{
    size_t column = at;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > at && column + 1 + n > width) {
            tg_strbuf_printf(s, "\n%*s", (int)at, "");
            column = at;
        }
        if (column > at) {
            tg_strbuf_puts(s, " ");
            column++;
        }
        tg_strbuf_add(s, text, n);
        column += n;
        text += n + (text[n] == ' ');
    }
    tg_strbuf_puts(s, "\n");
}

static bool has_name(const struct tg_option *options, const char *name)
{
    for (; options && options->name; options++)
        if (strcmp(options->name, name) == 0)
            return true;
    return false;
}

void tg_options_list(struct tg_strbuf *s, const struct tg_option *options,
                     const struct tg_option *hidden)
{
    enum { COLUMN = 28, WIDTH = 98 };
    for (size_t i = 0; options[i].name; i++) {
        const struct tg_option *o = &options[i];
        if (has_name(hidden, o->name))
            continue;
        char left[96], help[2048], letter[8] = "    ";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "  %s--%s%s%s%s", letter, o->name, o->meta ? " " : "",
                 o->meta ? o->meta : "", o->type == TG_OPT_TEXTS ? "..." : "");
        snprintf(help, sizeof help, "%s", o->help);
        if (o->choice) {
            size_t at = strlen(help);
            const char *names[TG_CHOICE_MAX];
            size_t n = list_choices(o, names, TG_CHOICE_MAX);
            for (size_t j = 0; j < n && at < sizeof help; j++)
                at += (size_t)snprintf(help + at, sizeof help - at, "%s%s", j ? ", " : ": ",
                                       names[j]);
        }
        if (o->fallback) {
            size_t at = strlen(help);
            snprintf(help + at, sizeof help - at, " [%s]", o->fallback);
        }
        tg_strbuf_printf(s, "%-*s", COLUMN, left);
        if (strlen(left) >= COLUMN)
            tg_strbuf_printf(s, "\n%*s", COLUMN, "");
        wrapped(s, help, COLUMN, WIDTH);
    }
}
