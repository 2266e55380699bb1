/* Status codes and error messages.
 *
 * Fallible functions return TG_OK or a negative status and take a `struct tg_err *` last. Whoever
 * detects the fault writes the whole message (file, key or tensor, value, limit); callers pass it
 * up unchanged. */
#ifndef TG_BASE_STATUS_H
#define TG_BASE_STATUS_H

enum tg_status {
    TG_OK = 0,
    TG_ERR_IO = -1,          /* the system refused: open, read, write, disk full */
    TG_ERR_FORMAT = -2,      /* a file breaks the rules of its format */
    TG_ERR_VALUE = -3,       /* a setting, key or argument is out of range or of the wrong type */
    TG_ERR_UNSUPPORTED = -4, /* well-formed, but Tegu cannot do it; the message names it */
    TG_ERR_NOMEM = -5,
    TG_ERR_EXISTS = -6,      /* an output exists and --force was not given */
    TG_ERR_MISMATCH = -7,    /* two things that must agree do not */
    TG_ERR_INTERRUPTED = -8, /* the caller asked to stop; what was begun can go on later */
};

struct tg_err {
    int code;
    char msg[1024];
};

/* Writes the message (cut at the buffer's size, never split inside a UTF-8 sequence) and returns
 * `code`. err may be NULL. */
int tg_fail(struct tg_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before an existing message; returns err's code unchanged (TG_OK if err is NULL or
 * unset). */
int tg_err_prefix(struct tg_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
