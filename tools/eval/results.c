#include "tools/eval/results.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

int tg_results_put(struct tg_results *r, double value, struct tg_err *err, const char *fmt, ...)
{
    char path[sizeof r->items->path];
    va_list args;
    va_start(args, fmt);
    vsnprintf(path, sizeof path, fmt, args);
    va_end(args);
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->items[i].path, path) == 0) {
            r->items[i].value = value;
            return TG_OK;
        }
    if (!tg_grow(&r->items, &r->cap, r->count + 1, sizeof *r->items))
        return tg_fail(err, TG_ERR_NOMEM, "no memory for results");
    memcpy(r->items[r->count].path, path, sizeof path);
    r->items[r->count++].value = value;
    return TG_OK;
}

const struct tg_result *tg_results_find(const struct tg_results *r, const char *path)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->items[i].path, path) == 0)
            return &r->items[i];
    return NULL;
}

double tg_results_get(const struct tg_results *r, const char *path)
{
    const struct tg_result *x = tg_results_find(r, path);
    return x ? x->value : NAN;
}

void tg_results_release(struct tg_results *r)
{
    tg_free(r->items);
    memset(r, 0, sizeof *r);
}

/* Items whose path begins with the first `depth` characters of items[at].path, as members of one
 * object. Each name appears once, where its first item stands. */
static void write_group(const struct tg_results *r, size_t at, size_t depth,
                        struct tg_json_out *out)
{
    const char *prefix = r->items[at].path;
    for (size_t i = at; i < r->count; i++) {
        const char *path = r->items[i].path;
        if (strncmp(path, prefix, depth) != 0)
            continue;
        size_t n = strcspn(path + depth, ".");
        bool seen = false;
        for (size_t j = at; j < i && !seen; j++)
            seen = strncmp(r->items[j].path, path, depth + n) == 0 &&
                   (r->items[j].path[depth + n] == '.' || !r->items[j].path[depth + n]);
        if (seen)
            continue;
        char key[sizeof r->items[i].path];
        snprintf(key, sizeof key, "%.*s", (int)n, path + depth);
        double v = r->items[i].value;
        if (path[depth + n]) {
            tg_jout_object(out, key);
            write_group(r, i, depth + n + 1, out);
            tg_jout_end_object(out);
        } else if (v == floor(v) && fabs(v) < 9e15 && v != 0) {
            tg_jout_int(out, key, (int64_t)v);
        } else {
            tg_jout_num(out, key, v);
        }
    }
}

void tg_results_write_json(const struct tg_results *r, struct tg_json_out *out)
{
    if (r->count)
        write_group(r, 0, 0, out);
}

static int read_below(struct tg_results *r, struct tg_json v, const char *prefix,
                      struct tg_err *err)
{
    for (struct tg_json c = tg_json_first(v); c.node; c = tg_json_next(c)) {
        char path[sizeof r->items->path];
        int n =
            snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] ? "." : "", tg_json_name(c));
        if (n < 0 || (size_t)n >= sizeof path)
            continue;
        int status = TG_OK;
        if (tg_json_is_object(c))
            status = read_below(r, c, path, err);
        else if (tg_json_is_number(c))
            status = tg_results_put(r, tg_json_number(c), err, "%s", path);
        if (status)
            return status;
    }
    return TG_OK;
}

int tg_results_read_json(struct tg_results *r, struct tg_json v, struct tg_err *err)
{
    return read_below(r, v, "", err);
}

int tg_check_parse(const char *text, struct tg_check *c, struct tg_err *err)
{
    size_t n = strcspn(text, "<>=! \t");
    const char *at = text + n + strspn(text + n, " \t");
    if (n == 0 || n >= sizeof c->name || (*at != '<' && *at != '>'))
        return tg_fail(err, TG_ERR_VALUE,
                       "fail-if: '%s' is not NAME<NUMBER or NAME>NUMBER (also <= and >=)", text);
    memset(c, 0, sizeof *c);
    c->text = text;
    memcpy(c->name, text, n);
    c->op[0] = *at++;
    if (*at == '=')
        c->op[1] = *at++;
    char *end;
    c->limit = strtod(at, &end);
    while (*end == ' ' || *end == '\t')
        end++;
    if (end == at || *end || !isfinite(c->limit))
        return tg_fail(err, TG_ERR_VALUE, "fail-if: '%s': '%s' is not a number", text, at);
    return TG_OK;
}

static bool ends_in(const char *path, const char *name, const char *more)
{
    size_t p = strlen(path), n = strlen(name), m = strlen(more);
    return p > n + m && path[p - n - m - 1] == '.' && strncmp(path + p - n - m, name, n) == 0 &&
           strcmp(path + p - m, more) == 0;
}

int tg_check_resolve(const struct tg_check *c, const struct tg_results *r,
                     const struct tg_result **found, struct tg_err *err)
{
    *found = tg_results_find(r, c->name);
    if (*found)
        return TG_OK;
    static const char *const more[] = {"", ".student"};
    for (size_t m = 0; m < 2 && !*found; m++)
        for (size_t i = 0; i < r->count; i++) {
            const char *path = r->items[i].path;
            if (strncmp(path, "buckets.", 8) == 0 || strncmp(path, "untrained.", 10) == 0 ||
                !ends_in(path, c->name, more[m]))
                continue;
            if (*found)
                return tg_fail(err, TG_ERR_VALUE,
                               "fail-if: '%s' may mean '%s' or '%s': write one of them", c->name,
                               (*found)->path, path);
            *found = &r->items[i];
        }
    if (*found)
        return TG_OK;
    char known[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < r->count && used < sizeof known - sizeof r->items->path - 2; i++)
        if (strncmp(r->items[i].path, "buckets.", 8) != 0 &&
            strncmp(r->items[i].path, "untrained.", 10) != 0)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "",
                                     r->items[i].path);
    return tg_fail(err, TG_ERR_VALUE, "fail-if: no result is named '%s'; there are: %s", c->name,
                   known);
}

bool tg_check_fails(const struct tg_check *c, double value)
{
    if (isnan(value))
        return true;
    if (c->op[0] == '<')
        return c->op[1] ? value <= c->limit : value < c->limit;
    return c->op[1] ? value >= c->limit : value > c->limit;
}
