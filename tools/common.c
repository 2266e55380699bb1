/* What every command shares: common options, messages, names of registries for option choices. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "convert/target.h"
#include "linearize/mixers/mixer.h"
#include "tools/command.h"
#include "tools/eval/suite.h"

#define AT(field) offsetof(struct tg_common, field)
const struct tg_option tg_common_options[] = {
    {'q', "quiet", TG_OPT_FLAG, AT(quiet), NULL, NULL, "no progress, no messages but errors", 0, 0,
     NULL, false},
    {'v', "verbose", TG_OPT_FLAG, AT(verbose), NULL, NULL, "say more about what is done", 0, 0,
     NULL, false},
    {0, "threads", TG_OPT_INT, AT(threads), "0", "N",
     "threads to use; 0: all processors. Results do not depend on it", 0, 64, NULL, false},
    {0, "seed", TG_OPT_INT, AT(seed), "0", "N", "seed of everything random", 0, 9e15, NULL, false},
    {0, "force", TG_OPT_FLAG, AT(force), NULL, NULL, "replace an existing output", 0, 0, NULL,
     false},
    {0, "json", TG_OPT_FLAG, AT(json), NULL, NULL, "results as JSON on standard output", 0, 0, NULL,
     false},
    {0, "progress", TG_OPT_CHOICE, AT(progress), "auto", "WHEN", "draw a progress bar", 0, 0,
     tg_choice_progress, false},
    {'h', "help", TG_OPT_FLAG, AT(help), NULL, NULL, "this text", 0, 0, NULL, false},
    {0},
};
#undef AT

int tg_usage(struct tg_err *err, const char *fmt, ...)
{
    char text[sizeof err->msg];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    tg_fail(err, TG_ERR_VALUE, "%s", text);
    return TG_EXIT_USAGE;
}

bool tg_stop_wanted(const struct tg_tool *t)
{
    return t->view.stop_wanted && t->view.stop_wanted();
}

void tg_note(struct tg_tool *t, const char *fmt, ...)
{
    if (t->set.quiet)
        return;
    va_list args;
    tg_progress_clear(&t->view);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

struct tg_json_out *tg_print_json_begin(struct tg_json_doc_out *d)
{
    tg_strbuf_init(&d->text, (size_t)1 << 32);
    tg_jout_init(&d->out, &d->text, 2);
    tg_jout_object(&d->out, NULL);
    return &d->out;
}

int tg_print_json_end(struct tg_json_doc_out *d, struct tg_err *err)
{
    tg_jout_end_object(&d->out);
    int status = d->text.failed ? tg_fail(err, TG_ERR_NOMEM, "no memory for the JSON text") : TG_OK;
    if (status == TG_OK)
        puts(d->text.text);
    tg_strbuf_release(&d->text);
    return status;
}

/* Those that a plan can give */
const char *tg_choice_mixer(size_t i)
{
    for (size_t m = 0; tg_mixer_schemas[m]; m++)
        if (tg_mixer_schemas[m]->flags & TG_MIXER_PLAN && i-- == 0)
            return tg_mixer_schemas[m]->name;
    return NULL;
}

const char *tg_choice_suite(size_t i)
{
    return tg_suites[i] ? tg_suites[i]->name : NULL;
}

const char *tg_choice_weight_dtype(size_t i)
{
    static const char *const names[] = {"bf16", "f16", "f32", NULL};
    return i < 3 ? names[i] : NULL;
}

static const char *arch_at(size_t i, bool gguf)
{
    static const char *const first[] = {"auto", "tegu"};
    if (i < 2)
        return first[i];
    for (size_t k = 0, n = 2; tg_targets[k]; k++)
        if ((gguf || !tg_targets[k]->gguf) && n++ == i)
            return tg_targets[k]->name;
    return NULL;
}

const char *tg_choice_arch(size_t i)
{
    return arch_at(i, false);
}

const char *tg_choice_any_arch(size_t i)
{
    return arch_at(i, true);
}

const char *tg_choice_progress(size_t i)
{
    static const char *const names[] = {"auto", "always", "never", NULL};
    return i < 3 ? names[i] : NULL;
}
