#include "tools/front_matter.h"

#include <stdbool.h>
#include <string.h>

struct span {
    const char *at;
    size_t len;
};

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct span trimmed(struct span s)
{
    while (s.len && blank(s.at[0]))
        s = (struct span){s.at + 1, s.len - 1};
    while (s.len && blank(s.at[s.len - 1]))
        s.len--;
    return s;
}

/* A YAML scalar: its quotes off, or a comment behind it */
static struct span scalar(struct span s)
{
    s = trimmed(s);
    if (s.len >= 2 && (s.at[0] == '"' || s.at[0] == '\'')) {
        const char *end = memchr(s.at + 1, s.at[0], s.len - 1);
        return (struct span){s.at + 1, end ? (size_t)(end - s.at) - 1 : 0};
    }
    for (size_t i = 0; i < s.len; i++)
        if (s.at[i] == '#' && (i == 0 || blank(s.at[i - 1])))
            s.len = i;
    return trimmed(s);
}

/* The next line of *rest, without its end; false where there is none */
static bool next_line(struct span *rest, struct span *line)
{
    if (!rest->len)
        return false;
    const char *end = memchr(rest->at, '\n', rest->len);
    const size_t n = end ? (size_t)(end - rest->at) : rest->len;
    *line = (struct span){rest->at, n};
    rest->at += n + (end != NULL);
    rest->len -= n + (end != NULL);
    return true;
}

static bool is(struct span s, const char *text)
{
    return s.len == strlen(text) && !memcmp(s.at, text, s.len);
}

/* The value into to[size], if it fits and has letters, digits and these marks alone */
static bool take(struct span value, const char *marks, char *to, size_t size)
{
    if (!value.len || value.len >= size)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        const char c = value.at[i];
        const bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == '\0' || !strchr(marks, c)))
            return false;
    }
    memcpy(to, value.at, value.len);
    to[value.len] = '\0';
    return true;
}

static void add_language(struct tg_front_matter *f, struct span value)
{
    if (f->language_count < TG_MAX_LANGUAGES &&
        take(scalar(value), "-", f->languages[f->language_count], sizeof f->languages[0]))
        f->language_count++;
}

/* "en", or "[en, fr]" */
static void add_languages(struct tg_front_matter *f, struct span value)
{
    value = trimmed(value);
    if (!value.len || value.at[0] != '[') {
        add_language(f, value);
        return;
    }
    for (size_t begin = 1, i = 1; i < value.len; i++)
        if (value.at[i] == ',' || value.at[i] == ']') {
            add_language(f, (struct span){value.at + begin, i - begin});
            begin = i + 1;
        }
}

/* A line inside the block; *list: the one before it began the list of languages */
static void read_line(struct tg_front_matter *f, struct span line, bool *list)
{
    const struct span item = trimmed(line);
    const char *colon = memchr(line.at, ':', line.len);

    if (*list && item.len > 1 && item.at[0] == '-' && blank(item.at[1])) {
        add_language(f, (struct span){item.at + 1, item.len - 1});
        return;
    }
    *list = false;
    if (!colon || blank(line.at[0]))
        return;
    const struct span key = {line.at, (size_t)(colon - line.at)};
    const struct span value = {colon + 1, line.len - key.len - 1};
    if (is(key, "license"))
        take(scalar(value), "-._+", f->license, sizeof f->license);
    else if (is(key, "license_name"))
        take(scalar(value), "-._+ ", f->license_name, sizeof f->license_name);
    else if (is(key, "license_link"))
        take(scalar(value), "-._~:/?#@!$&()*+,;=%", f->license_link, sizeof f->license_link);
    else if (is(key, "language")) {
        add_languages(f, value);
        *list = f->language_count == 0;
    }
}

void tg_front_matter_read(const char *text, size_t len, struct tg_front_matter *f)
{
    struct tg_front_matter found = {0};
    struct span rest = {text, len}, line;
    bool list = false;

    *f = (struct tg_front_matter){0};
    if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
        rest = (struct span){text + 3, len - 3};
    if (!next_line(&rest, &line) || !is(trimmed(line), "---"))
        return;
    while (next_line(&rest, &line)) {
        if (is(trimmed(line), "---")) {
            *f = found;
            return;
        }
        read_line(&found, line, &list);
    }
}
