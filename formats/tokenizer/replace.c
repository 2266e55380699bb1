#include "formats/tokenizer/replace.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "formats/tokenizer/chars.h"

static int out_of_memory(const char *name, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", name);
}

int tg_replace_set(struct tg_replace *r, const char *literal, const char *content, const char *name,
                   struct tg_err *err)
{
    *r = (struct tg_replace){.literal = tg_strdup(literal), .content = tg_strdup(content)};
    if (!r->literal || !r->content)
        return out_of_memory(name, err);
    r->literal_len = strlen(literal);
    r->content_len = strlen(content);
    return TG_OK;
}

int tg_replace_load(struct tg_replace *r, struct tg_json o, const char *name, struct tg_err *err)
{
    struct tg_json pattern = tg_json_key(o, "pattern");
    bool literal = tg_json_has(tg_json_key(pattern, "String"));
    const char *text, *content;
    *r = (struct tg_replace){0};
    int rc = tg_json_get_str(pattern, literal ? "String" : "Regex", &text, err);
    if (rc == TG_OK)
        rc = tg_json_get_str(o, "content", &content, err);
    if (rc != TG_OK)
        return rc;
    if (literal && *text)
        return tg_replace_set(r, text, content, name, err);
    if (!(r->content = tg_strdup(content)))
        return out_of_memory(name, err);
    r->content_len = strlen(content);
    return tg_regex_compile(&r->regex, text, literal, name, err);
}

void tg_replace_release(struct tg_replace *r)
{
    tg_regex_free(r->regex);
    tg_free(r->literal);
    tg_free(r->content);
    *r = (struct tg_replace){0};
}

static int next_match(const struct tg_replace *r, struct tg_regex_run *run, const char *text,
                      size_t len, struct tg_regex_walk *walk, size_t *begin, size_t *end,
                      struct tg_err *err)
{
    if (r->regex)
        return tg_regex_next(r->regex, run, text, len, walk, begin, end, err);
    const char *at = text + walk->from, *stop = text + len;
    while ((size_t)(stop - at) >= r->literal_len &&
           (at = memchr(at, r->literal[0], (size_t)(stop - at) - r->literal_len + 1))) {
        if (memcmp(at, r->literal, r->literal_len) == 0) {
            *begin = (size_t)(at - text);
            *end = walk->from = *begin + r->literal_len;
            return 1;
        }
        at++;
    }
    return 0;
}

int tg_replace_run(const struct tg_replace *r, struct tg_regex_run *run, const char *text,
                   size_t len, struct tg_text *out, size_t *origin, bool whole, const char *name,
                   struct tg_err *err)
{
    struct tg_regex_walk walk = tg_regex_walk_from(0);
    size_t done = 0, begin, end, first = origin ? *origin : 0, first_out = 0;
    int found = 0;
    while (len && (found = next_match(r, run, text, len, &walk, &begin, &end, err)) == 1) {
        if (!tg_text_add(out, text + done, begin - done) ||
            !tg_text_add(out, r->content, r->content_len))
            return out_of_memory(name, err);
        size_t kept = first > done ? (first < begin ? first : begin) - done : 0;
        bool stands = end ? end <= first : whole;
        first_out += kept + (stands ? r->content_len : 0);
        done = end;
    }
    if (found < 0)
        return found;
    if (!tg_text_add(out, text + done, len - done))
        return out_of_memory(name, err);
    if (origin)
        *origin = first_out + (first > done ? first - done : 0);
    return TG_OK;
}
