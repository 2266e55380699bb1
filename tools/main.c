/* tegu: finds the command, parses its options, prepares the machine, prints its message. The only
 * file that handles signals and, beside blas_core.c, that reads the environment. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/pool.h"
#include "linearize/kernels/gemm.h"
#include "tools/blas_core.h"
#include "tools/command.h"

const struct tg_command_row tg_commands[] = {
#define TG_COMMAND(id, summary) {&tg_cmd_##id, summary},
#include "tools/commands.def"
#undef TG_COMMAND
    {NULL, NULL},
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number; /* a second one ends the program: SA_RESETHAND */
}

static void catch_signals(void)
{
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESETHAND;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN); /* a closed stdout is then a write error, seen at the end */
}

static bool signal_came(void)
{
    return stop_signal != 0;
}

static const struct tg_command_row *find_command(const char *name)
{
    for (const struct tg_command_row *r = tg_commands; r->command; r++)
        if (strcmp(r->command->name, name) == 0)
            return r;
    return NULL;
}

static size_t group_count(const struct tg_command *c)
{
    size_t n = 0;
    while (n < TG_COMMAND_GROUPS && c->groups[n].options)
        n++;
    return n;
}

static void print_overview(FILE *to)
{
    fputs("usage: tegu <command> [options] ARGS\n"
          "       tegu help [command]\n"
          "       tegu --version\n\n"
          "Turns pretrained Transformers into hybrids of softmax and linear "
          "attention.\n\ncommands:\n",
          to);
    for (const struct tg_command_row *r = tg_commands; r->command; r++)
        fprintf(to, "  %-12s %s\n", r->command->name, r->summary);
    fputs("\nExit status: 0 done, 1 failed, 2 wrong usage, 3 a check was made and did not hold.\n",
          to);
}

static void print_help(const struct tg_command_row *row)
{
    const struct tg_command *c = row->command;
    struct tg_strbuf s;
    char program[64];
    tg_strbuf_init(&s, 1 << 16);
    snprintf(program, sizeof program, "tegu %s", c->name);
    tg_options_synopsis(&s, program, c->args, c->groups, group_count(c));
    tg_strbuf_printf(&s, "\n%c%s.\n", row->summary[0] & ~32, row->summary + 1);
    if (c->details)
        tg_strbuf_printf(&s, "%s\n", c->details);
    if (group_count(c))
        tg_strbuf_puts(&s, "\noptions:\n");
    for (size_t g = 0; g < group_count(c); g++)
        tg_options_list(&s, c->groups[g].options, NULL);
    tg_strbuf_puts(&s, "\noptions of every command:\n");
    tg_options_list(&s, tg_common_options, c->groups[0].options);
    fputs(s.text, stdout);
    tg_strbuf_release(&s);
}

static int usage_failure(const char *command, const struct tg_err *err)
{
    fprintf(stderr, "tegu%s%s: %s\nTry 'tegu help%s%s'.\n", command ? " " : "",
            command ? command : "", err->msg, command ? " " : "", command ? command : "");
    return TG_EXIT_USAGE;
}

static int unknown_command(const char *word)
{
    const char *names[64];
    size_t n = 0;
    struct tg_err err = {0};
    for (; n < 64 && tg_commands[n].command; n++)
        names[n] = tg_commands[n].command->name;
    const char *near = tg_nearest(word, names, n);
    if (near)
        tg_fail(&err, TG_ERR_VALUE, "unknown command '%s': did you mean '%s'?", word, near);
    else
        tg_fail(&err, TG_ERR_VALUE, "unknown command '%s'", word);
    return usage_failure(NULL, &err);
}

/* The command line as typed, quoted where a shell would need it. */
static char *join_command_line(int argc, char **argv)
{
    struct tg_strbuf s;
    tg_strbuf_init(&s, 1 << 20);
    for (int i = 0; i < argc; i++) {
        const char *arg = i ? argv[i] : "tegu";
        bool plain = arg[0] && !arg[strcspn(arg, " \t\n'\"\\$&|;<>(){}*?[]#~`!")];
        tg_strbuf_puts(&s, i ? " " : "");
        tg_strbuf_puts(&s, plain ? "" : "'");
        for (const char *c = arg; *c; c++)
            if (*c == '\'')
                tg_strbuf_puts(&s, "'\\''");
            else
                tg_strbuf_add(&s, c, 1);
        tg_strbuf_puts(&s, plain ? "" : "'");
    }
    return tg_strbuf_take(&s);
}

