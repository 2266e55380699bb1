/* A strict JSON recogniser (RFC 8259) in one linear pass. cJSON by itself cuts strings at \u0000,
 * keeps duplicate keys, takes control characters and invalid UTF-8, and cuts numbers at 63
 * characters. */
#include "base/json_scan.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { NUMBER_MAX = 63 }; /* cJSON's own limit on the characters of a number */

struct key {
    size_t at, len; /* between the quotes, as written; len = 0 and at = 0: empty slot */
    uint64_t hash;
    uint32_t object;
};

struct scan {
    struct tg_json_scan *found;
    char *text;
    size_t len, at;
    const char *name;
    unsigned flags;
    int depth;
    uint32_t objects; /* begun so far: the number of an object tells its keys from another's */
    size_t numbers;
    struct key *keys; /* open addressing, a power of two, at most half full */
    size_t slots, used;
    struct tg_err *err;
};

static int fail_at(struct scan *s, size_t at, const char *what)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < at; i++) {
        if (s->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    }
    return tg_fail(s->err, TG_ERR_FORMAT, "%s: line %zu, column %zu: %s", s->name, line,
                   at - start + 1, what);
}

static int fail_memory(struct scan *s)
{
    return tg_fail(s->err, TG_ERR_NOMEM, "%s: out of memory", s->name);
}

