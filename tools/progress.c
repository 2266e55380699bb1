#include "tools/progress.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REDRAWS_A_SECOND = 6, SECONDS_A_LINE = 10, PROGRESS_WIDTH = 24 };
static const double first_draw_after = 1.0;

double tg_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *tg_thousands(double value, char *buf, size_t size)
{
    char digits[40];
    int n = snprintf(digits, sizeof digits, "%.0f", value);
    size_t at = 0;
    for (int i = 0; i < n && at + 2 < size; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
            buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = 0;
    return buf;
}

const char *tg_duration(double seconds, char *buf, size_t size)
{
    if (!(seconds >= 0))
        seconds = 0;
    long s = (long)(seconds + 0.5);
    if (seconds < 10)
        snprintf(buf, size, "%.1fs", seconds);
    else if (s < 60)
        snprintf(buf, size, "%lds", s);
    else if (s < 3600)
        snprintf(buf, size, "%ldm %02lds", s / 60, s % 60);
    else
        snprintf(buf, size, "%ldh %02ldm", s / 3600, s / 60 % 60);
    return buf;
}

/* 3,000,000 as 3.0M: counts in a moving line should not change their width */
static const char *short_count(uint64_t n, char *buf, size_t size)
{
    if (n < 10000)
        snprintf(buf, size, "%llu", (unsigned long long)n);
    else if (n < 1000000)
        snprintf(buf, size, "%.1fk", (double)n / 1e3);
    else if (n < 1000000000)
        snprintf(buf, size, "%.2fM", (double)n / 1e6);
    else
        snprintf(buf, size, "%.2fG", (double)n / 1e9);
    return buf;
}

void tg_progress_view_init(struct tg_progress_view *v, FILE *to, bool terminal)
{
    memset(v, 0, sizeof *v);
    v->to = to;
    v->terminal = terminal;
    v->now = tg_now;
}

void tg_progress_clear(struct tg_progress_view *v)
{
    if (v->line_open) {
        fputs("\r\033[K", v->to);
        fflush(v->to);
        v->line_open = false;
    }
}

void tg_progress_finish(struct tg_progress_view *v)
{
    tg_progress_clear(v);
    if (v->phase[0] && v->shown && !v->silent) {
        char count[32], rate[32], time[32];
        double seconds = v->now() - v->phase_began;
        uint64_t made = v->done - v->begun_at;
        fprintf(v->to, "%s: %s %s in %s (%s %s/s)\n", v->phase,
                short_count(v->done, count, sizeof count), v->unit,
                tg_duration(seconds, time, sizeof time),
                tg_thousands(seconds > 0 ? (double)made / seconds : 0, rate, sizeof rate), v->unit);
        fflush(v->to);
    }
    v->phase[0] = 0;
    v->shown = false;
}

static void draw(struct tg_progress_view *v, double now, const char *note)
{
    char done[32], total[32], rate[32], left[32], bar[PROGRESS_WIDTH + 1];
    double seconds = now - v->phase_began;
    double per_second = seconds > 0 ? (double)(v->done - v->begun_at) / seconds : 0;
    double share = v->total ? (double)v->done / (double)v->total : 0;
    if (share > 1)
        share = 1;
    double remaining =
        per_second > 0 && v->total > v->done ? (double)(v->total - v->done) / per_second : 0;
    short_count(v->done, done, sizeof done);
    short_count(v->total, total, sizeof total);
    tg_thousands(per_second, rate, sizeof rate);
    tg_duration(remaining, left, sizeof left);
    int filled = (int)(share * PROGRESS_WIDTH);
    memset(bar, '-', PROGRESS_WIDTH);
    memset(bar, '#', (size_t)filled);
    bar[PROGRESS_WIDTH] = 0;
    const char *gap = note && note[0] ? "  " : "";
    if (v->terminal) {
        fprintf(v->to, "\r%s%-12s%s [%s] %3.0f%%  %s/%s %s  %s/s  %s left%s%s\033[K",
                v->color ? "\033[1m" : "", v->phase, v->color ? "\033[0m" : "", bar, 100 * share,
                done, total, v->unit, rate, left, gap, note ? note : "");
        v->line_open = true;
    } else {
        fprintf(v->to, "%s: %.0f%%, %s of %s %s, %s/s, %s left%s%s\n", v->phase, 100 * share, done,
                total, v->unit, rate, left, gap, note ? note : "");
    }
    fflush(v->to);
    v->last_drawn = now;
    v->shown = true;
}

int tg_progress_draw(void *ud, const char *phase, uint64_t done, uint64_t total, const char *unit,
                     const char *note)
{
    struct tg_progress_view *v = ud;
    int stop = v->stop_wanted && v->stop_wanted();
    if (v->silent)
        return stop;
    double now = v->now();
    if (strcmp(phase, v->phase) != 0 || done < v->done || total != v->total) {
        tg_progress_finish(v);
        snprintf(v->phase, sizeof v->phase, "%s", phase);
        snprintf(v->unit, sizeof v->unit, "%s", unit ? unit : "");
        v->phase_began = now;
        v->last_drawn = now;
        v->begun_at = done;
        v->total = total;
    }
    v->done = done;
    double since = now - v->last_drawn;
    bool due = v->terminal
                   ? since >= 1.0 / REDRAWS_A_SECOND && now - v->phase_began >= first_draw_after
                   : since >= SECONDS_A_LINE;
    if (due)
        draw(v, now, note);
    if (total && done >= total)
        tg_progress_finish(v);
    return stop;
}