static unsigned cpu_mask(struct tg_err *err)
{
    const char *text = getenv("TG_CPU_MASK");
    if (!text || !*text)
        return (unsigned)TG_CPU_ALL;
    char *end;
    unsigned long v = strtoul(text, &end, 0);
    if (*end)
        tg_fail(err, TG_ERR_VALUE,
                "TG_CPU_MASK: '%s' is not a number (0: portable, 1: AVX2, 3: AVX-512, 7: AMX)",
                text);
    return (unsigned)v;
}

static void prepare(struct tg_tool *t, struct tg_err *err)
{
    const char *no_color = getenv("NO_COLOR");
    bool color = !(no_color && *no_color);
    t->ctx.k = tg_kernels_select(cpu_mask(err));
    t->ctx.threads = t->set.threads > 0 ? (int)t->set.threads : tg_cpu_count();
    t->color = color && isatty(STDOUT_FILENO);
    bool terminal = strcmp(t->set.progress, "always") == 0 ||
                    (strcmp(t->set.progress, "auto") == 0 && isatty(STDERR_FILENO));
    tg_progress_view_init(&t->view, stderr, terminal);
    t->view.silent = t->set.quiet || strcmp(t->set.progress, "never") == 0;
    t->view.color = color;
    t->view.stop_wanted = signal_came;
    t->progress.fn = tg_progress_draw;
    t->progress.ud = &t->view;
    tg_gemm_init();
}

static int run_command(const struct tg_command_row *row, int argc, char **argv,
                       const char *command_line)
{
    const struct tg_command *c = row->command;
    struct tg_err err = {0};
    struct tg_parse parse = {0};
    struct tg_tool tool = {0};
    char *settings = tg_alloc(c->settings_size + 1);
    int status = settings ? TG_OK : tg_fail(&err, TG_ERR_NOMEM, "no memory");
    for (size_t g = 0; status == TG_OK && g < group_count(c); g++)
        status = tg_parse_add(&parse, c->groups[g].options, settings + c->groups[g].base, &err);
    if (status == TG_OK)
        status = tg_parse_add(&parse, tg_common_options, &tool.set, &err);
    if (status == TG_OK)
        status = tg_parse_argv(&parse, argc, argv, c->max_args, &err);
    if (status == TG_OK && tool.set.help) {
        print_help(row);
        goto out;
    }
    if (status == TG_OK && (parse.arg_count < c->min_args || parse.arg_count > c->max_args))
        status =
            parse.arg_count < c->min_args
                ? tg_fail(&err, TG_ERR_VALUE, "missing argument: %s", c->args)
                : tg_fail(&err, TG_ERR_VALUE, "unexpected argument '%s'", parse.args[c->max_args]);
    if (status == TG_OK)
        status = tg_parse_complete(&parse, &err);
    tool.command_line = command_line;
    tool.args = parse.args;
    tool.arg_count = parse.arg_count;
    tool.parse = &parse;
    if (status == TG_OK) {
        prepare(&tool, &err);
        status = err.code;
    }
    if (status) {
        status = usage_failure(c->name, &err);
        goto out;
    }
    status = c->run(&tool, settings, &err);
    tg_progress_clear(&tool.view);
    if (status == TG_EXIT_USAGE) {
        usage_failure(c->name, &err);
    } else if (status < 0) {
        fprintf(stderr, "tegu %s: %s\n", c->name, err.msg[0] ? err.msg : "failed");
        status = TG_EXIT_FAILED;
    }
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == TG_EXIT_DONE) {
        fprintf(stderr, "tegu %s: standard output: write failed\n", c->name);
        status = TG_EXIT_FAILED;
    }
out:
    tg_parse_release(&parse);
    tg_free(settings);
    return status;
}

int main(int argc, char **argv)
{
    tg_choose_blas_core(argv);
    if (argc < 2) {
        print_overview(stderr);
        return TG_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0) {
        printf("tegu %s\nBLAS: OpenBLAS, core %s\n", TG_VERSION, tg_gemm_core());
        return TG_EXIT_DONE;
    }
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        if (argc < 3) {
            print_overview(stdout);
            return TG_EXIT_DONE;
        }
        const struct tg_command_row *row = find_command(argv[2]);
        if (!row)
            return unknown_command(argv[2]);
        print_help(row);
        return TG_EXIT_DONE;
    }
    const struct tg_command_row *row = find_command(word);
    if (!row)
        return unknown_command(word);
    catch_signals();
    char *command_line = join_command_line(argc, argv);
    int status = run_command(row, argc - 2, argv + 2, command_line ? command_line : "tegu");
    tg_free(command_line);
    return status;
}
