/* A subcommand: one file tools/cmd_<name>.c that exports `const struct tg_command tg_cmd_<name>`,
 * and one row of commands.def. */
#ifndef TG_TOOLS_COMMAND_H
#define TG_TOOLS_COMMAND_H

#include "base/progress.h"
#include "base/status.h"
#include "linearize/kernels/kernels.h"
#include "tools/options.h"
#include "tools/progress.h"

enum tg_exit { TG_EXIT_DONE = 0, TG_EXIT_FAILED = 1, TG_EXIT_USAGE = 2, TG_EXIT_CHECK = 3 };

/* Options that every command has. */
struct tg_common {
    bool quiet, verbose, force, json, help;
    int64_t threads; /* 0: all processors */
    int64_t seed;
    const char *progress; /* auto, always, never */
};
extern const struct tg_option tg_common_options[];

/* What main hands to a command. */
struct tg_tool {
    struct tg_ctx ctx; /* kernels and threads */
    struct tg_common set;
    struct tg_progress_view view;
    struct tg_progress progress; /* over view; NULL function never */
    const char *command_line;    /* as run, for metadata */
    bool color;                  /* stdout is a terminal and NO_COLOR is not set */
    char **args;                 /* positional arguments, borrowed */
    size_t arg_count;
    const struct tg_parse *parse; /* which options were given */
};

enum { TG_COMMAND_GROUPS = 8 };
struct tg_command {
    const char *name;
    const char *args; /* "TEACHER OUT" as in the synopsis */
    size_t min_args, max_args;
    const char *details;  /* paragraphs after the summary in --help; NULL: none */
    size_t settings_size; /* of the struct that the groups write into */
    struct tg_option_group groups[TG_COMMAND_GROUPS]; /* ends at a group without options */
    /* TG_OK, a negative status (message in err: exit status 1), or one of enum tg_exit (message in
     * err for TG_EXIT_USAGE) */
    int (*run)(struct tg_tool *t, void *settings, struct tg_err *err);
};

struct tg_command_row {
    const struct tg_command *command;
    const char *summary;
};
extern const struct tg_command_row tg_commands[]; /* ends with command NULL */

/* Usage error found by a command: fills err and returns TG_EXIT_USAGE. */
int tg_usage(struct tg_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* True once SIGINT or SIGTERM came. */
bool tg_stop_wanted(const struct tg_tool *t);
/* A message to stderr unless -q; the progress line is cleared before. */
void tg_note(struct tg_tool *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One JSON document to standard output: _begin opens its object, _end closes it and prints. */
struct tg_json_doc_out {
    struct tg_strbuf text;
    struct tg_json_out out;
};
struct tg_json_out *tg_print_json_begin(struct tg_json_doc_out *d);
int tg_print_json_end(struct tg_json_doc_out *d, struct tg_err *err);

#define TG_COMMAND(id, summary) extern const struct tg_command tg_cmd_##id;
#include "tools/commands.def"
#undef TG_COMMAND

#endif
