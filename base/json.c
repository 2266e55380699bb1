/* Parsed JSON: a document, its values, and typed getters whose errors name file and path. */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_scan.h"
#include "base/mem.h"
#include "base/near.h"

enum { MAX_FILE = 1 << 28 }; /* the largest tokenizer.json known is a tenth of this */

struct tg_json_doc {
    char *name;
    cJSON *root;
};

/* Sets the numbers that the scan found to be NaN; `at` counts numbers in document order. */
static void mend_nans(cJSON *node, const struct tg_json_scan *scan, size_t *at, size_t *next)
{
    if (cJSON_IsNumber(node) && *next < scan->nan_count && scan->nans[*next] == (*at)++) {
        node->valuedouble = NAN;
        (*next)++;
    }
    for (cJSON *c = node->child; c; c = c->next)
        mend_nans(c, scan, at, next);
}

/* Takes `text` (NUL-terminated, from base/mem.h). */
static int parse_own(struct tg_json_doc **doc, char *text, size_t len, const char *name,
                     unsigned flags, struct tg_err *err)
{
    struct tg_json_scan scan = {0};
    struct tg_json_doc *d = tg_alloc(sizeof *d);
    int rc = TG_OK;
    if (!d || !(d->name = tg_strdup(name)))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    else
        rc = tg_json_scan(&scan, text, len, name, flags, err);
    if (rc == TG_OK && !(d->root = cJSON_ParseWithLength(text, len + 1)))
        rc = tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name); /* the scan passed it */
    if (rc == TG_OK && scan.nan_count > 0)
        mend_nans(d->root, &scan, &(size_t){0}, &(size_t){0});
    tg_free(scan.nans);
    tg_free(text);
    if (rc != TG_OK) {
        tg_json_free(d);
        return rc;
    }
    *doc = d;
    return TG_OK;
}

int tg_json_parse(struct tg_json_doc **doc, const char *text, size_t len, const char *name,
                  unsigned flags, struct tg_err *err)
{
    *doc = NULL;
    char *copy = len < SIZE_MAX ? tg_alloc(len + 1) : NULL;
    if (!copy)
        return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
    if (len)
        memcpy(copy, text, len);
    return parse_own(doc, copy, len, name, flags, err);
}

int tg_json_load(struct tg_json_doc **doc, const char *path, unsigned flags, struct tg_err *err)
{
    char *text;
    size_t len;
    *doc = NULL;
    int rc = tg_file_read(path, MAX_FILE, &text, &len, err);
    return rc == TG_OK ? parse_own(doc, text, len, path, flags, err) : rc;
}

void tg_json_free(struct tg_json_doc *doc)
{
    if (!doc)
        return;
    cJSON_Delete(doc->root);
    tg_free(doc->name);
    tg_free(doc);
}

struct tg_json tg_json_root(const struct tg_json_doc *doc)
{
    return (struct tg_json){.node = doc->root, .doc = doc};
}

bool tg_json_has(struct tg_json v)
{
    return v.node && !cJSON_IsNull(v.node);
}

bool tg_json_is_object(struct tg_json v)
{
    return cJSON_IsObject(v.node);
}

bool tg_json_is_array(struct tg_json v)
{
    return cJSON_IsArray(v.node);
}

bool tg_json_is_string(struct tg_json v)
{
    return cJSON_IsString(v.node);
}

bool tg_json_is_number(struct tg_json v)
{
    return cJSON_IsNumber(v.node);
}

bool tg_json_is_bool(struct tg_json v)
{
    return cJSON_IsBool(v.node);
}

struct tg_json tg_json_key(struct tg_json object, const char *key)
{
    const cJSON *node = NULL;
    if (cJSON_IsObject(object.node))
        node = cJSON_GetObjectItemCaseSensitive(object.node, key);
    return (struct tg_json){.node = node, .doc = object.doc};
}

