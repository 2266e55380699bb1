/* tegu inspect: what is in a model or in tensor files, and anything wrong with it. Reads headers
 * alone unless asked for more. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "formats/format.h"
#include "tools/inspect_view.h"
#include "tools/subject.h"

struct settings {
    bool tensors, hash, check;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "tensors", TG_OPT_FLAG, AT(tensors), NULL, NULL, "list every tensor", 0, 0, NULL, false},
    {0, "hash", TG_OPT_FLAG, AT(hash), NULL, NULL,
     "SHA-256 of the files, and of every tensor whatever its format and shard (reads every byte)",
     0, 0, NULL, false},
    {0, "check", TG_OPT_FLAG, AT(check), NULL, NULL,
     "read every value: NaN, infinities, tensors that are all zero", 0, 0, NULL, false},
    {0},
};
#undef AT

static int describe_tokenizer(const char *path, size_t vocab, char *buf, size_t size,
                              struct tg_err *err)
{
    struct tg_tokenizer *tok;
    const int status = tg_tokenizer_of(path, vocab, false, &tok, err);
    if (tok)
        snprintf(buf, size, "%s, %zu tokens", tg_tokenizer_kind(tok), tg_tokenizer_vocab(tok));
    tg_tokenizer_free(tok);
    return status;
}

static int fail_memory(const struct tg_facts *f, struct tg_err *err)
{
    return tg_fail(err, TG_ERR_NOMEM, "%s: out of memory", f->path);
}

/* What the headers say by themselves */
static bool look_at_headers(struct tg_facts *f)
{
    char mixed[256] = "";
    size_t used = 0, kinds = 0;
    for (int d = 0; d < TG_DTYPE_COUNT; d++) {
        if (!f->tensors_of[d] || !tg_dtype_info((enum tg_dtype)d)->is_float)
            continue;
        if (used < sizeof mixed)
            used +=
                (size_t)snprintf(mixed + used, sizeof mixed - used, "%s%zu %s", kinds ? ", " : "",
                                 f->tensors_of[d], tg_dtype_info((enum tg_dtype)d)->name);
        kinds++;
    }
    bool ok = kinds < 2 || tg_facts_find(f, "dtypes are mixed: %s", mixed);
    if (f->spec && f->spec->tied_head && tg_tensors_find(f->tensors, "lm_head.weight"))
        ok = ok && tg_facts_find(f, "the head is stored although it is tied to the embedding");
    return ok;
}

/* What the values say */
static bool look_at_values(struct tg_facts *f)
{
    bool ok = true;
    for (size_t i = 0; i < tg_tensors_count(f->tensors) && ok; i++) {
        const struct tg_tensor *x = tg_tensors_at(f->tensors, i);
        const struct tg_content *c = &f->content[i];
        if (c->nans || c->infinities) {
            f->wrong = true;
            ok = tg_facts_find(f,
                               "%s: tensor '%s' has %zu NaN and %zu infinit%s, the first at "
                               "element %zu",
                               x->file, x->name, c->nans, c->infinities,
                               c->infinities == 1 ? "y" : "ies", c->first_bad);
        } else if (x->elements && c->zeros == x->elements)
            ok = tg_facts_find(f, "tensor '%s' is all zero", x->name);
    }
    return ok;
}

static int read_content(struct tg_tool *t, const struct settings *set, struct tg_facts *f,
                        struct tg_err *err)
{
    const unsigned flags =
        (set->hash ? TG_CONTENT_HASH : 0u) | (set->check ? TG_CONTENT_VALUES : 0u);
    struct tg_content *c = tg_alloc_array(tg_tensors_count(f->tensors) + 1, sizeof *c);
    if (!c)
        return fail_memory(f, err);
    f->content = c;
    f->checked = set->check;
    int status = tg_content_read(f->tensors, flags, t->ctx.threads, c, &t->progress, err);
    if (status == TG_OK && set->hash)
        tg_content_hash(f->tensors, c, f->content_hash);
    if (status == TG_OK && set->check && !look_at_values(f))
        status = fail_memory(f, err);
    return status;
}

/* As a model if it is one; else as files of tensors, with the reason. */
static int open_any(struct tg_facts *f, struct tg_checkpoint **c, struct tg_tensors **files,
                    struct tg_err *err)
{
    char *config = tg_path_join(f->path, "config.json");
    const bool model = config && tg_path_is_dir(f->path) && tg_path_exists(config);
    struct tg_err why = {0};
    int status = tg_checkpoint_open(c, f->path, model ? err : &why);
    tg_free(config);
    if (status == TG_OK) {
        f->spec = tg_checkpoint_spec(*c);
        f->tensors = tg_checkpoint_tensors(*c);
    } else if (!model && (status = tg_tensors_open(files, f->path, err)) == TG_OK) {
        f->tensors = *files;
        if (!tg_path_is_dir(f->path) && why.code == TG_ERR_UNSUPPORTED &&
            !tg_tensors_format(*files)->index && !tg_facts_find(f, "%s", why.msg))
            status = fail_memory(f, err);
    }
    return status;
}

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_checkpoint *c = NULL;
    struct tg_tensors *files = NULL;
    struct tg_facts f = {.path = t->args[0], .list = set->tensors || set->hash};
    int status = open_any(&f, &c, &files, err);
    for (size_t i = 0; status == TG_OK && i < tg_tensors_count(f.tensors); i++) {
        const struct tg_tensor *x = tg_tensors_at(f.tensors, i);
        f.bytes_of[x->dtype] += x->bytes;
        f.tensors_of[x->dtype]++;
    }
    if (status == TG_OK && !look_at_headers(&f))
        status = fail_memory(&f, err);
    if (status == TG_OK && f.spec)
        status = describe_tokenizer(f.path, f.spec->vocab, f.tokenizer, sizeof f.tokenizer, err);
    if (status == TG_OK && (set->check || set->hash))
        status = read_content(t, set, &f, err);
    if (status == TG_OK && set->hash && c)
        status = tg_checkpoint_hash(c, f.hash, err);
    if (status == TG_OK && t->set.json)
        status = tg_facts_print_json(&f, err);
    else if (status == TG_OK)
        tg_facts_print(t, &f);
    if (status == TG_OK && f.wrong)
        status = TG_EXIT_CHECK;
    tg_free((void *)f.content);
    tg_facts_release(&f);
    tg_tensors_close(files);
    tg_checkpoint_close(c);
    return status;
}

const struct tg_command tg_cmd_inspect = {
    .name = "inspect",
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .details =
        "Opens MODEL as every command does, so anything wrong with its config, its weights' "
        "headers or its\n"
        "tokenizer is reported here, with status 1. A file of tensors, or a directory of them "
        "without config.json,\n"
        "is described as what it is. Weights are not read unless asked for; NaN or infinities "
        "found by --check\n"
        "give status 3.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
