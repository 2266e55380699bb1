/* What the teacher computes for a stage's sequences, kept in a file for runs that see the same
 * ones: its hidden states [rows,width] behind the last norm, a record for each sequence at its
 * place, and behind it a checksum. What was not written whole (kill -9, no record yet) reads as
 * absent. A record is good for the machine, teacher, data and precision that made it: the owner of
 * the file sees to that. */
#ifndef TG_DISTILL_HIDDEN_H
#define TG_DISTILL_HIDDEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tg_hidden {
    int fd; /* -1: closed */
    char *path;
    size_t cells; /* floats of a sequence */
};
/* Opens or makes `path` in a directory that is there. */
int tg_hidden_open(struct tg_hidden *h, const char *path, size_t rows, size_t width,
                   struct tg_err *err);
void tg_hidden_close(struct tg_hidden *h);
/* x [rows,width] of the stage's sequence n; false if it is not there (x is then undefined) */
bool tg_hidden_get(const struct tg_hidden *h, uint64_t n, float *x);
int tg_hidden_put(const struct tg_hidden *h, uint64_t n, const float *x, struct tg_err *err);

#endif
