/* Error messages: formatted once, cut at the buffer's end without splitting a UTF-8 sequence. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A sequence cut by the buffer's end would make the message invalid UTF-8: drop its beginning too.
 */
static void trim_cut(char *s)
{
    size_t n = strlen(s), back = 0;
    while (back < 4 && back < n && ((unsigned char)s[n - 1 - back] & 0xC0) == 0x80)
        back++;
    if (back == n || back == 4)
        return;
    unsigned char lead = (unsigned char)s[n - 1 - back];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (back + 1 < want)
        s[n - 1 - back] = '\0';
}

int tg_fail(struct tg_err *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    char msg[sizeof err->msg]; /* an argument may be the old message */
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (n < 0)
        snprintf(msg, sizeof msg, "%s", fmt);
    else if ((size_t)n >= sizeof msg)
        trim_cut(msg);
    err->code = code;
    memcpy(err->msg, msg, sizeof msg);
    return code;
}

int tg_err_prefix(struct tg_err *err, const char *fmt, ...)
{
    if (!err || err->code == TG_OK)
        return TG_OK;
    char msg[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err->code;
    size_t at = strlen(msg);
    int rest = snprintf(msg + at, sizeof msg - at, ": %s", err->msg);
    if ((size_t)n >= sizeof msg || (size_t)rest >= sizeof msg - at)
        trim_cut(msg);
    memcpy(err->msg, msg, sizeof msg);
    return err->code;
}
