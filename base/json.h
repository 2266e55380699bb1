/* JSON: a checked wrapper over cJSON. Beyond cJSON it refuses duplicate keys, trailing bytes,
 * "\u0000" in strings (cJSON cuts there), invalid UTF-8, nesting over 64 and numbers out of double
 * range; it accepts bare Infinity, -Infinity and NaN only with TG_JSON_INFINITY (Python writes
 * them). Getters name the file and the key's path in their errors. */
#ifndef TG_BASE_JSON_H
#define TG_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct cJSON;

enum tg_json_flags { TG_JSON_INFINITY = 1 };

/* A value together with where it stands, for messages. Copy freely; borrows from the document. */
struct tg_json {
    const struct cJSON *node; /* NULL: absent */
    const struct tg_json_doc *doc;
};
struct tg_json_doc;

/* `name` is what messages call the document (a path); copied. */
int tg_json_parse(struct tg_json_doc **doc, const char *text, size_t len, const char *name,
                  unsigned flags, struct tg_err *err);
int tg_json_load(struct tg_json_doc **doc, const char *path, unsigned flags, struct tg_err *err);
void tg_json_free(struct tg_json_doc *doc);
struct tg_json tg_json_root(const struct tg_json_doc *doc);

bool tg_json_has(struct tg_json v); /* present and not null */
bool tg_json_is_object(struct tg_json v);
bool tg_json_is_array(struct tg_json v);
bool tg_json_is_string(struct tg_json v);
bool tg_json_is_number(struct tg_json v);
bool tg_json_is_bool(struct tg_json v);
struct tg_json tg_json_key(struct tg_json object,
                           const char *key); /* absent if missing or not an object */
size_t tg_json_count(struct tg_json v);      /* children of an array or object */
/* Children in order: for (c = tg_json_first(v); c.node; c = tg_json_next(c)) */
struct tg_json tg_json_first(struct tg_json v);
struct tg_json tg_json_next(struct tg_json child);
const char *tg_json_name(struct tg_json v);   /* the key under which it stands, or "" */
const char *tg_json_string(struct tg_json v); /* "" if not a string; borrowed */
double tg_json_number(struct tg_json v);      /* 0 if not a number */
bool tg_json_bool(struct tg_json v);          /* false if not true */
/* "key.sub[3]" into buf, for messages */
const char *tg_json_path(struct tg_json v, char *buf, size_t size);
/* The value as one line of JSON, cut at `size`, or "absent": for messages too. */
const char *tg_json_text(struct tg_json v, char *buf, size_t size);
/* The same value, whatever the order of keys? If not, *at_a and *at_b are the first parts that
 * differ; one of them may be absent. */
bool tg_json_equal(struct tg_json a, struct tg_json b, struct tg_json *at_a, struct tg_json *at_b);

/* Typed getters on an object. The value must be of the type and in [lo, hi], otherwise an error
 * that names file, path, value and limits. The _or forms leave *out as it is when the key is absent
 * or null. */
int tg_json_get_int(struct tg_json o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                    struct tg_err *err);
int tg_json_get_int_or(struct tg_json o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                       struct tg_err *err);
int tg_json_get_num(struct tg_json o, const char *key, double lo, double hi, double *out,
                    struct tg_err *err);
int tg_json_get_num_or(struct tg_json o, const char *key, double lo, double hi, double *out,
                       struct tg_err *err);
int tg_json_get_bool_or(struct tg_json o, const char *key, bool *out, struct tg_err *err);
int tg_json_get_str(struct tg_json o, const char *key, const char **out,
                    struct tg_err *err); /* borrowed */
int tg_json_get_str_or(struct tg_json o, const char *key, const char **out, struct tg_err *err);
/* Fails with "FILE: path.key: WHAT" for a rule that the getters cannot express; key "" for `o`
 * itself. Returns `code`. */
int tg_json_fail(struct tg_json o, const char *key, int code, struct tg_err *err, const char *fmt,
                 ...) __attribute__((format(printf, 5, 6)));
/* Error naming the first key of `o` that is not in the NULL-terminated list (and the nearest known
 * one). */
int tg_json_only_keys(struct tg_json o, const char *const *known, struct tg_err *err);

/* Writing: a small emitter over a strbuf; commas and escapes are its business. Numbers print with
 * the fewest digits that read back the same double; NaN and infinities are written as null. indent
 * 0: one line. */
struct tg_strbuf;
struct tg_json_out {
    struct tg_strbuf *to;
    int indent, depth;
    bool first;
};
void tg_jout_init(struct tg_json_out *j, struct tg_strbuf *to, int indent);
void tg_jout_object(struct tg_json_out *j,
                    const char *key); /* key NULL inside arrays and at the top */
void tg_jout_array(struct tg_json_out *j, const char *key);
void tg_jout_end_object(struct tg_json_out *j);
void tg_jout_end_array(struct tg_json_out *j);
void tg_jout_str(struct tg_json_out *j, const char *key, const char *value);
void tg_jout_num(struct tg_json_out *j, const char *key, double value);
/* The same for readers that tell 1.0 from 1: a whole number has a point too. */
void tg_jout_real(struct tg_json_out *j, const char *key, double value);
void tg_jout_int(struct tg_json_out *j, const char *key, int64_t value);
void tg_jout_bool(struct tg_json_out *j, const char *key, bool value);
void tg_jout_null(struct tg_json_out *j, const char *key);
void tg_jout_copy(struct tg_json_out *j, const char *key,
                  struct tg_json value); /* a parsed value, verbatim in meaning */

#endif
