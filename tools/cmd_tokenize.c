/* tegu tokenize: text to token ids, exactly as HF tokenizers does. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "formats/text.h"
#include "tools/subject.h"

enum { MAX_TEXT_BITS = 40 };

struct settings {
    const char *text, *file, *jsonl;
    bool no_special;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "text", TG_OPT_TEXT, AT(text), NULL, "S", "this text", 0, 0, NULL, false},
    {0, "file", TG_OPT_TEXT, AT(file), NULL, "F", "the whole text of a file (also .gz)", 0, 0, NULL,
     false},
    {0, "jsonl", TG_OPT_TEXT, AT(jsonl), NULL, "F",
     "each {\"text\":...} line of a file gives a line {\"ids\":[...]}", 0, 0, NULL, false},
    {0, "no-special", TG_OPT_FLAG, AT(no_special), NULL, NULL,
     "leave out what the template adds (such as BOS)", 0, 0, NULL, false},
    {0},
};
#undef AT

static void print_ids(const struct tg_ids *ids, bool json)
{
    fputs(json ? "{\"ids\":[" : "", stdout);
    for (size_t i = 0; i < ids->count; i++)
        printf("%s%d", i ? (json ? "," : " ") : "", ids->data[i]);
    puts(json ? "]}" : "");
}

static int print_text(const struct tg_tokenizer *tok, const char *text, size_t len, bool specials,
                      bool json, struct tg_err *err)
{
    struct tg_ids ids = {0};
    int status = tg_tokenizer_encode(tok, text, len, specials, &ids, err);
    if (status == TG_OK)
        print_ids(&ids, json);
    tg_ids_release(&ids);
    return status;
}

struct lines {
    struct tg_tool *tool;
    const struct tg_tokenizer *tok;
    bool specials;
};

static int print_line(void *ud, const char *text, size_t len, struct tg_err *err)
{
    const struct lines *l = ud;
    if (tg_stop_wanted(l->tool))
        return tg_fail(err, TG_ERR_INTERRUPTED, "stopped");
    return print_text(l->tok, text, len, l->specials, true, err);
}

static int print_jsonl(struct tg_tool *t, const struct tg_tokenizer *tok, const char *path,
                       bool specials, struct tg_err *err)
{
    char *text = NULL;
    size_t len = 0;
    struct lines lines = {t, tok, specials};
    int status = tg_text_read_raw(path, (size_t)1 << MAX_TEXT_BITS, &text, &len, err);
    if (status == TG_OK)
        status = tg_text_each(path, text, len, print_line, &lines, err);
    tg_free(text);
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    bool specials = !set->no_special;
    if (!!set->text + !!set->file + !!set->jsonl != 1)
        return tg_usage(err, "give one of --text S, --file F, --jsonl F");
    struct tg_tokenizer *tok = NULL;
    int status = tg_tokenizer_of(t->args[0], 0, true, &tok, err);
    if (status)
        return status;
    if (set->text) {
        status = print_text(tok, set->text, strlen(set->text), specials, t->set.json, err);
    } else if (set->file) {
        char *text = NULL;
        size_t len = 0;
        status = tg_text_read_raw(set->file, (size_t)1 << MAX_TEXT_BITS, &text, &len, err);
        if (status == TG_OK)
            status = print_text(tok, text, len, specials, t->set.json, err);
        tg_free(text);
    } else {
        status = print_jsonl(t, tok, set->jsonl, specials, err);
    }
    tg_tokenizer_free(tok);
    return status;
}

const struct tg_command tg_cmd_tokenize = {
    .name = "tokenize",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details = "MODEL is a directory with a tokenizer.json or tokenizer.model, such a file, or a "
               "GGUF model. Prints the ids on one line.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
