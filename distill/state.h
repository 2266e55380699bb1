/* The state of a run: RUN/state/state.safetensors, one file that appears by rename, so that there
 * is always a whole one. Position and fingerprint are in its metadata. Internal to distill. */
#ifndef TG_DISTILL_STATE_H
#define TG_DISTILL_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct tg_state_head {
    uint64_t stage, step; /* stages done; updates done in the next one */
    uint64_t tokens;      /* of the whole run */
    uint64_t log_bytes;
    double seconds;
};
struct tg_state_part {
    char name[120];
    float *data; /* [count], borrowed */
    size_t count;
};
struct tg_state_list {
    struct tg_state_part *parts; /* owned */
    size_t count, cap;
};
int tg_state_add(struct tg_state_list *l, const char *prefix, const char *name, float *data,
                 size_t count, struct tg_err *err);
void tg_state_list_release(struct tg_state_list *l);

bool tg_state_exists(const char *run_dir);
int tg_state_save(const char *run_dir, const struct tg_state_head *head, const char *fingerprint,
                  const struct tg_state_list *l, struct tg_err *err);
/* Position, after the fingerprint was found equal (else TG_ERR_MISMATCH names the first key that
 * differs). */
int tg_state_read_head(const char *run_dir, const char *fingerprint, struct tg_state_head *head,
                       struct tg_err *err);
/* Fills every part; each must be there with its count. */
int tg_state_read(const char *run_dir, const struct tg_state_list *l, struct tg_err *err);

#endif
