/* Draws the progress that libraries report: on a terminal a bar with rate and time left, after one
 * second and at most six times a second; elsewhere a plain line every ten seconds. */
#ifndef TG_TOOLS_PROGRESS_H
#define TG_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct tg_progress_view {
    FILE *to;
    bool silent, terminal, color;
    double (*now)(void);       /* seconds; replaced in tests */
    bool (*stop_wanted)(void); /* NULL: never */
    char phase[48];
    double phase_began, last_drawn;
    uint64_t begun_at; /* `done` at the first report of the phase: the rate counts only what this
                          process did */
    uint64_t done, total;
    char unit[24];
    bool line_open; /* a bar stands on the terminal's line */
    bool shown;     /* anything of this phase was printed */
};

void tg_progress_view_init(struct tg_progress_view *v, FILE *to, bool terminal);
/* The tg_progress_fn; ud is the view */
int tg_progress_draw(void *ud, const char *phase, uint64_t done, uint64_t total, const char *unit,
                     const char *note);
void tg_progress_clear(struct tg_progress_view *v);  /* removes an open bar, before other output */
void tg_progress_finish(struct tg_progress_view *v); /* closes the phase with its totals */

/* "1,234,567", "3m 20s" into buf */
const char *tg_thousands(double value, char *buf, size_t size);
const char *tg_duration(double seconds, char *buf, size_t size);
double tg_now(void); /* monotonic seconds */

#endif
