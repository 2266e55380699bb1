/* Numbers of a validation as a flat list of dotted paths ("recall.needle.1024.student"), in order;
 * and checks on them. */
#ifndef TG_TOOLS_RESULTS_H
#define TG_TOOLS_RESULTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/json.h"
#include "base/status.h"

struct tg_result {
    char path[88];
    double value;
};
struct tg_results {
    struct tg_result *items; /* owned */
    size_t count, cap;
};

/* Adds or replaces. The path is printf-formatted. */
int tg_results_put(struct tg_results *r, double value, struct tg_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
const struct tg_result *tg_results_find(const struct tg_results *r,
                                        const char *path);           /* exact; NULL if absent */
double tg_results_get(const struct tg_results *r, const char *path); /* NaN if absent */
void tg_results_release(struct tg_results *r);
/* Members of the JSON object that is open in `out`: dots become nesting. */
void tg_results_write_json(const struct tg_results *r, struct tg_json_out *out);
/* Appends what tg_results_write_json wrote: numbers at dotted paths below `v`. */
int tg_results_read_json(struct tg_results *r, struct tg_json v, struct tg_err *err);

/* "kl>0.05", "needle.1024<0.95": operators < <= > >=. */
struct tg_check {
    const char *text; /* borrowed */
    char name[88];
    char op[3];
    double limit;
};
/* Only the syntax: for errors before long work. */
int tg_check_parse(const char *text, struct tg_check *c, struct tg_err *err);
/* The result that the name means: its path, or else the only path that ends in ".NAME" or
 * ".NAME.student" (position buckets and the untrained student are meant by their full path alone).
 * Unknown and ambiguous names are errors. */
int tg_check_resolve(const struct tg_check *c, const struct tg_results *r,
                     const struct tg_result **found, struct tg_err *err);
/* True if the condition of failure holds; NaN fails. */
bool tg_check_fails(const struct tg_check *c, double value);

#endif
