/* A growing string with a stated maximum. `text` is always NUL-terminated after tg_strbuf_init. */
#ifndef TG_BASE_STRBUF_H
#define TG_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct tg_strbuf {
    char *text; /* owned */
    size_t len, cap, max;
    bool failed; /* out of memory or over max: appends do nothing; check once at the end */
};

void tg_strbuf_init(struct tg_strbuf *s, size_t max);
void tg_strbuf_release(struct tg_strbuf *s);
void tg_strbuf_clear(struct tg_strbuf *s);
void tg_strbuf_add(struct tg_strbuf *s, const char *bytes, size_t n);
void tg_strbuf_puts(struct tg_strbuf *s, const char *text);
void tg_strbuf_printf(struct tg_strbuf *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
char *tg_strbuf_take(struct tg_strbuf *s); /* caller owns; NULL if failed */

#endif
