#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void tg_strbuf_init(struct tg_strbuf *s, size_t max)
{
    *s = (struct tg_strbuf){.max = max};
    if (tg_grow(&s->text, &s->cap, 64, 1)) {
        s->text[0] = '\0';
        return;
    }
    s->failed = true;
}

void tg_strbuf_release(struct tg_strbuf *s)
{
    tg_free(s->text);
    *s = (struct tg_strbuf){0};
}

void tg_strbuf_clear(struct tg_strbuf *s)
{
    s->len = 0;
    s->failed = !s->text;
    if (s->text)
        s->text[0] = '\0';
}

/* Room for n more bytes and the NUL. */
static bool reserve(struct tg_strbuf *s, size_t n)
{
    size_t need;
    if (s->failed)
        return false;
    if (!tg_add_size(&need, s->len, n) || need > s->max || !tg_add_size(&need, need, 1) ||
        !tg_grow(&s->text, &s->cap, need, 1)) {
        s->failed = true;
        return false;
    }
    return true;
}

void tg_strbuf_add(struct tg_strbuf *s, const char *bytes, size_t n)
{
    if (!reserve(s, n))
        return;
    if (n)
        memcpy(s->text + s->len, bytes, n);
    s->len += n;
    s->text[s->len] = '\0';
}

void tg_strbuf_puts(struct tg_strbuf *s, const char *text)
{
    tg_strbuf_add(s, text, strlen(text));
}

void tg_strbuf_printf(struct tg_strbuf *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        s->failed = true;
        return;
    }
    if (!reserve(s, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(s->text + s->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->len += (size_t)n;
}

char *tg_strbuf_take(struct tg_strbuf *s)
{
    char *text = s->failed ? NULL : s->text;
    if (text)
        s->text = NULL;
    tg_strbuf_release(s);
    return text;
}