size_t tg_json_count(struct tg_json v)
{
    size_t n = 0;
    for (struct tg_json c = tg_json_first(v); c.node; c = tg_json_next(c))
        n++;
    return n;
}

struct tg_json tg_json_first(struct tg_json v)
{
    return (struct tg_json){.node = v.node ? v.node->child : NULL, .doc = v.doc};
}

struct tg_json tg_json_next(struct tg_json child)
{
    return (struct tg_json){.node = child.node ? child.node->next : NULL, .doc = child.doc};
}

const char *tg_json_name(struct tg_json v)
{
    return v.node && v.node->string ? v.node->string : "";
}

const char *tg_json_string(struct tg_json v)
{
    return cJSON_IsString(v.node) ? v.node->valuestring : "";
}

double tg_json_number(struct tg_json v)
{
    return cJSON_IsNumber(v.node) ? v.node->valuedouble : 0;
}

bool tg_json_bool(struct tg_json v)
{
    return cJSON_IsTrue(v.node);
}

/* cJSON nodes do not know their parent: search from the root, and write the path from its end while
 * returning. */
static bool find_path(const cJSON *at, const cJSON *want, char *buf, size_t size, size_t *len)
{
    size_t index = 0, before = *len;
    if (at == want)
        return true;
    for (const cJSON *c = at->child; c; c = c->next, index++) {
        int n = c->string
                    ? snprintf(buf + before, size - before, "%s%s", before ? "." : "", c->string)
                    : snprintf(buf + before, size - before, "[%zu]", index);
        *len = before + (size_t)n < size ? before + (size_t)n : size - 1;
        if ((c == want || c->child) && find_path(c, want, buf, size, len))
            return true;
    }
    *len = before;
    buf[before] = '\0';
    return false;
}

const char *tg_json_path(struct tg_json v, char *buf, size_t size)
{
    size_t len = 0;
    if (size == 0)
        return "";
    buf[0] = '\0';
    if (v.node && v.doc)
        find_path(v.doc->root, v.node, buf, size, &len);
    return buf;
}

