/* The run directory OUT.run of hybridize and distill: everything by which the same command goes on
 * after any interruption, and the settings under which it was begun. */
#ifndef TG_TOOLS_RUN_DIR_H
#define TG_TOOLS_RUN_DIR_H

#include <stdbool.h>

#include "base/status.h"

struct tg_run_dir {
    char *path;     /* "OUT.run", owned */
    char *settings; /* JSON text of run.json, owned */
    int lock;       /* -1: none */
    bool resumed;   /* it was there, with the same settings */
    bool made;      /* this process made it */
};
/* Which files come from which group of settings, in the order of dependence: a change in a group
 * makes its files and those of all later rows stale. */
struct tg_run_files {
    const char *group; /* key in run.json */
    const char *files; /* names separated by blanks */
};

/* Makes or opens OUT.run and takes its lock (another process there is an error). `settings` is a
 * JSON object of groups. A run begun with others is TG_ERR_MISMATCH naming what differs; with
 * `force` its stale files are removed and the run begins there. */
int tg_run_dir_open(struct tg_run_dir *d, const char *out, const char *settings,
                    const struct tg_run_files *files, bool force, struct tg_err *err);
void tg_run_dir_close(struct tg_run_dir *d);
/* After a failure before anything was done: removes the directory if this process made it. */
void tg_run_dir_forget(struct tg_run_dir *d);
/* Path of a file in it; caller frees */
char *tg_run_dir_file(const struct tg_run_dir *d, const char *name);

#endif
