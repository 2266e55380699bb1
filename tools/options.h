/* Command-line options as data. Parsing, --help, range checks, "did you mean" and the settings
 * block of reports are all derived from tables of struct tg_option; no command looks at argv. */
#ifndef TG_TOOLS_OPTIONS_H
#define TG_TOOLS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "base/maybe.h"
#include "base/status.h"
#include "base/strbuf.h"

enum tg_option_type {
    TG_OPT_FLAG,      /* bool */
    TG_OPT_TEXT,      /* const char * */
    TG_OPT_TEXTS,     /* struct tg_texts: repeatable; further values may follow each other */
    TG_OPT_WORDS,     /* struct tg_texts: one value, split at commas */
    TG_OPT_CHOICE,    /* const char *: one of choice(0), choice(1), ... */
    TG_OPT_INT,       /* int64_t, plain digits */
    TG_OPT_COUNT,     /* int64_t; k, M, G are powers of 1000: 300k, 1.5M */
    TG_OPT_BYTES,     /* int64_t; K, M, G are powers of 1024 */
    TG_OPT_NUM,       /* double */
    TG_OPT_COUNTS,    /* struct tg_counts: counts separated by commas */
    TG_OPT_MAYBE,     /* struct tg_maybe: a COUNT, or with choice the number of a name; not given
                         differs from every value */
    TG_OPT_MAYBE_NUM, /* struct tg_maybe: a NUM */
};

/* Strings are borrowed from argv (WORDS own a copy of the value); the arrays are freed by
 * tg_parse_release. */
struct tg_texts {
    const char **items;
    size_t count, cap;
    char *copy;
};
struct tg_counts {
    int64_t *items;
    size_t count, cap;
};

struct tg_option {
    char letter;      /* 0: none */
    const char *name; /* without dashes */
    enum tg_option_type type;
    size_t at;            /* offset of the target in the group's struct */
    const char *fallback; /* default, in the syntax of the command line; NULL: zeroed */
    const char *meta;     /* "FILE" */
    const char *help;
    double lo, hi;                   /* of numbers; both 0: no limits */
    const char *(*choice)(size_t i); /* names for CHOICE and WORDS; NULL at the end */
    bool required;
};
struct tg_option_group {
    const struct tg_option *options; /* ends at a row without a name */
    size_t base;                     /* offset of the group's struct in the command's settings */
};

enum { TG_PARSE_MAX = 96, TG_CHOICE_MAX = 64 };
/* The result of parsing one command line. */
struct tg_parse {
    struct {
        const struct tg_option *option;
        void *target;
        bool given;
    } slot[TG_PARSE_MAX];
    size_t slots;
    char **args; /* positional, array owned */
    size_t arg_count;
};

/* Registers a table with its target struct; targets get their defaults at once. A name already
 * registered hides later ones. */
int tg_parse_add(struct tg_parse *p, const struct tg_option *options, void *target,
                 struct tg_err *err);
/* argv[0..argc) after the command's name. Positional arguments beyond max_args go to the last TEXTS
 * option seen, so that
 * `--data A B` works. Errors are usage errors. */
int tg_parse_argv(struct tg_parse *p, int argc, char **argv, size_t max_args, struct tg_err *err);
/* Error if a required option is missing. */
int tg_parse_complete(const struct tg_parse *p, struct tg_err *err);
bool tg_parse_given(const struct tg_parse *p, const char *name);
/* Slot of an option; -1 if it is not registered */
long tg_parse_find(const struct tg_parse *p, const char *name);
/* All options with their values as one JSON object. */
void tg_parse_write_json(const struct tg_parse *p, struct tg_json_out *out, const char *key);
void tg_parse_release(struct tg_parse *p);

/* One value in the syntax of an option, into its target: also for recipes. `name` begins the
 * message. */
int tg_option_set(const struct tg_option *o, void *target, const char *value, const char *name,
                  struct tg_err *err);

/* Help: "usage:" block with every option, wrapped; then the option list. */
void tg_options_synopsis(struct tg_strbuf *s, const char *program, const char *args,
                         const struct tg_option_group *groups, size_t count);
/* Rows of `options` whose names are not among `hidden` (NULL: none hidden) */
void tg_options_list(struct tg_strbuf *s, const struct tg_option *options,
                     const struct tg_option *hidden);

/* "1.5M" -> 1500000 (base 1000) or K = 1024 (base 1024). false: not a number of that kind. */
bool tg_parse_count(const char *text, int base, double *out);
/* The nearest of words to `word`, or NULL if none is near. */
const char *tg_nearest(const char *word, const char *const *words, size_t count);

/* Names of registries, for choice */
const char *tg_choice_mixer(size_t i);
const char *tg_choice_suite(size_t i);
const char *tg_choice_weight_dtype(size_t i);
const char *
tg_choice_arch(size_t i); /* of --arch: auto, tegu, and the targets that are directories */
const char *tg_choice_any_arch(size_t i); /* the same with GGUF files */
const char *tg_choice_progress(size_t i);

#endif