int tg_json_fail(struct tg_json o, const char *key, int code, struct tg_err *err, const char *fmt,
                 ...)
{
    char path[256], what[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    tg_json_path(o, path, sizeof path);
    return tg_fail(err, code, "%s: %s%s%s: %s", o.doc ? o.doc->name : "JSON", path,
                   path[0] && key[0] ? "." : "", key, what);
}

static int fail_key(struct tg_json o, const char *key, struct tg_err *err, const char *what)
{
    return tg_json_fail(o, key, TG_ERR_VALUE, err, "%s", what);
}

/* The value of `key` for a getter: TG_OK and an absent value if it may be missing. */
static int need(struct tg_json o, const char *key, bool must, struct tg_json *v, struct tg_err *err)
{
    if (o.node && !cJSON_IsObject(o.node))
        return fail_key(o, key, err, "the value around this key is not an object");
    *v = tg_json_key(o, key);
    if (!tg_json_has(*v) && must)
        return fail_key(o, key, err, v->node ? "is null" : "is missing");
    return TG_OK;
}

static const char *kind_of(struct tg_json v)
{
    return tg_json_is_object(v)   ? "an object"
           : tg_json_is_array(v)  ? "an array"
           : tg_json_is_string(v) ? "a string"
           : tg_json_is_bool(v)   ? "true or false"
                                  : "a number";
}

static int fail_kind(struct tg_json o, const char *key, struct tg_json v, const char *want,
                     struct tg_err *err)
{
    char what[100];
    snprintf(what, sizeof what, "is %s, expected %s", kind_of(v), want);
    return fail_key(o, key, err, what);
}

static int get_int(struct tg_json o, const char *key, int64_t lo, int64_t hi, bool must,
                   int64_t *out, struct tg_err *err)
{
    struct tg_json v;
    char what[160];
    int rc = need(o, key, must, &v, err);
    if (rc != TG_OK || !tg_json_has(v))
        return rc;
    if (!tg_json_is_number(v))
        return fail_kind(o, key, v, "an integer", err);
    double d = tg_json_number(v);
    if (!(fabs(d) < 0x1p53) ||
        d != floor(d)) { /* beyond 2^53 a double may stand for another integer */
        snprintf(what, sizeof what, "%.17g is not an integer below 2^53", d);
        return fail_key(o, key, err, what);
    }
    if ((int64_t)d < lo || (int64_t)d > hi) {
        snprintf(what, sizeof what, "%lld is not in [%lld, %lld]", (long long)d, (long long)lo,
                 (long long)hi);
        return fail_key(o, key, err, what);
    }
    *out = (int64_t)d;
    return TG_OK;
}

static int get_num(struct tg_json o, const char *key, double lo, double hi, bool must, double *out,
                   struct tg_err *err)
{
    struct tg_json v;
    char what[160];
    int rc = need(o, key, must, &v, err);
    if (rc != TG_OK || !tg_json_has(v))
        return rc;
    if (!tg_json_is_number(v))
        return fail_kind(o, key, v, "a number", err);
    double d = tg_json_number(v);
    if (!(d >= lo && d <= hi)) {
        snprintf(what, sizeof what, "%g is not in [%g, %g]", d, lo, hi);
        return fail_key(o, key, err, what);
    }
    *out = d;
    return TG_OK;
}

static int get_str(struct tg_json o, const char *key, bool must, const char **out,
                   struct tg_err *err)
{
    struct tg_json v;
    int rc = need(o, key, must, &v, err);
    if (rc != TG_OK || !tg_json_has(v))
        return rc;
    if (!tg_json_is_string(v))
        return fail_kind(o, key, v, "a string", err);
    *out = tg_json_string(v);
    return TG_OK;
}

int tg_json_get_int(struct tg_json o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                    struct tg_err *err)
{
    return get_int(o, key, lo, hi, true, out, err);
}

int tg_json_get_int_or(struct tg_json o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                       struct tg_err *err)
{
    return get_int(o, key, lo, hi, false, out, err);
}

int tg_json_get_num(struct tg_json o, const char *key, double lo, double hi, double *out,
                    struct tg_err *err)
{
    return get_num(o, key, lo, hi, true, out, err);
}

int tg_json_get_num_or(struct tg_json o, const char *key, double lo, double hi, double *out,
                       struct tg_err *err)
{
    return get_num(o, key, lo, hi, false, out, err);
}

int tg_json_get_bool_or(struct tg_json o, const char *key, bool *out, struct tg_err *err)
{
    struct tg_json v;
    int rc = need(o, key, false, &v, err);
    if (rc != TG_OK || !tg_json_has(v))
        return rc;
    if (!tg_json_is_bool(v))
        return fail_kind(o, key, v, "true or false", err);
    *out = tg_json_bool(v);
    return TG_OK;
}

int tg_json_get_str(struct tg_json o, const char *key, const char **out, struct tg_err *err)
{
    return get_str(o, key, true, out, err);
}

int tg_json_get_str_or(struct tg_json o, const char *key, const char **out, struct tg_err *err)
{
    return get_str(o, key, false, out, err);
}

int tg_json_only_keys(struct tg_json o, const char *const *known, struct tg_err *err)
{
    if (!tg_json_is_object(o))
        return TG_OK;
    for (struct tg_json c = tg_json_first(o); c.node; c = tg_json_next(c)) {
        const char *key = tg_json_name(c), *near = NULL;
        size_t least = strlen(key) / 2 + 1; /* a suggestion shares at least half of the key */
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0) {
            size_t d = tg_edit_distance(key, known[i]);
            if (d < least) {
                least = d;
                near = known[i];
            }
            i++;
        }
        if (known[i])
            continue;
        char what[200];
        snprintf(what, sizeof what, near ? "unknown key, did you mean \"%s\"?" : "unknown key",
                 near);
        return fail_key(o, key, err, what);
    }
    return TG_OK;
}
