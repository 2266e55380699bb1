/* Writing JSON, the second half of json.h. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "base/utf8.h"

void tg_jout_init(struct tg_json_out *j, struct tg_strbuf *to, int indent)
{
    *j = (struct tg_json_out){.to = to, .indent = indent, .first = true};
}

static void new_line(struct tg_json_out *j)
{
    if (j->indent > 0)
        tg_strbuf_printf(j->to, "\n%*s", j->indent * j->depth, "");
}

static void put_string(struct tg_strbuf *to, const char *s)
{
    size_t n = strlen(s), at = 0;
    tg_strbuf_add(to, "\"", 1);
    while (at < n) {
        unsigned char c = (unsigned char)s[at];
        size_t run = 0; /* bytes that stand for themselves */
        while (at + run < n && (unsigned char)s[at + run] >= 0x20 &&
               (unsigned char)s[at + run] < 0x80 && s[at + run] != '"' && s[at + run] != '\\')
            run++;
        uint32_t cp;
        if (run == 0 && c >= 0x80)
            run = tg_utf8_decode(s + at, n - at, &cp);
        if (run > 0) {
            tg_strbuf_add(to, s + at, run);
            at += run;
            continue;
        }
        static const char from[] = "\"\\\b\f\n\r\t", as[] = "\"\\bfnrt";
        const char *which = strchr(from, c);
        if (which)
            tg_strbuf_add(to, (char[]){'\\', as[which - from]}, 2);
        else if (c < 0x20)
            tg_strbuf_printf(to, "\\u%04x", c);
        else
            tg_strbuf_puts(to, "\xEF\xBF\xBD"); /* not UTF-8: the replacement character */
        at++;
    }
    tg_strbuf_add(to, "\"", 1);
}

/* Comma, line break and key of the next value. */
static void begin(struct tg_json_out *j, const char *key)
{
    if (!j->first)
        tg_strbuf_puts(j->to, j->indent > 0 ? "," : ", ");
    if (j->depth > 0)
        new_line(j);
    j->first = false;
    if (key) {
        put_string(j->to, key);
        tg_strbuf_puts(j->to, ": ");
    }
}

static void open_bracket(struct tg_json_out *j, const char *key, const char *bracket)
{
    begin(j, key);
    tg_strbuf_puts(j->to, bracket);
    j->depth++;
    j->first = true;
}

static void close_bracket(struct tg_json_out *j, const char *bracket)
{
    j->depth--;
    if (!j->first)
        new_line(j);
    tg_strbuf_puts(j->to, bracket);
    j->first = false;
}

void tg_jout_object(struct tg_json_out *j, const char *key)
{
    open_bracket(j, key, "{");
}

void tg_jout_array(struct tg_json_out *j, const char *key)
{
    open_bracket(j, key, "[");
}

void tg_jout_end_object(struct tg_json_out *j)
{
    close_bracket(j, "}");
}

void tg_jout_end_array(struct tg_json_out *j)
{
    close_bracket(j, "]");
}

void tg_jout_str(struct tg_json_out *j, const char *key, const char *value)
{
    begin(j, key);
    put_string(j->to, value);
}

/* A whole number with ".0" where asked */
static void put_number(struct tg_json_out *j, const char *key, double value, bool point)
{
    char text[40];
    begin(j, key);
    if (!isfinite(value)) {
        tg_strbuf_puts(j->to, "null");
        return;
    }
    if (value == floor(value) && fabs(value) <= 0x1p53) {
        snprintf(text, sizeof text, "%.*f", point, value);
    } else {
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*g", digits, value);
            if (strtod(text, NULL) == value)
                break;
        }
    }
    char *comma = strchr(text, ','); /* the decimal point of some locales */
    if (comma)
        *comma = '.';
    tg_strbuf_puts(j->to, text);
}

void tg_jout_num(struct tg_json_out *j, const char *key, double value)
{
    put_number(j, key, value, false);
}

void tg_jout_real(struct tg_json_out *j, const char *key, double value)
{
    put_number(j, key, value, true);
}

void tg_jout_int(struct tg_json_out *j, const char *key, int64_t value)
{
    begin(j, key);
    tg_strbuf_printf(j->to, "%lld", (long long)value);
}

void tg_jout_bool(struct tg_json_out *j, const char *key, bool value)
{
    begin(j, key);
    tg_strbuf_puts(j->to, value ? "true" : "false");
}

void tg_jout_null(struct tg_json_out *j, const char *key)
{
    begin(j, key);
    tg_strbuf_puts(j->to, "null");
}

void tg_jout_copy(struct tg_json_out *j, const char *key, struct tg_json value)
{
    if (tg_json_is_object(value) || tg_json_is_array(value)) {
        bool object = tg_json_is_object(value);
        open_bracket(j, key, object ? "{" : "[");
        for (struct tg_json c = tg_json_first(value); c.node; c = tg_json_next(c))
            tg_jout_copy(j, object ? tg_json_name(c) : NULL, c);
        close_bracket(j, object ? "}" : "]");
    } else if (tg_json_is_string(value)) {
        tg_jout_str(j, key, tg_json_string(value));
    } else if (tg_json_is_number(value)) {
        tg_jout_num(j, key, tg_json_number(value));
    } else if (tg_json_is_bool(value)) {
        tg_jout_bool(j, key, tg_json_bool(value));
    } else {
        tg_jout_null(j, key);
    }
}
