/* tegu detokenize: token ids to text. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "formats/text.h"
#include "tools/subject.h"

enum { MAX_TEXT_BITS = 40 };

struct settings {
    const char *ids, *file, *jsonl;
    bool skip_special;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "ids", TG_OPT_TEXT, AT(ids), NULL, "LIST", "these ids, separated by commas or blanks", 0, 0,
     NULL, false},
    {0, "file", TG_OPT_TEXT, AT(file), NULL, "F", "the ids in a file, as tokenize prints them", 0,
     0, NULL, false},
    {0, "jsonl", TG_OPT_TEXT, AT(jsonl), NULL, "F",
     "each {\"ids\":[...]} line of a file gives a line {\"text\":...}", 0, 0, NULL, false},
    {0, "skip-special", TG_OPT_FLAG, AT(skip_special), NULL, NULL, "leave special tokens out", 0, 0,
     NULL, false},
    {0},
};
#undef AT

static int parse_ids(const char *text, const char *where, struct tg_ids *ids, struct tg_err *err)
{
    for (;;) {
        while (*text == ',' || isspace((unsigned char)*text))
            text++;
        if (!*text)
            return TG_OK;
        char *end;
        long v = strtol(text, &end, 10);
        if (end == text || v < 0 || v > INT32_MAX ||
            (*end && *end != ',' && !isspace((unsigned char)*end)))
            return tg_fail(err, TG_ERR_VALUE, "%s: '%.20s' is not a token id", where, text);
        int status = tg_ids_push(ids, (int32_t)v, err);
        if (status)
            return status;
        text = end;
    }
}

static int print_text(const struct tg_tokenizer *tok, const struct tg_ids *ids, bool skip,
                      bool json, struct tg_err *err)
{
    char *text = NULL;
    size_t len = 0;
    int status = tg_tokenizer_decode(tok, ids->data, ids->count, skip, &text, &len, err);
    if (status == TG_OK && json) {
        struct tg_strbuf s;
        struct tg_json_out out;
        tg_strbuf_init(&s, (size_t)1 << MAX_TEXT_BITS);
        tg_jout_init(&out, &s, 0);
        tg_jout_object(&out, NULL);
        tg_jout_str(&out, "text", text);
        tg_jout_end_object(&out);
        if (s.failed)
            status = tg_fail(err, TG_ERR_NOMEM, "no memory for a text of %zu bytes", len);
        else
            puts(s.text);
        tg_strbuf_release(&s);
    } else if (status == TG_OK) {
        fwrite(text, 1, len, stdout);
        putchar('\n');
    }
    tg_free(text);
    return status;
}

static int print_line(const struct tg_tokenizer *tok, const char *path, size_t number,
                      const char *line, size_t len, bool skip, struct tg_err *err)
{
    char name[512];
    struct tg_json_doc *doc = NULL;
    struct tg_ids ids = {0};
    snprintf(name, sizeof name, "%s: line %zu", path, number);
    int status = tg_json_parse(&doc, line, len, name, 0, err);
    struct tg_json list = {0};
    if (status == TG_OK) {
        list = tg_json_key(tg_json_root(doc), "ids");
        if (!tg_json_is_array(list))
            status = tg_fail(err, TG_ERR_FORMAT, "%s: has no list \"ids\"", name);
    }
    for (struct tg_json c = tg_json_first(list); status == TG_OK && c.node; c = tg_json_next(c)) {
        double v = tg_json_number(c);
        if (!tg_json_is_number(c) || !(v >= 0 && v <= INT32_MAX) || v != (double)(int32_t)v)
            status = tg_fail(err, TG_ERR_FORMAT, "%s: ids: %g is not a token id", name, v);
        else
            status = tg_ids_push(&ids, (int32_t)v, err);
    }
    if (status == TG_OK)
        status = print_text(tok, &ids, skip, true, err);
    tg_ids_release(&ids);
    tg_json_free(doc);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    if (!!set->ids + !!set->file + !!set->jsonl != 1)
        return tg_usage(err, "give one of --ids LIST, --file F, --jsonl F");
    struct tg_tokenizer *tok = NULL;
    struct tg_ids ids = {0};
    char *text = NULL;
    size_t len = 0, number = 0;
    int status = tg_tokenizer_of(t->args[0], 0, true, &tok, err);
    if (status == TG_OK && !set->ids)
        status = tg_text_read_raw(set->file ? set->file : set->jsonl, (size_t)1 << MAX_TEXT_BITS,
                                  &text, &len, err);
    if (status)
        goto out;
    if (set->jsonl) {
        for (size_t at = 0; status == TG_OK && at < len;) {
            const char *end = memchr(text + at, '\n', len - at);
            size_t n = end ? (size_t)(end - text) - at : len - at;
            number++;
            if (n > 0)
                status = print_line(tok, set->jsonl, number, text + at, n, set->skip_special, err);
            at += n + 1;
        }
    } else {
        status = parse_ids(set->ids ? set->ids : text, set->ids ? "--ids" : set->file, &ids, err);
        if (status == TG_OK)
            status = print_text(tok, &ids, set->skip_special, t->set.json, err);
    }
out:
    tg_free(text);
    tg_ids_release(&ids);
    tg_tokenizer_free(tok);
    return status;
}

const struct tg_command tg_cmd_detokenize = {
    .name = "detokenize",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details = "MODEL is a directory with a tokenizer.json or tokenizer.model, such a file, or a "
               "GGUF model.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