static void skip_space(struct scan *s)
{
    for (; s->at < s->len; s->at++) {
        char c = s->text[s->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return;
    }
}

static int hex4(const char *p, size_t left)
{
    int v = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = i < left ? p[i] : 0;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* One character of a string that is known to be valid, escapes resolved; moves *p behind it. */
static uint32_t next_char(const char **p)
{
    const char *c = *p;
    if (*c != '\\') {
        *p = c + 1; /* bytes of longer sequences pass one by one: they compare like the whole */
        return (unsigned char)*c;
    }
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (c[1] != 'u') {
        const char *which = strchr(from, c[1]);
        *p = c + 2;
        return (unsigned char)(which ? to[which - from] : c[1]);
    }
    uint32_t v = (uint32_t)hex4(c + 2, 4);
    *p = c + 6;
    if (v >= 0xD800 && v < 0xDC00) {
        v = 0x10000 + ((v - 0xD800) << 10) + ((uint32_t)hex4(c + 8, 4) - 0xDC00);
        *p = c + 12;
    }
    return v;
}

/* The key's bytes with escapes resolved, one at a time, so that "a" and "\u0061" are one key. */
struct walk {
    const char *at, *end;
    char pending[4];
    size_t left, size;
};

static int walk_next(struct walk *w)
{
    if (w->left > 0)
        return (unsigned char)w->pending[w->size - w->left--];
    if (w->at >= w->end)
        return -1;
    bool escaped = *w->at == '\\';
    uint32_t c = next_char(&w->at);
    if (!escaped || c < 0x80)
        return (int)c;
    w->size = tg_utf8_encode(c, w->pending);
    w->left = w->size - 1;
    return (unsigned char)w->pending[0];
}

static bool same_key(const char *text, const struct key *a, const struct key *b)
{
    struct walk x = {.at = text + a->at, .end = text + a->at + a->len};
    struct walk y = {.at = text + b->at, .end = text + b->at + b->len};
    for (;;) {
        int c = walk_next(&x);
        if (c != walk_next(&y))
            return false;
        if (c < 0)
            return true;
    }
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

static bool grow_keys(struct scan *s)
{
    size_t slots = s->slots ? 2 * s->slots : 64;
    struct key *keys = tg_alloc_array(slots, sizeof *keys);
    if (!keys)
        return false;
    for (size_t i = 0; i < s->slots; i++) {
        if (!s->keys[i].at)
            continue;
        size_t j = s->keys[i].hash & (slots - 1);
        while (keys[j].at)
            j = (j + 1) & (slots - 1);
        keys[j] = s->keys[i];
    }
    tg_free(s->keys);
    s->keys = keys;
    s->slots = slots;
    return true;
}

static int add_key(struct scan *s, uint32_t object, size_t at, size_t len)
{
    struct key k = {.at = at, .len = len, .object = object, .hash = mix(object)};
    struct walk w = {.at = s->text + at, .end = s->text + at + len};
    for (int c; (c = walk_next(&w)) >= 0;)
        k.hash = (k.hash ^ (uint64_t)c) * 0x100000001B3u;
    k.hash = mix(k.hash);
    if (2 * (s->used + 1) > s->slots && !grow_keys(s))
        return fail_memory(s);
    size_t j = k.hash & (s->slots - 1);
    for (; s->keys[j].at; j = (j + 1) & (s->slots - 1)) {
        const struct key *o = &s->keys[j];
        if (o->hash == k.hash && o->object == object && same_key(s->text, o, &k)) {
            char what[300];
            snprintf(what, sizeof what, "key \"%.*s\" stands twice in one object",
                     (int)(len < 200 ? len : 200), s->text + at);
            return fail_at(s, at, what);
        }
    }
    s->keys[j] = k;
    s->used++;
    return TG_OK;
}

static int scan_escape(struct scan *s)
{
    size_t at = s->at, left = s->len - at;
    const char *p = s->text + at;
    if (left < 2 || !strchr("\"\\/bfnrtu", p[1]) || !p[1])
        return fail_at(s, at, "unknown escape in a string");
    if (p[1] != 'u') {
        s->at += 2;
        return TG_OK;
    }
    int v = hex4(p + 2, left - 2);
    if (v < 0)
        return fail_at(s, at, "\\u needs four hexadecimal digits");
    if (v == 0)
        return fail_at(s, at, "\\u0000 in a string is not supported");
    s->at += 6;
    if (v < 0xD800 || v > 0xDFFF)
        return TG_OK;
    int low = left >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, 4) : -1;
    if (v > 0xDBFF || low < 0xDC00 || low > 0xDFFF)
        return fail_at(s, at, "half of a surrogate pair");
    s->at += 6;
    return TG_OK;
}

/* At the opening quote; ends behind the closing one. */
static int scan_string(struct scan *s)
{
    size_t begin = s->at++;
    while (s->at < s->len) {
        unsigned char c = (unsigned char)s->text[s->at];
        uint32_t cp;
        if (c == '"') {
            s->at++;
            return TG_OK;
        }
        if (c == '\\') {
            int rc = scan_escape(s);
            if (rc != TG_OK)
                return rc;
            continue;
        }
        if (c < 0x20)
            return fail_at(s, s->at, "control character in a string");
        size_t n = c < 0x80 ? 1 : tg_utf8_decode(s->text + s->at, s->len - s->at, &cp);
        if (n == 0)
            return fail_at(s, s->at, "not valid UTF-8");
        s->at += n;
    }
    return fail_at(s, begin, "string without an end");
}

static size_t digits(struct scan *s)
{
    size_t begin = s->at;
    while (s->at < s->len && s->text[s->at] >= '0' && s->text[s->at] <= '9')
        s->at++;
    return s->at - begin;
}

static bool take(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if (n > s->len - s->at || memcmp(s->text + s->at, word, n) != 0)
        return false;
    s->at += n;
    return true;
}

/* Puts a spelling that cJSON can read, filled up with spaces, over the number at `begin`. */
static void respell(struct scan *s, size_t begin, const char *spelling)
{
    size_t n = strlen(spelling);
    memset(s->text + begin, ' ', s->at - begin);
    memcpy(s->text + begin, spelling, n);
}

static int scan_not_finite(struct scan *s, size_t begin)
{
    bool minus = s->text[begin] == '-';
    if (!minus && take(s, "NaN")) {
        struct tg_json_scan *f = s->found;
        if (!tg_grow(&f->nans, &f->nan_cap, f->nan_count + 1, sizeof *f->nans))
            return fail_memory(s);
        f->nans[f->nan_count++] = s->numbers++;
        respell(s, begin, "0");
        return TG_OK;
    }
    if (!take(s, "Infinity"))
        return fail_at(s, begin, "not a value");
    s->numbers++;
    respell(s, begin, minus ? "-1e999" : "1e999");
    return TG_OK;
}

static int scan_number(struct scan *s)
{
    size_t begin = s->at;
    if (s->text[s->at] == '-')
        s->at++;
    if (s->at < s->len && s->text[s->at] == 'I' && s->flags & TG_JSON_INFINITY)
        return scan_not_finite(s, begin);
    bool zero = s->at < s->len && s->text[s->at] == '0', suspect = false;
    size_t whole = digits(s);
    if (whole == 0 || (zero && whole > 1))
        return fail_at(s, begin, "not a number");
    if (take(s, ".") && digits(s) == 0)
        return fail_at(s, begin, "not a number");
    if (take(s, "e") || take(s, "E")) {
        suspect = true;
        (void)(take(s, "+") || take(s, "-"));
        if (digits(s) == 0)
            return fail_at(s, begin, "not a number");
    }
    s->numbers++;
    size_t n = s->at - begin;
    if (!suspect && n <= NUMBER_MAX)
        return TG_OK;
    double v = strtod(s->text + begin, NULL);
    if (!isfinite(v))
        return fail_at(s, begin, "number out of the range of double precision");
    if (n > NUMBER_MAX) {
        char spelling[32];
        snprintf(spelling, sizeof spelling, "%.17g", v);
        respell(s, begin, spelling);
    }
    return TG_OK;
}

static int scan_value(struct scan *s);

/* Members of an object or elements of an array; at the opening bracket. */
static int scan_children(struct scan *s, bool object)
{
    char close = object ? '}' : ']';
    uint32_t number = object ? s->objects++ : 0;
    int rc;
    if (++s->depth > TG_JSON_DEPTH)
        return fail_at(s, s->at, "nested deeper than 64");
    s->at++;
    skip_space(s);
    if (s->at < s->len && s->text[s->at] == close) {
        s->at++;
        s->depth--;
        return TG_OK;
    }
    for (;;) {
        skip_space(s);
        if (object) {
            size_t key = s->at + 1;
            if (s->at >= s->len || s->text[s->at] != '"')
                return fail_at(s, s->at, "expected a key in quotes");
            if ((rc = scan_string(s)) != TG_OK ||
                (rc = add_key(s, number, key, s->at - 1 - key)) != TG_OK)
                return rc;
            skip_space(s);
            if (!take(s, ":"))
                return fail_at(s, s->at, "expected ':' after the key");
        }
        if ((rc = scan_value(s)) != TG_OK)
            return rc;
        skip_space(s);
        if (take(s, ","))
            continue;
        if (s->at >= s->len || s->text[s->at] != close)
            return fail_at(s, s->at, object ? "expected ',' or '}'" : "expected ',' or ']'");
        s->at++;
        s->depth--;
        return TG_OK;
    }
}

static int scan_value(struct scan *s)
{
    skip_space(s);
    if (s->at >= s->len)
        return fail_at(s, s->at, "the text ends where a value is expected");
    char c = s->text[s->at];
    if (c == '{' || c == '[')
        return scan_children(s, c == '{');
    if (c == '"')
        return scan_string(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return scan_number(s);
    if (take(s, "true") || take(s, "false") || take(s, "null"))
        return TG_OK;
    if ((c == 'I' || c == 'N') && s->flags & TG_JSON_INFINITY)
        return scan_not_finite(s, s->at);
    if (tg_utf8_check(s->text + s->at, s->len - s->at < 4 ? s->len - s->at : 4) == 0)
        return fail_at(s, s->at, "not valid UTF-8");
    return fail_at(s, s->at, "not a value");
}

int tg_json_scan(struct tg_json_scan *found, char *text, size_t len, const char *name,
                 unsigned flags, struct tg_err *err)
{
    struct scan s = {
        .found = found, .text = text, .len = len, .name = name, .flags = flags, .err = err};
    *found = (struct tg_json_scan){0};
    int rc = scan_value(&s);
    if (rc == TG_OK) {
        skip_space(&s);
        if (s.at < len)
            rc = fail_at(&s, s.at, "bytes after the value");
    }
    tg_free(s.keys);
    if (rc != TG_OK) {
        tg_free(found->nans);
        *found = (struct tg_json_scan){0};
    }
    return rc;
}
