/* tegu generate: continues a prompt, shown as it is made. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "linearize/model/generate.h"
#include "tools/subject.h"

struct settings {
    const char *prompt, *prompt_file;
    int64_t count, top_k;
    double temperature, top_p;
    bool ignore_eos;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "prompt", TG_OPT_TEXT, AT(prompt), NULL, "S", "text to continue", 0, 0, NULL, false},
    {0, "prompt-file", TG_OPT_TEXT, AT(prompt_file), NULL, "F", "text of a file to continue", 0, 0,
     NULL, false},
    {'n', "count", TG_OPT_COUNT, AT(count), "128", "N", "tokens to make", 1, 1 << 24, NULL, false},
    {0, "temperature", TG_OPT_NUM, AT(temperature), "0", "X", "0: always the most likely token", 0,
     100, NULL, false},
    {0, "top-k", TG_OPT_INT, AT(top_k), "0", "K", "draw among the K most likely; 0: all", 0,
     1 << 24, NULL, false},
    {0, "top-p", TG_OPT_NUM, AT(top_p), "1", "P",
     "draw among the most likely whose probabilities reach P", 1e-6, 1, NULL, false},
    {0, "ignore-eos", TG_OPT_FLAG, AT(ignore_eos), NULL, NULL, "go on after an end-of-text token",
     0, 0, NULL, false},
    {0},
};
#undef AT

struct stream {
    struct tg_tool *tool;
    const struct tg_tokenizer *tok;
    struct tg_ids held; /* ids whose text may still be half of a character */
    struct tg_strbuf text;
    struct tg_err err; /* what went wrong while tokens came */
    bool show;
};

static bool ends_in_replacement(const char *text, size_t len)
{
    return len >= 3 && memcmp(text + len - 3, "\xEF\xBF\xBD", 3) == 0;
}

static int show_held(struct stream *s, bool last)
{
    enum { LONGEST_WAIT = 8 };
    char *text = NULL;
    size_t len = 0;
    if (s->held.count == 0)
        return TG_OK;
    int status =
        tg_tokenizer_decode(s->tok, s->held.data, s->held.count, false, &text, &len, &s->err);
    if (status != TG_OK)
        return status;
    if (last || !ends_in_replacement(text, len) || s->held.count >= LONGEST_WAIT) {
        tg_strbuf_add(&s->text, text, len);
        if (s->show) {
            fwrite(text, 1, len, stdout);
            fflush(stdout);
        }
        s->held.count = 0;
    }
    tg_free(text);
    return s->text.failed ? tg_fail(&s->err, TG_ERR_NOMEM, "no memory for the text") : TG_OK;
}

/* A vocabulary may be padded beyond the tokenizer's; such ids have no text, as in HF's decoders. */
static bool has_text(const struct tg_tokenizer *tok, int32_t id)
{
    char *text = NULL;
    size_t len = 0;
    int status = tg_tokenizer_decode(tok, &id, 1, false, &text, &len, NULL);
    tg_free(text);
    return status != TG_ERR_VALUE;
}

static int on_token(void *ud, size_t sequence, int32_t id)
{
    struct stream *s = ud;
    (void)sequence;
    if (has_text(s->tok, id) &&
        (tg_ids_push(&s->held, id, &s->err) != TG_OK || show_held(s, false) != TG_OK))
        return 1;
    return tg_stop_wanted(s->tool);
}

static int print_json(const char *prompt, const struct stream *s, const int32_t *ids, size_t made,
                      double seconds, struct tg_err *err)
{
    struct tg_json_doc_out doc;
    struct tg_json_out *out = tg_print_json_begin(&doc);
    tg_jout_str(out, "prompt", prompt);
    tg_jout_str(out, "text", s->text.text);
    tg_jout_array(out, "ids");
    for (size_t i = 0; i < made; i++)
        tg_jout_int(out, NULL, ids[i]);
    tg_jout_end_array(out);
    tg_jout_num(out, "tokens_per_second", seconds > 0 ? (double)made / seconds : 0);
    return tg_print_json_end(&doc, err);
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_subject s = {0};
    struct tg_ids prompt = {0};
    char *file_text = NULL;
    size_t len = set->prompt ? strlen(set->prompt) : 0, made = 0;
    if (!!set->prompt + !!set->prompt_file != 1)
        return tg_usage(err, "give one of --prompt S, --prompt-file F");
    int status = tg_subject_open(t, t->args[0], TG_SUBJECT_TOKENIZER, &s, err);
    if (status == TG_OK && set->prompt_file)
        status = tg_text_read(set->prompt_file, (size_t)1 << 32, &file_text, &len, err);
    const char *text = set->prompt ? set->prompt : file_text;
    if (status == TG_OK)
        status = tg_tokenizer_encode(s.tok, text, len, true, &prompt, err);
    if (status == TG_OK && prompt.count == 0)
        status = tg_fail(err, TG_ERR_VALUE, "the prompt is empty");
    size_t count = (size_t)set->count;
    int32_t *out = status == TG_OK ? tg_alloc_array(count, sizeof *out) : NULL;
    if (status == TG_OK && !out)
        status = tg_fail(err, TG_ERR_NOMEM, "no memory for %zu tokens", count);
    struct stream stream = {.tool = t, .tok = s.tok, .show = !t->set.json};
    tg_strbuf_init(&stream.text, (size_t)1 << 32);
    if (status == TG_OK) {
        struct tg_sampling sampling = {set->temperature, (size_t)set->top_k, set->top_p,
                                       (uint64_t)t->set.seed};
        const int32_t *prompts = prompt.data;
        double began = tg_now();
        if (stream.show)
            fwrite(text, 1, len, stdout);
        status = tg_generate(s.model, &prompts, &prompt.count, 1, count, &sampling,
                             !set->ignore_eos, out, &made, on_token, &stream, err);
        if (status == TG_OK && stream.err.code == TG_OK)
            show_held(&stream, true);
        if (status == TG_OK && stream.err.code != TG_OK)
            status = tg_fail(err, stream.err.code, "%s", stream.err.msg);
        double seconds = tg_now() - began;
        if (stream.show)
            putchar('\n');
        if (status == TG_OK && t->set.json)
            status = print_json(text, &stream, out, made, seconds, err);
        else if (status == TG_OK && t->set.verbose)
            tg_note(t, "%zu tokens in %.2f s, %.1f a second", made, seconds,
                    seconds > 0 ? (double)made / seconds : 0);
    }
    tg_strbuf_release(&stream.text);
    tg_ids_release(&stream.held);
    tg_ids_release(&prompt);
    tg_free(out);
    tg_free(file_text);
    tg_subject_close(&s);
    return status;
}

const struct tg_command tg_cmd_generate = {
    .name = "generate",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details = "Prints the prompt and its continuation. Linear layers decode in constant memory.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
