/* tegu rank: what each layer's softmax is worth, by swapping each alone for an untrained window. */
#include <stdio.h>

#include "base/file.h"
#include "distill/rank.h"
#include "tools/groups.h"
#include "tools/output.h"
#include "tools/rank_view.h"
#include "tools/subject.h"

struct settings {
    struct tg_texts files;
    const char *out;
    int64_t window, tokens, length, items, pairs;
};
#define AT(field) offsetof(struct settings, field)
static const struct tg_option options[] = {
    {0, "data", TG_OPT_TEXTS, AT(files), NULL, "FILE", "text or token ids; a part of it: F@0:85%",
     0, 0, NULL, true},
    {'o', "out", TG_OPT_TEXT, AT(out), NULL, "FILE",
     "write the ranking there, for tegu plan --rank", 0, 0, NULL, false},
    {0, "window", TG_OPT_COUNT, AT(window), "64", "W", "the window that is tried", 1, 1 << 24, NULL,
     false},
    {0, "tokens", TG_OPT_COUNT, AT(tokens), "16k", "N", "tokens of text for KL", 2, 1e12, NULL,
     false},
    {0, "length", TG_OPT_COUNT, AT(length), "1024", "T", "tokens of a sequence", 2, 1 << 24, NULL,
     false},
    {0, "items", TG_OPT_COUNT, AT(items), "24", "N", "items of each recall task", 1, 1e6, NULL,
     false},
    {0, "pairs", TG_OPT_COUNT, AT(pairs), "7", "N",
     "others with which the layer that matters most is tried jointly; 0: none", 0, 4096, NULL,
     false},
    {0},
};
#undef AT

static int run(struct tg_tool *t, void *settings, struct tg_err *err)
{
    const struct settings *set = settings;
    struct tg_subject teacher = {0};
    struct tg_ids ids = {0};
    struct tg_recall_source source = {0};
    struct tg_rank rank = {0};
    struct tg_rank_settings rs = {
        .window = (size_t)set->window,
        .tokens = (size_t)set->tokens,
        .length = (size_t)set->length,
        .items = (size_t)set->items,
        .pairs = (size_t)set->pairs,
        .seed = (uint64_t)t->set.seed,
    };
    int status = set->out ? tg_output_check(t, set->out, err) : TG_OK;
    if (status == TG_OK)
        status = tg_subject_open(t, t->args[0], TG_SUBJECT_TOKENIZER, &teacher, err);
    if (status == TG_OK)
        status = tg_texts_read(&set->files, teacher.tok, teacher.model->spec.vocab, &ids, err);
    if (status == TG_OK)
        status = tg_recall_source_init(&source, teacher.tok, ids.data, ids.count, err);
    if (status == TG_OK)
        status = tg_rank_layers(teacher.model, &source, ids.data, ids.count, &rs, &rank,
                                &t->progress, err);
    if (status == TG_OK && set->out)
        status = tg_rank_save(&rank, set->out, err);
    if (status == TG_OK && t->set.json)
        status = tg_rank_print_json(&rank, err);
    else if (status == TG_OK)
        tg_rank_print(t, &rank);
    tg_rank_release(&rank);
    tg_recall_source_release(&source);
    tg_ids_release(&ids);
    tg_subject_close(&teacher);
    return status;
}

const struct tg_command tg_cmd_rank = {
    .name = "rank",
    .args = "TEACHER",
    .min_args = 1,
    .max_args = 1,
    .details =
        "Inference only. For each layer: the KL and the recall lost when only its softmax becomes "
        "a window; then the same\n"
        "for pairs of layers kept while all others become windows. Lower means safer to change.",
    .settings_size = sizeof(struct settings),
    .groups = {{options, 0}},
    .run = run,
};
