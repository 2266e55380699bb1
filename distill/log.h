/* log.jsonl: one JSON object a line, cut back to a known length when a run goes on. Internal to
 * distill. */
#ifndef TG_DISTILL_LOG_H
#define TG_DISTILL_LOG_H

#include "base/status.h"
#include "base/strbuf.h"

struct tg_log {
    int fd;
    char *path; /* owned */
    unsigned long long bytes;
};
/* Opens RUN/log.jsonl and cuts it to `bytes`, if it is longer. */
int tg_log_open(struct tg_log *l, const char *run_dir, unsigned long long bytes,
                struct tg_err *err);
void tg_log_close(struct tg_log *l); /* a zeroed log has fd 0: set it to -1 first */
int tg_log_write(struct tg_log *l, const struct tg_strbuf *line, struct tg_err *err);

#endif
