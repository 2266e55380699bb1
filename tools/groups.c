#include "tools/groups.h"

#define AT(field) offsetof(struct tg_plan_flags, field)
const struct tg_option tg_plan_flag_options[] = {
    {0, "mixer", TG_OPT_CHOICE, AT(mixer), "gated_window", "NAME", "what changed layers get", 0, 0,
     tg_choice_mixer, false},
    {0, "keep", TG_OPT_TEXT, AT(keep), "auto:2", "LAYERS",
     "layers that keep their softmax: none, a list (0,4 or 2-5, words first, middle, last), "
     "every:K, ratio:R (R changed to one kept), auto:N (the N that a ranking finds to matter most)",
     0, 0, NULL, false},
    {0, "layer", TG_OPT_TEXTS, AT(layers), NULL, "LIST=MIXER",
     "another mixer for these layers, with its options: 3,5=window,window=64; LIST as for --keep, "
     "MIXER keep: their softmax stays",
     0, 0, NULL, false},
#define SIZE(field) TG_OPT_MAYBE
#define TRUTH(field) TG_OPT_MAYBE
#define UNTRUTH(field) TG_OPT_MAYBE
#define IN_ROW(store) TG_OPT_MAYBE
#define REAL(store) TG_OPT_MAYBE_NUM
#define TG_PLAN_OPTION(id, name, flag, choice, lo, hi, has, store, meta, help)                     \
    {0, flag, store, AT(set[TG_PLAN_##id]), NULL, meta, help, lo, hi, choice, false},
#include "linearize/surgery/options.def"
#undef TG_PLAN_OPTION
    {0},
};
#undef AT

#define AT(field) offsetof(struct tg_rank_flags, field)
const struct tg_option tg_rank_options[] = {
    {0, "rank-window", TG_OPT_COUNT, AT(window), "64", "W", "ranking: the window that is tried", 1,
     1 << 24, NULL, false},
    {0, "rank-tokens", TG_OPT_COUNT, AT(tokens), "16k", "N", "ranking: tokens of text for KL", 2,
     1e12, NULL, false},
    {0, "rank-items", TG_OPT_COUNT, AT(items), "24", "N", "ranking: items of each recall task", 1,
     1e6, NULL, false},
    {0, "rank-pairs", TG_OPT_COUNT, AT(pairs), "7", "N",
     "ranking: others with which the layer that matters most is tried jointly; 0: none", 0, 4096,
     NULL, false},
    {0},
};
#undef AT

#define AT(field) offsetof(struct tg_data_flags, field)
const struct tg_option tg_data_options[] = {
    {0, "data", TG_OPT_TEXTS, AT(files), NULL, "FILE",
     "text (plain or .jsonl, each also .gz) or token ids (.npy, .safetensors); a part of it: "
     "F@0:85%",
     0, 0, NULL, false},
    {0, "length", TG_OPT_COUNT, AT(length), "1024", "T", "tokens of a sequence", 2, 1 << 24, NULL,
     false},
    {0, "recall-mix", TG_OPT_NUM, AT(recall_mix), "0.2", "X",
     "share of sequences that are generated recall text", 0, 1, NULL, false},
    {0, "sample-tokens", TG_OPT_COUNT, AT(sample_tokens), "600k", "N",
     "without --data: tokens of text to sample from the teacher", 4096, 1e12, NULL, false},
    {0},
};
#undef AT

#define AT(field) offsetof(struct tg_run_flags, field)
const struct tg_option tg_run_options[] = {
    {0, "save-every", TG_OPT_NUM, AT(save_every), "30", "SECONDS",
     "training: time between the states from which an interrupted run goes on", 0, 1e9, NULL,
     false},
    {0},
};
#undef AT

#define AT(field) offsetof(struct tg_validation, field)
const struct tg_option tg_validation_options[] = {
    {0, "suite", TG_OPT_WORDS, AT(suite), "ppl,kl,recall,generation", "LIST", "suites to run", 0, 0,
     tg_choice_suite, false},
    {0, "windows", TG_OPT_COUNT, AT(windows), "0", "N",
     "only the first N windows of the text; 0: all of it", 0, 1e9, NULL, false},
    {0, "items", TG_OPT_COUNT, AT(items), "50", "N", "items of each recall task and size", 1, 1e6,
     NULL, false},
    {0, "recall", TG_OPT_WORDS, AT(recall), "needle:256,needle:1024,kv:8,kv:32,mqar:8,mqar:32",
     "LIST",
     "recall tasks and sizes: needle (tokens of text), kv (lines), mqar (pairs), copy (words)", 0,
     0, NULL, false},
    {0, "prompts", TG_OPT_INT, AT(prompts), "8", "N", "prompts of the generation suite", 1, 10000,
     NULL, false},
    {0, "continuation", TG_OPT_INT, AT(continuation), "64", "N", "tokens that it continues each by",
     1, 100000, NULL, false},
    {0, "fail-if", TG_OPT_TEXTS, AT(fail_if), NULL, "COND",
     "exit status 3 if it holds: 'kl>0.05', 'needle.1024<0.95'; names are paths of the JSON", 0, 0,
     NULL, false},
    {0},
};
#undef AT

#define AT(field) offsetof(struct tg_validation_data, field)
const struct tg_option tg_validation_data_options[] = {
    {0, "validate-data", TG_OPT_TEXTS, AT(files), NULL, "FILE",
     "text to validate on; without it the last 5% of each training file, never trained on", 0, 0,
     NULL, false},
    {0, "validate-length", TG_OPT_COUNT, AT(length), "0", "T",
     "tokens of a window of that text; 0: as --length", 0, 1 << 24, NULL, false},
    {0},
};
#undef AT

#define AT(field) offsetof(struct tg_export_flags, field)
const struct tg_option tg_export_options[] = {
    {0, "arch", TG_OPT_CHOICE, AT(arch), "auto", "A", "what is written", 0, 0, tg_choice_arch,
     false},
    {0, "dtype", TG_OPT_CHOICE, AT(dtype), "bf16", "T", "weights as", 0, 0, tg_choice_weight_dtype,
     false},
    {0, "max-shard-size", TG_OPT_BYTES, AT(max_shard), "5G", "S",
     "weights in files of at most S bytes; 0: one file", 0, 9e15, NULL, false},
    {0},
};
#undef AT
